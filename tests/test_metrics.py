import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from skmmcrf.metrics import jaccard_indices, mean_jaccard


def test_jaccard_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 2, (2, 5, 6, 7))
    expected = [jaccard_score(t.ravel(), l.ravel()) for t, l in zip(truth, labels)]
    np.testing.assert_allclose(jaccard_indices(truth, labels), expected)
    assert mean_jaccard(truth, labels) == pytest.approx(np.mean(expected))


def test_only_images_empty_in_both_are_left_out():
    empty, full = np.zeros((2, 3), int), np.ones((2, 3), int)
    np.testing.assert_array_equal(
        jaccard_indices([empty, empty, full, full], [empty, full, empty, full]), [np.nan, 0, 0, 1]
    )
    assert mean_jaccard([empty, empty, full, full], [empty, full, empty, full]) == pytest.approx(1 / 3)
    assert np.isnan(mean_jaccard([empty], [empty]))
