"""Sequences of arrays: made when asked for, kept on disk, or given as results."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Mapped(Sequence):
    """A function of the entries of a sequence, computed anew each time that one is asked for.

    Parameters
    ----------
    function : callable
    values : sequence
        Anything with a length and entries by number.

    Examples
    --------
    >>> list(Mapped(abs, [-1, 2]))
    [1, 2]
    """

    def __init__(self, function: Callable[[Any], Any], values: Any) -> None:
        self.function = function
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, n: Any) -> Any:
        if not 0 <= n < len(self):
            raise IndexError(n)
        return self.function(self.values[n])


class OnDemand(Mapped):
    """Values that are computed anew each time, and whose parts are of this kind too.

    Slices and lists of numbers give parts, as with an array of one dimension. It has a shape, by which functions such
    as `sklearn.model_selection.train_test_split` give parts.

    Examples
    --------
    >>> values = OnDemand(abs, [-1, 2, -3])
    >>> values[-1], list(values[[2, 0]])
    (3, [3, 1])
    """

    @property
    def shape(self) -> tuple[int]:
        """The number of values, in a tuple."""
        return (len(self),)

    def __getitem__(self, key: Any) -> Any:
        numbers = np.arange(len(self))[key]
        if numbers.ndim == 0:
            return self.function(self.values[numbers])
        return OnDemand(self.function, [self.values[n] for n in numbers])


class ArraysOnDisk(Sequence):
    """Arrays of one dtype in a temporary file, each read when it is asked for.

    Parameters
    ----------
    dtype : dtype

    Examples
    --------
    >>> import numpy as np
    >>> arrays = ArraysOnDisk(np.float32)
    >>> arrays.append(np.eye(2, dtype=np.float32))
    >>> arrays[0]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._folder = tempfile.mkdtemp(prefix="skmmcrf-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._file = Path(self._folder) / "arrays"
        self._shapes: list[tuple[int, ...]] = []
        self._offsets = [0]

    def append(self, array: np.ndarray) -> None:
        """Write an array behind the others."""
        with self._file.open("ab") as file:
            np.ascontiguousarray(array, self.dtype).tofile(file)
        self._shapes.append(array.shape)
        self._offsets.append(self._offsets[-1] + array.size * self.dtype.itemsize)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, n: Any) -> Any:
        shape = self._shapes[n]
        count = int(np.prod(shape))
        return np.fromfile(self._file, self.dtype, count, offset=self._offsets[n]).reshape(shape)


class ImageList(list):
    """Results for a list of images: a list that converts to one array, of objects if sizes differ.

    numpy's functions take it if sizes are equal. `sklearn.model_selection.cross_val_predict` can join the results of
    its folds in any case. Comparing the list with a number compares each result.

    Examples
    --------
    >>> import numpy as np
    >>> np.array(ImageList([np.zeros((2, 3)), np.zeros((2, 3))])).shape
    (2, 2, 3)
    >>> np.concatenate([ImageList([np.zeros((2, 3))]), ImageList([np.zeros((4, 5))])]).shape
    (2,)
    """

    def __eq__(self, other: object) -> Any:
        # as users compare arrays; a list that equals a number is of no use
        return ImageList(result == other for result in self) if isinstance(other, Number) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return ImageList(result != other for result in self) if isinstance(other, Number) else super().__ne__(other)

    __hash__ = None  # type: ignore[assignment]  # as lists

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if len({np.shape(result) for result in self}) == 1:
            return np.stack(self).astype(dtype, copy=False)
        array = np.empty(len(self), dtype=object)
        for n, result in enumerate(self):  # at once, numpy would look into them
            array[n] = result
        return array

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.concatenate and len(args) == 1 and not kwargs:
            return np.asarray(ImageList(chain.from_iterable(args[0])))
        return function(*map(_as_arrays, args), **{name: _as_arrays(value) for name, value in kwargs.items()})


def _as_arrays(value: Any) -> Any:
    """The argument of a function of numpy, with arrays for lists of images."""
    if isinstance(value, ImageList):
        return np.asarray(value)
    return type(value)(map(_as_arrays, value)) if type(value) in (list, tuple) else value
