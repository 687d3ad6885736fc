"""Pixels of images counted by their true and predicted class, and measures of these counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from skmmcrf._docs import documented
from skmmcrf._typing import FloatArray, IntArray, LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.checking import check_sample_weight
from skmmcrf.metrics.reading import IgnoreLabel, read_pairs, scheme_of_labels


@documented
def confusion_matrices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
) -> IntArray:
    """Count the labelled pixels of each image by their true and their predicted class.

    Their sum over the images, ``confusion_matrices(...).sum(axis=0)``, counts the pixels of all images together.

    Parameters
    ----------
    %(measured)s
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
    scheme = scheme_of_labels(pos_label, ignore_label, classes)
    return np.array([count_pixels(*pair) for pair in read_pairs(y_true, y_pred, scheme)])


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
    return 2 * common / of_both


def _common_and_sum(confusion: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Of each class the pixels common to truth and prediction, and the sum of the pixels of both, or NaN."""
    counts = np.asarray(confusion)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(f"confusion must be of shape (..., K, K), got {counts.shape}")
    of_both = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.diagonal(counts, axis1=-2, axis2=-1), np.where(of_both == 0, np.nan, of_both)


@documented
def pooled_jaccard_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Jaccard index of each class over the pixels of all images together.

    Benchmarks of several classes, such as CamVid, report the mean of these indices, `mean_pooled_jaccard`.

    Parameters
    ----------
    %(measured)s
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
    matrices = confusion_matrices(y_true, y_pred, pos_label=pos_label, ignore_label=ignore_label, classes=classes)
    return jaccard_of_confusion(_pooled(matrices, sample_weight))


@documented
def pooled_dice_indices(
    y_true: LabelsLike,
    y_pred: LabelsLike,
    *,
    pos_label: int = 1,
    ignore_label: IgnoreLabel = "auto",
    classes: Sequence[int] | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Dice index of each class over the pixels of all images together.

    Parameters
    ----------
    %(measured)s
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
    matrices = confusion_matrices(y_true, y_pred, pos_label=pos_label, ignore_label=ignore_label, classes=classes)
    return dice_of_confusion(_pooled(matrices, sample_weight))


def _pooled(matrices: IntArray, sample_weight: ArrayLike | None) -> FloatArray:
    """The confusion matrix of the pixels of all images."""
    return np.tensordot(check_sample_weight(sample_weight, len(matrices)), matrices, axes=1)
