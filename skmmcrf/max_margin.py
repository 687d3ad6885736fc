"""Max-margin learning: stored labelings, the quadratic program (8), and cutting planes, Algorithm 1.

    gamma = min_w 1/2 |w|^2 + C/N sum_n s_n xi_n   with   w . (psi(y) - psi(y_n)) >= Delta(y_n, y) - xi_n,   xi >= 0,

for every image n and every labeling y; s_n is the weight of the image, 1 unless it is said. The first weight is free,
the others, of the pairwise terms, are not negative.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from numbers import Integral, Real
from typing import Any

import numpy as np
import quadprog
from joblib import delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, Options, StrOptions

from skmmcrf._typing import BoolArray, FloatArray, IntArray, WeightsLike
from skmmcrf.energy import joint_feature_difference, pairwise_features
from skmmcrf.graph_cut import check_image_fits, complete_labeling, loss_augmented_labeling
from skmmcrf.truth import Truth, pack_labeling, unpack_labelings
from skmmcrf.workers import Workers

INITIAL_WEIGHTS = (1.0, 1.0, 1.0)
# where the program is solved to rounding
_LEAST_C, _LARGEST_C = 1e-12, 1e8

#: What the parameters of the conditional random field and of its learner may be, wherever they appear.
CRF_CONSTRAINTS = {
    "C": [Interval(Real, _LEAST_C, _LARGEST_C, closed="both")],
    "connectivity": [Options(Integral, {4, 8})],
    "sigma": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [None, Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left")],
}

_MAX_PROXIMAL_STEPS = 50
# Algorithm 1 over many images: how many begin, to which relative gap and for how many passes, how far apart the
# weights lie at which the others are cut first, and in how many parts they are cut then
_FEW_IMAGES = 8
_ROUGH_TOL = 1e-2
_ROUGH_PASSES = 30
_SPREAD = 0.1
_PARTS = 8
# the relative gap above which few images are cut halfway to the optimum over what is stored, and how many times tol it
# may be by a part for all to be cut
_WIDE_GAP = 1e-2
_NARROW = 3.0
_ROUNDING = 1e-12
#: Beyond it the pairwise terms, which are of the size of 1, would be lost beside the log-odds.
LARGEST_LOG_ODDS = 1e6


class Labelings:
    """The labelings S_n stored for one image, packed to one bit a pixel and compressed, each with its constraint.

    Parameters
    ----------
    truth : Truth, or ndarray of bool and shape (H, W)
        y_n.

    Attributes
    ----------
    known : Truth
        With the weights of the image and of its pixels.
    differences : list of list of float
        psi(y) - psi(y_n) of each labeling, n_weights numbers.
    losses : list of float
        Delta(y_n, y) of each labeling, the weighted Hamming distance in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> stored = Labelings(np.array([[True, False]]))
    >>> stored.add(np.array([[True, True]]), np.array([0.5, 1.0, 1.0]), 1.0)
    True
    >>> stored.unpack([0])
    array([[[ True,  True]]])
    """

    def __init__(self, truth: Truth | BoolArray) -> None:
        self.known = truth if isinstance(truth, Truth) else Truth(truth)
        # numbers, because small arrays that stay, between large ones that go, would keep the memory of these in use
        self.differences: list[list[float]] = []
        self.losses: list[float] = []
        self._packed: dict[bytes, None] = {}  # keeps the order, and finds a labeling that is there already

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def truth(self) -> BoolArray:
        """y_n, array of bool and shape (H, W)."""
        return self.known.foreground

    def add(self, labels: BoolArray, difference: FloatArray, loss: float) -> bool:
        """Store a labeling with its constraint unless it is there already; tell whether it was new."""
        if labels.shape != self.known.shape:
            raise ValueError(f"labels must have the shape of the truth, {self.known.shape}, got {labels.shape}")
        packed = pack_labeling(labels)
        if packed in self._packed:
            return False
        self._packed[packed] = None
        self.differences.append(difference.tolist())
        self.losses.append(loss)
        return True

    def unpack(self, indices: Sequence[int] | IntArray) -> BoolArray:
        """Give the labelings at some indices, as an array of bool and shape (len(indices), H, W)."""
        packed = list(self._packed)
        return unpack_labelings([packed[k] for k in indices], self.known.shape)

    def reprice(self, log_odds: FloatArray) -> None:
        """Make the constraints those of changed log-odds, (H, W): only the unary differences depend on them."""
        if log_odds.shape != self.known.shape:
            raise ValueError(f"log_odds must have the shape of the truth, {self.known.shape}, got {log_odds.shape}")
        if not len(self):
            return
        # 0 where labels agree, so that large log-odds there cost no digits
        changes = self.truth.astype(np.int8) - self.unpack(range(len(self)))
        unary = changes.reshape(len(self), -1) @ np.ravel(log_odds).astype(float)
        for difference, value in zip(self.differences, unary.tolist()):
            difference[0] = value

    def keep_most_violated(self, w: FloatArray, n: int) -> None:
        """Forget all labelings but those n whose constraints ask for the largest slack under w, (n_weights,)."""
        if len(self) <= n:
            return
        violations = np.array(self.losses) - np.array(self.differences) @ w
        kept = np.sort(np.argsort(-violations, kind="stable")[:n])
        packed = list(self._packed)
        self._packed = dict.fromkeys(packed[k] for k in kept)
        self.differences = [self.differences[k] for k in kept]
        self.losses = [self.losses[k] for k in kept]

    def state_dict(self) -> dict[str, np.ndarray | None]:
        """Give all that may have changed since the beginning, as arrays."""
        packed = list(self._packed)
        return {
            "packed": np.frombuffer(b"".join(packed), dtype=np.uint8),
            "lengths": np.array([len(bits) for bits in packed], dtype=int),
            "differences": np.array(self.differences, dtype=float),
            "losses": np.array(self.losses, dtype=float),
            "truth": None if self.known.is_complete else self.truth,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        ends = np.cumsum(state["lengths"])
        bits = state["packed"].tobytes()
        self._packed = {bits[end - n : end]: None for n, end in zip(state["lengths"], ends)}
        self.differences = state["differences"].tolist()
        self.losses = state["losses"].tolist()
        if state["truth"] is not None:
            self.known.complete(state["truth"])

    def complete(self, labels: BoolArray, shift: FloatArray) -> None:
        """Label the unlabelled pixels of y_n; `shift` is psi(y_n) before less psi(y_n) after."""
        self.known.complete(labels)
        self.differences = [(difference + shift).tolist() for difference in np.array(self.differences)]


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
    _check_program(labelings, C, w)
    owners, differences, losses = _constraints(labelings, len(w))
    if not (np.isfinite(differences).all() and np.isfinite(losses).all()):
        raise ValueError("labelings must have finite differences and losses")
    shares = _shares(labelings)

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
        value=_objective(w, slack, shares, C),
    )


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
    slack_weights = C * _shares(labelings)
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


def _check_program(labelings: Sequence[Labelings], C: float, w: WeightsLike) -> None:
    if not len(labelings):
        raise ValueError("labelings is empty; those of at least one image are needed")
    if not _LEAST_C <= C <= _LARGEST_C:
        raise ValueError(f"C must be between {_LEAST_C:g} and {_LARGEST_C:g}, got {C}")
    if np.ndim(w) != 1 or not np.isfinite(w).all():
        raise ValueError(f"w must be finite and of shape (n_weights,), got {w}")


def _check_log_odds(log_odds: FloatArray, n: int) -> None:
    largest = float(np.abs(log_odds).max())  # float16 has no number as large as the bound
    if not largest <= LARGEST_LOG_ODDS:
        raise ValueError(
            f"log_odds[{n}] must be finite and within -{LARGEST_LOG_ODDS:g} and {LARGEST_LOG_ODDS:g}, got {largest:g}"
        )


def _shares(labelings: Sequence[Labelings]) -> FloatArray:
    """What each image's slack counts in their mean: 1/N, or more or less by its weight."""
    return np.array([stored.known.weight for stored in labelings]) / len(labelings)


def _objective(w: FloatArray, slack: FloatArray, shares: FloatArray, C: float) -> float:
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


def most_violated(
    w: FloatArray,
    log_odds: FloatArray,
    image: np.ndarray,
    truth: Truth,
    *,
    connectivity: int,
    sigma: float,
) -> tuple[BoolArray, FloatArray, float]:
    """Find the labeling that violates its constraint of (8) most, and the constraint.

    Parameters
    ----------
    w : ndarray of shape (3,)
    log_odds : ndarray of float and shape (H, W)
    image : ndarray of shape (H, W, channels)
        See `skmmcrf.energy.squared_contrast`.
    truth : Truth
    connectivity : int
    sigma : float

    Returns
    -------
    labels : ndarray of bool and shape (H, W)
    difference : ndarray of shape (3,)
        psi(y) - psi(y_n).
    loss : float
        Delta(y_n, y), the weighted Hamming distance in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.truth import Truth, pack_labeling, unpack_labelings
    >>> w, truth = np.array([1.0, 0.0, 0.0]), Truth(np.array([[True, False]]))
    >>> most_violated(w, np.array([[5.0, -0.5]]), np.zeros((1, 2, 1)), truth, connectivity=4, sigma=1.0)
    (array([[ True,  True]]), array([ 0.5, -1. , -1. ]), 1.0)
    """
    check_image_fits(log_odds, image)
    edges, features = pairwise_features(image, connectivity=connectivity, sigma=sigma)
    y_n, pixel_weights = truth.foreground, truth.pixel_weights
    labels = loss_augmented_labeling(w, log_odds, y_n, edges, features, pixel_weights)
    difference = joint_feature_difference(labels, y_n, log_odds, edges, features)
    return labels, difference, float(pixel_weights[labels != y_n].sum())


def completion(
    w: FloatArray, log_odds: FloatArray, image: np.ndarray, truth: Truth, *, connectivity: int, sigma: float
) -> tuple[BoolArray, FloatArray]:
    """Find the labels of unlabelled pixels under which the truth has the least energy.

    Parameters
    ----------
    w, log_odds, image, truth, connectivity, sigma
        See `most_violated`.

    Returns
    -------
    labels : ndarray of bool and shape (H, W)
        y_n with them.
    shift : ndarray of shape (3,)
        psi(y_n) as it was, less psi(labels).

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.truth import Truth, pack_labeling, unpack_labelings
    >>> truth = Truth(np.array([[True, False]]), np.array([[True, False]]))
    >>> completion(np.ones(3), np.array([[3.0, 1.0]]), np.zeros((1, 2, 1)), truth, connectivity=4, sigma=1.0)
    (array([[ True,  True]]), array([1., 1., 1.]))
    """
    check_image_fits(log_odds, image)
    edges, features = pairwise_features(image, connectivity=connectivity, sigma=sigma)
    before = truth.foreground
    labels = complete_labeling(w, log_odds, before, truth.labelled, edges, features)
    return labels, joint_feature_difference(before, labels, log_odds, edges, features)


def learn_weights(
    log_odds: Sequence[FloatArray],
    images: Sequence[np.ndarray],
    labelings: Sequence[Labelings],
    C: float,
    *,
    connectivity: int,
    sigma: float,
    tol: float,
    max_iter: int,
    w: WeightsLike = INITIAL_WEIGHTS,
    n_jobs: int | None = None,
    report: Callable[[int, float, float, float], None] | None = None,
) -> Solution:
    """Solve (8) by Algorithm 1: find each image's most violated labeling, store it, solve (8) over all stored; repeat.

    Ends when the least upper bound, gamma at weights where every image was cut, exceeds the lower bound, (8) over the
    stored labelings, by at most `tol` of itself.

    Unlabelled pixels of a truth take the labels of least energy under w, and are free in the labelings that it must
    beat. That makes (8) a difference of convex programs (Yu, Joachims, "Learning structural SVMs with latent
    variables", 2009): Algorithm 1 solves it for given completions, which are then made anew, until gamma falls no more.

    Parameters
    ----------
    log_odds : list of ndarray of float and shape (H, W)
    images : list of ndarray of shape (H, W, channels)
        See `skmmcrf.energy.squared_contrast`.
    labelings : list of Labelings
        What is stored is used at the present log-odds, and added to.
    C : float
    connectivity : int
    sigma : float
    tol : float
    max_iter : int
        Passes over the images at most.
    w : ndarray of shape (3,), default=(1, 1, 1)
        Weights of the first pass if nothing is stored, and of the first completion.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    report : callable, optional
        Called with the number of the pass, the lower and the upper bound, and the share of images that were cut for the
        latter; below 1 it is an estimate.

    Returns
    -------
    Solution
        Slacks, value and gap are those of all labelings, for truths completed as they are left; the multipliers are
        those of (8) over the stored ones.

    Warns
    -----
    ConvergenceWarning
        If the gap is not closed after `max_iter` passes.

    Examples
    --------
    >>> import numpy as np
    >>> log_odds, truth = [np.array([[2.0, -1.0]])], np.array([[True, False]])
    >>> solution = learn_weights(log_odds, [np.zeros((1, 2, 1))], [Labelings(truth)], C=1.0, connectivity=4, sigma=1.0,
    ...                          tol=1e-6, max_iter=20)
    >>> solution.w.round(3), round(solution.value, 3)
    (array([1., 0., 0.]), 0.5)
    """
    _check_program(labelings, C, w)
    if not (tol >= 0 and max_iter >= 1):
        raise ValueError(f"tol must not be negative and max_iter be at least 1, got {tol} and {max_iter}")
    w = np.asarray(w, dtype=float)
    with Workers(n_jobs) as workers:
        cuts = _Cuts(workers, log_odds, images, labelings, connectivity=connectivity, sigma=sigma)
        cuts.complete(w)
        cut_at = cuts.store_most_violated
        everyone = np.random.default_rng(0).permutation(len(labelings))
        is_new = not any(len(stored) for stored in labelings)
        if is_new:
            w = _first_labelings(cut_at, labelings, everyone, C, w)
        solution, closed = _cutting_planes(
            cut_at, labelings, everyone, C, w, tol, max_iter, report=report, w_is_near=not is_new
        )
        # a truth completed anew at the optimum has less energy, so gamma can only fall
        while closed and solution.n_iter < max_iter and cuts.complete(solution.w):
            before = solution
            left = max_iter - before.n_iter
            solution, closed = _cutting_planes(
                cut_at, labelings, everyone, C, before.w, tol, left, report=report, n_before=before.n_iter
            )
            if before.value - solution.value <= tol * before.value:
                break
    if not closed:
        lower = solution.value - solution.dual_gap
        warnings.warn(
            f"Algorithm 1 did not converge in max_iter={max_iter} passes: gamma is between {lower:.6g} and "
            f"{solution.value:.6g}, a relative gap of {solution.dual_gap / solution.value:.2g}. Increase max_iter or "
            "tol.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return solution


def evaluate_program(
    w: WeightsLike,
    log_odds: Sequence[FloatArray],
    images: Sequence[np.ndarray],
    labelings: Sequence[Labelings],
    C: float,
    *,
    connectivity: int,
    sigma: float,
    n_jobs: int | None = None,
) -> Solution:
    """Evaluate the objective of (8) at given weights, with one cut an image, whose labeling is stored.

    Its multipliers are those with which `skmmcrf.derivative.envelope_gradient` gives the gradient of this objective in
    the log-odds, w being held.

    Parameters
    ----------
    w : ndarray of shape (3,)
    log_odds : list of ndarray of float and shape (H, W)
    images : list of ndarray of shape (H, W, channels)
        See `skmmcrf.energy.squared_contrast`.
    labelings : list of Labelings
        Added to. Unlabelled pixels of the truths take the labels of least energy.
    C : float
    connectivity : int
    sigma : float
    n_jobs : int, optional
        Processes that cut, as in joblib.

    Returns
    -------
    Solution
        At w, with s_n C/N as the multiplier of each image's most violated labeling. The gap is not known, and infinite.

    Examples
    --------
    >>> import numpy as np
    >>> log_odds, stored = [np.array([[2.0, -0.5]])], [Labelings(np.array([[True, False]]))]
    >>> solution = evaluate_program([1.0, 0.0, 0.0], log_odds, [np.zeros((1, 2, 1))], stored, C=1.0, connectivity=4,
    ...                             sigma=1.0)
    >>> solution.value, solution.slack, solution.multipliers
    (1.0, array([0.5]), [array([1.])])
    """
    _check_program(labelings, C, w)
    w = np.asarray(w, dtype=float)
    with Workers(n_jobs) as workers:
        cuts = _Cuts(workers, log_odds, images, labelings, connectivity=connectivity, sigma=sigma)
        cuts.complete(w)
        slack = cuts.store_most_violated(w, np.arange(len(labelings)))
    owners, differences, losses = _constraints(labelings, len(w))
    worst = _worst_constraints(losses - differences @ w, owners)
    shares = _shares(labelings)
    multipliers = np.zeros(len(owners))
    multipliers[worst] = C * shares[owners[worst]]
    return Solution(
        w, slack, _by_image(multipliers, labelings), _objective(w, slack, shares, C), dual_gap=np.inf, n_iter=1
    )


class _Cuts:
    """The graph cuts of labelled images that Algorithm 1 asks for, whose labelings it stores.

    Parameters
    ----------
    workers : Workers
        Which cut.
    log_odds, images, labelings, connectivity, sigma
        See `learn_weights`. What is stored is made that of these log-odds.
    """

    def __init__(
        self,
        workers: Workers,
        log_odds: Sequence[FloatArray],
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        *,
        connectivity: int,
        sigma: float,
    ) -> None:
        if not len(log_odds) == len(images) == len(labelings):
            raise ValueError(
                f"log_odds, images and labelings must have the same length, got {len(log_odds)}, {len(images)} and "
                f"{len(labelings)}"
            )
        for n, stored in enumerate(labelings):
            _check_log_odds(log_odds[n], n)
            stored.reprice(log_odds[n])
        self.workers = workers
        self.log_odds = log_odds
        self.images = images
        self.labelings = labelings
        self.field = {"connectivity": connectivity, "sigma": sigma}
        self.unlabelled = [n for n, stored in enumerate(labelings) if not stored.known.is_complete]

    def _of_images(self, function: Callable[..., Any], rows: FloatArray, numbers: Sequence[int] | IntArray) -> Any:
        """Results of a function for some images, each at its row of weights."""
        one = delayed(function)
        return self.workers.run(
            one(w, self.log_odds[n], self.images[n], self.labelings[n].known, **self.field)
            for w, n in zip(rows, numbers)
        )

    def complete(self, w: FloatArray) -> bool:
        """Complete the truths; tell whether that changes any."""
        changed = False
        rows = np.broadcast_to(w, (len(self.unlabelled), len(w)))
        for (labels, shift), n in zip(self._of_images(completion, rows, self.unlabelled), self.unlabelled):
            changed |= bool((labels != self.labelings[n].truth).any())
            self.labelings[n].complete(labels, shift)
        return changed

    def store_most_violated(self, w: FloatArray, numbers: IntArray) -> FloatArray:
        """Store the most violated labelings of some images, at weights that are the same or a row for each.

        Gives the slacks that they ask for.
        """
        rows = np.broadcast_to(w, (len(numbers), w.shape[-1]))
        slack = np.zeros(len(numbers))  # the truth itself violates nothing
        # labelings are packed as they come
        for k, (labels, difference, loss) in enumerate(self._of_images(most_violated, rows, numbers)):
            self.labelings[numbers[k]].add(labels, difference, loss)
            slack[k] = max(loss - difference @ rows[k], 0.0)
        return slack


def _first_labelings(
    cut_at: Callable[[FloatArray, IntArray], FloatArray],
    labelings: Sequence[Labelings],
    numbers: IntArray,
    C: float,
    w: FloatArray,
) -> FloatArray:
    """Store a first labeling of each image, and give weights to go on from.

    There are few weights, so a few images tell roughly where they will end. The others are cut there, each at weights
    that are a little different, so that together they tell how gamma changes around them.
    """
    if len(numbers) <= 2 * _FEW_IMAGES:
        cut_at(w, numbers)
        return w
    few, others = np.split(numbers, [_FEW_IMAGES])
    cut_at(w, few)
    rough, _ = _cutting_planes(cut_at, labelings, few, C, w, _ROUGH_TOL, _ROUGH_PASSES)
    factors = 1 + _SPREAD * np.random.default_rng(0).uniform(-1, 1, (len(others), len(w)))
    cut_at(rough.w * factors, others)
    return rough.w


def _cutting_planes(
    cut_at: Callable[[FloatArray, IntArray], FloatArray],
    labelings: Sequence[Labelings],
    numbers: IntArray,
    C: float,
    w: FloatArray,
    tol: float,
    max_iter: int,
    *,
    report: Callable[[int, float, float, float], None] | None = None,
    n_before: int = 0,
    w_is_near: bool = False,
) -> tuple[Solution, bool]:
    """Algorithm 1 over some images, whose truths are complete and have labelings; tell too whether the gap is closed.

    Many images are cut in parts, (8) being solved after each. The slacks of a part tell roughly how far the bounds are
    apart; when that is little, the others are cut at the same weights, which gives the upper bound.
    """
    images = [labelings[n] for n in numbers]
    shares = _shares(images)
    are_many = len(images) > 2 * _FEW_IMAGES
    parts = np.array_split(np.arange(len(images)), _PARTS if are_many else 1)
    may_overshoot = w_is_near and not are_many
    solution = solve_program(images, C, w)
    best: Solution | None = None
    gap, n_cuts = np.inf, 0
    for part in cycle(parts):
        # the optimum over what is stored of few images lies beyond what is sought, seen from near it
        halfway = may_overshoot and gap > _WIDE_GAP
        w = (w + solution.w) / 2 if halfway else solution.w
        n_stored = sum(map(len, images))
        stored_slack, slack = _slacks(images, w), np.full(len(images), np.nan)
        slack[part] = cut_at(w, numbers[part])
        upper = _objective(w, _extrapolate(slack, stored_slack, shares), shares, C)
        others = np.flatnonzero(np.isnan(slack))
        last = n_cuts + 2 * len(part) > max_iter * len(images)
        if last or upper - solution.value <= _NARROW * tol * upper:
            slack[others] = cut_at(w, numbers[others])
            upper = _objective(w, slack, shares, C)
        n_cut = int(np.isfinite(slack).sum())
        n_cuts += n_cut
        is_bound = n_cut == len(images)
        if is_bound and (best is None or upper < best.value):
            best = Solution(w, slack, [], upper)
        new = sum(map(len, images)) > n_stored
        solution = solve_program(images, C, w)
        gap = (upper - solution.value) / upper if upper > 0 else 0.0
        # where all labelings are known, only rounding is left between the bounds
        all_known = is_bound and not new and not halfway
        closed = best is not None and (best.value - solution.value <= tol * best.value or all_known)
        n_iter = n_before + -(-n_cuts // len(images))
        if report and best is not None and (closed or is_bound):
            report(n_iter, solution.value, best.value, 1.0)
        elif report:
            report(n_iter, solution.value, upper, n_cut / len(images))
        if closed or (last and is_bound):
            break
    assert best is not None
    order = np.argsort(numbers)  # of the images as they were given
    found = replace(
        best,
        slack=best.slack[order],
        multipliers=[solution.multipliers[k] for k in order],
        dual_gap=max(best.value - solution.value, 0.0),
        n_iter=n_iter,
    )
    return found, closed


def _extrapolate(slack: FloatArray, stored_slack: FloatArray, shares: FloatArray) -> FloatArray:
    """Estimate missing slacks: they exceed those of what is stored as much as the others do in the mean."""
    known = np.isfinite(slack)
    if known.all() or not shares[known].any():
        return np.where(known, slack, stored_slack)
    excess = np.average((slack - stored_slack)[known], weights=shares[known])
    return np.where(known, slack, stored_slack + excess)


def _slacks(labelings: Sequence[Labelings], w: FloatArray) -> FloatArray:
    """The slacks that stored labelings ask for."""
    owners, differences, losses = _constraints(labelings, len(w))
    violations = losses - differences @ w
    worst = _worst_constraints(violations, owners)
    slack = np.zeros(len(labelings))
    slack[owners[worst]] = violations[worst]
    return slack
