"""Networks that give every pixel's log-odds, and what runs them."""

import copy
from os import PathLike

from torch import nn

from skmmcrf._typing import NetworkLike
from skmmcrf.networks.any_size import AnySize, keep_prepared_layers
from skmmcrf.networks.backbone_unet import BackboneUNet
from skmmcrf.networks.backbones import backbone_names
from skmmcrf.networks.fcn import FCN8s
from skmmcrf.networks.unet import UNet

__all__ = ["AnySize", "BackboneUNet", "FCN8s", "UNet", "backbone_names", "build_network"]

_ON_BACKBONES = {"unet": BackboneUNet, "fcn8s": FCN8s}


def build_network(network: NetworkLike, n_channels: int, weights: str | PathLike[str] | None = None) -> nn.Module:
    """Make the network that an estimator's parameters name.

    Parameters
    ----------
    network : str, torch.nn.Module or callable
        "unet"; ``"unet_"`` or ``"fcn8s_"`` with the name of a torchvision backbone, as in "fcn8s_vgg16"; a module,
        which is copied; or a function of the number of channels that gives a module.
    n_channels : int
        Channels of the images.
    weights : None, "imagenet" or path, default=None
        Weights of the backbone, see `BackboneUNet`.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If there is no network of that name, or the weights don't belong to it.
    TypeError
        If `network` is none of the above.

    Examples
    --------
    >>> build_network("unet", n_channels=3).size_divisor
    8
    """
    keep_prepared_layers()
    if isinstance(network, str):
        kind, _, backbone = network.partition("_")
        if kind in _ON_BACKBONES and "_" in network:
            return _ON_BACKBONES[kind](backbone, n_channels, weights=weights)
    if weights is not None:
        raise ValueError(f"weights: only networks named after a backbone take weights for it, not {network!r}")
    if isinstance(network, nn.Module):
        return copy.deepcopy(network)
    if network == "unet":
        return UNet(n_channels)
    if callable(network):
        made = network(n_channels)
        if not isinstance(made, nn.Module):
            raise TypeError(f"network: the function given must return a torch.nn.Module, got {type(made).__name__}")
        return made
    if isinstance(network, str):
        raise ValueError(f"network must be 'unet', or 'unet_' or 'fcn8s_' with a torchvision backbone, got {network!r}")
    raise TypeError(f"network must be a name, a torch.nn.Module or a function, got {type(network).__name__}")
