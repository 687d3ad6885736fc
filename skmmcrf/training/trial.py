"""Trials of a network, so that errors come before any work is lost."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import nn
from torch.autograd.graph import Node, saved_tensors_hooks

from skmmcrf.networks import AnySize, is_own
from skmmcrf.networks.any_size import share_a_batch
from skmmcrf.networks.tiles import SIDE
from skmmcrf.training.batches import batch_sizes
from skmmcrf.training.net import SegmentationNet
from skmmcrf.training.random_states import seeded

Size: TypeAlias = tuple[int, ...]

# what autograd calls steps that give probabilities or their logarithms, and steps that only move, resize or average
_TO_PROBABILITIES = re.compile(r"((Log)?(Sigmoid|Softmax)|Hardsigmoid)Backward\d*")
_KEEPS_RANGE = re.compile(
    r"(Alias|AvgPool2D|Clamp|Clone|ConstantPadNd|MaxPool2DWithIndices|Mean|Permute|Relu|ReshapeAlias|Select|Slice|"
    r"SplitWithSizes|Squeeze|Stack|ToCopy|Transpose|Unbind|UnsafeView|Unsqueeze|Upsample\w+?|View)Backward\d*"
)
# a batch that is less likely than this in all of training does not count
_RARE = 1e-6


def try_network(net: SegmentationNet, n_channels: int, sizes: Sequence[Size], of_validation: Sequence[Size]) -> None:
    """Run a network on blank images of the sizes that it will see, and leave it as it was.

    It is tried on one image of each size. This step is left out for networks of this package, which take any size. Then
    it is tried in training mode on the most difficult batch: the smallest image that may go through it alone.

    Parameters
    ----------
    net : SegmentationNet
        With the network, its device, the size of batches and the number of epochs.
    n_channels : int
    sizes : sequence of tuple (int, int)
        Heights and widths of the images to train on, as augmentation leaves them.
    of_validation : sequence of tuple (int, int)
        Heights and widths of the validation images. Large ones are not tried, because they are run in tiles.

    Raises
    ------
    ValueError
        If the network can't take images of a size. If it can't be trained on them.

    Warns
    -----
    UserWarning
        If the network ends in a sigmoid or softmax. If batch-norm layers will learn statistics from single images.
    """
    with _untouched(net.module_):
        if not is_own(net.module.network):
            _try_sizes(net, sizes, n_channels, "the images to train on")
            run_whole = [size for size in of_validation if math.prod(size) <= SIDE**2]
            _try_sizes(net, run_whole, n_channels, "the validation images")
        learns_statistics = net.module_.train(net.max_epochs > 0).learns_statistics
        if learns_statistics and share_a_batch(sizes):  # then batches are run as if all sizes were equal
            sizes = [min(sizes, key=max)] * len(sizes)
        first_of: dict[Size, Size] = {}  # what is padded to one size is run as if it were of one size
        sizes = [first_of.setdefault(net.module_.padded_sizes(*size)[0], size) for size in sizes]
        gives_probabilities = _try_step(net, sizes, n_channels)
    if gives_probabilities:
        warnings.warn(
            "network: it ends in a sigmoid or softmax, or in its logarithm. Leave that out, because it must give "
            + (
                "log-odds: positive for foreground and negative for background"
                if net.runner.n_maps == 1
                else "scores, whose softmax is taken later"
            ),
            stacklevel=2,
        )
    if learns_statistics and _mean_number_of_others(sizes, net.batch_size) < 1:
        warnings.warn(
            "network: its batch normalisation will learn from single images, which gives poor statistics. A batch_size "
            "of several is needed, and images whose sizes don't differ much, or a crop. A network with another "
            "normalisation, such as GroupNorm, and pretrained weights, whose statistics are kept, need neither",
            stacklevel=2,
        )


def _try_sizes(net: SegmentationNet, sizes: Sequence[Size], n_channels: int, name: str) -> None:
    module: AnySize = net.module_.eval()
    tried = set()
    for n, size in enumerate(sizes):
        seen = module.padded_sizes(*size)
        if seen not in tried:
            tried.add(seen)
            with torch.no_grad():
                module([_blank(net, size, n_channels)], [f"number {n} of {name}"])


def _try_step(net: SegmentationNet, sizes: Sequence[Size], n_channels: int) -> bool:
    """Run the most difficult batch, and tell whether the network gives probabilities."""
    alone = _sizes_alone(sizes, net.batch_size, net.max_epochs)
    smallest = min(alone or sizes, key=max)
    image = _blank(net, smallest, n_channels).requires_grad_()  # for a graph, also of frozen networks
    module: AnySize = net.module_.train(net.max_epochs > 0)
    # without what a backward pass needs, the graph takes no memory
    with torch.enable_grad(), saved_tensors_hooks(lambda saved: None, lambda kept: kept):
        log_odds = module([image] * (1 if alone else 2))[0]
    return _are_probabilities(log_odds.grad_fn, net.runner.n_maps)


def _sizes_alone(sizes: Sequence[Size], batch_size: int, n_epochs: int) -> list[Size]:
    """The sizes of which a batch may hold a single image."""
    lengths, repeats = np.unique(batch_sizes(len(sizes), batch_size), return_counts=True)
    n_images_of = Counter(sizes)
    times = {n: n_epochs * repeats @ hypergeom.pmf(1, len(sizes), n, lengths) for n in set(n_images_of.values())}
    return [size for size, n in n_images_of.items() if times[n] > _RARE]


def _mean_number_of_others(sizes: Sequence[Size], batch_size: int) -> float:
    """How many other images of its size an image has in its batch, on average."""
    n_pairs = len(sizes) * (len(sizes) - 1)
    n_equal = sum(n * (n - 1) for n in Counter(sizes).values())
    return (min(batch_size, len(sizes)) - 1) * n_equal / max(n_pairs, 1)


def _blank(net: SegmentationNet, size: Sequence[int], n_channels: int) -> torch.Tensor:
    return torch.zeros(n_channels, *size, dtype=torch.float32, device=net.device)


def _are_probabilities(step: Node | None, n_maps: int) -> bool:
    """Whether the last step that does more than move values gives probabilities."""
    while step is not None and _KEEPS_RANGE.fullmatch(step.name()):
        step = step.next_functions[0][0]
    if step is None or (n_maps > 1 and step.name().startswith("LogSoftmax")):  # which is its own softmax's logarithm
        return False
    return bool(_TO_PROBABILITIES.fullmatch(step.name()))


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """Give modules back what they count and keep, such as statistics, and draw from no global generator."""
    attributes = [(module, dict(vars(module))) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with seeded(0):
        yield
    for module, before in attributes:
        vars(module).clear()
        vars(module).update(before)
    with torch.no_grad():
        for buffer, values in buffers:
            buffer.copy_(values)
