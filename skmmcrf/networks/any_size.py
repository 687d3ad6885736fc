"""Running a network on images of any, also unequal, size."""

import os
from collections import defaultdict
from collections.abc import Sequence
from numbers import Real

import torch
from torch import nn
from torch.nn import functional as F

# a file from a stranger must not ask for any memory
_LARGEST = 16


def keep_prepared_layers() -> None:
    """Let processors keep the layers that oneDNN prepares for each size of images, before a network is first run.

    It keeps 1024 of them and prepares others anew each time. With the 91 sizes of 150 photographs that took a third
    of the time of training. Keeping those of 400 sizes took 160 MB.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")


def check_scales(scale: float | Sequence[float], name: str) -> list[float]:
    """Give the factors by which images are resized, as a list of at least one.

    Raises
    ------
    ValueError
        If a factor is not a positive number up to 16, or there is none.

    Examples
    --------
    >>> check_scales(0.5, "scale"), check_scales((1, 1.5), "scale")
    ([0.5], [1.0, 1.5])
    """
    factors = list(scale) if isinstance(scale, Sequence) else [scale]
    if not factors or not all(isinstance(factor, Real) and 0 < factor <= _LARGEST for factor in factors):
        raise ValueError(
            f"{name} must be a positive number, or several in a sequence, got {scale!r}; the largest is {_LARGEST}"
        )
    return [float(factor) for factor in factors]


class AnySize(nn.Module):
    """Give a network's log-odds for lists of images whose sizes may differ.

    Images of one size go through the network together. They are padded, by repeating their border, to multiples of the
    network's attribute ``size_divisor`` (1 if it has none), and its output is cropped back. So no image's result
    depends on the images beside it, unless the network normalises over the batch.

    Parameters
    ----------
    network : torch.nn.Module
        Takes (n, channels, H, W) and gives log-odds (n, 1, H, W) or (n, H, W).
    freeze_batch_norm : bool, default=False
        Whether batch-norm layers keep their statistics while training.
    average_mirrored : bool, default=False
        Whether log-odds are the mean of those of the image and of its mirror image, except while training.
    scale : float or sequence of float, default=1.0
        Factor by which images are resized for the network, bilinearly and without aliasing; its log-odds are resized
        back. Of several, log-odds are the mean of those at each, except while training, when they are at the first.

    Examples
    --------
    >>> import torch
    >>> from skmmcrf.networks import UNet
    >>> [m.shape for m in AnySize(UNet(1))([torch.zeros(1, 5, 9), torch.zeros(1, 33, 1)])]
    [torch.Size([5, 9]), torch.Size([33, 1])]
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        freeze_batch_norm: bool = False,
        average_mirrored: bool = False,
        scale: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
        self.scales = check_scales(scale, "scale")
        keep_prepared_layers()
        self.network = network
        self.freeze_batch_norm = freeze_batch_norm
        self.average_mirrored = average_mirrored

    def train(self, mode: bool = True) -> "AnySize":
        """Switch between training and evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Compute the log-odds (H, W) of each image (channels, H, W).

        Raises
        ------
        ValueError
            If an image has another shape, or the network does not give one map of the size of its input.
        """
        of_size = defaultdict(list)
        for n, image in enumerate(images):
            if image.ndim != 3:
                raise ValueError(f"images[{n}] must be of shape (channels, H, W), got {tuple(image.shape)}")
            of_size[image.shape].append(n)
        log_odds: dict[int, torch.Tensor] = {}
        for group in of_size.values():
            stacked = torch.stack([images[n] for n in group])
            log_odds.update(zip(group, self._equal_sizes(stacked)))
        return [log_odds[n] for n in range(len(images))]

    def _equal_sizes(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self._resized(images, self.scales[0])
        seen = [self._resized(images, scale) for scale in self.scales]
        if self.average_mirrored:
            seen += [self._resized(images.flip(-1), scale).flip(-1) for scale in self.scales]
        return torch.stack(seen).mean(dim=0)

    def _resized(self, images: torch.Tensor, scale: float) -> torch.Tensor:
        if scale == 1:
            return self._padded(images)
        size = [max(1, round(scale * length)) for length in images.shape[2:]]
        resized = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        return F.interpolate(self._padded(resized)[:, None], size=images.shape[2:], mode="bilinear")[:, 0]

    def _padded(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        divisor = getattr(self.network, "size_divisor", 1)
        if not isinstance(divisor, int) or divisor < 1:
            raise ValueError(f"network: its size_divisor must be a positive integer, got {divisor!r}")
        down, right = -height % divisor, -width % divisor
        top, left = down // 2, right // 2
        padded = F.pad(images, (left, right - left, top, down - top), mode="replicate")
        log_odds = self.network(padded)
        if not isinstance(log_odds, torch.Tensor) or not log_odds.is_floating_point():
            kind = log_odds.dtype if isinstance(log_odds, torch.Tensor) else type(log_odds).__name__
            raise ValueError(f"network: it must give log-odds, a tensor of float, not {kind}")
        n, size = len(padded), padded.shape[2:]
        if log_odds.shape not in ((n, 1, *size), (n, *size)):
            raise ValueError(
                f"network: it must give one log-odds map of its input's size, (n, 1, H, W); for images of shape "
                f"{tuple(padded.shape)} it gave {tuple(log_odds.shape)}"
            )
        return log_odds.view(n, *size)[:, top : top + height, left : left + width]
