import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from strategies import CLASSES, class_labelings

from skmmcrf.metrics import (
    confusion_matrices,
    dice_of_confusion,
    jaccard_indices,
    jaccard_of_confusion,
    mean_pooled_dice,
    mean_pooled_jaccard,
    pooled_dice_indices,
    pooled_jaccard_indices,
)


@given(st.lists(class_labelings(), min_size=1, max_size=4))
def test_counts_and_indices_are_those_of_scikit_learn(pairs):
    truths, found = zip(*pairs)
    assume(all((truth != 255).any() for truth in truths))
    matrices = confusion_matrices(truths, found, classes=CLASSES)
    pixels = [(truth[truth != 255], labels[truth != 255]) for truth, labels in pairs]
    for matrix, row, both in zip(matrices, jaccard_indices(truths, found, classes=CLASSES), pixels):
        np.testing.assert_array_equal(matrix, confusion_matrix(*both, labels=CLASSES))
        np.testing.assert_allclose(row, jaccard_of_confusion(matrix))
    of_all = [np.concatenate(each) for each in zip(*pixels)]
    occurs = np.isin(CLASSES, np.concatenate(of_all))
    for measures, mean, of_confusion, score in (
        (pooled_jaccard_indices, mean_pooled_jaccard, jaccard_of_confusion, jaccard_score),
        (pooled_dice_indices, mean_pooled_dice, dice_of_confusion, f1_score),
    ):
        pooled = measures(truths, found, classes=CLASSES)
        np.testing.assert_array_equal(np.isnan(pooled), ~occurs)
        expected = score(*of_all, labels=CLASSES, average=None, zero_division=0)
        np.testing.assert_allclose(pooled[occurs], expected[occurs])
        np.testing.assert_array_equal(of_confusion(matrices.sum(axis=0)), pooled)
        assert mean(truths, found, classes=CLASSES) == pytest.approx(np.nanmean(pooled))
        twice = measures([*truths, truths[0]], [*found, found[0]], classes=CLASSES)
        weights = [2, *[1] * (len(truths) - 1)]
        np.testing.assert_allclose(measures(truths, found, classes=CLASSES, sample_weight=weights), twice)
        assert mean(truths, found, classes=CLASSES, sample_weight=weights) == pytest.approx(np.nanmean(twice))


def test_without_classes_pooled_measures_are_of_background_and_foreground():
    truths, found = [[[0, 255, 255, 7]], [[0, 0, 0, 0]]], [[[0, 255, 0, 0]], [[0, 0, 0, 255]]]
    matrices = confusion_matrices(truths, found, pos_label=255, ignore_label=7)
    np.testing.assert_array_equal(matrices, [[[1, 0], [1, 1]], [[3, 1], [0, 0]]])
    pooled = pooled_jaccard_indices(truths, found, pos_label=255, ignore_label=7)
    np.testing.assert_allclose(pooled, [4 / 6, 1 / 3])
    np.testing.assert_array_equal(confusion_matrices([[[True]]], [[[False]]]), [[[0, 0], [1, 0]]])


@pytest.mark.parametrize("confusion", [[[1, 2, 3]], [1, 2], 3])
def test_counts_that_are_no_confusion_matrix_are_refused(confusion):
    for measure in (jaccard_of_confusion, dice_of_confusion):
        with pytest.raises(ValueError, match="confusion must be of shape"):
            measure(confusion)
