"""Critical shifts are held against all labelings of small grids, under every shift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import all_labelings

from skmmcrf.field import Grid, grid_cut
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.parametric_cut import critical_shifts

GRIDS = [
    ((3, 4), ((0, 1), (1, 0))),
    ((3, 3), ((0, 1), (1, -1), (1, 0), (1, 1))),
    ((1, 9), ((0, 1), (0, -4), (0, 12))),
    ((2, 2, 3), ((0, 0, 1), (0, 1, 0), (1, -1, 1))),
    ((1, 1), ((0, 1),)),
]

each_cut = pytest.mark.parametrize("make_cut", [GridCut, ListedCut])


def random_problem(shape, offsets, seed, strength=1.0, values=np.random.Generator.normal):
    """Unary costs, and costs of the edges of each offset."""
    rng = np.random.default_rng(seed)
    unary = np.round(values(rng, size=shape), 12)
    return unary, [strength * np.abs(values(rng, size=first.size)) for first, _ in Grid(offsets).pairs(unary)]


def filled(make_cut, offsets, unary, costs, dtype=np.float64):
    if make_cut is GridCut and not grid_cut.available():
        pytest.skip("numba is not installed")
    cut, grid = make_cut(unary.shape, offsets, dtype), Grid(offsets)
    cut.terminal[...] = unary
    for offset, runs, of_edges in zip(offsets, grid.runs(unary.shape), costs):
        factors = of_edges.astype(np.float32)[np.newaxis]
        cut.add_edges(offset, slice(0, len(unary)), runs, np.array([0.0, 1.0]), factors)
    return cut


def all_costs(offsets, unary, costs):
    labelings = all_labelings(unary.shape)
    total = (labelings * unary).reshape(len(labelings), -1).sum(axis=1)
    for n, labels in enumerate(labelings):
        for (first, second), of_edges in zip(Grid(offsets).pairs(labels), costs):
            total[n] += of_edges.astype(np.float32).astype(float) @ (first != second).ravel()
    return labelings, total


def levels_of(shifts):
    """Shifts between those that differ, and beyond them."""
    values = np.unique(np.round(shifts, 6))
    return [values[0] - 1, *(values[1:] + values[:-1]) / 2, values[-1] + 1]


@each_cut
@pytest.mark.parametrize(("shape", "offsets"), GRIDS, ids=str)
@pytest.mark.parametrize("strength", [0.0, 0.1, 0.5, 20.0])
def test_labels_of_least_cost_change_at_their_shift(make_cut, shape, offsets, strength):
    for seed in range(3):
        problem = random_problem(shape, offsets, seed, strength)
        labelings, costs = all_costs(offsets, *problem)
        labels, shifts = critical_shifts(filled(make_cut, offsets, *problem), tol=1e-9)
        np.testing.assert_array_equal(labels, labelings[costs.argmin()])
        n_foreground = labelings.reshape(len(labelings), -1).sum(axis=1)
        for level in levels_of(shifts):
            np.testing.assert_array_equal(shifts > level, labelings[(costs + level * n_foreground).argmin()])


@each_cut
def test_without_edges_a_pixel_changes_at_its_own_cost(make_cut):
    unary, costs = random_problem((5, 6), ((0, 1),), seed=0, strength=0.0)
    _, shifts = critical_shifts(filled(make_cut, ((0, 1),), unary, costs), tol=0.0)
    np.testing.assert_allclose(shifts, -unary, rtol=1e-12, atol=1e-12)


def test_strong_edges_give_all_pixels_the_mean():
    unary, costs = random_problem((5, 6), GRIDS[0][1], seed=0, strength=1e4)
    _, shifts = critical_shifts(filled(ListedCut, GRIDS[0][1], unary, costs), tol=0.0)
    np.testing.assert_allclose(shifts, -unary.mean(), rtol=1e-9)


@each_cut
@pytest.mark.parametrize("tol", [10.0, 1.0, 0.1])
def test_no_shift_is_farther_off_than_tol(make_cut, tol):
    problem = random_problem((20, 30), GRIDS[1][1], seed=0, strength=0.3)
    (labels, exact), (others, rough) = (
        critical_shifts(filled(make_cut, GRIDS[1][1], *problem), t) for t in (1e-12, tol)
    )
    np.testing.assert_array_equal(others, labels)
    assert np.abs(rough - exact).max() <= tol
    assert (rough != exact).any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), strength=st.sampled_from([0.1, 1.0, 8.0]), ties=st.booleans())
def test_both_cuts_find_the_same_shifts_also_in_float32(seed, strength, ties):
    shape, offsets = GRIDS[seed % len(GRIDS)]
    shape = tuple(3 * n for n in shape)
    values = (lambda rng, size: rng.integers(-3, 4, size).astype(float)) if ties else np.random.Generator.normal
    problem = random_problem(shape, offsets, seed, strength, values)
    expected = critical_shifts(filled(ListedCut, offsets, *problem), tol=1e-9)[1]
    for dtype, atol in ((np.float64, 1e-8), (np.float32, 1e-3)):
        labels, shifts = critical_shifts(filled(GridCut, offsets, *problem, dtype), tol=1e-9)
        np.testing.assert_allclose(shifts, expected, rtol=0, atol=atol)
        assert (shifts[labels] > -atol).all()
        assert (shifts[~labels] < atol).all()
