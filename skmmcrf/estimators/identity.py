"""Names of parameters and data by their content, by which what was learned from them is found again."""

import dis
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property, partial
from pathlib import Path, PurePath
from random import Random
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from joblib import hash as hash_of

from skmmcrf.images.checking import LabelledImages

# what looks the same in every process, and tells all that it holds
_PLAIN = (
    *(type(None), int, float, complex, str, bytes, range, slice, Enum, PurePath),
    *(np.generic, torch.dtype, torch.device),
)
# whose state moves on, and is another in every process if they have no seed
_GENERATORS = (Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState, torch.Generator)
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def names_of_data(data: LabelledImages) -> dict[str, str]:
    """Name images, labels and weights by their content."""
    # one at a time, as they may be many
    return {
        "X": hash_of([hash_of(image) for image in data.images]),
        "y": hash_of([hash_of(annotation.mask) for annotation in data.annotations]),
        "sample_weight": hash_of([annotation.weight for annotation in data.annotations]),
        "class_weight": hash_of([annotation.class_weight for annotation in data.annotations]),
    }


def as_text(value: Any) -> str:
    """Describe a parameter, the same in every process.

    Functions and classes count by their code, and by all that they use by name. Those of installed packages count by
    their names. Other objects count by what they hold, and by their class. Random generators count by their class
    alone.

    Examples
    --------
    >>> as_text((1, "a")), as_text(1.0) == as_text(2.0)
    ("[1, 'a']", False)
    """
    return _Texts().of(value)


class _Texts:
    """Descriptions of values. Each function and class is described once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._within: list[int] = []

    def of(self, value: Any) -> str:
        if id(value) in self._within:
            return "itself"
        if id(value) in self._known:
            return self._known[id(value)]
        self._within.append(id(value))
        text = self._described(value)
        self._within.pop()
        if isinstance(value, (FunctionType, CodeType, type)):  # which live on, so that no other gets their id
            self._known[id(value)] = text
        return text

    def _described(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, partial):
            return " ".join(map(self.of, (value.func, *value.args, *sorted(value.keywords.items()))))
        if isinstance(value, MethodType):
            return f"{self.of(value.__func__)} of {self.of(value.__self__)}"
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, CodeType):
            return hash_of([value.co_code, value.co_names, [self.of(constant) for constant in value.co_consts]])
        if isinstance(value, torch.Tensor):
            return hash_of(value.numpy(force=True))
        if isinstance(value, np.ndarray):
            return self.of(value.tolist()) if value.dtype == object else hash_of(value)
        if isinstance(value, Mapping):
            return f"{{{', '.join(sorted(f'{self.of(key)}: {self.of(part)}' for key, part in value.items()))}}}"
        if isinstance(value, (list, tuple, set, frozenset)):
            parts = map(self.of, value)
            return f"[{', '.join(parts if isinstance(value, (list, tuple)) else sorted(parts))}]"
        if isinstance(value, _GENERATORS):
            return type(value).__qualname__
        if isinstance(value, ModuleType):
            return value.__name__
        return self._of_class(value) if isinstance(value, type) else self._of_object(value)

    def _of_function(self, function: FunctionType) -> str:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        looks: list[Any] = [function.__module__, function.__defaults__, function.__kwdefaults__, *cells]
        if _is_of_user(function.__module__):
            looks[0] = [function.__code__, _globals_of(function)]
        return f"{function.__qualname__} {hash_of([self.of(part) for part in looks])}"

    def _of_class(self, kind: type) -> str:
        looks = [self.of(dict(_attributes_of(base))) for base in kind.__mro__ if _is_of_user(base.__module__)]
        return f"{kind.__module__}.{kind.__qualname__} {hash_of(looks)}"

    def _of_object(self, value: Any) -> str:
        try:
            reduced: tuple[Any, ...] | str = value.__reduce_ex__(2)
        except Exception:  # what can't be pickled may raise anything
            reduced = (None, (), getattr(value, "__dict__", None))
        if isinstance(reduced, str):  # the name of something global, such as a function of C
            return reduced
        _, arguments, state, items, pairs, *_ = *reduced, None, None, None
        return f"{self.of(type(value))} of {self.of([arguments, state, list(items or ()), list(pairs or ())])}"


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """What a function uses by name, but for modules. Of the user's own modules, what it uses of them."""
    codes = [function.__code__]
    for code in codes:  # with those within
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    steps = [step for code in codes for step in dis.get_instructions(code)]
    # other names in the code are those of attributes
    globals_read = sorted({step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")})
    found = {name: function.__globals__[name] for name in globals_read if name in function.__globals__}
    names = sorted(set().union(*(code.co_names for code in codes)))
    modules = list(found.values())
    for module in modules:
        if isinstance(module, ModuleType) and _is_of_user(module.__name__):
            of_module = {f"{module.__name__}.{name}": getattr(module, name) for name in names if hasattr(module, name)}
            modules += [value for name, value in of_module.items() if name not in found]
            found |= of_module
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def _attributes_of(kind: type) -> Iterator[tuple[str, Any]]:
    """The attributes in the body of a class. Of properties and the like, the functions that they call."""
    for name, value in vars(kind).items():
        if isinstance(value, (staticmethod, classmethod)):
            yield name, value.__func__
        elif isinstance(value, cached_property):
            yield name, value.func
        elif isinstance(value, property):
            yield name, (value.fget, value.fset, value.fdel)
        elif name not in ("__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"):
            yield name, value


def _is_of_user(name: str | None) -> bool:
    """Whether a module belongs to no installed package."""
    file = getattr(sys.modules.get(name or ""), "__file__", None)
    if file is None:
        return name not in sys.builtin_module_names
    parents = Path(file).parents
    return _STANDARD_LIBRARY not in parents and not {"site-packages", "dist-packages"} & {p.name for p in parents}
