"""Base classes and functions of the estimators."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any, Literal

import numpy as np
import torch
from joblib import hash as hash_of
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EpochTimer
from torch import nn

from skmmcrf._docs import documented
from skmmcrf._shown import shortened, shown
from skmmcrf._typing import FloatArray, ImagesLike, IntArray, LabelArray, LabelledImagesLike, LabelsLike
from skmmcrf._version import __version__
from skmmcrf.estimators.files import are_floats, check_classes, save
from skmmcrf.field.energy import Field, least_labelings, optimality_gaps, smoothed_log_odds
from skmmcrf.field.grid import Connectivity, Grid
from skmmcrf.field.pair_weights import PairWeights
from skmmcrf.field.terms import build_terms, estimate_sigma
from skmmcrf.images.checking import (
    LabelledImages,
    as_given,
    check_images,
    check_labelled_images,
    check_sample_weight,
    check_validation_data,
    warn_of_range,
)
from skmmcrf.images.labels import CLASS_WEIGHT_BOUNDS, LabelScheme
from skmmcrf.learning import CuttingPlanes, Solution
from skmmcrf.metrics.means import jaccard_of_annotations, warned_mean
from skmmcrf.networks.running import Runner, resolve_device
from skmmcrf.training.augmentation import Augmentation, build_augmentation, naming_failures, warn_of_normalize
from skmmcrf.training.batches import batch_sizes
from skmmcrf.training.callbacks import KeepBest, learning_rate_schedule
from skmmcrf.training.checkpoints import Checkpoints, KeepState, open_checkpoints
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.progress import epoch_progress
from skmmcrf.training.random_states import seeded

# the types of the global variables that count in the name of a function
_DATA = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, np.ndarray, np.generic, torch.Tensor)
#: By which the inference gap of learned weights is bounded.
BOUND_ROUNDS = 10

# of n_iter_no_change="auto": while the learning rate is high, a tenth of all epochs may bring no better index
_SHARE_OF_PATIENCE, _LEAST_PATIENCE = 1 / 5, 5

# no learner comes near: with the largest C, half the square of w costs less than the most that slacks can
_LARGEST_WEIGHT = 1e12

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


class BaseSegmenter(BaseEstimator):
    """Base of estimators that give every pixel of an image a label.

    `_fitted_attributes` names the fitted attributes that files keep, with scikit-learn's constraints on their values.
    See `skmmcrf.estimators.files`.
    """

    _fitted_attributes: dict[str, Any] = {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether those of estimators among them are given too.

        Returns
        -------
        dict of str to object
        """
        parameters = super().get_params(deep=False)
        # not of everything that has a get_params: that of torchvision's transforms is another
        for name, value in list(parameters.items()) if deep else []:
            if isinstance(value, BaseEstimator):
                parameters |= {f"{name}__{key}": inner for key, inner in value.get_params().items()}
        return parameters

    def __sklearn_clone__(self) -> Any:
        parameters = self.get_params(deep=False).items()
        others = {n: v for n, v in parameters if hasattr(v, "get_params") and not isinstance(v, (BaseEstimator, type))}
        bare = copy.copy(self).set_params(**dict.fromkeys(others))
        return super(BaseSegmenter, bare).__sklearn_clone__().set_params(**copy.deepcopy(others))

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except InvalidParameterError as error:  # it quotes the whole value
            raise InvalidParameterError(shortened(error)) from None
        for name, kinds in self._parameter_constraints.items():
            value = getattr(self, name)
            # scikit-learn takes True as the number 1
            if isinstance(value, bool) and not any(kind in ("boolean", "verbose") for kind in kinds):
                raise TypeError(f"{name} must not be {value}, which is no number")

    @property
    def _settings(self) -> Any:
        """The estimator whose parameters say how labels are read and the network is run."""
        return self

    @property
    def _label_scheme(self) -> LabelScheme:
        """How labels are read, which scorers and displays ask for."""
        settings = self._settings
        if not hasattr(settings, "classes_"):
            return scheme_of(settings)
        classes = tuple(map(int, settings.classes_))
        if len(classes) == 2:
            return LabelScheme(classes[1], settings.ignore_label)
        return LabelScheme(ignore_label=settings.ignore_label, several=classes)

    @documented
    def score(self, X: ImagesLike, y: LabelsLike | None = None, sample_weight: ArrayLike | None = None) -> float:
        """Give the mean Jaccard index of the predictions.

        Parameters
        ----------
        %(X)s
        %(y_to_fit)s
        %(sample_weight)s

        Returns
        -------
        float
            Between 0 and 1. Unlabelled pixels do not count. For more than two classes, the index of an image is the
            mean over the classes in its truth or its prediction. Images whose truth and prediction are both empty are
            left out. The score is NaN if all images are left out. To count them as right, score by
            ``make_segmentation_scorer("jaccard", both_empty="perfect")`` of `skmmcrf.metrics`.

        Warns
        -----
        UserWarning
            If it is NaN.
        """
        check_is_fitted(self)
        data = check_labelled_images(X, y, self._label_scheme, n_channels=self.n_channels_in_)
        weights = check_sample_weight(sample_weight, len(data))
        given = data.images if data.is_lazy else X  # where they tell if they are others than before
        labelings = (data.scheme.numbered(np.asarray(labels))[0] for labels in self.predict(given))
        return warned_mean(jaccard_of_annotations(data.annotations, labelings), weights)

    def _as_labels(self, labeling: LabelArray) -> IntArray:
        """The labels of the user."""
        classes = self._label_scheme.classes
        dtype: type[np.integer] = np.uint8 if classes[0] >= 0 and classes[-1] <= 255 else np.int32
        return np.array(classes, dtype)[labeling.astype(np.uint8)]

    def _check_is_binary(self, name: str, instead: str) -> None:
        """Raise a ValueError if a method is called that is for two labels."""
        check_is_fitted(self)
        if n_labels := len(self._label_scheme.several):
            raise ValueError(f"{name} is for two labels, and this model has {n_labels}: see {instead}")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to a file without pickle. `skmmcrf.load` reads it, on any machine.

        If writing fails, an older file of that name stays. A new file has the rights of the old one. If the path is a
        link, the file that it leads to is written.

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
            If no file can hold a fitted attribute. If the estimator is not a DeepStructuredSegmenter, CNNSegmenter or
            MaxMarginCRF.
        OSError
            If the file can't be written. This is so if the path leads to a folder, a pipe or a device.

        Warns
        -----
        UserWarning
            If a file can't hold a parameter, which then is None after loading. These are `memory`, `checkpoint`, and
            objects such as a RandomState, callbacks or transforms. Set them again before you fit the loaded estimator.
            A `network` that is a module or a function must be given to `skmmcrf.load`.

        Examples
        --------
        See `skmmcrf.load`.
        """
        save(self, path)

    def _check_fitted(self) -> None:
        """Raise a ValueError if fitted attributes, as a file said them, do not belong together."""
        check_classes(self._settings.classes_, self._settings.pos_label)
        scheme = self._label_scheme
        scheme.check_class_weight(self._settings.class_weight, [])
        (low, high), weights, n_labels = CLASS_WEIGHT_BOUNDS, self._settings.class_weight_, len(scheme.classes)
        if not (are_floats(weights, (n_labels,)) and ((low <= weights) & (weights <= high)).all()):
            number = "two" if n_labels == 2 else n_labels
            raise ValueError(f"class_weight_ must be {number} numbers between {low:g} and {high:g}")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class FieldSegmenter(BaseSegmenter):
    """Base of segmenters with a field: its parameters, its fitted attributes and its minimum cuts."""

    C: float
    pairwise: str
    compatibility: str
    connectivity: Connectivity
    sigma: float | str
    tol: float
    max_iter: int
    n_jobs: int | None

    coef_: FloatArray
    objective_: float | None
    dual_gap_: float | None
    inference_gap_: float | None
    slack_: FloatArray | None
    sigma_: float | None
    n_iter_: int | None

    def _validate_params(self) -> None:
        super()._validate_params()
        Grid.from_connectivity(self.connectivity)

    def _check_fitted(self) -> None:
        super()._check_fitted()
        weights, w = self._weights(), self.coef_
        n_weights = weights.n_weights
        if not (are_floats(w, (n_weights,)) and (np.abs(w) <= _LARGEST_WEIGHT).all() and (w[1:] >= 0).all()):
            raise ValueError(
                f"coef_ must be {n_weights} finite numbers, at most {_LARGEST_WEIGHT:g} in size, those of pairwise "
                "terms not negative"
            )
        try:
            weights.check(w)
        except ValueError as error:
            raise ValueError(f"coef_ must be weights of a field: {error}") from None
        of_field = (self.objective_, self.dual_gap_, self.inference_gap_, self.slack_, self.n_iter_)
        has_field = all(value is not None for value in of_field)
        if not (has_field or all(value is None for value in of_field)):
            raise ValueError("objective_, dual_gap_, inference_gap_, slack_ and n_iter_ must be None together")
        if has_field:
            _check_solution(self.objective_, self.dual_gap_, self.inference_gap_, self.slack_)
        if (self.sigma_ is not None) != (has_field and self.pairwise == "contrast"):
            raise ValueError("sigma_ must be a number with the contrast term, and None without it")

    @property
    def pair_weights_(self) -> FloatArray:
        """The weights of each pairwise term as a matrix over the classes, ndarray of shape (n_terms, K, K)."""
        check_is_fitted(self)
        return self._weights().matrices(self.coef_)

    def _weights(self, n_labels: int | None = None) -> PairWeights:
        """What the entries of `coef_` mean, by default for the classes of the last fit."""
        return self._field(1.0).weights(n_labels or len(self._label_scheme.classes))

    def _learner(self, bound_rounds: int = 0) -> CuttingPlanes:
        return CuttingPlanes(self.C, self.tol, self.max_iter, self.n_jobs, bound_rounds)

    def _estimate_sigma(self, data: LabelledImages) -> float | None:
        """The sigma of the contrast term, or None without that term."""
        if self.pairwise != "contrast":
            return None
        if self.sigma != "auto":
            return float(self.sigma)
        weights = [annotation.weight for annotation in data.annotations]
        return estimate_sigma(Grid.from_connectivity(self.connectivity), data.images, weights)

    def _field(self, sigma: float | None) -> Field:
        return Field(Grid.from_connectivity(self.connectivity), build_terms(self.pairwise, sigma), self.compatibility)

    def _take_solution(self, solution: Solution, sigma: float | None) -> None:
        # at once, as an interrupt may come at any moment
        self.__dict__.update(
            coef_=solution.w,
            objective_=solution.value,
            dual_gap_=solution.dual_gap,
            inference_gap_=solution.inference_gap if self._label_scheme.several else 0.0,
            slack_=solution.slack,
            n_iter_=solution.n_iter,
            sigma_=sigma,
        )

    def _segment(
        self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True
    ) -> Iterator[LabelArray]:
        """Labelings of least energy of what a network gives and images (H, W, channels), one after the other."""
        return least_labelings(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)

    def _smooth(
        self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True
    ) -> Iterator[NDArray[np.float32]]:
        """Smoothed log-odds of the same."""
        if not self.coef_[0] > 0:
            raise ValueError(
                f"predict_confidence smooths log-odds of positive weight, but coef_[0] is {self.coef_[0]:g}: see "
                "whether log-odds and labels belong together, or fit with a larger C"
            )
        return smoothed_log_odds(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)

    def _gaps(self, results: Iterable[tuple[FloatArray, np.ndarray]], *, overlap: bool = True) -> FloatArray:
        """How far the labelings of the same may be from those of least energy, (n,)."""
        gaps = optimality_gaps(self.coef_, self._energies(results), self.n_jobs, overlap=overlap)
        return np.array(list(gaps), dtype=float)

    def _energies(self, results: Iterable[tuple[FloatArray, np.ndarray]]) -> Iterator[Any]:
        field = self._fitted_field()
        return (field.energy(l, image) for l, image in results)

    def _fitted_field(self) -> Field:
        """The field that `coef_` weighs, or a ValueError if its parameters were changed after fit."""
        n_weights, n_fitted = self._weights().n_weights, len(self.coef_)
        if n_weights != n_fitted:
            raise ValueError(
                f"pairwise={self.pairwise!r} and compatibility={self.compatibility!r} need {n_weights} weights, but "
                f"fit learned {n_fitted} with other parameters: set them back, or fit again"
            )
        return self._field(self.sigma_)


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
        if not any(has_foreground(data)):
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
            if not any(has_foreground(validation)):
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
        with_foreground = has_foreground(data)
        for poor, rich, n_needed in ((kept, held_out, 0), (held_out, kept, 1)):
            spare = [k for k, n in enumerate(rich) if with_foreground[n]]
            if len(spare) > n_needed and not any(with_foreground[n] for n in poor):
                poor[0], rich[spare[0]] = rich[spare[0]], poor[0]
        left, watched = data.chosen(kept), data.chosen(held_out)
        watched.check_lasting()
        try:
            return weighted_anew(left), watched
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


def check_not_empty(path: Any, name: str) -> None:
    """Raise a ValueError if a path is empty, which would mean the working directory."""
    if isinstance(path, str) and not path:
        raise ValueError(f"{name} must be a path that is not empty, or None. '.' is the working directory")


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


def has_foreground(data: LabelledImages) -> list[bool]:
    """Whether each image has foreground, or of several classes any, without which there is no index."""
    return [bool((a.truth if a.n_labels == 2 else a.labelled).any()) for a in data.annotations]


def with_classes_last(maps: FloatArray) -> FloatArray:
    """Give log-odds (H, W) as they are, and scores (K, H, W) as (H, W, K)."""
    return maps if maps.ndim == 2 else np.moveaxis(maps, 0, -1)


def _probabilities(maps: FloatArray) -> FloatArray:
    """The probabilities (H, W, K) of log-odds (H, W) or scores (K, H, W)."""
    return expit(np.stack([-maps, maps], axis=-1)) if maps.ndim == 2 else softmax(with_classes_last(maps), axis=-1)


def weighted_anew(data: LabelledImages) -> LabelledImages:
    """Scale the weights of images that are left to a mean of 1.

    Raises
    ------
    ValueError
        If all are 0.
    """
    weights = [annotation.weight for annotation in data.annotations]
    if not any(weights):
        raise ValueError(
            "sample_weight is 0 for all images that are left to train on: leave images without weight out of X, or "
            "hold out other images"
        )
    return data.weighted(check_sample_weight(weights, len(data)))


def scheme_of(settings: Any) -> LabelScheme:
    """Give the meaning of labels by the parameters of an estimator."""
    return LabelScheme.of_classes(settings.classes, settings.pos_label, settings.ignore_label)


def keep_state(checkpoints: Checkpoints | None, stage: str, **rest: Any) -> list[tuple[str, Callback]]:
    """Give the callback that keeps the state of training, with further entries."""
    return [] if checkpoints is None else [("keep_state", KeepState(checkpoints, stage, rest))]


def try_augmentation(data: LabelledImages, augmentation: str | Augmentation | None) -> None:
    """Raise a ValueError, before training begins, if an augmentation fails or does not give an image and a mask."""
    warn_of_normalize(augmentation)
    change = build_augmentation(augmentation)
    if change is not None:
        with seeded(0):
            TrainingSet(data, Changes(naming_failures(change)))[0, 0]


def names_of_data(data: LabelledImages) -> dict[str, str]:
    """Name images, labels and weights by their content."""
    # one at a time, as they may be many
    return {
        "X": hash_of([hash_of(image) for image in data.images]),
        "y": hash_of([hash_of(annotation.mask) for annotation in data.annotations]),
        "sample_weight": hash_of([annotation.weight for annotation in data.annotations]),
        "class_weight": hash_of([annotation.class_weight for annotation in data.annotations]),
    }


def as_text(value: Any, within: tuple[int, ...] = ()) -> str:
    """Describe a parameter, the same in every process.

    Functions count by their code, and by the data and functions of their module that they use. Objects that print
    their address count by what they hold, and by what calling them does.
    """
    if id(value) in within:
        return "itself"
    inner = partial(as_text, within=(*within, id(value)))
    if isinstance(value, partial):
        return " ".join(map(inner, (value.func, *value.args, *sorted(value.keywords.items()))))
    if isinstance(value, MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, FunctionType):
        looks = [value.__code__, value.__defaults__, value.__kwdefaults__, _globals_of(value)]
        looks += [cell.cell_contents for cell in value.__closure__ or ()]
        return f"{value.__qualname__} {hash_of([inner(part) for part in looks])}"
    if isinstance(value, CodeType):
        return hash_of([value.co_code, value.co_names, [inner(constant) for constant in value.co_consts]])
    if isinstance(value, torch.Tensor):
        return hash_of(value.numpy(force=True))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return hash_of(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{inner(key)}: {inner(part)}' for key, part in value.items()))}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = map(inner, value)
        return f"[{', '.join(parts if isinstance(value, (list, tuple)) else sorted(parts))}]"
    text = repr(value)
    if " at 0x" not in text and not isinstance(value, nn.Module):
        return text
    name = getattr(value, "__qualname__", type(value).__qualname__)
    calls = getattr(type(value), "forward" if isinstance(value, nn.Module) else "__call__", None)
    called = f"calling {inner(calls)} " if isinstance(calls, FunctionType) else ""
    return f"{name} {called}{inner(getattr(value, '__dict__', {}))}"


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """The data and functions of its own module that a function uses by name."""

    def names(code: CodeType) -> set[str]:
        return set(code.co_names).union(*(names(part) for part in code.co_consts if isinstance(part, CodeType)))

    def counts(value: Any) -> bool:
        return isinstance(value, _DATA) or (isinstance(value, FunctionType) and value.__module__ == function.__module__)

    known = function.__globals__
    return {name: known[name] for name in names(function.__code__) if name in known and counts(known[name])}


def _check_solution(objective: Any, dual_gap: Any, inference_gap: Any, slack: Any) -> None:
    # objective and slacks are NaN where they are not known
    if not are_floats(slack, (None,)) or not len(slack) or (slack < 0).any():
        raise ValueError("slack_ must be a vector of float, without negative numbers")
    if objective < 0 or not dual_gap >= 0:
        raise ValueError("objective_ and dual_gap_ must not be negative")
    if inference_gap < 0:
        raise ValueError("inference_gap_ must not be negative")


def _is_epoch(row: Any) -> bool:
    if not isinstance(row, dict) or row.get("stage") not in ("cnn", "joint"):
        return False
    return type(row.get("epoch")) is int and row["epoch"] >= 0
