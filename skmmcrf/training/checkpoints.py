"""States of training, kept in a folder, from which a fit that was killed goes on."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from skorch import NeuralNet
from skorch.callbacks import Callback

from skmmcrf.training.state_files import read_file, write_file

_KEPT = 2


class Checkpoints:
    """The last states of one fit, in files of a folder.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    state : dict or None
        The newest state that can be read. A damaged state raises a warning, and the state before it is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = self._read_newest()

    def __str__(self) -> str:
        if self.state is None:
            return f"checkpoint: this fit begins anew, and keeps its states in {self.folder}"
        n_epochs, stage = len(self.state["net"]["history"]), self.state["stage"]
        return f"checkpoint: this fit goes on after epoch {n_epochs} of stage {stage!r}, found in {self.folder}"

    def state_of(self, stage: str) -> dict[str, Any] | None:
        """Give the state that was found, if it belongs to a stage of training, "cnn" or "joint"."""
        return self.state if self.state is not None and self.state["stage"] == stage else None

    def write(self, state: dict[str, Any]) -> None:
        """Keep a state, a dict for `write_file`, and only the last one before it.

        Raises
        ------
        OSError
            If it can't be written and no earlier state exists. With an earlier state this is a RuntimeWarning.
        TypeError
            If a file can't hold something in it.
        """
        before = self._files()
        number = 1 + int(before[-1].stem.removeprefix("state-")) if before else 1
        try:
            write_file(self.folder / f"state-{number:06d}.safetensors", "state", state)
        except OSError as error:
            if not before:
                raise
            warnings.warn(
                f"checkpoint: the state of training could not be kept: {error}. Training goes on, and {before[-1]} "
                "stays",
                RuntimeWarning,
                stacklevel=2,
            )
        for file in self._files()[:-_KEPT]:
            file.unlink()

    def _files(self) -> list[Path]:
        """The states, the newest last."""
        return sorted(self.folder.glob("state-*.safetensors"))

    def _read_newest(self) -> dict[str, Any] | None:
        for file in reversed(self._files()):
            try:
                state = read_file(file, "state")
            except ValueError as error:
                warnings.warn(
                    f"checkpoint: {file} can't be read, so fit goes on from the state before it: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            return state
        return None


@contextmanager
def open_checkpoints(folder: str | PathLike[str]) -> Iterator[Checkpoints]:
    """Open the folder of the states of one fit, and make it if it is missing.

    Raises
    ------
    OSError
        If the folder can't be made or written to.

    Warns
    -----
    UserWarning
        If the same fit is running elsewhere. This one waits until that has ended, and goes on from its last state.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     with open_checkpoints(folder) as checkpoints:
    ...         checkpoints.write({"stage": "joint", "coef": np.ones(3)})
    ...     with open_checkpoints(folder) as checkpoints:
    ...         checkpoints.state
    {'stage': 'joint', 'coef': array([1., 1., 1.])}
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the system lets go of it when a process dies
    try:
        lock.acquire(timeout=0)
    except Timeout:  # folds of nested cross-validation may be the same
        warnings.warn(
            f"checkpoint: the same fit is running already, and uses {folder}; this one waits for its last state",
            UserWarning,
            stacklevel=2,
        )
        lock.acquire()
    try:
        for unfinished in folder.glob(f".{32 * '?'}.tmp"):
            unfinished.unlink()
        yield Checkpoints(folder)
    finally:
        lock.release()


class KeepState(Callback):
    """Keep the state of a net at the end of every epoch, and begin at the state that was found.

    Other callbacks with a state have `state_dict` and `load_state_dict`, as modules of torch have. This callback must
    be the last.

    Parameters
    ----------
    checkpoints : Checkpoints
    stage : str
        The stage of training.
    rest : dict
        Further entries to keep beside the net.
    """

    def __init__(self, checkpoints: Checkpoints, stage: str, rest: dict[str, Any]) -> None:
        self.checkpoints = checkpoints
        self.stage = stage
        self.rest = rest

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the net, or learn at once whether its state can be kept."""
        state = self.checkpoints.state_of(self.stage)
        if state is None:
            self._write(net)
            return
        found = state["net"]
        net.module_.load_state_dict(_as_tensors(found["module"]))
        for parameter, trains in zip(net.module_.parameters(), found["trains"]):
            parameter.requires_grad = trains
        net.criterion_.load_state_dict(_as_tensors(found["criterion"]))
        moments = {int(n): _as_tensors(of_one) for n, of_one in found["optimizer"]["state"].items()}
        net.optimizer_.load_state_dict({"param_groups": found["optimizer"]["param_groups"], "state": moments})
        net.history[:] = found["history"]
        for name, one in self._with_state(net).items():
            if name in found["callbacks"]:
                one.load_state_dict(found["callbacks"][name])

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the state."""
        self._write(net)

    def _write(self, net: NeuralNet) -> None:
        state = {
            "module": net.module_.state_dict(),
            "trains": [parameter.requires_grad for parameter in net.module_.parameters()],
            "criterion": net.criterion_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "callbacks": {name: one.state_dict() for name, one in self._with_state(net).items()},
            "history": net.history.to_list(),
        }
        self.checkpoints.write({"stage": self.stage, **self.rest, "net": _as_plain(state)})

    def _with_state(self, net: NeuralNet) -> dict[str, Any]:
        return {name: one for name, one in net.callbacks_ if hasattr(one, "state_dict")}


def _as_plain(value: Any) -> Any:
    """Turn tensors into arrays, and all kinds of dicts, sequences and numbers into types that files hold."""
    if isinstance(value, torch.Tensor):
        return value.numpy(force=True)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _as_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_plain(entry) for entry in value]
    return value


def _as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    # unlike from_numpy, tensor aligns the memory as torch does
    return {name: torch.tensor(array) for name, array in arrays.items()}
