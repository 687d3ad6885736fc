import numpy as np
import pytest
from scipy.sparse.csgraph import floyd_warshall
from small_images import random_weights

from skmmcrf.field import PairWeights

METRIC = PairWeights(2, 4, "metric")


def is_metric(matrix):
    """Whether not even rounding makes an entry larger than a sum of two by way of a third label."""
    return bool((matrix[:, np.newaxis] <= matrix[:, :, np.newaxis] + matrix[np.newaxis]).all())


def test_weights_come_term_by_term_and_pair_by_pair():
    w = np.arange(13.0)
    first, second = METRIC.matrices(w)
    np.testing.assert_array_equal(first, [[0, 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]])
    np.testing.assert_array_equal(second, first + 6 * (1 - np.eye(4)))
    assert (METRIC.n_pairs, METRIC.n_weights) == (6, 13)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_a_potts_term_has_one_weight_for_all_pairs(n_labels):
    weights = PairWeights(2, n_labels)
    assert (weights.n_pairs, weights.n_weights) == (1, 3)
    different = 1 - np.eye(n_labels)
    np.testing.assert_array_equal(weights.matrices(np.array([1.0, 0.3, 0.5])), [0.3 * different, 0.5 * different])
    np.testing.assert_array_equal(weights.closed(np.array([-1.0, 0.3, -0.5])), [-1, 0.3, 0])
    assert len(weights.triangles(np.array([1.0, 0.3, 0.5]), np.inf)) == 0


def test_of_two_labels_both_kinds_are_the_same():
    of_both = [PairWeights(2, 2, compatibility) for compatibility in ("potts", "metric")]
    w = np.array([1.0, 0.3, 0.5])
    for give in (lambda p: p.n_weights, lambda p: p.pairs, lambda p: p.matrices(w), lambda p: p.triangles(w, np.inf)):
        np.testing.assert_array_equal(*map(give, of_both))


@pytest.mark.parametrize("n_labels", [3, 4, 7])
def test_closed_weights_are_the_shortest_paths_and_a_metric_to_the_last_digit(n_labels):
    for seed in range(20):
        weights = PairWeights(1, n_labels, "metric")
        w = np.append(-1.0, np.random.default_rng(seed).exponential(size=weights.n_pairs))
        closed = weights.closed(w)
        (matrix,) = weights.matrices(closed)
        assert is_metric(matrix)
        np.testing.assert_allclose(matrix, floyd_warshall(weights.matrices(w)[0]))
        np.testing.assert_array_equal(weights.closed(closed), closed)
        assert closed[0] == -1
        weights.check(closed)
        np.testing.assert_array_equal(weights.closed(-w), np.eye(1, len(w))[0])


def test_triangles_are_the_inequalities_of_all_thirds():
    w = np.append(1.0, np.random.default_rng(0).exponential(size=12))
    expected = [
        (matrix[a, c] + matrix[c, b] - matrix[a, b], t)
        for t, matrix in enumerate(METRIC.matrices(w))
        for a in range(4)
        for b in range(a + 1, 4)
        for c in range(4)
        if c not in (a, b)
    ]
    rows = METRIC.triangles(w, np.inf)
    assert rows.shape == (24, 13)
    np.testing.assert_allclose(np.sort(rows @ w), sorted(value for value, _ in expected))
    np.testing.assert_array_equal(np.abs(rows).sum(axis=1), 3)
    of_terms = [np.abs(rows[:, first : first + 6]).sum() for first in (1, 7)]
    assert of_terms == [36, 36]
    violated = METRIC.triangles(w, 0.0)
    assert len(violated) == sum(value < 0 for value, _ in expected) > 0
    assert (violated @ w < 0).all()
    assert len(METRIC.triangles(METRIC.closed(w), 0.0)) == 0


def test_weights_that_are_not_allowed_are_refused():
    w = random_weights(0, METRIC)
    METRIC.check(w)
    METRIC.check(np.zeros(13))
    METRIC.check(np.append(1.0, w[1:] * (1 + 1e-12 * np.random.default_rng(0).normal(size=12))))
    beyond = w.copy()
    beyond[1] = w[2] + w[4] + 0.001  # 0 to 1, by way of 2
    for wrong, message in [
        (w[:-1], r"w must be of shape \(13,\)"),
        (w * np.nan, "w must be finite"),
        (-w, "must not be negative"),
        (beyond, "must not exceed the sum of weights by way of a third label"),
    ]:
        with pytest.raises(ValueError, match=message):
            METRIC.check(wrong)
