"""The pairwise terms of the energy (4): the cost of cutting an edge, without d_e and the learned weight.

A term has one method, `row`, which gives one number an edge, a factor from 0 to 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from skmmcrf._shown import shown
from skmmcrf._typing import FloatArray
from skmmcrf.field.grid import Grid

_LARGEST = float(np.finfo(float).max)

#: The names that the parameter `pairwise` of the estimators takes.
PAIRWISE = ("smoothness", "contrast")


class Term(Protocol):
    """The interface of a pairwise term."""

    def row(self, grid: Grid, image: np.ndarray) -> FloatArray | float:
        """Give one factor an edge of an image (H, W, channels), in the order of `Grid.edges`, or one for all edges."""


@dataclass(frozen=True)
class Smoothness:
    """The smoothness term, d_e: the cost of a cut edge depends only on its length. Its weight is w2.

    Examples
    --------
    >>> import numpy as np
    >>> Smoothness().row(Grid.from_connectivity(8), np.zeros((1, 2, 1)))
    1.0
    """

    def row(self, grid: Grid, image: np.ndarray) -> float:
        """Give 1.0 for all edges."""
        return 1.0


@dataclass(frozen=True)
class Contrast:
    """The contrast term, ``d_e exp(-|x_i - x_j|^2 / (2 sigma^2))``: edges of the image are cheap to cut.

    Parameters
    ----------
    sigma : float
        Deviation, in units of pixels scaled to [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> Contrast(sigma=0.5).row(Grid.from_connectivity(4), np.array([[[0.0], [0.5]]])).round(2)
    array([0.61])
    """

    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")

    def row(self, grid: Grid, image: np.ndarray) -> FloatArray:
        """Give the factor of each edge, without d_e."""
        precision = min(0.5 / float(self.sigma) / float(self.sigma), _LARGEST)  # the square of a small sigma may be 0
        row = squared_contrast(grid, image)
        with np.errstate(over="ignore"):
            row *= -precision
        return np.exp(row, out=row)


def build_terms(pairwise: str, sigma: float | None = None) -> tuple[Term, ...]:
    """Make the terms that the parameter `pairwise` of the estimators names.

    Parameters
    ----------
    pairwise : {"smoothness", "contrast"}
        The smoothness term alone, or both terms of the paper's (4).
    sigma : float, optional
        The deviation of the contrast term.

    Returns
    -------
    tuple of Term

    Raises
    ------
    ValueError
        If the name is unknown. If sigma is missing or not positive.

    Examples
    --------
    >>> build_terms("contrast", sigma=0.1)
    (Smoothness(), Contrast(sigma=0.1))
    """
    if pairwise == "smoothness":
        return (Smoothness(),)
    if pairwise != "contrast":
        raise ValueError(f"pairwise must be one of {', '.join(map(repr, PAIRWISE))}, got {shown(pairwise)}")
    if sigma is None:
        raise ValueError('sigma is missing: the terms of pairwise="contrast" need one')
    return Smoothness(), Contrast(float(sigma))


def scale_image(image: np.ndarray) -> NDArray[np.float32]:
    """Scale an image of bool, uint8 or uint16 to [0, 1], as float32. Floats are converted without scaling.

    Raises
    ------
    ValueError
        If the image is of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> scale_image(np.array([0, 51, 255], dtype=np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    if image.dtype.kind not in "buf":
        raise ValueError(f"image must be of bool, uint8, uint16 or float, got {image.dtype}")
    scaled = image.astype(np.float32)
    if image.dtype.kind == "u":
        scaled /= np.iinfo(image.dtype).max
    return scaled


def squared_contrast(grid: Grid, image: np.ndarray) -> NDArray[np.float64]:
    """Give the squared difference of both pixels of each edge, summed over channels, ``|x_i - x_j|^2``.

    Parameters
    ----------
    grid : Grid
    image : ndarray of shape (H, W, channels)
        Of a dtype that `scale_image` takes, which scales it.

    Returns
    -------
    ndarray of float64 and shape (n_edges,)
        In the order of `Grid.edges`.

    Raises
    ------
    ValueError
        If the image has another number of dimensions. If it has no pixel or channel.
    """
    if image.ndim != grid.ndim + 1 or not image.size:
        raise ValueError(f"image must have {grid.ndim} dimensions and channels, none of them 0, got {image.shape}")
    pixels = image if image.dtype.kind == "f" else scale_image(image)
    # slices of a channel in one piece of memory are faster than going by the numbers of the pixels
    channels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), dtype=float)
    contrasts: list[Any] = [0.0] * len(grid.offsets)
    for channel in channels:
        for n, (first, second) in enumerate(grid.pairs(channel)):
            contrasts[n] = contrasts[n] + np.square(first - second)
    return np.concatenate([contrast.ravel() for contrast in contrasts])


def estimate_sigma(grid: Grid, images: Iterable[np.ndarray], weights: Iterable[float]) -> float:
    """Give the root mean square of ``|x_i - x_j|`` over the neighbouring pixels of all images.

    Parameters
    ----------
    grid : Grid
    images : iterable of ndarray of shape (H, W, channels)
        See `squared_contrast`.
    weights : iterable of float
        The weights of each image's edges, not negative.

    Returns
    -------
    float
        1.0 if no two neighbours differ, because sigma then has no effect.
    """
    total = count = 0.0
    for image, weight in zip(images, weights, strict=True):
        contrast = squared_contrast(grid, image)
        total += weight * contrast.sum()
        count += weight * contrast.size
    return float(np.sqrt(total / count)) if total > 0 else 1.0
