"""Images of several sizes as one batch, padded to one size."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_SEE_WHOLE_IMAGES = (F.group_norm, F.instance_norm, F.adaptive_avg_pool2d)


class PaddedBatch:
    """Images padded at the bottom and at the right by repeating their border.

    Parameters
    ----------
    stacks : sequence of Tensor of shape (n, channels, H, W)
        Each of images of one size.
    size : tuple (int, int)
        Height and width to pad to.

    Attributes
    ----------
    images : Tensor of shape (n, channels, H, W)
        All of them.

    Examples
    --------
    >>> batch = PaddedBatch([torch.ones(2, 1, 3, 4), torch.ones(1, 1, 5, 2)], (5, 4))
    >>> batch.images.shape, [part.shape for part in batch.stacks_of(batch.images[:, 0])]
    (torch.Size([3, 1, 5, 4]), [torch.Size([2, 3, 4]), torch.Size([1, 5, 2])])
    """

    def __init__(self, stacks: Sequence[torch.Tensor], size: tuple[int, int]) -> None:
        self._counts = [len(stack) for stack in stacks]
        self._sizes = [(stack.shape[2], stack.shape[3]) for stack in stacks]
        self._size = size
        self.images = torch.cat([_padded(stack, size) for stack in stacks])

    def stacks_of(self, maps: torch.Tensor) -> list[torch.Tensor]:
        """Give the maps (n, ..., h, w) of each stack, of any resolution, without what belongs to the padding."""
        resolution = maps.shape[-2:]
        parts = maps.split(self._counts)
        lengths = [[-(-n * m // whole) for n, m, whole in zip(size, resolution, self._size)] for size in self._sizes]
        return [part[..., :height, :width] for part, (height, width) in zip(parts, lengths)]


class WithoutPadding(TorchFunctionMode):
    """While this is entered, layers that normalise or pool see nothing of the padding of a batch.

    Normalised maps are zero there, as what convolutions see beyond the border of an image.

    Parameters
    ----------
    batch : PaddedBatch
    """

    def __init__(self, batch: PaddedBatch) -> None:
        self._batch = batch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm and args[0].ndim == 4:
            return self._at_once(args[0], lambda values: function(values, *args[1:], **kwargs))
        if function in _SEE_WHOLE_IMAGES and args[0].ndim == 4:
            given = [function(part, *args[1:], **kwargs) for part in self._batch.stacks_of(args[0])]
            is_pooled = function is F.adaptive_avg_pool2d
            return torch.cat(given if is_pooled else [_with_zeros(part, args[0].shape[2:]) for part in given])
        return function(*args, **kwargs)

    def _at_once(self, maps: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """A function of the values (n_values, channels) of all images."""
        parts = [part.movedim(1, -1) for part in self._batch.stacks_of(maps)]
        values = function(torch.cat([part.flatten(0, -2) for part in parts]))
        split = values.split([part[..., 0].numel() for part in parts])
        changed = [value.view(part.shape).movedim(-1, 1) for value, part in zip(split, parts)]
        return torch.cat([_with_zeros(part, maps.shape[2:]) for part in changed])


def _padded(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.pad(images, (0, size[1] - images.shape[3], 0, size[0] - images.shape[2]), mode="replicate")


def _with_zeros(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.pad(maps, (0, size[1] - maps.shape[3], 0, size[0] - maps.shape[2]))
