"""Phantoms: generated images that look like ultrasound of a chamber of the heart."""

from numbers import Integral

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from skmmcrf._shown import shown
from skmmcrf._typing import FloatArray, RandomStateLike


def make_phantoms(
    n_images: int = 50,
    *,
    shape: tuple[int, int] = (96, 96),
    label_vessels: bool = False,
    random_state: RandomStateLike = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generate ultrasound-like images of a smooth, dark chamber and the labels of its pixels.

    The chamber lies in brighter tissue behind a bright wall with gaps (drop-out). Bands of shadow run down the image.
    Smaller dark vessels lie around. Speckle covers everything. It is Rayleigh distributed and correlated over a pixel
    or two, as in real ultrasound. Where the wall is missing or in shadow, only the smoothness of the chamber tells
    where it ends.

    Parameters
    ----------
    n_images : int, default=50
    shape : tuple of int, default=(96, 96)
        Height and width.
    label_vessels : bool, default=False
        Whether vessels have a label of their own, 2, as an example of three classes. The images stay the same.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    X : ndarray of uint8 and shape (n_images, H, W)
        Images.
    y : ndarray of uint8 and shape (n_images, H, W)
        Labels, 1 in the chamber, and 2 in vessels if these are labelled.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> X, y = make_phantoms(3, shape=(64, 80), random_state=0)
    >>> X.shape, X.dtype, bool((y == 1).any())
    ((3, 64, 80), dtype('uint8'), True)
    >>> _, y = make_phantoms(3, shape=(64, 80), label_vessels=True, random_state=0)
    >>> np.unique(y)
    array([0, 1, 2], dtype=uint8)
    """
    constraints = {
        "n_images": [Interval(Integral, 1, None, closed="left")],
        "label_vessels": ["boolean"],
        "random_state": ["random_state"],
    }
    parameters = {"n_images": n_images, "label_vessels": label_vessels, "random_state": random_state}
    validate_parameter_constraints(constraints, parameters, caller_name="make_phantoms")
    if np.shape(shape) != (2,) or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(f"shape must be a height and a width, positive integers, got {shown(shape)}")
    shape = (int(shape[0]), int(shape[1]))
    rng = check_random_state(random_state)
    images, labels = zip(*(_make_phantom(shape, rng) for _ in range(n_images)))
    y = np.stack(labels)
    return np.stack(images), y if label_vessels else y % 2


def _make_phantom(shape: tuple[int, int], rng: np.random.RandomState) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    # image coordinates from -1 to 1
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    chamber, angle = _blob(rows, columns, rng.uniform(-0.25, 0.25, 2), rng.uniform(0.4, 0.6), rng)
    tissue = 0.45 + 0.1 * _smooth_noise(shape, rng)
    echo = tissue + 0.35 * np.exp(-((chamber / 0.06) ** 2)) * _wall_strength(angle, rng)
    labels = (chamber < 0).astype(np.uint8)
    for _ in range(rng.randint(2, 5)):
        direction, distance = rng.uniform(-np.pi, np.pi), rng.uniform(0.75, 1.05)
        centre = distance * np.array([np.sin(direction), np.cos(direction)])
        vessel, _ = _blob(rows, columns, centre, rng.uniform(0.08, 0.2), rng)
        is_vessel = (vessel < 0) & (chamber > 0.1)
        echo, labels = np.where(is_vessel, 0.2, echo), np.where(is_vessel, np.uint8(2), labels)
    echo = np.where(chamber < 0, 0.2 + 0.05 * _smooth_noise(shape, rng), echo)
    echo *= _shadow(columns, rng)
    image = np.clip(echo, 0.02, None) * _speckle(shape, rng)
    compressed = np.log1p(8 * image) / np.log1p(8 * 1.6)
    return (255 * np.clip(compressed, 0, 1)).astype(np.uint8), labels


def _blob(
    rows: FloatArray, columns: FloatArray, centre: FloatArray, radius: float, rng: np.random.RandomState
) -> tuple[FloatArray, FloatArray]:
    """Give roughly the signed distance to a smooth closed contour, negative inside, and the angle at its centre."""
    tilt, aspect = rng.uniform(-np.pi, np.pi), rng.uniform(0.65, 1.0)
    down, right = rows - centre[0], columns - centre[1]
    along = np.cos(tilt) * right + np.sin(tilt) * down
    across = (np.cos(tilt) * down - np.sin(tilt) * right) / aspect
    angle = np.arctan2(across, along)
    wave = sum(rng.uniform(-0.12, 0.12) / (k - 1) * np.cos(k * angle + rng.uniform(-np.pi, np.pi)) for k in range(2, 6))
    return np.hypot(along, across) - radius * (1 + wave), angle


def _wall_strength(angle: FloatArray, rng: np.random.RandomState) -> FloatArray:
    """1 where the wall is bright, near 0 in its gaps."""
    strength = np.ones_like(angle)
    for _ in range(rng.randint(2, 4)):
        distance = np.angle(np.exp(1j * (angle - rng.uniform(-np.pi, np.pi))))
        strength *= 1 - np.exp(-((distance / rng.uniform(0.3, 0.6)) ** 4))
    return strength


def _shadow(columns: FloatArray, rng: np.random.RandomState) -> FloatArray:
    """Factor of the bands behind what lets no sound through."""
    factor = np.ones_like(columns)
    for _ in range(rng.randint(1, 3)):
        distance = columns - rng.uniform(-1, 1)
        factor *= 1 - rng.uniform(0.5, 0.8) * np.exp(-((distance / rng.uniform(0.08, 0.2)) ** 4))
    return factor


def _smooth_noise(shape: tuple[int, int], rng: np.random.RandomState) -> FloatArray:
    """Noise of deviation 1 that varies over an eighth of the image."""
    noise = gaussian_filter(rng.normal(size=shape), max(shape) / 8, mode="wrap")
    return noise / (noise.std() or 1.0)


def _speckle(shape: tuple[int, int], rng: np.random.RandomState) -> FloatArray:
    """Rayleigh noise of mean 1: the amplitude of a sum of many random echoes."""
    echoes = [gaussian_filter(rng.normal(size=shape), 0.8, mode="wrap") for _ in range(2)]
    amplitude = np.hypot(*echoes)
    return amplitude / amplitude.mean()
