"""FCN-8s on the convolutional part of classification networks."""

from os import PathLike

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from skmmcrf._docs import documented
from skmmcrf.networks.backbones import (
    OnBackbone,
    convolutional_layers,
    cut_into_stages,
    ends_of_resolutions,
    output_strides,
)


@documented
class FCN8s(OnBackbone):
    """Fully convolutional network with two skips.

    The architecture of Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015). 1 x 1
    convolutions score the features of the three coarsest resolutions of a classification network. Each score map is
    upsampled by two and added to the next finer one. The sum is upsampled to the image. On VGG-16 the features are
    pool3, pool4 and fc7 (strides 8, 16, 32), with fc6 and fc7 turned into convolutions. Networks that stop at another
    stride keep their own three (SqueezeNet: 4, 8, 16). Scoring layers start at zero and upsampling starts at bilinear
    interpolation, as in the paper. Unlike in the paper, images need no border of 100 pixels, because fc6 pads its
    input.

    Parameters
    ----------
    %(backbone)s
    %(n_channels)s
    %(backbone_weights)s
    %(n_maps)s

    Attributes
    ----------
    %(size_divisor)s
    backbone : torch.nn.Module
        The classification network without its end. That of torchvision is a `torch.nn.ModuleList` of three parts.

    Raises
    ------
    ValueError
        If the backbone is unknown. If the file can't be read, or belongs to another network.

    Examples
    --------
    >>> import torch
    >>> FCN8s("squeezenet1_1", n_channels=1)(torch.zeros(1, 1, 64, 96)).shape
    torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self, backbone: str, n_channels: int = 3, *, weights: str | PathLike[str] | None = None, n_maps: int = 1
    ) -> None:
        super().__init__(backbone, n_channels, weights, _three_stages)
        widths = [channels for channels, _ in self.feature_sizes[-3:]]
        self.scores = nn.ModuleList(_zero_conv(width, n_maps) for width in widths)
        self.upsample = nn.ModuleList(_bilinear_upsampling(n_maps) for _ in widths[1:])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds or scores (n, n_maps, H, W) of images (n, n_channels, H, W), scaled to [0, 1]."""
        fine, middle, coarse = [score(f) for score, f in zip(self.scores, self.features(images)[-3:])]
        middle = middle + self.upsample[1](coarse)
        fine = fine + self.upsample[0](middle)
        return F.interpolate(fine, size=images.shape[2:], mode="bilinear")


def _three_stages(model: nn.Module) -> nn.ModuleList:
    """Cut a classification network into the parts that end at its three coarsest resolutions."""
    layers = convolutional_layers(model)
    if isinstance(model, torchvision.models.VGG):
        # pool3, pool4 and fc7
        ends = [k + 1 for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)][2:4] + [len(layers)]
    else:
        ends = ends_of_resolutions(output_strides(layers))[-3:]
    return cut_into_stages(layers, ends)


def _zero_conv(n_in: int, n_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(n_in, n_out, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # nn.Conv2d has a bias by default
    return conv


def _bilinear_upsampling(n_maps: int) -> nn.ConvTranspose2d:
    upsample = nn.ConvTranspose2d(n_maps, n_maps, 4, stride=2, padding=1, bias=False)
    weights = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        upsample.weight.zero_()
        for n in range(n_maps):
            upsample.weight[n, n] = weights * weights[:, None]
    return upsample
