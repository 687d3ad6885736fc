"""Reading the files of weights and models."""

import io
import os
import stat
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from skmmcrf._shown import shortened


def read_whole(path: str | PathLike[str]) -> bytes:
    """Read a file into memory, where nobody can change it while it is used.

    Raises
    ------
    OSError
        If the file is missing, or can't be opened.
    ValueError
        If the path leads to something else than a file. Reading a pipe or a device might never end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is a folder, a pipe, a socket or a device, not a file")
    return Path(path).read_bytes()


def read_state(path: str | PathLike[str], name: str) -> dict[str, Any]:
    """Read the state dict of a backbone, as torch.save or safetensors write it. It may hold anything but code.

    Raises
    ------
    ValueError
        If the file can't be read. It names the backbone.
    """
    what = f"weights: {shortened(path)} can't be read as a state dict of {name}"
    try:
        data = read_whole(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{what}: {shortened(error)}") from error
    try:
        if data[8:9] == b"{":  # the header of safetensors, behind its length
            return safetensors.torch.load(data)
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise almost anything, and advise to run the file's code
        raise ValueError(
            f"{what}: it is damaged, or neither torch.save nor safetensors wrote it from the model's state_dict()"
        ) from error
    return state
