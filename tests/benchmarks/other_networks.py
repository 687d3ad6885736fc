"""The package's U-Net against that of segmentation_models.pytorch: the same backbone, weights, images and training.

Both are networks of a `CNNSegmenter` with its defaults, so that nothing differs but the network. The mean Jaccard index
of the validation images is that of the network alone, without a field. It needs the package
segmentation-models-pytorch::

    python tests/benchmarks/other_networks.py FOLDER --weights mobilenet_v2.pth --seeds 0 1 2 --scale 0.5
"""

import argparse
import time
from functools import partial

import numpy as np
import segmentation_models_pytorch as smp
import torch
from measuring import print_header, print_row
from scipy.stats import bootstrap
from torch import nn

from skmmcrf import CNNSegmenter
from skmmcrf.datasets import load_image_folder
from skmmcrf.metrics import jaccard_indices


class Normalised(nn.Module):
    """A network on images that are normalised as ImageNet's were, and grey ones repeated in three channels."""

    size_divisor = 32

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, images):
        return self.network((images.expand(-1, 3, -1, -1) - self.mean) / self.deviation)


def smp_unet(n_channels, *, backbone, weights):
    """Make their U-Net, with torchvision's weights in its encoder."""
    network = smp.Unet(backbone, encoder_weights=None, in_channels=3, classes=1)
    state = torch.load(weights, weights_only=True)
    expected = network.encoder.state_dict()
    network.encoder.load_state_dict({name: state[name] for name in expected})
    return Normalised(network)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with images/, masks/, train.txt and val.txt")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", required=True, help="torchvision's state dict of the backbone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", type=float, default=1.0, help="network_scale of both")
    arguments = parser.parse_args()
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    theirs = partial(smp_unet, backbone=arguments.backbone, weights=arguments.weights)
    networks = {
        "skmmcrf": {"network": f"unet_{arguments.backbone}", "weights": arguments.weights},
        "segmentation_models.pytorch": {"network": theirs},
    }
    print_header("U-Net", *(f"seed {seed}" for seed in arguments.seeds), "seconds")
    measured = {}
    for name, parameters in networks.items():
        indices, seconds = [], []
        for seed in arguments.seeds:
            cnn = CNNSegmenter(**parameters, network_scale=arguments.scale, random_state=seed)
            start = time.perf_counter()
            cnn.fit(train.images, train.masks)
            seconds.append(time.perf_counter() - start)
            indices.append(jaccard_indices(val.masks, cnn.predict(val.images)))
        measured[name] = np.nanmean(indices, axis=0)
        print_row(name, *(f"{100 * np.nanmean(values):.2f}" for values in indices), f"{np.median(seconds):.0f}")
    difference = np.subtract(*measured.values())
    drawn = bootstrap((difference[~np.isnan(difference)],), np.mean, method="percentile", random_state=0)
    low, high = 100 * np.array(drawn.confidence_interval)
    print(f"\ndifference: {100 * np.nanmean(difference):+.2f} ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
