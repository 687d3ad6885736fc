"""Tables of the measures of an estimator's predictions, a row for each image."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import ImagesLike, LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.entries import as_sequence, image_and_labels
from skmmcrf.images.labels import LabelScheme
from skmmcrf.images.pairing import names_in_folders
from skmmcrf.metrics.means import mean_over_classes
from skmmcrf.metrics.per_image import DICE, JACCARD, boundary_f, foregrounds, hausdorff
from skmmcrf.metrics.reading import BothEmpty, check_parameters, label_scheme_of, read_prediction

# the foreground of two labels, or the numbers of several classes
Labeling: TypeAlias = tuple[str | Path | int, Annotation, LabelArray]

# images of a dataset that are in memory at a time
_AT_ONCE = 16


@documented
def evaluate(
    estimator: Any,
    X: ImagesLike,
    y: LabelsLike | None = None,
    *,
    names: Sequence[str] | None = None,
    both_empty: BothEmpty = "omit",
    tolerance: float | None = None,
) -> dict[str, np.ndarray]:
    """Measure the predictions of an estimator on each image.

    Labels are read as the estimator reads them. Each image of a dataset is asked for once, and few are in memory at a
    time.

    Parameters
    ----------
    estimator : fitted estimator
        Anything that predicts labels of images, also a Pipeline or a search.
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence
        Images, as `predict` takes them: arrays, paths of files, or a dataset.
    y : array of shape (n, H, W), sequence, or None
        The truth, labelled as for fit. None if the entries of X are pairs of image and labels.
    names : sequence of n str, optional
        The names of the images. The default is the names of the files, or else the numbers of the images.
    %(both_empty)s
    %(tolerance)s

    Returns
    -------
    dict of str to ndarray of shape (n,)
        The columns of a table with a row for each image, as `pandas.DataFrame` takes them. "image" has the names.
        "jaccard", "dice", "boundary_f" and "hausdorff_95" have the measures of this module. The last is the Hausdorff
        distance at percentile 95, in pixels. "true_foreground" and "predicted_foreground" have the foreground's share
        of the labelled pixels, between 0 and 1. They are NaN where no pixel is labelled.

        With more than two classes, the measures are means over the classes in an image's truth or prediction. They are
        also given for each class, as "jaccard_7" for the label 7. The distance of a class that only truth or prediction
        has is the image's diagonal. "true_7" and "predicted_7" have the class's share of the labelled pixels.
        "accuracy" has the share of the labelled pixels whose label is right.

    Raises
    ------
    TypeError
        If the estimator can't predict. If y is None and X has no labels.
    ValueError
        If numbers or sizes of images and labels differ. If labels are not those that the estimator reads. If a
        parameter is out of its range.

    See Also
    --------
    skmmcrf.report.make_report : The means with intervals, and pictures of the best and the worst images.

    Examples
    --------
    >>> from skmmcrf import CNNSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> table = evaluate(CNNSegmenter(n_epochs=2, random_state=0).fit(X, y), X, y)
    >>> list(table)
    ['image', 'jaccard', 'dice', 'boundary_f', 'hausdorff_95', 'true_foreground', 'predicted_foreground']
    >>> table["image"], table["true_foreground"].round(2)
    (array([0, 1, 2, 3]), array([0.16, 0.23, 0.14, 0.13]))
    """
    labelings = labelings_of(estimator, X, y, names)
    return table_of(labelings, label_scheme_of(estimator), both_empty=both_empty, tolerance=tolerance)


def labelings_of(
    estimator: Any, X: ImagesLike, y: LabelsLike | None, names: Sequence[str] | None = None
) -> Iterator[Labeling]:
    """Give each image's name, file or number, its annotation, and what an estimator predicts.

    The prediction is the foreground of two labels, or the numbers of several classes.
    """
    if not hasattr(estimator, "predict"):
        raise TypeError(f"estimator must have the method predict, {type(estimator).__name__} has none")
    scheme = label_scheme_of(estimator)
    entries, lazy = as_sequence(X, "X", dimensions=(3, 4))
    labels = None if y is None else as_sequence(y, "y", dimensions=(3,))[0]
    if labels is not None and len(labels) != len(entries):
        raise ValueError(f"X and y must have the same length, got {len(entries)} images and {len(labels)} labels")
    if names is not None and (isinstance(names, str) or len(names) != len(entries)):
        raise ValueError(f"names must hold a name for each of the {len(entries)} images, got {shown(names)}")
    given = None if names is None else list(names)
    annotations: list[Annotation] = []
    called = "the labels of X[{}]" if labels is None else "y[{}]"
    at_once = _AT_ONCE if lazy else len(entries)
    for start in range(0, len(entries), at_once):
        numbers = range(start, min(start + at_once, len(entries)))
        pairs = [image_and_labels(entries[n], f"X[{n}]") for n in numbers]
        images = [image for image, _ in pairs]
        truths = [of_image for _, of_image in pairs] if labels is None else [labels[n] for n in numbers]
        if any(truth is None for truth in truths):
            raise TypeError("y is None, but X is no dataset of pairs of image and labels: give y")
        read = [scheme.read(truth, called.format(n)) for n, truth in zip(numbers, truths)]
        found = _predict(estimator, X if isinstance(X, np.ndarray) and X.ndim > 1 else images, start)
        for n, image, annotation, prediction in zip(numbers, images, read, found):
            name = given[n] if given else Path(image) if isinstance(image, (str, PathLike)) else n
            both = (called.format(n), f"the prediction of X[{n}]")
            yield name, annotation, read_prediction(prediction, annotation, scheme, both)
        annotations += read
    scheme.check_foreground_is_meant(annotations, "X" if y is None else "y")


def _predict(estimator: Any, images: ImagesLike, start: int) -> LabelsLike:
    """Predict a part of the images. Errors get a note that tells the part."""
    try:
        found = estimator.predict(images)
    except Exception as error:
        if start:
            error.add_note(f"X[0] in this message is X[{start}] of all images")
        raise
    if len(found) != len(images):
        raise ValueError(f"predict must give labels for each image, got {len(found)} for {len(images)} images")
    return found


def table_of(
    labelings: Iterable[Labeling],
    scheme: LabelScheme,
    *,
    both_empty: BothEmpty = "omit",
    tolerance: float | None = None,
) -> dict[str, np.ndarray]:
    """Measure images as `labelings_of` gives them. See `evaluate`."""
    check_parameters(both_empty=both_empty)
    measures = {
        "jaccard": JACCARD,
        "dice": DICE,
        "boundary_f": boundary_f(tolerance),
        "hausdorff_95": hausdorff(percentile=95),
    }
    names, rows, accuracy = [], [], []
    for name, annotation, found in labelings:
        names.append(name)
        measured = [measure.of_image(annotation, found, both_empty) for measure in measures.values()]
        rows.append([*measured, *_shares(annotation, found)])
        right = (found == annotation.truth)[annotation.labelled]
        accuracy.append(right.mean() if right.size else np.nan)
    files = [name for name in names if isinstance(name, Path)]
    table = {"image": np.array(names_in_folders(files) if len(files) == len(names) else names)}
    # each of shape (images, classes)
    columns = dict(zip([*measures, "true", "predicted"], np.array(rows, dtype=float).swapaxes(0, 1)))
    if not scheme.several:
        foreground = {name: f"{name}_foreground" for name in ("true", "predicted")}
        return table | {foreground.get(name, name): values[:, 0] for name, values in columns.items()}
    table |= {name: mean_over_classes(columns[name]) for name in measures} | {"accuracy": np.array(accuracy)}
    for name, values in columns.items():
        table |= {f"{name}_{label}": of_class for label, of_class in zip(scheme.classes, values.T)}
    return table


def _shares(annotation: Annotation, found: LabelArray) -> Iterator[list[float]]:
    """The shares of labelled pixels that are truly foreground or of each class, and that are predicted so."""
    n_labelled = np.count_nonzero(annotation.labelled) or np.nan
    for areas in zip(*foregrounds(annotation, found)):
        yield [np.count_nonzero(area) / n_labelled for area in areas]
