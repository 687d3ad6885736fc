"""The quadratic program (8) over stored labelings, its solver, and its optimality conditions.

    gamma = min_w 1/2 |w|^2 + C/N sum_n s_n xi_n   with   w . (psi(y) - psi(y_n)) >= Delta(y_n, y) - xi_n,   xi >= 0,

for every image n and every stored labeling y. s_n is the weight of the image, 1 by default. The first entry of w is
free. The others, of the pairwise terms, are not negative. If a term has one for each pair of labels, they obey the
triangle inequality, and their part of |w|^2 is the mean of squares over the pairs, see `skmmcrf.field.PairWeights`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import quadprog
from scipy.linalg import null_space
from scipy.optimize import nnls

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.field.pair_weights import PairWeights
from skmmcrf.learning.example import Example

#: Between which the program is solved to rounding.
LEAST_C, LARGEST_C = 1e-12, 1e8
_MAX_PROXIMAL_STEPS = 50
_ROUNDING = 1e-12
# relative to the largest weight
_VIOLATED, _TIGHT = 1e-11, 1e-9


@dataclass
class Solution:
    """An optimum of (8), and of its dual.

    Attributes
    ----------
    w : ndarray of shape (n_weights,)
    slack : ndarray of shape (n_images,)
        xi, how much each image's worst labeling violates its margin at w, in pixels.
    multipliers : list of n_images ndarrays
        lambda of each stored labeling, the dual. Their sum is at most s_n C/N an image. The rest is the multiplier of
        xi_n >= 0.
    value : float
        gamma: ``1/2 |w|^2 + C/N`` times the sum of the slacks, each times the weight of its image.
    dual_gap : float
        `value` less the value of the dual of (8) over the stored labelings, which is never above gamma. For two labels
        it bounds the distance of `value` from gamma.
    inference_gap : float
        By how much `value` may be too low, because for more than two labels the most violated labelings need not be
        found. The objective of (8) at `w` over all labelings is between `value` and `value + inference_gap`, so that
        gamma is between `value - dual_gap` and `value + inference_gap`. 0 for two labels, NaN if it was not computed.
    n_iter : int
        Passes over the images: the number of cuts after the first labelings over the number of images, rounded up.
    converged : bool
        Whether the gap is within the tolerance.
    """

    w: FloatArray
    slack: FloatArray
    multipliers: list[FloatArray]
    value: float
    dual_gap: float = 0.0
    inference_gap: float = np.nan
    n_iter: int = 0
    converged: bool = True


@dataclass
class WorkingSet:
    """What holds an optimum of (8). The next program, of more labelings, is solved sooner when it begins with that.

    Attributes
    ----------
    planes : list of ndarray of shape (n_images,)
        Sums of constraints. Each has the number of a stored labeling for each image, or -1.
    triangles : list of ndarray of shape (n_weights,)
        Rows from `PairWeights.triangles`.
    """

    planes: list[IntArray] = field(default_factory=list)
    triangles: list[FloatArray] = field(default_factory=list)


def solve_program(
    examples: Sequence[Example], C: float, w: FloatArray | None = None, working_set: WorkingSet | None = None
) -> Solution:
    """Solve (8) over the stored labelings.

    The slacks are hinge losses of w, so the problem has few variables for any number of images. Cutting planes on the
    mean slack solve it. Each plane is the sum of every image's worst stored constraint. This is the one-slack form of
    Joachims, Finley, Yu, "Cutting-plane training of structural SVMs" (2009). The number of sums is finite, so the last
    one proves the optimum to rounding.

    Parameters
    ----------
    examples : list of Example
    C : float
    w : ndarray of shape (n_weights,), optional
        The starting point, (1, 1, ...) by default. The optimum does not depend on it.
    working_set : WorkingSet, optional
        Planes and triangles to begin with. They are replaced by those that hold the optimum.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        If examples is empty. If C is not between `LEAST_C` and `LARGEST_C`. If w is not as long as the examples' psi.
        If anything is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Annotation, Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.array([[2.0]]), np.zeros((1, 1, 1)))
    >>> example = Example(energy, Annotation(np.array([[True]])))
    >>> example.store(np.array([[False]]))
    True
    >>> solve_program([example], C=10.0).w.round(6)
    array([0.5, 0. , 0. ])
    """
    w = check_program(examples, C, w)
    owners, differences, losses = _constraints(examples)
    weights = weights_of(examples)
    w, differences = w * weights.scale, differences / weights.scale
    if not (np.isfinite(differences).all() and np.isfinite(losses).all()):
        raise ValueError("labelings must have finite differences and losses")
    shares, before = image_shares(examples), working_set or WorkingSet()
    cone = _Cone(weights, before.triangles)

    firsts = np.cumsum([0, *map(len, examples)])  # of the labelings of each image
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
    for start in (np.zeros(len(w)), w):
        add_plane(_worst_constraints(losses - differences @ start, owners))
    for plane in before.planes:
        add_plane((firsts[:-1] + plane)[plane >= 0])
    exact = False
    while True:
        w, bound, plane_multipliers = _solve_mean_slack_program(np.array(slopes), np.array(heights), C, cone, exact)
        margins = differences @ w
        worst = _worst_constraints(losses - margins, owners)
        violations = losses[worst] - margins[worst]
        share = shares[owners[worst]]
        rounding = 1e-13 * share @ (losses[worst] + np.abs(margins[worst]))
        if share @ violations - bound <= rounding or not add_plane(worst):
            if exact:
                break
            exact = True

    slack, multipliers = np.zeros(len(examples)), np.zeros(len(owners))
    slack[owners[worst]] = violations
    for constraints, multiplier in zip(planes.values(), plane_multipliers):
        multipliers[constraints] += multiplier * shares[owners[constraints]]
    held = [constraints for constraints, m in zip(planes.values(), plane_multipliers) if m > 0]
    before.planes, before.triangles = list(np.full((len(held), len(examples)), -1)), cone.triangles
    for plane, constraints in zip(before.planes, held):
        plane[owners[constraints]] = constraints - firsts[owners[constraints]]
    value, multipliers_by_image = objective_at(w, slack, shares, C), _by_image(multipliers, examples)
    return Solution(weights.closed(w / weights.scale), slack, multipliers_by_image, value)


def evaluate_stored(w: FloatArray, examples: Sequence[Example], C: float) -> Solution:
    """Evaluate (8) over the stored labelings at given weights.

    Returns
    -------
    Solution
        The solution at w. The multiplier of each image's most violated labeling is s_n C/N. With these,
        `Example.gradient` gives the gradient of this value in the log-odds for fixed w. The gap is not known, and
        infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Annotation, Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.array([[2.0]]), np.zeros((1, 1, 1)))
    >>> example = Example(energy, Annotation(np.array([[True]]), class_weight=(1.0, 3.0)))
    >>> example.store(np.array([[False]]))
    True
    >>> at_ones = evaluate_stored(np.ones(3), [example], C=10.0)
    >>> at_ones.slack, at_ones.value, at_ones.multipliers
    (array([1.]), 11.5, [array([10.])])
    """
    w = check_program(examples, C, w)
    owners, differences, losses = _constraints(examples)
    violations = losses - differences @ w
    worst = _worst_constraints(violations, owners)
    shares = image_shares(examples)
    slack, multipliers = np.zeros(len(examples)), np.zeros(len(owners))
    slack[owners[worst]] = violations[worst]
    multipliers[worst] = C * shares[owners[worst]]
    value = objective_at(w * weights_of(examples).scale, slack, shares, C)
    return Solution(w, slack, _by_image(multipliers, examples), value, dual_gap=np.inf)


def optimality_residuals(solution: Solution, examples: Sequence[Example], C: float) -> dict[str, float]:
    """Give the violation of the optimality conditions of (8) over the labelings stored when it was solved.

    The conditions of Karush, Kuhn and Tucker prove an optimum of this convex program. Each residual is the largest of
    its kind, relative to the size of the terms whose difference it is. A residual in w is measured by its effect on
    margins.

    Returns
    -------
    dict of str to float
        "stationarity in w" is w - sum_k lambda_k (psi(y_k) - psi(y_n)), less a combination of the inequalities of w
        that hold with equality, with factors that are not negative. It must vanish. "stationarity in xi" is the excess
        of an image's multipliers over its share of C. "feasibility" is the largest of missed margins, violated
        inequalities of w, and negative slacks or multipliers.
        "complementarity" is about multipliers of constraints that do not hold with equality.
    """
    owners, differences, losses = _constraints(examples)
    weights, slack, multipliers = weights_of(examples), solution.slack, np.concatenate(solution.multipliers)
    w, differences = solution.w * weights.scale, differences / weights.scale
    slack_weights = C * image_shares(examples)
    slack_weight = slack_weights.max()
    margins = differences @ w
    size = losses + np.abs(differences) @ np.abs(w)  # margins may be next to nothing by cancellation
    size = np.maximum(size, 1e-8 * size.max(initial=0.0))  # and whole constraints nothing but rounding
    missed = losses - margins - slack[owners]

    largest = np.abs(w[1:]).max(initial=0.0)
    tight = np.vstack([weights.signs()[w[1:] == 0], weights.triangles(w, _TIGHT * (largest or 1.0))])
    residual = w - multipliers @ differences
    in_w = np.abs(residual - nnls(tight.T, residual)[0] @ tight) if len(tight) else np.abs(residual)
    reach = np.abs(differences).max(axis=0, initial=0.0)
    with np.errstate(over="ignore"):
        whole_margin = np.divide(losses.max(initial=0.0), reach, out=np.full(len(w), np.inf), where=reach > 0)
    sums = np.bincount(owners, multipliers, minlength=len(examples))
    negative = [np.abs(weights.closed(w) - w), -slack, -multipliers / slack_weight]
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
    """The largest residual relative to its size. 0 over 0 is 0."""
    size = np.broadcast_to(size, residuals.shape)
    return float(np.divide(residuals, size, out=np.zeros(residuals.shape), where=residuals > 0).max(initial=0.0))


def _constraints(examples: Sequence[Example]) -> tuple[IntArray, FloatArray, FloatArray]:
    """Of all stored labelings: the number of their image, their differences and their losses."""
    owners = np.repeat(np.arange(len(examples)), [len(example) for example in examples])
    differences = np.array([d for example in examples for d in example.differences], dtype=float)
    losses = np.array([loss for example in examples for loss in example.losses], dtype=float)
    return owners, differences.reshape(-1, weights_of(examples).n_weights), losses


def weights_of(examples: Sequence[Example]) -> PairWeights:
    """What the entries of w mean, which all examples share."""
    return examples[0].energy.weights


def check_program(examples: Sequence[Example], C: float, w: FloatArray | None) -> FloatArray:
    """Give w, (1, 1, ...) by default, or raise a ValueError if the program can't be solved."""
    if not len(examples):
        raise ValueError("examples is empty: give at least one")
    if not LEAST_C <= C <= LARGEST_C:
        raise ValueError(f"C must be between {LEAST_C:g} and {LARGEST_C:g}, got {C}")
    n_weights = weights_of(examples).n_weights
    if any(example.energy.n_weights != n_weights for example in examples):
        raise ValueError("examples must have the same terms")
    w = np.ones(n_weights) if w is None else np.asarray(w, dtype=float)
    if w.shape != (n_weights,) or not np.isfinite(w).all():
        raise ValueError(f"w must be finite and of shape ({n_weights},), got {w}")
    return w


def image_shares(examples: Sequence[Example]) -> FloatArray:
    """The share of each image's slack in the mean: 1/N, times the weight of the image."""
    return np.array([example.annotation.weight for example in examples]) / len(examples)


def objective_at(w: FloatArray, slack: FloatArray, shares: FloatArray, C: float) -> float:
    """The objective of (8) at weights times `PairWeights.scale`, for shares from `image_shares`."""
    return float(0.5 * w @ w + C * (shares @ slack))


def _by_image(values: FloatArray, examples: Sequence[Example]) -> list[FloatArray]:
    """Values of all stored labelings, an array for each image."""
    return np.split(values, np.cumsum([len(example) for example in examples])[:-1])


def _worst_constraints(violations: FloatArray, owners: IntArray) -> IntArray:
    """Of each image that has one: the constraint violated most."""
    if not len(owners):
        return owners
    first = np.flatnonzero(np.diff(owners, prepend=-1))  # of each image
    most = np.repeat(np.maximum.reduceat(violations, first), np.diff(first, append=len(owners)))
    worst = np.flatnonzero((violations == most) & (violations > 0))
    return worst[np.unique(owners[worst], return_index=True)[1]]  # one of each image, where some are alike


class _Cone:
    """The weights w with rows @ w >= 0: those of no negative pairwise weight, and of some triangle inequalities.

    Triangle inequalities are many, but few of them hold with equality. They are added when they are violated.

    Parameters
    ----------
    weights : PairWeights
    triangles : list of ndarray of shape (n_weights,)

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_weights)
    """

    def __init__(self, weights: PairWeights, triangles: Sequence[FloatArray]) -> None:
        self.weights = weights
        self.rows = np.vstack([weights.signs(), *triangles])
        self._n_signs = weights.n_weights - 1

    @property
    def triangles(self) -> list[FloatArray]:
        """The rows of triangle inequalities."""
        return list(self.rows[self._n_signs :])

    def cut_off(self, w: FloatArray) -> bool:
        """Add the triangle inequalities that w violates, and tell whether any of them is new."""
        violated = self.weights.triangles(w, -_VIOLATED * np.abs(w[1:]).max(initial=0.0))
        known = {row.tobytes() for row in self.rows}
        new = [row for row in violated if row.tobytes() not in known]  # rounding may leave others violated
        self.rows = np.vstack([self.rows, *new])
        return bool(new)

    def keep(self, held: IntArray) -> None:
        """Forget the triangle inequalities that are not among some rows."""
        self.rows = self.rows[np.union1d(np.arange(self._n_signs), held)]

    def face(self, held: IntArray) -> FloatArray:
        """Give an orthonormal basis of the w for which all triangles, and some weights, hold with equality.

        Returns
        -------
        ndarray of shape (n_weights, n_dimensions)
        """
        basis = np.delete(np.eye(self.weights.n_weights), 1 + held[held < self._n_signs], axis=1)
        if not self.triangles:
            return basis
        basis = basis @ null_space(np.array(self.triangles) @ basis)
        return np.where(np.abs(basis) < _ROUNDING, 0.0, basis)


def _solve_mean_slack_program(
    slopes: FloatArray, heights: FloatArray, C: float, cone: _Cone, exact: bool
) -> tuple[FloatArray, float, FloatArray]:
    """Solve min 1/2 |w|^2 + C xi, xi >= heights - slopes @ w, w in a cone, and return w, xi and the multipliers.

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

    w, multipliers, held = _take_proximal_steps(slopes, heights, C, cone.rows)
    while cone.cut_off(w):
        w, multipliers, held = _take_proximal_steps(slopes, heights, C, cone.rows)
    cone.keep(held)
    if not exact:
        w = cone.weights.closed(w)
        return w, scale * mean_slack(w), multipliers / scale
    # this w loses what is tiny beside xi, and the multipliers' w cancels where C is large; solving anew for the
    # constraints found to be active loses nothing, if the right ones were found
    active = np.flatnonzero(multipliers > _ROUNDING * C)
    face = cone.face(held)
    exact_w, exact_multipliers = _solve_active(slopes, heights, C, active, face)
    candidates = [(w, multipliers), (multipliers @ slopes, multipliers), (exact_w, exact_multipliers)]
    candidates = [(cone.weights.closed(face @ (w @ face)), m) for w, m in candidates]
    least = min(objective(w) for w, _ in candidates)
    good = [(w, m) for w, m in candidates if objective(w) <= least + 1e-11 * abs(least) and (m >= 0).all()]
    w, multipliers = good[-1]
    return w, scale * mean_slack(w), multipliers / scale


def _take_proximal_steps(
    slopes: FloatArray, heights: FloatArray, C: float, rows: FloatArray
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Solve the same program by quadprog, with rows @ w >= 0. Return w, the multipliers, and the rows that hold w.

    quadprog needs a Hessian of full rank, which xi lacks. A small multiple of (xi - xi')^2 is added, where xi' is the
    last solution. These proximal point steps are repeated until xi does not move, which is the optimum without the
    term.
    """
    n_weights = slopes.shape[1]
    # weak enough for xi to get where it wants in few steps, strong enough not to lose digits on the way
    ridge = max(C / (1000 * heights.max()), 0.01)
    hessian = np.diag([1 / ridge] * n_weights + [1.0])
    of_w_and_xi = [np.column_stack([slopes, np.ones(len(slopes))]), np.column_stack([rows, np.zeros(len(rows))])]
    constraints = np.vstack(of_w_and_xi).T
    bounds = np.append(heights, np.zeros(len(rows)))
    xi = heights.max()
    for _ in range(_MAX_PROXIMAL_STEPS):
        linear = np.append(np.zeros(n_weights), xi - C / ridge)
        solution, _, _, _, multipliers, _ = quadprog.solve_qp(hessian, linear, constraints, bounds)
        moved, xi = abs(solution[-1] - xi), solution[-1]
        if ridge * moved <= 1e-13 * C:
            break
    of_planes, of_rows = np.split(multipliers, [len(slopes)])
    return solution[:-1], of_planes * (C / of_planes.sum()), np.flatnonzero(of_rows > 0)


def _solve_active(
    slopes: FloatArray, heights: FloatArray, C: float, active: IntArray, face: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Solve w = multipliers @ slopes, sum(multipliers) = C, heights - slopes @ w = xi on active planes and a face."""
    rows, n_free = slopes[active] @ face, face.shape[1]
    unit = max(C, 1.0)  # the unknowns are w or w / C, and multipliers / C, so that both kinds are of a size
    matrix = np.block(
        [
            [np.eye(n_free) / unit, -rows.T, np.zeros((n_free, 1))],
            [rows * (C / unit), np.zeros((len(active), len(active))), np.ones((len(active), 1))],
            [np.zeros((1, n_free)), np.ones((1, len(active))), np.zeros((1, 1))],
        ]
    )
    right = np.concatenate([np.zeros(n_free), heights[active], [1.0]])
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
    w, multipliers = face @ (solution[:n_free] * (C / unit)), np.zeros(len(slopes))
    multipliers[active] = C * solution[n_free:-1]
    return w, np.where(np.abs(multipliers) < _ROUNDING * C, np.maximum(multipliers, 0), multipliers)
