"""Reading images and masks from files."""

import warnings
from os import PathLike

import numpy as np
from PIL import Image

#: Those of PIL's formats that hold nothing but pixels; it hands others, as EPS, to programs that run what they say.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_image(file: str | PathLike[str], *, palette: bool = False) -> np.ndarray:
    """Read a file of the format BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP that holds one image.

    The file may come from a stranger.

    Parameters
    ----------
    file : path
    palette : bool, default=False
        Whether images with a palette give its numbers, as masks mean them, instead of colours.

    Returns
    -------
    ndarray of shape (H, W) or (H, W, channels)
        As it is stored: bool, uint8 or uint16; colours of a palette as RGB.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it can't be read as an image: it is damaged, of another format, holds several images, or more than
        `PIL.Image.MAX_IMAGE_PIXELS` pixels, which is told before any is decoded.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/horse.png")
    ...     read_image(f"{folder}/horse.png").shape
    (6, 8, 3)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, of what is not read here, as odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _pixels(file, palette)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file makes PIL raise almost anything
        raise ValueError(f"{file} can't be read as an image: {str(error) or type(error).__name__}") from error


def _pixels(file: str | PathLike[str], palette: bool) -> np.ndarray:
    image: Image.Image
    with Image.open(file, formats=FORMATS) as image:
        # a camera's JPEG may hold a preview, it is MPO then
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise ValueError("it holds several images")
        image.load()
        if image.mode == "P" and not palette:
            image = image.convert("RGB")
        return np.asarray(image)
