"""A U-Net whose way down is a classification network of torchvision or timm."""

from os import PathLike

import torch
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
class BackboneUNet(OnBackbone):
    """U-Net on a classification network, for few images.

    The decoder has two 3 x 3 convolutions a level, as in Ronneberger, Fischer, Brox (2015). After each of them all
    features of an image are normalised together, so any batch size will do. A 1 x 1 convolution narrows the features of
    a level before they are upsampled to the next finer one. The decoder takes the last features of each resolution of
    the backbone. The finest log-odds are upsampled to the image. Convolutions of the decoder begin with the weights of
    He et al., "Delving Deep into Rectifiers" (2015).

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
        The classification network without its end. That of torchvision is a `torch.nn.ModuleList` with one part for
        each resolution.

    Raises
    ------
    ValueError
        If the backbone is unknown. If the file can't be read, or belongs to another network.

    Examples
    --------
    >>> import torch
    >>> BackboneUNet("squeezenet1_1", n_channels=1)(torch.zeros(1, 1, 64, 96)).shape
    torch.Size([1, 1, 64, 96])
    """

    def __init__(
        self, backbone: str, n_channels: int = 3, *, weights: str | PathLike[str] | None = None, n_maps: int = 1
    ) -> None:
        super().__init__(backbone, n_channels, weights, _all_stages)
        channels, strides = zip(*self.feature_sizes)
        widths = [min(16 * stride, 256) for stride in strides[:-1]]
        coarser = [*widths[1:], channels[-1]]
        self.narrow = nn.ModuleList(_convolution(n, width, size=1) for n, width in zip(coarser, widths))
        self.up = nn.ModuleList(
            nn.Sequential(_normalised(n + width, width), _normalised(width, width))
            for n, width in zip(channels, widths)
        )
        self.score = _convolution(widths[0], n_maps, size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds or scores (n, n_maps, H, W) of images (n, n_channels, H, W), scaled to [0, 1]."""
        *skips, features = self.features(images)
        for narrow, block in zip(reversed(self.narrow), reversed(self.up)):
            skip = skips.pop()
            features = F.interpolate(narrow(features), size=skip.shape[2:], mode="bilinear")
            features = block(torch.cat([features, skip], dim=1))
        return F.interpolate(self.score(features), size=images.shape[2:], mode="bilinear")


def _all_stages(model: nn.Module) -> nn.ModuleList:
    layers = convolutional_layers(model)
    return cut_into_stages(layers, ends_of_resolutions(output_strides(layers)))


def _convolution(n_in: int, n_out: int, *, size: int = 3, bias: bool = True) -> nn.Conv2d:
    convolution = nn.Conv2d(n_in, n_out, size, padding=size // 2, bias=bias)
    nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _normalised(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(_convolution(n_in, n_out, bias=False), nn.GroupNorm(1, n_out), nn.ReLU())
