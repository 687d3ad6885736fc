"""Images and what is known of them as torch's loaders take them: datasets, their batches and their order."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from skmmcrf.augmentation import Augmentation, build_augmentation
from skmmcrf.truth import UNLABELLED, Truth


class ImageDataset(Dataset):
    """Images, turned into tensors one at a time, with what is known of each.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence, optional
        Handed on as they are: `Truth`, or `Labelings` with a truth.
    """

    def __init__(self, images: Sequence[np.ndarray], targets: Sequence[Any] | None = None) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Any]:
        channels = np.moveaxis(self.images[n], -1, 0)
        # torch can't take every layout, order of bytes and float
        dtype = np.float32 if channels.dtype.kind == "f" else channels.dtype.newbyteorder("=")
        image = torch.from_numpy(channels.astype(dtype, order="C"))
        return image, None if self.targets is None else self.targets[n]


class AugmentedDataset(ImageDataset):
    """Images that are changed at random, with their truth, each time that they are asked for.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence of Truth
    augmentation : callable
        Takes and gives a `torchvision.tv_tensors.Image` (channels, H, W) and a `torchvision.tv_tensors.Mask` (H, W) of
        0, 1 and 255, where 255 is unlabelled.
    name : str, default="augmentation"
        What errors call it.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[Truth],
        augmentation: Augmentation,
        name: str = "augmentation",
    ) -> None:
        super().__init__(images, targets)
        self.augmentation = augmentation
        self.name = name

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Truth]:
        """Give an image and its truth.

        Raises
        ------
        ValueError
            If the augmentation does not give an image and a mask that belong together.
        """
        image, truth = super().__getitem__(n)
        mask = torch.from_numpy(truth.labels)
        changed = self.augmentation(tv_tensors.Image(scaled(image)), tv_tensors.Mask(mask))
        if not (isinstance(changed, (tuple, list)) and len(changed) == 2):
            raise ValueError(f"{self.name}: it must give an image and a mask, not {type(changed).__name__}")
        if not all(isinstance(part, torch.Tensor) for part in changed):
            raise ValueError(
                f"{self.name}: it must give two tensors, not {', '.join(type(p).__name__ for p in changed)}"
            )
        new_image, new_mask = (part.as_subclass(torch.Tensor).contiguous() for part in changed)
        fits = new_image.ndim == 3 and new_image.shape == (len(image), *new_mask.shape) and new_image.numel()
        if not (fits and new_image.is_floating_point()):
            raise ValueError(
                f"{self.name}: of an image {tuple(image.shape)} and a mask {tuple(mask.shape)} it gave "
                f"{tuple(new_image.shape)} of {new_image.dtype} and {tuple(new_mask.shape)}, which do not fit"
            )
        labels = new_mask.numpy()
        if not np.isin(labels, (0, 1, UNLABELLED)).all():
            raise ValueError(f"{self.name}: a mask must hold 0, 1 and {UNLABELLED} only, got {np.unique(labels)[:5]}")
        return new_image, Truth(labels == 1, labels != UNLABELLED, weight=truth.weight, class_weight=truth.class_weight)


def training_set(
    images: Sequence[np.ndarray],
    targets: Sequence[Truth],
    augmentation: str | Augmentation | None,
    name: str = "augmentation",
) -> ImageDataset:
    """Make the dataset of images and their truths, changed by what an estimator's parameter names.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence of Truth
    augmentation : str, callable or None
        See `skmmcrf.augmentation.build_augmentation`.
    name : str, default="augmentation"
        What errors call it.

    Returns
    -------
    ImageDataset
    """
    changed = build_augmentation(augmentation)
    return ImageDataset(images, targets) if changed is None else AugmentedDataset(images, targets, changed, name)


def scaled(image: torch.Tensor) -> torch.Tensor:
    """Scale an image to [0, 1] by its dtype, as `skmmcrf.energy.scale_image` does.

    Parameters
    ----------
    image : Tensor of bool, uint8, uint16 or float

    Returns
    -------
    Tensor of float32
    """
    floats = image.float()
    return floats / torch.iinfo(image.dtype).max if image.dtype in (torch.uint8, torch.uint16) else floats


def as_lists(samples: Sequence[tuple[torch.Tensor, Any]]) -> tuple[list[torch.Tensor], list[Any]]:
    """Collate samples to lists, because sizes may differ."""
    images, targets = zip(*samples)
    return list(images), list(targets)


class ShuffledOrder(Sampler):
    """An order of images for every epoch, which only the seed and the epoch decide.

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
    >>> order.skip(2)
    >>> list(order) == first[2:]
    True
    """

    def __init__(self, n_images: int, seed: int) -> None:
        self.n_images = n_images
        self.seed = seed

    def begin(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.order_ = np.random.default_rng([self.seed, epoch]).permutation(self.n_images).tolist()

    def skip(self, n: int) -> None:
        """Leave the first n out, for this epoch."""
        self.order_ = self.order_[n:]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order_)

    def __len__(self) -> int:
        return self.n_images
