"""Files of plain values and arrays. They hold no code, and damaged ones are refused.

A file is of the safetensors format. Arrays are its tensors. Everything else is JSON in its metadata, where an array is
{"array": its name}. The metadata also hold a checksum of everything.
"""

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as serialize

from skmmcrf._version import __version__

#: Of the files; a new one when files of the old one can't be read any more.
FILE_FORMAT = "2"

# a file of JSON this long takes some hundred MB when it is read
_LONGEST_JSON = 10_000_000
_DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def write_file(path: str | PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Write a file so that the old or the new one always exists, even if the power fails.

    Parameters
    ----------
    path : str or path
    kind : str
        What the file holds.
    content : dict
        None, bool, int, float, str and arrays, in lists and in dicts with str as keys.

    Raises
    ------
    TypeError
        If the content holds something else.
    OSError
        If the file can't be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_file(f"{folder}/file", "state", {"epoch": 3, "coef": np.ones(2)})
    ...     read_file(f"{folder}/file", "state")
    {'epoch': 3, 'coef': array([1., 1.])}
    """
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{path} can't be written: its folder does not exist")
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encoded(content, "", arrays))
    if len(text) > _LONGEST_JSON:
        raise TypeError(f"the content besides arrays takes {len(text)} characters, but a file can hold {_LONGEST_JSON}")
    metadata = {"skmmcrf_format": FILE_FORMAT, "skmmcrf_version": __version__, "kind": kind, "content": text}
    metadata["sha256"] = _checksum(metadata, arrays)
    _write_whole(Path(path), serialize(arrays, metadata))


def read_file(path: str | PathLike[str], kind: str) -> dict[str, Any]:
    """Read a file after a check that it is whole, of this format and of a kind.

    Nothing that the file says is imported or called. It is read into memory, which is bounded by a few times its length
    and some hundred MB.

    Parameters
    ----------
    path : str or path
    kind : str

    Returns
    -------
    dict
        What `write_file` was given.

    Raises
    ------
    OSError
        If the file is missing, or can't be opened.
    ValueError
        If it is damaged, or of another format or kind.
    """
    if stat.S_ISFIFO(os.stat(path).st_mode):  # reading would wait for ever
        raise ValueError("it is a pipe, not a file")
    data = Path(path).read_bytes()
    try:
        arrays = read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or of another kind: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"it has a tensor of a dtype that numpy lacks: {error}") from error
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    _check_metadata(metadata, kind)
    if metadata.pop("sha256") != _checksum(metadata, arrays):
        raise ValueError("it is damaged: its checksum is not that of its content")
    try:
        content = _decoded(json.loads(metadata["content"]), arrays)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or arrays:
        raise ValueError("its content is not a dict, or does not refer to all of its tensors")
    return content


def _check_metadata(metadata: Mapping[str, str], kind: str) -> None:
    if "skmmcrf_format" not in metadata:
        raise ValueError("it was not written by skmmcrf")
    if metadata["skmmcrf_format"] != FILE_FORMAT:
        raise ValueError(
            f"its format is {metadata['skmmcrf_format']!r}, of skmmcrf {metadata.get('skmmcrf_version')}, but skmmcrf "
            f"{__version__} reads {FILE_FORMAT!r}"
        )
    if not metadata.keys() >= {"kind", "content", "sha256"} or metadata["kind"] != kind:
        raise ValueError(f"it is a file of skmmcrf, but holds no {kind}")
    if len(metadata["content"]) > _LONGEST_JSON:
        raise ValueError(f"its JSON is longer than {_LONGEST_JSON} characters")


def _encoded(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The content as JSON can hold it. Arrays are put beside it by their name."""
    if isinstance(value, str):
        return str(value)
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray) and value.dtype.name in _DTYPES:
        arrays[name] = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
        return {"array": name}
    if type(value) in (list, dict):
        entries = dict(_named_entries(value, name))
        encoded = [_encoded(entry, path, arrays) for path, entry in entries.items()]
        return encoded if type(value) is list else dict(zip(value, encoded))
    dtype = f" of {value.dtype}" if isinstance(value, np.ndarray) else ""
    raise TypeError(f"{name} is a {type(value).__name__}{dtype}, which a file can't hold")


def _named_entries(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, entry in enumerate(value) if type(value) is list else value.items():
        if type(value) is dict and (type(key) is not str or value.keys() == {"array"}):
            raise TypeError(f"{name} has the key {key!r}, which a file can't hold")
        yield f"{name}.{key}" if name else str(key), entry


def _decoded(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `_encoded`. Arrays that are used are taken out."""
    if isinstance(node, list):
        return [_decoded(entry, arrays) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"array"}:
        if not isinstance(node["array"], str) or node["array"] not in arrays:
            raise ValueError(f"it lacks the tensor {node['array']!r}, or uses it twice")
        return arrays.pop(node["array"])
    return {key: _decoded(entry, arrays) for key, entry in node.items()}


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
        if os.name == "posix":  # make the new name last, where folders can be opened
            number = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
    finally:
        unfinished.unlink(missing_ok=True)
