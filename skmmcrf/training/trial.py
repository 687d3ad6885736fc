"""Trials of a network, so that errors come before any work is lost."""

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import Node, saved_tensors_hooks

from skmmcrf.networks import AnySize, is_own
from skmmcrf.networks.any_size import share_a_batch
from skmmcrf.networks.tiles import SIDE
from skmmcrf.training.batches import Batches
from skmmcrf.training.net import SegmentationNet
from skmmcrf.training.random_states import seeded

Size: TypeAlias = tuple[int, ...]

# what autograd calls steps that give probabilities or their logarithms, and steps that only move, resize or average
_TO_PROBABILITIES = re.compile(r"((Log)?(Sigmoid|Softmax)|Hardsigmoid)Backward\d*")
_KEEPS_RANGE = re.compile(
    r"(Alias|AvgPool2D|Clamp|Clone|ConstantPadNd|MaxPool2DWithIndices|Mean|Permute|Relu|ReshapeAlias|Select|Slice|"
    r"SplitWithSizes|Squeeze|Stack|ToCopy|Transpose|Unbind|UnsafeView|Unsqueeze|Upsample\w+?|View)Backward\d*"
)
# statistics of fewer images, on average, are poor
_FEW = 2


def try_network(net: SegmentationNet, n_channels: int, sizes: Sequence[Size], of_validation: Sequence[Size]) -> None:
    """Run a network on blank images of the sizes that it will see, and leave it as it was.

    It is tried on one image of each size. This step is left out for networks of this package, which take any size. Then
    it is tried in training mode on the most difficult batch: the smallest image that goes through it alone.

    Parameters
    ----------
    net : SegmentationNet
        With the network, its device, the number of epochs and their batches.
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
            _try_sizes(net.module_, sizes, net.device, n_channels, "the images to train on")
            try_whole(net.module_, of_validation, net.device, n_channels, "the validation images")
        learns_statistics = net.module_.train(net.max_epochs > 0).learns_statistics
        alone, mean_length = _alone(net, sizes)
        gives_probabilities = _try_step(net, min(alone or sizes, key=max), n_channels, 1 if alone else 2)
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
    if learns_statistics and mean_length < _FEW:
        warnings.warn(
            "network: its batch normalisation will learn from single images, which gives poor statistics. A batch_size "
            "of several is needed, and images whose sizes don't differ much, or a crop. A network with another "
            "normalisation, such as GroupNorm, and pretrained weights, whose statistics are kept, need neither",
            stacklevel=2,
        )


def try_whole(module: AnySize, sizes: Sequence[Size], device: str | torch.device, n_channels: int, name: str) -> None:
    """Run a network on blank images of each size that is not run in tiles.

    Raises
    ------
    ValueError
        If it can't take images of a size. The message has the name of the images.
    """
    _try_sizes(module, [size for size in sizes if math.prod(size) <= SIDE**2], device, n_channels, name)


def _try_sizes(module: AnySize, sizes: Sequence[Size], device: str | torch.device, n_channels: int, name: str) -> None:
    module.eval()
    tried = set()
    for n, size in enumerate(sizes):
        seen = module.padded_sizes(*size)
        if seen not in tried:
            tried.add(seen)
            with torch.no_grad():
                module([_blank(size, n_channels, device)], [f"number {n} of {name}"])


def _try_step(net: SegmentationNet, size: Size, n_channels: int, n_images: int) -> bool:
    """Run a batch of images of a size, and tell whether the network gives probabilities."""
    image = _blank(size, n_channels, net.device).requires_grad_()  # for a graph, also of frozen networks
    module: AnySize = net.module_.train(net.max_epochs > 0)
    # without what a backward pass needs, the graph takes no memory
    with torch.enable_grad(), saved_tensors_hooks(lambda saved: None, lambda kept: kept):
        log_odds = module([image] * n_images)[0]
    return _are_probabilities(log_odds.grad_fn, net.runner.n_maps)


def _alone(net: SegmentationNet, sizes: Sequence[Size]) -> tuple[set[Size], float]:
    """The sizes of images that go through the network alone in training, and how many go together on average.

    The average is over images.
    """
    alone, lengths = set(), []
    for together in _together(net, sizes):
        lengths += [len(together)] * len(together)
        if len(together) == 1:
            alone.update(together)
    return alone, float(np.mean(lengths))


def _together(net: SegmentationNet, sizes: Sequence[Size]) -> Iterator[list[Size]]:
    """The sizes of the images that go through the network together, in each batch of all epochs."""
    module, order = net.module_, net.iterator_train__sampler
    kinds = [module.padded_sizes(*size)[0] for size in sizes]
    for epoch in range(1, max(net.max_epochs, 1) + 1):
        order.begin(epoch)
        for batch in Batches(order, net.batch_size):
            of_batch = [sizes[n] for _, n in batch]
            if module.learns_statistics and share_a_batch(of_batch):
                yield of_batch
                continue
            of_kind: dict[Size, list[Size]] = defaultdict(list)
            for _, n in batch:
                of_kind[kinds[n]].append(sizes[n])
            yield from of_kind.values()


def _blank(size: Sequence[int], n_channels: int, device: str | torch.device) -> torch.Tensor:
    return torch.zeros(n_channels, *size, dtype=torch.float32, device=device)


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
