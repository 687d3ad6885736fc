"""Reading labels: the numbers of a mask that mean foreground, background and unlabelled."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from skmmcrf._shown import shown
from skmmcrf.field.labels import UNLABELLED, Annotation, balanced_class_weight
from skmmcrf.images.entries import READABLE, as_array, read_named
from skmmcrf.images.files import described_mask

#: What the parameters that say how labels are read and weighed may be.
LABEL_CONSTRAINTS = {
    "pos_label": [Interval(Integral, 1, 255, closed="both")],
    "ignore_label": [Integral, StrOptions({"auto"}), None],
    "class_weight": [dict, StrOptions({"balanced"}), None],
}

#: Of the weights of a class. Beyond them the lighter class would be lost in rounding.
CLASS_WEIGHT_BOUNDS = (1e-4, 1e4)


_HINT_OF_LOSS = (
    ". It seems to be compressed with loss, as by JPEG: skmmcrf.datasets.load_image_pairs has `foreground` for that"
)


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of the numbers in a mask.

    Parameters
    ----------
    pos_label : int, default=1
        The label of foreground. True is always foreground. Background is 0.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels. "auto" is 255 unless that is `pos_label`. None means that all pixels are
        labelled.

    Raises
    ------
    ValueError
        If one number has two meanings.

    Examples
    --------
    >>> LabelScheme().unlabelled, LabelScheme(pos_label=255).unlabelled
    (255, None)
    >>> LabelScheme().read([[0, 1, 255]], "y").mask
    array([[  0,   1, 255]], dtype=uint8)
    """

    pos_label: int = 1
    ignore_label: int | str | None = "auto"

    def __post_init__(self) -> None:
        if self.ignore_label in (0, self.pos_label):
            raise ValueError(
                f"ignore_label must be neither 0, the background, nor pos_label={self.pos_label}, got "
                f"{self.ignore_label}"
            )

    @property
    def unlabelled(self) -> int | None:
        """The label of unlabelled pixels, or None."""
        if self.ignore_label == "auto":
            return None if self.pos_label == UNLABELLED else UNLABELLED
        return self.ignore_label  # type: ignore[return-value]  # no other string is left

    def read(self, labels: Any, name: str) -> Annotation:
        """Read the labels of one image: an array or tensor (H, W), a PIL image or the path of a mask file.

        The labels of a palette are its indices, or its greys if it has no colours. See
        `skmmcrf.images.files.pixels_of`.

        Raises
        ------
        ValueError
            If the labels can't be read. If another label is found. The message begins with the name.
        """
        given = labels
        if isinstance(labels, READABLE):
            labels = read_named(labels, name, as_labels=True)
        elif isinstance(labels, torch.Tensor):
            labels = labels[0] if labels.ndim == 3 and len(labels) == 1 else labels
        labels = as_array(labels, name)
        if labels.ndim != 2 or 0 in labels.shape:
            raise ValueError(f"{name} must be of shape (H, W), none of them 0, got {labels.shape}")
        if labels.dtype.kind == "b":
            return Annotation(labels)
        if labels.dtype.kind not in "uif":
            raise ValueError(f"{name} must hold the labels 0 and {self.pos_label}, got dtype {labels.dtype}")
        truth = labels == self.pos_label
        labelled = np.ones(labels.shape, dtype=bool) if self.unlabelled is None else labels != self.unlabelled
        other = labelled & ~truth & (labels != 0)
        if other.any():
            more = "" if self.unlabelled is None else f" and {self.unlabelled}"
            allowed = f"0{',' if more else ' and'} {self.pos_label}{more}"
            found = np.unique(labels[other])[:5].tolist()
            raise ValueError(
                f"{name}{described_mask(given)} must hold the labels {allowed} only, found {found}"
                + (_HINT_OF_LOSS if _has_traces_of_loss(labels[other]) else "")
            )
        return Annotation(truth, labelled)

    def check_foreground_is_meant(self, annotations: Sequence[Annotation], name: str) -> None:
        """Check that 255 is not meant as foreground, unless `ignore_label` says that it means unlabelled.

        Raises
        ------
        ValueError
            If no mask has foreground but some hold 255.

        Warns
        -----
        UserWarning
            If some masks hold foreground and no 255, others 255 and no foreground.
        """
        if self.ignore_label != "auto":
            return
        with_foreground = [bool(annotation.truth.any()) for annotation in annotations]
        complete = [annotation.is_fully_labelled for annotation in annotations]
        if not any(with_foreground) and not all(complete):
            raise ValueError(
                f"{name} holds 255 but no {self.pos_label}, and 255 counts as unlabelled: give pos_label=255 if it is "
                "the foreground, or ignore_label=255 if it is unlabelled"
            )
        kinds = list(zip(with_foreground, complete))
        if (True, True) in kinds and (False, False) in kinds:
            warnings.warn(
                f"{name}[{kinds.index((False, False))}] holds 255 and no {self.pos_label}, while other masks hold "
                f"{self.pos_label} and no 255. 255 counts as unlabelled: give ignore_label=255 if that is meant. If "
                f"it is the foreground, convert these masks to 0 and {self.pos_label}",
                stacklevel=2,
            )

    def check_class_weight(
        self, class_weight: dict[int, float] | str | None, annotations: Sequence[Annotation]
    ) -> tuple[float, ...]:
        """Give the weights of a pixel of the background and of the foreground.

        Parameters
        ----------
        class_weight : dict, "balanced" or None
            Weights by label, 1.0 for a missing label. "balanced" gives both classes the same total weight, within the
            bounds 1e-4 and 1e4.
        annotations : sequence of Annotation

        Raises
        ------
        ValueError
            If a label is neither 0 nor `pos_label`. If a weight is not between 1e-4 and 1e4.

        Examples
        --------
        >>> LabelScheme().check_class_weight({1: 5.0}, [])
        (1.0, 5.0)
        """
        low, high = CLASS_WEIGHT_BOUNDS
        if isinstance(class_weight, str):
            return balanced_class_weight(annotations, CLASS_WEIGHT_BOUNDS)
        weights: dict[int, Any] = {0: 1.0, self.pos_label: 1.0} | (class_weight or {})
        for label, weight in weights.items():
            if label not in (0, self.pos_label):
                raise ValueError(
                    f"class_weight must have only the labels 0 and {self.pos_label} as keys, got {shown(label)}"
                )
            if not (isinstance(weight, Real) and low <= float(weight) <= high):
                raise ValueError(f"class_weight must be between {low:g} and {high:g}, got {shown(weight)} for {label}")
        return float(weights[0]), float(weights[self.pos_label])


def _has_traces_of_loss(others: np.ndarray) -> bool:
    """Whether most values that are no labels lie close to 0 and 255, some of them below 255."""
    high = (others > 223) & (others < 255)
    low = (others > 0) & (others < 32)
    return bool(high.any() and low.any() and 2 * (high | low).sum() > others.size)
