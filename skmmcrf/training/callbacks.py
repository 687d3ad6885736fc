"""Callbacks of skorch for training: schedules, measures, and the best epoch."""

import math
from copy import deepcopy
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from skmmcrf.field.labels import likeliest_labels
from skmmcrf.images.checking import LabelledImages
from skmmcrf.metrics.means import jaccard_of_annotations, mean_of_defined
from skmmcrf.training.batches import regions
from skmmcrf.training.checkpoints import as_plain, check_form

#: Schedules of the learning rate, see `learning_rate_schedule`.
SCHEDULES = ("one_cycle", "linear", "cosine", "constant")


def learning_rate_schedule(name: str, n_steps: int) -> "Schedule | None":
    """Make the callback that changes the optimizer's learning rates after every step, or None for "constant".

    "one_cycle" rises to the learning rate and falls to nearly nothing (Smith, Topin 2018). "linear" and "cosine" fall
    from it to zero.

    Examples
    --------
    >>> learning_rate_schedule("cosine", 100).kwargs
    {'T_max': 100}
    """
    schedules = torch.optim.lr_scheduler
    if name == "constant":
        return None
    if name == "one_cycle":
        return Schedule(_one_cycle, total_steps=n_steps + 1, step_every="batch")
    if name == "cosine":
        return Schedule(schedules.CosineAnnealingLR, T_max=n_steps, step_every="batch")
    return Schedule(schedules.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=n_steps, step_every="batch")


def _one_cycle(optimizer: torch.optim.Optimizer, **parameters: Any) -> torch.optim.lr_scheduler.OneCycleLR:
    peaks = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, **parameters)


class Schedule(LRScheduler):
    """A schedule of the learning rate that goes on where the history ends, which may be a restored one."""

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count the steps of the history."""
        n_steps = sum(len(epoch["batches"]) for epoch in net.history)
        rates = [group["lr"] for group in net.optimizer_.param_groups]
        self.lr_scheduler_.load_state_dict({"last_epoch": n_steps, "_step_count": n_steps + 1, "_last_lr": rates})
        self.batch_idx_ = n_steps


class JaccardOfNetwork(Callback):
    """Record the network's mean Jaccard index on the training images, while training, and on the validation images.

    Parameters
    ----------
    validation : LabelledImages, optional
    """

    def __init__(self, validation: LabelledImages | None) -> None:
        self.validation = validation

    def on_epoch_begin(self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any) -> None:
        """Begin anew."""
        # kept on the device, which would have to be waited for, and in one piece, as small tensors that stay, between
        # large ones that go, would keep the memory of these in use
        self.counts_ = torch.zeros(2, len(dataset_train), net.runner.n_maps, dtype=torch.long, device=net.device)
        self.n_counted_ = 0

    def on_batch_end(self, net: NeuralNet, y_pred: Any = None, stacks: Any = None, **kwargs: Any) -> None:
        """Count pixels of the overlap and of the union of each image, by its likeliest labels."""
        for maps, stack in zip(y_pred, stacks):
            labels = maps > 0 if maps.ndim == 3 else maps.max(dim=1).indices  # argmax takes nine times as long
            found, truth = regions(labels, stack.n_labels) & stack.labelled[:, None], stack.regions
            counts = torch.stack([(found & truth).sum(dim=(2, 3)), (found | truth).sum(dim=(2, 3))])
            self.counts_[:, self.n_counted_ : self.n_counted_ + len(stack)] = counts
            self.n_counted_ += len(stack)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the indices."""
        overlap, union = self.counts_.double()  # the index is NaN, not defined, where both have no pixel
        net.history.record("jaccard", mean_of_defined((overlap / union).nanmean(dim=1).numpy(force=True)))
        if self.validation is not None:
            results = net.runner.run(net.module.network, self.validation.images)
            indices = jaccard_of_annotations(self.validation.annotations, (likeliest_labels(l) for l, _ in results))
            net.history.record("valid_jaccard", mean_of_defined(indices))


class KeepBest(EarlyStopping):
    """Keep network and criterion of the epoch with the best validation Jaccard index, and stop early.

    Parameters
    ----------
    patience : int
        The number of epochs without a rise after which training stops.
    at_start : float, optional
        The index of the network before training, if that may be kept too.
    verbose : int, default=0
        Whether a line says at the end which epoch is kept.
    """

    def __init__(self, patience: int, at_start: float | None = None, verbose: int = 0) -> None:
        super().__init__("valid_jaccard", patience=patience, threshold=0.0, lower_is_better=False, load_best=True)
        self.at_start = at_start
        self.verbose = verbose

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin with the current network."""
        super().on_train_begin(net, **kwargs)
        if self.at_start is not None:
            self.dynamic_threshold_ = self.at_start
            self.best_model_weights_ = {key: value.clone() for key, value in net.module_.state_dict().items()}
        self.best_criterion_ = deepcopy(net.criterion_.state_dict())
        self.form_ = net.module_.state_dict()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Compare the epoch with the best one."""
        try:
            super().on_epoch_end(net, **kwargs)
        finally:
            if self.best_epoch_ == net.history[-1, "epoch"]:
                self.best_criterion_ = deepcopy(net.criterion_.state_dict())

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Give back the best, and record which epoch it is."""
        if not net.history:  # training broke off in the first epoch
            return
        super().on_train_end(net, **kwargs)
        if self.best_model_weights_ is not None:
            net.criterion_.load_state_dict(self.best_criterion_)
            for epoch in net.history:
                epoch["kept"] = epoch["epoch"] == self.best_epoch_
            if self.verbose:
                index = f"mean Jaccard index {self.dynamic_threshold_:.3f} of the validation images"
                print(f"  the network of epoch {self.best_epoch_} is kept: {index}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """Give the best network and criterion, and where they were."""
        names = ("best_model_weights_", "best_criterion_", "best_epoch_", "dynamic_threshold_", "misses_")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the best network and criterion, and where they were, if they fit those of the net."""
        has_best = state["dynamic_threshold_"] > -math.inf
        own = self.state_dict() | {"best_model_weights_": self.form_ if has_best else None}
        check_form(state, as_plain(own), "keep_best")
        if state["best_epoch_"] < 0 or not 0 <= state["misses_"] < self.patience:
            raise ValueError(f"its keep_best has epoch {state['best_epoch_']} and {state['misses_']} misses")
        self.__dict__.update(state)
        for name in ("best_model_weights_", "best_criterion_"):
            arrays = state[name]
            setattr(self, name, arrays and {key: torch.tensor(array) for key, array in arrays.items()})
