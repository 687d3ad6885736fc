import pytest
import torch
import torchvision

from skmmcrf.networks import FCN8s

BACKBONES = ["squeezenet1_1", "resnet18", "mobilenet_v3_small"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_one_map_of_the_images_size(backbone, n_channels):
    network = FCN8s(backbone, n_channels)
    assert network.size_divisor == (16 if backbone == "squeezenet1_1" else 32)
    assert network(torch.rand(2, n_channels, 32, 64)).shape == (2, 1, 32, 64)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_three_resolutions_each_half_of_the_one_before(backbone):
    sizes = [f.shape[-1] for f in FCN8s(backbone).features(torch.rand(2, 3, 128, 128))]
    assert sizes[0] == 2 * sizes[1] == 4 * sizes[2]


def test_scores_start_at_zero_and_upsampling_is_bilinear():
    network = FCN8s("squeezenet1_1")
    assert torch.equal(network(torch.rand(1, 3, 32, 32)), torch.zeros(1, 1, 32, 32))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    inner = network.upsample[0](ramp)[0, 0, 4, 2:-2]
    torch.testing.assert_close(inner.diff(), torch.full((11,), 0.5))


def test_one_channel_is_repeated():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        grey = FCN8s("squeezenet1_1", 1).eval()
    colour = FCN8s("squeezenet1_1", 3).eval()
    colour.load_state_dict(grey.state_dict())
    for score in (*grey.scores, *colour.scores):
        torch.nn.init.ones_(score.weight)
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(grey(image), colour(image.expand(1, 3, 32, 32)))


def test_vgg16_is_that_of_long_et_al():
    network = FCN8s("vgg16").eval()
    assert network.size_divisor == 32
    features = list(network.features(torch.rand(1, 3, 64, 96)))
    assert [tuple(f.shape[1:]) for f in features] == [(256, 8, 12), (512, 4, 6), (4096, 2, 3)]
    pools = [stage[-1] for stage in network.backbone[:2]]
    assert all(isinstance(pool, torch.nn.MaxPool2d) for pool in pools)
    convolutions = [m for m in network.backbone[2] if isinstance(m, torch.nn.Conv2d)][-2:]
    assert [m.kernel_size for m in convolutions] == [(7, 7), (1, 1)]


def test_vgg_convolutions_compute_the_linear_layers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torchvision.models.vgg11().eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FCN8s("vgg11").eval()
    image = torch.rand(1, 3, 224, 224)
    features = (image - network.to_rgb.mean) / network.to_rgb.deviation
    with torch.no_grad():
        fc7 = expected.classifier[:6](expected.features(features).flatten(1))
        *_, maps = network.features(image)
    # at the middle of its 7 x 7 input fc6 sees all of it, as the linear layer does
    torch.testing.assert_close(maps[..., 3, 3], fc7, rtol=1e-4, atol=1e-5)
