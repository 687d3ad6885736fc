"""What each part is worth
=======================

What each part of the model is worth: one thing is changed at a time, all on the same pretrained network.

The folder is one as for benchmark.py. A network is pretrained once; then the field is learned on it, and for most rows
both are trained jointly, with one parameter changed. Prints the mean Jaccard index of the validation images, the value
of the objective and the seconds for each row; writes them as JSON, and goes on where it was ended::

    python examples/ablations.py horses --weights squeezenet1_1.pth --out ablations --set pretrain_epochs=60
"""

import json
import time

import numpy as np
from benchmark import parameters_of, parse, save_json

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder
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
    "gradient by the linear system": {"gradient": "kkt"},
}


def measure(model, train, val):
    """Fit a model and measure it on the validation images."""
    start = time.perf_counter()
    model.fit(train.images, train.masks)
    seconds = time.perf_counter() - start
    return {
        "jaccard": float(np.nanmean(jaccard_indices(val.masks, model.predict(val.images)))),
        "objective": model.objective_,
        "w": model.coef_.tolist(),
        "seconds": seconds,
    }


def main():
    arguments = parse(__doc__)
    parameters = parameters_of(arguments) | {"random_state": arguments.seeds[0]}
    train, val = (load_image_folder(arguments.data, split) for split in ("train", "val"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    cnn = DeepStructuredSegmenter(**parameters, training="cnn", memory=str(arguments.out / "memory"))
    cnn.fit(train.images, train.masks)
    pretrained = parameters | {"network": cnn.network_, "weights": None, "pretrain_epochs": 0}

    file = arguments.out / "ablations.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    print("| training | what is changed | mean Jaccard % | gamma | w | seconds |")
    print("| --- | --- | ---: | ---: | --- | ---: |")
    for training, changes in {"piecewise": PIECEWISE, "joint": JOINT}.items():
        for name, changed in changes.items():
            key = f"{training}: {name}"
            if key not in rows:
                model = DeepStructuredSegmenter(**pretrained | changed, training=training)
                rows[key] = measure(model, train, val)
                save_json(file, rows)
            row = rows[key]
            w = ", ".join(f"{value:.3g}" for value in row["w"])
            cells = f"{100 * row['jaccard']:.2f} | {row['objective']:.4g} | {w} | {row['seconds']:.0f}"
            print(f"| {training} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
