"""What goes wrong half-way: networks that do not stay finite, files that break."""

import numpy as np
import pytest
import torch
from PIL import Image
from skorch.callbacks import Callback, Freezer
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter

QUICK = {"batch_size": 2, "random_state": 0}


class Failing(nn.Module):
    """A network with batch norm of which something is not finite from a training step on."""

    def __init__(self, at_step, what):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
        self.left = at_step
        self.what = what

    def forward(self, x):
        if self.training:
            self.left -= 1
        fails = self.training and self.left <= 0
        if fails and self.what == "log-odds":
            x = x * torch.inf
        log_odds = self.layers(x)
        if fails and self.what == "gradients":
            log_odds = log_odds + torch.sqrt(log_odds * 0)  # 0, whose derivative is infinite
        return log_odds


class Weights(Callback):
    """Collects the network's state before each batch."""

    def __init__(self):
        self.of_batches = []

    def on_batch_begin(self, net, **kwargs):
        self.of_batches.append([value.clone() for value in net.module_.state_dict().values()])


@pytest.mark.parametrize("what", ["log-odds", "gradients"])
def test_pretraining_stops_where_a_network_is_not_finite(phantoms, what):
    weights = Weights()
    model = CNNSegmenter(Failing(5, what), callbacks=[("weights", weights)], **QUICK)
    with pytest.raises(FloatingPointError, match=f"network: its {what} are not finite in epoch 2, batch 2 of pretrain"):
        model.fit(*phantoms)
    # the last state under which all was finite is that before the fourth step
    assert all(map(torch.equal, model.network_.state_dict().values(), weights.of_batches[3]))
    assert len(model.history_) == 1
    assert np.isfinite(model.decision_function(phantoms[0])).all()


def test_joint_training_stops_where_a_network_is_not_finite(phantoms):
    model = DeepStructuredSegmenter(CNNSegmenter(Failing(3 + 5, "log-odds"), n_epochs=1, batch_size=2), **QUICK)
    with pytest.raises(
        FloatingPointError, match=r"its log-odds are not within 1e\+06 in epoch 2, batch 2 of joint training"
    ):
        model.fit(*phantoms)
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1]
    assert np.isfinite(model.coef_).all()
    assert set(np.unique(model.predict(phantoms[0]))) <= {0, 1}


def test_too_large_a_learning_rate_is_told_and_harms_nothing(phantoms):
    model = CNNSegmenter(learning_rate=1e30, schedule="constant", **QUICK)
    with pytest.raises(FloatingPointError, match="A lower learning rate may help"):
        model.fit(*phantoms)
    assert np.isfinite(model.decision_function(phantoms[0])).all()


@pytest.mark.parametrize("validated", [False, True])
def test_pretraining_that_diverges_in_the_last_step_of_an_epoch_leaves_a_network_that_predicts(phantoms, validated):
    model = CNNSegmenter(n_epochs=4, learning_rate=1e30, schedule="constant", batch_size=6, random_state=0)
    with pytest.raises(FloatingPointError, match="in epoch 1, batch 1 of pretraining.* A lower learning rate may help"):
        model.fit(*phantoms, validation_data=phantoms if validated else None)
    assert model.history_ == []
    model.predict(phantoms[0])


@pytest.mark.parametrize("training", ["joint", "joint_by_batch"])
def test_joint_training_that_diverges_in_the_last_step_of_an_epoch_can_be_gone_on_with(phantoms, training):
    cnn = CNNSegmenter(n_epochs=1, augmentation=None, batch_size=2)
    joint = {"training": training, "n_epochs": 4, "batch_size": 6, "schedule": "constant", "warm_start": True}
    model = DeepStructuredSegmenter(cnn, **joint, learning_rate=1e5, random_state=0)
    with pytest.raises(
        FloatingPointError, match=r"log-odds are not within 1e\+06 in epoch 1, batch 1 of joint training"
    ):
        model.fit(*phantoms)
    assert model.optimizer_state_ == {}
    model.predict(phantoms[0])
    model.set_params(learning_rate=1e-4).fit(*phantoms)
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1, 2, 3, 4]


def test_a_state_of_training_is_never_of_a_network_that_diverged(phantoms, tmp_path):
    def fit():
        model = CNNSegmenter(
            lambda n: nn.Sequential(nn.Conv2d(n, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 1)),
            n_epochs=6,
            learning_rate=1e15,
            schedule="constant",
            checkpoint=tmp_path,
            random_state=0,
        )
        with pytest.raises(FloatingPointError) as told:
            model.fit(*phantoms)
        return str(told.value), len(model.history_), model.decision_function(phantoms[0])

    first, *others = [fit() for _ in range(3)]
    for message, n_epochs, log_odds in others:
        assert (message, n_epochs) == first[:2]
        np.testing.assert_array_equal(log_odds, first[2])


def test_a_network_that_callbacks_froze_altogether_is_told(phantoms):
    for model in (CNNSegmenter(callbacks=[Freezer("*")]), DeepStructuredSegmenter(callbacks=[Freezer("*")])):
        model.set_params(n_epochs=1, random_state=0)
        if isinstance(model, DeepStructuredSegmenter):
            model.set_params(cnn__n_epochs=1)
        with pytest.raises(ValueError, match="no parameters to train, because callbacks or the network itself"):
            model.fit(*phantoms)


def test_log_odds_that_are_not_finite_are_no_prediction(phantoms):
    class Square(nn.Conv2d):
        def forward(self, x):
            return super().forward(x**2)

    X, y = phantoms
    square = Square(1, 1, 1)
    model = CNNSegmenter(square, n_epochs=1, **QUICK).fit(X, y)
    huge = X / 255
    huge[3:] *= 1e30
    with pytest.raises(ValueError, match="network: its log-odds of image number 3 are not finite"):
        model.predict(huge)
    with (
        pytest.warns(UserWarning, match=r"X\[0\] holds floats up to .*e\+\d+, .* Scale them"),
        pytest.raises(ValueError, match="network: its log-odds of image number 0 are not finite"),
    ):
        CNNSegmenter(square, **QUICK).fit(huge[3:], y[3:])


@pytest.fixture
def files(phantoms, tmp_path):
    for n, image in enumerate(phantoms[0]):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    return sorted(tmp_path.glob("*.png"))


class Breaks(Callback):
    """Cuts a file short in the second epoch."""

    def __init__(self, file):
        self.file = file

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            self.file.write_bytes(self.file.read_bytes()[:200])


def test_a_file_that_breaks_is_named_and_nothing_is_lost(files, phantoms, tmp_path):
    y = phantoms[1]
    on_cpu = {"n_epochs": 3, "device": "cpu", **QUICK}  # where the same seed gives the same bits
    expected = CNNSegmenter(**on_cpu).fit(files, y)
    whole = files[4].read_bytes()
    model = CNNSegmenter(checkpoint=tmp_path / "states", callbacks=[("breaks", Breaks(files[4]))], **on_cpu)
    with pytest.raises(ValueError, match=r"X\[4\]: .*4.png can't be read as an image"):
        model.fit(files, y)
    assert len(model.history_) == 1
    files[4].write_bytes(whole)
    model.set_params(callbacks=None).fit(files, y)
    assert np.array_equal(model.decision_function(phantoms[0]), expected.decision_function(phantoms[0]))
    assert len(model.history_) == 3


def test_a_network_of_another_shape_is_told_before_training(phantoms):
    for layer in (nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 1, 3), nn.Conv2d(3, 1, 1), nn.Flatten()):
        model = DeepStructuredSegmenter(layer, **QUICK)
        with pytest.raises(ValueError, match="^network: it (must give one log-odds map|can't take an image)"):
            model.fit(*phantoms)
        assert not hasattr(model, "network_")
