import pickle
from functools import partial

import numpy as np
import pytest
from measured import MEASURES, Given, Labelled, three_classes
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, f1_score, precision_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline

from skmmcrf import CNNSegmenter, MaxMarginCRF
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics import make_segmentation_scorer, mean_dice, mean_hausdorff, mean_jaccard, mean_pooled_jaccard
from skmmcrf.metrics.reading import label_scheme_of


@pytest.fixture(scope="module")
def unequal(phantoms):
    X, y = phantoms
    crops = [np.s_[:], np.s_[2:], np.s_[:, 3:], np.s_[1:, :-5], np.s_[:], np.s_[:-4]]
    return [x[c] for x, c in zip(X, crops)], [t[c] for t, c in zip(y, crops)]


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


def test_a_metric_of_scikit_learn_is_of_the_labelled_pixels_of_all_images():
    truths, found = [np.array([[0, 1, 255]]), np.array([[1, 1], [0, 0]])], [[[1, 1, 1]], [[1, 0], [1, 0]]]
    pixels = [0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]
    for metric in (precision_score, accuracy_score, f1_score):
        scorer = pickle.loads(pickle.dumps(make_segmentation_scorer(metric)))
        assert scorer(Given(), found, truths) == metric(*pixels)
        expected = metric(*pixels, sample_weight=[1, 1, 3, 3, 3, 3])
        assert scorer(Given(), found, truths, sample_weight=[1, 3]) == pytest.approx(expected)


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


def test_scorers_take_the_classes_of_the_estimator():
    y, found = three_classes()
    search = GridSearchCV(
        Labelled((0, 5, 9)), {}, cv=2, scoring=make_segmentation_scorer("pooled_jaccard"), error_score="raise"
    )
    search.fit(found, y)
    pooled = mean_pooled_jaccard(y, found, classes=(0, 5, 9))
    assert search.score(found, y) == pooled
    assert label_scheme_of(make_pipeline("passthrough", search)) == LabelScheme(several=(0, 5, 9))
    for estimator in (Labelled((0, 5, 9)), search, FrozenEstimator(Labelled((0, 5, 9)))):
        assert label_scheme_of(estimator) == LabelScheme(several=(0, 5, 9))
        assert make_segmentation_scorer("pooled_jaccard")(estimator, found, y) == pooled
        assert make_segmentation_scorer("jaccard")(estimator, found, y) == mean_jaccard(y, found, classes=(0, 5, 9))
    pixels = y[y != 255], found[y != 255]
    for metric in (partial(f1_score, average="macro"), accuracy_score):
        assert make_segmentation_scorer(metric)(Labelled((0, 5, 9)), found, y) == metric(*pixels)
    # what is said counts
    order = {"classes": [0, 5, 9, 255], "ignore_label": None}
    assert make_segmentation_scorer("dice", **order)(Labelled((0, 5, 9)), found, y) == mean_dice(y, found, **order)


def test_pooled_scorers_of_two_labels_count_background_and_foreground():
    masks, found = [np.array([[0, 255, 255]])], [np.array([[0, 255, 0]])]
    assert make_segmentation_scorer("pooled_jaccard")(Labelled((0, 255)), found, masks) == 0.5
    # classes that are said count
    assert make_segmentation_scorer("jaccard", classes=[0, 255])(Labelled((0, 255)), found, masks) == 0.5
