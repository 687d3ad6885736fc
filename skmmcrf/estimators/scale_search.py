"""The factor by which a network sees images, found by short trainings that are compared on images held out of them.

All factors have a short training first. The best three of them have longer ones, on other images. A short training
alone says little. Another order of its sums may change the mean index by two per cent, and large factors need more
steps. If the time is limited, a few steps at the smallest factor tell first whether it is enough to compare any.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from sklearn.model_selection import KFold

from skmmcrf._typing import FloatArray, IntArray
from skmmcrf.images.checking import LabelledImages
from skmmcrf.metrics.means import mean_of_defined

#: Steps of the trainings of the first round and of the second.
N_STEPS = 120, 300
_N_FIRST_STEPS = 10
_FACTORS = (1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.045, 0.03)
_MOST_FACTORS = 5
_SHORTER_SIDE, _LONGER_SIDE = 64, 720  # pixels of the median image that a network sees: at least, and at most
_FEW, _N_FOLDS = 40, 3
_N_FINALISTS = 3
_MOST_TO_TRAIN, _MOST_TO_COMPARE = 100, 50

#: Trains at a factor for some steps on some images. Gives the Jaccard indices of other images, and the seconds that an
#: image takes in an epoch.
Trial: TypeAlias = Callable[[float, int, LabelledImages, LabelledImages], tuple[FloatArray, float]]


@dataclass(frozen=True)
class TimeLimit:
    """Seconds beyond which a search takes no further factor. The first one is always taken.

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
        By the factor, the Jaccard index of each image that was held out, in the longer trainings if any were made. All
        factors have the same images in the same order. NaN where it is not defined.
    seconds : dict of float to float
        By the factor, the seconds that training takes for an image in an epoch, in its fastest trial. All factors that
        were tried have an entry, but for one that takes too long. A single one may have no scores.
    """

    scores: dict[float, FloatArray] = field(default_factory=dict)
    seconds: dict[float, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[float, float]:
        """The mean Jaccard index by the factor."""
        return {factor: mean_of_defined(indices) for factor, indices in self.scores.items()}

    @property
    def factor(self) -> float:
        """The factor to take: the one with the best mean, or the largest up to 1 that was tried if none is defined."""
        return self.ranked[0] if self.ranked else uncompared(self.scores or self.seconds)

    @property
    def ranked(self) -> list[float]:
        """The factors whose mean is defined, from the best on. Of equal ones the smaller is first, as it is faster."""
        means = {factor: mean for factor, mean in self.means.items() if not math.isnan(mean)}
        return sorted(means, key=lambda factor: (-means[factor], factor))


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

    Each factor has a trial of few steps on a first part of the images. The best three have longer ones on further
    parts, which decide. With a limit that leaves no time to compare two factors, the smallest one is only measured.

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
        No further factor is taken, and no further part tried, that takes longer.
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
    first, *others = [(train.tolist(), held_out.tolist()) for train, held_out in _splits(len(data), seed)]
    n_short, n_long = N_STEPS

    def fits(cost: float) -> bool:
        return time.perf_counter() - began + cost <= limit.search

    def tried(factor: float, n_steps: int, train: list[int], held_out: list[int]) -> FloatArray:
        start = time.perf_counter()
        indices, of_image = trial(factor, n_steps, data.chosen(train), data.chosen(held_out))
        found.seconds[factor] = min(found.seconds.get(factor, math.inf), of_image)  # as it may wait for other programs
        costs.setdefault(factor, time.perf_counter() - start)
        if verbose:
            length = {_N_FIRST_STEPS: "first steps", n_short: "short training", n_long: "longer training"}[n_steps]
            index = (
                f" mean Jaccard index {mean_of_defined(indices):.4f} of {np.count_nonzero(~np.isnan(indices))} images "
                "held out,"
            )
            print(
                f"{length} with network_scale={factor:g}:{'' if n_steps == _N_FIRST_STEPS else index} "
                f"{len(data) * of_image:.1f} s an epoch of all images",
                flush=True,
            )
        return indices

    def has_time_for(factor: float, last: float, cost: float) -> bool:
        """Whether a further factor, whose trial costs so much, leaves time for a training at it."""
        return fits(cost) and factor / last * found.seconds[last] <= limit.of_image

    # the time grows by the factor at least, as not all of it depends on the number of pixels
    smallest = factors[0]
    if limit != NO_LIMIT:
        tried(smallest, _N_FIRST_STEPS, *first)
        cost = n_short / _N_FIRST_STEPS * costs.pop(smallest)
        if len(factors) == 1 or not has_time_for(factors[1], smallest, cost + factors[1] / smallest * cost):
            return found
    found.scores[smallest] = tried(smallest, n_short, *first)
    for last, factor in pairwise(factors):
        if not has_time_for(factor, last, factor / last * costs[last]):
            break
        indices = tried(factor, n_short, *first)
        if found.seconds[factor] > limit.of_image:
            del found.seconds[factor]
            break
        found.scores[factor] = indices
    finalists = sorted((found.ranked or [*found.scores][::-1])[:_N_FINALISTS])
    cost = n_long / n_short * sum(costs[factor] for factor in finalists)
    of_rounds: list[dict[float, FloatArray]] = []
    for split in others:
        if len(finalists) < 2 or not fits(cost):
            break
        of_rounds.append({factor: tried(factor, n_long, *split) for factor in finalists})
    if not of_rounds:
        return found
    scores = {factor: np.concatenate([of_round[factor] for of_round in of_rounds]) for factor in finalists}
    longer = ScaleSearch(scores, found.seconds)
    return longer if longer.ranked else found  # the only images with an index may be in the first part


def _splits(n_images: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Numbers of images to train on, and to compare on."""
    if n_images < _FEW:
        return KFold(min(_N_FOLDS, n_images), shuffle=True, random_state=seed).split(range(n_images))
    n_held_out = min(_MOST_TO_COMPARE, n_images // 4)
    order = np.random.RandomState(seed).permutation(n_images)
    rolled = (np.roll(order, -n * n_held_out) for n in range(_N_FOLDS))  # so that no image is held out twice
    return ((numbers[n_held_out:][:_MOST_TO_TRAIN], numbers[:n_held_out]) for numbers in rolled)
