"""The examples run as they stand, on small data."""

import re
import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
import torchvision
from PIL import Image

from skmmcrf import datasets

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)


def rows(out):
    return {name: float(score) for name, score in re.findall(r"^ *(\w+): ([\d.]+) %$", out, re.MULTILINE)}


@pytest.mark.slow
def test_three_ways_come_in_the_papers_order(capsys, tmp_path):
    runpy.run_path(str(EXAMPLES / "plot_three_ways.py"))
    scores = rows(capsys.readouterr().out)
    assert scores["joint"] > scores["piecewise"] > scores["CNN"] > 50
    with Image.open(tmp_path / "three_ways.png") as picture:
        assert min(picture.size) > 500


@pytest.mark.slow
def test_optimality_is_proved_to_eight_digits(capsys):
    runpy.run_path(str(EXAMPLES / "check_optimality.py"))
    _, *table = (line.split() for line in capsys.readouterr().out.splitlines())
    assert len(table) == 12
    for _, _, _, residual, gap, linear_system, differences, independent in table:
        assert max(float(residual), float(gap)) <= 1e-8
        assert linear_system == "degenerate" or float(linear_system) <= 1e-8
        assert float(differences) <= 1e-5
        assert float(independent) <= 1e-7


@pytest.mark.slow
def test_search_shows_the_time_with_and_without_memory(capsys):
    runpy.run_path(str(EXAMPLES / "search.py"))
    out = capsys.readouterr().out
    assert len(re.findall(r"^ *[\d.]+ +[\d.]+ +[\d.]+ % +[\d.]+ % +[\d.]+ % +[\d.]+ px$", out, re.MULTILINE)) == 6
    assert re.search(r"^without memory: \d+ s\nwith memory: \d+ s$", out, re.MULTILINE)


def test_horses_trains_on_a_folder(capsys, tmp_path, monkeypatch):
    X, y = datasets.make_phantoms(5, shape=(32, 48), random_state=0)
    for part, arrays in {"images": X, "masks": y}.items():
        (tmp_path / part).mkdir()
        for n, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / part / f"{n}.png")
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "val.txt").write_text("3\n4\n")
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    arguments = f"{tmp_path} --weights weights.pth --pretrain-epochs 2 --epochs 1 --jobs 1 --out pictures"
    monkeypatch.setattr(sys, "argv", ["horses.py", *arguments.split()])
    runpy.run_path(str(EXAMPLES / "horses.py"))
    assert list(rows(capsys.readouterr().out)) == ["CNN", "piecewise", "joint"]
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"segmentations.png", "history.png"}
