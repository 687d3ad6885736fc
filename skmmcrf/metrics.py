"""Agreement of labelings with the truth: measures of each image, their means, tables, and scorers for scikit-learn.

All measures leave unlabelled pixels out: truth and prediction count as background there. The measures of boundaries
treat unlabelled pixels like the outside of the image, so the foreground ends there.

With ``classes`` each class takes its turn as foreground. A measure is an array of shape (n, K) then, NaN where a class
is in neither truth nor prediction. The means take the mean over the classes of each image, then over the images.
Pooled measures count the pixels of all images together, as benchmarks of several classes do.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial, update_wrapper
from numbers import Real
from os import PathLike
from pathlib import Path
from statistics import harmonic_mean
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from sklearn.metrics._scorer import _Scorer  # make_scorer's, which alone knows the estimator that it scores
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, IntArray, LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.checking import check_sample_weight
from skmmcrf.images.entries import as_array, as_sequence, image_and_labels
from skmmcrf.images.labels import LABEL_CONSTRAINTS, LabelScheme
from skmmcrf.images.pairing import names_in_folders

_IgnoreLabel: TypeAlias = int | Literal["auto"] | None
_BothEmpty: TypeAlias = Literal["omit", "perfect"]
_Measure: TypeAlias = Callable[[BoolArray, BoolArray], float]
# the foreground of two labels, or the numbers of several classes
Labeling: TypeAlias = tuple[str | Path | int, Annotation, LabelArray]

# images of a dataset that are in memory at a time
_AT_ONCE = 16

_CONSTRAINTS = {
    "pos_label": LABEL_CONSTRAINTS["pos_label"],
    "ignore_label": LABEL_CONSTRAINTS["ignore_label"],
    "both_empty": [StrOptions({"omit", "perfect"})],
    "tolerance": [Interval(Real, 0, None, closed="left"), None],
    "percentile": [Interval(Real, 0, 100, closed="both")],
}


def _measure_images(
    measure: _Measure,
    best: float,
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    both_empty: _BothEmpty,
    classes: Sequence[int] | None,
    **labels: Any,
) -> FloatArray:
    """A measure of each image, and of each class if there are several. NaN or the best value where both are empty."""
    _check_parameters(both_empty=both_empty)
    pairs = _read_pairs(y_true, y_pred, classes=classes, **labels)
    rows = np.array([_measured(measure, best, *pair, both_empty) for pair in pairs], dtype=float)
    return rows[:, 0] if classes is None else rows


def _measured(
    measure: _Measure, best: float, annotation: Annotation, found: LabelArray, both_empty: _BothEmpty
) -> list[float]:
    """A measure of the foreground of an image, or of each of several classes."""
    if_empty = best if both_empty == "perfect" and annotation.labelled.any() else np.nan
    pairs = _foregrounds(annotation, found)
    return [measure(*pair) if pair[0].any() or pair[1].any() else if_empty for pair in pairs]


def _foregrounds(annotation: Annotation, found: LabelArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """The true and the predicted pixels of the foreground, or of each of several classes."""
    truth, labelled = annotation.truth, annotation.labelled
    for n in [True] if annotation.dtype == bool else range(annotation.n_labels):
        yield labelled & (truth == n), labelled & (found == n)


def _jaccard(truth: BoolArray, found: BoolArray) -> float:
    return np.count_nonzero(truth & found) / np.count_nonzero(truth | found)


def _dice(truth: BoolArray, found: BoolArray) -> float:
    return 2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))


def _boundary_f(truth: BoolArray, found: BoolArray, tolerance: float | None) -> float:
    if not (truth.any() and found.any()):
        return 0.0
    if tolerance is None:
        tolerance = max(1.0, 0.0075 * math.hypot(*truth.shape))
    # recall and precision
    return harmonic_mean([float(np.mean(apart <= tolerance)) for apart in _boundary_distances(truth, found)])


def _hausdorff(truth: BoolArray, found: BoolArray, percentile: float) -> float:
    if not (truth.any() and found.any()):
        return math.hypot(*truth.shape)
    return max(float(np.percentile(apart, percentile)) for apart in _boundary_distances(truth, found))


def _boundary_distances(truth: BoolArray, found: BoolArray) -> tuple[FloatArray, FloatArray]:
    """How far each pixel of the true boundary is from the predicted one, and each of the predicted from the true."""
    true_boundary, found_boundary = (foreground & ~ndimage.binary_erosion(foreground) for foreground in (truth, found))
    to_true, to_found = (ndimage.distance_transform_edt(~boundary) for boundary in (true_boundary, found_boundary))
    return to_found[true_boundary], to_true[found_boundary]


def _read_pairs(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
) -> Iterator[tuple[Annotation, LabelArray]]:
    """The truth and the prediction of each image: its foreground, or the numbers of its classes."""
    scheme = scheme_of_labels(pos_label, ignore_label, classes)
    labels, _ = as_sequence(y_true, "y_true", dimensions=(3,))
    predictions, _ = as_sequence(y_pred, "y_pred", dimensions=(3,))
    if len(labels) != len(predictions):
        raise ValueError(f"y_true and y_pred must have the same length, got {len(labels)} and {len(predictions)}")
    annotations = [scheme.read(labels[n], f"y_true[{n}]") for n in range(len(labels))]
    scheme.check_foreground_is_meant(annotations, "y_true")
    for n, annotation in enumerate(annotations):
        yield annotation, _read_found(predictions[n], annotation, scheme, (f"y_true[{n}]", f"y_pred[{n}]"))


def scheme_of_labels(pos_label: int, ignore_label: _IgnoreLabel, classes: Sequence[int] | None) -> LabelScheme:
    """Give how measures read labels. See `jaccard_indices`."""
    _check_parameters(pos_label=pos_label, ignore_label=ignore_label)
    return LabelScheme.of_classes(classes, pos_label, ignore_label, fewest=2)


def _read_found(prediction: Any, annotation: Annotation, scheme: LabelScheme, names: tuple[str, str]) -> LabelArray:
    """The prediction of an image, background where unlabelled. Errors call truth and prediction by the names."""
    of_truth, name = names
    found = as_array(prediction, name)
    if found.shape != annotation.shape:
        raise ValueError(f"{name} has shape {found.shape}, but {of_truth} has {annotation.shape}")
    if not annotation.is_fully_labelled:
        background = np.array(scheme.classes[0]) if scheme.several else np.zeros_like(found)
        found = np.where(annotation.labelled, found, background)
    return replace(scheme, ignore_label=None).read(found, name).truth


def _check_parameters(**parameters: object) -> None:
    checked = {name: value for name, value in parameters.items() if name in _CONSTRAINTS}
    validate_parameter_constraints(_CONSTRAINTS, checked, caller_name="the measure")


def mean_of_defined(values: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean of a measure over the images for which it is defined.

    Parameters
    ----------
    values : ndarray of float and shape (n,)
        NaN where the measure is not defined.
    weights : ndarray of float and shape (n,), optional

    Returns
    -------
    float
        NaN if no image counts.

    Raises
    ------
    ValueError
        If shapes differ. If a weight is negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> mean_of_defined(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    weights = np.ones(len(values)) if weights is None else weights
    if np.ndim(values) != 1 or np.shape(weights) != np.shape(values) or not (weights >= 0).all():
        raise ValueError(
            f"values and weights must be of one shape (n,), and no weight negative, got {np.shape(values)} and "
            f"{weights}"
        )
    counts = ~np.isnan(values) & (weights > 0)
    return float(np.average(values[counts], weights=weights[counts])) if counts.any() else float("nan")


def warned_mean(values: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean as `mean_of_defined` gives it, with a UserWarning if it is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> warned_mean(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    mean = mean_of_defined(values, weights)
    if math.isnan(mean):
        warnings.warn(
            "the score is NaN, because no image counts: truth and prediction are both empty in each, or no pixel is "
            "labelled. A search ranks NaN last, and takes its first candidate if all are NaN. Give it folds that each "
            'have foreground, or scoring=make_segmentation_scorer("jaccard", both_empty="perfect"), by which an empty '
            "prediction is right where the truth is empty.",
            UserWarning,
            stacklevel=3,
        )
    return mean


@documented
def jaccard_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: _BothEmpty = "omit",
) -> FloatArray:
    """Jaccard index of each image: foreground common to both over foreground of either.

    Parameters
    ----------
    y_true, y_pred : array of shape (n, H, W), or sequence of n arrays of shape (H, W)
        Labels. The heights and widths in a sequence may differ. Boolean arrays are True in the foreground. Other arrays
        are `pos_label` in the foreground and 0 in the background. The truth may also hold `ignore_label`.
    pos_label : int, default=1
        The label of the foreground.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels in the truth, which count in neither truth nor prediction. "auto" is 255 unless
        that is `pos_label` or a class. None means that all pixels are labelled.
    classes : sequence of int, optional
        The labels of several classes in ascending order, such as ``model.classes_``. Each class takes its turn as
        foreground. By default `pos_label` alone is measured.
    both_empty : {"omit", "perfect"}, default="omit"
        The value of an image where neither truth nor prediction has foreground. "omit" gives NaN, and means leave the
        image out. "perfect" gives the best value of the measure: 1, or a distance of 0.

    Returns
    -------
    ndarray of float and shape (n,), or (n, K) with K classes
        Between 0 and 1. NaN where no pixel is labelled, and where `both_empty` says so.

    Raises
    ------
    ValueError, TypeError
        If numbers or sizes of labelings differ. If a label is none of the above. If the whole truth has 255 but no
        foreground while `ignore_label` is "auto".

    Examples
    --------
    >>> jaccard_indices([[[0, 1, 1]], [[0, 0, 0]]], [[[1, 1, 0]], [[0, 0, 0]]]).round(2)
    array([0.33,  nan])
    >>> jaccard_indices([[[0, 0, 0]]], [[[0, 0, 0]]], both_empty="perfect")
    array([1.])
    >>> jaccard_indices([[[0, 1, 255]]], [[[0, 1, 1]]])
    array([1.])

    Four classes, of which the last occurs in neither truth nor prediction:

    >>> jaccard_indices([[[0, 0, 1, 2]]], [[[0, 1, 1, 1]]], classes=range(4)).round(2)
    array([[0.5 , 0.33, 0.  ,  nan]])
    """
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return _measure_images(_jaccard, 1.0, y_true, y_pred, both_empty=both_empty, **labels)


@documented
def dice_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: _BothEmpty = "omit",
) -> FloatArray:
    """Dice index of each image, the F1 score of its pixels: twice the common foreground over the sum of both.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(measured_classes)s
    %(both_empty)s

    Returns
    -------
    ndarray of float and shape (n,), or (n, K) with K classes
        Between 0 and 1, or NaN (see `both_empty`).

    Raises
    ------
    ValueError, TypeError
        As `jaccard_indices`.

    Examples
    --------
    >>> dice_indices([[[0, 1, 1]], [[0, 0, 0]]], [[[1, 1, 0]], [[0, 0, 0]]])
    array([0.5, nan])
    """
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return _measure_images(_dice, 1.0, y_true, y_pred, both_empty=both_empty, **labels)


@documented
def boundary_f_measures(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: _BothEmpty = "omit",
    tolerance: float | None = None,
) -> FloatArray:
    """Boundary F-measure of each image: how much of the boundary was found, up to a tolerance.

    Precision is the part of the predicted boundary within `tolerance` of the true one. Recall is the part of the true
    boundary within `tolerance` of the predicted one. The measure is their harmonic mean. A foreground pixel belongs to
    the boundary if one of its four neighbours is background, unlabelled or outside the image.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(measured_classes)s
    %(both_empty)s
    tolerance : float, optional
        In pixels. The default is 0.75 % of the image's diagonal, but at least one pixel.

    Returns
    -------
    ndarray of float and shape (n,), or (n, K) with K classes
        Between 0 and 1, or NaN (see `both_empty`). 0 where only one of truth and prediction has foreground.

    Raises
    ------
    ValueError, TypeError
        As in `jaccard_indices`. If `tolerance` is negative.

    References
    ----------
    G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013.

    Examples
    --------
    >>> boundary_f_measures([[[0, 1, 0, 0]]], [[[0, 0, 1, 0]]])
    array([1.])
    >>> boundary_f_measures([[[0, 1, 0, 0]]], [[[0, 0, 1, 0]]], tolerance=0)
    array([0.])
    """
    _check_parameters(tolerance=tolerance)
    measure = partial(_boundary_f, tolerance=tolerance)
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return _measure_images(measure, 1.0, y_true, y_pred, both_empty=both_empty, **labels)


@documented
def hausdorff_distances(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: _BothEmpty = "omit",
    percentile: float = 100,
) -> FloatArray:
    """Hausdorff distance of each image: the greatest distance between the boundaries of truth and prediction.

    Every pixel of one boundary has its distance from the nearest pixel of the other. The percentile of these distances
    is taken in both directions, and the greater of the two is the measure. The boundary is that of
    `boundary_f_measures`.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(measured_classes)s
    %(both_empty)s
    percentile : float, default=100
        Between 0 and 100. 100 is the greatest distance. 95 is usual as a measure that ignores outliers.

    Returns
    -------
    ndarray of float and shape (n,), or (n, K) with K classes
        In pixels, or NaN (see `both_empty`). Where only one of truth and prediction has foreground, it is the diagonal
        of the image, sqrt(H^2 + W^2). This is more than the distance of any two pixels.

    Raises
    ------
    ValueError, TypeError
        As in `jaccard_indices`. If `percentile` is not between 0 and 100.

    Examples
    --------
    >>> hausdorff_distances([[[0, 1, 1, 1]], [[1, 1, 1, 1]]], [[[1, 1, 0, 0]], [[0, 0, 0, 0]]]).round(2)
    array([2.  , 4.12])
    """
    _check_parameters(percentile=percentile)
    measure = partial(_hausdorff, percentile=percentile)
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return _measure_images(measure, 0.0, y_true, y_pred, both_empty=both_empty, **labels)


def _mean_of(measure: Callable[..., FloatArray], name: str, what: str) -> Callable[..., float]:
    """Make the mean of a measure over images, as a function of this module."""

    def mean(
        y_true: LabelsLike, y_pred: LabelsLike, *, sample_weight: ArrayLike | None = None, **parameters: Any
    ) -> float:
        weights = check_sample_weight(sample_weight, len(as_sequence(y_true, "y_true", dimensions=(3,))[0]))
        values = measure(y_true, y_pred, **parameters)
        return warned_mean(mean_over_classes(values) if values.ndim == 2 else values, weights)

    mean.__name__ = mean.__qualname__ = name
    mean.__doc__ = f"""Mean {what} over the images for which it is no NaN.

    These are the images with foreground in truth or prediction. With ``both_empty="perfect"`` all images count. With
    ``classes``, an image has the mean over the classes in its truth or its prediction.

    Parameters
    ----------
    %(measured_labels)s
    sample_weight : array of shape (n,), optional
        The weight of each image, not negative.
    **parameters
        Further parameters of `{measure.__name__}`.

    Returns
    -------
    float
        NaN if no image counts.

    Raises
    ------
    ValueError, TypeError
        As `{measure.__name__}`, or if `sample_weight` does not hold one weight an image.

    Warns
    -----
    UserWarning
        If no image counts.

    Examples
    --------
    >>> {name}([[[0, 1, 1]], [[0, 0, 0]]], [[[0, 1, 1]], [[0, 0, 0]]])
    {measure([[[True]]], [[[True]]])[0]}
    """
    return documented(mean)


mean_jaccard = _mean_of(jaccard_indices, "mean_jaccard", "Jaccard index")
mean_dice = _mean_of(dice_indices, "mean_dice", "Dice index")
mean_boundary_f = _mean_of(boundary_f_measures, "mean_boundary_f", "boundary F-measure")
mean_hausdorff = _mean_of(hausdorff_distances, "mean_hausdorff", "Hausdorff distance in pixels")


def mean_over_classes(values: FloatArray) -> FloatArray:
    """Give each image the mean of a measure over the classes for which it is no NaN.

    Examples
    --------
    >>> import numpy as np
    >>> mean_over_classes(np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]]))
    array([0.75,  nan])
    """
    return np.array([mean_of_defined(of_classes) for of_classes in values])


@documented
def confusion_matrices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
) -> IntArray:
    """Count the labelled pixels of each image by their true and their predicted class.

    Their sum over the images, ``confusion_matrices(...).sum(axis=0)``, counts the pixels of all images together.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(pooled_classes)s

    Returns
    -------
    ndarray of int and shape (n, K, K)
        A row for each true class, and a column for each predicted one, as in `sklearn.metrics.confusion_matrix`.

    Raises
    ------
    ValueError, TypeError
        As in `jaccard_indices`.

    Examples
    --------
    >>> confusion_matrices([[[0, 0, 1, 2]]], [[[0, 1, 1, 1]]], classes=range(3))
    array([[[1, 1, 0],
            [0, 1, 0],
            [0, 1, 0]]])
    """
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return np.array([count_pixels(*pair) for pair in _read_pairs(y_true, y_pred, **labels)])


def count_pixels(annotation: Annotation, found: LabelArray) -> IntArray:
    """Give the confusion matrix of a labeling (H, W), ndarray of int and shape (K, K). See `confusion_matrices`."""
    n_labels, labelled = annotation.n_labels, annotation.labelled
    # scikit-learn's takes no image without any labelled pixel
    cells = n_labels * annotation.truth[labelled].astype(int) + found[labelled]
    return np.bincount(cells, minlength=n_labels**2).reshape(n_labels, n_labels)


def jaccard_of_confusion(confusion: ArrayLike) -> FloatArray:
    """Jaccard index of each class by counts of pixels: common pixels over those of truth or prediction.

    Parameters
    ----------
    confusion : array of shape (..., K, K)
        Counts as `confusion_matrices` gives them, or sums of these.

    Returns
    -------
    ndarray of float and shape (..., K)
        NaN for a class that is in neither truth nor prediction.

    Raises
    ------
    ValueError
        If the counts are of another shape.

    Examples
    --------
    >>> jaccard_of_confusion([[1, 1, 0], [0, 1, 0], [0, 0, 0]])
    array([0.5, 0.5, nan])
    """
    common, of_both = _common_and_sum(confusion)
    with np.errstate(invalid="ignore"):
        return common / (of_both - common)


def dice_of_confusion(confusion: ArrayLike) -> FloatArray:
    """Dice index of each class by counts of pixels: twice the common pixels over the sum of truth and prediction.

    Parameters
    ----------
    confusion : array of shape (..., K, K)
        Counts as `confusion_matrices` gives them, or sums of these.

    Returns
    -------
    ndarray of float and shape (..., K)
        NaN for a class that is in neither truth nor prediction.

    Raises
    ------
    ValueError
        If the counts are of another shape.

    Examples
    --------
    >>> dice_of_confusion([[1, 1, 0], [0, 1, 0], [0, 0, 0]]).round(2)
    array([0.67, 0.67,  nan])
    """
    common, of_both = _common_and_sum(confusion)
    with np.errstate(invalid="ignore"):
        return 2 * common / of_both


def _common_and_sum(confusion: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Of each class the pixels common to truth and prediction, and the sum of the pixels of both."""
    counts = np.asarray(confusion)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(f"confusion must be of shape (..., K, K), got {counts.shape}")
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1) + counts.sum(axis=-2)


@documented
def pooled_jaccard_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Jaccard index of each class over the pixels of all images together.

    Benchmarks of several classes, such as CamVid, report the mean of these indices, `mean_pooled_jaccard`.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(pooled_classes)s
    %(pixel_weight)s

    Returns
    -------
    ndarray of float and shape (K,)
        Between 0 and 1. NaN for a class that is in neither truth nor prediction.

    Raises
    ------
    ValueError, TypeError
        As in `jaccard_indices`. If `sample_weight` does not hold one weight an image.

    Examples
    --------
    >>> pooled_jaccard_indices([[[0, 0, 1]], [[1, 1, 2]]], [[[0, 1, 1]], [[1, 1, 1]]], classes=range(3))
    array([0.5, 0.6, 0. ])
    """
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return jaccard_of_confusion(_pooled(y_true, y_pred, sample_weight, **labels))


@documented
def pooled_dice_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: _IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Dice index of each class over the pixels of all images together.

    Parameters
    ----------
    %(measured_labels)s
    %(measured_pos_label)s
    %(measured_ignore_label)s
    %(pooled_classes)s
    %(pixel_weight)s

    Returns
    -------
    ndarray of float and shape (K,)
        Between 0 and 1. NaN for a class that is in neither truth nor prediction.

    Raises
    ------
    ValueError, TypeError
        As in `pooled_jaccard_indices`.

    Examples
    --------
    >>> pooled_dice_indices([[[0, 0, 1]], [[1, 1, 2]]], [[[0, 1, 1]], [[1, 1, 1]]], classes=range(3)).round(2)
    array([0.67, 0.75, 0.  ])
    """
    labels: dict[str, Any] = {"pos_label": pos_label, "ignore_label": ignore_label, "classes": classes}
    return dice_of_confusion(_pooled(y_true, y_pred, sample_weight, **labels))


def _pooled(y_true: LabelsLike, y_pred: LabelsLike, sample_weight: ArrayLike | None, **labels: Any) -> FloatArray:
    """The confusion matrix of the pixels of all images."""
    matrices = confusion_matrices(y_true, y_pred, **labels)
    return np.tensordot(check_sample_weight(sample_weight, len(matrices)), matrices, axes=1)


def _mean_of_pooled(measure: Callable[..., FloatArray], name: str, what: str) -> Callable[..., float]:
    """Make the mean of a pooled measure over classes, as a function of this module."""

    def mean(y_true: LabelsLike, y_pred: LabelsLike, **parameters: Any) -> float:
        return warned_mean(measure(y_true, y_pred, **parameters))

    mean.__name__ = mean.__qualname__ = name
    mean.__doc__ = f"""Mean over the classes of the {what} over the pixels of all images together.

    Classes that are in neither truth nor prediction are left out.

    Parameters
    ----------
    %(measured_labels)s
    **parameters
        Further parameters of `{measure.__name__}`.

    Returns
    -------
    float
        NaN if no pixel is labelled.

    Raises
    ------
    ValueError, TypeError
        As `{measure.__name__}`.

    Warns
    -----
    UserWarning
        If no pixel is labelled.

    Examples
    --------
    >>> round({name}([[[0, 1], [1, 2]]], [[[0, 1], [1, 1]]], classes=range(4)), 2)
    {round(mean([[[0, 1], [1, 2]]], [[[0, 1], [1, 1]]], classes=range(4)), 2)}
    """
    return documented(mean)


mean_pooled_jaccard = _mean_of_pooled(pooled_jaccard_indices, "mean_pooled_jaccard", "Jaccard index")
mean_pooled_dice = _mean_of_pooled(pooled_dice_indices, "mean_pooled_dice", "Dice index")

# by the name that scorers know them by, measure and mean
_MEANS: dict[str, tuple[Callable[..., FloatArray], Callable[..., float]]] = {
    "jaccard": (jaccard_indices, mean_jaccard),
    "dice": (dice_indices, mean_dice),
    "boundary_f": (boundary_f_measures, mean_boundary_f),
    "hausdorff": (hausdorff_distances, mean_hausdorff),
    "pooled_jaccard": (pooled_jaccard_indices, mean_pooled_jaccard),
    "pooled_dice": (pooled_dice_indices, mean_pooled_dice),
}


def label_scheme_of(estimator: Any) -> LabelScheme:
    """Give how an estimator reads labels, also within a search, a Pipeline or scikit-learn's FrozenEstimator.

    More than two numbers in `classes_` are the labels of several classes. Of two numbers in the `classes_` of other
    estimators the second is the foreground. If they have none, the foreground is 1.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skmmcrf import CNNSegmenter, MaxMarginCRF
    >>> label_scheme_of(make_pipeline(CNNSegmenter(pos_label=255), MaxMarginCRF(pos_label=255))).pos_label
    255
    """
    while not hasattr(estimator, "_label_scheme"):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            break
    scheme = getattr(estimator, "_label_scheme", None)
    classes = np.asarray(getattr(estimator, "classes_", None))
    if classes.ndim == 1 and classes.dtype.kind in "bui":
        if len(classes) > 2:
            return replace(scheme or LabelScheme(), several=tuple(map(int, classes)))
        if scheme is None and len(classes) == 2:
            return LabelScheme(int(classes[1]))
    return scheme or LabelScheme()


def names_of_classes(scheme: LabelScheme, class_names: Sequence[str] | None) -> list[str]:
    """Give the name of each class, which is "class" and its label by default.

    Raises
    ------
    ValueError
        If there is not one name a class. If there are names for two labels.

    Examples
    --------
    >>> names_of_classes(LabelScheme(several=(0, 5, 9)), None)
    ['class 0', 'class 5', 'class 9']
    """
    if class_names is None:
        return [f"class {label}" for label in scheme.classes]
    if not scheme.several:
        raise ValueError(f"class_names must be None for two labels, got {shown(class_names)}")
    if isinstance(class_names, str) or len(class_names) != len(scheme.classes):
        raise ValueError(
            f"class_names must hold a name for each of the {len(scheme.classes)} classes, got {shown(class_names)}"
        )
    return list(map(str, class_names))


def _label_parameters(scheme: LabelScheme) -> dict[str, Any]:
    """The parameters of measures under which they read labels so."""
    of_labels = {"classes": scheme.several} if scheme.several else {"pos_label": scheme.pos_label}
    return of_labels | {"ignore_label": scheme.ignore_label}


@documented
def evaluate(
    estimator: Any,
    X: ImagesLike,
    y: LabelsLike | None = None,
    *,
    names: Sequence[str] | None = None,
    both_empty: _BothEmpty = "omit",
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
        also given for each class, as "jaccard_7" for the label 7. "true_7" and "predicted_7" have its share of the
        labelled pixels. "accuracy" has the share of the labelled pixels whose label is right.

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
            yield name, annotation, _read_found(prediction, annotation, scheme, both)
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
    both_empty: _BothEmpty = "omit",
    tolerance: float | None = None,
) -> dict[str, np.ndarray]:
    """Measure images as `labelings_of` gives them. See `evaluate`."""
    _check_parameters(both_empty=both_empty, tolerance=tolerance)
    measures: dict[str, tuple[_Measure, float]] = {
        "jaccard": (_jaccard, 1.0),
        "dice": (_dice, 1.0),
        "boundary_f": (partial(_boundary_f, tolerance=tolerance), 1.0),
        "hausdorff_95": (partial(_hausdorff, percentile=95), 0.0),
    }
    names, rows, accuracy = [], [], []
    for name, annotation, found in labelings:
        names.append(name)
        measured = [_measured(*measure, annotation, found, both_empty) for measure in measures.values()]
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
    for areas in zip(*_foregrounds(annotation, found)):
        yield [np.count_nonzero(area) / n_labelled for area in areas]


class _SegmentationScorer(_Scorer):
    """A scorer that reads labels as the estimator does, unless parameters say otherwise. Without y it reads pairs."""

    def __call__(self, estimator: Any, X: ImagesLike, y_true: LabelsLike | None = None, **kwargs: Any) -> float:
        """Score an estimator."""
        return super().__call__(estimator, X, y_true, **kwargs)

    def _score(
        self,
        method_caller: Callable[..., Any],
        estimator: Any,
        X: ImagesLike,
        y_true: LabelsLike | None = None,
        **kwargs: Any,
    ) -> float:
        if y_true is None:
            X, y_true = _of_pairs(X)
        y_pred = method_caller(estimator, "predict", X, pos_label=None)
        labels = _label_parameters(label_scheme_of(estimator))
        given = {**self._kwargs, **kwargs}
        if {"classes", "pos_label"} & given.keys():
            labels = {"ignore_label": labels["ignore_label"]}
        return self._sign * self._score_func(y_true, y_pred, **{**labels, **given})


def _of_pairs(X: ImagesLike) -> tuple[list[Any], list[Any]]:
    """Images and labels of a dataset of pairs, each from one call."""
    entries, _ = as_sequence(X, "X", dimensions=(3, 4))
    pairs = [image_and_labels(entries[n], f"X[{n}]") for n in range(len(entries))]
    images, labels = ([pair[k] for pair in pairs] for k in (0, 1))
    if any(each is None for each in labels):
        raise TypeError("a scorer needs y, unless X is a dataset of pairs of image and labels")
    return images, labels


def _score_of_pixels(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    metric: Callable[..., float],
    sample_weight: ArrayLike | None = None,
    **labels: Any,
) -> float:
    """A metric of scikit-learn over the labelled pixels of all images. A pixel has the weight of its image."""
    truths, found = [], []
    for annotation, prediction in _read_pairs(y_true, y_pred, **labels):
        truths.append(annotation.truth[annotation.labelled])
        found.append(prediction[annotation.labelled])
    weights = check_sample_weight(sample_weight, len(truths))
    of_pixels = {} if sample_weight is None else {"sample_weight": np.repeat(weights, list(map(len, truths)))}
    pixels = np.concatenate(truths), np.concatenate(found)
    if labels.get("classes") is not None:
        pixels = np.take(labels["classes"], pixels[0]), np.take(labels["classes"], pixels[1])
    return metric(*pixels, **of_pixels)


def make_segmentation_scorer(measure: str | Callable[..., float], **parameters: Any) -> Callable[..., float]:
    """Make a scorer for `scoring` in scikit-learn's `cross_validate`, `GridSearchCV` and the like.

    The names of scikit-learn's own scorers, such as ``scoring="jaccard"`` or "f1", do not work there. They take one
    label a sample, and raise errors like "unknown is not supported", which a search turns into NaN. "f1" is called
    "dice" here.

    Parameters
    ----------
    measure : {"jaccard", "dice", "boundary_f", "hausdorff", "pooled_jaccard", "pooled_dice"} or callable
        The measure whose mean over the images is the score, or of a pooled measure the mean over the classes. A
        callable is a metric of scikit-learn, such as `sklearn.metrics.precision_score`. It is called once, with the
        truth and the prediction of the labelled pixels of all images, as arrays of bool. Those of several classes are
        arrays of labels.
    **parameters
        Parameters of the function that measures, such as `jaccard_indices` or `pooled_jaccard_indices`. A callable
        takes `pos_label`, `ignore_label` and `classes` here. By default these are the ones of the estimator that is
        scored.

    Returns
    -------
    callable
        The scorer, called with estimator, images and labels. It gives the Hausdorff distance with a minus sign, because
        greater scores are better.

    Raises
    ------
    ValueError
        If the measure is unknown. If a parameter is out of its range.
    TypeError
        If the measure has no such parameter.

    Warns
    -----
    UserWarning
        By the scorer, if its score is NaN because no image counts. See `both_empty` in `jaccard_indices`.

    Examples
    --------
    >>> from sklearn.metrics import precision_score
    >>> from sklearn.model_selection import cross_validate
    >>> from skmmcrf import CNNSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> scoring = {
    ...     "boundary": make_segmentation_scorer("boundary_f", tolerance=2),
    ...     "precision": make_segmentation_scorer(precision_score),
    ... }
    >>> scores = cross_validate(CNNSegmenter(n_epochs=2, random_state=0), X, y, scoring=scoring, cv=2)
    >>> scores["test_boundary"].shape, scores["test_precision"].shape
    ((2,), (2,))
    """
    takes: Callable[..., Any]
    score: Callable[..., float]
    if callable(measure):
        takes, score = _read_pairs, update_wrapper(partial(_score_of_pixels, metric=measure), measure)
    elif isinstance(measure, str) and measure in _MEANS:
        takes, score = _MEANS[measure]
    else:
        raise ValueError(
            f"measure must be one of {', '.join(map(repr, _MEANS))}, or a metric such as "
            f"sklearn.metrics.precision_score, got {shown(measure)}"
        )
    # cross-validation would make NaN of these errors
    inspect.signature(takes).bind_partial((), (), **parameters)
    _check_parameters(**parameters)
    return _SegmentationScorer(score, -1 if measure == "hausdorff" else 1, parameters)


def jaccard_of_annotations(annotations: Iterable[Annotation], labelings: Iterable[LabelArray]) -> FloatArray:
    """Jaccard index of each labeling (H, W) over the labelled pixels. See `jaccard_indices`.

    Of several classes it is the mean over those in the truth or the labeling.
    """
    of_images = [_measured(_jaccard, 1.0, a, labels, "omit") for a, labels in zip(annotations, labelings)]
    return mean_over_classes(np.array(of_images)) if of_images else np.array([])
