"""The conditional random field as an estimator on given log-odds."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, LabelsLike, WeightsLike
from skmmcrf.base import BaseSegmenter
from skmmcrf.energy import estimate_sigma
from skmmcrf.graph_cut import segment
from skmmcrf.max_margin import INITIAL_WEIGHTS, Labelings, learn_weights
from skmmcrf.validation import CRF_CONSTRAINTS, as_given, check_images, check_labels


class MaxMarginCRF(BaseSegmenter):
    """Conditional random field on the pixel grid, learned by Algorithm 1 on given log-odds, predicting by graph cuts.

    The weights w of the energy (2)-(4) minimise the max-margin objective (8); the labeling of an image is the one of
    least energy (5), found exactly by a minimum cut. After `CNNSegmenter` in a pipeline this is the paper's piecewise
    training.

    Parameters
    ----------
    C : float, default=1.0
        Weight of the slacks against the norm of w.
    connectivity : {4, 8}, default=8
        Neighbours of a pixel.
    sigma : float or "auto", default="auto"
        Deviation of the contrast term, in units of pixels scaled to [0, 1]; "auto" takes the root mean square
        difference of neighbouring pixels in the training images.
    tol : float, default=1e-3
        Relative gap between the bounds of the objective at which learning stops.
    max_iter : int, default=100
        Passes over the images at most.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    warm_start : bool, default=False
        Whether fit starts from the weights of the last fit.
    verbose : int, default=0
        Whether fit prints a line after each pass.

    Attributes
    ----------
    coef_ : ndarray of shape (3,)
        w = (w1, w2, w3), of the unary, the smoothness and the contrast term.
    objective_ : float
        gamma, the value of (8).
    dual_gap_ : float
        How far `objective_` may lie above the minimum.
    slack_ : ndarray of shape (n_images,)
        xi, the largest violation of each training image's margin, in pixels.
    dual_coef_ : list of n_images ndarrays
        lambda, the multipliers of the labelings stored for each training image.
    sigma_ : float
    classes_ : ndarray
        The labels, 0 and 1.
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

    _parameter_constraints = {**CRF_CONSTRAINTS, "warm_start": ["boolean"], "verbose": ["verbose"]}

    def __init__(
        self,
        C: float = 1.0,
        *,
        connectivity: int = 8,
        sigma: float | Literal["auto"] = "auto",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.C = C
        self.connectivity = connectivity
        self.sigma = sigma
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(self, Z: ImagesLike, y: LabelsLike) -> "MaxMarginCRF":
        """Learn the weights.

        Parameters
        ----------
        Z : array of float and shape (n, H, W, 1 + channels), or list of arrays (H, W, 1 + channels)
            Log-odds in channel 0, the image scaled to [0, 1] in the others, as `CNNSegmenter.transform` gives them.
        y : array of shape (n, H, W) or list of arrays (H, W)
            Labels, 0 or 1.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range, or Z and y do not fit or are not finite.
        """
        self._validate_params()
        log_odds, images = _split(Z)
        labels = check_labels(y, images)
        start = self.coef_ if self.warm_start and hasattr(self, "coef_") else INITIAL_WEIGHTS
        return self.learn(log_odds, images, [Labelings(truth) for truth in labels], start)

    def learn(
        self,
        log_odds: Sequence[FloatArray],
        images: Sequence[FloatArray],
        labelings: Sequence[Labelings],
        start: WeightsLike = INITIAL_WEIGHTS,
    ) -> "MaxMarginCRF":
        """Learn the weights from checked arrays, keeping the labelings that are found.

        Parameters
        ----------
        log_odds : list of ndarray of float and shape (H, W)
        images : list of ndarray of float and shape (H, W, channels)
            Scaled to [0, 1].
        labelings : list of Labelings
            With the truth of each image; added to.
        start : ndarray of shape (3,), default=(1, 1, 1)
            Weights of the first pass if no labelings are stored.

        Returns
        -------
        self
        """
        auto = self.sigma == "auto"
        self.sigma_ = estimate_sigma(images, self.connectivity) if auto else float(self.sigma)
        solution = learn_weights(
            log_odds,
            images,
            labelings,
            self.C,
            connectivity=self.connectivity,
            sigma=self.sigma_,
            tol=self.tol,
            max_iter=self.max_iter,
            w=start,
            n_jobs=self.n_jobs,
            report=_print_pass if self.verbose else None,
        )
        self.coef_: FloatArray = solution.w
        self.objective_ = solution.value
        self.dual_gap_ = solution.dual_gap
        self.slack_ = solution.slack
        self.dual_coef_ = solution.multipliers
        self.n_iter_ = solution.n_iter
        self.classes_ = np.array([0, 1])
        self.n_channels_in_ = 1 + images[0].shape[-1]
        return self

    def predict(self, Z: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Find the labelings of least energy.

        Parameters
        ----------
        Z : array of float and shape (n, H, W, 1 + channels), or list of arrays (H, W, 1 + channels)
            As in fit.

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or 1; a list for a list.
        """
        check_is_fitted(self)
        log_odds, images = _split(Z, n_channels=self.n_channels_in_)
        return as_given([labels.astype(np.uint8) for labels in self.segment(log_odds, images)], Z)

    def segment(self, log_odds: Sequence[FloatArray], images: Sequence[FloatArray]) -> list[BoolArray]:
        """Find the labelings of least energy of checked arrays.

        Parameters
        ----------
        log_odds : list of ndarray of float and shape (H, W)
        images : list of ndarray of float and shape (H, W, channels)
            Scaled to [0, 1].

        Returns
        -------
        list of ndarray of bool and shape (H, W)
        """
        return segment(
            self.coef_, log_odds, images, connectivity=self.connectivity, sigma=self.sigma_, n_jobs=self.n_jobs
        )


def _split(Z: ImagesLike, n_channels: int | None = None) -> tuple[list[FloatArray], list[FloatArray]]:
    """Log-odds and images of Z."""
    stacked = check_images(Z, n_channels=n_channels, name="Z")
    if stacked[0].shape[-1] < 2 or stacked[0].dtype.kind != "f":
        raise ValueError(
            "Z must be of float and hold log-odds in channel 0 and the image in the channels after it, got "
            f"{stacked[0].shape[-1]} channels of {stacked[0].dtype}"
        )
    return [z[..., 0] for z in stacked], [z[..., 1:] for z in stacked]


def _print_pass(n_iter: int, lower: float, upper: float) -> None:
    gap = (upper - lower) / upper if upper else 0.0
    print(f"Algorithm 1, pass {n_iter}: gamma between {lower:.6g} and {upper:.6g}, gap {gap:.2%}", flush=True)
