"""Minimum cuts side by side, in threads or processes of joblib, or on a cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

from joblib import Parallel, parallel_config
from joblib.parallel import get_active_backend

import skmmcrf.field.grid_cut as grid_cut

#: A function and its arguments, as `joblib.delayed` gives them.
Job: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def workers(n_jobs: int | None) -> "Parallel | DaskWorkers":
    """Make the joblib object that runs cuts: in threads, or as `joblib.parallel_config` says.

    Processes are the default if numba is missing, because PyMaxflow's cuts hold the lock of the interpreter. Results
    come one after the other as they are needed. Some backends, such as "multiprocessing", give all results at the end.

    On a cluster of dask, `DaskWorkers` take the place of joblib. Within a task of dask cuts run in threads: a task that
    waits for others would have to be done again with them if a worker dies.

    Examples
    --------
    >>> from joblib import delayed
    >>> list(workers(1)(delayed(abs)(n) for n in (-1, 2)))
    [1, 2]
    """
    backend, _ = get_active_backend()
    if type(backend).__name__ == "DaskDistributedBackend":
        if not _is_task_of_dask():
            return DaskWorkers(backend)
        with parallel_config("threading"):
            return Parallel(n_jobs, return_as="generator")
    prefer = "threads" if grid_cut.available() else None
    try:
        return Parallel(n_jobs, return_as="generator", prefer=prefer)
    except ValueError:
        return Parallel(n_jobs, prefer=prefer)


class DaskWorkers:
    """All workers of a cluster of dask, called as `joblib.Parallel`.

    dask gives the job of a worker that dies to another one. It gives up a job that has cost it several workers
    (``distributed.scheduler.allowed-failures``). joblib itself would wait forever for such a job.

    Parameters
    ----------
    backend : joblib's backend "dask"
        Its client is used, with its options.
    """

    def __init__(self, backend: Any) -> None:
        self.client = backend.client
        self.options = backend.submit_kwargs
        self.patience = backend.wait_for_workers_timeout or 10

    def __enter__(self) -> "DaskWorkers":
        return self

    def __exit__(self, *error: object) -> None: ...

    def __call__(self, jobs: Iterable[Job]) -> Iterator[Any]:
        """Give the results of jobs in their order.

        Raises
        ------
        RuntimeError
            If the cluster has no workers, or loses several by one job.
        """
        jobs = iter(jobs)
        running = deque(map(self._submit, islice(jobs, 2 * sum(self.client.nthreads().values()) or 1)))
        while running:
            yield self._result(running.popleft())
            running.extend(map(self._submit, islice(jobs, 1)))

    def _submit(self, job: Job) -> Any:
        import dask

        function, args, kwargs = job
        # data that were sent before their job would be lost with a worker; dask warns of jobs that hold theirs
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**60}):
            return self.client.submit(function, *args, **kwargs, pure=False, **self.options)

    def _result(self, future: Any) -> Any:
        import distributed

        try:
            while True:
                with suppress(distributed.TimeoutError):
                    return future.result(timeout=self.patience)
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
