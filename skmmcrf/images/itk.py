"""Reading files with SimpleITK: those of which PIL drops bits, and slices in DICOM."""

import math
import struct
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_IMPLICIT, _EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"  # kinds of DICOM that compress nothing
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_UNDEFINED = 2**32 - 1


def check_size(n_pixels: int) -> None:
    """Refuse more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, which None lifts."""
    if Image.MAX_IMAGE_PIXELS is not None and n_pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"Image size ({n_pixels} pixels) exceeds limit of {Image.MAX_IMAGE_PIXELS} pixels, could be decompression "
            "bomb. If it is none, raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def read_whole(
    file: str | PathLike[str], image_io: str, shape: tuple[int, ...], dtype: np.dtype, needed_for: str
) -> np.ndarray:
    """Read a file with all its bits.

    Parameters
    ----------
    file : path
    image_io : str
        The only reader of ITK that may open the file.
    shape, dtype
        As in the header. ITK gives other arrays for layouts that it does not know.
    needed_for : str
        What is read, for error messages.

    Raises
    ------
    ValueError
        If SimpleITK is missing, or can't read the file as its header says.
    """
    reader = _opened(file, image_io, needed_for)
    if _shape(reader) != shape or _dtype(reader) != dtype:
        raise ValueError(f"neither PIL nor SimpleITK reads {needed_for} as they are stored here: give an array instead")
    return _pixels(reader)


def read_dicom(file: str | PathLike[str], *, as_labels: bool = False) -> np.ndarray:
    """Read a slice in DICOM that is not compressed.

    Parameters
    ----------
    file : path
    as_labels : bool, default=False
        Whether to give the numbers of a mask as they are, without a window.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, 3)
        float32 in [0, 1] by the first window of the file. Without a window uint8 or uint16, or the numbers of a mask.

    Raises
    ------
    ValueError
        If SimpleITK is missing. If the file is damaged or compressed, or holds several slices. If it does not say which
        values are black and white.
    """
    _check_elements(Path(file).read_bytes())
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


def _check_elements(data: bytes) -> None:
    """Refuse DICOM whose elements are longer than the file: GDCM would take up to 4 GB of memory for each.

    Compressed files are refused too, because decoders trust the sizes inside the pixel data.
    """
    if data[128:132] != b"DICM":
        raise ValueError("it lacks the letters DICM at the beginning of DICOM")
    at, syntax = 132, b""
    while at + 8 <= len(data):
        group, number, kind, length = struct.unpack_from("<HH2sH", data, at)
        if group != 2 and syntax not in (_IMPLICIT, _EXPLICIT):
            name = syntax.decode("ascii", "replace")
            raise ValueError(
                f"it is compressed, by the transfer syntax {name}: convert it, for example by gdcmconv --raw"
            )
        if (group, number) == (0x28, 0x3000):
            raise ValueError("its values need a look-up table: give an array instead")
        is_item = group == 0xFFFE
        if is_item or (group != 2 and syntax == _IMPLICIT):
            (length,) = struct.unpack_from("<I", data, at + 4)
            at += 8
        elif kind in _LONG:
            (length,) = struct.unpack_from("<I", data.ljust(at + 12, b"\0"), at + 8)
            at += 12
        elif kind in _SHORT:
            at += 8
        else:
            raise ValueError("it is damaged")
        if length != _UNDEFINED and at + length > len(data):
            raise ValueError("it is truncated, or damaged")
        if (group, number) == (2, 0x10):
            syntax = data[at : at + length].rstrip(b"\0 ")
        is_sequence = is_item or length == _UNDEFINED or (kind == b"SQ" and syntax == _EXPLICIT)
        at += 0 if is_sequence else length  # the elements of a sequence follow


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
    return ValueError(f"SimpleITK can't read it, give an array instead: {str(error).strip().splitlines()[-1]}")
