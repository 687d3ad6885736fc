"""Joint training of network and conditional random field, Algorithm 2."""

import torch
from skorch.callbacks import Callback

from skmmcrf.graph_cut import segment
from skmmcrf.max_margin import solve_program
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

    def get_loss(self, y_pred, y_true, X=None, training=False):
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

    Attributes
    ----------
    w_ : ndarray of shape (3,)
        The weights after the last epoch.
    log_odds_ : list of ndarray of float32 and shape (H, W)
        Of the training images, after the last epoch.
    """

    def __init__(self, images, labelings, validation_data):
        self.images = images
        self.labelings = labelings
        self.validation_data = validation_data

    def on_epoch_end(self, net, **kwargs):
        """Update the weights and record the measures."""
        criterion = net.criterion_
        self.log_odds_ = self._run_network(net, self.images)
        for stored, log_odds in zip(self.labelings, self.log_odds_):
            stored.reprice(log_odds)
        solution = solve_program(self.labelings, criterion.C, criterion.coef_)
        self.w_ = criterion.coef_ = solution.w
        net.history.record("gamma", solution.value)
        truths = [stored.truth for stored in self.labelings]
        net.history.record("jaccard", self._jaccard(net, truths, self.log_odds_, self.images))
        if self.validation_data is not None:
            images, labels = self.validation_data
            log_odds = self._run_network(net, images)
            net.history.record("valid_jaccard", self._jaccard(net, labels, log_odds, images))

    def _run_network(self, net, images):
        return compute_log_odds(net.module.network, images, batch_size=net.batch_size, device=net.device)

    def _jaccard(self, net, truths, log_odds, images):
        scaled = [scale_image(image) for image in images]
        return mean_jaccard(truths, segment(self.w_, log_odds, scaled, **net.criterion_.parameters_of_cuts))


def train_jointly(
    network,
    images,
    labelings,
    loss,
    *,
    n_epochs,
    learning_rate,
    batch_size,
    device,
    seed,
    validation_data=None,
    verbose=0,
):
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
        callbacks=[("weights", update)] + ([("progress", Progress("joint training"))] if verbose else []),
    )
    net.fit(ImageDataset(images, labelings))
    return history_rows(net, stage="joint")
