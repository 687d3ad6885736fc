import os

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


def put_text(path):
    path.parent.mkdir(exist_ok=True)
    path.write_text("no image")


def test_all_images_come_sorted_by_name(folder):
    data = load_image_folder(folder)
    assert data.names == ["a", "b"]
    assert [image.shape for image in data.images] == [(5, 4), (6, 8, 3)]
    assert all(image.dtype == mask.dtype == np.uint8 for image, mask in zip(data.images, data.masks))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(data.images[1], rng.integers(0, 255, (6, 8, 3), np.uint8))
    np.testing.assert_array_equal(data.images[0], rng.integers(0, 255, (5, 4), np.uint8))
    np.testing.assert_array_equal(data.masks[1], rng.uniform(size=(6, 8)) < 0.5)
    np.testing.assert_array_equal(data.masks[0], rng.uniform(size=(5, 4)) < 0.5)


@pytest.mark.parametrize(
    ("text", "names"),
    [(b"b\n", ["b"]), (b"b\na\n", ["b", "a"]), (b"\xef\xbb\xbfb\r\n a \r\n", ["b", "a"])],
)
def test_a_split_lists_names_in_its_order(folder, text, names):
    (folder / "train.txt").write_bytes(text)
    assert load_image_folder(str(folder), "train").names == names


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
    (folder / "masks" / "a.png").unlink()
    palette = Image.fromarray(np.ones((5, 4), np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(folder / "masks" / "a.bmp")
    data = load_image_folder(folder)
    assert data.images[0].dtype == np.uint16
    assert (data.images[0] == 65535).all()
    assert (data.masks[0] == 1).all()


def remove_all(folder):
    for part in ("images", "masks"):
        for file in (folder / part).iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        (lambda f: (f / "masks" / "a.png").unlink(), FileNotFoundError, "no file named 'a' in .*masks"),
        (lambda f: (f / "images" / "a.png").unlink(), FileNotFoundError, "no file named 'a' in .*images"),
        (lambda f: put_text(f / "images" / "a.png"), ValueError, "a.png can't be read as an image"),
        (lambda f: Image.new("1", (4, 4)).save(f / "masks" / "a.png"), ValueError, r"'a' has shape \(4, 4\), but its"),
        (lambda f: Image.new("RGB", (4, 5), "red").save(f / "masks" / "a.png"), ValueError, "a mask with colours"),
        (lambda f: Image.new("L", (4, 5)).save(f / "images" / "a.jpg"), ValueError, "'a' stands for several files"),
        (
            lambda f: [Image.new("L", (2, 2)).save(f / "masks" / f"c{n}.png") for n in range(7)],
            FileNotFoundError,
            "no file named 'c0', 'c1', 'c2', 'c3', 'c4' and 2 more in .*images",
        ),
        (lambda f: put_text(f / "images" / "notes.txt"), FileNotFoundError, "no file named 'notes' in .*masks"),
        (lambda f: put_text(f / "images" / "more" / "c.png"), ValueError, "more must be a file"),
        (remove_all, ValueError, "there are no images in "),
        (lambda f: (f / "masks").rename(f / "labels"), FileNotFoundError, "there is no folder .*masks"),
        (
            lambda f: Image.new("1", (12_000, 12_000)).save(f / "masks" / "b.png"),
            ValueError,
            r"b.png can't be read as an image: Image size .144000000 pixels. exceeds",
        ),
    ],
)
def test_broken_folders_are_told(folder, breaks, error, message):
    assert len(load_image_folder(folder).images) == 2
    breaks(folder)
    with pytest.raises(error, match=message):
        load_image_folder(folder)


@pytest.mark.parametrize("folder", [None, 3])
def test_what_is_no_folder_is_told(folder):
    with pytest.raises(TypeError, match=r"PathLike|folder"):
        load_image_folder(folder)


PLAIN = "must be a plain name, of no other folder, got"


@pytest.mark.parametrize(
    ("split", "text", "error", "message"),
    [
        ("test", None, FileNotFoundError, "no file .*test.txt for the split"),
        ("bad", "b\nmissing\nother", FileNotFoundError, "no file named 'missing', 'other' in .*images"),
        ("bad", "b.png", FileNotFoundError, "no file named 'b.png'"),
        ("bad", "b\na\nb\n", ValueError, "bad.txt lists 'b' more than once"),
        ("bad", "\n \n", ValueError, "no images in .* for the split 'bad'"),
        ("bad", b"\xff\xfeb\x00", ValueError, "bad.txt is not in UTF-8"),
        *(("bad", name, ValueError, f"a name in .*bad.txt {PLAIN}") for name in ("../images/a", "a\n..\\images\\a")),
        *(("bad", name, ValueError, f"a name in .*bad.txt {PLAIN}") for name in ("..", ".", "a/", "/a", "C:a")),
        *((split, "a", ValueError, f"split {PLAIN} '{split}'") for split in ("../bad", "")),
        (3, None, TypeError, "split must be a str or None, got int"),
    ],
)
def test_bad_splits_are_told(folder, split, text, error, message):
    if text is not None:
        (folder / "bad.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=message):
        load_image_folder(folder, split)


def test_a_split_says_what_is_used_and_hidden_files_are_passed_over(folder):
    for path in ("images/.DS_Store", "masks/Thumbs.db", "masks/desktop.ini", ".git/HEAD"):
        put_text(folder / path)
    assert load_image_folder(folder).names == ["a", "b"]
    for path in ("images/notes.txt", "masks/c.png", "images/more/c.png", "README"):
        put_text(folder / path)
    assert load_image_folder(folder, "train").names == ["b"]


def test_what_lies_beside_is_told(folder):
    put_text(folder / "masks2" / "a.png")
    put_text(folder / "README.md")
    with pytest.warns(UserWarning, match=r"holds 'README.md', 'masks2', which nothing is read from") as record:
        load_image_folder(folder)
    assert record[0].filename == __file__


def link_or_skip(path, target):
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system lets not everyone make links")


@pytest.mark.parametrize("path", ["images/b.png", "masks/b.png", "images", "masks", "train.txt"])
def test_links_are_followed_within_the_folder_only(folder, tmp_path_factory, path):
    link, within, elsewhere = folder / path, folder / "linked", tmp_path_factory.mktemp("elsewhere") / "linked"
    link.rename(within)
    link_or_skip(link, within)
    assert load_image_folder(folder, "train").names == ["b"]
    link.unlink()
    within.rename(elsewhere)
    link_or_skip(link, elsewhere)
    with pytest.raises(ValueError, match=f"{link.name} leads out of "):
        load_image_folder(folder, "train")


def test_the_folder_itself_may_be_a_link(folder, tmp_path_factory):
    name = tmp_path_factory.mktemp("elsewhere") / "name"
    link_or_skip(name, folder)
    assert load_image_folder(name).names == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipes_and_broken_links_are_refused(folder):
    file = folder / "images" / "b.png"
    for put in (lambda: os.mkfifo(file), lambda: file.symlink_to("b.png"), lambda: file.symlink_to("nowhere")):
        file.unlink()
        put()
        with pytest.raises(ValueError, match="b.png must be a file"):
            load_image_folder(folder, "train")
