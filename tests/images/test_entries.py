import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from skmmcrf.images.entries import as_array, as_sequence, read_named

ARRAY = np.arange(6).reshape(1, 2, 3)


@pytest.mark.parametrize(
    ("values", "lazy"),
    [
        *((values, False) for values in (ARRAY, torch.from_numpy(ARRAY), list(ARRAY), tuple(ARRAY))),
        *((values, True) for values in (["a.png", "b.png"], [ARRAY[0], "b.png"], range(3))),
    ],
)
def test_paths_and_sequences_of_their_own_are_read_when_needed(values, lazy):
    entries, found = as_sequence(values, "X", dimensions=(3, 4))
    assert entries is values
    assert found == lazy


def test_columns_go_by_position():
    paths = ["a.png", "b.png"]
    for column in (
        np.array(paths),
        np.array(paths, object),
        pd.Series(paths, index=[7, 3]),
        pd.DataFrame({"a": paths}),
    ):
        assert as_sequence(column, "X", dimensions=(3,)) == (paths, True)
    entries, lazy = as_sequence(pd.Series([ARRAY[0], ARRAY[0]]), "X", dimensions=(3,))
    assert all(np.shares_memory(entry, ARRAY) for entry in entries)
    assert not lazy


@pytest.mark.parametrize(
    "values",
    [
        ARRAY.tolist(),
        torch.tensor(ARRAY * 1.0, requires_grad=True),
        np.ma.masked_equal(ARRAY, 99),
    ],
)
def test_arrays_are_made_of_all_that_holds_numbers(values):
    np.testing.assert_array_equal(as_array(values, "X"), ARRAY)


def test_files_and_opened_images_are_read_alike(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 10, 20])
    palette.save(tmp_path / "a.png")
    for entry in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png"), palette):
        np.testing.assert_array_equal(read_named(entry, "X[3]"), [[[0, 0, 0], [255, 10, 20]]])
        np.testing.assert_array_equal(read_named(entry, "y[3]", as_labels=True), [[0, 1]])


def test_what_can_not_be_read_is_told_with_its_entry_and_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(FileNotFoundError, match=r"^X\[3\]: .*b.png"):
        read_named(tmp_path / "b.png", "X[3]")
    with pytest.raises(ValueError, match=r"^X\[3\]: .*a.png can't be read as an image"):
        read_named(tmp_path / "a.png", "X[3]")
    Image.effect_noise((50, 50), 50).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:1000])
    message = r"^X\[3\]: the opened image .*c.png can't be read: "
    with Image.open(tmp_path / "c.png") as opened, pytest.raises(ValueError, match=message):
        read_named(opened, "X[3]")


class Stored:
    """An array as zarr has them: with a shape and without a length."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __getitem__(self, n):
        return self.array[n]


def test_arrays_without_a_length_are_read_entry_by_entry():
    entries, lazy = as_sequence(Stored(ARRAY), "X", dimensions=(3, 4))
    assert (len(entries), lazy) == (1, True)
    np.testing.assert_array_equal(entries[0], ARRAY[0])
    with pytest.raises(ValueError, match=r"X must be of shape \(n, H, W\), got \(2, 3\)"):
        as_sequence(Stored(ARRAY[0]), "X", dimensions=(3,))
