"""The pixel grid: neighbours and their distances.

Pixels are numbered in C order. Nothing else in the package counts the dimensions of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from numbers import Integral, Real
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from skmmcrf._shown import shown
from skmmcrf._typing import FloatArray

#: A number of neighbours, or the offsets to them.
Connectivity = int | Sequence[Sequence[int]]

# a file from a stranger must not ask for any memory or time
_MOST_OFFSETS, _LONGEST_STEP = 128, 100_000


class Edges:
    """The pairs of neighbouring pixels of all images of one shape, each counted once.

    Attributes
    ----------
    pixels : ndarray of int32 and shape (2, n_edges)
        The numbers of both pixels.
    distance_weights : ndarray of float64 and shape (n_edges,)
        d_e, one over the distance of both pixels.
    """

    def __init__(self, pixels: NDArray[np.int32], distance_weights: FloatArray) -> None:
        # shared by all images of the shape
        pixels.flags.writeable = distance_weights.flags.writeable = False
        self.pixels = pixels
        self.distance_weights = distance_weights


class Runs(NamedTuple):
    """The edges of one offset in an image, as runs of pixels whose numbers follow each other.

    Attributes
    ----------
    starts : ndarray of int64 and shape (n_runs,)
        The numbers of the first pixels of all runs.
    length : int
        Pixels of each run.
    step : int
        The number of the neighbour less that of the pixel.
    """

    starts: NDArray[np.int64]
    length: int
    step: int


@dataclass(frozen=True)
class Grid:
    """The neighbourhood of a pixel, the same everywhere.

    Parameters
    ----------
    offsets : tuple of tuple of int
        The steps to the neighbours, one of each opposite pair. Use `from_connectivity`, which checks them.
    spacing : tuple of float, optional
        The distance of neighbouring pixels along each dimension. The default is 1.

    Examples
    --------
    >>> grid = Grid.from_connectivity(4)
    >>> grid.offsets
    ((0, 1), (1, 0))
    >>> grid.edges((2, 2)).pixels
    array([[0, 2, 0, 1],
           [1, 3, 2, 3]], dtype=int32)
    """

    offsets: tuple[tuple[int, ...], ...]
    spacing: tuple[float, ...] | None = None

    @classmethod
    def from_connectivity(
        cls, connectivity: Connectivity, ndim: int = 2, spacing: Sequence[float] | None = None
    ) -> "Grid":
        """Make the grid that the parameter `connectivity` of the estimators describes.

        Parameters
        ----------
        connectivity : int, or sequence of offsets
            The number of neighbours of an inner pixel: 4 or 8 in images, 6, 18 or 26 in volumes. Or the steps to them,
            such as ``((0, 1), (1, 0), (0, 4), (4, 0))``. A step and its opposite mean the same pairs.
        ndim : int, default=2
            Dimensions of an image.
        spacing : sequence of float, optional
            The distance of neighbouring pixels along each dimension.

        Returns
        -------
        Grid

        Raises
        ------
        ValueError
            If the number of neighbours is unknown. If an offset has another number of dimensions, or means the same
            pairs as another. If the spacing is not one positive number a dimension.
        """
        if isinstance(connectivity, Integral):
            offsets = _nearest_offsets(int(connectivity), ndim)
        else:
            offsets = _checked_offsets(connectivity, ndim)  # type: ignore[arg-type]  # no number is left
        if spacing is None:
            return cls(offsets)
        if len(spacing) != ndim or not all(isinstance(s, Real) and 0 < float(s) < np.inf for s in spacing):
            raise ValueError(f"spacing must be {ndim} positive numbers, got {shown(spacing)}")
        return cls(offsets, tuple(map(float, spacing)))

    @property
    def ndim(self) -> int:
        """Dimensions of an image."""
        return len(self.offsets[0])

    @property
    def distance_weights(self) -> FloatArray:
        """d_e of the edges of each offset, one over its length, ndarray of float64 and shape (n_offsets,)."""
        return 1 / np.linalg.norm(np.array(self.offsets) * (self.spacing or 1.0), axis=1)

    def edges(self, shape: tuple[int, ...]) -> Edges:
        """Give the pairs of neighbouring pixels of an image, offset by offset.

        All images of a shape share one object, as long as anything uses it.

        Raises
        ------
        ValueError
            If the shape has another number of dimensions than the grid. If it has no pixel.
        """
        if len(shape) != self.ndim or not all(isinstance(n, Integral) and n > 0 for n in shape):
            raise ValueError(f"shape must be {self.ndim} positive integers, got {shape}")
        return _edges(self, tuple(map(int, shape)))

    def pairs(self, values: NDArray) -> Iterator[tuple[NDArray, NDArray]]:
        """Give for each offset the values of all first and of all second pixels of its edges, as views of one shape.

        Their entries in C order belong to the edges in the order of `edges`.
        """
        for offset in self.offsets:
            ends = [(max(0, -o), max(0, n - max(0, o))) for o, n in zip(offset, values.shape)]
            first = tuple(slice(begin, end) for begin, end in ends)
            second = tuple(slice(max(0, begin + o), max(0, end + o)) for (begin, end), o in zip(ends, offset))
            yield values[first], values[second]

    def runs(self, shape: tuple[int, ...]) -> list[Runs]:
        """Give the edges of each offset in an image, in the order of `edges`, without a list of them.

        Examples
        --------
        >>> Grid.from_connectivity(4).runs((2, 3))
        [Runs(starts=array([0, 3]), length=2, step=1), Runs(starts=array([0]), length=3, step=3)]
        """
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        runs = []
        for first, second in self.pairs(numbers):
            step = int(second.flat[0] - first.flat[0]) if first.size else 0
            runs.append(Runs(first[..., :1].ravel(), first.shape[-1], step))
        return runs


# those that are in use are shared, and the last few are kept for images that come one after the other
_in_use: WeakValueDictionary[tuple[Grid, tuple[int, ...]], Edges] = WeakValueDictionary()


@lru_cache(maxsize=4)
def _edges(grid: Grid, shape: tuple[int, ...]) -> Edges:
    found = _in_use.get((grid, shape))
    if found is None:
        found = _in_use[grid, shape] = _make_edges(grid, shape)
    return found


def _make_edges(grid: Grid, shape: tuple[int, ...]) -> Edges:
    pixels = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
    pairs = [(first.ravel(), second.ravel()) for first, second in grid.pairs(pixels)]
    weights = np.repeat(grid.distance_weights, [len(first) for first, _ in pairs])
    return Edges(np.stack([np.concatenate(ends) for ends in zip(*pairs)]), weights)


def _nearest_offsets(connectivity: int, ndim: int) -> tuple[tuple[int, ...], ...]:
    around = [offset for offset in product((-1, 0, 1), repeat=ndim) if offset > (0,) * ndim]
    by_number = {}
    for n_changed in range(1, ndim + 1):
        offsets = tuple(offset for offset in around if np.count_nonzero(offset) <= n_changed)
        by_number[2 * len(offsets)] = offsets
    if connectivity not in by_number:
        numbers = ", ".join(map(str, by_number))
        raise ValueError(f"connectivity must be one of {numbers}, or a sequence of offsets, got {shown(connectivity)}")
    return by_number[connectivity]


def _checked_offsets(connectivity: Sequence[Sequence[int]], ndim: int) -> tuple[tuple[int, ...], ...]:
    wanted = f"connectivity must be a number of neighbours, or offsets of {ndim} integers such as (0, 1)"
    is_array = isinstance(connectivity, np.ndarray) and connectivity.ndim > 0
    is_sequence = isinstance(connectivity, Sequence) and not isinstance(connectivity, (str, bytes))
    if not (is_array or is_sequence) or not len(connectivity):
        raise ValueError(f"{wanted}, got {shown(connectivity)}")
    if len(connectivity) > _MOST_OFFSETS:
        raise ValueError(f"connectivity must have at most {_MOST_OFFSETS} offsets, got {len(connectivity)}")
    offsets = []
    for step in connectivity:
        fits = isinstance(step, (Sequence, np.ndarray)) and len(step) == ndim
        if not (fits and all(isinstance(o, Integral) for o in step) and any(step)):
            raise ValueError(f"{wanted}, got {shown(step)} among them")
        offset = tuple(map(int, step))
        if max(map(abs, offset)) > _LONGEST_STEP:
            raise ValueError(f"connectivity must have steps of at most {_LONGEST_STEP} pixels, got {shown(step)}")
        offsets.append(offset if offset > (0,) * ndim else tuple(-o for o in offset))
    if len(set(offsets)) < len(offsets):
        raise ValueError(f"connectivity must name each pair of neighbours once, got {shown(connectivity)}")
    return tuple(offsets)
