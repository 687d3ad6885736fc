"""The global random generators: seeded for a while, read, and set."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from skmmcrf._typing import RandomStateLike

# the generators belong to the whole process, so fits side by side in threads must take turns
_TURN = threading.RLock()


@contextmanager
def seeded(random_state: RandomStateLike) -> Iterator[int]:
    """Draw a seed, use it for torch, numpy and Python within the block, and leave their generators as they were.

    Other threads wait for their turn.

    Examples
    --------
    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    with _TURN, torch.random.fork_rng():  # those of all devices
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        before = get_random_states()
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002, because augmentations and networks of users may draw from it
        random.seed(seed)
        try:
            yield seed
        finally:
            set_random_states(before)


def get_random_states() -> dict[str, Any]:
    """Read the global generators of torch, on the CPU, of numpy and of Python, for `set_random_states`."""
    return {
        "torch": torch.get_rng_state().numpy(),
        "numpy": list(np.random.get_state()),  # noqa: NPY002, because it is the global one that is to be restored
        "python": _as_lists(random.getstate()),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set the global generators to what `get_random_states` gave."""
    torch.set_rng_state(torch.tensor(states["torch"]))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002, as above
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))


def _as_lists(state: tuple[Any, ...]) -> list[Any]:
    version, words, gauss = state
    return [version, list(words), gauss]
