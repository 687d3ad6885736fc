"""States of training in a folder: a fit that ends at any moment goes on as if nothing had happened."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import everything
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, checkpoint
from skmmcrf.checkpoint import open_checkpoints
from skmmcrf.datasets import make_phantoms

CNN = {"n_epochs": 3, "batch_size": 2, "random_state": 0}
JOINT = {"pretrain_epochs": 2, "n_epochs": 3, "batch_size": 2, "learning_rate": 1e-3, "random_state": 0}


class Small(nn.Sequential):
    """A network with all that has a state: batch-norm statistics, and dropout that draws from torch."""

    def __init__(self, n_channels):
        super().__init__(
            nn.Conv2d(n_channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.Conv2d(4, 1, 3, padding=1),
        )


class NoisyFlip:
    """An augmentation that draws from Python's generator, from numpy's and from torch's."""

    def __call__(self, image, mask):
        image = image + 0.01 * random.random() + 0.01 * np.random.uniform()  # noqa: NPY002
        return v2.RandomHorizontalFlip()(image, mask)


class Killed(BaseException):
    """Ends training as nothing but a signal does that can't be caught: nobody expects it."""


class KilledAfter:
    """Stands in for `write_file`: after some writes the process is no more."""

    def __init__(self, n_writes):
        self.left = n_writes

    def __call__(self, *args):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return write_file(*args)


write_file = checkpoint.write_file


@pytest.fixture(scope="module")
def data():
    X, y = make_phantoms(5, shape=(16, 20), random_state=0)
    y[1, :4] = 255  # unlabelled
    return X, y


@pytest.fixture
def fit_killed(data, tmp_path, monkeypatch):
    """A function that fits a model, killed after some writes and started again; gives the model, and whether it was."""

    def fit(model, n_writes, **fit_params):
        model.set_params(checkpoint=tmp_path / f"after {n_writes}")
        monkeypatch.setattr(checkpoint, "write_file", KilledAfter(n_writes))
        try:
            model.fit(*data, **fit_params)
            was_killed = False
        except Killed:
            was_killed = True
        monkeypatch.setattr(checkpoint, "write_file", write_file)
        return model.fit(*data, **fit_params), was_killed

    return fit


MODELS = {
    "CNN": lambda: CNNSegmenter(Small, **CNN),
    "CNN, within epochs": lambda: CNNSegmenter(Small, checkpoint_every=1, **CNN),
    "CNN, augmented": lambda: CNNSegmenter(Small, checkpoint_every=1, augmentation=NoisyFlip(), **CNN),
    "CNN, best epoch": lambda: CNNSegmenter(
        Small, early_stopping=True, n_iter_no_change=1, validation_fraction=0.4, schedule="cosine", **CNN
    ),
    "joint": lambda: DeepStructuredSegmenter(Small, **JOINT),
    "joint, within epochs": lambda: DeepStructuredSegmenter(Small, checkpoint_every=1, **JOINT | {"n_epochs": 2}),
    "joint, augmented": lambda: DeepStructuredSegmenter(
        Small, checkpoint_every=2, augmentation=NoisyFlip(), schedule="one_cycle", **JOINT
    ),
    "joint, best epoch": lambda: DeepStructuredSegmenter(
        Small, early_stopping=True, n_iter_no_change=1, validation_fraction=0.4, **JOINT
    ),
    "U-Net": lambda: DeepStructuredSegmenter(schedule="constant", **JOINT | {"n_epochs": 1}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_killed_ends_as_one_that_was_not(name, data, fit_killed):
    expected = everything(MODELS[name]().fit(*data))
    n_writes, was_killed = 1, True
    while was_killed:
        model, was_killed = fit_killed(MODELS[name](), n_writes)
        assert everything(model) == expected
        n_writes += 1
    assert n_writes > 4  # else nothing was killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fits are forks")
def test_fits_survive_sigkill(tmp_path):
    killing = Path(__file__).with_name("killing.py")
    subprocess.run([sys.executable, killing, "20", tmp_path], check=True)


@pytest.fixture
def states(data, tmp_path):
    """The folder of a fit that is done."""
    CNNSegmenter(Small, checkpoint=tmp_path, **CNN).fit(*data)
    return tmp_path


def newest(folder):
    return sorted(folder.glob("state-*"))[-1]


def test_the_last_two_states_are_kept(states):
    assert [file.name for file in sorted(states.glob("state-*"))] == [
        "state-000003.safetensors",
        "state-000004.safetensors",
    ]


def test_a_fit_that_was_done_is_done_at_once(states, data, monkeypatch):
    monkeypatch.setattr(nn.Conv2d, "forward", count := Counted(nn.Conv2d.forward))
    CNNSegmenter(Small, checkpoint=states, **CNN).fit(*data)
    # the network is tried, once for its name and once for training
    assert count.calls == 2 * 2


class Counted:
    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __get__(self, instance, owner):
        def call(*args):
            self.calls += 1
            return self.function(instance, *args)

        return call


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 2e-3}, r"differs in learning_rate \(0.001 there, 0.002 here\)"),
        ({"n_epochs": 4, "random_state": 1}, r"differs in n_epochs \(3 there, 4 here\), network, random_state"),
        ({"augmentation": NoisyFlip()}, r"differs in augmentation \(None there, NoisyFlip here\)"),
        ({"network": lambda n: nn.Conv2d(n, 1, 1)}, "differs in network;"),
    ],
)
def test_states_of_other_parameters_are_refused(states, data, changed, message):
    model = CNNSegmenter(Small, checkpoint=states, **CNN).set_params(**changed)
    with pytest.raises(ValueError, match=message):
        model.fit(*data)
    assert not hasattr(model, "network_")


def test_states_of_other_data_are_refused(states, data):
    X, y = data
    model = CNNSegmenter(Small, checkpoint=states, **CNN)
    for arguments, name in [
        (((X ^ 1, y), {}), "X"),
        (((X, np.minimum(y, 1)), {}), "y"),
        (((X, y), {"sample_weight": [1, 1, 1, 1, 2]}), "sample_weight"),
        (((X, y), {"validation_data": (X, y)}), "X of validation_data"),
    ]:
        with pytest.raises(ValueError, match=rf"checkpoint: .* of another fit, which differs in {name}[;,]"):
            model.fit(*arguments[0], **arguments[1])
    model.set_params(n_iter_no_change=3)
    with pytest.raises(ValueError, match="n_iter_no_change"):
        model.fit(X, y)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], lambda _: b""]
)
def test_a_damaged_state_gives_way_to_the_one_before(states, data, damage):
    expected = everything(CNNSegmenter(Small, **CNN).fit(*data))
    file = newest(states)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(RuntimeWarning, match=f"checkpoint: .*{file.name} can't be read, so fit goes on from the state"):
        model = CNNSegmenter(Small, checkpoint=states, **CNN).fit(*data)
    assert everything(model) == expected


def test_where_all_states_are_damaged_fit_begins_anew(states, data):
    expected = everything(CNNSegmenter(Small, **CNN).fit(*data))
    for file in states.glob("state-*"):
        file.write_bytes(b"nonsense")
    with pytest.warns(RuntimeWarning, match="can't be read"):
        model = CNNSegmenter(Small, checkpoint=states, **CNN).fit(*data)
    assert everything(model) == expected


def test_a_full_disk_does_not_end_training(data, tmp_path):
    resource = pytest.importorskip("resource")
    expected = everything(CNNSegmenter(Small, **CNN).fit(*data))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FullAfterTheFirst:
        """A callback, so that the first state can be written."""

        def __init__(self):
            self.initialize = lambda: self

        def __getattr__(self, name):
            if name == "on_batch_end":
                return lambda *_, **__: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            return lambda *_, **__: None

    model = CNNSegmenter(Small, checkpoint=tmp_path, callbacks=[("full", FullAfterTheFirst())], **CNN)
    try:
        with pytest.warns(RuntimeWarning, match="could not be kept: .*; training goes on, and .*state-000001.* stays"):
            model.fit(*data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert everything(model) == expected
    assert [file.name for file in tmp_path.iterdir() if file.name != ".lock"] == ["state-000001.safetensors"]
    assert everything(model.set_params(callbacks=None).fit(*data)) == expected


def test_a_disk_that_is_full_before_training_is_told_at_once(data, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        CNNSegmenter(Small, checkpoint=tmp_path, **CNN).fit(*data)
    assert [file.name for file in tmp_path.iterdir()] in ([".lock"], [])


def test_a_folder_that_cant_be_made_is_told_at_once(data, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match="file"):
            CNNSegmenter(Small, checkpoint=folder, **CNN).fit(*data)


def test_a_folder_without_permission_is_told_at_once(data, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("the user may write everywhere")
    with pytest.raises(PermissionError):
        CNNSegmenter(Small, checkpoint=tmp_path, **CNN).fit(*data)


def test_a_folder_serves_one_fit_at_a_time(data, tmp_path):
    with open_checkpoints(tmp_path, {}), pytest.raises(ValueError, match="checkpoint: another fit uses"):
        CNNSegmenter(Small, checkpoint=tmp_path, **CNN).fit(*data)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_checkpoint_needs_a_seed(data, tmp_path, random_state):
    model = CNNSegmenter(Small, checkpoint=tmp_path / "new", random_state=random_state)
    with pytest.raises(ValueError, match="checkpoint needs an int as random_state"):
        model.fit(*data)
    assert not (tmp_path / "new").exists()


def test_states_of_networks_that_no_file_can_hold_are_told_at_once(data, tmp_path):
    class Half(Small):
        def __init__(self, n_channels):
            super().__init__(n_channels)
            self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

    with pytest.raises(TypeError, match="bfloat16|BFloat16"):
        CNNSegmenter(Half, checkpoint=tmp_path, **CNN).fit(*data)


def test_the_memory_of_pretraining_and_states_go_together(data, tmp_path):
    expected = everything(DeepStructuredSegmenter(Small, **JOINT).fit(*data))
    for _ in range(2):
        model = DeepStructuredSegmenter(
            Small, memory=str(tmp_path / "memory"), checkpoint=tmp_path / "states", **JOINT
        ).fit(*data)
        assert everything(model) == expected


def test_a_warm_start_goes_on_from_its_states(data, tmp_path, monkeypatch):
    begun = DeepStructuredSegmenter(Small, warm_start=True, **JOINT).fit(*data)
    expected = everything(copy.deepcopy(begun).fit(*data))
    begun.set_params(checkpoint=tmp_path)
    monkeypatch.setattr(checkpoint, "write_file", KilledAfter(2))
    with pytest.raises(Killed):
        copy.deepcopy(begun).fit(*data)
    monkeypatch.setattr(checkpoint, "write_file", write_file)
    assert everything(begun.fit(*data)) == expected
