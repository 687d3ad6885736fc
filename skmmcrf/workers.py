"""Work in processes, some of which may die."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from threading import Lock
from typing import Any

from joblib import Parallel


class Workers:
    """Processes that do jobs, within a with-block.

    Parameters
    ----------
    n_jobs : int, optional
        How many, as in joblib, whose backend they are.

    Examples
    --------
    >>> from joblib import delayed
    >>> with Workers(n_jobs=1) as workers:
    ...     list(workers.run(delayed(abs)(n) for n in (-1, 2)))
    [1, 2]
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    def __enter__(self) -> "Workers":
        self._parallel = Parallel(self.n_jobs, return_as="generator").__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._parallel.__exit__(*error)

    def run(self, jobs: Iterable[Any]) -> Iterator[Any]:
        """Do jobs; if a process is killed, do once more what was not done.

        Parameters
        ----------
        jobs : iterable of joblib.delayed calls
            Taken as they are needed.

        Yields
        ------
        object
            The result of each job, in their order. They must be read to the end.

        Raises
        ------
        RuntimeError
            If a process is killed once more.
        """
        left, owed, lock = iter(jobs), deque[Any](), Lock()
        is_retry = False

        def handed_out(in_retry: bool) -> Iterator[Any]:
            """What is owed, and what is left unless a retry does that; asked for by threads of joblib."""
            yield from tuple(owed)
            while True:
                with lock:
                    if in_retry != is_retry:
                        return
                    try:
                        job = next(left)
                    except StopIteration:
                        return
                    owed.append(job)
                yield job

        while True:
            try:
                for result in self._parallel(handed_out(is_retry)):
                    owed.popleft()
                    yield result
                return
            except BrokenExecutor as error:
                # joblib would go on with what was left of the broken ones
                self.__exit__(None, None, None)
                self.__enter__()
                if is_retry:
                    raise RuntimeError(
                        "n_jobs: processes that cut were killed twice, as the system does when memory runs out; fewer "
                        "of them take less"
                    ) from error
                with lock:
                    is_retry = True
