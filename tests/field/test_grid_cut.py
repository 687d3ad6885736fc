"""Cuts of a grid are held against all labelings of small ones, against `minimum_cut`, and against their own flow."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import all_labelings

from skmmcrf.field import Grid, grid_cut as module, minimum_cut
from skmmcrf.field.grid_cut import available, cut_with_bound, grid_cut

pytestmark = pytest.mark.skipif(not available(), reason="numba is not installed")

OFFSETS = {
    1: [((1,),), ((1,), (3,))],
    2: [
        ((0, 1),),
        ((0, 1), (1, 0)),
        ((0, 1), (1, -1), (1, 0), (1, 1)),
        ((0, 1), (1, 0), (0, 4), (4, 0), (1, -2)),
        ((-1, 2), (0, -1), (1, 0), (-1, 0)),
    ],
    3: [((0, 0, 1), (0, 1, 0), (1, 0, 0)), ((1, -1, 1), (0, 1, -2), (1, 0, 0))],
}


def capacities_of(shape, offsets, make):
    """One array an offset, which a function makes of a shape."""
    return [make(first.shape) for first, _ in Grid(offsets).pairs(np.empty(shape))]


def cost_of(labels, unary, offsets, capacities):
    """The costs of labelings (..., *shape)."""
    moved = np.moveaxis(np.asarray(labels), range(-unary.ndim, 0), range(unary.ndim))
    cost = np.tensordot(unary, moved, unary.ndim)
    for (first, second), capacity in zip(Grid(offsets).pairs(moved), capacities):
        cost = cost + np.tensordot(capacity, first != second, unary.ndim)
    return cost


def cut_by_lists(unary, offsets, capacities):
    """The labeling of `minimum_cut`."""
    numbers = np.arange(unary.size).reshape(unary.shape)
    pairs = [np.stack([first.ravel(), second.ravel()]) for first, second in Grid(offsets).pairs(numbers)]
    return minimum_cut(unary, np.concatenate(pairs, axis=1), np.concatenate([c.ravel() for c in capacities]))


def size_of(unary, capacities):
    """What all costs may add up to, of which sums lose the last digits."""
    return np.abs(unary).sum() + sum(capacity.sum() for capacity in capacities)


@st.composite
def problems(draw, values, max_pixels=40):
    """Costs and capacities of the given kind, on grids of one to three dimensions."""
    ndim = draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 7), min_size=ndim, max_size=ndim).filter(lambda s: np.prod(s) <= max_pixels))
    offsets = draw(st.sampled_from(OFFSETS[ndim]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.3, 1.0]))  # of the capacities, the others are 0
    strength = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0]))
    unary = values(rng, shape) * rng.choice([-1, 1], shape)

    def capacity(shape):
        return np.trunc(4 * strength * values(rng, shape)) / 4 * (rng.uniform(size=shape) < share)

    def exact(shape):
        return strength * values(rng, shape) * (rng.uniform(size=shape) < share)

    return unary, offsets, capacities_of(shape, offsets, capacity if values is integers else exact)


def integers(rng, shape):
    """Small numbers, whose sums have no rounding, so that many labelings cost the same."""
    return rng.integers(0, 4, shape).astype(float)


def reals(rng, shape):
    return rng.exponential(size=shape)


def reals_of_any_size(rng, shape):
    """From 1 to 1e12, and hardly any in between."""
    return rng.exponential(size=shape) * np.where(rng.uniform(size=shape) < 0.2, 1e12, 1)


@pytest.mark.parametrize("offsets", OFFSETS[2])
@pytest.mark.parametrize("shape", [(3, 4), (1, 9), (6, 2), (1, 1)])
def test_a_cut_costs_least_of_all_labelings(shape, offsets):
    rng = np.random.default_rng(len(offsets))
    unary = rng.normal(size=shape)
    capacities = capacities_of(shape, offsets, lambda size: rng.exponential(0.4, size) * rng.integers(2, size=size))
    labelings = all_labelings(shape)
    costs = cost_of(labelings, unary, offsets, capacities)
    labels, bound = cut_with_bound(unary, offsets, capacities)
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels, labelings[costs.argmin()])
    assert bound == pytest.approx(costs.min(), abs=1e-12)


def test_a_cut_of_a_volume_costs_least_of_all_labelings():
    rng, shape, offsets = np.random.default_rng(0), (2, 2, 3), OFFSETS[3][1]
    unary = rng.normal(size=shape)
    capacities = capacities_of(shape, offsets, lambda size: rng.exponential(0.4, size))
    labelings = all_labelings(shape)
    best = cost_of(labelings, unary, offsets, capacities).argmin()
    np.testing.assert_array_equal(grid_cut(unary, offsets, capacities), labelings[best])


@pytest.mark.parametrize("values", [integers, reals, reals_of_any_size])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_are_those_of_minimum_cut_and_the_flow_proves_their_cost(values, data):
    unary, offsets, capacities = data.draw(problems(values))
    labels, bound = cut_with_bound(unary, offsets, capacities)
    reference = cut_by_lists(unary, offsets, capacities)
    size = size_of(unary, capacities)
    cost = cost_of(labels, unary, offsets, capacities)
    assert cost == pytest.approx(cost_of(reference, unary, offsets, capacities), rel=1e-9, abs=1e-14 * size)
    assert cost == pytest.approx(bound, rel=1e-9, abs=1e-14 * size)
    # of several best ones too, where the sums are exact
    np.testing.assert_array_equal(labels, reference)
