"""Files are read whole, and nothing else is."""

import os
import socket

import pytest

from skmmcrf.networks.reading import read_whole


def test_a_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert read_whole(tmp_path / "file") == b"abc"
    if os.name == "posix":
        (tmp_path / "link").symlink_to("file")
        assert read_whole(str(tmp_path / "link")) == b"abc"


@pytest.mark.skipif(os.name != "posix", reason="folders hold files alone")
def test_what_may_never_end_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in (tmp_path, "pipe", "link", "socket", "/dev/zero"):
            with pytest.raises(ValueError, match="it is a folder, a pipe, a socket or a device, not a file"):
                read_whole(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "missing")
