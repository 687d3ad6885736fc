"""The estimator that users meet: a network and a conditional random field, trained in three ways."""

import time
from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from joblib import Memory
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_memory

from skmmcrf._typing import (
    BoolArray,
    FloatArray,
    ImagesLike,
    LabelledImages,
    LabelledImagesLike,
    LabelsLike,
    NetworkLike,
    RandomStateLike,
    WeightsLike,
)
from skmmcrf.base import NetworkSegmenter
from skmmcrf.cnn import CNNSegmenter
from skmmcrf.crf import MaxMarginCRF
from skmmcrf.joint import train_jointly
from skmmcrf.loss import GRADIENTS, MaxMarginLoss
from skmmcrf.max_margin import INITIAL_WEIGHTS, Labelings
from skmmcrf.metrics import mean_jaccard
from skmmcrf.training import resolve_device, seeded
from skmmcrf.validation import (
    CRF_CONSTRAINTS,
    as_given,
    check_images,
    check_labels,
    check_validation_data,
    scale_image,
)


class DeepStructuredSegmenter(NetworkSegmenter):
    """Binary segmentation by a network and a conditional random field, trained jointly on a max-margin objective.

    A network gives every pixel's log-odds, a conditional random field on the pixel grid smooths them along the contrast
    of the image, and a minimum cut finds the best labeling exactly. `training` says how much of that is learned how,
    the three rows of the paper's tables:

    - "cnn": the network alone, by the pixelwise log-likelihood;
    - "piecewise": after it the weights of the field, by the max-margin objective (8), on the fixed network;
    - "joint": after both, network and weights together on (8), whose gradient passes through the field (Algorithm 2).

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="unet"
        "unet", small and for training from scratch; "fcn8s_" with the name of a torchvision backbone, as in
        "fcn8s_vgg16" (the paper's) or "fcn8s_squeezenet1_1"; a module, or a function of the number of channels that
        gives one. Modules take images (n, channels, H, W) scaled to [0, 1] and give log-odds (n, 1, H, W); if sizes
        must be multiples of some number, that is their attribute `size_divisor`.
    weights : None, "imagenet" or path, default=None
        Weights of a torchvision backbone: random, those for ImageNet (torchvision downloads them), or the file of a
        state dict.
    training : {"cnn", "piecewise", "joint"}, default="joint"
    C : float, default=1.0
        Weight of the slacks against the norm of w in (8).
    connectivity : {4, 8}, default=8
        Neighbours of a pixel.
    sigma : float or "auto", default="auto"
        Deviation of the contrast term, in units of pixels scaled to [0, 1]; "auto" takes the root mean square
        difference of neighbouring pixels in the training images.
    pretrain_epochs : int, default=20
        Passes over the images by the log-likelihood.
    pretrain_learning_rate : float, default=1e-3
        Peak of its schedule.
    n_epochs : int, default=10
        Passes over the images in joint training.
    learning_rate : float, default=1e-4
        Of Adam in joint training, at its start; it falls linearly to zero.
    batch_size : int, default=10
        Images in a step.
    tol : float, default=1e-3
        Relative gap between the bounds of (8) at which Algorithm 1 stops.
    max_iter : int, default=100
        Passes of Algorithm 1 at most.
    gradient : {"envelope", "kkt"}, default="envelope"
        How joint training gets the gradient of gamma, see `MaxMarginLoss`.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    device : str, default="auto"
        "auto", "cpu", "cuda", ...; "auto" is a graphics processor if there is one.
    memory : str or joblib.Memory, optional
        Where pretrained networks are kept, so that a search over `training`, `C` or `learning_rate` pretrains once a
        fold. It needs an int as `random_state` to find them again.
    warm_start : bool, default=False
        Whether fit goes on from the last fit's network and weights instead of pretraining.
    random_state : int, RandomState or None, default=None
        Of the network's first weights and the order of images.
    verbose : int, default=0
        Whether fit prints its progress.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.
    coef_ : ndarray of shape (3,)
        w = (w1, w2, w3), of the unary, the smoothness and the contrast term; (1, 0, 0) for "cnn".
    objective_ : float
        gamma, the value of (8) for the network and all training images. None for "cnn".
    dual_gap_ : float
        How far `objective_` may lie above the minimum over w. None for "cnn".
    sigma_ : float
        None for "cnn".
    n_iter_ : int
        Passes of Algorithm 1 for the final weights. None for "cnn".
    crf_ : MaxMarginCRF
        The field with all that was learned of it. None for "cnn".
    classes_ : ndarray
        The labels, 0 and 1.
    n_channels_in_ : int
        Channels of the images.
    history_ : list of dict
        Of each epoch: stage ("cnn" or "joint"), epoch, jaccard of the training images, valid_jaccard if there are
        validation images, seconds, and loss (a batch's mean). Joint epochs have gamma too, and begin at epoch 0, the
        piecewise model. Their gamma is (8) over the labelings stored until then; that of epoch 0 is over all.

    References
    ----------
    M. Larsson, J. Alvén, F. Kahl, "End-to-End Max-Margin Learning of Deep Structured Models for Semantic Segmentation".

    Examples
    --------
    >>> from skmmcrf import DeepStructuredSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> model = DeepStructuredSegmenter(pretrain_epochs=2, n_epochs=1, random_state=0).fit(X, y)
    >>> model.predict(X).shape, model.coef_.shape
    ((4, 32, 32), (3,))
    """

    coef_: FloatArray
    crf_: MaxMarginCRF | None
    objective_: float | None
    dual_gap_: float | None
    sigma_: float | None
    n_iter_: int | None

    _parameter_constraints = {
        **CRF_CONSTRAINTS,
        **CNNSegmenter._parameter_constraints,
        "training": [StrOptions({"cnn", "piecewise", "joint"})],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "gradient": GRADIENTS,
        "memory": [None, str, HasMethods(["cache"])],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        network: NetworkLike = "unet",
        *,
        weights: str | PathLike[str] | None = None,
        training: Literal["cnn", "piecewise", "joint"] = "joint",
        C: float = 1.0,
        connectivity: int = 8,
        sigma: float | Literal["auto"] = "auto",
        pretrain_epochs: int = 20,
        pretrain_learning_rate: float = 1e-3,
        n_epochs: int = 10,
        learning_rate: float = 1e-4,
        batch_size: int = 10,
        tol: float = 1e-3,
        max_iter: int = 100,
        gradient: Literal["envelope", "kkt"] = "envelope",
        n_jobs: int | None = None,
        device: str | torch.device = "auto",
        memory: str | Memory | None = None,
        warm_start: bool = False,
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.weights = weights
        self.training = training
        self.C = C
        self.connectivity = connectivity
        self.sigma = sigma
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_learning_rate = pretrain_learning_rate
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.tol = tol
        self.max_iter = max_iter
        self.gradient = gradient
        self.n_jobs = n_jobs
        self.device = device
        self.memory = memory
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ImagesLike, y: LabelsLike, validation_data: LabelledImagesLike | None = None
    ) -> "DeepStructuredSegmenter":
        """Train network and field.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])
            Images of bool, uint8, uint16 or float.
        y : array of shape (n, H, W) or list of arrays (H, W)
            Labels, 0 or 1.
        validation_data : tuple (X, y), optional
            Images and labels whose Jaccard index is recorded after each epoch.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter is out of its range, images and labels do not fit or are not finite, or the network does not
            give one log-odds map.

        Warns
        -----
        ConvergenceWarning
            If Algorithm 1 does not reach `tol` within `max_iter` passes.
        """
        self._validate_params()
        images = check_images(X)
        labels = check_labels(y, images)
        validation_data = check_validation_data(validation_data, images[0].shape[-1])
        start: WeightsLike = INITIAL_WEIGHTS
        if not (self.warm_start and hasattr(self, "network_")):
            self._pretrain(X, y, validation_data)
        elif images[0].shape[-1] != self.n_channels_in_:
            raise ValueError(f"X has {images[0].shape[-1]} channels, but warm_start goes on with {self.n_channels_in_}")
        else:
            start = self.coef_
        self.crf_ = self.objective_ = self.dual_gap_ = self.sigma_ = self.n_iter_ = None
        self.coef_ = np.array([1.0, 0.0, 0.0])
        if self.training != "cnn":
            self._learn_field(images, labels, validation_data, start)
        return self

    def _pretrain(self, X: ImagesLike, y: LabelsLike, validation_data: LabelledImages | None) -> None:
        cnn = CNNSegmenter(
            self.network,
            weights=self.weights,
            n_epochs=self.pretrain_epochs,
            learning_rate=self.pretrain_learning_rate,
            batch_size=self.batch_size,
            device=self.device,
            random_state=self.random_state,
            verbose=self.verbose,
        )
        cnn = check_memory(self.memory).cache(_fit_cnn)(cnn, X, y, validation_data)
        self.network_ = cnn.network_
        self.history_ = cnn.history_
        self.n_channels_in_ = cnn.n_channels_in_
        self.classes_ = cnn.classes_

    def _learn_field(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[BoolArray],
        validation_data: LabelledImages | None,
        start: WeightsLike,
    ) -> None:
        """Learn the weights on the network as it is, and for joint training go on with both."""
        began = time.perf_counter()
        scaled = [scale_image(image) for image in images]
        labelings = [Labelings(truth) for truth in labels]
        crf = MaxMarginCRF(
            self.C,
            connectivity=self.connectivity,
            sigma=self.sigma,
            tol=self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        log_odds = self._log_odds(images)
        crf.learn(log_odds, scaled, labelings, start)
        if self.training == "joint":
            piecewise = {"stage": "joint", "epoch": 0, "gamma": crf.objective_}
            piecewise["jaccard"] = mean_jaccard(labels, crf.segment(log_odds, scaled))
            if validation_data is not None:
                valid_images, valid_labels = validation_data
                valid_predictions = crf.segment(self._log_odds(valid_images), [scale_image(i) for i in valid_images])
                piecewise["valid_jaccard"] = mean_jaccard(valid_labels, valid_predictions)
            piecewise["seconds"] = time.perf_counter() - began
            history = self._train_jointly(images, labelings, crf, validation_data)
            self.history_ = [*self.history_, piecewise, *history]
            crf.learn(self._log_odds(images), scaled, labelings)
        self.crf_ = crf
        self.coef_ = crf.coef_
        self.objective_ = crf.objective_
        self.dual_gap_ = crf.dual_gap_
        self.sigma_ = crf.sigma_
        self.n_iter_ = crf.n_iter_

    def _train_jointly(
        self,
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        crf: MaxMarginCRF,
        validation_data: LabelledImages | None,
    ) -> list[dict[str, Any]]:
        loss = MaxMarginLoss(
            self.C,
            connectivity=self.connectivity,
            sigma=crf.sigma_,
            tol=self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            gradient=self.gradient,
        )
        loss.coef_ = crf.coef_
        with seeded(self.random_state) as seed:
            history = train_jointly(
                self.network_,
                images,
                labelings,
                loss,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                device=resolve_device(self.device),
                seed=seed,
                validation_data=validation_data,
                verbose=self.verbose,
            )
        self.network_.eval().cpu()
        return history

    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels: by the least energy, or for "cnn" by the sign of the log-odds.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or 1; a list for a list.
        """
        log_odds, images = self._run_network(X)
        labels = [l > 0 for l in log_odds] if self.crf_ is None else self.crf_.segment(log_odds, images)
        return as_given([labeling.astype(np.uint8) for labeling in labels], X)


def _fit_cnn(cnn: CNNSegmenter, X: ImagesLike, y: LabelsLike, validation_data: LabelledImages | None) -> CNNSegmenter:
    """What `memory` keeps."""
    return cnn.fit(X, y, validation_data)
