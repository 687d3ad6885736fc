"""The max-margin objective as a loss for anyone's training loop in torch."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from joblib import delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import nn

from skmmcrf._docs import documented
from skmmcrf._typing import FloatArray, TensorsLike
from skmmcrf.field.energy import Field, least_labelings
from skmmcrf.field.grid import Connectivity, Grid
from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.field.pair_weights import COMPATIBILITIES
from skmmcrf.field.terms import PAIRWISE, Contrast, build_terms
from skmmcrf.field.workers import workers
from skmmcrf.images.checking import check_images, check_labelled_images
from skmmcrf.images.entries import as_sequence
from skmmcrf.images.labels import LabelScheme
from skmmcrf.learning import CuttingPlanes, DegenerateProgramError, Example, LinearSystem, Solution, solve_program
from skmmcrf.learning.example import violation
from skmmcrf.learning.program import LARGEST_C, LEAST_C, objective_at

#: Positive numbers of full precision, without infinity.
NORMAL_POSITIVE = Interval(Real, sys.float_info.min, sys.float_info.max, closed="both")

#: What the parameters of a field and of its learner may be, wherever they appear.
FIELD_CONSTRAINTS = {
    "C": [Interval(Real, LEAST_C, LARGEST_C, closed="both")],
    "pairwise": [StrOptions(set(PAIRWISE))],
    "compatibility": [StrOptions(set(COMPATIBILITIES))],
    "connectivity": [Integral, list, tuple, np.ndarray],
    "sigma": [StrOptions({"auto"}), NORMAL_POSITIVE],
    "tol": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [None, Interval(Integral, None, -1, closed="right"), Interval(Integral, 1, None, closed="left")],
}

#: Log-odds (H, W) or scores (K, H, W), annotations, and images (H, W, channels) of some images of a batch.
Part: TypeAlias = tuple[Sequence[torch.Tensor], Sequence[Annotation], Sequence[np.ndarray]]

_DEFAULT_SIGMA = 0.1
# pixels beyond it are not in [0, 1], but for noise and what interpolation overshoots
_LARGEST_PIXEL = 2.0
# rounding may leave it of a weight that is 0
_NO_WEIGHT = 1e-12


@documented
class MaxMarginLoss(nn.Module):
    """The max-margin objective of a batch, gamma, as a function of the network's log-odds.

    Label images by `predict`, not by ``log_odds > 0``. Training fits the labelings of least energy, in which neighbours
    count too. Single log-odds may still have the wrong sign.

    Two labels have one map of log-odds. K labels, more than two, have K maps of scores, whose softmax gives the
    probabilities. The labelings that violate the margin most are then found by expansion moves, and some may be missed.
    gamma may be higher than the value by what they would add.

    Each call learns the weights of the field for the batch, by Algorithm 1. gamma is the value of the max-margin
    objective, equation (8) of the paper, at these weights. backward gives its exact gradient. See
    `skmmcrf.learning.Example.gradient`.

    Parameters
    ----------
    %(C)s
    %(pairwise)s
    %(compatibility)s
    %(connectivity)s
    sigma : float, default=0.1
        The difference of two pixels that counts as an edge of the image, in units of the pixels. The default suits
        images in [0, 1].
    %(tol)s
    %(max_iter)s
    %(n_jobs)s
    class_weight : dict, optional
        The weight of a wrong pixel by its true label, 0 or 1. For K labels it has an entry for each of 0 to K - 1.
    ignore_label : int or None, default=255
        The label of unlabelled pixels. They do not count, and take the label of least energy. For masks of 0 and 255,
        pass ``labels == 255`` as labels.
    gradient : {"envelope", "kkt"}, default="envelope"
        How backward computes the gradient: by the envelope theorem, or by the paper's linear system. See
        `skmmcrf.learning.LinearSystem`. Both give the same gradient, and the linear system is slower. If the linear
        system is degenerate, backward warns and uses the envelope theorem.

    Attributes
    ----------
    coef_ : ndarray of shape (n_weights,)
        The weights w of the last batch: one for the unary term, and one for each pairwise term, or for ``"metric"`` one
        for each pairwise term and pair of labels. Learning on the next batch starts from them.

    Examples
    --------
    >>> import torch
    >>> log_odds = torch.tensor([[[2.0, -1.0]]], requires_grad=True)
    >>> images = torch.zeros(1, 1, 2)
    >>> max_margin = MaxMarginLoss()
    >>> loss = max_margin(log_odds, torch.tensor([[[1, 0]]]), images)
    >>> loss.backward()
    >>> loss, log_odds.grad
    (tensor(0.5000, grad_fn=<AddBackward0>), tensor([[[0., 1.]]]))
    >>> max_margin.predict(log_odds, images)
    tensor([[[1, 0]]], dtype=torch.uint8)

    Three classes:

    >>> scores = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]]], requires_grad=True)
    >>> max_margin(scores, torch.tensor([[[0, 2]]]), images).backward()
    >>> max_margin.predict(scores, images)
    tensor([[[0, 2]]], dtype=torch.uint8)
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        pairwise: Literal["contrast", "smoothness"] = "contrast",
        compatibility: Literal["potts", "metric"] = "potts",
        connectivity: Connectivity = 8,
        sigma: float = _DEFAULT_SIGMA,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_jobs: int | None = None,
        class_weight: dict[int, float] | None = None,
        ignore_label: int | None = 255,
        gradient: Literal["envelope", "kkt"] = "envelope",
    ) -> None:
        super().__init__()
        # a sigma of each batch's own would change the problem from batch to batch
        constraints = {
            **FIELD_CONSTRAINTS,
            "sigma": [Interval(Real, 0, None, closed="neither")],
            "gradient": [StrOptions({"envelope", "kkt"})],
            "class_weight": [dict, None],
            "ignore_label": [Integral, None],
        }
        given = {name: value for name, value in locals().items() if name in constraints}
        validate_parameter_constraints(constraints, given, caller_name="MaxMarginLoss")
        self.field = Field(Grid.from_connectivity(connectivity), build_terms(pairwise, sigma), compatibility)
        self.learner = CuttingPlanes(C, tol, max_iter, n_jobs)
        self.gradient = gradient
        n_labels = len(class_weight or ())
        has_several = n_labels > 2 and class_weight.keys() == set(range(n_labels))  # type: ignore[union-attr]
        self.scheme = LabelScheme(1, ignore_label, tuple(range(n_labels)) if has_several else ())
        self.class_weight = self.scheme.check_class_weight(class_weight, []) if class_weight else None
        self.coef_: FloatArray = np.ones(self.field.weights(len(self.scheme.classes)).n_weights)
        self._has_seen_foreground = False

    def get_extra_state(self) -> torch.Tensor:
        """Give what a state dict holds: `coef_`."""
        return torch.tensor(self.coef_)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take `coef_` from a state dict."""
        w = state.cpu().numpy().copy()
        # the number of labels is that of the batches
        fitting = [each for each in map(self.field.weights, range(2, UNLABELLED + 1)) if (each.n_weights,) == w.shape]
        if not fitting:
            raise ValueError(f"the state has weights of shape {w.shape}, which do not fit the terms of the loss")
        try:
            fitting[0].check(w)
        except ValueError as error:
            raise ValueError(f"the state has weights that are not allowed: {error}") from None
        self.coef_ = w

    def forward(self, log_odds: TensorsLike, labels: TensorsLike, images: TensorsLike) -> torch.Tensor:
        """Compute gamma of a batch.

        Parameters
        ----------
        log_odds : Tensor of float and shape (n, H, W), (n, 1, H, W) or (n, K, H, W), or list of n Tensors without n
            K is more than 2. float16 and bfloat16 are computed in float32.
        labels : Tensor of shape (n, H, W) or (n, 1, H, W), or list of n Tensors without n
            Labels 0, 1 and `ignore_label`, bool, integer or float. For K maps, 0 to K - 1.
        images : Tensor of shape (n, H, W) or (n, channels, H, W), or list of n Tensors without n
            Scaled to [0, 1].

        Returns
        -------
        Tensor of float and shape ()

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit. If labels hold other values. If anything is not finite. If log-odds are no tensors of
            float.

        Warns
        -----
        ConvergenceWarning
            If `tol` is not reached within `max_iter` passes.
        UserWarning
            If labels hold `ignore_label` but no 1, and the labels of earlier batches held no 1 either. If pixels are
            far outside [0, 1] for this `sigma`.
        """
        X, y = _as_list(images, "images"), _as_list(labels, "labels")
        log_odds = _as_log_odds(log_odds)
        scheme = self._scheme_of(log_odds)
        data = check_labelled_images(X, y, scheme, names=("images", "labels"))
        self._check_foreground(data.annotations)
        self._check_range(data.images)
        _check_shapes(log_odds, [annotation.shape for annotation in data.annotations], "labels")
        energies = map(self.field.energy, _values(log_odds), data.images)
        class_weight = self.class_weight or (1.0,) * len(scheme.classes)
        annotations = [annotation.weighted(1.0, class_weight) for annotation in data.annotations]
        return self.of_examples(log_odds, list(map(Example, energies, annotations)))

    @torch.no_grad()
    def predict(self, log_odds: TensorsLike, images: TensorsLike) -> Any:
        """Label images by the least energy at the weights of the last batch.

        Parameters
        ----------
        log_odds : Tensor of float and shape (n, H, W), (n, 1, H, W) or (n, K, H, W), or list of n Tensors without n
        images : Tensor of shape (n, H, W) or (n, channels, H, W), or list of n Tensors without n
            Scaled to [0, 1].

        Returns
        -------
        Tensor of uint8 and shape (n, H, W), or list of n Tensors of shape (H, W)
            Labels 0 and 1, or 0 to K - 1. A list if `log_odds` is a list.

        Raises
        ------
        ValueError, TypeError
            As in `forward`.

        Warns
        -----
        UserWarning
            If the weight of the log-odds is negative. If pixels are far outside [0, 1] for this `sigma`.
        """
        arrays = check_images(_as_list(images, "images"), name="images")
        self._check_range(arrays)
        warn_of_negative_weight(self.coef_)
        values = _as_log_odds(log_odds)
        _check_shapes(values, [image.shape[:-1] for image in arrays], "images")
        n_labels = len(self._scheme_of(values).classes)
        n_weights = self.field.weights(n_labels).n_weights
        if len(self.coef_) != n_weights:
            raise ValueError(
                f"coef_ has {len(self.coef_)} weights, but {n_labels} labels of log_odds need {n_weights} by "
                f"compatibility={self.field.compatibility!r}: call the loss with a batch of as many labels first"
            )
        energies = map(self.field.energy, _values(values), arrays)
        labelings = least_labelings(self.coef_, energies, self.learner.n_jobs)
        labels = [torch.from_numpy(labeling).to(l.device, torch.uint8) for labeling, l in zip(labelings, values)]
        return torch.stack(labels) if isinstance(log_odds, torch.Tensor) else labels

    def of_examples(self, log_odds: Sequence[torch.Tensor], examples: Sequence[Example]) -> torch.Tensor:
        """Compute gamma of a batch from the log-odds of its examples, and add to their stored labelings."""
        solution = self.learn(examples)
        # gamma by value, its gradient by that of (8) over the stored labelings, which is as near as its lower bound
        gradients = self._gradients(solve_program(examples, self.learner.C, solution.w), examples)
        return _as_tensor(solution.value, gradients, log_odds)

    def learn(self, examples: Sequence[Example]) -> Solution:
        """Solve (8) over examples, beginning at `coef_`, and take its weights."""
        fits = not examples or self.coef_.shape == (examples[0].energy.n_weights,)
        solution = self.learner.learn(examples, self.coef_ if fits else None)
        warn_unless_converged(solution, self.learner)
        self.coef_ = solution.w
        return solution

    def at_weights(self, parts: Iterable[Part]) -> torch.Tensor:
        """Compute the objective of (8) for a batch at `coef_`, which do not change.

        It takes one cut an image. With several threads, a part is cut while the next one is made. backward gives the
        gradient for fixed w. `gradient` has no influence.
        """
        all_log_odds: list[torch.Tensor] = []
        weights: list[float] = []
        found: list[tuple[float, NDArray[np.int8]]] = []
        cutting: Iterable[tuple[float, NDArray[np.int8]]] = ()
        for log_odds, annotations, images in parts:
            energies = map(self.field.energy, _values(log_odds), images)
            jobs = [delayed(violation)(self.coef_, *problem) for problem in zip(energies, annotations)]
            found += cutting
            cutting = workers(self.learner.n_jobs)(jobs)
            all_log_odds += log_odds
            weights += [annotation.weight for annotation in annotations]
        slack, changes = zip(*found, *cutting)
        shares = np.array(weights) / len(weights)
        scales = self.coef_[0] * self.learner.C * shares
        scaled = self.coef_ * self.field.weights(annotations[0].n_labels).scale
        value = objective_at(scaled, np.array(slack), shares, self.learner.C)
        return _as_tensor(value, [scale * change for scale, change in zip(scales, changes)], all_log_odds)

    def _scheme_of(self, log_odds: Sequence[torch.Tensor]) -> LabelScheme:
        """What labels mean for these maps."""
        n_labels = max(_n_maps(log_odds[0]), 2)
        if self.class_weight is not None and len(self.class_weight) != n_labels:
            raise ValueError(
                f"class_weight must have an entry for each of the {n_labels} labels of log_odds, got "
                f"{len(self.class_weight)}"
            )
        return replace(self.scheme, several=tuple(range(n_labels)) if n_labels > 2 else ())

    def _check_foreground(self, annotations: Sequence[Annotation]) -> None:
        """Warn if 255 may have been meant as foreground. Batches of background alone are normal."""
        if any(annotation.n_labels > 2 for annotation in annotations):
            return
        self._has_seen_foreground = self._has_seen_foreground or any(a.truth.any() for a in annotations)
        if not (self._has_seen_foreground or all(a.is_fully_labelled for a in annotations)):
            unlabelled = self.scheme.unlabelled
            warnings.warn(
                f"labels hold {unlabelled} but no 1, and {unlabelled} counts as unlabelled. If it is the foreground, "
                f"give labels == {unlabelled}. If these images have no foreground, ignore this warning.",
                UserWarning,
                stacklevel=3,
            )

    def _check_range(self, images: Sequence[np.ndarray]) -> None:
        """Warn of images of float that sigma does not fit."""
        sigmas = [term.sigma for term in self.field.terms if isinstance(term, Contrast)]
        largest = max((float(image.max()) for image in images if image.dtype.kind == "f"), default=0.0)
        if sigmas and largest > _LARGEST_PIXEL * max(1.0, sigmas[0] / _DEFAULT_SIGMA):
            warnings.warn(
                # the same words for every batch, so that they are shown once
                f"images hold values far above 1, for which sigma={sigmas[0]:g} is too small: scale images to [0, 1], "
                "or give a sigma in their units",
                UserWarning,
                stacklevel=3,
            )

    def _gradients(self, solution: Solution, examples: Sequence[Example]) -> list[FloatArray]:
        if self.gradient == "kkt":
            try:
                system = LinearSystem(solution, examples, self.learner.C)
                return [system.gradient(n) for n in range(len(examples))]
            except DegenerateProgramError as error:
                warnings.warn(f"the envelope theorem gave the gradient: {error}", RuntimeWarning, stacklevel=2)
        return _envelope_gradients(solution, examples)


def warn_unless_converged(solution: Solution, learner: CuttingPlanes) -> None:
    """Warn, by a ConvergenceWarning, if Algorithm 1 ended before its gap was closed."""
    if solution.converged:
        return
    gap = "unlabelled pixels could still take better labels"
    if solution.dual_gap > learner.tol * solution.value:
        lower, share = solution.value - solution.dual_gap, solution.dual_gap / solution.value
        gap = f"gamma is between {lower:.6g} and {solution.value:.6g}, a relative gap of {share:.2g}"
    if solution.inference_gap > 0:
        gap += f". Labelings that were not found may add up to {solution.inference_gap:.3g} to the upper bound"
    elif np.isnan(solution.inference_gap):
        gap += ". Labelings that were not found may add to the upper bound"
    warnings.warn(
        f"Algorithm 1 did not converge in max_iter={learner.max_iter} passes: {gap}. Increase max_iter or tol.",
        ConvergenceWarning,
        stacklevel=3,
    )


def warn_of_negative_weight(w: FloatArray) -> None:
    """Warn, by a UserWarning, if the weight of the log-odds inverts their meaning."""
    if w[0] < -_NO_WEIGHT:
        warnings.warn(
            "the weight of the log-odds, coef_[0], is negative: higher log-odds mean background. Either labels are "
            "inverted, or the network has learned nothing yet.",
            UserWarning,
            stacklevel=3,
        )


def _envelope_gradients(solution: Solution, examples: Sequence[Example]) -> list[FloatArray]:
    """The gradient of each image."""
    return [example.gradient(solution.w, m) for example, m in zip(examples, solution.multipliers)]


def _as_list(values: TensorsLike, name: str) -> list[Any]:
    """The entries of a batch of labels or images. The channel of labels is dropped later, where they are read."""
    return list(as_sequence(values, name, dimensions=(3, 4))[0])


def _as_log_odds(log_odds: TensorsLike) -> list[torch.Tensor]:
    """The log-odds (H, W), or scores (K, H, W), of each image as tensors of float32 or float64."""
    checked = []
    for n, l in enumerate(as_sequence(log_odds, "log_odds", dimensions=(3, 4))[0]):
        if not isinstance(l, torch.Tensor) or not l.is_floating_point():
            kind = l.dtype if isinstance(l, torch.Tensor) else type(l).__name__
            raise TypeError(f"log_odds[{n}] must be a tensor of float, got {kind}")
        l = l if l.dtype == torch.float64 else l.float()
        checked.append(l[0] if l.ndim == 3 and len(l) == 1 else l)
    n_maps = list(map(_n_maps, checked))
    for n, one in enumerate(n_maps):
        if one != n_maps[0]:
            raise ValueError(
                f"log_odds must have the same number of maps for each image, but log_odds[{n}] has {one}, and "
                f"log_odds[0] has {n_maps[0]}"
            )
    return checked


def _n_maps(log_odds: torch.Tensor) -> int:
    return len(log_odds) if log_odds.ndim == 3 else 1


def _check_shapes(log_odds: Sequence[torch.Tensor], shapes: Sequence[tuple[int, ...]], of: str) -> None:
    if len(log_odds) != len(shapes):
        raise ValueError(f"log_odds and {of} must have the same length, got {len(log_odds)} and {len(shapes)}")
    for n, (l, shape) in enumerate(zip(log_odds, shapes)):
        if l.shape != shape and not (_n_maps(l) > 2 and l.shape[1:] == shape):
            raise ValueError(f"log_odds[{n}] has shape {tuple(l.shape)}, but its {of} have {shape}")
        if not bool(torch.isfinite(l).all()):
            raise ValueError(f"log_odds[{n}] contains NaN or infinite values")


def _values(log_odds: Sequence[torch.Tensor]) -> list[FloatArray]:
    """Arrays of log-odds. Those of one size come from the device together."""
    if len({l.shape for l in log_odds}) == 1:
        return list(torch.stack(tuple(log_odds)).numpy(force=True))
    return [l.numpy(force=True) for l in log_odds]


def _as_tensor(value: float, gradients: Sequence[FloatArray], log_odds: Sequence[torch.Tensor]) -> torch.Tensor:
    """A tensor of a value, with its gradients in log-odds."""
    if len({l.shape for l in log_odds}) == 1:  # they go to the device together
        log_odds, gradients = [torch.stack(tuple(log_odds))], [np.stack(gradients)]
    result = log_odds[0].new_tensor(value)
    for l, gradient in zip(log_odds, gradients):
        result = result + (torch.from_numpy(gradient).to(l) * (l - l.detach())).sum()
    return result
