import os
from functools import partial
from pathlib import Path

import psutil
import pytest

import skmmcrf.field.grid_cut as grid_cut
from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet


def processes_and_memory_maps():
    """The processes that this one has started, and the folders that joblib has made for it in shared memory."""
    folders = Path("/dev/shm").glob(f"joblib_memmapping_folder_{os.getpid()}_*")
    return set(psutil.Process().children(recursive=True)), set(folders)


@pytest.mark.skipif(not grid_cut.available(), reason="without numba cuts run in processes")
def test_cuts_side_by_side_start_no_process_and_leave_no_memory_map():
    cnn = CNNSegmenter(partial(UNet, width=8, depth=1), n_epochs=1, device="cpu")
    model = DeepStructuredSegmenter(cnn, n_epochs=1, n_jobs=2, random_state=0)
    X, y = make_phantoms(4, shape=(24, 24), random_state=0)
    before = processes_and_memory_maps()
    model.fit(X, y).predict(X)
    assert processes_and_memory_maps() == before
