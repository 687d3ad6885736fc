"""Expansion moves, which label an image with several labels by minimum cuts.

A move gives any pixels one label, and leaves the others their labels. The best move is a minimum cut. Moves are made
until none lowers the energy. If unary costs are not negative, and all pairs of labels cost the same, it is then at most
twice the least one. For other metrics, it is at most the least one times twice the ratio of the largest and the least
cost of different labels: Y. Boykov, O. Veksler, R. Zabih, "Fast Approximate Energy Minimization via Graph Cuts", PAMI
2001.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.moves import Moves

# of the size of a change of energy, which must not be mere rounding
_ROUNDING = 1e-9


class Star(NamedTuple):
    """Costs r_e(a) + r_e(b) of an edge with different labels a and b, which do not exceed cost_e(a, b).

    Attributes
    ----------
    make_cut : callable
        Called with a label, gives a cut whose edges cost r_e of the label, and whose unary costs are 0.
    edge_costs : callable
        Called with a label and the pixels that have it, (H, W) of bool, gives the sum of r_e over the edges between
        these and others.
    loss : callable
        Called with a labeling, gives by how much its edges cost more.
    """

    make_cut: Callable[[int], GridCut | ListedCut]
    edge_costs: Callable[[int, BoolArray], float]
    loss: Callable[[NDArray[np.uint8]], float]


@dataclass(frozen=True)
class LabelingProblem:
    """The search for the labels y that minimise sum_i unary_i(y_i) + sum_e cost_e(y_i, y_j).

    cost_e is a metric, so that the best move is a minimum cut.

    Parameters
    ----------
    shape : tuple of int
    n_labels : int
    unary : callable
        Called with a label, gives its cost at each pixel, (H, W) of float64.
    edge_costs : callable
        Called with two labelings, gives what edges cost by the first one less what they cost by the other one.
    moves : Moves
    star : callable
        Gives the `Star` of the costs of edges.
    """

    shape: tuple[int, ...]
    n_labels: int
    unary: Callable[[int], FloatArray]
    edge_costs: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float]
    moves: Moves
    star: Callable[[], Star]

    def unary_of(self, labels: NDArray[np.uint8]) -> FloatArray:
        """Give the unary cost of each pixel's label, (H, W)."""
        costs = np.empty(self.shape)
        for label in range(self.n_labels):
            np.copyto(costs, self.unary(label), where=labels == label)
        return costs

    def energy(self, labels: NDArray[np.uint8]) -> float:
        """Give the sum that is sought to be least."""
        return float(self.unary_of(labels).sum()) + self.edge_costs(labels, np.zeros_like(labels))


def expand(problem: LabelingProblem, labels: NDArray[np.uint8], known: BoolArray | None = None) -> NDArray[np.uint8]:
    """Improve a labeling until no expansion move does so.

    Of two labels the result is a labeling of least energy, whatever the first one is.

    Parameters
    ----------
    problem : LabelingProblem
    labels : ndarray of uint8 and shape (H, W)
        The labeling to begin with.
    known : ndarray of bool and shape (H, W), optional
        Pixels that keep their labels.

    Returns
    -------
    ndarray of uint8 and shape (H, W)
    """
    known = np.zeros(problem.shape, bool) if known is None else known
    if problem.n_labels == 2:  # one move finds the least energy from label 0
        labeling = _Labeling(problem, labels * known, known)
        labeling.move_to(1)
        return labeling.labels
    labeling, n_in_vain = _Labeling(problem, labels, known), 0
    for label in cycle(range(problem.n_labels)):
        # after a move to it, a label has nothing to gain before there is a move to another one
        n_in_vain = 1 if labeling.move_to(label) else n_in_vain + 1
        if n_in_vain == problem.n_labels:
            break
    return labeling.labels


class _Labeling:
    """A labeling that moves improve, and the unary cost of each pixel's label."""

    def __init__(self, problem: LabelingProblem, labels: NDArray[np.uint8], known: BoolArray) -> None:
        self.problem = problem
        self.labels = labels
        self.known = known
        self.costs = problem.unary_of(labels)

    def move_to(self, label: int) -> bool:
        """Make the best move to a label, and tell whether it lowers the energy, without which it is not made."""
        problem, costs = self.problem, self.problem.unary(label)
        changes = costs - self.costs
        # no move gains by any other pixel
        may_move = (changes < problem.moves.most_saved) & (self.labels != label) & ~self.known
        if not may_move.any():
            return False
        moves, pairwise = problem.moves.best(self.labels, label, changes, may_move)
        unary = changes[moves].sum()
        if unary + pairwise >= -_ROUNDING * (abs(unary) + abs(pairwise)):
            return False
        self.labels = np.where(moves, np.uint8(label), self.labels)
        np.copyto(self.costs, costs, where=moves)
        return True


def least_unary(problem: LabelingProblem) -> NDArray[np.uint8]:
    """Give each pixel the label of least unary cost, and the first of several."""
    labels, costs = np.zeros(problem.shape, np.uint8), problem.unary(0)
    for label in range(1, problem.n_labels):
        of_label = problem.unary(label)
        labels[of_label < costs] = label
        np.minimum(costs, of_label, out=costs)
    return labels
