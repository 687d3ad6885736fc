"""What each part is worth
=======================

What each part of the model is worth: one thing is changed at a time, all on the same pretrained network.

The folder is one as for benchmark.py. A network is pretrained once; then the field is learned on it, and for most rows
both are trained jointly, with one parameter changed. Prints the mean Jaccard index of the validation images, the value
of the objective, the weights, the passes of Algorithm 1 for them and the seconds for each row; writes them as JSON, and
goes on where it was ended. `--only` picks rows by what their names begin with::

    python examples/ablations.py horses --weights mobilenet_v2.pth --out ablations --only piecewise "joint: batches"
"""

import json
import time

import numpy as np
from benchmark import parameters_of, parse, save_json
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Bunch

from skmmcrf import DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import load_image_folder
from skmmcrf.metrics import jaccard_indices

PIECEWISE = {
    "8 neighbours": {},
    "4 neighbours": {"connectivity": 4},
    "8 neighbours, no contrast term": {"pairwise": "smoothness"},
    "4 neighbours, no contrast term": {"connectivity": 4, "pairwise": "smoothness"},
    **{f"C = {C:g}": {"C": C} for C in (0.01, 0.1, 1.0, 10.0, 100.0)},
}
JOINT = {
    **PIECEWISE,
    **{f"batches of {n}": {"batch_size": n} for n in (1, 5, 10, 50, 150)},
    **{f"{n} epochs": {"n_epochs": n} for n in (2, 5, 10, 20)},
    "mirrored images": {"augmentation": "flip"},
    "images as they are": {"augmentation": None},
    "images as they are, weights learned in each batch": {"augmentation": None, "training": "joint_by_batch"},
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


def learned_from(w, n_jobs):
    """The field alone, whose weights are learned from given first ones."""
    crf = MaxMarginCRF(warm_start=True, n_jobs=n_jobs)
    crf.coef_ = np.array(w)
    return crf


def main():
    only = {"nargs": "+", "default": [""], "metavar": "ROWS", "help": "what the names of rows begin with"}
    arguments = parse(__doc__, **{"--only": only})
    parameters = parameters_of(arguments)
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    whole = DeepStructuredSegmenter(
        training="cnn", memory=str(arguments.out / "memory"), random_state=arguments.seeds[0]
    ).set_params(**parameters)
    cnn = whole.fit(train.images, train.masks).cnn_
    pretrained = {name: value for name, value in parameters.items() if not name.startswith("cnn__")}
    pretrained |= {"cnn": FrozenEstimator(cnn), "random_state": arguments.seeds[0]}

    stacked = [Bunch(images=cnn.transform(data.images), masks=data.masks) for data in (train, val)]
    models = {f"piecewise: initial w = {w}": (learned_from(w, arguments.jobs), *stacked) for w in STARTS}
    for training, changes in {"piecewise": PIECEWISE, "joint": JOINT}.items():
        for name, changed in changes.items():
            model = DeepStructuredSegmenter(**pretrained | {"training": training} | changed)
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
