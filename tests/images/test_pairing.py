import re
from contextlib import suppress
from pathlib import PurePath
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skmmcrf.images.pairing import first_mispaired, pair_by_name


def files(names):
    return [PurePath(name) for name in names.split("|")]


def pairs(images, masks):
    """Which mask belongs to each image, by their places: "01-" is the first, the second, none."""
    pairing = pair_by_name(files(images), files(masks))
    return " ".join("".join(map(str, pairing.masks_of.get(n, "-"))) for n in range(len(files(images))))


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("a.jpg|b.jpg", "b.png|a.png", "1 0"),
        ("img_1.png|img_11.png", "img_11_mask.png|img_1_mask.png", "1 0"),
        ("img_1.png|img_11.png", "img_11_mask.png", "- 0"),
        ("image1.png|image01.png", "mask01.png", "- 0"),
        ("a 1.png|a 2.png", "a_2-Seg.TIF|A 1 mask.png", "1 0"),
        ("a_1.png|a_2.png", "a_mask_2.png|a_mask_1.png", "1 0"),
        ("img_a.png|b_image.png|c.png", "b_gt.png|mask_a.png|labels_c.png", "1 0 2"),
        ("z_-12.png|z_12.png", "z_12_mask.png|z_-12_mask.png", "1 0"),
        ("z_-12.png|a.png", "z_12_mask.png|a.png", "- 1"),
        ("1.2.840.1|1.2.840.2", "1.2.840.2|1.2.840.1", "1 0"),
        ("A.png|a.png", "a.png|A.png", "1 0"),
        ("MASK_1.png|1.png", "1.png|mask_1.png", "1 0"),
        ("1.png|img_1.png", "img_1_mask.png|1_mask.png", "1 0"),
        # photographs of masks
        ("mask_1.png|1.png|mask_2.png", "1.png|mask_1.png|mask_2.png", "1 0 2"),
        # numbered copies of an image, not numbered masks of one
        ("scan.png|scan (1).png|x.png", "scan_mask.png|scan (1)_mask.png", "0 1 -"),
        ("scan.png|scan_1.png", "scan_mask.png|scan_mask_1.png|scan_mask_2.png", "0 1"),
        ("benign (1).png|benign (2).png", "benign (1)_mask.png|benign (1)_mask_1.png|benign (2)_mask.png", "01 2"),
    ],
)
def test_masks_belong_to_images_by_known_words_but_never_by_other_numbers(images, masks, expected):
    assert pairs(images, masks) == expected


def test_the_same_letters_belong_together_in_any_unicode_form():
    assert pairs(f"{normalize('NFC', 'Müller')}.png|Muller.png", f"{normalize('NFD', 'müller')}_mask.png") == "0 -"


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("d/p1/image.png|d/p2/image.png", "d/p2/mask.png|d/p1/mask.png", "1 0"),
        ("d/p1/images/1.png|d/p2/images/1.png", "d/p1/masks/1.png|d/p2/masks/1.png", "0 1"),
        ("d/p1/1.png|d/p2/2.png", "d/p1/2.png|d/p2/1.png", "- -"),
        ("d/p1/1.png|d/p2/2.png", "m/2.png|m/1.png", "1 0"),
        ("d/p1/1.png|d/p2/1.png", "m/p2_1.png|m/p1_1.png", "1 0"),
    ],
)
def test_folders_are_part_of_names_where_both_have_several(images, masks, expected):
    assert pairs(images, masks) == expected


@pytest.mark.parametrize(
    ("images", "masks", "expected", "is_guess"),
    [
        ("1_HC.png|1_2HC.png|3_HC.png", "1_2HC_Outline.png|1_HC_Outline.png", "1 0 -", False),
        ("01L.jpg|01R.jpg", "01L_1stHO.png|01R_1stHO.png", "0 1", False),
        ("c_1_0000.png|c_2_0000.png", "c_1.png|c_2.png", "0 1", False),
        ("1_t1.png|2_t1.png", "2_seg.png|1_seg.png", "1 0", False),
        ("21_training.tif|22_training.tif", "22_manual1.gif|21_manual1.gif", "1 0", True),
        ("Bild01.png|Bild02.png", "Kontur01.png|Kontur02.png", "0 1", True),
        ("left_1.png|left_2.png", "right_1.png|right_2.png", "0 1", True),
        # what might be wrong
        ("p1_a.png|p1_b.png", "p2_a.png|p2_b.png", "- -", False),
        ("img_11.png|img_12.png", "gt_1.png|gt_2.png", "- -", False),
        ("img_1_1.png|img_1_2.png", "gt_1.png|gt_2.png", "- -", False),
        ("c_1_0000.png|c_1_0001.png", "c_1.png", "- -", False),
        ("1_a.png|2_b.png", "1_x.png|2_y.png", "- -", False),
        ("x_a.png|x_x_a.png|x_b.png|x_x_b.png", "x_a_z.png|x_b_z.png", "- - - -", False),
        ("foo.png", "bar.png", "-", False),
        ("anna_1.png", "ben_1.png", "-", False),
    ],
)
def test_unknown_words_are_left_out_if_all_names_have_them_and_one_pairing_is_left(images, masks, expected, is_guess):
    assert pairs(images, masks) == expected
    assert pair_by_name(files(images), files(masks)).is_guess is is_guess


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("a.png", "a_mask.png|a_seg.png", "^a.png fits several masks by its name: a_mask.png, a_seg.png"),
        ("a.png|b.png", "a.png|a_mask.png", "^a.png fits several masks by its name: a.png, a_mask.png"),
        ("a.png", "a_mask.png|a_mask.tif|a_mask_1.png", "^a.png fits several masks"),
        ("a.png|a.jpg", "a.png", "^a.png fits several images by its name: a.png, a.jpg"),
        ("a.png|a_mask.png", "a_mask.png", "^a_mask.png fits several images by its name: a.png, a_mask.png"),
        ("1.png|img_1.png|2.png", "1_mask.png|img_1_mask.png", "1_mask.png"),
        ("d/p1/1.png|d/p2/1.png", "m/1.png", "^m/1.png fits several images by its name: d/p1/1.png, d/p2/1.png"),
    ],
)
def test_what_fits_in_several_ways_is_an_error(images, masks, message):
    with pytest.raises(ValueError, match=message):
        pair_by_name(files(images), files(masks))


NAMES = st.lists(st.from_regex(r"[ab]{0,2}[_ ]?-?[012]{1,2}([_ (]\d)?", fullmatch=True), min_size=1, max_size=5)


def numbers(name):
    return re.findall(r"\d+", name)


@given(
    images=NAMES,
    masks=NAMES,
    image_name=st.sampled_from(["{}", "img_{}", "{} image", "{}_x"]),
    mask_name=st.sampled_from(["{}", "{}_mask", "{}-Seg", "mask_{}", "{} label", "gt {}", "{}_y"]),
)
def test_numbers_are_the_same_in_all_pairs(images, masks, image_name, mask_name):
    image_files = [PurePath(f"{image_name.format(name)}.jpg") for name in images]
    mask_files = [PurePath(f"{mask_name.format(name)}.png") for name in masks]
    with suppress(ValueError):
        for n, several in pair_by_name(image_files, mask_files).masks_of.items():
            assert [numbers(masks[m]) for m in several] == [numbers(images[n])]


@given(st.lists(st.from_regex(r"[a-d]{1,2}_\d\d?", fullmatch=True), min_size=1, unique=True), st.randoms())
def test_complete_sets_are_paired_completely(names, random):
    shuffled = sorted(names, key=lambda name: random.random())
    pairing = pair_by_name([PurePath(f"img {n}.jpg") for n in names], [PurePath(f"{n}-mask.png") for n in shuffled])
    assert [shuffled[m] for (m,) in pairing.masks_of.values()] == names


@pytest.mark.parametrize(
    ("images", "masks", "position"),
    [
        ("img_1.png|img_10.png|img_2.png", "img_10_mask.png|img_1_mask.png|img_2_mask.png", 0),
        ("a.png|1.png|2.png|3.png", "a.png|3.png|1.png|2.png", 1),
        ("a.png|b.png", "b.png|a.png", 0),
        ("p1/image.png|p2/image.png", "p2/mask.png|p1/mask.png", 0),
        ("img_1.png|1.png|c.png", "1.png|img_1.png|c.png", 0),
        # part of the lists, as cross-validation gives it
        ("img_1.png|img_10.png|img_4.png", "img_10_mask.png|img_11_mask.png|img_1_mask.png", 0),
        # right
        ("img_1.png|img_10.png", "img_1_mask.png|img_10_mask.png", None),
        ("seg_1.png|1.png", "seg_1.png|1.png", None),
        ("a.png|a.png|b.png", "a_mask.png|a_mask.png|b_mask.png", None),
        ("p1/image.png|p2/image.png", "p1/mask.png|p2/mask.png", None),
        ("p1/1.png|p2/1.png|p2/2.png", "m1/1.png|m2/1.png|m2/2.png", None),
        # names that tell nothing
        ("a.png|b.png", "c.png|d.png", None),
        ("a.png|b.png", "b.png|c.png", None),
        ("image.png|image.png", "x.png|y.png", None),
        ("0.png|1.png|2.png", "1.png|2.png|3.png", None),
        ("t_08.png|t_09.png|t_10.png", "t_09_mask.png|t_10_mask.png|t_11_mask.png", None),
        ("t_08.png|t_09.png|t_10.png", "t_09.png|t_10.png|t_11.png", None),
        ("17.png|4.png|9.png", "4.png|23.png|1.png", None),
    ],
)
def test_masks_of_other_images_are_found(images, masks, position):
    assert first_mispaired(images.split("|"), files(masks)) == position
