import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from skmmcrf.networks import FCN8s
from skmmcrf.training.random_states import seeded


@pytest.mark.parametrize(
    ("backbone", "n_channels", "divisor"),
    [("squeezenet1_1", 1, 16), ("resnet18", 3, 32), ("mobilenet_v3_small", 4, 32)],
)
def test_one_map_of_the_images_size_from_three_resolutions(backbone, n_channels, divisor):
    network = FCN8s(backbone, n_channels)
    assert network.size_divisor == divisor
    images = torch.rand(2, n_channels, 64, 128)
    assert network(images).shape == (2, 1, 64, 128)
    assert [f.shape[3] for f in network.features(images)] == [512 // divisor, 256 // divisor, 128 // divisor]


def test_scores_start_at_zero_and_upsampling_is_bilinear():
    network = FCN8s("squeezenet1_1")
    assert torch.equal(network(torch.rand(1, 3, 32, 32)), torch.zeros(1, 1, 32, 32))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    inner = network.upsample[0](ramp)[0, 0, 4, 2:-2]
    torch.testing.assert_close(inner.diff(), torch.full((11,), 0.5))


def test_each_map_of_scores_is_upsampled_by_itself():
    one, several = FCN8s("squeezenet1_1"), FCN8s("squeezenet1_1", n_maps=3)
    maps = torch.rand(1, 3, 4, 5)
    for n in range(3):
        torch.testing.assert_close(several.upsample[0](maps)[:, n], one.upsample[0](maps[:, [n]])[:, 0])


def test_one_channel_is_repeated():
    with seeded(0):
        grey = FCN8s("squeezenet1_1", 1).eval()
    colour = FCN8s("squeezenet1_1", 3).eval()
    colour.load_state_dict(grey.state_dict())
    for score in (*grey.scores, *colour.scores):
        nn.init.ones_(score.weight)
    image = torch.rand(1, 1, 32, 32)
    assert grey(image).any()
    assert torch.equal(grey(image), colour(image.expand(1, 3, 32, 32)))


def test_vgg16_is_that_of_long_et_al():
    with torch.device("meta"):  # shapes alone
        network = FCN8s("vgg16").eval()
        features = network.features(torch.rand(1, 3, 64, 96))
    assert network.size_divisor == 32
    assert [tuple(f.shape[1:]) for f in features] == [(256, 8, 12), (512, 4, 6), (4096, 2, 3)]
    assert all(isinstance(stage[-1], nn.MaxPool2d) for stage in network.backbone[:2])
    convolutions = [m for m in network.backbone[2] if isinstance(m, nn.Conv2d)][-2:]
    assert [m.kernel_size for m in convolutions] == [(7, 7), (1, 1)]


def small_vgg():
    """A VGG of few channels, whose linear layers are smaller than its own."""
    with torch.device("meta"):
        model = torchvision.models.VGG(nn.Identity(), init_weights=False)
    model.features = make_layers([8, "M"] * 5, batch_norm=False)
    linear = [nn.Linear(8 * 7 * 7, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout()]
    model.classifier = nn.Sequential(*linear)
    return model.eval()


def test_vgg_convolutions_compute_the_linear_layers(monkeypatch):
    with seeded(0):
        model, image = small_vgg(), torch.rand(1, 3, 224, 224)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: model)
    network = FCN8s("vgg11").eval()
    with torch.no_grad():
        fc7 = model.classifier(model.features(network.to_rgb(image)).flatten(1))
        *_, maps = network.features(image)
    assert fc7.any()
    # at the middle of its 7 x 7 input fc6 sees all of it, as the linear layer does
    torch.testing.assert_close(maps[..., 3, 3], fc7, rtol=1e-4, atol=1e-5)
