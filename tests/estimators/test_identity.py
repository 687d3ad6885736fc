import os
import subprocess
import sys

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
    ],
)
def test_a_changed_function_has_another_name_in_memory_and_checkpoint(source):
    def named(factor):
        names = {"__name__": "augmentations"}
        exec(source.format(factor), names)
        return as_text(names["change"])

    assert named(0.5) == named(0.5) != named(0.9)


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
