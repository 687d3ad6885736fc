"""Annotations of images, and labelings packed to little memory."""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skmmcrf._typing import BoolArray, FloatArray, IntArray, LabelArray

#: The label of unlabelled pixels in `Annotation.mask`.
UNLABELLED = 255


class Annotation:
    """The known labels of one image, and the cost of errors. It is immutable.

    It is packed, bool to one bit a pixel, and compressed. Each property unpacks it anew.

    Parameters
    ----------
    truth : ndarray of bool or uint8 and shape (H, W)
        y_n: True in the foreground, or the labels 0 to K - 1 of several classes. It may have any number of dimensions.
    labelled : ndarray of bool and shape (H, W), optional
        Where the truth is known. Everywhere by default.
    weight : float, default=1.0
        The weight of the image.
    class_weight : tuple of float, default=(1.0, 1.0)
        The weights of a pixel of each class, one for each of the K labels.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        Of the truth and of the labelings that it is held against: bool or uint8.
    weight : float
    class_weight : tuple of float

    Raises
    ------
    ValueError
        If the shapes differ. If a known label is not one of the K.
    TypeError
        If the truth is neither of bool nor of uint8.

    Examples
    --------
    >>> import numpy as np
    >>> truth, labelled = np.array([[True, False, False]]), np.array([[True, True, False]])
    >>> annotation = Annotation(truth, labelled, class_weight=(1.0, 3.0))
    >>> annotation.pixel_weights
    array([[3., 1., 0.]])
    >>> annotation.loss(np.array([[False, False, True]]))
    3.0
    >>> annotation.mask
    array([[  1,   0, 255]], dtype=uint8)

    Three classes:

    >>> annotation = Annotation(np.array([[2, 0, 1]], np.uint8), labelled, class_weight=(1.0, 1.0, 4.0))
    >>> annotation.pixel_weights
    array([[4., 1., 0.]])
    """

    def __init__(
        self,
        truth: LabelArray,
        labelled: BoolArray | None = None,
        *,
        weight: float = 1.0,
        class_weight: tuple[float, ...] = (1.0, 1.0),
    ) -> None:
        if truth.dtype not in (bool, np.uint8):
            raise TypeError(f"truth must be of bool or uint8, got {truth.dtype}")
        if labelled is not None and labelled.shape != truth.shape:
            raise ValueError(f"labelled must have the shape of truth, {truth.shape}, got {labelled.shape}")
        if labelled is not None and labelled.all():
            labelled = None
        if labelled is not None:
            truth = truth * labelled
        if truth.max(initial=0) >= len(class_weight):
            raise ValueError(
                f"truth must hold the labels 0 to {len(class_weight) - 1}, one for each entry of class_weight, got "
                f"{truth.max()}"
            )
        self.shape = truth.shape
        self.dtype = truth.dtype
        self.weight = weight
        self.class_weight = class_weight
        self._truth = pack_labeling(truth)
        self._labelled = None if labelled is None else pack_labeling(labelled)

    @property
    def truth(self) -> LabelArray:
        """y_n, ndarray of shape (H, W). Unlabelled pixels have label 0, or what `completed` was given."""
        return unpack_labelings([self._truth], self.shape, self.dtype)[0]

    @property
    def labelled(self) -> BoolArray:
        """Where the truth is known, ndarray of bool and shape (H, W)."""
        if self._labelled is None:
            return np.ones(self.shape, dtype=bool)
        return unpack_labelings([self._labelled], self.shape)[0]

    @property
    def n_labels(self) -> int:
        """K, the number of classes."""
        return len(self.class_weight)

    @property
    def is_fully_labelled(self) -> bool:
        """Whether the truth is known everywhere."""
        return self._labelled is None

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The labels as in a mask file, ndarray of uint8 and shape (H, W): 0 to K - 1, or `UNLABELLED`."""
        return np.where(self.labelled, self.truth, UNLABELLED).astype(np.uint8)

    @property
    def pixel_weights(self) -> FloatArray:
        """The cost of a wrong label, ndarray of float64 and shape (H, W). 0 where the truth is not known."""
        weights = np.take(np.array(self.class_weight, dtype=float), self.truth.view(np.uint8))
        return weights if self.is_fully_labelled else weights * self.labelled

    @property
    def margin(self) -> FloatArray:
        """The loss of label 1 less that of label 0, of two classes, ndarray of float64 and shape (H, W)."""
        return np.where(self.truth, -1.0, 1.0) * self.pixel_weights

    def loss(self, labels: LabelArray) -> float:
        """Give Delta(y_n, y) of a labeling (H, W), the Hamming distance weighted by `pixel_weights`."""
        truth = self.truth
        wrong = labels != truth
        if not self.is_fully_labelled:
            wrong &= self.labelled
        counts = _counts(truth[wrong], self.n_labels).tolist()
        return float(sum(weight * n for weight, n in zip(self.class_weight, counts)))

    def weighted(self, weight: float, class_weight: tuple[float, ...]) -> "Annotation":
        """Give the same labels with other weights of the image and of the classes."""
        return self._changed(weight=weight, class_weight=class_weight)

    def completed(self, labels: LabelArray) -> "Annotation":
        """Give the same annotation with a truth that has these labels (H, W) at the unlabelled pixels.

        They stay unlabelled: `labelled`, `mask` and `pixel_weights` are as before.
        """
        return self._changed(_truth=pack_labeling(np.where(self.labelled, self.truth, labels)))

    def _changed(self, **attributes: object) -> "Annotation":
        changed = object.__new__(Annotation)
        vars(changed).update({**vars(self), **attributes})
        return changed


def pack_labeling(labels: LabelArray) -> bytes:
    """Pack a labeling, of bool to one bit a pixel, and compress it. Equal labels of a dtype give equal bytes.

    Examples
    --------
    >>> import numpy as np
    >>> unpack_labelings([pack_labeling(np.array([[True, False]]))], (1, 2))
    array([[[ True, False]]])
    """
    return zlib.compress((np.packbits(labels) if labels.dtype == bool else labels).tobytes())


def unpack_labelings(packed: Sequence[bytes], shape: tuple[int, ...], dtype: DTypeLike = bool) -> Any:
    """Unpack labelings of one shape, to an ndarray of bool or uint8 and shape (len(packed), *shape)."""
    n_pixels = int(np.prod(shape))
    numbers = np.frombuffer(b"".join(map(zlib.decompress, packed)), dtype=np.uint8)
    if np.dtype(dtype) != bool:
        return numbers.reshape(len(packed), *shape).copy()  # what is read from bytes can't be written to
    rows = numbers.reshape(len(packed), -(-n_pixels // 8))
    return np.unpackbits(rows, axis=1, count=n_pixels).reshape(-1, *shape).astype(bool)


def balanced_class_weight(annotations: Iterable[Annotation], bounds: tuple[float, float]) -> tuple[float, ...]:
    """Give weights under which all classes count the same in sum, and a pixel counts 1 in the mean.

    The weights are within the bounds. Classes that no pixel has are left out, and have weight 1.0.

    Examples
    --------
    >>> import numpy as np
    >>> balanced_class_weight([Annotation(np.array([[True, False, False, False]]))], bounds=(1e-4, 1e4))
    (0.6666666666666666, 2.0)
    """
    of_images = [a.weight * _counts(a.truth[a.labelled], a.n_labels) for a in annotations]
    counts = np.sum(of_images, axis=0) if of_images else np.zeros(2)
    weights = np.ones(len(counts))
    exists = counts > 0
    np.divide(counts.sum(), exists.sum() * counts, out=weights, where=exists)
    return tuple(np.clip(weights, *bounds).tolist())


def likeliest_labels(unary: FloatArray) -> LabelArray:
    """Give the labels of an image that a network alone finds, by log-odds (H, W) or scores (K, H, W).

    Examples
    --------
    >>> import numpy as np
    >>> likeliest_labels(np.array([[-1.0, 2.0]])), likeliest_labels(np.array([[[0.5]], [[0.0]], [[0.7]]]))
    (array([[False,  True]]), array([[2]], dtype=uint8))
    """
    return unary > 0 if unary.ndim == 2 else unary.argmax(axis=0).astype(np.uint8)


def _counts(labels: LabelArray, n_labels: int) -> IntArray:
    """Count the pixels of each label, (n_labels,)."""
    return np.bincount(labels.ravel(), minlength=n_labels)
