from functools import partial

import pytest
import torch
from torch import nn

from skmmcrf.networks import BackboneUNet, FCN8s, UNet, build_network


@pytest.mark.parametrize(
    ("name", "kind"), [("unet", UNet), ("fcn8s_squeezenet1_1", FCN8s), ("unet_squeezenet1_1", BackboneUNet)]
)
def test_names(name, kind):
    network = build_network(name, 2)
    assert isinstance(network, kind)
    size = network.size_divisor
    assert network(torch.rand(1, 2, 2 * size, 2 * size)).shape == (1, 1, 2 * size, 2 * size)


@pytest.mark.parametrize("network", ["unet", "fcn8s_squeezenet1_1", "unet_squeezenet1_1", UNet, partial(UNet, width=8)])
def test_networks_of_several_classes_give_a_map_for_each(network):
    assert build_network(network, 2, n_maps=3)(torch.rand(1, 2, 32, 32)).shape == (1, 3, 32, 32)


def test_a_function_is_told_the_number_of_maps_if_it_takes_it_by_name_and_there_are_several():
    def make(n_channels, n_maps=None):
        return nn.Conv2d(n_channels, n_maps or 7, 1)

    assert build_network(make, 2, n_maps=3).out_channels == 3
    assert build_network(make, 2).out_channels == 7
    assert build_network(lambda n_channels, width=5: nn.Conv2d(n_channels, width, 1), 2, n_maps=3).out_channels == 5


def test_a_module_is_copied():
    module = nn.Conv2d(1, 1, 3, padding=1)
    built = build_network(module, 1)
    assert torch.equal(built.weight, module.weight)
    built.weight.data.zero_()
    assert module.weight.any()


def test_a_function_is_told_the_number_of_channels():
    assert build_network(UNet, 4).down[0][0].in_channels == 4
    assert build_network(lambda n_channels: nn.Conv2d(n_channels, 1, 1), 2).in_channels == 2


def test_modules_that_torch_can_not_copy_are_told_with_the_way_out():
    kept = nn.Conv2d(1, 1, 1)
    kept.last = kept(torch.zeros(1, 1, 2, 2))
    for module in (nn.LazyBatchNorm2d(), kept):
        with pytest.raises(ValueError, match="network: torch can't copy this module.*Give a function of the number of"):
            build_network(module, 1)


@pytest.mark.parametrize("name", ["unet", "fcn8s_squeezenet1_1"])
def test_named_networks_are_of_single_precision_whatever_torch_defaults_to(name):
    torch.set_default_dtype(torch.float64)
    try:
        network = build_network(name, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("network", "weights", "error", "message"),
    [
        ("resnet", None, ValueError, "network must be 'unet', or 'unet_' or 'fcn8s_' with .*, got 'resnet'"),
        ("unetwork", None, ValueError, "network must be 'unet', or"),
        ("unet_", None, ValueError, "'' is not a known backbone"),
        ("fcn8s_", None, ValueError, "'' is not a known backbone"),
        ("unet", "imagenet", ValueError, "weights: only networks named after a backbone"),
        (nn.Identity(), "weights.pth", ValueError, "weights: only networks named after a backbone"),
        (lambda n_channels: None, None, TypeError, "must return a torch.nn.Module, got NoneType"),
        (3, None, TypeError, "network must be a name, a torch.nn.Module or a function, got int"),
    ],
)
def test_other_networks_are_told(network, weights, error, message):
    with pytest.raises(error, match=message):
        build_network(network, 1, weights)
