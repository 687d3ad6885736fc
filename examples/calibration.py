"""How sure a label is
===================

Hold the network's log-odds and those that the field smooths against the truth of the validation images.

The folder is one as for benchmark.py. Each scale is turned into probabilities of foreground by the logistic function:
the network's log-odds, the smoothed ones, and the smoothed ones in units of the energy, times the first weight. Prints
the expected calibration error of the probabilities, and how well the sizes tell wrong labels of `predict` from right
ones, as the area under the ROC curve. Draws the reliability diagram::

    python examples/calibration.py heads --weights mobilenet_v2.pth --out results --set cnn__n_epochs=25 n_epochs=3
"""

import matplotlib.pyplot as plt
import numpy as np
from benchmark import parameters_of, parse
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder

N_BINS = 15


def flat(images, labelled):
    """The labelled pixels of all images."""
    return np.concatenate([np.asarray(image)[known] for image, known in zip(images, labelled)])


def reliability(probability, truth):
    """Mean probability and share of foreground of each bin, with the share of pixels, of the bins that have any."""
    bins = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    sums = np.stack([np.bincount(bins, values, N_BINS) for values in (probability, truth)])[:, counts > 0]
    return (*sums / counts[counts > 0], counts[counts > 0] / len(truth))


def main():
    arguments = parse(__doc__)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    labelled = [mask != 255 for mask in val.masks]
    truth = flat(val.masks, labelled) == 1
    _, ax = plt.subplots(layout="constrained")
    for seed in arguments.seeds:
        model = DeepStructuredSegmenter(random_state=seed).set_params(**parameters_of(arguments))
        model.fit(train.images, train.masks)
        network, smoothed = (
            flat(method(val.images), labelled) for method in (model.decision_function, model.predict_confidence)
        )
        is_wrong = (smoothed > 0) != truth
        print(
            f"seed {seed}: {is_wrong.mean():.2%} of the labels are wrong, {((network > 0) != truth).mean():.2%} by sign"
        )
        scales = {"network": network, "smoothed": smoothed, "smoothed, energy": model.coef_[0] * smoothed}
        for name, values in scales.items():
            expected, found, share = reliability(expit(values.astype(float)), truth)
            error, area = share @ np.abs(expected - found), roc_auc_score(is_wrong, -np.abs(values))
            print(f"{name}: calibration error {error:.4f}, area {area:.4f}")
            ax.plot(expected, found, marker="o", label=f"{name}, seed {seed}")
    ax.plot([0, 1], [0, 1], color="gray", linestyle="--")
    ax.set(xlabel="probability of foreground", ylabel="share of foreground")
    ax.legend()
    plt.savefig(arguments.out / "reliability.png")


if __name__ == "__main__":
    main()
