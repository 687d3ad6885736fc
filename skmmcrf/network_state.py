"""Networks without pickle: those that a name describes are rebuilt by it, and get their weights from plain arrays."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from skmmcrf.networks import build_network


def is_rebuildable(network: nn.Module, name: object, n_channels: int | None) -> bool:
    """Whether a network is, but for its weights, the one that is built by a name.

    Parameters
    ----------
    network : torch.nn.Module
    name : object
        The parameter `network` of an estimator; only a str can be a name.
    n_channels : int or None
        Channels of the images, if they are known.

    Returns
    -------
    bool

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> is_rebuildable(UNet(3), "unet", 3), is_rebuildable(UNet(3, width=8), "unet", 3)
    (True, False)
    """
    if not isinstance(name, str) or n_channels is None:
        return False
    try:
        named = _without_weights(name, n_channels)
    except ValueError:  # no such name
        return False
    return type(network) is type(named) and _layout(network) == _layout(named)


def network_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Give the state dict of a network as arrays.

    Parameters
    ----------
    network : torch.nn.Module

    Returns
    -------
    dict of str to ndarray
        They share the memory of a network on the CPU.

    Raises
    ------
    TypeError
        If something in the state dict is no tensor, or of a dtype that numpy does not have.
    """
    state = network.state_dict()
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"network_: {key!r} in its state dict must be a tensor, not a {type(value).__name__}")
    return {key: value.numpy(force=True) for key, value in state.items()}


def rebuild_network(name: str, n_channels: int, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """Build a network by its name, with these weights.

    Nothing is downloaded, and nothing allocated but for the copy of the arrays.

    Parameters
    ----------
    name : str
        "unet" or "fcn8s_" with a backbone.
    n_channels : int
        Channels of the images.
    arrays : dict of str to ndarray
        The whole state dict; copied.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU.

    Raises
    ------
    ValueError
        If there is no network of that name, or the arrays are not its state dict in names, shapes and dtypes.

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> rebuild_network("unet", 3, network_arrays(UNet(3))).size_divisor
    8
    """
    network = _without_weights(name, n_channels)
    return _filled(network, arrays, assign=True)


def fill_network(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """Give a network weights, in place.

    Parameters
    ----------
    network : torch.nn.Module
    arrays : dict of str to ndarray
        The whole state dict; copied.

    Returns
    -------
    torch.nn.Module
        The same network, in evaluation mode.

    Raises
    ------
    ValueError
        If the arrays are not its state dict in names, shapes and dtypes.
    """
    return _filled(network, arrays, assign=False)


def _without_weights(name: str, n_channels: int) -> nn.Module:
    with torch.device("meta"):  # takes no memory, whatever the shapes, and draws no weights
        return build_network(name, n_channels)


def _filled(network: nn.Module, arrays: Mapping[str, np.ndarray], *, assign: bool) -> nn.Module:
    wanted = _layout(network)
    given = {key: f"{array.dtype.name} {array.shape}" for key, array in arrays.items()}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ValueError(
                f"network: the weights are not those of this network: its {key!r} is {wanted.get(key, 'missing')}, "
                f"that of the weights is {given.get(key, 'missing')}"
            )
    # unlike from_numpy, tensor aligns the memory as torch does and takes arrays that can't be written
    network.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()}, assign=assign)
    return network.eval()


def _layout(network: nn.Module) -> dict[str, str]:
    """Dtype and shape of what the state dict holds, in numpy's words."""
    return {
        key: f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if isinstance(value, torch.Tensor)
        else type(value).__name__
        for key, value in network.state_dict().items()
    }
