"""Max-margin learning: most violated labelings, and cutting planes, Algorithm 1, over `skmmcrf.quadratic_program`."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from numbers import Integral, Real
from typing import Any

import numpy as np
from joblib import delayed
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, Options, StrOptions

from skmmcrf._typing import BoolArray, FloatArray, IntArray, WeightsLike
from skmmcrf.energy import joint_feature_difference, pairwise_features
from skmmcrf.graph_cut import check_image_fits, complete_labeling, loss_augmented_labeling
from skmmcrf.labelings import Labelings
from skmmcrf.quadratic_program import (
    INITIAL_WEIGHTS,
    LARGEST_C,
    LEAST_C,
    Solution,
    check_program,
    evaluate_stored,
    image_shares,
    objective_at,
    solve_program,
)
from skmmcrf.truth import Truth
from skmmcrf.workers import Workers

#: What the parameters of the conditional random field and of its learner may be, wherever they appear.
CRF_CONSTRAINTS = {
    "C": [Interval(Real, LEAST_C, LARGEST_C, closed="both")],
    "connectivity": [Options(Integral, {4, 8})],
    "sigma": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [None, Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left")],
}

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
#: Beyond it the pairwise terms, which are of the size of 1, would be lost beside the log-odds.
LARGEST_LOG_ODDS = 1e6


def _check_log_odds(log_odds: FloatArray, n: int) -> None:
    largest = float(np.abs(log_odds).max())  # float16 has no number as large as the bound
    if not largest <= LARGEST_LOG_ODDS:
        raise ValueError(
            f"log_odds[{n}] must be finite and within -{LARGEST_LOG_ODDS:g} and {LARGEST_LOG_ODDS:g}, got {largest:g}"
        )


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
    >>> from skmmcrf.truth import Truth
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
    >>> from skmmcrf.truth import Truth
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
    check_program(labelings, C, w)
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
    check_program(labelings, C, w)
    w = np.asarray(w, dtype=float)
    with Workers(n_jobs) as workers:
        cuts = _Cuts(workers, log_odds, images, labelings, connectivity=connectivity, sigma=sigma)
        cuts.complete(w)
        cuts.store_most_violated(w, np.arange(len(labelings)))
    return replace(evaluate_stored(w, labelings, C), n_iter=1)


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
    shares = image_shares(images)
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
        stored_slack, slack = evaluate_stored(w, images, C).slack, np.full(len(images), np.nan)
        slack[part] = cut_at(w, numbers[part])
        upper = objective_at(w, _extrapolate(slack, stored_slack, shares), shares, C)
        others = np.flatnonzero(np.isnan(slack))
        last = n_cuts + 2 * len(part) > max_iter * len(images)
        if last or upper - solution.value <= _NARROW * tol * upper:
            slack[others] = cut_at(w, numbers[others])
            upper = objective_at(w, slack, shares, C)
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
