"""Estimators go into files and come back, and `load` refuses what strangers and damage make of such files."""

import contextlib
import copy
import json
import os
import pickle
import re
import struct
import sys

import joblib
import numpy as np
import pytest
import torch
from damage import damaged
from nets import PLAIN
from safetensors import safe_open
from safetensors.numpy import save as serialize
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet
from skmmcrf.training import state_files


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


# small files are written faster
OWN = {name: small_unet for name in ("piecewise", "warm start", "smoothness", "CNNSegmenter")}
with torch.random.fork_rng():
    torch.manual_seed(0)  # whatever was drawn before
    OWN["own module"] = nn.Conv2d(1, 1, 3, padding=1)
NAMES = ["cnn", "joint", "by batch", "fcn", "frozen", "MaxMarginCRF", *OWN]


@pytest.fixture(scope="module")
def images_and_labels():
    return make_phantoms(3, shape=(16, 24), random_state=0)


def quick(network="unet", **parameters):
    cnn = CNNSegmenter(network, **PLAIN, n_epochs=1, learning_rate=1e-2)
    return DeepStructuredSegmenter(cnn, n_epochs=1, random_state=0).set_params(**parameters)


@pytest.fixture(scope="module")
def models(images_and_labels):
    """Fitted estimators by a name."""
    X, y = images_and_labels
    cnn = CNNSegmenter(small_unet, n_epochs=1, class_weight={1: 2.0}, random_state=0).fit(X, y)
    offsets = [(0, 1), (1, 0), (0, 4)]
    warm = quick(small_unet, warm_start=True)
    return {
        "cnn": quick(training="cnn").fit(X, y),
        "joint": quick().fit(X, y, validation_data=(X, y)),
        "by batch": quick(training="joint_by_batch").fit(X, y),
        "fcn": quick("fcn8s_squeezenet1_1", connectivity=4).fit(X, y),
        "frozen": quick(cnn=FrozenEstimator(CNNSegmenter(n_epochs=1, random_state=0).fit(X, y))).fit(X, y),
        "MaxMarginCRF": MaxMarginCRF().fit(cnn.transform(X), y),
        "piecewise": quick(small_unet, training="piecewise", connectivity=offsets).fit(X, y),
        "warm start": warm.set_params(cnn__pos_label=255, cnn__class_weight={255: 3}).fit(X, 255 * y),
        "smoothness": quick(small_unet, pairwise="smoothness").fit(X, y),
        "CNNSegmenter": cnn,
        "own module": quick(OWN["own module"]).fit(X, y),
    }


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """The content of a file of each."""
    path = tmp_path_factory.mktemp("files") / "model"
    contents = {}
    for name, model in models.items():
        model.save(path)
        contents[name] = path.read_bytes()
    return contents


@pytest.fixture
def saved(files, tmp_path):
    """A function that gives the file of one of the models."""

    def write(name):
        (tmp_path / "model").write_bytes(files[name])
        return tmp_path / "model"

    return write


# round trips


def same(a, b):
    """Whether two attributes are of the same types and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Module):
        return same(dict(a.state_dict()), dict(b.state_dict()))
    if isinstance(a, CNNSegmenter):
        return same(vars(a) | {"network": None}, vars(b) | {"network": None})
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


@pytest.mark.parametrize("name", NAMES)
def test_loaded_is_what_was_saved(models, saved, images_and_labels, name):
    model, loaded = models[name], load(str(saved(name)), network=OWN.get(name))
    ignored = {"network": None, "cnn": None, "connectivity": None}
    parameters = [{**each.get_params(deep=False), **ignored} for each in (loaded, model)]
    assert parameters[0] == parameters[1]
    fitted = type(model)._fitted_attributes
    assert same(*({key: getattr(each, key) for key in fitted} for each in (loaded, model)))
    X = images_and_labels[0]
    if isinstance(model, MaxMarginCRF):
        X = models["CNNSegmenter"].transform(X)
    else:
        np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X), strict=True)
        assert getattr(loaded, "cnn_", loaded).network == OWN.get(name, getattr(model, "cnn_", model).network)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X), strict=True)
    np.testing.assert_array_equal(loaded.classes_, model.classes_)
    if hasattr(loaded, "cnn"):
        assert type(loaded.cnn) is CNNSegmenter
        assert same(loaded._cnn().get_params(), loaded.cnn_.get_params())


def test_loaded_goes_on_training_alike(models, saved, images_and_labels):
    X, y = images_and_labels
    loaded, model = load(saved("warm start"), network=small_unet), copy.deepcopy(models["warm start"])
    for each in (loaded, model):
        each.fit(X, 255 * y)
    assert same(loaded.network_, model.network_)
    np.testing.assert_array_equal(loaded.coef_, model.coef_)
    assert not same(loaded.network_, models["warm start"].network_)


def test_nothing_is_downloaded_or_unpickled(files, tmp_path, monkeypatch):
    for module in (pickle, sys.modules["_pickle"]):
        for function in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, function, lambda *_, **__: pytest.fail("something is unpickled"))
    for module in (torch, torch.jit, joblib, np):
        monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("something is loaded"))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    path = tmp_path / "model"
    for name, data in files.items():
        path.write_bytes(data)
        use(load(path, network=OWN.get(name)))
    edited(path, files["fcn"], put("attributes", "cnn_", "parameters", "weights", value="imagenet"))
    assert load(path).cnn_.weights == "imagenet"
    for data in (pickle.dumps(CNNSegmenter()), b"\x80\x04cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="can't be loaded"):
            load(path)


# networks of one's own


def test_an_own_network_is_asked_for(saved):
    path = saved("own module")
    with pytest.raises(ValueError, match=r"can't be loaded: .* of your own: give it as load\(path, network=...\)"):
        load(path)
    for network, message in {
        nn.Conv2d(1, 1, 5, padding=2): r"the weights do not fit this network: its 'weight' is .*3, 3",
        lambda n_channels: n_channels / 0: "it can't be built for 1 channels: division by zero",
        lambda n_channels: None: "it can't be built for 1 channels: .* must return a torch.nn.Module",
    }.items():
        with pytest.raises(ValueError, match=f"network: {message}"):
            load(path, network=network)


def test_an_own_network_is_refused_where_none_is_wanted(saved):
    for name in ("joint", "MaxMarginCRF"):
        with pytest.raises(ValueError, match="with a network: its parameter network is a name, or it has none"):
            load(saved(name), network=small_unet)
    with pytest.raises(TypeError, match="network must be a torch.nn.Module or a function, got str"):
        load(saved("joint"), network="unet")


def test_the_module_given_is_not_changed(saved):
    module = nn.Conv2d(1, 1, 3, padding=1)
    before = module.weight.clone()
    loaded = load(saved("own module"), network=module)
    assert loaded.cnn.network is loaded.cnn_.network is module
    assert torch.equal(module.weight, before)
    assert not torch.equal(loaded.network_.weight, before)


def test_missing_files_and_folders_are_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    for path in (tmp_path, os.devnull):
        with pytest.raises(ValueError, match="can't be loaded: it is a folder, a pipe, a socket or a device"):
            load(path)
    for path in (5, b"model"):
        with pytest.raises(TypeError, match="path must be a str or a path, got"):
            load(path)


# files of strangers


def parts(data, path):
    """Metadata, parsed JSON and tensors of a file."""
    path.write_bytes(data)
    with safe_open(path, framework="np") as file:
        names = file.keys()
        arrays = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata()
    return metadata, json.loads(metadata["content"]), arrays


def with_checksum(metadata, text, arrays):
    """A file whose checksum is right, whatever it says."""
    metadata = {key: value for key, value in metadata.items() if key != "sha256"} | {"content": text}
    return serialize(arrays, metadata | {"sha256": state_files._checksum(metadata, arrays)})


def edited(path, data, change):
    """Write a file whose parsed JSON and arrays are changed, as its author could."""
    metadata, document, arrays = parts(data, path)
    change(document, arrays)
    path.write_bytes(with_checksum(metadata, json.dumps(document), arrays))


def put(*path, value):
    """An edit that sets what the JSON has at a path."""

    def change(document, arrays):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def remove(*path):
    def change(document, arrays):
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def array(name, value):
    return lambda document, arrays: arrays.update({name: np.asarray(value)})


OF_CNN = ("attributes", "cnn_", "parameters")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("class", value="GridSearchCV"), "its class must be CNNSegmenter or .*, not 'GridSearchCV'"),
        (put("class", value=["CNNSegmenter"]), "its class must be a str, not a list"),
        (put("class", value="MaxMarginCRF"), "fitted attributes do not fit a MaxMarginCRF: they differ in"),
        (put("more", value=1), "must have the entries class, parameters, attributes"),
        (put("parameters", value=[]), "its parameters must be a dict, not a list"),
        (put("parameters", "memory", value="/tmp"), r"it can't set the parameters \['memory'\]"),
        (put("parameters", "checkpoint", value="/tmp"), r"it can't set the parameters \['checkpoint'\]"),
        (put(*OF_CNN, "checkpoint", value="/tmp"), r"it can't set the parameters \['checkpoint'\] of CNNSegmenter"),
        (put("parameters", "predict", value=1), r"it can't set the parameters \['predict'\]"),
        (put("parameters", "C", value=float("nan")), "'C' parameter of"),
        (put("parameters", "C", value=[1.0]), "'C' parameter of"),
        (put("parameters", "connectivity", value=5), "connectivity"),
        (put("parameters", "callbacks", value={"items": [[1.5, 1]]}), "not a dict as save writes it"),
        (put(*OF_CNN, "network", value="os.system"), "network must be 'unet', or 'unet_' or 'fcn8s_'"),
        (put(*OF_CNN, "network", value="fcn8s_nonsense"), "'nonsense' is not a known backbone"),
        (put(*OF_CNN, "network", value=3), "'network' parameter of CNNSegmenter must be"),
        (put(*OF_CNN, "network", value="fcn8s_squeezenet1_1"), "weights do not fit this network"),
        (put(*OF_CNN, "network_scale", value=[]), "network_scale"),
        (put(*OF_CNN, "network_scale", value=2**31), "network_scale must be a positive number up to 16"),
        (put(*OF_CNN, "network_scale", value=[10**400]), "network_scale must be a positive number up to 16"),
        (put("attributes", "cnn_", "attributes", "n_channels_in_", value=0), "'n_channels_in_' parameter of"),
        (put("attributes", "cnn_", "attributes", "n_channels_in_", value=10**9), "'n_channels_in_' parameter of"),
        (put("attributes", "cnn_", "attributes", "n_channels_in_", value=True), "'n_channels_in_' must not be True"),
        (put("attributes", "cnn_", "attributes", "network_scale_", value="auto"), "'network_scale_' parameter of"),
        (put("attributes", "cnn_", "attributes", "network_scale_", value=[-1.0]), "network_scale_ must be a positive"),
        (put("attributes", "cnn_", "attributes", "network_", value=None), "network_ must be a dict|refer to all"),
        (put("attributes", "cnn_", "class", value="MaxMarginCRF"), "do not fit a MaxMarginCRF"),
        (put("attributes", "cnn_", value={"array": "coef_"}), "lacks the tensor|uses it twice"),
        (array("attributes.cnn_.attributes.class_weight_", [1.0, -1.0]), "class_weight_ must be two numbers between"),
        (put("attributes", "sigma_", value=-1.0), "'sigma_' parameter of"),
        (put("attributes", "sigma_", value=None), "sigma_ must be a number with the contrast term"),
        (put("attributes", "sigma_", value=10**400), "'sigma_' parameter of"),
        (put("attributes", "objective_", value=None), "must be None together"),
        (put("attributes", "n_iter_", value=-1), "'n_iter_' parameter of"),
        (put("attributes", "history_", value=[1]), "history_ must be a list of dict"),
        (put("attributes", "history_", value=[{"stage": "joint", "epoch": "1"}]), "each with its stage, "),
        (put("attributes", "coef_", value=[1.0, 1.0, 1.0]), "'coef_' parameter of|refer to all"),
        (put("attributes", "coef_", value={"array": "missing"}), "it lacks the tensor 'missing'"),
        (put("attributes", "history_", value=[{"stage": "joint", "epoch": -1}]), "each with its stage, "),
        (
            put("attributes", "history_", value=[{"stage": "cnn", "epoch": 1}]),
            "must have the entries of history_ of cnn_",
        ),
        (put("attributes", "objective_", value=3), "'objective_' parameter of"),
        (put("attributes", "objective_", value=-0.5), "objective_ and dual_gap_ must not be negative"),
        (put("attributes", "dual_gap_", value=float("nan")), "objective_ and dual_gap_ must not be negative"),
        (put("attributes", "inference_gap_", value=-0.5), "inference_gap_ must not be negative"),
        (put("attributes", "sigma_", value=1e-320), "'sigma_' parameter of"),
        (put("parameters", "sigma", value=1e-320), "'sigma' parameter of"),
        (put("parameters", "training", value="cnn"), 'training="cnn" learns no field'),
        (put("parameters", "pos_label", value=1), r"it can't set the parameters \['pos_label'\]"),
        (put("parameters", "C", value=10**6 * "x"), "'C' parameter of"),
        (
            put("parameters", "connectivity", value=[[0, n] for n in range(1, 200)]),
            "connectivity .* at most 128 offsets",
        ),
        (put("parameters", "connectivity", value=[[0, 10**9], [1, 0]]), "connectivity .* at most 100000 pixels"),
        (put(*OF_CNN, "network_scale", value=17 * [0.5]), "network_scale must be .* 1 to 16 such numbers"),
        (put(*OF_CNN, "ignore_label", value=1), "ignore_label must be neither 0"),
        (put(*OF_CNN, "class_weight", value={"items": [[7, 1.0]]}), "class_weight must have only the labels"),
        (
            put(*OF_CNN, "class_weight", value={"items": [[n, 1.0] for n in range(3)]}),
            "only the labels 0 and 1 as keys",
        ),
        (put(*OF_CNN, "class_weight", value={"items": [[n, 1.0] for n in range(256)]}), "not a dict as save writes it"),
        (array("attributes.cnn_.attributes.class_weight_", [1.0, 1e300]), "class_weight_ must be two numbers between"),
        (array("attributes.cnn_.attributes.class_weight_", [1.0, np.nan]), "class_weight_ must be two numbers between"),
        (array("attributes.cnn_.attributes.classes_", [0, 2]), "classes_ does not fit pos_label=1, got"),
        (array("attributes.cnn_.attributes.classes_", [1, 0]), "classes_ must be 2 to 255 labels in ascending order"),
        (array("attributes.cnn_.attributes.classes_", [0.0, 1.0]), "classes_ must be 2 to 255 labels"),
        (array("attributes.cnn_.attributes.classes_", [0, 1, 2]), "in the weights it is float32"),
        (array("attributes.coef_", [1e300, 1.0, 0.0]), "coef_ must be 3 finite numbers, at most 1e"),
        (array("attributes.slack_", np.zeros(0)), "slack_ must be a vector of float"),
        (array("attributes.slack_", [-1.0, np.nan, 0.0]), "slack_ must be a vector of float"),
        (put("attributes", "__class__", value=1), "they differ in __class__"),
        (put("attributes", "predict", value=1), "they differ in predict"),
        (put("attributes", "_settings", value=1), "they differ in _settings"),
        (remove("attributes", "history_"), "they differ in history_"),
        (array("more", np.zeros(2)), "does not refer to all of its tensors"),
        (array("attributes.coef_", [1.0, -1.0, 0.0]), "coef_ must be 3 finite numbers"),
        (array("attributes.coef_", [1.0, np.inf, 0.0]), "coef_ must be 3 finite numbers"),
        (array("attributes.coef_", [1, 1, 1]), "coef_ must be 3 finite numbers"),
        (array("attributes.coef_", np.zeros(2)), "coef_ must be 3 finite numbers"),
        (array("attributes.slack_", np.zeros((2, 2))), "slack_ must be a vector of float"),
    ],
)
def test_what_a_stranger_writes_is_checked(files, tmp_path, change, message):
    path = tmp_path / "model"
    edited(path, files["joint"], change)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} can't be loaded: .*({message})") as caught:
        load(path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("MaxMarginCRF", put("attributes", "n_channels_in_", value=1), "n_channels_in_ must count the channel of"),
        ("MaxMarginCRF", put("attributes", "objective_", value=None), "must be None together"),
        ("MaxMarginCRF", lambda document, arrays: without_field(document, arrays), "objective_ must be a number"),
        ("cnn", array("attributes.coef_", [1.0, 1.0, 0.0]), "coef_ must be 1 and zeros"),
        ("cnn", put("attributes", "sigma_", value=0.1), "sigma_ must be a number with the contrast term, and None"),
        ("cnn", put("attributes", "n_iter_", value=3), "must be None together"),
    ],
)
def test_an_estimator_has_its_field_whole_or_not_at_all(files, tmp_path, name, change, message):
    edited(tmp_path / "model", files[name], change)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model")


def without_field(document, arrays):
    document["attributes"] |= dict.fromkeys(
        ["objective_", "dual_gap_", "inference_gap_", "slack_", "sigma_", "n_iter_"]
    )
    del arrays["attributes.slack_"]


def test_a_fit_that_was_interrupted_before_it_had_a_field_is_loaded(files, tmp_path):
    edited(tmp_path / "model", files["cnn"], put("parameters", "training", value="joint"))
    assert load(tmp_path / "model").objective_ is None


STATE = ("attributes", "optimizer_state_")


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda moments: moments.update(exp_avg=moments["exp_avg"][..., :-1].copy()), "0"),
        (lambda moments: moments.update(exp_avg_sq=moments["exp_avg_sq"][np.newaxis]), "0"),
        (lambda moments: moments.update(exp_avg_sq=moments["exp_avg_sq"].astype(np.int64)), "0"),
        (lambda moments: moments.update(exp_avg_sq=moments["exp_avg_sq"] - 1), "0"),
        (lambda moments: moments.update(step=np.float32(-1)), "0"),
        (lambda moments: moments.update(step=np.float32(np.nan)), "0"),
        (lambda moments: moments.update(step=np.ones(2)), "0"),
        (lambda moments: moments.pop("step"), "0"),
        (lambda moments: None, "1000000"),
        (lambda moments: None, "-1"),
        (lambda moments: None, "a"),
    ],
)
def test_the_state_of_training_must_fit_the_network(models, tmp_path, change, number):
    model = copy.deepcopy(models["warm start"])
    content = model.optimizer_state_
    moments = content["0"]
    change(moments)
    content[number] = moments
    with pytest.raises(ValueError, match=f"could not be loaded: .*its entry '{number}' does not fit"):
        model.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_a_file_starts_no_more_processes_than_there_are_processors(files, tmp_path):
    edited(tmp_path / "model", files["joint"], put("parameters", "n_jobs", value=10**6))
    assert load(tmp_path / "model").n_jobs == joblib.cpu_count()


def test_networks_named_by_a_stranger_take_no_memory(files, tmp_path, memory_growth):
    def lie(document, arrays):
        document["attributes"]["cnn_"]["parameters"]["network"] = "fcn8s_vgg16"
        document["attributes"]["cnn_"]["attributes"]["n_channels_in_"] = 10_000

    edited(tmp_path / "model", files["joint"], lie)

    def refuse():
        with pytest.raises(ValueError, match="do not fit this network"):
            load(tmp_path / "model")

    assert memory_growth(refuse) < 100_000_000  # VGG-16 takes 500 MB


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or of another kind"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged, or of another kind"),
        (serialize({"weight": np.zeros(3)}), "it was not written by skmmcrf"),
        (
            serialize({"weight": np.zeros(3)}, {"skmmcrf_format": "1", "skmmcrf_version": "0.0"}),
            "its format is '1', of skmmcrf '0.0', but skmmcrf .* reads '2'",
        ),
        (
            serialize({}, {"skmmcrf_format": "2", "kind": "state", "content": "", "sha256": ""}),
            "it is a file of skmmcrf, but holds no estimator",
        ),
    ],
    # serialize gives another order of the same entries each time
    ids=["empty", "cut", "weights", "other format", "state"],
)
def test_foreign_files_are_told(tmp_path, data, message):
    (tmp_path / "model").write_bytes(data)
    with pytest.raises(ValueError, match=f"model can't be loaded: .*{message}"):
        load(tmp_path / "model")


@pytest.mark.parametrize("text", ["", "null", "3", "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000])
def test_other_json_is_told(files, tmp_path, text):
    metadata, _, arrays = parts(files["MaxMarginCRF"], tmp_path / "model")
    (tmp_path / "model").write_bytes(with_checksum(metadata, text, arrays))
    with pytest.raises(ValueError, match="can't be loaded"):
        load(tmp_path / "model")


def test_every_damage_is_noticed(files, tmp_path):
    path, rng, data = tmp_path / "model", np.random.default_rng(0), files["own module"]
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for n in range(400):
        changed = damaged(data, rng, files["MaxMarginCRF"], (8, header, len(data))[n % 3])
        if changed not in files.values():
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=f"{re.escape(str(path))} can't be loaded: "):
                load(path, network=OWN["own module"])


# files changed at random

DEEP = "a place for something deep"
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 4, 8, 255, 256, 10_000, 2**31, 2**63, -(2**70), 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
    *("", "a", "unet", "fcn8s_vgg16", "fcn8s_squeezenet1_1", "auto", "cpu", "cuda", "cuda:99", "meta", "mps", "xla"),
    *("cnn", "joint", "piecewise", "balanced", "smoothness", "flip", "coef_", "MaxMarginCRF", "../a", "\ud800", DEEP),
    *([], {}, [[]], [1], [[0, 1], [1, 0]], {"a": 1}, {"items": []}, {"items": [["a", 1], ["a", 2]]}, {"items": 3}),
    *({"array": "coef_"}, {"array": "attributes.coef_"}, {"array": ""}),
]
KEYS = [
    *("array", "items", "class", "parameters", "attributes", "weights", "memory", "checkpoint", "network"),
    *("coef_", "sigma_", "cnn_", "network_", "optimizer_state_", "n_jobs", "callbacks", "augmentation", "device"),
    *("more_", "__class__", "__dict__", "_private_", "predict", "fit_", "", "\x00", "a.b_"),
]
SHAPES = [(), (0,), (1,), (2,), (3,), (4,), (3, 1), (0, 3), (2, 2), (1, 1, 1, 1)]
DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint8", "uint64", "bool"]
NUMBERS = [0, 1, -1, 100, np.nan, np.inf, -np.inf, 1e-300, 1e300]


def one_of(values, rng):
    return values[rng.integers(len(values))]


def places(node, path=()):
    """Paths to everything in JSON."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def at(node, path):
    for key in path:
        node = node[key]
    return node


def change_json(document, rng):
    everywhere = [*places(document)]
    *path, key = one_of(everywhere, rng)
    parent = at(document, path)
    value = copy.deepcopy(one_of(VALUES, rng) if rng.random() < 0.6 else at(document, one_of(everywhere, rng)))
    way = rng.integers(4)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        parent[one_of(KEYS, rng)] = value
    elif way == 1:
        parent.insert(key, value)
    elif way == 2 and type(parent[key]) in (int, float):
        parent[key] = parent[key] * one_of([-1, 2, 0.5, 1e200], rng)
    else:
        parent[key] = value


@np.errstate(all="ignore")
def change_arrays(arrays, rng):
    name = one_of([*arrays], rng)
    array = arrays.pop(name)
    way = rng.integers(8)
    if way == 0:
        return  # gone
    if way == 1:
        name = one_of([*arrays, *KEYS], rng)
    elif way == 2:
        array = np.full(one_of(SHAPES, rng), one_of(NUMBERS, rng))
    elif way == 3:
        array = array.astype(one_of(DTYPES, rng))
    elif way == 4:
        array = array.T if rng.random() < 0.5 else array[..., np.newaxis]
    elif way == 5:
        array = array.ravel()[: rng.integers(array.size + 1)]
    elif array.size and array.dtype.kind == "f":
        array = array.copy()
        array.ravel()[rng.integers(array.size)] = one_of(NUMBERS, rng)
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)


def hostile(metadata, document, arrays, rng):
    """A file with a right checksum, one or more of whose things are changed."""
    document, arrays = copy.deepcopy(document), dict(arrays)
    for _ in range(1 + rng.poisson(0.5)):
        change_json(document, rng) if rng.random() < 0.6 else change_arrays(arrays, rng)
    depth = int(rng.choice([3, 300, 30_000]))
    text = json.dumps(document).replace(json.dumps(DEEP), "[" * depth + "]" * depth)
    return with_checksum(metadata, text, arrays)


def load_or_refuse(path, name):
    """The estimator, or None for the documented error."""
    try:
        return load(path, network=OWN.get(name))
    except ValueError as error:
        if not str(error).startswith(f"{path} can't be loaded: "):
            raise
        return None


def use(model):
    """Predict: what may come are labels, or a ValueError of numbers that overflow."""
    assert type(model) in (CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF)
    if hasattr(model, "n_jobs"):
        model.n_jobs = None  # processes take time to start
    shape = (2, 16, 24, min(model.n_channels_in_, 5))
    X = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    with contextlib.suppress(ValueError):
        labels = model.predict(X / 255.0 if isinstance(model, MaxMarginCRF) else X)
        assert labels.shape == shape[:3]
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*model.classes_}


@pytest.mark.parametrize("n_files", [300, pytest.param(3_000, marks=pytest.mark.slow)])
def test_files_changed_at_random_are_refused_or_work(files, tmp_path, memory_growth, n_files):
    path = tmp_path / "model"
    # only the user knows how many channels a module takes
    originals = {name: (data, *parts(data, path)) for name, data in files.items() if name != "own module"}
    rng = np.random.default_rng(0)
    n_loaded = 0
    for n in range(n_files):
        name = [*originals][n // 2 % len(originals)]
        data, metadata, document, arrays = originals[name]
        if n % 2:
            other = files[one_of([*files], rng)]
            header = 8 + struct.unpack("<Q", data[:8])[0]
            path.write_bytes(damaged(data, rng, other, int(rng.choice([8, 200, header]))))
        else:
            path.write_bytes(hostile(metadata, document, arrays, rng))
        loaded = []
        growth = memory_growth(lambda name=name, loaded=loaded: loaded.append(load_or_refuse(path, name)))
        assert growth < 20_000_000 + 4 * path.stat().st_size
        if loaded[0] is not None:
            use(loaded[0])
            n_loaded += 1
    assert n_loaded > 0.03 * n_files


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_training_goes_on_from_changed_files_or_tells(files, images_and_labels, tmp_path):
    path = tmp_path / "model"
    X, y = images_and_labels
    metadata, document, arrays = parts(files["warm start"], path)
    rng = np.random.default_rng(1)
    n_loaded = n_fitted = 0
    for _ in range(50):
        state, changed = copy.deepcopy(document["attributes"]), dict(arrays)
        change_json(state, rng) if rng.random() < 0.5 else change_arrays(changed, rng)
        path.write_bytes(with_checksum(metadata, json.dumps(document | {"attributes": state}), changed))
        model = load_or_refuse(path, "warm start")
        if model is not None:
            n_loaded += 1
            with contextlib.suppress(ValueError, FloatingPointError):
                use(model.fit(X, y * np.uint8(model.cnn.pos_label)))
                n_fitted += 1
    assert n_fitted > 0.5 * n_loaded > 3


def test_a_loaded_model_hands_a_new_random_state_to_its_network(models, tmp_path):
    models["joint"].save(tmp_path / "model")
    loaded = clone(load(tmp_path / "model")).set_params(random_state=7)
    expected = clone(models["joint"]).set_params(random_state=7)
    assert loaded._cnn().random_state == expected._cnn().random_state == 7
