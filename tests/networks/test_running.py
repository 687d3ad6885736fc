from functools import partialmethod

import numpy as np
import pytest
import torch
from torch import nn

from skmmcrf.images.sequences import ArraysOnDisk, Mapped
from skmmcrf.networks import AnySize, UNet, running
from skmmcrf.networks.running import Runner, resolve_device
from skmmcrf.networks.tiles import Tiled
from skmmcrf.training.random_states import seeded

SHAPES = [(9, 12, 2), (9, 12, 2), (5, 7, 2), (16, 3, 2), (9, 12, 2), (5, 7, 2)]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.uniform(size=shape) for shape in SHAPES]


@pytest.fixture(scope="module")
def network():
    with seeded(0):
        return UNet(2, width=8, depth=2)


def test_log_odds_do_not_depend_on_the_batch(network, images):
    alone, together = (Runner(batch_size, "cpu").log_odds(network, images) for batch_size in (1, 6))
    for a, b, shape in zip(alone, together, SHAPES, strict=True):
        assert a.dtype == np.float32
        assert a.shape == shape[:2]
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_network_is_run_at_the_scales_and_with_the_mirror_images_that_are_wanted(network, images):
    ways = {"average_mirrored": True, "scale": (0.5, 1.0)}
    expected = AnySize(network, **ways).eval()([torch.tensor(images[0], dtype=torch.float32).movedim(-1, 0)])[0]
    (log_odds,) = Runner(1, "cpu", **ways).log_odds(network, images[:1])
    np.testing.assert_allclose(log_odds, expected.detach(), atol=1e-5)
    assert not np.allclose(log_odds, Runner(1, "cpu").log_odds(network, images[:1])[0], atol=1e-3)


@pytest.mark.parametrize(("dtype", "kept"), [(np.uint8, np.uint8), (np.uint16, np.uint16), (float, np.float32)])
def test_a_network_sees_scaled_images_and_they_come_as_they_are(dtype, kept):
    class FirstChannel(nn.Module):
        def forward(self, images):
            return images[:, :1]

    image = np.arange(60).reshape(4, 5, 3).astype(dtype)
    ((log_odds, pixels),) = Runner(1, "cpu").run(FirstChannel(), [image])
    largest = np.iinfo(dtype).max if kept != np.float32 else 1
    np.testing.assert_allclose(log_odds, image[..., 0] / largest, rtol=1e-6)
    np.testing.assert_array_equal(pixels, image)
    assert pixels.dtype == kept


def test_running_needs_no_gradients_and_draws_no_random_numbers(network, images):
    before = torch.get_rng_state()
    network.train()
    Runner(2, "cpu").log_odds(network, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not network.training


def test_images_are_read_when_their_batch_is_run_and_log_odds_kept_on_disk(network, images):
    read = []
    lazy = Mapped(lambda n: read.append(n) or images[n], range(6))
    results = Runner(2, "cpu").run(network, lazy)
    assert read == []
    next(results)
    assert read == [0, 1]
    kept = Runner(2, "cpu").log_odds(network, lazy)
    assert isinstance(kept, ArraysOnDisk)
    for a, b in zip(kept, Runner(2, "cpu").log_odds(network, images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_go_through_the_network_together_while_they_are_no_larger_than_a_tile(monkeypatch, network, images):
    monkeypatch.setattr(running, "SIDE", 12)  # 144 pixels; the first image has 108, the third 35
    batches = []
    network.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    Runner(3, "cpu").log_odds(network, [images[0]] * 2 + [images[2]] * 5)
    assert batches == [1, 1, 3, 2]


def test_large_images_go_in_tiles(monkeypatch, network):
    image = np.random.default_rng(0).integers(256, size=(121, 141, 2), dtype=np.uint8)
    (expected,) = Runner(1, "cpu").log_odds(network, [image])
    monkeypatch.setattr(Tiled, "__init__", partialmethod(Tiled.__init__, side=120))
    (found,) = Runner(1, "cpu").log_odds(network, [image])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.array_equal(found, expected)


def test_log_odds_that_are_not_finite_are_told_with_their_image(images):
    class NaN(nn.Module):
        def forward(self, images):
            return torch.where(images[:, :1] > 1, torch.nan, images[:, :1])

    odd = [*images[:3], images[3] + 2, *images[4:]]
    with pytest.raises(ValueError, match="network: its log-odds of image number 3 are not finite"):
        Runner(2, "cpu").log_odds(NaN(), odd)


def test_devices_are_named_and_tried():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == "cpu"
    for device in ("nonsense", "meta", "hpu"):
        with pytest.raises(ValueError, match=f"device: '{device}' is not available"):
            resolve_device(device)


@pytest.mark.parametrize(("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_is_the_best_device_that_there_is(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == best


def test_an_image_for_which_the_network_gives_another_size_is_named():
    halving = nn.Sequential(nn.Conv2d(1, 1, 2, 2), nn.ConvTranspose2d(1, 1, 2, 2))
    images = [np.zeros((8, 6, 1), np.float32), np.zeros((7, 6, 1), np.float32)]
    with pytest.raises(ValueError, match=r"must give one log-odds map .* size_divisor .* \(image number 1\)$"):
        list(Runner(batch_size=2, device="cpu").run(halving, images))


def test_scores_of_several_classes_come_as_a_map_for_each():
    (scores,) = Runner(1, "cpu", n_maps=3).log_odds(UNet(1, width=8, depth=1, n_maps=3), [np.zeros((5, 6, 1))])
    assert scores.shape == (3, 5, 6)
