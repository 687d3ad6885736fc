import threading

import numpy as np
import pytest
import torch
from nets import pretraining_net
from skorch.callbacks import Callback, EpochTimer
from torch import nn

from skmmcrf.images.checking import check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.networks import UNet
from skmmcrf.training.callbacks import JaccardOfNetwork
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.net import history_rows
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
    assert orders[0] != orders[1]


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
    train(unequal, network, freeze_batch_norm=frozen)
    assert torch.equal(network[1].running_mean, torch.zeros(3)) == frozen
    assert network[0].training


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
