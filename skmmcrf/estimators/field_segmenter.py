"""The base of estimators with a field."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skmmcrf._typing import FloatArray, LabelArray
from skmmcrf.estimators.base import BaseSegmenter
from skmmcrf.estimators.files import are_floats
from skmmcrf.field.energy import Field, least_labelings, optimality_gaps, smoothed_log_odds
from skmmcrf.field.grid import Connectivity, Grid
from skmmcrf.field.pair_weights import PairWeights
from skmmcrf.field.terms import build_terms, estimate_sigma
from skmmcrf.images.checking import LabelledImages
from skmmcrf.learning import CuttingPlanes, Solution

#: By which the inference gap of learned weights is bounded.
BOUND_ROUNDS = 10

# no learner comes near: with the largest C, half the square of w costs less than the most that slacks can
_LARGEST_WEIGHT = 1e12


class FieldSegmenter(BaseSegmenter):
    """Base of segmenters with a field: its parameters, its fitted attributes and its minimum cuts."""

    C: float
    pairwise: str
    compatibility: str
    connectivity: Connectivity
    sigma: float | str
    tol: float
    max_iter: int
    n_jobs: int | None

    coef_: FloatArray
    objective_: float | None
    dual_gap_: float | None
    inference_gap_: float | None
    slack_: FloatArray | None
    sigma_: float | None
    n_iter_: int | None

    def _validate_params(self) -> None:
        super()._validate_params()
        Grid.from_connectivity(self.connectivity)

    def _check_fitted(self) -> None:
        super()._check_fitted()
        weights, w = self._weights(), self.coef_
        n_weights = weights.n_weights
        if not (are_floats(w, (n_weights,)) and (np.abs(w) <= _LARGEST_WEIGHT).all() and (w[1:] >= 0).all()):
            raise ValueError(
                f"coef_ must be {n_weights} finite numbers, at most {_LARGEST_WEIGHT:g} in size, those of pairwise "
                "terms not negative"
            )
        try:
            weights.check(w)
        except ValueError as error:
            raise ValueError(f"coef_ must be weights of a field: {error}") from None
        of_field = (self.objective_, self.dual_gap_, self.inference_gap_, self.slack_, self.n_iter_)
        has_field = all(value is not None for value in of_field)
        if not (has_field or all(value is None for value in of_field)):
            raise ValueError("objective_, dual_gap_, inference_gap_, slack_ and n_iter_ must be None together")
        if has_field:
            _check_solution(self.objective_, self.dual_gap_, self.inference_gap_, self.slack_)
        if (self.sigma_ is not None) != (has_field and self.pairwise == "contrast"):
            raise ValueError("sigma_ must be a number with the contrast term, and None without it")

    @property
    def pair_weights_(self) -> FloatArray:
        """The weights of each pairwise term as a matrix over the classes, ndarray of shape (n_terms, K, K)."""
        check_is_fitted(self)
        self._check_parameters()
        return self._weights().matrices(self.coef_)

    def _weights(self, n_labels: int | None = None) -> PairWeights:
        """What the entries of `coef_` mean, by default for the classes of the last fit."""
        return self._field(1.0).weights(n_labels or len(self._label_scheme.classes))

    def _learner(self, bound_rounds: int = 0) -> CuttingPlanes:
        return CuttingPlanes(self.C, self.tol, self.max_iter, self.n_jobs, bound_rounds)

    def _estimate_sigma(self, data: LabelledImages) -> float | None:
        """The sigma of the contrast term, or None without that term."""
        if self.pairwise != "contrast":
            return None
        if self.sigma != "auto":
            return float(self.sigma)
        weights = [annotation.weight for annotation in data.annotations]
        return estimate_sigma(Grid.from_connectivity(self.connectivity), data.images, weights)

    def _field(self, sigma: float | None) -> Field:
        return Field(Grid.from_connectivity(self.connectivity), build_terms(self.pairwise, sigma), self.compatibility)

    def _take_solution(self, solution: Solution, sigma: float | None) -> None:
        # at once, as an interrupt may come at any moment
        self.__dict__.update(
            coef_=solution.w,
            objective_=solution.value,
            dual_gap_=solution.dual_gap,
            inference_gap_=solution.inference_gap if self._label_scheme.several else 0.0,
            slack_=solution.slack,
            n_iter_=solution.n_iter,
            sigma_=sigma,
        )

    def _segment(
        self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True
    ) -> Iterator[LabelArray]:
        """Labelings of least energy of what a network gives and images (H, W, channels), one after the other."""
        return least_labelings(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)

    def _smooth(
        self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True
    ) -> Iterator[NDArray[np.float32]]:
        """Smoothed log-odds of the same."""
        if not self.coef_[0] > 0:
            raise ValueError(
                f"predict_confidence smooths log-odds of positive weight, but coef_[0] is {self.coef_[0]:g}: see "
                "whether log-odds and labels belong together, or fit with a larger C"
            )
        return smoothed_log_odds(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)

    def _gaps(self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True) -> FloatArray:
        """How far the labelings of the same may be from those of least energy, (n,)."""
        gaps = optimality_gaps(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)
        return np.array(list(gaps), dtype=float)

    def _energies(self, results: Iterable[tuple[FloatArray, np.ndarray]]) -> Iterator[Any]:
        field = self._fitted_field()
        return (field.energy(l, image) for l, image in results)

    def _fitted_field(self) -> Field:
        """The field that `coef_` weighs."""
        self._check_parameters()
        return self._field(self.sigma_)

    def _check_parameters(self) -> None:
        """Raise a ValueError if the parameters of the field were changed after fit."""
        n_weights, n_fitted = self._weights().n_weights, len(self.coef_)
        if n_weights != n_fitted:
            raise ValueError(
                f"pairwise={self.pairwise!r} and compatibility={self.compatibility!r} need {n_weights} weights, but "
                f"fit learned {n_fitted} with other parameters: set them back, or fit again"
            )


def _check_solution(objective: Any, dual_gap: Any, inference_gap: Any, slack: Any) -> None:
    # objective and slacks are NaN where they are not known
    if not are_floats(slack, (None,)) or not len(slack) or (slack < 0).any():
        raise ValueError("slack_ must be a vector of float, without negative numbers")
    if objective < 0 or not dual_gap >= 0:
        raise ValueError("objective_ and dual_gap_ must not be negative")
    if inference_gap < 0:
        raise ValueError("inference_gap_ must not be negative")
