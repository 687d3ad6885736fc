"""The minimum cut, which finds the labeling of least energy (5) exactly, because no edge has a negative cost."""

from collections.abc import Sequence

import maxflow
import numpy as np
from numpy.typing import DTypeLike, NDArray

from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.field.grid import Grid, Runs


class ListedCut:
    """The cut that `GridCut` is, made by PyMaxflow from lists of edges. It computes in float64.

    Parameters and methods are those of `GridCut`. Edges are added in the order of `Grid.edges`.
    """

    def __init__(self, shape: tuple[int, ...], offsets: Sequence[tuple[int, ...]], dtype: DTypeLike) -> None:
        self.terminal = np.zeros(shape)
        self._edges = Grid(tuple(offsets)).edges(shape).pixels
        self._capacities = np.empty(0)

    def add_edges(
        self, offset: tuple[int, ...], rows: slice, runs: Runs, weights: FloatArray, factors: NDArray[np.float32]
    ) -> None:
        """Set what it costs to cut the next edges."""
        self._capacities = np.append(self._capacities, weights[0] + weights[1:] @ factors)

    def add_moves(
        self,
        offset: tuple[int, ...],
        rows: slice,
        runs: Runs,
        costs: FloatArray,
        factors: NDArray[np.float32],
        labels: NDArray[np.uint8],
        label: int,
    ) -> None:
        """Set what the next edges cost in a move that gives pixels one label more, or leaves them their labels."""
        n_added = len(self._capacities)
        edges = self._edges[:, n_added : n_added + factors.shape[1]]
        one, other = labels.ravel()[edges]
        changes = np.vstack([np.ones(factors.shape[1]), factors]).T
        none, first, second = (
            (costs[pair] * changes).sum(axis=1) for pair in ((one, other), (label, other), (one, label))
        )
        halves = np.maximum((first + second - none) / 2, 0)
        for pixels, moved in zip(edges, (first, second)):
            pulls = np.bincount(pixels, moved - halves - none, self.terminal.size)
            self.terminal += pulls.reshape(self.terminal.shape)
        self._capacities = np.append(self._capacities, halves)

    def at_pixels(self) -> FloatArray:
        """Sum what the edges of each pixel cost, (H, W)."""
        one, other = (np.bincount(pixels, self._capacities, self.terminal.size) for pixels in self._edges)
        return np.add(one, other, dtype=float).reshape(self.terminal.shape)

    def fold(self, known: BoolArray, labels: BoolArray) -> None:
        """Let known pixels pull their neighbours to their own labels (H, W), and cut them off, after edges are set."""
        known, pulls = known.ravel(), np.where(labels, -1.0, 1.0).ravel()
        for one, other in (self._edges, self._edges[::-1]):
            pull = known[other] * pulls[other] * self._capacities
            self.terminal += np.bincount(one, pull, self.terminal.size).reshape(self.terminal.shape)
        self._capacities[known[self._edges].any(axis=0)] = 0

    def separate(self, ranks: IntArray) -> None:
        """Cut pixels of different rank (H, W) off each other, as if of two neighbours the higher has more label 1."""
        one, other = self._edges
        pulls = np.sign(ranks.ravel()[one] - ranks.ravel()[other]) * self._capacities
        for pixels, pull in ((one, pulls), (other, -pulls)):
            self.terminal += np.bincount(pixels, pull, self.terminal.size).reshape(self.terminal.shape)
        self._capacities[pulls != 0] = 0

    def labels(self) -> BoolArray:
        """Find a labeling of least cost, and of several the one with the fewest labels 1."""
        return minimum_cut(self.terminal, self._edges, self._capacities)


def minimum_cut(unary: FloatArray, edges: IntArray, capacities: FloatArray) -> BoolArray:
    """Minimise sum_i unary_i y_i + sum_(i,j) capacity_ij [y_i != y_j] over the labelings y.

    Parameters
    ----------
    unary : ndarray of float and shape (H, W), or any other
        Cost of label 1 less the cost of label 0.
    edges : ndarray of int and shape (2, n_edges)
        Pairs of pixels, numbered in C order.
    capacities : ndarray of float and shape (n_edges,)
        Cost of different labels at an edge.

    Returns
    -------
    ndarray of bool, of the shape of `unary`
        A labeling of least cost.

    Raises
    ------
    ValueError
        If a capacity is negative. If anything is not finite. If edges and capacities differ in number. If an edge names
        a pixel that does not exist.

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
        raise ValueError(f"unary must have at least one pixel, got shape {unary.shape}")
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
