"""What all estimators of the package share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from joblib import hash as hash_of
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

from skmmcrf import persistence
from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, LabelledImages, LabelledImagesLike, LabelsLike
from skmmcrf._version import __version__
from skmmcrf.augmentation import AUGMENTATIONS, Augmentation
from skmmcrf.callbacks import KeepBest
from skmmcrf.checkpoint import Checkpoints, KeepState, open_checkpoints
from skmmcrf.image_datasets import training_set
from skmmcrf.metrics import mean_of_defined
from skmmcrf.network_state import is_rebuildable, network_arrays, rebuild_network
from skmmcrf.networks.any_size import check_scales
from skmmcrf.random_states import seeded
from skmmcrf.sequences import Mapped
from skmmcrf.training import compute_log_odds, indices_of_truths, resolve_device, run_network
from skmmcrf.truth import Truth
from skmmcrf.validation import (
    LABEL_CONSTRAINTS,
    as_given,
    check_class_weight,
    check_images,
    check_labelled_images,
    check_sample_weight,
    check_validation_data,
    is_lazy,
)

# parameters that do not change what is learned, or do so by the network that training starts from
_OF_NO_INFLUENCE = {
    *("network", "weights", "callbacks", "checkpoint", "checkpoint_every"),
    *("device", "memory", "n_jobs", "verbose", "warm_start"),
}

#: Of the pickles; a new one when fitted attributes change their names or meaning.
PICKLE_FORMAT = 1


class BaseSegmenter(BaseEstimator):
    """Base of estimators that give every pixel of an image a label."""

    def score(self, X: ImagesLike, y: LabelsLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean Jaccard index of the predictions.

        Parameters
        ----------
        X : array of shape (n, H, W[, channels]) or sequence
            Images, as in fit.
        y : array of shape (n, H, W) or sequence
            Labels, as in fit.
        sample_weight : array of shape (n,), optional
            What each image counts.

        Returns
        -------
        float
            Between 0 and 1. Unlabelled pixels count nothing. Images whose truth and prediction are both empty are left
            out; NaN if all are.
        """
        check_is_fitted(self)
        _, truths = check_labelled_images(X, y, n_channels=self.n_channels_in_, **self._reading_of_labels())
        weights = check_sample_weight(sample_weight, len(truths))
        labelings = (np.asarray(labels) == self.pos_label for labels in self.predict(X))
        return mean_of_defined(indices_of_truths(truths, labelings), weights)

    def _reading_of_labels(self) -> dict[str, Any]:
        return {"pos_label": self.pos_label, "ignore_label": self.ignore_label}

    def _weigh(self, truths: Sequence[Truth], sample_weight: ArrayLike | None) -> FloatArray:
        """Set what images and pixels count; give the weights of both classes."""
        for truth, weight in zip(truths, check_sample_weight(sample_weight, len(truths))):
            truth.weight = float(weight)
        class_weight = check_class_weight(self.class_weight, truths, self.pos_label)
        for truth in truths:
            truth.class_weight = class_weight
        return np.array(class_weight)

    def _as_labels(self, labeling: BoolArray) -> NDArray[np.uint8]:
        return labeling.astype(np.uint8) * np.uint8(self.pos_label)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to a file without pickle, which `skmmcrf.load` reads, on any machine.

        The file is whole or not there: an older one of that name stays if something fails.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        NotFittedError
            If it is not fitted.
        ValueError
            If it could not be loaded again, because its parameters and fitted attributes don't belong together.
        TypeError
            If a fitted attribute is of a kind that no file can hold, or the estimator of another class than
            DeepStructuredSegmenter, CNNSegmenter and MaxMarginCRF.

        Warns
        -----
        UserWarning
            If a parameter can't be kept, and so has its default after loading: `memory`, `checkpoint`, and objects such
            as a RandomState, callbacks or transforms. A `network` that is a module or a function must be given to
            `skmmcrf.load`.

        Examples
        --------
        See `skmmcrf.load`.
        """
        persistence.save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_pickle_format": PICKLE_FORMAT, "_skmmcrf_version": __version__}
        network = state.get("network_")
        if network is not None and is_rebuildable(network, state["network"], state.get("n_channels_in_")):
            # plain arrays can be kept without pickle, as skops does
            state["network_"] = network_arrays(network)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = dict(state)
        version = attributes.pop("_skmmcrf_version", "before 0.1.0")
        if attributes.pop("_pickle_format", None) != PICKLE_FORMAT:
            raise ValueError(
                f"this pickle of a {type(self).__name__} was made by skmmcrf {version} and can't be read by "
                f"{__version__}: fit again; to keep models use their method save and skmmcrf.load"
            )
        if isinstance(attributes.get("network_"), dict):
            attributes["network_"] = rebuild_network(
                attributes["network"], attributes["n_channels_in_"], attributes["network_"]
            )
        super().__setstate__(attributes)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class NetworkSegmenter(BaseSegmenter):
    """Base of segmenters with a fitted `network_`, and what they share of its training."""

    _parameter_constraints = {
        **LABEL_CONSTRAINTS,
        "augmentation": AUGMENTATIONS,
        "average_mirrored": ["boolean"],
        "network_scale": [Interval(Real, 0, None, closed="neither"), list, tuple],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "callbacks": [list, None],
        "checkpoint": [None, str, PathLike],
        "checkpoint_every": [None, Interval(Integral, 1, None, closed="left")],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        check_scales(self.network_scale, "network_scale")

    def decision_function(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Compute the log-odds of foreground.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images, as in fit.

        Returns
        -------
        ndarray of float32 and shape (n, H, W), or list of ndarray of shape (H, W)
        """
        return as_given([log_odds for log_odds, _ in self._run_network(X)], X)

    def predict_proba(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Compute the probabilities of background and foreground.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or sequence
            Images, as in fit.

        Returns
        -------
        ndarray of float32 and shape (n, H, W, 2), or list of ndarray of shape (H, W, 2)
        """
        return as_given([expit(np.stack([-l, l], axis=-1)) for l, _ in self._run_network(X)], X)

    def _run_network(self, X: ImagesLike) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
        """Log-odds (H, W) and image (H, W, channels), one image after the other."""
        check_is_fitted(self)
        return self._results(check_images(X, n_channels=self.n_channels_in_))

    def _results(self, images: Sequence[np.ndarray]) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
        return run_network(self.network_, images, **self._running())

    def _log_odds(self, images: Sequence[np.ndarray]) -> Sequence[NDArray[np.float32]]:
        return compute_log_odds(self.network_, images, **self._running())

    def _running(self) -> dict[str, Any]:
        """How the fitted network is run."""
        return {
            "batch_size": self.batch_size,
            "device": resolve_device(self.device),
            "average_mirrored": self.average_mirrored,
            "scale": self.network_scale,
        }

    def _check_data(
        self,
        X: ImagesLike,
        y: LabelsLike | None,
        sample_weight: ArrayLike | None,
        validation_data: LabelledImagesLike | None,
    ) -> tuple[Sequence[np.ndarray], list[Truth], LabelledImages | None]:
        """Images and truths for training, with their weights, and those for validation."""
        if self.checkpoint is not None and not isinstance(self.random_state, Integral):
            raise ValueError(
                f"checkpoint needs an int as random_state, got {self.random_state!r}: else a fit that is started again "
                "is another one"
            )
        images, truths = check_labelled_images(X, y, **self._reading_of_labels())
        sample_weight = check_sample_weight(sample_weight, len(images))
        n_channels = images[0].shape[-1]
        validation = check_validation_data(validation_data, n_channels, **self._reading_of_labels())
        if validation is None and self.validation_fraction is not None:
            try:
                kept, held_out = train_test_split(
                    np.arange(len(images)),
                    test_size=self.validation_fraction,
                    random_state=check_random_state(self.random_state),
                )
            except ValueError as error:
                raise ValueError(f"validation_fraction leaves no image to train on: {error}") from error
            validation = _chosen(images, held_out), [truths[n] for n in held_out]
            images, truths = _chosen(images, kept), [truths[n] for n in kept]
            sample_weight = sample_weight[kept]
        if validation is None and self.early_stopping:
            raise ValueError("early_stopping needs validation images: give validation_data or validation_fraction")
        self._weigh(truths, sample_weight)
        for name, augmentation in self._augmentations().items():
            if augmentation is not None:
                with seeded(0):  # try it before the work begins
                    training_set(images, truths, augmentation, name)[0]
        return images, truths, validation

    def _augmentations(self) -> dict[str, str | Augmentation | None]:
        """All that images are to be changed by, and the names of the parameters."""
        return {"augmentation": self.augmentation}

    def _open_checkpoints(
        self,
        start: Callable[[], dict[str, np.ndarray]],
        images: Sequence[np.ndarray],
        truths: Sequence[Truth],
        validation_data: LabelledImages | None,
    ) -> AbstractContextManager[Checkpoints | None]:
        """The folder of states, if one is wanted, of a fit that starts from the arrays that a function gives."""
        if self.checkpoint is None:
            return nullcontext()
        identity = {"skmmcrf": __version__, "network": hash_of(start()), **names_of_data(images, truths)}
        for name, value in names_of_data(*(validation_data or ([], []))).items():
            identity[f"{name} of validation_data"] = value
        for name, value in self.get_params(deep=False).items():
            if name not in _OF_NO_INFLUENCE:
                identity[name] = _as_text(value)
        return open_checkpoints(self.checkpoint, identity, self.checkpoint_every)

    def _keep_state(self, checkpoints: Checkpoints | None, stage: str, **rest: Any) -> list[tuple[str, Callback]]:
        """The callback that keeps the state of training, and something beside it."""
        return [] if checkpoints is None else [("keep_state", KeepState(checkpoints, stage, rest))]

    def _keep_best(self, at_start: float | None = None) -> list[tuple[str, Callback]]:
        """The callback of early stopping."""
        return [("keep_best", KeepBest(self.n_iter_no_change, at_start))] if self.early_stopping else []


def names_of_data(images: Sequence[np.ndarray], truths: Sequence[Truth]) -> dict[str, str]:
    """Name images, labels and weights by their content.

    Parameters
    ----------
    images : sequence of ndarray
    truths : sequence of Truth

    Returns
    -------
    dict of str to str
    """
    # one at a time, as they may be many
    return {
        "X": hash_of([hash_of(image) for image in images]),
        "y": hash_of([hash_of(truth.labels) for truth in truths]),
        "sample_weight": hash_of([truth.weight for truth in truths]),
    }


def _as_text(value: Any) -> str:
    """A name of a parameter that is the same in every process."""
    text = repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__) if " at 0x" in text else text


def _chosen(images: Sequence[np.ndarray], numbers: NDArray[np.int_]) -> Sequence[np.ndarray]:
    return Mapped(images.__getitem__, numbers.tolist()) if is_lazy(images) else [images[n] for n in numbers]
