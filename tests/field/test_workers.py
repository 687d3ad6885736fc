import threading
import time

import pytest
from joblib import Parallel, delayed, parallel_config

from skmmcrf.field import grid_cut
from skmmcrf.field.workers import Threads, workers


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setattr(grid_cut, "available", lambda: True)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("kind", [list, iter])
def test_threads_give_results_in_order(n_threads, kind):
    jobs = kind([delayed(pow)(n, 2) for n in range(20)])
    assert list(Threads(n_threads)(jobs)) == [n**2 for n in range(20)]


def test_threads_run_side_by_side():
    meet = threading.Barrier(2, timeout=30)
    assert sorted(Threads(2)([delayed(meet.wait)() for _ in range(2)])) == [0, 1]


def test_one_thread_is_the_calling_one():
    assert list(Threads(1)([delayed(threading.get_ident)()])) == [threading.get_ident()]


def test_threads_begin_before_results_are_asked_for():
    begun = threading.Event()
    results = Threads(2)([delayed(begun.set)()])
    assert begun.wait(30)
    assert list(results) == [None]


def test_threads_ask_for_few_jobs_ahead():
    asked = []

    def jobs():
        for n in range(20):
            asked.append(n)
            yield delayed(abs)(n)

    results = Threads(2)(jobs())
    for n, _ in enumerate(results):
        assert len(asked) <= n + 1 + 4


def test_an_error_of_a_job_is_raised():
    results = Threads(2)([delayed(int)("1"), delayed(int)("x")])
    assert next(results) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)


def test_threads_end_with_their_object():
    before = threading.active_count()
    list(Threads(3)([delayed(abs)(n) for n in range(9)]))
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_threads_are_the_default_and_joblib_is_used_for_processes(compiled):
    assert isinstance(workers(2), Threads)
    assert workers(3).n_workers == 3
    with parallel_config("threading", n_jobs=4):
        assert workers(None).n_workers == 4
    with parallel_config("loky"):
        assert isinstance(workers(2), Parallel)


def test_within_a_job_of_joblib_threads_are_as_many_as_joblib_allows(compiled):
    (n_workers,) = Parallel(2, prefer="threads")([delayed(lambda: workers(2).n_workers)()])
    assert n_workers in (1, 2)
