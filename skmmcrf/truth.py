"""What is known of the labels of an image: which pixels are foreground, which are unlabelled, and what each counts."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray

#: The label of unlabelled pixels in `Truth.labels`.
UNLABELLED = 255


class Truth:
    """The truth of one image, packed to one bit a pixel and compressed.

    Parameters
    ----------
    foreground : ndarray of bool and shape (H, W)
        y_n.
    labelled : ndarray of bool and shape (H, W), optional
        Where the truth is known; everywhere by default.
    weight : float, default=1.0
        What the image counts.
    class_weight : tuple of float, default=(1.0, 1.0)
        What a pixel of the background and of the foreground counts.

    Attributes
    ----------
    shape : tuple of int

    Examples
    --------
    >>> import numpy as np
    >>> truth = Truth(np.array([[True, False, False]]), np.array([[True, True, False]]), class_weight=(1.0, 3.0))
    >>> truth.pixel_weights
    array([[3., 1., 0.]])
    >>> truth.labels
    array([[  1,   0, 255]], dtype=uint8)
    """

    def __init__(
        self,
        foreground: BoolArray,
        labelled: BoolArray | None = None,
        *,
        weight: float = 1.0,
        class_weight: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        if labelled is not None and labelled.shape != foreground.shape:
            raise ValueError(f"labelled must have the shape of foreground, {foreground.shape}, got {labelled.shape}")
        self.shape = foreground.shape
        self.weight = weight
        self.class_weight = class_weight
        if labelled is None or labelled.all():
            self._foreground, self._labelled = pack_labeling(foreground), None
        else:
            self._foreground, self._labelled = pack_labeling(foreground & labelled), pack_labeling(labelled)

    @property
    def foreground(self) -> BoolArray:
        """Array of bool and shape (H, W); at unlabelled pixels what `complete` said last, background before."""
        return self._unpacked(self._foreground)

    @property
    def labelled(self) -> BoolArray:
        """Array of bool and shape (H, W)."""
        return np.ones(self.shape, dtype=bool) if self._labelled is None else self._unpacked(self._labelled)

    @property
    def is_complete(self) -> bool:
        """Whether all pixels are labelled."""
        return self._labelled is None

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Array of uint8 and shape (H, W): 0, 1, or `UNLABELLED`."""
        return np.where(self.labelled, self.foreground, UNLABELLED).astype(np.uint8)

    @property
    def pixel_weights(self) -> FloatArray:
        """Array of float and shape (H, W): what a wrong label costs, 0 where the truth is unknown."""
        weights = np.where(self.foreground, self.class_weight[1], self.class_weight[0])
        return weights if self.is_complete else weights * self.labelled

    def complete(self, labels: BoolArray) -> None:
        """Take the labels of unlabelled pixels from a labeling, array of bool and shape (H, W)."""
        self._foreground = pack_labeling(np.where(self.labelled, self.foreground, labels))

    def _unpacked(self, packed: bytes) -> BoolArray:
        return unpack_labelings([packed], self.shape)[0]


def pack_labeling(labels: BoolArray) -> bytes:
    """Pack a labeling to one bit a pixel, compressed.

    Parameters
    ----------
    labels : ndarray of bool

    Returns
    -------
    bytes

    Examples
    --------
    >>> import numpy as np
    >>> unpack_labelings([pack_labeling(np.array([[True, False]]))], (1, 2))
    array([[[ True, False]]])
    """
    return zlib.compress(np.packbits(labels).tobytes())


def unpack_labelings(packed: Sequence[bytes], shape: tuple[int, ...]) -> BoolArray:
    """Unpack labelings of one shape.

    Parameters
    ----------
    packed : list of bytes
    shape : tuple of int

    Returns
    -------
    ndarray of bool and shape (len(packed), *shape)
    """
    n_pixels = int(np.prod(shape))
    bits = np.frombuffer(b"".join(map(zlib.decompress, packed)), dtype=np.uint8)
    rows = bits.reshape(len(packed), -(-n_pixels // 8))
    return np.unpackbits(rows, axis=1, count=n_pixels).reshape(-1, *shape).astype(bool)


def balanced_class_weight(truths: Sequence[Truth]) -> tuple[float, float]:
    """Weights under which all background counts as much as all foreground, and a pixel counts 1 in the mean.

    Parameters
    ----------
    truths : sequence of Truth

    Returns
    -------
    tuple of float
        Of the background and of the foreground; 1.0 for both where either is missing.

    Examples
    --------
    >>> import numpy as np
    >>> balanced_class_weight([Truth(np.array([[True, False, False, False]]))])
    (0.6666666666666666, 2.0)
    """
    counts = np.zeros(2)
    for truth in truths:
        foreground, labelled = truth.foreground, truth.labelled
        counts += truth.weight * np.array([(labelled & ~foreground).sum(), (labelled & foreground).sum()])
    if not counts.all():
        return 1.0, 1.0
    background, foreground = counts.sum() / (2 * counts)
    return float(background), float(foreground)
