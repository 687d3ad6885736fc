"""Networks that give every pixel's log-odds or scores, and code that runs them."""

import copy
import inspect
from collections.abc import Callable
from os import PathLike

from torch import nn

from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import NetworkLike
from skmmcrf.networks.any_size import AnySize, keep_prepared_layers
from skmmcrf.networks.backbone_unet import BackboneUNet
from skmmcrf.networks.backbones import OnBackbone, backbone_names
from skmmcrf.networks.fcn import FCN8s
from skmmcrf.networks.unet import UNet

__all__ = ["AnySize", "BackboneUNet", "FCN8s", "UNet", "backbone_names", "build_network"]

_ON_BACKBONES = {"unet": BackboneUNet, "fcn8s": FCN8s}


@documented
def build_network(
    network: NetworkLike, n_channels: int, weights: str | PathLike[str] | None = None, *, n_maps: int = 1
) -> nn.Module:
    """Make the network that an estimator's parameters name.

    Parameters
    ----------
    network : str, torch.nn.Module or callable
        "unet", or ``"unet_"`` or ``"fcn8s_"`` with the name of a backbone, as in "fcn8s_vgg16" (of torchvision) or
        "unet_timm/resnet18" (of timm). A module is copied. A function takes the number of channels and returns a
        module. If it has a parameter of the name `n_maps`, it gets `n_maps` by that name where this is not 1.
    n_channels : int
        Channels of the images.
    weights : None, "imagenet" or path, default=None
        Weights of the backbone. See `BackboneUNet`.
    %(n_maps)s

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        If the name is unknown. If the weights don't belong to the network. If torch can't copy the module.
    TypeError
        If `network` is none of the above.

    Examples
    --------
    >>> build_network("unet", n_channels=3).size_divisor
    8
    >>> build_network(UNet, n_channels=3, n_maps=4).score.out_channels
    4
    """
    keep_prepared_layers()
    if isinstance(network, str):
        kind, _, backbone = network.partition("_")
        if kind in _ON_BACKBONES and "_" in network:
            return _ON_BACKBONES[kind](backbone, n_channels, weights=weights, n_maps=n_maps).float()
    if weights is not None:
        raise ValueError(f"weights: only networks named after a backbone take weights for it, not {shown(network)}")
    if isinstance(network, nn.Module):
        return _copied(network)
    if network == "unet":
        return UNet(n_channels, n_maps=n_maps).float()
    if callable(network):
        made = network(n_channels, n_maps=n_maps) if n_maps > 1 and _takes_n_maps(network) else network(n_channels)
        if not isinstance(made, nn.Module):
            raise TypeError(f"network: the function given must return a torch.nn.Module, got {type(made).__name__}")
        return made
    if isinstance(network, str):
        raise ValueError(f"network must be 'unet', or 'unet_' or 'fcn8s_' with a backbone, got {shown(network)}")
    raise TypeError(f"network must be a name, a torch.nn.Module or a function, got {type(network).__name__}")


def is_own(network: nn.Module) -> bool:
    """Tell whether a network is of this package. These networks take images of any size.

    Examples
    --------
    >>> is_own(UNet(1)), is_own(nn.Conv2d(1, 1, 1))
    (True, False)
    """
    return isinstance(network, (UNet, OnBackbone))


def _takes_n_maps(make: Callable[..., nn.Module]) -> bool:
    try:
        return "n_maps" in inspect.signature(make).parameters
    except (TypeError, ValueError):  # of a function of another language
        return False


def _copied(network: nn.Module) -> nn.Module:
    try:
        copied = copy.deepcopy(network)
        if not all(parameter.is_leaf for parameter in copied.parameters()):  # those of a scripted module
            raise RuntimeError("the parameters of a copy can't be trained")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            "network: torch can't copy this module, because it is scripted or has lazy buffers, the older "
            "torch.nn.utils.weight_norm or tensors kept of its last run. Give a function of the number of channels "
            f"that makes the module instead. The error was: {error}"
        ) from error
    return copied
