"""The factor by which a network sees images, found by short trainings that are compared on images held out of them."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from sklearn.model_selection import KFold, ShuffleSplit

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.images.checking import LabelledImages
from skmmcrf.metrics.means import mean_of_defined

#: Steps of a short training.
SHORT_STEPS = 120
_FACTORS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.045, 0.03)
_MOST_FACTORS = 5
_SHORTER_SIDE, _LONGER_SIDE = 64, 720  # pixels that a network sees of the median image: at least, and at most
_FEW, _N_FOLDS = 40, 3
_MOST_TO_TRAIN, _MOST_TO_COMPARE = 100, 50

#: Trains at a factor on some images, and gives the Jaccard indices of others, and the seconds that an image takes in an
#: epoch.
Trial: TypeAlias = Callable[[float, LabelledImages, LabelledImages], tuple[FloatArray, float]]


@dataclass
class ScaleSearch:
    """What a search found.

    Attributes
    ----------
    scores : dict of float to ndarray of shape (n,)
        By the factor, the Jaccard index of each image that was held out. NaN where it is not defined.
    seconds : dict of float to float
        By the factor, the seconds that training takes for an image in an epoch.
    """

    scores: dict[float, FloatArray] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[float, float]:
        """The mean Jaccard index by the factor."""
        return {factor: mean_of_defined(indices) for factor, indices in self.scores.items()}

    @property
    def factor(self) -> float:
        """The factor to take."""
        return cheapest_as_good(self.scores)


def cheapest_as_good(scores: Mapping[float, FloatArray]) -> float:
    """Give the smallest factor whose mean is within one standard error of the best mean.

    The standard error is that of the differences, image by image. If no index is defined, the largest factor is given.

    Parameters
    ----------
    scores : dict of float to ndarray of shape (n,)
        By the factor, the index of each image. All factors have the same images.

    Examples
    --------
    >>> cheapest_as_good({1.0: np.array([0.8, 0.6]), 0.5: np.array([0.7, 0.65]), 0.25: np.array([0.3, 0.2])})
    0.5
    """
    means = {factor: mean_of_defined(indices) for factor, indices in scores.items()}
    defined = [factor for factor, mean in means.items() if not math.isnan(mean)]
    if not defined:
        return max(scores)
    best = max(defined, key=means.__getitem__)

    def is_as_good(factor: float) -> bool:
        lacks = scores[best] - scores[factor]
        lacks = lacks[~np.isnan(lacks)]
        error = lacks.std(ddof=1) / math.sqrt(len(lacks)) if len(lacks) > 1 else 0.0
        return bool(lacks.mean() <= error)

    return min(filter(is_as_good, defined))


def candidate_factors(shapes: Sequence[Sequence[int]]) -> list[float]:
    """Give the factors to compare for images of some heights and widths, from the smallest on.

    Examples
    --------
    >>> candidate_factors([(256, 256)]), candidate_factors([(1500, 2000)]), candidate_factors([(32, 32)])
    ([0.25, 0.35, 0.5, 0.7, 1.0], [0.09, 0.125, 0.18, 0.25, 0.35], [1.0])
    """
    shorter, longer = (float(np.median([side(shape) for shape in shapes])) for side in (min, max))
    small = [factor for factor in _FACTORS if factor * longer <= _LONGER_SIDE] or [_FACTORS[-1]]
    large = [factor for factor in small[:_MOST_FACTORS] if factor * shorter >= _SHORTER_SIDE] or small[:1]
    return large[::-1]


def search_scale(
    data: LabelledImages,
    trial: Trial,
    factors: Sequence[float],
    seed: int,
    *,
    seconds: float = math.inf,
    verbose: int = 0,
) -> ScaleSearch:
    """Compare factors on the same images held out.

    Parameters
    ----------
    data : LabelledImages
    trial : callable
        See `Trial`.
    factors : sequence of float
        From the smallest on.
    seed : int
        Of the choice of images.
    seconds : float, default=inf
        No further factor is tried if that would take longer in all. The first one always is.
    verbose : int, default=0
        1 prints a line for each factor.

    Returns
    -------
    ScaleSearch

    Raises
    ------
    ValueError
        If the images are less than two.
    """
    if len(data) < 2:
        raise ValueError(
            "X: factors are compared on images held out of training, but validation_fraction or X itself leaves one "
            "image to train on. Give more images, or a number as network_scale"
        )
    found, began, cost, last = ScaleSearch(), time.perf_counter(), 0.0, factors[0]
    splits = [(train.tolist(), held_out.tolist()) for train, held_out in _splits(len(data), seed)]
    if len(factors) == 1:  # only its time is asked for
        del splits[1:]
    for factor in factors:
        start = time.perf_counter()
        if found.scores and start - began + cost * (factor / last) ** 2 > seconds:
            break
        trials = [trial(factor, data.chosen(train), data.chosen(held_out)) for train, held_out in splits]
        found.scores[factor] = np.concatenate([indices for indices, _ in trials])
        found.seconds[factor] = float(np.mean([one for _, one in trials]))
        cost, last = time.perf_counter() - start, factor
        if verbose:
            n_compared = np.count_nonzero(~np.isnan(found.scores[factor]))
            print(
                f"short training with network_scale={factor:g}: mean Jaccard index {found.means[factor]:.4f} of "
                f"{n_compared} images held out, {len(data) * found.seconds[factor]:.1f} s an epoch of all images",
                flush=True,
            )
    return found


def _splits(n_images: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Numbers of images to train on, and to compare on."""
    if n_images < _FEW:
        return KFold(min(_N_FOLDS, n_images), shuffle=True, random_state=seed).split(range(n_images))
    n_held_out = min(_MOST_TO_COMPARE, n_images // 4)
    n_train = min(_MOST_TO_TRAIN, n_images - n_held_out)
    return ShuffleSplit(1, test_size=n_held_out, train_size=n_train, random_state=seed).split(range(n_images))
