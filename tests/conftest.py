import os
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from skmmcrf.field import Field, Grid, build_terms, grid_cut
from skmmcrf.learning import program

# so that no test meets the compiler, which says so
grid_cut.prepare()

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
    """Check the optimality conditions of each program that any test solves, whichever module asks for it."""
    solve = program.solve_program

    @wraps(solve)
    def checked(examples, C, *args, **kwargs):
        solution = solve(examples, C, *args, **kwargs)
        residuals = program.optimality_residuals(solution, examples, C)
        assert max(residuals.values()) <= 1e-8, residuals
        return solution

    for name, module in list(sys.modules.items()):
        # vars, because the package would look for the name in its modules
        if name.split(".")[0] == "skmmcrf" and vars(module).get("solve_program") is solve:
            monkeypatch.setattr(module, "solve_program", checked)


def pytest_addoption(parser):
    parser.addoption("--engine", choices=["numba", "pymaxflow"], default="numba", help="what finds minimum cuts")


@pytest.fixture(autouse=True)
def _every_cut_is_least(monkeypatch, request):
    """Check that each cut that any test makes on a grid costs no more than its flow; or let PyMaxflow make all."""
    if request.config.getoption("--engine") == "pymaxflow":
        monkeypatch.setattr(grid_cut, "available", lambda: False)

    find = grid_cut.GridCut.labels

    def checked(cut):
        unary, capacities = cut.terminal.copy(), cut.residual.copy()
        labels = find(cut)
        # a capacity stands at the pixel whose label is 0, and a step that leaves the image has none
        costs = [unary[labels]]
        for n, (first, second) in enumerate(Grid(tuple(cut.offsets)).pairs(labels)):
            ((forth, back),) = Grid((cut.offsets[n],)).pairs(capacities[..., 2 * n : 2 * n + 2])
            costs += [forth[..., 0][second & ~first], back[..., 1][first & ~second]]
        cost, scale = (sum(function(part).sum(dtype=float) for part in costs) for function in (np.asarray, np.abs))
        bound = cut.flow + unary.sum(where=unary < 0, dtype=float)
        tolerance = 1e-5 if unary.dtype == np.float32 else 1e-9
        assert abs(cost - bound) <= tolerance * (scale + np.abs(unary).max()), (cost, bound)
        return labels

    monkeypatch.setattr(grid_cut.GridCut, "labels", checked)


@pytest.fixture(scope="session")
def phantoms():
    """Six small images and their labels."""
    from skmmcrf.datasets import make_phantoms

    return make_phantoms(6, shape=(32, 40), random_state=0)


@pytest.fixture
def random_grid():
    """A function that draws a small problem: an energy and a truth."""

    def draw(seed, shape=(3, 4), connectivity=8, pairwise="contrast", n_channels=2, scale=2.0):
        rng = np.random.default_rng(seed)
        image = rng.uniform(size=(*shape, n_channels))
        log_odds = scale * rng.normal(size=shape)
        field = Field(Grid.from_connectivity(connectivity, len(shape)), build_terms(pairwise, sigma=0.3))
        return field.energy(log_odds, image), rng.uniform(size=shape) < 0.5

    return draw


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
