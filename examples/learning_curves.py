"""How few images will do
======================

How few labelled images will do: the three ways of training against the number of training images.

The folder is one as for benchmark.py. From the first so many of a random order of the training images, three models are
trained: a network (CNN), the field on it (piecewise), and both together (joint). Prints the Jaccard index of the
validation images, as in the first column of benchmark.py, with its standard error over the seeds, and the differences
of the ways with bootstrap intervals over the images; writes the results as JSON, goes on where it was ended, and draws
the curves::

    python examples/learning_curves.py horses 10 20 40 80 150 --weights mobilenet_v2.pth --seeds 0 1 2 --out curves
"""

import json
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from benchmark import (
    WAYS,
    difference_and_interval,
    mean_and_error,
    measured,
    parameters_of,
    parse,
    print_difference,
    save_json,
)

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder


def fit(parameters, train, n_images, seed, out):
    """Train on some of the images."""
    chosen = np.random.default_rng(seed).permutation(len(train.images))[:n_images]
    model = DeepStructuredSegmenter(memory=str(out / "memory"), random_state=seed).set_params(**parameters)
    return model.fit([train.images[n] for n in chosen], [train.masks[n] for n in chosen])


def main():
    arguments = parse(__doc__, sizes={"type": int, "nargs": "+", "help": "numbers of training images"})
    parameters = parameters_of(arguments)
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    what = measured([*train.masks, *val.masks])
    _, of_each, over_images = next(iter(what.measures.values()))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "learning_curves.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for n_images in arguments.sizes:
        for seed in arguments.seeds:
            for way, name in WAYS.items():
                key = f"{name}, {n_images} images, seed {seed}"
                if key not in results:
                    model = fit(parameters | {"training": way}, train, n_images, seed, arguments.out)
                    results[key] = what.of_each[of_each](val.masks, model.predict(val.images)).tolist()
                    save_json(file, results)

    figure, axes = plt.subplots(layout="constrained")
    print(f"| images | {' | '.join(WAYS.values())} |\n| ---: |{' ---: |' * len(WAYS)}")
    values = {
        name: [
            np.array([results[f"{name}, {n} images, seed {seed}"] for seed in arguments.seeds]) for n in arguments.sizes
        ]
        for name in WAYS.values()
    }
    curves = {name: [mean_and_error(each, over_images) for each in of_sizes] for name, of_sizes in values.items()}
    for n, row in zip(arguments.sizes, zip(*curves.values())):
        print(f"| {n} | {' | '.join(f'{100 * mean:.2f} ± {100 * error:.2f}' for mean, error in row)} |")
    print()
    for b, a in pairwise(WAYS.values()):
        for n, ours, others in zip(arguments.sizes, values[a], values[b]):
            print_difference(f"{n} images, {a} - {b}", difference_and_interval(ours, others, over_images))
    for name, curve in curves.items():
        means, errors = 100 * np.transpose(curve)
        axes.errorbar(arguments.sizes, means, np.nan_to_num(errors), capsize=3, label=name)
    axes.set(xscale="log", xlabel="training images", ylabel="mean Jaccard index (%)", xticks=arguments.sizes)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.legend()
    figure.savefig(arguments.out / "learning_curves.png", dpi=100)


if __name__ == "__main__":
    main()
