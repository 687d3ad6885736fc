"""Means of measures, over the images or classes for which they are defined."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skmmcrf._typing import FloatArray, LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.checking import check_sample_weight
from skmmcrf.images.entries import as_sequence
from skmmcrf.metrics.per_image import (
    JACCARD,
    boundary_f_measures,
    dice_indices,
    hausdorff_distances,
    jaccard_indices,
)
from skmmcrf.metrics.pooled import pooled_dice_indices, pooled_jaccard_indices


def mean_of_defined(values: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean of a measure, of shape (n,), over the images for which it is no NaN. It is NaN if no image counts.

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


def mean_over_classes(values: FloatArray) -> FloatArray:
    """Give each image the mean of a measure over the classes for which it is no NaN.

    Examples
    --------
    >>> import numpy as np
    >>> mean_over_classes(np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]]))
    array([0.75,  nan])
    """
    return np.array([mean_of_defined(of_classes) for of_classes in values])


def jaccard_of_annotations(annotations: Iterable[Annotation], labelings: Iterable[LabelArray]) -> FloatArray:
    """Jaccard index of each labeling (H, W) over the labelled pixels. See `skmmcrf.metrics.jaccard_indices`.

    Of several classes it is the mean over those in the truth or the labeling.
    """
    return mean_over_classes(np.array([JACCARD.of_image(*pair) for pair in zip(annotations, labelings)]))


def warned_mean(values: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean as `mean_of_defined` gives it, with a UserWarning if it is NaN."""
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


_OVER_IMAGES = """Mean {} over the images for which it is no NaN.

    These are the images with foreground in truth or prediction. With ``both_empty="perfect"`` all images count. With
    ``classes``, an image has the mean over the classes in its truth or its prediction."""
_OVER_CLASSES = """Mean over the classes of the {} over the pixels of all images together.

    Classes that are in neither truth nor prediction are left out."""


def _mean_of(measure: Callable[..., FloatArray], name: str, what: str) -> Callable[..., float]:
    """Make the mean of a measure over images, or of a pooled one over classes, as a function of this module."""
    # a pooled measure weighs the images itself
    is_pooled = "sample_weight" in inspect.signature(measure).parameters

    def mean(
        y_true: LabelsLike, y_pred: LabelsLike, *, sample_weight: ArrayLike | None = None, **parameters: Any
    ) -> float:
        if is_pooled:
            return warned_mean(measure(y_true, y_pred, sample_weight=sample_weight, **parameters))
        weights = check_sample_weight(sample_weight, len(as_sequence(y_true, "y_true", dimensions=(3,))[0]))
        values = measure(y_true, y_pred, **parameters)
        return warned_mean(mean_over_classes(values) if values.ndim == 2 else values, weights)

    mean.__name__ = mean.__qualname__ = name
    mean.__doc__ = f"""{(_OVER_CLASSES if is_pooled else _OVER_IMAGES).format(what)}

    Parameters
    ----------
    y_true, y_pred : array of shape (n, H, W), or sequence
        Labels. See `jaccard_indices`.
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
    >>> round({name}([[[0, 1, 1]], [[0, 0, 0]]], [[[0, 1, 0]], [[0, 0, 0]]]), 2)
    {round(mean([[[0, 1, 1]], [[0, 0, 0]]], [[[0, 1, 0]], [[0, 0, 0]]]), 2)}
    """
    return mean


mean_jaccard = _mean_of(jaccard_indices, "mean_jaccard", "Jaccard index")
mean_dice = _mean_of(dice_indices, "mean_dice", "Dice index")
mean_boundary_f = _mean_of(boundary_f_measures, "mean_boundary_f", "boundary F-measure")
mean_hausdorff = _mean_of(hausdorff_distances, "mean_hausdorff", "Hausdorff distance in pixels")
mean_pooled_jaccard = _mean_of(pooled_jaccard_indices, "mean_pooled_jaccard", "Jaccard index")
mean_pooled_dice = _mean_of(pooled_dice_indices, "mean_pooled_dice", "Dice index")

#: By the name that scorers know them by, measure and mean.
MEANS: dict[str, tuple[Callable[..., FloatArray], Callable[..., float]]] = {
    "jaccard": (jaccard_indices, mean_jaccard),
    "dice": (dice_indices, mean_dice),
    "boundary_f": (boundary_f_measures, mean_boundary_f),
    "hausdorff": (hausdorff_distances, mean_hausdorff),
    "pooled_jaccard": (pooled_jaccard_indices, mean_pooled_jaccard),
    "pooled_dice": (pooled_dice_indices, mean_pooled_dice),
}
