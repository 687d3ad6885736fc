"""Minimum cuts side by side, in threads or processes of joblib, or on a cluster."""

from joblib import Parallel

import skmmcrf.field.grid_cut as grid_cut


def workers(n_jobs: int | None) -> Parallel:
    """Make the joblib object that runs cuts: in threads, or as `joblib.parallel_config` says.

    Processes are the default if numba is missing, because PyMaxflow's cuts hold the lock of the interpreter. Results
    come one after the other as they are needed. Some backends, such as "multiprocessing", give all results at the end.

    Examples
    --------
    >>> from joblib import delayed
    >>> list(workers(1)(delayed(abs)(n) for n in (-1, 2)))
    [1, 2]
    """
    prefer = "threads" if grid_cut.available() else None
    try:
        return Parallel(n_jobs, return_as="generator", prefer=prefer)
    except ValueError:
        return Parallel(n_jobs, prefer=prefer)
