"""Train the paper's model in its three ways on a folder of photographs, such as the Weizmann horses.

The folder holds images/, masks/ and the lists train.txt and val.txt. The network is an FCN-8s on SqueezeNet 1.1 with
pretrained weights; prints the mean Jaccard index of the validation images for CNN only, piecewise and joint training, and
saves results like the paper's Fig. 1 and the training curve, its Fig. 3.
"""

import argparse
import time
from pathlib import Path

from skmmcrf import DeepStructuredSegmenter
from skmmcrf.datasets import load_image_folder
from skmmcrf.display import plot_history, plot_segmentations
from skmmcrf.metrics import jaccard_indices, mean_jaccard

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="folder with images/, masks/, train.txt and val.txt")
parser.add_argument("--weights", default="imagenet", help="state dict of SqueezeNet 1.1; default: torchvision downloads it")
parser.add_argument("--pretrain-epochs", type=int, default=25)
parser.add_argument("--epochs", type=int, default=8, help="of joint training")
parser.add_argument("--learning-rate", type=float, default=5e-5, help="of joint training")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--jobs", type=int, default=-1, help="processes for the graph cuts")
parser.add_argument("--out", type=Path, default=Path("."), help="folder for the pictures")
arguments = parser.parse_args()

start = time.perf_counter()
train = load_image_folder(arguments.data, "train")
val = load_image_folder(arguments.data, "val")
model = DeepStructuredSegmenter(
    "fcn8s_squeezenet1_1",
    weights=arguments.weights,
    pretrain_epochs=arguments.pretrain_epochs,
    n_epochs=arguments.epochs,
    learning_rate=arguments.learning_rate,
    n_jobs=arguments.jobs,
    random_state=arguments.seed,
    verbose=1,
)
