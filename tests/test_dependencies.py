"""The oldest versions that are tested are those that setup.cfg promises."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def versions(text, operator):
    """What a list of requirements says of each package."""
    lines = re.findall(rf"^([\w-]+){operator}([\d.]+)$", text, re.MULTILINE)
    return {name.lower(): Version(version) for name, version in lines}


def promised():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return versions(config["options"]["install_requires"] + config["options.extras_require"]["plot"], ">=")


@pytest.mark.parametrize("name", promised())
def test_lower_bounds_are_tested(name):
    pinned = versions((ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8"), "==")
    assert pinned[name] == promised()[name]


def test_all_dependencies_have_a_lower_bound():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [line for line in config["options"]["install_requires"].splitlines() if line]
    assert len(lines) == len(versions("\n".join(lines), ">="))
    assert promised()
