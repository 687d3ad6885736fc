"""What pretraining and joint training share: a skorch net over images of any size, its history, and running it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from torch import nn
from torch.utils.data import DataLoader

from skmmcrf._typing import BoolArray, FloatArray
from skmmcrf.image_datasets import ImageDataset, ShuffledOrder, as_lists, scaled
from skmmcrf.interrupts import Interrupted, noting_interrupts
from skmmcrf.metrics import jaccard_indices
from skmmcrf.networks import AnySize
from skmmcrf.sequences import ArraysOnDisk
from skmmcrf.truth import UNLABELLED, Truth
from skmmcrf.validation import is_lazy

_LARGEST = float(np.finfo(np.float32).max)


class SegmentationNet(NeuralNet):
    """A skorch net whose batches are lists of images of any size; make one with `segmentation_net`.

    Training stops as soon as anything is not finite, and leaves the network as it was when everything last was.
    """

    stage = "pretraining"
    largest_log_odds = _LARGEST
    good_state_: dict[str, torch.Tensor] | None

    def partial_fit(self, *args: Any, **kwargs: Any) -> "SegmentationNet":
        """Train; unlike skorch, let an interrupt end more than the training of this net.

        Raises
        ------
        Interrupted
            After an interrupt, not if a callback ends training by the same exception.
        """
        with noting_interrupts() as interrupts:
            super().partial_fit(*args, **kwargs)
        if interrupts:
            raise Interrupted
        return self

    def fit_loop(self, *args: Any, **kwargs: Any) -> "SegmentationNet":
        """Train for the epochs that are left, where the history was restored."""
        try:
            return super().fit_loop(*args, **kwargs, epochs=self.max_epochs - len(self.history))
        except Exception:
            self.notify("on_train_end")  # skorch does so only if all goes well
            raise

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Choose an order of the images."""
        super().on_epoch_begin(net, *args, **kwargs)
        self.iterator_train__sampler.begin(epoch=len(self.history))

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Take a step.

        Raises
        ------
        FloatingPointError
            If log-odds, loss, gradients or parameters are not finite.
        """
        before = {name: value.clone() for name, value in self.module_.state_dict().items()}
        try:
            step = super().train_step(batch, **fit_params)
            self._check_size("parameters", self.module_.parameters())
        except FloatingPointError:
            self.module_.load_state_dict(self.good_state_ or before)
            raise
        self.good_state_ = before
        return step

    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        """Compute the gradients of a batch."""
        step = super().train_step_single(batch, **fit_params)
        self._check_size("loss", [step["loss"]])
        self._check_size("gradients", (p.grad for p in self.module_.parameters() if p.grad is not None))
        return step

    def infer(self, x: Sequence[torch.Tensor], **fit_params: Any) -> list[torch.Tensor]:
        """Give the log-odds of a list of images."""
        log_odds = self.module_([scaled(image.to(self.device)) for image in x])
        self._check_size("log-odds", log_odds, self.largest_log_odds)
        return log_odds

    def run_as_fitted(self, images: Sequence[np.ndarray]) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
        """Run the network as the fitted estimator will, see `run_network`."""
        return run_network(self.module.network, images, **self._running())

    def log_odds_as_fitted(self, images: Sequence[np.ndarray]) -> Sequence[NDArray[np.float32]]:
        """Give the log-odds that the fitted estimator will, see `compute_log_odds`."""
        return compute_log_odds(self.module.network, images, **self._running())

    def _running(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "device": self.device,
            "average_mirrored": self.module.average_mirrored,
            "scale": self.module.scales,
        }

    def _check_size(self, what: str, tensors: Iterable[torch.Tensor], largest: float = _LARGEST) -> None:
        if not all(bool((tensor.abs() <= largest).all()) for tensor in tensors):
            epoch = self.history[-1]
            bound = "finite" if largest == _LARGEST else f"within {largest:g}"
            raise FloatingPointError(
                f"network: its {what} are not {bound} in epoch {epoch['epoch']}, batch {len(epoch['batches'])} of "
                f"{self.stage}, and it is left as it was before; a lower learning rate may help"
            )

    def initialize(self) -> "SegmentationNet":
        """Make what training needs."""
        self.good_state_ = None
        return super().initialize()

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give the criterion of log-odds and truths."""
        return self.criterion_(y_pred, y_true)

    def on_batch_end(self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Correct the batch size, which skorch reads off the channels of a list of images."""
        super().on_batch_end(net, batch=batch, training=training, **kwargs)
        self.history.record_batch("train_batch_size", len(batch[0]))


_Net = TypeVar("_Net", bound=SegmentationNet)


def segmentation_net(
    net_class: type[_Net],
    network: nn.Module,
    criterion: nn.Module,
    *,
    freeze_batch_norm: bool,
    average_mirrored: bool,
    scale: float | Sequence[float],
    n_images: int,
    seed: int,
    **parameters: Any,
) -> _Net:
    """Make a net that trains a network in place.

    Parameters
    ----------
    net_class : subclass of SegmentationNet
    network : torch.nn.Module
    criterion : torch.nn.Module
        Takes lists of log-odds and of targets.
    freeze_batch_norm, average_mirrored : bool
    scale : float or sequence of float
        See `skmmcrf.networks.AnySize`.
    n_images : int
        To train on.
    seed : int
        Of the order in which they are visited.
    **parameters
        Further parameters of skorch's NeuralNet.

    Returns
    -------
    net_class
    """
    return net_class(
        AnySize(network, freeze_batch_norm=freeze_batch_norm, average_mirrored=average_mirrored, scale=scale),
        criterion,
        train_split=None,
        verbose=0,
        callbacks__print_log=None,
        callbacks__epoch_timer=None,  # ours has its place behind what is measured at the end of an epoch
        iterator_train__sampler=ShuffledOrder(n_images, seed),
        iterator_train__collate_fn=as_lists,
        iterator_train__generator=torch.Generator(),  # else it would draw from the global one
        **parameters,
    )


def indices_of_truths(truths: Sequence[Truth], labelings: Iterable[BoolArray]) -> FloatArray:
    """Jaccard index of each labeling, over the labelled pixels.

    Parameters
    ----------
    truths : sequence of Truth
    labelings : iterable of ndarray of bool and shape (H, W)

    Returns
    -------
    ndarray of float and shape (n,)
    """
    return np.concatenate(
        [jaccard_indices([t.labels], [y], ignore_label=UNLABELLED) for t, y in zip(truths, labelings)]
    )


def history_rows(net: SegmentationNet, stage: str) -> list[dict[str, Any]]:
    """Give a net's history as an estimator shows it.

    Parameters
    ----------
    net : SegmentationNet
    stage : str
        "cnn" or "joint".

    Returns
    -------
    list of dict
        Of each whole epoch: stage, epoch, loss, gamma, jaccard, valid_jaccard and seconds, as far as they were
        recorded.
    """
    shown = {
        "epoch": "epoch",
        "train_loss": "loss",
        "gamma": "gamma",
        "jaccard": "jaccard",
        "valid_jaccard": "valid_jaccard",
        "dur": "seconds",
    }
    return [
        {"stage": stage} | {name: np.asarray(epoch[key]).item() for key, name in shown.items() if key in epoch}
        for epoch in net.history
        if "dur" in epoch  # an epoch that was broken off has none
    ]


def run_network(
    network: nn.Module,
    images: Sequence[np.ndarray],
    *,
    batch_size: int,
    device: str,
    average_mirrored: bool = False,
    scale: float | Sequence[float] = 1.0,
) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
    """Run a network over images, a batch at a time.

    Parameters
    ----------
    network : torch.nn.Module
    images : sequence of ndarray of shape (H, W, channels)
    batch_size : int
    device : str
    average_mirrored : bool, default=False
    scale : float or sequence of float, default=1.0
        See `skmmcrf.networks.AnySize`.

    Yields
    ------
    log_odds : ndarray of float32 and shape (H, W)
    image : ndarray of shape (H, W, channels)
        Its pixels; floats as float32.

    Raises
    ------
    ValueError
        If the log-odds of an image are not finite.
    """
    module = AnySize(network, average_mirrored=average_mirrored, scale=scale).to(device).eval()
    # a generator, else the global one would be drawn from
    loader = DataLoader(ImageDataset(images), batch_size=batch_size, collate_fn=as_lists, generator=torch.Generator())
    for n_batch, (batch, _) in enumerate(loader):
        # within the loop, because the next batch may be asked for from another thread
        with torch.inference_mode():
            log_odds = [l.cpu().float().numpy() for l in module([scaled(image.to(device)) for image in batch])]
        for n, l in enumerate(log_odds, n_batch * batch_size):
            if not np.isfinite(l).all():
                raise ValueError(f"network: its log-odds of the image of number {n} are not finite")
        yield from zip(log_odds, (image.permute(1, 2, 0).numpy() for image in batch))


def compute_log_odds(network: nn.Module, images: Sequence[np.ndarray], **how: Any) -> Sequence[NDArray[np.float32]]:
    """Run a network over images, and keep the log-odds where the images are: in memory, or on disk for lazy ones.

    Parameters
    ----------
    network, images, **how
        See `run_network`.

    Returns
    -------
    sequence of ndarray of float32 and shape (H, W)
    """
    kept: Any = ArraysOnDisk(np.float32) if is_lazy(images) else []
    for log_odds, _ in run_network(network, images, **how):
        kept.append(log_odds)
    return kept


def resolve_device(device: str | torch.device) -> str:
    """Turn "auto" into the best device that is there.

    Parameters
    ----------
    device : str or torch.device
        "auto", or what torch takes.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If torch has no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device).cpu()  # "meta" holds no numbers to give back
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each kind of device has its own
        raise ValueError(f"device: {device!r} is not to be had: {error}") from error
    return str(device)
