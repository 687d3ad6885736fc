"""What many fits in one process leave behind, and many threads."""

import gc
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from nets import PLAIN

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.images.sequences import Mapped


@pytest.fixture(scope="module")
def data():
    return make_phantoms(4, shape=(24, 24), random_state=0)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """So that folders of other processes are not counted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def fit(data, folder, n_jobs=None):
    """A fit that uses all that might leak: lazy images, files, a lock, processes."""
    X, y = data
    cnn = CNNSegmenter(**PLAIN, n_epochs=1, batch_size=2)
    model = DeepStructuredSegmenter(cnn, n_epochs=1, batch_size=2, n_jobs=n_jobs, checkpoint=folder, random_state=0)
    return model.fit(Mapped(X.__getitem__, range(len(X))), y)


def held():
    """Handles, children, threads, and folders of ours that are open or there."""
    gc.collect()
    process = psutil.Process()
    return {
        "handles": process.num_fds() if psutil.POSIX else process.num_handles(),
        "children": len(process.children(recursive=True)),
        "threads": process.num_threads(),
        "folders": len(list(Path(tempfile.gettempdir()).glob("skmmcrf-*"))),
    }


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_fits_leave_nothing_behind(data, tmp_path, n_jobs):
    for n in range(2):
        fit(data, tmp_path / f"{n}", n_jobs)
    before = held()
    for n in range(2, 6):
        fit(data, tmp_path / f"{n}", n_jobs)
    assert held() == before


@pytest.mark.slow
def test_memory_does_not_grow_with_fits(data, tmp_path):
    resident = []
    for n in range(80):
        fit(data, tmp_path / f"{n}").predict(data[0])
        if n % 20 == 19:
            resident.append(held() | {"memory": psutil.Process().memory_info().rss})
    first, *others = ({k: v for k, v in r.items() if k != "memory"} for r in resident)
    assert all(other == first for other in others)
    # a few megabytes come and go; a leak of an image or a network in each fit would be many
    assert resident[-1]["memory"] - resident[0]["memory"] < 15e6


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_threads_may_predict_at_the_same_time(data, tmp_path, n_jobs):
    model = fit(data, tmp_path).set_params(n_jobs=n_jobs)
    X, _ = make_phantoms(12, shape=(40, 48), random_state=1)
    images = [X, list(X), X[:5], [*X[6:], X[0, :20]]]
    expected = [model.predict(some) for some in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for labels, wanted in zip(pool.map(model.predict, images), expected):
                assert all(map(np.array_equal, labels, wanted))
