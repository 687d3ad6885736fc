"""A skorch net over images of any size, and its history, for pretraining and joint training."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from skorch import NeuralNet
from torch import nn
from torch.utils.data import DataLoader, Dataset

from skmmcrf.images.tensors import as_lists, scaled
from skmmcrf.networks import AnySize
from skmmcrf.networks.running import Runner
from skmmcrf.training.data import Batches, ShuffledOrder
from skmmcrf.training.interrupts import Interrupted, noting_interrupts

_LARGEST = float(np.finfo(np.float32).max)


class SegmentationNet(NeuralNet):
    """A skorch net whose batches are lists of images of any size. `segmentation_net` makes one.

    Training stops as soon as anything is not finite, and restores the last network for which everything was finite.

    Attributes
    ----------
    runner : Runner
        How the fitted estimator will run the network.
    """

    runner: Runner
    stage = "pretraining"
    largest_log_odds = _LARGEST
    good_state_: dict[str, torch.Tensor] | None

    def partial_fit(self, *args: Any, **kwargs: Any) -> "SegmentationNet":
        """Train. Raise `Interrupted` after an interrupt, but not if a callback ends training by the same exception."""
        with noting_interrupts() as interrupts:
            try:
                super().partial_fit(*args, **kwargs)
            except KeyboardInterrupt:  # before or after the loop, where skorch does not expect it
                if not interrupts:
                    raise
        if interrupts:
            raise Interrupted
        return self

    def fit_loop(self, *args: Any, **kwargs: Any) -> "SegmentationNet":
        """Train for the epochs that are left if the history was restored."""
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
        """Take a step, or raise a FloatingPointError if log-odds, loss, gradients or parameters are not finite."""
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

    def _check_size(self, what: str, tensors: Iterable[torch.Tensor], largest: float = _LARGEST) -> None:
        if not all(bool((tensor.abs() <= largest).all()) for tensor in tensors):
            epoch = self.history[-1]
            bound = "finite" if largest == _LARGEST else f"within {largest:g}"
            raise FloatingPointError(
                f"network: its {what} are not {bound} in epoch {epoch['epoch']}, batch {len(epoch['batches'])} of "
                f"{self.stage}. The network is left as it was before. A lower learning rate may help"
            )

    def initialize(self) -> "SegmentationNet":
        """Make what training needs."""
        self.good_state_ = None
        return super().initialize()

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give the criterion of log-odds and targets."""
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
    runner: Runner,
    order: ShuffledOrder,
    *,
    freeze_batch_norm: bool,
    **parameters: Any,
) -> _Net:
    """Make a net that trains a network in place.

    Parameters
    ----------
    net_class : subclass of SegmentationNet
    network : torch.nn.Module
    criterion : torch.nn.Module
        Takes lists of log-odds and of targets.
    runner : Runner
        How the fitted network will be run. Training uses the same device.
    order : ShuffledOrder
        Of the images.
    freeze_batch_norm : bool
        Whether batch-norm layers keep their statistics.
    **parameters
        Further parameters of skorch's NeuralNet.

    Returns
    -------
    net_class
        Initialised.
    """
    net = net_class(
        AnySize(
            network, freeze_batch_norm=freeze_batch_norm, average_mirrored=runner.average_mirrored, scale=runner.scale
        ),
        criterion,
        device=runner.device,
        train_split=None,
        verbose=0,
        callbacks__print_log=None,
        callbacks__epoch_timer=None,  # ours has its place behind what is measured at the end of an epoch
        iterator_train=_loader,
        iterator_train__sampler=order,
        iterator_train__collate_fn=as_lists,
        iterator_train__generator=torch.Generator(),  # else it would draw from the global one
        **parameters,
    )
    net.runner = runner
    return net.initialize()


def _loader(dataset: Dataset, *, batch_size: int, sampler: ShuffledOrder, **parameters: Any) -> DataLoader:
    return DataLoader(dataset, batch_sampler=Batches(sampler, batch_size), **parameters)


def history_rows(net: SegmentationNet, stage: str) -> list[dict[str, Any]]:
    """Give a net's history in the form of estimators, one dict for each whole epoch."""
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
