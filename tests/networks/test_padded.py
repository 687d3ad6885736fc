import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skmmcrf.networks.padded import PaddedBatch, WithoutPadding

STACKS = [torch.rand(2, 4, 6, 10), torch.rand(1, 4, 8, 4)]


def run(network, stacks, size=(8, 12)):
    """Give the maps of each stack, and the padded ones."""
    batch = PaddedBatch(stacks, size)
    with WithoutPadding(batch):
        maps = network(batch.images)
    return batch.stacks_of(maps), maps


def test_images_are_padded_by_their_border_and_cut_back():
    batch = PaddedBatch(STACKS, (8, 12))
    assert batch.images.shape == (3, 4, 8, 12)
    assert torch.equal(batch.images[:2, :, 5:, 9:], STACKS[0][:, :, -1:, -1:].expand(2, 4, 3, 3))
    assert all(map(torch.equal, batch.stacks_of(batch.images), STACKS))
    coarse = batch.stacks_of(F.avg_pool2d(batch.images, 4))
    assert [part.shape for part in coarse] == [(2, 4, 2, 3), (1, 4, 2, 1)]


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_has_the_statistics_of_all_pixels_of_the_images_and_no_others(training):
    norm, same = (nn.BatchNorm2d(4, momentum=0.5) for _ in range(2))
    parts, maps = run(norm.train(training), STACKS)
    values = torch.cat([stack.movedim(1, 0).flatten(1) for stack in STACKS], dim=1)
    expected = same.train(training)(values[None, :, :, None])[0, :, :, 0]
    found = torch.cat([part.movedim(1, 0).flatten(1) for part in parts], dim=1)
    torch.testing.assert_close(found, expected)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, same.state_dict()[name])
    assert not maps[:2, :, 6:].any()
    assert not maps[2, :, :, 4:].any()


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Sequential(nn.BatchNorm2d(4).eval(), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.AvgPool2d(2), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2)),
    ],
)
def test_an_image_among_others_gives_what_it_gives_alone(layer):
    for part, stack in zip(run(layer, STACKS)[0], STACKS):
        torch.testing.assert_close(part, layer(stack))


def test_vectors_and_gradients_pass():
    network = nn.Sequential(nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4))
    stacks = [stack.clone().requires_grad_() for stack in STACKS]
    batch = PaddedBatch(stacks, (8, 12))
    with WithoutPadding(batch):
        assert network(batch.images).shape == (3, 4)
        network(batch.images).square().sum().backward()
    assert all(stack.grad.any() for stack in stacks)
