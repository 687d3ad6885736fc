"""A skorch net over images of any size, and its history, for pretraining and joint training."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import torch
from skorch import NeuralNet
from torch import nn
from torch.nn.utils import get_total_norm
from torch.utils.data import DataLoader, Dataset

from skmmcrf.field.energy import LogOddsError
from skmmcrf.images.tensors import scaled
from skmmcrf.networks.running import Runner
from skmmcrf.training.augmentation import RandomChanges
from skmmcrf.training.batches import Batch, Batches, Sample, ShuffledOrder, Stack
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.interrupts import Interrupted, noting_interrupts
from skmmcrf.training.random_states import seed_all

_LARGEST = float(np.finfo(np.float32).max)


class SegmentationNet(NeuralNet):
    """A skorch net whose batches hold images of any size. `segmentation_net` makes one.

    Callbacks get each batch as a `skmmcrf.training.batches.Batch`. At its end they also get `stacks`, the images and
    masks as the network saw them, and `y_pred`, the log-odds of each stack.

    Training stops as soon as anything is not finite. Network, criterion and optimizer are then set back to the
    beginning of the epoch.

    Attributes
    ----------
    runner : Runner
        How the fitted estimator will run the network.
    changes : RandomChanges or None
        How images are changed on the device.
    """

    runner: Runner
    changes: RandomChanges | None = None
    stage = "pretraining"
    largest_log_odds = _LARGEST

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

    def fit_loop(self, X: TrainingSet, *args: Any, **kwargs: Any) -> "SegmentationNet":
        """Train for the epochs that are left if the history was restored."""
        self.changes = X.of_stacks
        try:
            return super().fit_loop(X, *args, **kwargs, epochs=self.max_epochs - len(self.history))
        except Exception:
            self.notify("on_train_end")  # skorch does so only if all goes well
            raise

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the methods of the net and of callbacks. A network that callbacks find to have diverged is set back."""
        try:
            super().notify(method_name, **kwargs)
        except LogOddsError as error:
            raise self._set_back("log-odds", self.largest_log_odds) from error

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Choose an order of the images, and keep what may have to be set back."""
        super().on_epoch_begin(net, *args, **kwargs)
        epoch = len(self.history)
        self.iterator_train__sampler.begin(epoch)
        seed_all(self.iterator_train__sampler.seed, epoch)
        self.begun_ = [(part, deepcopy(part.state_dict())) for part in (self.module_, self.criterion_, self.optimizer_)]

    def on_batch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Let what the batch draws depend on its number alone."""
        super().on_batch_begin(net, *args, **kwargs)
        epoch = self.history[-1]
        seed_all(self.iterator_train__sampler.seed, epoch["epoch"], len(epoch["batches"]))

    def on_epoch_end(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Raise a FloatingPointError if parameters, or the log-odds that they give of one image, are not finite."""
        super().on_epoch_end(net, *args, **kwargs)
        with torch.no_grad():
            log_odds = self.module_.eval().of_one_size(self._last_image)
        self.check(
            {
                "parameters": (norm_of(self.module_.parameters()), _LARGEST),
                "log-odds": (largest_of([log_odds]), self.largest_log_odds),
            }
        )

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Compute the gradients of a batch, or raise a FloatingPointError if anything is not finite."""
        self._set_training(True)
        stacks = [stack.changed(self.changes) for stack in batch.to(self.device).stacks]
        self._last_image = scaled(stacks[0].images[:1])
        log_odds, loss = self.forward_stacks(stacks)
        if not loss.requires_grad:
            raise ValueError(
                "network: it has no parameters to train, because callbacks or the network itself have frozen all"
            )
        loss.backward()
        gradients = (parameter.grad for parameter in self.module_.parameters() if parameter.grad is not None)
        _, value, _ = self.check(
            {
                "log-odds": (largest_of(log_odds), self.largest_log_odds),
                "loss": (loss.detach(), _LARGEST),
                "gradients": (norm_of(gradients), _LARGEST),
            }
        )
        # skorch reads the loss, for which the device must not be waited for again
        return {"loss": torch.tensor(value), "y_pred": [l.detach() for l in log_odds], "stacks": stacks}

    def forward_stacks(self, stacks: Sequence[Stack]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Give the log-odds (n, H, W) of each stack, and the criterion of all."""
        log_odds = self.module_.of_stacks([scaled(s.images) for s in stacks], [s.name for s in stacks])
        return log_odds, self.criterion_(log_odds, stacks)

    def check(self, values: dict[str, tuple[torch.Tensor, float]]) -> list[float]:
        """Read values, for which the device is waited for once.

        Raises
        ------
        FloatingPointError
            If one exceeds its bound. The network is set back before.
        """
        found: list[float] = torch.stack(
            [value.to(self.device, torch.float32) for value, _ in values.values()]
        ).tolist()
        for (what, (_, largest)), value in zip(values.items(), found):
            if not abs(value) <= largest:
                raise self._set_back(what, largest)
        return found

    def _set_back(self, what: str, largest: float) -> FloatingPointError:
        """Go back to the beginning of the epoch, and give the error that says why."""
        for part, state in self.begun_:
            part.load_state_dict(state)
        epoch = self.history[-1]
        del self.history[-1]
        bound = "finite" if largest == _LARGEST else f"within {largest:g}"
        return FloatingPointError(
            f"network: its {what} are not {bound} in epoch {epoch['epoch']}, batch {len(epoch['batches'])} of "
            f"{self.stage}. The network is left as it was at the beginning of that epoch. A lower learning rate may "
            "help"
        )


def norm_of(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The Euclidean norm of all of them together, which is not finite if one is not, and quicker than the maximum."""
    return get_total_norm([tensor.detach() for tensor in tensors])


def largest_of(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """The largest absolute value in all of them."""
    bounds = [torch.stack(tensor.detach().aminmax()) for tensor in tensors]
    return torch.stack(bounds).abs().max()


_Net = TypeVar("_Net", bound=SegmentationNet)


def segmentation_net(
    net_class: type[_Net],
    network: nn.Module,
    criterion: nn.Module,
    runner: Runner,
    order: ShuffledOrder,
    *,
    freeze_batch_norm: bool = False,
    num_workers: int = 0,
    collate: Callable[[Sequence[Sample]], Batch] = Batch.of_samples,
    **parameters: Any,
) -> _Net:
    """Make a net that trains a network in place.

    Parameters
    ----------
    net_class : subclass of SegmentationNet
    network : torch.nn.Module
    criterion : torch.nn.Module
        Takes the log-odds of each stack, and the stacks.
    runner : Runner
        How the fitted network will be run. Training uses the same device.
    order : ShuffledOrder
        Of the images.
    freeze_batch_norm : bool, default=False
        Whether all batch-norm layers keep their statistics. See `AnySize`.
    num_workers : int, default=0
        Processes that read and change images.
    collate : callable, optional
        Makes a batch of samples.
    **parameters
        Further parameters of skorch's NeuralNet.

    Returns
    -------
    net_class
        Initialised.
    """
    net = net_class(
        runner.wrapped(network, freeze_batch_norm=freeze_batch_norm),
        criterion,
        device=runner.device,
        optimizer__fused=torch.device(runner.device).type in ("cpu", "cuda"),
        train_split=None,
        verbose=0,
        callbacks__print_log=None,
        callbacks__epoch_timer=None,  # ours has its place behind what is measured at the end of an epoch
        iterator_train=_loader,
        iterator_train__sampler=order,
        iterator_train__collate_fn=collate,
        iterator_train__pin_memory=torch.device(runner.device).type == "cuda",
        iterator_train__num_workers=num_workers,
        iterator_train__persistent_workers=num_workers > 0,
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
        "kept": "kept",
    }
    return [
        {"stage": stage} | {name: np.asarray(epoch[key]).item() for key, name in shown.items() if key in epoch}
        for epoch in net.history
        if "dur" in epoch  # an epoch that was broken off has none
    ]
