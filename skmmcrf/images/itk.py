"""Reading files with SimpleITK: what PIL would give only half of, and slices in DICOM."""

import math
from os import PathLike, fspath
from typing import Any

import numpy as np
from PIL import Image


def check_size(n_pixels: int) -> None:
    """Refuse more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, which None lifts."""
    if Image.MAX_IMAGE_PIXELS is not None and n_pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"Image size ({n_pixels} pixels) exceeds limit of {Image.MAX_IMAGE_PIXELS} pixels, could be decompression "
            "bomb; raise PIL.Image.MAX_IMAGE_PIXELS if it is none"
        )


def read_whole(
    file: str | PathLike[str], image_io: str, shape: tuple[int, ...], dtype: np.dtype, needed_for: str
) -> np.ndarray:
    """Read a file with all its bits.

    Parameters
    ----------
    file : path
    image_io : str
        The one of ITK's readers that may open the file.
    shape, dtype
        What the header says; ITK gives other arrays of layouts that it does not know.
    needed_for : str
        What is read, for errors.

    Raises
    ------
    ValueError
        If SimpleITK is missing, or can't read the file as the header says.
    """
    reader = _opened(file, image_io, needed_for)
    if _shape(reader) != shape or _dtype(reader) != dtype:
        raise ValueError(f"neither PIL nor SimpleITK reads {needed_for} as they are stored here: give an array instead")
    return _pixels(reader)


def read_dicom(file: str | PathLike[str], *, as_labels: bool = False) -> np.ndarray:
    """Read a slice in DICOM.

    Parameters
    ----------
    file : path
    as_labels : bool, default=False
        Whether to give the numbers of a mask as they are, without a window.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, 3)
        float32 in [0, 1] if the file has a window: its first. Otherwise uint8 or uint16, or what a mask holds.

    Raises
    ------
    ValueError
        If SimpleITK is missing, the file is damaged, holds several slices, or does not say what is black and white.
    """
    reader = _opened(file, "GDCMImageIO", "DICOM")
    shape = _shape(reader)
    if shape[0] != 1:
        raise ValueError(f"it holds {shape[0]} slices: give each as an array")
    photometric = _tag(reader, "0028|0004", "MONOCHROME2")
    if photometric not in ("MONOCHROME2", "RGB"):
        raise ValueError(f"its pixels are {photometric}, not MONOCHROME2 or RGB: give an array instead")
    values = _pixels(reader)[0]
    center, width = (_tag(reader, tag, "").split("\\")[0].strip() for tag in ("0028|1050", "0028|1051"))
    if center and width and not as_labels and values.ndim == 2:
        return _windowed(values, float(center), float(width), _tag(reader, "0028|1056", "LINEAR"))
    if not as_labels and values.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"it has no window, and pixels of {values.dtype}: scale them to [0, 1] and give the array")
    return values


def _windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The window as the standard has it (PS3.3, C.11.2.1.2)."""
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise ValueError(f"its window has the function {function}: scale its pixels to [0, 1] and give the array")
    if not (math.isfinite(center) and 0 < width < math.inf):
        raise ValueError(f"its window has the width {width:g}: scale its pixels to [0, 1] and give the array")
    return np.clip((values - center) / width + 0.5, 0, 1).astype(np.float32)


def _opened(file: str | PathLike[str], image_io: str, needed_for: str) -> Any:
    """The reader of a file, of which nothing but the header has been read."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ValueError(f'SimpleITK is needed for {needed_for}: pip install "skmmcrf[medical]"') from error
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(fspath(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _shortened(error) from error
    check_size(math.prod(reader.GetSize()))
    return reader


def _shape(reader: Any) -> tuple[int, ...]:
    n_channels = reader.GetNumberOfComponents()
    return (*reversed(reader.GetSize()), *([] if n_channels == 1 else [n_channels]))


def _dtype(reader: Any) -> np.dtype:
    import SimpleITK

    pixel = SimpleITK.Image([1, 1], reader.GetPixelIDValue(), reader.GetNumberOfComponents())
    return SimpleITK.GetArrayViewFromImage(pixel).dtype


def _pixels(reader: Any) -> np.ndarray:
    import SimpleITK

    try:
        return SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _shortened(error) from error


def _tag(reader: Any, tag: str, default: str) -> str:
    return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else default


def _shortened(error: RuntimeError) -> ValueError:
    return ValueError(f"SimpleITK can't read it: {str(error).strip().splitlines()[-1]}")
