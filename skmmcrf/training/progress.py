"""Progress of training, as lines under a heading for each stage, and as bars."""

from collections.abc import Mapping
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, ProgressBar

from skmmcrf.field import grid_cut
from skmmcrf.learning.cutting_planes import Report
from skmmcrf.training.joint import N_WATCHED

_HEADINGS = {
    "pretraining": "Pretraining of the network (training images: {})",
    "joint training": "Joint training of network and field (training images: {}; loss: gamma of the batches)",
}


def epoch_progress(stage: str, n_images: int, verbose: int) -> list[tuple[str, Callback]]:
    """Make the callbacks that show the epochs of a stage: a line after each, and from 2 on a bar within it.

    Parameters
    ----------
    stage : {"pretraining", "joint training"}
    n_images : int
        To train on.
    verbose : int

    Examples
    --------
    >>> [name for name, _ in epoch_progress("pretraining", 33, verbose=2)]
    ['lines', 'bar']
    """
    return [("lines", EpochLines(stage, n_images)), ("bar", ProgressBar())][:verbose]


class EpochLines(Callback):
    """Print a heading, and a line after every epoch: its entries in the history, seconds, and time left."""

    def __init__(self, stage: str, n_images: int) -> None:
        self.stage = stage
        self.n_images = n_images

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the heading."""
        print(_HEADINGS[self.stage].format(self.n_images), flush=True)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line."""
        epoch = net.history[-1]
        left = sum(net.history[:, "dur"]) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        shown = ", ".join([*_measures(epoch, self.stage, self.n_images), f"{epoch['dur']:.1f} s", f"{left:.0f} s left"])
        print(f"  epoch {epoch['epoch']}/{net.max_epochs}: {shown}", flush=True)


def show_start(row: Mapping[str, Any], n_images: int, verbose: int) -> None:
    """Print epoch 0 of the history, from which joint training starts, unless `verbose` is 0."""
    if verbose:
        shown = ", ".join(_measures(row, "joint training", n_images))
        print(f"  epoch 0, before joint training: {shown}", flush=True)


def pass_progress(n_images: int, verbose: int) -> Report | None:
    """Print a heading, and make the report that prints a line for each pass of Algorithm 1. None if `verbose` is 0."""
    if not verbose:
        return None
    seconds = grid_cut.prepare()
    if seconds > 1:
        print(f"The minimum cut was compiled in {seconds:.0f} s, which is kept for later", flush=True)
    what = f"training images: {n_images}; gamma: the objective, which is minimised"
    print(f"Learning the weights of the field by Algorithm 1 ({what})", flush=True)
    return PassLines()


class PassLines:
    """Print a line for each pass, with the bounds of gamma. The upper bound is an estimate at first."""

    def __init__(self) -> None:
        self.last = 0  # the pass that was printed last
        self.waiting = 0, ""

    def __call__(self, n_iter: int, lower: float, upper: float, share: float) -> None:
        """Print the line of a pass at its end, or the line of the last pass at the first part of the next."""
        about = "" if share == 1 else "about "
        gap = max(upper - lower, 0.0) / upper if upper else 0.0
        line = f"  pass {n_iter}: gamma between {lower:.5g} and {about}{upper:.5g}, gap {about}{gap:.2%}"
        if self.last < self.waiting[0] < n_iter:
            self._print(*self.waiting)
        if share == 1:
            self._print(n_iter, line)
        else:
            self.waiting = n_iter, line

    def _print(self, n_iter: int, line: str) -> None:
        print(line, flush=True)
        self.last = n_iter


def _measures(epoch: Mapping[str, Any], stage: str, n_images: int) -> list[str]:
    """The measures of an epoch, each with its description."""
    of = "on the training images while training"
    if stage == "joint training":
        of = f"on {N_WATCHED} of the training images" if n_images > N_WATCHED else "on the training images"
    shown = {"train_loss": "loss {:.4g}", "gamma": "gamma {:.4g}", "jaccard": f"Jaccard {{:.3f}} {of}",
             "valid_jaccard": "{:.3f} on the validation images"}  # fmt: skip
    return [text.format(epoch[key]) for key, text in shown.items() if key in epoch]
