"""Cuts of a grid are held against all labelings of small ones, against `minimum_cut`, and against their own flow."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import all_labelings

from skmmcrf.field import Grid, minimum_cut
from skmmcrf.field import grid_cut as module
from skmmcrf.field.grid_cut import GridCut, available, sum_cut

needs_numba = pytest.mark.skipif(not available(), reason="numba is not installed")

OFFSETS = {
    1: [((1,),), ((1,), (3,))],
    2: [
        ((0, 1), (1, 0)),
        ((0, 1), (1, -1), (1, 0), (1, 1)),
        ((0, 1), (1, 0), (0, 4), (4, 0), (1, -2)),
        ((-1, 2), (0, -1), (1, 0), (-1, 0)),
    ],
    3: [((0, 0, 1), (0, 1, 0), (1, 0, 0)), ((1, -1, 1), (0, 1, -2), (1, 0, 0))],
}


def make_capacities(shape, offsets, make):
    """One array an offset, which a function makes of a shape."""
    return [make(first.shape) for first, _ in Grid(offsets).pairs(np.empty(shape))]


def cost(labels, unary, offsets, capacities):
    """The cost of a labeling, and what it is a sum of may add up to, which says how exact it is."""
    pairs = Grid(offsets).pairs(labels)
    cut = sum(capacity[first != second].sum() for (first, second), capacity in zip(pairs, capacities))
    return unary[labels].sum() + cut, np.abs(unary).sum() + sum(capacity.sum() for capacity in capacities)


def filled(unary, offsets, capacities):
    """The `GridCut` of a problem."""
    cut = GridCut(unary.shape, offsets, unary.dtype)
    cut.terminal[...] = unary
    used = [(offset, capacity) for offset, capacity in zip(offsets, capacities) if capacity.size]
    for n, (offset, capacity) in enumerate(used):
        ((first, second),) = Grid((offset,)).pairs(cut.residual)
        first[..., 2 * n] = second[..., 2 * n + 1] = capacity
    return cut


def cut_with_bound(unary, offsets, capacities):
    """The labeling of `GridCut`, and the lower bound on its cost by the flow."""
    cut = filled(unary, offsets, capacities)
    return cut.labels(), cut.flow + unary.sum(where=unary < 0, dtype=float)


def cut_by_grid(*problem):
    return cut_with_bound(*problem)[0]


def least_of_all(unary, offsets, capacities):
    labelings = all_labelings(unary.shape)
    costs = [cost(labels, unary, offsets, capacities)[0] for labels in labelings]
    return labelings[np.argmin(costs)]


def cut_by_lists(unary, offsets, capacities):
    """The labeling of `minimum_cut`."""
    numbers = np.arange(unary.size).reshape(unary.shape)
    edges = [np.stack([first.ravel(), second.ravel()]) for first, second in Grid(offsets).pairs(numbers)]
    return minimum_cut(unary, np.concatenate(edges, axis=1), np.concatenate([c.ravel() for c in capacities]))


def integers(rng, shape):
    """Sums of them have no rounding, so that many labelings cost the same."""
    return rng.integers(0, 4, shape).astype(float)


def reals(rng, shape):
    return rng.exponential(size=shape)


def reals_far_apart(rng, shape):
    return rng.exponential(size=shape) * np.where(rng.uniform(size=shape) < 0.2, 1e12, 1)


@st.composite
def problems(draw, values):
    """Costs and capacities on grids of one to three dimensions."""
    ndim = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, 8)] * ndim))
    offsets = draw(st.sampled_from(OFFSETS[ndim]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    strength, share = draw(st.sampled_from([0, 0.25, 1, 8])), draw(st.sampled_from([0.3, 1]))

    def capacity(shape):
        return strength * values(rng, shape) * (rng.uniform(size=shape) < share)

    return values(rng, shape) * rng.choice([-1, 1], shape), offsets, make_capacities(shape, offsets, capacity)


def blobs(shape, offsets=OFFSETS[2][1], seed=0):
    """Noisy squares of 8 pixels."""
    rng = np.random.default_rng(seed)
    truth = sum(np.indices(shape) // 8) % 2
    unary = truth - 0.5 + rng.normal(size=shape)
    return unary, offsets, make_capacities(shape, offsets, lambda size: rng.uniform(0.2, 0.8, size))


@needs_numba
@pytest.mark.parametrize("offsets", OFFSETS[2])
@pytest.mark.parametrize("shape", [(3, 4), (1, 9), (9, 1), (5, 2), (1, 1)])
def test_a_cut_costs_least_of_all_labelings(shape, offsets):
    rng = np.random.default_rng(sum(shape))
    unary = rng.normal(size=shape)
    capacities = make_capacities(shape, offsets, lambda size: rng.exponential(0.4, size) * rng.integers(2, size=size))
    labels = cut_by_grid(unary, offsets, capacities)
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels, least_of_all(unary, offsets, capacities))


@needs_numba
@pytest.mark.parametrize("offsets", OFFSETS[3])
def test_a_cut_of_a_volume_costs_least_of_all_labelings(offsets):
    rng = np.random.default_rng(0)
    unary = rng.normal(size=(2, 2, 3))
    capacities = make_capacities(unary.shape, offsets, lambda size: rng.exponential(0.4, size))
    np.testing.assert_array_equal(cut_by_grid(unary, offsets, capacities), least_of_all(unary, offsets, capacities))


@needs_numba
@pytest.mark.parametrize("values", [integers, reals, reals_far_apart])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_labels_are_those_of_minimum_cut_and_the_flow_proves_them_best(values, data):
    problem = data.draw(problems(values))
    labels, bound = cut_with_bound(*problem)
    reference = cut_by_lists(*problem)
    least, size = cost(labels, *problem)
    assert least == pytest.approx(cost(reference, *problem)[0], rel=1e-9, abs=1e-15 * size)
    assert least == pytest.approx(bound, rel=1e-9, abs=1e-15 * size)
    # and of several best ones it is the same
    np.testing.assert_array_equal(labels, reference)


@needs_numba
@pytest.mark.parametrize("shape", [(60, 70), (1, 300), (300, 1)])
@pytest.mark.parametrize("offsets", OFFSETS[2])
def test_larger_images_are_labelled_as_by_minimum_cut(shape, offsets):
    problem = blobs(shape, offsets)
    labels, bound = cut_with_bound(*problem)
    np.testing.assert_array_equal(labels, cut_by_lists(*problem))
    assert bound == pytest.approx(cost(labels, *problem)[0], rel=1e-12)


@needs_numba
@pytest.mark.parametrize("size", [1e-300, 1e10, 1e300])
def test_costs_may_be_tiny_or_huge(size):
    unary, capacities = size * np.array([[-3.0, 1.0, -1.0]]), [size * np.array([[0.6, 0.6]])]
    assert cut_by_grid(unary, [(0, 1)], capacities).all()


@needs_numba
def test_capacities_of_zero_leave_each_pixel_to_itself():
    unary, offsets, capacities = blobs((9, 7))
    unary[3] = 0
    labels = cut_by_grid(unary, offsets, [0 * capacity for capacity in capacities])
    np.testing.assert_array_equal(labels, unary < 0)
    np.testing.assert_array_equal(cut_by_grid(unary, [], []), unary < 0)


@needs_numba
def test_float32_is_about_as_good():
    unary, offsets, capacities = blobs((40, 50))
    labels, bound = cut_with_bound(unary.astype(np.float32), offsets, capacities)
    _, exact = cut_with_bound(unary, offsets, capacities)
    assert bound == pytest.approx(exact, rel=1e-6)
    assert cost(labels, unary, offsets, capacities)[0] == pytest.approx(exact, rel=1e-6)


@st.composite
def images(draw):
    """Shapes and offsets of one to three dimensions, also longer than the image, and random numbers."""
    ndim = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, 7)] * ndim))
    step = st.tuples(*[st.integers(-8, 8)] * ndim).filter(any)
    offsets = draw(st.lists(step, min_size=1, max_size=4, unique_by=lambda o: max(o, tuple(-x for x in o))))
    return shape, tuple(offsets), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@needs_numba
@given(images(), st.integers(0, 2))
def test_costs_of_edges_stand_at_both_pixels(image, n_rows):
    shape, offsets, rng = image
    cut, weights = GridCut(shape, offsets, np.float64), rng.exponential(size=1 + n_rows)
    expected = np.zeros_like(cut.residual)
    for offset, runs in zip(offsets, Grid(offsets).runs(shape)):
        ((first, second),) = Grid((offset,)).pairs(expected)
        factors = rng.uniform(size=(n_rows, len(runs.starts) * runs.length)).astype(np.float32)
        cut.add_edges(offset, slice(None), runs, weights, factors)
        if factors.shape[1]:
            n = cut.offsets.index(offset)
            costs = weights[0] + (weights[1:] @ factors).reshape(first.shape[:-1])
            first[..., 2 * n] = second[..., 2 * n + 1] = costs
    np.testing.assert_allclose(cut.residual, expected, rtol=1e-14)


@needs_numba
@given(images(), st.integers(0, 2))
def test_sums_over_cut_edges_are_those_of_the_formula(image, n_rows):
    shape, offsets, rng = image
    labels, truth = rng.integers(3, size=(2, *shape), dtype=np.uint8)
    for offset, runs in zip(offsets, Grid(offsets).runs(shape)):
        cuts = [first != second for y in (labels, truth) for first, second in Grid((offset,)).pairs(y)]
        changes = np.subtract(*cuts, dtype=float).ravel()
        factors = rng.uniform(size=(n_rows, changes.size)).astype(np.float32)
        expected = [changes.sum(), *(factors @ changes)]
        sums = sum_cut(labels.ravel(), truth.ravel(), runs, factors)
        np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-12)


@needs_numba
@given(problems(reals), st.integers(0, 2**32 - 1))
def test_folded_pixels_leave_the_least_labeling_of_the_others(problem, seed):
    (unary, offsets, capacities), rng = problem, np.random.default_rng(seed)
    known, labels = rng.uniform(size=(2, *unary.shape)) < 0.5
    certain = np.abs(unary).sum() + 2 * sum(capacity.sum() for capacity in capacities) + 1
    expected = cut_by_lists(np.where(known, np.where(labels, -certain, certain), unary), offsets, capacities)
    cut = filled(unary, offsets, capacities)
    cut.fold(known, labels)
    np.testing.assert_array_equal(np.where(known, labels, cut.labels()), expected)


@needs_numba
def test_threads_cut_side_by_side():
    images = [blobs((90, 80), seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        for labels, image in zip(pool.map(cut_by_grid, *zip(*images)), images):
            np.testing.assert_array_equal(labels, cut_by_grid(*image))
    assert module._find_maximum_flow.targetoptions["nogil"]


@needs_numba
def test_time_starts_anew_where_its_numbers_end(monkeypatch):
    problem = blobs((16, 16))
    monkeypatch.setattr(module, "_LAST_TIME", 3)
    for name in ("_find_maximum_flow", "_push_to_neighbours", "_plant", "_grow"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    with np.errstate(over="ignore"):  # steps back are large numbers
        labels, bound = cut_with_bound(*problem)
    np.testing.assert_array_equal(labels, cut_by_lists(*problem))
    assert bound == pytest.approx(cost(labels, *problem)[0])


def test_without_numba_the_package_can_be_imported_and_a_cut_says_what_is_missing():
    code = """
import sys
sys.modules["numba"] = None
from skmmcrf.field.grid_cut import available, GridCut
assert not available()
GridCut((1, 2), [(0, 1)], "f8")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.rstrip().endswith("which is not installed: use ListedCut")


def test_compiled_code_is_kept_outside_of_the_package():
    # else it would outlive the package where it is uninstalled
    assert "__pycache__" not in module._find_maximum_flow.stats.cache_path


def test_where_nothing_can_be_written_compiled_code_is_not_cached(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function")
        return lambda function: (function, options)

    monkeypatch.setattr(module, "njit", njit)
    assert module._compiled(cost) == (cost, {"nogil": True})
