"""Calls in forks of this process: they may hang, die, be killed or interrupted, and cost no new import."""

import multiprocessing
import os
import resource
import signal
import warnings
from pathlib import Path
from typing import Any

_FORK = multiprocessing.get_context("fork")
GB = 2**30


def outcome(function, *args, limit: float = 120.0, sent: int = 0, after: float = 0.0) -> Any:
    """What a call gives, or how it ends: "error: ...", "hangs" after `limit` seconds, or "dies of" a signal.

    `sent` is the number of a signal that the fork gets some seconds after its start, unless it has ended.
    """
    receiver, sender = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_report, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        if sent and not receiver.poll(after):
            os.kill(process.pid, sent)
        return receiver.recv() if receiver.poll(limit) else "hangs"
    except EOFError:
        process.join()
        return f"dies of {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else "ends without a word"
    finally:
        process.kill()
        process.join()
        receiver.close()


def _report(sender, function, args):
    # what is read without end is an error before the machine has no memory
    most = 1024 * status("VmSize") + 4 * GB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    warnings.simplefilter("ignore")
    try:
        result = function(*args)
    except BaseException as error:
        result = failure(error)
    sender.send(result)


def failure(error: BaseException) -> str:
    return f"error: {type(error).__name__}: {str(error)[:300]}"


def status(name: str) -> int:
    """A number of kB that the system knows of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def megabytes_added(function, *args) -> float:
    """How much a call adds at most to the memory of this process."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held
    before = status("VmRSS")
    function(*args)
    return (status("VmHWM") - before) / 1024
