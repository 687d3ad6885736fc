"""Running a network over images, on the processor or another device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skmmcrf._shown import shortened, shown
from skmmcrf.field.energy import LogOddsError
from skmmcrf.images.sequences import ArraysOnDisk, Mapped
from skmmcrf.images.tensors import as_tensor, scaled
from skmmcrf.networks.any_size import AnySize, stacks_of
from skmmcrf.networks.tiles import SIDE, Tiled


@dataclass(frozen=True)
class Runner:
    """The settings with which a fitted network runs.

    Parameters
    ----------
    batch_size : int
        Images that go through the network together, unless they are larger together than one tile.
    device : str
        See `resolve_device`.
    average_mirrored : bool, default=False
    scale : float or sequence of float, default=1.0
        See `skmmcrf.networks.AnySize`.
    amp : bool, default=False
        See `skmmcrf.networks.AnySize`.
    n_maps : int, default=1
        1 for log-odds of two labels, K for scores of K labels. See `skmmcrf.networks.AnySize`.
    progress : bool, default=False
        Whether a bar shows the tiles of a large image. See `skmmcrf.networks.tiles.Tiled`.

    Examples
    --------
    >>> from skmmcrf.networks import UNet
    >>> runner = Runner(batch_size=2, device="cpu")
    >>> [log_odds.shape for log_odds, _ in runner.run(UNet(1), [np.zeros((8, 9, 1), np.uint8)])]
    [(8, 9)]
    """

    batch_size: int
    device: str
    average_mirrored: bool = False
    scale: float | Sequence[float] = 1.0
    amp: bool = False
    progress: bool = False
    n_maps: int = 1

    @property
    def may_overlap(self) -> bool:
        """Whether cuts should run beside the network. On the CPU the threads of torch would wait for those that cut."""
        return torch.device(self.device).type != "cpu"

    def run(self, network: nn.Module, images: Sequence[np.ndarray]) -> Iterator[tuple[NDArray[np.float32], np.ndarray]]:
        """Run a network over images (H, W, channels), a batch at a time.

        Yields
        ------
        log_odds : ndarray of float32 and shape (H, W), or scores (n_maps, H, W)
        image : ndarray of shape (H, W, channels)
            Its pixels. Floats become float32.

        Raises
        ------
        ValueError
            If the network fails on an image.
        LogOddsError
            If its log-odds are not finite.
        """
        tiled = Tiled(network, progress=self.progress)
        module = self.wrapped(tiled)
        module.to(self.device).eval()
        n_done = 0
        for batch in self._batches(images):
            numbers, stacks = zip(*stacks_of(batch))
            names = [f"image number {n_done + of_stack[0]}" for of_stack in numbers]
            # within the loop, because the next batch may be asked for from another thread; not in inference mode, as a
            # network can't be trained with the tensors that it keeps of that
            with torch.no_grad():
                given = module.of_stacks([scaled(stack.to(self.device)) for stack in stacks], names)
            log_odds: dict[int, NDArray[np.float32]] = {}
            for of_stack, maps in zip(numbers, given):
                log_odds.update(zip(of_stack, maps.numpy(force=True)))
            for n, image in enumerate(batch):
                if not np.isfinite(log_odds[n]).all():
                    raise LogOddsError(f"network: its log-odds of image number {n_done + n} are not finite")
                yield log_odds[n], image.permute(1, 2, 0).numpy()
            n_done += len(batch)

    def wrapped(self, network: nn.Module, *, freeze_batch_norm: bool = False) -> AnySize:
        """Give a network that takes images of any size, as these settings say."""
        return AnySize(
            network,
            n_maps=self.n_maps,
            freeze_batch_norm=freeze_batch_norm,
            average_mirrored=self.average_mirrored,
            scale=self.scale,
            amp=self.amp,
        )

    def _batches(self, images: Sequence[np.ndarray]) -> Iterator[list[torch.Tensor]]:
        """Images that go through the network together, of which one more would not fit."""
        batch: list[torch.Tensor] = []
        for image in map(as_tensor, images):
            batch.append(image)
            with_another = sum(each[0].numel() for each in [*batch, image])
            if len(batch) == self.batch_size or with_another > SIDE**2:
                yield batch
                batch = []
        if batch:
            yield batch

    def log_odds(self, network: nn.Module, images: Sequence[np.ndarray]) -> Sequence[NDArray[np.float32]]:
        """Run a network over images, and keep what it gives in memory, or on disk if the images are lazy."""
        kept: Any = ArraysOnDisk(np.float32) if isinstance(images, Mapped) else []
        for log_odds, _ in self.run(network, images):
            kept.append(log_odds)
        return kept


def resolve_device(device: str | torch.device) -> str:
    """Give the name of a device that torch has. "auto" is the best one.

    Raises
    ------
    ValueError
        If torch has no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device).cpu()  # "meta" holds no numbers to give back
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each kind of device has its own
        raise ValueError(f"device: {shown(device)} is not available: {shortened(error)}") from error
    return str(device)
