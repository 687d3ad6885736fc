"""Loading images and masks from files that belong together by name, and splitting them."""

import glob
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TypeAlias
from unicodedata import normalize

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit
from sklearn.utils import Bunch, _safe_indexing

from skmmcrf._docs import documented
from skmmcrf._shown import shortened, shown
from skmmcrf._typing import RandomStateLike
from skmmcrf.datasets.masks import MaskFiles, MaskReader, Value, some_of
from skmmcrf.images.files import Channels, read_image, size_in_memory
from skmmcrf.images.pairing import names_in_folders, pair_by_name, stem
from skmmcrf.images.sequences import OnDemand

#: A folder, a pattern, or a list of files.
FilesLike: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]

#: An image file and its masks.
Pair: TypeAlias = tuple[Path, list[Path]]

#: Bytes of images and masks. If they take more, each is read when it is needed.
MOST_IN_MEMORY = 1_000_000_000

_NO_IMAGES = frozenset(
    [".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".pdf", ".log", ".ini"]
    + [".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".zip", ".py", ".ipynb"]
)


@documented
def load_image_pairs(
    images: FilesLike,
    masks: FilesLike,
    *,
    channels: Channels | None = None,
    foreground: Value | None = "auto",
    ignore_label: int | tuple[int, int, int] | None = None,
    group: str | Callable[[Path], Hashable] | None = None,
) -> Bunch:
    r"""Load images and their masks, which belong together by their names.

    The usual case is one folder of images and another of masks:

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("scans/anna_1.jpg", "scans/ben_1.jpg", "masks/anna_1_mask.png", "masks/ben_1_mask.png"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     Image.new("L", (8, 6), 255).save(folder / name)

    >>> data = load_image_pairs(folder / "scans", folder / "masks")
    >>> data.names, data.images[0].shape, data.masks[0].shape
    (['anna_1', 'ben_1'], (6, 8), (6, 8))

    `model.fit(data.images, data.masks)` learns from them.

    Names belong together if they are equal. Endings (jpg and png) and case may differ. Mask names may have a word such
    as "_mask", "_seg", "_label", "_gt" or "_annotation" at either end, and image names "_img". Another word is left out
    if all masks, or all images, have it, and the rest then fits in one way only. Numbers must be the same: img_1
    belongs to img_1_mask, never to img_11_mask. Masks a_mask, a_mask_1 and a_mask_2 are united.

    Parameters
    ----------
    images, masks : folder, pattern or list of paths
        A pattern is such as "data/*_img.png", or "data/**/image.png" for all folders within. If images and masks lie in
        one folder, give two patterns, or the folder as images and a pattern of the masks. The masks are then no images.
        If images and masks lie in several folders, the names of the folders count too.
    %(channels)s
    %(foreground)s
    %(mask_ignore_label)s
    group : str or function, optional
        Tells which images are of one patient. A regular expression is searched for in the image's name. Its part in
        parentheses, as in r"^(patient\d+)", is the patient's name. A function takes the image's path and returns the
        patient.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W) or (H, W, channels)
            In the order of the list, or else sorted by path.
        masks : list of ndarray of uint8 and shape (H, W)
            Labels: 0 in the background, 1 in the foreground, 255 where unlabelled. Labels of several classes are as
            stored.

            If images and masks take more than 1 GB together, both are sequences instead, which read a file each time
            that an entry is asked for. Slices and `sklearn.model_selection.train_test_split` give such sequences too,
            and `fit` and `predict` take them. `list(data.images)` reads all into memory.
        names : list of str
            Names of the image files, without ending. If two would be the same, the names of their folders come first.
        image_files : list of Path
            The files of the images.
        mask_files : list of Path
            The files of the masks. A list of files for an image with several masks.
        groups : list, or None
            The patients, if `group` is given.

    Raises
    ------
    FileNotFoundError
        If a file or folder is missing. If no file fits a pattern.
    ValueError
        If no names belong together, or some do in several ways. If a file can't be read (see
        `skmmcrf.images.files.read_image`). If a mask differs from its image in size. If images differ in their
        channels. If "auto" finds several values that are not 0, and they are not the labels of classes. If no mask has
        the given foreground. If an image of several classes has several masks. If `group` does not fit the names.

    Warns
    -----
    UserWarning
        If images without mask, or masks without image, are left out. If masks are united. If pairs are a guess, because
        both names have unknown words. If no mask has foreground. If "auto" takes a value from 2 to 223 for foreground,
        which may be the label of a class.

    Examples
    --------
    Images x.png and masks x_mask.png in one folder, in which several images are of one patient:

    >>> for name in ("anna_1.png", "anna_2.png", "ben_1.png", "anna_1_mask.png", "anna_2_mask.png", "ben_1_mask.png"):
    ...     Image.new("L", (8, 6), 255).save(folder / name)
    >>> data = load_image_pairs(folder, f"{folder}/*_mask.png", group=r"^([a-z]+)")
    >>> data.groups
    ['anna', 'anna', 'ben']
    >>> train, test = split_pairs(data, test_size=0.5, random_state=0)
    >>> train.names, test.names
    (['anna_1', 'anna_2'], ['ben_1'])
    """
    image_files, mask_files = _told_apart(_files(images, "images"), _files(masks, "masks"))
    pairs = pair_files(image_files, mask_files)
    warn_of_unpaired(pairs, image_files, mask_files)
    return read_pairs(pairs, channels, MaskReader(foreground, ignore_label), group)


def split_pairs(data: Bunch, test_size: float = 0.2, *, random_state: RandomStateLike = None) -> tuple[Bunch, Bunch]:
    """Split loaded images and masks at random into a training and a test set.

    If `load_image_pairs` was given `group`, all images of a patient are in the same set.

    Parameters
    ----------
    data : Bunch
        As from `load_image_pairs` or `load_image_folder`.
    test_size : float or int, default=0.2
        The share (float) or number (int) of images in the test set. If `data` has groups, it is the share or number of
        groups.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    train : Bunch
        As `data`, in the same order.
    test : Bunch

    Raises
    ------
    ValueError
        If a set would be empty, of groups if `data` has them.

    Examples
    --------
    >>> data = Bunch(images=[[[0]], [[1]], [[2]]], masks=[[[0]], [[1]], [[0]]], names=["a", "b", "c"], groups=None)
    >>> train, test = split_pairs(data, test_size=1, random_state=0)
    >>> train.names, test.names
    (['a', 'b'], ['c'])
    """
    if not isinstance(data, Bunch):
        raise TypeError(f"data must be what load_image_pairs gives, got {type(data).__name__}")
    if data.groups is not None and len(set(data.groups)) == 1:
        raise ValueError(f"all images are of one group, {shown(data.groups[0])}, which can't be split")
    splitter = ShuffleSplit if data.groups is None else GroupShuffleSplit
    try:
        parts = next(splitter(1, test_size=test_size, random_state=random_state).split(data.names, groups=data.groups))
    except ValueError as error:
        what = f"{len(data.names)} images" if data.groups is None else f"{len(set(data.groups))} groups"
        raise ValueError(f"test_size={shown(test_size)} does not split {what} in two: {shortened(error)}") from error
    train, test = (
        Bunch(**{key: values and _safe_indexing(values, sorted(part)) for key, values in data.items()})
        for part in parts
    )
    return train, test


def pair_files(images: Sequence[Path], masks: Sequence[Path]) -> list[Pair]:
    """Pair images with masks by their names, and warn where that is in doubt.

    Raises
    ------
    ValueError
        If no names belong together, or some do in several ways.
    """
    pairing = pair_by_name(images, masks)
    pairs = [(images[n], [masks[m] for m in numbers]) for n, numbers in pairing.masks_of.items()]
    if not pairs:
        shown_images, shown_masks = (some_of([file.name for file in files]) for files in (images, masks))
        raise ValueError(
            f"no mask has a name that fits one image's: the images are {shown_images}, and the masks {shown_masks}. "
            "Rename them, or give fit lists of their paths in the right order"
        )
    if pairing.is_guess:
        image, (mask, *_) = pairs[0]
        warnings.warn(
            f"the names of images and masks have unknown words, so their pairs are a guess, such as {image.name!r} "
            f"with {mask.name!r}: rename the files if this is wrong",
            stacklevel=3,
        )
    if united := [image.name for image, several in pairs if len(several) > 1]:
        warnings.warn(f"several masks are united for each of {some_of(united)}", stacklevel=3)
    return pairs


def warn_of_unpaired(pairs: Sequence[Pair], images: Sequence[Path], masks: Sequence[Path]) -> None:
    """Warn of images and masks that are in no pair."""
    used_images, used_masks = {image for image, _ in pairs}, {mask for _, several in pairs for mask in several}
    for files, used, what in ((images, used_images, "images have no mask"), (masks, used_masks, "masks have no image")):
        if others := [file.name for file in files if file not in used]:
            warnings.warn(
                f"{len(others)} of {len(files)} {what} and are left out: {some_of(others)}",
                stacklevel=3,
            )


def read_pairs(
    pairs: Sequence[Pair],
    channels: Channels | None,
    reader: MaskReader,
    group: str | Callable[[Path], Hashable] | None = None,
) -> Bunch:
    """Read the images and masks of pairs of files. See `load_image_pairs`."""
    image_files, mask_files = [image for image, _ in pairs], [files for _, files in pairs]
    names = _names(image_files)
    groups = None if group is None else _groups(group, names, image_files)
    files = [*image_files, *chain.from_iterable(mask_files)]
    in_memory = sum(map(size_in_memory, files)) <= MOST_IN_MEMORY
    images: Sequence[np.ndarray] = OnDemand(partial(read_image, channels=channels), image_files)
    masks: Mapping[Path, np.ndarray] = MaskFiles(reader.read, list(chain.from_iterable(mask_files)))
    if in_memory:
        images, masks = list(images), dict(masks)
    _check_shapes(images, masks, pairs)
    foreground = reader.find_foreground(masks)
    if foreground is None:
        _check_one_mask_each(mask_files)
    labels: Sequence[np.ndarray] = OnDemand(partial(_labels, masks, reader, foreground), mask_files)
    return Bunch(
        images=images,
        masks=list(labels) if in_memory else labels,
        names=names,
        image_files=image_files,
        mask_files=[files if len(files) > 1 else files[0] for files in mask_files],
        groups=groups,
    )


def _check_shapes(images: Sequence[np.ndarray], masks: Mapping[Path, np.ndarray], pairs: Sequence[Pair]) -> None:
    first = None
    for image, (image_file, mask_files) in zip(images, pairs):
        first = first or image.shape
        if image.shape[2:] != first[2:]:
            raise ValueError(
                f"images must have the same channels, but {pairs[0][0]} has shape {first} and {image_file} "
                f'{image.shape}: channels="L" makes all of them grey, channels="RGB" colour'
            )
        for file in mask_files:
            if (size := masks[file].shape[:2]) != image.shape[:2]:
                raise ValueError(
                    f"{file} has the height and width {size}, but its image {image_file} has {image.shape[:2]}"
                )


def _check_one_mask_each(mask_files: Sequence[list[Path]]) -> None:
    for files in mask_files:
        if len(files) > 1:
            raise ValueError(
                f"an image of several classes must have one mask, but {some_of(files)} are of one image: give the "
                "value of the foreground, such as foreground=255, if these are masks of two labels"
            )


def _labels(
    masks: Mapping[Path, np.ndarray], reader: MaskReader, foreground: Value | None, files: Sequence[Path]
) -> np.ndarray:
    """The labels of an image's masks: foreground where one of them has it, else unlabelled where one is."""
    labels = [reader.labels_of(masks[file], foreground) for file in files]
    if len(labels) == 1:
        return labels[0]
    return np.where(np.any(np.equal(labels, 1), axis=0), np.uint8(1), np.max(labels, axis=0))


def is_hidden(entry: Path) -> bool:
    """Whether the operating system, not a person, made it."""
    return entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini")


def is_image_file(entry: Path) -> bool:
    """Whether it is a file whose ending may be an image's."""
    return not is_hidden(entry) and entry.suffix.lower() not in _NO_IMAGES and entry.is_file()


def _files(source: FilesLike, name: str) -> list[Path]:
    if not isinstance(source, (str, PathLike)):
        try:
            files = [Path(file) for file in source]
        except TypeError as error:
            raise TypeError(f"{name} must be a folder, a pattern or a list of paths, got {shown(source)}") from error
        if missing := [file for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{name} must be files, but {some_of(missing)} is missing")
    elif Path(source).is_dir():
        files = _found(Path(source).iterdir(), name)
    else:
        if not glob.has_magic(str(source)):
            raise FileNotFoundError(
                f"{name} must be a folder, a pattern or a list of paths, but the folder {shown(str(source))} is missing"
            )
        files = _found(map(Path, glob.glob(str(source), recursive=True)), name)
    if not files:
        raise FileNotFoundError(
            f'{name}: no image files are in {shown(str(source))}: a pattern such as "folder/**/*.png" also finds '
            "those in subfolders"
        )
    return files


def _found(entries: Iterable[Path], name: str) -> list[Path]:
    """Those that may be images, sorted."""
    entries = [entry for entry in entries if not is_hidden(entry)]
    if broken := [entry for entry in entries if entry.is_symlink() and not entry.exists()]:
        raise FileNotFoundError(f"{name} must be files, but {some_of(broken)} are links to what is not there")
    return sorted(filter(is_image_file, entries))


def _told_apart(images: list[Path], masks: list[Path]) -> tuple[list[Path], list[Path]]:
    """Take the masks out of the images, or the images out of the masks if these are more."""
    image_targets, mask_targets = ({file.resolve() for file in files} for files in (images, masks))
    if image_targets == mask_targets:
        raise ValueError(
            f"images and masks are the same files, {some_of([file.name for file in images])}: tell them apart by "
            'patterns, as load_image_pairs("data", "data/*_mask.png")'
        )
    if mask_targets < image_targets:
        images = [file for file in images if file.resolve() not in mask_targets]
    elif image_targets < mask_targets:
        masks = [file for file in masks if file.resolve() not in image_targets]
    elif both := [file.name for file in images if file.resolve() in mask_targets]:
        raise ValueError(f"{some_of(both)} must be images or masks, not both: make one of the patterns narrower")
    return images, masks


def _names(files: Sequence[Path]) -> list[str]:
    names = [stem(file) for file in files]
    if len(set(names)) < len(names):
        names = [normalize("NFC", name.replace("/", "_")) for name in names_in_folders(files)]
    return names


def _groups(group: str | Callable[[Path], Hashable], names: Sequence[str], files: Sequence[Path]) -> list[Hashable]:
    if callable(group):
        return [group(file) for file in files]
    try:
        pattern = re.compile(group)
    except (re.error, TypeError) as error:
        raise ValueError(f"group must be a regular expression or a function, got {shown(group)}: {error}") from error
    if pattern.groups < 1:
        raise ValueError(
            f"group must have the part that names the patient in parentheses, as '^(p\\d+)', got {shown(group)}"
        )
    found = [pattern.search(name) for name in names]
    if others := [name for name, match in zip(names, found) if not (match and match[1])]:
        raise ValueError(f"group={shown(group)} finds nothing in {some_of(others)}")
    return [match[1] for match in found if match]
