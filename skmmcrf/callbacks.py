"""What goes along with training, as callbacks of skorch: schedules, measures, the best epoch, a frozen backbone."""

from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from skmmcrf._typing import LabelledImages
from skmmcrf.metrics import mean_of_defined
from skmmcrf.training import indices_of_truths

#: Schedules of the learning rate, see `learning_rate_schedule`.
SCHEDULES = ("one_cycle", "linear", "cosine", "constant")


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
