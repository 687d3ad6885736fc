"""Algorithm 1: learning the weights of a field by cutting planes from minimum cuts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from joblib import Parallel, delayed

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.field.workers import workers
from skmmcrf.learning.example import Constraint, Example, bound_of_slack, completion, most_violated, violation
from skmmcrf.learning.program import (
    Solution,
    WorkingSet,
    check_program,
    evaluate_stored,
    image_shares,
    objective_at,
    solve_program,
    weights_of,
)

#: Called with the number of the pass, the lower and the upper bound of gamma, and the share of the images that were cut
#: for the latter; below 1 it is an estimate.
Report = Callable[[int, float, float, float], None]

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


@dataclass(frozen=True)
class CuttingPlanes:
    """The learner of the weights w of a field, by the max-margin program (8).

    A pass finds each image's most violated labeling, stores it, and solves (8) over all stored labelings. The upper
    bound is the least gamma at weights where every image was cut. The lower bound is (8) over the stored labelings.
    Learning ends when the upper bound exceeds the lower one by at most `tol` times the upper bound.

    Unlabelled pixels of a truth take the labels of least energy under w. They are free in the labelings that the truth
    must beat. This makes (8) a difference of convex programs (Yu, Joachims, "Learning structural SVMs with latent
    variables", 2009). Algorithm 1 solves it for given completions. These are then made anew, until gamma no longer
    falls.

    For more than two labels, most violated labelings are found by expansion moves, and some may be missed. The lower
    bound still holds, and the upper one only up to `Solution.inference_gap`.

    Parameters
    ----------
    C : float, default=1.0
        Weight of the slacks against the norm of w, between 1e-12 and 1e8.
    tol : float, default=1e-3
        Relative gap between the bounds of gamma at which learning stops.
    max_iter : int, default=100
        The largest number of passes over the images.
    n_jobs : int, optional
        The number of threads that cut side by side, as in joblib.
    bound_rounds : int, default=0
        For more than two labels: the rounds by which `Solution.inference_gap` is computed at the end, each of one cut a
        label and image. 0 leaves it unknown.

    Raises
    ------
    ValueError
        If `tol` is negative. If `max_iter` is less than 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Annotation, Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.array([[2.0, -1.0]]), np.zeros((1, 2, 1)))
    >>> solution = CuttingPlanes(tol=1e-6).learn([Example(energy, Annotation(np.array([[True, False]])))])
    >>> solution.w.round(3), round(solution.value, 3)
    (array([1., 0., 0.]), 0.5)
    """

    C: float = 1.0
    tol: float = 1e-3
    max_iter: int = 100
    n_jobs: int | None = None
    bound_rounds: int = 0

    def __post_init__(self) -> None:
        if not (self.tol >= 0 and self.max_iter >= 1):
            raise ValueError(f"tol must not be negative and max_iter be at least 1, got {self.tol} and {self.max_iter}")

    def learn(self, examples: Sequence[Example], w: FloatArray | None = None, report: Report | None = None) -> Solution:
        """Solve (8).

        Parameters
        ----------
        examples : list of Example
            Their stored labelings are used, and new ones are added. Their truths are left completed.
        w : ndarray of shape (n_weights,), optional
            Weights of the first completion, and of the first pass if nothing is stored. (1, 1, ...) by default.
        report : callable, optional
            Called for each pass. See `Report`.

        Returns
        -------
        Solution
            Slacks, value and gap are those of all labelings, for the truths as completed at the end. For more than two
            labels they are those of the labelings that were found. The multipliers
            are those of (8) over the stored labelings. Learning has not converged if the gap was not closed within
            `max_iter` passes, or if the truths could still be completed better.
        """
        w = check_program(examples, self.C, w)
        with workers(self.n_jobs) as parallel:
            run = _Run(self, examples, parallel, report)
            solution = self._learn(run, w)
            return replace(solution, inference_gap=run.inference_gap(solution))

    def _learn(self, run: "_Run", w: FloatArray) -> Solution:
        run.complete(w)
        is_new = not any(len(example) for example in run.examples)
        if is_new:
            w = run.store_first(w)
        solution = run.solve(w, w_is_near=not is_new)
        while solution.converged:
            # a truth completed anew at the optimum has less energy, so gamma can only fall
            before = solution
            incumbent = run.complete_at(before)
            if incumbent is None:
                break
            if before.n_iter >= self.max_iter:
                return run.bounded(incumbent, solve_program(run.examples, self.C, before.w), converged=False)
            solution = run.solve(before.w, incumbent)
            if before.value - solution.value <= self.tol * before.value:
                break
        return solution

    def at_weights(self, examples: Sequence[Example], w: FloatArray) -> Solution:
        """Give objective and slacks of (8) at weights, by one minimum cut an image. Nothing is stored."""
        with workers(self.n_jobs) as parallel:
            found = parallel(delayed(violation)(w, example.energy, example.annotation) for example in examples)
            slack = np.array([xi for xi, _ in found])
            value = _Run(self, examples, parallel).objective(w, slack)
        return Solution(w, slack, [], value, dual_gap=np.inf)

    def objective(self, examples: Sequence[Example], w: FloatArray) -> float:
        """Give the objective of (8) at weights, by one minimum cut an image. Nothing is stored."""
        return self.at_weights(examples, w).value


class _Run:
    """One run of Algorithm 1: the examples, and the workers that cut them."""

    def __init__(
        self, learner: CuttingPlanes, examples: Sequence[Example], parallel: Parallel, report: Report | None = None
    ) -> None:
        self.learner = learner
        self.examples = examples
        self.parallel = parallel
        self.report = report
        self.shares = image_shares(examples)
        self.weights = weights_of(examples)
        self.unlabelled = [n for n, example in enumerate(examples) if not example.annotation.is_fully_labelled]
        self.order = np.random.default_rng(0).permutation(len(examples))
        self.is_exact = all(example.energy.is_exact for example in examples)

    def objective(self, w: FloatArray, slack: FloatArray) -> float:
        """Give the objective of (8) for given slacks."""
        return objective_at(w * self.weights.scale, slack, self.shares, self.learner.C)

    def complete(self, w: FloatArray) -> FloatArray:
        """Complete the truths at w, and give the decrease of psi for each, (n_examples, n_weights)."""
        examples = [self.examples[n] for n in self.unlabelled]
        shifts = np.zeros((len(self.examples), len(w)))
        jobs = (delayed(completion)(w, example.energy, example.annotation) for example in examples)
        # joblib warns of results that are not asked for to the end, so they come first in zip
        for (labels, shift), n, example in zip(self.parallel(jobs), self.unlabelled, examples):
            if shift.any():
                example.complete(labels, shift)
                shifts[n] = shift
        return shifts

    def complete_at(self, solution: Solution) -> Solution | None:
        """Complete the truths at a solution, and give the changed solution, or None if no truth changes."""
        shifts = self.complete(solution.w)
        if not shifts.any():
            return None
        # every labeling of an image has so much less to beat
        slack = np.maximum(solution.slack - shifts @ solution.w, 0.0)
        return replace(solution, slack=slack, value=self.objective(solution.w, slack))

    def store_most_violated(self, w: FloatArray, numbers: IntArray) -> FloatArray:
        """Store the most violated labelings of some images, at weights that are the same or a row for each.

        Gives the slacks that they ask for.
        """
        rows = np.broadcast_to(w, (len(numbers), w.shape[-1]))
        examples = [self.examples[n] for n in numbers]
        slack = np.zeros(len(numbers))  # the truth itself violates nothing
        jobs = (delayed(most_violated)(row, example.energy, example.annotation) for row, example in zip(rows, examples))
        constraint: Constraint
        for k, constraint in enumerate(self.parallel(jobs)):
            examples[k].add(constraint)
            slack[k] = max(constraint.loss - constraint.difference @ rows[k], 0.0)
            if not examples[k].energy.is_exact:
                slack[k] = max(slack[k], examples[k].slack(rows[k]))
        return slack

    def inference_gap(self, solution: Solution) -> float:
        """Give by how much the value of a solution may be too low, see `Solution`."""
        slack, n_rounds = solution.slack.copy(), self.learner.bound_rounds
        unsure = [n for n, example in enumerate(self.examples) if not example.energy.is_exact]
        if unsure and not n_rounds:
            return np.nan
        problems = ((self.examples[n].energy, self.examples[n].annotation) for n in unsure)
        jobs = (delayed(bound_of_slack)(solution.w, *problem, n_rounds) for problem in problems)
        for n, bound in zip(unsure, list(self.parallel(jobs))):
            slack[n] = max(slack[n], bound)
        return float(self.learner.C * (self.shares @ (slack - solution.slack)))

    def store_first(self, w: FloatArray) -> FloatArray:
        """Store a first labeling of each image, and give weights to go on from.

        A few images are enough for a rough estimate, because the weights are few. The others are cut near this
        estimate, each at slightly different weights, so that together they tell how gamma changes around it.
        """
        if not self._are_many():
            self.store_most_violated(w, self.order)
            return w
        few, others = np.split(self.order, [_FEW_IMAGES])
        rough = replace(self.learner, tol=_ROUGH_TOL, max_iter=_ROUGH_PASSES)
        of_few = _Run(rough, [self.examples[n] for n in few], self.parallel)
        of_few.order = np.arange(len(few))
        of_few.store_most_violated(w, of_few.order)
        w = of_few.solve(w).w
        factors = 1 + _SPREAD * np.random.default_rng(0).uniform(-1, 1, (len(others), len(w)))
        self.store_most_violated(np.array([self.weights.closed(row) for row in w * factors]), others)
        return w

    def _are_many(self) -> bool:
        return len(self.examples) > 2 * _FEW_IMAGES

    def solve(self, w: FloatArray, incumbent: Solution | None = None, *, w_is_near: bool = False) -> Solution:
        """Solve (8) for completed truths, where each image has a labeling.

        Many images are cut in parts, and (8) is solved after each. The slacks of a part give an estimate of the gap.
        When the estimate is small, the other images are cut at the same weights, which gives the upper bound.

        The incumbent is a feasible solution of the same program, and the result is no worse. `w_is_near` says that the
        optimum is expected near w.
        """
        learner, examples, order, C = self.learner, self.examples, self.order, self.learner.C
        parts = np.array_split(order, _PARTS if self._are_many() else 1)
        many_weights = self.weights.n_pairs > 1
        may_overshoot = (w_is_near or many_weights) and not self._are_many()
        working_set = WorkingSet() if many_weights else None  # few weights need none
        solution = solve_program(examples, C, w, working_set)
        best, n_before = incumbent, incumbent.n_iter if incumbent else 0
        budget = (learner.max_iter - n_before) * len(examples)
        gap, n_cuts, new = np.inf, 0, True
        for part in cycle(parts):
            # the optimum over what is stored of few images lies beyond what is sought, seen from near it, or if the
            # weights are many, from the best ones so far
            halfway = may_overshoot and gap > _WIDE_GAP
            if many_weights and best is not None:
                w, halfway = best.w, halfway and new
            w = self.weights.closed((w + solution.w) / 2) if halfway else solution.w
            n_stored = sum(map(len, examples))
            stored_slack, slack = evaluate_stored(w, examples, C).slack, np.full(len(examples), np.nan)
            slack[part] = self.store_most_violated(w, part)
            upper = self.objective(w, _extrapolate(slack, stored_slack, self.shares))
            others = order[np.isnan(slack[order])]
            last = n_cuts + len(part) + len(examples) > budget  # after which no further bound could be paid
            if last or upper - solution.value <= _NARROW * learner.tol * upper:
                slack[others] = self.store_most_violated(w, others)
                upper = self.objective(w, slack)
            n_cut = int(np.isfinite(slack).sum())
            n_cuts += n_cut
            is_bound = n_cut == len(examples)
            if best is not None and not self.is_exact:
                best = self.with_stored(best)
            if is_bound and (best is None or upper < best.value):
                best = Solution(w, slack, [], upper)
            new = sum(map(len, examples)) > n_stored
            solution = solve_program(examples, C, w, working_set)
            gap = (upper - solution.value) / upper if upper > 0 else 0.0
            # where all labelings are known, only rounding is left between the bounds
            all_known = is_bound and not new and not halfway
            closed = best is not None and (best.value - solution.value <= learner.tol * best.value or all_known)
            n_iter = n_before + -(-n_cuts // len(examples))
            if self.report and best is not None and (closed or is_bound):
                self.report(n_iter, solution.value, best.value, 1.0)
            elif self.report:
                self.report(n_iter, solution.value, upper, n_cut / len(examples))
            if closed or (is_bound and n_cuts + len(examples) > budget):
                break
        assert best is not None
        return self.bounded(replace(best, n_iter=n_iter), solution, converged=closed)

    def with_stored(self, solution: Solution) -> Solution:
        """Give a solution with the slacks that stored labelings ask for, where moves at its weights missed them."""
        stored = evaluate_stored(solution.w, self.examples, self.learner.C)
        slack = np.maximum(solution.slack, stored.slack)
        return replace(solution, slack=slack, value=self.objective(solution.w, slack))

    def bounded(self, best: Solution, lower: Solution, *, converged: bool) -> Solution:
        """Give a feasible solution with its gap to the optimum over stored labelings, and the optimum's multipliers."""
        dual_gap = max(best.value - lower.value, 0.0)
        return replace(best, multipliers=lower.multipliers, dual_gap=dual_gap, converged=converged)


def _extrapolate(slack: FloatArray, stored_slack: FloatArray, shares: FloatArray) -> FloatArray:
    """Estimate missing slacks from stored labelings, with the mean excess of the slacks that are known."""
    known = np.isfinite(slack)
    if known.all() or not shares[known].any():
        return np.where(known, slack, stored_slack)
    excess = np.average((slack - stored_slack)[known], weights=shares[known])
    return np.where(known, slack, stored_slack + excess)
