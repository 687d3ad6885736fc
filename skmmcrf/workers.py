"""Work in processes, some of which may die."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

from joblib import Parallel


def run_jobs(parallel: Parallel, jobs: Iterable[Any]) -> Iterator[Any]:
    """Do jobs in processes; if one of these is killed, do once more what was not done.

    Parameters
    ----------
    parallel : joblib.Parallel
        That returns a generator.
    jobs : iterable of joblib.delayed calls
        Taken as they are needed.

    Yields
    ------
    object
        The result of each job, in their order.

    Raises
    ------
    RuntimeError
        If a process is killed once more.

    Examples
    --------
    >>> from joblib import delayed
    >>> list(run_jobs(Parallel(n_jobs=1, return_as="generator"), (delayed(abs)(n) for n in (-1, 2))))
    [1, 2]
    """
    jobs = iter(jobs)
    owed: deque[Any] = deque()

    def handed_out() -> Iterator[Any]:
        yield from tuple(owed)
        for job in jobs:
            owed.append(job)
            yield job

    for is_first in (True, False):
        try:
            for result in parallel(handed_out()):
                owed.popleft()
                yield result
            return
        except BrokenExecutor as error:
            if not is_first:
                raise RuntimeError(
                    "n_jobs: processes that cut were killed twice, as the system does when memory runs out; fewer of "
                    "them take less"
                ) from error
