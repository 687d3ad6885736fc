"""Train the paper's model in its three ways on a folder of photographs, such as the Weizmann horses.

The folder holds images/, masks/ and the lists train.txt and val.txt. The network is an FCN-8s on SqueezeNet 1.1 with
pretrained weights, unless told otherwise. Prints the mean Jaccard index of the validation images for CNN only,
piecewise and joint training, and saves results as in the paper's Fig. 1 and the curves of training as in its Fig. 3.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder
from skmmcrf.display import SegmentationDisplay, TrainingCurveDisplay
from skmmcrf.metrics import jaccard_indices, mean_jaccard

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="folder with images/, masks/, train.txt and val.txt")
parser.add_argument("--network", default="fcn8s_squeezenet1_1", help="unet, or fcn8s_ and a backbone")
parser.add_argument(
    "--weights", default="imagenet", help="the backbone's state dict (default: torchvision downloads it)"
)
parser.add_argument("--pretrain-epochs", type=int, default=8)
parser.add_argument("--epochs", type=int, default=8, help="of joint training")
parser.add_argument("--learning-rate", type=float, default=2e-4, help="of joint training")
parser.add_argument("--jobs", type=int, default=-1, help="processes for the graph cuts (default: all cores)")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path(), help="folder for the pictures")
arguments = parser.parse_args()

train = load_image_folder(arguments.data, "train")
X = train.images + [image[:, ::-1] for image in train.images]  # each with its mirror image
y = train.masks + [mask[:, ::-1] for mask in train.masks]
val = load_image_folder(arguments.data, "val")
predictions = {}
with tempfile.TemporaryDirectory() as memory:  # so that the three share one pretrained network
    for name, training in {"CNN": "cnn", "piecewise": "piecewise", "joint": "joint"}.items():
        start = time.perf_counter()
        model = DeepStructuredSegmenter(
            arguments.network,
            weights=None if arguments.network == "unet" else arguments.weights,
            training=training,
            pretrain_epochs=arguments.pretrain_epochs,
            n_epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            n_jobs=arguments.jobs,
            memory=memory,
            random_state=arguments.seed,
            verbose=1,
        )
        model.fit(X, y, validation_data=(val.images, val.masks))
        predictions[name] = model.predict(val.images)
        print(f"{name} took {time.perf_counter() - start:.0f} s", flush=True)

print(f"\nmean Jaccard index of {len(val.images)} validation images")
for name, labels in predictions.items():
    print(f"{name:>10}: {100 * mean_jaccard(val.masks, labels):.1f} %")

# from the worst to the best of the joint model
order = np.argsort(jaccard_indices(val.masks, predictions["joint"]))
shown = order[np.linspace(0, len(order) - 1, 6).astype(int)]
display = SegmentationDisplay.from_predictions(
    [val.images[n] for n in shown],
    [val.masks[n] for n in shown],
    {name: [labels[n] for n in shown] for name, labels in predictions.items()},
)
arguments.out.mkdir(parents=True, exist_ok=True)
display.figure_.savefig(arguments.out / "segmentations.png", dpi=100)
TrainingCurveDisplay.from_estimator(model).figure_.savefig(arguments.out / "history.png", dpi=100)
print(f"pictures: {arguments.out / 'segmentations.png'}, {arguments.out / 'history.png'}")
