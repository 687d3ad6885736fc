import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skmmcrf.networks import AnySize, BackboneUNet, FCN8s, UNet
from skmmcrf.networks.tiles import Tiled
from skmmcrf.training.random_states import seeded


class Function(nn.Module):
    """A network of one layer."""

    def __init__(self, function, layer, size_divisor=1):
        super().__init__()
        self.function = function
        self.layer = layer
        self.size_divisor = size_divisor

    def forward(self, images):
        return self.function(images, self.layer)


class Seen(nn.Module):
    """A network, and the sizes of what it was given."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.size_divisor = network.size_divisor
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[2:]))
        return self.network(images)


def run(build, side, shape, **ways):
    """Log-odds of a random image, by tiles and of the whole, and the sizes of what the network was given for tiles."""
    with seeded(0):
        network = Seen(build())
        for parameter in network.parameters():
            if not parameter.any():  # with the scores of a new FCN all log-odds are 0
                nn.init.normal_(parameter, std=0.1)
        image = torch.rand(2, *shape)
    tiled = Tiled(network, side)
    tiled.most_pixels = 0  # even of images that are far from square
    with torch.inference_mode():
        found = AnySize(tiled, **ways).eval()([image])[0]
        sizes = list(network.sizes)
        expected = AnySize(network, **ways).eval()([image])[0]
    assert expected.std() > 1e-3
    return found, expected, sizes


def unet():
    return UNet(2, width=8, depth=2)


def on_squeezenet(kind):
    return lambda: kind("squeezenet1_1", 2)


@pytest.mark.parametrize(
    ("build", "side", "shape"),
    [
        (unet, 120, (121, 171)),
        (on_squeezenet(FCN8s), 450, (33, 901)),
        (on_squeezenet(FCN8s), 450, (901, 19)),
        (on_squeezenet(BackboneUNet), 720, (17, 1001)),
    ],
)
def test_tiles_give_the_log_odds_of_the_whole_image(build, side, shape):
    found, expected, sizes = run(build, side, shape)
    assert max(max(size) for size in sizes) <= side
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [unet, lambda: UNet(2, width=8, depth=0)])
def test_tiles_give_them_with_the_mirror_image_and_at_all_scales(build):
    found, expected, sizes = run(build, 120, (123, 141), average_mirrored=True, scale=(1.0, 1.3))
    assert max(max(size) for size in sizes) <= 120
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "of_classes", [lambda: UNet(2, width=8, depth=2, n_maps=3), lambda: nn.Conv2d(2, 3, 3, padding=1)]
)
def test_tiles_give_the_scores_of_several_classes(of_classes):
    def build():
        network = of_classes()
        network.size_divisor = getattr(network, "size_divisor", 1)
        return network

    found, expected, sizes = run(build, 120, (121, 171), n_maps=3)
    assert found.shape == (3, 121, 171)
    assert max(max(size) for size in sizes) <= 120
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def convolution(size=3, **others):
    return nn.Conv2d(2, 2, size, padding="same", **others)


def first(features):
    return features[:, :1]


def test_vectors_of_the_image_are_normalised_as_they_are():
    def function(images, layer):
        features = layer(images)
        means = F.adaptive_avg_pool2d(features, 1).flatten(1)
        return first(features + F.group_norm(means, 1)[..., None, None])

    found, expected, sizes = run(lambda: Function(function, convolution()), 40, (70, 61))
    assert max(max(size) for size in sizes) <= 40
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(1, 2),
        nn.GroupNorm(2, 2, affine=False, eps=0.1),
        nn.InstanceNorm2d(2, affine=True),
        nn.InstanceNorm2d(2, track_running_stats=True),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, 1)),
    ],
    ids=str,
)
def test_layers_that_see_the_whole_image_see_it(layer):
    def function(images, layers):
        features = layers[0](images)
        return first(features.square() * layers[1](features * features + 5))

    found, expected, sizes = run(lambda: Function(function, nn.ModuleList([convolution(5), layer])), 40, (70, 61))
    assert max(max(size) for size in sizes) <= 40
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class OneSize(nn.Module):
    """A network with a number for every pixel of images of one size."""

    def __init__(self):
        super().__init__()
        self.of_pixels = nn.Parameter(torch.rand(1, 1, 64, 250))

    def forward(self, images):
        return first(images) * self.of_pixels


def doubled(features, like, **ways):
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", **ways)


def in_fours(features):
    down, right = (-n % 4 for n in features.shape[2:])
    coarse = F.avg_pool2d(F.pad(features, (0, right, 0, down)), 4)
    return F.interpolate(coarse, scale_factor=4)[..., : features.shape[2], : features.shape[3]]


UNFIT = {
    "the greatest value of the image": (lambda x, layer: first(layer(x) * x.amax(dim=(2, 3), keepdim=True)), 1),
    "means over parts of the image": (lambda x, layer: first(layer(x) * doubled(F.adaptive_avg_pool2d(x, 2), x)), 1),
    "statistics of the batch": (lambda x, layer: first(F.batch_norm(layer(x), None, None, training=True)), 1),
    "the position": (lambda x, layer: first(layer(x) + torch.linspace(0, 1, x.shape[3])), 1),
    "the position, and has a large bias": (
        lambda x, layer: first(layer(x) + 0.3 * torch.linspace(0, 1, x.shape[3]) - 60),
        1,
    ),
    "the size": (lambda x, layer: first(doubled(layer(x)[:, :, ::2, ::2], x, align_corners=True)), 2),
    "strides beyond its divisor": (lambda x, layer: first(doubled(F.max_pool2d(layer(x), 4), x)), 2),
    "strides, and has no divisor": (lambda x, layer: first(doubled(F.avg_pool2d(x, 2, ceil_mode=True), x)), 1),
    "strides beyond its divisor, for which it pads": (lambda x, layer: first(in_fours(layer(x))), 2),
    "the other border": (lambda x, layer: first(x.roll(3, dims=3)), 1),
    "moments of maps without a border": (
        lambda x, layer: first(F.pad(F.group_norm(x[..., 1:-1, 1:-1], 1), [1] * 4)),
        1,
    ),
}


@pytest.mark.parametrize("what", [*UNFIT, "images of one size"])
def test_a_network_that_depends_on_what_tiles_would_change_is_run_on_the_whole_image(what):
    def build():
        if what == "images of one size":
            return Function(lambda images, layer: layer(images), OneSize())
        function, divisor = UNFIT[what]
        return Function(function, convolution(), divisor)

    found, expected, sizes = run(build, 120, (64, 250))
    assert sizes[-1] == (64, 250)
    assert torch.equal(found, expected)


def test_no_rectifier_or_maximum_hides_what_a_network_sees():
    def function(images, layer):
        return first(F.max_pool2d(F.relu(layer(images) - 100), 3, stride=1, padding=1))

    network = Function(function, convolution(dilation=3)).eval()
    tiled = Tiled(network, 40)
    with torch.inference_mode():
        tiled(torch.rand(1, 2, 50, 50))
    assert tiled._halos == {2: [4]}


def test_what_gives_no_log_odds_is_left_to_those_who_tell():
    network = Function(lambda images, layer: {"out": layer(images)}, convolution())
    assert list(Tiled(network, 40)(torch.rand(1, 2, 50, 50))) == ["out"]


@pytest.mark.parametrize("progress", [False, True])
def test_a_bar_shows_the_tiles_where_it_is_wanted(capsys, progress):
    with torch.inference_mode():
        Tiled(unet().eval(), 120, progress)(torch.rand(2, 2, 124, 124))
    assert ("tiles" in capsys.readouterr().err) == progress
