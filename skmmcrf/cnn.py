"""The network alone as an estimator: the pretraining of the deep structured model, and the paper's "CNN only"."""

from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from skorch.callbacks import EpochTimer
from torch import nn

from skmmcrf._typing import (
    ImagesLike,
    LabelledImages,
    LabelledImagesLike,
    LabelsLike,
    NetworkLike,
    RandomStateLike,
)
from skmmcrf.augmentation import Augmentation
from skmmcrf.base import NetworkSegmenter
from skmmcrf.callbacks import SCHEDULES, FreezeBackbone, JaccardOfNetwork, learning_rate_schedule
from skmmcrf.checkpoint import Checkpoints
from skmmcrf.energy import scale_image
from skmmcrf.image_datasets import training_set
from skmmcrf.interrupts import ending_fit
from skmmcrf.network_state import network_arrays
from skmmcrf.networks import build_network
from skmmcrf.pixel_losses import PIXEL_LOSSES
from skmmcrf.progress import epoch_progress
from skmmcrf.random_states import seeded
from skmmcrf.training import SegmentationNet, compute_log_odds, history_rows, resolve_device, segmentation_net
from skmmcrf.truth import Truth
from skmmcrf.validation import as_given


class CNNSegmenter(TransformerMixin, NetworkSegmenter):
    """Segmentation by a network alone, trained pixel by pixel.

    Training minimises `loss` with AdamW. A pixel is foreground where its
    log-odds are positive.

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
        state dict. Batch-norm statistics that were loaded are kept.
    n_epochs : int, default=20
        Passes over the images.
    learning_rate : float, default=1e-3
        The peak of the schedule.
    schedule : {"one_cycle", "linear", "cosine", "constant"}, default="one_cycle"
        How the learning rate goes: up and down again, down to zero from the start, or not at all.
    loss : {"log_likelihood", "dice", "log_likelihood+dice"}, default="log_likelihood"
        What is minimised: the mean negative log-likelihood of the pixels, one minus the Dice index of each image, or
        both added.
    batch_size : int, default=10
        Images in a step.
    freeze_epochs : int, default=0
        Epochs at the start during which the backbone of the network stays as it is.
    augmentation : {"flip", "standard", "strong"}, callable or None, default=None
        Random changes of the training images: "flip" mirrors them; "standard" also scales, shifts and turns them and
        changes contrast and brightness, and "strong" does so more (`skmmcrf.augmentation.build_augmentation`). Or a
        transform of an image and its mask together, as those of torchvision.transforms.v2 are: it is given a
        `tv_tensors.Image` (channels, H, W) and a `tv_tensors.Mask` (H, W) of 0, 1, and 255 where unlabelled.
    average_mirrored : bool, default=False
        Whether log-odds are the mean of those of the image and of its mirror image, except in the steps of training.
        It takes twice the time, for the better where right and left may be exchanged.
    network_scale : float or sequence of float, default=1.0
        Factor by which images are resized for the network, whose log-odds are resized back. Below 1 the network is
        faster and sees more around a pixel, above 1 it sees finer detail. Of several, log-odds are the mean of those at
        each, except in the steps of training, which are at the first.
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
    device : str, default="auto"
        "auto", "cpu", "cuda", ...; "auto" is a graphics processor if there is one.
    random_state : int, RandomState or None, default=None
        Of the network's first weights and the order of images.
    verbose : int, default=0
        1 prints a line after each epoch, 2 shows a progress bar.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.
    classes_ : ndarray
        The labels, 0 and `pos_label`.
    class_weight_ : ndarray of shape (2,)
        The weight of a pixel of either.
    n_channels_in_ : int
        Channels of the images.
    n_iter_ : int
        Epochs trained.
    history_ : list of dict
        Of each epoch: stage "cnn", epoch, loss, jaccard (of the training images, while training), valid_jaccard if
        there are validation images, seconds.

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
        "network": [str, nn.Module, callable],
        "weights": [None, str, PathLike],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "loss": [StrOptions(set(PIXEL_LOSSES))],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "freeze_epochs": [Interval(Integral, 0, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network: NetworkLike = "unet",
        *,
        weights: str | PathLike[str] | None = None,
        n_epochs: int = 20,
        learning_rate: float = 1e-3,
        schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "one_cycle",
        loss: Literal["log_likelihood", "dice", "log_likelihood+dice"] = "log_likelihood",
        batch_size: int = 10,
        freeze_epochs: int = 0,
        augmentation: Literal["flip", "standard", "strong"] | Augmentation | None = None,
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
        device: str | torch.device = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.weights = weights
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.loss = loss
        self.batch_size = batch_size
        self.freeze_epochs = freeze_epochs
        self.augmentation = augmentation
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
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

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
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images of bool, uint8, uint16 or float. Entries of a sequence are arrays (H, W[, channels]) whose sizes may
            differ, tensors ([channels, ]H, W), PIL images, or paths of image files. Files, and sequences other than
            lists and tuples, such as datasets of torch, are read as they are needed.
        y : array of shape (n, H, W), or sequence
            Labels: arrays or tensors (H, W), PIL images or paths of mask files; or None if X is a dataset of pairs.
        sample_weight : array of shape (n,), optional
            What each image counts.
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
        UserWarning
            If training was interrupted, by Ctrl-C. Then, as after an error in training, the estimator is left as it was
            trained until then.
        """
        self._validate_params()
        data = self._check_data(X, y, sample_weight, validation_data)
        with ending_fit(), self._open_checkpoints(lambda: self.first_weights(data[0][0]), *data) as checkpoints:
            self.learn(*data, checkpoints)
        return self

    def first_weights(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Give the state dict of the network as it is before training, and what it looks like, as arrays.

        Parameters
        ----------
        image : ndarray of shape (H, W, channels)

        Returns
        -------
        dict of str to ndarray
        """
        with seeded(self.random_state):
            network = self.build(image)
        return {"": np.array(str(network)), **network_arrays(network)}

    def learn(
        self,
        images: Sequence[np.ndarray],
        truths: Sequence[Truth],
        validation_data: LabelledImages | None,
        checkpoints: Checkpoints | None = None,
    ) -> "CNNSegmenter":
        """Train the network on checked data.

        Parameters
        ----------
        images : sequence of ndarray of shape (H, W, channels)
        truths : list of Truth
            With the weights of images and pixels.
        validation_data : None or tuple of such images and truths
        checkpoints : Checkpoints, optional

        Returns
        -------
        self
        """
        device = resolve_device(self.device)
        with seeded(self.random_state) as seed, epoch_progress("pretraining", self.verbose) as progress:
            network = self.build(images[0])
            callbacks = self._callbacks(len(images), validation_data, progress)
            net = segmentation_net(
                SegmentationNet,
                network,
                PIXEL_LOSSES[self.loss](),
                freeze_batch_norm=self.weights is not None,
                average_mirrored=self.average_mirrored,
                scale=self.network_scale,
                n_images=len(images),
                seed=seed,
                device=device,
                optimizer=torch.optim.AdamW,
                lr=self.learning_rate,
                max_epochs=self.n_epochs,
                batch_size=self.batch_size,
                callbacks=callbacks + self._keep_state(checkpoints, "cnn"),
            )
            net.initialize()
            try:
                if self.n_epochs:
                    net.partial_fit(training_set(images, truths, self.augmentation))
            finally:
                self.take(network, history_rows(net, stage="cnn"), images[0], truths[0])
        return self

    def take(
        self, network: nn.Module, history: list[dict[str, Any]], image: np.ndarray, truth: Truth
    ) -> "CNNSegmenter":
        """Become fitted by a network that was trained.

        Parameters
        ----------
        network : torch.nn.Module
        history : list of dict
        image : ndarray of shape (H, W, channels)
        truth : Truth
            One of those that it was trained on.

        Returns
        -------
        self
        """
        self.network_ = network.eval().cpu()
        self.history_ = history
        self.n_iter_ = len(history)
        self.n_channels_in_ = image.shape[-1]
        self.classes_ = np.array([0, self.pos_label])
        self.class_weight_ = np.array(truth.class_weight)
        return self

    def build(self, image: np.ndarray) -> nn.Module:
        """Make the network as it is before training, and try it.

        Parameters
        ----------
        image : ndarray of shape (H, W, channels)

        Returns
        -------
        torch.nn.Module

        Raises
        ------
        ValueError, TypeError
            If there is no such network, or it can't take such images, or does not give one log-odds map.
        """
        network = build_network(self.network, image.shape[-1], self.weights)
        try:
            compute_log_odds(network, [image], batch_size=1, device=resolve_device(self.device))
        except RuntimeError as error:
            raise ValueError(f"network: it can't take an image of shape {image.shape}: {error}") from error
        if self.n_epochs and not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError("network: it has no parameters to train")
        if self.freeze_epochs and not isinstance(getattr(network, "backbone", None), nn.Module):
            raise ValueError("freeze_epochs: the network has no backbone to freeze, a module as its attribute")
        return network

    def _callbacks(self, n_images: int, validation_data: LabelledImages | None, progress: list[Any]) -> list[Any]:
        n_steps = self.n_epochs * -(-n_images // self.batch_size)
        schedule = learning_rate_schedule(self.schedule, self.learning_rate, n_steps)
        callbacks: list[Any] = [("schedule", schedule)] if schedule else []
        callbacks += [("freeze", FreezeBackbone(self.freeze_epochs))] if self.freeze_epochs else []
        callbacks += [("jaccard", JaccardOfNetwork(validation_data)), ("seconds", EpochTimer())]
        return callbacks + progress + (self.callbacks or []) + self._keep_best()

    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images, as in fit.

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or `pos_label`.
        """
        return as_given([self._as_labels(log_odds > 0) for log_odds, _ in self._run_network(X)], X)

    def transform(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Stack log-odds and images, as `MaxMarginCRF` takes them.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images, as in fit.

        Returns
        -------
        ndarray of float32 and shape (n, H, W, 1 + channels), or list of ndarray of shape (H, W, 1 + channels)
            Log-odds in channel 0, the image scaled to [0, 1] in the others.
        """
        return as_given([np.dstack([l, scale_image(image)]) for l, image in self._run_network(X)], X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
