"""Loading a folder of images and masks."""

from os import PathLike
from pathlib import Path
from typing import Literal

from sklearn.utils import Bunch

from skmmcrf.image_files import read_image
from skmmcrf.truth import Truth
from skmmcrf.validation import check_foreground_is_meant, read_labels, resolve_ignore_label


def load_image_folder(
    folder: str | PathLike[str],
    split: str | None = None,
    *,
    pos_label: int = 1,
    ignore_label: int | Literal["auto"] | None = "auto",
) -> Bunch:
    """Load images and masks from a folder with the subfolders ``images`` and ``masks``.

    A mask has the name of its image, with the ending of any format. A file ``SPLIT.txt`` in the folder lists the names,
    without ending, that belong to a split, one a line.

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

    Raises
    ------
    FileNotFoundError
        If the folder, a subfolder, the split's file, an image or a mask is missing.
    ValueError
        If a file can't be read as an image, a name is not a plain name or stands for several files, the mask's size is
        not its image's, or a mask holds other values, or all masks 255 but no foreground.

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
    image_files, mask_files = (_files_by_name(folder / part) for part in ("images", "masks"))
    names = sorted(image_files) if split is None else _read_split(folder / f"{split}.txt")
    images, truths = [], []
    unlabelled = resolve_ignore_label(pos_label, ignore_label)
    for name in names:
        image = read_image(_file_of(name, image_files, folder / "images"))
        mask = read_image(_file_of(name, mask_files, folder / "masks"), palette=True)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"the mask of {name!r} has shape {mask.shape}, but its image has {image.shape[:2]}")
        images.append(image)
        truths.append(Truth(*read_labels(mask, f"the mask of {name!r}", pos_label, unlabelled)))
    check_foreground_is_meant("the folder of masks", truths, pos_label, ignore_label)
    return Bunch(images=images, masks=[truth.labels for truth in truths], names=names)


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            files.setdefault(file.stem, []).append(file)
    return files


def _read_split(file: Path) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file} for the split")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _file_of(name: str, files: dict[str, list[Path]], folder: Path) -> Path:
    found = files.get(name, [])
    if not found:
        raise FileNotFoundError(f"there is no file named {name!r} in {folder}")
    if len(found) > 1:
        raise ValueError(f"{name!r} stands for several files in {folder}: {', '.join(file.name for file in found)}")
    return found[0]
