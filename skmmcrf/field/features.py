"""The pairwise features of an image, which do not depend on what a network says of its pixels."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import numpy as np

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.field.blocks import Block, make_blocks
from skmmcrf.field.grid import Grid
from skmmcrf.field.terms import Term

#: An array, or a function that reads it each time that it is needed.
Source: TypeAlias = np.ndarray | Callable[[], np.ndarray]


class Features(NamedTuple):
    """The edges of an image, and their features, which the pairwise weights multiply.

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image.
    edges : ndarray of int32 and shape (2, n_edges)
        The numbers of both pixels.
    rows : tuple of ndarray of float64 and shape (n_edges,)
        One row of features a term.
    """

    shape: tuple[int, ...]
    edges: IntArray
    rows: tuple[FloatArray, ...]


class PairwiseFeatures:
    """The features of an image, computed when they are needed. They do not depend on the log-odds.

    Parameters
    ----------
    grid : Grid
    terms : tuple of Term
    image : ndarray of shape (H, W, channels), or callable
        An image of a dtype that `skmmcrf.field.terms.scale_image` takes. Its features are kept. If it is a function
        that reads the image, features are made anew each time, so that any number of images fits into memory.

    Attributes
    ----------
    grid : Grid
    terms : tuple of Term
    """

    def __init__(self, grid: Grid, terms: tuple[Term, ...], image: Source) -> None:
        self.grid = grid
        self.terms = terms
        self._image = image
        self._kept: tuple[tuple[int, ...], tuple[Block, ...]] | None = None

    def compute(self) -> Features:
        """Give the features of all edges."""
        shape, blocks = self.blocks()
        rows = [np.empty((len(self.terms), 0)), *(block.features() for block in blocks)]
        return Features(shape, self.grid.edges(shape).pixels, tuple(np.concatenate(rows, axis=1)))

    def blocks(self) -> tuple[tuple[int, ...], Iterable[Block]]:
        """Give the shape of the image, and the features of its edges in the order of `Grid.edges`, in blocks."""
        if self._kept is not None:
            return self._kept
        image = read(self._image)
        shape, blocks = image.shape[:-1], make_blocks(self.grid, self.terms, image)
        if callable(self._image):
            return shape, blocks
        self._kept = shape, tuple(blocks)
        return self._kept

    def in_memory(self) -> "PairwiseFeatures":
        """Give the same features with the image in memory, so that they are kept while in use."""
        return PairwiseFeatures(self.grid, self.terms, read(self._image)) if callable(self._image) else self

    def __getstate__(self) -> dict[str, object]:
        # features are larger than their image, and made again sooner than they would be handed to another process
        return {"grid": self.grid, "terms": self.terms, "_image": read(self._image), "_kept": None}


def read(values: Source) -> np.ndarray:
    """Give an array, or what a function reads."""
    return values() if callable(values) else values
