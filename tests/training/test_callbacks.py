from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nets import pretraining_net
from sklearn.metrics import jaccard_score
from skorch.history import History
from torch import nn

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.metrics import mean_jaccard
from skmmcrf.training.callbacks import SCHEDULES, JaccardOfNetwork, KeepBest, learning_rate_schedule
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.loss import MaxMarginLoss
from skmmcrf.training.random_states import seeded


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    truths = rng.uniform(size=(5, 8, 9)) < 0.4
    images = (truths + rng.normal(size=truths.shape)).astype(np.float32)[..., np.newaxis]
    return LabelledImages(list(images), list(map(Annotation, truths)))


def train(data, network, max_epochs, **parameters):
    net = pretraining_net(network, 5, max_epochs=max_epochs, batch_size=5, **parameters)
    return net.fit(TrainingSet(data))


def test_the_network_is_measured_on_training_images_before_their_step_and_on_validation_images_after_all(data):
    with seeded(0):
        network = nn.Conv2d(1, 1, 1)

    def labels():
        with torch.no_grad():
            return [network(torch.from_numpy(image[..., 0])[None])[0].numpy() > 0 for image in data.images]

    before = labels()
    net = train(data, network, 1, lr=1.0, callbacks=[("jaccard", JaccardOfNetwork(data))])
    after = labels()
    truths = [annotation.truth for annotation in data.annotations]
    assert not np.array_equal(before, after)
    assert net.history[0, "jaccard"] == pytest.approx(mean_jaccard(truths, before))
    assert net.history[0, "valid_jaccard"] == pytest.approx(mean_jaccard(truths, after))


def test_of_several_classes_the_index_is_the_mean_over_those_that_occur_in_an_image():
    rng = np.random.default_rng(0)
    truths = [rng.integers(n, size=(8, 9), dtype=np.uint8) for n in (3, 2, 3)]
    labelled = rng.uniform(size=(8, 9)) < 0.8
    data = LabelledImages(
        [rng.normal(size=(8, 9, 1)).astype(np.float32) for _ in truths],
        [Annotation(truth, labelled, class_weight=3 * (1.0,)) for truth in truths],
    )
    with seeded(0):
        network = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        network.weight[2] = network.bias[2] = -9.0  # a class that is never found
    found = [network(torch.from_numpy(image).movedim(2, 0)[None])[0].argmax(dim=0).numpy() for image in data.images]
    measure = JaccardOfNetwork(data)
    net = pretraining_net(network, 3, max_epochs=1, lr=0.0, n_maps=3, callbacks=[("jaccard", measure)])
    net.fit(TrainingSet(data))
    expected = [
        jaccard_score(truth[labelled], labels[labelled], average="macro") for truth, labels in zip(truths, found)
    ]
    assert net.history[0, "jaccard"] == pytest.approx(np.mean(expected))
    assert net.history[0, "valid_jaccard"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("linear", [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        ("cosine", [1, (1 + np.sqrt(0.5)) / 2, 0.5, (1 - np.sqrt(0.5)) / 2, 0]),
        ("one_cycle", [0.04, None, None, None, 4e-6]),
    ],
)
def test_a_schedule_begins_at_its_peak_or_rises_to_it_and_ends_at_nothing(data, name, rates):
    schedule = learning_rate_schedule(name, n_steps=4)
    found = []

    class Rates(JaccardOfNetwork):
        def on_batch_begin(self, net, **kwargs):
            found.append(net.optimizer_.param_groups[0]["lr"])

    callbacks = [("schedule", schedule), ("rates", Rates(None))]
    net = train(data, nn.Conv2d(1, 1, 1), 4, lr=0.1, callbacks=callbacks)
    found.append(net.optimizer_.param_groups[0]["lr"])
    assert max(found) <= 0.1
    for rate, expected in zip(found, rates, strict=True):
        assert expected is None or rate == pytest.approx(0.1 * expected, abs=1e-6)


def test_the_constant_schedule_is_none():
    assert [name for name in SCHEDULES if learning_rate_schedule(name, 4) is None] == ["constant"]


class Validation(JaccardOfNetwork):
    """Records indices that are given."""

    def __init__(self, indices):
        super().__init__(None)
        self.given = iter(indices)

    def on_epoch_end(self, net, **kwargs):
        net.history.record("valid_jaccard", next(self.given))
        self.states = [*getattr(self, "states", []), net.module.network.weight.detach().clone()]


@pytest.mark.parametrize(
    ("at_start", "n_epochs", "best"), [(None, 4, 1), (0.7, 4, 1), (0.8, 2, None)], ids=["none", "lower", "higher"]
)
def test_the_best_network_is_kept_and_training_stops_when_it_gets_no_better(data, at_start, n_epochs, best):
    network = nn.Conv2d(1, 1, 1)
    first = network.weight.detach().clone()
    validation = Validation([0.5, 0.75, 0.7, 0.75, 0.9])
    callbacks = [("validation", validation), ("best", KeepBest(2, at_start))]
    net = train(data, network, 5, lr=0.1, callbacks=callbacks)
    assert len(net.history) == n_epochs
    assert torch.equal(network.weight, first if best is None else validation.states[best])
    assert [epoch["kept"] for epoch in net.history] == [n == best for n in range(n_epochs)]


def test_early_stopping_lets_the_error_of_a_first_epoch_be_seen(data):
    with pytest.raises(FloatingPointError, match="not finite in epoch 1"):
        train(data, nn.Conv2d(1, 1, 1), 3, lr=1e39, callbacks=[("best", KeepBest(2))])


def test_a_line_says_which_epoch_is_kept(data, capsys):
    line = "  the network of epoch 2 is kept: mean Jaccard index 0.750 of the validation images\n"
    for verbose, expected in ((0, ""), (1, line)):
        callbacks = [("validation", Validation([0.5, 0.75, 0.7])), ("best", KeepBest(2, verbose=verbose))]
        train(data, nn.Conv2d(1, 1, 1), 3, callbacks=callbacks)
        assert capsys.readouterr().out == expected


def test_the_criterion_of_the_best_epoch_is_kept_too():
    net = SimpleNamespace(module_=nn.Linear(1, 1), criterion_=MaxMarginLoss(), history=History(), verbose=0)
    best = KeepBest(patience=5)
    best.on_train_begin(net)
    for epoch, index in enumerate([0.5, 0.7, 0.6], start=1):
        net.history.new_epoch()
        net.history.record("epoch", epoch)
        net.history.record("valid_jaccard", index)
        net.criterion_.coef_ = np.full(3, float(epoch))
        best.on_epoch_end(net)
    best.on_train_end(net)
    assert net.criterion_.coef_.tolist() == [2.0, 2.0, 2.0]
