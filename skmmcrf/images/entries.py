"""What users give as a set of images or labels: its entries, and arrays made of them."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse

from skmmcrf.images.files import read_image


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
    if length_of(values, name) == 0:
        raise ValueError(f"{name} is empty; at least one image is needed")
    in_memory = isinstance(values, (np.ndarray, torch.Tensor)) or (
        isinstance(values, (list, tuple)) and not any(isinstance(value, (str, PathLike)) for value in values)
    )
    return values, not in_memory


def as_array(values: Any, name: str) -> np.ndarray:
    """Make an array of an array, a tensor, nested lists, or whatever else numpy makes an array of.

    Raises
    ------
    ValueError, TypeError
        If lists in it are of unequal lengths, numpy lacks the dtype of a tensor, or a part of it is masked.

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


def read_named(file: str | PathLike[str], name: str, *, palette: bool = False) -> np.ndarray:
    """Read an image file, or raise an error that tells which entry of X or y could not be read."""
    try:
        return read_image(file, palette=palette)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def length_of(values: Any, name: str) -> int:
    """Give the number of entries; a TypeError names what has none."""
    try:
        return len(values)
    except TypeError as error:  # of a class, or of an array without dimensions
        raise TypeError(f"{name} must be an array or a list of arrays: {error}") from error
