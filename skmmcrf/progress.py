"""Progress of training, as lines or as bars that fit terminals and notebooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback


@contextmanager
def epoch_progress(stage: str, verbose: int) -> Iterator[list[tuple[str, Callback]]]:
    """Make the callback that shows the epochs of a stage; its bar is closed at the end, also by an error.

    Parameters
    ----------
    stage : str
        What its line or bar begins with.
    verbose : int
        0 for none, 1 for a line an epoch, 2 for a bar.

    Yields
    ------
    list of tuple (name, callback)

    Examples
    --------
    >>> with epoch_progress("pretraining", verbose=0) as callbacks:
    ...     callbacks
    []
    """
    if verbose < 2:
        yield [("progress", EpochLines(stage))] if verbose else []
        return
    bar = EpochBar(stage)
    try:
        yield [("progress", bar)]
    finally:
        bar.close()


class EpochLines(Callback):
    """Print a line after every epoch: its number, what the history holds of it, seconds, and time left.

    Parameters
    ----------
    stage : str
        What the line begins with.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line."""
        epoch = net.history[-1]
        left = sum(net.history[:, "dur"]) / epoch["epoch"] * (net.max_epochs - epoch["epoch"])
        shown = ", ".join([*_values(epoch), f"{epoch['dur']:.1f} s", f"{left:.0f} s left"])
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
        self.n_batches_ = -(-len(X) // net.batch_size)
        total = net.max_epochs * self.n_batches_
        self.bar_ = _bar(desc=self.stage, unit="batch", total=total, bar_format=_EPOCH_BAR)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Move it, past what was restored too."""
        done = (len(net.history) - 1) * self.n_batches_ + len(net.history[-1]["batches"])
        self.bar_.update(done - self.bar_.n)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Show the values of the epoch."""
        epoch = net.history[-1]
        _show_values(self.bar_, f"{epoch['epoch']}/{net.max_epochs}: ", _values(epoch))

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave it as it is; training that was stopped early has succeeded."""
        if self.bar_.n < self.bar_.total:
            n, began = self.bar_.n, self.bar_.start_t
            self.bar_.reset(total=n)
            self.bar_.start_t = began
            self.bar_.update(n)

    def close(self) -> None:
        """Let go of the bar."""
        if hasattr(self, "bar_"):
            self.bar_.close()


@contextmanager
def pass_progress(verbose: int) -> Iterator[Callable[[int, float, float, float], None] | None]:
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
    with _bar(desc="Algorithm 1", unit="pass") as bar:

        def report(n_iter: int, lower: float, upper: float, share: float) -> None:
            bar.set_postfix_str(_bounds(lower, upper, share), refresh=False)
            bar.update(n_iter - bar.n)

        yield report


# the rate is left out, for the values to have room
_EPOCH_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def _bar(**kwargs: Any) -> Any:
    # imported only now, because in a notebook without ipywidgets the import warns
    from tqdm.auto import tqdm

    # a bar without total would be as wide as a notebook
    return tqdm(dynamic_ncols="total" in kwargs, **kwargs)


def _show_values(bar: Any, before: str, values: list[str]) -> None:
    """Show as many values, from the first, as the terminal is wide enough for."""
    for n in range(len(values), 0, -1):
        bar.set_postfix_str(before + ", ".join(values[:n]), refresh=False)
        state = bar.format_dict
        width = state["ncols"] if isinstance(state["ncols"], int) else None  # notebooks have no columns
        if width is None or len(bar.format_meter(**state | {"ncols": None})) - 7 <= width:  # a bar of 3 instead of 10
            break
    bar.refresh()


def _print_pass(n_iter: int, lower: float, upper: float, share: float) -> None:
    print(f"Algorithm 1, pass {n_iter}: {_bounds(lower, upper, share)}", flush=True)


def _bounds(lower: float, upper: float, share: float) -> str:
    gap = (upper - lower) / upper if upper else 0.0
    about = "" if share == 1 else f", by {share:.0%} of the images"
    return f"gap {gap:.2%}, gamma {lower:.6g} to {upper:.6g}{about}"


def _values(epoch: dict[str, Any]) -> list[str]:
    shown = {"jaccard": "Jaccard {:.3f}", "valid_jaccard": "validation {:.3f}", "train_loss": "loss {:.4g}",
             "gamma": "gamma {:.4g}"}  # fmt: skip
    return [text.format(epoch[key]) for key, text in shown.items() if key in epoch]
