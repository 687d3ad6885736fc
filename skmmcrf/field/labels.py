"""Annotations of images, and labelings packed to little memory."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray

#: The label of unlabelled pixels in `Annotation.mask`.
UNLABELLED = 255


class Annotation:
    """The known labels of one image, and the cost of errors. It is immutable.

    It is packed to one bit a pixel and compressed. Each property unpacks it anew.

    Parameters
    ----------
    truth : ndarray of bool and shape (H, W)
        y_n, True in the foreground. It may have any number of dimensions.
    labelled : ndarray of bool and shape (H, W), optional
        Where the truth is known. Everywhere by default.
    weight : float, default=1.0
        The weight of the image.
    class_weight : tuple of float, default=(1.0, 1.0)
        The weights of a background and of a foreground pixel.

    Attributes
    ----------
    shape : tuple of int
    weight : float
    class_weight : tuple of float

    Raises
    ------
    ValueError
        If the shapes differ.

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
    """

    def __init__(
        self,
        truth: BoolArray,
        labelled: BoolArray | None = None,
        *,
        weight: float = 1.0,
        class_weight: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        if labelled is not None and labelled.shape != truth.shape:
            raise ValueError(f"labelled must have the shape of truth, {truth.shape}, got {labelled.shape}")
        self.shape = truth.shape
        self.weight = weight
        self.class_weight = class_weight
        if labelled is None or labelled.all():
            self._truth, self._labelled = pack_labeling(truth), None
        else:
            self._truth, self._labelled = pack_labeling(truth & labelled), pack_labeling(labelled)

    @property
    def truth(self) -> BoolArray:
        """y_n, ndarray of bool and shape (H, W). Unlabelled pixels are background, or what `completed` was given."""
        return self._unpacked(self._truth)

    @property
    def labelled(self) -> BoolArray:
        """Where the truth is known, ndarray of bool and shape (H, W)."""
        return np.ones(self.shape, dtype=bool) if self._labelled is None else self._unpacked(self._labelled)

    @property
    def is_fully_labelled(self) -> bool:
        """Whether the truth is known everywhere."""
        return self._labelled is None

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The labels as in a mask file, ndarray of uint8 and shape (H, W): 0, 1, or `UNLABELLED`."""
        return np.where(self.labelled, self.truth, UNLABELLED).astype(np.uint8)

    @property
    def pixel_weights(self) -> FloatArray:
        """The cost of a wrong label, ndarray of float64 and shape (H, W). 0 where the truth is not known."""
        return np.abs(self.margin)

    @property
    def margin(self) -> FloatArray:
        """The loss of label 1 less that of label 0, ndarray of float64 and shape (H, W)."""
        margin = np.where(self.truth, -self.class_weight[1], self.class_weight[0])
        return margin if self.is_fully_labelled else margin * self.labelled

    def loss(self, labels: BoolArray) -> float:
        """Give Delta(y_n, y) of a labeling (H, W) of bool, the Hamming distance weighted by `pixel_weights`."""
        truth = self.truth
        wrong = labels != truth
        if not self.is_fully_labelled:
            wrong &= self.labelled
        missed = np.count_nonzero(wrong & truth)
        background, foreground = self.class_weight
        return float(background * (np.count_nonzero(wrong) - missed) + foreground * missed)

    def weighted(self, weight: float, class_weight: tuple[float, float]) -> "Annotation":
        """Give the same labels with other weights of the image and of the classes."""
        return self._changed(weight=weight, class_weight=class_weight)

    def completed(self, labels: BoolArray) -> "Annotation":
        """Give the same annotation with a truth that has these labels (H, W), of bool, at the unlabelled pixels.

        They stay unlabelled: `labelled`, `mask` and `pixel_weights` are as before.
        """
        return self._changed(_truth=pack_labeling(np.where(self.labelled, self.truth, labels)))

    def _changed(self, **attributes: object) -> "Annotation":
        changed = object.__new__(Annotation)
        vars(changed).update({**vars(self), **attributes})
        return changed

    def _unpacked(self, packed: bytes) -> BoolArray:
        return unpack_labelings([packed], self.shape)[0]


def pack_labeling(labels: BoolArray) -> bytes:
    """Pack a labeling to one bit a pixel, and compress it. Equal labels give equal bytes.

    Examples
    --------
    >>> import numpy as np
    >>> unpack_labelings([pack_labeling(np.array([[True, False]]))], (1, 2))
    array([[[ True, False]]])
    """
    return zlib.compress(np.packbits(labels).tobytes())


def unpack_labelings(packed: Sequence[bytes], shape: tuple[int, ...]) -> BoolArray:
    """Unpack labelings of one shape, to an ndarray of bool and shape (len(packed), *shape)."""
    n_pixels = int(np.prod(shape))
    bits = np.frombuffer(b"".join(map(zlib.decompress, packed)), dtype=np.uint8)
    rows = bits.reshape(len(packed), -(-n_pixels // 8))
    return np.unpackbits(rows, axis=1, count=n_pixels).reshape(-1, *shape).astype(bool)


def balanced_class_weight(annotations: Iterable[Annotation], bounds: tuple[float, float]) -> tuple[float, float]:
    """Give weights under which all background counts as much as all foreground, and a pixel counts 1 in the mean.

    The weights of background and foreground are within the bounds. Both are 1.0 if either class is missing.

    Examples
    --------
    >>> import numpy as np
    >>> balanced_class_weight([Annotation(np.array([[True, False, False, False]]))], bounds=(1e-4, 1e4))
    (0.6666666666666666, 2.0)
    """
    counts = np.zeros(2)
    for annotation in annotations:
        truth, labelled = annotation.truth, annotation.labelled
        counts += annotation.weight * np.array([(labelled & ~truth).sum(), (labelled & truth).sum()])
    if not counts.all():
        return 1.0, 1.0
    background, foreground = np.clip(counts.sum() / (2 * counts), *bounds)
    return float(background), float(foreground)
