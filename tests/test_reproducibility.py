"""The same seed gives the same model, bit for bit, however it is trained."""

import hashlib
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from comparing import everything
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet

PARAMETERS = {"n_epochs": 2, "batch_size": 3, "validation_fraction": 0.25, "random_state": 0}


def fit(num_workers=0, **parameters):
    # 8 images of a size that joblib hands over by a file of memory
    X, y = make_phantoms(8, shape=(64, 72), random_state=0)
    X = np.repeat(X[..., np.newaxis] / 255, 32, axis=-1)
    cnn = CNNSegmenter(
        lambda n: UNet(n, width=8, depth=2),
        n_epochs=2,
        batch_size=3,
        augmentation="standard",
        device="cpu",
        num_workers=num_workers,
    )
    return DeepStructuredSegmenter(cnn, **PARAMETERS | parameters).fit(X, y)


def digest(model):
    return hashlib.sha256(repr(everything(model)).encode()).hexdigest()


@pytest.fixture(scope="module")
def model():
    return fit()


@pytest.mark.parametrize("parameters", [{}, {"n_jobs": 2}, {"memory": True}, {"checkpoint": True}, {"num_workers": 2}])
def test_the_model_does_not_depend_on_how_it_is_trained(model, tmp_path, parameters):
    folders = {name: str(tmp_path / name) for name in ("memory", "checkpoint") if name in parameters}
    if "memory" in parameters:
        fit(memory=folders["memory"], n_epochs=1)  # pretrains, and the next one finds that
    assert everything(fit(**parameters | folders)) == everything(model)


def test_fits_side_by_side_in_threads_do_not_disturb_each_other(model):
    before = global_states()
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(lambda seed: fit(random_state=seed), [0, 1]))
    assert everything(models[0]) == everything(model)
    assert everything(models[1]) != everything(model)
    assert global_states() == before


def test_a_thread_that_draws_from_the_global_generators_does_not_change_a_fit(model):
    ended = threading.Event()

    def draw_on():
        while not ended.is_set():
            torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002

    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw_on)
        try:
            beside = fit()
        finally:
            ended.set()
        drawing.result()
    assert everything(beside) == everything(model)


@pytest.mark.parametrize("augmentation", [None, v2.Compose([v2.RandomAffine(20)]), "strong"])
def test_processes_that_read_images_do_not_change_what_is_learned(phantoms, augmentation):
    networks = []
    for num_workers in (0, 1, 2):
        cnn = CNNSegmenter(n_epochs=2, batch_size=4, augmentation=augmentation, crop=24, random_state=0, device="cpu")
        networks.append(cnn.set_params(num_workers=num_workers).fit(*phantoms).network_.state_dict())
    for other in networks[1:]:
        assert all(map(torch.equal, networks[0].values(), other.values()))


def test_the_model_does_not_depend_on_the_process(model):
    threads = f"import torch; torch.set_num_threads({torch.get_num_threads()})"
    printed = subprocess.check_output(
        [sys.executable, "-c", f"{threads}; import test_reproducibility as t; print(t.digest(t.fit()))"],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"PYTHONHASHSEED": "7"},
        text=True,
    )
    assert printed.strip() == digest(model)


def global_states():
    return [
        torch.get_rng_state().tolist(),
        [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
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
