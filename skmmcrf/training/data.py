"""Data of training: images that are changed at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors

from skmmcrf._shown import shown
from skmmcrf.field.labels import UNLABELLED
from skmmcrf.images.checking import LabelledImages
from skmmcrf.images.tensors import as_tensor, scaled
from skmmcrf.training.augmentation import Augmentation, RandomChanges, build_augmentation, changed_by
from skmmcrf.training.batches import Sample
from skmmcrf.training.random_states import OwnGenerator, seed_all


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
    """Images and their labels for training. An entry is named by the epoch and the number of the image.

    The same entry is always changed in the same way, whoever asks for it and in which order.

    Parameters
    ----------
    data : LabelledImages
    changes : Changes, optional
    seed : int, default=0

    Attributes
    ----------
    of_stacks : RandomChanges or None
        Changes that are left to the one who asks, because they are faster for many images at once.
    """

    def __init__(self, data: LabelledImages, changes: Changes | None = None, seed: int = 0) -> None:
        changes = changes or Changes()
        self.data = data
        self.seed = seed
        self.augmentation = build_augmentation(changes.augmentation)
        self.crop = check_crop(changes.crop)
        # a crop comes after the changes, and what it leaves out needs not be moved to another device
        is_left = isinstance(self.augmentation, RandomChanges) and self.crop is None
        self.of_stacks: RandomChanges | None = self.augmentation if is_left else None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Give an image, changed at random if the changes are not `of_stacks`.

        Raises
        ------
        ValueError
            If the augmentation raises an error, or does not give an image and a mask that belong together.
        """
        epoch, n = key
        image, annotation = self.data[n]
        pixels, mask = as_tensor(image), torch.from_numpy(annotation.mask)
        weights = torch.tensor([annotation.weight, *annotation.class_weight])
        draws = torch.empty(0)
        if self.augmentation is not None or self.crop is not None:
            with OwnGenerator(seed_all(self.seed, epoch, n)):
                if self.of_stacks is not None:
                    draws = self.of_stacks.draw(1, len(pixels))[0]
                elif self.augmentation is not None:
                    try:
                        pixels, mask = _changed(pixels, mask, self.augmentation, annotation.n_labels)
                    except ValueError as error:
                        raise ValueError(
                            f"augmentation: {error} (number {n} of the images to train on)"
                        ) from error.__cause__
                if self.crop is not None:
                    pixels, mask = _cropped(pixels, mask, self.crop)
        return Sample(n, pixels, mask, weights, draws)


def _changed(
    image: torch.Tensor, mask: torch.Tensor, change: Augmentation, n_labels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    changed = changed_by(change, tv_tensors.Image(scaled(image)), tv_tensors.Mask(mask))
    if not (isinstance(changed, (tuple, list)) and len(changed) == 2):
        raise ValueError(f"it must give an image and a mask, not {type(changed).__name__}")
    if not all(isinstance(part, torch.Tensor) for part in changed):
        kinds = ", ".join(type(part).__name__ for part in changed)
        raise ValueError(f"it must give two tensors, not {kinds}")
    new_image, new_mask = (part.as_subclass(torch.Tensor).contiguous() for part in changed)
    fits = new_image.ndim == 3 and new_image.shape == (len(image), *new_mask.shape) and new_image.numel()
    if not (fits and new_image.is_floating_point()):
        raise ValueError(
            f"it turned an image {tuple(image.shape)} and a mask {tuple(mask.shape)} into an image "
            f"{tuple(new_image.shape)} of {new_image.dtype} and a mask {tuple(new_mask.shape)}, which do not fit"
        )
    unknown = ~np.isin(new_mask.numpy(), (*range(n_labels), UNLABELLED))
    if unknown.any():
        found = np.unique(new_mask.numpy() if n_labels == 2 else new_mask.numpy()[unknown])[:5]
        numbers = "0, 1" if n_labels == 2 else f"the numbers of classes, 0 to {n_labels - 1},"
        raise ValueError(f"a mask must hold {numbers} and {UNLABELLED} only, got {found}")
    return new_image.float(), new_mask.to(torch.uint8)


def _cropped(image: torch.Tensor, mask: torch.Tensor, crop: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    part = []
    for size, wanted in zip(mask.shape, crop):
        begin = int(torch.randint(max(size - wanted, 0) + 1, ()))
        part.append(slice(begin, begin + wanted))
    return image[:, part[0], part[1]].contiguous(), mask[part[0], part[1]].contiguous()


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
        raise ValueError(f"crop must be a positive integer, or two for height and width, got {shown(crop)}")
    return int(sizes[0]), int(sizes[1])
