"""The energy of an image for several labels, whose pairs differ in what it costs to have them side by side."""

import numpy as np
from scipy.optimize import linprog

from skmmcrf._typing import FloatArray, LabelArray
from skmmcrf.field.expansion import LabelingProblem, Star
from skmmcrf.field.labels import Annotation
from skmmcrf.field.multiclass import MulticlassEnergy
from skmmcrf.field.pair_weights import PairWeights

# relative to the largest weight
_ROUNDING = 1e-12


class MetricEnergy(MulticlassEnergy):
    """The energy of a `MulticlassEnergy` whose terms have one weight for each pair of labels.

    An edge with the labels a and b costs the sum of w_t,ab times the feature of each term t. The weights of a term are
    a metric: none exceeds the sum of two by way of a third label. The best expansion move is then a minimum cut.

    Parameters
    ----------
    unary : ndarray of float and shape (K, H, W), or callable
        See `MulticlassEnergy`.
    pairwise : PairwiseFeatures

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"), compatibility="metric")
    >>> scores = np.array([[[4.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 4.0]]])
    >>> energy = field.energy(scores, np.zeros((1, 3, 1)))
    >>> energy.psi(np.array([[0, 1, 2]], np.uint8)).round(2).tolist()
    [0.62, 1.0, 0.0, 1.0]
    >>> energy.least(np.array([1.0, 0.3, 2.0, 1.7]))
    array([[0, 1, 2]], dtype=uint8)
    """

    @property
    def weights(self) -> PairWeights:
        """What the entries of w mean, and which w are allowed."""
        return PairWeights(len(self.pairwise.terms), self.n_labels, "metric")

    def _problem(self, w: FloatArray, annotation: Annotation | None = None) -> LabelingProblem:
        self.weights.check(w)
        return super()._problem(self.weights.closed(w), annotation)

    def _sums(self, labels: LabelArray, other: LabelArray) -> FloatArray:
        weights = self.weights
        sums = np.zeros((weights.n_terms, weights.n_pairs + 1))
        for block in self._blocks():
            sums += block.sums_of_pairs(labels, other, weights.pairs)
        return sums[:, :-1].ravel()

    def _star(self, w: FloatArray) -> Star:
        matrices, nothing = self.weights.matrices(w), np.zeros(self.shape, np.uint8)
        shares = np.array([_star_below(matrix) for matrix in matrices]).T
        one, other = np.triu_indices(self.n_labels, 1)
        losses = w[1:] - (shares[one] + shares[other]).T.ravel()
        losses[losses <= _ROUNDING * w[1:].max()] = 0
        return self._star_of(shares, lambda labels: float(self._sums(labels, nothing) @ losses))


def _star_below(matrix: FloatArray) -> FloatArray:
    """Give numbers r of the labels with the largest sum, 0 <= r_a, r_a + r_b <= matrix_ab, (K,)."""
    one, other = np.triu_indices(len(matrix), 1)
    size = matrix.max() or 1.0
    sums = np.eye(len(matrix))[one] + np.eye(len(matrix))[other]
    found = linprog(-np.ones(len(matrix)), sums, matrix[one, other] / size).x * size
    star = np.zeros(len(matrix))
    for a, r in enumerate(found):  # which is exact but for rounding
        others = np.delete(matrix[a] - star, a)
        star[a] = max(min(r, others.min()), 0.0)
    return star
