"""Cuts in threads and in other processes: they change no result, and a process that dies is told."""

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from small_images import field_of

from skmmcrf.field import Annotation, grid_cut
from skmmcrf.field.energy import least_labelings
from skmmcrf.images.sequences import Mapped
from skmmcrf.learning import CuttingPlanes, Example

RNG = np.random.default_rng(0)
TRUTHS = RNG.uniform(size=(20, 12, 14)) < 0.5
LOG_ODDS = list(2.0 * TRUTHS - 1 + RNG.normal(size=TRUTHS.shape))
IMAGES = list(RNG.uniform(size=(*TRUTHS.shape, 1)))
# some are partly labelled, so that truths are completed too
LABELLED = RNG.uniform(size=TRUTHS.shape) < 0.9
LABELLED[5:] = True


def energies(images=IMAGES):
    return field_of().energies(LOG_ODDS, images)


def examples(images=IMAGES):
    return list(map(Example, energies(images), map(Annotation, TRUTHS, LABELLED)))


@pytest.fixture
def own_workers():
    """A function that gives the processes that joblib started since the beginning of the test."""
    get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return lambda: [p for p in psutil.Process().children() if "LokyProcess" in " ".join(p.cmdline())]


def memory_maps():
    """The folders that joblib has made in shared memory for this process."""
    return set(Path("/dev/shm").glob(f"joblib_memmapping_folder_{os.getpid()}_*"))


@pytest.mark.parametrize("n_jobs", [None, 1, 2])
def test_no_process_is_started_and_no_memory_mapped(n_jobs, own_workers):
    before = memory_maps()
    CuttingPlanes(n_jobs=n_jobs).learn(examples())
    list(least_labelings(np.ones(3), energies(), n_jobs))
    assert own_workers() == []
    assert memory_maps() == before


def test_without_the_compiled_cut_processes_cut(own_workers, monkeypatch):
    monkeypatch.setattr(grid_cut, "available", lambda: False)
    list(least_labelings(np.ones(3), energies(), n_jobs=2))
    assert own_workers()


def test_results_do_not_depend_on_how_many_threads_cut():
    solutions = [CuttingPlanes(n_jobs=n_jobs).learn(examples()) for n_jobs in (1, 2)]
    for name in ("w", "slack", "value", "dual_gap", "n_iter"):
        np.testing.assert_array_equal(*(getattr(solution, name) for solution in solutions))
    w = solutions[0].w
    labelings = [list(least_labelings(w, energies(), n_jobs)) for n_jobs in (1, 2)]
    np.testing.assert_array_equal(*labelings)


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_cuts_run_under_every_backend_of_joblib(backend):
    expected = CuttingPlanes().learn(examples())
    with parallel_config(backend=backend, n_jobs=2):
        found = CuttingPlanes().learn(examples())
        labelings = list(least_labelings(found.w, energies()))
    np.testing.assert_array_equal(found.w, expected.w)
    np.testing.assert_array_equal(labelings, list(least_labelings(found.w, energies())))


def test_a_process_that_is_killed_is_told_and_the_next_cuts_work(own_workers):
    Parallel(2)(delayed(abs)(n) for n in range(4))
    left = [30]  # images are read once for each cut

    def read(n):
        left[0] -= 1
        if left[0] == 0:
            own_workers()[0].kill()
        return IMAGES[n]

    with parallel_config(backend="loky", n_jobs=2):
        with pytest.raises(TerminatedWorkerError, match="unexpectedly terminated"):
            CuttingPlanes().learn(examples(Mapped(read, range(20))))
        again = CuttingPlanes().learn(examples())
    np.testing.assert_array_equal(again.w, CuttingPlanes().learn(examples()).w)
