import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from skmmcrf.networks import AnySize, UNet
from skmmcrf.random_states import seeded


class Downsampling(nn.Module):
    """Fails unless sizes are multiples of its size_divisor."""

    size_divisor = 8

    def forward(self, images):
        coarse = nn.functional.avg_pool2d(images, self.size_divisor)
        return nn.functional.interpolate(coarse, scale_factor=self.size_divisor)


@pytest.mark.parametrize("shape", [(16, 24), (1, 1), (1, 9), (17, 5), (8, 8)])
def test_maps_are_of_the_images_size(shape):
    (log_odds,) = AnySize(Downsampling())([torch.full((1, *shape), 2.0)])
    assert log_odds.shape == shape
    assert torch.equal(log_odds, torch.full(shape, 2.0))


def test_padding_is_cropped_where_it_was_put():
    image = torch.arange(35.0).view(1, 5, 7)
    identity = nn.Identity()
    identity.size_divisor = 4
    assert torch.equal(AnySize(identity)([image])[0], image[0])


def test_unequal_images_keep_their_order():
    images = [torch.full((1, *shape), float(n)) for n, shape in enumerate([(4, 4), (2, 3), (4, 4), (2, 3)])]
    log_odds = AnySize(nn.Identity())(images)
    assert [l.unique().tolist() for l in log_odds] == [[0], [1], [2], [3]]


def test_maps_without_channel_are_taken():
    network = nn.Flatten(1, 2)
    assert AnySize(network)([torch.zeros(1, 3, 4)])[0].shape == (3, 4)


@pytest.mark.parametrize(
    "network", [nn.Conv2d(1, 2, 1), nn.Conv2d(1, 1, 3), nn.AvgPool2d(2), nn.Flatten()], ids=lambda n: repr(n)[:9]
)
def test_other_outputs_are_told(network):
    with pytest.raises(ValueError, match=r"network: it must give one log-odds map of its input's size"):
        AnySize(network)([torch.zeros(1, 4, 4)])


def test_gradients_reach_the_network():
    network = UNet(1, width=8, depth=1)
    sum(l.sum() for l in AnySize(network)([torch.rand(1, 5, 5), torch.rand(1, 6, 3)])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_mean_with_the_mirror_image_is_symmetric_and_not_for_training():
    with seeded(0):
        network = nn.Conv2d(1, 1, 3, padding=1)
        images = [torch.rand(1, 4, 6), torch.rand(1, 5, 3)]
    plain, averaged = AnySize(network), AnySize(network, average_mirrored=True)
    for a, b in zip(averaged(images), plain(images)):
        assert torch.equal(a, b)
    averaged.eval()
    mirrored = [image.flip(-1) for image in images]
    for log_odds, one, other, of_mirrored in zip(averaged(images), plain(images), plain(mirrored), averaged(mirrored)):
        torch.testing.assert_close(log_odds, (one + other.flip(-1)) / 2)
        torch.testing.assert_close(log_odds, of_mirrored.flip(-1))
        assert not torch.allclose(log_odds, one)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_the_network_sees_resized_images(scale):
    seen = []

    class Watching(nn.Module):
        def forward(self, images):
            seen.append(images.shape[2:])
            return images

    ramp = torch.linspace(0, 1, 24).expand(1, 16, 24)
    (log_odds,) = AnySize(Watching(), scale=scale)([ramp])
    assert seen == [(16 * scale, 24 * scale)]
    assert log_odds.shape == (16, 24)
    torch.testing.assert_close(log_odds[:, 6:-6], ramp[0, :, 6:-6])  # whose values the border does not bend


@pytest.mark.parametrize("average_mirrored", [False, True])
def test_of_several_scales_the_mean_is_taken_and_the_first_for_training(average_mirrored):
    with seeded(0):
        network = nn.Conv2d(1, 1, 3, padding=1)
        images = [torch.rand(1, 8, 12), torch.rand(1, 10, 4)]
    several, *singles = (
        AnySize(network, scale=scale, average_mirrored=average_mirrored) for scale in [(0.5, 1.0, 1.5), 0.5, 1.0, 1.5]
    )
    for log_odds, first in zip(several(images), singles[0](images)):
        assert torch.equal(log_odds, first)
    several.eval()
    for log_odds, *at_each in zip(several(images), *(single.eval()(images) for single in singles)):
        torch.testing.assert_close(log_odds, sum(at_each) / 3)
        assert not torch.allclose(log_odds, at_each[0])


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), (), (1.0, 0.0), ["half"]])
def test_other_scales_are_told(scale):
    with pytest.raises(ValueError, match="scale must be a positive number, or several in a sequence, got"):
        AnySize(nn.Identity(), scale=scale)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (7, 5)])
def test_resizing_leaves_a_pixel_and_gives_the_size_back(shape):
    network = UNet(2, width=8, depth=1)
    (log_odds,) = AnySize(network, scale=0.1)([torch.rand(2, *shape)])
    assert log_odds.shape == shape


@pytest.mark.parametrize(("given", "kept"), [({}, "20000"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
def test_prepared_layers_are_kept_for_many_sizes(given, kept):
    code = "import os, skmmcrf.networks; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"} | given
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == kept
