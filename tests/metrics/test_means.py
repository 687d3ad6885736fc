import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measured import MEASURES, best, every_mean, worst
from strategies import CLASSES, class_labelings, labelings

from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics import jaccard_indices, mean_pooled_dice
from skmmcrf.metrics.means import jaccard_of_annotations, mean_of_defined


@every_mean
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (4, 5)])
def test_an_empty_labeling_against_a_full_one(measure, mean, shape):
    empty, full = np.zeros(shape, int), np.ones(shape, int)
    truths, found = [empty, empty, full, full], [empty, full, empty, full]
    bad, good = worst(measure, shape), best(measure)
    np.testing.assert_allclose(measure(truths, found), [np.nan, bad, bad, good])
    assert mean(truths, found) == pytest.approx((2 * bad + good) / 3)
    for nothing in (([empty], [empty], None), ([empty, full], [empty, full], [1, 0])):
        with pytest.warns(UserWarning, match="score is NaN, because no image counts: .* both_empty=") as told:
            assert np.isnan(mean(*nothing[:2], sample_weight=nothing[2]))
        assert told[0].filename == __file__
    np.testing.assert_allclose(measure(truths, found, both_empty="perfect"), [good, bad, bad, good])
    assert mean(truths, found, both_empty="perfect") == pytest.approx((bad + good) / 2)


@every_mean
@given(st.lists(labelings(max_pixels=20), min_size=1, max_size=4), st.data())
def test_means_are_over_the_images_that_count(measure, mean, pairs, data):
    truths, found = zip(*pairs)
    weights = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(pairs), max_size=len(pairs)))
    assume(any(t.any() or f.any() for w, t, f in zip(weights, truths, found) if w))
    copies = [[labels[n] for n in np.repeat(np.arange(len(pairs)), weights)] for labels in (truths, found)]
    expected = pytest.approx(np.nanmean(measure(*copies)))
    assert mean(*copies) == expected
    assert mean(truths, found, sample_weight=weights) == expected


def test_bad_weights_are_told():
    truth = np.ones((2, 2, 2), int)
    for weights, message in {(1,): r"of shape \(2,\)", (1, -1): "finite and not negative"}.items():
        for _, mean in MEASURES.values():
            with pytest.raises(ValueError, match=f"sample_weight must be {message}"):
                mean(truth, truth, sample_weight=weights)
    for weights in (np.ones(3), np.array([1, -1]), np.array([1, np.nan])):
        with pytest.raises(ValueError, match="values and weights must be of one shape .*, and no weight negative"):
            mean_of_defined(np.ones(2), weights)


@every_mean
def test_means_are_over_the_classes_of_each_image_and_then_over_the_images(measure, mean):
    truths, found = [[[0, 1, 1]], [[2, 2, 2]], [[255, 255, 255]]], [[[0, 1, 0]], [[2, 2, 2]], [[0, 1, 2]]]
    values = measure(truths, found, classes=range(3))
    first = values[0, :2].mean()
    assert first != best(measure)
    assert mean(truths, found, classes=range(3)) == pytest.approx((first + best(measure)) / 2)
    weighted = mean(truths, found, classes=range(3), sample_weight=[3, 1, 1])
    assert weighted == pytest.approx((3 * first + best(measure)) / 4)


@given(class_labelings())
def test_annotations_have_the_mean_index_of_their_classes(pair):
    annotation = LabelScheme(several=CLASSES).read(pair[0], "y")
    labels = LabelScheme(several=CLASSES).read(pair[1], "y").truth
    expected = jaccard_indices([pair[0]], [pair[1]], classes=CLASSES)[0]
    expected = np.nan if np.isnan(expected).all() else np.nanmean(expected)
    np.testing.assert_allclose(jaccard_of_annotations([annotation.completed(labels)], [labels]), [expected])


def test_pooled_measures_of_nothing_are_nan():
    unlabelled = [[[255, 255]]]
    with pytest.warns(UserWarning, match="score is NaN") as told:
        assert np.isnan(mean_pooled_dice(unlabelled, [[[0, 1]]], classes=range(3)))
    assert told[0].filename == __file__
