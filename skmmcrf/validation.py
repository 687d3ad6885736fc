"""Checks of images and labels, and the conversions that every estimator shares.

Inside the package a set of images is a sequence of arrays (H, W, channels) and a set of labels a list of `Truth`; the
functions here bring what users give into that form, or say what is wrong with it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.utils._param_validation import Interval, StrOptions

from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, LabelledImages, LabelledImagesLike, LabelsLike
from skmmcrf.image_files import read_image
from skmmcrf.sequences import ImageList, Mapped
from skmmcrf.truth import UNLABELLED, Truth, balanced_class_weight

#: What the parameters that say how labels are read and weighed may be.
LABEL_CONSTRAINTS = {
    "pos_label": [Interval(Integral, 1, 255, closed="both")],
    "ignore_label": [Integral, StrOptions({"auto"}), None],
    "class_weight": [dict, StrOptions({"balanced"}), None],
}

#: Weights of classes, beyond which the lighter one would be lost in rounding.
_LEAST_CLASS_WEIGHT, _LARGEST_CLASS_WEIGHT = 1e-4, 1e4

_IMAGE_DTYPES = "bool, uint8, uint16, float16, float32 or float64"
_LARGEST = float(np.finfo(np.float32).max)  # networks take float32, and squares of it are no trouble for float64


def check_images(X: ImagesLike, *, n_channels: int | None = None, name: str = "X") -> Sequence[np.ndarray]:
    """Check a set of images.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence
        Images of dtype bool, uint8, uint16 or float. Entries of a sequence are arrays (H, W) or (H, W, channels) whose
        sizes may differ, tensors (H, W) or (channels, H, W), PIL images, or paths of image files; of pairs, as
        datasets of torch have them, the first is taken.
    n_channels : int, optional
        The number of channels that is wanted, if it is known.
    name : str, default="X"
        What errors call the images.

    Returns
    -------
    sequence of ndarray of shape (H, W, channels)
        The images in their own dtype. Those of an array or a list are in memory, no pixel is copied; files and the
        entries of any other sequence are read each time that they are asked for.

    Raises
    ------
    ValueError
        If there is no image, or one can't be read or has a wrong shape, dtype, number of channels, or pixels that are
        not finite.
    TypeError
        If X is no sequence.
    """
    return _check_images(X, n_channels, name)[0]


def check_labelled_images(
    X: ImagesLike,
    y: LabelsLike | None,
    *,
    n_channels: int | None = None,
    name: str = "X",
    labels_name: str = "y",
    pos_label: int = 1,
    ignore_label: int | str | None = "auto",
) -> tuple[Sequence[np.ndarray], list[Truth]]:
    """Check images and their labels.

    Parameters
    ----------
    X : images
        See `check_images`.
    y : array of shape (n, H, W), sequence, or None
        The labels, of dtype bool, integer or float. Entries of a sequence are arrays or tensors (H, W), PIL images or
        paths of mask files. None takes them from X, if its entries are pairs.
    n_channels : int, optional
    name : str, default="X"
    labels_name : str, default="y"
    pos_label : int, default=1
        The label of foreground; True always is.
    ignore_label : int, None or "auto", default="auto"
        The label of unlabelled pixels; "auto" is 255, or none where that is foreground.

    Returns
    -------
    images : sequence of ndarray of shape (H, W, channels)
    truths : list of Truth

    Raises
    ------
    ValueError, TypeError
        As `check_images`; if the numbers of labels and images or their sizes differ; if a label is none of 0,
        `pos_label` and `ignore_label`; or if there is no foreground but 255, which "auto" takes for unlabelled.
    """
    if y is None and _holds_pairs(X):
        y = Mapped(_second, X)
    images, shapes = _check_images(X, n_channels, name)
    truths = check_labels(y, shapes, labels_name, pos_label, ignore_label, images_name=name)
    check_foreground_is_meant(labels_name, truths, pos_label, ignore_label)
    return images, truths


def check_labels(
    y: LabelsLike | None,
    shapes: Sequence[tuple[int, ...]],
    name: str = "y",
    pos_label: int = 1,
    ignore_label: int | str | None = None,
    *,
    images_name: str = "X",
) -> list[Truth]:
    """Check the labels of images.

    Parameters
    ----------
    y : array of shape (n, H, W), or sequence
        See `check_labelled_images`.
    shapes : sequence of n tuples
        Heights and widths of the images.
    name : str, default="y"
        What errors call the labels.
    pos_label : int, default=1
    ignore_label : int, None or "auto", default=None
    images_name : str, default="X"

    Returns
    -------
    list of Truth

    Raises
    ------
    ValueError, TypeError
        As `check_labelled_images`.
    """
    labels, _ = as_sequence(y, name, dimensions=(3,))
    if len(labels) != len(shapes):
        raise ValueError(
            f"{images_name} and {name} must have the same length, got {len(shapes)} images and {len(labels)} labels"
        )
    unlabelled = resolve_ignore_label(pos_label, ignore_label)
    truths = []
    for n, shape in enumerate(shapes):
        foreground, labelled = read_labels(labels[n], f"{name}[{n}]", pos_label, unlabelled)
        if foreground.shape != shape:
            raise ValueError(f"{name}[{n}] has shape {foreground.shape}, but its image has {shape}")
        truths.append(Truth(foreground, labelled))
    return truths


def check_validation_data(
    validation_data: LabelledImagesLike | None, n_channels: int, **labels: Any
) -> LabelledImages | None:
    """Check images and labels that training is watched on.

    Parameters
    ----------
    validation_data : None or tuple (X, y)
    n_channels : int
        Channels of the training images.
    **labels
        `pos_label` and `ignore_label`, see `check_labelled_images`.

    Returns
    -------
    None or tuple of sequence of ndarray (H, W, channels) and list of Truth

    Raises
    ------
    ValueError, TypeError
        As `check_labelled_images`, or if it is not a pair.
    """
    if validation_data is None:
        return None
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError("validation_data must be a pair (X, y)")
    X, y = validation_data
    return check_labelled_images(
        X, y, n_channels=n_channels, name="validation_data[0]", labels_name="validation_data[1]", **labels
    )


def check_sample_weight(sample_weight: ArrayLike | None, n_images: int) -> FloatArray:
    """Check the weights of images, and scale them to a mean of 1.

    Parameters
    ----------
    sample_weight : array of shape (n_images,), optional
        Not negative; all 1 by default.
    n_images : int

    Returns
    -------
    ndarray of float and shape (n_images,)

    Raises
    ------
    ValueError, TypeError
        If there are not as many, or one is no number, negative or not finite, or all are zero.

    Examples
    --------
    >>> check_sample_weight([1, 3], 2)
    array([0.5, 1.5])
    """
    if sample_weight is None:
        return np.ones(n_images)
    given = as_array(sample_weight, "sample_weight")
    if given.dtype.kind not in "buifO":
        raise TypeError(f"sample_weight must be numbers, got dtype {given.dtype}")
    try:
        weights = given.astype(float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"sample_weight must be numbers: {error}") from error
    if weights.shape != (n_images,):
        raise ValueError(f"sample_weight must be of shape ({n_images},), one weight an image, got {weights.shape}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("sample_weight must be finite and not negative, and not all of it 0")
    weights = weights / weights.max()  # the sum of very large ones would be infinite
    return weights / weights.mean()


def check_class_weight(
    class_weight: dict[int, float] | str | None, truths: Sequence[Truth], pos_label: int
) -> tuple[float, float]:
    """Give the weights of a pixel of the background and of the foreground.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        Weights by label, 1.0 where it has none; or such that both classes count alike.
    truths : sequence of Truth
    pos_label : int

    Returns
    -------
    tuple of float

    Raises
    ------
    ValueError
        If a label is neither 0 nor `pos_label`, or a weight is not between 1e-4 and 1e4.

    Examples
    --------
    >>> check_class_weight({1: 5.0}, [], pos_label=1)
    (1.0, 5.0)
    """
    if isinstance(class_weight, str):
        return balanced_class_weight(truths)
    weights: dict[int, Any] = {0: 1.0, pos_label: 1.0} | (class_weight or {})
    for label, weight in weights.items():
        if label not in (0, pos_label):
            raise ValueError(f"class_weight must be of the labels 0 and {pos_label}, got one of {label!r}")
        if not (isinstance(weight, Real) and _LEAST_CLASS_WEIGHT <= float(weight) <= _LARGEST_CLASS_WEIGHT):
            raise ValueError(
                f"class_weight must be positive and finite, between {_LEAST_CLASS_WEIGHT:g} and "
                f"{_LARGEST_CLASS_WEIGHT:g}, got {weight!r} for {label}"
            )
    return float(weights[0]), float(weights[pos_label])


def is_lazy(images: Sequence[np.ndarray]) -> bool:
    """Tell whether checked images are read each time that they are asked for."""
    return isinstance(images, Mapped)


def as_given(results: Sequence[np.ndarray], X: ImagesLike) -> np.ndarray | list[np.ndarray]:
    """Give results the outer form of the images: an array for an array, a list for any other sequence.

    Parameters
    ----------
    results : sequence of ndarray
        One result an image.
    X : array or sequence
        The images as the user gave them.

    Returns
    -------
    ndarray or list of ndarray
    """
    return np.stack(results) if isinstance(X, np.ndarray) and X.dtype.kind not in "OU" else ImageList(results)


def as_sequence(values: Any, name: str, dimensions: tuple[int, ...]) -> tuple[Sequence[Any], bool]:
    """Give the entries of what users gave as images or labels.

    Parameters
    ----------
    values : array, sequence, or column of pandas
    name : str
        What errors call it.
    dimensions : tuple of int
        How many an array may have.

    Returns
    -------
    entries : sequence
    lazy : bool
        Whether to read an entry only when it is needed: of paths, and of sequences other than lists, tuples and arrays.

    Raises
    ------
    ValueError, TypeError
        If it is none of these, is empty, or an array of other dimensions.
    """
    if hasattr(values, "iloc"):  # of pandas
        if values.ndim == 2 and values.shape[1] != 1:
            raise ValueError(f"{name} must be one column, got {values.shape[1]}")
        values = values.squeeze(axis=1).tolist() if values.ndim == 2 else values.tolist()
    if issparse(values):
        raise TypeError(f"{name} must be dense, got the sparse {type(values).__name__}")
    if isinstance(values, (str, bytes, dict, PathLike)) or not (
        hasattr(values, "__len__") and hasattr(values, "__getitem__")
    ):
        raise TypeError(f"{name} must be an array or a list of arrays, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "OU" and values.ndim == 1:
        values = values.tolist()
    if isinstance(values, (np.ndarray, torch.Tensor)) and values.ndim not in dimensions:
        shapes = {(3,): "(n, H, W)", (3, 4): "(n, H, W) or (n, H, W, channels)"}
        raise ValueError(f"{name} must be of shape {shapes[dimensions]}, got {tuple(values.shape)}")
    if _length(values, name) == 0:
        raise ValueError(f"{name} is empty; at least one image is needed")
    in_memory = isinstance(values, (np.ndarray, torch.Tensor)) or (
        isinstance(values, (list, tuple)) and not any(isinstance(value, (str, PathLike)) for value in values)
    )
    return values, not in_memory


def resolve_ignore_label(pos_label: int, ignore_label: int | str | None) -> int | None:
    """Give the label of unlabelled pixels, or None if there is none.

    Parameters
    ----------
    pos_label : int
    ignore_label : int, None or "auto"
        "auto" is 255, or none where that is `pos_label`.

    Returns
    -------
    int or None

    Raises
    ------
    ValueError
        If one label would mean two things.

    Examples
    --------
    >>> resolve_ignore_label(1, "auto"), resolve_ignore_label(255, "auto")
    (255, None)
    """
    if ignore_label == "auto":
        return None if pos_label == UNLABELLED else UNLABELLED
    if ignore_label in (0, pos_label):
        raise ValueError(f"ignore_label must be neither 0, the background, nor {pos_label=}, got {ignore_label}")
    return ignore_label  # type: ignore[return-value]  # no other string is left


def read_labels(labels: Any, name: str, pos_label: int, unlabelled: int | None) -> tuple[BoolArray, BoolArray | None]:
    """Read the labels of one image.

    Parameters
    ----------
    labels : array or tensor (H, W), PIL image or path
        True or `pos_label` in the foreground, False or 0 in the background, or `unlabelled`.
    name : str
        What errors call them.
    pos_label : int
    unlabelled : int or None

    Returns
    -------
    foreground : ndarray of bool and shape (H, W)
    labelled : ndarray of bool and shape (H, W), or None if all pixels are

    Raises
    ------
    ValueError
        If they can't be read, or another label is found.

    Examples
    --------
    >>> read_labels([[0, 1, 255]], "y", pos_label=1, unlabelled=255)
    (array([[False,  True, False]]), array([[ True,  True, False]]))
    """
    if isinstance(labels, (str, PathLike)):
        labels = _named(name, read_image, labels, palette=True)
    elif isinstance(labels, torch.Tensor):
        labels = labels[0] if labels.ndim == 3 and len(labels) == 1 else labels
    labels = as_array(labels, name)
    if labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(f"{name} must be of shape (H, W), none of them 0, got {labels.shape}")
    if labels.dtype.kind == "b":
        return labels, None
    if labels.dtype.kind not in "uif":
        raise ValueError(f"{name} must hold the labels 0 and {pos_label}, got dtype {labels.dtype}")
    foreground = labels == pos_label
    labelled = np.ones(labels.shape, dtype=bool) if unlabelled is None else labels != unlabelled
    other = labelled & ~foreground & (labels != 0)
    if other.any():
        allowed = f"0 and {pos_label}" if unlabelled is None else f"0, {pos_label} and {unlabelled}"
        raise ValueError(f"{name} must hold the labels {allowed} only, found {np.unique(labels[other])[:5].tolist()}")
    return foreground, None if labelled.all() else labelled


def check_foreground_is_meant(
    name: str, truths: Sequence[Truth], pos_label: int, ignore_label: int | str | None
) -> None:
    """Refuse labels without any foreground but with 255, unless that is said to mean unlabelled.

    Parameters
    ----------
    name : str
        What the error calls the labels.
    truths : sequence of Truth
    pos_label : int
    ignore_label : int, None or "auto"

    Raises
    ------
    ValueError
    """
    complete = all(truth.is_complete for truth in truths)
    if ignore_label == "auto" and not complete and not any(truth.foreground.any() for truth in truths):
        raise ValueError(
            f"{name} holds no {pos_label}, but 255, which is taken for unlabelled: if it is the foreground, give "
            "pos_label=255; if it is unlabelled, ignore_label=255"
        )


def _check_images(
    X: ImagesLike, n_channels: int | None, name: str
) -> tuple[Sequence[np.ndarray], list[tuple[int, ...]]]:
    """The images and their heights and widths."""
    values, lazy = as_sequence(X, name, dimensions=(3, 4))
    kept, shapes = [], []
    for n in range(len(values)):
        image = _read_image(values[n], f"{name}[{n}]")
        n_channels = n_channels or image.shape[2]
        if image.shape[2] != n_channels:
            raise ValueError(f"{name}[{n}] has {image.shape[2]} channels, but {n_channels} are wanted")
        shapes.append(image.shape[:2])
        if not lazy:
            kept.append(image)
    return (Mapped(partial(_read_image, name=f"an image of {name}"), values) if lazy else kept), shapes


def _holds_pairs(X: Any) -> bool:
    if isinstance(X, (np.ndarray, list, dict, str, bytes)) or not hasattr(X, "__getitem__"):
        return False
    return hasattr(X, "__len__") and _length(X, "X") > 0 and isinstance(X[0], tuple) and len(X[0]) == 2


def _length(values: Any, name: str) -> int:
    try:
        return len(values)
    except TypeError as error:  # of a class, or of an array without dimensions
        raise TypeError(f"{name} must be an array or a list of arrays: {error}") from error


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


def as_array(values: Any, name: str) -> np.ndarray:
    """Make an array of an array, a tensor or nested lists.

    Parameters
    ----------
    values : array, tensor, or whatever numpy makes an array of
    name : str
        What errors call it.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If lists in it are of unequal lengths, or numpy lacks the dtype of a tensor.
    TypeError
        If a part of it is masked, which an array could not tell.

    Examples
    --------
    >>> as_array([[1, 2]], "X")
    array([[1, 2]])
    """
    if np.ma.is_masked(values):
        raise TypeError(f"{name} must not be masked: say what is unlabelled by ignore_label, and fill the rest")
    try:
        if isinstance(values, torch.Tensor):
            return values.detach().cpu().numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} can't be made an array: {error}") from error


def _read_image(image: Any, name: str) -> np.ndarray:
    if isinstance(image, tuple) and image:
        image = image[0]
    if isinstance(image, (str, PathLike)):
        image = _named(name, read_image, image)
    elif isinstance(image, torch.Tensor):
        image = image if image.ndim < 3 else image.movedim(0, -1)
    image = as_array(image, name)
    if not (image.dtype.kind in "bf" or image.dtype.newbyteorder("=") in (np.uint8, np.uint16)):
        raise ValueError(f"{name} must be of dtype {_IMAGE_DTYPES}, got {image.dtype}; scale other images to [0, 1]")
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name} must be of shape (H, W) or (H, W, channels), none of them 0, got {image.shape}")
    # NaN is in no range
    if image.dtype.kind == "f" and not (float(image.min()) >= -_LARGEST and float(image.max()) <= _LARGEST):
        raise ValueError(f"{name} contains NaN or infinite pixels, or some that are too large for float32")
    return image


def _named(name: str, read: Callable[..., np.ndarray], *args: Any, **kwargs: Any) -> np.ndarray:
    """Read a file, or tell which entry could not be read."""
    try:
        return read(*args, **kwargs)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
