import numpy as np
import pytest

from skmmcrf.energy import joint_feature_difference
from skmmcrf.labelings import Labelings


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (4, 8)])
def test_labelings_come_back_as_they_were_stored(shape):
    rng = np.random.default_rng(0)
    stored = Labelings(np.zeros(shape, dtype=bool))
    labelings = np.unique(rng.uniform(size=(5, *shape)) < 0.5, axis=0)
    for labels in labelings:
        assert stored.add(labels, np.ones(3), 1.0)
        assert not stored.add(labels.copy(), np.ones(3), 1.0)
    assert len(stored) == len(stored.losses) == len(labelings)
    np.testing.assert_array_equal(stored.unpack(range(len(labelings))), labelings)
    assert stored.unpack([]).shape == (0, *shape)


def test_repricing_gives_the_constraint_of_the_new_log_odds(random_grid):
    log_odds, _, truth, edges, features = random_grid(0)
    stored = Labelings(truth)
    rng = np.random.default_rng(1)
    labelings = [rng.uniform(size=truth.shape) < 0.5 for _ in range(4)]
    for labels in labelings:
        stored.add(labels, joint_feature_difference(labels, truth, log_odds, edges, features), 1.0)
    changed = log_odds + rng.normal(size=truth.shape)
    stored.reprice(changed)
    expected = [joint_feature_difference(labels, truth, changed, edges, features) for labels in labelings]
    np.testing.assert_allclose(stored.differences, expected)


def test_labelings_that_ask_for_most_slack_are_kept_in_their_order():
    rng = np.random.default_rng(0)
    stored = Labelings(np.zeros((6, 7), dtype=bool))
    w = np.array([0.5, 0.1, 0.2])
    for _ in range(12):
        stored.add(rng.uniform(size=(6, 7)) < 0.5, rng.normal(size=3), float(rng.uniform(0, 9)))
    labelings, losses, differences = stored.unpack(range(len(stored))), stored.losses, stored.differences
    slacks = np.array(losses) - np.array(differences) @ w
    kept = np.flatnonzero(slacks >= np.sort(slacks)[-4])
    stored.keep_most_violated(w, 4)
    np.testing.assert_array_equal(stored.unpack(range(4)), labelings[kept])
    np.testing.assert_array_equal(stored.differences, np.array(differences)[kept])
    assert stored.losses == [losses[k] for k in kept]
    stored.keep_most_violated(w, 9)
    assert len(stored) == 4
