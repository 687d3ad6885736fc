"""The network alone as an estimator: the pretraining of the deep structured model, and the paper's "CNN only"."""

from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.nn import functional as F

from skmmcrf._typing import (
    ImagesLike,
    LabelledImages,
    LabelledImagesLike,
    LabelsLike,
    NetworkLike,
    RandomStateLike,
)
from skmmcrf.base import NetworkSegmenter
from skmmcrf.networks import build_network
from skmmcrf.training import (
    ImageDataset,
    JaccardOfNetwork,
    Progress,
    SegmentationNet,
    compute_log_odds,
    history_rows,
    resolve_device,
    seeded,
    segmentation_net,
)
from skmmcrf.validation import as_given, check_images, check_labels, check_validation_data


class CNNSegmenter(NetworkSegmenter):
    """Segmentation by a network alone, trained by the pixelwise log-likelihood.

    Training minimises the mean negative log-likelihood of the pixels with AdamW and a one-cycle schedule of the
    learning rate. A pixel is foreground where its log-odds are positive.

    Parameters
    ----------
    network : str, torch.nn.Module or callable, default="unet"
        "unet", small and for training from scratch; "fcn8s_" with the name of a torchvision backbone, as in
        "fcn8s_vgg16" (the paper's) or "fcn8s_squeezenet1_1"; a module, or a function of the number of channels that
        gives one. Modules take images (n, channels, H, W) scaled to [0, 1] and give log-odds (n, 1, H, W); if sizes
        must be multiples of some number, that is their attribute `size_divisor`.
    weights : None, "imagenet" or path, default=None
        Weights of a torchvision backbone: random, those for ImageNet (torchvision downloads them), or the file of a
        state dict. Batch-norm statistics that were loaded are kept.
    n_epochs : int, default=20
        Passes over the images.
    learning_rate : float, default=1e-3
        The peak of the schedule.
    batch_size : int, default=10
        Images in a step.
    device : str, default="auto"
        "auto", "cpu", "cuda", ...; "auto" is a graphics processor if there is one.
    random_state : int, RandomState or None, default=None
        Of the network's first weights and the order of images.
    verbose : int, default=0
        Whether fit prints a line after each epoch.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.
    classes_ : ndarray
        The labels, 0 and 1.
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
        "network": [str, nn.Module, callable],
        "weights": [None, str, PathLike],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
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
        batch_size: int = 10,
        device: str | torch.device = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.network = network
        self.weights = weights
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ImagesLike, y: LabelsLike, validation_data: LabelledImagesLike | None = None) -> "CNNSegmenter":
        """Train the network.

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
        """
        self._validate_params()
        images = check_images(X)
        labels = check_labels(y, images)
        n_channels = images[0].shape[-1]
        validation_data = check_validation_data(validation_data, n_channels)
        device = resolve_device(self.device)
        with seeded(self.random_state) as seed:
            network = build_network(self.network, n_channels, self.weights)
            try:
                compute_log_odds(network, images[:1], batch_size=1, device=device)
            except RuntimeError as error:
                raise ValueError(f"network: it can't take an image of shape {images[0].shape}: {error}") from error
            net = segmentation_net(
                SegmentationNet,
                network,
                PixelwiseLogLikelihood(),
                freeze_batch_norm=self.weights is not None,
                seed=seed,
                device=device,
                optimizer=torch.optim.AdamW,
                lr=self.learning_rate,
                max_epochs=self.n_epochs,
                batch_size=self.batch_size,
                callbacks=self._callbacks(len(images), validation_data),
            )
            net.fit(ImageDataset(images, labels))
        self.network_ = network.eval().cpu()
        self.history_ = history_rows(net, stage="cnn")
        self.n_iter_ = len(self.history_)
        self.n_channels_in_ = n_channels
        self.classes_ = np.array([0, 1])
        return self

    def _callbacks(self, n_images: int, validation_data: LabelledImages | None) -> list[tuple[str, Callback]]:
        n_steps = self.n_epochs * -(-n_images // self.batch_size)
        schedule = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=self.learning_rate,
            total_steps=n_steps + 1,
            step_every="batch",
        )
        callbacks = [("schedule", schedule), ("jaccard", JaccardOfNetwork(validation_data))]
        return callbacks + ([("progress", Progress("pretraining"))] if self.verbose else [])

    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])

        Returns
        -------
        ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
            Labels, 0 or 1.
        """
        log_odds, _ = self._run_network(X)
        return as_given([(l > 0).astype(np.uint8) for l in log_odds], X)

    def transform(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Stack log-odds and images, as `MaxMarginCRF` takes them.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])

        Returns
        -------
        ndarray of float32 and shape (n, H, W, 1 + channels), or list of ndarray of shape (H, W, 1 + channels)
            Log-odds in channel 0, the image scaled to [0, 1] in the others.
        """
        log_odds, images = self._run_network(X)
        return as_given([np.dstack([l, image]) for l, image in zip(log_odds, images)], X)


class PixelwiseLogLikelihood(nn.Module):
    """Mean negative log-likelihood of the pixels of an image, averaged over the images."""

    def forward(self, log_odds: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute it from lists of log-odds and of labels (H, W)."""
        losses = [F.binary_cross_entropy_with_logits(l, label.to(l)) for l, label in zip(log_odds, labels)]
        return torch.stack(losses).mean()
