"""Sets of images or labels as users give them: their entries, and arrays made of them."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse
from torch.utils.data import DataLoader

from skmmcrf._shown import shown
from skmmcrf.images.files import pixels_of, read_image

#: What `read_named` reads.
READABLE = (str, PathLike, Image.Image)

# what datasets that give dicts call the image and its labels
_IMAGE_KEYS = ("image", "img", "pixel_values", "X", "x")
_LABEL_KEYS = ("mask", "label", "labels", "segmentation", "seg", "annotation", "target", "y")


def as_sequence(values: Any, name: str, dimensions: tuple[int, ...]) -> tuple[Sequence[Any], bool]:
    """Give the entries of what users gave as images or labels.

    Parameters
    ----------
    values : array, sequence, or column of pandas or polars
    name : str
        What errors call it.
    dimensions : tuple of int
        The numbers of dimensions that an array may have.

    Returns
    -------
    entries : sequence
    lazy : bool
        Whether to read an entry only when it is needed. True for paths, and for sequences other than lists, tuples and
        arrays.

    Raises
    ------
    ValueError, TypeError
        If `values` is none of these, or is empty. If an array has another number of dimensions.
    """
    values = _column_as_list(values, name)
    if issparse(values):
        raise TypeError(f"{name} must be dense, got the sparse {type(values).__name__}")
    if isinstance(values, DataLoader):
        raise TypeError(f"{name} must not be a DataLoader, which gives batches: give its dataset")
    if hasattr(values, "shape") and hasattr(values, "__getitem__") and not hasattr(values, "__len__"):
        values = _ArrayWithLength(values)
    if isinstance(values, (bytes, Mapping, *READABLE)) or not (
        hasattr(values, "__len__") and hasattr(values, "__getitem__")
    ):
        raise TypeError(
            f"{name} must be an array or a list of arrays, got {type(values).__name__}: {_as_list_hint(values, name)}"
        )
    if isinstance(values, np.ndarray) and values.dtype.kind in "OUT" and values.ndim == 1:
        values = values.tolist()
    if isinstance(values, (np.ndarray, torch.Tensor, _ArrayWithLength)) and values.ndim not in dimensions:
        shapes = {(3,): "(n, H, W)", (3, 4): "(n, H, W) or (n, H, W, channels)"}
        hint = f": give {name}[np.newaxis] for a single one" if values.ndim == 2 else ""
        raise ValueError(f"{name} must be of shape {shapes[dimensions]}, got {tuple(values.shape)}{hint}")
    if length_of(values, name) == 0:
        raise ValueError(f"{name} is empty: give at least one image")
    in_memory = isinstance(values, (np.ndarray, torch.Tensor)) or (
        isinstance(values, (list, tuple)) and not any(map(_holds_path, values))
    )
    return values, not in_memory


def image_and_labels(entry: Any, name: str) -> tuple[Any, Any]:
    """Split an entry of a dataset into the image and its labels, which are None for an image alone.

    Parameters
    ----------
    entry : tuple, list, dict, or image
        In a tuple or a list the first is the image, and the second its labels. A dict has a key for each, such as
        "image" and "mask".
    name : str
        What errors call it.

    Raises
    ------
    ValueError
        If the keys of a dict are unknown or ambiguous.

    Examples
    --------
    >>> image_and_labels({"image": "horse.png", "mask": "horse_mask.png", "id": 3}, "X[0]")
    ('horse.png', 'horse_mask.png')
    >>> image_and_labels("horse.png", "X[0]")
    ('horse.png', None)
    """
    if isinstance(entry, Mapping):
        image, labels = ([key for key in keys if key in entry] for keys in (_IMAGE_KEYS, _LABEL_KEYS))
        if len(image) != 1 or len(labels) > 1:
            raise ValueError(
                f"{name} must have one of the keys {', '.join(_IMAGE_KEYS)}, and one of {', '.join(_LABEL_KEYS)} for "
                f"labels, got {shown(list(entry))}"
            )
        return entry[image[0]], entry[labels[0]] if labels else None
    if isinstance(entry, (tuple, list)) and entry and _is_image(entry[0]):
        return entry[0], entry[1] if len(entry) > 1 else None
    return entry, None


class _ArrayWithLength:
    """An array of a library whose arrays have a shape and no length, such as zarr. Entries are read when needed."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = tuple(array.shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("it has no dimension")
        return self.shape[0]

    def __getitem__(self, n: int) -> Any:
        return self.array[n]


def _as_list_hint(values: Any, name: str) -> str:
    if isinstance(values, (str, PathLike)):
        return "give [path] for a file, or sorted(Path(folder).iterdir()) for a folder"
    if isinstance(values, Mapping) and "images" in values:
        return "give its images, and its masks as labels"
    return f"give list({name})" if isinstance(values, Iterator) else "put a single one into a list"


def _is_image(value: Any) -> bool:
    """Whether this may be an image of a pair, and not a row of an image in nested lists."""
    return isinstance(value, READABLE) or getattr(value, "ndim", 0) >= 2


def _holds_path(entry: Any) -> bool:
    if isinstance(entry, Mapping):
        entry = tuple(entry.values())
    first = entry[0] if isinstance(entry, (tuple, list)) and entry else entry
    return isinstance(first, (str, PathLike))


def _column_as_list(values: Any, name: str) -> Any:
    """A column of pandas or polars as a list of its entries, anything else as it is."""
    if not hasattr(values, "to_numpy") or isinstance(values, torch.Tensor):
        return values
    if len(np.shape(values)) == 2:
        if np.shape(values)[1] != 1:
            raise ValueError(f"{name} must be one column, got {np.shape(values)[1]}")
        values = values[values.columns[0]]
    return values.tolist() if hasattr(values, "tolist") else values.to_list()


def as_array(values: Any, name: str) -> np.ndarray:
    """Make an array of an array, a tensor, nested lists, or anything else that numpy can convert.

    Raises
    ------
    ValueError, TypeError
        If lists in it differ in length. If numpy lacks the dtype of a tensor. If a part of it is masked.

    Examples
    --------
    >>> as_array([[1, 2]], "X")
    array([[1, 2]])
    """
    if np.ma.is_masked(values):
        raise TypeError(f"{name} must not be masked: fill it, and mark unlabelled pixels by ignore_label")
    try:
        if isinstance(values, torch.Tensor):
            return values.detach().cpu().numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} can't be made an array: {error}") from error


def read_named(entry: str | PathLike[str] | Image.Image, name: str, *, as_labels: bool = False) -> np.ndarray:
    """Read a file or an opened PIL image. Errors name the entry of X or y that could not be read."""
    try:
        if isinstance(entry, Image.Image):
            return pixels_of(entry, as_labels=as_labels)
        return read_image(entry, as_labels=as_labels)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def length_of(values: Any, name: str) -> int:
    """Give the number of entries, or raise a TypeError that names what has no length."""
    try:
        return len(values)
    except TypeError as error:  # of a class, or of an array without dimensions
        raise TypeError(f"{name} must be an array or a list of arrays: {error}") from error
