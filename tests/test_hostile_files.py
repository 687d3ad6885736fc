"""`skmmcrf.load` on files of strangers: thousands of mutated ones, of all kinds of estimators.

Half of them are damaged anywhere. The others are what an author of bad will could write: their JSON and their tensors
are changed and their checksum is right.
"""

import contextlib
import copy
import hashlib
import json
import pickle
import struct
import sys

import joblib
import numpy as np
import pytest
import torch
from damage import damaged
from safetensors import safe_open
from safetensors.numpy import save as serialize

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet

QUICK = {"pretrain_epochs": 1, "n_epochs": 1, "batch_size": 3, "random_state": 0}


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


# small files are written faster
OWN = {name: small_unet for name in ("piecewise", "warm start", "CNNSegmenter")}


@pytest.fixture(scope="module")
def images_and_labels():
    return make_phantoms(3, shape=(16, 24), random_state=0)


@pytest.fixture(scope="module")
def files(images_and_labels, tmp_path_factory):
    """The content of a file of each kind."""
    X, y = images_and_labels
    cnn = CNNSegmenter(small_unet, n_epochs=1, class_weight={1: 2.0}, random_state=0).fit(X, y)
    fitted = {
        "cnn": DeepStructuredSegmenter(training="cnn", **QUICK).fit(X, y),
        "piecewise": DeepStructuredSegmenter(small_unet, training="piecewise", **QUICK).fit(X, y),
        "joint": DeepStructuredSegmenter(**QUICK).fit(X, y, validation_data=(X, y)),
        "fcn": DeepStructuredSegmenter("fcn8s_squeezenet1_1", connectivity=4, **QUICK).fit(X, y),
        "warm start": DeepStructuredSegmenter(small_unet, warm_start=True, **QUICK).fit(X, y),
        "CNNSegmenter": cnn,
        "MaxMarginCRF": MaxMarginCRF().fit(cnn.transform(X), y),
    }
    path = tmp_path_factory.mktemp("files") / "model"
    contents = {}
    for name, model in fitted.items():
        model.save(path)
        contents[name] = path.read_bytes()
    return contents


# what is written


def parts(data, path):
    """Metadata, parsed JSON and tensors of a file."""
    path.write_bytes(data)
    with safe_open(path, framework="np") as file:
        names = file.keys()
        arrays = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata()
    return metadata, json.loads(metadata["estimator"]), arrays


def with_checksum(metadata, text, arrays):
    """A file whose checksum is right, whatever it says."""
    metadata = {key: value for key, value in metadata.items() if key != "sha256"} | {"estimator": text}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(json.dumps([name, arrays[name].dtype.name, arrays[name].shape]).encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return serialize(arrays, metadata | {"sha256": digest.hexdigest()})


DEEP = "a place for something deep"
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 4, 8, 255, 256, 10_000, 2**31, 2**63, 2**64, -(2**70), 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e-30, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
    *("", "a", "unet", "fcn8s_vgg16", "fcn8s_squeezenet1_1", "auto", "cpu", "cuda", "cuda:99", "meta", "mps", "xla"),
    *(
        "cnn",
        "joint",
        "piecewise",
        "balanced",
        "kkt",
        "flip",
        "coef_",
        "network_.",
        "MaxMarginCRF",
        "../a",
        "\ud800",
        DEEP,
    ),
    *([], {}, [[]], [1], {"a": 1}, {"items": []}, {"items": [["a", 1], ["a", 2]]}, {"items": [[1.5, 1]]}, {"items": 3}),
    *({"array": "coef_"}, {"scalar": "sigma_"}, {"array": ""}, {"network": ""}, {"network": "n"}, {"estimator": {}}),
]
KEYS = [
    *("array", "scalar", "items", "network", "estimator", "class", "parameters", "attributes", "weights", "memory"),
    *("coef_", "sigma_", "crf_", "network_", "optimizer_state_", "n_jobs", "callbacks", "augmentation", "device"),
    *("more_", "__class__", "__dict__", "_private_", "predict", "fit_", "", "\x00", "a.b_"),
]
SHAPES = [(), (0,), (1,), (2,), (3,), (4,), (3, 1), (0, 3), (2, 2), (1, 1, 1, 1)]
DTYPES = ["float64", "float32", "float16", "int64", "int8", "uint8", "uint64", "bool"]
NUMBERS = [0, 1, -1, 100, np.nan, np.inf, -np.inf, 1e-300, 1e300]


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
    if not everywhere:
        return
    *path, key = everywhere[rng.integers(len(everywhere))]
    parent = at(document, path)
    value = (
        VALUES[rng.integers(len(VALUES))]
        if rng.random() < 0.6
        else at(document, everywhere[rng.integers(len(everywhere))])
    )
    way = rng.integers(5)
    if way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, dict):
        parent[KEYS[rng.integers(len(KEYS))]] = copy.deepcopy(value)
    elif way == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(value))
    elif way == 3 and type(parent[key]) in (int, float):
        parent[key] = parent[key] * [-1, 2, 0.5, 1e200][rng.integers(4)]
    else:
        parent[key] = copy.deepcopy(value)


@np.errstate(all="ignore")
def change_arrays(arrays, rng):
    name = [*arrays][rng.integers(len(arrays))] if arrays else "more"
    array = arrays.pop(name, np.zeros(3))
    way = rng.integers(10)
    if way == 0:
        return  # gone
    if way == 1:
        name = [*arrays, *KEYS][rng.integers(len(arrays) + len(KEYS))]
    elif way == 2:
        array = np.full(SHAPES[rng.integers(len(SHAPES))], NUMBERS[rng.integers(len(NUMBERS))])
    elif way == 3:
        array = array.astype(DTYPES[rng.integers(len(DTYPES))])
    elif way == 4:
        array = array.T
    elif way == 5:
        array = array[..., np.newaxis]
    elif way == 6:
        array = array.ravel()[: rng.integers(array.size + 1)]
    elif array.size and array.dtype.kind == "f":
        array = array.copy()
        array.ravel()[rng.integers(array.size)] = NUMBERS[rng.integers(len(NUMBERS))]
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)


def hostile(metadata, document, arrays, rng):
    """A file with a right checksum, one to three of whose things are changed."""
    document, arrays = [copy.deepcopy(document)], dict(arrays)
    for _ in range(1 + rng.poisson(0.5)):
        if rng.random() < 0.6:
            change_json(document, rng)
        else:
            change_arrays(arrays, rng)
    depth = int(rng.choice([3, 300, 30_000]))
    text = json.dumps(document[0] if document else None).replace(json.dumps(DEEP), "[" * depth + "]" * depth)
    return with_checksum(metadata, text, arrays)


# what becomes of it


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
    for estimator in (model, getattr(model, "crf_", None)):
        if hasattr(estimator, "n_jobs"):
            estimator.n_jobs = None  # processes take time to start
    shape = (2, 16, 24, min(model.n_channels_in_, 5))
    X = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    with contextlib.suppress(ValueError):
        labels = model.predict(X / 255.0 if isinstance(model, MaxMarginCRF) else X)
        assert labels.shape == shape[:3]
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, model.pos_label}


def test_what_is_not_changed_is_loaded(files, tmp_path):
    path = tmp_path / "model"
    for name, data in files.items():
        metadata, document, arrays = parts(data, path)
        path.write_bytes(with_checksum(metadata, json.dumps(document), arrays))
        use(load(path, network=OWN.get(name)))


@pytest.mark.parametrize("n_files", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_refused_or_work(files, tmp_path, memory_growth, n_files):
    path = tmp_path / "model"
    originals = {name: (data, *parts(data, path)) for name, data in files.items()}
    rng = np.random.default_rng(0)
    n_loaded = 0
    for n in range(n_files):
        name = [*originals][n // 2 % len(originals)]
        data, metadata, document, arrays = originals[name]
        if n % 2:
            other = files[[*files][rng.integers(len(files))]]
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


def test_nothing_is_ever_unpickled(files, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("something is unpickled")

    for module in (pickle, sys.modules["_pickle"]):
        for function in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(module, function, fail)
    for module in (torch, torch.jit, joblib, np):
        monkeypatch.setattr(module, "load", fail)
    path = tmp_path / "model"
    for name, data in files.items():
        path.write_bytes(data)
        use(load(path, network=OWN.get(name)))
    for data in (pickle.dumps(CNNSegmenter()), b"\x80\x04cos\nsystem\n(S'true'\ntR."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="can't be loaded"):
            load(path)


# what training goes on with


def moments(arrays, kind):
    """The name of one parameter's moments."""
    return next(name for name in arrays if name.startswith("optimizer_state_") and name.endswith(kind))


def put(kind, change):
    def edit(document, arrays):
        arrays[moments(arrays, kind)] = np.asarray(change(arrays[moments(arrays, kind)]))

    return edit


def state_of(document):
    return document["attributes"]["optimizer_state_"]["items"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put(".exp_avg", lambda a: a[..., :-1].copy()), "what it has of 0 does not belong to a parameter"),
        (put(".exp_avg_sq", lambda a: a[np.newaxis]), "what it has of 0 does not belong"),
        (put(".exp_avg_sq", lambda a: a.astype(np.int64)), "what it has of 0 does not belong"),
        (put(".step", lambda a: a - 10), "what it has of 0 does not belong"),
        (put(".step", lambda a: a * np.nan), "what it has of 0 does not belong"),
        (put(".step", lambda a: np.ones(2)), "what it has of 0 does not belong"),
        (lambda document, _: state_of(document)[0].__setitem__(0, 10**6), "what it has of 1000000 does not belong"),
        (lambda document, _: state_of(document)[0].__setitem__(0, -1), "what it has of -1 does not belong"),
        (lambda document, _: state_of(document)[0].__setitem__(0, "0"), "what it has of '0' does not belong"),
        (lambda document, _: state_of(document)[0][1]["items"][0].__setitem__(0, "a"), "what it has of 0 does not"),
        (lambda document, _: state_of(document).append([10**6, 3]), "what it has of 1000000 does not belong"),
        (lambda document, _: state_of(document).append([0, 3]), "what it has of 0 does not belong|nothing refers"),
        (
            lambda document, _: document["attributes"].update(history_=[{"items": []}]),
            "history_ must be a list of dict",
        ),
        (
            lambda document, _: document["attributes"].update(
                history_=[{"items": [["stage", "joint"], ["epoch", "1"]]}]
            ),
            "history_ must be a list of dict, each with its stage and epoch",
        ),
    ],
)
def test_state_of_training_must_fit_the_network(files, tmp_path, edit, message):
    path = tmp_path / "model"
    metadata, document, arrays = parts(files["warm start"], path)
    edit(document, arrays)
    path.write_bytes(with_checksum(metadata, json.dumps(document), arrays))
    with pytest.raises(ValueError, match=f"can't be loaded: .*({message})"):
        load(path, network=small_unet)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_training_goes_on_from_mutated_files_or_tells(files, images_and_labels, tmp_path):
    path = tmp_path / "model"
    metadata, document, arrays = parts(files["warm start"], path)
    rng = np.random.default_rng(0)
    n_loaded = n_fitted = 0
    for _ in range(50):
        state, mutated = copy.deepcopy(document["attributes"]), dict(arrays)
        if rng.random() < 0.5:
            change_json(state, rng)
        else:
            change_arrays(mutated, rng)
        path.write_bytes(with_checksum(metadata, json.dumps(document | {"attributes": state}), mutated))
        model = load_or_refuse(path, "warm start")
        if model is not None:
            n_loaded += 1
            with contextlib.suppress(ValueError, FloatingPointError):
                use(model.fit(*images_and_labels))
                n_fitted += 1
    assert n_fitted > 0.7 * n_loaded > 3


# memory


@pytest.mark.parametrize(("entry", "n_bytes"), [("[]", 200), ("{}", 200), ("1e1", 80)])
def test_json_takes_no_more_memory_than_its_entries(files, tmp_path, memory_growth, entry, n_bytes):
    path = tmp_path / "model"
    metadata, _, arrays = parts(files["MaxMarginCRF"], path)

    def refuse():
        with pytest.raises(ValueError, match="can't be loaded: (its JSON has more than|something in it must have)"):
            load(path)

    for n_entries in (200_000, 3_000_000):
        path.write_bytes(with_checksum(metadata, f"[{','.join([entry] * n_entries)}]", arrays))
        assert memory_growth(refuse) < 10 * path.stat().st_size + n_bytes * min(n_entries, 200_000)
