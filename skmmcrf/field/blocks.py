"""The pairwise features of the edges of an image, in blocks, without lists of edges."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import skmmcrf.field.grid_cut as grid_cut
from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.field.grid import Grid, Runs
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.terms import Term

# whose features are computed at once
_PIXELS_OF_BLOCK = 2**16


class Block(NamedTuple):
    """The edges of one offset between some rows of an image, in the order of `Grid.edges`, and their features.

    Attributes
    ----------
    grid : Grid
        Of this offset alone.
    rows : slice
        The rows of the image that have the pixels of the edges.
    runs : Runs
        The edges within these rows.
    factors : ndarray of float32 and shape (n_rows, n_edges)
        What those terms give whose factors differ between edges.
    mixing : ndarray of float64 and shape (n_terms, 1 + n_rows)
        The features of all terms are this matrix times a row of ones and the factors.
    """

    grid: Grid
    rows: slice
    runs: Runs
    factors: NDArray[np.float32]
    mixing: FloatArray

    def features(self) -> FloatArray:
        """Give d_e times the factors of all terms, ndarray of float64 and shape (n_terms, n_edges)."""
        return self.mixing[:, :1] + self.mixing[:, 1:] @ self.factors

    def add_to(self, cut: grid_cut.GridCut | ListedCut, w: FloatArray) -> None:
        """Add the edges to a cut, by the weights of the terms, (n_terms,)."""
        cut.add_edges(self.grid.offsets[0], self.rows, self.runs, w @ self.mixing, self.factors)

    def add_moves_to(
        self, cut: grid_cut.GridCut | ListedCut, matrices: FloatArray, labels: NDArray[np.uint8], label: int
    ) -> None:
        """Add the edges to the cut of a move from labels (H, W), by a matrix of weights a term, (n_terms, K, K)."""
        costs = np.tensordot(matrices, self.mixing, axes=(0, 0))
        cut.add_moves(self.grid.offsets[0], self.rows, self.runs, costs, self.factors, labels, label)

    def sums(self, labels: NDArray[np.uint8], other: NDArray[np.uint8]) -> FloatArray:
        """Sum the features over the edges that labels (H, W) cut, less those that other labels cut, (n_terms,)."""
        labels, other = labels[self.rows], other[self.rows]
        if grid_cut.available():
            return self.mixing @ grid_cut.sum_cut(labels.ravel(), other.ravel(), self.runs, self.factors)
        is_cut, was_cut = (first != second for y in (labels, other) for first, second in self.grid.pairs(y))
        changes = np.subtract(is_cut, was_cut, dtype=float).ravel()
        return self.mixing @ [changes.sum(), *(self.factors @ changes)]

    def sums_of_pairs(self, labels: NDArray[np.uint8], other: NDArray[np.uint8], pairs: IntArray) -> FloatArray:
        """Sum the features over the edges of each pair of labels, less those of other labels, (n_terms, n_pairs).

        The pairs have numbers, (K, K).
        """
        labels, other = labels[self.rows], other[self.rows]
        if grid_cut.available():
            return self.mixing @ grid_cut.sum_pairs(labels.ravel(), other.ravel(), self.runs, self.factors, pairs)
        sums = np.zeros((1 + len(self.factors), pairs.max() + 1))
        for sign, y in ((1, labels), (-1, other)):
            ((first, second),) = self.grid.pairs(y)
            of_edges = pairs[first, second].ravel()
            for of_row, row in zip(sums, [None, *self.factors]):
                of_row += sign * np.bincount(of_edges, row, len(of_row))
        return self.mixing @ sums


def make_blocks(grid: Grid, terms: Sequence[Term], image: np.ndarray) -> Iterator[Block]:
    """Make the blocks of an image (H, W, channels), offset by offset.

    Raises
    ------
    ValueError
        If a factor is negative, or not finite.
    """
    most_rows = max(1, _PIXELS_OF_BLOCK // max(1, image[0, ..., 0].size))
    for offset, distance_weight in zip(grid.offsets, grid.distance_weights):
        of_offset = Grid((offset,), grid.spacing)
        n_starts = len(image) - abs(offset[0])
        for begin in range(0, n_starts, most_rows):
            rows = slice(begin, min(begin + most_rows, n_starts) + abs(offset[0]))
            factors, mixing = _factors(of_offset, terms, image[rows])
            (runs,) = of_offset.runs(image[rows, ..., 0].shape)
            yield Block(of_offset, rows, runs, factors, distance_weight * mixing)


def _factors(grid: Grid, terms: Sequence[Term], image: np.ndarray) -> tuple[NDArray[np.float32], FloatArray]:
    """Give the rows that differ between edges, and the matrix of `Block` without d_e."""
    rows = [term.row(grid, image) for term in terms]
    for term, row in zip(terms, rows):
        if not (np.min(row, initial=0) >= 0 and np.max(row, initial=0) < np.inf):
            raise ValueError(f"the factors of {term} must be finite and not negative: see the values of the image")
    differing = [t for t, row in enumerate(rows) if np.ndim(row)]
    n_edges = sum(first.size for first, _ in grid.pairs(image[..., 0]))
    factors, mixing = np.empty((len(differing), n_edges), np.float32), np.zeros((len(rows), 1 + len(differing)))
    mixing[:, 0] = [0.0 if np.ndim(row) else row for row in rows]
    for n, t in enumerate(differing):
        factors[n], mixing[t, 1 + n] = rows[t], 1.0
    return factors, mixing
