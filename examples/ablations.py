"""What each part is worth
=======================

What each part of the model is worth: one thing is changed at a time, all on the same pretrained network.

The folder is one as for benchmark.py. A network is pretrained once; then the field is learned on it, and for most rows
both are trained jointly, with one parameter changed. Prints the mean Jaccard index of the validation images, the value
of the objective, the weights, the passes of Algorithm 1 for them and the seconds for each row; writes them as JSON, and
goes on where it was ended. `--only` picks rows by what their names begin with::

    python examples/ablations.py horses --weights squeezenet1_1.pth --out ablations --only piecewise "joint: batches"
"""

import json
import time

import numpy as np
from benchmark import parameters_of, parse, save_json
from sklearn.utils import Bunch

from skmmcrf import DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import load_image_folder
from skmmcrf.energy import scale_image
from skmmcrf.metrics import jaccard_indices

#: A deviation so large that the contrast term is the same for all edges, and adds nothing to the smoothness term.
NO_CONTRAST = 1e3

PIECEWISE = {
    "8 neighbours": {},
    "4 neighbours": {"connectivity": 4},
    "8 neighbours, no contrast term": {"sigma": NO_CONTRAST},
    "4 neighbours, no contrast term": {"connectivity": 4, "sigma": NO_CONTRAST},
    **{f"C = {C:g}": {"C": C} for C in (0.01, 0.1, 1.0, 10.0, 100.0)},
}
JOINT = {
    **PIECEWISE,
    **{f"batches of {n}": {"batch_size": n} for n in (1, 5, 10, 50, 150)},
    **{f"{n} epochs": {"n_epochs": n} for n in (2, 5, 10, 20)},
    "images as they are": {"joint_augmentation": None},
    "images as they are, gradient by the linear system": {"joint_augmentation": None, "gradient": "kkt"},
    "mirrored images": {"joint_augmentation": "flip"},
}
#: Weights that Algorithm 1 starts from, beside the (1, 1, 1) of the others.
STARTS = [(1.0, 0.0, 0.0), (0.01, 0.01, 0.01), (1.0, 10.0, 10.0), (10.0, 100.0, 100.0)]


def measure(model, train, val):
    """Fit a model and measure it on the validation images."""
    start = time.perf_counter()
    model.fit(train.images, train.masks)
    seconds = time.perf_counter() - start
    return {
        "jaccard": float(np.nanmean(jaccard_indices(val.masks, model.predict(val.images)))),
        "objective": model.objective_,
        "w": model.coef_.tolist(),
        "passes": model.n_iter_,
        "seconds": seconds,
    }


def with_log_odds(cnn, data):
    """Stack a network's log-odds and the images, as MaxMarginCRF takes them."""
    log_odds = cnn.decision_function(data.images)
    return Bunch(
        images=[np.dstack([l, scale_image(image)]) for l, image in zip(log_odds, data.images)], masks=data.masks
    )


def learned_from(w, n_jobs):
    """The field alone, whose weights are learned from given first ones."""
    crf = MaxMarginCRF(warm_start=True, n_jobs=n_jobs)
    crf.coef_ = np.array(w)
    return crf


def main():
    only = {"nargs": "+", "default": [""], "metavar": "ROWS", "help": "what the names of rows begin with"}
    arguments = parse(__doc__, **{"--only": only})
    parameters = parameters_of(arguments) | {"random_state": arguments.seeds[0]}
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    cnn = DeepStructuredSegmenter(**parameters, training="cnn", memory=str(arguments.out / "memory"))
    cnn.fit(train.images, train.masks)
    pretrained = parameters | {"network": cnn.network_, "weights": None, "pretrain_epochs": 0}

    stacked = [with_log_odds(cnn, data) for data in (train, val)]
    models = {f"piecewise: initial w = {w}": (learned_from(w, arguments.jobs), *stacked) for w in STARTS}
    for training, changes in {"piecewise": PIECEWISE, "joint": JOINT}.items():
        for name, changed in changes.items():
            model = DeepStructuredSegmenter(**pretrained | changed, training=training)
            models[f"{training}: {name}"] = model, train, val

    file = arguments.out / "ablations.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    print("| what is changed | mean Jaccard % | gamma | w | passes | seconds |")
    print("| --- | ---: | ---: | --- | ---: | ---: |")
    for name, model_and_data in models.items():
        if not name.startswith(tuple(arguments.only)):
            continue
        if name not in rows:
            rows[name] = measure(*model_and_data)
            save_json(file, rows)
        row = rows[name]
        w = ", ".join(f"{value:.3g}" for value in row["w"])
        measured = f"{100 * row['jaccard']:.2f} | {row['objective']:.4g} | {w} | {row['passes']} | {row['seconds']:.0f}"
        print(f"| {name} | {measured} |", flush=True)


if __name__ == "__main__":
    main()
