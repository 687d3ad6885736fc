"""Nets to train in tests."""

from skmmcrf.pixel_losses import PixelwiseLogLikelihood
from skmmcrf.training import SegmentationNet, segmentation_net


def pretraining_net(network, n_images, **parameters):
    """A net that trains a network by the log-likelihood, on images as they are."""
    defaults = {"freeze_batch_norm": False, "average_mirrored": False, "scale": 1.0, "seed": 0}
    return segmentation_net(
        SegmentationNet, network, PixelwiseLogLikelihood(), n_images=n_images, **defaults | parameters
    )
