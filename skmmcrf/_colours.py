"""Colours of classes in pictures."""

import colorsys

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's, which also those tell apart who are blind to red or green
_FEW = "0072b2 e69f00 009e73 cc79a7 f0e442 56b4e9 d55e00"
# Trubetskoy's, of which each is far from all others, without grey and white, and a dark green
_MANY = (
    "4363d8 e6194b 3cb44b ffe119 f58231 911eb4 42d4f4 f032e6 bfef45 fabed4 469990 dcbeff 9a6324 fffac8 800000 aaffc3 "
    "808000 ffd8b1 000075 005a00 000000"
)

#: The neutral colour of unlabelled pixels, which no class has.
UNLABELLED_COLOUR = (190, 190, 190)

#: The colour of pixels whose class is wrong, which no class has.
WRONG_COLOUR = (255, 0, 160)


def class_colours(n_classes: int) -> NDArray[np.uint8]:
    """Give a colour for each class.

    Returns
    -------
    ndarray of uint8 and shape (n_classes, 3)
        Red, green and blue.

    Examples
    --------
    >>> class_colours(3)
    array([[  0, 114, 178],
           [230, 159,   0],
           [  0, 158, 115]], dtype=uint8)
    """
    named = _FEW.split() if n_classes <= len(_FEW.split()) else _MANY.split()
    colours = [list(bytes.fromhex(name)) for name in named[:n_classes]]
    # darker and darker hues, one golden section after the other
    further = np.arange(n_classes - len(colours))
    hues = [colorsys.hsv_to_rgb(n * 0.618 % 1, 1 - 0.4 * (n % 2), 0.45 + 0.3 * (n % 3 == 1)) for n in further]
    return np.array(colours + [[round(255 * part) for part in hue] for hue in hues], np.uint8)


def tinted(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Tint an image by the colours of its classes. What is unlabelled is hidden by a neutral colour.

    Parameters
    ----------
    pixels : ndarray of uint8 and shape (H, W, channels)
        The image, which becomes grey.
    mask : ndarray of uint8 and shape (H, W)
        The numbers of the classes. All others are unlabelled.
    n_classes : int

    Returns
    -------
    ndarray of uint8 and shape (H, W, 3)

    Examples
    --------
    >>> tinted(np.full((1, 2, 1), 100, np.uint8), np.array([[0, 255]], np.uint8), 3)
    array([[[ 50, 107, 139],
            [190, 190, 190]]], dtype=uint8)
    """
    colours = np.full((256, 3), UNLABELLED_COLOUR, np.uint8)
    colours[:n_classes] = class_colours(n_classes)
    opacity = np.where(mask < n_classes, 0.5, 1.0)[..., np.newaxis]
    return ((1 - opacity) * pixels.mean(axis=-1, keepdims=True) + opacity * colours[mask]).round().astype(np.uint8)
