"""A table of bad input: each entry names the argument that is wrong, before any work starts, and leaves no trace."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

import skmmcrf
from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, MaxMarginLoss, metrics
from skmmcrf.augmentation import RandomIntensity, build_augmentation
from skmmcrf.datasets import load_image_folder, make_phantoms
from skmmcrf.derivative import LinearSystem, envelope_gradient
from skmmcrf.display import EnergyDisplay, SegmentationDisplay, TrainingCurveDisplay
from skmmcrf.energy import (
    estimate_sigma,
    grid_edges,
    joint_feature,
    joint_feature_difference,
    pairwise_features,
    scale_image,
    squared_contrast,
    unary_difference,
)
from skmmcrf.graph_cut import (
    complete_labeling,
    loss_augmented_labeling,
    minimum_cut,
    minimum_energy_labeling,
    segment,
)
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import completion, learn_weights, most_violated
from skmmcrf.networks import AnySize, FCN8s, UNet, build_network
from skmmcrf.quadratic_program import solve_program
from skmmcrf.truth import Truth


def pixelwise(n_channels):
    return nn.Conv2d(n_channels, 1, 1)


ESTIMATORS = {
    "CNNSegmenter": CNNSegmenter(pixelwise, n_epochs=1, device="cpu", random_state=0),
    "DeepStructuredSegmenter": DeepStructuredSegmenter(
        pixelwise, pretrain_epochs=1, n_epochs=1, device="cpu", random_state=0
    ),
    "MaxMarginCRF": MaxMarginCRF(),
}
NETWORKS = ("CNNSegmenter", "DeepStructuredSegmenter")
LABELS = np.arange(40).reshape(2, 4, 5) % 2


def data_for(name):
    """Two images of 4 x 5 and their labels; two channels for all, log-odds and image for the random field."""
    return np.random.default_rng(0).uniform(size=(2, 4, 5, 2)), LABELS.copy()


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


class Broken:
    """Looks like a sequence, but has no length to tell."""

    def __len__(self):
        raise TypeError("no length")

    def __getitem__(self, n):
        return np.zeros((4, 5))


STRUCTURED = np.zeros((2, 4, 5), dtype=[("a", float), ("b", int)])
MASKED = np.ma.masked_array(np.zeros((2, 4, 5, 2)), mask=np.arange(80).reshape(2, 4, 5, 2) == 3)

# of images and labels: what is given, the error, and words of it; X stands for the name of the argument
BAD_DATA = {
    "X None": (lambda X, y: (None, y), TypeError, "X must be an array or a list of arrays, got NoneType"),
    "X number": (lambda X, y: (3.0, y), TypeError, "X must be an array or a list of arrays, got float"),
    "X dict": (lambda X, y: ({"a": X}, y), TypeError, "X must be .*, got dict"),
    "X set": (lambda X, y: ({1, 2}, y), TypeError, "X must be .*, got set"),
    "X generator": (lambda X, y: ((x for x in X), y), TypeError, "X must be .*, got generator"),
    "X class": (lambda X, y: (list, y), TypeError, "X must be an array or a list of arrays"),
    "X without length": (lambda X, y: (Broken(), y), TypeError, "X must be an array or a list of arrays: no length"),
    "X sparse": (lambda X, y: (csr_array(X[0, ..., 0]), y), TypeError, "X must be dense, got the sparse csr_array"),
    "X 0-d array": (lambda X, y: (np.array(1.0), y), ValueError, r"X must be of shape .*, got \(\)"),
    "X 0-d tensor": (lambda X, y: (torch.tensor(1.0), y), ValueError, r"X must be of shape .*, got \(\)"),
    "X one image": (lambda X, y: (X[0, ..., 0], y), ValueError, r"X must be of shape .*, got \(4, 5\)"),
    "X volumes": (lambda X, y: (X[..., None], y), ValueError, r"X must be of shape .*, got \(2, 4, 5, 2, 1\)"),
    "X empty array": (lambda X, y: (X[:0], y), ValueError, "X is empty"),
    "X empty list": (lambda X, y: ([], y), ValueError, "X is empty"),
    "X empty tuple": (lambda X, y: ((), y), ValueError, "X is empty"),
    "X empty entry": (lambda X, y: ([(), X[1]], y), ValueError, r"X\[0\] must be of"),
    "X no pixels": (lambda X, y: (X[:, :0], y[:, :0]), ValueError, r"X\[0\] must be of shape .*none of them 0"),
    "X no channels": (lambda X, y: (X[..., :0], y), ValueError, r"X\[0\] must be of shape .*none of them 0"),
    "X ragged": (lambda X, y: ([[[0.0, 1.0], [1.0]], X[1]], y), ValueError, r"X\[0\] can't be made an array"),
    "X numbers in a list": (lambda X, y: ([1.0, 2.0], y), ValueError, r"X\[0\] must be of shape"),
    "X None in a list": (lambda X, y: ([X[0], None], y), ValueError, r"X\[1\] must be of dtype .*, got object"),
    "X NaN": (lambda X, y: (changed(X, (1, 2, 3), np.nan), y), ValueError, r"X\[1\] contains NaN or infinite"),
    "X infinite": (lambda X, y: (changed(X, (0, 0, 0), -np.inf), y), ValueError, r"X\[0\] contains NaN or infinite"),
    "X huge": (lambda X, y: (changed(X, (0, 0, 0), 1e300), y), ValueError, r"X\[0\] contains .* too large for float32"),
    "X int64": (lambda X, y: (X.astype(int), y), ValueError, r"X\[0\] must be of dtype .*, got int64"),
    "X complex": (lambda X, y: (X + 1j, y), ValueError, r"X\[0\] must be of dtype .*, got complex128"),
    "X objects": (lambda X, y: (X.astype(object), y), ValueError, r"X\[0\] must be of dtype .*, got object"),
    "X words": (lambda X, y: (X.astype(str), y), ValueError, r"X\[0\] must be of dtype .*, got <U"),
    "X dates": (lambda X, y: (X.astype("M8[s]"), y), ValueError, r"X\[0\] must be of dtype .*, got datetime64"),
    "X structured": (lambda X, y: (STRUCTURED, y), ValueError, r"X\[0\] must be of dtype"),
    "X masked": (lambda X, y: (MASKED, y), TypeError, r"X\[0\] must not be masked"),
    "X bfloat16": (
        lambda X, y: (list(torch.from_numpy(X).bfloat16()), y),
        ValueError,
        r"X\[0\] can't be made an array: .*BFloat16",
    ),
    "X sparse tensor": (lambda X, y: ([torch.zeros(2, 4, 5).to_sparse()] * 2, y), ValueError, r"X\[0\] can't be made"),
    "X unequal channels": (lambda X, y: ([X[0], X[1][..., [0, 1, 1]]], y), ValueError, r"X\[1\] has 3 channels, but 2"),
    "X no file": (lambda X, y: (["nowhere.png"] * 2, y), FileNotFoundError, r"X\[0\]: .*nowhere.png"),
    "X too few": (lambda X, y: (X[:1], y), ValueError, "X and y must have the same length, got 1 images and 2 labels"),
    "y number": (lambda X, y: (X, 1), TypeError, "y must be an array or a list of arrays, got int"),
    "y word": (lambda X, y: (X, "mask.png"), TypeError, "y must be an array or a list of arrays, got str"),
    "y empty": (lambda X, y: (X, []), ValueError, "y is empty"),
    "y too few": (lambda X, y: (X, y[:1]), ValueError, "X and y must have the same length, got 2 images and 1 labels"),
    "y of columns": (lambda X, y: (X, y.reshape(2, 20)), ValueError, r"y must be of shape \(n, H, W\), got \(2, 20\)"),
    "y transposed": (lambda X, y: (X, y.swapaxes(1, 2)), ValueError, r"y\[0\] has shape \(5, 4\), but its image has"),
    "y one image wrong": (lambda X, y: (X, [y[0], y[1, 1:]]), ValueError, r"y\[1\] has shape \(3, 5\)"),
    "y ragged": (lambda X, y: (X, [[[0, 1], [1]], y[1]]), ValueError, r"y\[0\] can't be made an array"),
    "y another label": (lambda X, y: (X, y + 1), ValueError, r"y\[0\] must hold the labels .* only, found \[2\]"),
    "y negative": (lambda X, y: (X, -y), ValueError, r"y\[0\] must hold the labels .* only, found \[-1\]"),
    "y between": (lambda X, y: (X, y / 2), ValueError, r"y\[0\] must hold the labels .* only, found \[0.5\]"),
    "y NaN": (lambda X, y: (X, changed(y + 0.0, (1, 0, 0), np.nan)), ValueError, r"y\[1\] .* only, found \[nan\]"),
    "y 0 and 255": (lambda X, y: (X, 255 * y), ValueError, "y holds no 1, but 255, .*give pos_label=255"),
    "y words": (lambda X, y: (X, y.astype(str)), ValueError, r"y\[0\] must hold the labels 0 and 1, got dtype <U"),
    "y objects": (lambda X, y: (X, y.astype(object)), ValueError, r"y\[0\] must hold the labels .*, got dtype object"),
    "y complex": (lambda X, y: (X, y + 0j), ValueError, r"y\[0\] must hold the labels .*, got dtype complex128"),
    "y dates": (lambda X, y: (X, y.astype("M8[D]")), ValueError, r"y\[0\] must hold the labels .*, got dtype datetime"),
    "y structured": (lambda X, y: (X, STRUCTURED), ValueError, r"y\[0\] must hold the labels"),
    "y masked": (lambda X, y: (X, np.ma.masked_equal(y, 1)), TypeError, r"y\[0\] must not be masked: .*ignore_label"),
}  # fmt: skip

WEIGHTS = {
    "too many": ([1, 1, 1], ValueError, r"sample_weight must be of shape \(2,\)"),
    "number": (2.0, ValueError, r"sample_weight must be of shape \(2,\)"),
    "negative": ([1, -1], ValueError, "sample_weight must be finite and not negative"),
    "NaN": ([1, np.nan], ValueError, "sample_weight must be finite"),
    "none": ([0, 0], ValueError, "sample_weight must be .*not all of it 0"),
    "words": (["a", "b"], TypeError, "sample_weight must be numbers"),
    "complex": (np.ones(2, complex), TypeError, "sample_weight must be numbers, got dtype complex128"),
    "dates": (np.ones(2, "M8[D]"), TypeError, "sample_weight must be numbers, got dtype datetime64"),
    "ragged": ([[1], [1, 2]], ValueError, "sample_weight can't be made an array"),
    "masked": (np.ma.masked_equal([1, 2], 2), TypeError, "sample_weight must not be masked"),
    "objects": (np.array([1, object()]), TypeError, "sample_weight must be numbers"),
}


class Tuples(nn.Module):
    def forward(self, images):
        return (images,)


def tries(result):
    """A network of one parameter that gives what a function makes of the images."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, images):
            return result(images[:, :1] + self.bias)

    return Network()


def with_divisor(divisor):
    network = pixelwise(2)
    network.size_divisor = divisor
    return network


# parameters by the estimators that have them
OF_ALL = {
    "pos_label 0": ({"pos_label": 0}, ValueError, "'pos_label' parameter of {name} must be"),
    "pos_label 256": ({"pos_label": 256}, ValueError, "'pos_label' parameter"),
    "pos_label 1.0": ({"pos_label": 1.0}, ValueError, "'pos_label' parameter"),
    "ignore_label word": ({"ignore_label": "none"}, ValueError, "'ignore_label' parameter"),
    "ignore_label foreground": ({"ignore_label": 1}, ValueError, "ignore_label must be neither 0, the background, nor"),
    "class_weight word": ({"class_weight": "heavy"}, ValueError, "'class_weight' parameter"),
    "class_weight label": (
        {"class_weight": {3: 1.0}},
        ValueError,
        "class_weight must be of the labels 0 and 1, got one",
    ),
    "class_weight NaN": (
        {"class_weight": {1: np.nan}},
        ValueError,
        "class_weight must be positive and finite, .* got nan",
    ),
    "class_weight complex": ({"class_weight": {1: 1j}}, ValueError, "class_weight must be positive and finite, .*1j"),
    "verbose": ({"verbose": -1}, ValueError, "'verbose' parameter"),
}
OF_FIELD = {
    "C negative": ({"C": -1}, ValueError, "'C' parameter of {name} must be a float in the range"),
    "C NaN": ({"C": np.nan}, ValueError, "'C' parameter"),
    "C infinite": ({"C": np.inf}, ValueError, "'C' parameter"),
    "C word": ({"C": "1"}, ValueError, "'C' parameter"),
    "connectivity": ({"connectivity": 6}, ValueError, "'connectivity' parameter"),
    "sigma 0": ({"sigma": 0}, ValueError, "'sigma' parameter"),
    "sigma word": ({"sigma": "none"}, ValueError, "'sigma' parameter"),
    "tol": ({"tol": -1e-9}, ValueError, "'tol' parameter"),
    "max_iter": ({"max_iter": 0}, ValueError, "'max_iter' parameter"),
    "max_iter float": ({"max_iter": 10.0}, ValueError, "'max_iter' parameter"),
    "n_jobs 0": ({"n_jobs": 0}, ValueError, "'n_jobs' parameter"),
    "warm_start": ({"warm_start": "yes"}, ValueError, "'warm_start' parameter"),
}
OF_NETWORKS = {
    "network name": ({"network": "alexnet"}, ValueError, "network must be 'unet', or"),
    "network backbone": ({"network": "fcn8s_"}, ValueError, "network: there is no backbone ''"),
    "network number": ({"network": 3}, ValueError, "'network' parameter"),
    "network of two maps": ({"network": nn.Conv2d(2, 2, 1)}, ValueError, "network: it must give one log-odds map"),
    "network of 3 channels": ({"network": nn.Conv2d(3, 1, 1)}, ValueError, "network: it can't take an image of shape"),
    "network smaller": ({"network": nn.Conv2d(2, 1, 3)}, ValueError, "network: it must give one log-odds map"),
    "network NaN": ({"network": tries(lambda l: l / 0 - l / 0)}, ValueError, "network: its log-odds of .* not finite"),
    "network complex": ({"network": tries(lambda l: l + 0j)}, ValueError, "network: it must give .*, not torch.comple"),
    "network of labels": ({"network": tries(lambda l: l > 0)}, ValueError, "network: it must give .*, not torch.bool"),
    "network of dicts": ({"network": tries(lambda l: {"out": l})}, ValueError, "network: it must give .*, not dict"),
    "network of tuples": ({"network": Tuples()}, ValueError, "network: it must give log-odds, a tensor .* not tuple"),
    "network untrainable": ({"network": pixelwise(2).requires_grad_(False)}, ValueError, "network: it has no paramete"),
    "network divisor 0": ({"network": with_divisor(0)}, ValueError, "network: its size_divisor must be a positive int"),
    "network divisor 1.5": ({"network": with_divisor(1.5)}, ValueError, "network: its size_divisor must be a positive"),
    "factory of nothing": ({"network": lambda n: None}, TypeError, "network: the function given must return a torch.n"),
    "weights of a unet": ({"network": "unet", "weights": "a.pth"}, ValueError, "weights: only networks named after"),
    "weights missing": (
        {"network": "fcn8s_squeezenet1_1", "weights": "missing.pth"},
        ValueError,
        "weights: missing.pth can't be read",
    ),
    "weights number": ({"weights": 3}, ValueError, "'weights' parameter"),
    "n_epochs": ({"n_epochs": -1}, ValueError, "'n_epochs' parameter of {name} must be"),
    "n_epochs float": ({"n_epochs": 1.5}, ValueError, "'n_epochs' parameter"),
    "learning_rate": ({"learning_rate": 0.0}, ValueError, "'learning_rate' parameter"),
    "learning_rate infinite": ({"learning_rate": np.inf}, ValueError, "'learning_rate' parameter"),
    "schedule": ({"schedule": "up"}, ValueError, "'schedule' parameter"),
    "batch_size": ({"batch_size": 0}, ValueError, "'batch_size' parameter"),
    "network_scale": ({"network_scale": 0.0}, ValueError, "'network_scale' parameter"),
    "network_scale empty": ({"network_scale": ()}, ValueError, "network_scale must be a positive number, or several"),
    "network_scale partly": ({"network_scale": [1.0, -1.0]}, ValueError, r"network_scale .*got \[1.0, -1.0\]"),
    "network_scale infinite": ({"network_scale": (1.0, np.inf)}, ValueError, "network_scale must be a positive"),
    "network_scale of words": ({"network_scale": ["half"]}, ValueError, r"network_scale .*got \['half'\]"),
    "freeze_epochs": ({"freeze_epochs": -1}, ValueError, "'freeze_epochs' parameter"),
    "nothing to freeze": ({"freeze_epochs": 1}, ValueError, "freeze_epochs: the network has no backbone"),
    "augmentation": ({"augmentation": "more"}, ValueError, "'augmentation' parameter"),
    "augmentation of one": (
        {"augmentation": lambda image, mask: image},
        ValueError,
        "augmentation: it must give an image and a mask",
    ),
    "augmentation of arrays": (
        {"augmentation": lambda image, mask: (image.numpy(), mask.numpy())},
        ValueError,
        "augmentation: it must give two tensors, not ndarray, ndarray",
    ),
    "augmentation to nothing": (
        {"augmentation": lambda image, mask: (image[:, :0], mask[:0])},
        ValueError,
        r"augmentation: .* it gave \(2, 0, 5\)",
    ),
    "validation_fraction": ({"validation_fraction": 1.0}, ValueError, "'validation_fraction' parameter"),
    "validation_fraction too large": ({"validation_fraction": 0.99}, ValueError, "validation_fraction leaves no image"),
    "early_stopping": ({"early_stopping": True}, ValueError, "early_stopping needs validation images"),
    "n_iter_no_change": ({"n_iter_no_change": 0}, ValueError, "'n_iter_no_change' parameter"),
    "callbacks": ({"callbacks": "all"}, ValueError, "'callbacks' parameter"),
    "device": ({"device": "nonsense"}, ValueError, "device: 'nonsense' is not to be had"),
    "device without memory": ({"device": "meta"}, ValueError, "device: 'meta' is not to be had"),
    "random_state": ({"random_state": -1}, ValueError, "'random_state' parameter"),
}  # fmt: skip
OF_BOTH = {
    "training": ({"training": "both"}, ValueError, "'training' parameter of {name} must be"),
    "pretrain_epochs": ({"pretrain_epochs": -1}, ValueError, "'pretrain_epochs' parameter"),
    "pretrain_learning_rate": ({"pretrain_learning_rate": 0}, ValueError, "'pretrain_learning_rate' parameter"),
    "pretrain_schedule": ({"pretrain_schedule": "up"}, ValueError, "'pretrain_schedule' parameter"),
    "gradient": ({"gradient": "lu"}, ValueError, "'gradient' parameter"),
    "joint_augmentation": ({"joint_augmentation": "more"}, ValueError, "'joint_augmentation' parameter"),
    "joint_augmentation of one": (
        {"joint_augmentation": lambda image, mask: image},
        ValueError,
        "joint_augmentation: it must give an image and a mask",
    ),
    "gradient of changed images": (
        {"gradient": "kkt", "joint_augmentation": "flip"},
        ValueError,
        'gradient="kkt" needs joint_augmentation=None',
    ),
    "memory": ({"memory": 3}, ValueError, "'memory' parameter"),
}
PARAMETERS = {
    "CNNSegmenter": OF_ALL | OF_NETWORKS,
    "DeepStructuredSegmenter": OF_ALL | OF_NETWORKS | OF_FIELD | OF_BOTH,
    "MaxMarginCRF": OF_ALL | OF_FIELD,
}
VALIDATION = {
    "no pair": (lambda X, y: X, TypeError, r"validation_data must be a pair \(X, y\)"),
    "channels": (
        lambda X, y: (X[..., :1], y),
        ValueError,
        r"validation_data\[0\]\[0\] has 1 channels, but 2 are wanted",
    ),
    "lengths": (
        lambda X, y: (X, y[1:]),
        ValueError,
        r"validation_data\[0\] and validation_data\[1\] must have the same",
    ),
    "labels": (lambda X, y: (X, y + 1), ValueError, r"validation_data\[1\]\[0\] must hold the labels"),
    "empty": (lambda X, y: (X[:0], y[:0]), ValueError, r"validation_data\[0\] is empty"),
}


def bad_fits():
    for name in ESTIMATORS:
        for entry, (change, error, message) in BAD_DATA.items():
            message = message.replace("X", "Z") if name == "MaxMarginCRF" else message
            yield pytest.param(name, {}, change, {}, error, message, id=f"{name}-{entry}")
        for entry, (weights, error, message) in WEIGHTS.items():
            fit = {"sample_weight": weights}
            yield pytest.param(name, {}, None, fit, error, message, id=f"{name}-sample_weight {entry}")
        for entry, (parameters, error, message) in PARAMETERS[name].items():
            yield pytest.param(name, parameters, None, {}, error, message.format(name=name), id=f"{name}-{entry}")
    for name in NETWORKS:
        for entry, (change, error, message) in VALIDATION.items():
            fit = {"validation_data": change(*data_for(name))}
            yield pytest.param(name, {}, None, fit, error, message, id=f"{name}-validation_data {entry}")
    for entry, change, message in [
        (
            "no image",
            lambda X, y: (X[..., :1], y),
            "Z must be of float and hold log-odds in channel 0 .* got 1 channels",
        ),
        ("flat", lambda X, y: (X[..., 0], y), "Z must be of float and hold log-odds in channel 0 .* got 1 channels"),
        ("integers", lambda X, y: (X.astype(np.uint8), y), "Z must be of float .* got 2 channels of uint8"),
        ("some integers", lambda X, y: ([X[0], X[1].astype(np.uint8)], y), "Z must be of float .* of uint8"),
    ]:
        yield pytest.param("MaxMarginCRF", {}, change, {}, ValueError, message, id=f"MaxMarginCRF-Z {entry}")


@pytest.fixture(scope="module")
def fitted():
    # fitted without the checks of every program, which are of a narrower scope
    return {name: copy.deepcopy(estimator).fit(*data_for(name)) for name, estimator in ESTIMATORS.items()}


@pytest.mark.parametrize(("name", "parameters", "change", "fit", "error", "message"), list(bad_fits()))
def test_bad_fits_are_told_before_training_and_leave_no_trace(
    fitted, monkeypatch, name, parameters, change, fit, error, message
):
    began = "training began"
    monkeypatch.setattr("skmmcrf.training.SegmentationNet.fit_loop", lambda *_, **__: pytest.fail(began))
    monkeypatch.setattr("skmmcrf.crf.learn_weights", lambda *_, **__: pytest.fail(began))
    X, y = change(*data_for(name)) if change else data_for(name)
    for model in (copy.copy(ESTIMATORS[name]), copy.copy(fitted[name])):
        before = vars(model.set_params(**parameters)).copy()
        with pytest.raises(error, match=message):
            model.fit(X, y, **fit)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[attribute] is before[attribute] for attribute in before)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("entry", [entry for entry in BAD_DATA if entry.startswith("X") and entry != "X too few"])
def test_bad_images_are_told_by_every_method(fitted, name, entry):
    change, error, message = BAD_DATA[entry]
    message = message.replace("X", "Z") if name == "MaxMarginCRF" else message
    X, y = change(*data_for(name))
    model = fitted[name]
    for method in ("predict", "decision_function", "predict_proba", "transform"):
        if hasattr(model, method) and entry != "X unequal channels":
            with pytest.raises(error, match=message):
                getattr(model, method)(X)
    if not isinstance(X, tuple | type(None)):
        with pytest.raises(error, match=message.replace("Z", "[XZ]")):
            model.score(X, y)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("entry", [entry for entry in BAD_DATA if entry.startswith("y")])
def test_bad_labels_are_told_by_score(fitted, name, entry):
    change, error, message = BAD_DATA[entry]
    with pytest.raises(error, match=message):
        fitted[name].score(*change(*data_for(name)))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("entry", WEIGHTS)
def test_bad_weights_are_told_by_score(fitted, name, entry):
    weights, error, message = WEIGHTS[entry]
    with pytest.raises(error, match=message):
        fitted[name].score(*data_for(name), sample_weight=weights)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("path", [None, 3.5, b"\0", "no/such/folder/file"])
def test_bad_paths_are_told_by_save(fitted, name, path):
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match="path|null byte|no/such|bytes"):
        fitted[name].save(path)


# ---------------------------------------------------------------------------------------------------------------------
# Functions

IMAGE = np.random.default_rng(0).uniform(size=(3, 4, 2))
EDGES, FEATURES = pairwise_features(IMAGE, connectivity=8, sigma=0.3)
LOG_ODDS = np.random.default_rng(1).normal(size=(3, 4))
TRUTH = LOG_ODDS > 0
W = np.ones(3)
FIELD = {"connectivity": 8, "sigma": 0.3}


def stored():
    labelings = Labelings(TRUTH)
    labelings.add(~TRUTH, np.array([2.0, 1.0, 1.0]), 12.0)
    return labelings


def unfit(difference, loss=1.0):
    labelings = Labelings(TRUTH)
    labelings.add(~TRUTH, np.array(difference), loss)
    return [labelings]


def learn(log_odds=(LOG_ODDS,), images=(IMAGE,), labelings=None, C=1.0, tol=1e-3, max_iter=9, **others):
    return learn_weights(
        log_odds,
        images,
        [stored()] if labelings is None else labelings,
        C,
        tol=tol,
        max_iter=max_iter,
        **FIELD | others,
    )


def loss_of(log_odds=None, labels=None, images=None):
    log_odds = torch.zeros(2, 4, 5) if log_odds is None else log_odds
    labels = torch.from_numpy(LABELS) if labels is None else labels
    return MaxMarginLoss()(log_odds, labels, torch.zeros(2, 4, 5) if images is None else images)


def shown(images=(IMAGE,), labels=(TRUTH,), predictions=None, jaccard=None):
    predictions = {"a": [TRUTH]} if predictions is None else predictions
    return SegmentationDisplay(images, labels, predictions, {"a": [1.0]} if jaccard is None else jaccard).plot()


def energy(image=IMAGE, labels=TRUTH, log_odds=LOG_ODDS, coef=W, edges=EDGES, features=FEATURES):
    return EnergyDisplay(image, labels, log_odds, coef, edges, features).plot()


MEASURES = [
    metrics.jaccard_indices,
    metrics.dice_indices,
    metrics.boundary_f_measures,
    metrics.hausdorff_distances,
    metrics.mean_jaccard,
    metrics.mean_dice,
    metrics.mean_boundary_f,
    metrics.mean_hausdorff,
]

FUNCTIONS = {
    # energy
    "grid_edges no pixel": (lambda: grid_edges((0, 3)), ValueError, r"shape must hold positive integers, got \(0, 3\)"),
    "grid_edges negative": (lambda: grid_edges((3, -1)), ValueError, "shape must hold positive integers"),
    "grid_edges float": (lambda: grid_edges((3, 2.5)), ValueError, "shape must hold positive integers"),
    "grid_edges nothing": (lambda: grid_edges(()), ValueError, "shape must hold positive integers"),
    "scale_image int": (lambda: scale_image(np.ones((2, 2), int)), ValueError, "image must be of .*, got int64"),
    "scale_image complex": (lambda: scale_image(np.ones((2, 2), complex)), ValueError, "image must be of .*, got comp"),
    "scale_image words": (lambda: scale_image(np.array([["1"]])), ValueError, "image must be of bool, uint8"),
    "squared_contrast flat": (lambda: squared_contrast(np.ones(4)), ValueError, r"image must be of shape .*, got \(4,"),
    "squared_contrast 0 channels": (lambda: squared_contrast(IMAGE[..., :0]), ValueError, "image must be of shape"),
    "squared_contrast connectivity": (lambda: squared_contrast(IMAGE, 6), ValueError, "connectivity must be 4 or 8"),
    "estimate_sigma weights": (lambda: estimate_sigma([IMAGE] * 2, weights=[1]), ValueError, "weights must be 2 numbe"),
    "estimate_sigma NaN": (lambda: estimate_sigma([IMAGE], weights=[np.nan]), ValueError, "weights must be 1 numbers"),
    "estimate_sigma negative": (lambda: estimate_sigma([IMAGE], weights=[-1]), ValueError, "weights must be 1 numbers"),
    "pairwise_features sigma 0": (
        lambda: pairwise_features(IMAGE, connectivity=8, sigma=0.0), ValueError, "sigma must be positive, got 0.0",
    ),
    "pairwise_features sigma NaN": (
        lambda: pairwise_features(IMAGE, connectivity=8, sigma=np.nan), ValueError, "sigma must be positive, got nan",
    ),
    "joint_feature shape": (
        lambda: joint_feature(TRUTH[:1], LOG_ODDS, EDGES, FEATURES), ValueError, r"labels must be .*\(3, 4\), got bool",
    ),
    "joint_feature numbers": (
        lambda: joint_feature(TRUTH.astype(int), LOG_ODDS, EDGES, FEATURES), ValueError, "labels must be .* got int64",
    ),
    "joint_feature edges": (
        lambda: joint_feature(TRUTH, LOG_ODDS, EDGES[:, 1:], FEATURES), ValueError, "edges must be .* and features of",
    ),
    "joint_feature_difference truth": (
        lambda: joint_feature_difference(TRUTH, TRUTH.T, LOG_ODDS, EDGES, FEATURES), ValueError, "truth must be of boo",
    ),
    "unary_difference shape": (
        lambda: unary_difference(TRUTH, TRUTH[:1], LOG_ODDS), ValueError, "truth must be of bool and the shape",
    ),
    "unary_difference numbers": (
        lambda: unary_difference(TRUTH.astype(int), TRUTH, LOG_ODDS), ValueError, "labels must be of bool and the shap",
    ),
    # graph cuts
    "minimum_cut out of range": (
        lambda: minimum_cut(np.zeros(3), np.array([[0], [3]]), np.ones(1)),
        ValueError,
        "edges must be between pixels 0 and 2, got 0 to 3",
    ),
    "minimum_cut negative pixel": (
        lambda: minimum_cut(np.zeros(3), np.array([[0], [-1]]), np.ones(1)), ValueError, "edges must be between pixels",
    ),
    "minimum_cut lengths": (
        lambda: minimum_cut(np.zeros(3), np.array([[0], [1]]), np.ones(2)), ValueError, "edges must be integers of sha",
    ),
    "minimum_cut triples": (
        lambda: minimum_cut(np.zeros(3), np.zeros((3, 1), int), np.ones(1)), ValueError, "edges must be integers of sh",
    ),
    "minimum_cut halves": (
        lambda: minimum_cut(np.zeros(3), np.array([[0.5], [1]]), np.ones(1)), ValueError, "edges .* got float64",
    ),
    "minimum_cut nothing": (
        lambda: minimum_cut(np.zeros(0), np.zeros((2, 0), int), np.ones(0)), ValueError, "unary has no pixel",
    ),
    "minimum_cut words": (
        lambda: minimum_cut(np.array(["a"]), np.zeros((2, 0), int), np.ones(0)), ValueError, "could not convert string",
    ),
    "minimum_energy_labeling edges": (
        lambda: minimum_energy_labeling(W, LOG_ODDS[:1], EDGES, FEATURES), ValueError, "edges must be between pixels",
    ),
    "minimum_energy_labeling w": (
        lambda: minimum_energy_labeling(np.ones(4), LOG_ODDS, EDGES, FEATURES), ValueError, "mismatch",
    ),
    "loss_augmented_labeling truth": (
        lambda: loss_augmented_labeling(W, LOG_ODDS, TRUTH[:1], EDGES, FEATURES), ValueError, "truth and pixel_weights",
    ),
    "loss_augmented_labeling weights": (
        lambda: loss_augmented_labeling(W, LOG_ODDS, TRUTH, EDGES, FEATURES, np.ones(4)), ValueError, "pixel_weights m",
    ),
    "complete_labeling": (
        lambda: complete_labeling(W, LOG_ODDS, TRUTH, TRUTH.T, EDGES, FEATURES), ValueError, "labels and labelled must",
    ),
    "segment": (
        lambda: list(segment(W, [(LOG_ODDS.T, IMAGE)], **FIELD)), ValueError, "log_odds must have the size of their im",
    ),
    "most_violated": (
        lambda: most_violated(W, LOG_ODDS.T, IMAGE, Truth(TRUTH), **FIELD), ValueError, "log_odds must have the size",
    ),
    "most_violated truth": (
        lambda: most_violated(W, LOG_ODDS, IMAGE, Truth(TRUTH.T), **FIELD), ValueError, "truth and pixel_weights must",
    ),
    "completion": (
        lambda: completion(W, LOG_ODDS.T, IMAGE, Truth(TRUTH), **FIELD), ValueError, "log_odds must have the size",
    ),
    # learning
    "Truth": (lambda: Truth(TRUTH, TRUTH[:1]), ValueError, "labelled must have the shape of foreground"),
    "Labelings.add": (
        lambda: Labelings(TRUTH).add(TRUTH.T, W, 1.0), ValueError, r"labels must have the shape of the truth, \(3, 4\)",
    ),
    "Labelings.reprice": (lambda: stored().reprice(LOG_ODDS.T), ValueError, "log_odds must have the shape of the trut"),
    "solve_program nothing": (lambda: solve_program([], 1.0), ValueError, "labelings is empty"),
    "solve_program C negative": (lambda: solve_program([stored()], -1.0), ValueError, "C must be between 1e-12 and"),
    "solve_program C NaN": (lambda: solve_program([stored()], np.nan), ValueError, "C must be between 1e-12 and"),
    "solve_program C infinite": (lambda: solve_program([stored()], np.inf), ValueError, "C must be between 1e-12 and"),
    "solve_program w short": (lambda: solve_program([stored()], 1.0, W[:2]), ValueError, "w has 2 weights, but"),
    "solve_program w NaN": (lambda: solve_program([stored()], 1.0, W * np.nan), ValueError, "w must be finite"),
    "solve_program NaN": (lambda: solve_program(unfit([np.nan, 0, 0]), 1.0), ValueError, "labelings must have finite"),
    "solve_program infinite": (
        lambda: solve_program(unfit([1.0, 0, 0], np.inf), 1.0), ValueError, "labelings must have finite .* losses",
    ),
    "learn_weights log_odds": (
        lambda: learn(log_odds=[LOG_ODDS] * 2), ValueError, "log_odds, images and labelings must have the same length",
    ),
    "learn_weights images": (lambda: learn(images=[]), ValueError, "images and labelings must have the same length, g"),
    "learn_weights nothing": (lambda: learn([], [], []), ValueError, "labelings is empty"),
    "learn_weights C": (lambda: learn(C=0.0), ValueError, "C must be between 1e-12 and 1e.08, got 0.0"),
    "learn_weights tol": (lambda: learn(tol=-1.0), ValueError, "tol must not be negative"),
    "learn_weights tol NaN": (lambda: learn(tol=np.nan), ValueError, "tol must not be negative"),
    "learn_weights max_iter": (lambda: learn(max_iter=0), ValueError, "max_iter be at least 1, got .* 0"),
    "learn_weights w": (lambda: learn(w=[1.0, np.inf, 0.0]), ValueError, "w must be finite"),
    "learn_weights shapes": (lambda: learn(log_odds=[LOG_ODDS.T]), ValueError, "log_odds must have the shape of the t"),
    "learn_weights image": (
        lambda: learn(images=[IMAGE[:2]]), ValueError, r"log_odds must have the size of their image, \(2, 4\)",
    ),
    "learn_weights NaN": (lambda: learn(log_odds=[LOG_ODDS * np.nan]), ValueError, r"log_odds\[0\] must be finite"),
    "learn_weights too sure": (
        lambda: learn(log_odds=[1e7 * LOG_ODDS]), ValueError, r"log_odds\[0\] must be .* within -1e.06 and 1e.06",
    ),
    "envelope_gradient": (
        lambda: envelope_gradient(W, stored(), np.ones(2)), ValueError, "there are 2 multipliers, but 1 labelings",
    ),
    "LinearSystem": (
        lambda: LinearSystem(solve_program([stored()], 1.0), [stored()] * 2, 1.0), ValueError, "solution is one of 1 i",
    ),
    # the loss
    "MaxMarginLoss n_jobs": (lambda: MaxMarginLoss(n_jobs=0), ValueError, "'n_jobs' parameter of MaxMarginLoss"),
    "MaxMarginLoss ignore_label": (lambda: MaxMarginLoss(ignore_label=1), ValueError, "ignore_label must be neither 0"),
    "loss log_odds None": (
        lambda: MaxMarginLoss()(None, torch.from_numpy(LABELS), torch.zeros(2, 4, 5)), TypeError, "log_odds must be an",
    ),
    "loss log_odds maps": (lambda: loss_of(torch.zeros(2, 1, 4, 5)), ValueError, r"log_odds must be of shape \(n, H,"),
    "loss log_odds arrays": (
        lambda: loss_of(list(np.zeros((2, 4, 5)))), TypeError, r"log_odds\[0\] must be a tensor .*, got ndarray",
    ),
    "loss log_odds int": (
        lambda: loss_of(torch.zeros(2, 4, 5, dtype=int)), TypeError, r"log_odds\[0\] must be a tensor .*, got torch.in",
    ),
    "loss log_odds bfloat16": (
        lambda: loss_of(torch.zeros(2, 4, 5).bfloat16()), TypeError, r"log_odds\[0\] must be a tensor .*bfloat16",
    ),
    "loss labels None": (
        lambda: MaxMarginLoss()(torch.zeros(2, 4, 5), None, torch.zeros(2, 4, 5)), TypeError, "labels must be an array",
    ),
    "loss labels wrong": (lambda: loss_of(labels=LABELS + 1), ValueError, r"labels\[0\] must hold the labels"),
    "loss labels shape": (lambda: loss_of(labels=LABELS[:, 1:]), ValueError, r"labels\[0\] has shape \(3, 5\)"),
    "loss images None": (
        lambda: MaxMarginLoss()(torch.zeros(2, 4, 5), LABELS, None), TypeError, "images must be an array or a list",
    ),
    "loss images NaN": (lambda: loss_of(images=torch.full((2, 4, 5), np.nan)), ValueError, r"images\[0\] contains NaN"),
    "loss images missing": (
        lambda: MaxMarginLoss().of_labelings([torch.zeros(3, 4)], [stored()], []), ValueError, "1 labels and 0 images",
    ),
    # measures
    "mean_of_defined lengths": (
        lambda: metrics.mean_of_defined(np.ones(2), np.ones(3)), ValueError, "values and weights must be of one shape",
    ),
    "mean_of_defined negative": (
        lambda: metrics.mean_of_defined(np.ones(2), -np.ones(2)), ValueError, "no weight negative",
    ),
    "scorer of a list": (lambda: metrics.make_segmentation_scorer(["dice"]), ValueError, "measure must be one of 'jac"),
    "scorer pos_label": (
        lambda: metrics.make_segmentation_scorer("dice", pos_label=0), ValueError, "'pos_label' parameter of the measu",
    ),
    "scorer tolerance": (
        lambda: metrics.make_segmentation_scorer("boundary_f", tolerance=-1), ValueError, "'tolerance' parameter",
    ),
    **{
        f"{measure.__name__} {entry}": (partial(measure, *arguments), error, message)
        for measure in MEASURES
        for entry, arguments, error, message in [
            ("ragged", (LABELS, [LABELS[0].tolist(), [[0, 1], [1]]]), ValueError, r"y_pred\[1\] can't be made an arra"),
            ("masked", (np.ma.masked_equal(LABELS, 1), LABELS), TypeError, r"y_true\[0\] must not be masked"),
            ("complex", (LABELS, LABELS + 0j), ValueError, r"y_pred\[0\] must hold the labels .* complex128"),
            ("sparse", (csr_array(LABELS[0]), LABELS), TypeError, "y_true must be dense"),
            ("None", (LABELS, None), TypeError, "y_pred must be an array or a list of arrays, got NoneType"),
        ]
    },
    # data sets
    "make_phantoms 0": (lambda: make_phantoms(0), ValueError, "'n_images' parameter of make_phantoms must be an int"),
    "make_phantoms 1.5": (lambda: make_phantoms(1.5), ValueError, "'n_images' parameter"),
    "make_phantoms shape": (lambda: make_phantoms(1, shape=(8,)), ValueError, "shape must be a height and a width"),
    "make_phantoms side": (lambda: make_phantoms(1, shape=8), ValueError, "shape must be a height and a width"),
    "make_phantoms empty": (lambda: make_phantoms(1, shape=(8, 0)), ValueError, "shape must be a height and a width"),
    "make_phantoms floats": (lambda: make_phantoms(1, shape=(8.0, 8)), ValueError, "shape must be a height and a widt"),
    "make_phantoms random_state": (lambda: make_phantoms(1, random_state="a"), ValueError, "'random_state' parameter"),
    "load_image_folder None": (lambda: load_image_folder(None), TypeError, "PathLike|folder"),
    "load_image_folder number": (lambda: load_image_folder(3), TypeError, "PathLike|folder"),
    "load None": (lambda: skmmcrf.load(None), TypeError, "PathLike|path"),
    "load nothing": (lambda: skmmcrf.load("nowhere.safetensors"), FileNotFoundError, "nowhere.safetensors"),
    "load network": (lambda: skmmcrf.load("a", network="unet"), TypeError, "network must be a torch.nn.Module or a fu"),
    # networks and augmentation
    "UNet channels": (lambda: UNet(0), ValueError, "'n_channels' parameter of UNet must be an int"),
    "UNet channels float": (lambda: UNet(1.0), ValueError, "'n_channels' parameter of UNet"),
    "UNet width": (lambda: UNet(1, width=12), ValueError, "width must be a multiple of 8, got 12"),
    "UNet width 0": (lambda: UNet(1, width=0), ValueError, "'width' parameter of UNet"),
    "UNet depth": (lambda: UNet(1, depth=-1), ValueError, "'depth' parameter of UNet"),
    "FCN8s backbone": (lambda: FCN8s("lenet"), ValueError, "there is no backbone 'lenet'"),
    "FCN8s channels": (lambda: FCN8s("squeezenet1_1", 0), ValueError, "'n_channels' parameter of FCN8s"),
    "FCN8s weights": (lambda: FCN8s("squeezenet1_1", weights=3), ValueError, "'weights' parameter of FCN8s"),
    "build_network channels": (lambda: build_network("unet", -1), ValueError, "'n_channels' parameter of UNet"),
    "AnySize": (lambda: AnySize(3), TypeError, "network must be a torch.nn.Module, got int"),
    "AnySize scale": (
        lambda: AnySize(UNet(), scale=-1.0), ValueError,
        "scale must be a positive number, or several in a sequence, got -1.0",
    ),
    "AnySize image": (lambda: AnySize(UNet())([torch.zeros(4, 5)]), ValueError, r"images\[0\] must be of shape"),
    "build_augmentation": (lambda: build_augmentation("more"), ValueError, "'augmentation' parameter of build_augm"),
    "build_augmentation 3": (lambda: build_augmentation(3), ValueError, "'augmentation' parameter of build_augmentati"),
    "RandomIntensity": (lambda: RandomIntensity(-0.1), ValueError, "'contrast' parameter of RandomIntensity"),
    "RandomIntensity NaN": (lambda: RandomIntensity(0.1, np.nan), ValueError, "'brightness' parameter of RandomIntens"),
    # displays
    "SegmentationDisplay pos_label": (
        lambda: SegmentationDisplay.from_predictions(LABELS / 1, LABELS, LABELS, pos_label=0), ValueError, "'pos_label",
    ),
    "SegmentationDisplay estimator": (
        lambda: SegmentationDisplay.from_estimator(None, LABELS / 1, LABELS), TypeError, "estimator must have the meth",
    ),
    "SegmentationDisplay nothing": (
        lambda: SegmentationDisplay.from_estimator({}, LABELS / 1, LABELS), ValueError, "estimator is an empty dict",
    ),
    "SegmentationDisplay X": (
        lambda: SegmentationDisplay.from_predictions(LABELS, LABELS, LABELS), ValueError, r"X\[0\] must be of dtype",
    ),
    "SegmentationDisplay labels": (lambda: shown(labels=[]), ValueError, "there are 1 images, but 0 labels"),
    "SegmentationDisplay results": (lambda: shown(predictions={"a": []}), ValueError, "1 images, but 0 a"),
    "SegmentationDisplay jaccard": (lambda: shown(jaccard={"b": [1.0]}), ValueError, "jaccard must be of a, got b"),
    "TrainingCurveDisplay": (
        lambda: TrainingCurveDisplay({"a": [{}]}).plot(), ValueError, "histories must be of dicts with stage and epoch",
    ),
    "EnergyDisplay coef": (lambda: energy(coef=W[:2]), ValueError, r"coef must be of shape \(3,\), got \(2,\)"),
    "EnergyDisplay log_odds": (lambda: energy(log_odds=LOG_ODDS.T), ValueError, "labels must be .* shape of log_odds"),
    "EnergyDisplay labels": (lambda: energy(labels=TRUTH.T), ValueError, "labels must have the size of image"),
    "EnergyDisplay edges": (lambda: energy(edges=EDGES[:, 1:]), ValueError, "edges must be of shape"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_bad_arguments_are_told(call, error, message):
    with pytest.raises(error, match=message):
        call()
