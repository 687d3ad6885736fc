"""Estimators in files, in pickles and in the files of skops."""

import contextlib
import copy
import json
import pickle
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as serialize
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, base, load, persistence, safe_files
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet

QUICK = {"pretrain_epochs": 2, "pretrain_learning_rate": 1e-2, "n_epochs": 1, "batch_size": 3, "random_state": 0}


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


@pytest.fixture(scope="module")
def phantoms():
    return make_phantoms(3, shape=(16, 24), random_state=0)


@pytest.fixture(scope="module")
def models(phantoms):
    """Fitted estimators by a name."""
    X, y = phantoms
    cnn = CNNSegmenter(n_epochs=2, learning_rate=1e-2, random_state=0).fit(X, y, validation_data=(X, y))
    return {
        "cnn": DeepStructuredSegmenter(training="cnn", **QUICK).fit(X, y),
        "piecewise": DeepStructuredSegmenter(training="piecewise", **QUICK).fit(X, y),
        "joint": DeepStructuredSegmenter(training="joint", **QUICK).fit(X, y, validation_data=(X, y)),
        "fcn": DeepStructuredSegmenter("fcn8s_squeezenet1_1", connectivity=4, **QUICK).fit(X, y),
        "own module": DeepStructuredSegmenter(nn.Conv2d(1, 1, 3, padding=1), **QUICK).fit(X, y),
        "own function": CNNSegmenter(small_unet, n_epochs=1, random_state=0).fit(X, y),
        "CNNSegmenter": cnn,
        "MaxMarginCRF": MaxMarginCRF().fit(cnn.transform(X), y),
    }


NAMES = ["cnn", "piecewise", "joint", "fcn", "own module", "own function", "CNNSegmenter", "MaxMarginCRF"]
OWN = {"own module": nn.Conv2d(1, 1, 3, padding=1), "own function": small_unet}


@pytest.fixture
def saved(models, tmp_path):
    """A function that writes one of the models and gives the file."""

    def write(name):
        models[name].save(tmp_path / "model")
        return tmp_path / "model"

    return write


def outputs(model, models, phantoms):
    """All that an estimator says of images."""
    if isinstance(model, MaxMarginCRF):
        return [model.predict(models["CNNSegmenter"].transform(phantoms[0]))]
    return [model.decision_function(phantoms[0]), model.predict(phantoms[0])]


def assert_same_outputs(one, other, models, phantoms):
    for a, b in zip(outputs(one, models, phantoms), outputs(other, models, phantoms)):
        np.testing.assert_array_equal(a, b, strict=True)


def same(a, b):
    """Whether two attributes are of the same types and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, nn.Module):
        return same(persistence.network_arrays(a), persistence.network_arrays(b))
    if isinstance(a, base.BaseSegmenter):
        return same(vars(a), vars(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (np.ndarray, np.generic)):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    return struct.pack("d", a) == struct.pack("d", b) if isinstance(a, float) else a == b


# files


@pytest.mark.parametrize("name", NAMES)
def test_loaded_is_what_was_saved(models, saved, phantoms, name):
    loaded = load(str(saved(name)), network=OWN.get(name))
    assert same(vars(loaded) | {"network": None}, vars(models[name]) | {"network": None})
    assert_same_outputs(loaded, models[name], models, phantoms)
    if "network" in loaded.get_params():
        assert loaded.network == OWN.get(name, models[name].network)


def test_loaded_goes_on_training(saved, phantoms):
    loaded = load(saved("joint")).set_params(warm_start=True)
    before = copy.deepcopy(loaded.network_.state_dict())
    loaded.fit(*phantoms)
    assert not all(torch.equal(before[key], value) for key, value in loaded.network_.state_dict().items())


def test_nothing_is_downloaded_or_read_but_the_file(models, tmp_path, phantoms, monkeypatch):
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("reads weights"))
    for weights in ("imagenet", Path("weights.pth")):
        model = copy.deepcopy(models["fcn"]).set_params(weights=weights)
        model.save(tmp_path / "model")
        loaded = load(tmp_path / "model")
        assert loaded.weights == str(weights)
        assert_same_outputs(loaded, model, models, phantoms)


def test_every_number_comes_back_bit_for_bit(models, tmp_path):
    model = copy.deepcopy(models["CNNSegmenter"]).set_params(learning_rate=np.float64(0.1) + 0.2, n_epochs=np.int32(3))
    numbers = [0.1 + 0.2, 5e-324, -0.0, np.nan, np.inf, -np.inf, 1e308, 2**70, True, None, "ä\ud800", []]
    model.more_ = [{"numbers": numbers, "inner": {"network": 1}}]
    model.scalars_ = [np.float32(0.1), np.int64(-3), np.bool_(True), np.float16("nan")]
    model.arrays_ = {
        "empty": np.zeros((0, 3)),
        "fortran": np.arange(6, dtype=np.uint16).reshape(2, 3).T,
        "strided": np.arange(9.0)[::2],
        "point": np.array(3, dtype=np.int8),
        "nan": np.array([np.nan, -np.nan, -0.0]),
    }
    model.save(tmp_path / "model")
    assert same(vars(load(tmp_path / "model")), vars(model))


def test_private_and_other_attributes_are_left_out(models, tmp_path):
    model = copy.deepcopy(models["CNNSegmenter"])
    model._private_, model.note = lambda: None, lambda: None
    model.save(tmp_path / "model")
    assert vars(load(tmp_path / "model")).keys() == vars(models["CNNSegmenter"]).keys()


def test_parameters_that_no_file_can_hold_are_told_and_get_their_default(models, tmp_path, phantoms):
    model = copy.deepcopy(models["joint"])
    model.set_params(
        memory=str(tmp_path),
        checkpoint=tmp_path,
        random_state=np.random.RandomState(0),
        device=torch.device("cpu"),
        n_jobs=1,
    )
    with pytest.warns(
        UserWarning, match="can't hold the parameters checkpoint, memory, random_state: load will give"
    ) as record:
        model.save(tmp_path / "model")
    assert record[0].filename == __file__
    loaded = load(tmp_path / "model")
    assert (loaded.memory, loaded.checkpoint, loaded.random_state) == (None, None, None)
    assert (loaded.device, loaded.n_jobs) == ("cpu", 1)
    assert_same_outputs(loaded, model, models, phantoms)


def test_a_file_starts_no_more_processes_than_there_are_processors(models, tmp_path):
    model = copy.deepcopy(models["piecewise"]).set_params(n_jobs=10**6)
    model.crf_.set_params(n_jobs=10**6)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.n_jobs == loaded.crf_.n_jobs == joblib.cpu_count()


def test_own_network_is_asked_for(saved):
    with pytest.raises(
        ValueError, match=r"model can't be loaded: .* of your own: give it as load\(path, network=...\)"
    ):
        load(saved("own module"))
    with pytest.raises(ValueError, match=r"network: the weights are not those of this network: its 'weight' is .*3, 3"):
        load(saved("own module"), network=nn.Conv2d(1, 1, 5, padding=2))
    with pytest.raises(ValueError, match="network: it can't be built for 1 channels: division by zero"):
        load(saved("own module"), network=lambda n_channels: n_channels / 0)
    with pytest.raises(ValueError, match="network: it can't be built for 1 channels: .* must return a torch.nn.Module"):
        load(saved("own module"), network=lambda n_channels: None)


@pytest.mark.parametrize("name", ["joint", "MaxMarginCRF"])
def test_network_is_refused_where_none_is_wanted(saved, name):
    with pytest.raises(ValueError, match="network is for files without the parameter network"):
        load(saved(name), network=small_unet)


def test_network_of_a_wrong_type_is_told(tmp_path):
    with pytest.raises(TypeError, match="network must be a torch.nn.Module or a function, got str"):
        load(tmp_path / "missing", network="unet")


def test_the_module_given_is_not_changed(saved, models):
    module = nn.Conv2d(1, 1, 3, padding=1)
    before = module.weight.clone()
    loaded = load(saved("own module"), network=module)
    assert loaded.network is module
    assert torch.equal(module.weight, before)
    assert not torch.equal(loaded.network_.weight, before)


@pytest.mark.parametrize("estimator", [CNNSegmenter(), DeepStructuredSegmenter(), MaxMarginCRF()])
def test_unfitted_is_told(estimator, tmp_path):
    with pytest.raises(NotFittedError):
        estimator.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("joint", lambda m: m.set_params(network="fcn8s_squeezenet1_1"), ValueError, "not those of this network"),
        ("joint", lambda m: m.set_params(C=-1.0), ValueError, "'C' parameter of DeepStructuredSegmenter must be"),
        ("joint", lambda m: delattr(m, "crf_"), ValueError, "the fitted DeepStructuredSegmenter lacks crf_"),
        ("joint", lambda m: m.coef_.fill(np.nan), ValueError, "coef_ must be three finite"),
        ("joint", lambda m: setattr(m, "crf_", CNNSegmenter()), ValueError, "must be MaxMarginCRF"),
        ("joint", lambda m: setattr(m, "more_", object()), TypeError, "more_ is a object, which a file can't hold"),
        ("joint", lambda m: setattr(m, "more_", [{"a": (1,)}]), TypeError, "more_.0.a is a tuple"),
        ("joint", lambda m: setattr(m, "more_", {1.5: 2}), TypeError, "more_ is a dict"),
        ("joint", lambda m: setattr(m, "more_", nn.ReLU()), TypeError, "more_ is a ReLU"),
        ("joint", lambda m: setattr(m, "more_", np.array(["a"])), TypeError, "more_ has dtype <U1"),
        ("joint", lambda m: setattr(m, "more_", np.ma.masked_array([1])), TypeError, "more_ is a MaskedArray"),
        ("MaxMarginCRF", lambda m: setattr(m, "dual_coef_", [1.0]), ValueError, "must be vectors of float64"),
        ("CNNSegmenter", lambda m: m.history_.append(3), ValueError, "history_ must be a list of dict"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(models, tmp_path, name, change, error, message):
    model = copy.deepcopy(models[name])
    change(model)
    with pytest.raises(error, match=message):
        model.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_labels_weights_and_state_of_training_are_kept(phantoms, tmp_path):
    X, y = phantoms
    model = DeepStructuredSegmenter(
        pretrain_epochs=1,
        n_epochs=1,
        pos_label=255,
        class_weight={255: 3.0},
        augmentation=v2.RandomHorizontalFlip(),
        warm_start=True,
        random_state=0,
    ).fit(X, 255 * y)
    with pytest.warns(UserWarning, match="can't hold the parameters augmentation: load will give them their default"):
        model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.class_weight == {255: 3.0}
    assert loaded.augmentation is None
    np.testing.assert_array_equal(loaded.class_weight_, [1, 3])
    # both go on alike
    model.set_params(augmentation=None).fit(X, 255 * y)
    loaded.fit(X, 255 * y)
    np.testing.assert_array_equal(loaded.coef_, model.coef_)


def test_subclasses_are_told(models, tmp_path):
    class Other(CNNSegmenter):
        pass

    model = Other()
    model.network_ = models["CNNSegmenter"].network_
    with pytest.raises(TypeError, match="CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, not a Other"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file(models, saved, phantoms, monkeypatch, step):
    path = saved("joint")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(f"os.{step}", fail)
    with pytest.raises(OSError, match="the disk is full"):
        models["fcn"].save(path)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_saving_again_replaces_the_file_whose_rights_are_the_usual_ones(models, saved):
    path = saved("joint")
    models["MaxMarginCRF"].save(path)
    assert isinstance(load(path), MaxMarginCRF)
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode
    assert {p.name for p in path.parent.iterdir()} == {"model", "other"}


def test_missing_files_and_folders_are_told(models, tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises((IsADirectoryError, PermissionError)):  # the latter on Windows
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        models["joint"].save(tmp_path / "missing" / "model")


# files of strangers


def contents(path):
    """Metadata and arrays of a file."""
    with safe_open(path, framework="np") as file:
        names = file.keys()
        return file.metadata(), {name: file.get_tensor(name) for name in names}


def write(path, metadata, arrays):
    """Write a file with a checksum that is right."""
    metadata = {key: value for key, value in metadata.items() if key != "sha256"}
    path.write_bytes(serialize(arrays, metadata | {"sha256": safe_files._checksum(metadata, arrays)}))


def edited(path, change):
    """Change the parsed JSON of a file, and its arrays, as its author could."""
    metadata, arrays = contents(path)
    document = json.loads(metadata["estimator"])
    change(document, arrays)
    write(path, metadata | {"estimator": json.dumps(document)}, arrays)


@pytest.mark.parametrize("name", ["own module", "joint"])
def test_every_damage_is_noticed(saved, name):
    path = saved(name)
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)

    def flip(limit):
        position = rng.integers(limit)
        return data[:position] + bytes([data[position] ^ 1 << rng.integers(8)]) + data[position + 1 :]

    def cut(limit):
        return data[: rng.integers(limit)]

    def lose(limit):
        start = rng.integers(limit)
        return data[:start] + data[start + rng.integers(1, 20) :]

    def repeat(limit):
        start = rng.integers(limit)
        return data[: start + rng.integers(1, 20)] + data[start:]

    def overwrite(limit):
        start, noise = rng.integers(limit), rng.bytes(rng.integers(1, 20))
        return (data[:start] + noise + data[start + len(noise) :])[: len(data)]

    for damage in (flip, flip, flip, cut, lose, repeat, overwrite):
        for limit in (8, header, header, len(data)):
            for _ in range(12):
                damaged = damage(limit)
                path.write_bytes(damaged)
                if damaged != data:
                    with pytest.raises(ValueError, match=f"{re.escape(str(path))} can't be loaded: "):
                        load(path, network=OWN.get(name))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or of another kind"),
        (b"\x80\x04N.", "damaged, or of another kind"),
        (struct.pack("<Q", 2**63) + b"{}", "damaged, or of another kind"),
        (serialize({"weight": np.zeros(3)}), "no skmmcrf wrote it"),
        (serialize({"weight": np.zeros(3)}, {"format": "pt"}), "no skmmcrf wrote it"),
        (
            serialize({"weight": np.zeros(3)}, {"skmmcrf_format": "2", "skmmcrf_version": "9.9"}),
            "its format is '2', of skmmcrf 9.9; skmmcrf",
        ),
        (
            serialize({"weight": np.zeros(3)}, {"skmmcrf_format": safe_files.FILE_FORMAT}),
            "lack the estimator or the checksum",
        ),
    ],
)
def test_foreign_files_are_told(tmp_path, data, message):
    (tmp_path / "model").write_bytes(data)
    with pytest.raises(ValueError, match=f"model can't be loaded: .*{message}"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [1] * 100, "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
    ],
)
def test_lying_headers_take_no_memory(saved, tensor):
    metadata, _ = contents(saved("own module"))
    header = json.dumps({"__metadata__": metadata, "coef_": tensor}).encode()
    path = saved("own module")
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ValueError, match="can't be loaded"):
        load(path)


def test_networks_named_by_a_stranger_take_no_memory(saved, memory_growth):
    path = saved("joint")

    def lie(document, arrays):
        document["parameters"]["network"] = "fcn8s_vgg16"
        document["attributes"]["n_channels_in_"] = 10_000

    edited(path, lie)

    def refuse():
        with pytest.raises(ValueError, match="not those of this network"):
            load(path)

    assert memory_growth(refuse) < 100_000_000  # VGG-16 takes 500 MB


def put(*path, value):
    """An edit that sets what the JSON has at a path."""

    def change(document, arrays):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("class", value="GridSearchCV"), "its class must be CNNSegmenter or .*, not 'GridSearchCV'"),
        (put("class", value=["CNNSegmenter"]), "its class must be a str, not a list"),
        (put("class", value="MaxMarginCRF"), "it can't set the parameters"),
        (put("more", value=1), "must have the entries class, parameters, attributes"),
        (put("parameters", "memory", value="/tmp"), r"it can't set the parameters \['memory'\]"),
        (put("parameters", "checkpoint", value="/tmp"), r"it can't set the parameters \['checkpoint'\]"),
        (put("parameters", "nonsense", value=1), r"it can't set the parameters \['nonsense'\]"),
        (put("parameters", "network", value="os.system"), "network must be 'unet', or 'unet_' or 'fcn8s_'"),
        (put("parameters", "network", value="fcn8s_nonsense"), "no backbone 'nonsense'"),
        (put("parameters", "network", value=3), "'network' parameter of DeepStructuredSegmenter must be"),
        (put("parameters", "connectivity", value=6), "'connectivity' parameter of"),
        (put("parameters", "C", value=float("nan")), "'C' parameter of"),
        (put("parameters", "C", value=[1.0]), "'C' parameter of"),
        (put("attributes", "n_channels_in_", value=0), "'n_channels_in_' parameter of"),
        (put("attributes", "n_channels_in_", value=10**9), "'n_channels_in_' parameter of"),
        (put("attributes", "sigma_", value=-1.0), "'sigma_' parameter of"),
        (put("attributes", "sigma_", value=10**400), "'sigma_' parameter of"),
        (put("attributes", "history_", value=[1]), "history_ must be a list of dict"),
        (put("attributes", "coef_", value=[1.0, 1.0, 1.0]), "'coef_' parameter of"),
        (put("attributes", "coef_", value={"array": "missing"}), "a tensor that is missing or used twice"),
        (put("attributes", "crf_", value={"array": "coef_"}), "a tensor that is missing or used twice"),
        (put("attributes", "crf_", value=None), "nothing refers to its tensors crf_"),
        (
            put("attributes", "crf_", "estimator", "class", value="CNNSegmenter"),
            "must be MaxMarginCRF, not 'CNNSegmenter'",
        ),
        (put("attributes", "crf_", "estimator", "parameters", "connectivity", value=5), "'connectivity' parameter of"),
        (put("attributes", "crf_", "estimator", "attributes", "sigma_", value=0.0), "'sigma_' parameter of"),
        (put("attributes", "network_", value=None), "must have the entries network"),
        (put("attributes", "network_", value={"network": "other."}), "not those of this network"),
        (put("attributes", "__class__", value=1), "'__class__' is no name of a fitted attribute"),
        (put("attributes", "predict", value=1), "'predict' is no name of a fitted attribute"),
        (put("attributes", "classes_", value={"pickle": ""}), "it holds something unknown"),
        (lambda document, arrays: document["attributes"].pop("network_"), "must have the entries network"),
        (lambda document, arrays: document["attributes"].pop("classes_"), "lacks classes_"),
        (lambda document, arrays: arrays.update(more=np.zeros(2)), "nothing refers to its tensors more"),
        (lambda document, arrays: arrays.update(coef_=np.array([1.0, -1.0, 0.0])), "coef_ must be three finite"),
        (lambda document, arrays: arrays.update(coef_=np.zeros(4)), "coef_ must be three finite"),
        (lambda document, arrays: arrays.update({"crf_.coef_": np.full(3, np.inf)}), "coef_ must be three finite"),
        (lambda document, arrays: arrays.update(classes_=np.array([1, 2])), "classes_ must be 0 and 1"),
    ],
)
def test_what_a_stranger_writes_is_checked(saved, change, message):
    path = saved("joint")
    edited(path, change)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} can't be loaded: .*{message}"):
        load(path)


@pytest.mark.parametrize("text", ["", "[", "null", "3", "[]", "{}", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000])
def test_other_json_is_told(saved, text):
    path = saved("joint")
    metadata, arrays = contents(path)
    write(path, metadata | {"estimator": text}, arrays)
    with pytest.raises(ValueError, match="can't be loaded"):
        load(path)


def test_deep_json_is_loaded_or_told(saved):
    path = saved("joint")
    metadata, arrays = contents(path)
    edited(path, put("attributes", "more_", value="deep"))
    text = contents(path)[0]["estimator"]
    outcomes = []
    for depth in (1, 100, 300, 600, 900, 2_000, 5_000, 100_000):  # Python sets two limits, of the parser and its own
        write(path, metadata | {"estimator": text.replace('"deep"', "[" * depth + "]" * depth)}, arrays)
        try:
            load(path)
            outcomes.append("loaded")
        except ValueError as error:
            outcomes.append(str(error).split(": ")[-1])
    assert outcomes[:2] == ["loaded", "loaded"]
    assert outcomes[-2:] == ["it is nested too deep", "it is nested too deep"]
    assert set(outcomes) == {"loaded", "it is nested too deep"}


def places(node, path=()):
    """Paths to everything in JSON."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def at(node, path):
    for key in path:
        node = node[key]
    return node


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 4, 8, 2**31, 10**400, -1, 1e-300, 1e300]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["unet", "fcn8s_squeezenet1_1", "auto", "cpu", "cnn", "MaxMarginCRF", "coef_", "network_."]),
)
KEYS = st.one_of(
    st.sampled_from(["array", "scalar", "items", "network", "estimator", "coef_", "sigma_", "memory", "_a_"]),
    st.text(max_size=5),
)
INNER = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(KEYS, SCALARS, max_size=2))
NODES = st.one_of(INNER, st.lists(INNER, max_size=3), st.dictionaries(KEYS, INNER, max_size=2))


@np.errstate(all="ignore")
def constant_array(value, shape, dtype):
    return np.full(shape, value).astype(dtype)


ARRAYS = st.builds(
    constant_array,
    st.sampled_from([0, 1, -1, 100, np.nan, np.inf, 1e-300, 1e300]),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["float64", "float32", "int64", "bool", "uint8"]),
)


@dataclass
class Mutation:
    """Something to do at the place of that number, modulo how many there are."""

    kind: str
    number: int
    other: int
    key: str
    value: object
    array: np.ndarray

    def apply(self, document, arrays):
        everywhere = list(places(document))[1:]
        here, there = (everywhere[number % len(everywhere)] for number in (self.number, self.other))
        parent, key = at(document, here[:-1]), here[-1]
        if self.kind == "array":
            names = [*sorted(arrays), "more"]
            arrays[names[self.number % len(names)]] = self.array
        elif self.kind == "move":
            parent[key] = copy.deepcopy(at(document, there))
        elif self.kind == "add" and isinstance(parent, dict):
            parent[self.key] = parent[key]
        elif self.kind == "delete" and isinstance(parent, dict):
            del parent[key]
        else:
            parent[key] = self.value


MUTATIONS = st.builds(
    Mutation,
    st.sampled_from(["value", "move", "delete", "add", "array", "array"]),
    st.integers(0, 1000),
    st.integers(0, 1000),
    KEYS,
    NODES,
    ARRAYS,
)


@pytest.fixture(scope="module")
def use_mutated(models, phantoms, tmp_path_factory):
    """A function that mutates the file of a model, and if it can still be loaded, predicts."""
    path = tmp_path_factory.mktemp("mutated") / "model"
    originals = {}
    for name in ("own module", "MaxMarginCRF", "cnn"):
        models[name].save(path)
        originals[name] = contents(path)

    def use(name, mutations):
        metadata, arrays = originals[name]
        document, arrays = [json.loads(metadata["estimator"])], dict(arrays)
        for mutation in mutations:
            mutation.apply(document, arrays)
        write(path, metadata | {"estimator": json.dumps(document[0])}, arrays)
        loaded = load(path, network=OWN.get(name))
        for estimator in (loaded, getattr(loaded, "crf_", None)):
            if estimator is not None:
                estimator.n_jobs = None
        if hasattr(loaded, "device"):
            loaded.device = "cpu"
        outputs(loaded, models, phantoms)

    return use


@given(st.sampled_from(["own module", "MaxMarginCRF", "cnn"]), st.lists(MUTATIONS, min_size=1, max_size=3))
def test_mutated_files_are_refused_or_work(use_mutated, name, mutations):
    # a ValueError of the outputs may come from the number of channels, or from numbers that overflow
    with contextlib.suppress(ValueError):
        use_mutated(name, mutations)


# pickles


def by_joblib(model, folder, **kwargs):
    joblib.dump(model, folder / "model")
    return joblib.load(folder / "model", **kwargs)


COPIES = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model, _: pickle.loads(pickle.dumps(model, protocol=2)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "copy": lambda model, _: copy.copy(model),
    "cloudpickle": lambda model, _: cloudpickle.loads(cloudpickle.dumps(model)),
    "joblib": by_joblib,
    "mapped": lambda model, folder: by_joblib(model, folder, mmap_mode="r"),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_copies_say_the_same(models, phantoms, tmp_path, name, copied):
    again = copied(models[name], tmp_path)
    assert_same_outputs(again, models[name], models, phantoms)
    assert vars(again).keys() == vars(models[name]).keys()


def test_cloudpickle_takes_networks_of_the_moment(phantoms, models):
    model = CNNSegmenter(lambda n_channels: nn.Conv2d(n_channels, 1, 1), n_epochs=1, random_state=0).fit(*phantoms)
    assert_same_outputs(cloudpickle.loads(cloudpickle.dumps(model)), model, models, phantoms)


def test_a_deep_copy_shares_nothing(models, phantoms):
    model = copy.deepcopy(models["joint"])
    with torch.no_grad():
        for parameter in model.network_.parameters():
            parameter.zero_()
    assert not model.decision_function(phantoms[0]).any()
    assert models["joint"].decision_function(phantoms[0]).any()


@pytest.mark.parametrize("name", NAMES)
def test_clones_are_unfitted_and_pickled_too(models, name):
    cloned = pickle.loads(pickle.dumps(clone(models[name])))
    assert cloned.get_params().keys() == models[name].get_params().keys()
    assert not any(attribute.endswith("_") for attribute in vars(cloned))


def test_a_network_that_the_parameter_does_not_name_is_pickled_as_it_is(models, phantoms):
    for network in ("fcn8s_squeezenet1_1", "nonsense", small_unet):
        model = copy.deepcopy(models["joint"]).set_params(network=network)
        again = pickle.loads(pickle.dumps(model))
        assert_same_outputs(again, models["joint"], models, phantoms)
        assert again.network == network


def test_pickles_of_other_formats_are_told(models, monkeypatch):
    pickled = pickle.dumps(models["joint"])
    monkeypatch.setattr(base, "PICKLE_FORMAT", base.PICKLE_FORMAT + 1)
    monkeypatch.setattr(base, "__version__", "9.9")
    with pytest.raises(
        ValueError, match=r"made by skmmcrf \d\S* and can't be read by 9\.9: fit again; .* skmmcrf\.load"
    ):
        pickle.loads(pickled)
    with pytest.raises(ValueError, match=r"pickle of a MaxMarginCRF was made by skmmcrf before 0\.1\.0"):
        MaxMarginCRF().__setstate__(MaxMarginCRF().get_params())


# skops

OURS = {
    "CNNSegmenter": "skmmcrf.cnn.CNNSegmenter",
    "DeepStructuredSegmenter": "skmmcrf.segmenter.DeepStructuredSegmenter",
    "MaxMarginCRF": "skmmcrf.crf.MaxMarginCRF",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_skops_takes_all_but_own_networks(models, phantoms, tmp_path, name):
    skops.io.dump(models[name], tmp_path / "model")
    assert set(skops.io.get_untrusted_types(file=tmp_path / "model")) <= set(OURS.values())
    again = skops.io.load(tmp_path / "model", trusted=[*OURS.values()])
    assert same(vars(again), vars(models[name]))
    assert_same_outputs(again, models[name], models, phantoms)


def test_skops_takes_pipelines_and_searches(phantoms):
    X, y = phantoms
    pipeline = make_pipeline(CNNSegmenter(n_epochs=1, random_state=0), MaxMarginCRF()).fit(X, y)
    again = skops.io.loads(skops.io.dumps(pipeline), trusted=[*OURS.values()])
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))
    search = GridSearchCV(pipeline, {"maxmargincrf__C": [0.1, 1.0]}, cv=2).fit(X, y)
    dumped = skops.io.dumps(search)
    others = set(skops.io.get_untrusted_types(data=dumped)) - set(OURS.values())
    assert all(name.startswith("sklearn.") for name in others)
    again = skops.io.loads(dumped, trusted=[*OURS.values(), *others])
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert again.best_params_ == search.best_params_
