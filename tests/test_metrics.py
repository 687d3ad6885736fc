import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist, directed_hausdorff
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from strategies import shapes
from torch.utils.data import TensorDataset

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.field import Annotation
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics import (
    boundary_f_measures,
    confusion_matrices,
    dice_indices,
    dice_of_confusion,
    evaluate,
    hausdorff_distances,
    jaccard_indices,
    jaccard_of_annotations,
    jaccard_of_confusion,
    label_scheme_of,
    make_segmentation_scorer,
    mean_boundary_f,
    mean_dice,
    mean_hausdorff,
    mean_jaccard,
    mean_of_defined,
    mean_pooled_dice,
    mean_pooled_jaccard,
    pooled_dice_indices,
    pooled_jaccard_indices,
)

MEASURES = {
    "jaccard": (jaccard_indices, mean_jaccard),
    "dice": (dice_indices, mean_dice),
    "boundary_f": (boundary_f_measures, mean_boundary_f),
    "hausdorff": (hausdorff_distances, mean_hausdorff),
}
every_measure = pytest.mark.parametrize("measure", [measure for measure, _ in MEASURES.values()])
every_mean = pytest.mark.parametrize(("measure", "mean"), MEASURES.values(), ids=MEASURES)


@st.composite
def labelings(draw, number=2, max_pixels=40):
    """Boolean labelings of one shape, from empty to full."""
    shape = draw(shapes(max_pixels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [rng.uniform(size=shape) < draw(st.sampled_from([0, 0.05, 0.3, 0.7, 1])) for _ in range(number)]


def two_with_foreground():
    return labelings().filter(lambda pair: all(labels.any() for labels in pair))


def boundary(foreground):
    """The foreground pixels that are not amid four others."""
    pixels = set(zip(*np.nonzero(foreground)))
    return [(i, j) for i, j in pixels if not {(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)} <= pixels]


def best(measure):
    return 0 if measure is hausdorff_distances else 1


def worst(measure, shape):
    return np.hypot(*shape) if measure is hausdorff_distances else 0


@pytest.fixture(scope="module")
def unequal(phantoms):
    X, y = phantoms
    crops = [np.s_[:], np.s_[2:], np.s_[:, 3:], np.s_[1:, :-5], np.s_[:], np.s_[:-4]]
    return [x[c] for x, c in zip(X, crops)], [t[c] for t, c in zip(y, crops)]


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


@every_measure
def test_an_image_without_any_label_never_counts(measure):
    truths, found = [[[255, 255]], [[255, 0]]], [[[0, 1]], [[1, 0]]]
    for both_empty, of_second in {"omit": np.nan, "perfect": best(measure)}.items():
        measured = measure(truths, found, ignore_label=255, both_empty=both_empty)
        np.testing.assert_array_equal(measured, [np.nan, of_second])


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


@pytest.mark.parametrize(
    ("measure", "parameters", "message"),
    [
        *(("boundary_f", {"tolerance": t}, "'tolerance' parameter of the measure") for t in (-1, np.nan, "1")),
        *(("hausdorff", {"percentile": p}, "'percentile' parameter of the measure") for p in (-1, 101, None)),
        *((measure, {"pos_label": 0}, "'pos_label' parameter of the measure") for measure in MEASURES),
        *((measure, {"ignore_label": "none"}, "'ignore_label' parameter of the measure") for measure in MEASURES),
        *((measure, {"both_empty": 1.0}, "'both_empty' parameter of the measure") for measure in MEASURES),
    ],
)
def test_bad_parameters_are_told_also_by_scorers_that_could_never_score(measure, parameters, message):
    truth = np.ones((1, 2, 2), int)
    for each in MEASURES[measure]:
        with pytest.raises(ValueError, match=message):
            each(truth, truth, **parameters)
    with pytest.raises(ValueError, match=message):
        make_segmentation_scorer(measure, **parameters)


def test_bad_scorers_are_told():
    for measure in ("accuracy", ["dice"]):
        with pytest.raises(ValueError, match=r"one of 'jaccard', 'dice', .*, or a metric such as .*, got"):
            make_segmentation_scorer(measure)
    for measure, parameter in (("jaccard", "tolerance"), (accuracy_score, "both_empty")):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{parameter}'"):
            make_segmentation_scorer(measure, **{parameter: 2})


def test_bad_weights_are_told():
    truth = np.ones((2, 2, 2), int)
    for weights, message in {(1,): r"of shape \(2,\)", (1, -1): "finite and not negative"}.items():
        for _, mean in MEASURES.values():
            with pytest.raises(ValueError, match=f"sample_weight must be {message}"):
                mean(truth, truth, sample_weight=weights)
    for weights in (np.ones(3), np.array([1, -1]), np.array([1, np.nan])):
        with pytest.raises(ValueError, match="values and weights must be of one shape .*, and no weight negative"):
            mean_of_defined(np.ones(2), weights)


@pytest.mark.parametrize("as_list", [False, True], ids=["array", "list"])
def test_scorers_in_cross_validation(phantoms, unequal, as_list):
    X, y = unequal if as_list else phantoms
    parameters = {"boundary_f": {"tolerance": 2}, "hausdorff": {"percentile": 95}}
    scoring = {name: make_segmentation_scorer(name, **parameters.get(name, {})) for name in MEASURES}
    cnn, folds = CNNSegmenter(n_epochs=1, random_state=0), KFold(2)
    results = cross_validate(cnn, X, y, scoring=scoring, cv=folds, return_estimator=True, error_score="raise")
    for n, (_, test) in enumerate(folds.split(X)):
        images, truths = [X[i] for i in test], [y[i] for i in test]
        found = results["estimator"][n].predict(images)
        for name, (_, mean) in MEASURES.items():
            sign = -1 if name == "hausdorff" else 1
            assert results[f"test_{name}"][n] == pytest.approx(sign * mean(truths, found, **parameters.get(name, {})))


def test_scorers_read_labels_from_pairs(unequal):
    X, y = unequal
    parameters = {"estimator": CNNSegmenter(n_epochs=1, random_state=0), "cv": KFold(2), "error_score": "raise"}
    scorer = make_segmentation_scorer("dice")
    for scoring in (scorer, {"score": scorer, "other": make_segmentation_scorer("jaccard")}):
        expected = cross_validate(X=X, y=y, scoring=scoring, **parameters)["test_score"]
        assert (cross_validate(X=list(zip(X, y)), scoring=scoring, **parameters)["test_score"] == expected).all()
    with pytest.raises(TypeError, match="a scorer needs y, unless X is a dataset of pairs"):
        scorer(CNNSegmenter(n_epochs=1).fit(X, y), X)


def test_grid_search_takes_the_least_hausdorff_distance(unequal):
    X, y = unequal
    cnn = CNNSegmenter(learning_rate=1e-2, batch_size=1, random_state=1)
    scoring = make_segmentation_scorer("hausdorff", percentile=95)
    search = GridSearchCV(cnn, {"n_epochs": [0, 8]}, scoring=scoring, cv=2, error_score="raise").fit(X, y)
    assert (search.cv_results_["mean_test_score"] <= 0).all()
    assert search.best_params_ == {"n_epochs": 8}
    assert search.score(X, y) == -mean_hausdorff(y, search.predict(X), percentile=95)


def test_scorers_take_weights_and_pickle(unequal):
    X, y = unequal
    weights = np.array([1, 2, 0, 3, 1, 1])
    cnn = CNNSegmenter(n_epochs=1, random_state=0).fit(X, y)
    expected = mean_dice(y, cnn.predict(X), sample_weight=weights)
    assert 0 < expected != mean_dice(y, cnn.predict(X))
    scorer = pickle.loads(pickle.dumps(make_segmentation_scorer("dice", ignore_label=None)))
    assert scorer(cnn, X, y, sample_weight=weights) == expected
    with config_context(enable_metadata_routing=True):
        scoring = scorer.set_score_request(sample_weight=True)
        everything = [(np.arange(6), np.arange(6))]
        cnn.set_fit_request(sample_weight=False)
        results = cross_validate(cnn, X, y, scoring=scoring, cv=everything, params={"sample_weight": weights})
    assert results["test_score"] == expected


class Given(BaseEstimator):
    """What it is given as an image is its result."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X


def test_a_metric_of_scikit_learn_is_of_the_labelled_pixels_of_all_images():
    truths, found = [np.array([[0, 1, 255]]), np.array([[1, 1], [0, 0]])], [[[1, 1, 1]], [[1, 0], [1, 0]]]
    pixels = [0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]
    for metric in (precision_score, accuracy_score, f1_score):
        scorer = pickle.loads(pickle.dumps(make_segmentation_scorer(metric)))
        assert scorer(Given(), found, truths) == metric(*pixels)
        expected = metric(*pixels, sample_weight=[1, 1, 3, 3, 3, 3])
        assert scorer(Given(), found, truths, sample_weight=[1, 3]) == pytest.approx(expected)


class Labelled(Given):
    """An estimator of others that says its labels."""

    def __init__(self, classes=(0, 1)):
        self.classes = classes

    @property
    def classes_(self):
        return np.array(self.classes)


def read_alike(**labels):
    """Estimators that read labels alike, however they are wrapped; none is fitted."""
    cnn, crf = CNNSegmenter(**labels), MaxMarginCRF(**labels)
    search = GridSearchCV(crf, {})
    search.best_estimator_ = make_pipeline(CNNSegmenter(), crf)
    return [cnn, crf, DeepStructuredSegmenter(cnn), make_pipeline("passthrough", search), FrozenEstimator(search)]


@pytest.mark.parametrize("labels", [{"pos_label": 255}, {"pos_label": 7, "ignore_label": 9}, {"ignore_label": None}])
def test_scorers_read_labels_as_the_estimator_does(labels):
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


def test_masks_of_0_and_255_and_other_unlabelled_pixels_need_no_word_to_scorers(phantoms):
    X, y = phantoms
    masks = 255 * y.astype(int)
    masks[:, :3] = -1
    cnn = CNNSegmenter(n_epochs=1, pos_label=255, ignore_label=-1, random_state=0)
    scoring = {name: make_segmentation_scorer(name) for name in ("jaccard", "dice")}
    pipeline = make_pipeline(cnn, MaxMarginCRF(pos_label=255, ignore_label=-1))
    results = cross_validate(pipeline, X, masks, scoring=scoring, cv=2, error_score="raise")
    np.testing.assert_allclose(
        results["test_jaccard"], cross_validate(pipeline, X, masks, cv=2, error_score="raise")["test_score"]
    )


# tables


def kinds_of(X, y, folder):
    """The same images in all ways that a table can be asked for."""
    files = [folder / f"{n}.png" for n in range(len(X))]
    for file, image in zip(files, X):
        Image.fromarray(image).save(file)
    return {
        "array": (X, y),
        "list": (list(X), list(y)),
        "tensor": (torch.as_tensor(X), torch.as_tensor(y)),
        "paths": (files, y),
        "pairs": (list(zip(X, y)), None),
        "dataset": (TensorDataset(torch.as_tensor(X), torch.as_tensor(y)), None),
        "dicts": ([{"image": str(file), "mask": mask} for file, mask in zip(files, y)], None),
    }


def test_a_table_has_each_images_measures_and_shares_of_foreground(phantoms, tmp_path):
    X, y = phantoms
    y = y.copy()
    y[:, :5] = 255
    y[1] = 255
    cnn = CNNSegmenter(n_epochs=6, learning_rate=1e-2, batch_size=1, random_state=1).fit(X, y)
    found = cnn.predict(X)
    assert (hausdorff_distances(y, found, percentile=95) < hausdorff_distances(y, found)).any()
    labelled = y[0] != 255
    for kind, data in kinds_of(X, y, tmp_path).items():
        table = evaluate(cnn, *data, tolerance=1.5)
        assert list(table)[:5] == ["image", "jaccard", "dice", "boundary_f", "hausdorff_95"]
        assert table["image"].tolist() == (list("012345") if kind in ("paths", "dicts") else list(range(6)))
        np.testing.assert_array_equal(table["jaccard"], jaccard_indices(y, found))
        np.testing.assert_array_equal(table["dice"], dice_indices(y, found))
        np.testing.assert_array_equal(table["boundary_f"], boundary_f_measures(y, found, tolerance=1.5))
        np.testing.assert_array_equal(table["hausdorff_95"], hausdorff_distances(y, found, percentile=95))
        for column, labels in {"true_foreground": y == 1, "predicted_foreground": found == 1}.items():
            expected = [np.nan if n == 1 else labels[n][labelled].mean() for n in range(6)]
            np.testing.assert_allclose(table[column], expected)
    assert pd.DataFrame(table).shape == (6, 7)


def test_a_table_gives_empty_images_what_the_measures_give_them():
    empty = np.zeros((2, 3, 4), int)
    for both_empty, expected in {"omit": 4 * [np.nan], "perfect": [1, 1, 1, 0]}.items():
        table = evaluate(Given(), empty, empty, both_empty=both_empty)
        np.testing.assert_array_equal([table[column][1] for column in list(table)[1:5]], expected)
        np.testing.assert_array_equal(table["true_foreground"], [0, 0])


class Recorder(Given):
    """It notes how many images it is given at a time."""

    def __init__(self):
        self.parts = []

    def predict(self, X):
        self.parts.append(len(X))
        return [np.asarray(x) for x in X]


class Dataset:
    """Pairs whose image is the truth. It notes what is asked for."""

    def __init__(self, n):
        self.masks = [np.full((2, 3), k % 2, np.uint8) for k in range(n)]
        self.asked = []

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, n):
        self.asked.append(n)
        return self.masks[n], self.masks[n]


def test_estimators_get_an_array_as_it_is():
    class Same(Given):
        def predict(self, X):
            assert X is images
            return X

    images = np.ones((20, 2, 3), int)
    assert (evaluate(Same(), images, images)["dice"] == 1).all()


def test_each_image_of_a_dataset_is_asked_for_once_and_few_are_in_memory():
    dataset, recorder = Dataset(50), Recorder()
    table = evaluate(recorder, dataset, both_empty="perfect")
    assert (table["jaccard"] == 1).all()
    assert dataset.asked == list(range(50))
    assert sum(recorder.parts) == 50
    assert max(recorder.parts) <= 16


class LabelledBySeven(Given):
    _label_scheme = LabelScheme(7, 9)


def test_a_table_reads_labels_as_the_estimator_does():
    masks = [np.array([[0, 7, 9]]), np.array([[9, 0, 0]])]
    table = evaluate(
        LabelledBySeven(), [np.array([[7, 7, 7]]), np.array([[0, 0, 0]])], masks, names=pd.Series(["a", "b"], [5, 6])
    )
    assert table["image"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(table["jaccard"], [0.5, np.nan])
    np.testing.assert_array_equal(table["true_foreground"], [0.5, 0])
    np.testing.assert_array_equal(table["predicted_foreground"], [1, 0])


class Choosy(Given):
    """It takes no image of 3."""

    def predict(self, X):
        for n, x in enumerate(X):
            if np.any(x == 3):
                raise ValueError(f"X[{n}] is of 3")
        return X


def test_errors_of_later_parts_of_a_dataset_tell_the_part():
    dataset = Dataset(20)
    dataset.masks[18] = np.full((2, 3), 3)
    masks = [np.zeros((2, 3))] * 20
    with pytest.raises(ValueError, match=r"X\[2\] is of 3") as told:
        evaluate(Choosy(), dataset, masks)
    assert told.value.__notes__ == ["X[0] in this message is X[16] of all images"]
    with pytest.raises(ValueError, match=r"X\[18\] is of 3") as told:
        evaluate(Choosy(), dataset.masks, masks)
    assert not hasattr(told.value, "__notes__")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimator": object()}, TypeError, "estimator must have the method predict, object has none"),
        ({"y": None}, TypeError, "y is None, but X is no dataset of pairs"),
        ({"y": [np.zeros((2, 3))]}, ValueError, "X and y must have the same length, got 2 images and 1 labels"),
        ({"y": np.full((2, 2, 3), 255)}, ValueError, "y holds 255 but no 1"),
        ({"y": np.zeros((2, 3, 2))}, ValueError, r"the prediction of X\[0\] has shape \(2, 3\), but y\[0\] has"),
        ({"X": np.full((2, 2, 3), 3)}, ValueError, r"the prediction of X\[0\] must hold the labels 0 and 1 only"),
        ({"y": np.full((2, 2, 3), 3)}, ValueError, r"y\[0\] must hold the labels 0, 1 and 255 only"),
        ({"names": ["a"]}, ValueError, r"names must hold a name for each of the 2 images, got \['a'\]"),
        ({"names": "ab"}, ValueError, "names must hold a name for each"),
    ],
)
def test_what_has_no_table_is_told(change, error, message):
    arguments = {"estimator": Given(), "X": np.ones((2, 2, 3), int), "y": np.ones((2, 2, 3), int)} | change
    with pytest.raises(error, match=message):
        evaluate(**arguments)


def test_a_prediction_of_other_number_is_told():
    class Forgetful(Given):
        def predict(self, X):
            return X[1:]

    with pytest.raises(ValueError, match="predict must give labels for each image, got 1 for 2 images"):
        evaluate(Forgetful(), np.ones((2, 2, 3)), np.ones((2, 2, 3)))


def test_bad_names_and_parameters_of_tables_are_told_before_anything_is_predicted():
    recorder, masks = Recorder(), np.ones((2, 2, 3), int)
    for bad in ({"names": ["a"]}, {"both_empty": 1}, {"tolerance": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            evaluate(recorder, masks, masks, **bad)
    assert recorder.parts == []


# several classes

CLASSES = (-3, 0, 7, 200)


@st.composite
def class_labelings(draw, number=2, max_pixels=40):
    """Label images of one shape, each with some of the classes. The first, a truth, may have unlabelled pixels."""
    shape = draw(shapes(max_pixels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = [rng.choice(draw(st.permutations(CLASSES))[: draw(st.integers(1, 4))], size=shape) for _ in range(number)]
    labels[0][rng.uniform(size=shape) < draw(st.sampled_from([0, 0.3]))] = 255
    return labels


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


def test_without_classes_pooled_measures_are_of_background_and_foreground():
    truths, found = [[[0, 255, 255, 7]], [[0, 0, 0, 0]]], [[[0, 255, 0, 0]], [[0, 0, 0, 255]]]
    matrices = confusion_matrices(truths, found, pos_label=255, ignore_label=7)
    np.testing.assert_array_equal(matrices, [[[1, 0], [1, 1]], [[3, 1], [0, 0]]])
    pooled = pooled_jaccard_indices(truths, found, pos_label=255, ignore_label=7)
    np.testing.assert_allclose(pooled, [4 / 6, 1 / 3])
    np.testing.assert_array_equal(confusion_matrices([[[True]]], [[[False]]]), [[[0, 0], [1, 0]]])


def test_types_of_labels_do_not_matter():
    truth, classes = [[[255, -3, 1, 0]]], np.array([-3, 0, 1], np.int8)
    for found in (np.array([[[9, 1, 1, 0]]], np.uint8), [[[True, True, True, False]]], [[[np.nan, 1.0, 1.0, 0.0]]]):
        np.testing.assert_array_equal(jaccard_indices(truth, found, classes=classes), [[0, 1, 0.5]])


def test_pooled_measures_of_nothing_are_nan():
    unlabelled = [[[255, 255]]]
    with pytest.warns(UserWarning, match="score is NaN") as told:
        assert np.isnan(mean_pooled_dice(unlabelled, [[[0, 1]]], classes=range(3)))
    assert told[0].filename == __file__


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


class OfClasses(Labelled):
    """An estimator of others that has several classes, and gives its images as results."""

    def __init__(self, classes=(0, 5, 9)):
        super().__init__(classes)


def three_classes():
    """Truths and predictions of labels 0, 5 and 9, as arrays."""
    return np.array([[[0, 5, 255, 9]], [[0, 0, 5, 5]]]), np.array([[[0, 5, 9, 5]], [[5, 0, 5, 5]]])


def test_scorers_take_the_classes_of_the_estimator():
    y, found = three_classes()
    search = GridSearchCV(
        OfClasses(), {}, cv=2, scoring=make_segmentation_scorer("pooled_jaccard"), error_score="raise"
    )
    search.fit(found, y)
    pooled = mean_pooled_jaccard(y, found, classes=(0, 5, 9))
    assert search.score(found, y) == pooled
    assert label_scheme_of(make_pipeline("passthrough", search)) == LabelScheme(several=(0, 5, 9))
    for estimator in (OfClasses(), search, FrozenEstimator(OfClasses())):
        assert label_scheme_of(estimator) == LabelScheme(several=(0, 5, 9))
        assert make_segmentation_scorer("pooled_jaccard")(estimator, found, y) == pooled
        assert make_segmentation_scorer("jaccard")(estimator, found, y) == mean_jaccard(y, found, classes=(0, 5, 9))
    pixels = y[y != 255], found[y != 255]
    for metric in (partial(f1_score, average="macro"), accuracy_score):
        assert make_segmentation_scorer(metric)(OfClasses(), found, y) == metric(*pixels)
    # what is said counts
    order = {"classes": [0, 5, 9, 255], "ignore_label": None}
    assert make_segmentation_scorer("dice", **order)(OfClasses(), found, y) == mean_dice(y, found, **order)


def test_pooled_scorers_of_two_labels_count_background_and_foreground():
    masks, found = [np.array([[0, 255, 255]])], [np.array([[0, 255, 0]])]
    assert make_segmentation_scorer("pooled_jaccard")(Labelled((0, 255)), found, masks) == 0.5
    # classes that are said count
    assert make_segmentation_scorer("jaccard", classes=[0, 255])(Labelled((0, 255)), found, masks) == 0.5


def test_a_table_of_several_classes_has_their_measures_and_shares():
    y, found = three_classes()
    table = evaluate(OfClasses(), found, y)
    measures = {
        "jaccard": jaccard_indices,
        "dice": dice_indices,
        "boundary_f": boundary_f_measures,
        "hausdorff_95": partial(hausdorff_distances, percentile=95),
    }
    of_classes = [f"{name}_{label}" for name in (*measures, "true", "predicted") for label in (0, 5, 9)]
    assert list(table) == ["image", *measures, "accuracy", *of_classes]
    for name, measure in measures.items():
        values = measure(y, found, classes=(0, 5, 9))
        np.testing.assert_array_equal(np.transpose([table[f"{name}_{label}"] for label in (0, 5, 9)]), values)
        np.testing.assert_allclose(table[name], np.nanmean(values, axis=1))
    np.testing.assert_allclose(table["accuracy"], [2 / 3, 3 / 4])
    np.testing.assert_allclose([table[f"true_{n}"] for n in (0, 5, 9)], [[1 / 3, 1 / 2], [1 / 3, 1 / 2], [1 / 3, 0]])
    np.testing.assert_allclose([table[f"predicted_{n}"] for n in (0, 5, 9)], [[1 / 3, 1 / 4], [2 / 3, 3 / 4], [0, 0]])
    pd.DataFrame(table)


def test_an_image_of_several_classes_without_any_label_counts_nowhere():
    y, found = three_classes()
    y[0] = 255
    table = evaluate(OfClasses(), found, y, both_empty="perfect")
    numbers = np.array([column for name, column in table.items() if name != "image"])
    np.testing.assert_array_equal(np.isnan(numbers), np.broadcast_to([True, False], numbers.shape))


@pytest.mark.parametrize("confusion", [[[1, 2, 3]], [1, 2], 3])
def test_counts_that_are_no_confusion_matrix_are_refused(confusion):
    for measure in (jaccard_of_confusion, dice_of_confusion):
        with pytest.raises(ValueError, match="confusion must be of shape"):
            measure(confusion)
