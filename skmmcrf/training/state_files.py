"""Files of plain values and arrays. They hold no code, and damaged ones are refused.

A file is of the safetensors format. Arrays are its tensors. Everything else is JSON in its metadata, where an array is
{"array": its name}. The metadata also hold a checksum of everything.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as serialize

from skmmcrf._shown import shortened, shown
from skmmcrf._version import __version__
from skmmcrf.networks.reading import read_whole

if sys.platform != "win32":
    import fcntl

#: Of the files; a new one when files of the old one can't be read any more.
FILE_FORMAT = "2"

# a file of JSON this long takes some hundred MB when it is read
_LONGEST_JSON = 10_000_000
_LONGEST_PATH = 32_767  # of Windows; others allow less
_DTYPES = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def write_file(path: str | PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Write a file so that the old or the new one always exists, even if the power fails.

    A link stays, and what it leads to is written. The new file has the rights of the old one.

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
    target = check_target(path)
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encoded(content, "", arrays))
    if len(text) > _LONGEST_JSON:
        raise TypeError(f"the content besides arrays takes {len(text)} characters, but a file can hold {_LONGEST_JSON}")
    metadata = {"skmmcrf_format": FILE_FORMAT, "skmmcrf_version": __version__, "kind": kind, "content": text}
    metadata["sha256"] = _checksum(metadata, arrays)
    _write_whole(target, serialize(arrays, metadata))


def check_path(path: Any) -> None:
    """Raise a TypeError if this is no path, and an OSError that does not quote it whole if it is longer than any."""
    if not isinstance(path, (str, PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a str or a path, got {shown(path)}")
    if len(os.fspath(path)) > _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), shortened(path))


def check_target(path: str | PathLike[str]) -> Path:
    """Give the file that a path names, behind all links, after a check that it can be written.

    Raises
    ------
    TypeError
        If this is no path.
    OSError
        If its folder is missing. If it is something else than a file.
    """
    check_path(path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be written: its folder does not exist")
    if target.is_symlink():
        raise OSError(f"{shown(os.fspath(path))} can't be written: it is a link that leads to itself")
    if target.exists() and not target.is_file():
        raise OSError(f"{shown(os.fspath(path))} can't be written: it is a folder, a pipe, a socket or a device")
    return target


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
    data = read_whole(path)
    try:
        arrays = read_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"it is damaged, or of another kind: {shortened(error)}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"it has a tensor of a dtype that numpy lacks: {shortened(error)}") from error
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
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
        number, version = shown(metadata["skmmcrf_format"]), shown(metadata.get("skmmcrf_version"))
        raise ValueError(
            f"its format is {number}, of skmmcrf {version}, but skmmcrf {__version__} reads {FILE_FORMAT!r}"
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
            raise TypeError(f"{name} has the key {shown(key)}, which a file can't hold")
        yield f"{name}.{key}" if name else str(key), entry


def _decoded(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `_encoded`. Arrays that are used are taken out."""
    if isinstance(node, list):
        return [_decoded(entry, arrays) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"array"}:
        if not isinstance(node["array"], str) or node["array"] not in arrays:
            raise ValueError(f"it lacks the tensor {shown(node['array'])}, or uses it twice")
        return arrays.pop(node["array"])
    return {key: _decoded(entry, arrays) for key, entry in node.items()}


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.name, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _write_whole(target: Path, data: bytes) -> None:
    # names of one length, however long the target's is
    begin = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    _remove_leftovers(target.parent, f"{begin}{16 * '?'}.tmp")
    unfinished = target.with_name(f"{begin}{uuid.uuid4().hex[:16]}.tmp")
    try:
        with _locked(unfinished):
            with open(unfinished, "wb") as file:
                with suppress(OSError):  # it is new, or its folder knows no rights
                    shutil.copymode(target, unfinished)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, target)
        if os.name == "posix":  # make the new name last, where folders can be opened
            number = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make a file, and hold a lock of it, which the system lets go of when this process dies."""
    while True:
        with open(path, "xb") as file:
            if sys.platform == "win32":
                file.close()  # an open file could not be renamed
            else:
                with suppress(OSError):  # some file systems have no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():  # a writer may have taken it for a leftover before it was locked
                yield
                return


def _remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove what writers left that were killed."""
    if sys.platform == "win32":
        return
    for leftover in folder.glob(pattern):
        with suppress(OSError):
            if leftover.is_file():  # opening a pipe would wait
                with open(leftover, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    leftover.unlink()
