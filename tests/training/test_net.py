import random
import threading
from collections import Counter
from copy import deepcopy
from unittest import mock

import numpy as np
import pytest
import torch
from nets import pretraining_net
from skorch.callbacks import Callback, EpochTimer
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from skmmcrf.images.checking import check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.networks import UNet
from skmmcrf.training.callbacks import JaccardOfNetwork
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.net import SegmentationNet, history_rows
from skmmcrf.training.random_states import seeded


@pytest.fixture(scope="module")
def unequal():
    rng = np.random.default_rng(0)
    shapes = [(9, 12, 2), (9, 12, 2), (5, 7, 2), (16, 3, 2), (9, 12, 2), (5, 7, 2)]
    return check_labelled_images(
        [rng.uniform(size=shape) for shape in shapes],
        [rng.integers(0, 2, shape[:2]) for shape in shapes],
        LabelScheme(),
    )


def train(data, network=None, max_epochs=2, batch_size=4, **parameters):
    with seeded(0):
        network = network or UNet(data.n_channels, width=8, depth=2)
        net = pretraining_net(network, len(data), max_epochs=max_epochs, batch_size=batch_size, **parameters)
        return net.fit(TrainingSet(data))


def test_batches_of_unequal_images_count_as_many_as_they_are(unequal):
    assert train(unequal).history[0, "batches", :, "train_batch_size"] == [4, 2]


def test_a_last_image_joins_the_batch_before_it(unequal):
    assert train(unequal, batch_size=5).history[0, "batches", :, "train_batch_size"] == [6]


def test_the_seed_decides_the_order_of_images(unequal):
    weights = [next(train(unequal, seed=seed).module.parameters()) for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_epoch_has_an_order_of_its_own(unequal):
    orders = []

    class Orders(Callback):
        def on_epoch_end(self, net, **kwargs):
            orders.append(list(net.iterator_train__sampler))

    train(unequal, callbacks=[("orders", Orders())])
    assert len(set(orders[0])) == 6
    assert [n for _, n in orders[0]] != [n for _, n in orders[1]]


def test_the_history_holds_what_was_recorded_of_whole_epochs(unequal):
    net = train(unequal, callbacks=[("jaccard", JaccardOfNetwork(unequal)), ("seconds", EpochTimer())])
    net.history.new_epoch()
    rows = history_rows(net, "cnn")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0].keys() == {"stage", "epoch", "loss", "jaccard", "valid_jaccard", "seconds"}
    assert all(type(value) in (str, int, float) for row in rows for value in row.values())
    assert 0 <= rows[0]["valid_jaccard"] <= 1


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_if_it_is_frozen(unequal, frozen):
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    modes = []

    class Modes(Callback):
        def on_batch_end(self, net, **kwargs):
            modes.append((network[0].training, network[1].training))

    train(unequal, network, freeze_batch_norm=frozen, callbacks=[("modes", Modes())])
    assert torch.equal(network[1].running_mean, torch.zeros(3)) == frozen
    assert set(modes) == {(True, not frozen)}


def test_nets_train_side_by_side_in_threads(unequal):
    expected = train(unequal).module.state_dict()
    nets = []
    networks = []
    for _ in range(3):
        with seeded(0):
            networks.append(UNet(2, width=8, depth=2))

    def work(network):
        nets.append(pretraining_net(network, 6, max_epochs=2, batch_size=4).fit(TrainingSet(unequal)))

    threads = [threading.Thread(target=work, args=(network,)) for network in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(nets) == 3
    for net in nets:
        assert all(map(torch.equal, net.module.state_dict().values(), expected.values()))


class Waits(TorchFunctionMode):
    """Counts what lets the processor wait for a device."""

    NAMES = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in self.NAMES:
            self.seen.append(func.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("augmentation", [None, "flip", "strong"])
def test_a_step_waits_for_the_device_once(unequal, monkeypatch, augmentation):
    steps = []
    step = SegmentationNet.train_step_single

    def watched(self, batch, **kwargs):
        with profile(activities=[ProfilerActivity.CPU]) as profiler, Waits() as waits:
            result = step(self, batch, **kwargs)
        steps.append((waits.seen, Counter(event.name for event in profiler.events())))
        return result

    monkeypatch.setattr(SegmentationNet, "train_step_single", watched)
    with seeded(0):
        net = pretraining_net(UNet(2, width=8, depth=2), 6, max_epochs=1, batch_size=3)
        net.fit(TrainingSet(unequal, Changes(augmentation)))
    assert len(steps) == 2
    for waits, operations in steps:
        assert waits == ["tolist"]
        assert operations["aten::convolution"] > 5
        assert not operations.keys() & {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}


def test_a_step_copies_no_parameter(unequal, monkeypatch):
    copied = []
    train_step = SegmentationNet.train_step

    def watched(self, batch, **kwargs):
        with mock.patch.object(torch.Tensor, "clone", lambda tensor: copied.append(tensor)):
            return train_step(self, batch, **kwargs)

    monkeypatch.setattr(SegmentationNet, "train_step", watched)
    train(unequal, max_epochs=1)
    assert not copied


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_the_network_is_as_it_was_when_an_epoch_began_if_it_diverges(unequal, value):
    class Spoil(Callback):
        def on_epoch_begin(self, net, **kwargs):
            self.begun = deepcopy(getattr(self, "begun", {}))
            self.begun[len(net.history)] = deepcopy(net.module.network.state_dict())

        def on_grad_computed(self, net, **kwargs):
            if len(net.history) == 3:
                with torch.no_grad():
                    next(net.module.parameters()).fill_(value)

    network, spoil = nn.Conv2d(2, 1, 1).double(), Spoil()
    with pytest.raises(FloatingPointError, match="in epoch 3, batch 2 of .* as it was at the beginning of that"):
        train(unequal, network, max_epochs=4, callbacks=[("spoil", spoil)])
    assert all(map(torch.equal, network.state_dict().values(), spoil.begun[3].values()))


def test_parameters_that_are_not_finite_after_the_last_step_of_an_epoch_are_found(unequal):
    class Spoil(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2 and len(net.history[-1, "batches"]) == 2:
                with torch.no_grad():
                    next(net.module.parameters()).fill_(np.nan)

    network = nn.Conv2d(2, 1, 1)
    with pytest.raises(FloatingPointError, match="its parameters are not finite in epoch 2"):
        train(unequal, network, callbacks=[("spoil", Spoil())])
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_what_a_step_draws_depends_on_its_number_alone(unequal):
    drawn = []

    class Draw(Callback):
        def on_batch_begin(self, net, **kwargs):
            drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
            torch.rand(len(drawn))

    train(unequal, callbacks=[("draw", Draw())])
    train(unequal, callbacks=[("draw", Draw())])
    assert drawn[:4] == drawn[4:]
    assert len(set(drawn)) == 4
