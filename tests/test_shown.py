import numpy as np
import pytest

from skmmcrf._shown import shown


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("value", [None, 3, 0.5, "dice", "it's", (1, 2), [(0, 1), (1, 0)], {"a": [1]}, {2}, b"ab"])
def test_a_short_value_is_shown_as_python_does(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        b"x" * 1_000_000,
        np.str_("x" * 1_000_000),
        ["x" * 1_000_000] * 1000,
        [[[["x" * 50] * 50] * 50] * 50] * 50,
        dict.fromkeys(range(1_000_000)),
        {"x" * 1_000_000: 1},
        np.ones((100, 100)),
        10**5000,
        [10**5000],
        Broken(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_long_value_is_cut(value):
    assert 0 < len(shown(value)) <= 100


def test_of_a_long_text_beginning_and_end_are_shown():
    text = shown("begin" + "x" * 1_000_000 + "end")
    assert text.startswith("'beginx")
    assert text.endswith("xend'")
