"""Who finds minimum cuts side by side: threads or processes of joblib, or those of a cluster."""

from joblib import Parallel


def workers(n_jobs: int | None) -> Parallel:
    """Make what runs cuts, by the backend that `joblib.parallel_config` sets.

    Results come one after the other as they are needed. Backends that can't do so, as "multiprocessing", give them all
    at the end.

    Examples
    --------
    >>> from joblib import delayed
    >>> list(workers(1)(delayed(abs)(n) for n in (-1, 2)))
    [1, 2]
    """
    try:
        return Parallel(n_jobs, return_as="generator")
    except ValueError:
        return Parallel(n_jobs)
