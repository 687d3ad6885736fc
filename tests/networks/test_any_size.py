import os

import pytest
import torch
from torch import nn

from skmmcrf.networks import AnySize, UNet, build_network
from skmmcrf.training.random_states import seeded


class Function(nn.Module):
    """A network without parameters."""

    def __init__(self, function, size_divisor=1):
        super().__init__()
        self.function = function
        self.size_divisor = size_divisor

    def forward(self, images):
        return self.function(images)


@pytest.mark.parametrize("shape", [(16, 24), (1, 1), (1, 9), (17, 5), (8, 8)])
def test_networks_see_multiples_of_their_divisor_and_maps_are_of_the_images_size(shape):
    seen = []
    network = Function(lambda images: seen.append(images) or images, size_divisor=8)
    image = torch.rand(1, *shape)
    (log_odds,) = AnySize(network)([image])
    assert torch.equal(log_odds, image[0])
    (padded,) = seen
    assert [n % 8 for n in padded.shape[2:]] == [0, 0]
    assert padded[0, 0, 0, 0] == image[0, 0, 0]
    assert padded[0, 0, -1, -1] == image[0, -1, -1]


def test_unequal_images_keep_their_order_and_equal_ones_go_together():
    seen = []
    images = [torch.full((1, *shape), float(n)) for n, shape in enumerate([(4, 4), (2, 3), (4, 4), (2, 3)])]
    log_odds = AnySize(Function(lambda images: seen.append(len(images)) or images))(images)
    assert [l.unique().tolist() for l in log_odds] == [[0], [1], [2], [3]]
    assert seen == [2, 2]


def test_maps_without_channel_are_taken():
    assert AnySize(nn.Flatten(1, 2))([torch.zeros(1, 3, 4)])[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        *((n, "one log-odds map of its input's size") for n in (nn.Conv2d(1, 2, 1), nn.Conv2d(1, 1, 3), nn.Flatten())),
        (Function(lambda images: images + 0j), "log-odds, a tensor of float, not torch.complex64"),
        (Function(lambda images: images > 0), "log-odds, a tensor of float, not torch.bool"),
        (Function(lambda images: {"out": images}), "log-odds, a tensor of float, not dict"),
        (Function(lambda images: (images,)), "log-odds, a tensor of float, not tuple"),
    ],
)
def test_other_outputs_are_told(network, message):
    with pytest.raises(ValueError, match=f"network: it must give {message}"):
        AnySize(network)([torch.zeros(1, 4, 4)])


@pytest.mark.parametrize(
    ("network", "way_out"),
    [
        (Function(lambda images: {"out": images}), "wrap it in a module that returns the log-odds only"),
        (nn.Conv2d(1, 2, 1), r"return z\[:, 1:\] - z\[:, :1\], without softmax"),
        (nn.MaxPool2d(2), "multiples of a number, set its attribute size_divisor to that number"),
    ],
)
def test_the_way_to_one_map_is_told(network, way_out):
    with pytest.raises(ValueError, match=f"network: it must give .*{way_out}"):
        AnySize(network)([torch.zeros(1, 4, 4)])


@pytest.mark.parametrize("shape", [(8, 12), (5, 7)])
def test_each_map_of_scores_is_made_as_the_only_map_of_another_network(shape):
    with seeded(0):
        network, image = nn.Conv2d(1, 3, 3, padding=1), torch.rand(1, *shape)
    network.size_divisor = 4
    ways = {"scale": (0.5, 1.0), "average_mirrored": True}
    (scores,) = AnySize(network, n_maps=3, **ways).eval()([image])
    for n, of_class in enumerate(scores):
        alone = Function(lambda images, n=n: network(images)[:, n], size_divisor=4)
        torch.testing.assert_close(of_class, AnySize(alone, **ways).eval()([image])[0])


@pytest.mark.parametrize(
    ("network", "way_out"),
    [
        (nn.Conv2d(1, 1, 1), "Its last layer must have 3 channels"),
        (nn.Conv2d(1, 4, 1), "Its last layer must have 3 channels"),
        (nn.Sequential(nn.Conv2d(1, 3, 1), nn.MaxPool2d(2)), "set its attribute size_divisor to that number"),
    ],
)
def test_the_way_to_maps_of_scores_is_told(network, way_out):
    what = "a map of scores of its input's size for each of 3 classes"
    with pytest.raises(ValueError, match=f"network: it must give {what}, .*{way_out}"):
        AnySize(network, n_maps=3)([torch.zeros(1, 4, 4)])


def test_stacks_of_scores_go_together_if_batch_norm_learns():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    stacks = [torch.rand(2, 1, 5, 6), torch.rand(1, 1, 6, 5)]
    assert [maps.shape for maps in AnySize(network, n_maps=3).of_stacks(stacks)] == [(2, 3, 5, 6), (1, 3, 6, 5)]


def raising(error):
    def function(images):
        raise error

    return Function(function)


@pytest.mark.parametrize(
    "error", [RuntimeError("wide."), ValueError("wide"), AssertionError("wide"), IndexError("wide")]
)
def test_an_error_of_the_network_names_the_image_and_hints_at_the_divisor(error):
    images = [torch.zeros(1, 4, 5)]
    expected = r"^network: it can't take an image of shape \(4, 5, 1\){}: wide. If it needs .* to that number$"
    with pytest.raises(ValueError, match=expected.format("")):
        AnySize(raising(error))(images)
    with pytest.raises(ValueError, match=expected.format(r" \(the last one\)")):
        AnySize(raising(error))(images, ["the last one"])


def test_what_sizes_are_not_to_blame_for_comes_without_a_hint_at_them():
    with pytest.raises(ValueError, match="to have 3 channels, but got 1 channels instead$"):
        AnySize(nn.Conv2d(3, 1, 1))([torch.zeros(1, 4, 5)])
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'target'$"):
        AnySize(Function(lambda images, target: images))([torch.zeros(1, 4, 5)])
    with pytest.raises(torch.cuda.OutOfMemoryError, match="full"):
        AnySize(raising(torch.cuda.OutOfMemoryError("full")))([torch.zeros(1, 4, 5)])


def test_batch_norm_over_a_single_value_is_told_with_the_ways_out():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Upsample((4, 5)))
    with pytest.raises(ValueError, match=r"network: its batch norm.*\(4, 5, 1\) alone.*batch_size.*GroupNorm"):
        AnySize(network).train()([torch.rand(1, 4, 5)])
    assert len(AnySize(network).train()([torch.rand(1, 4, 5)] * 2)) == 2
    assert len(AnySize(network, freeze_batch_norm=True).train()([torch.rand(1, 4, 5)])) == 1


@pytest.mark.parametrize("wrap", [nn.Sequential, nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_the_divisor_of_a_wrapped_network_counts(wrap):
    network = AnySize(wrap(UNet(1, width=8)))
    assert network([torch.zeros(1, 5, 9)])[0].shape == (5, 9)
    assert network.padded_sizes(5, 9) == ((8, 16),)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_run_in_their_dtype_and_log_odds_are_of_single_precision(dtype):
    network = nn.Conv2d(1, 1, 3, padding=1).eval()
    images = [torch.rand(1, 4, 5)]
    expected = AnySize(network)(images)[0]
    (log_odds,) = AnySize(network.to(dtype))(images)
    assert log_odds.dtype == torch.float32
    torch.testing.assert_close(log_odds, expected, rtol=0, atol=0.02)


def test_what_is_no_network_or_image_or_divisor_is_told():
    with pytest.raises(TypeError, match="network must be a torch.nn.Module, got int"):
        AnySize(3)
    with pytest.raises(ValueError, match=r"images\[0\] must be of shape \(channels, H, W\), got \(4, 5\)"):
        AnySize(nn.Identity())([torch.zeros(4, 5)])
    for divisor in (0, 1.5, "8"):
        with pytest.raises(ValueError, match="network: its size_divisor must be a positive integer, got"):
            AnySize(Function(lambda images: images, divisor))([torch.zeros(1, 4, 4)])


def test_gradients_reach_the_network():
    network = UNet(1, width=8, depth=1)
    sum(l.sum() for l in AnySize(network)([torch.rand(1, 5, 5), torch.rand(1, 6, 3)])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_batch_norm_keeps_its_statistics_while_training(freeze):
    norm = nn.BatchNorm2d(1)
    module = AnySize(nn.Sequential(norm, nn.Dropout()), freeze_batch_norm=freeze).train()
    module([torch.rand(1, 4, 4) + 1])
    assert bool(norm.running_mean.any()) == (not freeze)
    assert module.network[1].training
    assert not module.eval().network[1].training


def run_in_training(n_batches, **parameters):
    """A batch norm that has seen so many batches."""
    norm = nn.BatchNorm2d(1, **parameters)
    for _ in range(n_batches):
        norm(torch.rand(2, 1, 4, 4) + 1)
    return norm


def of_an_early_file():
    norm = run_in_training(7)
    norm.num_batches_tracked.zero_()
    return norm


@pytest.mark.parametrize(
    ("norm", "kept"),
    [
        (run_in_training(0), False),
        (run_in_training(1), False),
        (run_in_training(20), True),
        (run_in_training(20, momentum=0.01), False),
        (run_in_training(2, momentum=None), True),
        (of_an_early_file(), True),
    ],
)
def test_statistics_of_an_earlier_training_are_kept_layer_by_layer(norm, kept):
    fresh = nn.BatchNorm2d(1)
    module = AnySize(nn.Sequential(norm, fresh)).train()
    before = norm.running_mean.clone()
    module([torch.rand(1, 4, 4) + 9])
    assert torch.equal(norm.running_mean, before) == kept
    assert fresh.running_mean.any()
    assert module.learns_statistics
    assert not module.eval().learns_statistics
    assert AnySize(norm).train().learns_statistics != kept


@pytest.mark.parametrize(("scale", "divisor"), [(1.0, 1), (1.0, 8), (0.5, 8), (0.7, 4), (3.0, 2)])
def test_stacks_go_together_if_batch_norm_learns(scale, divisor):
    seen = []
    network = nn.Sequential(Function(lambda images: seen.append(images.shape) or images, divisor), nn.BatchNorm2d(1))
    stacks = [torch.rand(2, 1, 9, 12), torch.rand(1, 1, 10, 8)]
    module = AnySize(network, scale=scale).train()
    log_odds = module.of_stacks(stacks)
    assert [l.shape for l in log_odds] == [(2, 9, 12), (1, 10, 8)]
    (shape,) = seen
    assert shape[0] == 3
    assert [n % divisor for n in shape[2:]] == [0, 0]
    module.eval().of_stacks(stacks)
    padded = [module.padded_sizes(*stack.shape[2:]) for stack in stacks]
    assert [shape[0] for shape in seen[1:]] == ([3] if padded[0] == padded[1] else [2, 1])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5, (1.0, 0.7)])
def test_images_that_are_padded_to_one_size_go_together_and_get_what_each_gets_alone(scale, training):
    seen = []
    with seeded(0):
        convolution = nn.Conv2d(1, 1, 3, padding=1)
        images = [torch.rand(1, *size) for size in [(9, 12), (30, 5), (12, 9), (16, 16)]]
    network = nn.Sequential(Function(lambda images: seen.append(len(images)) or images, 16), convolution)
    module = AnySize(network, scale=scale, average_mirrored=True).train(training)
    together = module(images)
    assert sum(seen) == len(images) * (1 if training else 2 * len(module.scales))
    assert set(seen) == {3, 1} if scale != 0.5 else {4}
    for log_odds, image in zip(together, images):
        torch.testing.assert_close(log_odds, module([image])[0])


def test_stacks_go_together_with_the_statistics_of_all():
    network, stacks = nn.BatchNorm2d(1, momentum=1.0), [torch.rand(2, 1, 9, 12), 5 + torch.rand(1, 1, 10, 8)]
    log_odds = AnySize(network).train().of_stacks(stacks)
    values = torch.cat([stack.flatten() for stack in stacks])
    torch.testing.assert_close(network.running_mean[0], values.mean())
    expected = (values - values.mean()) / values.std(correction=0)
    torch.testing.assert_close(torch.cat([l.flatten() for l in log_odds]), expected, atol=1e-4, rtol=1e-4)


def test_images_may_be_none_or_one_tensor_of_several():
    module = AnySize(nn.BatchNorm2d(1)).train()
    assert module([]) == []
    images = torch.rand(2, 1, 5, 4)
    for log_odds, expected in zip(module(images), module(list(images)), strict=True):
        torch.testing.assert_close(log_odds, expected)


def test_maps_of_one_size_may_be_changed_in_place():
    assert AnySize(nn.Conv2d(1, 1, 1)).train().of_one_size(torch.rand(2, 1, 5, 4)).clamp_(0, 1).requires_grad


@pytest.mark.parametrize("network", [nn.GroupNorm(1, 1), run_in_training(20), nn.BatchNorm2d(1)])
def test_stacks_go_by_themselves_if_no_statistics_are_learned_or_sizes_differ_too_much(network):
    size = (200, 200) if isinstance(network, nn.BatchNorm2d) and not network.running_mean.any() else (9, 12)
    stacks = [torch.rand(9, 1, 9, 11), torch.rand(1, 1, *size)]
    module = AnySize(network).train()
    for log_odds, alone in zip(module.of_stacks(stacks), map(module.of_one_size, stacks)):
        assert torch.equal(log_odds, alone)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(1, track_running_stats=False), nn.LazyBatchNorm2d()])
def test_batch_norm_without_statistics_is_left_as_it_is(norm):
    assert AnySize(norm).train().network.training


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


@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_the_network_sees_resized_images(scale):
    seen = []
    ramp = torch.linspace(0, 1, 24).expand(1, 16, 24)
    (log_odds,) = AnySize(Function(lambda images: seen.append(images.shape[2:]) or images), scale=scale)([ramp])
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


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), (), (1.0, 0.0), ["half"], [True], 17 * [0.5]])
def test_other_scales_are_told(scale):
    with pytest.raises(ValueError, match="scale must be a positive number up to 16, or a sequence of 1 to 16 such"):
        AnySize(nn.Identity(), scale=scale)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50)])
def test_resizing_leaves_a_pixel_and_gives_the_size_back(shape):
    (log_odds,) = AnySize(UNet(2, width=8, depth=1), scale=0.1)([torch.rand(2, *shape)])
    assert log_odds.shape == shape


@pytest.mark.parametrize(("given", "kept"), [({}, "20000"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")])
@pytest.mark.parametrize("run", [lambda: AnySize(nn.Identity()), lambda: build_network("unet", 1)])
def test_prepared_layers_are_kept_for_many_sizes_unless_the_user_says_how_many(monkeypatch, given, kept, run):
    environment = {k: v for k, v in os.environ.items() if k != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"} | given
    monkeypatch.setattr(os, "environ", environment)
    run()
    assert environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == kept


@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision_computes_in_bfloat16_and_gives_float32(training):
    seen = []

    class Spy(nn.Conv2d):
        def forward(self, x):
            output = super().forward(x)
            seen.append((output.dtype, x.is_contiguous(memory_format=torch.channels_last)))
            return output

    with seeded(0):
        network, images = Spy(2, 1, 3, padding=1), torch.rand(2, 2, 8, 9)
    exact, mixed = (AnySize(network, amp=amp).train(training).of_one_size(images) for amp in (False, True))
    assert seen == [(torch.float32, False), (torch.bfloat16, True)]  # channels last suit matrix units
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.02, atol=0.02)
    mixed.sum().backward()
    assert network.weight.grad.dtype == torch.float32
