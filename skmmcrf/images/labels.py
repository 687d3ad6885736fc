"""Reading labels: the numbers of a mask that mean classes, such as foreground and background, or unlabelled."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, LabelArray
from skmmcrf.field.labels import UNLABELLED, Annotation, balanced_class_weight
from skmmcrf.images.entries import READABLE, as_array, read_named
from skmmcrf.images.files import described_mask

#: What the parameters that say how labels are read and weighed may be.
LABEL_CONSTRAINTS = {
    "pos_label": [Interval(Integral, 1, 255, closed="both")],
    "classes": ["array-like", None],
    "ignore_label": [Integral, StrOptions({"auto"}), None],
    "class_weight": [dict, StrOptions({"balanced"}), None],
}

#: Of the weights of a class. Beyond them the lighter class would be lost in rounding.
CLASS_WEIGHT_BOUNDS = (1e-4, 1e4)


_HINT_OF_LOSS = (
    ". It seems to be compressed with loss, as by JPEG: skmmcrf.datasets.load_image_pairs has `foreground` for that"
)
_HINT_OF_BLUR = (
    ". It seems to be a mask of 0 and 255 with blurred borders: give masks of 0 and 255 alone with pos_label=255, or "
    "ignore_label=255 if these are classes"
)
# a mask of more labels may be blurred
_MANY_LABELS = 8
_LARGEST_LABEL = 2**31 - 1


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of the numbers in a mask.

    Parameters
    ----------
    pos_label : int, default=1
        The label of foreground, of two labels. True is always foreground. Background is 0.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels. "auto" is 255 unless that is a class. None means that all pixels are
        labelled.
    several : tuple of int, default=()
        The labels of more than two classes, in ascending order. True is then 1.

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
    >>> LabelScheme(several=(0, 5, 9)).read([[0, 5, 9, 255]], "y").mask
    array([[  0,   1,   2, 255]], dtype=uint8)
    """

    pos_label: int = 1
    ignore_label: int | Literal["auto"] | None = "auto"
    several: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.several and self.pos_label != 1:
            raise ValueError(f"pos_label is for two labels: leave it out for several classes, got {self.pos_label}")
        if self.several and self.ignore_label in self.several:
            raise ValueError(f"ignore_label must not be one of the classes, got {self.ignore_label}")
        if not self.several and self.ignore_label in (0, self.pos_label):
            raise ValueError(
                f"ignore_label must be neither 0, the background, nor pos_label={self.pos_label}, got "
                f"{self.ignore_label}"
            )

    @classmethod
    def of_classes(
        cls,
        classes: Sequence[int] | None,
        pos_label: int,
        ignore_label: int | Literal["auto"] | None,
        *,
        fewest: int = 3,
    ) -> "LabelScheme":
        """Make the scheme of several classes, or of two labels if `classes` is None.

        Raises
        ------
        ValueError
            If `classes` are not integers in ascending order, or fewer than `fewest`. See `LabelScheme`.
        """
        if classes is None:
            return cls(pos_label, ignore_label)
        numbers = np.asarray(classes)
        labels = numbers.tolist() if numbers.ndim == 1 and numbers.dtype.kind in "bui" else []
        are_too_large = any(abs(label) > _LARGEST_LABEL for label in labels)
        if not fewest <= len(labels) <= UNLABELLED or labels != sorted(set(labels)) or are_too_large:
            raise ValueError(
                f"classes must be {fewest} to {UNLABELLED} integers in ascending order, such as range(5), of at most "
                f"{_LARGEST_LABEL} in size, got {shown(classes)}"
            )
        return cls(pos_label, ignore_label, tuple(map(int, labels)))

    @property
    def classes(self) -> tuple[int, ...]:
        """The labels in ascending order. Inside the package they are numbered so."""
        return self.several or (0, self.pos_label)

    @property
    def n_maps(self) -> int:
        """Maps that a network gives: one of log-odds for two labels, or one of scores for each of several classes."""
        return len(self.several) or 1

    @property
    def unlabelled(self) -> int | None:
        """The label of unlabelled pixels, or None."""
        if self.ignore_label == "auto":
            return None if UNLABELLED in self.classes else UNLABELLED
        return self.ignore_label

    def read(self, labels: Any, name: str) -> Annotation:
        """Read the labels of one image: an array or tensor (H, W), a PIL image or the path of a mask file.

        The labels of a palette are its indices, or its greys if it has no colours. See
        `skmmcrf.images.files.pixels_of`.

        Raises
        ------
        ValueError
            If the labels can't be read. If another label is found. The message begins with the name.
        """
        values = self.values(labels, name)
        truth, labelled, unknown = self.numbered(values)
        if unknown.any():
            refusal = self.refusal(values[unknown], f"{name}{described_mask(labels)}")
            raise ValueError(f"{refusal}{self._hint_of_classes(values[unknown])}")
        return Annotation(truth, labelled, class_weight=(1.0,) * len(self.classes))

    def _hint_of_classes(self, unknown: np.ndarray) -> str:
        """Say how to name all classes, if labels that are none of the scheme may be further ones."""
        further = np.unique(unknown)
        may_be_classes = (
            self.pos_label == 1 and len(further) <= _MANY_LABELS and np.isin(further, range(UNLABELLED)).all()
        )
        if not may_be_classes or _has_traces_of_loss(unknown):
            return ""
        classes = sorted({*self.classes, *further.astype(int).tolist()})
        return (
            ". If these are labels of several classes, give the measure or display classes=model.classes_, or the "
            f"estimator all of them, such as classes={shown(classes)}"
        )

    def values(self, labels: Any, name: str) -> np.ndarray:
        """Give the numbers of one image's labels, (H, W). See `read`."""
        if isinstance(labels, READABLE):
            labels = read_named(labels, name, as_labels=True)
        elif isinstance(labels, torch.Tensor):
            labels = labels[0] if labels.ndim == 3 and len(labels) == 1 else labels
        values = as_array(labels, name)
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f"{name} must be of shape (H, W), none of them 0, got {values.shape}")
        if values.dtype.kind not in "buif":
            raise ValueError(f"{name} must hold the labels {listed(self.classes)}, got dtype {values.dtype}")
        return values

    def numbered(self, values: np.ndarray) -> tuple[LabelArray, BoolArray, BoolArray]:
        """Give the truth of numbers (H, W), where they are known, and where they are none of the scheme."""
        if values.dtype.kind == "b" and not self.several:
            return values, np.ones(values.shape, bool), np.zeros(values.shape, bool)
        labelled = np.ones(values.shape, bool) if self.unlabelled is None else values != self.unlabelled
        if self.several:
            truth = np.searchsorted(self.several[:-1], values).astype(np.uint8)
            return truth, labelled, labelled & (np.take(self.several, truth) != values)
        truth = values == self.pos_label
        return truth, labelled, labelled & ~truth & (values != 0)

    def refusal(self, unknown: np.ndarray, name: str) -> ValueError:
        """Give the error that names labels which are none of the scheme."""
        allowed = self.classes if self.unlabelled is None else (*self.classes, self.unlabelled)
        found = np.unique(unknown)[:5].tolist()
        hint = _HINT_OF_LOSS if _has_traces_of_loss(unknown) else ""
        return ValueError(f"{name} must hold the labels {listed(allowed)} only, found {found}{hint}")

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
        if self.ignore_label != "auto" or self.several:
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
        """Give the weight of a pixel of each class.

        Parameters
        ----------
        class_weight : dict, "balanced" or None
            Weights by label, 1.0 for a missing label. "balanced" gives all classes the same total weight, within the
            bounds 1e-4 and 1e4.
        annotations : sequence of Annotation

        Raises
        ------
        ValueError
            If a label is none of the classes. If a weight is not between 1e-4 and 1e4.

        Examples
        --------
        >>> LabelScheme().check_class_weight({1: 5.0}, [])
        (1.0, 5.0)
        """
        low, high = CLASS_WEIGHT_BOUNDS
        if isinstance(class_weight, str):
            return balanced_class_weight(annotations, CLASS_WEIGHT_BOUNDS)
        weights: dict[int, Any] = dict.fromkeys(self.classes, 1.0) | (class_weight or {})
        for label, weight in weights.items():
            if label not in self.classes:
                raise ValueError(
                    f"class_weight must have only the labels {listed(self.classes)} as keys, got {shown(label)}"
                )
            if not (isinstance(weight, Real) and low <= float(weight) <= high):
                raise ValueError(f"class_weight must be between {low:g} and {high:g}, got {shown(weight)} for {label}")
        return tuple(float(weights[label]) for label in self.classes)


class OpenScheme:
    """A scheme that takes any classes: it reads masks one after the other, and then knows their labels.

    Parameters
    ----------
    scheme : LabelScheme
        Of two labels. It counts if these are all that is found.

    Examples
    --------
    >>> reader = OpenScheme(LabelScheme())
    >>> annotations = [reader.read([[label]], "y") for label in (7, 0, 2)]
    >>> scheme, annotations = reader.closed(annotations)
    >>> scheme.classes, [annotation.truth.item() for annotation in annotations]
    ((0, 2, 7), [2, 0, 1])
    """

    def __init__(self, scheme: LabelScheme) -> None:
        self.scheme = scheme
        self._found: list[tuple[int, ...]] = []
        self._refusals: list[ValueError] = []

    def read(self, labels: Any, name: str) -> Annotation:
        """Read the labels of one image, whose numbers have a meaning after `closed`. See `LabelScheme.read`."""
        values = self.scheme.values(labels, name)
        truth, labelled, unknown = self.scheme.numbered(values)
        classes = self.scheme.classes
        if unknown.any():
            refusal = self.scheme.refusal(values[unknown], f"{name}{described_mask(labels)}")
            classes = self._classes_of(values, labelled, unknown, refusal)
            truth = np.searchsorted(classes, values).astype(np.uint8)
            self._refusals.append(refusal)
        self._found.append(classes)
        return Annotation(truth, labelled, class_weight=(1.0,) * len(classes))

    def closed(self, annotations: Sequence[Annotation]) -> tuple[LabelScheme, list[Annotation]]:
        """Give the scheme of all labels found, and by it the annotations that `read` gave, in the same order.

        Raises
        ------
        ValueError
            If two labels are found, or one, and they are not those of the scheme. If they are more than 255.
        """
        if not self._refusals:
            return self.scheme, list(annotations)
        present: set[int] = set()
        for annotation, own in zip(annotations, self._found, strict=True):
            # of two labels, one may be nowhere
            present.update(own[n] for n in np.unique(annotation.truth[annotation.labelled]).astype(int))
        classes = tuple(sorted(present))
        if len(classes) <= 2:
            hint = ""
            if classes[0] == 0 < classes[-1] <= UNLABELLED:
                hint = f". Give pos_label={classes[1]} if that is the foreground"
            if self.scheme.ignore_label == "auto" and not all(a.is_fully_labelled for a in annotations):
                hint += f". Give ignore_label=None if {UNLABELLED} is a class"
            raise ValueError(f"{self._refusals[0]}{hint}")
        if len(classes) > UNLABELLED:
            raise ValueError(f"labels must be of at most {UNLABELLED} classes, found {len(classes)}")
        of_scheme = replace(self.scheme, several=classes)
        renumbered = [
            Annotation(
                np.searchsorted(classes, own).astype(np.uint8)[annotation.truth.astype(np.uint8)],
                annotation.labelled,
                class_weight=(1.0,) * len(classes),
            )
            for annotation, own in zip(annotations, self._found)
        ]
        return of_scheme, renumbered

    def _classes_of(
        self, values: np.ndarray, labelled: BoolArray, unknown: BoolArray, refusal: ValueError
    ) -> tuple[int, ...]:
        """Give the labels of an image in ascending order, or raise an error if they seem to be no classes."""
        if self.scheme.pos_label != 1:
            raise ValueError(f"{refusal}. pos_label is for two labels: leave it out for several classes")
        found = np.unique(values[labelled])
        if not (np.abs(found, dtype=float) <= _LARGEST_LABEL).all() or (found != np.round(found)).any():
            raise refusal
        if self.scheme.ignore_label == "auto":
            if _has_traces_of_loss(values[unknown]):
                raise ValueError(f"{refusal}. Or give ignore_label=255 if these are classes")
            if len(found) > _MANY_LABELS and np.count_nonzero(values[labelled]) < np.count_nonzero(~labelled):
                raise ValueError(f"{refusal}{_HINT_OF_BLUR}")
        if len(found) > UNLABELLED:
            raise ValueError(f"{refusal}. Classes may be {UNLABELLED} at most, found {len(found)}")
        return tuple(found.astype(int).tolist())


def listed(labels: Sequence[int]) -> str:
    """Name labels in a sentence, or the first and the last ones of many."""
    texts = list(map(str, labels if len(labels) <= 10 else (*labels[:3], "...", *labels[-2:])))
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _has_traces_of_loss(others: np.ndarray) -> bool:
    """Whether most values that are no labels lie close to 0 and 255, some of them below 255."""
    high = (others > 223) & (others < 255)
    low = (others > 0) & (others < 32)
    return bool(high.any() and low.any() and 2 * (high | low).sum() > others.size)
