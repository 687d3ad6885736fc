"""The base of all estimators."""

import copy
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted

from skmmcrf._docs import documented
from skmmcrf._shown import shortened
from skmmcrf._typing import ImagesLike, IntArray, LabelArray, LabelsLike
from skmmcrf.estimators.files import are_floats, check_classes, save
from skmmcrf.images.checking import (
    check_labelled_images,
    check_sample_weight,
)
from skmmcrf.images.labels import CLASS_WEIGHT_BOUNDS, LabelScheme
from skmmcrf.metrics.means import jaccard_of_annotations, warned_mean


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
            with np.errstate(over="ignore"):  # of bounds that are compared with float32
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


def scheme_of(settings: Any) -> LabelScheme:
    """Give the meaning of labels by the parameters of an estimator."""
    return LabelScheme.of_classes(settings.classes, settings.pos_label, settings.ignore_label)


def check_not_empty(path: Any, name: str) -> None:
    """Raise a ValueError if a path is empty, which would mean the working directory."""
    if isinstance(path, str) and not path:
        raise ValueError(f"{name} must be a path that is not empty, or None. '.' is the working directory")
