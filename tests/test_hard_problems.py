"""Problems that are legal and hard: each ends within its bounds, with a finite model.

Every program that is solved on the way is checked to be optimal, see conftest.
"""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skmmcrf import DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms

SHAPE = (18, 22)


def truths(rng, n, shape=SHAPE):
    return (rng.uniform(size=(n, *shape)) < 0.4).astype(int)


def informative(rng, y):
    return 2.0 * y - 1 + rng.normal(size=y.shape)


def problem(name):
    """Log-odds, images with one channel, and labels."""
    rng = np.random.default_rng(0)
    y = truths(rng, 4)
    log_odds, images = informative(rng, y), rng.uniform(size=y.shape)
    if name == "no labeling fits":  # checkered, against every term of the energy
        y = np.broadcast_to(np.indices(SHAPE).sum(axis=0) % 2, y.shape).copy()
        log_odds, images = 1.0 - 2.0 * y, np.zeros(y.shape)
    elif name == "labels the wrong way round":
        y = 1 - y
    elif name.startswith("constant log-odds"):
        log_odds = np.full(y.shape, float(name.split()[-1]))
    elif name == "all images equal":
        log_odds, images, y = (np.repeat(array[:1], 4, axis=0) for array in (log_odds, images, y))
    elif name == "one image":
        log_odds, images, y = log_odds[:1], images[:1], y[:1]
    elif name == "one image without foreground":
        log_odds, images, y = log_odds[:1], images[:1], 0 * y[:1]
    elif name == "one pixel":
        log_odds, images, y = (array[:, :1, :1] for array in (log_odds, images, y))
    elif name in ("one row", "one column"):
        y = truths(rng, 2, (1, 5000))
        log_odds, images = informative(rng, y), rng.uniform(size=y.shape)
        if name == "one column":
            log_odds, images, y = (array.swapaxes(1, 2) for array in (log_odds, images, y))
    elif name == "contrast all 1":  # no pixel differs from its neighbours
        images = np.full(y.shape, 0.5)
    elif name == "contrast all 0":  # exp(-|x_i - x_j|^2 / 2 sigma^2) vanishes
        images = 1e3 * np.broadcast_to(np.indices(SHAPE).sum(axis=0) % 2 + np.arange(SHAPE[1]), y.shape)
    elif name == "30 % of labels wrong":
        y = np.where(rng.uniform(size=y.shape) < 0.3, 1 - y, y)
    elif name == "saturated log-odds":
        log_odds = 1e4 * np.sign(log_odds)
    elif name == "all unlabelled but one pixel":
        y[:, 1:], y[:, :, 1:] = 255, 255
        y[0, 0, 0] = 1
    return np.stack([log_odds, images], axis=-1), y


PROBLEMS = [
    "no labeling fits",
    "labels the wrong way round",
    "constant log-odds 0",
    "constant log-odds 3",
    "constant log-odds -1e4",
    "all images equal",
    "one image",
    "one image without foreground",
    "one pixel",
    "one row",
    "one column",
    "contrast all 1",
    "contrast all 0",
    "30 % of labels wrong",
    "saturated log-odds",
    "all unlabelled but one pixel",
]


def check(model, X, y):
    assert np.isfinite(model.coef_).all()
    assert (model.coef_[1:] >= 0).all()
    assert np.isfinite(model.objective_)
    assert 0 <= model.dual_gap_ <= 1e-3 * model.objective_
    assert model.n_iter_ <= model.max_iter
    assert all(set(np.unique(labels)) <= {0, 1} for labels in model.predict(X))


@pytest.mark.parametrize("C", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("name", PROBLEMS)
def test_learning_ends_within_its_bounds(name, C):
    Z, y = problem(name)
    sigma = 0.1 if name == "contrast all 0" else "auto"
    model = MaxMarginCRF(C, sigma=sigma).fit(Z, y)
    check(model, Z, y)
    assert np.isfinite(model.slack_).all()
    # no weights at all are a solution too
    n_known = (y != 255).sum(axis=(1, 2)).mean()
    assert model.objective_ <= C * n_known * (1 + 1e-3)


class Constant(nn.Module):
    """Gives the same log-odds everywhere, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.log_odds = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.log_odds.expand(len(x), 1, *x.shape[2:])


def deep_problem(name):
    rng = np.random.default_rng(0)
    X, y = make_phantoms(4, shape=SHAPE, random_state=0)
    if name == "constant network":
        return Constant(), X, y
    if name == "all images equal":
        X = np.repeat(X[:1], 4, axis=0)
    elif name == "black images":
        X = 0 * X
    elif name == "one image":
        X, y = X[:1], y[:1]
    elif name == "one pixel":
        X, y = X[:, :1, :1], y[:, :1, :1]
    elif name == "one row":
        X, y = (np.resize(array, (2, 1, 5000)) for array in (X, y))
    elif name == "30 % of labels wrong":
        y = np.where(rng.uniform(size=y.shape) < 0.3, 1 - y, y)
    return "unet", X, y


@pytest.mark.parametrize("C", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize(
    "name",
    [
        "constant network",
        "all images equal",
        "black images",
        "one image",
        "one pixel",
        "one row",
        "30 % of labels wrong",
    ],
)
def test_joint_training_ends_within_its_bounds(name, C):
    network, X, y = deep_problem(name)
    model = DeepStructuredSegmenter(network, C=C, pretrain_epochs=1, n_epochs=2, batch_size=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of batches, should one need more passes
        model.fit(X, y)
    check(model, X, y)


@pytest.mark.slow
def test_a_large_image():
    X, y = make_phantoms(1, shape=(3000, 2000), random_state=0)
    rng = np.random.default_rng(0)
    Z = np.stack([informative(rng, y), X / 255], axis=-1)
    model = MaxMarginCRF().fit(Z, y)
    check(model, Z, y)
