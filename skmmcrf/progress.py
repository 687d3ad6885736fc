"""Progress of training, as lines or as bars that fit terminals and notebooks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from tqdm.auto import tqdm


def epoch_progress(stage: str, verbose: int) -> list[tuple[str, Callback]]:
    """Make the callback that shows the epochs of a stage.

    Parameters
    ----------
    stage : str
        What its line or bar begins with.
    verbose : int
        0 for none, 1 for a line an epoch, 2 for a bar.

    Returns
    -------
    list of tuple (name, callback)

    Examples
    --------
    >>> epoch_progress("pretraining", verbose=0)
    []
    """
    if not verbose:
        return []
    return [("progress", (EpochLines if verbose == 1 else EpochBar)(stage))]


class EpochLines(Callback):
    """Print a line after every epoch: its number, what the history holds of it, seconds, and time left.

    Parameters
    ----------
    stage : str
        What the line begins with.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Start the clock."""
        self.start_ = time.perf_counter()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line."""
        epoch = net.history[-1]
        left = (time.perf_counter() - self.start_) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        shown = f"{_values(epoch)}, {epoch['dur']:.1f} s, {left:.0f} s left"
        print(f"{self.stage} {epoch['epoch']}/{net.max_epochs}: {shown}", flush=True)


class EpochBar(Callback):
    """Show a bar that moves with every batch, with what the history holds of the last epoch.

    Parameters
    ----------
    stage : str
        What the bar begins with.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Open the bar."""
        n_batches = -(-len(X) // net.batch_size)
        self.bar_ = tqdm(total=net.max_epochs * n_batches, desc=self.stage, unit="batch")

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Move it."""
        self.bar_.update()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Show the values of the epoch."""
        epoch = net.history[-1]
        self.bar_.set_postfix_str(f"epoch {epoch['epoch']}/{net.max_epochs}: {_values(epoch)}")

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave it as it is."""
        self.bar_.close()


@contextmanager
def pass_progress(verbose: int) -> Iterator[Callable[[int, float, float], None] | None]:
    """Show the passes of Algorithm 1 and the bounds of gamma after each.

    Parameters
    ----------
    verbose : int
        0 for none, 1 for a line a pass, 2 for a bar.

    Yields
    ------
    callable or None
        What `skmmcrf.max_margin.learn_weights` takes as `report`.
    """
    if verbose < 2:
        yield _print_pass if verbose else None
        return
    # how many passes there will be is not known
    with tqdm(desc="Algorithm 1", unit="pass") as bar:

        def report(n_iter: int, lower: float, upper: float) -> None:
            bar.set_postfix_str(_bounds(lower, upper), refresh=False)
            bar.update()

        yield report


def _print_pass(n_iter: int, lower: float, upper: float) -> None:
    print(f"Algorithm 1, pass {n_iter}: {_bounds(lower, upper)}", flush=True)


def _bounds(lower: float, upper: float) -> str:
    gap = (upper - lower) / upper if upper else 0.0
    return f"gamma between {lower:.6g} and {upper:.6g}, gap {gap:.2%}"


def _values(epoch: dict[str, Any]) -> str:
    shown = {"train_loss": "loss {:.4f}", "gamma": "gamma {:.6g}", "jaccard": "Jaccard {:.4f}",
             "valid_jaccard": "validation {:.4f}"}  # fmt: skip
    return ", ".join(text.format(epoch[key]) for key, text in shown.items() if key in epoch)
