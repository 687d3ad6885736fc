"""What energies of two labels and of several have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np

import skmmcrf.field.grid_cut as grid_cut
from skmmcrf._typing import FloatArray, LabelArray
from skmmcrf.field.blocks import Block
from skmmcrf.field.features import PairwiseFeatures, Source, read
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.labels import Annotation
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.pair_weights import PairWeights

# of an image that is cut in float64
_MOST_PIXELS_DOUBLE = 2**20

#: Larger log-odds would leave the pairwise terms, which are of the size of 1, no digits.
LARGEST_LOG_ODDS = 1e6


class LogOddsError(ValueError):
    """Log-odds or scores are not finite, or too large."""


class BaseEnergy(ABC):
    """The energy of the labelings of one image, E(y) = w . psi(y).

    Parameters
    ----------
    unary : ndarray of float, or callable
        What a network says of the pixels, or a function that reads it on every access.
    pairwise : PairwiseFeatures

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image.
    n_labels : int
    n_weights : int
        Entries of w.
    pairwise : PairwiseFeatures
    """

    #: How errors call the unary values.
    name: ClassVar[str]
    #: Of labelings.
    dtype: ClassVar[np.dtype[Any]]

    def __init__(self, unary: Source, pairwise: PairwiseFeatures) -> None:
        values = read(unary)
        largest = float(np.abs(values).max(initial=0.0))  # float16 has no number as large as the bound
        if not largest <= LARGEST_LOG_ODDS:
            raise LogOddsError(
                f"{self.name} must be finite and within -{LARGEST_LOG_ODDS:g} and {LARGEST_LOG_ODDS:g}, got {largest:g}"
            )
        self.n_labels, self.shape = self._labels_and_shape(values.shape)
        self.pairwise = pairwise
        self._unary = unary

    @property
    def weights(self) -> PairWeights:
        """What the entries of w mean, and which w are allowed."""
        return PairWeights(len(self.pairwise.terms), self.n_labels)

    @property
    def n_weights(self) -> int:
        """Entries of w: one for the unary term, and those of each pairwise term."""
        return self.weights.n_weights

    @property
    def is_exact(self) -> bool:
        """Whether labelings are proved to be those of least energy, as cuts for two labels are."""
        return self.n_labels == 2

    @property
    def unary(self) -> FloatArray:
        """What a network says of the pixels."""
        return read(self._unary)

    def with_unary(self, unary: Source) -> Self:
        """Give the energy of the same image under other unary values. Both share edges and features."""
        return type(self)(unary, self.pairwise)

    def in_memory(self) -> Self:
        """Give the same energy with unary values and features in memory, so that they are kept while in use."""
        pairwise = self.pairwise.in_memory()
        shared = pairwise is self.pairwise and not callable(self._unary)
        return self if shared else type(self)(self.unary, pairwise)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_unary": self.unary}

    def psi(self, labels: LabelArray) -> FloatArray:
        """Give the vector psi(y) of the energy w . psi(y), (2).

        Parameters
        ----------
        labels : ndarray of shape (H, W)
            y, of bool for two labels, of uint8 for several.

        Returns
        -------
        ndarray of float64 and shape (n_weights,)
            The sum of -log Phi_i(y_i), (3), and for each term the sum over the edges whose labels differ.
        """
        self._check_labelings(labels=labels)
        return np.array([self._negative_log_likelihood(labels), *self._sums(labels, np.zeros_like(labels))])

    def difference(self, labels: LabelArray, truth: LabelArray) -> FloatArray:
        """Give psi(y) - psi(y_n) of two labelings (H, W), without cancellation in the unary sum."""
        unary = self.unary_difference(labels, truth)
        return np.array([unary, *self._sums(labels, truth)])

    @abstractmethod
    def unary_difference(self, labels: LabelArray, truth: LabelArray) -> float:
        """Give the first entry of psi(y) - psi(y_n), which needs no features."""

    @abstractmethod
    def unary_differences(self, labelings: LabelArray, truth: LabelArray) -> FloatArray:
        """Give the first entries of psi(y) - psi(y_n) of many labelings (n, H, W), (n,)."""

    @abstractmethod
    def change(self, labels: LabelArray, truth: LabelArray) -> np.ndarray:
        """Give the derivative of the first entry of psi(y_n) - psi(y) in the unary values, of int8 and their shape."""

    @abstractmethod
    def least(self, w: FloatArray) -> LabelArray:
        """Give a labeling of least energy, (5), ndarray of shape (H, W)."""

    def optimality_gap(self, w: FloatArray, n_rounds: int = 10) -> float:
        """Give by how much the energy of the labeling of `least` may exceed the least energy. 0 if it is proved least.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            See `least`.
        n_rounds : int, default=10
            For more than two labels. Each takes a cut a label, and may narrow the gap.
        """
        self.weights.check(w)
        return 0.0

    @abstractmethod
    def most_violated(self, w: FloatArray, annotation: Annotation) -> LabelArray:
        """Give a labeling of least energy less its loss: the constraint of (8) that w violates most."""

    @abstractmethod
    def completion(self, w: FloatArray, annotation: Annotation) -> LabelArray:
        """Give a labeling of least energy among all that have the true labels where these are known."""

    @abstractmethod
    def _labels_and_shape(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Give the number of labels and the shape of the image from the shape of the unary values."""

    @abstractmethod
    def _negative_log_likelihood(self, labels: LabelArray) -> float:
        """Give the sum of -log Phi_i(y_i)."""

    def _cut_of_edges(self, weights: FloatArray) -> GridCut | ListedCut:
        """Give a cut with the costs of the edges by one weight a term. Unary costs are to be set before it is made."""
        cut = self._empty_cut()
        for block in self._blocks():
            block.add_to(cut, weights)
        return cut

    def _empty_cut(self) -> GridCut | ListedCut:
        """Give a cut without edges."""
        dtype = np.float64 if math.prod(self.shape) <= _MOST_PIXELS_DOUBLE else np.float32
        make_cut = GridCut if grid_cut.available() else ListedCut
        return make_cut(self.shape, self.pairwise.grid.offsets, dtype)

    def _sums(self, labels: LabelArray, other: LabelArray) -> FloatArray:
        """Give the entries of psi of the terms, of labels less those of others."""
        return self._sums_of_cut(labels, other)

    def _sums_of_cut(self, labels: LabelArray, other: LabelArray) -> FloatArray:
        """Sum the features over the edges that labels cut, less those that others cut, (n_terms,)."""
        codes = labels.astype(np.uint8, copy=False), other.astype(np.uint8, copy=False)
        return sum((block.sums(*codes) for block in self._blocks()), np.zeros(len(self.pairwise.terms)))

    def _blocks(self) -> Iterable[Block]:
        shape, blocks = self.pairwise.blocks()
        if shape != self.shape:
            raise ValueError(f"{self.name} must have the size of their image, {shape}, got {self.shape}")
        return blocks

    def _check_labelings(self, **labelings: LabelArray) -> None:
        # numpy would broadcast other shapes, and take integers for numbers of pixels
        for name, labels in labelings.items():
            if labels.dtype != self.dtype or labels.shape != self.shape:
                raise ValueError(
                    f"{name} must be of {self.dtype} and the shape of {self.name}, {self.shape}, got "
                    f"{labels.dtype} and {labels.shape}"
                )
