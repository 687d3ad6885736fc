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

    The decoder has two convolutions a level, as in Ronneberger, Fischer, Brox (2015). It takes the last features of
    each resolution of the backbone, narrowed by a 1 x 1 convolution. The finest log-odds are upsampled to the image. At
    the coarsest level, dilated convolutions and the mean over the image widen the receptive field, as in Chen et al.,
    "Rethinking Atrous Convolution for Semantic Image Segmentation" (2017). All layers besides the backbone use group
    normalisation, so any batch size will do.

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
        channels = [n for n, _ in self.feature_sizes]
        widths = [min(8 * stride, 128) for _, stride in self.feature_sizes]
        self.context = _Context(channels[-1], widths[-1])
        self.skips = nn.ModuleList(nn.Conv2d(n, width, 1) for n, width in zip(channels[:-1], widths))
        self.up = nn.ModuleList(
            nn.Sequential(_convolution(coarse + fine, fine), _convolution(fine, fine))
            for fine, coarse in zip(widths, widths[1:])
        )
        self.score = nn.Conv2d(widths[0], n_maps, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds or scores (n, n_maps, H, W) of images (n, n_channels, H, W), scaled to [0, 1]."""
        *fine, coarsest = self.features(images)
        features = self.context(coarsest)
        for skip, block in zip(reversed(self.skips), reversed(self.up)):
            finer = fine.pop()
            features = F.interpolate(features, size=finer.shape[2:], mode="bilinear")
            features = block(torch.cat([features, skip(finer)], dim=1))
        return F.interpolate(self.score(features), size=images.shape[2:], mode="bilinear")


def _all_stages(model: nn.Module) -> nn.ModuleList:
    layers = convolutional_layers(model)
    return cut_into_stages(layers, ends_of_resolutions(output_strides(layers)))


class _Context(nn.Module):
    """What lies around a pixel, at several distances, and in the whole image."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.near = nn.ModuleList(
            [
                _convolution(n_in, n_out, size=1),
                _convolution(n_in, n_out, dilation=2),
                _convolution(n_in, n_out, dilation=4),
            ]
        )
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(n_in, n_out, 1), nn.ReLU())
        self.merge = _convolution(4 * n_out, n_out, size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        parts = [convolution(features) for convolution in self.near]
        parts.append(self.image(features).expand_as(parts[0]))
        return self.merge(torch.cat(parts, dim=1))


def _convolution(n_in: int, n_out: int, *, size: int = 3, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, padding=size // 2 * dilation, dilation=dilation, bias=False),
        nn.GroupNorm(8, n_out),
        nn.ReLU(),
    )
