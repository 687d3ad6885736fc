import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from skmmcrf.networks import build_network
from skmmcrf.training.random_states import OwnGenerator, seed_all, seeded


def draw():
    return torch.rand(2).tolist(), np.random.normal(size=3).tolist(), random.random()  # noqa: NPY002


def test_the_seed_decides_what_is_drawn_and_the_generators_are_left_as_they_were():
    with seeded(7):
        expected = draw(), draw()
    with seeded(7):
        found = [draw()]
        draws = []
        for random_state in (0, 0, np.random.RandomState(0), 1):
            with seeded(random_state):
                draws.append(draw())
        with pytest.raises(RuntimeError), seeded(3):
            raise RuntimeError(draw())
        found.append(draw())
    assert draws[0] == draws[1] == draws[2]
    assert all(a != b for a, b in zip(draws[0], draws[3]))
    assert tuple(found) == expected


def test_every_number_that_seeds_all_decides():
    draws = []
    with seeded(0):
        for numbers in ((1, 2, 3), (1, 2, 3), (2, 1, 3), (1, 2), (1, 2, 4)):
            seed_all(*numbers)
            draws.append(draw())
    assert draws[0] == draws[1]
    assert len({repr(each) for each in draws}) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_network("unet", 2).state_dict().values(),
        lambda: build_network("unet_resnet18", 3).state_dict().values(),
        lambda: nn.LSTM(3, 4).state_dict().values(),
        lambda: v2.RandomAffine(30, (0.1, 0.1), (0.5, 2))(torch.ones(1, 9, 9)),
        lambda: [torch.randperm(5), torch.randint(9, (3,)), torch.randn(3), torch.bernoulli(torch.full((5,), 0.5))],
    ],
)
def test_with_an_own_generator_the_global_one_is_neither_used_nor_changed(make):
    with seeded(0):
        seed_all(4)
        seed = torch.initial_seed()
        expected = list(make())
        seed_all(5)
        before = torch.get_rng_state()
        with OwnGenerator(seed):
            found = list(make())
        assert torch.equal(before, torch.get_rng_state())
    assert len(found) == len(expected) > 0
    assert all(map(torch.equal, found, expected))


def test_an_own_generator_does_not_touch_what_is_drawn_elsewhere():
    with OwnGenerator(0):
        assert torch.rand(2, device="meta").is_meta
        generator = torch.Generator().manual_seed(3)
        drawn = torch.rand(2, generator=generator)
    assert torch.equal(drawn, torch.rand(2, generator=torch.Generator().manual_seed(3)))
