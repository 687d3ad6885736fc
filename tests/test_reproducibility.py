"""The same seed gives the same model, bit for bit, however it is trained."""

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from comparing import everything

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet

PARAMETERS = {
    "pretrain_epochs": 2,
    "n_epochs": 2,
    "batch_size": 3,
    "augmentation": "standard",
    "validation_fraction": 0.25,
    "random_state": 0,
}


def fit(**parameters):
    # 8 images of a size that joblib hands over by a file of memory
    X, y = make_phantoms(8, shape=(64, 72), random_state=0)
    X = np.repeat(X[..., np.newaxis] / 255, 32, axis=-1)
    return DeepStructuredSegmenter(lambda n: UNet(n, width=8, depth=2), **PARAMETERS | parameters).fit(X, y)


def digest():
    return hashlib.sha256(repr(everything(fit())).encode()).hexdigest()


@pytest.fixture(scope="module")
def model():
    return fit()


@pytest.mark.parametrize(
    "parameters", [{}, {"n_jobs": 1}, {"n_jobs": 2}, {"memory": True}, {"checkpoint": True, "checkpoint_every": 1}]
)
def test_the_model_does_not_depend_on_how_it_is_trained(model, tmp_path, parameters):
    folders = {name: str(tmp_path / name) for name in ("memory", "checkpoint") if name in parameters}
    if "memory" in parameters:
        fit(memory=folders["memory"], n_epochs=1)  # pretrains, and the next one finds that
    assert everything(fit(**parameters | folders)) == everything(model)


def test_the_model_does_not_depend_on_the_process(model):
    command = "import test_reproducibility as t; print(t.digest())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    folder = os.path.dirname(__file__)
    threads = f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
    printed = subprocess.run(
        [sys.executable, "-c", threads + command],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.strip() == hashlib.sha256(repr(everything(model)).encode()).hexdigest()


def global_states():
    return [
        torch.get_rng_state().numpy().tobytes(),
        [np.asarray(part).tobytes() for part in np.random.get_state()],  # noqa: NPY002
        random.getstate(),
    ]


def test_global_generators_are_left_as_they_were(phantoms, tmp_path):
    X, y = phantoms
    before = global_states()
    cnn = CNNSegmenter(n_epochs=1, augmentation="standard", random_state=0).fit(X, y)
    MaxMarginCRF().fit(cnn.transform(X), y)
    joint = fit(checkpoint=tmp_path, early_stopping=True)
    for images in (X, list(X)):
        cnn.predict(images)
        cnn.score(images, y)
    joint.set_params(checkpoint=None).save(tmp_path / "model")
    assert global_states() == before


def test_global_generators_do_not_matter(model):
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    random.seed(9)
    assert everything(fit()) == everything(model)
