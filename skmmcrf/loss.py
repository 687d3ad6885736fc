"""The max-margin objective as a loss for anyone's training loop in torch."""

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import nn

from skmmcrf._typing import FloatArray, TensorsLike
from skmmcrf.derivative import DegenerateProgramError, LinearSystem, envelope_gradient
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import CRF_CONSTRAINTS, evaluate_program, learn_weights
from skmmcrf.quadratic_program import INITIAL_WEIGHTS, Solution, solve_program
from skmmcrf.validation import (
    as_sequence,
    check_class_weight,
    check_labelled_images,
    resolve_ignore_label,
)

#: The ways to the gradient of gamma, see `MaxMarginLoss`.
GRADIENTS = [StrOptions({"envelope", "kkt"})]

# those that numpy has
_FLOATS = (torch.float16, torch.float32, torch.float64)


class MaxMarginLoss(nn.Module):
    """The optimum gamma of (8) for a batch, as a function of the network's log-odds.

    Each call solves (8) for the batch by Algorithm 1; backward gives the exact gradient by the envelope theorem, see
    `skmmcrf.derivative.envelope_gradient`.

    Parameters
    ----------
    C : float, default=1.0
        Weight of the slacks against the norm of w, between 1e-12 and 1e8.
    connectivity : {4, 8}, default=8
        Neighbours of a pixel.
    sigma : float, default=0.1
        Deviation of the contrast term, in units of the pixels.
    tol : float, default=1e-3
        Relative gap between the bounds of gamma at which Algorithm 1 stops.
    max_iter : int, default=100
        Passes of Algorithm 1 over the batch at most.
    n_jobs : int, optional
        Processes that cut, as in joblib.
    class_weight : dict, optional
        What a wrong pixel counts in the Hamming distance, by its true label 0 or 1.
    ignore_label : int or None, default=255
        The label of unlabelled pixels: they count nothing in the Hamming distance, and take the label of least energy.
    gradient : {"envelope", "kkt"}, default="envelope"
        How backward gets the gradient: by the envelope theorem, or by the paper's linear system
        (`skmmcrf.derivative.LinearSystem`), slower and with the same result. Where that system is degenerate, it warns
        and takes the envelope theorem.

    Attributes
    ----------
    coef_ : ndarray of shape (3,)
        w of the last batch; the next one starts there.

    Examples
    --------
    >>> import torch
    >>> log_odds = torch.tensor([[[2.0, -1.0]]], requires_grad=True)
    >>> loss = MaxMarginLoss()(log_odds, torch.tensor([[[1, 0]]]), torch.zeros(1, 1, 2))
    >>> loss.backward()
    >>> loss, log_odds.grad
    (tensor(0.5000, grad_fn=<AddBackward0>), tensor([[[0., 1.]]]))
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        connectivity: int = 8,
        sigma: float = 0.1,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_jobs: int | None = None,
        class_weight: dict[int, float] | None = None,
        ignore_label: int | None = 255,
        gradient: Literal["envelope", "kkt"] = "envelope",
    ) -> None:
        super().__init__()
        cuts: dict[str, Any] = {"connectivity": connectivity, "sigma": sigma, "n_jobs": n_jobs}
        labels = {"class_weight": class_weight, "ignore_label": ignore_label}
        parameters = {"C": C, "tol": tol, "max_iter": max_iter, "gradient": gradient, **cuts, **labels}
        # a sigma of each batch's own would change the problem from batch to batch
        constraints = {
            **CRF_CONSTRAINTS,
            "sigma": [Interval(Real, 0, None, closed="neither")],
            "gradient": GRADIENTS,
            "class_weight": [dict, None],
            "ignore_label": [Integral, None],
        }
        validate_parameter_constraints(constraints, parameters, caller_name="MaxMarginLoss")
        self.C = C
        self.gradient = gradient
        self.tol = tol
        self.max_iter = max_iter
        self.parameters_of_cuts = cuts
        self.class_weight = check_class_weight(class_weight, [], pos_label=1)
        self.ignore_label = resolve_ignore_label(1, ignore_label)
        self.coef_: FloatArray = np.array(INITIAL_WEIGHTS)

    def get_extra_state(self) -> torch.Tensor:
        """Give what a state dict holds: `coef_`."""
        return torch.tensor(self.coef_)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take `coef_` from a state dict."""
        self.coef_ = state.numpy().copy()

    def forward(self, log_odds: TensorsLike, labels: TensorsLike, images: TensorsLike) -> torch.Tensor:
        """Compute gamma of a batch.

        Parameters
        ----------
        log_odds : Tensor of float and shape (n, H, W), or list of n Tensors of shape (H, W)
        labels : Tensor of shape (n, H, W), or list of n Tensors of shape (H, W)
            Labels 0, 1 and `ignore_label`, bool, integer or float.
        images : Tensor of shape (n, H, W) or (n, channels, H, W), or list of n Tensors without n
            Scaled to [0, 1].

        Returns
        -------
        Tensor of float and shape ()

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, there are other labels, anything is not finite, or log-odds are no tensors of float.
        """
        images, labels = (
            list(as_sequence(values, name, dimensions)[0])
            for values, name, dimensions in ((images, "images", (3, 4)), (labels, "labels", (3,)))
        )
        arrays, truths = check_labelled_images(
            images, labels, name="images", labels_name="labels", ignore_label=self.ignore_label
        )
        for truth in truths:
            truth.class_weight = self.class_weight
        return self.of_labelings(log_odds, [Labelings(truth) for truth in truths], arrays)

    def of_labelings(
        self, log_odds: TensorsLike, labelings: Sequence[Labelings], images: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """Compute gamma of a batch whose stored labelings are kept from call to call.

        Parameters
        ----------
        log_odds : list of Tensor of float and shape (H, W)
        labelings : list of Labelings
            With the truth of each image; added to.
        images : list of ndarray of shape (H, W, channels)
            See `skmmcrf.energy.squared_contrast`.

        Returns
        -------
        Tensor of float and shape ()
        """
        solution = self.learn(_values(log_odds, labelings, images), images, labelings)
        # gamma by value, its gradient by that of (8) over the stored labelings, which is as near as its lower bound
        gradients = self._gradients(solve_program(labelings, self.C, solution.w), labelings)
        return _as_tensor(solution.value, gradients, log_odds)

    def learn(
        self, log_odds: Sequence[FloatArray], images: Sequence[np.ndarray], labelings: Sequence[Labelings]
    ) -> Solution:
        """Solve (8), beginning at `coef_`, and take its weights.

        Parameters
        ----------
        log_odds : sequence of ndarray of float and shape (H, W)
        images : sequence of ndarray of shape (H, W, channels)
            See `skmmcrf.energy.squared_contrast`.
        labelings : list of Labelings
            With the truth of each image; added to.

        Returns
        -------
        Solution
        """
        solution = learn_weights(
            log_odds,
            images,
            labelings,
            self.C,
            tol=self.tol,
            max_iter=self.max_iter,
            w=self.coef_,
            **self.parameters_of_cuts,
        )
        self.coef_ = solution.w
        return solution

    def at_weights(
        self, log_odds: TensorsLike, labelings: Sequence[Labelings], images: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """Compute the objective of (8) for a batch at `coef_`, which stay as they are.

        It takes one cut an image, and backward gives its gradient for w as they are held; `gradient` has no influence.
        For a batch whose own optimum would be that of another problem, as when its images are changed at random.

        Parameters
        ----------
        log_odds : list of Tensor of float and shape (H, W)
        labelings : list of Labelings
            With the truth of each image; one is added.
        images : list of ndarray of shape (H, W, channels)
            See `skmmcrf.energy.squared_contrast`.

        Returns
        -------
        Tensor of float and shape ()
        """
        values = _values(log_odds, labelings, images)
        solution = evaluate_program(self.coef_, values, images, labelings, self.C, **self.parameters_of_cuts)
        return _as_tensor(solution.value, _envelope_gradients(solution, labelings), log_odds)

    def _gradients(self, solution: Solution, labelings: Sequence[Labelings]) -> list[FloatArray]:
        if self.gradient == "kkt":
            try:
                system = LinearSystem(solution, labelings, self.C)
                return [system.gradient(n) for n in range(len(labelings))]
            except DegenerateProgramError as error:
                warnings.warn(f"the envelope theorem gave the gradient: {error}", RuntimeWarning, stacklevel=2)
        return _envelope_gradients(solution, labelings)


def _envelope_gradients(solution: Solution, labelings: Sequence[Labelings]) -> list[FloatArray]:
    """The gradient of each image."""
    return [envelope_gradient(solution.w, stored, m) for stored, m in zip(labelings, solution.multipliers)]


def _values(log_odds: TensorsLike, labelings: Sequence[Labelings], images: Sequence[np.ndarray]) -> list[FloatArray]:
    """Log-odds as arrays, checked."""
    as_sequence(log_odds, "log_odds", dimensions=(3,))
    if not len(log_odds) == len(labelings) == len(images):
        raise ValueError(f"there are {len(log_odds)} log-odds, but {len(labelings)} labels and {len(images)} images")
    for n, l in enumerate(log_odds):
        if not isinstance(l, torch.Tensor) or l.dtype not in _FLOATS:
            kind = l.dtype if isinstance(l, torch.Tensor) else type(l).__name__
            raise TypeError(f"log_odds[{n}] must be a tensor of float16, float32 or float64, got {kind}")
    values = [l.detach().cpu().numpy() for l in log_odds]
    for n, (l, stored) in enumerate(zip(values, labelings)):
        if l.shape != stored.truth.shape:
            raise ValueError(f"log_odds[{n}] has shape {l.shape}, but its labels have {stored.truth.shape}")
        if not np.isfinite(l).all():
            raise ValueError(f"log_odds[{n}] contains NaN or infinite values")
    return values


def _as_tensor(value: float, gradients: Sequence[FloatArray], log_odds: TensorsLike) -> torch.Tensor:
    """A tensor of a value, with its gradients in log-odds."""
    result = log_odds[0].new_tensor(value)
    for l, gradient in zip(log_odds, gradients):
        result = result + (torch.from_numpy(gradient).to(l) * (l - l.detach())).sum()
    return result
