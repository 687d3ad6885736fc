"""The energy of a labeling, E(y, x; w) = w . psi(y): the pixel grid, its contrast, and psi. Equations (2)-(4).

Pixels are counted in C order, so images may have any number of dimensions. The pairs of neighbours are a plain list of
edges, and every pairwise term is one number an edge: other neighbourhoods or terms need no other code than their own.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import product
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray, IntArray

_LARGEST = float(np.finfo(float).max)


@lru_cache(maxsize=4)
def grid_edges(shape: tuple[int, ...], connectivity: int = 8) -> tuple[NDArray[np.int32], FloatArray]:
    """Pairs of neighbouring pixels, each counted once.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image; any number of dimensions.
    connectivity : int, default=8
        Neighbours of an inner pixel: 4 or 8 in two dimensions, 6 or 26 in three.

    Returns
    -------
    edges : ndarray of int32 and shape (2, n_edges)
        The numbers of both pixels.
    distance_weights : ndarray of float and shape (n_edges,)
        d_ij, one over their distance: 1, or 1/sqrt(2) on a diagonal.

    Raises
    ------
    ValueError
        If there is no such neighbourhood, or no pixel.

    Examples
    --------
    >>> grid_edges((2, 2), connectivity=4)[0]
    array([[0, 2, 0, 1],
           [1, 3, 2, 3]], dtype=int32)
    """
    if not (shape and all(isinstance(n, Integral) and n > 0 for n in shape)):
        raise ValueError(f"shape must hold positive integers, got {shape}")
    offsets = _offsets(len(shape), connectivity)
    pixels = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    pairs = [_shifted(pixels, offset) for offset in offsets]
    edges = np.stack([np.concatenate([np.ravel(pixel) for pixel in ends]) for ends in zip(*pairs)])
    distances = np.linalg.norm(offsets, axis=1)
    distance_weights = np.repeat(1 / distances, [first.size for first, _ in pairs])
    # shared by every caller through the cache
    edges.flags.writeable = distance_weights.flags.writeable = False
    return edges, distance_weights


@cache
def _offsets(ndim: int, connectivity: int) -> list[tuple[int, ...]]:
    """One of each pair of opposite offsets to the neighbours: those after the origin."""
    offsets = [offset for offset in product((-1, 0, 1), repeat=ndim) if offset > (0,) * ndim]
    if connectivity == 2 * ndim:
        return [offset for offset in offsets if np.abs(offset).sum() == 1]
    if connectivity == 3**ndim - 1:
        return offsets
    raise ValueError(f"connectivity must be {2 * ndim} or {3**ndim - 1}, got {connectivity!r}")


def _shifted(pixels: NDArray[Any], offset: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The pixels that have a neighbour at an offset, and those neighbours; views."""
    first = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, pixels.shape))
    second = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, pixels.shape))
    return pixels[first], pixels[second]


def scale_image(image: np.ndarray) -> NDArray[np.float32]:
    """Scale an image to [0, 1] by its dtype.

    Parameters
    ----------
    image : ndarray of bool, uint8, uint16 or float
        The pixels; floats are taken as they are.

    Returns
    -------
    ndarray of float32
        The image, same shape.

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


def squared_contrast(image: np.ndarray, connectivity: int = 8) -> NDArray[np.float64]:
    """Squared difference of both pixels of each edge, summed over channels, ``|x_i - x_j|^2``.

    Parameters
    ----------
    image : ndarray of float and shape (H, W, channels)
        Pixels scaled to [0, 1], or of another dtype, to be scaled by `scale_image`.
    connectivity : int, default=8

    Returns
    -------
    ndarray of float64 and shape (n_edges,)
        In the order of `grid_edges`.

    Examples
    --------
    >>> import numpy as np
    >>> squared_contrast(np.array([[[0.0], [0.5]]]))
    array([0.25])
    """
    # a channel at a time, in one piece of memory; slices are faster than going by the numbers of the pixels
    if image.ndim < 2 or not image.size:
        raise ValueError(f"image must be of shape (H, W, channels), none of them 0, got {image.shape}")
    pixels = image if image.dtype.kind == "f" else scale_image(image)
    channels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), dtype=float)
    contrasts = []
    for offset in _offsets(image.ndim - 1, connectivity):
        contrast: Any = 0.0
        for channel in channels:
            first, second = _shifted(channel, offset)
            contrast += np.square(first - second)
        contrasts.append(contrast.ravel())
    return np.concatenate(contrasts)


def estimate_sigma(
    images: Sequence[np.ndarray], connectivity: int = 8, weights: Sequence[float] | FloatArray | None = None
) -> float:
    """Root mean square of ``|x_i - x_j|`` over the neighbouring pixels of all images.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    connectivity : int, default=8
    weights : sequence of float, optional
        What the pairs of each image count.

    Returns
    -------
    float
        1.0 if no two neighbours differ, where no sigma makes a difference.

    Examples
    --------
    >>> import numpy as np
    >>> estimate_sigma([np.array([[[0.0], [0.5]]])])
    0.5
    """
    total = count = 0.0
    weights = np.ones(len(images)) if weights is None else np.asarray(weights, dtype=float)
    if weights.shape != (len(images),) or not (weights >= 0).all():
        raise ValueError(f"weights must be {len(images)} numbers, one an image and none negative, got {weights}")
    for image, weight in zip(images, weights):
        contrast = squared_contrast(image, connectivity)
        total += weight * contrast.sum()
        count += weight * contrast.size
    return float(np.sqrt(total / count)) if total > 0 else 1.0


def pairwise_features(image: np.ndarray, *, connectivity: int, sigma: float) -> tuple[IntArray, FloatArray]:
    """Edges of an image and what the pairwise weights w2 and w3 multiply on them, (4).

    Parameters
    ----------
    image : ndarray and shape (H, W, channels)
        See `squared_contrast`.
    connectivity : int
    sigma : float
        Deviation of the contrast term, in units of the pixels.

    Returns
    -------
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float64 and shape (2, n_edges)
        ``d_ij`` and ``d_ij exp(-|x_i - x_j|^2 / (2 sigma^2))``.

    Examples
    --------
    >>> import numpy as np
    >>> pairwise_features(np.array([[[0.0], [0.5]]]), connectivity=4, sigma=0.5)[1].round(2)
    array([[1.  ],
           [0.61]])
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    contrast = squared_contrast(image, connectivity)
    edges, distance_weights = grid_edges(image.shape[:-1], connectivity)
    features = np.empty((2, edges.shape[1]))
    features[0] = distance_weights
    precision = min(0.5 / float(sigma) / float(sigma), _LARGEST)  # the square of a small sigma would be 0
    with np.errstate(over="ignore"):
        np.multiply(contrast, -precision, out=features[1])
    np.exp(features[1], out=features[1])
    features[1] *= distance_weights
    return edges, features


def joint_feature(labels: BoolArray, log_odds: FloatArray, edges: IntArray, features: FloatArray) -> FloatArray:
    """The vector psi(y) of which the energy is w . psi(y), (2).

    Parameters
    ----------
    labels : ndarray of bool and shape (H, W)
    log_odds : ndarray of float and shape (H, W)
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float and shape (n_features, n_edges)

    Returns
    -------
    ndarray of float64 and shape (1 + n_features,)
        The sum of -log Phi_i(y_i), (3), and the sum of each feature over the edges whose labels differ.

    Examples
    --------
    >>> import numpy as np
    >>> edges, features = pairwise_features(np.zeros((1, 2, 1)), connectivity=4, sigma=1.0)
    >>> joint_feature(np.array([[False, True]]), np.zeros((1, 2)), edges, features).round(3)
    array([1.386, 1.   , 1.   ])
    """
    _check_shapes(log_odds, edges, features, labels=labels)
    # -log sigmoid(l) = log(1 + exp(-l)) without passing through the probability
    unary = np.logaddexp(0, np.where(labels, -1.0, 1.0) * log_odds).sum(dtype=float)
    flat = np.ravel(labels)
    cut = np.flatnonzero(flat.take(edges[0]) != flat.take(edges[1]))  # few
    return np.concatenate([[unary], features[:, cut].sum(axis=1)])


def joint_feature_difference(
    labels: BoolArray, truth: BoolArray, log_odds: FloatArray, edges: IntArray, features: FloatArray
) -> FloatArray:
    """The vector psi(y) - psi(y_n), without cancellation in the unary sum.

    Parameters
    ----------
    labels, truth : ndarray of bool and shape (H, W)
        y and y_n.
    log_odds : ndarray of float and shape (H, W)
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float and shape (n_features, n_edges)

    Returns
    -------
    ndarray of float64 and shape (1 + n_features,)

    Examples
    --------
    >>> import numpy as np
    >>> edges, features = pairwise_features(np.zeros((1, 2, 1)), connectivity=4, sigma=1.0)
    >>> labels, truth = np.array([[False, True]]), np.array([[True, True]])
    >>> joint_feature_difference(labels, truth, np.array([[3.0, 9.0]]), edges, features)
    array([3., 1., 1.])
    """
    _check_shapes(log_odds, edges, features, labels=labels, truth=truth)
    both = np.ravel(labels) + np.uint8(2) * np.ravel(truth)
    cut = both.take(edges[0]) ^ both.take(edges[1])  # 1 by the labels alone, 2 by the truth alone, 3 by both
    once = np.flatnonzero((cut == 1) | (cut == 2))  # few
    pairwise = features[:, once] @ np.where(cut[once] == 1, 1.0, -1.0)
    return np.concatenate([[unary_difference(labels, truth, log_odds)], pairwise])


def unary_difference(labels: BoolArray, truth: BoolArray, log_odds: FloatArray) -> float:
    """The first entry of psi(y) - psi(y_n), all of it that depends on the network: sum_i l_i (y_n,i - y_i).

    Parameters
    ----------
    labels, truth : ndarray of bool and shape (H, W)
        y and y_n.
    log_odds : ndarray of float and shape (H, W)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> float(unary_difference(np.array([True, False]), np.array([False, False]), np.array([2.0, 5.0])))
    -2.0
    """
    _check_labelings(log_odds, labels=labels, truth=truth)
    return log_odds[truth & ~labels].sum(dtype=float) - log_odds[labels & ~truth].sum(dtype=float)


def _check_labelings(log_odds: FloatArray, **labelings: BoolArray) -> None:
    # numpy would broadcast other shapes, and take integers for numbers of pixels
    for name, labels in labelings.items():
        if labels.dtype != bool or labels.shape != log_odds.shape:
            raise ValueError(
                f"{name} must be of bool and the shape of log_odds, {log_odds.shape}, got {labels.dtype} and "
                f"{labels.shape}"
            )


def _check_shapes(log_odds: FloatArray, edges: IntArray, features: FloatArray, **labelings: BoolArray) -> None:
    _check_labelings(log_odds, **labelings)
    if edges.ndim != 2 or len(edges) != 2 or features.ndim != 2 or features.shape[1] != edges.shape[1]:
        raise ValueError(
            "edges must be of shape (2, n_edges) and features of (n_features, n_edges), got "
            f"{edges.shape} and {features.shape}"
        )
