"""The conditional random field as an estimator on given log-odds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, LabelsLike, WeightsLike
from skmmcrf.base import BaseSegmenter
from skmmcrf.energy import estimate_sigma
from skmmcrf.graph_cut import segment
from skmmcrf.interrupts import Interrupted, ending_fit
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import CRF_CONSTRAINTS, learn_weights
from skmmcrf.progress import pass_progress
from skmmcrf.quadratic_program import INITIAL_WEIGHTS, Solution, solve_program
from skmmcrf.sequences import Mapped
from skmmcrf.validation import LABEL_CONSTRAINTS, as_given, check_images, check_labelled_images


class MaxMarginCRF(BaseSegmenter):
    """Conditional random field on the pixel grid, learned by Algorithm 1 on given log-odds, predicting by graph cuts.

    The weights w of the energy (2)-(4) minimise the max-margin objective (8); the labeling of an image is the one of
    least energy (5), found exactly by a minimum cut. After `CNNSegmenter` in a pipeline this is the paper's piecewise
    training.

    Parameters
    ----------
    C : float, default=1.0
        Weight of the slacks against the norm of w, between 1e-12 and 1e8.
    connectivity : {4, 8}, default=8
        Neighbours of a pixel.
    sigma : float or "auto", default="auto"
        Deviation of the contrast term, in units of pixels scaled to [0, 1]; "auto" takes the root mean square
        difference of neighbouring pixels in the training images.
    tol : float, default=1e-3
        Relative gap between the bounds of the objective at which learning stops.
    max_iter : int, default=100
        Passes over the images at most.
    pos_label : int, default=1
        The label of foreground in y and in predictions.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels; "auto" is 255 where that is not `pos_label`. They count nothing in the Hamming
        distance, and are given the labels of least energy.
    class_weight : dict, "balanced" or None, default=None
        What a wrong pixel counts in the Hamming distance by its true label; "balanced" lets both classes count alike.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    warm_start : bool, default=False
        Whether fit starts from the weights of the last fit.
    verbose : int, default=0
        1 prints a line after each pass, 2 shows a progress bar.

    Attributes
    ----------
    coef_ : ndarray of shape (3,)
        w = (w1, w2, w3), of the unary, the smoothness and the contrast term.
    objective_ : float
        gamma, the value of (8).
    dual_gap_ : float
        How far `objective_` may lie above the minimum; infinite if learning was interrupted.
    slack_ : ndarray of shape (n_images,)
        xi, the largest violation of each training image's margin, in pixels.
    dual_coef_ : list of n_images ndarrays
        lambda, the multipliers of the labelings stored for each training image.
    sigma_ : float
    classes_ : ndarray
        The labels, 0 and `pos_label`.
    class_weight_ : ndarray of shape (2,)
        The weight of a pixel of either.
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

    _parameter_constraints = {**CRF_CONSTRAINTS, **LABEL_CONSTRAINTS, "warm_start": ["boolean"], "verbose": ["verbose"]}

    def __init__(
        self,
        C: float = 1.0,
        *,
        connectivity: int = 8,
        sigma: float | Literal["auto"] = "auto",
        tol: float = 1e-3,
        max_iter: int = 100,
        pos_label: int = 1,
        ignore_label: int | Literal["auto"] | None = "auto",
        class_weight: dict[int, float] | Literal["balanced"] | None = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.connectivity = connectivity
        self.sigma = sigma
        self.tol = tol
        self.max_iter = max_iter
        self.pos_label = pos_label
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, Z: ImagesLike, y: LabelsLike, *, sample_weight: ArrayLike | None = None) -> "MaxMarginCRF":
        """Learn the weights.

        Parameters
        ----------
        Z : array of float and shape (n, H, W, 1 + channels), or list of arrays (H, W, 1 + channels)
            Log-odds in channel 0, the image scaled to [0, 1] in the others, as `CNNSegmenter.transform` gives them.
        y : array of shape (n, H, W) or list of arrays (H, W)
            Labels.
        sample_weight : array of shape (n,), optional
            What the slack of each image counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range, or Z and y do not fit or are not finite.

        Warns
        -----
        ConvergenceWarning
            If `tol` is not reached within `max_iter` passes.
        UserWarning
            If learning was interrupted, by Ctrl-C. Then the weights are those for the labelings found until then.
        """
        self._validate_params()
        stacked, truths = check_labelled_images(Z, y, name="Z", **self._reading_of_labels())
        _check_stacked(stacked)
        self._weigh(truths, sample_weight)
        start = self.coef_ if self.warm_start and hasattr(self, "coef_") else INITIAL_WEIGHTS
        log_odds, images = Mapped(_log_odds_of, stacked), Mapped(_image_of, stacked)
        with ending_fit():
            self.learn(log_odds, images, [Labelings(truth) for truth in truths], start)
        return self

    def learn(
        self,
        log_odds: Sequence[FloatArray],
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        start: WeightsLike = INITIAL_WEIGHTS,
    ) -> "MaxMarginCRF":
        """Learn the weights from checked arrays, keeping the labelings that are found.

        Parameters
        ----------
        log_odds : sequence of ndarray of float and shape (H, W)
        images : sequence of ndarray of shape (H, W, channels)
            See `skmmcrf.energy.squared_contrast`.
        labelings : list of Labelings
            With the truth of each image; added to.
        start : ndarray of shape (3,), default=(1, 1, 1)
            Weights of the first pass if no labelings are stored.

        Returns
        -------
        self
        """
        if self.sigma == "auto":
            sigma = estimate_sigma(images, self.connectivity, [stored.known.weight for stored in labelings])
        else:
            sigma = float(self.sigma)
        interrupted = False
        try:
            with pass_progress(self.verbose) as report:
                solution = learn_weights(
                    log_odds,
                    images,
                    labelings,
                    self.C,
                    connectivity=self.connectivity,
                    sigma=sigma,
                    tol=self.tol,
                    max_iter=self.max_iter,
                    w=start,
                    n_jobs=self.n_jobs,
                    report=report,
                )
        except KeyboardInterrupt:
            if not all(len(stored) for stored in labelings):
                raise
            # how far it is from the optimum is not known
            solution = replace(solve_program(labelings, self.C), dual_gap=np.inf)
            interrupted = True
        self.sigma_ = sigma
        self._take(solution, images, labelings)
        if interrupted:
            raise Interrupted
        return self

    def take_weights(self, w: FloatArray, images: Sequence[np.ndarray], labelings: Sequence[Labelings]) -> None:
        """Become fitted by weights of which it is not known what objective they reach.

        Parameters
        ----------
        w : ndarray of shape (3,)
        images : sequence of ndarray of shape (H, W, channels)
        labelings : list of Labelings
            Of these images.
        """
        slack, multipliers = np.full(len(images), np.nan), [np.full(len(stored), np.nan) for stored in labelings]
        self._take(Solution(w, slack, multipliers, np.nan, np.inf), images, labelings)

    def _take(self, solution: Solution, images: Sequence[np.ndarray], labelings: Sequence[Labelings]) -> None:
        self.coef_: FloatArray = solution.w
        self.objective_ = solution.value
        self.dual_gap_ = solution.dual_gap
        self.slack_ = solution.slack
        self.dual_coef_ = solution.multipliers
        self.n_iter_ = solution.n_iter
        self.classes_ = np.array([0, self.pos_label])
        self.class_weight_ = np.array(labelings[0].known.class_weight)
        self.n_channels_in_ = 1 + images[0].shape[-1]

    def predict(self, Z: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Find the labelings of least energy.

        Parameters
        ----------
        Z : array of float and shape (n, H, W, 1 + channels), or list of arrays (H, W, 1 + channels)
            As in fit.

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or `pos_label`; a list for a list.
        """
        check_is_fitted(self)
        stacked = check_images(Z, n_channels=self.n_channels_in_, name="Z")
        _check_stacked(stacked)
        problems = ((_log_odds_of(z), _image_of(z)) for z in stacked)
        return as_given([self._as_labels(labels) for labels in self.segment(problems)], Z)

    def segment(self, problems: Iterable[tuple[FloatArray, np.ndarray]]) -> Iterator[BoolArray]:
        """Find the labelings of least energy of checked arrays, one after the other.

        Parameters
        ----------
        problems : iterable of tuple
            Of each image the log-odds, float of shape (H, W), and the pixels, of shape (H, W, channels), see
            `skmmcrf.energy.squared_contrast`.

        Returns
        -------
        iterator of ndarray of bool and shape (H, W)
        """
        return segment(self.coef_, problems, connectivity=self.connectivity, sigma=self.sigma_, n_jobs=self.n_jobs)


def _check_stacked(stacked: Sequence[np.ndarray]) -> None:
    for z in stacked:
        if z.shape[-1] < 2 or z.dtype.kind != "f":
            raise ValueError(
                "Z must be of float and hold log-odds in channel 0 and the image in the channels after it, got "
                f"{z.shape[-1]} channels of {z.dtype}"
            )


def _log_odds_of(z: np.ndarray) -> np.ndarray:
    return z[..., 0]


def _image_of(z: np.ndarray) -> np.ndarray:
    return z[..., 1:]
