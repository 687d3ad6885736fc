"""Names of parameters and data by their content, by which what was learned from them is found again."""

from collections.abc import Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from joblib import hash as hash_of
from torch import nn

from skmmcrf.images.checking import LabelledImages

# the types of the global variables that count in the name of a function
_DATA = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, np.ndarray, np.generic, torch.Tensor)


def names_of_data(data: LabelledImages) -> dict[str, str]:
    """Name images, labels and weights by their content."""
    # one at a time, as they may be many
    return {
        "X": hash_of([hash_of(image) for image in data.images]),
        "y": hash_of([hash_of(annotation.mask) for annotation in data.annotations]),
        "sample_weight": hash_of([annotation.weight for annotation in data.annotations]),
        "class_weight": hash_of([annotation.class_weight for annotation in data.annotations]),
    }


def as_text(value: Any, within: tuple[int, ...] = ()) -> str:
    """Describe a parameter, the same in every process.

    Functions count by their code, and by the data and functions of their module that they use. Objects that print
    their address count by what they hold, and by what calling them does.
    """
    if id(value) in within:
        return "itself"
    inner = partial(as_text, within=(*within, id(value)))
    if isinstance(value, partial):
        return " ".join(map(inner, (value.func, *value.args, *sorted(value.keywords.items()))))
    if isinstance(value, MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, FunctionType):
        looks = [value.__code__, value.__defaults__, value.__kwdefaults__, _globals_of(value)]
        looks += [cell.cell_contents for cell in value.__closure__ or ()]
        return f"{value.__qualname__} {hash_of([inner(part) for part in looks])}"
    if isinstance(value, CodeType):
        return hash_of([value.co_code, value.co_names, [inner(constant) for constant in value.co_consts]])
    if isinstance(value, torch.Tensor):
        return hash_of(value.numpy(force=True))
    if isinstance(value, np.ndarray) and value.dtype != object:
        return hash_of(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{inner(key)}: {inner(part)}' for key, part in value.items()))}}}"
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = map(inner, value)
        return f"[{', '.join(parts if isinstance(value, (list, tuple)) else sorted(parts))}]"
    text = repr(value)
    if " at 0x" not in text and not isinstance(value, nn.Module):
        return text
    name = getattr(value, "__qualname__", type(value).__qualname__)
    calls = getattr(type(value), "forward" if isinstance(value, nn.Module) else "__call__", None)
    called = f"calling {inner(calls)} " if isinstance(calls, FunctionType) else ""
    return f"{name} {called}{inner(getattr(value, '__dict__', {}))}"


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """The data and functions of its own module that a function uses by name."""

    def names(code: CodeType) -> set[str]:
        return set(code.co_names).union(*(names(part) for part in code.co_consts if isinstance(part, CodeType)))

    def counts(value: Any) -> bool:
        return isinstance(value, _DATA) or (isinstance(value, FunctionType) and value.__module__ == function.__module__)

    known = function.__globals__
    return {name: known[name] for name in names(function.__code__) if name in known and counts(known[name])}
