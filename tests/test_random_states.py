import numpy as np
import torch

from skmmcrf.random_states import seeded


def test_seeded_leaves_torch_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draws = []
    for random_state in (0, 0, np.random.RandomState(0)):
        with seeded(random_state):
            draws.append(torch.rand(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])
