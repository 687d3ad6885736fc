"""States of training in a folder: a fit that ends at any moment goes on as if nothing had happened."""

import copy
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from unittest.mock import patch

import numpy as np
import pytest
import torch
from comparing import everything
from nets import PLAIN
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn as cnns
from skmmcrf.training import checkpoints
from skmmcrf.training.augmentation import RandomIntensity
from skmmcrf.training.checkpoints import check_form, open_checkpoints
from skmmcrf.training.net import SegmentationNet
from skmmcrf.training.state_files import read_file, write_file


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


BEST_EPOCH = {"early_stopping": True, "n_iter_no_change": 2, "validation_fraction": 0.4}


def cnn(**parameters):
    defaults = {"network": Small, "n_epochs": 3, "batch_size": 2, "device": "cpu", "random_state": 0}
    return CNNSegmenter(**PLAIN | defaults | parameters)


def joint(of_cnn=None, **parameters):
    defaults = {"n_epochs": 3, "batch_size": 2, "learning_rate": 1e-3, "random_state": 0}
    return DeepStructuredSegmenter(of_cnn or cnn(n_epochs=2), **defaults | parameters)


def frozen():
    return FrozenEstimator(cnn(n_epochs=1).fit(*images_and_labels()))


def images_and_labels():
    X, y = make_phantoms(5, shape=(16, 20), random_state=0)
    y[1, :4] = 255  # unlabelled
    return X, y


@pytest.fixture(scope="module")
def data():
    return images_and_labels()


@pytest.fixture(scope="module")
def whole(data):
    """All that a fit learns that nothing interrupts."""
    return everything(cnn().fit(*data))


class Killed(BaseException):
    """Ends training as nothing but a signal does that can't be caught: nobody expects it."""


def write_until(n_writes, error):
    """Make what stands in for `write_file`: some states are written, the next one meets an error."""
    left = iter(range(n_writes))

    def write(*args):
        if next(left, None) is None:
            raise error
        write_file(*args)

    return write


@pytest.mark.parametrize(
    "make",
    [
        lambda: cnn(augmentation=NoisyFlip()),
        lambda: cnn(schedule="cosine", **BEST_EPOCH),
        lambda: joint(cnn(n_epochs=2, augmentation=NoisyFlip()), schedule="one_cycle"),
        lambda: joint(training="joint_by_batch", schedule="constant"),
        lambda: joint(**BEST_EPOCH),
        lambda: joint(frozen()),
        lambda: cnn(n_epochs="auto"),
        lambda: joint(cnn(n_epochs="auto"), n_epochs=1),
    ],
    ids=["CNN", "CNN, best epoch", "joint", "joint by batch", "joint, best epoch", "frozen CNN", "auto", "joint, auto"],
)
def test_a_fit_that_was_killed_ends_as_one_that_was_not(make, data, tmp_path, monkeypatch):
    monkeypatch.setattr(cnns, "_MOST_EPOCHS", 3)  # of "auto"
    expected = everything(make().fit(*data))
    n_writes, was_killed = 1, True
    while was_killed:
        model = make().set_params(checkpoint=tmp_path / f"after {n_writes}")
        monkeypatch.setattr(checkpoints, "write_file", write_until(n_writes, Killed()))
        try:
            model.fit(*data)
            was_killed = False
        except Killed:
            monkeypatch.setattr(checkpoints, "write_file", write_file)
            model.fit(*data)
        assert everything(model) == expected
        n_writes += 1
    assert n_writes > 3  # else nothing was killed


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fits are forks")
def test_fits_survive_sigkill(tmp_path):
    killing = Path(__file__).parents[1] / "killing.py"
    subprocess.run([sys.executable, killing, "20", tmp_path], check=True)


@pytest.mark.parametrize("n_epochs", [2, "auto"])
def test_a_warm_start_goes_on_from_its_states(n_epochs, data, tmp_path, monkeypatch):
    monkeypatch.setattr(cnns, "_MOST_EPOCHS", 3)  # of "auto"
    begun = joint(cnn(n_epochs=n_epochs), warm_start=True).fit(*data)
    expected = everything(copy.deepcopy(begun).fit(*data))
    begun.set_params(checkpoint=tmp_path)
    monkeypatch.setattr(checkpoints, "write_file", write_until(2, Killed()))
    with pytest.raises(Killed):
        copy.deepcopy(begun).fit(*data)
    monkeypatch.setattr(checkpoints, "write_file", write_file)
    assert everything(begun.fit(*data)) == expected


def test_the_memory_of_pretraining_and_states_go_together(data, tmp_path):
    expected = everything(joint().fit(*data))
    for _ in range(2):
        model = joint(memory=str(tmp_path / "memory"), checkpoint=tmp_path / "states").fit(*data)
        assert everything(model) == expected


@pytest.fixture
def states(data, tmp_path):
    """The states of a fit that is done."""
    cnn(checkpoint=tmp_path).fit(*data)
    return files(tmp_path)


def files(folder):
    return sorted(file for file in folder.glob("*/*") if file.name != ".lock")


def names(folder):
    return [file.name for file in files(folder)]


def test_the_last_two_states_are_kept(states, tmp_path):
    assert names(tmp_path) == ["state-000003.safetensors", "state-000004.safetensors"]


def test_a_fit_that_was_done_is_done_at_once(states, data, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(SegmentationNet, "run_single_epoch", lambda *_, **__: pytest.fail("it trains"))
    assert everything(cnn(checkpoint=tmp_path).fit(*data)) == whole


def brightened(image, mask, factor=1.0):
    return image * factor, mask


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 2e-3},
        {"n_epochs": 4, "random_state": 1},
        {"augmentation": NoisyFlip()},
        {"augmentation": partial(brightened, factor=3.0)},
        {"augmentation": lambda image, mask: (image * 2, mask)},
        {"crop": 8},
        {"network": lambda n: nn.Conv2d(n, 1, 1)},
    ],
)
def test_a_fit_with_other_parameters_has_states_of_its_own(data, changed, tmp_path):
    first = cnn(checkpoint=tmp_path, augmentation=partial(brightened, factor=1.0))
    first.fit(*data)
    other = cnn(augmentation=first.augmentation).set_params(**changed)
    expected = everything(other.fit(*data))
    assert everything(other.set_params(checkpoint=tmp_path).fit(*data)) == expected
    assert len({file.parent for file in files(tmp_path)}) == 2
    first.fit(*data)
    assert len(files(tmp_path)) == 4


def dimming(factor):
    return lambda image, mask: (image * factor, mask)


class Dimming:
    def __init__(self, factor):
        self.change, self.itself = dimming(factor), self

    def __call__(self, image, mask):
        return self.change(image, mask)


@pytest.mark.parametrize(
    "build",
    [dimming, Dimming, lambda x: Dimming(x).__call__, RandomIntensity, lambda x: v2.Compose([RandomIntensity(x)])],
)
def test_augmentations_that_differ_in_what_they_hold_have_states_of_their_own(data, build, tmp_path):
    for factor in (0.1, 0.9, 0.1):
        cnn(checkpoint=tmp_path, augmentation=build(factor)).fit(*data)
    assert len({file.parent for file in files(tmp_path)}) == 2


def test_networks_that_differ_in_what_they_do_have_states_of_their_own(data, tmp_path):
    def network(function):
        class Local(nn.Conv2d):
            def forward(self, images):
                return function(super().forward(images))

        return lambda n_channels: Local(n_channels, 1, 1)

    for function in (torch.tanh, torch.sin, torch.tanh):
        cnn(checkpoint=tmp_path, network=network(function)).fit(*data)
    assert len({file.parent for file in files(tmp_path)}) == 2


def test_a_fit_of_other_data_has_states_of_its_own(data, tmp_path):
    X, y = data
    for n, (images, labels, fit_params) in enumerate(
        [
            (X, y, {}),
            (X ^ 1, y, {}),
            (X, np.minimum(y, 1), {}),
            (X, y, {"sample_weight": [1, 1, 1, 1, 2]}),
            (X, y, {"validation_data": (X, y)}),
        ]
    ):
        cnn(checkpoint=tmp_path).fit(images, labels, **fit_params)
        assert len({file.parent for file in files(tmp_path)}) == n + 1


def test_every_fit_of_a_search_keeps_its_states(data, tmp_path):
    grid = {"C": [0.1, 1.0], "cnn__loss": ["log_likelihood", "dice"]}
    search = GridSearchCV(joint(n_epochs=1), grid, cv=2, error_score="raise").fit(*data)
    kept = clone(search).set_params(estimator__checkpoint=tmp_path)
    for _ in range(2):
        scores = kept.fit(*data).cv_results_["mean_test_score"]
        np.testing.assert_array_equal(scores, search.cv_results_["mean_test_score"])
        assert len({file.parent for file in files(tmp_path)}) == 2 * len(scores) + 1


def test_a_fit_says_whether_it_goes_on(states, data, tmp_path, capsys):
    for n_epochs, said in ((3, "goes on after epoch 3 of stage 'cnn', found in"), (4, "begins anew, and keeps")):
        cnn(checkpoint=tmp_path, n_epochs=n_epochs, verbose=1).fit(*data)
        assert f"checkpoint: this fit {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], lambda _: b""]
)
def test_a_damaged_state_gives_way_to_the_one_before(states, data, whole, damage, tmp_path):
    file = states[-1]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(
        RuntimeWarning, match=f"checkpoint: .*{file.name} is damaged or does not fit, so fit goes on from the"
    ):
        model = cnn(checkpoint=tmp_path).fit(*data)
    assert everything(model) == whole


def test_where_all_states_are_damaged_fit_begins_anew(states, data, whole, tmp_path):
    for file in states:
        file.write_bytes(b"nonsense")
    with (
        pytest.warns(RuntimeWarning, match="state-000004.* so fit goes on from the state before it"),
        pytest.warns(RuntimeWarning, match="state-000003.* is damaged or does not fit, so fit begins anew"),
    ):
        model = cnn(checkpoint=tmp_path).fit(*data)
    assert everything(model) == whole


def test_a_disk_that_becomes_full_does_not_end_training(data, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_file", write_until(1, OSError(28, "No space left on device")))
        with pytest.warns(
            RuntimeWarning, match="could not be kept in .*: .*No space.*. Training goes on, and the last state"
        ):
            model = cnn(checkpoint=tmp_path).fit(*data)
    assert everything(model) == whole
    assert names(tmp_path) == ["state-000001.safetensors"]
    assert everything(cnn(checkpoint=tmp_path).fit(*data)) == whole


def test_a_disk_that_is_full_before_training_is_told_at_once(data, tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr(SegmentationNet, "run_single_epoch", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(OSError, match="No space left"):
        cnn(checkpoint=tmp_path).fit(*data)
    assert names(tmp_path) == []


def test_a_folder_that_cant_be_made_or_written_to_is_told_at_once(data, tmp_path):
    (tmp_path / "file").write_text("")
    told = "checkpoint: states of training can't be kept in .*. Give a folder that can be written to"
    for folder in (tmp_path / "file", tmp_path / "file" / "folder", "null\0byte"):
        with pytest.raises(OSError, match=told):
            cnn(checkpoint=folder).fit(*data)
    tmp_path.chmod(0o500)
    if not os.access(tmp_path, os.W_OK):  # some users may write everywhere
        with pytest.raises(OSError, match=told):
            cnn(checkpoint=tmp_path).fit(*data)


class At(Callback):
    """Does something at the end of an epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            self.action()


def test_a_folder_that_is_removed_in_training_is_made_again(data, whole, tmp_path):
    folder = tmp_path / "states"
    model = cnn(checkpoint=folder, callbacks=[At(2, lambda: shutil.rmtree(folder))]).fit(*data)
    assert everything(model) == whole
    assert names(folder) == ["state-000001.safetensors", "state-000002.safetensors"]


def test_a_folder_that_becomes_a_file_does_not_end_training(data, whole, tmp_path):
    def replace():
        shutil.rmtree(tmp_path / "states")
        (tmp_path / "states").write_text("")

    with pytest.warns(RuntimeWarning, match="could not be kept in .*states.*Training goes on"):
        model = cnn(checkpoint=tmp_path / "states", callbacks=[At(2, replace)]).fit(*data)
    assert everything(model) == whole


def test_files_of_other_names_are_left_alone(states, data, whole, tmp_path):
    others = [
        "state-000009 (copy)",
        "state-abc",
        "state-0000009",
        "state-9",
        "state-00000९",
        "state-000009.safetensors",
    ]
    for name in others:
        states[0].with_name(f"{name}.safetensors").write_bytes(b"nonsense")
    states[0].with_name(f".{32 * 'x'}.tmp").write_bytes(b"not ours")
    assert everything(cnn(checkpoint=tmp_path, n_epochs=3).fit(*data)) == whole
    with open_checkpoints(states[0].parent) as checkpoints:
        checkpoints.write(checkpoints.state)
    assert len(names(tmp_path)) == len(others) + 3


def write_states(folder, n_states):
    with open_checkpoints(folder) as checkpoints:
        for n in range(n_states):
            checkpoints.write({"stage": "cnn", "net": {"history": [], "n": n}})


def test_a_folder_with_the_name_of_a_state_is_no_state(states, data, whole, tmp_path):
    states[0].with_name("state-000005.safetensors").mkdir()
    with pytest.warns(RuntimeWarning, match="state-000005.* so fit goes on from the state before it"):
        assert everything(cnn(checkpoint=tmp_path).fit(*data)) == whole
    with pytest.warns(RuntimeWarning, match="state-000005"):
        write_states(states[0].parent, 3)
    assert names(tmp_path)[-2:] == ["state-000007.safetensors", "state-000008.safetensors"]


def test_states_are_ordered_by_their_numbers(tmp_path):
    (tmp_path / "state-999998.safetensors").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="state-999998"):
        write_states(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.glob("state*")) == [
        *("state-1000000.safetensors", "state-1000001.safetensors")
    ]
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.state["net"] == {"history": [], "n": 2}


def test_what_was_not_finished_is_removed(states):
    unfinished = states[0].with_name(f".{32 * 'a'}.tmp")
    unfinished.write_bytes(b"half")
    with open_checkpoints(unfinished.parent):
        assert not unfinished.exists()


def test_one_fit_at_a_time_has_its_folder_and_the_other_waits_for_its_last_state(tmp_path):
    def open_it_too():
        with open_checkpoints(tmp_path) as found:
            return found.state

    told = Event()
    with (
        patch("skmmcrf.training.checkpoints.warnings.warn", lambda *_, **__: told.set()),
        ThreadPoolExecutor() as pool,
        open_checkpoints(tmp_path) as first,
    ):
        other = pool.submit(open_it_too)
        assert told.wait(30)
        first.write({"stage": "cnn", "net": {"history": []}})
    assert other.result()["stage"] == "cnn"


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_checkpoint_needs_a_seed(data, tmp_path, random_state):
    with pytest.raises(ValueError, match="checkpoint needs an int as random_state"):
        cnn(checkpoint=tmp_path / "new", random_state=random_state).fit(*data)
    assert not (tmp_path / "new").exists()


def test_states_of_networks_that_no_file_can_hold_are_told_at_once(data, tmp_path):
    class Half(Small):
        def __init__(self, n_channels):
            super().__init__(n_channels)
            self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

    with pytest.raises(TypeError, match="bfloat16|BFloat16"):
        cnn(network=Half, checkpoint=tmp_path).fit(*data)


class HoldBiases(Callback):
    def on_train_begin(self, net, **kwargs):
        for name, parameter in net.module_.named_parameters():
            parameter.requires_grad = not name.endswith("bias")


class StopsAfter(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise RuntimeError("killed")


@pytest.mark.parametrize("epoch", [1, 2])
def test_parameters_that_pretraining_held_stay_held_in_a_fit_that_goes_on(tmp_path, data, epoch):
    def fit(**parameters):
        held = cnn(callbacks=[HoldBiases()], random_state=None)
        return DeepStructuredSegmenter(held, n_epochs=3, batch_size=2, random_state=0, **parameters).fit(*data)

    expected = fit()
    with pytest.raises(RuntimeError, match="killed"):
        fit(checkpoint=tmp_path, callbacks=[StopsAfter(epoch)])
    assert everything(fit(checkpoint=tmp_path)) == everything(expected)


# what does not fit, beside the entry that is missing or of another kind


@pytest.fixture(scope="module")
def joint_states(data, tmp_path_factory):
    """A joint fit that is done, and the folder of its states."""
    folder = tmp_path_factory.mktemp("joint")
    return folder, everything(short(checkpoint=folder).fit(*data))


def short(**parameters):
    return joint(cnn(n_epochs=1), n_epochs=2, schedule="one_cycle", **BEST_EPOCH, **parameters)


def put(*path, value):
    def change(state):
        *within, name = path
        for key in within:
            state = state[key]
        state[name] = value

    return change


def missing(*path):
    def change(state):
        *within, name = path
        for key in within:
            state = state[key]
        del state[name]

    return change


def again(*path):
    def change(state):
        for key in path:
            state = state[key]
        state.append(copy.deepcopy(state[-1]))

    return change


NAN = float("nan")
WEIGHT = ("net", "module", "network.0.weight")
EXAMPLE = ("net", "callbacks", "algorithm", "examples", 0)
BEST = ("net", "callbacks", "keep_best")


@pytest.mark.parametrize(
    "change",
    [
        *map(missing, ("stage", "net", "history")),
        *(
            missing("net", name)
            for name in ("module", "trains", "criterion", "moments", "rates", "callbacks", "history")
        ),
        *(put("net", name, value=None) for name in ("module", "trains", "criterion", "moments", "rates", "callbacks")),
        put("stage", value="cnn"),
        put("stage", value=[]),
        put("history", value=[]),
        put("history", 0, value=3),
        put("history", 0, "stage", value="joint"),
        put("history", 0, "epoch", value=-1),
        put("history", 0, "epoch", value=True),
        put("history", 0, "loss", value="low"),
        put("history", 0, "valid_jaccard", value={}),
        again("history"),
        again("net", "history"),
        put("net", "history", value=[]),
        put("net", "history", 0, "epoch", value=2),
        put("net", "history", 0, "train_loss", value=NAN),
        put("net", "history", 0, "dur", value=-1.0),
        missing("net", "history", 0, "gamma"),
        put("net", "history", 0, "batches", value=[]),
        missing(*WEIGHT),
        put(*WEIGHT, value=np.full((4, 1, 3, 3), NAN, dtype=np.float32)),
        put(*WEIGHT, value=np.ones((4, 1, 3, 3))),
        put(*WEIGHT, value=np.ones((4, 1), dtype=np.float32)),
        again("net", "trains"),
        put("net", "criterion", "_extra_state", value=np.array([1.0, -1.0, 0.0])),
        put("net", "moments", value={}),
        put("net", "moments", "0", "step", value=np.array(-1, dtype=np.float32)),
        put("net", "moments", "0", "exp_avg_sq", value=np.full((4, 1, 3, 3), -1, dtype=np.float32)),
        put("net", "rates", 0, "lr", value=NAN),
        put("net", "rates", 0, "betas", value=[1.0, 1.0]),
        missing(*BEST),
        put(*BEST, "best_model_weights_", value=None),
        put(*BEST, "misses_", value=7),
        put(*BEST, "best_epoch_", value="first"),
        put(*BEST, "dynamic_threshold_", value=NAN),
        again("net", "callbacks", "algorithm", "examples"),
        put(*EXAMPLE, "packed", value=np.zeros(9, dtype=np.uint8)),
        put(*EXAMPLE, "losses", value=np.zeros(0)),
    ],
)
def test_a_state_that_does_not_fit_gives_way_to_the_one_before(joint_states, data, tmp_path, change):
    folder, whole = joint_states
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    newest = files(tmp_path)[-1]
    state = read_file(newest, "state")
    change(state)
    write_file(newest, "state", state)
    with pytest.warns(RuntimeWarning, match=f"{newest.name} is damaged or does not fit, so fit goes on from the state"):
        model = short(checkpoint=tmp_path).fit(*data)
    assert everything(model) == whole


def test_where_no_state_fits_a_warm_start_begins_anew(data, tmp_path):
    begun = joint(cnn(n_epochs=1), n_epochs=1, warm_start=True).fit(*data)
    expected = everything(copy.deepcopy(begun).fit(*data))
    begun.set_params(checkpoint=tmp_path)
    copy.deepcopy(begun).fit(*data)
    for file in files(tmp_path):
        state = read_file(file, "state")
        put(*WEIGHT, value=np.zeros(3))(state)
        write_file(file, "state", state)
    with (
        pytest.warns(RuntimeWarning, match="so fit goes on from the state before it"),
        pytest.warns(RuntimeWarning, match="so fit begins anew: .*module.network.0.weight does not fit"),
    ):
        assert everything(begun.fit(*data)) == expected


class Refuses(Callback):
    def state_dict(self):
        return {"n": 1}

    def load_state_dict(self, state):
        raise LookupError("it is the user's own error")


def test_what_a_callback_raises_about_its_state_is_not_taken_for_damage(data, tmp_path):
    cnn(checkpoint=tmp_path, callbacks=[Refuses()]).fit(*data)
    before = names(tmp_path)
    with pytest.raises(LookupError, match="the user's own error"):
        cnn(checkpoint=tmp_path, callbacks=[Refuses()]).fit(*data)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("found", "own"),
    [
        (1, 2.5),
        (-np.inf, -np.inf),
        ({"a": [1, None, "x"]}, {"a": [2, None, "y"]}),
        (np.array([np.nan, 1.0]), np.array([np.inf, 0.0])),
        (True, False),
    ],
)
def test_what_has_the_form_of_ours_fits(found, own):
    check_form(found, own, "state")


@pytest.mark.parametrize(
    ("found", "own"),
    [
        (None, 1),
        ("1", 1),
        (True, 1),
        (1, True),
        (np.nan, 0.0),
        (np.inf, 0.0),
        (np.nan, np.inf),
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ([], {}),
        ([1, 2], [1]),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros(2, dtype=np.float32)),
        (np.array([np.nan]), np.zeros(1)),
    ],
)
def test_what_has_another_form_does_not_fit(found, own):
    with pytest.raises(ValueError, match="state|argument"):
        check_form(found, own, "state")
