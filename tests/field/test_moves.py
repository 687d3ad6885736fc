import numpy as np
import pytest
from small_images import all_labelings, random_classes, random_weights

from skmmcrf.field import grid_cut
from skmmcrf.field.moves import CutMoves, GridMoves

W = np.array([1.0, 0.4, 0.6])


@pytest.fixture
def both(monkeypatch):
    """A function that gives the problem of an energy whose moves cut some pixels, and the one whose cut all."""
    if not grid_cut.available():
        pytest.skip("PyMaxflow cuts all pixels")

    def problems(energy):
        some = energy._problem(W)
        with monkeypatch.context() as patch:
            patch.setattr(grid_cut, "available", lambda: False)
            whole = energy._problem(W)
        assert (type(some.moves), type(whole.moves)) == (GridMoves, CutMoves)
        return some, whole

    return problems


def _a_move(problem, rng):
    """A labeling, a label, what it changes of unary costs, and which pixels may move."""
    labels = rng.integers(problem.n_labels, size=problem.shape, dtype=np.uint8)
    label = int(rng.integers(problem.n_labels))
    changes = problem.unary(label) - problem.unary_of(labels)
    return labels, label, changes, (labels != label) & (rng.random(problem.shape) < 0.8)


@pytest.mark.parametrize(("shape", "connectivity"), [((7, 9), 4), ((7, 9), 8), ((1, 30), 8), ((3, 4, 5), 26)], ids=str)
def test_cuts_of_some_pixels_find_the_moves_of_cuts_of_all(both, shape, connectivity):
    rng, n_moved = np.random.default_rng(0), 0
    for seed in range(5):
        problem, whole = both(random_classes(seed, shape, 4, connectivity, scale=1.0)[0])
        for _ in range(20):  # by the same arrays, which each move leaves as they were
            move = _a_move(problem, rng)
            found, cost = problem.moves.best(*move)
            expected, expected_cost = whole.moves.best(*move)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(cost, expected_cost, atol=1e-9)
            n_moved += found.any()
    assert n_moved > 50


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("compatibility", ["potts", "metric"])
def test_the_best_move_costs_as_little_as_any_and_needs_no_pixel_that_would_lose(seed, compatibility):
    rng = np.random.default_rng(seed)
    energy, _ = random_classes(seed, n_labels=4, compatibility=compatibility)
    problem = energy._problem(random_weights(seed, energy.weights))
    labels, label, changes, may_move = _a_move(problem, rng)

    def cost(moves):
        moved = np.where(moves, np.uint8(label), labels)
        return changes[moves].sum() + problem.edge_costs(moved, labels)

    may_gain = may_move & (changes < problem.moves.most_saved)
    found, edges = problem.moves.best(labels, label, changes, may_gain)
    assert cost(found) == pytest.approx(min(cost(moves & may_move) for moves in all_labelings((3, 3))), abs=1e-9)
    assert cost(found) == pytest.approx(changes[found].sum() + edges, abs=1e-9)


def test_a_move_leaves_no_trace_in_the_arrays_of_the_next_one(both):
    problem, _ = both(random_classes(0, (6, 6), 3)[0])
    search, rng = problem.moves.search, np.random.default_rng(0)
    for _ in range(5):
        problem.moves.best(*_a_move(problem, rng))
        for array in (search.residual, search.terminal, search.tree, search.stamp, search.following, search.ends[::2]):
            assert not array.any()


def test_what_pixels_may_save_is_the_cost_of_their_edges():
    energy, _ = random_classes(0, (2, 3), connectivity=4, pairwise="smoothness")
    most = energy._problem(np.array([1.0, 0.5])).moves.most_saved
    np.testing.assert_array_equal(most, [[1.0, 1.5, 1.0], [1.0, 1.5, 1.0]])
