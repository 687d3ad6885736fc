"""Nets to train in tests."""

from skmmcrf.networks.running import Runner
from skmmcrf.training.batches import ShuffledOrder
from skmmcrf.training.net import SegmentationNet, segmentation_net
from skmmcrf.training.pixel_losses import PixelwiseLogLikelihood

#: Of `CNNSegmenter`: the log-likelihood of images as they are, and one pass of the network over an image.
PLAIN = {"loss": "log_likelihood", "augmentation": None, "average_mirrored": False}


def pretraining_net(network, n_images, seed=0, freeze_batch_norm=False, batch_size=10, n_maps=1, **parameters):
    """A net that trains a network by the log-likelihood, on images as they are."""
    return segmentation_net(
        SegmentationNet,
        network,
        PixelwiseLogLikelihood(),
        Runner(batch_size, "cpu", n_maps=n_maps),
        ShuffledOrder(n_images, seed),
        freeze_batch_norm=freeze_batch_norm,
        batch_size=batch_size,
        **parameters,
    )
