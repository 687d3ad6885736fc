import builtins

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.display import EnergyDisplay, SegmentationDisplay, TrainingCurveDisplay
from skmmcrf.energy import joint_feature, pairwise_features
from skmmcrf.networks import UNet


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("Agg")
    yield
    plt.close("all")


class Threshold(BaseEstimator):
    """What is darker than a grey value."""

    def __init__(self, below, pos_label=1):
        self.below = below
        self.pos_label = pos_label

    def predict(self, X):
        return [self.pos_label * (np.asarray(x) < self.below) for x in X]


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


@pytest.fixture(scope="module")
def models(phantoms):
    parameters = {"pretrain_epochs": 4, "pretrain_learning_rate": 1e-2, "n_epochs": 2, "random_state": 0}
    return {
        training: DeepStructuredSegmenter(small_unet, training=training, **parameters).fit(
            *phantoms, validation_data=phantoms
        )
        for training in ("cnn", "piecewise", "joint")
    }


def words(display):
    display.figure_.canvas.draw()
    return display.figure_.texts[0].get_text()


@pytest.mark.parametrize("n_channels", [None, 1, 2, 3])
def test_a_row_an_image_and_a_column_a_result(phantoms, n_channels):
    X, y = phantoms[0][:2], phantoms[1][:2]
    X = X if n_channels is None else np.stack([X] * n_channels, axis=-1)
    half = y.copy()
    half[:, :16] = 0
    display = SegmentationDisplay.from_predictions(list(X), list(y), {"same": list(y), "half": list(half)})
    assert [ax.get_title() for ax in display.axes_[0]] == ["image", "truth", "same", "half"]
    assert display.axes_[1, 2].get_xlabel() == "Jaccard 100.0 %"
    index = np.logical_and(y[1], half[1]).sum() / y[1].sum()
    assert display.axes_[1, 3].get_xlabel() == f"Jaccard {100 * index:.1f} %"
    assert display.jaccard["half"][1] == pytest.approx(index)
    assert [bool(ax.collections) for ax in display.axes_[1]] == [False, True, True, True]
    assert display.figure_ is display.axes_[0, 0].figure


def test_results_of_one_estimator_go_by_its_class(phantoms):
    X, y = phantoms[0][:2], phantoms[1][:2]
    display = SegmentationDisplay.from_estimator(Threshold(90), X, y)
    assert display.axes_[0, 2].get_title() == "Threshold"
    np.testing.assert_array_equal(display.predictions["Threshold"], Threshold(90).predict(X))
    assert SegmentationDisplay.from_predictions(X, y, y).axes_[0, 2].get_title() == "result"


def test_estimators_side_by_side_on_unequal_images(phantoms, models):
    X, y = ([phantoms[k][0], phantoms[k][1][:, :20]] for k in (0, 1))
    pipeline = make_pipeline(CNNSegmenter(small_unet, n_epochs=1, random_state=0), MaxMarginCRF()).fit(*phantoms)
    display = SegmentationDisplay.from_estimator({"field": models["piecewise"], "pipeline": pipeline}, X, y)
    assert display.axes_.shape == (2, 4)
    for name, model in {"field": models["piecewise"], "pipeline": pipeline}.items():
        for result, expected in zip(display.predictions[name], model.predict(X), strict=True):
            np.testing.assert_array_equal(result, expected)
    display.figure_.canvas.draw()


def test_outline_runs_between_foreground_and_background():
    labels = np.zeros((6, 8), dtype=int)
    labels[:3, 2:5] = 1
    display = SegmentationDisplay.from_predictions([labels.astype(float)], [labels], {})
    for contour in display.axes_[0, 1].collections:
        (path,) = contour.get_paths()
        np.testing.assert_allclose([path.vertices.min(0), path.vertices.max(0)], [[1.5, -0.5], [4.5, 2.5]])
    # at the edge too it is within what is shown
    left, right = display.axes_[0, 1].get_xlim()
    bottom, top = display.axes_[0, 1].get_ylim()
    assert left < -0.5
    assert right > 7.5
    assert top < -0.5
    assert bottom > 5.5


def test_empty_results_draw_without_noise(phantoms):
    X, y = phantoms[0][:1], np.zeros_like(phantoms[1][:1])
    display = SegmentationDisplay.from_predictions(X, y, {"none": y})
    assert display.axes_[0, 2].get_xlabel() == "Jaccard: both empty"
    assert not display.axes_[0, 1].collections


def test_floats_are_clipped():
    image = np.array([[-3.0, 0.25], [0.5, 7.0]])
    labels = np.zeros((2, 2), dtype=int)
    display = SegmentationDisplay.from_predictions([image], [labels], labels[np.newaxis])
    np.testing.assert_allclose(display.axes_[0, 0].images[0].get_array(), [[0, 0.25], [0.5, 1]])


def test_unlabelled_pixels_are_shaded_and_not_counted():
    truth = np.array([[1, 1, 0, 255]])
    wrong = np.array([[1, 0, 0, 1]])
    image = np.zeros((2, 1, 4))
    display = SegmentationDisplay.from_predictions(image, [truth, truth % 255], {"wrong": [wrong, wrong]})
    np.testing.assert_allclose(display.jaccard["wrong"], [1 / 2, 1 / 3])
    shade = display.axes_[0, 1].images[1].get_array()
    np.testing.assert_array_equal(shade[..., 3] > 0, truth == 255)
    assert "unlabelled" in display.axes_[0, 1].get_xlabel()
    assert len(display.axes_[1, 1].images) == 1


def test_foreground_of_another_label(phantoms):
    X, y = phantoms[0][:2], phantoms[1][:2]
    one = SegmentationDisplay.from_estimator(Threshold(90), X, y)
    other = SegmentationDisplay.from_estimator(Threshold(90, 255), X, 255 * y, pos_label=255)
    np.testing.assert_array_equal(other.jaccard["Threshold"], one.jaccard["Threshold"])
    assert len(other.axes_[0, 1].images) == 1
    assert other.axes_[0, 1].collections


@pytest.mark.parametrize(
    ("y", "predictions", "message"),
    [
        (np.zeros((1, 2, 2)), np.zeros((2, 2, 2)), "X and y must have the same length, got 2 images and 1"),
        (np.zeros((2, 2, 3)), np.zeros((2, 2, 2)), r"y\[0\] has shape \(2, 3\), but its image has \(2, 2\)"),
        (np.full((2, 2, 2), 7), np.zeros((2, 2, 2)), r"labels 0, 1 and 255 only, found \[7\]"),
        (np.zeros((2, 2, 2)), np.zeros((3, 2, 2)), "X and predictions of 'result' must have the same length"),
        (
            np.zeros((2, 2, 2)),
            {"mine": np.full((2, 2, 2), 255)},
            r"predictions of 'mine'\[0\] must hold the labels 0 and 1 only",
        ),
    ],
)
def test_what_does_not_fit_is_named(y, predictions, message):
    with pytest.raises(ValueError, match=message):
        SegmentationDisplay.from_predictions(np.zeros((2, 2, 2)), y, predictions)


def test_bad_labels_are_found_before_prediction(phantoms):
    with pytest.raises(ValueError, match="labels 0, 1 and 255 only"):
        SegmentationDisplay.from_estimator({"never asked": None}, phantoms[0], phantoms[1] + 1)


def test_curves_hold_the_history():
    history = [{"stage": "cnn", "epoch": n, "loss": 1 / n, "jaccard": 0.1} for n in (1, 2)]
    history += [{"stage": "joint", "epoch": n, "gamma": 9 - n, "jaccard": 0.8, "valid_jaccard": 0.7} for n in range(3)]
    display = TrainingCurveDisplay({"model": history}).plot()
    (loss, gamma), (pretrained, joint) = display.axes_
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 1], [2, 0.5]])
    np.testing.assert_array_equal(gamma.lines[0].get_xydata(), [[0, 9], [1, 8], [2, 7]])
    assert len(pretrained.lines) == 1
    training, validation = joint.lines
    np.testing.assert_allclose(training.get_ydata(), 80)
    np.testing.assert_allclose(validation.get_ydata(), 70)
    assert [text.get_text() for text in pretrained.get_legend().get_texts()] == ["training images"]
    assert [text.get_text() for text in joint.get_legend().get_texts()] == ["training images", "validation images"]


def test_curves_of_one_stage_only(models):
    display = TrainingCurveDisplay.from_estimator(models["joint"], stage="joint")
    assert display.axes_.shape == (2, 1)
    gammas = [row["gamma"] for row in models["joint"].history_ if row["stage"] == "joint"]
    np.testing.assert_array_equal(display.axes_[0, 0].lines[0].get_ydata(), gammas)
    with pytest.raises(ValueError, match="no epoch of stage 'joint'"):
        TrainingCurveDisplay.from_estimator(models["cnn"], stage="joint")
    with pytest.raises(ValueError, match=r"stage must be one of .*, got 'both'"):
        display.plot(stage="both")


def test_curves_of_several_models_differ_in_colour(models):
    display = TrainingCurveDisplay.from_estimator(models)
    (loss, gamma), (_, jaccard) = display.axes_
    assert [text.get_text() for text in loss.get_legend().get_texts()] == list(models)
    assert len({line.get_color() for line in loss.lines}) == 3
    # of the three, one was trained jointly; its colour is the same everywhere
    assert [line.get_label() for line in gamma.lines] == ["joint"]
    assert {line.get_color() for line in [*gamma.lines, *jaccard.lines]} == {loss.lines[2].get_color()}


def test_curves_need_a_history():
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(CNNSegmenter())
    crf = MaxMarginCRF()
    crf.coef_ = np.ones(3)
    with pytest.raises(TypeError, match="estimator must have a history_, got MaxMarginCRF"):
        TrainingCurveDisplay.from_estimator(crf)
    with pytest.raises(ValueError, match="no epoch of training"):
        TrainingCurveDisplay({"nothing": []}).plot()


@pytest.mark.parametrize("training", ["piecewise", "joint"])
def test_energy_is_that_of_the_prediction(models, phantoms, training):
    model, image = models[training], phantoms[0][0]
    display = EnergyDisplay.from_estimator(model, image)
    np.testing.assert_array_equal(display.labels, model.predict(image[np.newaxis])[0])
    scaled = image[..., np.newaxis] / np.float32(255)
    edges, features = pairwise_features(scaled, connectivity=8, sigma=model.sigma_)
    log_odds = model.decision_function(image[np.newaxis])[0]
    parts = model.coef_ * joint_feature(display.labels, log_odds, edges, features)
    title = words(display)
    assert f"energy {parts.sum():.6g} = unary {parts[0]:.6g} + pairwise {parts[1:].sum():.6g}" in title
    _, unary, _, _ = display.axes_
    np.testing.assert_allclose(unary.images[0].get_array(), model.coef_[0] * log_odds, rtol=1e-6)
    assert unary.images[0].norm(0.0) == 0.5


def test_cut_edges_cost_the_pairwise_energy():
    rng = np.random.default_rng(0)
    image, labels = rng.uniform(size=(5, 4, 1)), rng.uniform(size=(5, 4)) < 0.5
    edges, features = pairwise_features(image, connectivity=8, sigma=0.3)
    w, log_odds = np.array([1.5, 0.4, 0.7]), rng.normal(size=(5, 4))
    display = EnergyDisplay(image, labels, log_odds, w, edges, features).plot()
    _, _, pairwise, cut = display.axes_
    lines = cut.collections[0]
    energy = w @ joint_feature(labels, log_odds, edges, features)
    unary = w[0] * joint_feature(labels, log_odds, edges, features)[0]
    assert lines.get_array().sum() == pytest.approx(energy - unary)
    for (start, end), cost in zip(lines.get_segments(), lines.get_array(), strict=True):
        (a, b), (c, d) = start[::-1].astype(int), end[::-1].astype(int)
        assert labels[a, b] != labels[c, d]
        contrast = np.exp(-((image[a, b, 0] - image[c, d, 0]) ** 2) / (2 * 0.3**2))
        assert cost == pytest.approx((0.4 + 0.7 * contrast) / np.hypot(a - c, b - d))
    corner = image[0, 0, 0] - np.array([image[0, 1, 0], image[1, 0, 0], image[1, 1, 0]])
    expected = 0.4 + 0.7 * np.exp(-(corner**2) / (2 * 0.3**2)).mean()
    assert pairwise.images[0].get_array()[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1), (9, 3), (3, 9)])
def test_energy_where_nothing_is_cut_or_varies(shape):
    image, labels = np.zeros((*shape, 3)), np.zeros(shape, dtype=bool)
    edges, features = pairwise_features(image, connectivity=8, sigma=1.0)
    display = EnergyDisplay(image, labels, np.zeros(shape), np.array([1.0, 0.0, 0.0]), edges, features).plot()
    assert "pairwise 0" in words(display)
    assert not display.axes_[3].collections


def test_energy_needs_a_field(models, phantoms):
    image = phantoms[0][0]
    with pytest.raises(ValueError, match='training is "cnn"'):
        EnergyDisplay.from_estimator(models["cnn"], image)
    with pytest.raises(NotFittedError):
        EnergyDisplay.from_estimator(DeepStructuredSegmenter(), image)
    with pytest.raises(TypeError, match="estimator must be a DeepStructuredSegmenter, got Threshold"):
        EnergyDisplay.from_estimator(Threshold(90), image)
    with pytest.raises(ValueError, match="image.* has 3 channels, but 1 are wanted"):
        EnergyDisplay.from_estimator(models["joint"], np.stack([image] * 3, axis=-1))


def test_displays_share_a_figure(models, phantoms):
    figure = plt.figure(figsize=(10, 30), layout="constrained")
    one, two, three = figure.subfigures(3, 1)
    assert SegmentationDisplay.from_estimator(models, *phantoms, figure=one).figure_ is one
    assert TrainingCurveDisplay.from_estimator(models, figure=two).figure_ is two
    assert EnergyDisplay.from_estimator(models["joint"], phantoms[0][0], figure=three).figure_ is three
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: SegmentationDisplay.from_estimator(None, None, None),
        lambda: SegmentationDisplay.from_predictions(None, None, None),
        lambda: TrainingCurveDisplay.from_estimator(None),
        lambda: TrainingCurveDisplay({}).plot(),
        lambda: EnergyDisplay.from_estimator(None, None),
    ],
)
def test_missing_matplotlib_is_asked_for_by_name(monkeypatch, draw):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw()
