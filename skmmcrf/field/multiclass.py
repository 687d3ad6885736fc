"""The energy of an image for several labels: psi, and labelings of low energy, by expansion moves.

A labeling is an array of uint8, of labels 0 to K - 1. One score a label and pixel gives the unary term (3).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import BoolArray, FloatArray, LabelArray
from skmmcrf.field.base_energy import BaseEnergy
from skmmcrf.field.dual_bound import Bound, bound_by_dual
from skmmcrf.field.expansion import LabelingProblem, Star, expand, least_unary
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.moves import CutMoves, GridMoves, Moves


class MulticlassEnergy(BaseEnergy):
    """The energy of the labelings of one image by K labels.

    Its labelings of low energy are those that no expansion move improves, see `skmmcrf.field.expansion`. They need not
    be of least energy unless K is 2. `bound` says how far they may be from it.

    Parameters
    ----------
    unary : ndarray of float and shape (K, H, W), or callable
        s, whose softmax over K gives the probabilities of the labels, or a function that reads them on every access.
    pairwise : PairwiseFeatures

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image.
    n_labels : int
        K.
    pairwise : PairwiseFeatures

    Raises
    ------
    LogOddsError
        If scores are not finite, or larger than `LARGEST_LOG_ODDS` in size.
    ValueError
        If K is not between 2 and 255.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
    >>> scores = np.array([[[4.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 4.0]]])
    >>> energy = field.energy(scores, np.zeros((1, 3, 1)))
    >>> energy.least(np.array([1.0, 0.3]))
    array([[0, 1, 2]], dtype=uint8)
    >>> energy.bound(np.array([1.0, 2.0]))
    Bound(labels=array([[0, 0, 2]], dtype=uint8), gap=0.0)
    """

    name, dtype = "scores", np.dtype(np.uint8)

    @property
    def scores(self) -> FloatArray:
        """q, ndarray of float and shape (K, H, W)."""
        return self.unary

    def unary_difference(self, labels: LabelArray, truth: LabelArray) -> float:
        """Give the first entry of psi(y) - psi(y_n), sum_i q_i(y_n,i) - q_i(y_i), which needs no features."""
        self._check_labelings(labels=labels, truth=truth)
        return _unary_difference(self.scores, labels, truth)

    def unary_differences(self, labelings: LabelArray, truth: LabelArray) -> FloatArray:
        """Give the first entries of psi(y) - psi(y_n) of many labelings (n, H, W), (n,)."""
        scores = self.scores
        return np.array([_unary_difference(scores, labels, truth) for labels in labelings])

    def change(self, labels: LabelArray, truth: LabelArray) -> NDArray[np.int8]:
        """Give [y = c] - [y_n = c], the derivative of the first entry of psi(y_n) - psi(y), of int8 and (K, H, W)."""
        classes = np.arange(self.n_labels).reshape(-1, *[1] * len(self.shape))
        return np.subtract(labels == classes, truth == classes, dtype=np.int8)

    def least(self, w: FloatArray) -> NDArray[np.uint8]:
        """Give a labeling of low energy, (5), ndarray of uint8 and shape (H, W).

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
        problem = self._problem(w)
        return expand(problem, least_unary(problem))

    def most_violated(self, w: FloatArray, annotation: Annotation) -> NDArray[np.uint8]:
        """Give a labeling of low energy less its loss: a constraint of (8) that w violates much.

        The loss is the Hamming distance, weighted by the pixel weights of the annotation. Moves begin at the truth,
        from which there are fewer and quicker ones to make than from the labels of least unary cost.
        """
        return expand(self._problem(w, annotation), annotation.truth)

    def completion(self, w: FloatArray, annotation: Annotation) -> LabelArray:
        """Give a labeling of low energy among all that have the true labels where these are known.

        It is the truth itself if none is found that has less energy.
        """
        problem, known, truth = self._problem(w), annotation.labelled, annotation.truth
        labels = expand(problem, np.where(known, truth, least_unary(problem)), known)
        return labels if self.difference(labels, truth) @ w < 0 else truth

    def bound(self, w: FloatArray, annotation: Annotation | None = None, n_rounds: int = 10) -> Bound:
        """Give the labeling of `least`, or a better one, and bound how far it is from one of least energy.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            See `least`.
        annotation : Annotation, optional
            With it, the labeling is that of `most_violated`, and the energy is less the loss.
        n_rounds : int, default=10
            Each takes K cuts, and may narrow the gap.

        Returns
        -------
        Bound
            The labels, ndarray of uint8 and shape (H, W), and the gap.
        """
        energy = self.in_memory()
        labels = energy.least(w) if annotation is None else energy.most_violated(w, annotation)
        return Bound(labels, 0.0) if self.is_exact else bound_by_dual(energy._problem(w, annotation), labels, n_rounds)

    def optimality_gap(self, w: FloatArray, n_rounds: int = 10) -> float:
        """Give by how much the energy of the labeling of `least` may exceed the least energy. 0 if it is proved least.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            See `least`.
        n_rounds : int, default=10
            Each takes K cuts, and may narrow the gap.
        """
        if self.is_exact:
            return super().optimality_gap(w)
        problem = self._problem(w)
        labels = expand(problem, least_unary(problem))
        bound = bound_by_dual(problem, labels, n_rounds)
        return bound.gap + max(problem.energy(labels) - problem.energy(bound.labels), 0.0)

    def _problem(self, w: FloatArray, annotation: Annotation | None = None) -> LabelingProblem:
        """Give the problem of least energy, or of least energy less the loss."""
        self.weights.check(w)
        energy = self.in_memory()  # the features serve many cuts
        unary = partial(_unary, -w[0], energy.scores)
        if annotation is not None:
            unary = partial(_unary_less_loss, unary, annotation.truth, annotation.pixel_weights)

        def edge_costs(labels: LabelArray, other: LabelArray) -> float:
            return float(energy._sums(labels, other) @ w[1:])

        # the most that edges cost, which is what they cost if a term has one weight
        most = energy._cut_of_edges(self.weights.matrices(w).max(axis=(1, 2)))
        if self.weights.n_pairs == 1 and isinstance(most, GridCut):
            moves: Moves = GridMoves(most)
        else:
            moves = CutMoves(most.at_pixels(), partial(energy._cut_of_move, w), edge_costs)
        return LabelingProblem(self.shape, self.n_labels, unary, edge_costs, moves, partial(energy._star, w))

    def _cut_of_move(self, w: FloatArray, labels: LabelArray, label: int, changes: FloatArray) -> GridCut | ListedCut:
        """Give the cut of a move from labels to one label, whose unary costs change so."""
        cut, matrices = self._empty_cut(), self.weights.matrices(w)
        cut.terminal[...] = changes
        for block in self._blocks():
            block.add_moves_to(cut, matrices, labels, label)
        return cut

    def _star(self, w: FloatArray) -> Star:
        """Give the costs of edges as costs of both labels."""
        return self._star_of(np.tile(w[1:] / 2, (self.n_labels, 1)), lambda labels: 0.0)

    def _star_of(self, shares: FloatArray, loss: Callable[[LabelArray], float]) -> Star:
        """Give a star from one weight a label and term, (K, n_terms)."""

        def edge_costs(label: int, has_label: BoolArray) -> float:
            return float(self._sums_of_cut(has_label, np.zeros_like(has_label)) @ shares[label])

        return Star(lambda label: self._cut_of_edges(shares[label]), edge_costs, loss)

    def _labels_and_shape(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        if not 2 <= shape[0] <= UNLABELLED:
            raise ValueError(f"scores must be of 2 to {UNLABELLED} labels, got shape {shape}")
        return shape[0], shape[1:]

    def _negative_log_likelihood(self, labels: LabelArray) -> float:
        scores = self.scores
        of_labels = np.take_along_axis(scores, labels[np.newaxis].astype(np.intp), axis=0)
        return (np.logaddexp.reduce(scores, axis=0, dtype=float) - of_labels).sum(dtype=float)


def _unary(factor: float, scores: FloatArray, label: int) -> FloatArray:
    return np.multiply(scores[label], factor, dtype=float)


def _unary_less_loss(
    unary: "partial[FloatArray]", truth: LabelArray, pixel_weights: FloatArray, label: int
) -> FloatArray:
    return unary(label) - np.where(truth == label, 0.0, pixel_weights)


def _unary_difference(scores: FloatArray, labels: LabelArray, truth: LabelArray) -> float:
    pixels = np.nonzero(labels != truth)
    # pixel by pixel, so that what all scores of a pixel have in common cancels
    return (scores[(truth[pixels], *pixels)].astype(float) - scores[(labels[pixels], *pixels)]).sum(dtype=float)
