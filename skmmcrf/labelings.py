"""The stored labelings of an image, the constraint set S of (8)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.truth import Truth, pack_labeling, unpack_labelings


class Labelings:
    """The labelings S_n stored for one image, packed to one bit a pixel and compressed, each with its constraint.

    Parameters
    ----------
    truth : Truth, or ndarray of bool and shape (H, W)
        y_n.

    Attributes
    ----------
    known : Truth
        With the weights of the image and of its pixels.
    differences : list of list of float
        psi(y) - psi(y_n) of each labeling, n_weights numbers.
    losses : list of float
        Delta(y_n, y) of each labeling, the weighted Hamming distance in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> stored = Labelings(np.array([[True, False]]))
    >>> stored.add(np.array([[True, True]]), np.array([0.5, 1.0, 1.0]), 1.0)
    True
    >>> stored.unpack([0])
    array([[[ True,  True]]])
    """

    def __init__(self, truth: Truth | BoolArray) -> None:
        self.known = truth if isinstance(truth, Truth) else Truth(truth)
        # numbers, because small arrays that stay, between large ones that go, would keep the memory of these in use
        self.differences: list[list[float]] = []
        self.losses: list[float] = []
        self._packed: dict[bytes, None] = {}  # keeps the order, and finds a labeling that is there already

    def __len__(self) -> int:
        return len(self._packed)

    @property
    def truth(self) -> BoolArray:
        """y_n, array of bool and shape (H, W)."""
        return self.known.foreground

    def add(self, labels: BoolArray, difference: FloatArray, loss: float) -> bool:
        """Store a labeling with its constraint unless it is there already; tell whether it was new."""
        if labels.shape != self.known.shape:
            raise ValueError(f"labels must have the shape of the truth, {self.known.shape}, got {labels.shape}")
        packed = pack_labeling(labels)
        if packed in self._packed:
            return False
        self._packed[packed] = None
        self.differences.append(difference.tolist())
        self.losses.append(loss)
        return True

    def unpack(self, indices: Sequence[int] | IntArray) -> BoolArray:
        """Give the labelings at some indices, as an array of bool and shape (len(indices), H, W)."""
        packed = list(self._packed)
        return unpack_labelings([packed[k] for k in indices], self.known.shape)

    def reprice(self, log_odds: FloatArray) -> None:
        """Make the constraints those of changed log-odds, (H, W): only the unary differences depend on them."""
        if log_odds.shape != self.known.shape:
            raise ValueError(f"log_odds must have the shape of the truth, {self.known.shape}, got {log_odds.shape}")
        if not len(self):
            return
        # 0 where labels agree, so that large log-odds there cost no digits
        changes = self.truth.astype(np.int8) - self.unpack(range(len(self)))
        unary = changes.reshape(len(self), -1) @ np.ravel(log_odds).astype(float)
        for difference, value in zip(self.differences, unary.tolist()):
            difference[0] = value

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

    def state_dict(self) -> dict[str, np.ndarray | None]:
        """Give all that may have changed since the beginning, as arrays."""
        packed = list(self._packed)
        return {
            "packed": np.frombuffer(b"".join(packed), dtype=np.uint8),
            "lengths": np.array([len(bits) for bits in packed], dtype=int),
            "differences": np.array(self.differences, dtype=float),
            "losses": np.array(self.losses, dtype=float),
            "truth": None if self.known.is_complete else self.truth,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        ends = np.cumsum(state["lengths"])
        bits = state["packed"].tobytes()
        self._packed = {bits[end - n : end]: None for n, end in zip(state["lengths"], ends)}
        self.differences = state["differences"].tolist()
        self.losses = state["losses"].tolist()
        if state["truth"] is not None:
            self.known.complete(state["truth"])

    def complete(self, labels: BoolArray, shift: FloatArray) -> None:
        """Label the unlabelled pixels of y_n; `shift` is psi(y_n) before less psi(y_n) after."""
        self.known.complete(labels)
        self.differences = [(difference + shift).tolist() for difference in np.array(self.differences)]
