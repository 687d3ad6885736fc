"""Fitted estimators in files that hold no code.

The files are those of `skmmcrf.safe_files`. Parameters and fitted attributes are encoded as it says, and beyond that
{"network": what the names of its weights begin with} or {"estimator": {"class", "parameters", "attributes"}}.

Whatever is read may come from a stranger: it is compared, checked and copied, never imported or called.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import joblib
import numpy as np
import torch
from sklearn.utils._param_validation import HasMethods, Interval, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf.network_state import fill_network, network_arrays, rebuild_network
from skmmcrf.networks import build_network
from skmmcrf.safe_files import decode, encode, read_file, storable, write_file

if TYPE_CHECKING:
    from skmmcrf.base import BaseSegmenter
    from skmmcrf.cnn import CNNSegmenter
    from skmmcrf.crf import MaxMarginCRF
    from skmmcrf.segmenter import DeepStructuredSegmenter

OwnNetwork: TypeAlias = nn.Module | Callable[[int], nn.Module]

# joblib keeps pickles there, and runs them when fit finds them; and fit writes to both and deletes there
_NEVER_IN_FILES = {"checkpoint", "memory"}

# of JSON, where each takes up to 150 bytes of memory; an estimator has two for each image
_MAX_ENTRIES = 2_000_000

_COUNT = Interval(Integral, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, sys.float_info.max, closed="right")  # an int may be larger
# a user's own function builds a network for so many, so a file must not say any number
_CHANNELS = Interval(Integral, 1, 10_000, closed="both")
_OF_ALL = {"n_channels_in_": [_CHANNELS], "classes_": [np.ndarray], "class_weight_": [np.ndarray]}
_OF_NETWORKS = {**_OF_ALL, "history_": [list]}

# what is checked of an estimator's attributes, all of which it must have; the network is checked as it is built
_ATTRIBUTES: dict[str, dict[str, list]] = {
    "CNNSegmenter": {**_OF_NETWORKS, "n_iter_": [_COUNT]},
    "DeepStructuredSegmenter": {
        **_OF_NETWORKS,
        "coef_": [np.ndarray],
        "objective_": [None, Real],
        "dual_gap_": [None, Real],
        "sigma_": [None, _POSITIVE],
        "n_iter_": [None, _COUNT],
        "crf_": [None, HasMethods("segment")],
        "optimizer_state_": [None, dict],
    },
    "MaxMarginCRF": {
        **_OF_ALL,
        "coef_": [np.ndarray],
        "objective_": [Real],
        "dual_gap_": [Real],
        "slack_": [np.ndarray],
        "dual_coef_": [list],
        "sigma_": [_POSITIVE],
        "n_iter_": [_COUNT],
    },
}


def save(estimator: "BaseSegmenter", path: str | PathLike[str]) -> None:
    """Write a fitted estimator to a file, see `BaseSegmenter.save`."""
    check_is_fitted(estimator)
    writer = _Writer()
    description = writer.describe(estimator)
    try:
        _Reader(writer.arrays, vars(estimator).get("network_") if writer.own_network else None).read(
            json.dumps(description)
        )
    except ValueError as error:
        raise ValueError(f"{path} is not written, because it could not be loaded: {error}") from error
    if writer.left_out:
        names = ", ".join(sorted(writer.left_out))
        warnings.warn(f"{path} can't hold the parameters {names}: load will give them their default", stacklevel=3)
    write_file(path, "estimator", description, writer.arrays)


def load(
    path: str | PathLike[str], *, network: OwnNetwork | None = None
) -> "CNNSegmenter | DeepStructuredSegmenter | MaxMarginCRF":
    """Read an estimator from a file that its method `save` wrote.

    The file may come from a stranger: it holds no code, nothing is unpickled, all that it says is checked, nothing is
    downloaded, and memory is bounded: a few times the file's length, and 300 MB at most for what its JSON says.
    Predictions are those of the saved estimator, bit for bit.

    Parameters
    ----------
    path : str or path
    network : torch.nn.Module or callable, optional
        For an estimator whose parameter `network` was a module or a function, which no file can hold: that function, or
        a module of that architecture. It becomes the parameter `network`.

    Returns
    -------
    CNNSegmenter, DeepStructuredSegmenter or MaxMarginCRF
        Fitted. Parameters that a file can't hold have their default, and `n_jobs` is at most the number of processors.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, of another kind or of another version, or `network` does not fit it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import skmmcrf
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> cnn = skmmcrf.CNNSegmenter(n_epochs=1, random_state=0).fit(X, y)
    >>> with TemporaryDirectory() as folder:
    ...     cnn.save(f"{folder}/cnn.safetensors")
    ...     same = skmmcrf.load(f"{folder}/cnn.safetensors")
    >>> bool((same.decision_function(X) == cnn.decision_function(X)).all())
    True
    """
    if not (network is None or isinstance(network, nn.Module) or callable(network)):
        raise TypeError(f"network must be a torch.nn.Module or a function, got {type(network).__name__}")
    try:
        text, arrays = read_file(path, "estimator")
        return _Reader(arrays, network).read(text)
    except ValueError as error:
        raise ValueError(f"{path} can't be loaded: {error}") from error


class _Writer:
    """Turns an estimator into what JSON can hold, and `arrays`.

    `left_out` has the names of parameters that no file can hold; `own_network` says that one of them is the network.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.left_out: set[str] = set()
        self.own_network = False

    def describe(self, estimator: "BaseSegmenter", prefix: str = "") -> dict[str, Any]:
        name = type(estimator).__name__
        if name not in _ATTRIBUTES or type(estimator) is not _estimator_class(name):
            raise TypeError(f"a file can hold a {', '.join(_ATTRIBUTES)}, not a {name}")
        attributes = {k: v for k, v in vars(estimator).items() if k.endswith("_") and not k.startswith("_")}
        return {
            "class": name,
            "parameters": self._parameters(estimator, prefix),
            "attributes": {k: self._attribute(v, prefix + k) for k, v in attributes.items()},
        }

    def _parameters(self, estimator: "BaseSegmenter", prefix: str) -> dict[str, Any]:
        parameters = {}
        for name, value in estimator.get_params(deep=False).items():
            if name == "network" and not isinstance(value, str):
                self.own_network = True
            elif name in _NEVER_IN_FILES:
                self.left_out |= set() if value is None else {name}
            else:
                try:
                    parameters[name] = encode(_as_plain(value), prefix + name, self.arrays)
                except TypeError:
                    self.left_out.add(name)
        return parameters

    def _attribute(self, value: Any, path: str) -> Any:
        if path == "network_":
            self.arrays |= {f"{path}.{k}": storable(array, f"{path}.{k}") for k, array in network_arrays(value).items()}
            return {"network": f"{path}."}
        if path == "crf_" and value is not None:
            return {"estimator": self.describe(value, f"{path}.")}
        return encode(value, path, self.arrays)


def _as_plain(value: Any) -> Any:
    """A parameter that means the same, of a type that JSON has."""
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, PathLike) else value


class _Reader:
    """Turns what a `_Writer` made back into an estimator. `network` is the user's own."""

    def __init__(self, arrays: Mapping[str, np.ndarray], network: OwnNetwork | None) -> None:
        self.arrays = dict(arrays)
        self.network = network

    def read(self, text: str) -> Any:
        if sum(map(text.count, "[{,")) > _MAX_ENTRIES:
            raise ValueError(f"its JSON has more than {_MAX_ENTRIES} entries")
        try:
            estimator = self._estimator(json.loads(text), tuple(_ATTRIBUTES))
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        if self.arrays:
            raise ValueError(f"nothing refers to its tensors {', '.join(self.arrays)}")
        if self.network is not None and estimator.get_params(deep=False).get("network") is not self.network:
            raise ValueError("network is for files without the parameter network; this one has or needs none")
        return estimator

    def _estimator(self, node: Any, classes: Sequence[str]) -> Any:
        _check_fields(node, {"class": str, "parameters": dict, "attributes": dict})
        if node["class"] not in classes:
            raise ValueError(f"its class must be {' or '.join(classes)}, not {node['class']!r}")
        estimator = self._unfitted(_estimator_class(node["class"]), node["parameters"])
        self._fit(estimator, node["attributes"])
        return estimator

    def _unfitted(self, estimator_class: Any, parameters: dict[str, Any]) -> Any:
        known = estimator_class().get_params(deep=False).keys() - _NEVER_IN_FILES
        if unknown := parameters.keys() - known:
            raise ValueError(f"it can't set the parameters {sorted(unknown)} of {estimator_class.__name__}")
        values = {name: self._value(node) for name, node in parameters.items()}
        if "network" in known - values.keys():
            if self.network is None:
                raise ValueError("its network was a module or function of your own: give it as load(path, network=...)")
            values["network"] = self.network
        estimator = estimator_class(**values)
        estimator._validate_params()
        if values.get("n_jobs") is not None:  # a stranger must not start a thousand processes
            estimator.n_jobs = min(estimator.n_jobs, joblib.cpu_count())
        return estimator

    def _fit(self, estimator: Any, attributes: dict[str, Any]) -> None:
        for name in attributes:
            if name.startswith("_") or not name.endswith("_") or hasattr(type(estimator), name):
                raise ValueError(f"{name!r} is no name of a fitted attribute")
        weights = self._weights(attributes) if hasattr(estimator, "network") else None
        values = {name: self._value(node) for name, node in attributes.items() if name != "network_"}
        _check_attributes(estimator, values)
        if weights is not None:
            values["network_"] = self._network(estimator.network, values["n_channels_in_"], weights)
            if isinstance(values.get("optimizer_state_"), dict):
                _check_moments(values["optimizer_state_"], values["network_"])
        vars(estimator).update(values)

    def _weights(self, attributes: dict[str, Any]) -> dict[str, np.ndarray]:
        node = attributes.get("network_", {})
        _check_fields(node, {"network": str})
        prefix = node["network"]
        return {key.removeprefix(prefix): self.arrays.pop(key) for key in [*self.arrays] if key.startswith(prefix)}

    def _network(self, network: str | OwnNetwork, n_channels: int, weights: Mapping[str, np.ndarray]) -> nn.Module:
        if isinstance(network, str):
            return rebuild_network(network, n_channels, weights)
        try:
            own = build_network(network, n_channels)
        except Exception as error:  # it is the user's function
            raise ValueError(f"network: it can't be built for {n_channels} channels: {error}") from error
        return fill_network(own.cpu(), weights)

    def _value(self, node: Any) -> Any:
        """The inverse of _Writer._attribute."""
        if isinstance(node, dict) and node.keys() == {"estimator"}:
            return self._estimator(node["estimator"], ("MaxMarginCRF",))
        return decode(node, self.arrays)


def _estimator_class(name: str) -> Any:
    import skmmcrf  # not above, because the classes import this module

    return getattr(skmmcrf, name)


def _check_fields(node: Any, types: Mapping[str, type]) -> None:
    if not isinstance(node, dict) or node.keys() != types.keys():
        raise ValueError(f"something in it must have the entries {', '.join(types)}")
    for name, wanted in types.items():
        if not isinstance(node[name], wanted):
            raise ValueError(f"its {name} must be a {wanted.__name__}, not a {type(node[name]).__name__}")


def _check_attributes(estimator: "BaseSegmenter", attributes: Mapping[str, Any]) -> None:
    class_name = type(estimator).__name__
    constraints = _ATTRIBUTES[class_name]
    if missing := constraints.keys() - attributes.keys():
        raise ValueError(f"the fitted {class_name} lacks {', '.join(sorted(missing))}")
    validate_parameter_constraints(constraints, dict(attributes), class_name)
    if not np.array_equal(attributes["classes_"], [0, estimator.pos_label]):
        raise ValueError(f"classes_ must be 0 and {estimator.pos_label}")
    if "coef_" in constraints and not _are_weights(attributes["coef_"]):
        raise ValueError("coef_ must be three finite float64, those of the pairwise terms not negative")
    if "history_" in constraints and not all(map(_is_epoch, attributes["history_"])):
        raise ValueError("history_ must be a list of dict, each with its stage and epoch")
    if "slack_" in constraints and not all(map(_is_vector, [attributes["slack_"], *attributes["dual_coef_"]])):
        raise ValueError("slack_ and what dual_coef_ lists must be vectors of float64")


def _check_moments(state: Mapping[Any, Any], network: nn.Module) -> None:
    """Compare what Adam remembers of each parameter with the parameters of the network."""
    shapes = {n: tuple(parameter.shape) for n, parameter in enumerate(network.parameters())}
    for n, moments in state.items():
        if n not in shapes or not _are_moments(moments, shapes[n]):
            raise ValueError(f"optimizer_state_: what it has of {n!r} does not belong to a parameter of the network")


def _are_moments(values: Any, shape: tuple[int, ...]) -> bool:
    shapes = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
    if not isinstance(values, dict) or values.keys() != shapes.keys() or not all(map(_is_of_floats, values.values())):
        return False
    return all(values[name].shape == shapes[name] for name in shapes) and bool(values["step"] >= 0)


def _is_epoch(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("stage"), str) and isinstance(row.get("epoch"), int)


def _is_of_floats(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind == "f"


def _are_weights(values: np.ndarray) -> bool:
    return _is_vector(values) and len(values) == 3 and bool(np.isfinite(values).all() and (values[1:] >= 0).all())


def _is_vector(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype == np.float64
