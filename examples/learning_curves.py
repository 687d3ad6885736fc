"""How few images will do
======================

How few labelled images will do: the ways of training against the number of training images.

The folder is one as for benchmark.py. From the first so many of a random order of the training images, four models are
trained: a network by the log-likelihood, and one with which the field is trained jointly from there; a network by the
Dice loss with the field learned on it, and one with which the field is trained jointly from there. Each number of
images gets as many steps. Prints the mean Jaccard index of the validation images with its standard error over the
seeds, and what joint training gains with a bootstrap interval over the images; writes the results as JSON, goes on
where it was ended, and draws the curves::

    python examples/learning_curves.py horses 10 20 40 80 150 --weights squeezenet1_1.pth --seeds 0 1 2 --out curves
"""

import json

import matplotlib.pyplot as plt
import numpy as np
from benchmark import mean_and_error, mean_and_interval, parameters_of, parse, print_difference, save_json

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder
from skmmcrf.metrics import jaccard_indices

MODELS = {
    "log-likelihood": {"training": "cnn", "cnn__loss": "log_likelihood"},
    "Dice loss + piecewise": {"training": "piecewise", "cnn__loss": "dice"},
    "joint": {"training": "joint", "cnn__loss": "log_likelihood"},
    "Dice loss + joint": {"training": "joint", "cnn__loss": "dice"},
}
COMPARED = [
    ("joint", "log-likelihood"),
    ("joint", "Dice loss + piecewise"),
    ("Dice loss + joint", "Dice loss + piecewise"),
]


def fit(parameters, train, n_images, seed, out):
    """Train on some of the images, for as many steps as the parameters take on all."""
    chosen = np.random.default_rng(seed).permutation(len(train.images))[:n_images]
    model = DeepStructuredSegmenter(memory=str(out / "memory"), random_state=seed).set_params(**parameters)
    times = len(train.images) / n_images
    of_cnn, of_joint = (round(times * part.epochs_for(len(train.images))) for part in (model.cnn, model))
    model.set_params(cnn__n_epochs=of_cnn, n_epochs=of_joint)
    return model.fit([train.images[n] for n in chosen], [train.masks[n] for n in chosen])


def main():
    arguments = parse(__doc__, sizes={"type": int, "nargs": "+", "help": "numbers of training images"})
    parameters = parameters_of(arguments)
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "learning_curves.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for n_images in arguments.sizes:
        for seed in arguments.seeds:
            for name, changed in MODELS.items():
                key = f"{name}, {n_images} images, seed {seed}"
                if key not in results:
                    model = fit(parameters | changed, train, n_images, seed, arguments.out)
                    results[key] = jaccard_indices(val.masks, model.predict(val.images)).tolist()
                    save_json(file, results)

    figure, axes = plt.subplots(layout="constrained")
    print(f"| images | {' | '.join(MODELS)} |\n| ---: |{' ---: |' * len(MODELS)}")
    values = {
        name: [
            np.array([results[f"{name}, {n} images, seed {seed}"] for seed in arguments.seeds]) for n in arguments.sizes
        ]
        for name in MODELS
    }
    curves = {name: list(map(mean_and_error, of_sizes)) for name, of_sizes in values.items()}
    for n, row in zip(arguments.sizes, zip(*curves.values())):
        print(f"| {n} | {' | '.join(f'{100 * mean:.2f} ± {100 * error:.2f}' for mean, error in row)} |")
    print()
    for a, b in COMPARED:
        for n, ours, others in zip(arguments.sizes, values[a], values[b]):
            print_difference(f"{n} images, {a} - {b}", mean_and_interval(ours - others))
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
