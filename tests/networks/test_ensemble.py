import torch

from skmmcrf.networks import UNet
from skmmcrf.networks.any_size import divisor_of
from skmmcrf.networks.ensemble import MeanOfNetworks, one_of
from skmmcrf.networks.tiles import Tiled


def networks(n):
    return [UNet(1, width=8, depth=1).eval() for _ in range(n)]


def test_it_gives_the_mean_log_odds():
    several, images = networks(3), torch.rand(2, 1, 12, 10)
    with torch.no_grad():
        expected = sum(network(images) for network in several) / 3
        torch.testing.assert_close(MeanOfNetworks(several)(images), expected)


def test_its_images_have_the_sizes_that_its_networks_take():
    assert divisor_of(MeanOfNetworks(networks(2))) == divisor_of(networks(1)[0]) > 1


def test_it_runs_in_tiles():
    mean, image = MeanOfNetworks(networks(2)), torch.rand(1, 1, 66, 80)
    with torch.no_grad():
        torch.testing.assert_close(Tiled(mean, side=48)(image), mean(image), atol=1e-5, rtol=0)


def test_the_mean_of_scores_gives_the_probabilities_of_the_mean_of_their_logarithms():
    several = [UNet(1, width=8, depth=1, n_maps=3).eval() for _ in range(2)]
    images = torch.rand(1, 1, 12, 10)
    with torch.no_grad():
        mean = MeanOfNetworks(several)(images)
        logarithms = sum(network(images).log_softmax(dim=1) for network in several) / 2
    torch.testing.assert_close(mean.softmax(dim=1), logarithms.softmax(dim=1))


def test_one_of_several_networks_is_the_first():
    several = networks(2)
    assert one_of(MeanOfNetworks(several)) is several[0] is one_of(several[0])
