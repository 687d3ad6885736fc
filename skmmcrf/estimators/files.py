"""Estimators in files: their parameters, and the fitted attributes that each class declares.

A class names its fitted attributes in `_fitted_attributes`, with scikit-learn's constraints on their values, or with
their kind, `NETWORK` or `ESTIMATOR`. Its method `_check_fitted` checks that they belong together.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any, TypeAlias

import joblib
import numpy as np
import torch
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf._shown import shortened, shown
from skmmcrf.field.labels import UNLABELLED
from skmmcrf.networks import build_network
from skmmcrf.networks.ensemble import MeanOfNetworks, one_of
from skmmcrf.networks.state import empty_network, load_arrays, network_arrays
from skmmcrf.training.loss import NORMAL_POSITIVE
from skmmcrf.training.state_files import check_target, write_file

OwnNetwork: TypeAlias = nn.Module | Callable[..., nn.Module]

#: Kinds of fitted attributes.
NETWORK, ESTIMATOR = "network", "estimator"

_COUNT = Interval(Integral, 0, None, closed="left")
# a user's own function builds a network for so many, so a file must not say any number
_CHANNELS = Interval(Integral, 1, 10_000, closed="both")

#: Fitted attributes that several classes have.
FITTED_LABELS = {"n_channels_in_": [_CHANNELS], "classes_": [np.ndarray], "class_weight_": [np.ndarray]}
FITTED_HISTORY = {"history_": [list]}
FITTED_FIELD = {
    "coef_": [np.ndarray],
    "objective_": [None, float],
    "dual_gap_": [None, float],
    "inference_gap_": [None, float],
    "slack_": [None, np.ndarray],
    "sigma_": [None, NORMAL_POSITIVE],
    "n_iter_": [None, _COUNT],
}

# joblib keeps pickles in a memory, and runs them when fit finds them; and fit writes to both and deletes there
_NEVER_IN_FILES = {"checkpoint", "memory"}


def save(estimator: Any, path: str | PathLike[str]) -> None:
    """Write a fitted estimator to a file. See `BaseSegmenter.save`."""
    check_is_fitted(estimator)
    check_target(path)
    left_out: set[str] = set()
    content = _described(estimator, left_out)
    fitted = getattr(estimator, "cnn_", estimator)
    own_network = None if isinstance(getattr(fitted, "network", ""), str) else one_of(fitted.network_)
    try:
        restore(content, {type(each).__name__: type(each) for each in (estimator, fitted)}, own_network)
    except ValueError as error:
        raise ValueError(f"{path} is not written, because it could not be loaded: {shortened(error)}") from error
    write_file(path, "estimator", content)
    if left_out:
        names = ", ".join(sorted(left_out))
        warnings.warn(f"{path} can't hold the parameters {names}: they are None after load", stacklevel=3)


def _described(estimator: Any, left_out: set[str]) -> dict[str, Any]:
    """The content of a file for an estimator. Names of parameters that no file can hold are added to a set."""
    if "_fitted_attributes" not in vars(type(estimator)):
        raise TypeError(f"a file can't hold a {type(estimator).__name__}, a subclass that load would not know")
    parameters = {}
    for name, value in estimator.get_params(deep=False).items():
        if name == "cnn" or (name == "network" and not isinstance(value, str)):
            continue  # the fitted one says what it was, or the user does when it is loaded
        if name in _NEVER_IN_FILES:
            left_out |= set() if value is None else {name}
        elif _is_plain(value := as_plain(value)):
            parameters[name] = value
        else:  # a default would say what is not so, such as an augmentation that was not trained with
            left_out.add(name)
            parameters[name] = None
    attributes = {}
    for name, kind in estimator._fitted_attributes.items():
        value = getattr(estimator, name)
        if kind == NETWORK:
            value = network_arrays(value)
        elif kind == ESTIMATOR:
            value = _described(value, left_out)
        attributes[name] = value.item() if isinstance(value, np.generic) else value
    return {"class": type(estimator).__name__, "parameters": parameters, "attributes": attributes}


def as_plain(value: Any) -> Any:
    """A parameter that means the same, of types that a file has."""
    if isinstance(value, dict):
        return {"items": [[as_plain(key), as_plain(entry)] for key, entry in value.items()]}
    if isinstance(value, (tuple, list, range)):
        return [as_plain(entry) for entry in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, torch.device):
        return str(value)
    return os.fspath(value) if isinstance(value, PathLike) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_plain(value["items"])
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def restore(content: Mapping[str, Any], classes: Mapping[str, type], network: OwnNetwork | None) -> Any:
    """Make the fitted estimator that the content of a file describes.

    The content may come from an unknown source. It is compared, checked and copied, never imported or called.

    Parameters
    ----------
    content : dict
        From `skmmcrf.training.state_files.read_file`.
    classes : dict of str to class
        The classes that it may be of, by their names.
    network : torch.nn.Module, callable or None
        The user's network, for an estimator whose parameter `network` is not a name.

    Returns
    -------
    estimator

    Raises
    ------
    ValueError
        If something is missing, unknown, or does not fit the rest.
    """
    parameters, attributes = _checked(content, classes)
    made: Any = classes[content["class"]]()
    if hasattr(made, "_learned_with"):  # for a warm start
        made._learned_with = dict(parameters)
    kinds = made._fitted_attributes
    if attributes.keys() != kinds.keys():
        differing = ", ".join(sorted(attributes.keys() ^ kinds.keys()))
        raise ValueError(f"the fitted attributes do not fit a {content['class']}: they differ in {differing}")
    if unknown := parameters.keys() - made.get_params(deep=False).keys() | (parameters.keys() & _NEVER_IN_FILES):
        raise ValueError(f"it can't set the parameters {sorted(unknown)} of {content['class']}")
    if "network" in made.get_params(deep=False) and "network" not in parameters:
        if network is None:
            raise ValueError("its network was a module or function of your own: give it as load(path, network=...)")
        parameters["network"] = network
    for name, kind in kinds.items():
        if kind == ESTIMATOR:
            attributes[name] = restore(attributes[name], classes, network)
            fitted = attributes[name]
            own = fitted.get_params(deep=False)
            # those that it has from the outer estimator stay that one's
            inherited = {key for key in ("random_state", "verbose") if own[key] == parameters.get(key)}
            parameters[name.removesuffix("_")] = type(fitted)(**{k: v for k, v in own.items() if k not in inherited})
    try:
        vars(made).update(parameters)
        made._validate_params()
        plain = {name: kind for name, kind in kinds.items() if isinstance(kind, list)}
        validate_parameter_constraints(plain, {name: attributes[name] for name in plain}, content["class"])
    except TypeError as error:
        raise ValueError(str(error)) from error
    for name, kind in kinds.items():
        if kind == NETWORK:
            attributes[name] = _network(made.network, attributes, attributes[name])
    vars(made).update(attributes)
    made._check_fitted()
    if parameters.get("n_jobs") is not None:  # a stranger must not start a thousand processes
        made.n_jobs = min(made.n_jobs, joblib.cpu_count())
    return made


def _checked(content: Any, classes: Mapping[str, type]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and attributes, after a check that each is where it should be."""
    wanted = {"class": str, "parameters": dict, "attributes": dict}
    if not isinstance(content, dict) or content.keys() != wanted.keys():
        raise ValueError(f"an estimator in it must have the entries {', '.join(wanted)}")
    for name, kind in wanted.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"its {name} must be a {kind.__name__}, not a {type(content[name]).__name__}")
    if content["class"] not in classes:
        raise ValueError(f"its class must be {' or '.join(classes)}, not {shown(content['class'])}")
    for name, value in content["attributes"].items():
        if isinstance(value, bool):  # which would count as a number
            raise ValueError(f"the fitted attribute {shown(name)} must not be {value}")
    return {name: _from_plain(value) for name, value in content["parameters"].items()}, dict(content["attributes"])


def _from_plain(value: Any) -> Any:
    """The inverse of `as_plain` for dicts."""
    if not isinstance(value, dict):
        return value
    match value:
        case {"items": list(items), **rest} if not rest and len(items) <= UNLABELLED and all(map(_is_item, items)):
            return dict(items)  # weights of the classes
    raise ValueError("a parameter in it is not a dict as save writes it")


def _is_item(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], (int, str))


def _network(network: str | OwnNetwork, attributes: Mapping[str, Any], arrays: Any) -> nn.Module:
    if not isinstance(arrays, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("network_ must be a dict of arrays")
    n_channels, n_networks = attributes["n_channels_in_"], attributes["n_networks_"]
    check_classes(attributes["classes_"])
    n_labels = len(attributes["classes_"])
    build = partial(_unfilled_network, network, n_channels, n_labels if n_labels > 2 else 1)
    made: nn.Module = build()
    if n_networks > 1:
        if n_networks * len(made.state_dict()) != len(arrays):
            raise ValueError(f"network_ has {len(arrays)} arrays, which are not those of {n_networks} networks")
        made = MeanOfNetworks([made, *(build() for _ in range(n_networks - 1))])
    return load_arrays(made, arrays)


def _unfilled_network(network: str | OwnNetwork, n_channels: int, n_maps: int) -> nn.Module:
    if isinstance(network, str):
        return empty_network(network, n_channels, n_maps=n_maps)
    try:
        return build_network(network, n_channels, n_maps=n_maps).cpu()
    except Exception as error:  # it is the user's function
        raise ValueError(f"network: it can't be built for {n_channels} channels: {error}") from error


def check_classes(classes: np.ndarray, pos_label: int | None = None) -> None:
    """Raise a ValueError unless an array may be the labels of two classes, 0 and `pos_label`, or of several."""
    is_ascending = classes.ndim == 1 and classes.dtype.kind == "i" and bool((classes[1:] > classes[:-1]).all())
    if not (is_ascending and 2 <= len(classes) <= UNLABELLED):
        raise ValueError(f"classes_ must be 2 to {UNLABELLED} labels in ascending order, got {shown(classes)}")
    if pos_label is not None and not (classes.tolist() == [0, pos_label] if len(classes) == 2 else pos_label == 1):
        raise ValueError(f"classes_ does not fit pos_label={pos_label}, got {shown(classes)}")


def are_floats(values: Any, shape: tuple[int | None, ...]) -> bool:
    """Tell whether a value is an array of float of a shape, in which None stands for any length."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.ndim != len(shape):
        return False
    return all(wanted in (None, length) for wanted, length in zip(shape, values.shape))
