"""States of training in a folder: a fit that ends at any moment goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, checkpoint
from skmmcrf.checkpoint import open_checkpoints
from skmmcrf.datasets import make_phantoms

CNN = {"n_epochs": 3, "batch_size": 2, "random_state": 0}
JOINT = {"pretrain_epochs": 2, "n_epochs": 3, "batch_size": 2, "learning_rate": 1e-3, "random_state": 0}


class Small(nn.Sequential):
    """A network with all that has a state: batch-norm statistics, and dropout that draws from torch."""

    def __init__(self, n_channels):
        super().__init__(
            nn.Conv2d(n_channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.Conv2d(4, 1, 3, padding=1),
        )


class NoisyFlip:
    """An augmentation that draws from Python's generator, from numpy's and from torch's."""

    def __call__(self, image, mask):
        image = image + 0.01 * random.random() + 0.01 * np.random.uniform()  # noqa: NPY002
        return v2.RandomHorizontalFlip()(image, mask)


class Killed(BaseException):
    """Ends training as nothing but a signal does that can't be caught: nobody expects it."""


class KilledAfter:
    """Stands in for `write_file`: after some writes the process is no more."""

    def __init__(self, n_writes):
        self.left = n_writes

    def __call__(self, *args):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return write_file(*args)


write_file = checkpoint.write_file


def everything(model):
    """All that training decides, in bytes; the seconds apart."""
    rows = [[(name, value) for name, value in row.items() if name != "seconds"] for row in model.history_]
    network = [tensor.numpy().tobytes() for tensor in model.network_.state_dict().values()]
    field = [np.asarray(getattr(model, name, None)).tobytes() for name in ("coef_", "objective_", "sigma_", "n_iter_")]
    return rows, network, field


@pytest.fixture(scope="module")
def data():
    X, y = make_phantoms(5, shape=(16, 20), random_state=0)
    y[1, :4] = 255  # unlabelled
    return X, y


@pytest.fixture
def fit_killed(data, tmp_path, monkeypatch):
    """A function that fits a model, killed after some writes and started again; gives the model, and whether it was."""

    def fit(model, n_writes, **fit_params):
        model.set_params(checkpoint=tmp_path / f"after {n_writes}")
        monkeypatch.setattr(checkpoint, "write_file", KilledAfter(n_writes))
        try:
            model.fit(*data, **fit_params)
            was_killed = False
        except Killed:
            was_killed = True
        monkeypatch.setattr(checkpoint, "write_file", write_file)
        return model.fit(*data, **fit_params), was_killed

    return fit


MODELS = {
    "CNN": lambda: CNNSegmenter(Small, **CNN),
    "CNN, within epochs": lambda: CNNSegmenter(Small, checkpoint_every=1, **CNN),
    "CNN, augmented": lambda: CNNSegmenter(Small, checkpoint_every=1, augmentation=NoisyFlip(), **CNN),
    "CNN, best epoch": lambda: CNNSegmenter(
        Small, early_stopping=True, n_iter_no_change=1, validation_fraction=0.4, schedule="cosine", **CNN
    ),
    "joint": lambda: DeepStructuredSegmenter(Small, **JOINT),
    "joint, within epochs": lambda: DeepStructuredSegmenter(Small, checkpoint_every=1, **JOINT | {"n_epochs": 2}),
    "joint, augmented": lambda: DeepStructuredSegmenter(
        Small, checkpoint_every=2, augmentation=NoisyFlip(), schedule="one_cycle", **JOINT
    ),
    "joint, best epoch": lambda: DeepStructuredSegmenter(
        Small, early_stopping=True, n_iter_no_change=1, validation_fraction=0.4, **JOINT
    ),
    "U-Net": lambda: DeepStructuredSegmenter(schedule="constant", **JOINT | {"n_epochs": 1}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_killed_ends_as_one_that_was_not(name, data, fit_killed):
    expected = everything(MODELS[name]().fit(*data))
    n_writes, was_killed = 1, True
    while was_killed:
        model, was_killed = fit_killed(MODELS[name](), n_writes)
        assert everything(model) == expected
        n_writes += 1
    assert n_writes > 4  # else nothing was killed
