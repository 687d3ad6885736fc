"""The estimator that users meet: a network and a conditional random field, trained in three ways."""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from joblib import Memory
from joblib import hash as hash_of
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
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
from skmmcrf._version import __version__
from skmmcrf.augmentation import Augmentation
from skmmcrf.base import NetworkSegmenter
from skmmcrf.cnn import CNNSegmenter
from skmmcrf.crf import MaxMarginCRF
from skmmcrf.joint import N_WATCHED, train_jointly
from skmmcrf.loss import GRADIENTS, MaxMarginLoss
from skmmcrf.max_margin import INITIAL_WEIGHTS, Labelings
from skmmcrf.metrics import mean_of_defined
from skmmcrf.training import SCHEDULES, indices_of_truths, resolve_device, seeded
from skmmcrf.truth import Truth
from skmmcrf.validation import CRF_CONSTRAINTS, as_given


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
        must be multiples of some number, that is their attribute `size_divisor`, and what was pretrained of them is
        their attribute `backbone`.
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
    pretrain_schedule : {"one_cycle", "linear", "cosine", "constant"}, default="one_cycle"
        How that learning rate goes: up and down again, down to zero from the start, or not at all.
    freeze_epochs : int, default=0
        Epochs of pretraining at whose start the backbone of the network stays as it is.
    n_epochs : int, default=10
        Passes over the images in joint training.
    learning_rate : float, default=1e-4
        Of Adam in joint training, at the peak of its schedule.
    schedule : {"one_cycle", "linear", "cosine", "constant"}, default="linear"
        How that learning rate goes.
    batch_size : int, default=10
        Images in a step.
    tol : float, default=1e-3
        Relative gap between the bounds of (8) at which Algorithm 1 stops. In joint training it stops at ten times that,
        as a batch is but a sample of the images.
    max_iter : int, default=100
        Passes of Algorithm 1 at most.
    gradient : {"envelope", "kkt"}, default="envelope"
        How joint training gets the gradient of gamma, see `MaxMarginLoss`.
    augmentation : {"flip", "standard"}, callable or None, default=None
        Random changes of the training images: "flip" mirrors them; "standard" also scales, shifts and turns them and
        changes contrast and brightness (`skmmcrf.augmentation.build_augmentation`). Or a transform of an image and its
        mask together, as those of torchvision.transforms.v2 are: it is given a `tv_tensors.Image` (channels, H, W) and
        a `tv_tensors.Mask` (H, W) of 0, 1, and 255 where unlabelled.
    pos_label : int, default=1
        The label of foreground in y and in predictions; 255 for masks of 0 and 255.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels, which do not count; "auto" is 255 where that is not `pos_label`.
    class_weight : dict, "balanced" or None, default=None
        What a pixel counts by its true label, as {0: 1.0, 1: 5.0}; "balanced" lets both classes count alike.
    validation_fraction : float or None, default=None
        Share of the images that is held out for validation if fit is given no `validation_data`.
    early_stopping : bool, default=False
        Whether to stop when the Jaccard index of the validation images rises no more, and to keep the network of the
        epoch at which it was best.
    n_iter_no_change : int, default=5
        Epochs without a rise after which that happens.
    callbacks : list of skorch callbacks or None, default=None
        Called in training, after those of the estimator; see `skorch.callbacks`.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    device : str, default="auto"
        "auto", "cpu", "cuda", ...; "auto" is a graphics processor if there is one.
    memory : str or joblib.Memory, optional
        Where pretrained networks are kept, so that a search over `training`, `C` or `learning_rate` pretrains once a
        fold. It needs an int as `random_state` to find them again. They are known by the images and labels, the
        parameters of pretraining, and the network's first weights; `callbacks` are called in real training only.
    warm_start : bool, default=False
        Whether fit goes on from the last fit's network, weights of the field and state of Adam, instead of pretraining;
        so further joint epochs are added to those before.
    random_state : int, RandomState or None, default=None
        Of the network's first weights and the order of images.
    verbose : int, default=0
        1 prints lines of progress, 2 shows progress bars.

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
        The labels, 0 and `pos_label`.
    class_weight_ : ndarray of shape (2,)
        The weight of a pixel of either.
    n_channels_in_ : int
        Channels of the images.
    optimizer_state_ : dict or None
        Adam's moments by the number of the parameter, for a further fit; None unless `warm_start`.
    history_ : list of dict
        Of each epoch: stage ("cnn" or "joint"), epoch, jaccard of the training images, valid_jaccard if there are
        validation images, seconds, and loss (a batch's mean). Joint epochs have gamma too, and begin at epoch 0, the
        piecewise model. Their gamma is that of (8) over the labelings and log-odds of the epoch's batches, in epoch 0
        over all; their jaccard is that of the first ten training images.

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
    history_: list[dict[str, Any]]
    optimizer_state_: dict[int, dict[str, np.ndarray]] | None

    _parameter_constraints = {
        **CRF_CONSTRAINTS,
        **CNNSegmenter._parameter_constraints,
        "training": [StrOptions({"cnn", "piecewise", "joint"})],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": [Interval(Real, 0, None, closed="neither")],
        "pretrain_schedule": [StrOptions(set(SCHEDULES))],
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
        pretrain_schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "one_cycle",
        freeze_epochs: int = 0,
        n_epochs: int = 10,
        learning_rate: float = 1e-4,
        schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "linear",
        batch_size: int = 10,
        tol: float = 1e-3,
        max_iter: int = 100,
        gradient: Literal["envelope", "kkt"] = "envelope",
        augmentation: Literal["flip", "standard"] | Augmentation | None = None,
        pos_label: int = 1,
        ignore_label: int | Literal["auto"] | None = "auto",
        class_weight: dict[int, float] | Literal["balanced"] | None = None,
        validation_fraction: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int = 5,
        callbacks: list[Any] | None = None,
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
        self.pretrain_schedule = pretrain_schedule
        self.freeze_epochs = freeze_epochs
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.tol = tol
        self.max_iter = max_iter
        self.gradient = gradient
        self.augmentation = augmentation
        self.pos_label = pos_label
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.n_jobs = n_jobs
        self.device = device
        self.memory = memory
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ImagesLike,
        y: LabelsLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: LabelledImagesLike | None = None,
    ) -> "DeepStructuredSegmenter":
        """Train network and field.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images of bool, uint8, uint16 or float. Entries of a sequence are arrays (H, W[, channels]) whose sizes may
            differ, tensors ([channels, ]H, W), PIL images, or paths of image files. Files, and sequences other than
            lists and tuples, such as datasets of torch, are read as they are needed.
        y : array of shape (n, H, W), or sequence
            Labels: arrays or tensors (H, W), PIL images or paths of mask files; or None if X is a dataset of pairs.
        sample_weight : array of shape (n,), optional
            What each image counts, in the likelihood and in (8).
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
        images, truths, validation_data = self._check_data(X, y, sample_weight, validation_data)
        warm = self.warm_start and hasattr(self, "network_")
        start: WeightsLike = INITIAL_WEIGHTS
        if not warm:
            self._pretrain(images, truths, validation_data)
            self.optimizer_state_ = None
        elif images[0].shape[-1] != self.n_channels_in_:
            raise ValueError(f"X has {images[0].shape[-1]} channels, but warm_start goes on with {self.n_channels_in_}")
        else:
            start = self.coef_
        self.crf_ = self.objective_ = self.dual_gap_ = self.sigma_ = self.n_iter_ = None
        self.coef_ = np.array([1.0, 0.0, 0.0])
        if self.training != "cnn":
            self._learn_field(images, truths, validation_data, start)
        return self

    def _pretrain(
        self, images: Sequence[np.ndarray], truths: Sequence[Truth], validation_data: LabelledImages | None
    ) -> None:
        parameters = self.get_params(deep=False)
        shared = {name: parameters[name] for name in parameters.keys() & _parameters_of(CNNSegmenter)}
        cnn = CNNSegmenter(
            **shared
            | {
                "n_epochs": self.pretrain_epochs,
                "learning_rate": self.pretrain_learning_rate,
                "schedule": self.pretrain_schedule,
            }
        )
        fitted = _fit_once(cnn, check_memory(self.memory), images, truths, validation_data)
        for name, value in fitted.items():
            setattr(self, name, value)

    def _learn_field(
        self,
        images: Sequence[np.ndarray],
        truths: Sequence[Truth],
        validation_data: LabelledImages | None,
        start: WeightsLike,
    ) -> None:
        """Learn the weights on the network as it is, and for joint training go on with both."""
        began = time.perf_counter()
        labelings = [Labelings(truth) for truth in truths]
        parameters = self.get_params(deep=False)
        crf = MaxMarginCRF(**{name: parameters[name] for name in _parameters_of(MaxMarginCRF)})
        log_odds = self._log_odds(images)
        crf.learn(log_odds, images, labelings, start)
        if self.training == "joint":
            piecewise: dict[str, Any] = {"stage": "joint", "epoch": 0, "gamma": crf.objective_}
            watched = islice(zip(log_odds, images), N_WATCHED)
            piecewise["jaccard"] = _jaccard(truths, crf.segment(watched))
            if validation_data is not None:
                piecewise["valid_jaccard"] = _jaccard(
                    validation_data[1], crf.segment(self._results(validation_data[0]))
                )
            piecewise["seconds"] = time.perf_counter() - began
            # a warm start goes on counting
            last = max((row["epoch"] for row in self.history_ if row["stage"] == "joint"), default=None)
            self.history_ = [*self.history_, piecewise] if last is None else self.history_
            if self.n_epochs:
                history = self._train_jointly(images, labelings, crf, validation_data, piecewise.get("valid_jaccard"))
                self.history_ = self.history_ + [row | {"epoch": row["epoch"] + (last or 0)} for row in history]
                crf.learn(self._log_odds(images), images, labelings, crf.coef_)
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
        valid_jaccard: float | None,
    ) -> list[dict[str, Any]]:
        loss = MaxMarginLoss(
            self.C,
            connectivity=self.connectivity,
            sigma=crf.sigma_,
            tol=10 * self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            gradient=self.gradient,
        )
        loss.coef_ = crf.coef_
        truths = [stored.known for stored in labelings]
        with seeded(self.random_state) as seed:
            history, optimizer_state = train_jointly(
                self.network_,
                images,
                labelings,
                loss,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                device=resolve_device(self.device),
                seed=seed,
                training_set=None if self.augmentation is None else self._training_set(images, truths),
                schedule=self.schedule,
                validation_data=validation_data,
                callbacks=(self.callbacks or []) + self._keep_best(valid_jaccard),
                optimizer_state=self.optimizer_state_,
                verbose=self.verbose,
            )
        crf.coef_ = loss.coef_
        self.network_.eval().cpu()
        self.optimizer_state_ = _as_arrays(optimizer_state) if self.warm_start else None
        return history

    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels: by the least energy, or for "cnn" by the sign of the log-odds.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images, as in fit.

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or `pos_label`; a list for a list.
        """
        results = self._run_network(X)
        labelings = (l > 0 for l, _ in results) if self.crf_ is None else self.crf_.segment(results)
        return as_given([self._as_labels(labeling) for labeling in labelings], X)


def _parameters_of(estimator: type[BaseEstimator]) -> set[str]:
    return set(estimator._get_param_names())


def _jaccard(truths: Sequence[Truth], labelings: Iterable[BoolArray]) -> float:
    return mean_of_defined(indices_of_truths(truths, labelings))


def _as_arrays(state: dict[Any, Any]) -> dict[int, dict[str, np.ndarray]]:
    return {n: {name: tensor.numpy(force=True) for name, tensor in moments.items()} for n, moments in state.items()}


def _fit_once(
    cnn: CNNSegmenter,
    memory: Memory,
    images: Sequence[np.ndarray],
    truths: Sequence[Truth],
    validation_data: LabelledImages | None,
) -> dict[str, Any]:
    """The fitted attributes of a network, from the memory if it was trained before."""
    location = getattr(memory, "location", memory)
    if location is None:
        return _fit_cnn("", cnn, images, truths, validation_data)
    key = _name_of(cnn, images, truths, validation_data)
    fit = memory.cache(_fit_cnn, ignore=["cnn", "images", "truths", "validation_data"])
    if not isinstance(location, (str, PathLike)):
        return fit(key, cnn, images, truths, validation_data)
    Path(location).mkdir(parents=True, exist_ok=True)
    # candidates of a search that run side by side wait for one of them
    with FileLock(Path(location) / f"skmmcrf-{key}.lock"):
        return fit(key, cnn, images, truths, validation_data)


def _fit_cnn(
    key: str,
    cnn: CNNSegmenter,
    images: Sequence[np.ndarray],
    truths: Sequence[Truth],
    validation_data: LabelledImages | None,
) -> dict[str, Any]:
    """What the memory keeps, under its key."""
    cnn.learn(images, truths, validation_data)
    kept = ("network_", "history_", "n_channels_in_", "classes_", "class_weight_")
    return {name: getattr(cnn, name) for name in kept}


def _name_of(
    cnn: CNNSegmenter,
    images: Sequence[np.ndarray],
    truths: Sequence[Truth],
    validation_data: LabelledImages | None,
) -> str:
    """A name of all that decides what is learned."""
    parameters = cnn.get_params(deep=False)
    for name in ("network", "weights", "callbacks", "verbose"):
        del parameters[name]
    with seeded(cnn.random_state):
        network = cnn.build(images[0])
    first_weights = {name: tensor.numpy(force=True) for name, tensor in network.state_dict().items()}
    names = [hash_of([__version__, parameters, str(network), first_weights])]
    for some_images, some_truths in filter(None, [(images, truths), validation_data]):
        # one at a time, as they may be many
        names += [hash_of([image, vars(truth)]) for image, truth in zip(some_images, some_truths)]
        names.append("and")
    return hash_of(names)
