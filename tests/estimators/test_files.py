"""What `save` writes and refuses, and that pickles and clones work beside it."""

import copy
import os
import pickle
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


@pytest.fixture(scope="module")
def images_and_labels():
    return make_phantoms(3, shape=(16, 24), random_state=0)


@pytest.fixture(scope="module")
def fitted(images_and_labels):
    """Fitted estimators by a name."""
    X, y = images_and_labels
    joint = DeepStructuredSegmenter(CNNSegmenter(n_epochs=1), n_epochs=1, random_state=0).fit(X, y)
    own = DeepStructuredSegmenter(CNNSegmenter(small_unet, n_epochs=1), training="piecewise").fit(X, y)
    crf = MaxMarginCRF().fit(joint.cnn_.transform(X), y)
    return {"joint": joint, "own": own, "cnn": joint.cnn_, "crf": crf}


NAMES = ["joint", "own", "cnn", "crf"]


@pytest.fixture
def model(fitted):
    """A function that copies one of them."""
    return lambda name: copy.deepcopy(fitted[name])


def test_parameters_that_no_file_can_hold_are_told_and_are_none_after_loading(model, tmp_path, images_and_labels):
    joint = model("joint")
    joint.set_params(memory=str(tmp_path), checkpoint=tmp_path, random_state=np.random.RandomState(0), n_jobs=1)
    joint.cnn_.set_params(augmentation=v2.RandomHorizontalFlip(), callbacks=[("a", object())], weights=Path("a.pth"))
    joint.cnn_.set_params(device=torch.device("cpu"), class_weight={1: np.float32(2)}, network_scale=(1.0, np.int64(2)))
    names = "augmentation, callbacks, checkpoint, memory, random_state"
    with pytest.warns(
        UserWarning, match=f"model can't hold the parameters {names}: they are None after load"
    ) as record:
        joint.save(tmp_path / "model")
    assert record[0].filename == __file__
    loaded = load(tmp_path / "model")
    left_out = (loaded.memory, loaded.checkpoint, loaded.random_state, loaded.cnn_.callbacks, loaded.cnn_.augmentation)
    assert left_out == (None,) * 5
    assert (loaded.n_jobs, loaded.cnn_.device, loaded.cnn_.weights) == (1, "cpu", "a.pth")
    assert (loaded.cnn_.class_weight, loaded.cnn_.network_scale) == ({1: 2}, [1, 2])
    for folder in ("memory", "checkpoint"):
        assert folder.encode() not in (tmp_path / "model").read_bytes()


def test_the_network_given_says_nothing_that_the_fitted_one_does_not(model, tmp_path):
    joint = model("joint")
    for cnn in ("fcn8s_squeezenet1_1", small_unet, FrozenEstimator(joint.cnn_)):
        joint.set_params(cnn=cnn).save(tmp_path / "model")
        assert load(tmp_path / "model").cnn.network == "unet"


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("joint", lambda m: m.set_params(C=-1.0), ValueError, "'C' parameter of DeepStructured"),
        ("joint", lambda m: m.set_params(pairwise="smoothness"), ValueError, "coef_ must be 2 finite"),
        ("joint", lambda m: m.set_params(connectivity=5), ValueError, "connectivity"),
        ("joint", lambda m: m.coef_.fill(np.nan), ValueError, "coef_ must be 3 finite"),
        ("joint", lambda m: setattr(m, "sigma_", None), ValueError, "sigma_ must be a number with"),
        ("joint", lambda m: setattr(m, "slack_", None), ValueError, "must be None together"),
        ("joint", lambda m: m.cnn_.set_params(network="fcn8s_squeezenet1_1"), ValueError, "do not fit this network"),
        ("own", lambda m: m.cnn_.set_params(network="unet"), ValueError, "do not fit this network"),
        ("cnn", lambda m: m.set_params(network_scale=()), ValueError, "network_scale"),
        ("cnn", lambda m: m.class_weight_.fill(0), ValueError, "class_weight_ must be two numbers between"),
        ("cnn", lambda m: m.history_.append(3), ValueError, "history_ must be a list of dict"),
        ("cnn", lambda m: m.history_.append({1: 2}), (ValueError, TypeError), "history_"),
        ("cnn", lambda m: m.history_[0].update(a=object()), TypeError, "a is a object, which a file can't"),
        ("joint", lambda m: m.set_params(training="cnn"), ValueError, 'training="cnn" learns no field'),
        ("joint", lambda m: m.history_.pop(0), ValueError, "history_ must have the entries of history_ of cnn_"),
        ("crf", lambda m: setattr(m, "ignore_label", 1), ValueError, "ignore_label must be neither"),
        ("crf", lambda m: setattr(m, "n_channels_in_", 0), ValueError, "'n_channels_in_' parameter of"),
        ("crf", lambda m: setattr(m, "coef_", np.array(["a"] * 3)), ValueError, "coef_ must be 3 finite"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(model, tmp_path, name, change, error, message):
    changed = model(name)
    change(changed)
    with pytest.raises(error, match=message):
        changed.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("estimator", [CNNSegmenter(), DeepStructuredSegmenter(), MaxMarginCRF()])
def test_unfitted_is_told(estimator, tmp_path):
    with pytest.raises(NotFittedError):
        estimator.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_subclasses_are_refused(images_and_labels, tmp_path):
    class Other(CNNSegmenter):
        pass

    other = Other(n_epochs=0).fit(*images_and_labels)
    outer = DeepStructuredSegmenter(other, training="cnn").fit(*images_and_labels)
    for each in (other, outer):
        with pytest.raises(TypeError, match="can't hold a Other, a subclass that load would not know"):
            each.save(tmp_path / "model")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file(fitted, tmp_path, monkeypatch, step):
    path = tmp_path / "model"
    fitted["cnn"].save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(f"os.{step}", fail)
    with pytest.raises(OSError, match="the disk is full"):
        fitted["crf"].save(path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(FileNotFoundError):
        fitted["crf"].save(tmp_path / "missing" / "model")


def test_where_nothing_can_be_written_is_told_before_any_work(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("skmmcrf.estimators.files._described", lambda *_: pytest.fail("work"))
    for path, error in {tmp_path: OSError, os.devnull: OSError, 5: TypeError, b"a": TypeError}.items():
        with pytest.raises(error, match="can't be written|path must be"):
            fitted["crf"].save(path)


def test_saving_again_replaces_the_file_whose_rights_are_the_usual_ones(fitted, tmp_path):
    for name in ("cnn", "crf"):
        fitted[name].save(tmp_path / "model")
    assert isinstance(load(tmp_path / "model"), MaxMarginCRF)
    (tmp_path / "other").touch()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


# pickles and clones


def by_joblib(model, folder, **kwargs):
    joblib.dump(model, folder / "model")
    return joblib.load(folder / "model", **kwargs)


COPIES = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "cloudpickle": lambda model, _: cloudpickle.loads(cloudpickle.dumps(model)),
    "joblib": by_joblib,
    "mapped": lambda model, folder: by_joblib(model, folder, mmap_mode="r"),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_copies_say_the_same(fitted, images_and_labels, tmp_path, name, copied):
    X = images_and_labels[0]
    Z = fitted["cnn"].transform(X) if name == "crf" else X
    again = copied(fitted[name], tmp_path)
    np.testing.assert_array_equal(again.predict(Z), fitted[name].predict(Z))
    assert vars(again).keys() == vars(fitted[name]).keys()


def test_cloudpickle_takes_networks_of_the_moment(images_and_labels):
    X, y = images_and_labels
    cnn = CNNSegmenter(lambda n_channels: nn.Conv2d(n_channels, 1, 1), n_epochs=1).fit(X, y)
    again = cloudpickle.loads(cloudpickle.dumps(cnn))
    np.testing.assert_array_equal(again.decision_function(X), cnn.decision_function(X))


def test_a_deep_copy_shares_nothing(fitted, model, images_and_labels):
    copied = model("joint")
    with torch.no_grad():
        for parameter in copied.network_.parameters():
            parameter.zero_()
    assert not copied.decision_function(images_and_labels[0]).any()
    assert fitted["joint"].decision_function(images_and_labels[0]).any()
