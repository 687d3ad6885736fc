"""The conditional random field as an estimator on given log-odds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skmmcrf._docs import documented
from skmmcrf._typing import FloatArray, ImagesLike, LabelsLike
from skmmcrf.estimators.base import scheme_of
from skmmcrf.estimators.field_segmenter import BOUND_ROUNDS, FieldSegmenter
from skmmcrf.estimators.files import FITTED_FIELD, FITTED_LABELS
from skmmcrf.field.grid import Connectivity
from skmmcrf.images.checking import LabelledImages, as_given, check_images, check_labelled_images, check_sample_weight
from skmmcrf.images.labels import LABEL_CONSTRAINTS
from skmmcrf.images.sequences import Mapped
from skmmcrf.learning import CuttingPlanes, Example, Solution, solve_program
from skmmcrf.training.interrupts import Interrupted, ending_fit
from skmmcrf.training.loss import FIELD_CONSTRAINTS, warn_of_negative_weight, warn_unless_converged
from skmmcrf.training.progress import pass_progress


@documented
class MaxMarginCRF(FieldSegmenter):
    """Conditional random field on the pixel grid, learned on given log-odds or scores, predicting by minimum cuts.

    The energy of a labeling is the sum of unary and pairwise costs. The unary cost of a pixel's label depends on its
    log-odds. A pairwise cost is due where two neighbours have different labels. The weights w minimise the max-margin
    objective, equation (8) of the paper, by Algorithm 1. `predict` gives the labeling of least energy, which a minimum
    cut finds exactly. After `CNNSegmenter` in a pipeline this is the paper's piecewise training.

    The classes are the labels in y. If they are more than two, Z has the scores of K classes in its first K channels.
    Labelings are then found by expansion moves, and `optimality_gap` bounds how far they may be from the least energy.

    Parameters
    ----------
    %(C)s
    %(pairwise)s
    %(compatibility)s
    %(connectivity)s
    %(sigma)s
    %(tol)s
    %(max_iter)s
    %(pos_label)s
    %(classes)s
    %(ignore_label)s
    %(class_weight)s
    %(n_jobs)s
    warm_start : bool, default=False
        Whether fit starts from the weights of the last fit.
    verbose : int, default=0
        1 prints a line after each pass.

    Attributes
    ----------
    %(fitted_coef)s
    objective_ : float
        gamma, the value of the max-margin objective.
    dual_gap_ : float
        An upper bound of the distance of `objective_` from the minimum, but for `inference_gap_`. Infinite if learning
        was interrupted.
    %(fitted_inference_gap)s
    slack_ : ndarray of shape (n_images,)
        The slacks xi: by how many pixels each training image misses its margin.
    sigma_ : float
        None without the contrast term.
    %(fitted_classes)s
    %(fitted_class_weight)s
    n_channels_in_ : int
        Channels of Z.
    n_iter_ : int
        Passes over the images.

    References
    ----------
    M. Larsson, J. Alvén, F. Kahl, "End-to-End Max-Margin Learning of Deep Structured Models for Semantic Segmentation".
    M. Szummer, P. Kohli, D. Hoiem, "Learning CRFs using Graph Cuts", ECCV 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf import MaxMarginCRF
    >>> rng = np.random.default_rng(0)
    >>> y = np.zeros((3, 20, 20), dtype=int)
    >>> y[:, 5:15, 5:15] = 1
    >>> log_odds = 2.0 * y - 1 + rng.normal(size=y.shape)
    >>> image = y + 0.1 * rng.normal(size=y.shape)
    >>> Z = np.stack([log_odds, image], axis=-1)
    >>> bool(MaxMarginCRF().fit(Z, y).score(Z, y) > 0.99)
    True
    """

    _parameter_constraints = {
        **FIELD_CONSTRAINTS,
        **LABEL_CONSTRAINTS,
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
    }
    _fitted_attributes = {**FITTED_LABELS, **FITTED_FIELD}

    def __init__(
        self,
        C: float = 1.0,
        *,
        pairwise: Literal["contrast", "smoothness"] = "contrast",
        compatibility: Literal["potts", "metric"] = "potts",
        connectivity: Connectivity = 8,
        sigma: float | Literal["auto"] = "auto",
        tol: float = 1e-3,
        max_iter: int = 100,
        pos_label: int = 1,
        classes: Sequence[int] | None = None,
        ignore_label: int | Literal["auto"] | None = "auto",
        class_weight: dict[int, float] | Literal["balanced"] | None = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.pairwise = pairwise
        self.compatibility = compatibility
        self.connectivity = connectivity
        self.sigma = sigma
        self.tol = tol
        self.max_iter = max_iter
        self.pos_label = pos_label
        self.classes = classes
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose

    @documented
    def fit(self, Z: ImagesLike, y: LabelsLike, *, sample_weight: ArrayLike | None = None) -> "MaxMarginCRF":
        """Learn the weights.

        Parameters
        ----------
        %(Z)s
        y : array of shape (n, H, W) or list of arrays (H, W)
            Labels.
        %(sample_weight)s

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range. If Z and y do not fit, or are not finite.

        Warns
        -----
        ConvergenceWarning
            If `tol` is not reached within `max_iter` passes.
        UserWarning
            If the weight of the log-odds is negative. If Ctrl-C interrupted learning. The weights are then those for
            the labelings found until then.
        """
        self._validate_params()
        stacked = check_labelled_images(Z, y, scheme_of(self), names=("Z", "y"), find_classes=True)
        scheme = stacked.scheme
        _check_stacked(stacked.images, scheme.n_maps)
        stacked = stacked.weighted(check_sample_weight(sample_weight, len(stacked)))
        stacked = stacked.with_class_weight(scheme.check_class_weight(self.class_weight, stacked.annotations))
        data = LabelledImages(_parts(stacked, _image_of), stacked.annotations, scheme=scheme)
        sigma = self._estimate_sigma(data)
        field = self._field(sigma)
        start = self._first_weights(field.weights(len(scheme.classes)).n_weights)
        energies = field.energies(_parts(stacked, _maps_of), data.images)
        with ending_fit():
            examples = list(map(Example, energies, data.annotations))
            solution, interrupted = learn_field(examples, self._learner(BOUND_ROUNDS), start, self.verbose)
            self.classes_ = np.array(scheme.classes)
            self._take_solution(solution, sigma)
            self.class_weight_ = np.array(data.annotations[0].class_weight)
            self.n_channels_in_ = stacked.n_channels
            if interrupted:
                raise Interrupted
        warn_of_negative_weight(self.coef_)
        return self

    def _check_fitted(self) -> None:
        super()._check_fitted()
        if self.objective_ is None:
            raise ValueError("objective_ must be a number: it is the field that is learned")
        if self.n_channels_in_ <= self._label_scheme.n_maps:
            raise ValueError("n_channels_in_ must count the channel of the log-odds or scores and those of the image")

    def _first_weights(self, n_weights: int) -> FloatArray | None:
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        if len(self.coef_) != n_weights:
            raise ValueError(
                f"pairwise: warm_start goes on with {len(self.coef_)} weights, not {n_weights}: leave pairwise and "
                "compatibility, or set warm_start=False"
            )
        return self.coef_

    @documented
    def predict(self, Z: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Give the labelings of least energy, or of low energy for more than two classes.

        Parameters
        ----------
        %(Z)s

        Returns
        -------
        %(labels_given)s
        """
        return as_given([self._as_labels(labels) for labels in self._segment(self._read(Z))], Z)

    @documented
    def optimality_gap(self, Z: ImagesLike) -> FloatArray:
        """Bound how far the labelings of `predict` are from those of least energy.

        Parameters
        ----------
        %(Z)s

        Returns
        -------
        %(optimality_gap)s
        """
        return self._gaps(self._read(Z))

    @documented
    def predict_confidence(self, Z: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Give the log-odds, smoothed by the field so that their signs are the labels of `predict`.

        The value of a pixel is by how much all log-odds of the image would have to fall for `predict` to give it
        background, or if it is negative, to rise for it to give foreground. It is no probability.

        Parameters
        ----------
        %(Z)s

        Returns
        -------
        %(confidence)s

        Raises
        ------
        %(raised_by_confidence)s

        Notes
        -----
        See `skmmcrf.field.Energy.smoothed_log_odds`. It takes as long as 20 to 80 minimum cuts.
        """
        self._check_is_binary("predict_confidence", "optimality_gap")
        return as_given(list(self._smooth(self._read(Z))), Z)

    def _read(self, Z: ImagesLike) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Log-odds (H, W) or scores (K, H, W), and image (H, W, channels), one image after the other."""
        check_is_fitted(self)
        stacked, n_maps = check_images(Z, n_channels=self.n_channels_in_, name="Z"), self._label_scheme.n_maps
        _check_stacked(stacked, n_maps)
        return ((_maps_of(z, n_maps), _image_of(z, n_maps)) for z in stacked)


def learn_field(
    examples: Sequence[Example], learner: CuttingPlanes, w: FloatArray | None, verbose: int
) -> tuple[Solution, bool]:
    """Learn the weights of a field, and tell whether learning was interrupted.

    Returns
    -------
    solution : Solution
        After an interrupt the optimum over the stored labelings, whose gap is not known.
    interrupted : bool

    Raises
    ------
    KeyboardInterrupt
        If an interrupt comes before each image has a labeling.

    Warns
    -----
    ConvergenceWarning
    """
    try:
        is_exact = all(example.energy.is_exact for example in examples)
        solution = learner.learn(examples, w, pass_progress(len(examples), verbose, is_exact=is_exact))
    except KeyboardInterrupt:
        if not all(map(len, examples)):
            raise
        return replace(solve_program(examples, learner.C), dual_gap=np.inf), True
    warn_unless_converged(solution, learner)
    return solution, False


def _check_stacked(stacked: Sequence[np.ndarray], n_maps: int) -> None:
    for z in stacked:
        if z.shape[-1] <= n_maps or z.dtype.kind != "f":
            held = "log-odds in channel 0 and the image in the channels after it"
            if n_maps > 1:
                held = f"scores of the {n_maps} classes in the first channels and the image in the channels after them"
            raise ValueError(f"Z must be of float and hold {held}, got {z.shape[-1]} channels of {z.dtype}")


def _parts(stacked: LabelledImages, part_of: Callable[..., np.ndarray]) -> Sequence[np.ndarray]:
    """The log-odds, the scores or the images of stacked arrays, in memory or read when they are needed."""
    n_maps = stacked.scheme.n_maps
    if stacked.is_lazy:
        return Mapped(partial(part_of, n_maps=n_maps), stacked.images)
    return [part_of(z, n_maps) for z in stacked.images]


def _maps_of(z: np.ndarray, n_maps: int) -> np.ndarray:
    return z[..., 0] if n_maps == 1 else np.ascontiguousarray(np.moveaxis(z[..., :n_maps], -1, 0))


def _image_of(z: np.ndarray, n_maps: int) -> np.ndarray:
    return z[..., n_maps:]
