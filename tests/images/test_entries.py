import numpy as np
import pandas as pd
import pytest
import torch

from skmmcrf.images.entries import as_array, as_sequence

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
