"""Reading the files of weights and models."""

import os
import stat
from os import PathLike
from pathlib import Path


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
