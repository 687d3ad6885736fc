import numpy as np
import pytest
import torch
from PIL import Image

from skmmcrf.field import Annotation
from skmmcrf.images.labels import LabelScheme, OpenScheme

FEW = Annotation(np.array([[True, False, False, False]]))
NONE = Annotation(np.zeros((1, 4), bool))


@pytest.mark.parametrize(("pos_label", "ignore_label"), [(1, 0), (1, 1), (255, 255)])
def test_a_label_means_one_thing(pos_label, ignore_label):
    with pytest.raises(ValueError, match=f"ignore_label must be neither 0, .* pos_label={pos_label}, got"):
        LabelScheme(pos_label, ignore_label)


@pytest.mark.parametrize("dtype", [np.uint8, int, float, ">i2"])
@pytest.mark.parametrize(("pos_label", "ignore_label", "number"), [(1, "auto", 255), (255, 7, 7)])
def test_numbers_are_read_by_their_meaning(dtype, pos_label, ignore_label, number):
    annotation = LabelScheme(pos_label, ignore_label).read(np.array([[0, pos_label, number]], dtype), "y")
    np.testing.assert_array_equal(annotation.truth, [[False, True, False]])
    np.testing.assert_array_equal(annotation.labelled, [[True, True, False]])


@pytest.mark.parametrize("give", [lambda y: y, lambda y: y.tolist(), torch.from_numpy, lambda y: torch.tensor(y)[None]])
def test_true_is_foreground_whatever_its_label(give):
    truth = np.array([[True, False]])
    annotation = LabelScheme(7).read(give(truth), "y")
    np.testing.assert_array_equal(annotation.truth, truth)
    assert annotation.is_fully_labelled


def saved(folder, palette, indices=((0, 1),)):
    """A mask with a palette, as a path and as an opened image."""
    mask = Image.fromarray(np.array(indices, np.uint8), mode="P")
    mask.putpalette(palette)
    mask.save(folder / "a.png")
    return [str(folder / "a.png"), folder / "a.png", mask]


def test_masks_with_a_palette_of_colours_hold_its_indices(tmp_path):
    for mask in saved(tmp_path, [9, 9, 9, 255, 10, 20]):
        np.testing.assert_array_equal(LabelScheme().read(mask, "y").mask, [[0, 1]])


def test_masks_with_a_palette_of_greys_hold_these(tmp_path):
    for mask in saved(tmp_path, [255, 255, 255, 0, 0, 0]):
        np.testing.assert_array_equal(LabelScheme(255).read(mask, "y").mask, [[1, 0]])


def test_errors_of_masks_with_a_palette_of_colours_say_so(tmp_path):
    note = "a mask with a palette of colours, whose indices are taken as labels"
    path, _, opened = saved(tmp_path, [0, 0, 0, 255, 0, 0])
    with pytest.raises(ValueError, match=rf"y\[2\] \(.*a.png, {note}\) must hold the labels 0 and 255 only, found \[1"):
        LabelScheme(255).read(path, "y[2]")
    with pytest.raises(ValueError, match=rf"y\[2\] \({note}\) must hold"):
        LabelScheme(255).read(opened, "y[2]")
    path, _, opened = saved(tmp_path, [0, 0, 0, 7, 7, 7])
    with pytest.raises(ValueError, match=r"y\[2\] \(.*a.png\) must hold the labels 0 and 255 only, found \[7\]"):
        LabelScheme(255).read(path, "y[2]")
    with pytest.raises(ValueError, match=r"y\[2\] must hold the labels 0 and 255 only, found \[7\]"):
        LabelScheme(255).read(opened, "y[2]")
    np.save(tmp_path / "a.npy", [[7]])
    with pytest.raises(ValueError, match=r"y\[2\] \(.*a.npy\) must hold"):
        LabelScheme().read(tmp_path / "a.npy", "y[2]")


def test_masks_compressed_with_loss_are_told_as_such(tmp_path):
    y, x = np.mgrid[:64, :64]
    disc = np.uint8(255 * ((x - 30) ** 2 + (y - 33) ** 2 < 400))
    Image.fromarray(disc).save(tmp_path / "a.jpg", quality=80)
    hint = "compressed with loss, .* skmmcrf.datasets.load_image_pairs has `foreground` for that"
    for scheme in (LabelScheme(), LabelScheme(255)):
        for mask in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg"), np.array([[0, 1, 2, 253, 254]])):
            with pytest.raises(ValueError, match=hint):
                scheme.read(mask, "y")
    for others in ([1, 2, 3], [100, 250, 3, 90, 80], [254]):
        with pytest.raises(ValueError, match=r"found \[.*\]$"):
            LabelScheme(255).read([others], "y")


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (LabelScheme(), r"y\[3\] must hold the labels 0, 1 and 255 only, found \[2, 3, 4, 5, 6\]"),
        (LabelScheme(9, None), r"labels 0 and 9 only, found \[1, 2, 3, 4, 5\]"),
        (LabelScheme(2, 3), r"labels 0, 2 and 3 only, found \[1, 4, 5, 6, 7\]"),
    ],
)
def test_other_numbers_are_told(scheme, message):
    with pytest.raises(ValueError, match=message):
        scheme.read(np.arange(8).reshape(2, 4), "y[3]")


def test_labels_that_may_be_further_classes_are_told_with_the_argument_that_names_them():
    for scheme in (LabelScheme(), LabelScheme(several=(0, 1, 3))):
        expected = [0, 1, 2, 3] if scheme.several else [0, 1, 2]
        with pytest.raises(ValueError, match=rf"found \[2\]. If these are labels .* such as classes=\{expected}$"):
            scheme.read([[0, 1, 2]], "y")
    for no_classes in ([-1, 2], [0.5, 2], [300, 2], range(2, 12)):
        with pytest.raises(ValueError, match=r"found \[.*\]$"):
            LabelScheme().read([no_classes], "y")
    with pytest.raises(ValueError, match=r"found \[255\]$"):
        LabelScheme(ignore_label=None).read([[0, 255]], "y")


def test_masks_of_0_and_255_are_refused_unless_their_meaning_is_said():
    masks = [[0, 255, 255, 255]]
    unlabelled = LabelScheme().read(masks, "y")
    with pytest.raises(ValueError, match="^y holds 255 but no 1, .* give pos_label=255 .* ignore_label=255"):
        LabelScheme().check_foreground_is_meant([unlabelled, NONE], "y")
    LabelScheme().check_foreground_is_meant([NONE], "y")
    LabelScheme(1, 255).check_foreground_is_meant([unlabelled], "y")


def test_masks_of_0_and_255_beside_others_of_0_and_1_are_warned_of():
    unlabelled, both = (LabelScheme().read([labels], "y") for labels in ([0, 255, 255], [0, 1, 255]))
    with pytest.warns(
        UserWarning, match=r"^y\[2\] holds 255 and no 1, .* ignore_label=255 .* convert these masks to 0"
    ):
        LabelScheme().check_foreground_is_meant([NONE, FEW, unlabelled, both, unlabelled], "y")
    LabelScheme(1, 255).check_foreground_is_meant([FEW, unlabelled], "y")
    LabelScheme().check_foreground_is_meant([both, unlabelled, NONE], "y")
    LabelScheme().check_foreground_is_meant([both, FEW, NONE], "y")


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({2: 1.0}, "only the labels 0 and 1 as keys, got 2"),
        ({1: 0.0}, "between 0.0001 and 10000, got 0.0 for 1"),
        ({1: 2e4}, "between 0.0001 and 10000, got 20000.0 for 1"),
        ({0: np.nan}, "between .* got nan for 0"),
        ({0: "a"}, "between .* got 'a'"),
        ({1: 1j}, "between .* got 1j"),
    ],
)
def test_bad_class_weights_are_told(class_weight, message):
    with pytest.raises(ValueError, match=f"class_weight must .*{message}"):
        LabelScheme().check_class_weight(class_weight, [FEW])


def test_class_weights_go_by_label():
    assert LabelScheme(255).check_class_weight({255: 3}, []) == (1.0, 3.0)
    assert LabelScheme().check_class_weight({0: 2.0}, []) == (2.0, 1.0)
    assert LabelScheme().check_class_weight(None, [FEW]) == (1.0, 1.0)


def test_balanced_weights_let_both_classes_count_alike_within_bounds():
    background, foreground = LabelScheme().check_class_weight("balanced", [FEW])
    assert foreground == pytest.approx(3 * background)
    rare = np.zeros((300, 300), bool)
    rare[0, 0] = True
    weights = LabelScheme().check_class_weight("balanced", [Annotation(rare)])
    assert max(weights) == 1e4


def found_in(*masks, **parameters):
    """The scheme and the annotations of masks whose classes are found."""
    reader = OpenScheme(LabelScheme(**parameters))
    return reader.closed([reader.read(mask, f"y[{n}]") for n, mask in enumerate(masks)])


@pytest.mark.parametrize("dtype", [np.int16, float, ">i4"])
def test_labels_of_several_classes_are_numbered_in_their_order_over_all_masks(dtype):
    masks = [[[0, 300, 255]], [[-2, -2, 300]], [[0, 0, 0]], [[255, 255, 7]]]
    scheme, annotations = found_in(*(np.array(mask, dtype) for mask in masks))
    assert scheme.classes == (-2, 0, 7, 300)
    assert [a.mask.tolist() for a in annotations] == [[[1, 3, 255]], [[0, 0, 3]], [[1, 1, 1]], [[255, 255, 2]]]
    assert all(a.dtype == np.uint8 and a.class_weight == 4 * (1.0,) for a in annotations)
    for mask, annotation in zip(masks, annotations):
        assert scheme.read(mask, "y").mask.tolist() == annotation.mask.tolist()


def test_masks_of_two_labels_are_read_as_a_closed_scheme_reads_them():
    scheme, annotations = found_in([[0, 1, 255]], np.array([[True, False, False]]))
    assert scheme == LabelScheme()
    assert [a.dtype for a in annotations] == [bool, bool]
    assert [a.mask.tolist() for a in annotations] == [[[0, 1, 255]], [[1, 0, 0]]]


def test_bool_masks_among_several_classes_are_of_the_labels_0_and_1():
    scheme, annotations = found_in(np.array([[True, False]]), [[2, 2]])
    assert scheme.classes == (0, 1, 2)
    assert annotations[0].truth.tolist() == scheme.read(np.array([[True, False]]), "y").truth.tolist() == [[1, 0]]


def test_labels_that_are_nowhere_are_no_classes():
    assert found_in([[0, 0]], [[2, 3]])[0].classes == (0, 2, 3)


BLURRED = np.r_[[0] * 20, [255] * 30, np.arange(40, 240, 20)][None]


@pytest.mark.parametrize(
    ("masks", "parameters", "message"),
    [
        ([[[0, 0]], [[0, 2]]], {}, r"y\[1\] must hold the labels 0, 1 and 255 only, found \[2\]. Give pos_label=2 if"),
        (
            [[[0, 128, 255]]],
            {},
            r"found \[128\]. Give pos_label=128 .* Give ignore_label=None if 255 is a class$",
        ),
        ([[[0, 300]]], {}, r"found \[300\]$"),
        ([[[1, 2]]], {}, r"y\[0\] must hold the labels 0, 1 and 255 only, found \[2\]$"),
        ([[[0, 0.5, 3]]], {}, r"y\[0\] must hold the labels 0, 1 and 255 only, found \[0.5, 3.0\]$"),
        ([[[0, np.nan, 3]]], {}, r"y\[0\] must hold the labels"),
        ([[[0, 2.0**40, 3]]], {}, r"y\[0\] must hold the labels"),
        ([[[0, 2, 5]]], {"pos_label": 2}, "found .5.. pos_label is for two labels: leave it out for several classes"),
        ([[[0, 2, 250, 253, 255, 255]]], {}, "compressed with loss.* Or give ignore_label=255 if these are classes"),
        ([BLURRED], {}, "blurred borders: give .* pos_label=255, or ignore_label=255 if these are classes"),
        ([np.arange(256)[None]], {"ignore_label": None}, "Classes may be 255 at most, found 256"),
        ([np.arange(255)[None], [[300]]], {"ignore_label": None}, "at most 255 classes, found 256"),
    ],
)
def test_what_seems_to_be_no_mask_of_several_classes_is_told(masks, parameters, message):
    with pytest.raises(ValueError, match=message):
        found_in(*masks, **parameters)


@pytest.mark.parametrize("mask", [[[0, 2, 250, 253, 255, 255]], BLURRED])
def test_an_explicit_ignore_label_says_that_labels_are_meant(mask):
    assert 255 not in found_in(mask, ignore_label=255)[0].classes


def test_other_labels_than_those_of_several_classes_are_told():
    with pytest.raises(ValueError, match=r"y must hold the labels 0, 5, 9 and 255 only, found \[1, 300\]$"):
        LabelScheme(several=(0, 5, 9)).read([[0, 1, 300]], "y")
    with pytest.raises(ValueError, match=r"labels 0, 1, 2, ..., 29 and 255 only, found \[77\]"):
        LabelScheme(several=tuple(range(30))).read([[77]], "y")


def test_class_weights_of_several_classes_are_given_by_their_labels():
    scheme = LabelScheme(several=(0, 5, 9))
    assert scheme.check_class_weight({9: 3}, []) == (1.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="only the labels 0, 5 and 9 as keys, got 1"):
        scheme.check_class_weight({1: 3}, [])
    weights = scheme.check_class_weight("balanced", [scheme.read([[0, 0, 0, 5]], "y")])
    assert weights == pytest.approx((2 / 3, 2.0, 1.0))
