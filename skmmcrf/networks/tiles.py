"""Running a network on large images in tiles, with the result of the whole image."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from skmmcrf.networks.any_size import divisor_of

#: Of the largest tile, in pixels. The network "unet" takes 2.2 GB for it.
SIDE = 2048

# of the range of log-odds; a matrix product of TF32 is exact to a tenth of that
_TOLERANCE = 1e-2


class Tiled(nn.Module):
    """Give a network's log-odds of images of any size in bounded memory.

    Tiles overlap by the receptive field of the network, which is measured. Group and instance normalisation and the
    mean over the image, `torch.nn.AdaptiveAvgPool2d`, see the whole image. Their moments are collected over all tiles
    first, in one pass over the image a layer. A network that sees the whole image in another way is run on the whole
    image. The same holds for a network that depends on the position or size of its input.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode. It takes (n, channels, H, W) and gives log-odds (n, 1, H, W) or (n, H, W), or scores of
        several classes (n, K, H, W). Tiles begin at multiples of `divisor_of`.
    side : int, default=SIDE
        Images larger than a square of this side, in pixels, are cut into tiles. No tile is higher or wider than that.
    progress : bool, default=False
        Whether a bar shows the tiles.

    Attributes
    ----------
    most_pixels : int
        The largest size of an image that is not cut, side x side.

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> network, image = UNet(1, width=8, depth=1).eval(), torch.rand(1, 1, 66, 80)
    >>> with torch.inference_mode():
    ...     bool(torch.allclose(Tiled(network, side=48)(image), network(image), atol=1e-5))
    True
    """

    def __init__(self, network: nn.Module, side: int = SIDE, progress: bool = False) -> None:
        super().__init__()
        self.network = network
        self.size_divisor = divisor_of(network)
        self.side = side
        self.most_pixels = side**2
        self.progress = progress
        self._halos: dict[int, list[int]] = {}

    def forward(self, images: torch.Tensor) -> Any:
        """Compute the log-odds of images (n, channels, H, W), one image after the other where these are large."""
        size, n_channels = images.shape[2:], images.shape[1]
        if size.numel() <= self.most_pixels:
            return self.network(images)
        if n_channels not in self._halos:
            self._halos[n_channels] = _measure_halos(self.network, self.size_divisor, images, self.side)
        passes = [_Tiles(self.side, halo, self.size_divisor) for halo in self._halos[n_channels]]
        if not passes:
            return self.network(images)
        n_tiles = len(images) * sum(tiles.number(size) for tiles in passes)
        with tqdm(total=n_tiles, desc="tiles", disable=not self.progress, leave=False) as bar:
            return torch.cat([self._in_passes(image, passes, bar.update) for image in images.split(1)])

    def _in_passes(self, image: torch.Tensor, passes: Sequence["_Tiles"], report: Callable[[], Any]) -> torch.Tensor:
        known: list[_Moments] = []
        for tiles in passes[:-1]:
            known.append(_of_all(_run_in_tiles(self.network, image, tiles, known, report)[1]))
        return _run_in_tiles(self.network, image, passes[-1], known, report)[0]


class _Tiles(NamedTuple):
    """Squares that cover an image, and as many pixels around each as a halo has, together no larger than a side."""

    side: int
    halo: int
    divisor: int

    def number(self, size: Sequence[int]) -> int:
        """Of the squares."""
        return sum(1 for _ in self.of(size))

    def of(self, size: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Slices of each square, and of it with what is around it."""
        step = (self.side - 2 * self.halo) // self.divisor * self.divisor
        for begin in product(*(range(0, n, step) for n in size)):
            inner = tuple(slice(b, min(b + step, n)) for b, n in zip(begin, size))
            outer = tuple(slice(max(0, i.start - self.halo), min(i.stop + self.halo, n)) for i, n in zip(inner, size))
            yield inner, outer


class _Moments(NamedTuple):
    """How many values each channel has, their means and variances (channels,)."""

    n_values: int
    mean: torch.Tensor
    variance: torch.Tensor


_Measure: TypeAlias = Callable[[torch.Tensor], _Moments]


class _Measured(Exception):
    """The moments of a layer's input in a tile, where those of the whole image are not known."""

    def __init__(self, moments: _Moments) -> None:
        self.moments = moments


class _WholeImageLayers(TorchFunctionMode):
    """While this is entered, layers that see the whole image take the moments of their input from here.

    Parameters
    ----------
    known : list of _Moments
        Those of the first such layers, in the order of their calls.
    measure : callable
        Gives those of a further layer by its input (1, channels, H, W).
    """

    def __init__(self, known: list[_Moments], measure: _Measure) -> None:
        self._known = known
        self._measure = measure
        self._n_calls = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _BY_MOMENTS and args[0].ndim > 2:  # vectors are the same in all tiles
            return _BY_MOMENTS[function](self._moments, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _moments(self, features: torch.Tensor) -> _Moments:
        if self._n_calls == len(self._known):
            self._known.append(self._measure(features))
        self._n_calls += 1
        return self._known[self._n_calls - 1]


def _group_norm(
    moments: _Measure, features: torch.Tensor, num_groups: int, *, weight: Any, bias: Any, eps: float
) -> torch.Tensor:
    _, means, variances = moments(features)
    means, variances = means.view(num_groups, -1), variances.view(num_groups, -1)
    mean = means.mean(dim=1, keepdim=True)
    variance = (variances + (means - mean).square()).mean(dim=1, keepdim=True)
    mean, variance = (moment.expand_as(means).flatten() for moment in (mean, variance))
    return F.batch_norm(features, mean, variance, weight, bias, eps=eps)


def _instance_norm(
    moments: _Measure, features: torch.Tensor, *, weight: Any, bias: Any, eps: float, **others: Any
) -> torch.Tensor:
    if others["use_input_stats"]:
        return _group_norm(moments, features, features.shape[1], weight=weight, bias=bias, eps=eps)
    return F.instance_norm(features, weight=weight, bias=bias, eps=eps, **others)


def _mean_pool(moments: _Measure, features: torch.Tensor, output_size: Any) -> torch.Tensor:
    if output_size not in (1, (1, 1), [1, 1]):
        return F.adaptive_avg_pool2d(features, output_size)
    return moments(features).mean.view(1, -1, 1, 1)


# torch calls what stands for a function with the names of all but the first arguments
_BY_MOMENTS: dict[Any, Callable[..., torch.Tensor]] = {
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.adaptive_avg_pool2d: _mean_pool,
}


def _run_in_tiles(
    network: nn.Module,
    image: torch.Tensor,
    tiles: _Tiles,
    known: list[_Moments],
    report: Callable[[], Any] = lambda: None,
) -> tuple[torch.Tensor, list[_Moments]]:
    """Maps (1, n_maps, H, W) of an image, or the moments of the next layer's input that are not known yet."""
    maps, parts = image.new_empty(0), []
    for inner, outer in tiles.of(image.shape[2:]):
        tile = _part(image, outer)
        within = [slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer)]
        try:
            with _WholeImageLayers(known, partial(_stop_at, within, tile.shape[2:])):
                found = _as_maps(network(tile), tile)
            maps = maps if len(maps) else image.new_empty((1, found.shape[1], *image.shape[2:]))
            _part(maps, inner).copy_(_part(found, within))
        except _Measured as measured:
            parts.append(measured.moments)
        report()
    return maps, parts


def _stop_at(within: Sequence[slice], size: Sequence[int], features: torch.Tensor) -> _Moments:
    """Raise the moments of the features that belong to a part of a tile of some size."""
    strides = [n // m for n, m in zip(size, features.shape[2:])]
    cropped = [slice(i.start // stride, i.stop // stride) for i, stride in zip(within, strides)]
    raise _Measured(_moments(_part(features, cropped)))


def _measure_halos(network: nn.Module, divisor: int, images: torch.Tensor, side: int) -> list[int]:
    """The pixels around a tile that each layer with a view of the whole image needs, and last the log-odds.

    Small trials find them. None if the network can't be run in tiles.
    """
    largest = (side // (3 * divisor) - 1) // 2 * 2 + 1
    n = min(largest, 64 // (2 * divisor) // 2 * 2 + 1)  # odd, which finds out strides that are beyond the divisor
    while n > 0:
        size = [(2 * n + 1) * divisor] * (images.ndim - 2)
        trial = torch.rand((1, images.shape[1], *size), generator=torch.Generator().manual_seed(0)).to(images)
        known: list[_Moments] = []
        try:
            with _WholeImageLayers(known, _moments):
                expected = network(trial)
            maps = _spoilt_maps(network, trial, slice(n * divisor, (n + 1) * divisor))
        except (RuntimeError, ValueError, AttributeError):  # it takes images of one size alone, or gives no log-odds
            return []
        if not all(_is_aligned(m, trial, divisor) for m in maps):
            return []
        reaches = [_reach(m, n * divisor, (n + 1) * divisor, size[0]) for m in maps]
        if max(reaches) < n * divisor:
            halos = [-(-reach // divisor) * divisor for reach in reaches]
            tiles = _Tiles(n * divisor + 2 * halos[-1], halos[-1], divisor)
            found = _run_in_tiles(network, trial, tiles, known)[0].view_as(expected)
            fits = torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * float(expected.max() - expected.min()))
            return halos if fits else []
        n = min(largest, 2 * n + 1) if n < largest else 0
    return []


def _spoilt_maps(network: nn.Module, trial: torch.Tensor, spoilt: slice) -> list[torch.Tensor]:
    """What depends on a square of an image is not a number: inputs of layers that see the whole image, and log-odds.

    Unlike a gradient, what is not a number passes every rectifier and maximum.
    """
    trial = trial.clone()
    _part(trial, [spoilt] * (trial.ndim - 2)).fill_(torch.nan)
    maps = []

    def measure(features: torch.Tensor) -> _Moments:
        maps.append(features)
        return _moments(features.nan_to_num())

    with _WholeImageLayers([], measure):
        log_odds = network(trial)
    return [*maps, _as_maps(log_odds, trial)]


def _is_aligned(features: torch.Tensor, image: torch.Tensor, divisor: int) -> bool:
    """Whether each feature belongs to a square of pixels, none of which reaches over multiples of the divisor."""
    return all(n % m == 0 and divisor % (n // m) == 0 for n, m in zip(image.shape[2:], features.shape[2:]))


def _reach(features: torch.Tensor, begin: int, end: int, size: int) -> int:
    """How many pixels of an image lie between those from begin to end and the furthest feature that is no number."""
    reach = 0
    for numbers, m in zip(features.isnan().nonzero().T[2:], features.shape[2:]):
        if len(numbers):
            stride = size // m
            reach = max(reach, begin - int(numbers.min()) * stride, (int(numbers.max()) + 1) * stride - end)
    return reach


def _as_maps(log_odds: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Log-odds (1, H, W) or (1, 1, H, W), or scores (1, K, H, W), as maps (1, n_maps, H, W) of an image."""
    return log_odds.view(1, -1, *image.shape[2:])


def _part(maps: torch.Tensor, slices: Sequence[slice]) -> torch.Tensor:
    index: Any = (..., *slices)
    return maps[index]


def _moments(features: torch.Tensor) -> _Moments:
    each = features.flatten(2)[0]
    variance, mean = torch.var_mean(each, dim=1, correction=0)
    return _Moments(each.shape[1], mean, variance)


def _of_all(parts: Sequence[_Moments]) -> _Moments:
    """The moments of all values, by those of their parts."""
    counts, means, variances = zip(*parts)
    shares = (torch.tensor(counts, dtype=torch.float64) / sum(counts)).to(means[0])[:, None]
    mean = (shares * torch.stack(means)).sum(dim=0)
    variance = (shares * (torch.stack(variances) + (torch.stack(means) - mean).square())).sum(dim=0)
    return _Moments(sum(counts), mean, variance)
