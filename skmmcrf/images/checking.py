"""Checks of images and their labels, before any work starts.

Inside the package a set of images is a sequence of arrays (H, W, channels), and a set of labels a list of `Annotation`.
The functions here bring what users give into that form, or say what is wrong with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from skmmcrf._typing import FloatArray, ImagesLike, LabelledImagesLike, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.entries import as_array, as_sequence, length_of, read_named
from skmmcrf.images.labels import LabelScheme
from skmmcrf.images.sequences import ImageList, Mapped

_IMAGE_DTYPES = "bool, uint8, uint16, float16, float32 or float64"
_LARGEST = float(np.finfo(np.float32).max)  # networks take float32, and squares of it are no trouble for float64


@dataclass
class LabelledImages:
    """Checked images and what is known of their labels.

    Attributes
    ----------
    images : sequence of ndarray of shape (H, W, channels)
        A list in memory, or a `Mapped` that reads an image each time that it is asked for.
    annotations : list of Annotation
    """

    images: Sequence[np.ndarray]
    annotations: list[Annotation]

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def is_lazy(self) -> bool:
        """Whether images are read each time that they are asked for."""
        return isinstance(self.images, Mapped)

    @property
    def n_channels(self) -> int:
        """Channels of the images."""
        return self.images[0].shape[-1]

    def weighted(self, weights: FloatArray) -> "LabelledImages":
        """Give the same with what each image counts."""
        annotations = [a.weighted(float(w), a.class_weight) for a, w in zip(self.annotations, weights, strict=True)]
        return LabelledImages(self.images, annotations)

    def with_class_weight(self, class_weight: tuple[float, float]) -> "LabelledImages":
        """Give the same with what a pixel of the background and of the foreground counts."""
        return LabelledImages(self.images, [a.weighted(a.weight, class_weight) for a in self.annotations])

    def chosen(self, numbers: Sequence[int]) -> "LabelledImages":
        """Give those of some numbers."""
        read = self.images.__getitem__
        images = Mapped(read, list(numbers)) if self.is_lazy else [read(n) for n in numbers]
        return LabelledImages(images, [self.annotations[n] for n in numbers])


def check_images(X: ImagesLike, *, n_channels: int | None = None, name: str = "X") -> Sequence[np.ndarray]:
    """Check a set of images.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence
        Images of dtype bool, uint8, uint16 or float. Entries of a sequence are arrays (H, W) or (H, W, channels) whose
        sizes may differ, tensors (H, W) or (channels, H, W), PIL images, or paths of image files. Of pairs, as datasets
        of torch have them, the first is taken.
    n_channels : int, optional
        The number of channels that is wanted, if it is known.
    name : str, default="X"
        What errors call the images.

    Returns
    -------
    sequence of ndarray of shape (H, W, channels)
        The images in their own dtype. Those of an array or a list are in memory, no pixel is copied. Files and the
        entries of any other sequence are read each time that they are asked for.

    Raises
    ------
    ValueError, TypeError
        If X is no sequence or empty, or an image can't be read or has a wrong shape, dtype, number of channels, or
        pixels that are not finite.
    """
    return _check_images(X, n_channels, name)[0]


def check_labelled_images(
    X: ImagesLike,
    y: LabelsLike | None,
    scheme: LabelScheme,
    *,
    n_channels: int | None = None,
    names: tuple[str, str] = ("X", "y"),
) -> LabelledImages:
    """Check images and their labels.

    Parameters
    ----------
    X : images
        See `check_images`.
    y : array of shape (n, H, W), sequence, or None
        The labels, of dtype bool, integer or float. Entries of a sequence are arrays or tensors (H, W), PIL images or
        paths of mask files. None takes them from X, if its entries are pairs.
    scheme : LabelScheme
    n_channels : int, optional
    names : tuple of str, default=("X", "y")
        What errors call images and labels.

    Raises
    ------
    ValueError, TypeError
        As `check_images`; if the numbers of labels and images or their sizes differ; if a label is none of the
        scheme; or if there is no foreground but 255, which "auto" takes for unlabelled.
    """
    if y is None and _holds_pairs(X):
        y = Mapped(_second, X)
    images, shapes = _check_images(X, n_channels, names[0])
    annotations = check_labels(y, shapes, scheme, names)
    scheme.check_foreground_is_meant(annotations, names[1])
    return LabelledImages(images, annotations)


def check_labels(
    y: LabelsLike | None, shapes: Sequence[tuple[int, ...]], scheme: LabelScheme, names: tuple[str, str] = ("X", "y")
) -> list[Annotation]:
    """Check the labels of n images, of these heights and widths; see `check_labelled_images`."""
    images_name, name = names
    labels, _ = as_sequence(y, name, dimensions=(3,))
    if len(labels) != len(shapes):
        raise ValueError(
            f"{images_name} and {name} must have the same length, got {len(shapes)} images and {len(labels)} labels"
        )
    annotations = []
    for n, shape in enumerate(shapes):
        annotation = scheme.read(labels[n], f"{name}[{n}]")
        if annotation.shape != shape:
            raise ValueError(f"{name}[{n}] has shape {annotation.shape}, but its image has {shape}")
        annotations.append(annotation)
    return annotations


def check_validation_data(
    validation_data: LabelledImagesLike | None, scheme: LabelScheme, n_channels: int
) -> LabelledImages | None:
    """Check images and labels that training is watched on, None or a pair (X, y)."""
    if validation_data is None:
        return None
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError("validation_data must be a pair (X, y)")
    names = ("validation_data[0]", "validation_data[1]")
    return check_labelled_images(*validation_data, scheme, n_channels=n_channels, names=names)


def check_sample_weight(sample_weight: ArrayLike | None, n_images: int) -> FloatArray:
    """Check the weights of images, and scale them to a mean of 1; all are 1 by default.

    Raises
    ------
    ValueError, TypeError
        If there are not as many as images, or one is no number, negative or not finite, or all are zero.

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


def as_given(results: Sequence[np.ndarray], X: ImagesLike) -> np.ndarray | list[np.ndarray]:
    """Give results, one an image, the outer form of the images: an array for an array, else a list."""
    return np.stack(results) if isinstance(X, np.ndarray) and X.dtype.kind not in "OU" else ImageList(results)


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
    return hasattr(X, "__len__") and length_of(X, "X") > 0 and isinstance(X[0], tuple) and len(X[0]) == 2


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


def _read_image(image: Any, name: str) -> np.ndarray:
    if isinstance(image, tuple) and image:
        image = image[0]
    if isinstance(image, (str, PathLike)):
        image = read_named(image, name)
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
