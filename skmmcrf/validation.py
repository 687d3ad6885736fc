"""Checks of images and labels, and the conversions that every estimator shares.

Inside the package a set of images is a list of arrays (H, W, channels) and a set of labels a list of boolean arrays
(H, W); the functions here bring what users give into that form, or say what is wrong with it.
"""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, Options, StrOptions

from skmmcrf._typing import BoolArray, ImagesLike, LabelledImages, LabelledImagesLike, LabelsLike

#: What the parameters of the conditional random field and of its learner may be, wherever they appear.
CRF_CONSTRAINTS = {
    "C": [Interval(Real, 0, None, closed="neither")],
    "connectivity": [Options(Integral, {4, 8})],
    "sigma": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [None, Integral],
}

_IMAGE_DTYPES = "bool, uint8, uint16, float16, float32 or float64"


def scale_image(image: np.ndarray) -> NDArray[np.float32]:
    """Scale an image to [0, 1] by its dtype.

    Parameters
    ----------
    image : ndarray of bool, uint8, uint16 or float
        The pixels; floats are taken as they are.

    Returns
    -------
    ndarray of float32
        The image, same shape.

    Examples
    --------
    >>> import numpy as np
    >>> scale_image(np.array([0, 51, 255], dtype=np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    scaled = image.astype(np.float32)
    if image.dtype.kind == "u":
        scaled /= np.iinfo(image.dtype).max
    return scaled


def check_images(X: ImagesLike, *, n_channels: int | None = None, name: str = "X") -> list[np.ndarray]:
    """Check a set of images.

    Parameters
    ----------
    X : array of shape (n, H, W) or (n, H, W, channels), or sequence of arrays (H, W) or (H, W, channels)
        Images of dtype bool, uint8, uint16 or float. In a sequence their heights and widths may differ.
    n_channels : int, optional
        The number of channels that is wanted, if it is known.
    name : str, default="X"
        What errors call the images.

    Returns
    -------
    list of ndarray of shape (H, W, channels)
        The images in their own dtype; no pixel is copied.

    Raises
    ------
    ValueError
        If there is no image, or one has a wrong shape, dtype, number of channels, or pixels that are not finite.
    """
    images = [_check_image(image, f"{name}[{n}]") for n, image in enumerate(_as_sequence(X, name, dimensions=(3, 4)))]
    wanted = n_channels or images[0].shape[2]
    for n, image in enumerate(images):
        if image.shape[2] != wanted:
            raise ValueError(f"{name}[{n}] has {image.shape[2]} channels, but {wanted} are wanted")
    return images


def check_labels(y: LabelsLike, images: Sequence[np.ndarray]) -> list[BoolArray]:
    """Check the labels of a set of images.

    Parameters
    ----------
    y : array of shape (n, H, W), or sequence of arrays (H, W)
        The labels, 0 or 1, of dtype bool, integer or float.
    images : list of ndarray of shape (H, W, channels)
        The images that they belong to, from `check_images`.

    Returns
    -------
    list of ndarray of bool and shape (H, W)
        The labels.

    Raises
    ------
    ValueError
        If the numbers of labels and images or their sizes differ, or if a label is neither 0 nor 1.
    """
    y = _as_sequence(y, "y", dimensions=(3,))
    if len(y) != len(images):
        raise ValueError(f"X and y must have the same length, got {len(images)} images and {len(y)} labels")
    return [_check_labeling(labels, image.shape[:2], f"y[{n}]") for n, (labels, image) in enumerate(zip(y, images))]


def check_validation_data(validation_data: LabelledImagesLike | None, n_channels: int) -> LabelledImages | None:
    """Check images and labels that training is watched on.

    Parameters
    ----------
    validation_data : None or tuple (X, y)
    n_channels : int
        Channels of the training images.

    Returns
    -------
    None or tuple of list of ndarray
        Images (H, W, channels) and labels (H, W).

    Raises
    ------
    ValueError, TypeError
        As `check_images` and `check_labels`, or if it is not a pair.
    """
    if validation_data is None:
        return None
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError("validation_data must be a pair (X, y)")
    images = check_images(validation_data[0], n_channels=n_channels)
    return images, check_labels(validation_data[1], images)


def as_given(results: list[np.ndarray], X: ImagesLike) -> np.ndarray | list[np.ndarray]:
    """Give results the outer form of the images: an array for an array, a list for any other sequence.

    Parameters
    ----------
    results : list of ndarray
        One result an image.
    X : array or sequence
        The images as the user gave them.

    Returns
    -------
    ndarray or list of ndarray
    """
    return np.stack(results) if isinstance(X, np.ndarray) and X.dtype != object else results


def _as_sequence(values: ImagesLike, name: str, dimensions: tuple[int, ...]) -> ImagesLike:
    """The entries of an array of the wanted number of dimensions, or of a sequence."""
    if isinstance(values, (str, bytes, dict)) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
        raise TypeError(f"{name} must be an array or a list of arrays, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.dtype != object and values.ndim not in dimensions:
        shapes = {(3,): "(n, H, W)", (3, 4): "(n, H, W) or (n, H, W, channels)"}
        raise ValueError(f"{name} must be of shape {shapes[dimensions]}, got {values.shape}")
    if len(values) == 0:
        raise ValueError(f"{name} is empty; at least one image is needed")
    return values


def _check_image(image: ArrayLike, name: str) -> np.ndarray:
    image = np.asarray(image)
    if not (image.dtype.kind in "bf" or image.dtype in (np.uint8, np.uint16)):
        raise ValueError(f"{name} must be of dtype {_IMAGE_DTYPES}, got {image.dtype}; scale other images to [0, 1]")
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name} must be of shape (H, W) or (H, W, channels), none of them 0, got {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError(f"{name} contains NaN or infinite pixels")
    return image


def _check_labeling(labels: ArrayLike, shape: tuple[int, ...], name: str) -> BoolArray:
    labels = np.asarray(labels)
    if labels.shape != shape:
        raise ValueError(f"{name} has shape {labels.shape}, but its image has {shape}")
    if labels.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold the labels 0 and 1, got dtype {labels.dtype}")
    foreground = labels == 1
    if not (foreground | (labels == 0)).all():
        found = np.unique(labels[~foreground & (labels != 0)])[:5].tolist()
        raise ValueError(f"{name} must hold the labels 0 and 1 only, found {found}")
    return foreground
