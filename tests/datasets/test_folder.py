import os
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from skmmcrf.datasets import load_image_folder


@pytest.fixture
def folder(tmp_path):
    """Two images with masks of one bit, and a split of one."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(rng.integers(0, 255, (6, 8), np.uint8)).save(tmp_path / "images" / "b.png")
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
    assert [image.shape for image in data.images] == [(5, 4), (6, 8)]
    assert all(image.dtype == mask.dtype == np.uint8 for image, mask in zip(data.images, data.masks))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(data.images[1], rng.integers(0, 255, (6, 8), np.uint8))
    np.testing.assert_array_equal(data.images[0], rng.integers(0, 255, (5, 4), np.uint8))
    np.testing.assert_array_equal(data.masks[1], rng.uniform(size=(6, 8)) < 0.5)
    np.testing.assert_array_equal(data.masks[0], rng.uniform(size=(5, 4)) < 0.5)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"b\n", ["b"]),
        (b"b\na\n", ["b", "a"]),
        (b"\xef\xbb\xbfb\r\n a \r\n", ["b", "a"]),
        (b"b.png\na\n", ["b", "a"]),
    ],
)
def test_a_split_lists_names_in_its_order(folder, text, names):
    (folder / "train.txt").write_bytes(text)
    assert load_image_folder(str(folder), "train").names == names


def test_images_masks_and_splits_have_names_as_people_give_them(folder):
    for path in ("images/b.png", "masks/b.png"):
        (folder / path).unlink()
    Image.new("L", (2, 1)).save(folder / "images" / f"{normalize('NFD', 'Müller')}.PNG")
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(folder / "masks" / f"{normalize('NFC', 'Müller')}_Mask.tif")
    (folder / "train.txt").write_text(normalize("NFD", "Müller"), encoding="utf-8")
    data = load_image_folder(folder, "train")
    assert data.names == [normalize("NFC", "Müller")]
    assert data.masks[0].tolist() == [[0, 1]]


def test_a_name_without_ending_may_look_like_one_with(folder):
    for part in ("images", "masks"):
        (folder / part / "b.png").rename(folder / part / "b.c.png")
    (folder / "train.txt").write_text("b.c")
    assert load_image_folder(folder, "train").names == ["b.c"]


def test_masks_are_read_as_they_are_of_pairs(folder):
    mask = np.zeros((5, 4), np.uint8)
    mask[1:3] = 255
    mask[3] = 7
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    (folder / "train.txt").write_text("a")
    with pytest.raises(ValueError, match="the masks hold 0 in 8 pixels, 255 in 8 pixels, 7 in 4 pixels"):
        load_image_folder(folder, "train")
    data = load_image_folder(folder, "train", foreground=255, ignore_label=7, channels="RGB")
    assert np.unique(data.masks[0], axis=1).T.tolist() == [[0, 1, 1, 255, 0]]
    assert data.images[0].shape == (5, 4, 3)
    assert (data.image_files, data.mask_files) == ([folder / "images" / "a.png"], [folder / "masks" / "a.png"])
    assert data.groups is None


def remove_all(folder):
    for part in ("images", "masks"):
        for file in (folder / part).iterdir():
            file.unlink()


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        (lambda f: put_text(f / "images" / "a.png"), ValueError, "a.png can't be read as an image"),
        (
            lambda f: Image.new("1", (4, 4)).save(f / "masks" / "a.png"),
            ValueError,
            r"a.png has the .* \(4, 4\), but its",
        ),
        (lambda f: Image.new("L", (4, 5)).save(f / "images" / "a.jpg"), ValueError, "fits several images by its name"),
        (lambda f: Image.new("1", (4, 5)).save(f / "masks" / "a_gt.png"), ValueError, "fits several masks by its name"),
        (remove_all, FileNotFoundError, "has no images"),
        (lambda f: (f / "masks").rename(f / "labels"), FileNotFoundError, "the folder .*masks is missing"),
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


PLAIN = "must be a plain name, without a folder, got"


@pytest.mark.parametrize(
    ("split", "text", "error", "message"),
    [
        ("test", None, FileNotFoundError, "the file .*test.txt of the split is missing"),
        ("bad", "b\nmissing\nother", FileNotFoundError, "has no image with a mask named 'missing', 'other'"),
        ("bad", "b.jpg", FileNotFoundError, "no image with a mask named 'b.jpg'"),
        ("bad", "b\na\nb\n", ValueError, "the split lists 'b.png' more than once"),
        ("bad", "b\na\nb.png\n", ValueError, "the split lists 'b.png' more than once"),
        ("bad", "\n \n", ValueError, "bad.txt lists no images"),
        ("bad", b"\xff\xfeb\x00", ValueError, "bad.txt is not in UTF-8"),
        *(("bad", name, ValueError, f"a name in .*bad.txt {PLAIN}") for name in ("../images/a", "a\n..\\images\\a")),
        *(("bad", name, ValueError, f"a name in .*bad.txt {PLAIN}") for name in ("..", ".", "a/", "/a", "C:a")),
        *((split, "a", ValueError, f"split {PLAIN} '{split}'") for split in ("../bad", "")),
        (3, None, TypeError, "split must be a str, got int"),
    ],
)
def test_bad_splits_are_told(folder, split, text, error, message):
    if text is not None:
        (folder / "bad.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=message):
        load_image_folder(folder, split)


def test_what_has_no_partner_is_told_unless_a_split_says_what_is_used(folder):
    for path in ("images/.DS_Store", "masks/Thumbs.db", "masks/desktop.ini", ".git/HEAD", "images/notes.txt"):
        put_text(folder / path)
    assert load_image_folder(folder).names == ["a", "b"]
    put_text(folder / "images" / "more" / "c.png")
    put_text(folder / "masks" / "c.png")
    put_text(folder / "images" / "d.png")
    with pytest.warns(UserWarning, match="left out") as record:
        assert load_image_folder(folder).names == ["a", "b"]
    assert [str(warning.message) for warning in record] == [
        "1 of 3 images have no mask and are left out: 'd.png'",
        "1 of 3 masks have no image and are left out: 'c.png'",
    ]
    assert {warning.filename for warning in record} == {__file__}
    assert load_image_folder(folder, "train").names == ["b"]


def test_what_lies_beside_is_told(folder):
    put_text(folder / "masks2" / "a.png")
    put_text(folder / "README.md")
    with pytest.warns(UserWarning, match=r"holds 'README.md', 'masks2', which is not read") as record:
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
def test_pipes_and_broken_links_are_not_read(folder):
    file = folder / "images" / "b.png"
    for put in (lambda: os.mkfifo(file), lambda: file.symlink_to("b.png"), lambda: file.symlink_to("nowhere")):
        file.unlink()
        put()
        with pytest.raises(FileNotFoundError, match="no image with a mask named 'b'"):
            load_image_folder(folder, "train")
