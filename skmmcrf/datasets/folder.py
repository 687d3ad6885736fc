"""Loading a folder of images and masks with lists of the images to train and to test on."""

import os
import warnings
from collections import Counter
from os import PathLike
from pathlib import Path
from unicodedata import normalize

from sklearn.utils import Bunch

from skmmcrf._docs import documented
from skmmcrf.datasets.masks import MaskReader, Value, check_plain_name, some_of
from skmmcrf.datasets.pairs import Pair, is_hidden, is_image_file, pair_files, read_pairs, warn_of_unpaired
from skmmcrf.images.files import Channels
from skmmcrf.images.pairing import stem


@documented
def load_image_folder(
    folder: str | PathLike[str],
    split: str | None = None,
    *,
    channels: Channels | None = None,
    foreground: Value | None = "auto",
    ignore_label: int | tuple[int, int, int] | None = None,
) -> Bunch:
    """Load images and masks from a folder with the subfolders ``images`` and ``masks``.

    Images and masks belong together by their names, as in `load_image_pairs`. A file ``SPLIT.txt`` in the folder lists
    the names of the images of a split, with or without ending, one a line.

    The folder may come from an unknown source. Nothing outside of it is read.

    Parameters
    ----------
    folder : path
    split : str, optional
        "train" loads the names in ``train.txt``. None loads all images, sorted by name.
    %(channels)s
    %(foreground)s
    %(mask_ignore_label)s

    Returns
    -------
    Bunch
        As from `load_image_pairs`, in the order of the split.

    Raises
    ------
    FileNotFoundError
        If the folder, a subfolder or the split's file is missing. If an image or mask of the split is missing.
    ValueError
        As in `load_image_pairs`. If a link leads out of the folder. If the split lists a name twice, or a name with a
        folder in it.

    Warns
    -----
    UserWarning
        As in `load_image_pairs`. If `split` is None and something else lies beside ``images`` and ``masks``.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part, mode in {"images": "RGB", "masks": "1"}.items():
    ...         (Path(folder) / part).mkdir()
    ...         Image.new(mode, (8, 6), "white").save(Path(folder) / part / "horse.png")
    ...     data = load_image_folder(folder)
    >>> data.names, data.images[0].shape, data.masks[0].shape
    (['horse'], (6, 8, 3), (6, 8))
    """
    folder = Path(folder)
    images, masks = (_image_files(folder, part) for part in ("images", "masks"))
    names = None if split is None else _read_split(folder, split)
    pairs = pair_files(images, masks)
    if names is None:
        warn_of_unpaired(pairs, images, masks)
        _warn_of_others(folder)
    else:
        pairs = _chosen(pairs, names, folder)
    return read_pairs(pairs, channels, MaskReader(foreground, ignore_label))


def _image_files(folder: Path, part: str) -> list[Path]:
    _check_within(folder / part, folder)
    if not (folder / part).is_dir():
        raise FileNotFoundError(f"the folder {folder / part} is missing")
    entries = sorted(entry for entry in (folder / part).iterdir() if not is_hidden(entry))
    for entry in entries:
        _check_within(entry, folder)
    files = [entry for entry in entries if is_image_file(entry)]
    if not files:
        raise FileNotFoundError(f"the folder {folder / part} has no images")
    return files


def _warn_of_others(folder: Path) -> None:
    others = [
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ("images", "masks") and entry.suffix != ".txt" and not is_hidden(entry)
    ]
    if others:
        warnings.warn(f"{folder} holds {some_of(sorted(others))}, which is not read", stacklevel=3)


def _read_split(folder: Path, split: str) -> list[str]:
    check_plain_name(split, "split")
    file = folder / f"{split}.txt"
    _check_within(file, folder)
    if not file.is_file():
        raise FileNotFoundError(f"the file {file} of the split is missing")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8: {error}") from error
    names = [normalize("NFC", line.strip()) for line in lines if line.strip()]
    for name in names:
        check_plain_name(name, f"a name in {file}")
    if not names:
        raise ValueError(f"{file} lists no images")
    return names


def _check_within(path: Path, folder: Path) -> None:
    target = os.path.realpath(path)
    if not Path(target).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{path} leads out of {folder}, to {target}: put the file itself into the folder")


def _chosen(pairs: list[Pair], names: list[str], folder: Path) -> list[Pair]:
    by_name = {normalize("NFC", image.name): (image, masks) for image, masks in pairs}
    by_name |= {stem(image): (image, masks) for image, masks in pairs}
    if missing := [name for name in names if name not in by_name]:
        raise FileNotFoundError(f"{folder} has no image with a mask named {some_of(missing)}")
    chosen = [by_name[name] for name in names]
    if twice := [image.name for image, count in Counter(image for image, _ in chosen).items() if count > 1]:
        raise ValueError(f"the split lists {some_of(twice)} more than once")
    return chosen
