import numpy as np
import pytest
import torch
from nets import pretraining_net
from skorch.callbacks import EpochTimer
from torch import nn

from skmmcrf.callbacks import JaccardOfNetwork
from skmmcrf.energy import scale_image
from skmmcrf.image_datasets import ImageDataset
from skmmcrf.networks import UNet
from skmmcrf.random_states import seeded
from skmmcrf.training import (
    compute_log_odds,
    history_rows,
    resolve_device,
    run_network,
)
from skmmcrf.validation import check_labelled_images


def train(images, truths, seed=0, callbacks=(), max_epochs=2, batch_size=4):
    with seeded(0):
        network = UNet(images[0].shape[-1], width=8, depth=2)
        net = pretraining_net(
            network,
            len(images),
            seed=seed,
            max_epochs=max_epochs,
            batch_size=batch_size,
            callbacks=list(callbacks),
        )
        return net.fit(ImageDataset(images, truths))


@pytest.fixture
def unequal():
    rng = np.random.default_rng(0)
    shapes = [(9, 12, 2), (9, 12, 2), (5, 7, 2), (16, 3, 2), (9, 12, 2), (5, 7, 2)]
    return check_labelled_images(
        [rng.uniform(size=shape) for shape in shapes], [rng.integers(0, 2, shape[:2]) for shape in shapes]
    )


def test_batches_of_unequal_images_count_as_many_as_they_are(unequal):
    net = train(*unequal)
    assert net.history[0, "batches", :, "train_batch_size"] == [4, 2]


def test_seed_decides_the_order_of_images(unequal):
    weights = [next(train(*unequal, seed=seed).module.parameters()) for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_log_odds_do_not_depend_on_the_batch(unequal):
    images, _ = unequal
    with seeded(0):
        network = UNet(2)
    alone = compute_log_odds(network, images, batch_size=1, device="cpu")
    together = compute_log_odds(network, images, batch_size=6, device="cpu")
    for a, b, image in zip(alone, together, images):
        assert a.dtype == np.float32
        assert a.shape == image.shape[:2]
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_history_holds_what_was_recorded(unequal):
    images, labels = unequal
    net = train(images, labels, callbacks=[("jaccard", JaccardOfNetwork((images, labels))), EpochTimer()])
    rows = history_rows(net, "cnn")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"stage", "epoch", "loss", "jaccard", "valid_jaccard", "seconds"}
    assert all(type(value) in (str, int, float) for row in rows for value in row.values())
    assert 0 <= rows[0]["valid_jaccard"] <= 1


def test_devices():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(torch.device("cpu")) == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
    for device in ("nonsense", "meta", "hpu"):
        with pytest.raises(ValueError, match=f"device: '{device}' is not to be had"):
            resolve_device(device)


def test_frozen_batch_norm_keeps_its_statistics(unequal):
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    net = pretraining_net(network, 6, freeze_batch_norm=True, max_epochs=1, batch_size=2)
    net.fit(ImageDataset(*unequal))
    assert torch.equal(network[1].running_mean, torch.zeros(3))
    assert network[0].training


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, ">u2", np.float16, np.float32, float, np.longdouble])
@pytest.mark.parametrize("writeable", [True, False])
def test_a_network_sees_scaled_images_of_every_dtype_and_layout(dtype, writeable, recwarn):
    image = np.random.default_rng(0).uniform(0, 2, (4, 5, 3)).astype(dtype)[::-1]
    image.flags.writeable = writeable

    class FirstChannel(torch.nn.Module):
        def forward(self, x):
            return x[:, :1]

    ((log_odds, pixels),) = run_network(FirstChannel(), [image], batch_size=1, device="cpu")
    np.testing.assert_array_equal(log_odds, scale_image(image)[..., 0])
    np.testing.assert_array_equal(pixels, image.astype(pixels.dtype))
    assert not recwarn
