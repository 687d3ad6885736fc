"""Scorers of segmentations for scikit-learn."""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics._scorer import _Scorer  # make_scorer's, which alone knows the estimator that it scores

from skmmcrf._shown import shown
from skmmcrf._typing import ImagesLike, LabelsLike
from skmmcrf.images.checking import check_sample_weight
from skmmcrf.images.entries import as_sequence, image_and_labels
from skmmcrf.metrics.means import MEANS
from skmmcrf.metrics.pooled import confusion_matrices
from skmmcrf.metrics.reading import check_parameters, label_scheme_of, read_pairs, scheme_of_labels


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
        scheme, given = label_scheme_of(estimator), {**self._kwargs, **kwargs}
        labels: dict[str, Any] = {"ignore_label": scheme.ignore_label}
        if not {"classes", "pos_label"} & given.keys():
            labels |= {"classes": scheme.several} if scheme.several else {"pos_label": scheme.pos_label}
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
    scheme = scheme_of_labels(**labels)
    truths, found = [], []
    for annotation, prediction in read_pairs(y_true, y_pred, scheme):
        truths.append(annotation.truth[annotation.labelled])
        found.append(prediction[annotation.labelled])
    weights = check_sample_weight(sample_weight, len(truths))
    of_pixels = {} if sample_weight is None else {"sample_weight": np.repeat(weights, list(map(len, truths)))}
    pixels = np.concatenate(truths), np.concatenate(found)
    if scheme.several:
        pixels = np.take(scheme.several, pixels[0]), np.take(scheme.several, pixels[1])
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
        takes, score = confusion_matrices, update_wrapper(partial(_score_of_pixels, metric=measure), measure)
    elif isinstance(measure, str) and measure in MEANS:
        takes, score = MEANS[measure]
    else:
        raise ValueError(
            f"measure must be one of {', '.join(map(repr, MEANS))}, or a metric such as "
            f"sklearn.metrics.precision_score, got {shown(measure)}"
        )
    # cross-validation would make NaN of these errors
    inspect.signature(takes).bind_partial((), (), **parameters)
    check_parameters(**parameters)
    return _SegmentationScorer(score, -1 if measure == "hausdorff" else 1, parameters)
