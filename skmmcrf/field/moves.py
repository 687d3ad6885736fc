"""The best expansion move: which pixels get one label, and which keep theirs.

Different labels of two neighbours cost something unless both move. That is half of it for each that stays, and half for
one that moves alone, so that costs are symmetric and a minimum cut finds the best move.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray
from skmmcrf.field.grid_cut import GridCut, make_best_move
from skmmcrf.field.minimum_cut import ListedCut


class Moves(Protocol):
    """The best expansion moves."""

    @property
    def most_saved(self) -> FloatArray:
        """What the edges of each pixel cost at most, (H, W). No pixel saves more by a move."""

    def best(
        self, labels: NDArray[np.uint8], label: int, changes: FloatArray, may_move: BoolArray
    ) -> tuple[BoolArray, float]:
        """Find the pixels that change their labels in the best move to one label, see `GridMoves.best`."""


class GridMoves:
    """The best expansion moves where different labels cost the same for all pairs of labels.

    A move cuts those pixels alone that may gain by it. All arrays serve for all moves. With 8 neighbours they take 42
    bytes a pixel more than the cut for float32, and 74 for float64.

    Parameters
    ----------
    cut : GridCut
        With the costs of the edges. It must not be used any more.

    Attributes
    ----------
    most_saved : ndarray of float64 and shape (H, W)
        What the edges of each pixel cost in all.
    """

    def __init__(self, cut: GridCut) -> None:
        self.most_saved = cut.at_pixels()
        self.search, self.inner = cut.search, cut.inner
        self.costs = self.search.residual.copy()
        self.search.residual[...] = 0  # only a move sets some, of the pixels that may move
        self.labels = np.zeros(len(self.costs), np.uint8)
        self.may_move = np.zeros(len(self.costs), bool)

    def best(
        self, labels: NDArray[np.uint8], label: int, changes: FloatArray, may_move: BoolArray
    ) -> tuple[BoolArray, float]:
        """Find the pixels that change their labels in the best move to one label.

        Parameters
        ----------
        labels : ndarray of uint8 and shape (H, W)
        label : int
        changes : ndarray of float64 and shape (H, W)
            By how much the unary costs of the label exceed those of the labels.
        may_move : ndarray of bool and shape (H, W)
            The pixels that may change, none of which has the label.

        Returns
        -------
        moves : ndarray of bool and shape (H, W)
        cost : float
            By how much the costs of the edges rise.
        """
        self.labels[self.inner] = labels.ravel()
        self.may_move[self.inner] = may_move.ravel()
        pixels = np.flatnonzero(self.may_move)
        self.search.terminal[pixels] = changes[may_move]
        cost = make_best_move(self.search, self.costs, self.labels, self.may_move, pixels.astype(np.uintp), label)
        return self.labels[self.inner].reshape(labels.shape) != labels, cost


@dataclass(frozen=True)
class CutMoves:
    """The best expansion moves, each by a cut of the whole image.

    Parameters
    ----------
    most_saved : ndarray of float64 and shape (H, W)
    make_cut : callable
        Called with labels, the label of a move and what it changes of unary costs, gives the cut that finds the move.
    edge_costs : callable
        Called with two labelings, gives what edges cost by the first one less what they cost by the other one.
    """

    most_saved: FloatArray
    make_cut: Callable[[NDArray[np.uint8], int, FloatArray], GridCut | ListedCut]
    edge_costs: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]

    def best(
        self, labels: NDArray[np.uint8], label: int, changes: FloatArray, may_move: BoolArray
    ) -> tuple[BoolArray, float]:
        """Find the pixels that change their labels in the best move to one label, see `GridMoves.best`."""
        cut = self.make_cut(labels, label, changes)
        cut.fold(~may_move, labels == label)
        moves = cut.labels() & may_move
        return moves, self.edge_costs(np.where(moves, np.uint8(label), labels), labels)
