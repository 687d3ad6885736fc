"""Hypothesis strategies: small problems with what makes real ones hard."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.learning import CuttingPlanes, Example


@dataclass
class Problem:
    """Log-odds, images, truths and what they count, and the parameters of field and learner."""

    log_odds: list
    images: list
    truths: list
    labelled: list
    weights: list
    class_weight: tuple
    C: float
    connectivity: int | tuple
    pairwise: str
    sigma: float

    @property
    def field(self):
        return Field(Grid.from_connectivity(self.connectivity), build_terms(self.pairwise, self.sigma))

    def examples(self):
        return [
            Example(energy, Annotation(truth, labelled, weight=weight, class_weight=self.class_weight))
            for energy, truth, labelled, weight in zip(
                self.field.energies(self.log_odds, self.images), self.truths, self.labelled, self.weights
            )
        ]

    def learn(self, tol=0.0, max_iter=200, examples=None, **kwargs):
        examples = self.examples() if examples is None else examples
        return CuttingPlanes(self.C, tol, max_iter).learn(examples, **kwargs)

    @property
    def rounding_of_gamma(self):
        """Of slacks up to all pixels, times C; no weights at all give C times the pixels."""
        pixels = max(truth.size for truth in self.truths)
        return 1e-12 * self.C * pixels * max(self.weights) * max(self.class_weight)

    def changed(self, **fields):
        return replace(self, **fields)

    def each_image_changed(self, change):
        """The same, with all that has pixels changed by a function of an array (H, W, ...)."""
        of_pixels = {name: getattr(self, name) for name in ("log_odds", "images", "truths", "labelled")}
        return replace(self, **{name: list(map(change, arrays)) for name, arrays in of_pixels.items()})

    def in_order(self, order):
        lists = {name: getattr(self, name) for name in ("log_odds", "images", "truths", "labelled", "weights")}
        return replace(self, **{name: [values[n] for n in order] for name, values in lists.items()})


def log_uniform(low, high):
    return st.floats(np.log10(low), np.log10(high)).map(lambda exponent: 10.0**exponent)


@st.composite
def shapes(draw, max_pixels):
    height = draw(st.integers(1, max_pixels))
    width = draw(st.integers(1, max_pixels // height))
    return draw(st.sampled_from([(height, width), (width, height)]))


@st.composite
def labelings(draw, number=2, max_pixels=40):
    """Boolean labelings of one shape, from empty to full."""
    shape = draw(shapes(max_pixels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [rng.uniform(size=shape) < draw(st.sampled_from([0, 0.05, 0.3, 0.7, 1])) for _ in range(number)]


# the labels of several classes
CLASSES = (-3, 0, 7, 200)


@st.composite
def class_labelings(draw, number=2, max_pixels=40):
    """Label images of one shape, each with some of the classes. The first, a truth, may have unlabelled pixels."""
    shape = draw(shapes(max_pixels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = [rng.choice(draw(st.permutations(CLASSES))[: draw(st.integers(1, 4))], size=shape) for _ in range(number)]
    labels[0][rng.uniform(size=shape) < draw(st.sampled_from([0, 0.3]))] = 255
    return labels


@st.composite
def problems(draw, max_images=3, max_pixels=12, partly_labelled=False):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    log_odds, images, truths, labelled = [], [], [], []
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
        images.append(image)
        truths.append(truth)
        share = draw(st.sampled_from([0.0, 0.3, 0.7])) if partly_labelled else 1.0
        labelled.append(rng.uniform(size=shape) < share)
    shares = st.sampled_from([0.0, 0.3, 1.0, 7.0])
    some = draw(st.lists(shares, min_size=len(images), max_size=len(images)).filter(any))
    problem = Problem(
        log_odds,
        images,
        truths,
        labelled,
        draw(st.sampled_from([[1.0] * len(images), some])),
        draw(st.sampled_from([(1.0, 1.0), (1.0, 20.0), (0.5, 0.01)])),
        C=draw(log_uniform(1e-6, 1e6)),
        connectivity=draw(st.sampled_from([4, 8, ((0, 1), (1, 0), (0, 3), (2, 2))])),
        pairwise=draw(st.sampled_from(["smoothness", "contrast", "contrast"])),
        sigma=draw(log_uniform(1e-2, 1e2)),
    )
    # with the same image once more
    return problem.in_order([*range(len(images)), 0]) if draw(st.booleans()) else problem


def weights():
    """Three weights; the smoothness term alone takes the first two."""
    pairwise = st.one_of(st.just(0.0), log_uniform(1e-3, 1e3))
    return st.tuples(st.one_of(st.just(0.0), st.floats(-10, 10)), pairwise, pairwise).map(np.array)
