import numpy as np
import pytest

from skmmcrf.truth import Truth, balanced_class_weight


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8)])
def test_packing_loses_nothing(shape):
    rng = np.random.default_rng(0)
    foreground, labelled = rng.uniform(size=(2, *shape)) < 0.5
    labelled[0, 0] = False
    truth = Truth(foreground, labelled, class_weight=(2.0, 5.0))
    np.testing.assert_array_equal(truth.labelled, labelled)
    np.testing.assert_array_equal(truth.foreground, foreground & labelled)
    np.testing.assert_array_equal(truth.labels, np.where(labelled, foreground, 255))
    np.testing.assert_array_equal(truth.pixel_weights, np.where(labelled, np.where(foreground, 5, 2), 0))
    assert truth.shape == shape
    assert not truth.is_complete


def test_all_labelled_is_complete():
    foreground = np.eye(3, dtype=bool)
    for labelled in (None, np.ones((3, 3), bool)):
        truth = Truth(foreground, labelled)
        assert truth.is_complete
        assert truth.labelled.all()
        np.testing.assert_array_equal(truth.labels, foreground)


def test_completion_changes_unlabelled_pixels_alone():
    truth = Truth(np.array([[True, False, False, False]]), np.array([[True, True, False, False]]))
    truth.complete(np.array([[False, True, True, False]]))
    np.testing.assert_array_equal(truth.foreground, [[True, False, True, False]])
    np.testing.assert_array_equal(truth.labels, [[1, 0, 255, 255]])
    np.testing.assert_array_equal(truth.pixel_weights, [[1, 1, 0, 0]])


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    rng = np.random.default_rng(0)
    labels = [rng.uniform(size=(7, 9)) < 0.2 for _ in range(3)]
    pixels = np.concatenate([l.ravel() for l in labels])
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=pixels)
    np.testing.assert_allclose(balanced_class_weight([Truth(l) for l in labels]), expected)


def test_balanced_weights_count_labelled_pixels_by_the_weight_of_their_image():
    one, other = np.array([[True, False, False]]), np.array([[True, True, False]])
    repeated = balanced_class_weight([Truth(one), Truth(other), Truth(other)])
    assert balanced_class_weight([Truth(one, weight=1.0), Truth(other, weight=2.0)]) == repeated
    unlabelled = Truth(np.array([[True, False, False, True]]), np.array([[True, True, True, False]]))
    assert balanced_class_weight([unlabelled]) == balanced_class_weight([Truth(one)])
    assert balanced_class_weight([Truth(np.zeros((2, 2), bool))]) == (1.0, 1.0)
