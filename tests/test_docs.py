"""The README runs, the reference has every public name, with a docstring as numpydoc wants it, and pages are plain."""

import importlib
import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from numpydoc.validate import validate
from PIL import Image

from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "api.rst"
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
#: What is not asked for: summaries of one line, and verbs of one form in them; text beyond a summary that says all, or
#: for parameters whose name and type do; "See Also"; capitals where symbols are lower case; quotes on their own lines.
LEFT_OUT = {"SS05", "SS06", "ES01", "PR07", "RT03", "SA01", "PR08", "RT04", "GL01"}
#: What users call is documented with parameters, results and examples. Elsewhere names and types may say all.
FOR_USERS = tuple(
    f"skmmcrf.{name}" for name in ("datasets", "display", "estimators", "metrics", "report", "training.loss")
)
METHODS_FOR_USERS = {
    *("decision_function", "energy", "fit", "predict", "predict_confidence", "predict_proba", "save", "score"),
    "transform",
}
MODULES = [
    "skmmcrf",
    *(f"skmmcrf.{name}" for name in ("datasets", "field", "learning", "metrics", "networks")),
]


def test_the_code_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cnn, "_MOST_EPOCHS", 2)
    for folder in ("scans", "masks"):
        Path(folder).mkdir()
    names = [f"{patient}_{n}" for patient in ("anna", "ben", "cleo", "dora", "emil") for n in (1, 2)]
    for name, image, mask in zip(names, *make_phantoms(10, shape=(32, 48), random_state=0)):
        Image.fromarray(image).save(f"scans/{name}.jpg")
        Image.fromarray(255 * mask).save(f"masks/{name}_mask.png")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert sorted(file.name for file in Path("results").iterdir()) == ["cleo_1.png", "cleo_2.png"]
    assert Path("model.safetensors").is_file()


def test_the_guide_lists_every_question():
    for page in sorted((ROOT / "docs" / "guide").glob("*.md")):
        if page.stem == "faq":  # whose headings are no questions
            continue
        titles = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        listed = re.findall(rf"^- \[(.+)\?\]\(guide/{page.name}#", GUIDE, re.MULTILINE)
        assert listed == titles, page.name


def test_links_of_the_readme_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert "docs/tutorial.md" in links
    assert not [link for link in links if not (ROOT / link).is_file()]


def names_in_reference():
    module = None
    for line in REFERENCE.read_text().splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"   (\w+)$", line):
            yield f"{module}.{found[1]}"


NAMES = list(names_in_reference())


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    module = importlib.import_module(module)
    public = {name for name in module.__all__ if callable(getattr(module, name))}
    assert {f"{module.__name__}.{name}" for name in public} <= set(NAMES)


def errors_of(thing, for_users, may_lack=()):
    may_lack = {*LEFT_OUT, *may_lack}
    if not for_users:
        may_lack |= {"RT01", "YD01", "EX01"} | (set() if "Parameters\n" in thing.__doc__ else {"PR01"})
    errors = validate(f"{thing.__module__}.{thing.__qualname__}")["errors"]
    return [text for code, text in errors if code not in may_lack]


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_are_valid(name):
    module, _, member = name.rpartition(".")
    thing = getattr(importlib.import_module(module), member)
    for_users = thing.__module__.startswith(FOR_USERS)
    # of results, the attributes are told
    is_result = is_dataclass(thing) or (inspect.isclass(thing) and issubclass(thing, tuple))
    assert not errors_of(thing, for_users, {"EX01", "PR01"} if is_result else ())
    for key, method in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(method) and not key.startswith("_"):
            assert not errors_of(method, for_users and key in METHODS_FOR_USERS, {"EX01"}), key


PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("**/*.md")))]
#: Fenced and indented code, mathematics, tables, headings and directives are no prose.
NO_PROSE = [
    r"^ *(```|~~~).*?^ *\1 *$",
    r"^\$\$.*?^\$\$",
    r"^ *(\||#|:::|:[\w-]+:).*?$",
    r"(?<=\n\n)( {4}[^\n]*\n|\n)+",
]
FAULTS = {"more than 35 words": r"(\S+\s+){35}\S+", "clauses chained by ;": r";\s", "no subject": r"^There (is|are)\b"}


def faults_of(markdown):
    for pattern in NO_PROSE:
        markdown = re.sub(pattern, "\n", markdown, flags=re.MULTILINE | re.DOTALL)
    markdown = re.sub(r"`[^`]+`|\$[^$]+\$", "x", markdown)
    for block in re.split(r"\n\s*\n|\n *(?:[-*>]|\d+\.) ", "\n" + markdown):
        for sentence in re.split(r"(?<=[.!?:])[*\")]*\s+(?=[*\"(]*[A-Zx])", " ".join(block.split())):
            yield from (f"{name}: {sentence}" for name, fault in FAULTS.items() if re.search(fault, sentence))


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short_and_have_one_thought(page):
    assert not list(faults_of((ROOT / page).read_text(encoding="utf-8")))


def test_faults_are_found_in_prose_alone():
    words = 36 * "word "
    code = f"```python\n{words}; a\n```\n\n    {words}; a\n\n| a; b | {words} |\n"
    assert not list(faults_of(f"# Title\n\n{code}\nA sentence.\n- An item;\n- `a; b`.\n"))
    assert len(list(faults_of(f"{code}\nOne thought; another.\n- There is one. {words.capitalize()}\n"))) == 3
