import pytest
import torch

from skmmcrf.networks import UNet
from skmmcrf.training.random_states import seeded


@pytest.mark.parametrize(("n_channels", "depth"), [(1, 3), (3, 2), (5, 0)])
def test_one_map_of_the_images_size(n_channels, depth):
    network = UNet(n_channels, width=8, depth=depth)
    size = 3 * network.size_divisor
    assert network.size_divisor == 2**depth
    assert network(torch.zeros(2, n_channels, size, 2 * size)).shape == (2, 1, size, 2 * size)


def test_far_pixels_matter():
    with seeded(0):
        network = UNet(1, width=8, depth=3).eval()
        image = torch.rand(1, 1, 32, 32, requires_grad=True)
    network(image)[0, 0, 16, 16].backward()
    assert image.grad[0, 0, :4, :4].abs().max() > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_channels": 0}, "'n_channels' parameter of UNet must be an int"),
        ({"n_channels": 1.0}, "'n_channels' parameter"),
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"width": 0}, "'width' parameter"),
        ({"depth": -1}, "'depth' parameter"),
    ],
)
def test_parameters_out_of_range_are_told(parameters, message):
    with pytest.raises(ValueError, match=message):
        UNet(**parameters)
