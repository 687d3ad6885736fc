"""The labeling of least energy by one minimum cut, exact because the pairwise weights are not negative; (5)."""

from collections.abc import Iterable, Iterator

import maxflow
import numpy as np
from joblib import delayed

from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.energy import pairwise_features
from skmmcrf.workers import Workers


def minimum_cut(unary: FloatArray, edges: IntArray, capacities: FloatArray) -> BoolArray:
    """Minimise sum_i unary_i y_i + sum_(i,j) capacity_ij [y_i != y_j] over the labelings y.

    Parameters
    ----------
    unary : ndarray of float and shape (H, W), or any other
        Cost of label 1 less the cost of label 0.
    edges : ndarray of int and shape (2, n_edges)
        Pairs of pixels, counted in C order.
    capacities : ndarray of float and shape (n_edges,)
        Cost of different labels at an edge.

    Returns
    -------
    ndarray of bool, of the shape of `unary`
        A labeling of least cost.

    Raises
    ------
    ValueError
        If a capacity is negative, anything is not finite, edges and capacities do not belong together, or an edge is
        none of the pixels.

    Examples
    --------
    >>> import numpy as np
    >>> minimum_cut(np.array([-3.0, 1.0, -1.0]), np.array([[0, 1], [1, 2]]), np.array([0.6, 0.6]))
    array([ True,  True,  True])
    """
    unary = np.asarray(unary, dtype=float)
    if edges.dtype.kind not in "iu" or edges.shape != (2, np.size(capacities)) or np.ndim(capacities) != 1:
        raise ValueError(
            f"edges must be integers of shape (2, n_edges), and capacities of (n_edges,), got {edges.dtype} of "
            f"{edges.shape} and {np.shape(capacities)}"
        )
    if not unary.size:
        raise ValueError(f"unary has no pixel, its shape is {unary.shape}")
    # PyMaxflow would write beyond its memory
    if edges.size and not (edges.min() >= 0 and edges.max() < unary.size):
        raise ValueError(f"edges must be between pixels 0 and {unary.size - 1}, got {edges.min()} to {edges.max()}")
    if not (np.isfinite(unary).all() and np.isfinite(capacities).all()):
        raise ValueError("unary and capacities must be finite")
    if np.any(capacities < 0):  # PyMaxflow would take them, and cut wrongly
        raise ValueError(f"capacities must not be negative, got {np.min(capacities):g}")
    graph = maxflow.GraphFloat(unary.size, edges.shape[1])
    pixels = graph.add_grid_nodes(unary.shape)
    graph.add_edges(*edges, capacities, capacities)
    # a pixel on the sink's side has label 1 and cuts its edge from the source
    graph.add_grid_tedges(pixels, np.maximum(unary, 0), np.maximum(-unary, 0))
    graph.maxflow()
    return graph.get_grid_segments(pixels)


def minimum_energy_labeling(w: FloatArray, log_odds: FloatArray, edges: IntArray, features: FloatArray) -> BoolArray:
    """Labeling of least energy, (5).

    Parameters
    ----------
    w : ndarray of float and shape (1 + n_features,)
        Weights; the pairwise ones, all but the first, must not be negative.
    log_odds : ndarray of float and shape (H, W)
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float and shape (n_features, n_edges)

    Returns
    -------
    ndarray of bool and shape (H, W)

    Raises
    ------
    ValueError
        If a pairwise weight is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.energy import pairwise_features
    >>> edges, features = pairwise_features(np.zeros((1, 3, 1)), connectivity=4, sigma=1.0)
    >>> minimum_energy_labeling(np.array([1.0, 0.3, 0.3]), np.array([[3.0, -1.0, 1.0]]), edges, features)
    array([[ True,  True,  True]])
    """
    _check_pairwise_weights(w)
    # -log Phi(1) + log Phi(0) = -l
    return minimum_cut(-w[0] * np.asarray(log_odds, dtype=float), edges, w[1:] @ features)


def complete_labeling(
    w: FloatArray, log_odds: FloatArray, labels: BoolArray, labelled: BoolArray, edges: IntArray, features: FloatArray
) -> BoolArray:
    """Labeling of least energy among those with given labels at some pixels.

    Parameters
    ----------
    w : ndarray of float and shape (1 + n_features,)
        Weights; the pairwise ones, all but the first, must not be negative.
    log_odds : ndarray of float and shape (H, W)
    labels : ndarray of bool and shape (H, W)
    labelled : ndarray of bool and shape (H, W)
        Where `labels` must stay.
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float and shape (n_features, n_edges)

    Returns
    -------
    ndarray of bool and shape (H, W)

    Raises
    ------
    ValueError
        If a pairwise weight is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.energy import pairwise_features
    >>> edges, features = pairwise_features(np.zeros((1, 3, 1)), connectivity=4, sigma=1.0)
    >>> labels, labelled = np.array([[True, False, False]]), np.array([[True, False, True]])
    >>> complete_labeling(np.array([1.0, 1.0, 0.0]), np.array([[0.0, 0.5, 0.0]]), labels, labelled, edges, features)
    array([[ True,  True, False]])
    """
    _check_pairwise_weights(w)
    if not np.shape(labels) == np.shape(labelled) == np.shape(log_odds):
        raise ValueError(
            f"labels and labelled must have the shape of log_odds, {np.shape(log_odds)}, got {np.shape(labels)} and "
            f"{np.shape(labelled)}"
        )
    capacities = w[1:] @ features
    known, fixed = np.ravel(labelled), np.ravel(labels)
    unary = -w[0] * np.ravel(np.asarray(log_odds, dtype=float))
    # a known neighbour pulls to its own label
    for one, other in (edges, edges[::-1]):
        pulled = ~known[one] & known[other]
        pull = np.where(fixed[other[pulled]], -1.0, 1.0) * capacities[pulled]
        unary += np.bincount(one[pulled], pull, minlength=len(unary))
    free = np.flatnonzero(~known)
    if not len(free):
        return labels.copy()
    among_free = ~known[edges[0]] & ~known[edges[1]]
    # count the free pixels alone
    numbers = np.cumsum(~known) - 1
    completed = fixed.copy()
    completed[free] = minimum_cut(unary[free], numbers[edges[:, among_free]], capacities[among_free])
    return completed.reshape(np.shape(labels))


def segment(
    w: FloatArray,
    problems: Iterable[tuple[FloatArray, np.ndarray]],
    *,
    connectivity: int,
    sigma: float,
    n_jobs: int | None = None,
) -> Iterator[BoolArray]:
    """Labelings of least energy of many images, one after the other.

    Parameters
    ----------
    w : ndarray of shape (3,)
        Weights; w2 and w3 must not be negative.
    problems : iterable of tuple
        Of each image the log-odds, float of shape (H, W), and the pixels, of shape (H, W, channels), see
        `skmmcrf.energy.squared_contrast`. Taken as they are needed, so they need not be in memory at once.
    connectivity : int
    sigma : float
    n_jobs : int, optional
        Processes that cut, as in joblib.

    Yields
    ------
    ndarray of bool and shape (H, W)

    Examples
    --------
    >>> import numpy as np
    >>> log_odds, image = np.array([[3.0, -1.0, 1.0]]), np.zeros((1, 3, 1))
    >>> next(segment(np.array([1.0, 0.3, 0.3]), [(log_odds, image)], connectivity=4, sigma=1.0))
    array([[ True,  True,  True]])
    """
    one = delayed(_segment_one)
    with Workers(n_jobs) as workers:
        yield from workers.run(one(w, log_odds, image, connectivity, sigma) for log_odds, image in problems)


def _segment_one(w: FloatArray, log_odds: FloatArray, image: np.ndarray, connectivity: int, sigma: float) -> BoolArray:
    check_image_fits(log_odds, image)
    return minimum_energy_labeling(w, log_odds, *pairwise_features(image, connectivity=connectivity, sigma=sigma))


def check_image_fits(log_odds: FloatArray, image: np.ndarray) -> None:
    """Raise a ValueError unless log-odds (H, W) and an image (H, W, channels) are of one size.

    Parameters
    ----------
    log_odds : ndarray
    image : ndarray
    """
    if log_odds.shape != image.shape[:-1]:
        raise ValueError(f"log_odds must have the size of their image, {image.shape[:-1]}, got {log_odds.shape}")


def loss_augmented_labeling(
    w: FloatArray,
    log_odds: FloatArray,
    truth: BoolArray,
    edges: IntArray,
    features: FloatArray,
    pixel_weights: FloatArray | float = 1.0,
) -> BoolArray:
    """Labeling of least energy less its Hamming distance to the truth: the most violated constraint of (8).

    Parameters
    ----------
    w : ndarray of float and shape (1 + n_features,)
        Weights; the pairwise ones, all but the first, must not be negative.
    log_odds : ndarray of float and shape (H, W)
    truth : ndarray of bool and shape (H, W)
    edges : ndarray of int and shape (2, n_edges)
    features : ndarray of float and shape (n_features, n_edges)
    pixel_weights : float, or ndarray of float and shape (H, W), default=1.0
        What a wrong label adds to the distance.

    Returns
    -------
    ndarray of bool and shape (H, W)

    Raises
    ------
    ValueError
        If a pairwise weight is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.energy import pairwise_features
    >>> edges, features = pairwise_features(np.zeros((1, 3, 1)), connectivity=4, sigma=1.0)
    >>> truth = np.array([[True, False, False]])
    >>> loss_augmented_labeling(np.array([1.0, 0.0, 0.0]), np.array([[3.0, -3.0, -0.5]]), truth, edges, features)
    array([[ True, False,  True]])
    """
    _check_pairwise_weights(w)
    if np.shape(truth) != np.shape(log_odds) or np.shape(pixel_weights) not in ((), np.shape(log_odds)):
        raise ValueError(
            f"truth and pixel_weights must have the shape of log_odds, {np.shape(log_odds)}, got {np.shape(truth)} and "
            f"{np.shape(pixel_weights)}"
        )
    loss_difference = np.where(truth, -1.0, 1.0) * pixel_weights  # of the Hamming distance, label 1 less label 0
    unary = -w[0] * np.asarray(log_odds, dtype=float) - loss_difference
    return minimum_cut(unary, edges, w[1:] @ features)


def _check_pairwise_weights(w: FloatArray) -> None:
    if np.any(w[1:] < 0):
        raise ValueError(f"pairwise weights must not be negative, got {w[1:]}")
