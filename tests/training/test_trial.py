import random
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from nets import pretraining_net
from torch import nn
from torch.nn import functional as F

from skmmcrf.networks import UNet, build_network
from skmmcrf.training.trial import try_network


def trial(network, sizes, of_validation=(), n_epochs=1, **parameters):
    net = pretraining_net(network, len(sizes), max_epochs=n_epochs, **parameters)
    try_network(net, 1, sizes, of_validation)


class Network(nn.Module):
    """A convolution, and a function of what it gives."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.function = function

    def forward(self, images):
        return self.function(self.conv(images))


def coarse(features):
    """Works for multiples of four."""
    return features + F.interpolate(F.max_pool2d(features, 4), scale_factor=4)


def test_each_size_is_tried_and_the_image_named_that_does_not_fit():
    fitting, not_fitting = [(8, 8), (4, 12)], [(8, 8), (4, 12), (8, 8), (6, 8)]
    trial(Network(coarse), fitting, fitting)
    with pytest.raises(ValueError, match=r"\(6, 8, 1\) \(number 3 of the images to train on\).*size_divisor"):
        trial(Network(coarse), not_fitting)
    with pytest.raises(ValueError, match=r"\(6, 8, 1\) \(number 3 of the validation images\).*size_divisor"):
        trial(Network(coarse), fitting, not_fitting)
    network = Network(coarse)
    network.size_divisor = 4
    trial(network, not_fitting, not_fitting)


def test_images_that_are_padded_to_one_size_count_as_images_of_one_size():
    network = Network(nn.BatchNorm2d(1))
    network.size_divisor = 32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial(network, [(20 + n, 20) for n in range(9)] + [(500, 500)], batch_size=5)


def test_sizes_that_become_one_by_padding_are_tried_once_and_own_networks_in_one_step_only():
    seen = []
    network = Network(lambda features: seen.append(features.shape[2:]) or features)
    network.size_divisor = 8
    sizes = [(n, 8) for n in range(1, 17)]
    trial(network, sizes)
    assert seen == [(8, 8), (16, 8), (8, 8)]  # the last is a step of training
    own = UNet(1, width=8, depth=1)
    own.down[0].register_forward_hook(lambda *args: seen.append("own"))
    trial(own, sizes)
    assert seen[3:] == ["own"]


def pooled_norm():
    """Batch norm over one value an image."""
    return Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Upsample((8, 8))))


def small_norm():
    """Batch norm of maps that are smaller by four, over a single pixel for images of 4 x 4."""
    return Network(nn.Sequential(nn.MaxPool2d(4), nn.BatchNorm2d(1), nn.Upsample(scale_factor=4)))


@pytest.mark.parametrize(
    ("network", "sizes", "parameters", "fits"),
    [
        (pooled_norm(), [(8, 8)] * 7, {"batch_size": 3}, True),
        (pooled_norm(), [(8, 8)] * 7, {"batch_size": 1}, False),
        (pooled_norm(), [(8, 8)] * 7, {"batch_size": 1, "freeze_batch_norm": True}, True),
        (pooled_norm(), [(8, 8)] * 7, {"batch_size": 1, "n_epochs": 0}, True),
        (pooled_norm(), [(8, 8)], {"batch_size": 3}, False),
        (small_norm(), [(4, 4)] * 3 + [(8, 8)], {"batch_size": 4}, True),
        (small_norm(), [(4, 4)] + [(8, 8)] * 3, {"batch_size": 4}, True),  # they are padded to one size
        (small_norm(), [(4, 4)] + [(4, 40), (40, 4)] * 3, {"batch_size": 7}, False),  # these differ too much for that
        (small_norm(), [(4, 4)] * 9 + [(32, 32)], {"batch_size": 2}, True),  # and two never do
        # all of them together would have enough pixels
        (small_norm(), [(4, 4)] + [(4, 40), (40, 4)] * 6 + [(40, 40)] * 8, {"batch_size": 3, "n_epochs": 50}, False),
        (small_norm(), [(4, 4)] + [(8, 8)] * 3, {"batch_size": 1}, False),
        (small_norm(), [(4, 8)] + [(8, 8)] * 3, {"batch_size": 4}, True),
        (small_norm(), [(4, 4)] * 500 + [(8, 8)] * 500, {"batch_size": 100}, True),  # one in 100 will not happen
        (build_network("unet_resnet18", 1), [(32, 32), (30, 30)], {}, True),
        (build_network("unet_resnet18", 1), [(32, 32), (30, 30)], {"batch_size": 1}, False),
    ],
)
@pytest.mark.filterwarnings("ignore:network. its batch normalisation will learn from single images")
def test_batch_norm_over_a_single_value_is_told_if_it_can_come(network, sizes, parameters, fits):
    if fits:
        trial(network, sizes, **parameters)
    else:
        with pytest.raises(ValueError, match="network: its batch normalisation can't train on .* batch_size"):
            trial(network, sizes, **parameters)


SINGLE_IMAGES = "network: its batch normalisation will learn from single images, .* batch_size .* crop"


def normalised(**parameters):
    return Network(nn.BatchNorm2d(1, **parameters))


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        ([(2**n, 2**n) for n in range(1, 7)], {}),
        ([size for n in range(64, 76) for size in [(2, n), (n, 2)]], {"batch_size": 8}),
        ([(8, 8)] * 6, {"batch_size": 1}),
    ],
)
def test_batch_norm_that_will_learn_from_single_images_is_warned_of(sizes, parameters):
    with pytest.warns(UserWarning, match=SINGLE_IMAGES):
        trial(normalised(), sizes, **parameters)


@pytest.mark.parametrize(
    ("network", "sizes", "parameters"),
    [
        (normalised(), [(8, n) for n in range(4, 10)], {}),
        (normalised(), [(4, 4)] * 5 + [(40, 40)] * 5, {}),
        (normalised(), [(8, 8)] * 6, {"batch_size": 2}),
        (normalised(), [(8, 8), (8, 9)], {"n_epochs": 0}),
        (normalised(), [(8, 8), (8, 9)], {"freeze_batch_norm": True}),
        (normalised(track_running_stats=False), [(8, 8), (8, 9)], {}),
        (Network(nn.GroupNorm(1, 1)), [(8, 8), (8, 9)], {}),
    ],
)
def test_other_normalisation_is_not_warned_of(network, sizes, parameters):
    trial(network, sizes, **parameters)


def test_a_network_that_gives_something_else_while_training_is_told():
    class WithSideOutput(nn.Conv2d):
        def forward(self, images):
            return (super().forward(images), None) if self.training else super().forward(images)

    with pytest.raises(ValueError, match="log-odds, a tensor of float, not tuple: wrap it"):
        trial(WithSideOutput(1, 1, 1), [(4, 4)])


@pytest.mark.parametrize("n_epochs", [0, 1])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize(
    "function",
    [
        torch.sigmoid,
        nn.Sigmoid(),
        F.hardsigmoid,
        F.logsigmoid,
        lambda features: F.log_softmax(torch.cat([-features, features], dim=1), dim=1)[:, 1:],
        lambda features: F.softmax(torch.cat([features, -features], dim=1), dim=1)[:, 1],
        lambda features: F.interpolate(torch.sigmoid(features[..., ::2, ::2]), scale_factor=2, mode="bilinear"),
        lambda features: torch.stack([torch.sigmoid(features), torch.sigmoid(2 * features)]).mean(dim=0),
        lambda features: torch.sigmoid(features).double().clamp(0.01, 0.99),
        lambda features: F.avg_pool2d(F.pad(torch.sigmoid(features), (1, 1, 1, 1)), 3, stride=1).relu(),
    ],
)
def test_a_network_that_ends_in_a_sigmoid_is_warned_of(function, scale, n_epochs):
    network = Network(function).requires_grad_(n_epochs > 0)
    with pytest.warns(UserWarning, match="network: it ends in a sigmoid or softmax, .* it must give log-odds"):
        trial(network, [(8, 8)], n_epochs=n_epochs)


@pytest.mark.parametrize(
    "network",
    [
        Network(torch.relu),
        Network(lambda features: 0 * features + 0.5),
        Network(lambda features: 10 * torch.sigmoid(features) - 5),
        Network(lambda features: features * torch.sigmoid(features)),
        *(build_network(name, 1) for name in ("unet", "unet_squeezenet1_1", "fcn8s_squeezenet1_1")),
    ],
)
def test_other_networks_are_not_warned_of(network):
    trial(network, [(16, 16)])


def test_a_trial_leaves_the_network_and_random_numbers_as_they_were():
    class Counting(nn.Sequential):
        n_calls = 0

        def forward(self, images):
            self.n_calls += 1
            self.last = super().forward(images)
            return self.last

    network = Counting(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(2, 1, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    trial(network, [(4, 4), (4, 4)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (network.n_calls, hasattr(network, "last")) == (0, False)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002


@pytest.mark.parametrize(("function", "warned"), [(torch.softmax, True), (torch.log_softmax, False)])
def test_scores_of_several_classes_may_be_logarithms_of_probabilities_but_not_these(function, warned):
    class Scores(nn.Conv2d):
        def forward(self, images):
            return function(super().forward(images), dim=1)

    warning = pytest.warns(UserWarning, match="it must give scores, whose softmax is taken later")
    with warning if warned else nullcontext():
        trial(Scores(1, 3, 1), [(8, 8)], n_maps=3)
