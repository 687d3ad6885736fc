import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator

from skmmcrf._colours import WRONG_COLOUR
from skmmcrf.metrics import confusion_matrices, evaluate, pooled_jaccard_indices
from skmmcrf.report import make_report

BLUE, YELLOW, ORANGE, PURPLE = (86, 180, 233), (240, 228, 66), (213, 94, 0), (204, 121, 167)


class Bright(BaseEstimator):
    """What is brighter than a grey value."""

    def __init__(self, above=100):
        self.above = above

    def predict(self, X):
        return [(np.asarray(x).reshape(*np.shape(x)[:2], -1)[..., 0] > self.above).astype(int) for x in X]


def images_of(*shares):
    """Images of 10 x 10 pixels, of whose foreground, all pixels, a share is bright."""
    images = np.zeros((len(shares), 100), np.uint8)
    for image, share in zip(images, shares):
        image[: round(100 * share)] = 200
    return images.reshape(-1, 10, 10), np.ones((len(shares), 10, 10), int)


class Page(HTMLParser):
    """The tags of a page that are open at its end, its texts, and the attributes of its tags."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.attributes = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *each) for each in attrs]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all_of(self, tag, key):
        return [value for *of, value in self.attributes if of == [tag, key]]

    def pictures(self):
        sources = self.all_of("img", "src")
        files = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
        return [np.array(Image.open(io.BytesIO(file))) for file in files]


def names_by_heading(report):
    sections = re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", report.html, re.DOTALL)
    return {heading: re.findall(r"<b>(.*?)</b>", content) for heading, content in sections}


def test_best_median_and_worst_images_are_shown():
    shares = [0.3, 0.9, 0.1, 0.5, 0.8, 0.2, 0.6, 0.4, 0.7]
    names = [f"image {share}" for share in shares]
    report = make_report(Bright(), *images_of(*shares), names=names, n_cases=2)
    assert names_by_heading(report) == {
        "Worst": ["image 0.1", "image 0.2"],
        "Median": ["image 0.4", "image 0.5"],
        "Best": ["image 0.9", "image 0.8"],
    }
    assert "Jaccard 10.0 %" in report.html
    few = make_report(Bright(), *images_of(*shares), names=names, n_cases=3)
    assert names_by_heading(few) == {"From worst to best": sorted(names)}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_pictures_have_the_image_and_what_is_found_missed_too_much_and_unlabelled_in_colours(dtype):
    grey = np.array([[0, 0, 255, 255, 255, 0]]).repeat(2, axis=0)
    image = {np.uint8: grey, np.uint16: 900 + grey, np.float32: -1 + grey / 100, bool: grey > 0}[dtype].astype(dtype)
    truth = np.array([[0, 1, 1, 0, 255, 255]]).repeat(2, axis=0)
    above = {np.uint8: 100, np.uint16: 1000, np.float32: 0, bool: 0.5}[dtype]
    shown, overlay = Page(make_report(Bright(above), [image], [truth]).html).pictures()
    assert shown.shape == (160, 480)
    np.testing.assert_array_equal(shown[::80, ::80], grey)
    colors = [None, (YELLOW, 0, 0.8), (BLUE, 255, 0.5), (ORANGE, 255, 0.8), (PURPLE, 255, 0.5), (PURPLE, 0, 0.5)]
    for pixel, mixed in zip(overlay[0, 40::80], colors):
        color, below, opacity = mixed or ((0, 0, 0), 0, 1)
        np.testing.assert_allclose(pixel, opacity * np.array(color) + (1 - opacity) * below, atol=1)


@pytest.mark.parametrize(("shape", "size"), [((1000, 500), (480, 240)), ((300, 400), (300, 400)), ((5, 7), (340, 476))])
def test_pictures_are_of_moderate_size_and_three_channels_are_colours(shape, size):
    image = np.zeros((*shape, 3), np.uint8)
    image[...] = [200, 150, 10]
    shown, overlay = Page(make_report(Bright(), [image], [np.ones(shape, int)]).html).pictures()
    assert shown.shape == overlay.shape == (*size, 3)
    assert set(map(tuple, shown.reshape(-1, 3).tolist())) == {(200, 150, 10)}
    assert len(set(overlay[0, 0].tolist())) == 3


def test_the_summary_has_means_with_intervals_of_the_images_that_count():
    shares = np.linspace(0.1, 0.9, 40)
    X, y = images_of(*shares, 0)
    y[-1] = 0
    report = make_report(Bright(), X, y)
    summary = {name: dict(zip(report.summary["measure"], column)) for name, column in report.summary.items()}
    assert summary["mean"]["jaccard"] == pytest.approx(np.mean(shares.round(2)), abs=1e-3)
    assert summary["median"]["jaccard"] == pytest.approx(0.5, abs=0.02)
    assert (summary["n_images"]["jaccard"], summary["n_images"]["true_foreground"]) == (40, 41)
    # that of the normal distribution, which the mean of so many nearly has
    half = 1.96 * shares.std() / np.sqrt(40)
    assert summary["low"]["jaccard"] == pytest.approx(0.5 - half, abs=0.006)
    assert summary["high"]["jaccard"] == pytest.approx(0.5 + half, abs=0.006)
    assert make_report(Bright(), X, y).html == report.html
    one = make_report(Bright(), X[:1], y[:1]).summary
    assert np.isnan([one["low"], one["high"]]).all()
    assert one["mean"][0] == pytest.approx(0.1)


def test_the_table_is_that_of_evaluate_from_worst_to_best():
    X, y = images_of(0.3, 0.9, 0.1)
    report = make_report(Bright(), X, y, tolerance=3, both_empty="perfect")
    for column, values in evaluate(Bright(), X, y, tolerance=3, both_empty="perfect").items():
        np.testing.assert_array_equal(report.table[column], values)
    assert "within 3 pixels" in report.html
    rows = re.findall(r'<tr><th scope="row">(\d)</th><td>([\d.]+)</td>', report.html)
    assert rows == [("2", "10.0"), ("0", "30.0"), ("1", "90.0")]


def test_images_whose_measures_say_little_are_counted_in_words():
    X, y = images_of(0.5, 0, 0, 0.5, 0, 0, 0.5)
    y[:2, 0, 0] = 255
    y[2:6] = 0
    y[6] = 255
    notes = re.findall("<li>(.*?)</li>", make_report(Bright(), X, y).html)
    expected = [
        "1 image with foreground: none of it was found",
        "1 image without foreground: some was found",
        "3 images without foreground: none was found, which is left out by the measures",
        "1 image without any label: left out",
    ]
    assert [note.split(".")[0] for note in notes[2:]] == expected
    perfect = make_report(Bright(), X, y, both_empty="perfect").html
    assert "none was found, which counts as perfect" in perfect
    assert "without" not in make_report(Bright(), *images_of(0.5)).html
    nothing = make_report(Bright(), X[4:6], y[4:6])
    assert names_by_heading(nothing) == {}


@pytest.mark.parametrize("kind", ["paths", "pairs", "dataset"])
def test_images_are_taken_in_any_form(kind, tmp_path):
    X, y = images_of(0.5, 0.2, 0.8)
    if kind == "paths":
        files = [tmp_path / f"{name}.png" for name in "abc"]
        for file, image in zip(files, X):
            Image.fromarray(image).save(file)
        report = make_report(Files(), files, y)
        assert names_by_heading(report) == {"From worst to best": ["b", "a", "c"]}
    else:
        pairs = list(zip(X, y))
        report = make_report(Bright(), pairs if kind == "pairs" else Changing(pairs, 0))
    page = Page(report.html)
    np.testing.assert_array_equal(page.pictures()[0][::48, ::48], X[1])


class Files(Bright):
    def predict(self, X):
        return super().predict([np.array(Image.open(file)) for file in X])


class Changing:
    """A dataset whose pairs turn at each call."""

    def __init__(self, pairs, turns):
        self.pairs, self.turns, self.calls = pairs, turns, 0

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, n):
        self.calls += self.turns
        return tuple(np.rot90(part, self.calls) for part in self.pairs[n])


def test_a_dataset_that_changes_each_time_is_refused():
    X, y = images_of(0.5, 0.2, 0.8)
    y[:, 5:] = 0
    with pytest.raises(ValueError, match="X changes each time that it is read"):
        make_report(Bright(), Changing(list(zip(X, y)), 1))


def test_the_page_stands_alone_and_names_are_no_html(tmp_path):
    evil = ["<script>alert(1)</script>", '"><img src="http://example.org/a.png">', "ä & ü"]
    report = make_report(Bright(), *images_of(0.5, 0.2, 0.8), names=evil)
    file = tmp_path / "report.html"
    report.save(file)
    written = file.read_text(encoding="utf-8")
    assert report._repr_html_() in written
    page = Page(written)
    assert page.open == []
    assert page.texts.count(evil[0]) == page.texts.count(evil[1]) == page.texts.count(evil[2]) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.all_of("img", "src"))
    assert "ä & ü" in "".join(page.all_of("img", "alt"))
    assert not {"script", "link", "iframe"} & {tag for tag, *_ in page.attributes}
    assert not re.search(r"url\(|@import", written)


def test_the_estimator_is_told_by_its_parameters():
    texts = Page(make_report(Bright(above=77), *images_of(0.5)).html).texts
    assert "Bright on 1 image" in texts
    assert any("Bright(above=77)" in text for text in texts)


def test_the_legend_names_unlabelled_pixels_only_where_there_are_some():
    X, y = images_of(0.5, 0.2)
    assert "unlabelled" not in make_report(Bright(), X, y).html
    y[0, 0] = 255
    assert "unlabelled, not counted" in make_report(Bright(), X, y).html


@pytest.mark.parametrize("n_cases", [0, 1.5, None])
def test_a_bad_number_of_cases_is_told(n_cases):
    with pytest.raises(ValueError, match="'n_cases' parameter of make_report"):
        make_report(Bright(), *images_of(0.5), n_cases=n_cases)


# several classes


class Third(BaseEstimator):
    """The first of 3 channels is the result."""

    classes_ = np.array([0, 5, 9])

    def predict(self, X):
        return [x[..., 0] for x in X]


# of the classes 0, 5 and 9
FIRST_COLORS = [(0, 114, 178), (230, 159, 0), (0, 158, 115)]
NEUTRAL = (190, 190, 190)


def three_classes():
    found = np.array([[[0, 0, 5, 5, 9, 9]], [[5, 5, 5, 5, 5, 5]]], np.uint8).repeat(2, axis=1)
    truth = np.array([[[0, 5, 5, 5, 9, 255]], [[5, 5, 5, 5, 5, 5]]]).repeat(2, axis=1)
    return np.repeat(found[..., np.newaxis], 3, axis=3), truth


def test_pictures_of_classes_have_truth_and_prediction_in_colours_and_what_is_wrong():
    X, y = three_classes()
    page = Page(make_report(Third(), X, y).html)
    assert [alt.split(" ")[0] for alt in page.all_of("img", "alt")] == ["image", "truth", "prediction", "errors"] * 2
    image, truth, result, errors = (picture[80, 40::80].tolist() for picture in page.pictures()[:4])
    assert image == [[value] * 3 for value in X[0, 0, :, 0]]
    one, two, three = map(list, FIRST_COLORS)
    grey = [np.repeat(value, 3).astype(float) for value in X[0, 0, :, 0]]
    for picture, classes in ((truth, [one, two, two, two, three]), (result, [one, one, two, two, three])):
        np.testing.assert_allclose(picture[:5], 0.5 * np.array(classes) + 0.5 * np.array(grey[:5]), atol=1)
        assert picture[5] == list(NEUTRAL)
    grey[1] = 0.8 * np.array(WRONG_COLOUR) + 0.2 * grey[1]
    grey[5] = 0.8 * np.array(NEUTRAL) + 0.2 * grey[5]
    np.testing.assert_allclose(errors, grey, atol=1)


def test_the_table_of_classes_has_pooled_indices_and_means_over_images():
    X, y = three_classes()
    X[1, 0, 0] = 0  # a class that is in the prediction alone
    report = make_report(Third(), X, y, class_names=["a & b", "car", "sky"])
    found = X[..., 0]
    np.testing.assert_array_equal(report.confusion, confusion_matrices(y, found, classes=(0, 5, 9)).sum(axis=0))
    rows = re.findall(
        r'<tr><th scope="row">(\D+)</th><td>([\d.]+)</td><td>([\d.]*)</td>.*<td>(\d*)</td></tr>', report.html
    )
    pooled = pooled_jaccard_indices(y, found, classes=(0, 5, 9))
    own = [evaluate(Third(), X, y)[f"jaccard_{label}"] for label in (0, 5, 9)]
    expected = [
        (name, f"{100 * index:.1f}", f"{100 * np.nanmean(values):.1f}", str(np.isfinite(values).sum()))
        for name, index, values in zip(["a &amp; b", "car", "sky"], pooled, own)
    ]
    assert rows[-4:] == [*expected, ("mean over the classes", f"{100 * pooled.mean():.1f}", "", "")]
    legend = Page(report.html).texts
    assert all(legend.count(name) == 2 for name in ("a & b", "car", "sky"))  # there and in the table
    assert "rgb(0, 114, 178)" in report.html


def test_the_summary_of_classes_has_all_columns_and_the_page_those_of_images():
    X, y = three_classes()
    y[1] = 255
    report = make_report(Third(), X, y)
    assert Page(report.html).texts.count("class 5") == 2  # in the table and in the legend
    assert report.summary["measure"].tolist() == [name for name in report.table if name != "image"]
    assert "Accuracy, % of the pixels" in report.html
    assert "1 image without any label: left out." in report.html
    assert names_by_heading(report) == {"From worst to best": ["0"]}
    assert "are left out" in report.html
    assert "count as perfect" in make_report(Third(), X, y, both_empty="perfect").html


def test_a_dataset_of_several_classes_that_changes_each_time_is_refused():
    with pytest.raises(ValueError, match="X changes each time that it is read"):
        make_report(Third(), Changing(list(zip(*three_classes())), 1))


def test_names_that_are_not_one_a_class_are_told():
    for wrong in (["a", "b"], "abc"):
        with pytest.raises(ValueError, match=r"class_names must hold a name for each of the 3 classes, got"):
            make_report(Third(), *three_classes(), class_names=wrong)
    with pytest.raises(ValueError, match=r"class_names must be None for two labels, got \['a', 'b'\]"):
        make_report(Bright(), *images_of(0.5), class_names=["a", "b"])
