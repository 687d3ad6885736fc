"""Measures of each image: overlap and boundaries of its foreground, or of each of its classes."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean

import numpy as np
from scipy import ndimage

from skmmcrf._docs import documented
from skmmcrf._typing import BoolArray, FloatArray, LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics.reading import BothEmpty, IgnoreLabel, check_parameters, read_pairs, scheme_of_labels


@dataclass(frozen=True)
class Measure:
    """A measure of truth and prediction of one foreground, not both empty, and its best value."""

    of_foreground: Callable[[BoolArray, BoolArray], float]
    best: float = 1.0

    def of_image(self, annotation: Annotation, found: LabelArray, both_empty: BothEmpty = "omit") -> list[float]:
        """Measure the foreground of an image, or each of several classes. NaN or best where both are empty."""
        if_empty = self.best if both_empty == "perfect" and annotation.labelled.any() else np.nan
        pairs = foregrounds(annotation, found)
        return [self.of_foreground(*pair) if pair[0].any() or pair[1].any() else if_empty for pair in pairs]

    def of_images(
        self, y_true: LabelsLike, y_pred: LabelsLike, scheme: LabelScheme, both_empty: BothEmpty
    ) -> FloatArray:
        """Measure images, float of shape (n,), or (n, K) with several classes."""
        check_parameters(both_empty=both_empty)
        rows = np.array([self.of_image(*pair, both_empty) for pair in read_pairs(y_true, y_pred, scheme)], dtype=float)
        return rows if scheme.several else rows[:, 0]


def foregrounds(annotation: Annotation, found: LabelArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """The true and the predicted pixels of the foreground, or of each of several classes."""
    truth, labelled = annotation.truth, annotation.labelled
    for n in [True] if annotation.dtype == bool else range(annotation.n_labels):
        yield labelled & (truth == n), labelled & (found == n)


def _jaccard(truth: BoolArray, found: BoolArray) -> float:
    return np.count_nonzero(truth & found) / np.count_nonzero(truth | found)


def _dice(truth: BoolArray, found: BoolArray) -> float:
    return 2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))


JACCARD, DICE = Measure(_jaccard), Measure(_dice)


def boundary_f(tolerance: float | None) -> Measure:
    """Give the boundary F-measure up to a tolerance. See `boundary_f_measures`."""
    check_parameters(tolerance=tolerance)

    def of_foreground(truth: BoolArray, found: BoolArray) -> float:
        if not (truth.any() and found.any()):
            return 0.0
        limit = max(1.0, 0.0075 * math.hypot(*truth.shape)) if tolerance is None else tolerance
        # recall and precision
        return harmonic_mean([float(np.mean(apart <= limit)) for apart in _boundary_distances(truth, found)])

    return Measure(of_foreground)


def hausdorff(percentile: float) -> Measure:
    """Give the Hausdorff distance of a percentile. See `hausdorff_distances`."""
    check_parameters(percentile=percentile)

    def of_foreground(truth: BoolArray, found: BoolArray) -> float:
        if not (truth.any() and found.any()):
            return math.hypot(*truth.shape)
        return max(float(np.percentile(apart, percentile)) for apart in _boundary_distances(truth, found))

    return Measure(of_foreground, best=0.0)


def _boundary_distances(truth: BoolArray, found: BoolArray) -> tuple[FloatArray, FloatArray]:
    """How far each pixel of the true boundary is from the predicted one, and each of the predicted from the true."""
    true_boundary, found_boundary = (foreground & ~ndimage.binary_erosion(foreground) for foreground in (truth, found))
    to_true, to_found = (ndimage.distance_transform_edt(~boundary) for boundary in (true_boundary, found_boundary))
    return to_found[true_boundary], to_true[found_boundary]


@documented
def jaccard_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: BothEmpty = "omit",
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
    return JACCARD.of_images(y_true, y_pred, scheme_of_labels(pos_label, ignore_label, classes), both_empty)


@documented
def dice_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: BothEmpty = "omit",
) -> FloatArray:
    """Dice index of each image, the F1 score of its pixels: twice the common foreground over the sum of both.

    Parameters
    ----------
    %(measured)s
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
    return DICE.of_images(y_true, y_pred, scheme_of_labels(pos_label, ignore_label, classes), both_empty)


@documented
def boundary_f_measures(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: BothEmpty = "omit",
    tolerance: float | None = None,
) -> FloatArray:
    """Boundary F-measure of each image: how much of the boundary was found, up to a tolerance.

    Precision is the part of the predicted boundary within `tolerance` of the true one. Recall is the part of the true
    boundary within `tolerance` of the predicted one. The measure is their harmonic mean. A foreground pixel belongs to
    the boundary if one of its four neighbours is background, unlabelled or outside the image.

    Parameters
    ----------
    %(measured)s
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
    measure = boundary_f(tolerance)
    return measure.of_images(y_true, y_pred, scheme_of_labels(pos_label, ignore_label, classes), both_empty)


@documented
def hausdorff_distances(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    both_empty: BothEmpty = "omit",
    percentile: float = 100,
) -> FloatArray:
    """Hausdorff distance of each image: the greatest distance between the boundaries of truth and prediction.

    Every pixel of one boundary has its distance from the nearest pixel of the other. The percentile of these distances
    is taken in both directions, and the greater of the two is the measure. The boundary is that of
    `boundary_f_measures`.

    Parameters
    ----------
    %(measured)s
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
    measure = hausdorff(percentile)
    return measure.of_images(y_true, y_pred, scheme_of_labels(pos_label, ignore_label, classes), both_empty)
