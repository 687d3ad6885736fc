import copy

import numpy as np
import pytest
import torch

from skmmcrf.networks import UNet, build_network
from skmmcrf.networks.state import empty_network, forget_last_run, load_arrays, network_arrays


@pytest.mark.parametrize(("name", "n_channels"), [("unet", 4), ("fcn8s_squeezenet1_1", 1), ("unet_resnet18", 4)])
@pytest.mark.parametrize("make", [empty_network, build_network])
def test_a_network_with_the_arrays_of_another_is_the_same_function(name, n_channels, make):
    network = build_network(name, n_channels).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    arrays = {key: array.copy() for key, array in network_arrays(network).items()}
    for array in arrays.values():
        array.setflags(write=False)
    rebuilt = make(name, n_channels).train()
    assert load_arrays(rebuilt, arrays) is rebuilt
    images = torch.rand(2, n_channels, 64, 64)
    assert torch.equal(rebuilt(images), network(images))
    assert not any(module.training for module in rebuilt.modules())
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())
    next(rebuilt.parameters()).data.zero_()
    assert next(iter(arrays.values())).any()


def test_rebuilding_takes_no_memory_and_draws_no_random_numbers(memory_growth):
    arrays = network_arrays(UNet(1))
    before = torch.get_rng_state()
    assert memory_growth(lambda: empty_network("fcn8s_vgg16", 3)) < 100_000_000
    load_arrays(empty_network("unet", 1), arrays)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda arrays: arrays.pop("score.bias"), r"'score.bias' is float32 \(1,\), but in the weights it is missing"),
        (lambda arrays: arrays.update(more=np.zeros(2)), r"'more' is missing, but in the weights it is float64 \(2,\)"),
        (lambda arrays: arrays.update({"score.bias": np.zeros(1)}), r"float32 \(1,\), .* is float64 \(1,\)"),
        (lambda arrays: arrays.update({"score.bias": np.zeros((), np.float32)}), r"float32 \(1,\), .* is float32 \(\)"),
    ],
)
def test_other_weights_are_told_and_leave_the_network_as_it_was(change, error):
    network = UNet(1)
    arrays = {key: array + np.float32(1) for key, array in network_arrays(network).items()}
    before = {key: array.copy() for key, array in network_arrays(network).items()}
    change(arrays)
    with pytest.raises(ValueError, match=f"network: the weights do not fit this network: .*{error}"):
        load_arrays(network, arrays)
    for key, array in network_arrays(network).items():
        np.testing.assert_array_equal(array, before[key])
    with pytest.raises(ValueError, match=error):
        load_arrays(empty_network("unet", 1), arrays)


def test_what_numpy_can_not_hold_is_told():
    class WithExtraState(torch.nn.Linear):
        def get_extra_state(self):
            return {"steps": 3}

    with pytest.raises(TypeError, match=r"'_extra_state' in its state dict must be a tensor, not a dict"):
        network_arrays(WithExtraState(1, 1))
    with pytest.raises(TypeError, match="BFloat16"):
        network_arrays(UNet(1).bfloat16())
    with pytest.raises(ValueError, match="'_extra_state' is dict"):
        load_arrays(WithExtraState(1, 1), network_arrays(torch.nn.Linear(1, 1)))


def test_lazy_modules_take_the_shapes_of_the_weights():
    def lazy():
        return torch.nn.Sequential(torch.nn.LazyConv2d(3, 1), torch.nn.LazyBatchNorm2d())

    network = lazy().eval()
    images = torch.rand(1, 2, 4, 5)
    expected = network(images)
    arrays = network_arrays(network)
    assert torch.equal(load_arrays(lazy(), arrays)(images), expected)
    del arrays["0.weight"]
    with pytest.raises(ValueError, match="'0.weight' is UninitializedParameter, but in the weights it is missing"):
        load_arrays(lazy(), arrays)


def test_a_network_that_forgot_its_last_run_can_be_copied():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    network[0].last = network(torch.rand(1, 1, 2, 2))
    value = network[0].last.detach().clone()
    copied = copy.deepcopy(forget_last_run(network))
    assert torch.equal(copied[0].last, value)
