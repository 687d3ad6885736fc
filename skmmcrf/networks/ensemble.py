"""Several networks as one."""

from collections.abc import Iterable

import torch
from torch import nn


class MeanOfNetworks(nn.Module):
    """Give the mean log-odds of several networks, or the mean scores of several classes.

    The softmax of mean scores is that of the mean logarithms of the probabilities, so both kinds of mean are the same.

    Parameters
    ----------
    networks : iterable of torch.nn.Module
        Networks that take the same images and give log-odds or scores of the same shape.

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> mean = MeanOfNetworks([UNet(1), UNet(1)])
    >>> mean(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the mean log-odds or scores of images (n, channels, H, W)."""
        return torch.stack([network(images) for network in self.networks]).mean(dim=0)


def one_of(network: nn.Module) -> nn.Module:
    """Give the first of the networks whose mean a network gives, or the network itself if it is no mean."""
    return network.networks[0] if isinstance(network, MeanOfNetworks) else network
