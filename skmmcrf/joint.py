"""Joint training of network and conditional random field, Algorithm 2."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer
from torch import nn

from skmmcrf._typing import LabelledImages
from skmmcrf.callbacks import learning_rate_schedule
from skmmcrf.graph_cut import segment
from skmmcrf.labelings import Labelings
from skmmcrf.loss import MaxMarginLoss
from skmmcrf.max_margin import LARGEST_LOG_ODDS
from skmmcrf.metrics import mean_of_defined
from skmmcrf.quadratic_program import Solution, solve_program
from skmmcrf.sequences import Mapped
from skmmcrf.training import SegmentationNet, indices_of_truths, segmentation_net
from skmmcrf.truth import Truth

#: How many of the training images the Jaccard index is measured of, which takes a cut and a run of the network each.
N_WATCHED = 10
#: How many labelings of an image are kept from epoch to epoch.
N_STORED = 20


class JointNet(SegmentationNet):
    """A skorch net with `MaxMarginLoss` as its criterion.

    Its targets are `Labelings`, or of changed images `Truth`.
    """

    stage = "joint training"
    largest_log_odds = LARGEST_LOG_ODDS

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give gamma of the batch, by Algorithm 1 on its images, or of changed images what they cost at the weights."""
        images = [image.permute(1, 2, 0).cpu().numpy() for image in X]
        if isinstance(y_true[0], Truth):
            #: Labelings of the last batch that outlast it, at its log-odds.
            self.labelings_ = []
            return self.criterion_.at_weights(y_pred, [Labelings(truth) for truth in y_true], images)
        self.labelings_ = list(y_true)
        gamma = self.criterion_.of_labelings(y_pred, self.labelings_, images)
        for stored in self.labelings_:
            stored.keep_most_violated(self.criterion_.coef_, N_STORED)
        return gamma


class WeightUpdate(Callback):
    """At the end of an epoch: solve (8) over the labelings of all its batches, at the log-odds that they had there.

    Where batches are of changed images, whose outlines are ragged and whose borders are unknown, (8) is solved over the
    images as they are instead, by Algorithm 1 at the log-odds that the network gives them then.

    Records gamma, and the mean Jaccard index of some training images and of the validation images under the new
    weights.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
        To train on, of which the first are measured.
    labelings : list of Labelings
        Of these images.
    validation_data : None or tuple
        Images (H, W, channels) and list of Truth, to measure.
    """

    def __init__(
        self, images: Sequence[np.ndarray], labelings: Sequence[Labelings], validation_data: LabelledImages | None
    ) -> None:
        self.images = images
        self.labelings = labelings
        self.validation_data = validation_data
        self.of_epoch_: list[Labelings] = []

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin anew."""
        self.of_epoch_ = []

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Collect the labelings of the batch."""
        self.of_epoch_ += net.labelings_

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Update the weights and record the measures."""
        solution = self._solution_of_batches(net) if self.of_epoch_ else self._solution_of_images(net)
        net.history.record("gamma", solution.value)
        watched = Mapped(self.images.__getitem__, range(min(len(self.images), N_WATCHED)))
        net.history.record("jaccard", self._jaccard(net, watched, [stored.known for stored in self.labelings]))
        if self.validation_data is not None:
            net.history.record("valid_jaccard", self._jaccard(net, *self.validation_data))

    def _solution_of_batches(self, net: NeuralNet) -> Solution:
        solution = solve_program(self.of_epoch_, net.criterion_.C, net.criterion_.coef_)
        net.criterion_.coef_ = solution.w
        return solution

    def _solution_of_images(self, net: NeuralNet) -> Solution:
        solution = net.criterion_.learn(net.log_odds_as_fitted(self.images), self.images, self.labelings)
        for stored in self.labelings:
            stored.keep_most_violated(solution.w, N_STORED)
        return solution

    def _jaccard(self, net: NeuralNet, images: Sequence[np.ndarray], truths: Sequence[Truth]) -> float:
        labelings = segment(net.criterion_.coef_, net.run_as_fitted(images), **net.criterion_.parameters_of_cuts)
        return mean_of_defined(indices_of_truths(truths, labelings))

    def state_dict(self) -> dict[str, Any]:
        """Give the labelings of all images, and those of the epoch's batches."""
        return {
            "labelings": [stored.state_dict() for stored in self.labelings],
            "of_epoch": [{"weight": stored.known.weight, **stored.state_dict()} for stored in self.of_epoch_],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them."""
        for stored, of_one in zip(self.labelings, state["labelings"]):
            stored.load_state_dict(of_one)
        self.of_epoch_ = []
        for of_one in state["of_epoch"]:
            # for (8) a truth is but its weight
            stored = Labelings(Truth(np.empty((0, 0), dtype=bool), weight=of_one["weight"]))
            stored.load_state_dict(of_one | {"truth": None})
            self.of_epoch_.append(stored)


def joint_net(
    network: nn.Module,
    images: Sequence[np.ndarray],
    labelings: Sequence[Labelings],
    loss: MaxMarginLoss,
    *,
    n_epochs: int,
    learning_rate: float,
    batch_size: int,
    device: str,
    seed: int,
    schedule: str = "linear",
    validation_data: LabelledImages | None = None,
    average_mirrored: bool = False,
    scale: float | Sequence[float] = 1.0,
    callbacks: Sequence[Any] = (),
    optimizer_state: dict[int, Any] | None = None,
) -> JointNet:
    """Make a net that trains a network on the max-margin objective by Algorithm 2, in batches.

    For each batch Algorithm 1 solves (8) over its images, starting from what is stored for them, and the network takes
    a step of Adam down the gradient of gamma; after each epoch (8) is solved over the labelings of all batches. Batches
    of changed images leave the weights as they are, and after each epoch (8) is solved over the images as they are.
    Batch-norm statistics are kept. Its history has gamma, that of (8) after the epoch, and the Jaccard index of the
    first `N_WATCHED` images.

    Parameters
    ----------
    network : torch.nn.Module
        To be trained in place.
    images : sequence of ndarray of shape (H, W, channels)
    labelings : list of Labelings
        With the truth of each image; added to.
    loss : MaxMarginLoss
        Its `coef_` is where the first batch starts.
    n_epochs : int
    learning_rate : float
    batch_size : int
    device : str
    seed : int
        Of the order of images.
    schedule : str, default="linear"
        See `skmmcrf.callbacks.learning_rate_schedule`.
    validation_data : tuple, optional
        Images and list of Truth to watch.
    average_mirrored : bool, default=False
        See `skmmcrf.networks.AnySize`; of the images that are measured.
    scale : float or sequence of float, default=1.0
        See `skmmcrf.networks.AnySize`.
    callbacks : sequence of tuple (name, skorch callback), default=()
    optimizer_state : dict, optional
        Adam's moments to go on with, as arrays.

    Returns
    -------
    JointNet
        For `partial_fit` with an `ImageDataset` of the images and labelings, or an `AugmentedDataset`.
    """
    steps = learning_rate_schedule(schedule, learning_rate, n_epochs * -(-len(images) // batch_size))
    net = segmentation_net(
        JointNet,
        network,
        loss,
        freeze_batch_norm=True,
        average_mirrored=average_mirrored,
        scale=scale,
        n_images=len(images),
        seed=seed,
        device=device,
        optimizer=torch.optim.Adam,
        lr=learning_rate,
        max_epochs=n_epochs,
        batch_size=batch_size,
        callbacks=([("schedule", steps)] if steps else [])
        + [("weights", WeightUpdate(images, labelings, validation_data)), ("seconds", EpochTimer())]
        + list(callbacks),
    )
    net.initialize()
    if optimizer_state is not None:
        groups = net.optimizer_.state_dict()["param_groups"]
        moments = {n: {name: torch.tensor(a) for name, a in state.items()} for n, state in optimizer_state.items()}
        net.optimizer_.load_state_dict({"state": moments, "param_groups": groups})
    return net
