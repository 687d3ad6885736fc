"""The derivative of gamma, the optimum of (8), as the paper computes it: by a linear system.

Training uses `Example.gradient`. The linear system is the reference for tests of it. It also gives the derivatives of
w, of the slacks and of the multipliers.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.learning.example import Example
from skmmcrf.learning.program import Solution, image_shares, weights_of

# what counts as zero, relative to the size of the terms
_ZERO = 1e-9


class DegenerateProgramError(ValueError):
    """The paper's linear system is singular at this optimum of (8), or proves no derivative."""


class LinearSystem:
    """The paper's linear system, (11)-(15) and (22)-(24): the optimality conditions of (8), differentiated.

    Let F be the weights that are not held at zero at the optimum. Let the active constraints of image n be those with a
    positive multiplier, where xi_n >= 0 is a constraint too. They determine w, xi and lambda by linear equations,

        w_F - sum_k lambda_k a_k,F = 0,   sum_(k in n) lambda_k = C/N,   a_k . w + xi_n = Delta_k,

    with a_k = psi(y_k) - psi(y_n). Their derivative in a log-odds l_i has the same matrix, and U = y_n,i - y_k,i on the
    right-hand side. One factorisation therefore serves all pixels. Where U = 0 for every active labeling, all
    derivatives vanish. The derivative in the probability z_i is the one in l_i over z_i (1 - z_i).

    Parameters
    ----------
    solution : Solution
        From `solve_program` or `CuttingPlanes.learn`. The system is that of (8) over the labelings stored at that time.
    examples : list of Example
        Labelings that were stored after the solution are ignored.
    C : float

    Attributes
    ----------
    free : ndarray of int
        F, the indices of the weights that are not held at zero.
    active : list of n_images ndarrays of int
        The active labelings of each image.
    multipliers : ndarray of shape (n_active,)
        lambda from the linear equations: first of the active labelings, image by image, then of the active xi_n >= 0.

    Raises
    ------
    DegenerateProgramError
        If an active constraint has no multiplier. If the active constraints depend on each other. If weights of pairs
        of labels hold a triangle inequality with equality, which the paper's system does not know. See the theory page.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Annotation, Field, Grid, build_terms
    >>> from skmmcrf.learning import Example, solve_program
    >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
    >>> energy = field.energy(np.array([[2.0, -1.0]]), np.zeros((1, 2, 1)))
    >>> example = Example(energy, Annotation(np.array([[True, False]])))
    >>> example.store(np.array([[False, False]]))
    True
    >>> solution = solve_program([example], C=0.1)
    >>> solution.w.round(6)
    array([0.2, 0. ])
    >>> LinearSystem(solution, [example], C=0.1).gradient(0).round(6)
    array([[-0.02,  0.  ]])
    """

    def __init__(self, solution: Solution, examples: Sequence[Example], C: float) -> None:
        if not len(examples) == len(solution.multipliers) == len(solution.slack):
            raise ValueError(
                f"solution and examples must be of the same images, got {len(solution.multipliers)} and {len(examples)}"
            )
        weights, w = weights_of(examples), solution.w
        if len(weights.triangles(w, _ZERO * np.abs(w[1:]).max(initial=0.0))):
            raise DegenerateProgramError("a weight of a pair of labels is the sum of those by way of a third label")
        self._weight_scale = weights.scale
        self._w = w * weights.scale
        self._slack_weights = C * image_shares(examples)
        self._examples = examples
        self.active = [
            _active_constraints(example, solution.w, multipliers, slack_weight)
            for example, multipliers, slack_weight in zip(examples, solution.multipliers, self._slack_weights)
        ]
        slopes = [np.array(e.differences).reshape(-1, len(w))[k] / weights.scale for e, k in zip(examples, self.active)]
        multipliers = [m[k] for m, k in zip(solution.multipliers, self.active)]
        self.free = _free_weights(self._w, np.vstack(slopes), np.concatenate(multipliers))

        # an image of weight 0 is in no constraint but this one
        at_zero = np.flatnonzero(
            [c == 0 or m.sum() < (1 - _ZERO) * c for m, c in zip(multipliers, self._slack_weights)]
        )
        owners = np.append(np.repeat(np.arange(len(examples)), [len(k) for k in self.active]), at_zero)
        losses = [np.array(example.losses)[k] for example, k in zip(examples, self.active)]
        self._bounds = np.append(np.concatenate(losses), np.zeros(len(at_zero)))
        rows = np.vstack([*slopes, np.zeros((len(at_zero), len(self._w)))])[:, self.free]
        self._rows = np.hstack([rows, np.eye(len(examples))[owners]])
        self._scale = np.linalg.norm(self._rows, axis=1)
        self._factors = self._factorise()
        right = np.zeros(sum(self._rows.shape))
        right[len(self.free) : self._rows.shape[1]] = self._slack_weights
        right[self._rows.shape[1] :] = self._bounds
        self.multipliers = self._solve(right)[self._rows.shape[1] :]

    def _factorise(self) -> tuple[FloatArray, IntArray]:
        rows = self._rows / self._scale[:, np.newaxis]
        singular_values = np.linalg.svd(rows, compute_uv=False)
        if len(rows) > rows.shape[1] or singular_values[-1] < _ZERO * singular_values[0]:
            raise DegenerateProgramError("the active constraints of (8) depend on each other: lambda is not unique")
        n_free, n_unknown = len(self.free), rows.shape[1]
        hessian = np.diag(np.arange(n_unknown) < n_free).astype(float)
        signs = np.append(-np.ones(n_free), np.ones(n_unknown - n_free))  # of lambda in both kinds of stationarity
        matrix = np.block([[hessian, signs[:, np.newaxis] * rows.T], [rows, np.zeros((len(rows), len(rows)))]])
        return lu_factor(matrix)

    def _solve(self, right: FloatArray) -> FloatArray:
        """Solve for changes of w_F, xi and lambda. The rows of the constraints are scaled to norm 1."""
        n_unknown = self._rows.shape[1]
        scale = self._scale.reshape(-1, *[1] * (right.ndim - 1))
        scaled = np.concatenate([right[:n_unknown], right[n_unknown:] / scale])
        solved = lu_solve(self._factors, scaled)
        return np.concatenate([solved[:n_unknown], solved[n_unknown:] / scale])

    def derivatives(self, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Give the derivatives of the optimum in the log-odds of image n, or in its scores, (K, H, W) for (H, W).

        Parameters
        ----------
        n : int

        Returns
        -------
        w : ndarray of shape (n_weights, H, W)
            dw/dl_i.
        slack : ndarray of shape (n_images, H, W)
            dxi/dl_i.
        multipliers : ndarray of shape (n_active, H, W)
            dlambda/dl_i, in the order of `multipliers`.
        """
        example, active = self._examples[n], self.active[n]
        truth, n_unknown = example.annotation.truth, self._rows.shape[1]
        shape = example.energy.change(truth, truth).shape
        first = n_unknown + sum(len(k) for k in self.active[:n])
        of_image = slice(first, first + len(active))
        changes = [-example.energy.change(labels, truth) for labels in example.unpack(active)]  # U
        pixels = np.array(changes, np.int8).reshape(len(active), math.prod(shape))
        moved = np.flatnonzero(pixels.any(axis=0))
        right = np.zeros((sum(self._rows.shape), len(moved)))
        right[0] = self.multipliers[of_image.start - n_unknown : of_image.stop - n_unknown] @ pixels[:, moved]
        right[of_image] = -self._w[0] * pixels[:, moved]
        solved = np.zeros((len(right), pixels.shape[1]))
        solved[:, moved] = self._solve(right)
        of_weights = np.zeros((len(self._w), pixels.shape[1]))
        of_weights[self.free] = solved[: len(self.free)] / self._weight_scale[self.free, np.newaxis]
        parts = of_weights, solved[len(self.free) : n_unknown], solved[n_unknown:]
        w, slack, multipliers = (part.reshape(-1, *shape) for part in parts)
        return w, slack, multipliers

    def gradient(self, n: int) -> FloatArray:
        """Give the gradient of gamma in the log-odds of image n: w . dw/dl + C/N times the (weighted) sum of dxi/dl.

        Parameters
        ----------
        n : int

        Returns
        -------
        ndarray of float64 and shape (H, W)
        """
        w, slack, _ = self.derivatives(n)
        return np.tensordot(self._w * self._weight_scale, w, axes=1) + np.tensordot(self._slack_weights, slack, axes=1)


def _active_constraints(example: Example, w: FloatArray, multipliers: FloatArray, slack_weight: float) -> IntArray:
    """The constraints with a multiplier, after a check that no other holds with equality."""
    if slack_weight == 0:
        return np.empty(0, dtype=int)
    n_known = len(multipliers)
    losses = np.array(example.losses[:n_known])
    margins = np.array(example.differences[:n_known]).reshape(n_known, len(w)) @ w
    slack = (losses - margins).max(initial=0.0)
    active = multipliers > _ZERO * slack_weight
    tight = np.abs(losses - margins - slack) <= _ZERO * (losses + np.abs(margins))
    slack_is_zero = slack <= _ZERO * losses.max(initial=1.0)
    # the truth itself, if it is stored, is the constraint xi_n >= 0 once more
    unpriced = np.any(tight & ~active & (losses > 0))
    if unpriced or (slack_is_zero and multipliers.sum() >= (1 - _ZERO) * slack_weight):
        raise DegenerateProgramError("an active constraint of (8) has no multiplier: w and xi have no derivative")
    return np.flatnonzero(active)


def _free_weights(w: FloatArray, slopes: FloatArray, multipliers: FloatArray) -> IntArray:
    """Weights that are not held at zero by a multiplier of their own."""
    pull = multipliers @ slopes
    size = multipliers @ np.abs(slopes)
    held = (np.arange(len(w)) > 0) & (w <= _ZERO * size)  # of a weight that nothing pulls, rounding leaves a trace
    if np.any(held & (size > 0) & (np.abs(pull) <= _ZERO * size)):
        raise DegenerateProgramError("a pairwise weight of zero has no multiplier: w has no derivative")
    return np.flatnonzero(~held | (size == 0))
