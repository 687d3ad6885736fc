"""Images as tensors: a dataset of torch, its batches, and scaling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class ImageDataset(Dataset):
    """Images, turned into tensors one at a time, with their targets.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    targets : sequence, optional
        One an image, handed on as they are.
    """

    def __init__(self, images: Sequence[np.ndarray], targets: Sequence[Any] | None = None) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[torch.Tensor, Any]:
        return as_tensor(self.images[n]), None if self.targets is None else self.targets[n]


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """Turn an image (H, W, channels) into a tensor (channels, H, W) of its own memory. Floats become float32."""
    channels = np.moveaxis(image, -1, 0)
    # torch can't take every layout, order of bytes and float
    dtype = np.float32 if channels.dtype.kind == "f" else channels.dtype.newbyteorder("=")
    return torch.from_numpy(channels.astype(dtype, order="C"))


def scaled(image: torch.Tensor) -> torch.Tensor:
    """Scale an image to [0, 1] by its dtype, as `skmmcrf.field.terms.scale_image` does.

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
