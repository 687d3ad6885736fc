"""A small U-Net, made to be trained from scratch on few images and on a CPU."""

from numbers import Integral

import torch
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from torch import nn
from torch.nn import functional as F


class UNet(nn.Module):
    """U-Net that gives one log-odds map, or a map of scores for each of several classes.

    The architecture of Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation"
    (2015). Three changes suit small data sets and any batch size. The network has fewer channels, it uses group
    normalisation, and its convolutions keep the size.

    Parameters
    ----------
    n_channels : int, default=1
        Channels of the images.
    width : int, default=16
        Channels of the first level, a multiple of 8. Each further level has twice as many.
    depth : int, default=3
        The number of times that the resolution is halved.
    n_maps : int, default=1
        1 for log-odds of two labels, K for scores of K classes.

    Attributes
    ----------
    size_divisor : int
        Heights and widths must be multiples of it. Estimators pad the images accordingly.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> import torch
    >>> UNet(n_channels=3)(torch.zeros(2, 3, 32, 40)).shape
    torch.Size([2, 1, 32, 40])
    """

    def __init__(self, n_channels: int = 1, *, width: int = 16, depth: int = 3, n_maps: int = 1) -> None:
        super().__init__()
        least = {"n_channels": 1, "width": 8, "depth": 0, "n_maps": 1}
        validate_parameter_constraints(
            {name: [Interval(Integral, n, None, closed="left")] for name, n in least.items()},
            {"n_channels": n_channels, "width": width, "depth": depth, "n_maps": n_maps},
            caller_name="UNet",
        )
        if width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        self.size_divisor = 2**depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(i, o) for i, o in zip([n_channels, *widths], widths))
        self.up = nn.ModuleList(_block(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1]))
        self.score = nn.Conv2d(width, n_maps, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds or scores (n, n_maps, H, W) of images (n, n_channels, H, W), scaled to [0, 1]."""
        features = self.down[0](images)
        skips = []
        for block in self.down[1:]:
            skips.append(features)
            features = block(F.max_pool2d(features, 2))
        for block in self.up:
            # unnamed, else the upsampled features would take their memory until the block has run
            features = block(torch.cat([F.interpolate(features, scale_factor=2, mode="bilinear"), skips.pop()], dim=1))
        return self.score(features)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.GroupNorm(8, n_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        nn.GroupNorm(8, n_out),
        nn.ReLU(inplace=True),
    )
