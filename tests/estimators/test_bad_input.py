"""What is wrong is named before any work starts, and nothing is changed by it.

`tests/images` has all that images, labels and weights may be wrong in. Here is one of each kind, for each estimator.
"""

import copy

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback, EpochScoring
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, MaxMarginLoss
from skmmcrf.learning import CuttingPlanes
from skmmcrf.training.net import SegmentationNet

# log-odds and image, as the random field takes them
IMAGES = np.random.default_rng(0).uniform(size=(2, 4, 5, 2))
LABELS = np.arange(40).reshape(2, 4, 5) % 2
NAN = np.where(np.arange(80).reshape(IMAGES.shape) == 50, np.nan, IMAGES)


def pixelwise(n_channels):
    return nn.Conv2d(n_channels, 1, 1)


CNN = CNNSegmenter(pixelwise, n_epochs=1, device="cpu", random_state=0)
ESTIMATORS = {
    "CNNSegmenter": CNN,
    "DeepStructuredSegmenter": DeepStructuredSegmenter(CNN, n_epochs=1, random_state=0),
    "MaxMarginCRF": MaxMarginCRF(),
}

# of what is given to fit: what is changed, the error, and words of it
BAD_DATA = {
    "image": ({"X": NAN}, ValueError, r"[XZ]\[1\] contains NaN or infinite"),
    "images": ({"X": IMAGES[:1]}, ValueError, "[XZ] and y must have the same length, got 1 images and 2 labels"),
    "labels": ({"y": LABELS + 1}, ValueError, r"y\[0\] must hold the labels .* only, found \[2\]"),
    "size": ({"y": LABELS[:, 1:]}, ValueError, r"y\[0\] has shape \(3, 5\), but its image has \(4, 5\)"),
    "sample_weight": ({"sample_weight": [1, -1]}, ValueError, "sample_weight must be finite and not negative"),
}
OF_NETWORKS = {
    "validation_data": ({"validation_data": IMAGES}, TypeError, r"validation_data\[0\] is an image without labels"),
}
BAD_FITS = {
    "CNNSegmenter": BAD_DATA | OF_NETWORKS,
    "DeepStructuredSegmenter": BAD_DATA | OF_NETWORKS,
    "MaxMarginCRF": BAD_DATA
    | {
        "flat": ({"X": IMAGES[..., 0]}, ValueError, "Z must be of float and hold log-odds in channel 0 .* 1 channels"),
        "integers": ({"X": IMAGES.astype(np.uint8)}, ValueError, "Z must be of float .* got 2 channels of uint8"),
    },
}

# values that no parameter of the name takes; each other parameter is given an object
OUT_OF_RANGE = {
    "C": np.nan,
    "sigma": 0,
    "tol": -1e-9,
    "max_iter": 0,
    "n_jobs": 0,
    "pos_label": 256,
    "ignore_label": "none",
    "n_epochs": -1,
    "learning_rate": np.inf,
    "batch_size": 0,
    "validation_fraction": 1.0,
    "n_iter_no_change": 0,
    "class_weight": "heavy",
    "pairwise": "edges",
    "schedule": "up",
    "loss": "l2",
    "augmentation": "more",
    "training": "both",
    "network_scale": 0.0,
    "random_state": -1,
    "verbose": -1,
}

# what else is wrong with parameters, and words of the error
OF_LABELS = [
    ({"ignore_label": 1}, "ignore_label must be neither 0, the background, nor"),
    ({"class_weight": {3: 1.0}}, "class_weight must have only the labels 0 and 1 as keys, got 3"),
]
OF_TRAINING = [
    ({"augmentation": lambda image, mask: image}, "augmentation: it must give an image and a mask"),
    ({"validation_fraction": 0.99}, "validation_fraction leaves no image"),
    ({"early_stopping": True}, "early_stopping of .* needs validation images"),
    ({"checkpoint": "folder", "random_state": None}, "checkpoint needs an int as random_state"),
    ({"checkpoint": ""}, "checkpoint must be a path that is not empty"),
    ({"callbacks": ["x"]}, r"callbacks\[0\] must be an instance of skorch.*, or a pair of .*, got 'x'"),
    ({"callbacks": [Callback(), Callback]}, r"callbacks\[1\] must be an instance of .*, got the class Callback"),
    ({"callbacks": [("one", Callback(), 2)]}, r"callbacks\[0\] must be an instance of skorch"),
    ({"callbacks": [(1, Callback())]}, r"callbacks\[0\] must be an instance of skorch"),
    (
        {"callbacks": [EpochScoring("a", on_train=True)]},
        r"callbacks\[0\]: EpochScoring can't .* use_caching=False",
    ),
    ({"callbacks": [("one", Callback()), ("one", Callback())]}, "callbacks: the name 'one' is taken, by another"),
    ({"callbacks": [Callback(), ("Callback", Callback())]}, "callbacks: the name 'Callback' is taken, by another"),
    ({"callbacks": [("keep_best", Callback())]}, "callbacks: the name 'keep_best' is taken"),
]
OF_NETWORK = [
    ({"network": "alexnet"}, "network must be 'unet', or"),
    ({"network": nn.Conv2d(2, 2, 1)}, "network: it must give one log-odds map"),
    ({"network": nn.Conv2d(3, 1, 1)}, "network: it can't take an image of shape"),
    ({"network": pixelwise(2).requires_grad_(False)}, "network: it has no parameters to train"),
    ({"weights": "missing.pth"}, "weights: only networks named after a backbone"),
    ({"network_scale": (1.0, -1.0)}, r"network_scale must be a positive .*got \(1.0, -1.0\)"),
    ({"crop": (8, 0)}, r"crop must be a positive integer, or two for height and width, got \(8, 0\)"),
    ({"device": "nonsense"}, "device: 'nonsense' is not available"),
]
OF_FIELD = [({"connectivity": 6}, "connectivity must be")]
OF_BOTH = [
    ({"cnn": "alexnet"}, "network must be 'unet', or"),
    ({"cnn": FrozenEstimator(MaxMarginCRF())}, "cnn: FrozenEstimator must hold a CNNSegmenter, got a MaxMarginCRF"),
    ({"cnn": FrozenEstimator(CNNSegmenter())}, "This CNNSegmenter instance is not fitted yet"),
    ({"cnn__class_weight": {3: 1.0}}, "class_weight must have only the labels 0 and 1 as keys, got 3"),
    ({"cnn__pos_label": 256}, "'pos_label' parameter of CNNSegmenter"),
    ({"cnn__network": nn.Conv2d(2, 2, 1)}, "network: it must give one log-odds map"),
    ({"cnn__augmentation": lambda image, mask: image}, "augmentation: it must give an image and a mask"),
    ({"training": "joint_by_batch", "augmentation": "flip"}, 'training="joint_by_batch" needs images without random'),
    ({"training": "joint_by_batch", "cnn__crop": 2}, 'training="joint_by_batch" needs .* and crop of its cnn'),
    ({"checkpoint": "folder", "cnn__checkpoint": "other"}, "cnn: its checkpoint must be None"),
    ({"cnn__checkpoint": ""}, "checkpoint must be a path that is not empty"),
    ({"cnn__callbacks": ["x"]}, r"callbacks\[0\] must be an instance of skorch"),
    ({"memory": ""}, "memory must be a path that is not empty"),
]
PARAMETERS = {
    "CNNSegmenter": OF_LABELS + OF_NETWORK + OF_TRAINING,
    "DeepStructuredSegmenter": OF_FIELD + OF_TRAINING + OF_BOTH,
    "MaxMarginCRF": OF_LABELS + OF_FIELD,
}


@pytest.fixture(scope="module")
def fitted():
    return {name: copy.deepcopy(estimator).fit(IMAGES, LABELS) for name, estimator in ESTIMATORS.items()}


@pytest.fixture
def _no_training(monkeypatch):
    for owner, method in [(SegmentationNet, "partial_fit"), (CuttingPlanes, "learn")]:
        monkeypatch.setattr(owner, method, lambda *_, **__: pytest.fail("training began"))


def never_built(n_channels):
    pytest.fail("a network was built")


def assert_is_told_and_leaves_no_trace(model, error, message, X=IMAGES, y=LABELS, **fit):
    before = vars(model).copy()
    with pytest.raises(error, match=message):
        model.fit(X, y, **fit)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in BAD_FITS.items() for kind in kinds])
def test_bad_data_are_told_before_any_network_is_built(fitted, name, kind):
    given, error, message = BAD_FITS[name][kind]
    for model in (copy.deepcopy(ESTIMATORS[name]), copy.copy(fitted[name])):
        if name == "CNNSegmenter":
            model.set_params(network=never_built)
        elif name == "DeepStructuredSegmenter":
            model.set_params(cnn=never_built)
        assert_is_told_and_leaves_no_trace(model, error, message, **given)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_parameter_is_checked_before_any_network_is_built(fitted, name):
    for parameter in ESTIMATORS[name].get_params(deep=False):
        model = copy.copy(fitted[name])
        if hasattr(model, "network"):
            model.network = never_built
        model.set_params(**{parameter: OUT_OF_RANGE.get(parameter, object())})
        assert_is_told_and_leaves_no_trace(model, ValueError, f"'{parameter}' parameter of {name} must be")


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_true_is_no_number(fitted, name):
    numbers = {"n_epochs", "network_scale", "batch_size", "cv", "C", "tol", "n_jobs", "pos_label"}
    for parameter in numbers & ESTIMATORS[name].get_params(deep=False).keys():
        model = copy.copy(fitted[name]).set_params(**{parameter: True})
        assert_is_told_and_leaves_no_trace(model, TypeError, f"^{parameter} must not be True, which is no number")


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("name", "parameters", "message"), [(name, *bad) for name, several in PARAMETERS.items() for bad in several]
)
def test_bad_parameters_are_told_before_training(fitted, tmp_path, monkeypatch, name, parameters, message):
    monkeypatch.chdir(tmp_path)
    for model in (copy.deepcopy(ESTIMATORS[name]), copy.copy(fitted[name])):
        # with a network of its own, which other tests do not share
        if name == "DeepStructuredSegmenter":
            model.set_params(cnn=copy.deepcopy(CNN))
        assert_is_told_and_leaves_no_trace(model.set_params(**parameters), (ValueError, TypeError), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("name", ["DeepStructuredSegmenter", "MaxMarginCRF"])
def test_a_warm_start_with_other_weights_is_told(fitted, name):
    model = copy.copy(fitted[name]).set_params(warm_start=True, pairwise="smoothness")
    assert_is_told_and_leaves_no_trace(model, ValueError, "pairwise: warm_start goes on with 3 weights")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_bad_images_are_told_by_every_method(fitted, name):
    for method in ("predict", "decision_function", "predict_proba", "predict_confidence", "transform"):
        if hasattr(fitted[name], method):
            with pytest.raises(ValueError, match=r"[XZ]\[1\] contains NaN"):
                getattr(fitted[name], method)(NAN)
            with pytest.raises(ValueError, match=r"[XZ]\[0\] has 3 channels, but the model or the first image has 2"):
                getattr(fitted[name], method)(IMAGES[..., [0, 1, 1]])


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_are_told_by_score(fitted, name, kind):
    given, error, message = BAD_DATA[kind]
    with pytest.raises(error, match=message):
        fitted[name].score(**{"X": IMAGES, "y": LABELS, **given})


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("path", [None, 3.5, b"\0", "no/such/folder/file"])
def test_bad_paths_are_told_by_save(fitted, name, path):
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match="path|null byte|no/such|bytes"):
        fitted[name].save(path)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"labels": LABELS + 1}, ValueError, r"labels\[0\] must hold the labels"),
        ({"images": torch.full((2, 4, 5), np.nan)}, ValueError, r"images\[0\] contains NaN"),
        ({"log_odds": None}, TypeError, "log_odds must be an array or a list"),
    ],
)
@pytest.mark.usefixtures("_no_training")
def test_bad_batches_are_told_by_the_loss_whose_weights_stay(given, error, message):
    loss = MaxMarginLoss()
    before = loss.coef_
    batch = {"log_odds": torch.zeros(2, 4, 5), "labels": torch.from_numpy(LABELS), "images": torch.zeros(2, 4, 5)}
    with pytest.raises(error, match=message):
        loss(**{**batch, **given})
    assert loss.coef_ is before


@pytest.mark.parametrize("parameter", ["loss", "augmentation", "device", "class_weight", "weights"])
def test_errors_quote_no_parameter_of_a_megabyte(phantoms, parameter):
    model = CNNSegmenter("fcn8s_squeezenet1_1").set_params(**{parameter: 10**6 * "x"})
    with pytest.raises(ValueError, match=parameter) as caught:
        model.fit(*phantoms)
    assert len(str(caught.value)) < 3000


def test_bad_parameters_are_told_by_the_loss():
    with pytest.raises(ValueError, match="class_weight must have only the labels 0 and 1 as keys, got 3"):
        MaxMarginLoss(class_weight={3: 1.0})
    with pytest.raises(ValueError, match="ignore_label must be neither 0, the background, nor"):
        MaxMarginLoss(ignore_label=1)
