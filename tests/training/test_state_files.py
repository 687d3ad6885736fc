"""Files of plain values and arrays: what was written is read, anything else is refused, and nothing of it is run."""

import json
import os
import pickle
import stat
import struct
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from damage import damaged
from safetensors import safe_open
from safetensors.numpy import save as serialize

from skmmcrf.training import state_files
from skmmcrf.training.state_files import FILE_FORMAT, read_file, write_file

links = pytest.mark.skipif(os.name != "posix", reason="only administrators may make links")
locks = pytest.mark.skipif(os.name != "posix", reason="the system keeps open files")

CONTENT = {
    "numbers": [
        0.1 + 0.2,
        5e-324,
        -0.0,
        float("nan"),
        float("inf"),
        -float("inf"),
        1e308,
        2**70,
        -3,
        True,
        False,
        None,
    ],
    "text": ["ä\ud800\x00", "", "array"],
    "": {"a.b": [], "inner": [{"array": [1], "x": {}}]},
    "arrays": {
        "empty": np.zeros((0, 3)),
        "fortran": np.arange(6, dtype=np.uint16).reshape(2, 3).T,
        "strided": np.arange(9.0)[::2],
        "point": np.array(3, dtype=np.int8),
        "nan": np.array([np.nan, -np.nan, -0.0]),
        "half": np.array([1.5], np.float16),
        "bits": [np.array([True, False])],
    },
}


def bits(value):
    """A value with its types and bits."""
    if isinstance(value, dict):
        return {key: bits(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [bits(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return type(value), struct.pack("d", value) if isinstance(value, float) else value


@pytest.fixture
def path(tmp_path):
    """That of a file that is there."""
    write_file(tmp_path / "file", "state", CONTENT)
    return tmp_path / "file"


def parts(path):
    """Metadata and arrays of a file."""
    with safe_open(path, framework="np") as file:
        names = file.keys()
        return file.metadata(), {name: file.get_tensor(name) for name in names}


def write_by_hand(path, text, arrays=None, **metadata):
    """Write a file whose checksum is right, whatever else it says."""
    metadata = {"skmmcrf_format": FILE_FORMAT, "skmmcrf_version": "1", "kind": "state", "content": text} | metadata
    metadata["sha256"] = state_files._checksum(metadata, arrays or {})
    path.write_bytes(serialize(arrays or {}, metadata))


def test_what_was_written_is_read_bit_for_bit(path):
    assert bits(read_file(str(path), "state")) == bits(CONTENT)


def test_big_endian_arrays_are_read_as_the_same_numbers(path):
    write_file(path, "state", {"a": np.arange(3, dtype=">i4")})
    np.testing.assert_array_equal(read_file(path, "state")["a"], [0, 1, 2])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a.0 is a object, which a file can't hold"),
        ((1,), "a.0 is a tuple"),
        (np.float64(1), "a.0 is a float64"),
        (torch.zeros(1), "a.0 is a Tensor"),
        (np.array(["a"]), "a.0 is a ndarray of <U1"),
        (np.array([None]), "a.0 is a ndarray of object"),
        (np.zeros(1, np.complex64), "a.0 is a ndarray of complex64"),
        (np.ma.masked_array([1]), "a.0 is a MaskedArray"),
        ({1: 2}, "a.0 has the key 1, which"),
        ({None: 2}, "a.0 has the key None"),
        ({"array": 2}, "a.0 has the key 'array'"),
    ],
)
def test_what_a_file_cant_hold_is_told_and_nothing_is_written(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        write_file(tmp_path / "file", "state", {"a": [value]})
    assert not [*tmp_path.iterdir()]


def test_too_much_that_is_no_array_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "_LONGEST_JSON", 100)
    with pytest.raises(TypeError, match="the content besides arrays takes 3.. characters, but a file can hold 100"):
        write_file(tmp_path / "file", "state", {"a": 100 * [1]})
    write_by_hand(tmp_path / "file", json.dumps({"a": 100 * [1]}))
    with pytest.raises(ValueError, match="its JSON is longer than 100 characters"):
        read_file(tmp_path / "file", "state")


# written whole or not at all


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, step):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(f"os.{step}", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_file(path, "state", {"a": 1})
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_a_file_is_replaced_and_its_rights_are_the_usual_ones(path):
    write_file(path, "state", {"a": 1})
    assert read_file(path, "state") == {"a": 1}
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode
    assert {p.name for p in path.parent.iterdir()} == {"file", "other"}


def test_the_rights_of_a_file_stay_when_it_is_replaced(path):
    path.chmod(0o640)
    write_file(path, "state", {"a": 1})
    assert stat.S_IMODE(path.stat().st_mode) == (0o640 if os.name == "posix" else 0o666)


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    name = 250 * "a" if os.name == "posix" else 100 * "a"
    write_file(tmp_path / name, "state", {"a": 1})
    assert [file.name for file in tmp_path.iterdir()] == [name]


@links
def test_what_a_link_leads_to_is_written(path):
    link = path.with_name("link")
    link.symlink_to(path)
    write_file(link, "state", {"a": 1})
    link.with_name("to nothing").symlink_to("new")
    write_file(link.with_name("to nothing"), "state", {"a": 2})
    assert link.is_symlink()
    assert read_file(path, "state") == {"a": 1}
    assert read_file(path.with_name("new"), "state") == {"a": 2}


def leave_unfinished(target):
    """Write a file and be killed, as far as the folder shows it; give what is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.replace", lambda *_: sys.exit("killed"))
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            write_file(target, "state", {"a": 1})
    (left,) = target.parent.glob(".*")
    return left


@locks
def test_what_a_killed_write_left_is_removed_by_the_next_of_that_name(tmp_path):
    left = leave_unfinished(tmp_path / "file")
    write_file(tmp_path / "other", "state", {"a": 1})
    assert left.exists()
    write_file(tmp_path / "file", "state", {"a": 1})
    assert {file.name for file in tmp_path.iterdir()} == {"file", "other"}


@locks
def test_what_another_process_is_writing_stays(tmp_path):
    left = leave_unfinished(tmp_path / "file")
    hold = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold, left], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        write_file(tmp_path / "file", "state", {"a": 1})
        assert left.exists()
        other.communicate(b"\n")


@locks
def test_an_empty_leftover_is_removed_and_a_writer_makes_its_file_again(tmp_path, monkeypatch):
    left = leave_unfinished(tmp_path / "file")
    left.write_bytes(b"")  # its writer was killed before it wrote anything
    fcntl, locked = state_files.fcntl, []
    lock = fcntl.flock

    def lock_after_it_was_removed(file, how):
        if how == fcntl.LOCK_EX and not locked:
            os.unlink(file.name)
        locked.append(file.name)
        lock(file, how)

    monkeypatch.setattr("fcntl.flock", lock_after_it_was_removed)
    write_file(tmp_path / "file", "state", {"a": 1})
    assert read_file(tmp_path / "file", "state") == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@locks
def test_writers_of_one_name_leave_one_whole_file(tmp_path):
    code = (
        "import sys; from skmmcrf.training.state_files import write_file\n"
        "for n in range(100): write_file(sys.argv[1], 'state', {'a': n})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "file"]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert read_file(tmp_path / "file", "state") == {"a": 99}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_only_files_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", os.devnull, ""):
        with pytest.raises(OSError, match="can't be written: it is a folder, a pipe, a socket or a device"):
            write_file(path, "state", {"a": 1})
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_only_paths_are_written_to():
    for path in (5, b"file", None):
        with pytest.raises(TypeError, match="path must be a str or a path, got"):
            write_file(path, "state", {"a": 1})


def test_a_path_that_is_longer_than_any_is_not_quoted_whole():
    with pytest.raises(OSError, match="name too long") as caught:
        write_file(10**6 * "x", "state", {"a": 1})
    assert len(str(caught.value)) < 2000


def test_missing_files_and_folders_are_told(path):
    with pytest.raises(FileNotFoundError):
        read_file(path.parent / "missing", "state")
    with pytest.raises(ValueError, match="^it is a folder, a pipe"):
        read_file(path.parent, "state")
    with pytest.raises(FileNotFoundError):
        write_file(path.parent / "missing" / "file", "state", {})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is a folder, a pipe"):
        read_file(tmp_path / "pipe", "state")


# files of strangers


def test_every_damage_is_noticed(path):
    data = path.read_bytes()
    write_file(path, "state", {"a": np.arange(50.0)})
    other = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)
    for n in range(1000):
        changed = damaged(data, rng, other, n_first=[8, 200, header][n % 3])
        path.write_bytes(changed)
        if changed not in (data, other):
            with pytest.raises(ValueError, match="^(it |its |no skmmcrf)"):
                read_file(path, "state")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or of another kind"),
        (pickle.dumps({}), "damaged, or of another kind"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged, or of another kind"),
        (serialize({"a": np.zeros(3)}), "it was not written by skmmcrf"),
        (serialize({"a": np.zeros(3)}, {"format": "pt"}), "it was not written by skmmcrf"),
        (
            serialize({"a": np.zeros(3)}, {"skmmcrf_format": "1", "skmmcrf_version": "9.9"}),
            f"its format is '1', of skmmcrf '9.9', but skmmcrf .* reads '{FILE_FORMAT}'",
        ),
        (serialize({"a": np.zeros(3)}, {"skmmcrf_format": FILE_FORMAT}), "it is a file of skmmcrf, but holds no state"),
    ],
)
def test_foreign_files_are_told(path, data, message):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_file(path, "state")


@pytest.mark.parametrize(
    "header",
    [{"__metadata__": None}, {"__metadata__": {"skmmcrf_format": 10**6 * "x", "skmmcrf_version": 10**6 * "x"}}],
)
def test_other_headers_are_told_in_short(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match="was not written by skmmcrf|its format is 'xxx") as caught:
        read_file(path, "state")
    assert len(str(caught.value)) < 500


def test_missing_tensors_are_told_in_short(path):
    write_by_hand(path, json.dumps({"a": {"array": 10**6 * "x"}}))
    with pytest.raises(ValueError, match="it lacks the tensor 'xxx") as caught:
        read_file(path, "state")
    assert len(str(caught.value)) < 500


def test_a_file_of_another_kind_is_told(path):
    with pytest.raises(ValueError, match="it is a file of skmmcrf, but holds no estimator"):
        read_file(path, "estimator")


@pytest.mark.parametrize(
    "change", [{"kind": "estimator"}, {"skmmcrf_version": "0"}, {"content": '{"a": 1}'}, {"x": ""}]
)
def test_the_checksum_is_one_of_all_that_a_file_says(path, change):
    metadata, arrays = parts(path)
    path.write_bytes(serialize(arrays, metadata | change))
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        read_file(path, change.get("kind", "state"))


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"more": np.zeros(1)},
        lambda arrays: {f"{name}.": array for name, array in arrays.items()},
        lambda arrays: {name: array[::-1].copy() if array.ndim else array for name, array in arrays.items()},
        lambda arrays: arrays | {"arrays.nan": arrays["arrays.nan"].view(np.int64)},
        lambda arrays: arrays | {"arrays.strided": arrays["arrays.strided"][np.newaxis]},
    ],
)
def test_the_checksum_is_one_of_the_arrays_too(path, change):
    metadata, arrays = parts(path)
    path.write_bytes(serialize(change(arrays), metadata))
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        read_file(path, "state")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"array": "missing"}}', "lacks the tensor 'missing', or uses it twice"),
        ('{"a": {"array": "x"}, "b": {"array": "x"}}', "lacks the tensor 'x', or uses it twice"),
        ('{"a": {"array": ["x"]}}', "lacks the tensor"),
        ("{}", "does not refer to all of its tensors"),
        ('{"array": "x"}', "its content is not a dict"),
        ('[{"array": "x"}]', "its content is not a dict"),
        ("null", "its content is not a dict"),
        *[(text, ".") for text in ("", "[", "9" * 10_000, '"')],
    ],
)
def test_other_json_is_told(path, text, message):
    write_by_hand(path, text, {"x": np.zeros(2)})
    with pytest.raises(ValueError, match=message):
        read_file(path, "state")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_deep_is_read_or_told(path, opening, closing):
    outcomes = []
    for depth in (1, 100, 600, 900, 2_000, 100_000):  # Python sets two limits, of the parser and its own
        write_by_hand(path, f'{{"a": {depth * opening}1{depth * closing}}}')
        try:
            read_file(path, "state")
            outcomes.append("read")
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[:2] == ["read", "read"]
    assert outcomes[-1] == "it is nested too deeply"
    assert set(outcomes) == {"read", "it is nested too deeply"}


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [1] * 100, "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
    ],
)
def test_headers_that_lie_take_no_memory(path, memory_growth, tensor):
    header = json.dumps({"__metadata__": parts(path)[0], "arrays.nan": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))

    def refuse():
        with pytest.raises(ValueError, match="damaged|a dtype that numpy lacks|maximum supported dimension"):
            read_file(path, "state")

    assert memory_growth(refuse) < 20_000_000


@pytest.mark.parametrize(("entry", "n_bytes"), [("[]", 200), ("{}", 200), ("1e1", 80)])
def test_json_takes_memory_for_its_entries_only_up_to_its_longest(path, memory_growth, entry, n_bytes):
    def refuse():
        with pytest.raises(ValueError, match="its content is not a dict|its JSON is longer than"):
            read_file(path, "state")

    for n_entries in (300_000, 6_000_000):
        write_by_hand(path, f"[{','.join([entry] * n_entries)}]")
        assert memory_growth(refuse) < 10 * path.stat().st_size + n_bytes * min(n_entries, 300_000)


def test_nothing_is_ever_unpickled(path, monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("something is unpickled")

    for module in (pickle, sys.modules["_pickle"]):
        for function in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, function, fail)
    for module in (torch, torch.jit, joblib, np):
        monkeypatch.setattr(module, "load", fail)
    read_file(path, "state")
    for data in (pickle.dumps(CONTENT), b"\x80\x04cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged, or of another kind"):
            read_file(path, "state")


def test_a_link_that_leads_to_itself_is_refused_and_stays(tmp_path):
    link = tmp_path / "loop"
    try:
        link.symlink_to(link)
    except OSError:
        pytest.skip("no links here")
    with pytest.raises(OSError, match="loop' can't be written: it is a link that leads to itself"):
        write_file(link, "state", {})
    assert link.is_symlink()
