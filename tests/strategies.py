"""Hypothesis strategies: small problems with what makes real ones hard."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from skmmcrf.energy import scale_image
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import learn_weights
from skmmcrf.truth import Truth


@dataclass
class Problem:
    """Log-odds, images, truths and what they count, and the parameters of the learner."""

    log_odds: list
    images: list
    truths: list
    weights: list
    class_weight: tuple
    C: float
    connectivity: int
    sigma: float

    def labelings(self):
        return [
            Labelings(Truth(truth, weight=weight, class_weight=self.class_weight))
            for truth, weight in zip(self.truths, self.weights)
        ]

    def learn(self, tol=0.0, max_iter=200, **kwargs):
        labelings = self.labelings()
        return learn_weights(
            self.log_odds,
            self.images,
            labelings,
            self.C,
            connectivity=self.connectivity,
            sigma=self.sigma,
            tol=tol,
            max_iter=max_iter,
            **kwargs,
        )

    @property
    def rounding_of_gamma(self):
        """Of slacks up to all pixels, times C; no weights at all give C times the pixels."""
        pixels = max(truth.size for truth in self.truths)
        return 1e-12 * self.C * pixels * max(self.weights) * max(self.class_weight)

    def changed(self, **fields):
        return Problem(**(vars(self) | fields))


def log_uniform(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda exponent: 10.0**exponent)


@st.composite
def shapes(draw, max_pixels):
    height = draw(st.integers(1, max_pixels))
    width = draw(st.integers(1, max_pixels // height))
    return draw(st.sampled_from([(height, width), (width, height)]))


@st.composite
def problems(draw, max_images=3, max_pixels=12):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    log_odds, images, truths = [], [], []
    n_channels = draw(st.integers(1, 3))
    for _ in range(draw(st.integers(1, max_images))):
        shape = draw(shapes(max_pixels))
        size = (*shape, n_channels)
        truth = {
            "random": rng.uniform(size=shape) < 0.5,
            "all 0": np.zeros(shape, dtype=bool),
            "all 1": np.ones(shape, dtype=bool),
        }[draw(st.sampled_from(["random", "random", "all 0", "all 1"]))]
        image = {
            "float": rng.uniform(size=size),
            "uint8": rng.integers(0, 256, size).astype(np.uint8),
            "constant": np.full(size, 0.3),
        }[draw(st.sampled_from(["float", "uint8", "constant"]))]
        dtype = draw(st.sampled_from([np.float32, np.float64]))
        scale = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e4]))
        bias = draw(st.sampled_from([0.0, 1.0])) * np.where(truth, 1, -1)
        log_odds.append((scale * (rng.normal(size=shape) + bias)).astype(dtype))
        images.append(scale_image(image))
        truths.append(truth)
    if draw(st.booleans()):  # the same image once more
        log_odds, images, truths = ([*each, each[0]] for each in (log_odds, images, truths))
    shares = st.sampled_from([0.0, 0.3, 1.0, 7.0])
    some = draw(st.lists(shares, min_size=len(images), max_size=len(images)).filter(any))
    return Problem(
        log_odds,
        images,
        truths,
        draw(st.sampled_from([[1.0] * len(images), some])),
        draw(st.sampled_from([(1.0, 1.0), (1.0, 20.0), (0.5, 0.01)])),
        C=draw(log_uniform(1e-6, 1e6)),
        connectivity=draw(st.sampled_from([4, 8])),
        sigma=draw(log_uniform(1e-2, 1e2)),
    )


def weights():
    pairwise = st.one_of(st.just(0.0), log_uniform(1e-3, 1e3))
    return st.tuples(st.one_of(st.just(0.0), st.floats(-10, 10)), pairwise, pairwise).map(np.array)
