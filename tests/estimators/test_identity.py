import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from skmmcrf.estimators.identity import as_text


@pytest.mark.parametrize(
    "source",
    [
        "def change(image, mask):\n    return (lambda grey: grey * {})(image), mask",
        "def change(image, mask):\n    return [image, *(image * factor for factor in ({}, 1))][1], mask",
        "def change(image, mask, *, factor={}):\n    return image * factor, mask",
        "factor = {}\ndef change(image, mask):\n    return image * factor, mask",
        "def brighter(image):\n    return image * {}\ndef change(image, mask):\n    return brighter(image), mask",
        "class Change:\n    def __call__(self, image, mask):\n        return image * {}, mask\nchange = Change()",
        "class Change:\n    def darker(self, image):\n        return image * {}\nchange = Change()",
        "class Change:\n    factor = {}\nchange = Change",
        "class Change:\n    @property\n    def factor(self):\n        return {}\nchange = Change()",
        "class Base:\n    factor = {}\nclass Change(Base):\n    pass\nchange = Change()",
        "class Change:\n    __slots__ = ('factor',)\nchange = Change()\nchange.factor = {}",
        "from dataclasses import dataclass\n@dataclass\nclass Change:\n    by: float = {}\nchange = Change()",
        "class Dark:\n    factor = {}\ndef change(image, mask):\n    return image * Dark.factor, mask",
        "class Dark:\n    pass\ndark = Dark()\ndark.by = {}\ndef change(image, mask):\n    return dark, mask",
        "class Dark:\n    pass\nclass Change:\n    dark = Dark()\nchange = Change()\nchange.dark.by = {}",
        "from torchvision.transforms.v2 import ColorJitter\njitter = ColorJitter({})\n"
        "def change(image, mask):\n    return jitter(image), mask",
        "class Change:\n    def __getstate__(self):\n        return {}\nchange = Change()",
        "import numpy\nclass Change:\n    def __repr__(self):\n        return f'Change({{self.table}})'\n"
        "change = Change()\nchange.table = numpy.zeros(3000)\nchange.table[1500] = {}",
    ],
)
def test_what_was_changed_has_another_name_in_memory_and_checkpoint(source):
    def named(factor):
        names = {"__name__": "augmentations"}
        exec(source.format(factor), names)
        return as_text(names["change"])

    assert named(0.5) == named(0.5) != named(0.9)


def test_a_changed_function_of_another_module_of_the_user_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    sources = {"direct": "from helper import brighter", "by_module": "import helper"}
    for name, source in sources.items():
        call = "brighter" if name == "direct" else "helper.brighter"
        (tmp_path / f"{name}.py").write_text(f"{source}\ndef change(image, mask):\n    return {call}(image), mask\n")
    texts = []
    for factor in (0.5, 0.9):
        (tmp_path / "helper.py").write_text(
            f"def brighter(image):\n    return image * {factor}  # {'x' * int(9 * factor)}\n"
        )
        for name in ("helper", *sources):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        texts.append([as_text(importlib.import_module(name).change) for name in sources])
    assert all(one != other for one, other in zip(*texts))


def test_a_function_of_a_module_within_a_package_of_the_user_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "whole.py").write_text(
        "import parts.light\ndef change(image, mask):\n    return parts.light.up(image), mask\n"
    )
    texts = []
    for factor in (0.5, 0.25):
        (tmp_path / "parts" / "light.py").write_text(f"def up(image):\n    return image * {factor}\n")
        for name in ("whole", "parts", "parts.light"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        texts.append(as_text(importlib.import_module("whole").change))
    assert texts[0] != texts[1]


def test_a_global_variable_with_the_name_of_an_attribute_does_not_count():
    def named(shape):
        names = {"__name__": "augmentations", "shape": shape}
        exec("def change(image, mask):\n    return image.shape, mask", names)
        return as_text(names["change"])

    assert named(1) == named(2)


def test_random_generators_do_not_count_by_their_state():
    class Noise:
        def __init__(self):
            self.generator = np.random.default_rng()

    noise = Noise()
    before = as_text(noise)
    noise.generator.random()
    assert as_text(noise) == before == as_text(Noise())


def test_a_function_that_calls_itself_and_many_that_call_each_other_are_described_soon():
    calls = "\n".join(f"def f{n}(x):\n    return " + " + ".join(f"f{m}(x)" for m in range(n + 1)) for n in range(40))
    names = {"__name__": "augmentations"}
    exec(calls, names)
    assert as_text(names["f39"]).startswith("f39 ")


def test_a_function_has_the_same_name_in_a_process_with_other_hashes():
    source = "def change(image, mask):\n    return (image if image in {'a', 'b', 'c', 'd'} else -image), mask"
    code = (
        f"from skmmcrf.estimators.identity import as_text\n{source}\nprint(as_text(change), [*{{'a', 'b', 'c', 'd'}}])"
    )
    names = {}
    exec(source, names)
    own = f"{as_text(names['change'])} {[*{'a', 'b', 'c', 'd'}]}\n"
    others = (
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in "123456"
    )
    other = next(other for other in others if other != own)  # which orders a set otherwise
    assert other.split()[:2] == own.split()[:2]
