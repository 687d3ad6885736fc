import os
import signal

import numpy as np
import psutil
import pytest
from joblib import delayed
from joblib.externals.loky import get_reusable_executor

from skmmcrf.graph_cut import segment
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import learn_weights
from skmmcrf.sequences import Mapped
from skmmcrf.workers import Workers

PROBLEM = {"connectivity": 8, "sigma": 0.2}


@pytest.fixture
def kill_a_worker():
    """A function that kills a process of joblib's."""

    def kill():
        workers = [p for p in psutil.Process().children() if "LokyProcess" in " ".join(p.cmdline())]
        workers[0].kill()

    # on a busy machine joblib may notice only now that another test killed one
    get_reusable_executor().shutdown(wait=True, kill_workers=True)
    with Workers(2) as workers:
        list(workers.run(delayed(abs)(n) for n in range(4)))
    return kill


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    truths = rng.uniform(size=(12, 20, 24)) < 0.5
    return truths, 2.0 * truths - 1 + rng.normal(size=truths.shape), rng.uniform(size=(*truths.shape, 1))


def killing(values, kill, times):
    """The values, when some of which are asked for a process is killed."""
    left = list(times)

    def get(n):
        if left and n == left[0]:
            left.pop(0)
            kill()
        return values[n]

    return Mapped(get, range(len(values)))


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_one_job_starts_no_process(n_jobs):
    with Workers(n_jobs) as workers:
        assert set(workers.run(delayed(os.getpid)() for _ in range(3))) == {os.getpid()}


def test_a_killed_process_costs_no_result(images, kill_a_worker):
    truths, log_odds, pixels = images
    expected = list(segment(np.ones(3), zip(log_odds, pixels), **PROBLEM))
    problems = zip(killing(log_odds, kill_a_worker, [7]), pixels)
    np.testing.assert_array_equal(list(segment(np.ones(3), problems, **PROBLEM, n_jobs=2)), expected)


def test_learning_goes_on_after_a_killed_process(images, kill_a_worker):
    truths, log_odds, pixels = images

    def learn(pixels, n_jobs):
        labelings = [Labelings(truth) for truth in truths]
        return learn_weights(log_odds, pixels, labelings, 1.0, **PROBLEM, tol=1e-3, max_iter=50, n_jobs=n_jobs)

    expected = learn(pixels, 1)
    found = learn(killing(pixels, kill_a_worker, [5]), 2)
    np.testing.assert_array_equal(found.w, expected.w)
    assert found.value == expected.value


def test_a_process_killed_twice_is_told(images, kill_a_worker):
    _, log_odds, pixels = images

    def die(n):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="n_jobs: processes that cut were killed twice"), Workers(2) as workers:
        list(workers.run(delayed(die)(n) for n in range(4)))
    # and the next ones work
    assert len(list(segment(np.ones(3), zip(log_odds, pixels), **PROBLEM, n_jobs=2))) == len(pixels)
