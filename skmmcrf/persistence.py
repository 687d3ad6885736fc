"""Fitted estimators in files that hold no code.

A file is of the safetensors format. The weights of the network and all other arrays are its tensors; parameters and
fitted attributes are JSON in its metadata, beside a checksum of it all. An object of that JSON has one key, which says
what it is: {"items": [[key, value], ...]} for a dict, {"array": name of a tensor}, {"scalar": name of a tensor without
dimensions}, {"network": what the names of its weights begin with} or {"estimator": {"class", "parameters",
"attributes"}}.

Whatever is read may come from a stranger: it is compared, checked and copied, never imported or called.
"""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import joblib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize
from sklearn.utils._param_validation import HasMethods, Interval, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf._version import __version__
from skmmcrf.network_state import fill_network, network_arrays, rebuild_network
from skmmcrf.networks import build_network

if TYPE_CHECKING:
    from skmmcrf.base import BaseSegmenter
    from skmmcrf.cnn import CNNSegmenter
    from skmmcrf.crf import MaxMarginCRF
    from skmmcrf.segmenter import DeepStructuredSegmenter

OwnNetwork: TypeAlias = nn.Module | Callable[[int], nn.Module]

#: Of the files; a new one when files of the old one can't be read any more.
FILE_FORMAT = "1"

# joblib keeps pickles there, and runs them when fit finds them
_NEVER_IN_FILES = {"memory"}

_DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}

_COUNT = Interval(Integral, 0, None, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
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
    text = json.dumps(writer.describe(estimator))
    try:
        _Reader(writer.arrays, vars(estimator).get("network_") if writer.own_network else None).read(text)
    except ValueError as error:
        raise ValueError(f"{path} is not written, because it could not be loaded: {error}") from error
    if writer.left_out:
        names = ", ".join(sorted(writer.left_out))
        warnings.warn(f"{path} can't hold the parameters {names}: load will give them their default", stacklevel=3)
    metadata = {"skmmcrf_format": FILE_FORMAT, "skmmcrf_version": __version__, "estimator": text}
    metadata["sha256"] = _checksum(metadata, writer.arrays)
    _write_whole(Path(path), serialize(writer.arrays, metadata))


def load(
    path: str | PathLike[str], *, network: OwnNetwork | None = None
) -> "CNNSegmenter | DeepStructuredSegmenter | MaxMarginCRF":
    """Read an estimator from a file that its method `save` wrote.

    The file may come from a stranger: it holds no code, all that it says is checked, nothing is downloaded, and only a
    few times its length of memory is taken. Predictions are those of the saved estimator, bit for bit.

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
        text, arrays = _read_file(path)
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
                    parameters[name] = _encode(_as_text(value), prefix + name, self.arrays)
                except TypeError:
                    self.left_out.add(name)
        return parameters

    def _attribute(self, value: Any, path: str) -> Any:
        if path == "network_":
            self.arrays |= {
                f"{path}.{k}": _storable(array, f"{path}.{k}") for k, array in network_arrays(value).items()
            }
            return {"network": f"{path}."}
        if path == "crf_" and value is not None:
            return {"estimator": self.describe(value, f"{path}.")}
        return _encode(value, path, self.arrays)


def _as_text(value: Any) -> Any:
    if isinstance(value, torch.device):
        return str(value)
    return os.fspath(value) if isinstance(value, PathLike) else value


def _encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON can hold of a value; its arrays are added to those given, by their path."""
    if isinstance(value, str):
        return str(value)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, np.ma.MaskedArray):
        arrays[path] = _storable(np.asarray(value), path)
        return {"array" if isinstance(value, np.ndarray) else "scalar": path}
    if type(value) is list:
        return [_encode(entry, f"{path}.{n}", arrays) for n, entry in enumerate(value)]
    if type(value) is dict and all(type(key) in (str, int) for key in value):
        return {"items": [[key, _encode(entry, f"{path}.{key}", arrays)] for key, entry in value.items()]}
    raise TypeError(f"{path} is a {type(value).__name__}, which a file can't hold")


def _storable(array: np.ndarray, path: str) -> np.ndarray:
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{path} has dtype {array.dtype}, which a file can't hold")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


class _Reader:
    """Turns what a `_Writer` made back into an estimator. `network` is the user's own."""

    def __init__(self, arrays: Mapping[str, np.ndarray], network: OwnNetwork | None) -> None:
        self.arrays = dict(arrays)
        self.network = network

    def read(self, text: str) -> Any:
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
        """The inverse of _encode."""
        if isinstance(node, list):
            return [self._value(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        match list(node.items()):
            case [("items", list(items))] if all(_is_item(item) for item in items):
                return {key: self._value(entry) for key, entry in items}
            case [("array", str(key))] if key in self.arrays:
                return self.arrays.pop(key)
            case [("scalar", str(key))] if key in self.arrays and self.arrays[key].ndim == 0:
                return self.arrays.pop(key)[()]
            case [("estimator", description)]:
                return self._estimator(description, ("MaxMarginCRF",))
        raise ValueError(f"it holds something unknown, or a tensor that is missing or used twice: {node}")


def _estimator_class(name: str) -> Any:
    import skmmcrf  # not above, because the classes import this module

    return getattr(skmmcrf, name)


def _check_fields(node: Any, types: Mapping[str, type]) -> None:
    if not isinstance(node, dict) or node.keys() != types.keys():
        raise ValueError(f"something in it must have the entries {', '.join(types)}")
    for name, wanted in types.items():
        if not isinstance(node[name], wanted):
            raise ValueError(f"its {name} must be a {wanted.__name__}, not a {type(node[name]).__name__}")


def _is_item(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and type(item[0]) in (str, int)


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
    if "history_" in constraints and not all(isinstance(row, dict) for row in attributes["history_"]):
        raise ValueError("history_ must be a list of dict")
    if "slack_" in constraints and not all(map(_is_vector, [attributes["slack_"], *attributes["dual_coef_"]])):
        raise ValueError("slack_ and what dual_coef_ lists must be vectors of float64")


def _are_weights(values: np.ndarray) -> bool:
    return _is_vector(values) and len(values) == 3 and bool(np.isfinite(values).all() and (values[1:] >= 0).all())


def _is_vector(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype == np.float64


def _read_file(path: str | PathLike[str]) -> tuple[str, dict[str, np.ndarray]]:
    """The JSON and the arrays of a file that is whole and of this format."""
    with open(path, "rb"):  # raises what Python raises if that can't be done
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_metadata(metadata)
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or of another kind: {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"it has a tensor of a dtype that numpy lacks: {error}") from error
    checksum = metadata.pop("sha256")
    if checksum != _checksum(metadata, arrays):
        raise ValueError("it is damaged: its checksum is not that of its content")
    return metadata["estimator"], arrays


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if "skmmcrf_format" not in metadata:
        raise ValueError("no skmmcrf wrote it")
    if metadata["skmmcrf_format"] != FILE_FORMAT:
        raise ValueError(
            f"its format is {metadata['skmmcrf_format']!r}, of skmmcrf {metadata.get('skmmcrf_version')}; skmmcrf "
            f"{__version__} reads {FILE_FORMAT!r}"
        )
    if not metadata.keys() >= {"estimator", "sha256"}:
        raise ValueError("it is damaged: its metadata lack the estimator or the checksum")


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.name, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that there is always either the old or the new one."""
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
