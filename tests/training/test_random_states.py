import random

import numpy as np
import pytest
import torch

from skmmcrf.training.random_states import get_random_states, seeded, set_random_states


def draw():
    return torch.rand(2).tolist(), np.random.normal(size=3).tolist(), random.random()  # noqa: NPY002


def test_the_seed_decides_what_is_drawn_and_the_generators_are_left_as_they_were():
    before = get_random_states()
    expected = draw()
    set_random_states(before)
    draws = []
    for random_state in (0, 0, np.random.RandomState(0), 1):
        with seeded(random_state):
            draws.append(draw())
    with pytest.raises(RuntimeError), seeded(3):
        raise RuntimeError(draw())
    assert draws[0] == draws[1] == draws[2]
    assert all(a != b for a, b in zip(draws[0], draws[3]))
    assert draw() == expected
