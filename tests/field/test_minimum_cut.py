import numpy as np
import pytest
from small_images import all_labelings

from skmmcrf.field import minimum_cut

EDGE = np.array([[0], [1]])


@pytest.mark.parametrize("shape", [(1,), (6,), (3, 3), (2, 2, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_a_cut_costs_least_of_all_labelings(shape, seed):
    rng = np.random.default_rng(seed)
    unary = rng.normal(size=shape)
    edges = rng.integers(unary.size, size=(2, 3 * unary.size))  # any, some twice
    edges = edges[:, edges[0] != edges[1]]
    capacities = rng.exponential(0.3, edges.shape[1]) * rng.integers(2, size=edges.shape[1])
    flat = all_labelings(shape).reshape(-1, unary.size)
    costs = flat @ unary.ravel() + (flat[:, edges[0]] != flat[:, edges[1]]) @ capacities
    labels = minimum_cut(unary, edges, capacities)
    assert labels.dtype == bool
    np.testing.assert_array_equal(labels.ravel(), flat[costs.argmin()])


@pytest.mark.parametrize("size", [1e-300, 1e10])
def test_costs_may_be_tiny_or_huge(size):
    costs, capacities = size * np.array([-3.0, 1.0, -1.0]), size * np.array([0.6, 0.6])
    assert minimum_cut(costs, np.array([[0, 1], [1, 2]]), capacities).all()


@pytest.mark.parametrize(
    ("unary", "edges", "capacities", "message"),
    [
        ([0, 0], EDGE, [-0.5], "capacities must not be negative, got -0.5"),
        ([0, np.nan], EDGE, [1], "must be finite"),
        ([0, -np.inf], EDGE, [1], "must be finite"),
        ([0, 0], EDGE, [np.inf], "must be finite"),
        ([0, 0], EDGE, [np.nan], "must be finite"),
        ([0, 0], EDGE + 1, [1], "edges must be between pixels 0 and 1, got 1 to 2"),
        ([0, 0], EDGE - 1, [1], "edges must be between pixels 0 and 1, got -1 to 0"),
        ([0, 0], EDGE, [1, 1], "edges must be integers of shape"),
        ([0, 0], EDGE, [[1]], "edges must be integers of shape"),
        ([0, 0], EDGE.T, [1], "edges must be integers of shape"),
        ([0, 0], EDGE.astype(float), [1], "edges must be integers of shape"),
        ([], EDGE[:, :0], [], "unary must have at least one pixel"),
    ],
)
def test_what_cannot_be_cut_is_refused(unary, edges, capacities, message):
    with pytest.raises(ValueError, match=message):
        minimum_cut(np.array(unary, dtype=float), edges, np.array(capacities, dtype=float))
