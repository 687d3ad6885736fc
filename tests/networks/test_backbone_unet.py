import pytest
import torch

from skmmcrf.networks import BackboneUNet
from skmmcrf.training.random_states import seeded

STRIDES = {"squeezenet1_1": 16, "resnet18": 32, "mobilenet_v3_small": 32}


@pytest.mark.parametrize(("backbone", "n_channels"), [(name, n) for n, name in enumerate(STRIDES, start=1)])
def test_one_map_of_the_images_size(backbone, n_channels):
    network = BackboneUNet(backbone, n_channels)
    assert network.size_divisor == STRIDES[backbone]
    assert network(torch.rand(2, n_channels, 32, 64)).shape == (2, 1, 32, 64)


def test_every_resolution_is_used():
    with seeded(0):
        network = BackboneUNet("squeezenet1_1")
        features = network.features(torch.rand(1, 3, 64, 64))
        assert [f.shape[2] for f in features] == [32, 16, 8, 4]
        network(torch.rand(1, 3, 64, 64)).sum().backward()
    assert len(network.up) == 3
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_far_pixels_matter():
    with seeded(0):
        network = BackboneUNet("squeezenet1_1").eval()
        image = torch.rand(1, 3, 320, 320, requires_grad=True)
    network(image)[0, 0, 0, 0].backward()
    assert image.grad[0, :, -16:, -16:].abs().max() > 0


@pytest.mark.parametrize("training", [False, True])
def test_images_of_a_batch_do_not_depend_on_each_other(training):
    with seeded(0):
        network = BackboneUNet("squeezenet1_1").train(training)
        images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_convolutions_of_the_decoder_begin_with_weights_for_rectifiers():
    with seeded(0):
        network = BackboneUNet("squeezenet1_1")
    for convolution in [m for m in network.up.modules() if isinstance(m, torch.nn.Conv2d)]:
        n_inputs = convolution.weight[0].numel()
        assert convolution.weight.square().mean().item() == pytest.approx(2 / n_inputs, rel=0.1)
