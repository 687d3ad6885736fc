"""What the benchmarks share: images, log-odds to learn from, timings, counted cuts, rows of a table."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import maxflow
import numpy as np
from joblib import delayed

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder, make_phantoms
from skmmcrf.field import Annotation, Field, Grid, build_terms, estimate_sigma, grid_cut
from skmmcrf.learning import CuttingPlanes, Example
from skmmcrf.learning.example import most_violated

C = 1.0
TOL = 1e-3
GRID = Grid.from_connectivity(8)
N_JOBS = 2


@dataclass
class Problem:
    """(8) for given log-odds (H, W), images (H, W, channels), and truths, bool (H, W)."""

    log_odds: list[np.ndarray]
    images: list[np.ndarray]
    truths: list[np.ndarray]

    def __len__(self):
        return len(self.images)

    @cached_property
    def sigma(self):
        return estimate_sigma(GRID, self.images, np.ones(len(self)))

    @cached_property
    def field(self):
        return Field(GRID, build_terms("contrast", self.sigma))

    def examples(self):
        """New ones, which store nothing and have computed nothing."""
        energies = self.field.energies(self.log_odds, self.images)
        return list(map(Example, energies, map(Annotation, self.truths)))

    def learn(self, n_jobs, examples=None):
        """Algorithm 1 of the package."""
        return CuttingPlanes(C, TOL, n_jobs=n_jobs).learn(examples or self.examples())

    def most_violated(self, w, examples, parallel):
        """Cut every image once."""
        one = delayed(most_violated)
        return parallel(one(w, example.energy, example.annotation) for example in examples)

    def upper_bound(self, w, found):
        """gamma's upper bound at w, if `found` are the most violated labelings there; and the slacks."""
        slack = np.array([max(constraint.loss - constraint.difference @ w, 0) for constraint in found])
        return 0.5 * w @ w + C * slack.mean(), slack


#: Settings of a network's training that does nothing but its steps, as that of other packages.
PLAIN = {"loss": "log_likelihood", "augmentation": None, "average_mirrored": False, "batch_size": 10}


class Setting:
    """Images of a folder, or phantoms without one, and a network pretrained on them."""

    def __init__(self, folder, weights, n_images, n_epochs):
        self.folder = folder
        self.network = {"network": "fcn8s_squeezenet1_1" if weights else "unet", "weights": weights}
        self.n_images = n_images
        self.n_epochs = n_epochs

    @cached_property
    def train(self):
        X, y = self._load("train", 0)
        return X[: self.n_images], y[: self.n_images]

    @cached_property
    def valid(self):
        return self._load("val", 1)

    def _load(self, split, seed):
        if self.folder is None:
            return make_phantoms(self.n_images, shape=(128, 128), random_state=seed)
        data = load_image_folder(self.folder, split)
        return data.images, data.masks

    @cached_property
    def model(self):
        cnn = CNNSegmenter(**self.network, **PLAIN, n_epochs=self.n_epochs)
        model = DeepStructuredSegmenter(cnn, training="piecewise", C=C, n_jobs=N_JOBS, random_state=0)
        return model.fit(*self.train)

    def problem(self, split):
        X, y = getattr(self, split)
        return problem_of(self.model, X, y)


def problem_of(model, X, y):
    images = [np.atleast_3d(image) for image in X]
    return Problem(list(model.decision_function(X)), images, [labels == 1 for labels in y])


def add_data_options(parser):
    parser.add_argument("--data", help="folder as load_image_folder reads it, split in train and val; else phantoms")
    parser.add_argument("--weights", help="file of weights of SqueezeNet 1.1, for its FCN-8s; else the U-Net")


def time_each(*functions: Callable[[], Any], repeat: int = 3) -> tuple[list[Any], list[float]]:
    """Results of a first round, which warms up, and median seconds of further rounds in which all take turns."""
    results = [function() for function in functions]
    seconds = np.empty((repeat, len(functions)))
    for row in seconds:
        for k, function in enumerate(functions):
            start = time.perf_counter()
            function()
            row[k] = time.perf_counter() - start
    return results, np.median(seconds, axis=0).tolist()


@dataclass
class CutCount:
    cuts: int = 0
    seconds: float = 0.0


@contextmanager
def counted_cuts() -> Iterator[CutCount]:
    """Let PyMaxflow make this process's minimum cuts, and count them and their seconds inside maxflow()."""
    count = CutCount()

    class CountingGraph(maxflow.GraphFloat):
        def maxflow(self, *args, **kwargs):
            start = time.perf_counter()
            flow = super().maxflow(*args, **kwargs)
            count.seconds += time.perf_counter() - start
            count.cuts += 1
            return flow

    with (
        mock.patch.object(grid_cut, "available", return_value=False),
        mock.patch.object(maxflow, "GraphFloat", CountingGraph),
    ):
        yield count
    if not count.cuts:
        raise RuntimeError("no cut was seen: the package does not cut by maxflow.GraphFloat in this process")


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_header(*names: str) -> None:
    print_row(*names)
    print_row(*["---", *["---:"] * (len(names) - 1)])
