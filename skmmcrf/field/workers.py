"""Who finds minimum cuts side by side: threads or processes of joblib, or those of a cluster."""

from joblib import Parallel

from skmmcrf.field import grid_cut


def workers(n_jobs: int | None) -> Parallel:
    """Make what runs cuts: threads, or what `joblib.parallel_config` sets.

    Processes are the default where numba is missing, as PyMaxflow's cuts hold the lock of the interpreter.
    Results come one after the other as they are needed. Backends that can't do so, as "multiprocessing", give them all
    at the end.

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
