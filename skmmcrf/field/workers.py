"""Minimum cuts side by side: in threads, in processes of joblib, or on a cluster."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

from joblib import Parallel, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend

import skmmcrf.field.grid_cut as grid_cut

#: A function and its arguments, as `joblib.delayed` gives them.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def workers(n_jobs: int | None) -> "Workers | Parallel":
    """Make what runs cuts: threads, or what `joblib.parallel_config` says.

    Processes of joblib are the default if numba is missing, because PyMaxflow's cuts hold the lock of the interpreter.
    Results come one after the other as they are needed. Some backends of joblib, such as "multiprocessing", give all
    results at the end.

    On a cluster of dask, `DaskWorkers` take the place of joblib. Within a task of dask cuts run in threads: a task that
    waits for others would have to be done again with them if a worker dies.

    Examples
    --------
    >>> from joblib import delayed
    >>> list(workers(1)(delayed(abs)(n) for n in (-1, 2)))
    [1, 2]
    """
    prefer = "threads" if grid_cut.available() else None
    backend, _ = get_active_backend(prefer=prefer)
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend":
        if not _is_task_of_dask():
            return DaskWorkers(backend)
        with parallel_config("threading"):
            return Threads(effective_n_jobs(n_jobs))
    if kind in ("ThreadingBackend", "SequentialBackend"):
        return Threads(effective_n_jobs(n_jobs))
    try:
        return Parallel(n_jobs, return_as="generator", prefer=prefer)
    except ValueError:
        return Parallel(n_jobs, prefer=prefer)


class Workers(ABC):
    """Workers that are called as `joblib.Parallel`, and give the results of jobs in their order."""

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Any]:
        """Begin with all jobs of a list, or with the first of other iterables, and give the results."""
        n_first = len(jobs) if isinstance(jobs, list) else 2 * self.n_workers
        jobs = iter(jobs)
        running = deque(map(self._submit, islice(jobs, n_first)))
        return self._results(running, jobs)

    def _results(self, running: deque[Any], jobs: Iterator[Job]) -> Iterator[Any]:
        while running:
            yield self._result(running.popleft())
            running.extend(map(self._submit, islice(jobs, 1)))

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """How many jobs run side by side."""

    @abstractmethod
    def _submit(self, job: Job) -> Any:
        """Hand over a job."""

    @abstractmethod
    def _result(self, submitted: Any) -> Any:
        """Wait for the result of a job."""


class Threads(Workers):
    """Threads of this process, or the calling thread alone.

    joblib's own look only a hundred times a second whether a job is done, and a cut may take less than that.

    Parameters
    ----------
    n_threads : int
    """

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.pool = ThreadPoolExecutor(n_threads)  # it starts threads when it gets jobs, and ends with this object

    @property
    def n_workers(self) -> int:
        """How many jobs run side by side."""
        return self.n_threads

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Any]:
        """Begin with jobs and give their results. The calling thread does them one by one if it is the only one."""
        if self.n_threads == 1:
            return (function(*args, **kwargs) for function, args, kwargs in jobs)
        return super().__call__(jobs)

    def _submit(self, job: Job) -> Future:
        function, args, kwargs = job
        return self.pool.submit(function, *args, **kwargs)

    def _result(self, submitted: Future) -> Any:
        return submitted.result()


class DaskWorkers(Workers):
    """All workers of a cluster of dask.

    dask gives the job of a worker that dies to another one. It gives up a job that has cost it several workers
    (``distributed.scheduler.allowed-failures``). joblib itself would wait forever for such a job.

    Parameters
    ----------
    backend : joblib's backend "dask"
        Its client is used, with its options.

    Raises
    ------
    RuntimeError
        For results, if the cluster has no workers, or loses several by one job.
    """

    def __init__(self, backend: Any) -> None:
        self.client = backend.client
        self.options = backend.submit_kwargs
        self.patience = backend.wait_for_workers_timeout or 10

    @property
    def n_workers(self) -> int:
        """How many jobs run side by side."""
        return sum(self.client.nthreads().values()) or 1

    def _submit(self, job: Job) -> Any:
        import dask

        function, args, kwargs = job
        # data that were sent before their job would be lost with a worker; dask warns of jobs that hold theirs
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**60}):
            return self.client.submit(function, *args, **kwargs, pure=False, **self.options)

    def _result(self, submitted: Any) -> Any:
        import distributed

        try:
            while True:
                with suppress(distributed.TimeoutError):
                    return submitted.result(timeout=self.patience)
                self._check_alive()
        except (distributed.KilledWorker, distributed.CancelledError) as error:
            raise RuntimeError(
                f"dask's workers died, or were stopped, while they cut images: {error}. If they ran out of memory, "
                "give them more, or start fewer. Cuts run here without joblib.parallel_config(backend='dask')"
            ) from error

    def _check_alive(self) -> None:
        try:
            self.client.wait_for_workers(1, timeout=self.patience)
        except OSError as error:  # a TimeoutError too
            raise RuntimeError(
                f"the cluster of dask has had no workers for {self.patience:g} seconds: start some. Cuts run here "
                "without joblib.parallel_config(backend='dask')"
            ) from error


def _is_task_of_dask() -> bool:
    import distributed

    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True
