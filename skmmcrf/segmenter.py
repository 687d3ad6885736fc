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
from torch import nn

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
from skmmcrf.augmentation import AUGMENTATIONS, Augmentation
from skmmcrf.base import NetworkSegmenter, names_of_data
from skmmcrf.callbacks import SCHEDULES
from skmmcrf.checkpoint import Checkpoints
from skmmcrf.cnn import CNNSegmenter
from skmmcrf.crf import MaxMarginCRF
from skmmcrf.image_datasets import ImageDataset, training_set
from skmmcrf.interrupts import Interrupted, ending_fit
from skmmcrf.joint import N_WATCHED, joint_net
from skmmcrf.labelings import Labelings
from skmmcrf.loss import GRADIENTS, MaxMarginLoss
from skmmcrf.max_margin import CRF_CONSTRAINTS
from skmmcrf.metrics import mean_of_defined
from skmmcrf.network_state import network_arrays
from skmmcrf.networks.any_size import check_scales
from skmmcrf.pixel_losses import PIXEL_LOSSES
from skmmcrf.progress import epoch_progress
from skmmcrf.quadratic_program import INITIAL_WEIGHTS
from skmmcrf.random_states import seeded
from skmmcrf.training import history_rows, indices_of_truths, resolve_device
from skmmcrf.truth import Truth
from skmmcrf.validation import as_given


class DeepStructuredSegmenter(NetworkSegmenter):
    """Binary segmentation by a network and a conditional random field, trained jointly on a max-margin objective.

    A network gives every pixel's log-odds, a conditional random field on the pixel grid smooths them along the contrast
    of the image, and a minimum cut finds the best labeling exactly. `training` says how much of that is learned how,
    the three rows of the paper's tables:

    - "cnn": the network alone, by the pixelwise log-likelihood or another `pretrain_loss`;
    - "piecewise": after it the weights of the field, by the max-margin objective (8), on the fixed network;
    - "joint": after both, network and weights together on (8), whose gradient passes through the field (Algorithm 2).

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="unet"
        "unet", small and for training from scratch; ``"unet_"`` or ``"fcn8s_"`` with the name of a torchvision
        backbone, as in "unet_resnet18" or "fcn8s_vgg16" (the paper's); a module, or a function of the number of
        channels that gives one. Modules take images (n, channels, H, W) scaled to [0, 1] and give log-odds
        (n, 1, H, W); if sizes must be multiples of some number, that is their attribute `size_divisor`, and what was
        pretrained of them is their attribute `backbone`.
    weights : None, "imagenet" or path, default=None
        Weights of a torchvision backbone: random, those for ImageNet (torchvision downloads them), or the file of a
        state dict.
    training : {"cnn", "piecewise", "joint"}, default="joint"
    C : float, default=1.0
        Weight of the slacks against the norm of w in (8), between 1e-12 and 1e8.
    connectivity : {4, 8}, default=8
        Neighbours of a pixel.
    sigma : float or "auto", default="auto"
        Deviation of the contrast term, in units of pixels scaled to [0, 1]; "auto" takes the root mean square
        difference of neighbouring pixels in the training images.
    pretrain_epochs : int, default=20
        Passes over the images by `pretrain_loss`.
    pretrain_learning_rate : float, default=1e-3
        Peak of its schedule.
    pretrain_schedule : {"one_cycle", "linear", "cosine", "constant"}, default="one_cycle"
        How that learning rate goes: up and down again, down to zero from the start, or not at all.
    pretrain_loss : {"log_likelihood", "dice", "log_likelihood+dice"}, default="log_likelihood"
        What pretraining minimises: the mean negative log-likelihood of the pixels, one minus the Dice index of each
        image, or both added.
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
        How joint training gets the gradient of gamma, see `MaxMarginLoss`. Where it changes images w is held while
        batches are trained, and there is no system to solve: "kkt" is an error then.
    augmentation : {"flip", "standard", "strong"}, callable or None, default=None
        Random changes of the training images: "flip" mirrors them; "standard" also scales, shifts and turns them and
        changes contrast and brightness, and "strong" does so more (`skmmcrf.augmentation.build_augmentation`). Or a
        transform of an image and its mask together, as those of torchvision.transforms.v2 are: it is given a
        `tv_tensors.Image` (channels, H, W) and a `tv_tensors.Mask` (H, W) of 0, 1, and 255 where unlabelled.
    joint_augmentation : "same", {"flip", "standard", "strong"}, callable or None, default="same"
        The changes in joint training, where they are others than those of `augmentation`. With a hundred images or more
        "flip" has done better.
    average_mirrored : bool, default=False
        Whether log-odds are the mean of those of the image and of its mirror image, except in the steps of training.
        It takes twice the time, for the better where right and left may be exchanged.
    network_scale : float or sequence of float, default=1.0
        Factor by which images are resized for the network, whose log-odds are resized back. Below 1 the network is
        faster and sees more around a pixel, above 1 it sees finer detail. Of several, log-odds are the mean of those at
        each, except in the steps of training, which are at the first. The field is of the images as they are.
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
    checkpoint : str or path, optional
        A folder for the state of training, kept at the end of every epoch. A fit that was killed goes on from there if
        it is started again with the same data and parameters, and ends as if nothing had happened; on the CPU bit for
        bit. It needs an int as `random_state`. States of other data or parameters are refused.
    checkpoint_every : int, optional
        Batches after which the state is kept within an epoch too.
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
        gamma, the value of (8) for the network and all training images. None for "cnn"; NaN if joint training was
        interrupted.
    dual_gap_ : float
        How far `objective_` may lie above the minimum over w. None for "cnn"; infinite if training was interrupted.
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
        and where batches are of changed images over all images as they are; their jaccard is that of the first ten
        training images.

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

    network_: nn.Module
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
        **{name: c for name, c in CNNSegmenter._parameter_constraints.items() if name != "loss"},
        "training": [StrOptions({"cnn", "piecewise", "joint"})],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "pretrain_learning_rate": [Interval(Real, 0, None, closed="neither")],
        "pretrain_schedule": [StrOptions(set(SCHEDULES))],
        "pretrain_loss": [StrOptions(set(PIXEL_LOSSES))],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "gradient": GRADIENTS,
        "joint_augmentation": [StrOptions({"same"}), *AUGMENTATIONS],
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
        pretrain_loss: Literal["log_likelihood", "dice", "log_likelihood+dice"] = "log_likelihood",
        freeze_epochs: int = 0,
        n_epochs: int = 10,
        learning_rate: float = 1e-4,
        schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "linear",
        batch_size: int = 10,
        tol: float = 1e-3,
        max_iter: int = 100,
        gradient: Literal["envelope", "kkt"] = "envelope",
        augmentation: Literal["flip", "standard", "strong"] | Augmentation | None = None,
        joint_augmentation: Literal["same", "flip", "standard", "strong"] | Augmentation | None = "same",
        average_mirrored: bool = False,
        network_scale: float | Sequence[float] = 1.0,
        pos_label: int = 1,
        ignore_label: int | Literal["auto"] | None = "auto",
        class_weight: dict[int, float] | Literal["balanced"] | None = None,
        validation_fraction: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int = 5,
        callbacks: list[Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int | None = None,
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
        self.pretrain_loss = pretrain_loss
        self.freeze_epochs = freeze_epochs
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.tol = tol
        self.max_iter = max_iter
        self.gradient = gradient
        self.augmentation = augmentation
        self.joint_augmentation = joint_augmentation
        self.average_mirrored = average_mirrored
        self.network_scale = network_scale
        self.pos_label = pos_label
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
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
            give one log-odds map; or `checkpoint` holds the states of another fit.
        FloatingPointError
            If the network does not stay finite.

        Warns
        -----
        ConvergenceWarning
            If Algorithm 1 does not reach `tol` within `max_iter` passes.
        UserWarning
            If training was interrupted, by Ctrl-C. Then, as after an error in training, the estimator is left as it was
            trained until then: network and field, or the network alone if that was in pretraining.
        """
        self._validate_params()
        data = self._check_data(X, y, sample_weight, validation_data)
        n_channels = data[0][0].shape[-1]
        warm = self.warm_start and hasattr(self, "network_")
        if warm and n_channels != self.n_channels_in_:
            raise ValueError(f"X has {n_channels} channels, but warm_start goes on with {self.n_channels_in_}")
        start = self._start if warm else lambda: self._cnn().first_weights(data[0][0])
        with ending_fit(), self._open_checkpoints(start, *data) as checkpoints:
            if not warm:
                self._pretrain(*data, checkpoints)
            if self.training == "cnn":
                self._take_field(None)
            else:
                self._learn_field(*data, checkpoints, self.coef_ if warm else INITIAL_WEIGHTS)
        return self

    def _start(self) -> dict[str, np.ndarray]:
        """What a warm start begins with."""
        moments = {
            f"{n}.{name}": array
            for n, of_one in (self.optimizer_state_ or {}).items()
            for name, array in of_one.items()
        }
        return {"coef": self.coef_, **moments, **network_arrays(self.network_)}

    def _cnn(self) -> CNNSegmenter:
        """Pretraining as an estimator."""
        parameters = self.get_params(deep=False)
        shared = {name: parameters[name] for name in parameters.keys() & _parameters_of(CNNSegmenter)}
        own = {
            "n_epochs": self.pretrain_epochs,
            "learning_rate": self.pretrain_learning_rate,
            "schedule": self.pretrain_schedule,
            "loss": self.pretrain_loss,
        }
        return CNNSegmenter(**shared | own)

    def _pretrain(
        self,
        images: Sequence[np.ndarray],
        truths: Sequence[Truth],
        validation_data: LabelledImages | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Pretrain the network, or take one that was and will get its weights from the state of joint training."""
        cnn = self._cnn()
        fitted: dict[str, Any] = {}
        try:
            if checkpoints and checkpoints.state_of("joint"):
                fitted = _fitted_by(cnn.take(cnn.build(images[0]), [], images[0], truths[0]))
            else:
                fitted = _fit_once(cnn, check_memory(self.memory), images, truths, validation_data, checkpoints)
        except BaseException:
            fitted = _fitted_by(cnn)
            raise
        finally:
            if fitted:
                self.__dict__.update(fitted)
                self.optimizer_state_ = None
                self._take_field(None)

    def _take_field(self, crf: MaxMarginCRF | None) -> None:
        self.crf_ = crf
        self.coef_ = np.array([1.0, 0.0, 0.0]) if crf is None else crf.coef_
        self.objective_, self.dual_gap_, self.sigma_, self.n_iter_ = (
            getattr(crf, name, None) for name in ("objective_", "dual_gap_", "sigma_", "n_iter_")
        )

    def _learn_field(
        self,
        images: Sequence[np.ndarray],
        truths: Sequence[Truth],
        validation_data: LabelledImages | None,
        checkpoints: Checkpoints | None,
        start: WeightsLike,
    ) -> None:
        """Learn the weights on the network as it is, and for joint training go on with both."""
        labelings = [Labelings(truth) for truth in truths]
        parameters = self.get_params(deep=False)
        crf = MaxMarginCRF(**{name: parameters[name] for name in _parameters_of(MaxMarginCRF)})
        found = checkpoints.state_of("joint") if checkpoints else None
        at_start: dict[str, Any] = {}
        try:
            if found is None:
                at_start = self._learn_piecewise(crf, images, labelings, validation_data, start)
            else:
                self.history_, crf.sigma_ = found["history"], found["sigma"]
            if self.training == "joint" and self.n_epochs:
                valid_jaccard = at_start.get("valid_jaccard")
                self._train_jointly(crf, images, labelings, validation_data, checkpoints, valid_jaccard)
                crf.learn(self._log_odds(images), images, labelings, crf.coef_)
        except KeyboardInterrupt:
            raise Interrupted from None
        finally:
            if hasattr(crf, "coef_"):
                self._take_field(crf)

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.gradient == "kkt" and self.training == "joint" and self._changes_in_joint_training()[1] is not None:
            raise ValueError(
                'gradient="kkt" needs joint_augmentation=None: batches of changed images are trained at weights that '
                "are held, where there is no linear system"
            )

    def _changes_in_joint_training(self) -> tuple[str, str | Augmentation | None]:
        """The parameter that says them, and its value."""
        name = "augmentation" if self.joint_augmentation == "same" else "joint_augmentation"
        return name, getattr(self, name)

    def _augmentations(self) -> dict[str, str | Augmentation | None]:
        return super()._augmentations() | dict([self._changes_in_joint_training()])

    def _learn_piecewise(
        self,
        crf: MaxMarginCRF,
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        validation_data: LabelledImages | None,
        start: WeightsLike,
    ) -> dict[str, Any]:
        """Learn the weights alone; give the row of the history with which joint training begins."""
        began = time.perf_counter()
        log_odds = self._log_odds(images)
        crf.learn(log_odds, images, labelings, start)
        if self.training != "joint":
            return {}
        row: dict[str, Any] = {"stage": "joint", "epoch": 0, "gamma": crf.objective_}
        watched = islice(zip(log_odds, images), N_WATCHED)
        row["jaccard"] = _jaccard([stored.known for stored in labelings], crf.segment(watched))
        if validation_data is not None:
            row["valid_jaccard"] = _jaccard(validation_data[1], crf.segment(self._results(validation_data[0])))
        row["seconds"] = time.perf_counter() - began
        if not any(row["stage"] == "joint" for row in self.history_):  # a warm start goes on counting
            self.history_ = [*self.history_, row]
        return row

    def _train_jointly(
        self,
        crf: MaxMarginCRF,
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        validation_data: LabelledImages | None,
        checkpoints: Checkpoints | None,
        valid_jaccard: float | None,
    ) -> None:
        loss = MaxMarginLoss(
            self.C,
            connectivity=self.connectivity,
            sigma=crf.sigma_,
            tol=10 * self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            gradient=self.gradient,
        )
        loss.coef_ = getattr(crf, "coef_", loss.coef_)
        before = self.history_
        last = max(row["epoch"] for row in before if row["stage"] == "joint")
        with seeded(self.random_state) as seed, epoch_progress("joint training", self.verbose) as progress:
            net = joint_net(
                self.network_,
                images,
                labelings,
                loss,
                n_epochs=self.n_epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                device=resolve_device(self.device),
                seed=seed,
                schedule=self.schedule,
                validation_data=validation_data,
                average_mirrored=self.average_mirrored,
                scale=self.network_scale,
                callbacks=progress
                + (self.callbacks or [])
                + self._keep_best(valid_jaccard)
                + self._keep_state(checkpoints, "joint", history=before, sigma=crf.sigma_),
                optimizer_state=self.optimizer_state_,
            )
            name, changes = self._changes_in_joint_training()
            truths = [stored.known for stored in labelings]
            data = ImageDataset(images, labelings) if changes is None else training_set(images, truths, changes, name)
            try:
                net.partial_fit(data)
            finally:
                self.network_.eval().cpu()
                rows = history_rows(net, stage="joint")
                self.history_ = before + [row | {"epoch": row["epoch"] + last} for row in rows]
                moments = net.optimizer_.state_dict()["state"]
                self.optimizer_state_ = _as_arrays(moments) if self.warm_start else None
                crf.take_weights(loss.coef_, images, labelings)

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
    checkpoints: Checkpoints | None,
) -> dict[str, Any]:
    """The fitted attributes of a network, from the memory if it was trained before."""
    location = getattr(memory, "location", memory)
    if location is None:
        return _fit_cnn("", cnn, images, truths, validation_data, checkpoints)
    key = _name_of(cnn, images, truths, validation_data)
    fit = memory.cache(_fit_cnn, ignore=["cnn", "images", "truths", "validation_data", "checkpoints"])
    if not isinstance(location, (str, PathLike)):
        return fit(key, cnn, images, truths, validation_data, checkpoints)
    Path(location).mkdir(parents=True, exist_ok=True)
    # candidates of a search that run side by side wait for one of them
    with FileLock(Path(location) / f"skmmcrf-{key}.lock"):
        return fit(key, cnn, images, truths, validation_data, checkpoints)


def _fit_cnn(
    key: str,
    cnn: CNNSegmenter,
    images: Sequence[np.ndarray],
    truths: Sequence[Truth],
    validation_data: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> dict[str, Any]:
    """What the memory keeps, under its key."""
    return _fitted_by(cnn.learn(images, truths, validation_data, checkpoints))


def _fitted_by(cnn: CNNSegmenter) -> dict[str, Any]:
    """What pretraining has fitted, if anything."""
    kept = ("network_", "history_", "n_channels_in_", "classes_", "class_weight_")
    return {name: getattr(cnn, name) for name in kept if hasattr(cnn, name)}


def _name_of(
    cnn: CNNSegmenter,
    images: Sequence[np.ndarray],
    truths: Sequence[Truth],
    validation_data: LabelledImages | None,
) -> str:
    """A name of all that decides what is learned."""
    parameters = cnn.get_params(deep=False)
    for name in ("network", "weights", "callbacks", "checkpoint", "checkpoint_every", "verbose"):
        del parameters[name]
    if validation_data is None:  # the steps of training are with neither mirror images nor further scales
        del parameters["average_mirrored"]
        parameters["network_scale"] = check_scales(parameters["network_scale"], "network_scale")[0]
    data = [names_of_data(*part) for part in filter(None, [(images, truths), validation_data])]
    return hash_of([__version__, parameters, cnn.first_weights(images[0]), data])
