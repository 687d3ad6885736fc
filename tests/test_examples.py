"""The examples run as they stand, on small data."""

import json
import re
import runpy
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.metrics import jaccard_score

from skmmcrf import configure, datasets, load
from skmmcrf.metrics import mean_pooled_jaccard

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


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
def test_a_field_helps_the_chamber_of_three_classes(capsys, tmp_path):
    runpy.run_path(str(EXAMPLES / "plot_classes.py"))
    out = capsys.readouterr().out
    (cnn, piecewise) = (float(index) for index in re.findall(r": background .* chamber ([\d.]+), vessels", out))
    assert piecewise > cnn > 50
    assert (tmp_path / "classes.png").exists()


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


def write_folder(folder):
    X, y = datasets.make_phantoms(5, shape=(32, 48), random_state=0)
    for part, arrays in {"images": X, "masks": y}.items():
        (folder / part).mkdir()
        for n, array in enumerate(arrays):
            Image.fromarray(array).save(folder / part / f"{n}.png")
    (folder / "train.txt").write_text("0\n1\n2\n")
    (folder / "val.txt").write_text("3\n4\n")
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "weights.pth")


def run_on_folder(monkeypatch, name, arguments, settings=""):
    quick = "--network unet_squeezenet1_1 --weights weights.pth --set cnn__n_epochs=2 n_epochs=1 cnn__augmentation=flip"
    command = f"{name} {arguments} --jobs 1 --out results {quick} {settings}"
    monkeypatch.setattr(sys, "argv", command.split())
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_benchmark_compares_the_three_ways_and_goes_on_where_it_was(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    settings = "cnn__class_weight={0:1.0,1:2.0}"
    run_on_folder(monkeypatch, "benchmark.py", tmp_path, settings)
    assert capsys.readouterr().out.count("Pretraining of the network") == 1  # one network for all three
    run_on_folder(monkeypatch, "benchmark.py", f"{tmp_path} --seeds 0 1 --watch", settings)
    out = capsys.readouterr().out
    assert "seed 0" not in out
    number = r"([\d.]+) ± ([\d.]+)"
    table = re.findall(rf"^\| (\w+) \| {number} \| {number} \| {number} \| \d+ \|$", out, re.MULTILINE)
    assert [row[0] for row in table] == ["CNN", "piecewise", "joint"]
    results = [json.loads((tmp_path / "results" / f"seed_{seed}.json").read_text()) for seed in (0, 1)]
    assert ["valid_jaccard" in result["ways"]["joint"]["history"][-1] for result in results] == [False, True]
    ways, measures = ("cnn", "piecewise", "joint"), ("jaccard", "boundary_f", "wrong_pixels")
    for way, row in zip(ways, table):
        for measure, mean, error in zip(measures, row[1::2], row[2::2]):
            means = [sum(result["ways"][way][measure]) / 2 for result in results]
            assert float(mean) == pytest.approx(50 * sum(means), abs=0.01)
            assert float(error) == pytest.approx(50 * abs(means[0] - means[1]), abs=0.01)
    val = datasets.load_image_folder(tmp_path, "val")
    model = load(tmp_path / "results" / "seed_0_joint.safetensors")
    wrong = [np.mean(found != truth) for found, truth in zip(model.predict(val.images), val.masks)]
    assert results[0]["ways"]["joint"]["wrong_pixels"] == pytest.approx(wrong)
    differences = json.loads((tmp_path / "results" / "summary.json").read_text())["differences"]
    assert set(differences) == set(measures)
    for measure, of_ways in differences.items():
        for name, d in of_ways.items():
            assert d["low"] <= d["mean"] <= d["high"], (measure, name)
    assert {"segmentations.png", "history.png"} <= {file.name for file in (tmp_path / "results").iterdir()}
    run_on_folder(monkeypatch, "benchmark.py", f"{tmp_path} --seeds 0 1", f"{settings} n_jobs=2 verbose=0")
    assert "seed 1" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="of other data or parameters"):
        run_on_folder(monkeypatch, "benchmark.py", f"{tmp_path} --seeds 2 0", "C=2")
    assert "seed 2" not in capsys.readouterr().out  # before any work
    others = tmp_path / "others"
    others.mkdir()
    write_folder(others)
    with pytest.raises(SystemExit, match="of other data"):
        run_on_folder(monkeypatch, "benchmark.py", others, settings)
    for of_way in results[0]["ways"].values():
        del of_way["wrong_pixels"]
    (tmp_path / "results" / "seed_0.json").write_text(json.dumps(results[0]))
    with pytest.raises(SystemExit, match="lacks wrong_pixels"):
        run_on_folder(monkeypatch, "benchmark.py", tmp_path, settings)


def test_benchmark_takes_the_settings_that_configure_finds_but_those_that_are_set(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    budgets = []

    def noting(*data, **parameters):
        budgets.append(parameters["time_budget"])
        return configure(*data, **parameters)

    monkeypatch.setattr("skmmcrf.configure", noting)
    with pytest.warns(UserWarning, match="number of images with foreground is 3"):
        run_on_folder(monkeypatch, "benchmark.py", f"{tmp_path} --configure 20")
    result = json.loads((tmp_path / "results" / "seed_0.json").read_text())
    assert (result["settings"]["cnn__network_scale"], result["settings"]["cnn__n_epochs"]) == (1.0, 300)
    assert budgets == [1200.0]
    assert [row["epoch"] for row in result["ways"]["cnn"]["history"]] == [1, 2]
    with pytest.raises(SystemExit, match="of other data or parameters"):
        run_on_folder(monkeypatch, "benchmark.py", tmp_path)


def test_settings_found_before_have_the_class_weights_of_the_same_labels(tmp_path):
    benchmark = runpy.run_path(str(EXAMPLES / "benchmark.py"))
    settings = {"cnn__network_scale": 0.7, "cnn__class_weight": {-1: 1.0, 2: 3.5}, "cnn__crop": None}
    benchmark["save_json"](tmp_path / "settings.json", settings)
    assert benchmark["found_settings"](None, {}, tmp_path / "settings.json") == settings


def test_wrong_pixels_are_counted_among_the_labelled():
    wrong_pixels = runpy.run_path(str(EXAMPLES / "benchmark.py"))["wrong_pixels"]
    truths = [np.array([[0, 1, 255, 1]]), np.full((2, 2), 255)]
    found = [np.array([[1, 1, 1, 0]]), np.ones((2, 2), dtype=int)]
    np.testing.assert_array_equal(wrong_pixels(truths, found), [2 / 3, np.nan])


def results_of_classes(seed, n_seeds=2, n_images=30):
    """What the benchmark keeps of three classes, of which the second way mends some pixels and the third none."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(3, size=(n_images, 6, 7))
    truths[rng.uniform(size=truths.shape) < 0.1] = 255
    ways = [{} for _ in range(n_seeds)]
    for of_seed in ways:
        first = np.where(rng.uniform(size=truths.shape) < 0.6, truths % 255, rng.integers(3, size=truths.shape))
        better = np.where(rng.uniform(size=truths.shape) < 0.3, truths % 255, first)
        of_seed |= {"cnn": first, "piecewise": better, "joint": better}
    return truths, ways


def test_the_benchmark_of_several_classes_pools_the_pixels_of_all_images(capsys):
    benchmark = runpy.run_path(str(EXAMPLES / "benchmark.py"))
    truths, found = results_of_classes(0)
    what = benchmark["measured"](truths)
    assert what.classes == [0, 1, 2]
    results = [
        {
            "seed": n,
            "ways": {
                way: {
                    "seconds": 1.0,
                    "ms_an_image": 7.0,
                    "proved": 0.5,
                    "confusion": what.of_each["confusion"](truths, labels).tolist(),
                }
                for way, labels in of_seed.items()
            },
        }
        for n, of_seed in enumerate(found)
    ]
    summary = json.loads(json.dumps(benchmark["summarise"](results, what)))
    labelled = truths != 255
    pooled = np.array(
        [
            [jaccard_score(truths[labelled], labels[labelled], average=None) for labels in of_seed.values()]
            for of_seed in found
        ]
    )
    right = np.array([[np.mean((truths == labels)[labelled]) for labels in of_seed.values()] for of_seed in found])
    for n, row in enumerate(summary["table"].values()):
        assert row["pooled_jaccard"] == pytest.approx(pooled[:, n].mean())
        assert row["pooled_jaccard_error"] == pytest.approx(abs(np.diff(pooled[:, n].mean(axis=1))[0]) / 2)
        assert row["accuracy"] == pytest.approx(right[:, n].mean())
        assert list(row["jaccard_of_classes"]) == ["0", "1", "2"]
        assert list(row["jaccard_of_classes"].values()) == pytest.approx(pooled[:, n].mean(axis=0).tolist())
    gain, nothing = (
        summary["differences"]["pooled_jaccard"][name] for name in ("piecewise - cnn", "joint - piecewise")
    )
    assert gain["mean"] == pytest.approx((pooled[:, 1] - pooled[:, 0]).mean())
    assert 0 < gain["low"] < gain["mean"] < gain["high"]
    # the shares of right pixels of images of about one size are nearly those of all pixels
    gains = [(of_seed["piecewise"] == truths).astype(int) - (of_seed["cnn"] == truths) for of_seed in found]
    of_images = np.sum(np.mean(gains, axis=0) * labelled, axis=(1, 2)) / labelled.sum(axis=(1, 2))
    spread = summary["differences"]["accuracy"]["piecewise - cnn"]
    half = 1.96 * np.std(of_images) / np.sqrt(len(truths))
    assert (spread["high"] - spread["low"]) / 2 == pytest.approx(half, rel=0.15)
    assert nothing == {"mean": 0, "low": 0, "high": 0}
    benchmark["print_summary"](summary, what.measures)
    out = capsys.readouterr().out
    assert "| | pooled Jaccard % | right pixels % | seconds |" in out
    assert f"\n| CNN | {100 * pooled[:, 0].mean():.2f} ± " in out
    assert "\njoint: 50 % of the labelings proved of least energy, 7 ms an image\n" in out


def test_benchmark_takes_several_classes(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    for n in range(5):
        mask = np.array(Image.open(tmp_path / "masks" / f"{n}.png"))
        mask[:4], mask[-4:] = 2, 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{n}.png")
    run_on_folder(monkeypatch, "benchmark.py", tmp_path)
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    val = datasets.load_image_folder(tmp_path, "val")
    for way in ("cnn", "piecewise", "joint"):
        model = load(tmp_path / "results" / f"seed_0_{way}.safetensors")
        row = summary["table"][way]
        pooled = mean_pooled_jaccard(val.masks, model.predict(val.images), classes=range(3))
        assert row["pooled_jaccard"] == pytest.approx(pooled)
        assert row["proved"] == np.mean(model.optimality_gap(val.images) == 0)
    assert re.search(rf"^\| joint \| {100 * pooled:.2f} ± nan \|", out, re.MULTILINE)
    assert re.search(r"^CNN: 100 % of the labelings proved of least energy, \d+ ms an image$", out, re.MULTILINE)
    assert (tmp_path / "results" / "segmentations.png").exists()
    run_on_folder(monkeypatch, "learning_curves.py", f"{tmp_path} 3")
    assert re.search(r"^\| 3 \| [\d.]+ ± nan \|", capsys.readouterr().out, re.MULTILINE)


def test_calibration_measures_three_scales(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    run_on_folder(monkeypatch, "calibration.py", tmp_path)
    out = capsys.readouterr().out
    rows = re.findall(r"^(\w+.*): calibration error (0\.\d+), area ([01]\.\d+)$", out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["network", "smoothed", "smoothed, energy"]
    assert rows[1][2] == rows[2][2]
    with Image.open(tmp_path / "results" / "reliability.png") as picture:
        assert min(picture.size) > 300


def test_reliability_compares_probabilities_with_shares(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    reliability = runpy.run_path(str(EXAMPLES / "calibration.py"))["reliability"]
    expected, found, share = reliability(np.array([0.0, 0.02, 1.0, 0.98]), np.array([False, True, True, True]))
    np.testing.assert_allclose([expected, found, share], [[0.01, 0.99], [0.5, 1.0], [0.5, 0.5]])


def test_ablations_change_one_thing_at_a_time(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    run_on_folder(monkeypatch, "ablations.py", tmp_path)
    rows = json.loads((tmp_path / "results" / "ablations.json").read_text())
    table = re.findall(r"^\| (\w+: .*?) \| ([\d.]+) \|", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in table] == list(rows)
    assert len(rows) == 4 + 9 + 21
    plain = rows["piecewise: 8 neighbours"]
    assert rows["piecewise: C = 1"]["objective"] == plain["objective"]
    assert rows["piecewise: C = 0.1"]["objective"] < plain["objective"] < rows["piecewise: C = 10"]["objective"]
    # fewer terms to choose from can't do better
    assert rows["piecewise: 8 neighbours, no contrast term"]["objective"] >= plain["objective"] - 1e-6
    held, of_batches = (row for name, row in rows.items() if name.startswith("joint: images as they are"))
    assert max(held["objective"], of_batches["objective"]) < plain["objective"]  # which both begin at
    for w in ("(1.0, 0.0, 0.0)", "(10.0, 100.0, 100.0)"):  # the optimum is one, wherever the way begins
        assert rows[f"piecewise: initial w = {w}"]["objective"] == pytest.approx(plain["objective"], rel=1e-3)
    run_on_folder(monkeypatch, "ablations.py", f"{tmp_path} --only piecewise:")
    assert capsys.readouterr().out.count("\n| piecewise: ") == 4 + 9
    assert json.loads((tmp_path / "results" / "ablations.json").read_text()) == rows


def test_learning_curves_train_on_some_of_the_images(capsys, tmp_path, monkeypatch):
    write_folder(tmp_path)
    run_on_folder(monkeypatch, "learning_curves.py", f"{tmp_path} 1 3")
    out = capsys.readouterr().out
    table = re.findall(r"^\| (\d) \|" + 3 * r" ([\d.]+) ± nan \|" + "$", out, re.MULTILINE)
    assert [row[0] for row in table] == ["1", "3"]
    assert re.search(r"^1 images, piecewise - CNN: [+-]\d+\.\d\d \([+-]", out, re.MULTILINE)
    assert "\n3 images, joint - piecewise: " in out
    results = json.loads((tmp_path / "results" / "learning_curves.json").read_text())
    assert float(table[1][3]) == pytest.approx(50 * sum(results["joint, 3 images, seed 0"]), abs=0.01)
    with Image.open(tmp_path / "results" / "learning_curves.png") as picture:
        assert min(picture.size) > 300
