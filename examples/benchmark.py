r"""The three ways on real data, with seeds
=======================================

Train the three ways on a folder of labelled images, with several seeds, and compare them on the validation images.

The folder holds images/, masks/ and the lists train.txt and val.txt. For each seed a network is pretrained once (CNN);
the field is learned on it (piecewise), and both are trained together (joint). Prints the mean Jaccard index, the
boundary F-measure and the share of wrong pixels, which is what the margin counts, with their standard errors over the
seeds, and the differences of the ways with bootstrap intervals over the images; writes all of it as JSON, and pictures.
What was done is kept in the output folder, so that the same command, started again, goes on where it was ended::

    python examples/benchmark.py horses --weights mobilenet_v2.pth --seeds 0 1 2 --out results \
        --set cnn__n_epochs=90 C=1.0 n_epochs=8

With more than two classes it prints the mean Jaccard index over the classes, of the pixels of all images together, and
the share of right pixels. Their intervals come from the pooled measures of images drawn with replacement. It also
prints the share of labelings that are proved to be of least energy, and how long predicting takes. The index of each
class is in the JSON.

--configure finds the settings by `skmmcrf.configure`, except those of --set. "--configure 60" gives 60 minutes to
finding them and training.
"""

import argparse
import ast
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from skmmcrf import DeepStructuredSegmenter, __version__, configure, load
from skmmcrf.datasets import load_image_folder
from skmmcrf.display import SegmentationDisplay, TrainingCurveDisplay
from skmmcrf.metrics import boundary_f_measures, confusion_matrices, evaluate, jaccard_indices, jaccard_of_confusion

WAYS = {"cnn": "CNN", "piecewise": "piecewise", "joint": "joint"}
#: Parameters that change nothing but the time and what is printed.
OF_NO_INFLUENCE = {"n_jobs", "verbose"}


def wrong_pixels(truths, predictions):
    """Share of wrong labels among each image's labelled pixels, NaN if there are none."""
    wrong = [(found != truth)[truth != 255] for truth, found in zip(truths, predictions)]
    return np.array([pixels.mean() if pixels.size else np.nan for pixels in wrong])


def pooled_jaccard(confusion):
    """Mean Jaccard index over the classes of all pixels in confusion matrices (images, K, K)."""
    return np.nanmean(jaccard_of_confusion(np.sum(confusion, axis=0)))


def accuracy(confusion):
    """Share of right labels among all pixels in confusion matrices (images, K, K)."""
    pooled = np.sum(confusion, axis=0)
    return np.trace(pooled) / pooled.sum()


class Measure(NamedTuple):
    """What the table shows, which values of each image it comes from, and how."""

    title: str
    of_each: str
    over_images: Callable = np.nanmean


MEASURES = {
    "jaccard": Measure("mean Jaccard", "jaccard"),
    "boundary_f": Measure("boundary F", "boundary_f"),
    "wrong_pixels": Measure("wrong pixels", "wrong_pixels"),
}
OF_CLASSES = {
    "pooled_jaccard": Measure("pooled Jaccard", "confusion", pooled_jaccard),
    "accuracy": Measure("right pixels", "confusion", accuracy),
}


class Measured(NamedTuple):
    """The classes of a data set, their measures, and what these need of each image."""

    classes: list
    measures: dict
    of_each: dict


def measured(masks):
    """Find the classes in masks, and what is measured of them."""
    classes = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)) - {255})
    if len(classes) > 2:
        return Measured(classes, OF_CLASSES, {"confusion": partial(confusion_matrices, classes=classes)})
    of_each = {"jaccard": jaccard_indices, "boundary_f": boundary_f_measures, "wrong_pixels": wrong_pixels}
    return Measured(classes, MEASURES, of_each)


def parameter(text):
    """Read NAME=VALUE, where the value is a number, True, False, None, or else a string."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def with_labels(found):
    """An object of JSON, whose keys are strings, with labels as numbers again."""
    return {int(key) if key.lstrip("-").isdigit() else key: value for key, value in found.items()}


def found_settings(train, asked, file):
    """The settings that configure finds, for what is asked of it, or has found before."""
    if file.exists():
        return json.loads(file.read_text(), object_hook=with_labels)
    model = configure(train.images, train.masks, **asked)
    of_cnn = ("network_scale", "n_epochs", "batch_size", "crop", "class_weight")
    settings = {f"cnn__{name}": getattr(model.cnn, name) for name in of_cnn} | {"batch_size": model.batch_size}
    save_json(file, settings)
    return settings


def run_seed(train, val, what, parameters, seed, out, *, watch=False):
    """Train and measure the three ways from one pretrained network."""
    result = {"seed": seed, "version": __version__, "ways": {}}
    for way in WAYS:
        model = DeepStructuredSegmenter(
            training=way,
            memory=str(out / "memory"),
            checkpoint=out / f"seed_{seed}_{way}",
            random_state=seed,
        ).set_params(**parameters)
        start = time.perf_counter()
        model.fit(train.images, train.masks, validation_data=(val.images, val.masks) if watch else None)
        seconds = time.perf_counter() - start
        if way == "cnn":  # which may have been trained before, and be in the memory
            seconds = sum(epoch["seconds"] for epoch in model.history_)
        start = time.perf_counter()
        predictions = model.predict(val.images)
        ms = 1000 * (time.perf_counter() - start) / len(predictions)
        values = {name: of_each(val.masks, predictions).tolist() for name, of_each in what.of_each.items()}
        if len(what.classes) > 2:
            values |= {"ms_an_image": ms, "proved": float(np.mean(model.optimality_gap(val.images) == 0))}
        result["ways"][way] = values | {"seconds": seconds, "w": model.coef_.tolist(), "history": model.history_}
        main_measure = next(iter(what.measures.values()))
        score = main_measure.over_images(values[main_measure.of_each])
        print(f"seed {seed}, {WAYS[way]}: {100 * score:.2f} in {seconds:.0f} s", flush=True)
        model.set_params(memory=None, checkpoint=None).save(out / f"seed_{seed}_{way}.safetensors")
    return result


def values_of(results, way, of_each):
    """Values of each image, of shape (seeds, images), or (seeds, images, K, K) of confusion matrices."""
    return np.array([result["ways"][way][of_each] for result in results])


def mean_and_error(values, over_images=np.nanmean):
    """Mean of a measure over the seeds, and its standard error (NaN for one seed)."""
    of_seeds = np.array([over_images(of_seed) for of_seed in values])
    error = of_seeds.std(ddof=1) / np.sqrt(len(of_seeds)) if len(of_seeds) > 1 else np.nan
    return of_seeds.mean(), error


def mean_and_interval(values):
    """Mean of values of shape (seeds, images), with its 95 % interval by bootstrap over the images."""
    of_images = np.nanmean(values, axis=0)
    of_images = of_images[~np.isnan(of_images)]
    # scipy before 1.15 has no rng
    drawn = bootstrap((of_images,), np.mean, n_resamples=10_000, method="percentile", random_state=0)
    interval = drawn.confidence_interval
    return {"mean": of_images.mean(), "low": interval.low, "high": interval.high}


def difference_and_interval(ours, others, over_images):
    """Difference of a measure of the values of two ways, with its 95 % interval by bootstrap over the images."""
    if over_images is np.nanmean:
        return mean_and_interval(ours - others)

    def difference(numbers):
        pairs = zip(ours, others)
        return np.mean(
            [over_images(of_ours[numbers]) - over_images(of_others[numbers]) for of_ours, of_others in pairs]
        )

    numbers = np.arange(ours.shape[1])
    drawn = bootstrap((numbers,), difference, vectorized=False, n_resamples=2000, method="percentile", random_state=0)
    interval = drawn.confidence_interval
    return {"mean": difference(numbers), "low": interval.low, "high": interval.high}


def of_each_class(results, way, classes):
    """Jaccard index of each class over the pixels of all images, as a mean over the seeds. None if it never occurs."""
    pooled = values_of(results, way, "confusion").sum(axis=1)
    means = jaccard_of_confusion(pooled).mean(axis=0)
    return {str(label): None if np.isnan(mean) else mean for label, mean in zip(classes, means)}


def summarise(results, what):
    """What the table says, as numbers."""
    table = {}
    for way in WAYS:
        table[way] = {"seconds": float(np.median([result["ways"][way]["seconds"] for result in results]))}
        for name, measure in what.measures.items():
            values = values_of(results, way, measure.of_each)
            table[way][name], table[way][f"{name}_error"] = mean_and_error(values, measure.over_images)
        if "confusion" in what.of_each:
            table[way]["jaccard_of_classes"] = of_each_class(results, way, what.classes)
            for name in ("proved", "ms_an_image"):
                table[way][name] = float(np.mean([result["ways"][way][name] for result in results]))
    pairs = [*pairwise(WAYS), ("cnn", "joint")]
    differences = {
        name: {
            f"{b} - {a}": difference_and_interval(
                *(values_of(results, way, measure.of_each) for way in (b, a)), measure.over_images
            )
            for a, b in pairs
        }
        for name, measure in what.measures.items()
    }
    return {"seeds": [result["seed"] for result in results], "table": table, "differences": differences}


def print_difference(name, difference):
    """Print a mean difference with its interval."""
    mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    print(f"{name}: {mean:+.2f} ({low:+.2f} to {high:+.2f})")


def print_summary(summary, measures):
    """Print the table as Markdown."""
    titles = [measure.title for measure in measures.values()]
    print(f"\n| | {' % | '.join(titles)} % | seconds |\n| --- |{' ---: |' * (len(titles) + 1)}")
    for way, row in summary["table"].items():
        cells = (f"{100 * row[name]:.2f} ± {100 * row[f'{name}_error']:.2f}" for name in measures)
        print(f"| {WAYS[way]} | {' | '.join(cells)} | {row['seconds']:.0f} |")
    for way, row in summary["table"].items():
        if "proved" in row:
            proved, ms = 100 * row["proved"], row["ms_an_image"]
            print(f"\n{WAYS[way]}: {proved:.0f} % of the labelings proved of least energy, {ms:.0f} ms an image")
    for measure, differences in summary["differences"].items():
        print(f"\n{measures[measure].title}")
        for name, difference in differences.items():
            print_difference(name, difference)


def save_pictures(val, out, seed):
    """Draw results from the worst to the best of one seed's joint model, and its curves of training."""
    models = {WAYS[way]: load(out / f"seed_{seed}_{way}.safetensors") for way in WAYS}
    order = np.argsort(evaluate(models["joint"], val.images, val.masks)["jaccard"])
    shown = order[np.linspace(0, len(order) - 1, 6).astype(int)]
    images, masks = ([part[n] for n in shown] for part in (val.images, val.masks))
    SegmentationDisplay.from_estimator(models, images, masks).figure_.savefig(out / "segmentations.png", dpi=100)
    TrainingCurveDisplay.from_estimator(models["joint"]).figure_.savefig(out / "history.png", dpi=100)


def parse(description, **further):
    """Read the command line, with further arguments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with images/, masks/, train.txt and val.txt")
    for name, options in further.items():
        parser.add_argument(name, **options)
    parser.add_argument("--network", default="unet_mobilenet_v2", help="unet, or unet_ or fcn8s_ and a backbone")
    parser.add_argument(
        "--weights", default="imagenet", help="the backbone's state dict (else torchvision downloads it)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--jobs", type=int, default=-1, help="threads for the minimum cuts (default: all cores)")
    parser.add_argument(
        "--set",
        type=parameter,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="of DeepStructuredSegmenter, or cnn__NAME=VALUE of its CNNSegmenter",
    )
    return parser.parse_args()


def parameters_of(arguments):
    """Parameters of the estimator that the command line asks for."""
    return {
        "cnn__network": arguments.network,
        "cnn__weights": None if arguments.network == "unet" else arguments.weights,
        "n_jobs": arguments.jobs,
        "verbose": 1,
        **dict(arguments.set),
    }


def comparable(parameters):
    """Parameters as JSON keeps them, without those that change no result."""
    return {name: value for name, value in json.loads(json.dumps(parameters)).items() if name not in OF_NO_INFLUENCE}


def check_result(file, parameters, what):
    """End here if a result that is there already can't be compared."""
    result = json.loads(file.read_text())
    if comparable(result["parameters"]) != comparable(parameters):
        sys.exit(f"{file} is of other data or parameters; give another --out")
    if missing := what.of_each.keys() - result["ways"]["cnn"]:
        sys.exit(f"{file} lacks {', '.join(sorted(missing))}, by an earlier version; give another --out")


def save_json(file, content):
    """Write a file as a whole, so that none is ever found half written."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(file)


def main():
    arguments = parse(
        __doc__,
        **{
            "--watch": {"action": "store_true", "help": "measure the validation images after each epoch too"},
            "--configure": {
                "type": float,
                "nargs": "?",
                "const": 40.0,
                "metavar": "MINUTES",
                "help": "let configure find the settings, before those of --set, for these minutes (default: 40)",
            },
        },
    )
    parameters = parameters_of(arguments)
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    what = measured([*train.masks, *val.masks])
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {seed: arguments.out / f"seed_{seed}.json" for seed in arguments.seeds}
    data_name = Path(arguments.data).resolve().name
    asked = parameters | {"configure": arguments.configure, "data": data_name}
    for file in filter(Path.exists, files.values()):
        check_result(file, asked, what)
    for seed, file in files.items():
        if file.exists():
            continue
        settings = {}
        if minutes := arguments.configure:
            of_network = {name: parameters[f"cnn__{name}"] for name in ("network", "weights")}
            of_run = {"time_budget": 60 * minutes, "random_state": seed}
            file_of_settings = arguments.out / f"{data_name}_settings_{minutes:g}_minutes_{seed}.json"
            settings = found_settings(train, of_network | of_run, file_of_settings)
        result = run_seed(train, val, what, settings | parameters, seed, arguments.out, watch=arguments.watch)
        save_json(file, result | {"parameters": asked, "settings": settings})
    results = [json.loads(file.read_text()) for file in files.values()]
    summary = summarise(results, what)
    save_json(arguments.out / "summary.json", summary)
    print_summary(summary, what.measures)
    save_pictures(val, arguments.out, arguments.seeds[0])


if __name__ == "__main__":
    main()
