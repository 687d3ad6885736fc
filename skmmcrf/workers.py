"""Work in processes, some of which may die."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
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
        jobs = iter(jobs)
        owed: deque[Any] = deque()

        def handed_out() -> Iterator[Any]:
            yield from tuple(owed)
            for job in jobs:
                owed.append(job)
                yield job

        for is_first in (True, False):
            try:
                for result in self._parallel(handed_out()):
                    owed.popleft()
                    yield result
                return
            except BrokenExecutor as error:
                # some versions of joblib would go on with what was left of the broken ones
                self.__exit__(None, None, None)
                self.__enter__()
                if not is_first:
                    raise RuntimeError(
                        "n_jobs: processes that cut were killed twice, as the system does when memory runs out; fewer "
                        "of them take less"
                    ) from error
