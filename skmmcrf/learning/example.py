"""One training image for the learner: its energy, its annotation, and its stored labelings."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skmmcrf._typing import FloatArray, IntArray, LabelArray
from skmmcrf.field.base_energy import BaseEnergy
from skmmcrf.field.labels import Annotation, pack_labeling, unpack_labelings
from skmmcrf.field.multiclass import MulticlassEnergy


class Constraint(NamedTuple):
    """A labeling y of an image, and the constraint of (8) that it makes.

    Attributes
    ----------
    packed : bytes
        y, as `skmmcrf.field.labels.pack_labeling` packs it.
    difference : ndarray of float64 and shape (n_weights,)
        psi(y) - psi(y_n).
    loss : float
        Delta(y_n, y), the weighted Hamming distance in pixels.
    """

    packed: bytes
    difference: FloatArray
    loss: float


class Example:
    """An image to learn from, with the constraint set S_n of (8), packed and compressed.

    Parameters
    ----------
    energy : Energy or MulticlassEnergy
    annotation : Annotation

    Attributes
    ----------
    energy : Energy or MulticlassEnergy
        Change it by `reprice`.
    annotation : Annotation
        Its truth is y_n. Change it by `complete`.
    differences : list of list of float
        psi(y) - psi(y_n) of each stored labeling, n_weights numbers.
    losses : list of float
        Delta(y_n, y) of each stored labeling, in pixels.

    Raises
    ------
    ValueError
        If energy and annotation differ in size, in the number of labels, or in the dtype of labelings.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Annotation, Field, Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
    >>> energy = field.energy(np.array([[2.0, -0.5]]), np.zeros((1, 2, 1)))
    >>> example = Example(energy, Annotation(np.array([[True, False]])))
    >>> example.store(np.array([[True, True]]))
    True
    >>> example.differences, example.losses
    ([[0.5, -1.0]], [1.0])
    >>> example.unpack([0])
    array([[[ True,  True]]])
    """

    def __init__(self, energy: BaseEnergy, annotation: Annotation) -> None:
        _check_fits(energy, annotation)
        self.energy = energy
        self.annotation = annotation
        # numbers, because small arrays that stay, between large ones that go, would keep the memory of these in use
        self.differences: list[list[float]] = []
        self.losses: list[float] = []
        self._packed: dict[bytes, None] = {}  # keeps the order, and finds a labeling that is there already

    def __len__(self) -> int:
        return len(self._packed)

    def store(self, labels: LabelArray) -> bool:
        """Store a labeling unless it is there already, and tell whether it was new."""
        return self.add(constraint_of(labels, self.energy, self.annotation))

    def add(self, constraint: Constraint) -> bool:
        """Store a labeling whose constraint is known unless it is there already, and tell whether it was new."""
        if constraint.packed in self._packed:
            return False
        self._packed[constraint.packed] = None
        self.differences.append(constraint.difference.tolist())
        self.losses.append(constraint.loss)
        return True

    def unpack(self, indices: Sequence[int] | IntArray) -> LabelArray:
        """Give the labelings at some indices, as an array of shape (len(indices), H, W)."""
        packed = list(self._packed)
        return unpack_labelings([packed[k] for k in indices], self.annotation.shape, self.annotation.dtype)

    def slack(self, w: FloatArray) -> float:
        """Give the slack that the stored labelings ask for at the weights w, (n_weights,)."""
        margins = np.array(self.differences).reshape(-1, len(w)) @ w
        return float((np.array(self.losses) - margins).max(initial=0.0))

    def reprice(self, energy: BaseEnergy) -> None:
        """Take another energy of the image, and recompute the stored constraints.

        Parameters
        ----------
        energy : Energy or MulticlassEnergy
            If it shares the features of the former energy, only the unary differences change.
        """
        _check_fits(energy, self.annotation)
        shared = energy.pairwise is self.energy.pairwise
        self.energy = energy
        if not len(self):
            return
        truth, stored = self.annotation.truth, self.unpack(range(len(self)))
        if not shared:
            energy = energy.in_memory()
            self.differences = [energy.difference(labels, truth).tolist() for labels in stored]
            return
        for difference, value in zip(self.differences, energy.unary_differences(stored, truth).tolist()):
            difference[0] = value

    def complete(self, labels: LabelArray, shift: FloatArray) -> None:
        """Give the unlabelled pixels of y_n these labels. `shift` is psi(y_n) before less psi(y_n) after."""
        self.annotation = self.annotation.completed(labels)
        self.differences = [(difference + shift).tolist() for difference in np.array(self.differences)]

    def keep_most_violated(self, w: FloatArray, n: int) -> None:
        """Forget all labelings but those n whose constraints ask for the largest slack under w, (n_weights,)."""
        if len(self) <= n:
            return
        violations = np.array(self.losses) - np.array(self.differences) @ w
        kept = np.sort(np.argsort(-violations, kind="stable")[:n])
        packed = list(self._packed)
        self._packed = dict.fromkeys(packed[k] for k in kept)
        self.differences = [self.differences[k] for k in kept]
        self.losses = [self.losses[k] for k in kept]

    def gradient(self, w: FloatArray, multipliers: FloatArray) -> FloatArray:
        """Give the gradient of gamma, the optimum of (8), in the log-odds or scores of the image.

        gamma is the optimal value of a program whose constraints depend on the log-odds l, or on the scores q(c) of
        several labels. By the envelope theorem only this explicit dependence counts:

            dgamma/dl_i = w1 * sum_k lambda_k (y_k,i - y_n,i)
            dgamma/dq_i(c) = w1 * sum_k lambda_k ([y_k,i = c] - [y_n,i = c])

        over the stored labelings y_k. Neither the probability nor its inverse enters, and no linear system is solved.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            The optimum.
        multipliers : ndarray of shape (len(self),)
            lambda of the stored labelings there.

        Returns
        -------
        ndarray of float64 and shape (H, W), or (K, H, W)
            At most ``|w1| C/N`` in size, times the weight of the image.
        """
        if len(multipliers) != len(self):
            raise ValueError(f"multipliers must be of shape ({len(self)},), one a labeling, got {len(multipliers)}")
        active = np.flatnonzero(multipliers)
        truth = self.annotation.truth
        gradient = np.zeros(self.energy.change(truth, truth).shape)
        for multiplier, labels in zip(multipliers[active], self.unpack(active)):
            gradient += multiplier * self.energy.change(labels, truth)
        return w[0] * gradient

    def state_dict(self) -> dict[str, np.ndarray]:
        """Give all state except the energy, as arrays."""
        packed = list(self._packed)
        return {
            "packed": np.frombuffer(b"".join(packed), dtype=np.uint8),
            "lengths": np.array([len(bits) for bits in packed], dtype=int),
            "differences": np.array(self.differences, dtype=float),
            "losses": np.array(self.losses, dtype=float),
            "truth": np.frombuffer(pack_labeling(self.annotation.truth), dtype=np.uint8),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave.

        Raises
        ------
        ValueError, TypeError, KeyError, zlib.error
            If it does not fit. The example may be changed then.
        """
        lengths, differences, losses = state["lengths"], state["differences"], state["losses"]
        n_weights = self.energy.n_weights
        if not (losses.shape == lengths.shape and (losses >= 0).all() and (lengths > 0).all()):
            raise ValueError("lengths and losses of the stored labelings do not fit")
        if differences.shape != (len(losses), n_weights)[: differences.ndim] or not np.isfinite(differences).all():
            raise ValueError(f"differences of the stored labelings do not fit {n_weights} weights")
        ends = np.cumsum(lengths)
        bits = state["packed"].tobytes()
        self._packed = {bits[end - n : end]: None for n, end in zip(lengths, ends)}
        self.differences = differences.tolist()
        self.losses = losses.tolist()
        if len(self) != len(self.unpack(range(len(losses)))):
            raise ValueError("a labeling is stored twice")
        (truth,) = unpack_labelings([state["truth"].tobytes()], self.annotation.shape, self.annotation.dtype)
        self.annotation = self.annotation.completed(truth)


def constraint_of(labels: LabelArray, energy: BaseEnergy, annotation: Annotation) -> Constraint:
    """Give the constraint of (8) that a labeling (H, W) makes."""
    return Constraint(pack_labeling(labels), energy.difference(labels, annotation.truth), annotation.loss(labels))


def most_violated(w: FloatArray, energy: BaseEnergy, annotation: Annotation) -> Constraint:
    """Find the labeling that violates its constraint of (8) most at the weights w, or of several labels, much."""
    energy = energy.in_memory()
    return constraint_of(energy.most_violated(w, annotation), energy, annotation)


def completion(w: FloatArray, energy: BaseEnergy, annotation: Annotation) -> tuple[LabelArray, FloatArray]:
    """Find the labels of unlabelled pixels under which the truth has the least energy at the weights w.

    Returns
    -------
    labels : ndarray of shape (H, W)
        y_n with them.
    shift : ndarray of shape (n_weights,)
        psi(y_n) before, less psi(labels).
    """
    energy = energy.in_memory()
    labels = energy.completion(w, annotation)
    return labels, energy.difference(annotation.truth, labels)


def violation(w: FloatArray, energy: BaseEnergy, annotation: Annotation) -> tuple[float, NDArray[np.int8]]:
    """Find how far an image misses its margin of (8) at the weights w, and by which labeling.

    Unlabelled pixels of the truth take the labels of least energy.

    Returns
    -------
    slack : float
        xi_n.
    change : ndarray of int8 and shape (H, W), or (K, H, W)
        y - y_n of the most violated labeling y, or of several labels c, [y = c] - [y_n = c]. 0 where the slack is. The
        gradient of xi_n in the log-odds or scores for fixed w is w1 times that.
    """
    energy = energy.in_memory()
    if not annotation.is_fully_labelled:
        annotation = annotation.completed(energy.completion(w, annotation))
    labels, truth = energy.most_violated(w, annotation), annotation.truth
    slack = annotation.loss(labels) - energy.difference(labels, truth) @ w
    if slack <= 0:
        return 0.0, energy.change(truth, truth)
    return float(slack), energy.change(labels, truth)


def bound_of_slack(w: FloatArray, energy: MulticlassEnergy, annotation: Annotation, n_rounds: int) -> float:
    """Give the slack that no labeling exceeds at the weights w, by `MulticlassEnergy.bound`."""
    energy = energy.in_memory()
    labels, gap = energy.bound(w, annotation, n_rounds)
    return float(annotation.loss(labels) - energy.difference(labels, annotation.truth) @ w + gap)


def _check_fits(energy: BaseEnergy, annotation: Annotation) -> None:
    if energy.shape != annotation.shape:
        raise ValueError(f"{energy.name} must have the shape of the truth, {annotation.shape}, got {energy.shape}")
    of_energy, of_truth = ((np.dtype(each.dtype), each.n_labels) for each in (energy, annotation))
    if of_energy != of_truth:
        raise ValueError(
            f"{energy.name} are of {of_energy[1]} labels, whose truth is of {of_energy[0]} and class_weight of as many "
            f"entries, got a truth of {of_truth[0]} and {of_truth[1]} entries"
        )
