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
from skmmcrf.max_margin import Labelings, learn_weights, solve_program
from skmmcrf.metrics import mean_of_defined
from skmmcrf.progress import epoch_progress
from skmmcrf.sequences import Mapped
from skmmcrf.training import (
    ImageDataset,
    SegmentationNet,
    compute_log_odds,
    history_rows,
    indices_of_truths,
    learning_rate_schedule,
    run_network,
    segmentation_net,
)
from skmmcrf.truth import Truth
from skmmcrf.validation import scale_image


class JointNet(SegmentationNet):
    """A skorch net whose targets are `Labelings`, or `Truth` alone, and whose criterion is `MaxMarginLoss`."""

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Any], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give gamma of the batch, by Algorithm 1 on its images."""
        images = [image.permute(1, 2, 0).cpu().numpy() for image in X]
        labelings = [Labelings(target) if isinstance(target, Truth) else target for target in y_true]
        return self.criterion_.of_labelings(y_pred, labelings, images)


class WeightUpdate(Callback):
    """At the end of an epoch: solve (8) for all images under the present network.

    Records gamma, and the mean Jaccard index of the training and validation images under the new weights.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    labelings : list of Labelings
        Repriced, and where they were not trained with, added to.
    trained : bool
        Whether the batches add to the labelings, so that (8) is solved over what is stored. If not, because they hold
        changed images, Algorithm 1 brings the labelings up to date.
    validation_data : None or tuple
        Images (H, W, channels) and list of Truth.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labelings: Sequence[Labelings],
        trained: bool,
        validation_data: LabelledImages | None,
    ) -> None:
        self.images = images
        self.labelings = labelings
        self.trained = trained
        self.validation_data = validation_data

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Update the weights and record the measures."""
        criterion = net.criterion_
        scaled = Mapped(scale_image, self.images)
        log_odds = compute_log_odds(net.module.network, self.images, batch_size=net.batch_size, device=net.device)
        if self.trained:
            for stored, l in zip(self.labelings, log_odds):
                stored.reprice(l)
            solution = solve_program(self.labelings, criterion.C, criterion.coef_)
        else:
            solution = learn_weights(
                log_odds,
                scaled,
                self.labelings,
                criterion.C,
                tol=criterion.tol,
                max_iter=criterion.max_iter,
                w=criterion.coef_,
                **criterion.parameters_of_cuts,
            )
        criterion.coef_ = solution.w
        net.history.record("gamma", solution.value)
        truths = [stored.known for stored in self.labelings]
        net.history.record("jaccard", self._jaccard(net, truths, zip(log_odds, scaled)))
        if self.validation_data is not None:
            images, truths = self.validation_data
            results = run_network(net.module.network, images, batch_size=net.batch_size, device=net.device)
            net.history.record("valid_jaccard", self._jaccard(net, truths, results))

    def _jaccard(self, net: NeuralNet, truths: Sequence[Truth], problems: Any) -> float:
        labelings = segment(net.criterion_.coef_, problems, **net.criterion_.parameters_of_cuts)
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
    a step of Adam down the gradient of gamma; after each epoch (8) is solved for all images. Batch-norm statistics are
    kept.

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
        Changed images and their truths to train on instead; weights and measures remain those of `images`.
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
        See `skmmcrf.training.history_rows`; gamma is that of (8) over the stored labelings.
    optimizer_state : dict
        Adam's moments at the end, as tensors.
    """
    with epoch_progress("joint training", verbose) as progress:
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
            + [("weights", WeightUpdate(images, labelings, training_set is None, validation_data))]
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
