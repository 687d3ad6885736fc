import itertools
import os
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from skmmcrf import joint, max_margin, quadratic_program
from skmmcrf.datasets import make_phantoms
from skmmcrf.energy import pairwise_features

# networks here are too small for more to pay, and several threads crawl where others work too
torch.set_num_threads(1)

# the same problems every time; HYPOTHESIS_PROFILE=search draws others, and more
settings.register_profile(
    "suite",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("search", settings.get_profile("suite"), max_examples=1000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# the suite compares bits, and the machines of public services have such a device but no memory on it
if sys.platform == "darwin":
    torch.backends.mps.is_available = lambda: False


@pytest.fixture(autouse=True)
def _every_solve_is_optimal(monkeypatch):
    """Check the optimality conditions of each program that any test solves."""
    solve = quadratic_program.solve_program

    @wraps(solve)
    def checked(labelings, C, *args):
        solution = solve(labelings, C, *args)
        residuals = quadratic_program.optimality_residuals(solution, labelings, C)
        assert max(residuals.values()) <= 1e-8, residuals
        return solution

    for module in (max_margin, joint):
        monkeypatch.setattr(module, "solve_program", checked)


@pytest.fixture(scope="session")
def phantoms():
    """Six small images and their labels."""
    return make_phantoms(6, shape=(32, 40), random_state=0)


@pytest.fixture
def random_grid():
    """A function that draws a small problem: log-odds, image, truth, edges and features."""

    def draw(seed, shape=(3, 4), connectivity=8, n_channels=2, scale=2.0):
        rng = np.random.default_rng(seed)
        image = rng.uniform(size=(*shape, n_channels))
        log_odds = scale * rng.normal(size=shape)
        truth = rng.uniform(size=shape) < 0.5
        return log_odds, image, truth, *pairwise_features(image, connectivity=connectivity, sigma=0.3)

    return draw


@pytest.fixture
def all_labelings():
    """A function that lists every labeling of a small grid."""

    def enumerate_all(shape):
        return [np.array(y).reshape(shape) for y in itertools.product([False, True], repeat=int(np.prod(shape)))]

    return enumerate_all


@pytest.fixture
def memory_growth():
    """A function that calls another, and gives by how many bytes memory grew at most; 0 where no system tells it."""

    def measure(function):
        if sys.platform != "linux":
            function()
            return 0
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = memory_of_this_process("VmRSS")
        function()
        return memory_of_this_process("VmHWM") - before

    return measure


def memory_of_this_process(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
