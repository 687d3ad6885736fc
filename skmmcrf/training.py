"""What pretraining and joint training share: a skorch net over images of any size, its randomness and its progress."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, Dataset

from skmmcrf._typing import BoolArray, LabelledImages, RandomStateLike
from skmmcrf.metrics import mean_jaccard
from skmmcrf.networks import AnySize
from skmmcrf.validation import scale_image


class ImageDataset(Dataset):
    """Images, scaled and turned into tensors one at a time, with what is known of each.

    Parameters
    ----------
    images : list of ndarray of shape (H, W, channels)
    labels : list, optional
        Handed on as it is.
    """

    def __init__(self, images: Sequence[np.ndarray], labels: Sequence[Any] | None = None) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Any]:
        image = torch.from_numpy(scale_image(self.images[n])).permute(2, 0, 1).contiguous()
        return image, None if self.labels is None else self.labels[n]


def _as_lists(samples: Sequence[tuple[torch.Tensor, Any]]) -> tuple[list[torch.Tensor], list[Any]]:
    """Collate samples to lists, because sizes may differ."""
    images, labels = zip(*samples)
    return list(images), list(labels)


class SegmentationNet(NeuralNet):
    """A skorch net whose batches are lists of images of any size; make one with `segmentation_net`."""

    def infer(self, x: Sequence[torch.Tensor], **fit_params: Any) -> list[torch.Tensor]:
        """Give the log-odds of a list of images."""
        return self.module_([image.to(self.device) for image in x])

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give the criterion of log-odds and labels."""
        return self.criterion_(y_pred, [torch.from_numpy(labels).to(self.device) for labels in y_true])

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
    seed: int,
    **parameters: Any,
) -> _Net:
    """Make a net that trains a network in place.

    Parameters
    ----------
    net_class : subclass of SegmentationNet
    network : torch.nn.Module
    criterion : torch.nn.Module
        Takes lists of log-odds and labels.
    freeze_batch_norm : bool
        Whether batch-norm layers keep their statistics.
    seed : int
        Of the order in which the images are visited.
    **parameters
        Further parameters of skorch's NeuralNet.

    Returns
    -------
    net_class
    """
    return net_class(
        AnySize(network, freeze_batch_norm=freeze_batch_norm),
        criterion,
        train_split=None,
        verbose=0,
        callbacks__print_log=None,
        iterator_train__shuffle=True,
        iterator_train__collate_fn=_as_lists,
        iterator_train__generator=torch.Generator().manual_seed(seed),
        **parameters,
    )


class JaccardOfNetwork(Callback):
    """Record the network's mean Jaccard index on the training images, while training, and on the validation images.

    Parameters
    ----------
    validation_data : None or tuple of list of ndarray
        Images (H, W, channels) and labels (H, W).
    """

    def __init__(self, validation_data: LabelledImages | None) -> None:
        self.validation_data = validation_data

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin anew."""
        self.truths_: list[BoolArray] = []
        self.predictions_: list[BoolArray] = []

    def on_batch_end(self, net: NeuralNet, batch: Any = None, y_pred: Any = None, **kwargs: Any) -> None:
        """Keep what the batch's log-odds say."""
        self.truths_ += batch[1]
        self.predictions_ += [(l > 0).cpu().numpy() for l in y_pred]

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the indices."""
        net.history.record("jaccard", mean_jaccard(self.truths_, self.predictions_))
        if self.validation_data is not None:
            images, labels = self.validation_data
            log_odds = compute_log_odds(net.module.network, images, batch_size=net.batch_size, device=net.device)
            net.history.record("valid_jaccard", mean_jaccard(labels, [l > 0 for l in log_odds]))


class Progress(Callback):
    """Print a line after every epoch: its number, what the history holds of it, seconds, and time left.

    Parameters
    ----------
    stage : str
        What the line begins with.
    """

    _shown = {"train_loss": "loss {:.4f}", "gamma": "gamma {:.6g}", "jaccard": "Jaccard {:.4f}",
              "valid_jaccard": "validation {:.4f}", "dur": "{:.1f} s"}  # fmt: skip

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Start the clock."""
        self.start_ = time.perf_counter()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line."""
        epoch = net.history[-1]
        left = (time.perf_counter() - self.start_) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        shown = [text.format(epoch[key]) for key, text in self._shown.items() if key in epoch]
        print(f"{self.stage} {epoch['epoch']}/{net.max_epochs}: {', '.join(shown)}, {left:.0f} s left", flush=True)


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
        Of each epoch: stage, epoch, loss, gamma, jaccard, valid_jaccard and seconds, as far as they were recorded.
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
    ]


def compute_log_odds(
    network: nn.Module, images: Sequence[np.ndarray], *, batch_size: int, device: str
) -> list[NDArray[np.float32]]:
    """Run a network over images.

    Parameters
    ----------
    network : torch.nn.Module
    images : list of ndarray of shape (H, W, channels)
    batch_size : int
    device : str

    Returns
    -------
    list of ndarray of float32 and shape (H, W)
    """
    module = AnySize(network).to(device).eval()
    log_odds = []
    with torch.inference_mode():
        for batch, _ in DataLoader(ImageDataset(images), batch_size=batch_size, collate_fn=_as_lists):
            log_odds += [x.cpu().float().numpy() for x in module([image.to(device) for image in batch])]
    return log_odds


@contextmanager
def seeded(random_state: RandomStateLike) -> Iterator[int]:
    """Draw a seed, use it for torch within the block, and leave torch's own generators as they were.

    Parameters
    ----------
    random_state : None, int or RandomState

    Yields
    ------
    int
        The seed.
    """
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield seed


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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: {device!r} is not to be had: {error}") from error
    return str(device)
