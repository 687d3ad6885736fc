"""The oldest versions that are tested are those that pyproject.toml promises."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [PROJECT["optional-dependencies"][name] for name in ("plot", "medical")]
NEEDED = [Requirement(text) for text in sum(EXTRAS, PROJECT["dependencies"])]


def lower_bound(requirement):
    """The version of its one specifier, which says what is the oldest."""
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    return Version(specifier.version)


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_lower_bounds_are_tested(requirement):
    pinned = re.findall(
        r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert Version(dict(pinned)[requirement.name]) == lower_bound(requirement)
