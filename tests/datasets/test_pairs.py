import os
import pickle
from functools import partial
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_score, train_test_split

from skmmcrf import CNNSegmenter
from skmmcrf.datasets import load_image_pairs, make_phantoms, pairs, split_pairs
from skmmcrf.images.sequences import OnDemand
from skmmcrf.networks import UNet


def put(file, pixels=((0, 1), (0, 0))):
    """An image, or its mask, at a path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, np.uint8)).save(file)


def put_all(folder, names):
    for name in names.split("|"):
        put(folder / name)


def names_of(files):
    return [file.name for file in files]


def test_a_folder_of_images_and_one_of_masks(tmp_path):
    put(tmp_path / "images" / "b.png", [[5, 6], [7, 8]])
    put(tmp_path / "images" / "a.bmp", [[1, 2, 3]])
    put(tmp_path / "masks" / "a_mask.png", [[0, 255, 0]])
    put(tmp_path / "masks" / "b_mask.PNG", [[0, 255], [255, 0]])
    data = load_image_pairs(tmp_path / "images", str(tmp_path / "masks"))
    assert data.names == ["a", "b"]
    assert (data.image_files, data.mask_files) == (
        [tmp_path / "images" / "a.bmp", tmp_path / "images" / "b.png"],
        [tmp_path / "masks" / "a_mask.png", tmp_path / "masks" / "b_mask.PNG"],
    )
    assert data.groups is None
    np.testing.assert_array_equal(data.images[1], [[5, 6], [7, 8]])
    assert [mask.tolist() for mask in data.masks] == [[[0, 1, 0]], [[0, 1], [1, 0]]]
    assert all(mask.dtype == np.uint8 for mask in data.masks)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("", "*_mask.png"),
        ("*.png", "*_mask.png"),
        ("?.png", "*_mask.png"),
        ("[ab].png", ""),
        ("**/?.png", "**/*_mask.png"),
    ],
)
def test_images_and_masks_in_one_folder_are_told_apart_by_patterns(tmp_path, images, masks):
    put_all(tmp_path, "a.png|a_mask.png|b.png|b_mask.png")
    data = load_image_pairs(os.path.join(tmp_path, images), os.path.join(tmp_path, masks))
    assert names_of(data.image_files) == ["a.png", "b.png"]
    assert names_of(data.mask_files) == ["a_mask.png", "b_mask.png"]


def test_a_folder_for_each_patient(tmp_path):
    put_all(tmp_path, "p1/image.png|p1/mask.png|p2/image.png|p2/mask.png|p2/more/image.png|p2/more/mask.png")
    data = load_image_pairs(
        tmp_path / "**" / "image.png",
        tmp_path / "**" / "mask.png",
        group=lambda file: file.relative_to(tmp_path).parts[0],
    )
    assert data.names == ["p1_image", "p2_image", "p2_more_image"]
    assert [file.parent for file in data.mask_files] == [file.parent for file in data.image_files]
    assert data.groups == ["p1", "p2", "p2"]


def test_lists_keep_their_order(tmp_path):
    put_all(tmp_path, "b.png|a.png|a_mask.png|b_mask.png")
    images, masks = (tmp_path / "b.png", str(tmp_path / "a.png")), np.array([f"{tmp_path}/{n}_mask.png" for n in "ab"])
    data = load_image_pairs(images, masks)
    assert data.names == ["b", "a"]
    assert names_of(data.mask_files) == ["b_mask.png", "a_mask.png"]


def test_what_is_no_image_is_passed_over_in_folders(tmp_path):
    put_all(tmp_path, "images/a.png|masks/a.png|images/more/b.png")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", "notes.TXT", "a.json", "a.csv", "a.xml"):
        for part in ("images", "masks"):
            (tmp_path / part / name).write_text("no image")
    assert load_image_pairs(tmp_path / "images", tmp_path / "masks").names == ["a"]
    assert load_image_pairs(tmp_path / "images" / "*", tmp_path / "masks" / "*").names == ["a"]


def test_a_pair_of_links_to_nothing_is_told(tmp_path):
    for part in ("images", "masks"):
        put(tmp_path / part / "a.png")
        (tmp_path / part / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"images must be files, but '.*b\.png' are links"):
        load_image_pairs(tmp_path / "images", tmp_path / "masks")


def test_what_has_no_partner_is_told_and_not_read(tmp_path):
    put_all(tmp_path, "images/a.png|masks/a.png|masks/x1.png|masks/x2.png")
    (tmp_path / "images" / "README").write_text("no image")
    with pytest.warns(UserWarning, match="left out") as record:
        data = load_image_pairs(tmp_path / "images", tmp_path / "masks")
    assert data.names == ["a"]
    assert [str(warning.message) for warning in record] == [
        "1 of 2 images have no mask and are left out: 'README'",
        "2 of 3 masks have no image and are left out: 'x1.png', 'x2.png'",
    ]
    assert {warning.filename for warning in record} == {__file__}


def test_numbered_masks_of_an_image_are_united(tmp_path):
    put_all(tmp_path, "images/a (1).png|images/a (2).png|masks/a (2)_mask.png")
    put(tmp_path / "masks" / "a (1)_mask.png", [[0, 1], [7, 7]])
    put(tmp_path / "masks" / "a (1)_mask_1.png", [[1, 7], [7, 0]])
    with pytest.warns(UserWarning, match=r"^several masks are united for each of 'a \(1\).png'$") as record:
        data = load_image_pairs(tmp_path / "images", tmp_path / "masks", ignore_label=7)
    assert record[0].filename == __file__
    assert data.masks[0].tolist() == [[1, 1], [255, 255]]
    assert data.masks[0].dtype == np.uint8
    assert names_of(data.mask_files[0]) == ["a (1)_mask.png", "a (1)_mask_1.png"]
    assert data.mask_files[1].name == "a (2)_mask.png"


def test_several_masks_of_classes_are_not_united(tmp_path):
    put(tmp_path / "images" / "a.png", [[0, 0, 0]])
    for name in ("a_mask.png", "a_mask_1.png"):
        put(tmp_path / "masks" / name, [[0, 1, 2]])
    with (
        pytest.warns(UserWarning, match="several masks are united"),
        pytest.raises(ValueError, match=r"^an image of several classes must have one mask, but .*a_mask_1.png' are of"),
    ):
        load_image_pairs(tmp_path / "images", tmp_path / "masks")


def test_guesses_are_told(tmp_path):
    put_all(tmp_path, "images/1_a.png|images/2_a.png|masks/1_b.png|masks/2_b.png")
    with pytest.warns(UserWarning, match="pairs are a guess, such as '1_a.png' with '1_b.png'") as record:
        load_image_pairs(tmp_path / "images", tmp_path / "masks")
    assert record[0].filename == __file__


def test_options_are_checked_before_anything_is_read(tmp_path):
    put_all(tmp_path, "masks/a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="^foreground must be"):
        load_image_pairs(tmp_path / "images", tmp_path / "masks", foreground="nonzero")


def test_all_images_may_be_made_grey_or_coloured(tmp_path):
    put_all(tmp_path, "images/a.png|masks/a.png|masks/b.png")
    put(tmp_path / "images" / "b.png", np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"a.png has shape \(2, 2\) and .*b.png \(2, 2, 3\): channels=\"L\" makes"):
        load_image_pairs(tmp_path / "images", tmp_path / "masks")
    for channels, shape in {"L": (2, 2), "RGB": (2, 2, 3)}.items():
        data = load_image_pairs(tmp_path / "images", tmp_path / "masks", channels=channels)
        assert [image.shape for image in data.images] == [shape] * 2


def test_names_are_in_one_unicode_form(tmp_path):
    put_all(tmp_path, f"images/{normalize('NFD', 'Müller')}.png|masks/{normalize('NFC', 'Müller')}_mask.png")
    assert load_image_pairs(tmp_path / "images", tmp_path / "masks").names == [normalize("NFC", "Müller")]


@pytest.mark.parametrize(
    ("images", "masks", "options", "error", "message"),
    [
        ("none", "masks", {}, FileNotFoundError, "images must be a folder, .* the folder '.*none' is missing"),
        ("images", "masks/*.tif", {}, FileNotFoundError, r"masks: no image files are in .*\.tif"),
        (".", "masks", {}, FileNotFoundError, r"images: no image files are in .*: .*\*\*/\*"),
        (3, "masks", {}, TypeError, "images must be a folder, a pattern or a list of paths, got 3"),
        (["images/a.png", "images/c.png"], "masks", {}, FileNotFoundError, "'.*c.png' is missing"),
        ([], "masks", {}, FileNotFoundError, "images: no image files are in"),
        ("images", "images", {}, ValueError, r"images and masks are the same files, 'a.png', 'b.png': .*\*_mask.png"),
        ("images/*", ["images/a.png", "masks/a.png"], {}, ValueError, "'a.png' must be images or masks, not both"),
        ("images", "other", {}, ValueError, "the images are 'a.png', 'b.png', and the masks 'x.png', 'y.png'. Rename"),
        ("images", "twice", {}, ValueError, "images/a.png fits several masks by its name: .*a_gt.png, .*a_mask.png"),
        ("images", "large", {}, ValueError, r"large/a.png has the .* \(1, 3\), but its image .*a.png has \(2, 2\)"),
        ("images", "masks", {"group": "("}, ValueError, r"group must be a regular expression or a function, got '\('"),
        ("images", "masks", {"group": "a"}, ValueError, "group must have the part that names the patient in paren"),
        ("images", "masks", {"group": "(a)"}, ValueError, r"group='\(a\)' finds nothing in 'b'"),
        ("images", "masks", {"group": "(x?)a|b"}, ValueError, "finds nothing in 'a', 'b'"),
    ],
)
def test_what_can_not_be_loaded_is_told(tmp_path, monkeypatch, images, masks, options, error, message):
    put_all(tmp_path, "images/a.png|images/b.png|masks/a.png|masks/b.png|other/x.png|other/y.png")
    put_all(tmp_path, "twice/a_mask.png|twice/a_gt.png")
    put(tmp_path / "large" / "a.png", [[0, 1, 1]])
    put(tmp_path / "large" / "b.png", [[0, 1, 1]])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load_image_pairs(images, masks, **options)


@pytest.fixture
def data(tmp_path):
    """Ten images of four patients."""
    for n in range(10):
        put(tmp_path / "images" / f"p{n % 4}_{n}.png", [[n, 0], [0, 0]])
        put(tmp_path / "masks" / f"p{n % 4}_{n}.png")
    return lambda group: load_image_pairs(tmp_path / "images", tmp_path / "masks", group=group)


def test_a_split_puts_each_image_in_one_part(data):
    whole = data(None)
    train, test = split_pairs(whole, random_state=0)
    assert (len(train.names), len(test.names)) == (8, 2)
    assert sorted(train.names + test.names) == whole.names
    for part in (train, test):
        assert part.names == sorted(part.names)
        assert part.keys() == whole.keys()
        assert names_of(part.image_files) == names_of(part.mask_files) == [f"{name}.png" for name in part.names]
        assert [image[0, 0] for image in part.images] == [int(name[3:]) for name in part.names]
        assert part.groups is None
    assert split_pairs(whole, random_state=0)[1].names == test.names
    assert len({tuple(split_pairs(whole, random_state=seed)[1].names) for seed in range(5)}) > 1
    assert len(split_pairs(whole, 3)[1].names) == 3


@pytest.mark.parametrize("seed", range(5))
def test_a_split_parts_no_patient(data, seed):
    whole = data(r"^(p\d)_")
    assert whole.groups == [name[:2] for name in whole.names]
    train, test = split_pairs(whole, test_size=0.5, random_state=seed)
    assert len(set(train.groups)) == len(set(test.groups)) == 2
    assert not set(train.groups) & set(test.groups)
    assert sorted(train.names + test.names) == whole.names


def test_what_can_not_be_split_is_told(data):
    with pytest.raises(ValueError, match="all images are of one group, 'p'"):
        split_pairs(data("^(p)"))
    with pytest.raises(ValueError, match=r"test_size=10 does not split \d+ images in two: test_size=10 should be"):
        split_pairs(data(None), 10)
    with pytest.raises(ValueError, match="test_size=4 does not split 4 groups in two"):
        split_pairs(data(r"^(p\d)_"), 4)


@pytest.fixture
def folder(tmp_path):
    """A folder of eight images with the subfolders images and masks."""
    X, y = make_phantoms(8, shape=(16, 20), random_state=0)
    for n, (image, mask) in enumerate(zip(X, y)):
        put(tmp_path / "images" / f"dog{n}.png", np.stack([255 * image.clip(0, 1)] * 3, axis=-1))
        put(tmp_path / "masks" / f"dog{n}_mask.png", 255 * mask)
    return tmp_path


def load_lazily(folder, monkeypatch, **options):
    monkeypatch.setattr(pairs, "MOST_IN_MEMORY", 1000)
    return load_image_pairs(folder / "images", folder / "masks", **options)


def test_what_is_too_large_for_memory_is_read_when_needed(folder, monkeypatch):
    data = load_image_pairs(folder / "images", folder / "masks", channels="L")
    lazy = load_lazily(folder, monkeypatch, channels="L")
    assert isinstance(data.images, list)
    assert len(lazy.images) == len(lazy.masks) == 8
    np.testing.assert_array_equal(lazy.images, data.images)
    np.testing.assert_array_equal(lazy.masks, data.masks)
    put(folder / "images" / "dog3.png", [[7, 8]])
    assert lazy.images[3].tolist() == [[7, 8]]


def test_masks_read_when_needed_are_united_and_unlabelled_as_others(folder, monkeypatch):
    put(folder / "masks" / "dog3_mask_1.png", np.full((16, 20), 128))
    options = {"foreground": 255, "ignore_label": 128}
    with pytest.warns(UserWarning, match="several masks are united"):
        data = load_image_pairs(folder / "images", folder / "masks", **options)
    with pytest.warns(UserWarning, match="several masks are united"):
        lazy = load_lazily(folder, monkeypatch, **options)
    assert set(np.unique(lazy.masks[3])) == {1, 255}
    np.testing.assert_array_equal(lazy.masks, data.masks)


def test_what_is_read_when_needed_is_split_and_used_as_a_list(folder, monkeypatch):
    data = load_image_pairs(folder / "images", folder / "masks")
    lazy = load_lazily(folder, monkeypatch)
    train, test = split_pairs(lazy, random_state=0)
    X, _, y, _ = train_test_split(lazy.images, lazy.masks, test_size=2, random_state=0)
    assert {type(part) for part in (train.images, test.masks, X, y, lazy.images[1:3])} == {OnDemand}
    known, _ = split_pairs(data, random_state=0)
    np.testing.assert_array_equal(train.images, known.images)
    model = CNNSegmenter(partial(UNet, width=8, depth=1), n_epochs=1, random_state=0)
    labels = [model.fit(part.images, part.masks).predict(part.images) for part in (known, train)]
    np.testing.assert_array_equal(*labels)
    scores = [cross_val_score(model, part.images, part.masks, cv=2) for part in (data, lazy)]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).masks, data.masks)


def test_bad_files_are_told_of_any_size_of_the_folder(folder, monkeypatch):
    put(folder / "masks" / "dog3_mask.png", [[0, 255]])
    with pytest.raises(ValueError, match=r"dog3_mask\.png has the height and width \(1, 2\), but its image"):
        load_lazily(folder, monkeypatch)
    (folder / "images" / "dog0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"dog0\.png can't be read as an image"):
        load_lazily(folder, monkeypatch)


def test_an_image_larger_than_pil_allows_is_named_before_any_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    put(folder / "images" / "dog7.png", np.zeros((30, 20)))
    monkeypatch.setattr(pairs, "read_image", None)
    with pytest.raises(ValueError, match=r"7\.png can't be read as an image: Image size \(600 pixels\) exceeds limit"):
        load_image_pairs(folder / "images", folder / "masks")
