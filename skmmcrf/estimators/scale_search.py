"""The factor by which a network sees images, found by short trainings that are compared on images held out of them."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from sklearn.model_selection import KFold

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.images.checking import LabelledImages
from skmmcrf.metrics.means import mean_of_defined

#: Steps of a short training.
SHORT_STEPS = 120
_FACTORS = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.045, 0.03)
_MOST_FACTORS = 5
_SHORTER_SIDE, _LONGER_SIDE = 64, 720  # pixels of the median image that a network sees: at least, and at most
_FEW, _N_FOLDS = 40, 3
# a factor is given up that is so many standard errors behind, over at least so many images
_DOUBT, _FEWEST = 2.0, 10
_MOST_TO_TRAIN, _MOST_TO_COMPARE = 100, 50

#: Trains at a factor on some images, and gives the Jaccard indices of others, and the seconds that an image takes in an
#: epoch.
Trial: TypeAlias = Callable[[float, LabelledImages, LabelledImages], tuple[FloatArray, float]]


@dataclass(frozen=True)
class TimeLimit:
    """Seconds beyond which a search tries no further factor. The first one is always tried.

    Attributes
    ----------
    search : float
        Of the whole search.
    of_image : float
        That an image takes in an epoch of training.
    """

    search: float = math.inf
    of_image: float = math.inf


NO_LIMIT = TimeLimit()


@dataclass
class ScaleSearch:
    """What a search found.

    Attributes
    ----------
    scores : dict of float to ndarray of shape (n,)
        By the factor, the Jaccard index of each image that was held out. NaN where it is not defined. All factors have
        the same images in the same order, but those that were given up early have only the first of them.
    seconds : dict of float to float
        By the factor, the seconds that training takes for an image in an epoch, in its fastest trial.
    """

    scores: dict[float, FloatArray] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[float, float]:
        """The mean Jaccard index by the factor."""
        return {factor: mean_of_defined(indices) for factor, indices in self.scores.items()}

    @property
    def factor(self) -> float:
        """The factor to take: the smallest whose mean is within one standard error of the best, see `as_good_as_best`.

        The smallest of all if a single image has an index, and the largest up to 1 if none has.
        """
        return min(as_good_as_best(self.scores, 1.0), default=uncompared(self.scores))

    @property
    def undecided(self) -> list[float]:
        """The factors that may turn out to be the best: all whose means are within two standard errors of the best.

        Fewer than ten images leave all undecided, because their standard error is not known well.
        """
        n_images = max(map(len, self.scores.values()))
        return (as_good_as_best(self.scores, _DOUBT) if n_images >= _FEWEST else []) or list(self.scores)

    def add(self, factor: float, indices: FloatArray, seconds: float) -> None:
        """Add the indices of further images. The shortest time counts, because a trial may wait for other programs."""
        self.scores[factor] = np.append(self.scores.get(factor, []), indices)
        self.seconds[factor] = min(self.seconds.get(factor, math.inf), seconds)


def as_good_as_best(scores: Mapping[float, FloatArray], n_errors: float) -> list[float]:
    """Give the factors whose mean is within some standard errors of the best mean. None, if no mean is defined.

    The standard error is that of the differences, image by image. One image tells none, and decides nothing. Factors
    that have fewer images than others are left out.

    Parameters
    ----------
    scores : dict of float to ndarray of shape (n,)
        By the factor, the index of each image, in the same order.
    n_errors : float

    Examples
    --------
    >>> as_good_as_best({1.0: np.array([0.8, 0.6]), 0.5: np.array([0.7, 0.65]), 0.25: np.array([0.3, 0.2])}, 1.0)
    [1.0, 0.5]
    """
    most = max(map(len, scores.values()))
    means = {factor: mean_of_defined(indices) for factor, indices in scores.items() if len(indices) == most}
    defined = [factor for factor, mean in means.items() if not math.isnan(mean)]
    if not defined:
        return []
    best = max(defined, key=means.__getitem__)

    def is_as_good(factor: float) -> bool:
        lacks = scores[best] - scores[factor]
        lacks = lacks[~np.isnan(lacks)]
        return len(lacks) < 2 or bool(lacks.mean() <= n_errors * lacks.std(ddof=1) / math.sqrt(len(lacks)))

    return list(filter(is_as_good, defined))


def candidate_factors(shapes: Sequence[Sequence[int]]) -> list[float]:
    """Give the factors to compare for images of some heights and widths, from the smallest on.

    Examples
    --------
    >>> candidate_factors([(256, 256)]), candidate_factors([(1500, 2000)]), candidate_factors([(32, 32)])
    ([0.35, 0.5, 0.7, 1.0, 1.4], [0.09, 0.125, 0.18, 0.25, 0.35], [1.0])
    """
    shorter, longer = (float(np.median([side(shape) for shape in shapes])) for side in (min, max))
    small = [factor for factor in _FACTORS if factor * longer <= _LONGER_SIDE] or [_FACTORS[-1]]
    large = [factor for factor in small[:_MOST_FACTORS] if min(factor, 1.0) * shorter >= _SHORTER_SIDE]
    return large[::-1] or [min(small[0], 1.0)]


def uncompared(factors: Iterable[float]) -> float:
    """Give the factor to take where nothing tells them apart: the largest up to 1, which enlarges no image.

    Examples
    --------
    >>> uncompared([0.7, 1.0, 1.4])
    1.0
    """
    return max(factor for factor in factors if factor <= 1)


def search_scale(
    data: LabelledImages,
    trial: Trial,
    factors: Sequence[float],
    seed: int,
    *,
    limit: TimeLimit = NO_LIMIT,
    verbose: int = 0,
) -> ScaleSearch:
    """Compare factors on the same images held out.

    Each factor has a trial on a first part of the images. Those that may still be the best have one on each further
    part.

    Parameters
    ----------
    data : LabelledImages
    trial : callable
        See `Trial`.
    factors : sequence of float
        From the smallest on.
    seed : int
        Of the choice of images.
    limit : TimeLimit, optional
        No further factor and no further part is tried that would take longer.
    verbose : int, default=0
        1 prints a line for each trial.

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
    found, began = ScaleSearch(), time.perf_counter()
    costs: dict[float, float] = {}
    splits = [(train.tolist(), held_out.tolist()) for train, held_out in _splits(len(data), seed)]

    def fits(cost: float) -> bool:
        return time.perf_counter() - began + cost <= limit.search

    def try_factor(factor: float, train: list[int], held_out: list[int]) -> None:
        start = time.perf_counter()
        indices, of_image = trial(factor, data.chosen(train), data.chosen(held_out))
        found.add(factor, indices, of_image)
        costs[factor] = time.perf_counter() - start
        if verbose:
            print(
                f"short training with network_scale={factor:g}: mean Jaccard index {mean_of_defined(indices):.4f} of "
                f"{np.count_nonzero(~np.isnan(indices))} images held out, {len(data) * of_image:.1f} s an epoch of all "
                "images",
                flush=True,
            )

    try_factor(factors[0], *splits[0])
    for last, factor in pairwise(factors):
        growth = (factor / last) ** 2  # of the pixels
        if not fits(growth * costs[last]) or growth * found.seconds[last] > limit.of_image:
            break
        try_factor(factor, *splits[0])
    for split in splits[1:]:
        left = found.undecided
        if len(left) == 1 or not fits(sum(costs[factor] for factor in left)):
            break
        for factor in left:
            try_factor(factor, *split)
    return found


def _splits(n_images: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Numbers of images to train on, and to compare on."""
    if n_images < _FEW:
        return KFold(min(_N_FOLDS, n_images), shuffle=True, random_state=seed).split(range(n_images))
    n_held_out = min(_MOST_TO_COMPARE, n_images // 4)
    order = np.random.RandomState(seed).permutation(n_images)
    rolled = (np.roll(order, -n * n_held_out) for n in range(_N_FOLDS))  # so that no image is held out twice
    return ((numbers[n_held_out:][:_MOST_TO_TRAIN], numbers[:n_held_out]) for numbers in rolled)
