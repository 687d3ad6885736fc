"""Reading what is measured: the meaning of labels, also to an estimator, and the truth and prediction of each image."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints

from skmmcrf._shown import shown
from skmmcrf._typing import LabelArray, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.entries import as_array, as_sequence
from skmmcrf.images.labels import LABEL_CONSTRAINTS, LabelScheme

IgnoreLabel: TypeAlias = int | Literal["auto"] | None
BothEmpty: TypeAlias = Literal["omit", "perfect"]

_CONSTRAINTS = {
    "pos_label": LABEL_CONSTRAINTS["pos_label"],
    "ignore_label": LABEL_CONSTRAINTS["ignore_label"],
    "both_empty": [StrOptions({"omit", "perfect"})],
    "tolerance": [Interval(Real, 0, None, closed="left"), None],
    "percentile": [Interval(Real, 0, 100, closed="both")],
}


def check_parameters(**parameters: object) -> None:
    """Raise a ValueError if a parameter of measures is out of its range."""
    checked = {name: value for name, value in parameters.items() if name in _CONSTRAINTS}
    validate_parameter_constraints(_CONSTRAINTS, checked, caller_name="the measure")


def scheme_of_labels(
    pos_label: int = 1, ignore_label: IgnoreLabel = "auto", classes: Sequence[int] | None = None
) -> LabelScheme:
    """Give how measures read labels. See `skmmcrf.metrics.jaccard_indices`."""
    check_parameters(pos_label=pos_label, ignore_label=ignore_label)
    return LabelScheme.of_classes(classes, pos_label, ignore_label, fewest=2)


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


def read_pairs(y_true: LabelsLike, y_pred: LabelsLike, scheme: LabelScheme) -> Iterator[tuple[Annotation, LabelArray]]:
    """Read the truth and the prediction of each image: its foreground, or the numbers of its classes."""
    labels, _ = as_sequence(y_true, "y_true", dimensions=(3,))
    predictions, _ = as_sequence(y_pred, "y_pred", dimensions=(3,))
    if len(labels) != len(predictions):
        raise ValueError(f"y_true and y_pred must have the same length, got {len(labels)} and {len(predictions)}")
    annotations = [scheme.read(labels[n], f"y_true[{n}]") for n in range(len(labels))]
    scheme.check_foreground_is_meant(annotations, "y_true")
    for n, annotation in enumerate(annotations):
        yield annotation, read_prediction(predictions[n], annotation, scheme, (f"y_true[{n}]", f"y_pred[{n}]"))


def read_prediction(prediction: Any, annotation: Annotation, scheme: LabelScheme, names: tuple[str, str]) -> LabelArray:
    """Read the prediction of an image, background where unlabelled. Errors call truth and prediction by the names."""
    of_truth, name = names
    found = as_array(prediction, name)
    if found.shape != annotation.shape:
        raise ValueError(f"{name} has shape {found.shape}, but {of_truth} has {annotation.shape}")
    if not annotation.is_fully_labelled:
        background = np.array(scheme.classes[0]) if scheme.several else np.zeros_like(found)
        found = np.where(annotation.labelled, found, background)
    return replace(scheme, ignore_label=None).read(found, name).truth
