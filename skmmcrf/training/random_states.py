"""Random generators: the global ones, seeded for a while, and a thread's own for torch."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch.overrides import TorchFunctionMode

from skmmcrf._typing import RandomStateLike

# the generators belong to the whole process, so fits side by side in threads must take turns
_TURN = threading.RLock()
_DRAWING = {
    *("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"),
    *("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "trunc_normal_", "orthogonal_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
}


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
        of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002, because it is the global one
        _seed(seed)
        try:
            yield seed
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002, as above
            random.setstate(of_python)


def seed_all(*numbers: int) -> int:
    """Seed the global generators of torch, numpy and Python by some numbers, and give the seed that they make.

    Examples
    --------
    >>> with seeded(0):
    ...     seed_all(0, 3, 1)
    3679268941
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    _seed(seed)
    return seed


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, because augmentations and networks of users may draw from it
    random.seed(seed)


class OwnGenerator(TorchFunctionMode):
    """Within the block, let torch's functions draw from a new generator wherever none is given, in this thread alone.

    Nothing that other threads draw has an influence. Layers that draw as they run, such as dropout, still use the
    global generator.

    Parameters
    ----------
    seed : int

    Examples
    --------
    >>> with OwnGenerator(0):
    ...     a = torch.rand(1)
    >>> bool(a == torch.rand(1, generator=torch.Generator().manual_seed(0)))
    True
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Call a function of torch."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWING and kwargs.get("generator") is None and _is_on_cpu(args, kwargs):
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def _is_on_cpu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device") or next((each.device for each in args if isinstance(each, torch.Tensor)), None)
    return torch.device(device or torch.get_default_device()).type == "cpu"
