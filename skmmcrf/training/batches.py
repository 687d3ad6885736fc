"""Batches of images of any sizes, and the order in which images come."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler

from skmmcrf.field.labels import UNLABELLED
from skmmcrf.images.tensors import scaled
from skmmcrf.training.augmentation import RandomChanges


class Sample(NamedTuple):
    """One image of a batch.

    Attributes
    ----------
    number : int
        The number of the image in its training set.
    image : Tensor of shape (channels, H, W)
        In its own dtype, or float32 in [0, 1] if it was changed.
    mask : Tensor of uint8 and shape (H, W)
        Labels as in `Annotation.mask`.
    weights : Tensor of float and shape (1 + K,)
        The weight of the image, and that of a pixel of each class.
    draws : Tensor of float and shape (n_draws,)
        What `RandomChanges.draw` gave. Empty if the image is changed already, or stays as it is.
    """

    number: int
    image: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor
    draws: torch.Tensor


@dataclass
class Stack:
    """Images of one size in a batch, with what belongs to them, each as one tensor. See `Sample`.

    Attributes
    ----------
    numbers : list of int
    images : Tensor of shape (n, channels, H, W)
    masks : Tensor of uint8 and shape (n, H, W)
    weights : Tensor of float and shape (n, 1 + K)
    draws : Tensor of float and shape (n, n_draws)
    """

    numbers: list[int]
    images: torch.Tensor
    masks: torch.Tensor
    weights: torch.Tensor
    draws: torch.Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def name(self) -> str:
        """The name of the first image, for messages."""
        return f"number {self.numbers[0]} of the images to train on"

    @property
    def n_labels(self) -> int:
        """K, the number of classes."""
        return self.weights.shape[1] - 1

    @property
    def truth(self) -> torch.Tensor:
        """The labels, Tensor of shape (n, H, W): of bool for two, True in the foreground, or of uint8 for several."""
        return self.masks == 1 if self.n_labels == 2 else self.masks * self.labelled

    @property
    def labelled(self) -> torch.Tensor:
        """Where the truth is known, Tensor of bool and shape (n, H, W)."""
        return self.masks != UNLABELLED

    @property
    def regions(self) -> torch.Tensor:
        """Where the truth is known and what it is, as the function `regions` says."""
        return regions(self.truth, self.n_labels) & self.labelled[:, None]

    @property
    def pixel_weights(self) -> torch.Tensor:
        """The weights of the pixels, Tensor of float and shape (n, H, W). 0 where the truth is not known."""
        truth = self.truth
        return self.weights[:, 1:].gather(1, truth.flatten(1).long()).view(truth.shape) * self.labelled

    def changed(self, changes: RandomChanges | None) -> "Stack":
        """Change the images and masks at random, if changes were left. See `TrainingSet.of_stacks`."""
        if changes is None:
            return self
        images, masks = changes.of_stack(scaled(self.images), self.masks, self.draws)
        return replace(self, images=images, masks=masks)

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Stack":
        """Give the same with a function of each tensor."""
        return Stack(self.numbers, *map(function, (self.images, self.masks, self.weights, self.draws)))


def regions(labels: torch.Tensor, n_labels: int) -> torch.Tensor:
    """Give the foreground of labels (n, H, W) of bool, (n, 1, H, W), or where each of several is, (n, K, H, W)."""
    if labels.dtype == torch.bool:
        return labels[:, None]
    return labels[:, None] == torch.arange(n_labels, device=labels.device).view(-1, 1, 1)


class Batch:
    """A batch of images of any sizes: stacks of those of one size and dtype.

    Parameters
    ----------
    stacks : list of Stack

    Examples
    --------
    >>> blank = [torch.zeros(1, 4, width, dtype=torch.uint8) for width in (5, 6, 5)]
    >>> samples = [Sample(n, image, image[0], torch.ones(3), torch.empty(0)) for n, image in enumerate(blank)]
    >>> [stack.numbers for stack in Batch.of_samples(samples).stacks]
    [[0, 2], [1]]
    """

    def __init__(self, stacks: list[Stack]) -> None:
        self.stacks = stacks

    @classmethod
    def of_samples(cls, samples: Sequence[Sample]) -> "Batch":
        """Stack samples."""
        of_kind: dict[Any, list[Sample]] = defaultdict(list)
        for sample in samples:
            of_kind[sample.image.shape, sample.image.dtype].append(sample)
        columns = (tuple(zip(*group)) for group in of_kind.values())
        return cls([Stack(list(numbers), *map(torch.stack, tensors)) for numbers, *tensors in columns])

    @classmethod
    def of_halves(cls, samples: Sequence[Sample]) -> "Batch":
        """Stack each half of the samples by itself."""
        return cls([stack for half in (samples[::2], samples[1::2]) for stack in cls.of_samples(half).stacks])

    def __len__(self) -> int:
        return sum(map(len, self.stacks))

    def pin_memory(self) -> "Batch":
        """Give the same in memory from which a graphics card reads while the processor goes on."""
        return Batch([stack.mapped(torch.Tensor.pin_memory) for stack in self.stacks])

    def to(self, device: str | torch.device) -> "Batch":
        """Give the same on a device."""
        return Batch([stack.mapped(lambda tensor: tensor.to(device, non_blocking=True)) for stack in self.stacks])


def batch_sizes(n_images: int, batch_size: int) -> list[int]:
    """Give the number of images in each batch of an epoch.

    A last batch of a single image joins the batch before it, because a network could not normalise over it.

    Examples
    --------
    >>> batch_sizes(12, 5), batch_sizes(11, 5), batch_sizes(1, 5)
    ([5, 5, 2], [5, 6], [1])
    """
    n_whole, rest = divmod(n_images, batch_size)
    sizes = [batch_size] * n_whole
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def epochs_of(n_steps: int, n_images: int, batch_size: int) -> int:
    """Give the number of epochs that have so many steps, or a few more.

    Examples
    --------
    >>> epochs_of(10, n_images=12, batch_size=5)
    4
    """
    return -(-n_steps // len(batch_sizes(n_images, batch_size)))


class Batches(Sampler):
    """The batches of an order of images. See `batch_sizes`.

    Parameters
    ----------
    order : Sampler
    batch_size : int

    Examples
    --------
    >>> list(Batches(range(5), batch_size=2))
    [[0, 1], [2, 3, 4]]
    """

    def __init__(self, order: Sampler, batch_size: int) -> None:
        self.order = order
        self.sizes = batch_sizes(len(order), batch_size)  # type: ignore[arg-type]  # torch has no type for it

    def __iter__(self) -> Iterator[list[Any]]:
        keys = iter(self.order)
        return (list(islice(keys, size)) for size in self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


class ShuffledOrder(Sampler):
    """An order of images for every epoch, which depends only on the seed and the epoch.

    It gives the epoch and the number of each image, as `TrainingSet` takes them.

    Parameters
    ----------
    n_images : int
    seed : int

    Examples
    --------
    >>> order = ShuffledOrder(4, seed=0)
    >>> order.begin(epoch=1)
    >>> first = list(order)
    >>> order.begin(epoch=1)
    >>> list(order) == first
    True
    """

    def __init__(self, n_images: int, seed: int) -> None:
        self.n_images = n_images
        self.seed = seed

    def begin(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        numbers = np.random.default_rng([self.seed, epoch]).permutation(self.n_images)
        self.keys_ = [(epoch, n) for n in numbers.tolist()]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.keys_)

    def __len__(self) -> int:
        return self.n_images
