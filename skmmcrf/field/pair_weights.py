"""The weights of pairwise terms, of which a term has one, or one for each pair of labels."""

from dataclasses import dataclass

import numpy as np

from skmmcrf._typing import FloatArray, IntArray

#: The names that the parameter `compatibility` of the estimators takes.
COMPATIBILITIES = ("potts", "metric")

# relative to the largest weight
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PairWeights:
    """What the entries of w mean: first the unary weight, then the weights of the terms, one after the other.

    Parameters
    ----------
    n_terms : int
    n_labels : int
        K.
    compatibility : {"potts", "metric"}, default="potts"
        "potts": a term has one weight, for all pairs of different labels. "metric": a term has one weight for each pair
        of labels, in the order (0, 1), (0, 2), ..., (K - 2, K - 1). No weight w_ab exceeds the sum w_ac + w_cb by way
        of another label.

    Examples
    --------
    >>> import numpy as np
    >>> weights = PairWeights(n_terms=1, n_labels=3, compatibility="metric")
    >>> weights.matrices(np.array([1.0, 0.1, 0.2, 0.3]))
    array([[[0. , 0.1, 0.2],
            [0.1, 0. , 0.3],
            [0.2, 0.3, 0. ]]])
    >>> weights.closed(np.array([1.0, 0.1, 0.2, 0.5]))
    array([1. , 0.1, 0.2, 0.3])
    """

    n_terms: int
    n_labels: int
    compatibility: str = "potts"

    @property
    def n_pairs(self) -> int:
        """The number of weights that a term has."""
        return self.n_labels * (self.n_labels - 1) // 2 if self.compatibility == "metric" else 1

    @property
    def n_weights(self) -> int:
        """Entries of w."""
        return 1 + self.n_terms * self.n_pairs

    @property
    def scale(self) -> FloatArray:
        """Factors of w whose product has the norm of (8), which takes the mean of squares over the pairs of a term.

        Weights that are the same for all pairs then have the norm of one weight for all pairs.
        """
        return np.append(1.0, np.full(self.n_weights - 1, self.n_pairs**-0.5))

    @property
    def pairs(self) -> IntArray:
        """The number of each pair of labels among the weights of a term, (K, K), and `n_pairs` for equal labels."""
        pairs = np.full((self.n_labels, self.n_labels), self.n_pairs)
        one, other = np.triu_indices(self.n_labels, 1)
        pairs[one, other] = pairs[other, one] = np.arange(len(one)) if self.compatibility == "metric" else 0
        return pairs

    def matrices(self, w: FloatArray) -> FloatArray:
        """Give the weights of pairs of labels as symmetric matrices, ndarray of shape (n_terms, K, K)."""
        of_terms = np.reshape(w[1:], (self.n_terms, self.n_pairs))
        return np.pad(of_terms, ((0, 0), (0, 1)))[:, self.pairs]

    def closed(self, w: FloatArray) -> FloatArray:
        """Give weights that are allowed: pairwise ones not negative, and no larger than by way of other labels."""
        w = np.append(w[0], np.maximum(w[1:], 0))
        if not self._has_triangles:
            return w
        costs = self.matrices(w)
        while True:  # until no path is shorter, of twice as many steps each time
            before, costs = costs, (costs[:, :, :, np.newaxis] + costs[:, np.newaxis]).min(axis=2)
            if np.array_equal(costs, before):
                return np.append(w[0], costs[:, *np.triu_indices(self.n_labels, 1)])

    def check(self, w: FloatArray) -> None:
        """Raise a ValueError if weights are not allowed."""
        if w.shape != (self.n_weights,):
            raise ValueError(f"w must be of shape ({self.n_weights},), got {w.shape}")
        if not np.isfinite(w).all():
            raise ValueError(f"w must be finite, got {w}")
        if np.any(w[1:] < 0):
            raise ValueError(f"pairwise weights must not be negative, got {w[1:]}")
        if self._has_triangles and len(self.triangles(w, -_ROUNDING * w[1:].max(initial=0.0))):
            raise ValueError(
                "the weight of a pair of labels must not exceed the sum of weights by way of a third label, got "
                f"{w[1:]}: PairWeights.closed gives weights that do not"
            )

    def signs(self) -> FloatArray:
        """Give the rows whose products with w are the pairwise weights, (n_weights - 1, n_weights)."""
        return np.eye(self.n_weights)[1:]

    def triangles(self, w: FloatArray, most: float) -> FloatArray:
        """Give the rows of the inequalities w_ac + w_cb - w_ab >= 0 whose left side at w is below a number.

        Returns
        -------
        ndarray of shape (n_rows, n_weights)
            The product of a row and w is the left side.
        """
        if not self._has_triangles:
            return np.empty((0, self.n_weights))
        costs = self.matrices(w)
        excess = costs[:, :, :, np.newaxis] + costs[:, np.newaxis] - costs[:, :, np.newaxis]  # of term, a, c and b
        term, a, c, b = np.nonzero(excess < most)
        is_triangle = (a < b) & (a != c) & (b != c)
        term, a, c, b = (each[is_triangle] for each in (term, a, c, b))
        rows, pairs, first = np.zeros((len(term), self.n_weights)), self.pairs, 1 + term * self.n_pairs
        for sign, (one, other) in ((1, (a, c)), (1, (c, b)), (-1, (a, b))):
            rows[np.arange(len(term)), first + pairs[one, other]] = sign
        return rows

    @property
    def _has_triangles(self) -> bool:
        return self.n_pairs > 1
