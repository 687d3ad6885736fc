import numpy as np
import pytest
import torch

from skmmcrf.network_state import fill_network, is_rebuildable, network_arrays, rebuild_network
from skmmcrf.networks import UNet, build_network


@pytest.mark.parametrize("name", ["unet", "fcn8s_squeezenet1_1", "fcn8s_resnet18"])
@pytest.mark.parametrize("n_channels", [1, 4])
def test_rebuilt_network_is_the_same_function(name, n_channels):
    network = build_network(name, n_channels).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    arrays = {key: array.copy() for key, array in network_arrays(network).items()}
    for array in arrays.values():
        array.setflags(write=False)
    rebuilt = rebuild_network(name, n_channels, arrays)
    images = torch.rand(2, n_channels, 64, 64)
    assert torch.equal(rebuilt(images), network(images))
    assert is_rebuildable(rebuilt, name, n_channels)
    assert not any(module.training for module in rebuilt.modules())
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())


def test_rebuilding_draws_no_random_numbers():
    arrays = network_arrays(UNet(1))
    before = torch.get_rng_state()
    rebuild_network("unet", 1, arrays)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "name", "n_channels"),
    [
        (UNet(1), "unet", 2),
        (UNet(1), "fcn8s_squeezenet1_1", 1),
        (UNet(1), "nonsense", 1),
        (UNet(1), UNet, 1),
        (UNet(1), "unet", None),
        (UNet(1).double(), "unet", 1),
        (torch.nn.Sequential(*UNet(1).children()), "unet", 1),
    ],
)
def test_what_a_name_does_not_describe_is_not_rebuildable(network, name, n_channels):
    assert not is_rebuildable(network, name, n_channels)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda arrays: arrays.pop("score.bias"),
            r"its 'score.bias' is float32 \(1,\), that of the weights is missing",
        ),
        (
            lambda arrays: arrays.update(more=np.zeros(2)),
            r"its 'more' is missing, that of the weights is float64 \(2,\)",
        ),
        (lambda arrays: arrays.update({"score.bias": np.zeros(1)}), r"float32 \(1,\), .* is float64 \(1,\)"),
        (lambda arrays: arrays.update({"score.bias": np.zeros((), np.float32)}), r"float32 \(1,\), .* is float32 \(\)"),
    ],
)
def test_other_weights_are_told(change, error):
    arrays = network_arrays(UNet(1))
    change(arrays)
    with pytest.raises(ValueError, match=error):
        rebuild_network("unet", 1, arrays)
    with pytest.raises(ValueError, match=error):
        fill_network(UNet(1), arrays)


def test_what_numpy_can_not_hold_is_told():
    class WithExtraState(torch.nn.Linear):
        def get_extra_state(self):
            return {"steps": 3}

    with pytest.raises(TypeError, match=r"'_extra_state' in its state dict must be a tensor, not a dict"):
        network_arrays(WithExtraState(1, 1))
    with pytest.raises(TypeError, match="BFloat16"):
        network_arrays(UNet(1).bfloat16())
    with pytest.raises(ValueError, match="'_extra_state' is dict"):
        fill_network(WithExtraState(1, 1), network_arrays(torch.nn.Linear(1, 1)))
