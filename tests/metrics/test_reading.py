import numpy as np
import pytest
from measured import Given, Labelled, best, every_mean
from scipy.sparse import csr_array
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics import make_segmentation_scorer
from skmmcrf.metrics.reading import label_scheme_of


@every_mean
def test_255_is_unlabelled_unless_it_is_the_foreground(measure, mean):
    found = np.array([[[0, 1, 1]]])
    assert measure(np.array([[[0, 255, 1]]]), found) == best(measure)
    masks = 255 * found
    assert measure(masks, masks, pos_label=255) == measure(masks, found == 1, pos_label=255) == best(measure)
    for each in (measure, mean):
        with pytest.raises(ValueError, match="give pos_label=255 if it is the foreground, or ignore_label=255"):
            each(masks, found)
    np.testing.assert_array_equal(measure(masks, found, ignore_label=255), [np.nan])


@every_mean
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y_true": []}, ValueError, "y_true is empty"),
        ({"y_true": csr_array(np.eye(3))}, TypeError, "y_true must be dense"),
        ({"y_true": [np.zeros((4, 5)), np.zeros(4)]}, ValueError, r"y_true\[1\] must be of shape \(H, W\)"),
        ({"y_true": np.full((2, 4, 5), 3)}, ValueError, r"y_true\[0\] .* 0, 1 and 255 only, found \[3\]"),
        ({"y_pred": None}, TypeError, "y_pred must be an array or a list of arrays, got NoneType"),
        ({"y_pred": np.zeros((3, 4, 5))}, ValueError, "y_true and y_pred must have the same length, got 2 and 3"),
        ({"y_pred": np.zeros((2, 5, 4))}, ValueError, r"y_pred\[0\] has shape \(5, 4\), but y_true\[0\] has \(4, 5\)"),
        ({"y_pred": [np.zeros((4, 5)), [[0, 1], [1]]]}, ValueError, r"y_pred\[1\] can't be made an array"),
        ({"y_pred": np.full((2, 4, 5), 255)}, ValueError, r"y_pred\[0\] .* 0 and 1 only, found \[255\]"),
        ({"y_pred": np.zeros((2, 4, 5), complex)}, ValueError, r"y_pred\[0\] must hold the labels .* complex128"),
        ({"pos_label": 2, "ignore_label": 2}, ValueError, "ignore_label must be neither 0, .* nor pos_label=2, got 2"),
    ],
)
def test_bad_input_is_told(measure, mean, change, error, message):
    arguments = {"y_true": np.ones((2, 4, 5), int), "y_pred": np.ones((2, 4, 5), int)} | change
    for each in (measure, mean):
        with pytest.raises(error, match=message):
            each(**arguments)


@every_mean
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_true": [[[0, 3]]]}, r"y_true\[0\] must hold the labels 0, 1, 2 and 255 only, found \[3\]"),
        ({"y_pred": [[[0, 255]]]}, r"y_pred\[0\] must hold the labels 0, 1 and 2 only, found \[255\]"),
        ({"y_pred": [[[0]]]}, r"y_pred\[0\] has shape \(1, 1\), but y_true\[0\] has \(1, 2\)"),
        *(
            ({"classes": wrong}, "classes must be 2 to 255 integers in ascending order, such as range")
            for wrong in (3, ["a", "b"], [0], np.uint8([0, 2, 1]), [0, 1, 1])
        ),
        ({"ignore_label": 2}, "ignore_label must not be one of the classes, got 2"),
        ({"pos_label": 2}, "pos_label is for two labels: leave it out for several classes, got 2"),
    ],
)
def test_bad_classes_are_told(measure, mean, change, message):
    arguments = {"y_true": [[[0, 1]]], "y_pred": [[[0, 2]]], "classes": range(3)} | change
    for each in (measure, mean):
        with pytest.raises(ValueError, match=message):
            each(**arguments)


def read_alike(**labels):
    """Estimators that read labels alike, however they are wrapped; none is fitted."""
    cnn, crf = CNNSegmenter(**labels), MaxMarginCRF(**labels)
    search = GridSearchCV(crf, {})
    search.best_estimator_ = make_pipeline(CNNSegmenter(), crf)
    return [cnn, crf, DeepStructuredSegmenter(cnn), make_pipeline("passthrough", search), FrozenEstimator(search)]


@pytest.mark.parametrize("labels", [{"pos_label": 255}, {"pos_label": 7, "ignore_label": 9}, {"ignore_label": None}])
def test_labels_are_read_as_the_estimator_reads_them_however_it_is_wrapped(labels):
    for estimator in read_alike(**labels):
        scheme = label_scheme_of(estimator)
        assert (scheme.pos_label, scheme.ignore_label) == (
            labels.get("pos_label", 1),
            labels.get("ignore_label", "auto"),
        )


def test_of_estimators_of_others_two_classes_tell_the_foreground():
    known = {(0, 255): 255, (False, True): 1, (1,): 1, ("a", "b"): 1, ("a", "b", "c"): 1}
    for classes, pos_label in known.items():
        assert label_scheme_of(Labelled(classes)) == LabelScheme(pos_label)
    assert label_scheme_of(Given()) == LabelScheme()
    masks, found = [np.array([[0, 255, 255]])], [np.array([[0, 255, 0]])]
    for measure, expected in {"jaccard": 0.5, accuracy_score: 2 / 3}.items():
        assert make_segmentation_scorer(measure)(Labelled((0, 255)), found, masks) == expected
        # what is said counts
        assert make_segmentation_scorer(measure, pos_label=255)(Labelled(), found, masks) == expected
