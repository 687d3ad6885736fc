"""The quadratic program (8) over stored labelings, its solver, and its optimality conditions.

    gamma = min_w 1/2 |w|^2 + C/N sum_n s_n xi_n   with   w . (psi(y) - psi(y_n)) >= Delta(y_n, y) - xi_n,   xi >= 0,

for every image n and every stored labeling y; s_n is the weight of the image, 1 unless it is said. The first weight is
free, the others, of the pairwise terms, are not negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import quadprog

from skmmcrf._typing import BoolArray, FloatArray, IntArray, WeightsLike
from skmmcrf.labelings import Labelings

INITIAL_WEIGHTS = (1.0, 1.0, 1.0)
#: Between which the program is solved to rounding.
LEAST_C, LARGEST_C = 1e-12, 1e8
_MAX_PROXIMAL_STEPS = 50
_ROUNDING = 1e-12


@dataclass
class Solution:
    """An optimum of (8), and of its dual.

    Attributes
    ----------
    w : ndarray of shape (n_weights,)
    slack : ndarray of shape (n_images,)
        xi, how much each image's worst labeling violates its margin at w, in pixels.
    multipliers : list of n_images ndarrays
        lambda of each stored labeling, the dual. They sum up to at most s_n C/N an image; what is missing belongs to
        xi_n >= 0.
    value : float
        gamma: ``1/2 |w|^2 + C/N`` times the sum of the slacks, each times the weight of its image.
    dual_gap : float
        How far `value` lies above that of the dual, and so at most above the minimum.
    n_iter : int
        Passes over the images: cuts after the first labelings over images, rounded up.
    """

    w: FloatArray
    slack: FloatArray
    multipliers: list[FloatArray]
    value: float
    dual_gap: float = 0.0
    n_iter: int = 0


def solve_program(labelings: Sequence[Labelings], C: float, w: WeightsLike = INITIAL_WEIGHTS) -> Solution:
    """Solve (8) over the stored labelings.

    The slacks are the hinge losses of w alone, so this is a problem of few variables however many images there are. It
    is solved by cutting planes on the mean slack, each the sum of the worst stored constraint of every image (the
    one-slack form of Joachims, Finley, Yu, "Cutting-plane training of structural SVMs", 2009). As there are finitely
    many sums, the last one proves the optimum to rounding.

    Parameters
    ----------
    labelings : list of Labelings
    C : float
    w : ndarray of shape (n_weights,), default=(1, 1, 1)
        Where to begin; the optimum does not depend on it.

    Returns
    -------
    Solution

    Examples
    --------
    >>> import numpy as np
    >>> stored = Labelings(np.array([[True]]))
    >>> stored.add(np.array([[False]]), np.array([2.0, 0.0, 0.0]), 1.0)
    True
    >>> solve_program([stored], C=10.0).w.round(6)
    array([0.5, 0. , 0. ])
    """
    check_program(labelings, C, w)
    owners, differences, losses = _constraints(labelings, len(w))
    if not (np.isfinite(differences).all() and np.isfinite(losses).all()):
        raise ValueError("labelings must have finite differences and losses")
    shares = image_shares(labelings)

    planes: dict[bytes, IntArray] = {}
    slopes: list[FloatArray] = []
    heights: list[float] = []

    def add_plane(constraints: IntArray) -> bool:
        name = constraints.tobytes()
        if name in planes:
            return False
        planes[name] = constraints
        share = shares[owners[constraints]]
        slopes.append(share @ differences[constraints])
        heights.append(float(share @ losses[constraints]))
        return True

    add_plane(np.empty(0, dtype=int))  # no slack is negative
    for start in (np.zeros(len(w)), np.asarray(w, dtype=float)):
        add_plane(_worst_constraints(losses - differences @ start, owners))
    exact = False
    while True:
        w, bound, plane_multipliers = _solve_mean_slack_program(np.array(slopes), np.array(heights), C, exact)
        margins = differences @ w
        worst = _worst_constraints(losses - margins, owners)
        violations = losses[worst] - margins[worst]
        share = shares[owners[worst]]
        rounding = 1e-13 * share @ (losses[worst] + np.abs(margins[worst]))
        if share @ violations - bound <= rounding or not add_plane(worst):
            if exact:
                break
            exact = True

    slack, multipliers = np.zeros(len(labelings)), np.zeros(len(owners))
    slack[owners[worst]] = violations
    for constraints, multiplier in zip(planes.values(), plane_multipliers):
        multipliers[constraints] += multiplier * shares[owners[constraints]]
    return Solution(
        w=w,
        slack=slack,
        multipliers=_by_image(multipliers, labelings),
        value=objective_at(w, slack, shares, C),
    )


def evaluate_stored(w: WeightsLike, labelings: Sequence[Labelings], C: float) -> Solution:
    """Evaluate (8) over the stored labelings at given weights.

    Parameters
    ----------
    w : ndarray of shape (n_weights,)
    labelings : list of Labelings
    C : float

    Returns
    -------
    Solution
        At w, with s_n C/N as the multiplier of each image's most violated labeling: those with which
        `skmmcrf.derivative.envelope_gradient` gives the gradient of this value in the log-odds, w being held. The gap
        is not known, and infinite.

    Examples
    --------
    >>> import numpy as np
    >>> stored = Labelings(np.array([[True]]))
    >>> stored.add(np.array([[False]]), np.array([2.0, 0.0, 0.0]), 3.0)
    True
    >>> at_ones = evaluate_stored(np.ones(3), [stored], C=10.0)
    >>> at_ones.slack, at_ones.value, at_ones.multipliers
    (array([1.]), 11.5, [array([10.])])
    """
    check_program(labelings, C, w)
    w = np.asarray(w, dtype=float)
    owners, differences, losses = _constraints(labelings, len(w))
    violations = losses - differences @ w
    worst = _worst_constraints(violations, owners)
    shares = image_shares(labelings)
    slack, multipliers = np.zeros(len(labelings)), np.zeros(len(owners))
    slack[owners[worst]] = violations[worst]
    multipliers[worst] = C * shares[owners[worst]]
    return Solution(w, slack, _by_image(multipliers, labelings), objective_at(w, slack, shares, C), dual_gap=np.inf)


def optimality_residuals(solution: Solution, labelings: Sequence[Labelings], C: float) -> dict[str, float]:
    """Tell how far a solution is from the optimality conditions of (8) over the stored labelings.

    The conditions of Karush, Kuhn and Tucker prove an optimum of this convex program. Each residual is the largest of
    its kind, relative to the size of the terms of which it is the difference; a residual in w counts by how it moves
    margins.

    Parameters
    ----------
    solution : Solution
        From `solve_program`.
    labelings : list of Labelings
        What was stored then.
    C : float

    Returns
    -------
    dict of str to float
        "stationarity in w": w - sum_k lambda_k (psi(y_k) - psi(y_n)), which must vanish, or not be negative where a
        pairwise weight is zero; "stationarity in xi": how much the multipliers of an image exceed its share of C;
        "feasibility": margins missed, negative slacks, multipliers or pairwise weights; "complementarity": multipliers
        of constraints that do not hold with equality.

    Examples
    --------
    >>> import numpy as np
    >>> stored = Labelings(np.array([[True]]))
    >>> stored.add(np.array([[False]]), np.array([2.0, 0.0, 0.0]), 1.0)
    True
    >>> solution = solve_program([stored], C=10.0)
    >>> max(optimality_residuals(solution, [stored], C=10.0).values()) < 1e-12
    True
    """
    owners, differences, losses = _constraints(labelings, len(solution.w))
    w, slack, multipliers = solution.w, solution.slack, np.concatenate(solution.multipliers)
    slack_weights = C * image_shares(labelings)
    slack_weight = slack_weights.max()
    margins = differences @ w
    size = losses + np.abs(differences) @ np.abs(w)  # margins may be next to nothing by cancellation
    size = np.maximum(size, 1e-8 * size.max(initial=0.0))  # and whole constraints nothing but rounding
    missed = losses - margins - slack[owners]

    pull = multipliers @ differences
    held = (np.arange(len(w)) > 0) & (w == 0)
    in_w = np.where(held, np.maximum(pull, 0), np.abs(w - pull))
    reach = np.abs(differences).max(axis=0, initial=0.0)
    with np.errstate(over="ignore"):
        whole_margin = np.divide(losses.max(initial=0.0), reach, out=np.full(len(w), np.inf), where=reach > 0)
    sums = np.bincount(owners, multipliers, minlength=len(labelings))
    negative = [-w[1:], -slack, -multipliers / slack_weight]
    return {
        "stationarity in w": _largest(in_w, np.abs(w) + multipliers @ np.abs(differences) + whole_margin),
        "stationarity in xi": _largest(np.maximum(sums - slack_weights, 0), slack_weight),
        "feasibility": max(_largest(np.maximum(missed, 0), size), *(x.max(initial=0.0) for x in negative)),
        "complementarity": max(
            _largest(multipliers * np.abs(missed), slack_weight * size),
            _largest(np.abs(slack_weights - sums) * slack, slack_weight * losses.max(initial=1.0)),
        ),
    }


def _largest(residuals: FloatArray, size: FloatArray | float) -> float:
    """The largest residual relative to its size; 0 over 0 is 0."""
    size = np.broadcast_to(size, residuals.shape)
    return float(np.divide(residuals, size, out=np.zeros(residuals.shape), where=residuals > 0).max(initial=0.0))


def _constraints(labelings: Sequence[Labelings], n_weights: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Of all stored labelings: the number of their image, their differences and their losses."""
    owners = np.repeat(np.arange(len(labelings)), [len(stored) for stored in labelings])
    differences = np.array([d for stored in labelings for d in stored.differences] or np.empty((0, n_weights)))
    if differences.shape != (len(owners), n_weights):
        raise ValueError(f"w has {n_weights} weights, but the differences of the labelings {differences.shape[1:]}")
    losses = np.array([loss for stored in labelings for loss in stored.losses], dtype=float)
    return owners, differences, losses


def check_program(labelings: Sequence[Labelings], C: float, w: WeightsLike) -> None:
    """Raise a ValueError that names what is wrong, unless this is a program that can be solved."""
    if not len(labelings):
        raise ValueError("labelings is empty; those of at least one image are needed")
    if not LEAST_C <= C <= LARGEST_C:
        raise ValueError(f"C must be between {LEAST_C:g} and {LARGEST_C:g}, got {C}")
    if np.ndim(w) != 1 or not np.isfinite(w).all():
        raise ValueError(f"w must be finite and of shape (n_weights,), got {w}")


def image_shares(labelings: Sequence[Labelings]) -> FloatArray:
    """What each image's slack counts in their mean: 1/N, or more or less by its weight."""
    return np.array([stored.known.weight for stored in labelings]) / len(labelings)


def objective_at(w: FloatArray, slack: FloatArray, shares: FloatArray, C: float) -> float:
    """What (8) minimises; shares are `image_shares`."""
    return float(0.5 * w @ w + C * (shares @ slack))


def _by_image(values: FloatArray, labelings: Sequence[Labelings]) -> list[FloatArray]:
    """Values of all stored labelings, an array for each image."""
    return np.split(values, np.cumsum([len(stored) for stored in labelings])[:-1])


def _worst_constraints(violations: FloatArray, owners: IntArray) -> IntArray:
    """Of each image that has one: the constraint violated most."""
    if not len(owners):
        return owners
    first = np.flatnonzero(np.diff(owners, prepend=-1))  # of each image
    most = np.repeat(np.maximum.reduceat(violations, first), np.diff(first, append=len(owners)))
    worst = np.flatnonzero((violations == most) & (violations > 0))
    return worst[np.unique(owners[worst], return_index=True)[1]]  # one of each image, where some are alike


def _solve_mean_slack_program(
    slopes: FloatArray, heights: FloatArray, C: float, exact: bool
) -> tuple[FloatArray, float, FloatArray]:
    """Solve min 1/2 |w|^2 + C xi, xi >= heights - slopes @ w, w_2, w_3, ... >= 0; return w, xi and the multipliers.

    Unless it is to be exact, last digits may be wrong.
    """
    if not heights.any():
        return np.zeros(slopes.shape[1]), 0.0, np.zeros(len(heights))
    # slopes below this bound move no margin by a digit
    scale = max(np.linalg.norm(slopes, axis=1).max(), 1e-8 * np.sqrt(heights.max() / C))
    slopes, heights, C = slopes / scale, heights / scale, C * scale

    def mean_slack(w: FloatArray) -> float:
        return float((heights - slopes @ w).max())

    def objective(w: FloatArray) -> float:
        return float(0.5 * w @ w + C * mean_slack(w))

    w, multipliers, held = _take_proximal_steps(slopes, heights, C)
    if not exact:
        w = np.append(w[0], np.maximum(w[1:], 0))
        return w, scale * mean_slack(w), multipliers / scale
    # this w loses what is tiny beside xi, and the multipliers' w cancels where C is large; solving anew for the
    # constraints found to be active loses nothing, if the right ones were found
    active = np.flatnonzero(multipliers > _ROUNDING * C)
    exact_w, exact_multipliers = _solve_active(slopes, heights, C, active, held)
    candidates = [(w, multipliers), (multipliers @ slopes, multipliers), (exact_w, exact_multipliers)]
    candidates = [(np.append(w[0], np.where(held[1:], 0, np.maximum(w[1:], 0))), m) for w, m in candidates]
    least = min(objective(w) for w, _ in candidates)
    good = [(w, m) for w, m in candidates if objective(w) <= least + 1e-11 * abs(least) and (m >= 0).all()]
    w, multipliers = good[-1]
    return w, scale * mean_slack(w), multipliers / scale


def _take_proximal_steps(slopes: FloatArray, heights: FloatArray, C: float) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Solve the same program by quadprog; return w, the multipliers, and which weights are held at zero.

    quadprog wants a Hessian of full rank, which xi lacks. So a small multiple of (xi - xi')^2 is added, xi' being the
    last solution, until it does not move: proximal point steps, which end at the optimum without the term.
    """
    n_weights = slopes.shape[1]
    # weak enough for xi to get where it wants in few steps, strong enough not to lose digits on the way
    ridge = max(C / (1000 * heights.max()), 0.01)
    hessian = np.diag([1 / ridge] * n_weights + [1.0])
    signs = np.eye(n_weights + 1)[1:n_weights]
    constraints = np.vstack([np.column_stack([slopes, np.ones(len(slopes))]), signs]).T
    bounds = np.append(heights, np.zeros(len(signs)))
    xi = heights.max()
    for _ in range(_MAX_PROXIMAL_STEPS):
        linear = np.append(np.zeros(n_weights), xi - C / ridge)
        solution, _, _, _, multipliers, _ = quadprog.solve_qp(hessian, linear, constraints, bounds)
        moved, xi = abs(solution[-1] - xi), solution[-1]
        if ridge * moved <= 1e-13 * C:
            break
    of_planes, of_signs = np.split(multipliers, [len(slopes)])
    return solution[:-1], of_planes * (C / of_planes.sum()), np.append(False, of_signs > 0)


def _solve_active(
    slopes: FloatArray, heights: FloatArray, C: float, active: IntArray, held: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Solve w = multipliers @ slopes, sum(multipliers) = C, heights - slopes @ w = xi on what is active and free."""
    free = np.flatnonzero(~held)
    rows = slopes[np.ix_(active, free)]
    unit = max(C, 1.0)  # the unknowns are w or w / C, and multipliers / C, so that both kinds are of a size
    matrix = np.block(
        [
            [np.eye(len(free)) / unit, -rows.T, np.zeros((len(free), 1))],
            [rows * (C / unit), np.zeros((len(active), len(active))), np.ones((len(active), 1))],
            [np.zeros((1, len(free))), np.ones((1, len(active))), np.zeros((1, 1))],
        ]
    )
    right = np.concatenate([np.zeros(len(free)), heights[active], [1.0]])
    # log-odds can be a million times larger than contrasts: make all rows and columns of a size
    of_rows = 1 / np.abs(matrix).max(axis=1)
    matrix *= of_rows[:, np.newaxis]
    of_columns = 1 / np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    matrix *= of_columns
    inverse = np.linalg.pinv(matrix)
    solution = np.zeros(len(right))
    for _ in range(4):  # each step corrects multipliers that are tiny beside C
        solution += inverse @ (of_rows * right - matrix @ solution)
    solution *= of_columns
    w, multipliers = np.zeros(len(held)), np.zeros(len(slopes))
    w[free] = solution[: len(free)] * (C / unit)
    multipliers[active] = C * solution[len(free) : -1]
    return w, np.where(np.abs(multipliers) < _ROUNDING * C, np.maximum(multipliers, 0), multipliers)
