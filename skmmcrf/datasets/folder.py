"""Loading a folder of images and masks."""

import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path, PureWindowsPath
from typing import Literal

from sklearn.utils import Bunch

from skmmcrf.images.files import read_image
from skmmcrf.images.labels import LabelScheme


def load_image_folder(
    folder: str | PathLike[str],
    split: str | None = None,
    *,
    pos_label: int = 1,
    ignore_label: int | Literal["auto"] | None = "auto",
) -> Bunch:
    """Load images and masks from a folder with the subfolders ``images`` and ``masks``.

    A mask has the name of its image, with the ending of any format. A file ``SPLIT.txt`` in the folder lists the names,
    without ending, that belong to a split, one a line. Without a split all that is in the folder must be used, but for
    such lists and hidden files, whose names begin with a dot or are ``Thumbs.db`` or ``desktop.ini``.

    The folder may come from a stranger: nothing is read from outside of it.

    Parameters
    ----------
    folder : path
    split : str, optional
        "train" for the names in ``train.txt``; None for all images, sorted by name.
    pos_label : int, default=1
        The value of foreground in the masks, 255 for many; that of background is 0.
    ignore_label : int, None or "auto", default="auto"
        The value of unlabelled pixels; "auto" is 255 where that is not `pos_label`. Every other value is an error.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W) or (H, W, channels)
            As they are stored, uint8 or uint16; colours of a palette as RGB.
        masks : list of ndarray of uint8 and shape (H, W)
            Labels, 0 or 1, and 255 where unlabelled.
        names : list of str
            Of the files, without ending.

    Raises
    ------
    FileNotFoundError
        If the folder, a subfolder, the split's file, an image or a mask is missing. A mask without image is an error as
        an image without mask is.
    ValueError
        If a file can't be read as an image, see `skmmcrf.images.files.read_image`; a name is not a plain name, stands
        for several files, for a folder or for a link that leads out of the folder, or is listed twice; there are no
        images; the mask's size is not its image's; or a mask holds other values, or all masks 255 but no foreground.

    Warns
    -----
    UserWarning
        If there is no split, and something else lies beside ``images`` and ``masks``.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part, mode in {"images": "RGB", "masks": "1"}.items():
    ...         (Path(folder) / part).mkdir()
    ...         Image.new(mode, (8, 6)).save(Path(folder) / part / "horse.png")
    ...     data = load_image_folder(folder)
    >>> data.names, data.images[0].shape, data.masks[0].shape
    (['horse'], (6, 8, 3), (6, 8))
    """
    folder = Path(folder)
    image_files, mask_files = (_entries_by_name(folder, part) for part in ("images", "masks"))
    if split is None:
        names = sorted(image_files.keys() | mask_files.keys())
        _warn_of_others(folder)
    else:
        names = _read_split(folder, split)
    if not names:
        raise ValueError(f"there are no images in {folder}" + ("" if split is None else f" for the split {split!r}"))
    images, annotations = [], []
    scheme = LabelScheme(pos_label, ignore_label)
    used_images = _files_of(names, image_files, folder, "images")
    used_masks = _files_of(names, mask_files, folder, "masks")
    for name, image_file, mask_file in zip(names, used_images, used_masks):
        image = read_image(image_file)
        mask = read_image(mask_file, as_labels=True)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"the mask of {name!r} has shape {mask.shape}, but its image has {image.shape[:2]}")
        images.append(image)
        annotations.append(scheme.read(mask, f"the mask of {name!r}"))
    scheme.check_foreground_is_meant(annotations, "the folder of masks")
    return Bunch(images=images, masks=[annotation.mask for annotation in annotations], names=names)


def _entries_by_name(folder: Path, part: str) -> dict[str, list[Path]]:
    _check_within(folder / part, folder)
    if not (folder / part).is_dir():
        raise FileNotFoundError(f"there is no folder {folder / part}")
    entries: dict[str, list[Path]] = {}
    for entry in sorted((folder / part).iterdir()):
        if not _is_hidden(entry):
            entries.setdefault(entry.stem, []).append(entry)
    return entries


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in ("thumbs.db", "desktop.ini")


def _warn_of_others(folder: Path) -> None:
    others = [
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ("images", "masks") and entry.suffix != ".txt" and not _is_hidden(entry)
    ]
    if others:
        warnings.warn(f"{folder} holds {_some_of(sorted(others))}, which nothing is read from", stacklevel=3)


def _read_split(folder: Path, split: str) -> list[str]:
    if not isinstance(split, str):
        raise TypeError(f"split must be a str or None, got {type(split).__name__}")
    _check_plain(split, "split")
    file = folder / f"{split}.txt"
    _check_within(file, folder)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file} for the split")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        _check_plain(name, f"a name in {file}")
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(f"{file} lists {_some_of(twice)} more than once")
    return names


def _check_plain(name: str, what: str) -> None:
    # names of Windows have all the separators
    if name in ("", "..") or PureWindowsPath(name).name != name:
        raise ValueError(f"{what} must be a plain name, of no other folder, got {name!r}")


def _check_within(path: Path, folder: Path) -> None:
    target = os.path.realpath(path)
    if not Path(target).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{path} leads out of {folder}, to {target}: put that itself into the folder")


def _files_of(names: Sequence[str], entries: Mapping[str, list[Path]], folder: Path, part: str) -> list[Path]:
    """The file of each name, when it is the only one, in the folder and a file."""
    if missing := [name for name in names if name not in entries]:
        raise FileNotFoundError(f"there is no file named {_some_of(missing)} in {folder / part}")
    for name in names:
        if len(entries[name]) > 1:
            several = ", ".join(entry.name for entry in entries[name])
            raise ValueError(f"{name!r} stands for several files in {folder / part}: {several}")
    files = [entries[name][0] for name in names]
    for file in files:
        _check_within(file, folder)
        if not file.is_file():
            raise ValueError(f"{file} must be a file")
    return files


def _some_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
