"""Data of training: images that are changed at random, and their order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.images.tensors import as_tensor, scaled
from skmmcrf.training.augmentation import Augmentation, build_augmentation


@dataclass(frozen=True)
class Changes:
    """Random changes of an image and its annotation, made on every access.

    Parameters
    ----------
    augmentation : {"flip", "standard", "strong"}, callable or None
        See `skmmcrf.training.augmentation.build_augmentation`.
    crop : int, tuple (int, int) or None
        Height and width of the part that is cut out afterwards, in pixels. One number stands for both. A shorter side
        of an image stays whole.
    """

    augmentation: str | Augmentation | None = None
    crop: int | Sequence[int] | None = None

    def __bool__(self) -> bool:
        return self != Changes()


class TrainingSet(Dataset):
    """Images and their annotations for training.

    Parameters
    ----------
    data : LabelledImages
    changes : Changes, optional
    """

    def __init__(self, data: LabelledImages, changes: Changes | None = None) -> None:
        changes = changes or Changes()
        self.data = data
        self.augmentation = build_augmentation(changes.augmentation)
        self.crop = check_crop(changes.crop)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Annotation]:
        """Give an image (channels, H, W) and its annotation.

        Raises
        ------
        ValueError
            If the augmentation does not give an image and a mask that belong together.
        """
        image, annotation = self.data[n]
        pixels = as_tensor(image)
        if self.augmentation is not None:
            pixels, annotation = _changed(pixels, annotation, self.augmentation)
        if self.crop is not None:
            pixels, annotation = _cropped(pixels, annotation, self.crop)
        return pixels, annotation


def _changed(image: torch.Tensor, annotation: Annotation, change: Augmentation) -> tuple[torch.Tensor, Annotation]:
    mask = torch.from_numpy(annotation.mask)
    changed = change(tv_tensors.Image(scaled(image)), tv_tensors.Mask(mask))
    if not (isinstance(changed, (tuple, list)) and len(changed) == 2):
        raise ValueError(f"augmentation: it must give an image and a mask, not {type(changed).__name__}")
    if not all(isinstance(part, torch.Tensor) for part in changed):
        kinds = ", ".join(type(part).__name__ for part in changed)
        raise ValueError(f"augmentation: it must give two tensors, not {kinds}")
    new_image, new_mask = (part.as_subclass(torch.Tensor).contiguous() for part in changed)
    fits = new_image.ndim == 3 and new_image.shape == (len(image), *new_mask.shape) and new_image.numel()
    if not (fits and new_image.is_floating_point()):
        raise ValueError(
            f"augmentation: it turned an image {tuple(image.shape)} and a mask {tuple(mask.shape)} into an image "
            f"{tuple(new_image.shape)} of {new_image.dtype} and a mask {tuple(new_mask.shape)}, which do not fit"
        )
    labels = new_mask.numpy()
    if not np.isin(labels, (0, 1, UNLABELLED)).all():
        found = np.unique(labels)[:5]
        raise ValueError(f"augmentation: a mask must hold 0, 1 and {UNLABELLED} only, got {found}")
    return new_image, Annotation(labels == 1, labels != UNLABELLED).weighted(annotation.weight, annotation.class_weight)


def _cropped(image: torch.Tensor, annotation: Annotation, crop: Sequence[int]) -> tuple[torch.Tensor, Annotation]:
    part = []
    for size, wanted in zip(image.shape[1:], crop):
        begin = int(torch.randint(max(size - wanted, 0) + 1, ()))
        part.append(slice(begin, begin + wanted))
    truth, labelled = (values[tuple(part)] for values in (annotation.truth, annotation.labelled))
    cropped = Annotation(truth, labelled).weighted(annotation.weight, annotation.class_weight)
    return image[:, part[0], part[1]].contiguous(), cropped


def check_crop(crop: Any) -> tuple[int, int] | None:
    """Give the height and width that a `crop` means, or None.

    Raises
    ------
    ValueError
        If it is not None and not one or two positive integers.

    Examples
    --------
    >>> check_crop(256)
    (256, 256)
    """
    if crop is None:
        return None
    sizes: list[Any] = [crop, crop] if isinstance(crop, Integral) else list(crop)
    if crop is True or len(sizes) != 2 or not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
        raise ValueError(f"crop must be a positive integer, or two for height and width, got {crop!r}")
    return int(sizes[0]), int(sizes[1])


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

    def __iter__(self) -> Iterator[list[int]]:
        numbers = iter(self.order)
        return (list(islice(numbers, size)) for size in self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)


class ShuffledOrder(Sampler):
    """An order of images for every epoch, which depends only on the seed and the epoch.

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
        self.order_ = np.random.default_rng([self.seed, epoch]).permutation(self.n_images).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.order_)

    def __len__(self) -> int:
        return self.n_images
