import numpy as np
import pytest
from PIL import Image

from skmmcrf.datasets import load_image_pairs, save_masks
from skmmcrf.images.files import read_image

RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


@pytest.fixture
def load(tmp_path):
    """Load the labels of masks that are given as arrays."""

    def load(*masks, ending="png", **options):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir()
        for n, mask in enumerate(masks):
            mask = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask))
            Image.new("L", mask.size).save(tmp_path / "images" / f"{n}.png")
            mask.save(tmp_path / "masks" / f"{n}.{ending}", **({"quality": 50} if ending == "jpg" else {}))
        data = load_image_pairs(tmp_path / "images", tmp_path / "masks", **options)
        assert all(mask.dtype == np.uint8 for mask in data.masks)
        return [mask.tolist() for mask in data.masks]

    return load


def palette_image():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="P")
    image.putpalette([9, 9, 9, *RED, *GREEN])
    return image


@pytest.mark.parametrize(
    ("mask", "options", "labels"),
    [
        (np.array([[False, True, True]]), {}, [[0, 1, 1]]),
        (np.array([[0, 1, 0]], np.uint8), {}, [[0, 1, 0]]),
        (np.array([[0, 255, 0]], np.uint8), {}, [[0, 1, 0]]),
        (np.array([[0, 65535, 0]], np.uint16), {}, [[0, 1, 0]]),
        (np.array([[0, 300, 7]], np.uint16), {"foreground": 300, "ignore_label": 7}, [[0, 1, 255]]),
        (np.array([[0, 1, 255]], np.uint8), {"ignore_label": 255}, [[0, 1, 255]]),
        (np.array([[0, 1, 255]], np.uint8), {"foreground": 255}, [[0, 0, 1]]),
        (np.array([[0, 1, 2]], np.uint8), {"foreground": 2, "ignore_label": 0}, [[255, 0, 1]]),
        (np.array([[0, 1, 1]], np.uint8), {"foreground": 0}, [[1, 0, 0]]),
        (np.array([[3, 127, 128]], np.uint8), {"foreground": ">127"}, [[0, 0, 1]]),
        (np.array([[3, 127, 128]], np.uint8), {"foreground": ">=127"}, [[0, 1, 1]]),
        (np.array([[0, 1, 2]], np.uint8), {"foreground": "> 0.5"}, [[0, 1, 1]]),
        (np.array([[BLACK, WHITE, BLACK]], np.uint8), {}, [[0, 1, 0]]),
        (np.array([[BLACK, RED, WHITE]], np.uint8), {"foreground": WHITE}, [[0, 0, 1]]),
        (np.array([[BLACK, RED, GREEN]], np.uint8), {"foreground": GREEN}, [[0, 0, 1]]),
        (np.array([[BLACK, RED, GREEN]], np.uint8), {"foreground": RED, "ignore_label": GREEN}, [[0, 1, 255]]),
        (np.array([[BLACK, RED, GREEN]], np.uint8), {"foreground": 0, "ignore_label": GREEN}, [[1, 0, 255]]),
        (np.array([[BLACK, RED, GREEN]], np.uint8), {"ignore_label": GREEN}, [[0, 1, 255]]),
        (np.array([[0, 255, 0]], np.uint8), {"foreground": WHITE}, [[0, 1, 0]]),
        (np.array([[(*BLACK, 255), (*RED, 255), (*BLACK, 0)]], np.uint8), {"foreground": RED}, [[0, 1, 0]]),
        (np.array([[(*BLACK, 255), (*WHITE, 255), (*BLACK, 255)]], np.uint8), {}, [[0, 1, 0]]),
        (np.array([[(0, 255), (255, 255), (0, 255)]], np.uint8), {}, [[0, 1, 0]]),
        (palette_image(), {"foreground": 1}, [[0, 1, 0]]),
        (palette_image(), {"foreground": RED}, [[0, 1, 0]]),
    ],
)
def test_foreground_is_a_value_a_colour_or_what_is_above_a_bound(load, mask, options, labels):
    assert load(mask, **options) == [labels]


CLASSES_AND_255 = np.array([[0, 1, 2, 255]], np.uint8)


@pytest.mark.parametrize(
    ("mask", "options", "labels"),
    [
        (CLASSES_AND_255, {}, [[0, 1, 2, 255]]),
        (CLASSES_AND_255.astype(np.uint16), {}, [[0, 1, 2, 255]]),
        (np.array([[0, 1, 2, 3]], np.uint8), {"ignore_label": 0}, [[255, 1, 2, 3]]),
        (np.array([[0, 4, 1]], np.uint8), {}, [[0, 4, 1]]),
        (np.arange(224, dtype=np.uint8)[None], {}, [list(range(224))]),
        (palette_image(), {}, [[0, 1, 2]]),
        (np.repeat(CLASSES_AND_255[..., None], 3, axis=2), {}, [[0, 1, 2, 255]]),
        (np.array([[7, 200, 255]], np.uint8), {"foreground": None}, [[7, 200, 255]]),
        (np.array([[0, 255]], np.uint8), {"foreground": None}, [[0, 255]]),
        (np.array([[False, True]]), {"foreground": None}, [[0, 1]]),
        (np.array([[3, 300]], np.uint16), {"foreground": None, "ignore_label": 300}, [[3, 255]]),
    ],
)
def test_labels_of_several_classes_stay_as_they_are(load, mask, options, labels):
    assert load(mask, **options) == [labels]


def test_a_mask_may_lack_classes_that_others_have(load):
    masks = ([[0, 0]], [[3, 1]], [[255, 2]])
    assert load(*(np.array(mask, np.uint8) for mask in masks)) == list(map(list, masks))


@pytest.mark.parametrize(
    "values",
    [[0, 1, 255], [0, 3, 6], [1, 6, 7], [0, 127, 255], [0, 85, 170, 255], list(range(225)), list(range(256))],
    ids=str,
)
def test_values_that_may_be_no_classes_are_told(load, values):
    with pytest.raises(ValueError, match="foreground=None takes the values as the labels of several classes"):
        load(np.array([values], np.uint8))


def test_masks_compressed_with_loss_have_no_classes(load):
    mask = np.repeat(np.array([[0, 20]], np.uint8), 12, axis=1).repeat(24, axis=0)
    with pytest.raises(ValueError, match="foreground=None takes the values"):
        load(mask // 10, ending="jpg")


@pytest.mark.parametrize("mask", [np.array([[0, 300]], np.uint16), np.array([[0, 0.5]], np.float32)])
def test_labels_beyond_8_bits_are_told(load, mask):
    with pytest.raises(ValueError, match=r"0.tif holds (300|0.5), but labels of classes must be int from 0 to 255"):
        load(mask, ending="tif", foreground=None)


def test_palettes_that_give_an_index_two_colours_are_told(load):
    masks = [palette_image(), palette_image()]
    masks[1].putpalette([*GREEN, *RED, 9, 9, 9])
    with pytest.raises(ValueError, match=r"0\.png and .*1\.png have palettes in which the index 0 has different col"):
        load(*masks, foreground=1)


def test_colours_that_no_viewer_shows_are_no_labels(load):
    hidden, shown = (*RED, 0), (*RED, 255)
    with pytest.raises(ValueError, match=r"0\.png has transparent pixels of a colour that is foreground"):
        load(np.uint8([[shown, hidden]]), foreground=RED)


def test_transparent_background_needs_no_colour(load):
    assert load(np.uint8([[(*RED, 255), (0, 0, 0, 0)]]), foreground=RED) == [[[1, 0]]]


def test_masks_of_floats_are_read_as_those_of_integers(load):
    assert load(np.array([[0, 1, 1]], np.float32), ending="tif") == [[[0, 1, 1]]]


def test_masks_with_soft_edges_need_a_bound(load):
    mask = np.zeros((24, 24), np.uint8)
    mask[3:14, 3:14] = 255
    with pytest.raises(
        ValueError, match="^the masks hold .* and more .*: give the value .* foreground='>127' takes all values"
    ):
        load(mask, ending="jpg")


def test_a_bound_mends_soft_edges(load):
    mask = np.zeros((24, 24), np.uint8)
    mask[3:14, 3:14] = 255
    assert load(mask, ending="jpg", foreground=">127") == [(mask // 255).tolist()]


def test_a_mask_without_foreground_is_read_as_the_others_are(load):
    assert load(np.zeros((1, 2), np.uint8), np.array([[0, 255]], np.uint8), np.zeros((1, 2, 3), np.uint8)) == [
        [[0, 0]],
        [[0, 1]],
        [[0, 0]],
    ]


def test_the_label_of_a_class_does_not_become_1_without_a_word(load):
    with pytest.warns(UserWarning, match="^2 is the only .* label 1: give foreground=2 .* foreground=None") as record:
        assert load(*np.array([[[0, 2]], [[2, 2]]], np.uint8)) == [[[0, 1]], [[1, 1]]]
    assert record[0].filename == __file__


def test_masks_without_any_foreground_are_told(load):
    with pytest.warns(UserWarning, match="no mask has foreground") as record:
        load(np.zeros((1, 2), np.uint8))
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        (
            ([[0, 1, 0]], [[0, 255, 255]]),
            {},
            r"^the masks hold 0 in 3 pixels, 255 in 2 pixels, 1 in 1 pixels \(the rarest is 1, in .*0.png\): give",
        ),
        (([[0, 1, 255]],), {}, "give the value of the foreground, such as foreground=255, and of unlabelled pixels"),
        (([[BLACK, RED, GREEN]],), {}, "0.png can't be read as an image: it is a mask with colours"),
        (
            ([[BLACK, RED, GREEN]],),
            {"foreground": (9, 9, 9)},
            r"^no mask has the foreground \(9, 9, 9\): the masks hold 0 in 1 pixels, .*\(255, 0, 0\) in 1 pixels",
        ),
        (([[1, 2, 2]],), {}, "hold 2 in 2 pixels, 1 in 1 pixels"),
        (([[0, 1, 1]],), {"foreground": 255}, "^no mask has the foreground 255: the masks hold 1 in 2 pixels, 0 in 1"),
        (([[0, 1, 1]],), {"foreground": 1, "ignore_label": 1}, "ignore_label must not be the foreground, got 1"),
        *(
            (([[0, 1, 1]],), {"foreground": wrong}, "^foreground must be a value of the masks, a colour .*got")
            for wrong in ("nonzero", "127", [], (255, 0), ">-1")
        ),
        (([[0, 1, 1]],), {"ignore_label": ">7"}, r"^ignore_label must be a value .*, or None, got '>7'"),
    ],
)
def test_what_can_not_be_told_is_an_error(load, masks, options, message):
    with pytest.raises(ValueError, match=message):
        load(*(np.array(mask, np.uint8) for mask in masks), **options)


LABELS = [np.array([[0, 1], [1, 0]], np.uint8), np.array([[0, 0, 0]], np.uint8)]


@pytest.mark.parametrize(
    ("give", "foreground"),
    [(lambda m: m, 255), (lambda m: m * 255, 255), (lambda m: m == 1, 1), (lambda m: m * 7.0, 9)],
)
def test_saved_masks_are_read_back(tmp_path, give, foreground):
    for name, mask in zip(["a.1", "Müller"], LABELS):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "images" / f"{name}.png")
    save_masks(
        tmp_path / "new" / "masks", ["a.1", "Müller.png"], [give(mask) for mask in LABELS], foreground=foreground
    )
    assert sorted(file.name for file in (tmp_path / "new" / "masks").iterdir()) == ["Müller.png", "a.1.png"]
    data = load_image_pairs(tmp_path / "images", tmp_path / "new" / "masks", foreground=foreground)
    assert [mask.tolist() for mask in data.masks] == [LABELS[1].tolist(), LABELS[0].tolist()]
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "masks" / "a.1.png"), foreground * LABELS[0])


def test_no_file_is_lost_unless_that_is_asked_for(tmp_path):
    (tmp_path / "b.png").write_text("work of a week")
    with pytest.raises(FileExistsError, match="'.*b.png' exists already: give another folder, or overwrite=True"):
        save_masks(tmp_path, ["a", "b"], LABELS)
    assert [file.name for file in tmp_path.iterdir()] == ["b.png"]
    assert (tmp_path / "b.png").read_text() == "work of a week"
    save_masks(tmp_path, ["a", "b"], LABELS, overwrite=True)
    assert read_image(tmp_path / "b.png").tolist() == [[0, 0, 0]]


def test_nothing_is_written_through_links(tmp_path):
    (tmp_path / "masks").mkdir()
    elsewhere = tmp_path / "elsewhere.png"
    try:
        (tmp_path / "masks" / "a.png").symlink_to(elsewhere)
    except OSError:
        pytest.skip("this system lets not everyone make links")
    with pytest.raises(FileExistsError, match="give another folder"):
        save_masks(tmp_path / "masks", ["a"], LABELS[:1])
    elsewhere.write_text("kept")
    save_masks(tmp_path / "masks", ["a"], LABELS[:1], overwrite=True)
    assert elsewhere.read_text() == "kept"


@pytest.mark.parametrize(
    ("names", "labels", "options", "error", "message"),
    [
        (["a"], LABELS, {}, ValueError, "names and labels must have the same length, got 1 and 2"),
        (["a", "A"], LABELS, {}, ValueError, "names must differ, got 'a.png' more than once"),
        (["a", "a.png"], LABELS, {}, ValueError, "names must differ"),
        ("ab", LABELS, {}, TypeError, "names must be a sequence of str, got 'ab'"),
        (["a", 3], LABELS, {}, TypeError, "a name must be a str, got int"),
        *(
            (["a", wrong], LABELS, {}, ValueError, "a name must be a plain")
            for wrong in ("../b", "", "..", "C:b", "/b", "a\0b")
        ),
        (["a", 126 * "ü"], LABELS, {}, ValueError, "a name must be no longer than 251 bytes"),
        (["a", "b"], None, {}, TypeError, "labels must be an array"),
        (
            ["a", "b"],
            [LABELS[0], [[0, 0.5]]],
            {},
            ValueError,
            r"labels must be int from 0 to 255, got \[0.5\]: numpy.sa",
        ),
        (
            ["a", "b"],
            [LABELS[0], [[0, 255]]],
            {"foreground": 255},
            ValueError,
            r"labels must be 0 and one other value if .* got \[1, 255\] beside 0: leave foreground out",
        ),
        (["a", "b"], [LABELS[0], [0, 1]], {}, ValueError, r"labels\[1\] must be numbers of shape \(H, W\)"),
        (["a", "b"], [LABELS[0], [["x"]]], {}, ValueError, r"labels\[1\] must be numbers"),
        *((["a", "b"], LABELS, {"foreground": wrong}, ValueError, "foreground must be") for wrong in (0, 256, "1")),
    ],
)
def test_what_can_not_be_saved_is_told_before_anything_is_written(tmp_path, names, labels, options, error, message):
    with pytest.raises(error, match=message):
        save_masks(tmp_path / "masks", names, labels, **options)
    assert not list(tmp_path.iterdir())


def test_a_class_is_not_saved_as_unlabelled_where_other_classes_are_missing(tmp_path):
    save_masks(tmp_path, ["a"], [np.array([[0, 1]])])  # of a model of three classes
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[0, 1]])


def test_labels_are_saved_as_they_are(tmp_path):
    labels = [np.array([[0, 2, 1]]), np.array([[False, True]]), np.array([[255.0]])]
    save_masks(tmp_path, ["a", "b", "c"], labels)
    for name, expected in zip("abc", labels):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png"), expected)
    for wrong in (256, -1, 0.5):
        with pytest.raises(ValueError, match=rf"^labels must be int from 0 to 255, got \[{wrong}\]"):
            save_masks(tmp_path, ["d"], [np.array([[0, wrong]])])
    assert not (tmp_path / "d.png").exists()


def test_a_class_of_255_beside_another_unlabelled_value_is_refused(load):
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    with pytest.raises(ValueError, match="holds the class 255, .* beside ignore_label=0: give fit arrays of labels"):
        load(mask, foreground=None, ignore_label=0)
