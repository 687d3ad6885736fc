"""The reference is complete: every public name is in it, and its docstring is as numpydoc wants it."""

import importlib
import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from numpydoc.validate import validate

REFERENCE = Path(__file__).parent.parent / "docs" / "api.rst"
#: What is not asked for: summaries of one line, and verbs of one form in them; text beyond a summary that says all, or
#: for parameters whose name and type do; "See Also"; capitals where symbols are lower case; quotes on their own lines.
LEFT_OUT = {"SS05", "SS06", "ES01", "PR07", "RT03", "SA01", "PR08", "RT04", "GL01"}


def names_in_reference():
    module = None
    for line in REFERENCE.read_text().splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"   (\w+)$", line):
            yield f"{module}.{found[1]}"


NAMES = list(names_in_reference())


@pytest.mark.parametrize("module", ["skmmcrf", "skmmcrf.datasets", "skmmcrf.networks"])
def test_every_public_name_is_in_the_reference(module):
    public = {name for name in importlib.import_module(module).__all__ if not name.startswith("_")}
    assert {f"{module}.{name}" for name in public} <= set(NAMES)


def errors_of(thing, may_lack=()):
    errors = validate(f"{thing.__module__}.{thing.__qualname__}")["errors"]
    return [text for code, text in errors if code not in LEFT_OUT.union(may_lack)]


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_valid(name):
    module, _, member = name.rpartition(".")
    thing = getattr(importlib.import_module(module), member)
    may_lack = {"EX01"} if inspect.isclass(thing) and issubclass(thing, Exception) else set()
    if is_dataclass(thing):
        may_lack = {"EX01", "PR01"}  # it is a result, whose attributes are told
    assert not errors_of(thing, may_lack)
    for key, method in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(method) and not key.startswith("_"):
            says_all = "\n" not in method.__doc__
            assert not errors_of(method, {"EX01", "PR01", "RT01"} if says_all else {"EX01"}), key
