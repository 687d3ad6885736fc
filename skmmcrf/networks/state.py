"""The weights of networks as plain arrays, by which they are kept without pickle."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from skmmcrf.networks import build_network


def network_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Give the state dict of a network as arrays, which share the memory of a network on the CPU.

    Raises
    ------
    TypeError
        If the state dict holds something else than tensors. If numpy lacks the dtype of a tensor.
    """
    state = network.state_dict()
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"network_: {key!r} in its state dict must be a tensor, not a {type(value).__name__}")
    return {key: value.numpy(force=True) for key, value in state.items()}


def empty_network(name: str, n_channels: int, *, n_maps: int = 1) -> nn.Module:
    """Build a network by its name for `load_arrays`, without memory for its weights."""
    with torch.device("meta"):
        return build_network(name, n_channels, n_maps=n_maps)


def load_arrays(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """Load copies of arrays as the whole state dict of a network, and return it in evaluation mode.

    Raises
    ------
    ValueError
        If the arrays are not its state dict in names, shapes and dtypes.

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> load_arrays(empty_network("unet", 3), network_arrays(UNet(3))).size_divisor
    8
    """
    lazy = {key for key, value in network.state_dict().items() if is_lazy(value)}  # they take the shapes that come
    wanted = _layout(network)
    given = {key: f"{array.dtype.name} {array.shape}" for key, array in arrays.items()}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key) and not (key in lazy and key in given):
            raise ValueError(
                f"network: the weights do not fit this network: its {key!r} is {wanted.get(key, 'missing')}, but in "
                f"the weights it is {given.get(key, 'missing')}"
            )
    # unlike from_numpy, tensor aligns the memory as torch does and takes arrays that can't be written
    tensors = {key: torch.tensor(array) for key, array in arrays.items()}
    network.load_state_dict(tensors, assign=any(parameter.is_meta for parameter in network.parameters()))
    return network.eval()


def forget_last_run(network: nn.Module) -> nn.Module:
    """Detach tensors that modules keep of their last run, which prevent copying, and return the network."""
    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                vars(module)[name] = value.detach()
    return network


def _layout(network: nn.Module) -> dict[str, str]:
    """Dtype and shape of what the state dict holds, in numpy's words."""
    return {
        key: f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        if isinstance(value, torch.Tensor) and not is_lazy(value)
        else type(value).__name__
        for key, value in network.state_dict().items()
    }
