"""The package has floors: what lies on one imports from those below alone."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import skmmcrf

FLOORS = [
    {"field"},
    {"learning"},
    {"images"},
    {"metrics"},
    {"networks"},
    {"training"},
    {"estimators"},
    {"configuration", "datasets", "display", "report"},
]
BELOW = {name: set().union(*FLOORS[:n]) for n, floor in enumerate(FLOORS) for name in floor}
BELOW["datasets"] = {"images", "field"}
FOR_ALL = {"_typing", "_version", "_docs", "_shown", "_colours"}

ROOT = Path(skmmcrf.__file__).parent


def modules():
    """The files of the package by the names of their modules, without what lies outside the floors."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("skmmcrf", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        if path.parent != ROOT or path.stem in BELOW:
            found[name] = path
    return found


MODULES = modules()


def is_module(name):
    return name in MODULES or floor(name) in FOR_ALL


def imports(name):
    """Of each import from the package: the module, and whether the import is in a function.

    From a package, what has a file of its own counts as that file.
    """

    def walk(node, in_function):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import in line {node.lineno}"
            wholes = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((whole if is_module(whole) else node.module, in_function) for whole in wholes)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, in_function) for alias in node.names)
        in_function = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, in_function)

    found = walk(ast.parse(MODULES[name].read_text(encoding="utf-8")), False)
    return [each for each in found if each[0].split(".")[0] == "skmmcrf"]


def floor(name):
    return (name.split(".") + [""])[1]


def test_there_is_something_on_every_floor():
    assert {floor(name) for name in MODULES} == set(BELOW)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down_by_the_floors_and_stand_in_no_function(name):
    allowed = BELOW[floor(name)] | FOR_ALL | {floor(name)}
    wrong = [other for other, in_function in imports(name) if floor(other) not in allowed or in_function]
    assert not wrong


def test_no_imports_form_a_circle():
    graph = {name: {other for other, _ in imports(name)} for name in MODULES}
    order = list(TopologicalSorter(graph).static_order())  # an error where there is none
    assert order.index("skmmcrf.field.grid") < order.index("skmmcrf.learning")


def test_field_and_learning_import_neither_torch_nor_sklearn():
    code = "import sys, skmmcrf.field, skmmcrf.learning; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
