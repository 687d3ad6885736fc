"""Reading images and masks from files."""

from os import PathLike

import numpy as np
from PIL import Image


def read_image(file: str | PathLike[str], *, palette: bool = False) -> np.ndarray:
    """Read an image file.

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
        If it can't be read as an image.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 6)).save(f"{folder}/horse.png")
    ...     read_image(f"{folder}/horse.png").shape
    (6, 8, 3)
    """
    image: Image.Image
    try:
        with Image.open(file) as image:
            if image.mode == "P" and not palette:
                image = image.convert("RGB")
            return np.asarray(image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} can't be read as an image: {error}") from error
