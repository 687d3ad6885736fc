"""Files of plain values and arrays that hold no code, and are either whole or refused.

A file is of the safetensors format: arrays are its tensors, everything else is JSON in its metadata, beside a checksum
of it all. An object of that JSON has one key, which says what it is: {"items": [[key, value], ...]} for a dict,
{"array": name of a tensor}, {"scalar": name of a tensor without dimensions}, or something of who wrote the file.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from skmmcrf._version import __version__

#: Of the files; a new one when files of the old one can't be read any more.
FILE_FORMAT = "1"

_DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def encode(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : None, bool, int, float, str, ndarray, numpy scalar, or list or dict of such
    path : str
        Its name, of which those of its arrays are made.
    arrays : dict of str to ndarray
        Where its arrays go.

    Returns
    -------
    object

    Raises
    ------
    TypeError
        If something in it is of another kind.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = {}
    >>> encode({"coef": np.ones(2), "n": 3}, "state", arrays)
    {'items': [['coef', {'array': 'state.coef'}], ['n', 3]]}
    >>> arrays
    {'state.coef': array([1., 1.])}
    """
    if isinstance(value, str):
        return str(value)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, np.ma.MaskedArray):
        arrays[path] = storable(np.asarray(value), path)
        return {"array" if isinstance(value, np.ndarray) else "scalar": path}
    if type(value) is list:
        return [encode(entry, f"{path}.{n}", arrays) for n, entry in enumerate(value)]
    if type(value) is dict and all(type(key) in (str, int) for key in value):
        return {"items": [[key, encode(entry, f"{path}.{key}", arrays)] for key, entry in value.items()]}
    raise TypeError(f"{path} is a {type(value).__name__}, which a file can't hold")


def storable(array: np.ndarray, path: str) -> np.ndarray:
    """Give an array as a file can hold it.

    Parameters
    ----------
    array : ndarray
    path : str
        Its name.

    Returns
    -------
    ndarray
        In C order, little-endian.

    Raises
    ------
    TypeError
        If there is no such dtype in files.
    """
    if array.dtype.name not in _DTYPES:
        raise TypeError(f"{path} has dtype {array.dtype}, which a file can't hold")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def decode(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Invert `encode`.

    Parameters
    ----------
    node : object
        What it gave, or anything that was read as JSON.
    arrays : dict of str to ndarray
        Those that are used are taken out.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If something is unknown, or an array is missing or used twice.
    """
    if isinstance(node, list):
        return [decode(entry, arrays) for entry in node]
    if not isinstance(node, dict):
        return node
    match list(node.items()):
        case [("items", list(items))] if all(_is_item(item) for item in items):
            return {key: decode(entry, arrays) for key, entry in items}
        case [("array", str(key))] if key in arrays:
            return arrays.pop(key)
        case [("scalar", str(key))] if key in arrays and arrays[key].ndim == 0:
            return arrays.pop(key)[()]
    raise ValueError(f"it holds something unknown, or a tensor that is missing or used twice: {node}")


def _is_item(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and type(item[0]) in (str, int)


def write_file(path: str | PathLike[str], kind: str, node: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file so that there is always either the old or the new one, even if the power fails.

    Parameters
    ----------
    path : str or path
    kind : str
        What the file holds.
    node : object
        What JSON can hold.
    arrays : dict of str to ndarray

    Raises
    ------
    OSError
        If it can't be written.
    """
    metadata = {"skmmcrf_format": FILE_FORMAT, "skmmcrf_version": __version__, kind: json.dumps(node)}
    metadata["sha256"] = _checksum(metadata, arrays)
    _write_whole(Path(path), serialize(dict(arrays), metadata))


def read_file(path: str | PathLike[str], kind: str) -> tuple[str, dict[str, np.ndarray]]:
    """Read a file, if it is whole, of this format and of a kind.

    Parameters
    ----------
    path : str or path
    kind : str

    Returns
    -------
    text : str
        What should be JSON.
    arrays : dict of str to ndarray

    Raises
    ------
    OSError
        If there is no such file, or it can't be opened.
    ValueError
        If it is damaged, or another file.
    """
    with open(path, "rb"):  # raises what Python raises if that can't be done
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_metadata(metadata, kind)
            names = file.keys()
            arrays = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or of another kind: {error}") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"it has a tensor of a dtype that numpy lacks: {error}") from error
    checksum = metadata.pop("sha256")
    if checksum != _checksum(metadata, arrays):
        raise ValueError("it is damaged: its checksum is not that of its content")
    return metadata[kind], arrays


def _check_metadata(metadata: Mapping[str, str], kind: str) -> None:
    if "skmmcrf_format" not in metadata:
        raise ValueError("no skmmcrf wrote it")
    if metadata["skmmcrf_format"] != FILE_FORMAT:
        raise ValueError(
            f"its format is {metadata['skmmcrf_format']!r}, of skmmcrf {metadata.get('skmmcrf_version')}; skmmcrf "
            f"{__version__} reads {FILE_FORMAT!r}"
        )
    if not metadata.keys() >= {kind, "sha256"}:
        raise ValueError(f"its metadata lack the {kind} or the checksum")


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.name, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _write_whole(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a new name last, where folders can be opened."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
