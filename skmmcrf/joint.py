"""Joint training of network and conditional random field, Algorithm 2."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from skmmcrf._typing import BoolArray, FloatArray, LabelledImages
from skmmcrf.graph_cut import segment
from skmmcrf.loss import MaxMarginLoss
from skmmcrf.max_margin import Labelings, solve_program
from skmmcrf.metrics import mean_jaccard
from skmmcrf.training import (
    ImageDataset,
    Progress,
    SegmentationNet,
    compute_log_odds,
    history_rows,
    segmentation_net,
)
from skmmcrf.validation import scale_image


class JointNet(SegmentationNet):
    """A skorch net whose labels are `Labelings` and whose criterion is `MaxMarginLoss`."""

    def get_loss(
        self, y_pred: Sequence[torch.Tensor], y_true: Sequence[Labelings], X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Give gamma of the batch, by Algorithm 1 on its images."""
        images = [image.permute(1, 2, 0).cpu().numpy() for image in X]
        return self.criterion_.of_labelings(y_pred, y_true, images)


class WeightUpdate(Callback):
    """At the end of an epoch: solve (8) over the labelings stored for all images, priced under the present network.

    Records gamma, and the mean Jaccard index of the training and validation images under the new weights.

    Parameters
    ----------
    images : list of ndarray of shape (H, W, channels)
    labelings : list of Labelings
    validation_data : None or tuple of list of ndarray
        Images (H, W, channels) and labels (H, W).
    """

    def __init__(
        self, images: Sequence[np.ndarray], labelings: Sequence[Labelings], validation_data: LabelledImages | None
    ) -> None:
        self.images = images
        self.labelings = labelings
        self.validation_data = validation_data

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Update the weights and record the measures."""
        criterion = net.criterion_
        log_odds = self._run_network(net, self.images)
        for stored, l in zip(self.labelings, log_odds):
            stored.reprice(l)
        solution = solve_program(self.labelings, criterion.C, criterion.coef_)
        criterion.coef_ = solution.w
        net.history.record("gamma", solution.value)
        truths = [stored.truth for stored in self.labelings]
        net.history.record("jaccard", self._jaccard(net, truths, log_odds, self.images))
        if self.validation_data is not None:
            images, labels = self.validation_data
            valid_jaccard = self._jaccard(net, labels, self._run_network(net, images), images)
            net.history.record("valid_jaccard", valid_jaccard)

    def _run_network(self, net: NeuralNet, images: Sequence[np.ndarray]) -> list[NDArray[np.float32]]:
        return compute_log_odds(net.module.network, images, batch_size=net.batch_size, device=net.device)

    def _jaccard(
        self,
        net: NeuralNet,
        truths: Sequence[BoolArray],
        log_odds: Sequence[FloatArray],
        images: Sequence[np.ndarray],
    ) -> float:
        scaled = [scale_image(image) for image in images]
        return mean_jaccard(
            truths, segment(net.criterion_.coef_, log_odds, scaled, **net.criterion_.parameters_of_cuts)
        )


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
    validation_data: LabelledImages | None = None,
    verbose: int = 0,
) -> list[dict[str, Any]]:
    """Train a network on the max-margin objective by Algorithm 2, in batches.

    For each batch Algorithm 1 solves (8) over its images, starting from what is stored for them, and the network takes
    a step of Adam down the gradient of gamma; after each epoch (8) is solved over all stored labelings. Batch-norm
    statistics are kept.

    Parameters
    ----------
    network : torch.nn.Module
        Trained in place.
    images : list of ndarray of shape (H, W, channels)
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
    validation_data : tuple of list of ndarray, optional
        Images (H, W, channels) and labels (H, W) to watch.
    verbose : int, default=0
        Whether to print a line after each epoch.

    Returns
    -------
    list of dict
        The history, see `skmmcrf.training.history_rows`; gamma is that of (8) over the stored labelings.
    """
    update = WeightUpdate(images, labelings, validation_data)
    schedule = LRScheduler(
        torch.optim.lr_scheduler.LinearLR,
        start_factor=1.0,
        end_factor=0.0,
        total_iters=n_epochs * -(-len(images) // batch_size),
        step_every="batch",
    )
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
        callbacks=[("schedule", schedule), ("weights", update)]
        + ([("progress", Progress("joint training"))] if verbose else []),
    )
    net.fit(ImageDataset(images, labelings))
    return history_rows(net, stage="joint")
