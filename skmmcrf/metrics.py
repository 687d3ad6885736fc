"""How well labelings agree with the truth."""

import numpy as np

from skmmcrf._typing import FloatArray, LabelsLike


def jaccard_indices(y_true: LabelsLike, y_pred: LabelsLike, ignore_label=None) -> FloatArray:
    """Jaccard index of each image: foreground common to both over foreground of either.

    Parameters
    ----------
    y_true, y_pred : sequence of n arrays of shape (H, W)
        Labels, 0 or 1.

    Returns
    -------
    ndarray of float and shape (n,)
        Between 0 and 1; NaN where neither truth nor prediction has any foreground.

    Examples
    --------
    >>> jaccard_indices([[[0, 1, 1]], [[0, 0, 0]]], [[[1, 1, 0]], [[0, 0, 0]]]).round(2)
    array([0.33,  nan])
    """
    indices = np.full(len(y_true), np.nan)
    for n, (truth, labels) in enumerate(zip(y_true, y_pred)):
        keep = np.asarray(truth) != ignore_label if ignore_label is not None else np.ones(np.shape(truth), bool)
        truth, labels = (np.asarray(truth) == 1) & keep, np.asarray(labels, bool) & keep
        union = np.count_nonzero(truth | labels)
        if union:
            indices[n] = np.count_nonzero(truth & labels) / union
    return indices


def mean_jaccard(y_true: LabelsLike, y_pred: LabelsLike) -> float:
    """Mean Jaccard index over the images that have foreground in truth or prediction, as the paper's tables give it.

    Parameters
    ----------
    y_true, y_pred : sequence of n arrays of shape (H, W)
        Labels, 0 or 1.

    Returns
    -------
    float
        Between 0 and 1; NaN if no image has any foreground.

    Examples
    --------
    >>> mean_jaccard([[[0, 1, 1]], [[0, 0, 0]]], [[[0, 1, 0]], [[0, 0, 0]]])
    0.5
    """
    indices = jaccard_indices(y_true, y_pred)
    scored = indices[~np.isnan(indices)]
    return float(scored.mean()) if scored.size else float("nan")


def mean_of_defined(indices, weights=None):
    d = ~np.isnan(indices)
    return float(np.average(indices[d], weights=None if weights is None else weights[d])) if d.any() else float("nan")
