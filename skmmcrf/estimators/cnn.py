"""The network alone as an estimator: the pretraining of the deep structured model, and the paper's "CNN only"."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf._docs import documented
from skmmcrf._typing import FloatArray, ImagesLike, LabelledImagesLike, LabelsLike, NetworkLike, RandomStateLike
from skmmcrf.estimators.files import FITTED_HISTORY, FITTED_LABELS, NETWORK
from skmmcrf.estimators.identity import as_text
from skmmcrf.estimators.network_segmenter import NetworkSegmenter, keep_state, try_augmentation, with_classes_last
from skmmcrf.estimators.scale_search import (
    NO_LIMIT,
    ScaleSearch,
    TimeLimit,
    candidate_factors,
    search_scale,
    uncompared,
)
from skmmcrf.field.labels import likeliest_labels
from skmmcrf.field.terms import scale_image
from skmmcrf.images.checking import LabelledImages, as_given
from skmmcrf.images.labels import LABEL_CONSTRAINTS
from skmmcrf.metrics.means import jaccard_of_annotations
from skmmcrf.networks import build_network, is_own
from skmmcrf.networks.any_size import check_scales
from skmmcrf.networks.ensemble import MeanOfNetworks
from skmmcrf.networks.state import forget_last_run, network_arrays
from skmmcrf.training.augmentation import AUGMENTATIONS, Augmentation
from skmmcrf.training.batches import ShuffledOrder, epochs_of
from skmmcrf.training.callbacks import SCHEDULES, JaccardOfNetwork
from skmmcrf.training.checkpoints import Checkpoints, from_state_that_fits
from skmmcrf.training.data import Changes, TrainingSet, check_crop
from skmmcrf.training.interrupts import Interrupted, ending_fit
from skmmcrf.training.net import SegmentationNet, history_rows, segmentation_net
from skmmcrf.training.pixel_losses import PIXEL_LOSSES
from skmmcrf.training.random_states import OwnGenerator, seeded
from skmmcrf.training.trial import try_network, try_whole

# what is pretrained is changed less than layers that begin at random; an ensemble has a backbone in each network
_LAYERS_OF_BACKBONE, _RATE_OF_BACKBONE = "*.backbone.*", 0.1
# of n_epochs="auto"
_STEPS, _LEAST_EPOCHS, _MOST_EPOCHS = 1500, 60, 300


@documented
class CNNSegmenter(TransformerMixin, NetworkSegmenter):
    """Segmentation of images into background and foreground, or into several classes, by a network alone.

    Training minimises `loss` over the pixels, with AdamW. A pixel is foreground where its log-odds are positive. The
    classes are the labels in y. If they are more than two, the network gives a map of scores for each, and a pixel gets
    the label of the largest.

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="unet"
        "unet" is small and meant for training from scratch. ``"unet_"`` or ``"fcn8s_"`` with the name of a backbone
        names a larger network: "unet_resnet18" or "fcn8s_vgg16" (the paper's) on torchvision's, "unet_timm/resnet18" on
        timm's. A module, or a function of the number of channels that returns a module, is also possible. Modules take
        images (n, channels, H, W) scaled to [0, 1] and return log-odds (n, 1, H, W), or scores (n, K, H, W) of K
        classes, more than two. A function that has a parameter `n_maps` then gets K by that name. If heights and widths
        must be multiples of a number, the module's attribute `size_divisor` holds it. Batch-norm statistics of an
        earlier training are kept.
    weights : None, "imagenet" or path, default=None
        Weights of a named backbone: random (None), those for ImageNet (torchvision or timm downloads them), or the file
        of a state dict.
    loss : {"log_likelihood", "dice", "log_likelihood+dice"}, default="log_likelihood+dice"
        What is minimised: the mean negative log-likelihood of the pixels, one minus the Dice index of each image, or
        both added. For several classes, the Dice index is the mean over those that occur in the images of one size of a
        step.
    n_epochs : int or "auto", default="auto"
        Passes over the images. "auto" makes about 1500 steps, in 60 to 300 passes. Few images thus get more passes.
    learning_rate : float, default=1e-3
        The peak of the schedule. It is a tenth of that for the layers of a backbone with `weights`.
    %(schedule_of_cnn)s
    batch_size : int, default=5
        Images in a step.
    augmentation : {"flip", "standard", "strong"}, callable or None, default="strong"
        Random changes of the training images. "flip" mirrors half of them left to right. "standard" also scales, shifts
        and rotates them, and changes contrast and brightness. "strong" changes them more, and colours too. See
        `skmmcrf.training.augmentation.build_augmentation`. A callable is a transform of an image and its mask together,
        as in torchvision.transforms.v2. It takes a `tv_tensors.Image` (channels, H, W) and a `tv_tensors.Mask` (H, W)
        of 0, 1, and 255 where unlabelled. Several classes are numbered from 0 on, in the order of `classes_`.
        Transforms of albumentations take arrays instead. The changes act in training only, so `Normalize` must not be
        among them.
    crop : int, tuple (int, int) or None, default=None
        Height and width, in pixels, of the part of each image that a training step uses, in joint training too. The
        part is chosen at random each time. Training then needs less memory for large images. One number stands for
        both. Predictions are of whole images.
    average_mirrored : bool, default=True
        Whether log-odds are averaged over the image and its mirror image, except in the steps of training. This takes
        twice the time. If right and left must not be exchanged, set it to False, and give an `augmentation` that does
        not mirror. A `DeepStructuredSegmenter` then mirrors nothing in joint training either.
    network_scale : float, sequence of float or "auto", default=1.0
        Factor by which images are resized for the network, whose log-odds are resized back. Below 1 the network is
        faster and sees more around a pixel. Above 1 it sees finer detail. Several factors give the mean of the log-odds
        at each of them, and training steps use the first. At most 16 factors are possible, none above 16. "auto" finds
        one factor, at most 1.4, before training: up to five factors are compared by short trainings, and the best three
        by two longer ones each, on training images held out of them.
    %(pos_label)s
    %(classes)s
    %(ignore_label)s
    %(class_weight)s
    %(validation_fraction)s
    early_stopping : bool, default=False
        Whether the network of the epoch with the best Jaccard index of the validation images is kept. Training then
        ends when that index has not risen for `n_iter_no_change` epochs.
    %(n_iter_no_change)s
    %(callbacks)s
    %(checkpoint)s
    device : str, default="auto"
        A device of torch, such as "cpu" or "cuda". "auto" takes a graphics processor if torch finds one, else the CPU.
    amp : bool, default=False
        Whether the network computes in bfloat16 where that is safe (automatic mixed precision), in training and in
        predictions. This is faster on graphics processors, and for large images on processors with matrix units (AMX).
        Log-odds and parameters stay float32.
    num_workers : int, default=0
        Processes that read and change the next images while the network trains on the present ones, as in
        `torch.utils.data.DataLoader`. 0 reads them in the process of the fit. Processes help if images are read from
        files, or if `augmentation` is a callable. They have no influence on what is learned.
    %(random_state)s
    verbose : int, default=0
        1 prints a line after each epoch, 2 shows a progress bar within it too.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.
    %(fitted_classes)s
    %(fitted_class_weight)s
    network_scale_ : float or list of float
        The factors with which the network was trained and is run.
    n_channels_in_ : int
        Channels of the images.
    n_networks_ : int
        Networks whose mean log-odds `network_` gives: 1, or the number of folds for a `DeepStructuredSegmenter` with
        `ensemble`.
    n_iter_ : int
        Epochs trained.
    history_ : list of dict
        One entry an epoch: stage ("cnn"), epoch, loss, jaccard (of the training images, while training), seconds, and
        valid_jaccard if validation images are given. With ``early_stopping=True``, kept is True for the epoch whose
        network is kept.

    Examples
    --------
    >>> from skmmcrf import CNNSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> cnn = CNNSegmenter(n_epochs=2, random_state=0).fit(X, y)
    >>> cnn.predict(X).shape, cnn.transform(X).shape
    ((4, 32, 32), (4, 32, 32, 2))
    """

    _parameter_constraints = {
        **NetworkSegmenter._parameter_constraints,
        **LABEL_CONSTRAINTS,
        "network": [str, nn.Module, callable],
        "weights": [None, str, PathLike],
        "loss": [StrOptions(set(PIXEL_LOSSES))],
        "n_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "augmentation": AUGMENTATIONS,
        "crop": [Integral, tuple, list, None],
        "average_mirrored": ["boolean"],
        "network_scale": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), list, tuple],
        "device": [str, torch.device],
        "amp": ["boolean"],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
    }
    _fitted_attributes = {
        **FITTED_LABELS,
        **FITTED_HISTORY,
        "network_scale_": [float, list],
        "n_networks_": [Interval(Integral, 1, None, closed="left")],
        "network_": NETWORK,
    }

    def __init__(
        self,
        network: NetworkLike = "unet",
        *,
        weights: str | PathLike[str] | None = None,
        loss: Literal["log_likelihood", "dice", "log_likelihood+dice"] = "log_likelihood+dice",
        n_epochs: int | Literal["auto"] = "auto",
        learning_rate: float = 1e-3,
        schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "one_cycle",
        batch_size: int = 5,
        augmentation: Literal["flip", "standard", "strong"] | Augmentation | None = "strong",
        crop: int | tuple[int, int] | None = None,
        average_mirrored: bool = True,
        network_scale: float | Sequence[float] | Literal["auto"] = 1.0,
        pos_label: int = 1,
        classes: Sequence[int] | None = None,
        ignore_label: int | Literal["auto"] | None = "auto",
        class_weight: dict[int, float] | Literal["balanced"] | None = None,
        validation_fraction: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int | Literal["auto"] = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        device: str | torch.device = "auto",
        amp: bool = False,
        num_workers: int = 0,
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.weights = weights
        self.loss = loss
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.crop = crop
        self.average_mirrored = average_mirrored
        self.network_scale = network_scale
        self.pos_label = pos_label
        self.classes = classes
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.amp = amp
        self.num_workers = num_workers
        self.random_state = random_state
        self.verbose = verbose

    def _validate_params(self) -> None:
        super()._validate_params()
        if not isinstance(self.network_scale, str):
            check_scales(self.network_scale, "network_scale")
        check_crop(self.crop)

    def _check_fitted(self) -> None:
        super()._check_fitted()
        check_scales(self.network_scale_, "network_scale_")

    @property
    def given_scale(self) -> float | list[float] | None:
        """The factors that `network_scale` gives. None for "auto"."""
        if isinstance(self.network_scale, str):
            return None
        factors = check_scales(self.network_scale, "network_scale")
        return factors if isinstance(self.network_scale, Sequence) else factors[0]

    def epochs_for(self, n_images: int) -> int:
        """Give the epochs of a training on so many images, which are never more than those for one image."""
        if self.n_epochs != "auto":
            return super().epochs_for(n_images)
        return int(np.clip(epochs_of(_STEPS, n_images, self.batch_size), _LEAST_EPOCHS, _MOST_EPOCHS))

    @property
    def changes(self) -> Changes:
        """How the training images are changed at random."""
        return Changes(self.augmentation, self.crop)

    @property
    def n_iter_(self) -> int:
        """Epochs trained."""
        check_is_fitted(self)
        return len(self.history_)

    @documented
    def fit(
        self,
        X: ImagesLike,
        y: LabelsLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: LabelledImagesLike | None = None,
    ) -> "CNNSegmenter":
        """Train the network.

        Parameters
        ----------
        %(X_to_fit)s
        %(y_to_fit)s
        %(sample_weight)s
        %(validation_data)s

        Returns
        -------
        self

        Raises
        ------
        %(raised_by_fit)s

        Warns
        -----
        UserWarning
            If the network ends in a sigmoid. If its batch normalisation learns from single images, because their sizes
            differ. If `augmentation` normalises. If image and mask files seem to be paired
            wrongly. If Ctrl-C interrupted training. The estimator then keeps what was trained until then, as after an
            error in training. Ctrl-C in the search of ``network_scale="auto"``, which comes before training, raises
            KeyboardInterrupt.
        """
        self._validate_params()
        data, validation = self._check_data(self, X, y, sample_weight, validation_data)
        try_augmentation(data, self.augmentation)
        with ending_fit(), self.open_checkpoints(data, validation) as checkpoints:
            self.train(data, validation, checkpoints)
        return self

    def open_checkpoints(
        self, data: LabelledImages, validation: LabelledImages | None, **parameters: Any
    ) -> AbstractContextManager[Checkpoints | None]:
        """Open the folder of states that `checkpoint` names, for a fit on checked data. None without `checkpoint`.

        Further parameters tell this fit from others on the same data.
        """
        return self._open_checkpoints(lambda: self.first_weights(data), data, validation, **parameters)

    def first_weights(self, data: LabelledImages) -> dict[str, np.ndarray]:
        """Give the state dict of the network before training, and a description of its modules, as arrays."""
        with seeded(self.random_state) as seed:
            network = self.build(data, seed)
        looks = [str(network), self.weights is not None]
        for name, part in network.named_modules():
            looks.append((name, as_text(type(part)), _plain_attributes(part)))
        return {"": np.array(repr(looks)), **network_arrays(network)}

    @from_state_that_fits
    def train(
        self, data: LabelledImages, validation: LabelledImages | None, checkpoints: Checkpoints | None = None
    ) -> "CNNSegmenter":
        """Train the network on checked data, with the weights of images and pixels."""
        scale = self.scale_for(data, validation, checkpoints)
        callbacks = self._callbacks("pretraining", len(data), [("jaccard", JaccardOfNetwork(validation))])
        callbacks += keep_state(checkpoints, "cnn", network_scale=scale)
        with seeded(self.random_state) as seed:
            net = self._tried_net(data, validation, scale, seed, callbacks)
            try:
                if self.n_epochs:
                    net.partial_fit(TrainingSet(data, self.changes, seed))
            finally:
                self.adopt(net.module.network, history_rows(net, stage="cnn"), data, scale)
        return self

    def try_on(self, data: LabelledImages, validation: LabelledImages | None) -> None:
        """Raise the error with which training on checked data would begin, at the largest factor that it may have."""
        with seeded(0) as seed:  # so that nothing is drawn from random_state
            self._tried_net(data, validation, self._largest_scale(data), seed, [])

    def try_whole_images(self, data: LabelledImages) -> None:
        """Raise the error that log-odds of whole images would raise, if training sees parts or other sizes of them."""
        if self.crop is None and not callable(self.augmentation):
            return
        with seeded(0) as seed:
            network = self.build(data, seed)
        runner = replace(self._runner(), scale=self._largest_scale(data), n_maps=data.scheme.n_maps)
        shapes = [annotation.shape for annotation in data.annotations]
        if not is_own(network):
            try_whole(runner.wrapped(network), shapes, "cpu", data.n_channels, "the images as a whole")

    def _largest_scale(self, data: LabelledImages) -> float | list[float]:
        """The largest factor that training may have."""
        return self.given_scale or candidate_factors([annotation.shape for annotation in data.annotations])[-1]

    def _tried_net(
        self,
        data: LabelledImages,
        validation: LabelledImages | None,
        scale: float | list[float],
        seed: int,
        callbacks: list[Any],
    ) -> SegmentationNet:
        """Make the net of a training, and try it on the sizes of its images."""
        net = segmentation_net(
            SegmentationNet,
            self.build(data, seed),
            PIXEL_LOSSES[self.loss](),
            replace(self._runner(), scale=scale, n_maps=data.scheme.n_maps),
            ShuffledOrder(len(data), seed),
            num_workers=self.num_workers,
            optimizer=torch.optim.AdamW,
            lr=self.learning_rate,
            optimizer__param_groups=self.rates_of_layers(self.learning_rate),
            max_epochs=self.epochs_for(len(data)),
            batch_size=self.batch_size,
            callbacks=callbacks,
        )
        of_validation = [a.shape for a in validation.annotations] if validation else []
        try_network(net, data.n_channels, self._training_sizes(data), of_validation)
        return net

    def scale_for(
        self, data: LabelledImages, validation: LabelledImages | None, checkpoints: Checkpoints | None
    ) -> float | list[float]:
        """Give the factors of a training: those given, that of the state that it goes on from, or the one found."""
        if self.given_scale is not None:
            return self.given_scale
        if checkpoints and (found := checkpoints.scale_of("cnn")):
            return found
        factors = candidate_factors([annotation.shape for annotation in data.annotations])
        if len(factors) == 1 or not self.n_epochs:
            return uncompared(factors)
        return self.search_scale(data, validation).factor

    def search_scale(
        self, data: LabelledImages, validation: LabelledImages | None = None, *, limit: TimeLimit = NO_LIMIT
    ) -> ScaleSearch:
        """Compare factors for the network by short trainings on checked data, within a limit.

        The validation images are tried only, so that errors come first.
        """
        data.check_lasting()
        factors = candidate_factors([annotation.shape for annotation in data.annotations])
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.try_on(data, validation)
        try:
            trial = partial(self._try_scale, seed)
            return search_scale(data, trial, factors, seed, limit=limit, verbose=self.verbose)
        except Interrupted:  # of a short training, of which nothing is kept
            raise KeyboardInterrupt from None

    def _short(self, seed: int, **parameters: Any) -> "CNNSegmenter":
        """The same estimator for a training that only the search for a factor sees."""
        plain = {"checkpoint": None, "callbacks": None, "validation_fraction": None, "early_stopping": False}
        own = self.get_params(deep=False) | plain | {"random_state": seed, "verbose": 0}
        return type(self)(**own | parameters)

    def _try_scale(
        self, seed: int, factor: float, n_steps: int, data: LabelledImages, held_out: LabelledImages
    ) -> tuple[FloatArray, float]:
        """Train at a factor for some steps. See `skmmcrf.estimators.scale_search.Trial`."""
        n_epochs = min(self.epochs_for(len(data)), epochs_of(n_steps, len(data), self.batch_size))
        short = self._short(seed, n_epochs=n_epochs, network_scale=factor).train(data, None)
        results = short._runner().run(short.network_, held_out.images)
        indices = jaccard_of_annotations(held_out.annotations, (likeliest_labels(maps) for maps, _ in results))
        # without foreground an image would compare errors of a network that is not trained yet
        counts = [a.weight > 0 and exists for a, exists in zip(held_out.annotations, held_out.has_foreground)]
        seconds = float(np.median([row["seconds"] for row in short.history_])) / len(data)
        return np.where(counts, indices, np.nan), seconds

    def rates_of_layers(self, learning_rate: float) -> list[tuple[str, dict[str, float]]]:
        """Give the learning rates of layers that have another, by their names."""
        if self.weights is None:
            return []
        return [(_LAYERS_OF_BACKBONE, {"lr": _RATE_OF_BACKBONE * learning_rate})]

    def _training_sizes(self, data: LabelledImages) -> list[tuple[int, ...]]:
        """Heights and widths of the images in training. For a user's augmentation, those of its first results."""
        if callable(self.augmentation):
            first_of_shape = {a.shape: n for n, a in reversed([*enumerate(data.annotations)])}
            changed = TrainingSet(data, self.changes)
            with seeded(0):
                becomes = {shape: tuple(changed[0, n].mask.shape) for shape, n in first_of_shape.items()}
            return [becomes[annotation.shape] for annotation in data.annotations]
        crop = check_crop(self.crop)
        return [
            annotation.shape if crop is None else tuple(map(min, annotation.shape, crop))
            for annotation in data.annotations
        ]

    def adopt(
        self, network: nn.Module, history: list[dict[str, Any]], data: LabelledImages, scale: float | list[float]
    ) -> "CNNSegmenter":
        """Become fitted by a network that was trained on some data."""
        # at once, as an interrupt may come at any moment
        self.__dict__.update(
            network_=forget_last_run(network).eval().cpu(),
            history_=history,
            network_scale_=scale,
            n_channels_in_=data.n_channels,
            classes_=np.array(data.scheme.classes),
            class_weight_=np.array(data.annotations[0].class_weight),
            n_networks_=len(network) if isinstance(network, MeanOfNetworks) else 1,
        )
        return self

    def build(self, data: LabelledImages, seed: int) -> nn.Module:
        """Make the untrained network, drawn by a seed, and try it on the first image.

        Raises
        ------
        ValueError, TypeError
            If the name is unknown. If the network can't take such images, or does not give one log-odds map, or a map
            of scores for each of several classes. If it has no parameters that can be trained.
        """
        image, n_maps = data[0][0], data.scheme.n_maps
        with OwnGenerator(seed):
            network = build_network(self.network, image.shape[-1], self.weights, n_maps=n_maps)
        scale = self.given_scale or candidate_factors([image.shape[:2]])[-1]
        replace(self._runner(), scale=scale, n_maps=n_maps).log_odds(network, [image])
        if self.n_epochs:
            _check_parameters([parameter for parameter in network.parameters() if parameter.requires_grad])
        return network

    @documented
    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        %(labels_given)s
        """
        return as_given([self._as_labels(likeliest_labels(maps)) for maps, _ in self._run_network(X)], X)

    @documented
    def transform(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Stack log-odds, or scores of K classes, and images, as `MaxMarginCRF` takes them.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of float32 and shape (n, H, W, 1 + channels), or list of ndarray of shape (H, W, 1 + channels)
            Log-odds in channel 0, and the image scaled to [0, 1] in the others. For K classes, more than two, their
            scores are in the first K channels.
        """
        return as_given([np.dstack([with_classes_last(l), scale_image(image)]) for l, image in self._run_network(X)], X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _check_parameters(trained: list[nn.Parameter]) -> None:
    """Raise a ValueError if these parameters can't be trained."""
    if not trained:
        raise ValueError("network: it has no parameters to train")
    halves = {parameter.dtype for parameter in trained} & {torch.float16, torch.bfloat16}
    if halves:
        raise ValueError(
            f"network: its parameters are of {halves.pop()}, which is too coarse for training: call its float()"
        )


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Attributes of a module, beside tensors and modules, that can be compared."""
    plain = (bool, int, float, str, tuple, type(None))
    return {k: v for k, v in sorted(vars(module).items()) if isinstance(v, plain) and not k.startswith("_")}
