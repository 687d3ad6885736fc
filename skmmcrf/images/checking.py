"""Checks of images and their labels, before any work starts.

Inside the package a set of images is a sequence of arrays (H, W, channels), and a set of labels a list of `Annotation`.
The functions here bring a user's data into that form, or say what is wrong with it.
"""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from skmmcrf._typing import FloatArray, ImagesLike, LabelledImagesLike, LabelsLike
from skmmcrf.field.labels import Annotation
from skmmcrf.images.entries import READABLE, as_array, as_sequence, image_and_labels, read_named
from skmmcrf.images.labels import LabelScheme, OpenScheme
from skmmcrf.images.pairing import first_mispaired
from skmmcrf.images.sequences import ImageList, Mapped

_IMAGE_DTYPES = "bool, uint8, uint16, float16, float32 or float64"
_LEAST_SIDE = 16  # no image has fewer pixels in height and width, and more channels
_LARGEST_EXPECTED = 50  # of floats that were scaled in whatever way
_LARGEST = float(np.finfo(np.float32).max)  # networks take float32, and squares of it are no trouble for float64


@dataclass
class LabelledImages:
    """Checked images and their annotations.

    Attributes
    ----------
    images : sequence of ndarray of shape (H, W, channels)
        A list in memory, or a `Mapped` that reads an image on every access.
    annotations : list of Annotation
    pairs : sequence of tuple (ndarray, Annotation), optional
        Entries of a dataset that gives both in one call, and may change them together each time.
    scheme : LabelScheme
        What the numbers of the annotations mean.
    """

    images: Sequence[np.ndarray]
    annotations: list[Annotation]
    pairs: Sequence[tuple[np.ndarray, Annotation]] | None = None
    scheme: LabelScheme = LabelScheme()

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, n: int) -> tuple[np.ndarray, Annotation]:
        if self.pairs is None:
            return self.images[n], self.annotations[n]
        image, annotation = self.pairs[n]
        return image, annotation.weighted(self.annotations[n].weight, self.annotations[n].class_weight)

    @property
    def is_lazy(self) -> bool:
        """Whether images are read on every access."""
        return isinstance(self.images, Mapped)

    @property
    def n_channels(self) -> int:
        """Channels of the images."""
        return self[0][0].shape[-1]

    def check_lasting(self) -> None:
        """Read the images of a dataset of pairs again, and raise a ValueError if one is not as it was."""
        if self.pairs is not None:
            for _ in self.images:
                pass

    @property
    def has_foreground(self) -> list[bool]:
        """Whether each image has foreground, or of several classes any, without which there is no index."""
        return [bool((a.truth if a.n_labels == 2 else a.labelled).any()) for a in self.annotations]

    def weighted(self, weights: FloatArray) -> "LabelledImages":
        """Give the same with a weight for each image."""
        annotations = [a.weighted(float(w), a.class_weight) for a, w in zip(self.annotations, weights, strict=True)]
        return replace(self, annotations=annotations)

    def weighted_anew(self) -> "LabelledImages":
        """Scale the weights of images that are left to a mean of 1.

        Raises
        ------
        ValueError
            If all are 0.
        """
        weights = [annotation.weight for annotation in self.annotations]
        if not any(weights):
            raise ValueError(
                "sample_weight is 0 for all images that are left to train on: leave images without weight out of X, or "
                "hold out other images"
            )
        return self.weighted(check_sample_weight(weights, len(self)))

    def with_class_weight(self, class_weight: tuple[float, ...]) -> "LabelledImages":
        """Give the same with the weight of a pixel of each class."""
        return replace(self, annotations=[a.weighted(a.weight, class_weight) for a in self.annotations])

    def chosen(self, numbers: Sequence[int]) -> "LabelledImages":
        """Give the images with some numbers."""
        read = self.images.__getitem__
        images = Mapped(read, list(numbers)) if self.is_lazy else [read(n) for n in numbers]
        pairs = None if self.pairs is None else Mapped(self.pairs.__getitem__, list(numbers))
        return LabelledImages(images, [self.annotations[n] for n in numbers], pairs, self.scheme)


def check_images(X: ImagesLike, *, n_channels: int | None = None, name: str = "X") -> Sequence[np.ndarray]:
    """Check a set of images.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence
        Images of dtype bool, uint8, uint16 or float. Entries of a sequence are arrays (H, W) or (H, W, channels) whose
        sizes may differ, tensors (H, W) or (channels, H, W), PIL images, or paths of image files. If an entry has
        labels too, as in a dataset of torch, the image is taken. See `skmmcrf.images.entries.image_and_labels`.
    n_channels : int, optional
        The expected number of channels, if it is known.
    name : str, default="X"
        What errors call the images.

    Returns
    -------
    sequence of ndarray of shape (H, W, channels)
        The images in their own dtype. Images of an array or a list stay in memory, and no pixel is copied. Files and
        the entries of any other sequence are read on every access.

    Raises
    ------
    ValueError, TypeError
        If X is not a sequence, or is empty. If an image can't be read. If an image has a wrong shape, dtype or number
        of channels, or pixels that are not finite.
    """
    entries, lazy = _entries_of_images(X, name)
    kept = []
    for n in range(len(entries)):
        image = _read_image(entries[n], f"{name}[{n}]")
        n_channels = _check_channels(image, n_channels, f"{name}[{n}]")
        if not lazy:
            kept.append(image)
    return Mapped(partial(_read_image, name=f"an image of {name}"), entries) if lazy else kept


def check_labelled_images(
    X: ImagesLike,
    y: LabelsLike | None,
    scheme: LabelScheme,
    *,
    n_channels: int | None = None,
    names: tuple[str, str] = ("X", "y"),
    find_classes: bool = False,
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
    find_classes : bool, default=False
        Whether labels that are none of the scheme are classes too, if more than two are found. The images that are
        given have the scheme of all classes. A scheme of several classes stays as it is.

    Raises
    ------
    ValueError, TypeError
        As in `check_images`. If numbers or sizes of labels and images differ. If a label is none of the scheme. If no
        mask has foreground but some hold 255, which "auto" takes for unlabelled.

    Warns
    -----
    UserWarning
        If the names of files suggest a wrong pairing. If some masks hold foreground, and others only 255.
    """
    entries, lazy = _entries_of_images(X, names[0])
    if y is not None:
        labels, _ = as_sequence(y, names[1], dimensions=(3,))
        if len(labels) != len(entries):
            raise ValueError(
                f"{names[0]} and {names[1]} must have the same length, got {len(entries)} images and {len(labels)} "
                "labels"
            )
        _warn_of_wrong_pairs(entries, labels, names)
    reader = OpenScheme(scheme) if find_classes and not scheme.several else scheme
    read_pair = partial(_read_pair, entries, None if y is None else labels, names)
    images, annotations, checksums = [], [], []
    for n in range(len(entries)):
        image, annotation = read_pair(reader, n)
        n_channels = _check_channels(image, n_channels, f"{names[0]}[{n}]")
        annotations.append(annotation)
        if lazy:
            checksums.append(_checksum(image))
        else:
            images.append(image)
    if isinstance(reader, OpenScheme):
        scheme, annotations = reader.closed(annotations)
    scheme.check_foreground_is_meant(annotations, names[1])
    if not lazy:
        return LabelledImages(images, annotations, scheme=scheme)
    pairs = Mapped(partial(read_pair, scheme), range(len(entries))) if y is None else None
    read_again = partial(_read_again, entries, checksums, names[0])
    return LabelledImages(Mapped(read_again, range(len(entries))), annotations, pairs, scheme)


def check_labels(
    y: LabelsLike, shapes: Sequence[tuple[int, ...]], scheme: LabelScheme, names: tuple[str, str] = ("X", "y")
) -> list[Annotation]:
    """Check the labels of n images with these heights and widths. See `check_labelled_images`."""
    images_name, name = names
    labels, _ = as_sequence(y, name, dimensions=(3,))
    if len(labels) != len(shapes):
        raise ValueError(
            f"{images_name} and {name} must have the same length, got {len(shapes)} images and {len(labels)} labels"
        )
    return [_read_labels(labels[n], shape, scheme, f"{name}[{n}]") for n, shape in enumerate(shapes)]


def check_validation_data(
    validation_data: LabelledImagesLike | None, scheme: LabelScheme, n_channels: int
) -> LabelledImages | None:
    """Check validation images and labels: None, a tuple (X, y), or a dataset of pairs.

    Raises
    ------
    ValueError, TypeError
        As in `check_labelled_images`. If a dataset of pairs gives other images each time.
    """
    if validation_data is None:
        return None
    if isinstance(validation_data, tuple):
        if len(validation_data) != 2:
            raise TypeError(f"validation_data must be a tuple (X, y) or a dataset of pairs, got {len(validation_data)}")
        names = ("validation_data[0]", "validation_data[1]")
        X, y = validation_data
        return check_labelled_images(X, y, scheme, n_channels=n_channels, names=names)
    try:
        names = ("validation_data", "y")
        data = check_labelled_images(validation_data, None, scheme, n_channels=n_channels, names=names)
    except (TypeError, ValueError) as error:
        if isinstance(validation_data, list):
            raise type(error)(f"{error}. A list holds pairs of image and labels. Give X and y as a tuple") from error
        raise
    data.check_lasting()
    return data


def check_sample_weight(sample_weight: ArrayLike | None, n_images: int) -> FloatArray:
    """Check the weights of images, and scale them to a mean of 1. All are 1 by default.

    Raises
    ------
    ValueError, TypeError
        If the numbers of weights and images differ. If a weight is not a number, negative or not finite. If all are
        zero.

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


def warn_of_range(image: np.ndarray, name: str) -> None:
    """Warn, by a UserWarning, if an image of floats seems to hold the values of integers."""
    if image.dtype.kind == "f" and float(image.max()) > _LARGEST_EXPECTED:
        warnings.warn(
            f"{name} holds floats up to {float(image.max()):g}, which are taken as they are. Scale them to about "
            "[0, 1], as X / 255 does for images of 8 bits, or give integers",
            UserWarning,
            stacklevel=4,
        )


def as_given(results: Sequence[np.ndarray], X: ImagesLike) -> np.ndarray | list[np.ndarray]:
    """Give results, one an image, as an array if the images are an array, else as a list."""
    return np.stack(results) if isinstance(X, np.ndarray) and X.dtype.kind not in "OU" else ImageList(results)


def _entries_of_images(X: ImagesLike, name: str) -> tuple[Sequence[Any], bool]:
    entries, lazy = as_sequence(X, name, dimensions=(3, 4))
    shape = np.shape(entries) if isinstance(entries, (np.ndarray, torch.Tensor)) else ()
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) >= _LEAST_SIDE:
        raise ValueError(
            f"{name} of shape {tuple(shape)} looks like one image of {shape[2]} channels: give {name}[np.newaxis] if "
            f"it is one, or {name}[..., np.newaxis] if these are {shape[0]} gray images"
        )
    return entries, lazy


def _read_pair(
    images: Sequence[Any],
    labels: Sequence[Any] | None,
    names: tuple[str, str],
    scheme: LabelScheme | OpenScheme,
    n: int,
) -> tuple[np.ndarray, Annotation]:
    """The image of a number and its annotation, both from one call if the labels are part of the images' entries."""
    name = f"{names[0]}[{n}]"
    image, of_image = image_and_labels(images[n], name)
    image = _read_image(image, name)
    if labels is not None:
        return image, _read_labels(labels[n], image.shape[:2], scheme, f"{names[1]}[{n}]")
    if of_image is None:
        raise TypeError(
            f"{names[1]} is None, but {name} is an image without labels: give {names[1]}, or pairs of image and labels"
        )
    return image, _read_labels(of_image, image.shape[:2], scheme, f"the labels of {name}")


def _warn_of_wrong_pairs(images: Sequence[Any], labels: Sequence[Any], names: tuple[str, str]) -> None:
    for entries in (images, labels):
        if not (isinstance(entries, (list, tuple)) and all(isinstance(entry, (str, PathLike)) for entry in entries)):
            return
    n = first_mispaired(images, labels)
    if n is not None:
        warnings.warn(
            f"{names[1]}[{n}], {labels[n]}, has the name of another image's mask, not of {names[0]}[{n}], {images[n]}: "
            "sorted lists may differ in their order. skmmcrf.datasets.load_image_pairs pairs files by name",
            UserWarning,
            stacklevel=4,
        )


def _read_labels(labels: Any, shape: tuple[int, ...], scheme: LabelScheme | OpenScheme, name: str) -> Annotation:
    annotation = scheme.read(labels, name)
    if annotation.shape != shape:
        raise ValueError(f"{name} has shape {annotation.shape}, but its image has {shape}")
    return annotation


def _read_again(images: Sequence[Any], checksums: Sequence[int], name: str, n: int) -> np.ndarray:
    """The image of a number, after a check that it is as it was when its labels were read."""
    image = _read_image(images[n], f"{name}[{n}]")
    if _checksum(image) != checksums[n]:
        raise ValueError(
            f"{name}[{n}] changes each time that it is read, so it does not fit the labels that were read before. "
            f"Leave random changes out of {name}, and give them as augmentation. A network alone can be trained on a "
            "dataset that changes each image together with its labels, without checkpoint and memory"
        )
    return image


def _checksum(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data, zlib.crc32(str(image.shape).encode()))


def _check_channels(image: np.ndarray, n_channels: int | None, name: str) -> int:
    if n_channels not in (None, image.shape[2]):
        are_colours = {n_channels, image.shape[2]} <= {1, 3, 4}
        raise ValueError(
            f"{name} has {image.shape[2]} channel{'s' * (image.shape[2] > 1)}, but the model or the first image has "
            f"{n_channels}{': make all images grey, or all coloured' * are_colours}"
        )
    return image.shape[2]


def _read_image(entry: Any, name: str) -> np.ndarray:
    image, _ = image_and_labels(entry, name)
    if isinstance(image, READABLE):
        image = read_named(image, name)
    elif isinstance(image, torch.Tensor):
        image = image if image.ndim < 3 else image.movedim(0, -1)
    image = as_array(image, name)
    if image.dtype.newbyteorder("=") not in (bool, np.uint8, np.uint16, np.float16, np.float32, np.float64):
        raise ValueError(f"{name} must be of dtype {_IMAGE_DTYPES}, got {image.dtype}: scale other images to [0, 1]")
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name} must be of shape (H, W) or (H, W, channels), none of them 0, got {image.shape}")
    if min(image.shape[:2]) <= 4 and min(max(image.shape[:2]), image.shape[2]) >= _LEAST_SIDE:
        raise ValueError(
            f"{name} would be an image of {image.shape[0]} x {image.shape[1]} pixels with {image.shape[2]} channels: "
            "channels are the last dimension of an array, and the first of a tensor"
        )
    # NaN is in no range
    if image.dtype.kind == "f" and not (float(image.min()) >= -_LARGEST and float(image.max()) <= _LARGEST):
        raise ValueError(f"{name} contains NaN or infinite pixels, or pixels too large for float32")
    return image
