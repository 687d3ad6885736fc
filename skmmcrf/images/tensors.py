"""Images as tensors, and their scaling."""

import numpy as np
import torch


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
