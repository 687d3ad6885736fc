"""Lower bounds of the energy of all labelings with several labels, which may prove that a labeling is a least one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.field.expansion import LabelingProblem, Star, expand

# how much of the last direction is taken back where the supergradient points against it
_DEFLECTION = 1.5
# after how many rounds a labeling is sought near the cuts
_ROUNDS_OF_LABELING = 5


class Bound(NamedTuple):
    """A labeling, and how far its energy may be from the least one.

    Attributes
    ----------
    labels : ndarray of uint8 and shape (H, W)
    gap : float
        No labeling has an energy that is lower by more than this, up to rounding. 0 if it is proved that no energy is
        lower.
    """

    labels: NDArray[np.uint8]
    gap: float


def bound_by_dual(problem: LabelingProblem, labels: NDArray[np.uint8], n_rounds: int) -> Bound:
    """Bound the least energy from below, and improve a labeling towards it.

    Parameters
    ----------
    problem : LabelingProblem
    labels : ndarray of uint8 and shape (H, W)
        A labeling of low energy.
    n_rounds : int
        Each takes one cut a label, and may raise the bound.

    Returns
    -------
    Bound

    Notes
    -----
    Let z_ik say whether pixel i has label k. The costs of edges are at least those of a `Star`, which are
    sum_k r_e(k) |z_ik - z_jk|. With these, the problem is one minimum cut a label, of the label against all others, but
    for the constraints sum_k z_ik = 1. Multipliers m_i take their place. For any m,

        sum_k min_z [sum_i (unary_i(k) + m_i) z_ik + sum_e r_e(k) |z_ik - z_jk|] - sum_i m_i

    is a lower bound. It is concave in m, with supergradient sum_k z_ik - 1. Steps have Polyak's length towards the
    energy of the labeling, in directions deflected as by P. Camerini, L. Fratta, F. Maffioli, "On improving relaxation
    methods by modified gradient techniques", 1975. If all supergradients are 0, no bound is higher, and the z are a
    labeling whose energy is the bound, but for what its edges cost more than the star. Where some are, the labels of
    these pixels lead to better labelings.
    """
    star, energy, lower = problem.star(), problem.energy(labels), -np.inf
    multipliers = -_mean_of_two_least(problem)
    direction = np.zeros(problem.shape)
    for n in range(1, n_rounds + 1):
        bound, excess, agreed = _cut_apart(problem, star, multipliers)
        is_highest = not excess.any()
        if is_highest and star.loss(agreed) == 0:
            return Bound(agreed, 0.0)
        lower = max(lower, bound)
        if n % _ROUNDS_OF_LABELING == 0 or n == n_rounds or is_highest:
            found = expand(problem, np.where(excess == 0, agreed, labels))
            labels, energy = min((labels, energy), (found, problem.energy(found)), key=lambda each: each[1])
        if is_highest:
            break
        back = -_DEFLECTION * (direction * excess).sum() / max(np.square(direction).sum(), 1.0)
        direction = excess + max(back, 0.0) * direction
        multipliers += (energy - bound) / np.square(direction).sum() * direction
    return Bound(labels, max(energy - lower, 0.0))


def _mean_of_two_least(problem: LabelingProblem) -> FloatArray:
    """Give the mean of the two least unary costs of each pixel, between which its cuts begin."""
    least, second = np.full((2, *problem.shape), np.inf)
    for label in range(problem.n_labels):
        costs = problem.unary(label)
        np.minimum(second, np.maximum(least, costs), out=second)
        np.minimum(least, costs, out=least)
    return (least + second) / 2


def _cut_apart(
    problem: LabelingProblem, star: Star, multipliers: FloatArray
) -> tuple[float, IntArray, NDArray[np.uint8]]:
    """Cut each label from all others.

    Returns
    -------
    bound : float
    excess : ndarray of int16 and shape (H, W)
        How many labels a pixel has, less 1.
    agreed : ndarray of uint8 and shape (H, W)
        The label, where it is one.
    """
    bound = -float(multipliers.sum())
    excess, agreed = np.full(problem.shape, -1, np.int16), np.zeros(problem.shape, np.uint8)
    for label in range(problem.n_labels):
        costs, cut = problem.unary(label) + multipliers, star.make_cut(label)
        cut.terminal[...] = costs
        has_label = cut.labels()
        bound += float(costs[has_label].sum()) + star.edge_costs(label, has_label)
        excess += has_label
        agreed[has_label] = label
    return bound, excess, agreed
