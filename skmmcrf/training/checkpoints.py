"""States of training, kept in a folder, from which a fit that was killed goes on."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from skorch import NeuralNet
from skorch.callbacks import Callback

from skmmcrf._shown import shortened
from skmmcrf.networks.any_size import check_scales
from skmmcrf.training.batches import batch_sizes
from skmmcrf.training.state_files import read_file, write_file

#: Names of the estimators' own callbacks that have a state.
OWN_STATES = ("algorithm", "keep_best")

_KEPT = 2
_NAME = re.compile(r"state-([0-9]{6}|[1-9][0-9]{6,})\.safetensors")
_UNFINISHED = f".{32 * '[0-9a-f]'}.tmp"
# numbers that an epoch of each stage has in a history
_MEASURED = {"cnn": ("loss", "jaccard", "seconds"), "joint": ("gamma", "jaccard", "seconds")}


class StateRejectedError(Exception):
    """A state does not fit, so training has to begin again, from the state before it."""


class Checkpoints:
    """The last states of one fit, in files of a folder.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    state : dict or None
        The newest state that can be read, and was not rejected. A damaged state raises a warning, and the state before
        it is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found = self._files()
        self.state = self._read_newest()
        self._is_kept = self.state is not None

    def __str__(self) -> str:
        if self.state is None:
            return f"checkpoint: this fit begins anew, and keeps its states in {self.folder}"
        n_epochs, stage = len(self.state["net"]["history"]), self.state["stage"]
        return f"checkpoint: this fit goes on after epoch {n_epochs} of stage {stage!r}, found in {self.folder}"

    def state_of(self, stage: str) -> dict[str, Any] | None:
        """Give the state that was found, if it belongs to a stage of training, "cnn" or "joint"."""
        return self.state if self.state is not None and self.state["stage"] == stage else None

    def scale_of(self, stage: str) -> float | None:
        """Give the factor with which the network was trained, if a state of a stage was found."""
        state = self.state_of(stage)
        if state is None:
            return None
        try:
            return check_scales(state.get("network_scale", ()), "its network_scale")[0]
        except ValueError as error:
            self.reject(error)

    def reject(self, reason: Any) -> NoReturn:
        """Take the state before the one that was found, as that does not fit, and raise a StateRejectedError."""
        self._leave_out(self._found.pop(), reason)
        self.state = self._read_newest()
        raise StateRejectedError

    def write(self, state: dict[str, Any]) -> None:
        """Keep a state, a dict for `write_file`, and only the last one before it.

        Raises
        ------
        OSError
            If it can't be written and no earlier state exists. With an earlier state this is a RuntimeWarning.
        TypeError
            If a file can't hold something in it.
        """
        number = 1 + max(map(_number_of, self._files()), default=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
            write_file(self.folder / f"state-{number:06d}.safetensors", "state", state)
            self._is_kept = True
        except OSError as error:
            message = f"checkpoint: the state of training could not be kept in {self.folder}: {error}"
            if not self._is_kept:
                raise OSError(message) from error
            warnings.warn(
                f"{message}. Training goes on, and the last state that could be kept stays",
                RuntimeWarning,
                stacklevel=2,
            )
        for file in self._files()[:-_KEPT]:
            with suppress(OSError):
                file.unlink()

    def _files(self) -> list[Path]:
        """The states, the newest last."""
        return sorted(filter(lambda file: _NAME.fullmatch(file.name), self.folder.glob("state-*")), key=_number_of)

    def _read_newest(self) -> dict[str, Any] | None:
        """The newest of the states that are found, without those that can't be read."""
        while self._found:
            try:
                return _checked(read_file(self._found[-1], "state"))
            except (OSError, ValueError) as error:
                self._leave_out(self._found.pop(), error)
        return None

    def _leave_out(self, file: Path, reason: Any) -> None:
        instead = "goes on from the state before it" if self._found else "begins anew"
        warnings.warn(
            f"checkpoint: {file} is damaged or does not fit, so fit {instead}: {reason}", RuntimeWarning, stacklevel=2
        )


def _number_of(file: Path) -> int:
    return int(file.stem.removeprefix("state-"))


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """Raise a ValueError if a state lacks what is asked of it before a net is made."""
    if state.get("stage") not in ("cnn", "joint"):
        raise ValueError(f"its stage is {state.get('stage')!r}")
    if not (isinstance(state.get("net"), dict) and isinstance(state["net"].get("history"), list)):
        raise ValueError("it has no net with a history")
    if state["stage"] == "joint":
        rows = state.get("history")
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise ValueError("it has no history")
        stages = [row.get("stage") for row in rows]
        n = stages.count("cnn")
        if stages != ["cnn"] * n + ["joint"] * (len(rows) - n) or n == len(rows):
            raise ValueError(f"its history has the stages {stages}")
        _check_epochs(rows[:n], _MEASURED["cnn"], first=1)
        _check_epochs(rows[n:], _MEASURED["joint"], first=0)
    return state


def _check_epochs(rows: list[dict[str, Any]], names: tuple[str, ...], first: int) -> None:
    """Raise a ValueError unless rows of a history are of consecutive epochs, and have these numbers."""
    for n, row in enumerate(rows, first):
        if type(row.get("epoch")) is not int or row["epoch"] != n:
            raise ValueError(f"its history has epoch {row.get('epoch')!r} as epoch {n}")
        for name in (*names, *row.keys() & {"valid_jaccard"}):
            value: Any = row.get(name)
            # an index is not defined where nothing is foreground
            undefined = name.endswith("jaccard") and isinstance(value, float) and math.isnan(value)
            if not undefined and not (_is_number(value) and 0 <= value < math.inf):
                raise ValueError(f"its history has {name} {value!r} in epoch {n}")


_Train = TypeVar("_Train", bound=Callable[..., Any])


def from_state_that_fits(train: _Train) -> _Train:
    """Decorate a method that trains an estimator from a state, to train from an earlier one if that is rejected."""

    @wraps(train)
    def train_until_one_fits(self: Any, *args: Any) -> Any:
        before = vars(self).copy()
        while True:
            try:
                return train(self, *args)
            except StateRejectedError:
                vars(self).clear()
                vars(self).update(before)

    return train_until_one_fits  # type: ignore[return-value]  # it takes the same arguments


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
    ...         checkpoints.write({"stage": "cnn", "net": {"history": [], "weights": np.ones(3)}})
    ...     with open_checkpoints(folder) as checkpoints:
    ...         checkpoints.state
    {'stage': 'cnn', 'net': {'history': [], 'weights': array([1., 1., 1.])}}
    """
    folder = Path(folder)
    lock = FileLock(folder / ".lock")  # the system lets go of it when a process dies
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:  # folds of nested cross-validation may be the same
        warnings.warn(
            f"checkpoint: the same fit is running already, and uses {folder}; this one waits for its last state",
            UserWarning,
            stacklevel=2,
        )
        lock.acquire()
    except (OSError, ValueError) as error:
        raise OSError(
            f"checkpoint: states of training can't be kept in {shortened(folder)}: {shortened(error)}. "
            "Give a folder that can be written to"
        ) from error
    try:
        for unfinished in folder.glob(_UNFINISHED):
            with suppress(OSError):
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

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Restore the net, or learn at once whether its state can be kept."""
        found = self.checkpoints.state_of(self.stage)
        if found is None:
            self._write(net)
            return
        try:
            self._restore(net, found["net"], n_batches=len(batch_sizes(len(X), net.batch_size)))
        except Exception as error:  # a file may hold anything
            self.checkpoints.reject(f"{type(error).__name__}: {error}")
        for name, one in self._with_state(net).items():
            if name in found["net"]["callbacks"] and name not in OWN_STATES:
                one.load_state_dict(found["net"]["callbacks"][name])

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the state."""
        self._write(net)

    def _write(self, net: NeuralNet) -> None:
        self.checkpoints.write({"stage": self.stage, **self.rest, "net": self._state(net)})

    def _state(self, net: NeuralNet) -> dict[str, Any]:
        state = {
            "module": net.module_.state_dict(),
            "trains": [parameter.requires_grad for parameter in net.module_.parameters()],
            "criterion": net.criterion_.state_dict(),
            "moments": net.optimizer_.state_dict()["state"],
            # what schedules change
            "rates": [{name: group[name] for name in ("lr", "betas")} for group in net.optimizer_.param_groups],
            "callbacks": {name: one.state_dict() for name, one in self._with_state(net).items()},
            "history": net.history.to_list(),
        }
        return as_plain(state)

    def _restore(self, net: NeuralNet, found: dict[str, Any], n_batches: int) -> None:
        """Restore all but the callbacks of users. The network comes last, when nothing can fail."""
        own = self._state(net)
        for name in ("module", "trains", "criterion", "rates"):
            check_form(found[name], own[name], name)
        if any(not (rates["lr"] >= 0 and all(0 <= beta < 1 for beta in rates["betas"])) for rates in found["rates"]):
            raise ValueError(f"its rates are {found['rates']}")
        self._check_history(found["history"], net.max_epochs, n_batches)
        parameters = [parameter for group in net.optimizer_.param_groups for parameter in group["params"]]
        _check_moments(found["moments"], own["moments"], parameters, n_steps=n_batches * len(found["history"]))
        for name in own["callbacks"].keys() & OWN_STATES:
            dict(net.callbacks_)[name].load_state_dict(found["callbacks"][name])
        net.criterion_.load_state_dict(_as_tensors(found["criterion"]))
        moments = {int(n): _as_tensors(of_one) for n, of_one in found["moments"].items()}
        groups = net.optimizer_.state_dict()["param_groups"]
        net.optimizer_.load_state_dict(
            {"param_groups": list(map(dict.__or__, groups, found["rates"])), "state": moments}
        )
        net.history[:] = found["history"]
        net.module_.load_state_dict(_as_tensors(found["module"]))
        for parameter, trains in zip(net.module_.parameters(), found["trains"]):
            parameter.requires_grad = trains

    def _check_history(self, epochs: list[Any], n_most: int, n_batches: int) -> None:
        """Raise an error unless these are whole epochs in a net's history."""
        if len(epochs) > n_most:
            raise ValueError(f"its history has {len(epochs)} epochs, but n_epochs={n_most}")
        gamma = ("gamma",) if self.stage == "joint" else ()
        _check_epochs(epochs, ("train_loss", "jaccard", "dur", *gamma), first=1)
        for epoch in epochs:
            if len(epoch["batches"]) != n_batches or not all(isinstance(batch, dict) for batch in epoch["batches"]):
                raise ValueError(f"its history lacks batches in epoch {epoch['epoch']}")

    def _with_state(self, net: NeuralNet) -> dict[str, Any]:
        return {name: one for name, one in net.callbacks_ if hasattr(one, "state_dict")}


def check_form(found: Any, own: Any, name: str) -> None:
    """Raise a ValueError unless a value of a file has the types and shapes of another one, and is finite as that is."""
    fits = type(found) is type(own)
    if _is_number(own):
        fits = _is_number(found) and (math.isfinite(found) or found == own)
    elif isinstance(own, dict) and fits:
        if found.keys() != own.keys():
            raise ValueError(f"its {name} has the entries {sorted(found)}, not {sorted(own)}")
        for key in own:
            check_form(found[key], own[key], f"{name}.{key}")
    elif isinstance(own, list) and fits:
        for n, (entry, of_own) in enumerate(zip(found, own, strict=True)):
            check_form(entry, of_own, f"{name}.{n}")
    elif isinstance(own, np.ndarray) and fits:
        fits = found.dtype == own.dtype and found.shape == own.shape
        fits = fits and bool((np.isfinite(found) | ~np.isfinite(own)).all())
    if not fits:
        raise ValueError(f"its {name} does not fit")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_moments(found: dict[str, Any], before: dict[str, Any], parameters: list[torch.Tensor], n_steps: int) -> None:
    """Raise an error unless these are Adam's moments of parameters, some steps after those of before."""
    forms = {str(n): np.zeros_like(as_plain(parameter)) for n, parameter in enumerate(parameters)}
    steps = [0]
    for n, moments in found.items():
        form = {"step": torch.zeros(()).numpy(), "exp_avg": forms[n], "exp_avg_sq": forms[n]}
        check_form(moments, form, f"moments.{n}")
        if (moments["exp_avg_sq"] < 0).any():
            raise ValueError(f"its moments.{n} are negative")
        steps.append(int(moments["step"]) - int(before[n]["step"] if n in before else 0))
    # a parameter may be held for a while, but not all at once
    if not (min(steps) >= 0 and max(steps) <= n_steps <= sum(steps)):
        raise ValueError(f"its moments are of {max(steps)} steps, but its history is of {n_steps}")


def as_plain(value: Any) -> Any:
    """Turn tensors into arrays, and all kinds of dicts, sequences and numbers into types that files hold."""
    if isinstance(value, torch.Tensor):
        return value.numpy(force=True)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(entry) for entry in value]
    return value


def _as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    # unlike from_numpy, tensor aligns the memory as torch does
    return {name: torch.tensor(array) for name, array in arrays.items()}
