import sys
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from nets import PLAIN
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.display import EnergyDisplay, SegmentationDisplay, TrainingCurveDisplay
from skmmcrf.field import Field, Grid, build_terms
from skmmcrf.metrics import jaccard_indices
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
    cnn = CNNSegmenter(small_unet, **PLAIN, n_epochs=4, learning_rate=1e-2)
    return {
        training: DeepStructuredSegmenter(cnn, training=training, n_epochs=2, random_state=0).fit(
            *phantoms, validation_data=phantoms
        )
        for training in ("cnn", "piecewise", "joint")
    }


def pixels_of(display):
    """What is drawn, as colours (H, W, 4)."""
    display.figure_.canvas.draw()
    return np.array(display.figure_.canvas.buffer_rgba())


def colours_in(ax, image):
    """The colours within an Axes."""
    left, bottom, right, top = ax.get_window_extent().extents.round().astype(int)
    return {tuple(colour) for colour in image[::-1][bottom:top, left:right, :3].reshape(-1, 3).tolist()}


# images and results


@pytest.mark.parametrize("n_channels", [None, 2, 3])
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
    shown = display.axes_[1, 0].images[0].get_array()
    np.testing.assert_allclose(shown.reshape(32, 40, -1)[..., 0], phantoms[0][1] / 255, rtol=1e-6)
    drawn = pixels_of(display)
    outlines = [(0, 191, 255), (255, 255, 0), (0, 191, 255), (0, 191, 255)]
    outlined = [colour in colours_in(ax, drawn) for ax, colour in zip(display.axes_[1], outlines)]
    assert outlined == [False, True, True, True]


def test_results_of_one_estimator_go_by_its_class(phantoms):
    X, y = phantoms[0][:2], phantoms[1][:2]
    display = SegmentationDisplay.from_estimator(Threshold(90), X, y)
    assert display.axes_[0, 2].get_title() == "Threshold"
    np.testing.assert_array_equal(display.predictions["Threshold"], Threshold(90).predict(X))
    other = SegmentationDisplay.from_estimator(Threshold(90, 255), X, 255 * y, pos_label=255)
    np.testing.assert_array_equal(other.jaccard["Threshold"], display.jaccard["Threshold"])
    assert len(other.axes_[0, 1].images) == 1
    assert SegmentationDisplay.from_predictions(X, y, y).axes_[0, 2].get_title() == "result"


def test_estimators_tell_what_labels_mean(phantoms):
    X, y = phantoms
    masks = 255 * y.astype(int)
    masks[:, :3] = -1
    cnn = CNNSegmenter(small_unet, n_epochs=1, pos_label=255, ignore_label=-1, random_state=0)
    pipeline = make_pipeline(cnn, MaxMarginCRF(pos_label=255, ignore_label=-1))
    search = GridSearchCV(cnn, {"n_epochs": [1]}, cv=2)
    models = {str(n): model.fit(X, masks) for n, model in enumerate([cnn, pipeline, search])}
    display = SegmentationDisplay.from_estimator(models, X, masks)
    assert all(np.unique(labels).tolist() == [0, 1, 255] for labels in display.labels)
    for name, model in models.items():
        np.testing.assert_array_equal(display.predictions[name], model.predict(X) == 255)
    with pytest.raises(ValueError, match="they have: 'mine' 255 and -1, 'other' 1 and 255"):
        SegmentationDisplay.from_estimator({"mine": cnn, "other": Threshold(90)}, X, masks)


def test_estimators_side_by_side_on_unequal_images(phantoms, models):
    X, y = ([phantoms[k][0], phantoms[k][1][:, :20]] for k in (0, 1))
    pipeline = make_pipeline(CNNSegmenter(small_unet, n_epochs=1, random_state=0), MaxMarginCRF()).fit(*phantoms)
    estimators = {"field": models["piecewise"], "pipeline": pipeline}
    display = SegmentationDisplay.from_estimator(estimators, X, y)
    assert display.axes_.shape == (2, 4)
    for name, model in estimators.items():
        for result, expected in zip(display.predictions[name], model.predict(X), strict=True):
            np.testing.assert_array_equal(result, expected)


def test_outlines_run_between_foreground_and_background_also_at_the_edge():
    labels = np.zeros((6, 8), dtype=int)
    labels[:3, 2:5] = 1
    display = SegmentationDisplay.from_predictions([labels.astype(float)], [labels], {})
    ax = display.axes_[0, 1]
    assert ax.collections
    for contour in ax.collections:
        (path,) = contour.get_paths()
        np.testing.assert_allclose([path.vertices.min(0), path.vertices.max(0)], [[1.5, -0.5], [4.5, 2.5]])
    assert ax.get_xlim()[0] < -0.5
    assert ax.get_ylim()[1] < -0.5


def test_empty_results_and_floats_beyond_the_range():
    image, labels = np.array([[-3.0, 0.25], [0.5, 7.0]]), np.zeros((1, 2, 2), dtype=int)
    display = SegmentationDisplay.from_predictions([image], labels, labels)
    np.testing.assert_allclose(display.axes_[0, 0].images[0].get_array(), [[0, 0.25], [0.5, 1]])
    assert display.axes_[0, 2].get_xlabel() == "Jaccard: both empty"
    assert not display.axes_[0, 1].collections


def test_unlabelled_pixels_are_shaded_and_not_counted():
    truth = np.array([[1, 1, 0, 255]])
    wrong = np.array([[1, 0, 0, 1]])
    display = SegmentationDisplay.from_predictions(np.zeros((2, 1, 4)), [truth, truth % 255], {"wrong": [wrong, wrong]})
    np.testing.assert_allclose(display.jaccard["wrong"], [1 / 2, 1 / 3])
    shade = display.axes_[0, 1].images[1].get_array()
    np.testing.assert_array_equal(shade[..., 3] > 0, truth == 255)
    assert "unlabelled" in display.axes_[0, 1].get_xlabel()
    assert len(display.axes_[1, 1].images) == 1
    # a few images may well be without foreground
    empty = SegmentationDisplay.from_predictions(np.zeros((1, 1, 4)), [255 * (truth == 255)], [wrong])
    np.testing.assert_array_equal(empty.jaccard["result"], [0])


# several classes


class Classes(BaseEstimator):
    """The image is the result."""

    classes_ = np.array([0, 5, 9])

    def predict(self, X):
        return X


# of the classes 0, 5 and 9
FIRST_COLOURS = [[0, 114, 178], [230, 159, 0], [0, 158, 115]]
NEUTRAL = [190, 190, 190]


def three_classes():
    return np.array([[[0, 5, 5, 9]], [[9, 9, 9, 9]]], np.uint8), np.array([[[0, 5, 255, 5]], [[9, 9, 9, 9]]])


def legend_of(display):
    """The colours of a legend by their names."""
    (legend,) = display.figure_.legends
    colours = [np.rint(255 * np.array(patch.get_facecolor()[:3])).tolist() for patch in legend.get_patches()]
    return dict(zip([text.get_text() for text in legend.get_texts()], colours))


def test_classes_are_shown_in_colours_with_a_legend():
    X, y = three_classes()
    display = SegmentationDisplay.from_estimator(Classes(), X, y, class_names=["sky", "road", "car"])
    sky, road, car = FIRST_COLOURS
    truth, result = (display.axes_[0, n].images[0].get_array() for n in (1, 2))
    seen = 0.5 * X[0][..., np.newaxis]  # the image shines through
    np.testing.assert_allclose(truth[:, [0, 1, 3]], (0.5 * np.array([[sky, road, road]]) + seen[:, [0, 1, 3]]), atol=1)
    assert truth[0, 2].tolist() == NEUTRAL
    np.testing.assert_allclose(result, 0.5 * np.array([[sky, road, road, car]]) + seen, atol=1)
    assert legend_of(display) == {"sky": sky, "road": road, "car": car, "unlabelled": NEUTRAL}
    expected = np.nanmean(jaccard_indices(y, X, classes=(0, 5, 9)), axis=1)
    np.testing.assert_allclose(display.jaccard["Classes"], expected)
    assert [ax.get_xlabel() for ax in display.axes_[:, 2]] == ["mean Jaccard 50.0 %", "mean Jaccard 100.0 %"]


def test_the_legend_has_the_classes_that_are_shown_and_labels_if_there_are_no_names():
    X, y = (part[1:] for part in three_classes())
    display = SegmentationDisplay.from_predictions(X, y, {"a": X, "b": X}, classes=(0, 5, 9))
    assert legend_of(display) == {"class 9": FIRST_COLOURS[2]}
    assert display.axes_.shape == (1, 4)


@pytest.mark.parametrize("n_classes", [3, 21])
def test_the_legend_lies_below_the_pictures(n_classes):
    y = np.arange(n_classes).reshape(1, 3, -1)
    names = [f"class of number {n}" for n in range(n_classes)]
    display = SegmentationDisplay.from_predictions(y / 255, y, y, classes=range(n_classes), class_names=names)
    display.figure_.canvas.draw()
    (legend,) = display.figure_.legends
    assert len(legend.get_texts()) == n_classes
    box, whole = legend.get_window_extent(), display.figure_.bbox
    assert box.y1 <= min(ax.get_tightbbox().y0 for ax in display.axes_.flat)
    assert 0 <= box.x0 < box.x1 <= whole.x1
    assert max(ax.title.get_window_extent().y1 for ax in display.axes_.flat) <= whole.y1


def test_images_without_any_label_have_no_index():
    X, y = three_classes()
    y[1] = 255
    display = SegmentationDisplay.from_predictions(X, y, X, classes=(0, 5, 9))
    assert display.axes_[1, 2].get_xlabel() == "no label"


def test_what_does_not_fit_several_classes_is_told():
    X, y = three_classes()
    with pytest.raises(ValueError, match="class_names must hold a name for each of the 3 classes"):
        SegmentationDisplay.from_estimator(Classes(), X, y, class_names=["a"])
    with pytest.raises(ValueError, match="pos_label is for two labels: leave it out for several classes, got 9"):
        SegmentationDisplay.from_estimator(Classes(), X, y, pos_label=9)
    with pytest.raises(ValueError, match="they have: 'a' \\(0, 5, 9\\) and 255, 'b' 1 and 255"):
        SegmentationDisplay.from_estimator({"a": Classes(), "b": Threshold(90)}, X, y)
    with pytest.raises(ValueError, match=r"predictions of 'result'\[0\] must hold the labels 0, 5 and 9 only"):
        SegmentationDisplay.from_predictions(X, y, y, classes=(0, 5, 9))


def test_energies_of_several_classes_are_refused(phantoms, models, monkeypatch):
    monkeypatch.setattr(DeepStructuredSegmenter, "classes_", np.arange(3))
    with pytest.raises(
        ValueError, match=r"estimator must be of two labels, got the classes 0, 1 and 2. SegmentationDisplay"
    ):
        EnergyDisplay.from_estimator(models["piecewise"], phantoms[0][0])


# curves of training


def test_curves_hold_the_history():
    history = [{"stage": "cnn", "epoch": n, "loss": 1 / n, "jaccard": 0.1} for n in (1, 2)]
    history += [{"stage": "joint", "epoch": n, "gamma": 9 - n, "jaccard": 0.8, "valid_jaccard": 0.7} for n in range(3)]
    display = TrainingCurveDisplay({"model": history}).plot()
    (loss, gamma), (pretrained, joint) = display.axes_
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 1], [2, 0.5]])
    np.testing.assert_array_equal(gamma.lines[0].get_xydata(), [[0, 9], [1, 8], [2, 7]])
    np.testing.assert_allclose([line.get_ydata() for line in joint.lines], [[80] * 3, [70] * 3])
    assert len(pretrained.lines) == 1
    assert [text.get_text() for text in pretrained.get_legend().get_texts()] == ["training images"]
    assert [text.get_text() for text in joint.get_legend().get_texts()] == ["training images", "validation images"]


def test_curves_of_several_models_differ_in_colour(models):
    (loss, gamma), (_, jaccard) = TrainingCurveDisplay.from_estimator(models).axes_
    assert [text.get_text() for text in loss.get_legend().get_texts()] == list(models)
    assert len({line.get_color() for line in loss.lines}) == 3
    # of the three, one was trained jointly; its colour is the same everywhere
    assert [line.get_label() for line in gamma.lines] == ["joint"]
    assert {line.get_color() for line in [*gamma.lines, *jaccard.lines]} == {loss.lines[2].get_color()}


def test_the_legend_of_lines_has_their_colour_where_they_share_one(models):
    for given, expected in (
        (models["joint"], "C0"),
        (models, "C2"),
        ({"a": models["joint"], "b": models["joint"]}, "black"),
    ):
        lower = TrainingCurveDisplay.from_estimator(given, stage="joint").axes_[1, 0]
        assert {line.get_color() for line in lower.get_legend().get_lines()} == {expected}


def test_curves_of_one_stage_only(models):
    display = TrainingCurveDisplay.from_estimator(models["joint"], stage="joint")
    assert [ax.get_xlabel() for ax in display.axes_[:, 0]] == ["", "epoch of joint training (0: piecewise)"]
    assert display.axes_.shape == (2, 1)
    with pytest.raises(ValueError, match="no epoch of stage 'joint'"):
        TrainingCurveDisplay.from_estimator(models["cnn"], stage="joint")
    with pytest.raises(ValueError, match=r"stage must be one of .*, got 'both'"):
        display.plot(stage="both")


def test_curves_need_a_history():
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(CNNSegmenter())
    crf = MaxMarginCRF()
    crf.coef_ = np.ones(3)
    with pytest.raises(TypeError, match="estimator must have a history_, got MaxMarginCRF"):
        TrainingCurveDisplay.from_estimator(crf)


# the energy


def energy_of(image, log_odds, pairwise="contrast", sigma=0.3):
    return Field(Grid.from_connectivity(8), build_terms(pairwise, sigma)).energy(log_odds, image)


def test_energy_is_that_of_the_prediction(models, phantoms):
    model, image = models["joint"], phantoms[0][0]
    display = EnergyDisplay.from_estimator(model, image)
    np.testing.assert_array_equal(display.labels, model.predict(image[np.newaxis])[0])
    log_odds = model.decision_function(image[np.newaxis])[0]
    energy = energy_of(image[..., np.newaxis], log_odds, sigma=model.sigma_)
    parts = model.coef_ * energy.psi(display.labels)
    title = display.figure_._suptitle.get_text()
    assert f"energy {parts.sum():.6g} = unary {parts[0]:.6g} + pairwise {parts[1:].sum():.6g}" in title
    unary = display.axes_[1].images[0]
    np.testing.assert_allclose(unary.get_array(), model.coef_[0] * log_odds, rtol=1e-6)
    assert unary.norm(0.0) == 0.5


@pytest.mark.parametrize(("pairwise", "w"), [("contrast", [1.5, 0.4, 0.7]), ("smoothness", [1.5, 0.4])])
def test_cut_edges_cost_the_pairwise_energy(pairwise, w):
    rng = np.random.default_rng(0)
    image, labels = rng.uniform(size=(5, 4, 1)), rng.uniform(size=(5, 4)) < 0.5
    energy, w = energy_of(image, rng.normal(size=(5, 4)), pairwise), np.array(w)
    contrast_weight = w[2] if len(w) == 3 else 0
    _, _, means, cut = EnergyDisplay(image, labels, energy, w).plot().axes_
    lines = cut.collections[0]
    assert lines.get_array().sum() == pytest.approx(w[1:] @ energy.psi(labels)[1:])
    for (start, end), cost in zip(lines.get_segments(), lines.get_array(), strict=True):
        (a, b), (c, d) = start[::-1].astype(int), end[::-1].astype(int)
        assert labels[a, b] != labels[c, d]
        contrast = np.exp(-((image[a, b, 0] - image[c, d, 0]) ** 2) / (2 * 0.3**2))
        assert cost == pytest.approx((0.4 + contrast_weight * contrast) / np.hypot(a - c, b - d))
    corner = image[0, 0, 0] - np.array([image[0, 1, 0], image[1, 0, 0], image[1, 1, 0]])
    expected = 0.4 + contrast_weight * np.exp(-(corner**2) / (2 * 0.3**2)).mean()
    assert means.images[0].get_array()[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1), (9, 3), (3, 9)])
def test_energy_where_nothing_is_cut_or_varies(shape):
    image, labels = np.zeros((*shape, 3)), np.zeros(shape, dtype=bool)
    display = EnergyDisplay(image, labels, energy_of(image, np.zeros(shape)), np.array([1.0, 0.0, 0.0])).plot()
    assert "pairwise 0" in display.figure_._suptitle.get_text()
    assert not display.axes_[3].collections


@pytest.mark.parametrize("figsize", [None, (5, 4), (12, 4)])
@pytest.mark.parametrize("shape", [(40, 40), (100, 20), (20, 100)])
def test_captions_of_the_energy_leave_each_other_room(shape, figsize):
    rng = np.random.default_rng(0)
    energy = energy_of(rng.uniform(size=(*shape, 1)), rng.normal(size=shape))
    figure = figsize and plt.figure(figsize=figsize, layout="constrained")
    display = EnergyDisplay(np.zeros((*shape, 1)), rng.uniform(size=shape) < 0.5, energy, np.array([1.5, 0.4, 7000.0]))
    axes = display.plot(figure=figure).axes_
    display.figure_.canvas.draw()
    bars = [bar for ax in axes for bar in ax.child_axes]
    ticks = [(tick, *bar.get_ylim()) for bar in bars for tick in bar.yaxis.get_major_ticks()]
    ticks = [tick.label2 for tick, low, high in ticks if low <= tick.get_loc() <= high]
    shown = [*(text for ax in axes for text in (ax.title, ax.xaxis.label)), *ticks, display.figure_._suptitle]
    boxes = [text.get_window_extent() for text in shown if text.get_text()]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= display.figure_.bbox.width for box in boxes)


def test_energy_needs_a_field(models, phantoms):
    image = phantoms[0][0]
    with pytest.raises(ValueError, match='training="cnn"'):
        EnergyDisplay.from_estimator(models["cnn"], image)
    with pytest.raises(NotFittedError):
        EnergyDisplay.from_estimator(DeepStructuredSegmenter(), image)
    with pytest.raises(TypeError, match="estimator must be a DeepStructuredSegmenter, got Threshold"):
        EnergyDisplay.from_estimator(Threshold(90), image)
    with pytest.raises(ValueError, match="image.* has 3 channels, but .* has 1: make all images grey"):
        EnergyDisplay.from_estimator(models["joint"], np.stack([image] * 3, axis=-1))


# all of them


def test_displays_share_a_figure(models, phantoms):
    figure = plt.figure(figsize=(10, 30), layout="constrained")
    one, two, three = figure.subfigures(3, 1)
    assert SegmentationDisplay.from_estimator(models, *phantoms, figure=one).figure_ is one
    assert TrainingCurveDisplay.from_estimator(models, figure=two).figure_ is two
    assert EnergyDisplay.from_estimator(models["joint"], phantoms[0][0], figure=three).figure_ is three
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


SQUARES = np.zeros((2, 2, 2))
IMAGE, LABELS = np.zeros((3, 4, 1)), np.zeros((3, 4), dtype=bool)


def results(X=SQUARES, y=SQUARES, predictions=SQUARES, **parameters):
    return SegmentationDisplay.from_predictions(X, y, predictions, **parameters)


def of_estimator(estimator, y=SQUARES):
    return SegmentationDisplay.from_estimator(estimator, SQUARES, y)


def parts(images=(IMAGE,), labels=(LABELS,), predictions=None, jaccard=None):
    return SegmentationDisplay(images, labels, predictions or {"a": [LABELS]}, jaccard or {"a": [1.0]}).plot()


def energy_parts(labels=LABELS, image=IMAGE, coef=(1.0, 1.0, 1.0)):
    return EnergyDisplay(IMAGE, labels, energy_of(image, image[..., 0]), np.array(coef)).plot()


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: results(y=SQUARES[:1]), ValueError, "X and y must have the same length, got 2 images and 1"),
        (lambda: results(y=SQUARES + 7), ValueError, r"labels 0, 1 and 255 only, found \[7.0\]"),
        (lambda: results(predictions=SQUARES[:1]), ValueError, "X and predictions of 'result' must have the same"),
        (lambda: results(predictions={"mine": SQUARES + 255}), ValueError, r"predictions of 'mine'\[0\] must hold the"),
        (lambda: results(X=SQUARES.astype(int)), ValueError, r"X\[0\] must be of dtype"),
        (lambda: results(pos_label=0), ValueError, "'pos_label' parameter"),
        (lambda: of_estimator({"never asked": None}, SQUARES + 7), ValueError, "labels 0, 1 and 255 only"),
        (lambda: of_estimator({"mine": None}), TypeError, "estimator must have the method predict, 'mine' has none"),
        (lambda: of_estimator({}), ValueError, "estimator must hold at least one estimator"),
        (lambda: parts(labels=[]), ValueError, "there are 1 images, but 0 labels"),
        (lambda: parts(predictions={"a": []}), ValueError, "there are 1 images, but 0 a"),
        (lambda: parts(jaccard={"b": [1.0]}), ValueError, "jaccard must be of a, got b"),
        (lambda: TrainingCurveDisplay({"nothing": []}).plot(), ValueError, "no epoch of training"),
        (lambda: TrainingCurveDisplay({"a": [{}]}).plot(), ValueError, "stage and epoch, that of 'a' is not"),
        (lambda: energy_parts(coef=[1.0, 1.0]), ValueError, r"coef must be of shape \(3,\), got \(2,\)"),
        (
            lambda: energy_parts(labels=LABELS.T),
            ValueError,
            r"labels must have the size of image, .* got \(4, 3\)",
        ),
        (lambda: energy_parts(image=IMAGE.swapaxes(0, 1)), ValueError, r"labels .*\(4, 3\)"),
    ],
)
def test_what_does_not_fit_is_told(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: of_estimator(None),
        lambda: results(),
        lambda: TrainingCurveDisplay.from_estimator(None),
        lambda: TrainingCurveDisplay({}).plot(),
        lambda: EnergyDisplay.from_estimator(None, None),
    ],
)
def test_missing_matplotlib_is_asked_for_by_name(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw()
