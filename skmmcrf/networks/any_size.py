"""Running a network on images of any size, also of different sizes."""

import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import count
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from skmmcrf._shown import shown
from skmmcrf.networks.padded import PaddedBatch, WithoutPadding

# a file from a stranger must not ask for any memory or time
_LARGEST, _MOST = 16, 16
_ON_MULTIPLES = ". If it needs sizes that are multiples of a number, set its attribute size_divisor to that number"


def keep_prepared_layers() -> None:
    """Let processors keep the layers that oneDNN prepares for each size of images, before a network is first run.

    By default it keeps 1024 of them and prepares all others anew each time. The layers of 400 sizes take 160 MB.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")


def check_scales(scale: float | Sequence[float], name: str) -> list[float]:
    """Give the factors by which images are resized, as a list of at least one.

    Raises
    ------
    ValueError
        If a factor is not a positive number up to 16. If the sequence is empty, or has more than 16 factors.

    Examples
    --------
    >>> check_scales(0.5, "scale"), check_scales((1, 1.5), "scale")
    ([0.5], [1.0, 1.5])
    """
    factors = list(scale) if isinstance(scale, Sequence) else [scale]
    are_numbers = all(isinstance(factor, Real) and not isinstance(factor, bool) for factor in factors)
    are_scales = are_numbers and all(0 < factor <= _LARGEST for factor in factors)
    if not (are_scales and 1 <= len(factors) <= _MOST):
        raise ValueError(
            f"{name} must be a positive number up to {_LARGEST}, or a sequence of 1 to {_MOST} such numbers, got "
            f"{shown(scale)}"
        )
    return [float(factor) for factor in factors]


def divisor_of(network: nn.Module) -> int:
    """Give the `size_divisor` of a network or a part of it. Heights and widths must be multiples of it.

    Raises
    ------
    ValueError
        If it is not a positive integer.

    Examples
    --------
    >>> divisor_of(nn.Sequential(nn.Identity()))
    1
    """
    divisor: Any = next((part.size_divisor for part in network.modules() if hasattr(part, "size_divisor")), 1)
    if not isinstance(divisor, int) or divisor < 1:
        raise ValueError(f"network: its size_divisor must be a positive integer, got {shown(divisor)}")
    return divisor


def stacks_of(images: Sequence[torch.Tensor]) -> list[tuple[list[int], torch.Tensor]]:
    """Stack images of one size and dtype, and give each stack with the numbers of its images.

    Examples
    --------
    >>> [(numbers, tuple(stack.shape)) for numbers, stack in stacks_of([torch.ones(2), torch.ones(3), torch.ones(2)])]
    [([0, 2], (2, 2)), ([1], (1, 3))]
    """
    kinds = [(image.shape, image.dtype) for image in images]
    return [(numbers, torch.stack([images[n] for n in numbers])) for numbers in _numbers_of_each(kinds)]


def share_a_batch(sizes: Sequence[Sequence[int]]) -> bool:
    """Tell whether images of some heights and widths, padded to one size, have at most four times as many pixels.

    Examples
    --------
    >>> share_a_batch([(8, 10), (10, 8)]), share_a_batch([(8, 8), (8, 8), (8, 8), (8, 8), (80, 80)])
    (True, False)
    """
    height, width = (max(lengths) for lengths in zip(*sizes))
    return height * width * len(sizes) <= 4 * sum(h * w for h, w in sizes)


class AnySize(nn.Module):
    """Give a network's log-odds, or scores of several classes, for lists of images whose sizes may differ.

    Images are padded to multiples of ``size_divisor`` by repeating their border. Those that are then of one size go
    through the network together, in its dtype. The output is cropped back. ``size_divisor`` is an attribute of the
    network or of the first module in it that has one. It is 1 if none has. An image's result does not depend on the
    other images, unless the network normalises over the batch.

    Batch-norm layers keep the statistics of an earlier training while training. Only layers with the statistics of a
    new layer learn theirs. Images of all sizes then go through the network together. See `of_stacks`.

    Parameters
    ----------
    network : torch.nn.Module
        It takes (n, channels, H, W) and gives log-odds (n, 1, H, W) or (n, H, W), or scores (n, n_maps, H, W).
    n_maps : int, default=1
        1 for log-odds of two labels, K for scores of K labels, whose softmax gives the probabilities. Maps of scores
        are of shape (K, H, W) where those of log-odds are (H, W).
    freeze_batch_norm : bool, default=False
        Whether all batch-norm layers keep their statistics while training.
    average_mirrored : bool, default=False
        Whether log-odds are averaged over the image and its mirror image, except while training.
    scale : float or sequence of float, default=1.0
        Factor by which images are resized for the network, bilinearly and without aliasing. The log-odds are resized
        back. With several factors, log-odds are averaged over them. While training, only the first is used.
    amp : bool, default=False
        Whether the network computes in bfloat16 where that is safe (automatic mixed precision). Parameters stay as they
        are.

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
        n_maps: int = 1,
        freeze_batch_norm: bool = False,
        average_mirrored: bool = False,
        scale: float | Sequence[float] = 1.0,
        amp: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"network must be a torch.nn.Module, got {type(network).__name__}")
        self.scales = check_scales(scale, "scale")
        keep_prepared_layers()
        self.network = network
        self.n_maps = n_maps
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._held_norms = [norm for norm in norms if freeze_batch_norm or _is_pretrained(norm)]
        self.average_mirrored = average_mirrored
        self.amp = amp

    def train(self, mode: bool = True) -> "AnySize":
        """Switch between training and evaluation mode."""
        super().train(mode)
        for norm in self._held_norms:
            norm.eval()
        return self

    @property
    def learns_statistics(self) -> bool:
        """Whether batch-norm layers take statistics of the batch, in the present mode, and learn them for later."""
        norms = (module for module in self.modules() if isinstance(module, _BatchNorm))
        return any(norm.training and norm.track_running_stats for norm in norms)

    def forward(self, images: Sequence[torch.Tensor], names: Sequence[str] | None = None) -> list[torch.Tensor]:
        """Compute the log-odds (H, W), or scores (K, H, W), float32, of each image (channels, H, W).

        Parameters
        ----------
        images : sequence of Tensor
        names : sequence of str, optional
            Names of the images in error messages, beside their shape.

        Raises
        ------
        ValueError
            If an image has another shape. If the network fails on it, or does not give as many maps as are wanted, of
            the size of its input.
        """
        for n, image in enumerate(images):
            if image.ndim != 3:
                raise ValueError(f"images[{n}] must be of shape (channels, H, W), got {tuple(image.shape)}")
        numbers, stacks = zip(*stacks_of(images)) if len(images) else ((), ())
        maps = self.of_stacks(stacks, [names[of_stack[0]] for of_stack in numbers] if names else None)
        log_odds = {n: of_one for of_stack, of_all in zip(numbers, maps) for n, of_one in zip(of_stack, of_all)}
        return [log_odds[n] for n in range(len(images))]

    def of_one_size(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds (n, H, W), or scores (n, K, H, W), float32, of images (n, channels, H, W).

        Raises
        ------
        ValueError
            As in `forward`.
        """
        (log_odds,) = self.of_stacks([images])
        return log_odds

    def of_stacks(self, stacks: Sequence[torch.Tensor], names: Sequence[str] | None = None) -> list[torch.Tensor]:
        """Compute the log-odds (n, H, W), or scores (n, K, H, W), float32, of stacks of images (n, channels, H, W).

        If batch-norm layers learn statistics, images of all sizes go through the network together, because statistics
        of single images are poor. Smaller images are padded, and this padding has no part in the statistics. Images
        whose sizes differ too much for that go apart. See `share_a_batch`.

        Raises
        ------
        ValueError
            As in `forward`. The names are those of the first images of the stacks.
        """
        sizes = [images.shape[2:] for images in stacks for _ in images]
        if len(stacks) < 2 or not self.learns_statistics or not share_a_batch(sizes):
            return self._of_stacks(stacks, names)
        height, width = (self._fitting(max(lengths)) for lengths in zip(*sizes))
        batch = PaddedBatch(stacks, (height, width))
        with WithoutPadding(batch):
            (log_odds,) = self._of_stacks([batch.images], names)
        return batch.stacks_of(log_odds)

    def _of_stacks(self, stacks: Sequence[torch.Tensor], names: Sequence[str] | None) -> list[torch.Tensor]:
        try:
            maps = self._of_all_scales(stacks)
        except _Failed as failed:
            name = f" ({names[failed.stack]})" if names else ""
            if isinstance(failed, _NetworkFailed):
                channels, height, width = stacks[failed.stack].shape[1:]
                what = f"an image of shape {(height, width, channels)}{name}"
                raise ValueError(_explained(failed.error, what)) from failed.error
            raise ValueError(f"{failed}{name}") from None
        return [of_stack[:, 0] for of_stack in maps] if self.n_maps == 1 else maps

    def _fitting(self, length: int) -> int:
        """The least height or width from this on that the network takes without another padding."""
        divisor = divisor_of(self.network)
        return next(n for n in count(length) if _scaled_size([n], self.scales[0])[0] % divisor == 0)

    def padded_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Give the sizes in which the network sees an image, one a scale.

        Examples
        --------
        >>> from skmmcrf.networks import UNet
        >>> AnySize(UNet(1), scale=(1.0, 0.5)).padded_sizes(30, 40)
        ((32, 40), (16, 24))
        """
        divisor = divisor_of(self.network)
        sizes = [_scaled_size((height, width), scale) for scale in self.scales]
        return tuple((h + -h % divisor, w + -w % divisor) for h, w in sizes)

    def _of_all_scales(self, stacks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self.training:
            return self._resized(stacks, self.scales[0])
        seen = [self._resized(stacks, scale) for scale in self.scales]
        if self.average_mirrored:
            mirrored = [images.flip(-1) for images in stacks]
            seen += [[maps.flip(-1) for maps in self._resized(mirrored, scale)] for scale in self.scales]
        return [torch.stack(maps).mean(dim=0) for maps in zip(*seen)]

    def _resized(self, stacks: Sequence[torch.Tensor], scale: float) -> list[torch.Tensor]:
        if scale == 1:
            return self._padded(stacks)
        sizes = [images.shape[2:] for images in stacks]
        resized = [
            F.interpolate(images, size=_scaled_size(size, scale), mode="bilinear", antialias=True)
            for images, size in zip(stacks, sizes)
        ]
        return [F.interpolate(maps, size=size, mode="bilinear") for maps, size in zip(self._padded(resized), sizes)]

    def _padded(self, stacks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of stacks of any size. Those that are padded to one size go through the network together."""
        divisor = divisor_of(self.network)
        padded, inner = [], []
        for images in stacks:
            height, width = images.shape[2:]
            down, right = -height % divisor, -width % divisor
            top, left = down // 2, right // 2
            padded.append(F.pad(images, (left, right - left, top, down - top), mode="replicate"))
            inner.append((..., slice(top, top + height), slice(left, left + width)))
        maps: dict[int, torch.Tensor] = {}
        for numbers in _numbers_of_each([(images.shape[1:], images.dtype) for images in padded]):
            try:
                given = self._run_together([padded[n] for n in numbers])
            except _Failed as failed:
                failed.stack = numbers[0]
                raise
            maps.update((n, of_stack[inner[n]]) for n, of_stack in zip(numbers, given))
        return [maps[n] for n in range(len(stacks))]

    def _run_together(self, stacks: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Maps of stacks of one size, which fits the network."""
        if len(stacks) == 1:  # which need not be copied
            return [self._run(stacks[0])]
        return self._run(torch.cat(list(stacks))).split([len(images) for images in stacks])

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (n, n_maps, H, W) of images whose size fits the network."""
        dtypes = (parameter.dtype for parameter in self.network.parameters() if parameter.is_floating_point())
        images = images.to(next(dtypes, images.dtype))
        if self.amp and images.device.type in ("cpu", "cuda"):  # whose matrix units take this layout
            images = images.contiguous(memory_format=torch.channels_last)
        try:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
                log_odds = self.network(images)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise _NetworkFailed(error) from error
        if not isinstance(log_odds, torch.Tensor):
            raise _WrongOutput(
                f"network: it must give log-odds, a tensor of float, not {type(log_odds).__name__}: wrap it in a "
                "module that returns the log-odds only"
            )
        if not log_odds.is_floating_point():
            raise _WrongOutput(f"network: it must give log-odds, a tensor of float, not {log_odds.dtype}")
        n, size = len(images), images.shape[2:]
        wanted = (n, self.n_maps, *size)
        if log_odds.shape != wanted and not (self.n_maps == 1 and log_odds.shape == (n, *size)):
            what = "one log-odds map of its input's size, (n, 1, H, W)"
            if self.n_maps > 1:
                what = (
                    f"a map of scores of its input's size for each of {self.n_maps} classes, (n, {self.n_maps}, H, W)"
                )
            raise _WrongOutput(
                f"network: it must give {what}, but for images of shape {tuple(images.shape)} it gave "
                f"{tuple(log_odds.shape)}{_way_to_maps(log_odds.shape, wanted)}"
            )
        return log_odds.float().view(wanted)


class _Failed(Exception):
    """A network can't be run on stacks of images. `stack` is the number of the first of them."""

    stack = 0


class _WrongOutput(_Failed):
    """It gave something else than the maps that are wanted."""


class _NetworkFailed(_Failed):
    """It raised an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _numbers_of_each(kinds: Sequence[Hashable]) -> list[list[int]]:
    """The numbers of things of each kind."""
    numbers = defaultdict(list)
    for n, kind in enumerate(kinds):
        numbers[kind].append(n)
    return list(numbers.values())


def _is_pretrained(norm: _BatchNorm) -> bool:
    """Whether the statistics are those of an earlier training, by at least half."""
    if norm.running_mean is None or norm.running_var is None or is_lazy(norm.running_mean):
        return False
    if not (norm.running_mean.any() or (norm.running_var != 1).any()):
        return False
    # a few batches may have been run to try the network; files of early versions of torch have no count
    n_batches = int(norm.num_batches_tracked or 0)
    return n_batches == 0 or norm.momentum is None or (1 - norm.momentum) ** n_batches < 0.5


def _scaled_size(size: Sequence[int], scale: float) -> list[int]:
    return list(size) if scale == 1 else [max(1, round(scale * length)) for length in size]


def _explained(error: Exception, what: str) -> str:
    """What a network's error means for the image that it raised it for."""
    text = str(error).rstrip(".") or type(error).__name__
    if "more than 1 value per channel" in text:
        return (
            f"network: its batch normalisation can't train on {what} alone, because only one pixel of it is left where "
            "the network normalises. Give images of one size, or of sizes that differ little, or a crop, and a "
            "batch_size of at least 2. Or give larger images, a network with another normalisation, such as GroupNorm, "
            "or a backbone's weights, whose statistics are kept"
        )
    is_about_size = not any(word in text for word in ("argument", "channels", "device", "type", "memory"))
    return f"network: it can't take {what}: {text}{_ON_MULTIPLES if is_about_size else ''}"


def _way_to_maps(given: Sequence[int], wanted: tuple[int, ...]) -> str:
    """How to come to the output that is wanted, (n, n_maps, H, W)."""
    n, n_maps, *size = wanted
    if n_maps == 1 and tuple(given) == (n, 2, *size):
        return ". If these are scores z of background and foreground, return z[:, 1:] - z[:, :1], without softmax"
    if n_maps > 1 and tuple(given[2:]) == tuple(size):
        return f". Its last layer must have {n_maps} channels"
    if tuple(given[:-2]) in ((n,), (n, n_maps)):
        return _ON_MULTIPLES
    return ""
