"""A report on how good a model is: measures with intervals, and the best and the worst images, as one page of HTML."""

import io
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from PIL import Image
from scipy.stats import bootstrap
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from skmmcrf._colours import UNLABELLED_COLOUR, WRONG_COLOUR, class_colours, tinted
from skmmcrf._docs import documented
from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, IntArray, LabelsLike
from skmmcrf._version import __version__
from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.images.checking import check_images
from skmmcrf.images.entries import as_sequence, image_and_labels
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics.evaluation import Labeling, labelings_of, table_of
from skmmcrf.metrics.means import mean_of_defined
from skmmcrf.metrics.pooled import count_pixels, jaccard_of_confusion
from skmmcrf.metrics.reading import label_scheme_of, names_of_classes

# what the columns of a table are called, and the number that the report multiplies them by
_MEASURES = {
    "jaccard": ("Jaccard index, %", 100),
    "dice": ("Dice index, %", 100),
    "boundary_f": ("Boundary F-measure, %", 100),
    "hausdorff_95": ("Hausdorff distance (percentile 95), pixels", 1),
}
_OF_FOREGROUND = {
    "true_foreground": ("True foreground, % of the pixels", 100),
    "predicted_foreground": ("Predicted foreground, % of the pixels", 100),
}
_OF_ALL_CLASSES = {"accuracy": ("Accuracy, % of the pixels", 100)}
_OF_EACH_CLASS = {"true": ("True, % of the pixels", 100), "predicted": ("Predicted, % of the pixels", 100)}

# by what is shown: its colour, opacity and meaning. People who are blind to red or green tell these colours apart
# (Okabe and Ito)
_COLORS = {
    "found": ((86, 180, 233), 0.5, "found (true positive)"),
    "missed": ((240, 228, 66), 0.8, "missed (false negative)"),
    "too much": ((213, 94, 0), 0.8, "too much (false positive)"),
    "unlabelled": ((204, 121, 167), 0.5, "unlabelled, not counted"),
}
_COLORS_OF_ERRORS = {
    "wrong": (WRONG_COLOUR, 0.8, "wrong"),
    "unlabelled": (UNLABELLED_COLOUR, 0.8, "unlabelled, not counted"),
}

_Columns: TypeAlias = dict[str, tuple[str, int]]
_Colors: TypeAlias = dict[str, tuple[tuple[int, int, int], float, str]]

_NO_LABEL = "without any label: left out."

_PIXELS = 480  # of the longer side of a picture

_STYLE = """
.skmmcrf-report {font: 0.95rem/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto}
.skmmcrf-report h1 {font-size: 1.5rem; margin: 1rem 0}
.skmmcrf-report h2 {font-size: 1.15rem; margin: 2rem 0 0.5rem}
.skmmcrf-report ul {padding-left: 1.2rem}
.skmmcrf-report table {border-collapse: collapse; font-size: inherit; margin: 0.5rem 0}
.skmmcrf-report :is(th, td) {text-align: right; padding: 0.2rem 0.8rem; font-variant-numeric: tabular-nums}
.skmmcrf-report :is(th, td):first-child {text-align: left; padding-left: 0}
.skmmcrf-report th {font-weight: 600; vertical-align: bottom}
.skmmcrf-report tbody th {font-weight: inherit; min-width: 10rem}
.skmmcrf-report tr {border-bottom: 1px solid rgb(128 128 128 / 40%); background: none}
.skmmcrf-report .cases {display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1.2rem}
.skmmcrf-report :is(section, figure) {margin: 0; break-inside: avoid}
.skmmcrf-report figure div {display: flex; flex-wrap: wrap; gap: 0.3rem; align-items: flex-start}
.skmmcrf-report img {width: calc(50% - 0.15rem); min-width: 0; max-height: 18rem; margin: 0; object-fit: contain;
  object-position: left}
.skmmcrf-report :is(figcaption, tbody th) {overflow-wrap: anywhere}
.skmmcrf-report .legend span {margin-right: 1.5rem; white-space: nowrap}
.skmmcrf-report .legend i {display: inline-block; width: 1em; height: 1em; margin-right: 0.4em; vertical-align: -0.1em;
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
  outline: 1px solid rgb(128 128 128 / 40%)}
.skmmcrf-report details {margin: 1.5rem 0; overflow-x: auto}
.skmmcrf-report pre {white-space: pre-wrap}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root {{color-scheme: light dark}} body {{margin: 1rem}}</style>
</head>
<body>
{report}
</body>
</html>
"""


@dataclass(frozen=True)
class Report:
    """Measures of a model on some images, and pictures of the best, median and worst of them. See `make_report`.

    A notebook shows it as the value of a cell.

    Attributes
    ----------
    title : str
    table : dict of str to ndarray of shape (n,)
        A row for each image, as `skmmcrf.metrics.evaluate` gives it.
    summary : dict of str to ndarray
        A row for each column of `table` that has numbers. "measure" has the name of the column. "mean" and "median" are
        over the "n_images" where it is no NaN. "low" and "high" are the 95 % interval of the mean, and NaN if fewer
        than two images count.
    html : str
        The report as part of a page.
    confusion : ndarray of int and shape (K, K)
        The labelled pixels of all images by their true class (rows) and their predicted class (columns). Two labels
        are two classes, background and foreground.

    Examples
    --------
    >>> import tempfile
    >>> from skmmcrf import CNNSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> report = make_report(CNNSegmenter(n_epochs=2, random_state=0).fit(X, y), X, y)
    >>> report
    Report(title='CNNSegmenter on 4 images')
    >>> report.save(tempfile.mkdtemp() + "/report.html")
    """

    title: str
    table: dict[str, np.ndarray] = field(repr=False)
    summary: dict[str, np.ndarray] = field(repr=False)
    html: str = field(repr=False)
    confusion: IntArray = field(repr=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the report to a file of HTML that needs no other file.

        Parameters
        ----------
        path : path
            Such as "report.html". An earlier file is replaced.

        Returns
        -------
        None
        """
        Path(path).write_text(_PAGE.format(title=escape(self.title), report=self.html), encoding="utf-8")

    def _repr_html_(self) -> str:
        return self.html


@documented
def make_report(
    estimator: Any,
    X: ImagesLike,
    y: LabelsLike | None = None,
    *,
    names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    n_cases: int = 3,
    both_empty: Literal["omit", "perfect"] = "omit",
    tolerance: float | None = None,
) -> Report:
    """Measure an estimator on images, and show where it is right and wrong.

    The report has the means of all measures with their 95 % intervals. It shows the best, median and worst images by
    the Jaccard index, with the pixels that were found, missed, and too much. All images are listed at its end.

    With more than two classes it has a table of the classes. The pictures are tinted by the truth and by the prediction
    in the colours of the classes, and the last one by the pixels that are wrong.

    Intervals are made by the bootstrap: the mean is taken again and again over as many images, drawn with replacement.
    The same images give the same intervals. They are too narrow if several images are of one patient.

    Parameters
    ----------
    estimator : fitted estimator
        Anything that predicts labels of images, also a Pipeline or a search.
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence
        Images, as `predict` takes them: arrays, paths of files, or a dataset. They should not be training images.
    y : array of shape (n, H, W), sequence, or None
        The truth, labelled as for fit. None if the entries of X are pairs of image and labels.
    names : sequence of n str, optional
        The names of the images. The default is the names of the files, or else the numbers of the images.
    %(class_names)s
    n_cases : int, default=3
        The number of best, of median and of worst images. If no more than three times as many images have an index, all
        of them are shown.
    %(both_empty)s
    %(tolerance)s

    Returns
    -------
    Report

    Raises
    ------
    TypeError, ValueError
        As in `skmmcrf.metrics.evaluate`. If a dataset gives other labels each time that it is read.

    Examples
    --------
    >>> from skmmcrf import CNNSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(6, shape=(32, 32), random_state=0)
    >>> model = CNNSegmenter(n_epochs=2, random_state=0).fit(X[:4], y[:4])
    >>> report = make_report(model, X[4:], y[4:], names=["anna", "ben"])
    >>> report.summary["measure"][:2], report.summary["n_images"][:2]
    (array(['jaccard', 'dice'], dtype='<U20'), array([2, 2]))
    """
    constraints = {"n_cases": [Interval(Integral, 1, None, closed="left")]}
    validate_parameter_constraints(constraints, {"n_cases": n_cases}, caller_name="make_report")
    scheme = label_scheme_of(estimator)
    names_of_all = names_of_classes(scheme, class_names)
    kind = _Classes(scheme.classes, names_of_all) if scheme.several else _TwoLabels()
    labelings: list[tuple[Annotation, Annotation]] = []
    read = _kept(labelings_of(estimator, X, y, names), labelings)
    table = table_of(read, scheme, both_empty=both_empty, tolerance=tolerance)
    confusion = np.sum([count_pixels(truth, found.truth) for truth, found in labelings], axis=0)
    groups = _chosen(table["jaccard"], n_cases)
    numbers = [n for group in groups.values() for n in group]
    images = _read_again(X, numbers)
    if y is None:
        _check_lasting(images, [labelings[n][0] for n in numbers], scheme)
    pictures = {n: kind.pictures(image, *labelings[n]) for n, (image, _) in zip(numbers, images)}
    summary = _summary(table)
    title = f"{type(estimator).__name__} on {_images(len(labelings))}"
    notes = "".join(f"<li>{note}</li>" for note in kind.notes(table, both_empty, tolerance))
    has_unlabelled = not all(truth.is_fully_labelled for truth, _ in labelings)
    parts = [
        f"<h1>{escape(title)}</h1>",
        _html_of_summary(summary, kind.columns),
        kind.html_of_classes(table, confusion),
        f"<ul>{notes}</ul>",
        kind.html_of_legend(has_unlabelled),
        *(_html_of_cases(heading, group, pictures, table, kind.columns) for heading, group in groups.items()),
        _folded("All images", _html_of_table(table, kind.columns)),
        _folded("The estimator", f"<pre>{escape(repr(estimator))}\nskmmcrf {escape(__version__)}</pre>"),
    ]
    html = "\n".join([f'<div class="skmmcrf-report">\n<style>{_STYLE}</style>', *filter(None, parts), "</div>"])
    return Report(title, table, summary, html, confusion)


class _TwoLabels:
    """What a report says and shows of two labels."""

    columns: ClassVar[_Columns] = _MEASURES | _OF_FOREGROUND

    def notes(self, table: dict[str, np.ndarray], both_empty: str, tolerance: float | None) -> Iterator[str]:
        true, found = table["true_foreground"] > 0, table["predicted_foreground"] > 0
        labelled = ~np.isnan(table["true_foreground"])
        yield from _notes_of_measures(tolerance)
        worst = "The measures have their worst values there, and the Hausdorff distance is the image's diagonal."
        left_out = "counts as perfect" if both_empty == "perfect" else "is left out by the measures"
        for what, where in {
            f"with foreground: none of it was found. {worst}": true & ~found,
            f"without foreground: some was found. {worst}": found & ~true,
            f"without foreground: none was found, which {left_out}.": labelled & ~true & ~found,
            _NO_LABEL: ~labelled,
        }.items():
            if n := int(where.sum()):
                yield f"{_images(n)} {what}"

    def pictures(self, image: np.ndarray, annotation: Annotation, found: Annotation) -> dict[str, str]:
        """An image, and the same in grey with what is right and wrong in colours, as sources of <img>."""
        truth, result = annotation.truth, found.truth
        areas = {
            "found": truth & result,
            "missed": truth & ~result,
            "too much": result & ~truth,
            "unlabelled": ~annotation.labelled,
        }
        pixels = _as_bytes(image)
        return {"image": _source(pixels), "errors in": _source(_overlay(pixels, areas, _COLORS))}

    def html_of_classes(self, table: dict[str, np.ndarray], confusion: IntArray) -> str:
        return ""

    def html_of_legend(self, has_unlabelled: bool) -> str:
        return _html_of_legend([], _COLORS, has_unlabelled)


class _Classes:
    """What a report says and shows of several classes."""

    columns: ClassVar[_Columns] = _MEASURES | _OF_ALL_CLASSES

    def __init__(self, classes: Sequence[int], names: Sequence[str]) -> None:
        self.classes = classes
        self.class_names = names

    def notes(self, table: dict[str, np.ndarray], both_empty: str, tolerance: float | None) -> Iterator[str]:
        yield from _notes_of_measures(tolerance)
        absent = "count as perfect" if both_empty == "perfect" else "are left out"
        yield (
            "The measures of an image are means over its classes. Classes that are in neither its truth nor its "
            f"prediction {absent}. Those in only one of them have the worst values: the Hausdorff distance is the "
            "image's diagonal."
        )
        yield "Pooled Jaccard indices count the pixels of all images together. Other measures are means over images."
        yield "Pictures show each image, its truth, its prediction, and what is wrong."
        if n := int(np.isnan(table["accuracy"]).sum()):
            yield f"{_images(n)} {_NO_LABEL}"

    def pictures(self, image: np.ndarray, annotation: Annotation, found: Annotation) -> dict[str, str]:
        """An image, and the same tinted by its truth, by its labeling, and with what is wrong, as sources of <img>."""
        labelled = annotation.labelled
        areas = {"wrong": labelled & (annotation.truth != found.truth), "unlabelled": ~labelled}
        pixels, n_classes = _as_bytes(image), len(self.classes)
        return {
            "image": _source(pixels),
            "truth of": _source(tinted(pixels, annotation.mask, n_classes)),
            "prediction of": _source(tinted(pixels, np.where(labelled, found.truth, UNLABELLED), n_classes)),
            "errors in": _source(_overlay(pixels, areas, _COLORS_OF_ERRORS)),
        }

    def html_of_classes(self, table: dict[str, np.ndarray], confusion: IntArray) -> str:
        columns = _MEASURES | _OF_EACH_CLASS
        pooled = jaccard_of_confusion(confusion)
        rows = []
        for label, name, index in zip(self.classes, self.class_names, pooled):
            values = {column: table[f"{column}_{label}"] for column in columns}
            means = [_number(columns[column][1] * mean_of_defined(values[column])) for column in columns]
            n_images = np.count_nonzero((values["true"] > 0) | (values["predicted"] > 0))
            rows.append([name, _number(100 * index), *means, str(n_images)])
        mean = _number(100 * mean_of_defined(pooled))
        rows.append(["mean over the classes", mean, *[""] * (len(columns) + 1)])
        head = ["class", "Pooled Jaccard index, %", *(name for name, _ in columns.values()), "images"]
        return _html_of_rows(head, rows)

    def html_of_legend(self, has_unlabelled: bool) -> str:
        colours = [tuple(colour) for colour in class_colours(len(self.classes)).tolist()]
        return _html_of_legend(list(zip(self.class_names, colours)), _COLORS_OF_ERRORS, has_unlabelled)


def _kept(labelings: Iterable[Labeling], into: list[tuple[Annotation, Annotation]]) -> Iterator[Labeling]:
    """The same, each kept in little memory."""
    for name, annotation, found in labelings:
        into.append((annotation, Annotation(found, class_weight=annotation.class_weight)))
        yield name, annotation, found


def _chosen(jaccard: FloatArray, n_cases: int) -> dict[str, list[int]]:
    """The numbers of the images to show, by heading."""
    order = np.argsort(jaccard, kind="stable")[: np.count_nonzero(~np.isnan(jaccard))].tolist()
    if len(order) <= 3 * n_cases:
        return {"From worst to best": order} if order else {}
    middle = (len(order) - n_cases) // 2
    return {"Worst": order[:n_cases], "Median": order[middle:][:n_cases], "Best": order[: -n_cases - 1 : -1]}


def _read_again(X: ImagesLike, numbers: Sequence[int]) -> list[tuple[np.ndarray, Any]]:
    """The images of some numbers, and their labels if X has them."""
    entries, _ = as_sequence(X, "X", dimensions=(3, 4))
    pairs = [image_and_labels(entries[n], f"X[{n}]") for n in numbers]
    return [(check_images([image])[0], labels) for image, labels in pairs]


def _check_lasting(
    pairs: Sequence[tuple[np.ndarray, Any]], annotations: Sequence[Annotation], scheme: LabelScheme
) -> None:
    for (_, labels), annotation in zip(pairs, annotations):
        if not np.array_equal(scheme.read(labels, "X").mask, annotation.mask):
            raise ValueError(
                "X changes each time that it is read, so pictures would not fit their measures: leave random changes "
                "out"
            )


def _summary(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows, columns = [], [column for column in table if column != "image"]
    for column in columns:
        values = table[column][~np.isnan(table[column])]
        center = (values.mean(), np.median(values)) if len(values) else (np.nan, np.nan)
        rows.append((*center, *_interval(values), len(values)))
    mean, median, low, high, n_images = map(np.array, zip(*rows))
    return {
        "measure": np.array(columns),
        "mean": mean,
        "low": low,
        "high": high,
        "median": median,
        "n_images": n_images,
    }


def _interval(values: FloatArray) -> tuple[float, float]:
    """The 95 % interval of the mean."""
    if len(values) < 2:
        return np.nan, np.nan
    # batches, because all draws at once of many images would take much memory
    drawn = bootstrap((values,), np.mean, n_resamples=5000, batch=100, method="percentile", rng=0)
    return tuple(drawn.confidence_interval)


def _notes_of_measures(tolerance: float | None) -> Iterator[str]:
    within = "0.75 % of the image's diagonal, but at least one pixel" if tolerance is None else f"{tolerance:g} pixels"
    yield (
        "Intervals are those of the mean, by the bootstrap over images. Several images of one patient make them too "
        "narrow."
    )
    yield f"The boundary F-measure takes boundaries for the same within {within}."


def _images(n: int) -> str:
    return f"{n} image{'s' * (n > 1)}"


def _overlay(pixels: np.ndarray, areas: dict[str, BoolArray], colors: _Colors) -> np.ndarray:
    """An image of bytes in grey, with areas in their colours."""
    overlay = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1)
    for name, area in areas.items():
        color, opacity, _ = colors[name]
        overlay[area] = (1 - opacity) * overlay[area] + opacity * np.array(color)
    return overlay.round().astype(np.uint8)


def _as_bytes(image: np.ndarray) -> np.ndarray:
    """An image as uint8, of three channels or the first. Other dtypes are stretched, because their range is unknown."""
    image = image if image.shape[2] == 3 else image[..., :1]
    if image.dtype == np.uint8:
        return image
    image = image.astype(float)
    low, high = np.percentile(image, (1, 99))
    return (255 * np.clip((image - low) / max(high - low, 1e-12), 0, 1)).round().astype(np.uint8)


def _source(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    scale = _PIXELS / max(picture.size)
    # whole pixels of small images stay sharp
    scale, how = (int(scale), Image.Resampling.NEAREST) if scale >= 1 else (scale, Image.Resampling.BOX)
    picture = picture.resize([max(1, round(scale * side)) for side in picture.size], how)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _html_of_summary(summary: dict[str, np.ndarray], columns: _Columns) -> str:
    rows = []
    for measure, mean, low, high, median, n_images in zip(*summary.values()):
        if measure in columns:
            name, scale = columns[measure]
            mean, low, high, median = (_number(scale * value) for value in (mean, low, high, median))
            rows.append([name, mean, f"{low} to {high}", median, str(n_images)])
    return _html_of_rows(["", "mean", "95 % interval", "median", "images"], rows)


def _html_of_table(table: dict[str, np.ndarray], columns: _Columns) -> str:
    rows = [[str(table["image"][n]), *_values(table, n, columns)] for n in np.argsort(table["jaccard"], kind="stable")]
    return _html_of_rows(["image", *(name for name, _ in columns.values())], rows)


def _values(table: dict[str, np.ndarray], n: int, columns: _Columns) -> list[str]:
    return [_number(scale * table[column][n]) for column, (_, scale) in columns.items()]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1f}"


def _html_of_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    headings = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(value)}</td>" for value in values)}</tr>'
        for name, *values in rows
    ]
    return "\n".join([f"<table>\n<thead><tr>{headings}</tr></thead>\n<tbody>", *lines, "</tbody>\n</table>"])


def _html_of_legend(classes: Sequence[tuple[str, tuple[int, ...]]], colors: _Colors, has_unlabelled: bool) -> str:
    areas = [(meaning, color) for name, (color, _, meaning) in colors.items() if has_unlabelled or name != "unlabelled"]
    entries = [
        f'<span><i style="background: rgb{color}"></i>{escape(meaning)}</span>' for meaning, color in [*classes, *areas]
    ]
    return f'<p class="legend">{"".join(entries)}</p>'


def _html_of_cases(
    heading: str,
    numbers: Sequence[int],
    pictures: dict[int, dict[str, str]],
    table: dict[str, np.ndarray],
    columns: _Columns,
) -> str:
    figures = []
    for n in numbers:
        name = escape(str(table["image"][n]))
        images = "".join(f'<img src="{source}" alt="{what} {name}">' for what, source in pictures[n].items())
        jaccard, _, boundary, distance, *_ = _values(table, n, columns)
        figures.append(
            f"<figure><div>{images}</div>"
            f"<figcaption><b>{name}</b><br>Jaccard {jaccard} %, boundary F {boundary} %, Hausdorff {distance} pixels"
            "</figcaption></figure>"
        )
    return "\n".join([f'<section><h2>{heading}</h2>\n<div class="cases">', *figures, "</div></section>"])


def _folded(heading: str, content: str) -> str:
    return f"<details><summary>{heading}</summary>\n{content}\n</details>"
