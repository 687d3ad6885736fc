"""What pretraining and joint training share: a skorch net over images of any size, its data, schedule and callbacks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors

from skmmcrf._typing import BoolArray, FloatArray, LabelledImages
from skmmcrf.augmentation import Augmentation
from skmmcrf.interrupts import Interrupted, noting_interrupts
from skmmcrf.metrics import jaccard_indices, mean_of_defined
from skmmcrf.networks import AnySize
from skmmcrf.sequences import ArraysOnDisk
from skmmcrf.truth import UNLABELLED, Truth
from skmmcrf.validation import is_lazy

#: Schedules of the learning rate, see `learning_rate_schedule`.
SCHEDULES = ("one_cycle", "linear", "cosine", "constant")

_LARGEST = float(np.finfo(np.float32).max)


class ImageDataset(Dataset):
    """Images, turned into tensors one at a time, with what is known of each.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence, optional
        Handed on as they are: `Truth`, or `Labelings` with a truth.
    """

    def __init__(self, images: Sequence[np.ndarray], targets: Sequence[Any] | None = None) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Any]:
        channels = np.moveaxis(self.images[n], -1, 0)
        # torch can't take every layout, order of bytes and float
        dtype = np.float32 if channels.dtype.kind == "f" else channels.dtype.newbyteorder("=")
        image = torch.from_numpy(channels.astype(dtype, order="C"))
        return image, None if self.targets is None else self.targets[n]


def scaled(image: torch.Tensor) -> torch.Tensor:
    """Scale an image to [0, 1] by its dtype, as `skmmcrf.energy.scale_image` does.

    Parameters
    ----------
    image : Tensor of bool, uint8, uint16 or float

    Returns
    -------
    Tensor of float32
    """
    floats = image.float()
    return floats / torch.iinfo(image.dtype).max if image.dtype in (torch.uint8, torch.uint16) else floats


class AugmentedDataset(ImageDataset):
    """Images that are changed at random, with their truth, each time that they are asked for.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence of Truth
    augmentation : callable
        Takes and gives a `torchvision.tv_tensors.Image` (channels, H, W) and a `torchvision.tv_tensors.Mask` (H, W) of
        0, 1 and 255, where 255 is unlabelled.
    """

    def __init__(self, images: Sequence[np.ndarray], targets: Sequence[Truth], augmentation: Augmentation) -> None:
        super().__init__(images, targets)
        self.augmentation = augmentation

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Truth]:
        """Give an image and its truth.

        Raises
        ------
        ValueError
            If the augmentation does not give an image and a mask that belong together.
        """
        image, truth = super().__getitem__(n)
        mask = torch.from_numpy(truth.labels)
        changed = self.augmentation(tv_tensors.Image(scaled(image)), tv_tensors.Mask(mask))
        if not (isinstance(changed, (tuple, list)) and len(changed) == 2):
            raise ValueError(f"augmentation: it must give an image and a mask, not {type(changed).__name__}")
        if not all(isinstance(part, torch.Tensor) for part in changed):
            raise ValueError(
                f"augmentation: it must give two tensors, not {', '.join(type(p).__name__ for p in changed)}"
            )
        new_image, new_mask = (part.as_subclass(torch.Tensor).contiguous() for part in changed)
        fits = new_image.ndim == 3 and new_image.shape == (len(image), *new_mask.shape) and new_image.numel()
        if not (fits and new_image.is_floating_point()):
            raise ValueError(
                f"augmentation: of an image {tuple(image.shape)} and a mask {tuple(mask.shape)} it gave "
                f"{tuple(new_image.shape)} of {new_image.dtype} and {tuple(new_mask.shape)}, which do not fit"
            )
        labels = new_mask.numpy()
        if not np.isin(labels, (0, 1, UNLABELLED)).all():
            raise ValueError(f"augmentation: a mask must hold 0, 1 and {UNLABELLED} only, got {np.unique(labels)[:5]}")
        return new_image, Truth(labels == 1, labels != UNLABELLED, weight=truth.weight, class_weight=truth.class_weight)


def _as_lists(samples: Sequence[tuple[torch.Tensor, Any]]) -> tuple[list[torch.Tensor], list[Any]]:
    """Collate samples to lists, because sizes may differ."""
    images, targets = zip(*samples)
    return list(images), list(targets)


class ShuffledOrder(Sampler):
    """An order of images for every epoch, which only the seed and the epoch decide.

    Parameters
    ----------
    n_images : int
    seed : int

    Examples
    --------
    >>> order = ShuffledOrder(4, seed=0)
    >>> order.begin(epoch=1)
    >>> first = list(order)
    >>> order.begin(epoch=1)
    >>> order.skip(2)
    >>> list(order) == first[2:]
    True
    """

    def __init__(self, n_images: int, seed: int) -> None:
        self.n_images = n_images
        self.seed = seed

    def begin(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.order_ = np.random.default_rng([self.seed, epoch]).permutation(self.n_images).tolist()

    def skip(self, n: int) -> None:
        """Leave the first n out, for this epoch."""
        self.order_ = self.order_[n:]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order_)

    def __len__(self) -> int:
        return self.n_images


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
        iterator_train__collate_fn=_as_lists,
        iterator_train__generator=torch.Generator(),  # else it would draw from the global one
        **parameters,
    )


def learning_rate_schedule(name: str, learning_rate: float, n_steps: int) -> "Schedule | None":
    """Make the callback that changes the learning rate after every step.

    Parameters
    ----------
    name : {"one_cycle", "linear", "cosine", "constant"}
        "one_cycle" rises to the learning rate and falls to nearly nothing (Smith, Topin 2018); "linear" and "cosine"
        fall from it to zero.
    learning_rate : float
    n_steps : int

    Returns
    -------
    Schedule, or None for "constant"

    Examples
    --------
    >>> learning_rate_schedule("cosine", 1e-3, 100).kwargs
    {'T_max': 100}
    """
    schedules = torch.optim.lr_scheduler
    if name == "constant":
        return None
    if name == "one_cycle":
        return Schedule(schedules.OneCycleLR, max_lr=learning_rate, total_steps=n_steps + 1, step_every="batch")
    if name == "cosine":
        return Schedule(schedules.CosineAnnealingLR, T_max=n_steps, step_every="batch")
    return Schedule(schedules.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=n_steps, step_every="batch")


class Schedule(LRScheduler):
    """A schedule of the learning rate that can be kept and restored."""

    def state_dict(self) -> dict[str, Any]:
        """Give where it is."""
        state = self.lr_scheduler_.state_dict()
        # torch 2.3 has functions in it, which the schedule has anyway
        return {"scheduler": {k: v for k, v in state.items() if not callable(v)}, "batch": self.batch_idx_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self.lr_scheduler_.load_state_dict(state["scheduler"])
        self.batch_idx_ = state["batch"]


class JaccardOfNetwork(Callback):
    """Record the network's mean Jaccard index on the training images, while training, and on the validation images.

    Parameters
    ----------
    validation_data : None or tuple
        Images (H, W, channels) and list of Truth.
    """

    def __init__(self, validation_data: LabelledImages | None) -> None:
        self.validation_data = validation_data
        self.indices_: list[float] = []

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin anew."""
        self.indices_ = []

    def on_batch_end(self, net: NeuralNet, batch: Any = None, y_pred: Any = None, **kwargs: Any) -> None:
        """Measure what the batch's log-odds say."""
        # as numbers: small arrays that stay, between large ones that go, would keep the memory of these in use
        self.indices_ += indices_of_truths(batch[1], [(l > 0).cpu().numpy() for l in y_pred]).tolist()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the indices."""
        net.history.record("jaccard", mean_of_defined(np.array(self.indices_)))
        if self.validation_data is not None:
            images, truths = self.validation_data
            indices = indices_of_truths(truths, (l > 0 for l, _ in net.run_as_fitted(images)))
            net.history.record("valid_jaccard", mean_of_defined(indices))

    def state_dict(self) -> dict[str, Any]:
        """Give what was measured in the epoch."""
        return {"indices": self.indices_}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what was measured in the epoch."""
        self.indices_ = state["indices"]


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


class KeepBest(EarlyStopping):
    """Keep the network of the epoch with the best validation Jaccard index; stop when it rises no more.

    Parameters
    ----------
    patience : int
        Epochs without a rise after which training stops.
    at_start : float, optional
        The index of the network as it is before training, if that may be kept too.
    """

    def __init__(self, patience: int, at_start: float | None = None) -> None:
        super().__init__("valid_jaccard", patience=patience, threshold=0.0, lower_is_better=False, load_best=True)
        self.at_start = at_start

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin at the network as it is."""
        super().on_train_begin(net, **kwargs)
        if self.at_start is not None:
            self.dynamic_threshold_ = self.at_start
            self.best_model_weights_ = {key: value.clone() for key, value in net.module_.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Give the best network, and where it was."""
        names = ("best_model_weights_", "best_epoch_", "dynamic_threshold_", "misses_")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the best network, and where it was."""
        weights = state["best_model_weights_"]
        self.__dict__.update(state)
        self.best_model_weights_ = weights and {name: torch.tensor(array) for name, array in weights.items()}


class FreezeBackbone(Callback):
    """Keep the parameters of the network's backbone as they are for some epochs.

    Parameters
    ----------
    n_epochs : int
    """

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Freeze what is not frozen already."""
        backbone = net.module.network.backbone
        self.frozen_ = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        self._set_trainable(False)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Let it go when it is time."""
        if len(net.history) > self.n_epochs:
            self._set_trainable(True)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the network as it was."""
        self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> None:
        for parameter in self.frozen_:
            parameter.requires_grad = trainable


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
    loader = DataLoader(ImageDataset(images), batch_size=batch_size, collate_fn=_as_lists, generator=torch.Generator())
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
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise ValueError(f"device: {device!r} is not to be had: {error}") from error
    return str(device)
