"""Pairing masks with images by their names."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from os import PathLike
from pathlib import PurePath
from typing import NamedTuple

#: What names of masks have that names of images lack, and the other way round.
MASK_WORDS = frozenset(
    ["mask", "masks", "seg", "segs", "segmentation", "segmentations", "label", "labels"]
    + ["gt", "groundtruth", "ground", "truth", "annot", "annotation", "annotations"]
)
IMAGE_WORDS = frozenset(["im", "img", "imgs", "image", "images"])

Key = tuple[str, ...]

# a number has a minus where nothing but a separator stands before it
_WORDS_AND_NUMBERS = re.compile(r"(?:(?<![^\s_/])-)?\d+|[^\d\s_.()\[\]/-]+")
_WORDS = re.compile(r"[^\s_.()\[\]/-]+")


class Pairing(NamedTuple):
    """Which masks belong to which image.

    Attributes
    ----------
    masks_of : dict
        The numbers of an image's masks by the number of the image. Numbered masks, such as a_mask and a_mask_1, are
        several.
    is_guess : bool
        Whether both names have unknown words, as left_1 and right_1.
    """

    masks_of: dict[int, list[int]]
    is_guess: bool = False


def stem(file: PurePath) -> str:
    """Give the name of a file without its ending, in the normal form NFC. A number is no ending.

    Examples
    --------
    >>> stem(PurePath("data/a.PNG")), stem(PurePath("1.2.840"))
    ('a', '1.2.840')
    """
    return unicodedata.normalize("NFC", file.name if file.suffix[1:].isdigit() else file.stem)


def names_in_folders(files: Sequence[PurePath]) -> list[str]:
    """Give the names without endings, each with the folders that are not common to all.

    Examples
    --------
    >>> names_in_folders([PurePath("data/p1/image.png"), PurePath("data/p2/image.png")])
    ['p1/image', 'p2/image']
    """
    n_common = len(os.path.commonprefix([file.parent.parts for file in files]))
    return ["/".join([*file.parts[n_common:-1], stem(file)]) for file in files]


def pair_by_name(images: Sequence[PurePath], masks: Sequence[PurePath]) -> Pairing:
    """Pair masks and images whose names differ in nothing but known words, endings, case or separators.

    Folders belong to the names if images and masks lie in several folders. Words that are not known are left out if all
    masks, or all images, have them, and the rest pairs them in one way only. Numbers are never left out, except the
    numbers of several masks of one image.

    Parameters
    ----------
    images, masks : sequence of PurePath

    Returns
    -------
    Pairing
        Without the images and masks that have no partner.

    Raises
    ------
    ValueError
        If a mask fits several images, or an image several masks that are not numbered.

    Examples
    --------
    >>> pair_by_name([PurePath("img_1.jpg"), PurePath("img_11.jpg")], [PurePath("img_11_mask.png")])
    Pairing(masks_of={1: [0]}, is_guess=False)
    """
    for pair in (_pair_all, _pair_some, _pair_by_affixes):
        for image_names, mask_names in _names(images, masks):
            if (pairing := pair(image_names, mask_names)).masks_of:
                _refuse_ambiguous(pairing.masks_of, images, masks, _numbered(mask_names))
                return pairing
    return Pairing({})


def first_mispaired(images: Sequence[str | PathLike[str]], masks: Sequence[str | PathLike[str]]) -> int | None:
    """Give the first position where the mask is another image's, by its name, and the image has another mask.

    This happens to sorted lists: img_1 comes before img_10, but img_1_mask after img_10_mask. Names without anything in
    common are no finding. Names whose numbers all differ by the same step are none either.

    Parameters
    ----------
    images, masks : sequence of path
        Both of the same length.

    Examples
    --------
    >>> first_mispaired(["img_1.png", "img_10.png"], ["img_10_mask.png", "img_1_mask.png"])
    0
    """
    image_names, mask_names = _names([PurePath(file) for file in images], [PurePath(file) for file in masks])[0]
    bare_keys = _bare_keys(image_names, mask_names)
    steps = {_step(image, mask) for image, mask in zip(*bare_keys)}
    if None not in steps and len(steps) == 1:
        return None
    for image_keys, mask_keys in (_folded_keys(image_names, mask_names), bare_keys):
        known_images, known_masks = set(image_keys), set(mask_keys)
        for n, (image, mask) in enumerate(zip(image_keys, mask_keys)):
            if image != mask and mask in known_images and image in known_masks:
                return n
    return None


def _names(images: Sequence[PurePath], masks: Sequence[PurePath]) -> list[tuple[list[str], list[str]]]:
    """The names to compare. Folders are left out first if those of one side are all the same."""
    ways = [(names_in_folders(images), names_in_folders(masks))]
    if any(len({file.parent for file in files}) == 1 for files in (images, masks)):
        ways.insert(0, ([stem(file) for file in images], [stem(file) for file in masks]))
    return ways


def _folded(name: str) -> Key:
    return (unicodedata.normalize("NFC", name.casefold()),)


def _words(name: str, without: frozenset[str] = frozenset(), pattern: re.Pattern[str] = _WORDS_AND_NUMBERS) -> Key:
    return tuple(word for word in pattern.findall(_folded(name)[0]) if word not in without)


def _folded_keys(images: Sequence[str], masks: Sequence[str]) -> tuple[list[Key], list[Key]]:
    return [_folded(name) for name in images], [_folded(name) for name in masks]


def _bare_keys(images: Sequence[str], masks: Sequence[str]) -> tuple[list[Key], list[Key]]:
    return [_words(name, IMAGE_WORDS) for name in images], [_words(name, IMAGE_WORDS | MASK_WORDS) for name in masks]


def _step(image: Key, mask: Key) -> int | None:
    """The last number of a mask less that of its image, if all else is the same."""
    if not (image and mask and image[:-1] == mask[:-1] and image[-1].isdecimal() and mask[-1].isdecimal()):
        return None
    return int(mask[-1]) - int(image[-1])


def _pair_all(images: Sequence[str], masks: Sequence[str]) -> Pairing:
    """Pair every image with every mask by the narrowest rule that does so, or none."""
    levels: list[tuple[list[Key], list[Key]]] = [
        ([(name,) for name in images], [(name,) for name in masks]),
        _folded_keys(images, masks),
        (list(map(_words, images)), [_words(name, MASK_WORDS) for name in masks]),
        _bare_keys(images, masks),
    ]
    for image_keys, mask_keys in levels:
        numbers = {key: m for m, key in enumerate(mask_keys)}
        if len(set(image_keys)) == len(images) == len(numbers) == len(masks) and numbers.keys() == set(image_keys):
            return Pairing({n: [numbers[key]] for n, key in enumerate(image_keys)})
    return Pairing({})


def _pair_some(images: Sequence[str], masks: Sequence[str]) -> Pairing:
    """Give each mask all images of an equal name, or of the same without the known words."""
    image_keys, mask_keys = _bare_keys(images, masks)
    images_by_key = defaultdict(set)
    for n, (name, key) in enumerate(zip(images, image_keys)):
        images_by_key[_folded(name)].add(n)
        images_by_key[key].add(n)
    found = [images_by_key[_folded(name)] | images_by_key[key] for name, key in zip(masks, mask_keys)]
    for first, others in _numbered(masks).items():
        if not any(found[other] for other in others):
            for other in others:
                found[other] = found[first]
    masks_of: dict[int, list[int]] = {}
    for m, candidates in enumerate(found):
        for n in candidates:
            masks_of.setdefault(n, []).append(m)
    return Pairing(dict(sorted(masks_of.items())))


def _refuse_ambiguous(
    masks_of: Mapping[int, list[int]],
    images: Sequence[PurePath],
    masks: Sequence[PurePath],
    numbered: Mapping[int, list[int]],
) -> None:
    images_of: dict[int, list[int]] = {}
    for n, several in masks_of.items():
        if len(several) > 1 and not any(several == sorted([first, *numbered.get(first, [])]) for first in several):
            raise ValueError(f"{images[n]} fits several masks by its name: {', '.join(str(masks[m]) for m in several)}")
        for m in several:
            images_of.setdefault(m, []).append(n)
    for m, several in images_of.items():
        if len(several) > 1:
            raise ValueError(
                f"{masks[m]} fits several images by its name: {', '.join(str(images[n]) for n in several)}"
            )


def _numbered(masks: Sequence[str]) -> dict[int, list[int]]:
    """By the number of a mask such as a_mask those of a_mask_1, a_mask_2..."""
    keys = [_words(mask) for mask in masks]
    firsts = {key: m for m, key in enumerate(keys) if key[-1:] and key[-1] in MASK_WORDS}
    numbered: dict[int, list[int]] = {}
    for m, key in enumerate(keys):
        if key[-1:] and key[-1].isdecimal() and key[:-1] in firsts:
            numbered.setdefault(firsts[key[:-1]], []).append(m)
    return numbered


def _pair_by_affixes(images: Sequence[str], masks: Sequence[str]) -> Pairing:
    """Leave out words that all images, or all masks, begin or end with, if that pairs all of one side in one way."""
    is_guess: dict[tuple[tuple[int, int], ...], bool] = {}
    for pattern in (_WORDS_AND_NUMBERS, _WORDS):
        image_cores = _cores([_words(name, IMAGE_WORDS, pattern) for name in images])
        mask_cores = _cores([_words(name, IMAGE_WORDS | MASK_WORDS, pattern) for name in masks])
        for (image_affix, by_image), (mask_affix, by_mask) in product(image_cores, list(mask_cores)):
            has_all = by_image.keys() <= by_mask.keys() or by_mask.keys() <= by_image.keys()
            numbered = _has_digit(image_affix) and _has_digit(mask_affix)  # p1_a is not p2_a
            # words of a single name are not common to anything
            if has_all and not numbered and min(len(by_image), len(by_mask)) > 1:
                pairs = tuple(sorted((n, by_mask[core]) for core, n in by_image.items() if core in by_mask))
                is_guess[pairs] = is_guess.get(pairs, True) and bool(image_affix and mask_affix)
    if len(is_guess) != 1:
        return Pairing({})
    ((pairs, guess),) = is_guess.items()
    return Pairing({n: [m] for n, m in pairs}, guess)


def _cores(keys: Sequence[Key]) -> Iterator[tuple[Key, dict[Key, int]]]:
    """Each way to leave out words that all keys begin and end with: these words, and the numbers of what is left."""
    starts = _free_of_numbers(os.path.commonprefix(keys))
    ends = _free_of_numbers(os.path.commonprefix([key[::-1] for key in keys]))
    for start, end in product(range(len(starts) + 1), range(len(ends) + 1)):
        cores = {key[start : len(key) - end]: n for n, key in enumerate(keys) if len(key) > start + end}
        if len(cores) == len(keys):
            yield starts[:start] + ends[:end], cores


def _free_of_numbers(words: Sequence[str]) -> Key:
    # all images of nnU-Net that have one channel end with 0000
    numbers = [n for n, word in enumerate(words) if word.lstrip("-").isdecimal() and word != "0000"]
    return tuple(words[: min(numbers, default=len(words))])


def _has_digit(words: Key) -> bool:
    return any(character.isdecimal() for word in words for character in word)
