"""Kill fits, which are processes of their own, by SIGKILL at random moments of every phase; start them again, compare.

    python tests/killing.py KILLS FOLDER

prints a line for every kill, and fails if a fit does not end as one that nobody killed. Fits are forks of this process,
so that a kill costs no new import; torch runs in one thread, because others would not survive the fork.
"""

import os
import pickle
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from comparing import everything

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.learning import CuttingPlanes
from skmmcrf.training import checkpoints
from skmmcrf.training.net import SegmentationNet

#: Their first letters are told by the fits as they begin; the last is that of writing a state.
PHASES = {"pretraining": "p", "Algorithm 1": "A", "joint training": "j", "writing": "w"}


def fit(folder, tell):
    """Fit, telling the phases; give all that training decides but the seconds."""

    def told(function, phase_of):
        def telling(*args, **kwargs):
            tell(phase_of(*args))
            return function(*args, **kwargs)

        return telling

    def slow_fsync(number):  # so that there is time to kill between writing and renaming
        time.sleep(0.01)
        return fsync(number)

    fsync = os.fsync
    X, y = make_phantoms(8, shape=(48, 48), random_state=0)
    model = DeepStructuredSegmenter(
        CNNSegmenter(n_epochs=2, augmentation=None, batch_size=2, device="cpu"),
        n_epochs=2,
        batch_size=2,
        validation_fraction=0.25,
        checkpoint=folder,
        random_state=0,
    )
    with (
        mock.patch.object(SegmentationNet, "run_single_epoch", told(SegmentationNet.run_single_epoch, stage_of)),
        mock.patch.object(CuttingPlanes, "learn", told(CuttingPlanes.learn, lambda *_: "A")),
        mock.patch.object(checkpoints, "write_file", told(checkpoints.write_file, lambda *_: "w")),
        mock.patch("os.fsync", slow_fsync),
    ):
        model.fit(X, y)
    return everything(model), model.predict(X).tobytes()


def stage_of(net, *_):
    return net.stage[0]


def fit_in_fork(folder, phase=None, number=0, delay=0.0):
    """Give what a fork fitted, or None if it was killed: `delay` seconds after a phase began for the given time."""
    (told, telling), result = os.pipe(), folder / "result"
    pid = os.fork()
    if pid == 0:
        os.close(told)
        try:
            result.write_bytes(pickle.dumps(fit(folder / "states", lambda letter: os.write(telling, letter.encode()))))
        finally:
            os._exit(0)
    os.close(telling)
    with open(told, "rb", buffering=0) as letters:
        while letter := letters.read(1).decode():
            number -= letter == phase
            if letter == phase and number == 0:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pickle.loads(result.read_bytes()) if result.exists() else None


def main():
    n_kills, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    (folder / "whole").mkdir()
    expected = fit_in_fork(folder / "whole")
    rng = np.random.default_rng()
    survived = 0
    for n in range(n_kills):
        name, letter = list(PHASES.items())[n % len(PHASES)]
        # how often a phase begins: epochs are two, states one more; weights are learned after epochs, and around them
        number = int(rng.integers(1, {"writing": 6, "Algorithm 1": 4}.get(name, 2) + 1))
        delay = rng.uniform(0, {"writing": 0.02, "Algorithm 1": 0.05}.get(name, 0.2))
        trial = folder / f"{n}"
        trial.mkdir()
        was_killed = fit_in_fork(trial, letter, number, delay) is None
        left = sorted(file.name for file in (trial / "states").iterdir() if file.name != ".lock")
        ended = fit_in_fork(trial)
        survived += was_killed and ended == expected
        told = "killed" if was_killed else "ended before it could be killed"
        print(
            f"{name} {number}, {1e3 * delay:.0f} ms: {told}; left {left}; as expected: {ended == expected}", flush=True
        )
    print(f"survived {survived} of {n_kills} kills")
    sys.exit(expected is None or survived < n_kills)


if __name__ == "__main__":
    main()
