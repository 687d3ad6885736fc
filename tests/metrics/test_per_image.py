import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measured import best, every_measure, worst
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn.metrics import f1_score, jaccard_score
from strategies import CLASSES, class_labelings, labelings

from skmmcrf.field import Annotation
from skmmcrf.metrics import boundary_f_measures, dice_indices, hausdorff_distances, jaccard_indices
from skmmcrf.metrics.means import jaccard_of_annotations


def two_with_foreground():
    return labelings().filter(lambda pair: all(labels.any() for labels in pair))


def boundary(foreground):
    """The foreground pixels that are not amid four others."""
    pixels = set(zip(*np.nonzero(foreground)))
    return [(i, j) for i, j in pixels if not {(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)} <= pixels]


@given(labelings(number=3), labelings(number=1))
def test_overlap_equals_that_of_scikit_learn_over_the_labelled_pixels(three, other):
    truth, found, labelled = three
    assume((truth & labelled).any())
    labels = np.where(labelled, truth, 255).astype(np.uint8)
    for measure, reference in ((jaccard_indices, jaccard_score), (dice_indices, f1_score)):
        expected = reference(truth[labelled], found[labelled])
        assert measure([*other, labels], [*other, found])[1] == pytest.approx(expected)
    of_annotations = jaccard_of_annotations([Annotation(truth, labelled)], [found])
    np.testing.assert_array_equal(of_annotations, jaccard_indices([labels], [found]))


@given(two_with_foreground(), st.sampled_from([0, 50, 95, 100]), st.sampled_from([0, 1, 1.2, 1.5, 2, 3]))
def test_measures_of_boundaries_equal_those_of_all_distances(pair, percentile, tolerance):
    one, other = map(boundary, pair)
    distances = cdist(one, other)
    pair = [[labels] for labels in pair]
    greatest = max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0])
    assert hausdorff_distances(*pair) == pytest.approx(greatest)
    expected = max(np.percentile(distances.min(axis=axis), percentile) for axis in (0, 1))
    assert hausdorff_distances(*pair, percentile=percentile) == pytest.approx(expected)
    precision, recall = (np.mean(distances.min(axis=axis) <= tolerance) for axis in (0, 1))
    expected = 2 / (1 / precision + 1 / recall) if precision else 0
    assert boundary_f_measures(*pair, tolerance=tolerance) == pytest.approx(expected)


@pytest.mark.parametrize(("shape", "tolerance"), [((30, 40), 1), ((300, 400), 3.75)])
def test_boundary_tolerance_grows_with_the_diagonal_from_one_pixel_on(shape, tolerance):
    def measured(shift):
        truth, found = np.zeros((2, *shape), bool)
        truth[10, 10] = found[10, 10 + shift] = True
        return boundary_f_measures([truth], [found])[0]

    assert [measured(shift) for shift in range(6)] == [shift <= tolerance for shift in range(6)]


@every_measure
@given(pair=labelings())
def test_measures_are_symmetric_and_in_their_range_and_only_the_truth_is_perfect(measure, pair):
    truth, found = ([labels] for labels in pair)
    value = measure(truth, found)
    assert value.dtype == float
    np.testing.assert_array_equal(measure(found, truth), value)
    np.testing.assert_array_equal(measure(np.flip(truth, axis=2), np.flip(found, axis=2)), value)
    if not (truth[0].any() or found[0].any()):
        assert np.isnan(value[0])
        return
    limits = sorted([best(measure), worst(measure, truth[0].shape)])
    assert limits[0] <= value[0] <= limits[1]
    if measure in (jaccard_indices, dice_indices):
        assert (value[0] == 1) == np.array_equal(truth, found)
    else:
        exact = {"tolerance": 0} if measure is boundary_f_measures else {}
        same_boundary = set(boundary(truth[0])) == set(boundary(found[0]))
        assert (measure(truth, found, **exact)[0] == best(measure)) == same_boundary


@every_measure
def test_an_image_without_any_label_never_counts(measure):
    truths, found = [[[255, 255]], [[255, 0]]], [[[0, 1]], [[1, 0]]]
    for both_empty, of_second in {"omit": np.nan, "perfect": best(measure)}.items():
        measured = measure(truths, found, ignore_label=255, both_empty=both_empty)
        np.testing.assert_array_equal(measured, [np.nan, of_second])


@every_measure
@given(four=labelings(number=4), ignore_label=st.sampled_from([255, 2, -1]), pos_label=st.sampled_from([1, 7, 254]))
def test_the_labels_of_the_foreground_and_what_is_unlabelled_do_not_matter(measure, four, ignore_label, pos_label):
    truth, found, other, unlabelled = four
    labels = np.where(unlabelled, ignore_label, pos_label * truth)
    expected = measure([truth & ~unlabelled], [found & ~unlabelled])
    for prediction in (
        found,
        np.where(unlabelled, other, found),
        np.where(unlabelled, np.nan, pos_label * found),
    ):
        measured = measure([labels], [prediction], ignore_label=ignore_label, pos_label=pos_label)
        np.testing.assert_array_equal(measured, expected)
    np.testing.assert_array_equal(measure([truth], [pos_label * found], pos_label=pos_label), measure([truth], [found]))


def test_types_of_labels_do_not_matter():
    truth, classes = [[[255, -3, 1, 0]]], np.array([-3, 0, 1], np.int8)
    for found in (np.array([[[9, 1, 1, 0]]], np.uint8), [[[True, True, True, False]]], [[[np.nan, 1.0, 1.0, 0.0]]]):
        np.testing.assert_array_equal(jaccard_indices(truth, found, classes=classes), [[0, 1, 0.5]])


def as_foreground(label, truth, found):
    """A class as foreground, without pixels that are unlabelled."""
    return [(truth == label).astype(int)], [(found == label) & (truth != 255)]


@every_measure
@given(pair=class_labelings())
def test_each_class_takes_its_turn_as_foreground(measure, pair):
    of_classes = measure([pair[0]], [pair[1]], classes=CLASSES)
    assert of_classes.shape == (1, 4)
    expected = [measure(*as_foreground(label, *pair))[0] for label in CLASSES]
    np.testing.assert_array_equal(of_classes[0], expected)
    perfect = measure([pair[0]], [pair[1]], classes=CLASSES, both_empty="perfect")[0]
    if_empty = best(measure) if (pair[0] != 255).any() else np.nan
    np.testing.assert_array_equal(perfect, np.where(np.isnan(expected), if_empty, expected))
