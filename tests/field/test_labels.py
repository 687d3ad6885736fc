import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from skmmcrf.field import UNLABELLED, Annotation
from skmmcrf.field.labels import balanced_class_weight, pack_labeling, unpack_labelings

PROPERTIES = ("truth", "labelled", "mask", "pixel_weights", "is_fully_labelled", "weight", "class_weight")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (2, 3, 4)])
def test_packing_loses_nothing(shape):
    rng = np.random.default_rng(0)
    labelings = rng.uniform(size=(5, *shape)) < 0.5
    packed = list(map(pack_labeling, labelings))
    np.testing.assert_array_equal(unpack_labelings(packed, shape), labelings)
    assert unpack_labelings([], shape).shape == (0, *shape)

    truth, labelled = labelings[:2]
    labelled.flat[0] = False
    annotation = Annotation(truth, labelled, class_weight=(2.0, 5.0))
    np.testing.assert_array_equal(annotation.labelled, labelled)
    np.testing.assert_array_equal(annotation.truth, truth & labelled)
    np.testing.assert_array_equal(annotation.mask, np.where(labelled, truth, UNLABELLED))
    np.testing.assert_array_equal(annotation.pixel_weights, np.where(labelled, np.where(truth, 5, 2), 0))
    np.testing.assert_array_equal(annotation.margin, np.where(truth, -1, 1) * annotation.pixel_weights)
    for labels in labelings:
        assert annotation.loss(labels) == annotation.pixel_weights[labels != truth].sum()
    completed = annotation.completed(labelings[2])
    assert completed.loss(labelings[3]) == annotation.loss(labelings[3])
    assert annotation.mask.dtype == np.uint8
    assert annotation.shape == shape
    assert not annotation.is_fully_labelled


def test_all_labelled_is_fully_labelled():
    truth = np.eye(3, dtype=bool)
    for labelled in (None, np.ones((3, 3), bool)):
        annotation = Annotation(truth, labelled)
        assert annotation.is_fully_labelled
        assert annotation.labelled.all()
        np.testing.assert_array_equal(annotation.mask, truth)
        np.testing.assert_array_equal(annotation.pixel_weights, np.ones((3, 3)))


def test_labelled_must_have_the_shape_of_the_truth():
    with pytest.raises(ValueError, match=r"labelled must have the shape of truth, \(1, 2\), got \(2, 1\)"):
        Annotation(np.zeros((1, 2), bool), np.ones((2, 1), bool))


def test_completion_gives_unlabelled_pixels_alone_other_labels():
    annotation = Annotation(np.array([[True, False, False, False]]), np.array([[True, True, False, False]]))
    completed = annotation.completed(np.array([[False, True, True, False]]))
    np.testing.assert_array_equal(completed.truth, [[True, False, True, False]])
    np.testing.assert_array_equal(completed.mask, [[1, 0, 255, 255]])
    np.testing.assert_array_equal(completed.pixel_weights, [[1, 1, 0, 0]])
    np.testing.assert_array_equal(completed.completed(np.zeros((1, 4), bool)).truth, annotation.truth)


def test_an_annotation_never_changes():
    rng = np.random.default_rng(0)
    truth, labelled, labels = rng.uniform(size=(3, 4, 5)) < 0.5
    annotation = Annotation(truth, labelled, weight=2.0, class_weight=(1.0, 3.0))
    before = {name: getattr(annotation, name) for name in PROPERTIES}
    completed = annotation.completed(labels)
    weighted = annotation.weighted(7.0, (5.0, 6.0))
    truth[:] = labelled[:] = True  # what it was made of, and what it gave
    annotation.truth[:] = annotation.labelled[:] = True
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(annotation, name), value)
    assert (completed.weight, completed.class_weight) == (2.0, (1.0, 3.0))
    assert (weighted.weight, weighted.class_weight) == (7.0, (5.0, 6.0))
    np.testing.assert_array_equal(weighted.mask, annotation.mask)
    np.testing.assert_array_equal(weighted.pixel_weights, before["labelled"] * np.where(before["truth"], 6.0, 5.0))


def test_balanced_weights_are_those_of_scikit_learn_within_bounds():
    rng = np.random.default_rng(0)
    truths = [rng.uniform(size=(7, 9)) < 0.2 for _ in range(3)]
    pixels = np.concatenate(list(map(np.ravel, truths)))
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=pixels)
    found = balanced_class_weight(map(Annotation, truths), (1e-4, 1e4))
    np.testing.assert_allclose(found, expected)
    assert balanced_class_weight(map(Annotation, truths), (0.9, 1.5)) == (0.9, 1.5)


def test_balanced_weights_count_labelled_pixels_by_the_weight_of_their_image():
    def balanced(*annotations):
        return balanced_class_weight(annotations, (1e-4, 1e4))

    one, other = np.array([[True, False, False]]), np.array([[True, True, False]])
    repeated = balanced(Annotation(one), Annotation(other), Annotation(other))
    assert balanced(Annotation(one), Annotation(other, weight=2.0)) == repeated
    partly = Annotation(np.array([[True, False, False, True]]), np.array([[True, True, True, False]]))
    assert balanced(partly) == balanced(Annotation(one))
    assert balanced(Annotation(np.zeros((2, 2), bool))) == (1.0, 1.0)


def test_labels_of_several_classes_are_packed_weighted_and_completed():
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(4, size=(2, 7, 9), dtype=np.uint8)
    labelled, class_weight = rng.uniform(size=truth.shape) < 0.6, (0.5, 2.0, 3.0, 1.0)
    annotation = Annotation(truth, labelled, weight=2.0, class_weight=class_weight)
    assert (annotation.n_labels, annotation.dtype, annotation.is_fully_labelled) == (4, np.uint8, False)
    np.testing.assert_array_equal(annotation.truth, truth * labelled)
    np.testing.assert_array_equal(annotation.labelled, labelled)
    np.testing.assert_array_equal(annotation.mask, np.where(labelled, truth, UNLABELLED))
    np.testing.assert_array_equal(annotation.pixel_weights, np.array(class_weight)[truth] * labelled)
    assert annotation.loss(labels) == annotation.pixel_weights[labels != truth].sum()
    completed = annotation.completed(labels)
    np.testing.assert_array_equal(completed.truth, np.where(labelled, truth, labels))
    np.testing.assert_array_equal(completed.mask, annotation.mask)
    packed = [pack_labeling(y) for y in (truth, labels)]
    unpacked = unpack_labelings(packed, truth.shape, np.uint8)
    np.testing.assert_array_equal(unpacked, [truth, labels])
    unpacked[0] = 0  # it can be written to


def test_two_classes_are_the_same_by_number_and_by_bool():
    rng = np.random.default_rng(0)
    truth, labelled, labels = rng.uniform(size=(3, 7, 9)) < 0.5
    one, other = (Annotation(y, labelled, class_weight=(1.0, 3.0)) for y in (truth, truth.astype(np.uint8)))
    for name in ("truth", "mask", "pixel_weights", "margin"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.loss(labels) == other.loss(labels.astype(np.uint8))


def test_labels_without_a_class_weight_and_other_dtypes_are_refused():
    truth = np.array([[0, 1, 3]], np.uint8)
    with pytest.raises(
        ValueError, match="truth must hold the labels 0 to 2, one for each entry of class_weight, got 3"
    ):
        Annotation(truth, class_weight=(1.0, 1.0, 1.0))
    Annotation(truth, truth < 3, class_weight=(1.0, 1.0, 1.0))
    for other in (truth.astype(int), truth.astype(float)):
        with pytest.raises(TypeError, match=f"truth must be of bool or uint8, got {other.dtype}"):
            Annotation(other)


def test_balanced_weights_of_several_classes_are_those_of_scikit_learn_and_leave_out_missing_ones():
    truth = np.random.default_rng(0).choice(4, size=(9, 9), p=[0.5, 0.3, 0.2, 0.0]).astype(np.uint8)
    annotation = Annotation(truth, class_weight=(1.0,) * 4)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=truth.ravel())
    np.testing.assert_allclose(balanced_class_weight([annotation], (1e-4, 1e4)), [*expected, 1.0])
    assert balanced_class_weight([], (1e-4, 1e4)) == (1.0, 1.0)
