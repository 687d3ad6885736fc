"""The base of estimators that train a network."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from joblib import hash as hash_of
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EpochTimer

from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import FloatArray, ImagesLike, LabelledImagesLike, LabelsLike
from skmmcrf._version import __version__
from skmmcrf.estimators.base import BaseSegmenter, check_not_empty, scheme_of
from skmmcrf.estimators.identity import as_text, names_of_data
from skmmcrf.images.checking import (
    LabelledImages,
    as_given,
    check_images,
    check_labelled_images,
    check_sample_weight,
    check_validation_data,
    warn_of_range,
)
from skmmcrf.images.labels import LabelScheme
from skmmcrf.networks.running import Runner, resolve_device
from skmmcrf.training.augmentation import Augmentation, warn_of_normalize
from skmmcrf.training.batches import batch_sizes
from skmmcrf.training.callbacks import KeepBest, learning_rate_schedule
from skmmcrf.training.checkpoints import Checkpoints, KeepState, open_checkpoints
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.progress import epoch_progress
from skmmcrf.training.random_states import seeded

# of n_iter_no_change="auto": while the learning rate is high, a tenth of all epochs may bring no better index
_SHARE_OF_PATIENCE, _LEAST_PATIENCE = 1 / 5, 5

# parameters that do not change what is learned, or do so by the network that training starts from
_OF_NO_INFLUENCE = {
    *("network", "weights", "cnn", "callbacks", "checkpoint", "device", "memory", "n_jobs", "num_workers", "verbose"),
    "warm_start",
}

# names of callbacks of the estimators, and of skorch
_OWN_CALLBACKS = {
    *("schedule", "jaccard", "algorithm", "seconds", "lines", "bar", "keep_best", "keep_state"),
    *("epoch_timer", "train_loss", "valid_loss", "print_log"),
}


class NetworkSegmenter(BaseSegmenter):
    """Base of segmenters that train a network."""

    n_epochs: int | Literal["auto"]
    n_iter_no_change: int | Literal["auto"]

    _parameter_constraints = {
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "callbacks": [list, None],
        "checkpoint": [None, str, PathLike],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        check_not_empty(self.checkpoint, "checkpoint")
        _check_callbacks(self.callbacks or [])

    def _check_fitted(self) -> None:
        super()._check_fitted()
        if not all(map(_is_epoch, self.history_)):
            raise ValueError('history_ must be a list of dict, each with its stage, "cnn" or "joint", and its epoch')

    @documented
    def decision_function(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Give the network's log-odds of foreground, or its scores of several classes, without the field.

        They say how sure the network is of a pixel. Their sign is not the label: `predict` labels by network and field
        together. Of K classes, more than two, the softmax of the scores gives the probabilities.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of float32 and shape (n, H, W), or list of ndarray of shape (H, W)
            Of K classes (n, H, W, K), or a list of (H, W, K).
        """
        return as_given([with_classes_last(maps) for maps, _ in self._run_network(X)], X)

    @documented
    def predict_proba(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Give the network's probabilities, without the field.

        They say how sure the network is of a pixel. The most probable classes are not the labels: `predict` labels by
        network and field together.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of float32 and shape (n, H, W, K), or list of ndarray of shape (H, W, K)
            Of the K classes in the order of `classes_`, so of background and foreground for two.
        """
        return as_given([_probabilities(maps) for maps, _ in self._run_network(X)], X)

    def _run_network(self, X: ImagesLike) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
        """Log-odds (H, W) or scores (K, H, W), and image (H, W, channels), one image after the other."""
        check_is_fitted(self)
        images = check_images(X, n_channels=self.n_channels_in_)
        warn_of_range(images[0], "X[0]")
        return self._runner().run(self.network_, images)

    def epochs_for(self, n_images: int) -> int:
        """Give the epochs of a training on so many images, which are never more than those for one image."""
        return int(self.n_epochs)

    def _runner(self) -> Runner:
        cnn = self._settings
        ways = (cnn.average_mirrored, getattr(cnn, "network_scale_", cnn.network_scale), cnn.amp)
        n_maps = cnn._label_scheme.n_maps
        return Runner(cnn.batch_size, resolve_device(cnn.device), *ways, progress=bool(self.verbose), n_maps=n_maps)

    def _check_data(
        self,
        settings: Any,
        X: ImagesLike,
        y: LabelsLike | None,
        sample_weight: ArrayLike | None,
        validation_data: LabelledImagesLike | None,
        scheme: LabelScheme | None = None,
    ) -> tuple[LabelledImages, LabelledImages | None]:
        """Check and weight training and validation images, whose labels are read by an estimator's settings.

        The classes are those in y, unless the settings name them, or a scheme is given, of a network that is trained
        already.
        """
        data = check_labelled_images(X, y, scheme or scheme_of(settings), find_classes=scheme is None)
        scheme = data.scheme
        if not any(annotation.labelled.any() for annotation in data.annotations):
            raise ValueError(f"y has no labelled pixel: all are {scheme.unlabelled}, which means unlabelled")
        warn_of_range(data[0][0], "X[0]")
        if not any(data.has_foreground):
            warnings.warn("y has no foreground in any image, so the model learns to find none", stacklevel=3)
        weights = check_sample_weight(sample_weight, len(data))
        validation = check_validation_data(validation_data, scheme, data.n_channels)
        data, validation = self.hold_out(data.weighted(weights), validation)
        return data.with_class_weight(scheme.check_class_weight(settings.class_weight, data.annotations)), validation

    def hold_out(
        self, data: LabelledImages, validation: LabelledImages | None
    ) -> tuple[LabelledImages, LabelledImages | None]:
        """Hold out the validation images that `validation_fraction` asks for, if none are given.

        Raises
        ------
        ValueError
            If no image would be left to train on. If `early_stopping` has no foreground to validate on.
        """
        if validation is None and self.validation_fraction is not None:
            data, validation = self._split(data)
        if self.early_stopping:
            if validation is None:
                raise ValueError(
                    f"early_stopping of {type(self).__name__} needs validation images: give fit validation_data, or "
                    "this estimator a validation_fraction"
                )
            if not any(validation.has_foreground):
                raise ValueError(
                    f"early_stopping of {type(self).__name__} needs the Jaccard index, which is not defined, because "
                    "no validation image has foreground: give fit other validation_data, or this estimator a larger "
                    "validation_fraction"
                )
        return data, validation

    def _split(self, data: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
        """Split into training and validation images, with foreground in both if possible."""
        try:
            kept, held_out = train_test_split(
                range(len(data)), test_size=self.validation_fraction, random_state=check_random_state(self.random_state)
            )
        except ValueError as error:
            raise ValueError(f"validation_fraction leaves no image to train on: {error}") from error
        with_foreground = data.has_foreground
        for poor, rich, n_needed in ((kept, held_out, 0), (held_out, kept, 1)):
            spare = [k for k, n in enumerate(rich) if with_foreground[n]]
            if len(spare) > n_needed and not any(with_foreground[n] for n in poor):
                poor[0], rich[spare[0]] = rich[spare[0]], poor[0]
        left, watched = data.chosen(kept), data.chosen(held_out)
        watched.check_lasting()
        try:
            return left.weighted_anew(), watched
        except ValueError as error:
            raise ValueError(f"validation_fraction: {error}") from error

    @contextmanager
    def _open_checkpoints(
        self,
        start: Callable[[], dict[str, np.ndarray]],
        data: LabelledImages,
        validation: LabelledImages | None,
        **parameters: Any,
    ) -> Iterator[Checkpoints | None]:
        """The states of a fit that starts from the arrays that a function gives, if they are kept."""
        if self.checkpoint is None:
            yield None
            return
        if not isinstance(self.random_state, Integral):
            raise ValueError(
                f"checkpoint needs an int as random_state, got {shown(self.random_state)}: without it a fit "
                "that is started again would differ"
            )
        identity = {"skmmcrf": __version__, "network": hash_of(start()), **names_of_data(data)}
        for name, value in (names_of_data(validation) if validation else {}).items():
            identity[f"{name} of validation_data"] = value
        for name, value in (self.get_params(deep=False) | parameters).items():
            if name.rpartition("__")[2] not in _OF_NO_INFLUENCE:
                identity[name] = as_text(value)
        with open_checkpoints(Path(self.checkpoint) / hash_of(identity)) as checkpoints:
            if self.verbose:
                print(checkpoints, flush=True)
            yield checkpoints

    def _callbacks(
        self, stage: str, n_images: int, measures: list[tuple[str, Callback]], at_start: float | None = None
    ) -> list[Any]:
        """The callbacks of a stage of training. `at_start` is the validation index that it begins with."""
        n_epochs = self.epochs_for(n_images)
        schedule = learning_rate_schedule(self.schedule, n_epochs * len(batch_sizes(n_images, self.batch_size)))
        callbacks: list[Any] = [("schedule", schedule)] if schedule else []
        callbacks += [*measures, ("seconds", EpochTimer()), *epoch_progress(stage, n_images, self.verbose)]
        callbacks += self.callbacks or []
        if self.early_stopping:
            callbacks.append(("keep_best", KeepBest(self._patience(n_epochs), at_start, self.verbose)))
        return callbacks

    def _patience(self, n_epochs: int) -> int:
        """The epochs without a better index after which early stopping ends a training of so many."""
        if self.n_iter_no_change == "auto":
            return max(_LEAST_PATIENCE, round(_SHARE_OF_PATIENCE * n_epochs))
        return int(self.n_iter_no_change)


def keep_state(checkpoints: Checkpoints | None, stage: str, **rest: Any) -> list[tuple[str, Callback]]:
    """Give the callback that keeps the state of training, with further entries."""
    return [] if checkpoints is None else [("keep_state", KeepState(checkpoints, stage, rest))]


def try_augmentation(data: LabelledImages, augmentation: str | Augmentation | None) -> None:
    """Raise a ValueError, before training begins, if an augmentation fails or does not give an image and a mask."""
    warn_of_normalize(augmentation)
    if augmentation is not None:
        with seeded(0):
            TrainingSet(data, Changes(augmentation))[0, 0]


def with_classes_last(maps: FloatArray) -> FloatArray:
    """Give log-odds (H, W) as they are, and scores (K, H, W) as (H, W, K)."""
    return maps if maps.ndim == 2 else np.moveaxis(maps, 0, -1)


def _probabilities(maps: FloatArray) -> FloatArray:
    """The probabilities (H, W, K) of log-odds (H, W) or scores (K, H, W)."""
    return expit(np.stack([-maps, maps], axis=-1)) if maps.ndim == 2 else softmax(with_classes_last(maps), axis=-1)


def _check_callbacks(callbacks: list[Any]) -> None:
    """Raise an error unless these are skorch's callbacks that can work, or pairs of a name and such a callback."""
    named = [entry if isinstance(entry, (tuple, list)) else ("", entry) for entry in callbacks]
    for n, pair in enumerate(named):
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], Callback):
            got = f"the class {callbacks[n].__name__}" if isinstance(callbacks[n], type) else shown(callbacks[n])
            raise TypeError(
                f"callbacks[{n}] must be an instance of skorch.callbacks.Callback, or a pair of a name and such an "
                f"instance, got {got}"
            )
        if getattr(pair[1], "use_caching", False) and getattr(pair[1], "on_train", False):
            raise ValueError(
                f"callbacks[{n}]: {type(pair[1]).__name__} can't keep predictions of batches: give it use_caching=False"
            )
    given = [name or type(one).__name__ for name, one in named]
    taken = _OWN_CALLBACKS | {name for (asked, _), name in zip(named, given) if not asked}
    for name, _ in named:
        if name and (name in taken or given.count(name) > 1):
            raise ValueError(f"callbacks: the name {name!r} is taken, by another callback or by the estimator's own")


def _is_epoch(row: Any) -> bool:
    if not isinstance(row, dict) or row.get("stage") not in ("cnn", "joint"):
        return False
    return type(row.get("epoch")) is int and row["epoch"] >= 0
