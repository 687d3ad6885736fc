import numpy as np
import pytest
from PIL import Image

from skmmcrf.datasets import load_image_folder


@pytest.fixture
def folder(tmp_path):
    """Two images, one of colour, with masks of one bit, and a split of one."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).save(tmp_path / "images" / "b.png")
    Image.fromarray(rng.integers(0, 255, (5, 4), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(rng.uniform(size=(6, 8)) < 0.5).save(tmp_path / "masks" / "b.png")
    Image.fromarray(rng.uniform(size=(5, 4)) < 0.5).save(tmp_path / "masks" / "a.png")
    (tmp_path / "train.txt").write_text("b\n\n")
    return tmp_path


def test_all_images_come_sorted_by_name(folder):
    data = load_image_folder(folder)
    assert data.names == ["a", "b"]
    assert [image.shape for image in data.images] == [(5, 4), (6, 8, 3)]
    assert [mask.shape for mask in data.masks] == [(5, 4), (6, 8)]
    assert all(image.dtype == mask.dtype == np.uint8 for image, mask in zip(data.images, data.masks))
    expected = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    np.testing.assert_array_equal(data.images[1], expected)
    assert set(np.unique(data.masks[1])) == {0, 1}


def test_a_split_lists_names_in_its_order(folder):
    assert load_image_folder(str(folder), "train").names == ["b"]
    (folder / "train.txt").write_text("b\na\n")
    assert load_image_folder(folder, "train").names == ["b", "a"]


def test_foreground_may_have_another_value(folder):
    mask = np.zeros((5, 4), np.uint8)
    mask[1:3] = 255
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    (folder / "train.txt").write_text("a")
    with pytest.raises(ValueError, match="the folder of masks holds no 1, but 255, .* give pos_label=255"):
        load_image_folder(folder, "train")
    np.testing.assert_array_equal(load_image_folder(folder, "train", pos_label=255).masks[0], mask == 255)
    np.testing.assert_array_equal(load_image_folder(folder, "train", ignore_label=255).masks[0], mask)
    with pytest.raises(ValueError, match=r"the mask of 'a' must hold the labels 0 and 1 only, found \[255\]"):
        load_image_folder(folder, "train", ignore_label=None)


def test_other_formats_and_depths(folder):
    Image.fromarray(np.full((5, 4), 65535, np.uint16)).save(folder / "images" / "a.png")
    palette = Image.fromarray(np.ones((5, 4), np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(folder / "masks" / "a.png")
    data = load_image_folder(folder)
    assert data.images[0].dtype == np.uint16
    assert data.images[0].max() == 65535
    assert (data.masks[0] == 1).all()


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        (lambda f: (f / "masks" / "a.png").unlink(), FileNotFoundError, "no file named 'a' in .*masks"),
        (lambda f: (f / "images" / "c.png").write_bytes(b"no image"), ValueError, "c.png can't be read as an image"),
        (lambda f: Image.new("1", (4, 4)).save(f / "masks" / "a.png"), ValueError, r"'a' has shape \(4, 4\)"),
        (lambda f: Image.new("L", (4, 5)).save(f / "images" / "a.jpg"), ValueError, "'a' stands for several files"),
        (lambda f: Image.new("RGB", (4, 5)).save(f / "masks" / "a.png"), ValueError, "mask of 'a' has shape"),
    ],
)
def test_broken_folders_are_told(folder, breaks, error, message):
    breaks(folder)
    with pytest.raises(error, match=message):
        load_image_folder(folder)


@pytest.mark.parametrize(("split", "names"), [("test", None), ("bad", "../images/a"), ("bad", "missing")])
def test_bad_splits_are_told(folder, split, names):
    if names:
        (folder / "bad.txt").write_text(names)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_image_folder(folder, split)


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_image_folder(tmp_path / "nowhere")
