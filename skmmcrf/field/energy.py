"""The energy of an image, E(y) = w . psi(y), (2): psi, and the labelings that minimise it.

A labeling is an array of bool, True in the foreground. One log-odds a pixel gives the unary term (3) of both labels.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from joblib import delayed, effective_n_jobs
from numpy.typing import NDArray

import skmmcrf.field.grid_cut as grid_cut
from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.field.blocks import Block, make_blocks
from skmmcrf.field.grid import Grid
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.labels import Annotation
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.parametric_cut import critical_shifts
from skmmcrf.field.terms import Term
from skmmcrf.field.workers import workers

#: An array, or a function that reads it each time that it is needed.
Source: TypeAlias = np.ndarray | Callable[[], np.ndarray]

# of the images whose features are kept at once, which take 16 bytes a pixel with 8 neighbours
_MOST_PIXELS_KEPT = 2**24

# of an image that is cut in float64
_MOST_PIXELS_DOUBLE = 2**20

_TOL_OF_SMOOTHED = 1e-3

#: Larger log-odds would leave the pairwise terms, which are of the size of 1, no digits.
LARGEST_LOG_ODDS = 1e6


class LogOddsError(ValueError):
    """Log-odds are not finite, or too large."""


@dataclass(frozen=True)
class Field:
    """A conditional random field: the neighbours of a pixel, and the pairwise terms.

    Parameters
    ----------
    grid : Grid
    terms : tuple of Term
        The pairwise terms, as `skmmcrf.field.build_terms` makes them.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.array([[3.0, -1.0, 1.0]]), np.zeros((1, 3, 1)))
    >>> energy.least(np.array([1.0, 0.3, 0.3]))
    array([[ True,  True,  True]])
    """

    grid: Grid
    terms: tuple[Term, ...]

    @property
    def n_weights(self) -> int:
        """Entries of w: one for the unary term, and one for each pairwise term."""
        return 1 + len(self.terms)

    def energy(self, log_odds: FloatArray, image: np.ndarray) -> "Energy":
        """Make the energy of an image (H, W, channels) from its log-odds (H, W)."""
        return Energy(log_odds, PairwiseFeatures(self, image))

    def energies(self, log_odds: Sequence[FloatArray], images: Sequence[np.ndarray]) -> list["Energy"]:
        """Make the energies of many images, whose features are kept unless they are too large.

        Parameters
        ----------
        log_odds, images : list of ndarray of shape (H, W) and (H, W, channels), or other sequences
            The entries of a sequence that is not a list are read on every access.
        """
        few = isinstance(images, list) and sum(image[..., 0].size for image in images) <= _MOST_PIXELS_KEPT
        features = [PairwiseFeatures(self, image) for image in sources(images, in_memory=few)]
        return [Energy(l, pairwise) for l, pairwise in zip(sources(log_odds), features, strict=True)]


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
    field : Field
    image : ndarray of shape (H, W, channels), or callable
        An image of a dtype that `skmmcrf.field.terms.scale_image` takes. Its features are kept. If it is a function
        that reads the image, features are made anew each time, so that any number of images fits into memory.

    Attributes
    ----------
    field : Field
    """

    def __init__(self, field: Field, image: Source) -> None:
        self.field = field
        self._image = image
        self._kept: tuple[tuple[int, ...], tuple[Block, ...]] | None = None

    def compute(self) -> Features:
        """Give the features of all edges."""
        shape, blocks = self.blocks()
        rows = [np.empty((len(self.field.terms), 0)), *(block.features() for block in blocks)]
        return Features(shape, self.field.grid.edges(shape).pixels, tuple(np.concatenate(rows, axis=1)))

    def blocks(self) -> tuple[tuple[int, ...], Iterable[Block]]:
        """Give the shape of the image, and the features of its edges in the order of `Grid.edges`, in blocks."""
        if self._kept is not None:
            return self._kept
        image = _read(self._image)
        shape, blocks = image.shape[:-1], make_blocks(self.field.grid, self.field.terms, image)
        if callable(self._image):
            return shape, blocks
        self._kept = shape, tuple(blocks)
        return self._kept

    def in_memory(self) -> "PairwiseFeatures":
        """Give the same features with the image in memory, so that they are kept while in use."""
        return PairwiseFeatures(self.field, _read(self._image)) if callable(self._image) else self

    def __getstate__(self) -> dict[str, object]:
        # features are larger than their image, and made again sooner than they would be handed to another process
        return {"field": self.field, "_image": _read(self._image), "_kept": None}


class Energy:
    """The energy of the labelings of one image.

    Parameters
    ----------
    log_odds : ndarray of float and shape (H, W), or callable
        l, the log-odds of foreground, or a function that reads them on every access.
    pairwise : PairwiseFeatures

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image.
    pairwise : PairwiseFeatures

    Raises
    ------
    LogOddsError
        If log-odds are not finite, or larger than `LARGEST_LOG_ODDS` in size.

    Examples
    --------
    See `Field`.
    """

    def __init__(self, log_odds: Source, pairwise: PairwiseFeatures) -> None:
        values = _read(log_odds)
        largest = float(np.abs(values).max(initial=0.0))  # float16 has no number as large as the bound
        if not largest <= LARGEST_LOG_ODDS:
            raise LogOddsError(
                f"log_odds must be finite and within -{LARGEST_LOG_ODDS:g} and {LARGEST_LOG_ODDS:g}, got {largest:g}"
            )
        self.shape = values.shape
        self.pairwise = pairwise
        self._log_odds = log_odds

    @property
    def log_odds(self) -> FloatArray:
        """l, ndarray of float and shape (H, W)."""
        return _read(self._log_odds)

    def with_log_odds(self, log_odds: Source) -> "Energy":
        """Give the energy of the same image under other log-odds. Both share edges and features."""
        return Energy(log_odds, self.pairwise)

    def in_memory(self) -> "Energy":
        """Give the same energy with log-odds and features in memory, so that they are kept while in use."""
        pairwise = self.pairwise.in_memory()
        shared = pairwise is self.pairwise and not callable(self._log_odds)
        return self if shared else Energy(self.log_odds, pairwise)

    def __getstate__(self) -> dict[str, object]:
        return {"shape": self.shape, "pairwise": self.pairwise, "_log_odds": self.log_odds}

    def psi(self, labels: BoolArray) -> FloatArray:
        """Give the vector psi(y) of the energy w . psi(y), (2).

        Parameters
        ----------
        labels : ndarray of bool and shape (H, W)
            y.

        Returns
        -------
        ndarray of float64 and shape (n_weights,)
            The sum of -log Phi_i(y_i), (3), and for each term the sum over the edges whose labels differ.
        """
        self._check_labelings(labels=labels)
        # -log sigmoid(l) = log(1 + exp(-l)), without passing through the probability
        unary = np.logaddexp(0, np.where(labels, -1.0, 1.0) * self.log_odds).sum(dtype=float)
        return np.array([unary, *self._sums(labels.astype(np.uint8))])

    def difference(self, labels: BoolArray, truth: BoolArray) -> FloatArray:
        """Give psi(y) - psi(y_n) of two labelings (H, W) of bool, without cancellation in the unary sum."""
        unary = self.unary_difference(labels, truth)
        return np.array([unary, *self._sums(labels + np.uint8(2) * truth)])

    def unary_difference(self, labels: BoolArray, truth: BoolArray) -> float:
        """Give the first entry of psi(y) - psi(y_n), sum_i l_i (y_n,i - y_i), which needs no features."""
        self._check_labelings(labels=labels, truth=truth)
        log_odds = self.log_odds
        return log_odds[truth & ~labels].sum(dtype=float) - log_odds[labels & ~truth].sum(dtype=float)

    def least(self, w: FloatArray) -> BoolArray:
        """Give the labeling of least energy, (5), ndarray of bool and shape (H, W).

        For images of more than about a million pixels, the energy is rounded to float32.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            Weights. All but the first are pairwise, and must not be negative.

        Raises
        ------
        ValueError
            If w has another length. If a pairwise weight is negative.
        """
        return self._cut(w).labels()

    def smoothed_log_odds(self, w: FloatArray) -> NDArray[np.float32]:
        """Give the log-odds, smoothed so that their signs are the labels of `least`.

        The value u_i of a pixel is by how much all log-odds of the image would have to fall for the least labeling to
        give it background, or if it is negative, to rise for it to give foreground.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            See `least`. The first must be positive.

        Returns
        -------
        ndarray of float32 and shape (H, W)
            u, positive where `least` gives foreground. Each is exact within 0.001, up to rounding.

        Raises
        ------
        ValueError
            See `least`. If the first weight is not positive.

        Notes
        -----
        With the costs of edges v_e >= 0, u minimises ``sum_i (u_i - l_i)^2 / 2 + sum_e v_e |u_i - u_j| / w1``. This is
        a total variation: its level sets are the labelings of least energy for all shifts, see
        `skmmcrf.field.parametric_cut.critical_shifts`.

        ``w1 |u_i|`` is a lower bound of the min-marginal, which is the energy that changing the label of pixel i costs
        if the other pixels adapt. If i keeps foreground while all log-odds fall by t, it does so while l_i alone falls
        by t, because the other log-odds are then larger, and least labelings only gain foreground with them. So to
        change it costs at least w1 t. The same holds for background.

        Examples
        --------
        >>> import numpy as np
        >>> from skmmcrf.field import Field, Grid, build_terms
        >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
        >>> energy = field.energy(np.array([[3.0, -1.0, 2.0, -5.0]]), np.zeros((1, 4, 1)))
        >>> energy.smoothed_log_odds(np.array([1.0, 2.0])).round(2)
        array([[ 1. ,  0.5,  0.5, -3. ]], dtype=float32)
        """
        cut = self._cut(w)
        if not w[0] > 0:
            raise ValueError(f"w[0], the weight of the log-odds, must be positive, got {w[0]:g}")
        labels, shifts = critical_shifts(cut, _TOL_OF_SMOOTHED * w[0])
        smoothed = (shifts / w[0]).astype(np.float32)
        # rounding must not change a sign
        return np.where(labels, np.maximum(smoothed, np.finfo(np.float32).tiny), np.minimum(smoothed, 0))

    def most_violated(self, w: FloatArray, annotation: Annotation) -> BoolArray:
        """Give the labeling of least energy less its loss: the constraint of (8) that w violates most.

        The loss is the Hamming distance, weighted by the pixel weights of the annotation.
        """
        cut = self._cut(w)
        cut.terminal -= annotation.margin
        return cut.labels()

    def completion(self, w: FloatArray, annotation: Annotation) -> BoolArray:
        """Give the labeling of least energy among all that have the true labels where these are known."""
        cut, known, truth = self._cut(w), annotation.labelled, annotation.truth
        cut.fold(known, truth)
        return np.where(known, truth, cut.labels())

    def _cut(self, w: FloatArray) -> GridCut | ListedCut:
        """Give the cut of least energy, whose unary costs and edges may be changed before it is made."""
        self._check_weights(w)
        dtype = np.float64 if math.prod(self.shape) <= _MOST_PIXELS_DOUBLE else np.float32
        make_cut = GridCut if grid_cut.available() else ListedCut
        cut = make_cut(self.shape, self.pairwise.field.grid.offsets, dtype)
        # -log Phi(1) + log Phi(0) = -l
        np.multiply(self.log_odds, -w[0], out=cut.terminal, casting="same_kind")
        for block in self._blocks():
            block.add_to(cut, w[1:])
        return cut

    def _sums(self, codes: NDArray[np.uint8]) -> FloatArray:
        """Give the entries of psi of the terms by codes of labelings, see `Block.sums`."""
        return sum((block.sums(codes) for block in self._blocks()), np.zeros(len(self.pairwise.field.terms)))

    def _check_weights(self, w: FloatArray) -> None:
        if w.shape != (self.pairwise.field.n_weights,):
            raise ValueError(f"w must be of shape ({self.pairwise.field.n_weights},), got {w.shape}")
        if not np.isfinite(w).all():
            raise ValueError(f"w must be finite, got {w}")
        if np.any(w[1:] < 0):
            raise ValueError(f"pairwise weights must not be negative, got {w[1:]}")

    def _blocks(self) -> Iterable[Block]:
        shape, blocks = self.pairwise.blocks()
        if shape != self.shape:
            raise ValueError(f"log_odds must have the size of their image, {shape}, got {self.shape}")
        return blocks

    def _check_labelings(self, **labelings: BoolArray) -> None:
        # numpy would broadcast other shapes, and take integers for numbers of pixels
        for name, labels in labelings.items():
            if labels.dtype != bool or labels.shape != self.shape:
                raise ValueError(
                    f"{name} must be of bool and the shape of log_odds, {self.shape}, got {labels.dtype} and "
                    f"{labels.shape}"
                )


def least_labelings(
    w: FloatArray, energies: Iterable[Energy], n_jobs: int | None = None, *, overlap: bool = True
) -> Iterator[BoolArray]:
    """Give the labelings of least energy of many images, one after the other, (5).

    Parameters
    ----------
    w : ndarray of shape (n_weights,)
        See `Energy.least`.
    energies : iterable of Energy
        They are taken one by one, so they need not be in memory at once.
    n_jobs : int, optional
        The number of threads that cut side by side, as in joblib.
    overlap : bool, default=True
        Whether energies are taken while others are cut. A network on the CPU that gives them is slower then, because
        its threads wait for each other.
    """
    return _of_each(partial(Energy.least, w=w), energies, n_jobs, overlap)


def smoothed_log_odds(
    w: FloatArray, energies: Iterable[Energy], n_jobs: int | None = None, *, overlap: bool = True
) -> Iterator[NDArray[np.float32]]:
    """Give the smoothed log-odds of many images, as `least_labelings` gives their labelings."""
    return _of_each(partial(Energy.smoothed_log_odds, w=w), energies, n_jobs, overlap)


def _of_each(
    function: Callable[[Energy], Any], energies: Iterable[Energy], n_jobs: int | None, overlap: bool
) -> Iterator[Any]:
    job, energies = delayed(function), iter(energies)
    if overlap:
        yield from workers(n_jobs)(map(job, energies))
        return
    with workers(n_jobs) as parallel:
        while some := list(islice(energies, 2 * effective_n_jobs(n_jobs))):
            yield from parallel(map(job, some))


def sources(arrays: Sequence[np.ndarray], *, in_memory: bool = True) -> list[Source]:
    """Give the arrays of a list, unless they are too large. Give functions that read the entries of other sequences."""
    if in_memory and isinstance(arrays, list):
        return list(arrays)
    return [partial(arrays.__getitem__, n) for n in range(len(arrays))]


def _read(values: Source) -> np.ndarray:
    return values() if callable(values) else values
