"""Interrupts by Ctrl-C, which keep what was trained until then."""

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was interrupted, and the estimator keeps what was trained until then."""


@contextmanager
def ending_fit() -> Iterator[None]:
    """Let fit end with a UserWarning where training was interrupted, as scikit-learn's estimators do."""
    try:
        yield
    except Interrupted:
        warnings.warn("fit was interrupted. The estimator keeps what was trained until then", stacklevel=4)


@contextmanager
def noting_interrupts() -> Iterator[list[int]]:
    """Record interrupts, such as Ctrl-C, which still raise KeyboardInterrupt.

    skorch ends training silently after this exception, and its callbacks raise it to stop early. Only the signal tells
    both apart.

    Yields
    ------
    list of int
        The signals that came. None are recorded in a thread, or if no handler is installed.

    Examples
    --------
    >>> with noting_interrupts() as interrupts:
    ...     n_squares = sum(n**2 for n in range(4))
    >>> interrupts
    []
    """
    interrupts: list[int] = []
    handle = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handle):
        yield interrupts
        return

    def note(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        handle(number, frame)

    try:
        signal.signal(signal.SIGINT, note)
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, handle)
