import numpy as np
import pytest
from PIL import Image
from torch import nn

from skmmcrf import CNNSegmenter
from skmmcrf._shown import shortened, shown
from skmmcrf.datasets import load_image_folder, load_image_pairs, make_phantoms, save_masks
from skmmcrf.field import Grid, build_terms
from skmmcrf.images.files import read_image


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
    assert 0 < len(shown(value)) <= 200


def test_a_value_of_several_lines_is_shown_on_one():
    assert shown(nn.Sequential(nn.ReLU(), nn.ReLU())) == "Sequential( (0): ReLU() (1): ReLU() )"
    assert shown("two  words\n") == repr("two  words\n")


def test_of_a_long_text_beginning_and_end_are_shown():
    text = shown("begin" + "x" * 1_000_000 + "end")
    assert text.startswith("'beginx")
    assert text.endswith("xend'")


@pytest.mark.parametrize(
    "refuse",
    [
        lambda long: load_image_pairs(["image.png"], "masks", group=long),
        lambda long: load_image_folder(".", long + "/"),
        lambda long: save_masks("folder", [long], [[[0, 1]]]),
        lambda long: make_phantoms(1, shape=long),
        lambda long: read_image(long),
        lambda long: read_image("image.png", channels=long),
        lambda long: Grid.from_connectivity(long),
        lambda long: Grid.from_connectivity([long]),
        lambda long: build_terms(long),
        lambda long: CNNSegmenter(long).fit(np.zeros((1, 8, 8)), np.ones((1, 8, 8), int)),
        lambda long: CNNSegmenter(crop=[long]).fit(np.zeros((1, 8, 8)), np.ones((1, 8, 8), int)),
        lambda long: CNNSegmenter(class_weight={long: 1}).fit(np.zeros((1, 8, 8)), np.ones((1, 8, 8), int)),
        lambda long: CNNSegmenter().fit([{long: 1}]),
    ],
)
def test_what_refuses_a_value_of_a_megabyte_says_so_in_a_few_lines(refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / folder / "image.png")
    Image.new("L", (2, 2)).save("image.png")
    with pytest.raises((ValueError, TypeError)) as error:
        refuse("x" * 1_000_000)
    assert len(str(error.value)) < 1000


def test_a_long_message_is_cut():
    assert shortened(ValueError("short")) == "short"
    assert shortened(ValueError("begin" + "x" * 1_000_000)).startswith("beginx")
    assert len(shortened(ValueError("x" * 1_000_000))) == 1000
