"""Joint training of network and conditional random field, Algorithm 2."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer
from torch import nn

from skmmcrf._typing import LabelledImages
from skmmcrf.graph_cut import segment
from skmmcrf.loss import MaxMarginLoss
from skmmcrf.max_margin import Labelings, solve_program
from skmmcrf.metrics import mean_of_defined
from skmmcrf.progress import epoch_progress
from skmmcrf.sequences import Mapped
from skmmcrf.training import (
    ImageDataset,
    SegmentationNet,
    history_rows,
    indices_of_truths,
    learning_rate_schedule,
    run_network,
    segmentation_net,
)
from skmmcrf.truth import Truth

#: How many of the training images the Jaccard index is measured of, which takes a cut and a run of the network each.
N_WATCHED = 10
#: How many labelings of an image are kept from epoch to epoch.
N_STORED = 20


class JointNet(SegmentationNet):
    """A skorch net whose targets are `Labelings`, or `Truth` alone, and whose criterion is `MaxMarginLoss`."""

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give gamma of the batch, by Algorithm 1 on its images."""
        images = [image.permute(1, 2, 0).cpu().numpy() for image in X]
        #: Labelings of the last batch, at its log-odds.
        self.labelings_ = [Labelings(target) if isinstance(target, Truth) else target for target in y_true]
        gamma = self.criterion_.of_labelings(y_pred, self.labelings_, images)
        for stored in self.labelings_:
            stored.keep_most_violated(self.criterion_.coef_, N_STORED)
        return gamma


class WeightUpdate(Callback):
    """At the end of an epoch: solve (8) over the labelings of all its batches, at the log-odds that they had there.

    Records gamma, and the mean Jaccard index of some training images and of the validation images under the new
    weights.

    Parameters
    ----------
    watched : tuple
        Training images (H, W, channels) and list of Truth, to measure.
    validation_data : None or tuple
        The same of validation images.
    """

    def __init__(self, watched: LabelledImages, validation_data: LabelledImages | None) -> None:
        self.watched = watched
        self.validation_data = validation_data

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin anew."""
        self.labelings_: list[Labelings] = []

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Collect the labelings of the batch."""
        self.labelings_ += net.labelings_

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Update the weights and record the measures."""
        solution = solve_program(self.labelings_, net.criterion_.C, net.criterion_.coef_)
        net.criterion_.coef_ = solution.w
        net.history.record("gamma", solution.value)
        net.history.record("jaccard", self._jaccard(net, *self.watched))
        if self.validation_data is not None:
            net.history.record("valid_jaccard", self._jaccard(net, *self.validation_data))

    def _jaccard(self, net: NeuralNet, images: Sequence[np.ndarray], truths: Sequence[Truth]) -> float:
        results = run_network(net.module.network, images, batch_size=net.batch_size, device=net.device)
        labelings = segment(net.criterion_.coef_, results, **net.criterion_.parameters_of_cuts)
        return mean_of_defined(indices_of_truths(truths, labelings))


def train_jointly(
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
    training_set: ImageDataset | None = None,
    schedule: str = "linear",
    validation_data: LabelledImages | None = None,
    callbacks: Sequence[Any] = (),
    optimizer_state: dict[int, Any] | None = None,
    verbose: int = 0,
) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    """Train a network on the max-margin objective by Algorithm 2, in batches.

    For each batch Algorithm 1 solves (8) over its images, starting from what is stored for them, and the network takes
    a step of Adam down the gradient of gamma; after each epoch (8) is solved over the labelings of all batches.
    Batch-norm statistics are kept.

    Parameters
    ----------
    network : torch.nn.Module
        Trained in place.
    images : sequence of ndarray of shape (H, W, channels)
    labelings : list of Labelings
        With the truth of each image; added to.
    loss : MaxMarginLoss
        Its `coef_` is where the first batch starts.
    n_epochs : int
        At least one.
    learning_rate : float
    batch_size : int
    device : str
    seed : int
        Of the order of images.
    training_set : AugmentedDataset, optional
        Changed images and their truths to train on instead; the Jaccard index remains that of `images`.
    schedule : str, default="linear"
        See `skmmcrf.training.learning_rate_schedule`.
    validation_data : tuple, optional
        Images and list of Truth to watch.
    callbacks : sequence of tuple (name, skorch callback), default=()
    optimizer_state : dict, optional
        Adam's moments to go on with, as arrays.
    verbose : int, default=0
        1 prints a line after each epoch, 2 shows a progress bar.

    Returns
    -------
    history : list of dict
        See `skmmcrf.training.history_rows`; gamma is that of (8) over the labelings of all batches, at the log-odds
        that they had there. The Jaccard index is that of the first `N_WATCHED` images.
    optimizer_state : dict
        Adam's moments at the end, as tensors.
    """
    with epoch_progress("joint training", verbose) as progress:
        watched = Mapped(images.__getitem__, range(min(len(images), N_WATCHED))), [stored.known for stored in labelings]
        steps = learning_rate_schedule(schedule, learning_rate, n_epochs * -(-len(images) // batch_size))
        net = segmentation_net(
            JointNet,
            network,
            loss,
            freeze_batch_norm=True,
            seed=seed,
            device=device,
            optimizer=torch.optim.Adam,
            lr=learning_rate,
            max_epochs=n_epochs,
            batch_size=batch_size,
            callbacks=([("schedule", steps)] if steps else [])
            + [("weights", WeightUpdate(watched, validation_data))]
            + [("seconds", EpochTimer())]
            + progress
            + list(callbacks),
        )
        net.initialize()
        if optimizer_state is not None:
            groups = net.optimizer_.state_dict()["param_groups"]
            moments = {n: {name: torch.tensor(a) for name, a in state.items()} for n, state in optimizer_state.items()}
            net.optimizer_.load_state_dict({"state": moments, "param_groups": groups})
        net.partial_fit(training_set or ImageDataset(images, labelings))
    return history_rows(net, stage="joint"), net.optimizer_.state_dict()["state"]
