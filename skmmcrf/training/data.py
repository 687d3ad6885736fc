"""What is trained on: images that are changed at random, and the order in which they are visited."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler
from torchvision import tv_tensors

from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.images.tensors import ImageDataset, scaled
from skmmcrf.training.augmentation import Augmentation, build_augmentation


class AugmentedDataset(ImageDataset):
    """Images that are changed at random, with their annotation, each time that they are asked for.

    Parameters
    ----------
    data : LabelledImages
    augmentation : callable
        Takes and gives a `torchvision.tv_tensors.Image` (channels, H, W) and a `torchvision.tv_tensors.Mask` (H, W) of
        0, 1 and 255, where 255 is unlabelled.
    """

    def __init__(self, data: LabelledImages, augmentation: Augmentation) -> None:
        super().__init__(data.images, data.annotations)
        self.augmentation = augmentation

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Annotation]:
        """Give an image and its annotation.

        Raises
        ------
        ValueError
            If the augmentation does not give an image and a mask that belong together.
        """
        image, annotation = super().__getitem__(n)
        mask = torch.from_numpy(annotation.mask)
        changed = self.augmentation(tv_tensors.Image(scaled(image)), tv_tensors.Mask(mask))
        if not (isinstance(changed, (tuple, list)) and len(changed) == 2):
            raise ValueError(f"augmentation: it must give an image and a mask, not {type(changed).__name__}")
        if not all(isinstance(part, torch.Tensor) for part in changed):
            kinds = ", ".join(type(part).__name__ for part in changed)
            raise ValueError(f"augmentation: it must give two tensors, not {kinds}")
        new_image, new_mask = (part.as_subclass(torch.Tensor).contiguous() for part in changed)
        fits = new_image.ndim == 3 and new_image.shape == (len(image), *new_mask.shape) and new_image.numel()
        if not (fits and new_image.is_floating_point()):
            raise ValueError(
                f"augmentation: of an image {tuple(image.shape)} and a mask {tuple(mask.shape)} it gave "
                f"{tuple(new_image.shape)} of {new_image.dtype} and {tuple(new_mask.shape)}, which do not fit"
            )
        labels = new_mask.numpy()
        if not np.isin(labels, (0, 1, UNLABELLED)).all():
            found = np.unique(labels)[:5]
            raise ValueError(f"augmentation: a mask must hold 0, 1 and {UNLABELLED} only, got {found}")
        weights = {"weight": annotation.weight, "class_weight": annotation.class_weight}
        return new_image, Annotation(labels == 1, labels != UNLABELLED, **weights)


def training_set(data: LabelledImages, augmentation: str | Augmentation | None) -> ImageDataset:
    """Make the dataset of images and their annotations, changed by what an estimator's `augmentation` names."""
    change = build_augmentation(augmentation)
    return ImageDataset(data.images, data.annotations) if change is None else AugmentedDataset(data, change)


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
