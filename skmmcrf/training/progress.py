"""Progress of training, as lines and bars."""

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, ProgressBar

from skmmcrf.learning.cutting_planes import Report


def epoch_progress(stage: str, verbose: int) -> list[tuple[str, Callback]]:
    """Make the callbacks that show the epochs of a stage: a line after each, and from 2 on a bar within it.

    Examples
    --------
    >>> [name for name, _ in epoch_progress("pretraining", verbose=2)]
    ['lines', 'bar']
    """
    return [("lines", EpochLines(stage)), ("bar", ProgressBar())][:verbose]


class EpochLines(Callback):
    """Print a line after every epoch: its number, what the history holds of it, seconds, and time left."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line."""
        epoch = net.history[-1]
        left = sum(net.history[:, "dur"]) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        shown = ", ".join([*_values(epoch), f"{epoch['dur']:.1f} s", f"{left:.0f} s left"])
        print(f"{self.stage} {epoch['epoch']}/{net.max_epochs}: {shown}", flush=True)


def pass_progress(verbose: int) -> Report | None:
    """Make what prints a line after each part of a pass of Algorithm 1, with the bounds of gamma; None for 0."""
    return _print_pass if verbose else None


def _print_pass(n_iter: int, lower: float, upper: float, share: float) -> None:
    gap = (upper - lower) / upper if upper else 0.0
    about = "" if share == 1 else f", by {share:.0%} of the images"
    print(f"Algorithm 1, pass {n_iter}: gap {gap:.2%}, gamma {lower:.6g} to {upper:.6g}{about}", flush=True)


def _values(epoch: dict[str, Any]) -> list[str]:
    shown = {"jaccard": "Jaccard {:.3f}", "valid_jaccard": "validation {:.3f}", "train_loss": "loss {:.4g}",
             "gamma": "gamma {:.4g}"}  # fmt: skip
    return [text.format(epoch[key]) for key, text in shown.items() if key in epoch]
