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


_VALID = " and of the validation images"

# of an epoch: its column, how wide that is, and the format of numbers
_COLUMNS = {
    "train_loss": ("loss", 10, ".4g"),
    "gamma": ("gamma", 10, ".4g"),
    "jaccard": ("train", 8, ".3f"),
    "valid_jaccard": ("valid", 8, ".3f"),
    "dur": ("seconds", 10, ".1f"),
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
    ['bar', 'lines']
    """
    # the bar ends before the line is printed, so that both never share a line
    shown: list[tuple[str, Callback]] = [("bar", ProgressBar()), ("lines", EpochLines(stage, n_images))]
    return shown[-verbose:] if verbose else []


class EpochLines(Callback):
    """Print a heading, and a table with a line for every epoch: its entries in the history, seconds, and time left."""

    def __init__(self, stage: str, n_images: int) -> None:
        self.stage = stage
        self.n_images = n_images

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the heading."""
        print(_HEADINGS[self.stage].format(self.n_images), flush=True)
        self.is_first = True

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line, and above the first one the names of the columns."""
        epoch = net.history[-1]
        columns = {key: column for key, column in _COLUMNS.items() if key in epoch}
        if self.is_first:
            of = _watched(self.n_images) if self.stage == "joint training" else "the training images while training"
            both = "train, valid" if "valid_jaccard" in epoch else "train"
            print(f"  {both}: mean Jaccard index of {of}{_VALID if 'valid_jaccard' in epoch else ''}")
            names = "".join(f"{name:>{width}}" for name, width, _ in columns.values())
            print(f"{'epoch':>9}{names}{'left':>8}")
            self.is_first = False
        left = sum(net.history[:, "dur"]) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        number = f"{epoch['epoch']}/{net.max_epochs}"
        values = "".join(f"{epoch[key]:>{width}{form}}" for key, (_, width, form) in columns.items())
        print(f"{number:>9}{values}{left:>8.0f}", flush=True)


def show_start(row: Mapping[str, Any], n_images: int, verbose: int) -> None:
    """Print epoch 0 of the history, from which joint training starts, unless `verbose` is 0."""
    if verbose:
        valid = f", {row['valid_jaccard']:.3f}{_VALID.removeprefix(' and')}" if "valid_jaccard" in row else ""
        index = f"mean Jaccard index {row['jaccard']:.3f} of {_watched(n_images)}{valid}"
        print(f"  before joint training: gamma {row['gamma']:.4g}, {index}", flush=True)


def _watched(n_images: int) -> str:
    return f"the first {N_WATCHED} training images" if n_images > N_WATCHED else "the training images"


def pass_progress(n_images: int, verbose: int, *, is_exact: bool = True) -> Report | None:
    """Print a heading, and make the report that prints a line for each pass of Algorithm 1. None if `verbose` is 0.

    `is_exact` says whether the upper bound counts all labelings, as it does for two labels.
    """
    if not verbose:
        return None
    seconds = grid_cut.prepare()
    if seconds > 1:
        print(f"The minimum cut was compiled in {seconds:.0f} s, which is kept for later", flush=True)
    what = f"training images: {n_images}; gamma: the objective, which is minimised"
    print(f"Learning the weights of the field by Algorithm 1 ({what})", flush=True)
    return PassLines(is_exact)


class PassLines:
    """Print a line for each pass, with the bounds of gamma. The upper bound is an estimate at first."""

    def __init__(self, is_exact: bool = True) -> None:
        self.is_exact = is_exact
        self.last = 0  # the pass that was printed last
        self.waiting = 0, ""

    def __call__(self, n_iter: int, lower: float, upper: float, share: float) -> None:
        """Print the line of a pass at its end, or the line of the last pass at the first part of the next."""
        about = "" if share == 1 and self.is_exact else "about "
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
