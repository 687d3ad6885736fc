"""Reading images and masks from files and from opened PIL images."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from skmmcrf._shown import shown
from skmmcrf.images.itk import check_size, read_dicom, read_whole

#: Those of PIL's formats that hold nothing but pixels; it hands others, as EPS, to programs that run what they say.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

Channels = Literal["L", "RGB"]

_LONGEST_PATH = 4096  # of Linux

# modes of PIL and what gives the same colours in bands that all know
_PLAIN_MODES = {"RGBa": "RGBA", "La": "LA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}

# tags of TIFF
_SUBFILE, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _SUBFILES = 254, 258, 262, 274, 277, 330
_EXTRA_SAMPLES, _SAMPLE_FORMAT = 338, 339
_KINDS = {1: "u", 2: "i", 3: "f"}


def read_image(file: str | PathLike[str], *, as_labels: bool = False, channels: Channels | None = None) -> np.ndarray:
    """Read a file that holds one image.

    Formats are BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF, WebP, NumPy's .npy and, with the extra "medical", DICOM. The
    file may come from an unknown source.

    Parameters
    ----------
    file : path
    as_labels : bool, default=False
        Whether to read it as a mask, whose pixels are labels. See `pixels_of`.
    channels : {"L", "RGB"}, optional
        Convert to one channel of grey or three of colours. See `pixels_of`.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, channels)
        The pixels as stored, mostly bool, uint8 or uint16, rotated by the EXIF orientation. A slice in DICOM is float32
        in [0, 1] by its first window. Without a window it is uint8 or uint16.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If the file is damaged, of another format, or holds several images. If it needs SimpleITK, which is missing. If
        it can't be converted. If it holds more than `PIL.Image.MAX_IMAGE_PIXELS` pixels, which is checked before any is
        decoded.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/horse.png")
    ...     read_image(f"{folder}/horse.png").shape, read_image(f"{folder}/horse.png", channels="L").shape
    ((6, 8, 3), (6, 8))
    """
    _check_options(as_labels, channels)
    if len(fspath(file)) > _LONGEST_PATH:
        raise ValueError(f"{shown(fspath(file))} is too long for a path, and can't be read as an image")
    with _errors_named(f"{fspath(file)} can't be read as an image"):
        with open(file, "rb") as opened:
            head = opened.read(132)
            if head.startswith(b"\x93NUMPY"):
                values = _read_npy(file)
            elif head[128:] == b"DICM" or fspath(file).lower().endswith(".dcm"):
                values = read_dicom(file, as_labels=as_labels)
            else:
                opened.seek(0)
                return _read_picture(opened, as_labels, channels)
        return values if channels is None else _converted(values, channels)


def pixels_of(image: Image.Image, *, as_labels: bool = False, channels: Channels | None = None) -> np.ndarray:
    """Give the pixels of an opened PIL image, as `read_image` gives those of its file.

    Parameters
    ----------
    image : PIL.Image.Image
    as_labels : bool, default=False
        Whether to read it as a mask, whose pixels are labels. The labels of a palette of greys are these greys. The
        labels of a palette with colours are its indices. Grey that is stored as colours becomes one channel.
    channels : {"L", "RGB"}, optional
        Convert to one channel of grey or three of colours, in the same dtype. Grey is repeated, and alpha is left out.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, channels)
        The pixels as stored, rotated by the EXIF orientation. A palette of greys gives one channel, a palette with
        colours three. Transparency of a palette is left out. An alpha channel is kept.

    Raises
    ------
    ValueError
        If the image is damaged, or holds several. If it has 16 bits in several channels, of which PIL drops half. If a
        mask has colours or transparent pixels. If it can't be converted.

    Examples
    --------
    >>> mask = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    >>> mask.putpalette([255, 255, 255, 0, 0, 0])
    >>> pixels_of(mask, as_labels=True)
    array([[255,   0]], dtype=uint8)
    """
    _check_options(as_labels, channels)
    file = _file_of(image)
    with _errors_named(f"the opened image{file and ' '}{file} can't be read"):
        _seek_page(image)
        if _is_cut_by_pil(image) or _is_garbled_by_pil(image):
            raise ValueError("PIL does not keep its pixels as they are stored: give the path of the file instead")
        return _finished(image, _plain(image, as_labels, channels), as_labels, channels)


def size_in_memory(file: str | PathLike[str]) -> int:
    """Tell about how many bytes the pixels of a file take once they are read, without reading them.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, is no image, or holds more than `PIL.Image.MAX_IMAGE_PIXELS` pixels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (1000, 1000)).save(f"{folder}/black.png")
    ...     size_in_memory(f"{folder}/black.png")
    3000000
    """
    with _errors_named(f"{fspath(file)} can't be read as an image"):
        try:
            with Image.open(file, formats=FORMATS) as image:
                return image.width * image.height * len(image.getbands()) * (4 if image.mode[0] in "IF" else 1)
        except UnidentifiedImageError:
            return os.path.getsize(file)  # .npy and DICOM that can be read are not compressed


def described_mask(mask: Any) -> str:
    """Say, for errors about its labels, which file a mask comes from and whether they are indices of a palette."""
    if isinstance(mask, (str, PathLike)):
        try:
            with warnings.catch_warnings(), Image.open(mask, formats=FORMATS) as image:
                warnings.simplefilter("ignore")
                return described_mask(image)
        except UnidentifiedImageError:  # of an array
            return f" ({fspath(mask)})"
    if not isinstance(mask, Image.Image):
        return ""
    notes = [_file_of(mask)]
    if mask.mode in ("P", "PA") and _has_colours(mask):
        notes.append("a mask with a palette of colours, whose indices are taken as labels")
    return f" ({', '.join(filter(None, notes))})" if any(notes) else ""


def palette_of(file: str | PathLike[str]) -> list[list[int]] | None:
    """Give the colours (red, green, blue) of a mask file whose indices are its labels, or None if it has no palette."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            has_indices = image.mode in ("P", "PA") and _has_colours(image)
            return _palette(image).tolist() if has_indices else None
    except UnidentifiedImageError:  # an array in a file
        return None


@contextmanager
def _errors_named(start: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, of what is not read here, as odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        known = f"{', '.join(FORMATS)}, .npy and DICOM"
        raise ValueError(f"{start}: it is none of {known}, or a variant that PIL can't read: give an array") from error
    except Exception as error:  # a damaged file makes PIL raise almost anything
        raise ValueError(f"{start}: {str(error) or type(error).__name__}") from error


def _check_options(as_labels: bool, channels: str | None) -> None:
    if channels not in (None, "L", "RGB"):
        raise ValueError(f'channels must be None, "L" or "RGB", got {shown(channels)}')
    if as_labels and channels is not None:
        raise ValueError("channels must be None with as_labels=True: a mask has one")


def _read_npy(file: str | PathLike[str]) -> np.ndarray:
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)  # no larger than the file
    check_size(mapped.size)
    return np.array(mapped)


def _read_picture(file: BinaryIO, as_labels: bool, channels: Channels | None) -> np.ndarray:
    image: Image.Image
    with Image.open(file, formats=FORMATS) as image:  # of a path PIL would map the memory, which garbles turned TIFF
        _seek_page(image)
        if not _is_cut_by_pil(image):
            return _finished(image, _plain(image, as_labels, channels), as_labels, channels)
        return _finished(image, _read_with_itk(file.name, image), as_labels, channels)


def _read_with_itk(file: str, image: Image.Image) -> np.ndarray:
    """The pixels of an opened file that PIL would not give as stored."""
    if image.format == "PNG":
        n_channels, dtype = len(image.getbands()), np.dtype(np.uint16)
    elif image.format == "TIFF":
        tags = _tags(image)
        unread = {
            "is to be turned": tags.get(_ORIENTATION, 1) != 1,
            "has white zeros": tags.get(_PHOTOMETRIC) == 0,
            "has colours multiplied by alpha": 1 in np.atleast_1d(tags.get(_EXTRA_SAMPLES, 0)),
        }
        for what, holds in unread.items():
            if holds:
                raise ValueError(f"it {what}, and PIL can't read such pixels: give an array instead")
        bits, n_channels, kind = _layout(tags)
        dtype = np.dtype(f"{kind}{bits // 8}")
    else:
        raise ValueError("PIL drops half of its 16 bits: convert it to PNG or TIFF, or give an array instead")
    shape = (image.height, image.width, *([] if n_channels == 1 else [n_channels]))
    return read_whole(file, f"{image.format}ImageIO", shape, dtype, f"{n_channels} channels of {dtype}")


def _seek_page(image: Image.Image) -> None:
    """Go to the one page of full size, in a file with smaller versions of it."""
    n_pages = _n_pages(image)
    if image.format == "TIFF" and n_pages > 1:
        full = [page for page in range(n_pages) if not _is_reduced(image, page)]
        n_pages = len(full)
        if n_pages == 1:
            image.seek(full[0])
            check_size(image.width * image.height)
    elif image.format == "TIFF" and _is_reduced(image, image.tell()) and _SUBFILES in _tags(image):
        n_pages = 0
    if n_pages == 0:
        raise ValueError("it holds a reduced version beside its image: give an array instead")
    if n_pages > 1:
        raise ValueError(f"it holds {n_pages} images, but one is wanted: give arrays instead")


def _n_pages(image: Image.Image) -> int:
    if image.format == "MPO":  # a camera's JPEG with a preview
        return 1
    try:
        return getattr(image, "n_frames", 1)
    except ValueError as error:
        if str(error) != "Operation on closed image":
            raise
        return 1  # the one that was loaded before the file was closed


def _is_reduced(image: Image.Image, page: int) -> bool:
    if image.tell() != page:
        image.seek(page)
    return bool(_tags(image).get(_SUBFILE, 0) & 1)


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]  # of TIFF


def _is_cut_by_pil(image: Image.Image) -> bool:
    """Whether PIL gives other pixels than a file holds: the half of 16 bits, other signs, or fewer channels."""
    if image.format == "TIFF":
        bits, n_samples, kind = _layout(_tags(image))
        whole = kind == "u" if bits <= 8 else n_samples == 1 and (bits, kind) != (32, "u")
        is_negative = _tags(image).get(_PHOTOMETRIC) == 0 and image.mode not in ("1", "L", "I;16", "I;16B")
        n_bands = 3 if image.mode == "RGBX" else len(image.getbands())
        return not whole or n_samples != n_bands or is_negative
    if image.format not in ("PNG", "PPM", "JPEG2000") or image.mode not in ("LA", "RGB", "RGBA"):
        return False
    return _has_deep_tiles(image) if image.tile else _its_file(image, _has_deep_tiles)  # type: ignore[attr-defined]


def _is_garbled_by_pil(image: Image.Image) -> bool:
    """Whether a TIFF is to be turned by a quarter and PIL maps its memory, in rows of a wrong length."""
    return image.format == "TIFF" and _its_file(
        image, lambda file: file.tile[0][0] == "raw" and _tags(file).get(_ORIENTATION) in (5, 6, 7, 8)
    )


def _its_file(image: Image.Image, holds: Callable[[Any], bool]) -> bool:
    """Whether something holds of the file that an image was opened from, as far as that is known."""
    try:
        with Image.open(_file_of(image), formats=FORMATS) as file:
            return file.format == image.format and holds(file)
    except OSError:  # there is none
        return False


def _layout(tags: Any) -> tuple[int, int, str]:
    """Bits a channel, the number of channels, and the kind of dtype of a TIFF."""
    bits, formats = (max(np.atleast_1d(tags.get(tag, 1)).tolist()) for tag in (_BITS, _SAMPLE_FORMAT))
    return bits, tags.get(_SAMPLES, 1), _KINDS.get(formats, "V")


def _has_deep_tiles(image: Any) -> bool:
    """Whether a file of several channels, not yet decoded, has more than 8 bits in them."""
    arguments = image.tile[0][3]
    if image.format == "PNG":
        return ";16" in arguments
    if image.format == "PPM":
        return isinstance(arguments, tuple) and arguments[1] > 255
    start = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(1_000_000)
    image.fp.seek(start)
    sizes = head.find(b"\xff\x4f\xff\x51") + 2  # the marker SIZ, whose entries of 3 bytes a channel begin at 40
    return sizes < 2 or any(depth & 127 > 7 for depth in head[sizes + 40 : sizes + 40 + 3 * len(image.getbands()) : 3])


def _plain(image: Image.Image, as_labels: bool, channels: Channels | None) -> np.ndarray:
    """The pixels as PIL gives them: greys or colours, or indices as labels."""
    image.load()
    if image.mode == "LAB":
        raise ValueError("its colours are in the space LAB: convert it to RGB")
    if image.mode in ("P", "PA"):
        if as_labels and _has_colours(image):
            return _indices(image)
        plain = image.convert("RGB" if _has_colours(image) else "L")
    elif image.mode == "CMYK" and (as_labels or channels):
        plain = image.convert("RGB")
    else:
        plain = image.convert(_PLAIN_MODES.get(image.mode, image.mode))
    if as_labels and (image.mode == "PA" or "transparency" in image.info):
        _check_opaque(np.asarray(image.convert("RGBA"))[..., 3])
    values = np.asarray(plain)
    if plain.mode.startswith("I;16") or (image.format == "PPM" and plain.mode == "I"):  # which PIL scales to 16 bits
        values = values.astype(np.uint16)
        if image.format == "TIFF" and _tags(image).get(_PHOTOMETRIC) == 0:
            return 65535 - values
    return values


def _palette(image: Image.Image) -> np.ndarray:
    """The colours of a palette. PIL uses greys if the image has no palette."""
    palette = np.array(image.getpalette("RGB") or np.repeat(np.arange(256), 3), np.uint8)
    return palette.reshape(-1, 3)


def _is_grey(colours: np.ndarray) -> bool:
    return bool((colours == colours[..., :1]).all())


def _has_colours(image: Image.Image) -> bool:
    return not _is_grey(_palette(image))


def _indices(image: Image.Image) -> np.ndarray:
    """The indices of a palette with colours."""
    values = np.asarray(image)
    indices = values if values.ndim == 2 else values[..., 0]
    palette = _palette(image)
    used = palette[np.unique(indices[indices < len(palette)])]
    if _is_grey(used) and (np.diff(used[:, 0].astype(int)) < 0).any():
        raise ValueError(
            "it uses only greys of a palette with colours, and darker greys have higher indices, so its labels may be "
            "the greys or the indices: save it as a greyscale image, or give an array"
        )
    return indices


def _check_opaque(alpha: np.ndarray) -> None:
    if (alpha != np.iinfo(alpha.dtype).max).any():
        raise ValueError("it is a mask with transparent pixels, whose label is unknown: save it without alpha")


def _finished(image: Image.Image, values: np.ndarray, as_labels: bool, channels: Channels | None) -> np.ndarray:
    """The pixels of an image, rotated, as labels or in the wanted channels."""
    values = _turned(values, _orientation(image))
    if values.ndim == 3 and image.mode not in ("P", "PA") and image.getbands()[-1] in ("A", "a"):
        if as_labels:
            _check_opaque(values[..., -1])
        if as_labels or channels:
            values = values[..., 0] if values.shape[2] == 2 else values[..., :-1]
    if as_labels and values.ndim == 3:
        if not _is_grey(values):
            raise ValueError(
                "it is a mask with colours, but each label must be a grey: skmmcrf.datasets.load_image_pairs(..., "
                "foreground=(r, g, b)) reads one of them"
            )
        values = values[..., 0]
    return np.ascontiguousarray(values if channels is None else _converted(values, channels))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF, which viewers ignore too
        return 1


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _converted(values: np.ndarray, channels: Channels) -> np.ndarray:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        return values if channels == "L" else np.repeat(values[..., np.newaxis], 3, axis=2)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind not in "uf":
        raise ValueError(
            f"it has shape {values.shape} and dtype {values.dtype}, which can't be converted to {channels!r}"
        )
    if channels == "RGB":
        return values
    if values.dtype.kind == "f":
        return (values @ np.array([0.299, 0.587, 0.114])).astype(values.dtype)
    # PIL's weights and rounding; 65535 times their sum is below 2**32
    red, green, blue = np.moveaxis(values.astype(np.uint32), 2, 0)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(values.dtype)


def _file_of(image: Image.Image) -> str:
    """The path that an image was opened from, or an empty one."""
    file = getattr(image, "filename", "")
    return file if isinstance(file, str) else ""
