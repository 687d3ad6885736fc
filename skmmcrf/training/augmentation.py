"""Random changes of an image together with its mask."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import nn
from torch.nn import functional as F
from torchvision import tv_tensors

from skmmcrf.field.labels import UNLABELLED

Augmentation: TypeAlias = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: What the parameter `augmentation` may be.
AUGMENTATIONS = [StrOptions({"flip", "standard", "strong"}), callable, None]


class RandomIntensity(nn.Module):
    """Change contrast, brightness and colour of images of any range and number of channels.

    Parameters
    ----------
    contrast : float, default=0.2
        The factor lies between ``1 - contrast`` and ``1 + contrast``.
    brightness : float, default=0.1
        The shift lies between ``-brightness`` and ``brightness``, times the largest absolute value of the image.
    colour : float, default=0.0
        In images of several channels, each channel is also multiplied by its own factor, between ``1 - colour`` and ``1
        + colour``.

    Examples
    --------
    >>> import torch
    >>> image, mask = RandomIntensity()(torch.rand(5, 8, 8), torch.zeros(8, 8))
    >>> image.shape
    torch.Size([5, 8, 8])
    """

    def __init__(self, contrast: float = 0.2, brightness: float = 0.1, colour: float = 0.0) -> None:
        super().__init__()
        shares = [Interval(Real, 0, None, closed="left")]
        validate_parameter_constraints(
            {"contrast": shares, "brightness": shares, "colour": shares},
            {"contrast": contrast, "brightness": brightness, "colour": colour},
            caller_name="RandomIntensity",
        )
        self.contrast = contrast
        self.brightness = brightness
        self.colour = colour

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change the image, a Tensor of float and shape (channels, H, W), and leave the mask."""
        changed = self.of_stack(image[None], torch.rand(1, 2 + len(image)))[0]
        return tv_tensors.wrap(changed, like=image), mask

    def of_stack(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Change images (n, channels, H, W) of float by numbers (n, 2 + channels) from 0 to 1, each by its own."""
        contrast, brightness, colour = (2 * draws[:, :, None, None] - 1).tensor_split((1, 2), dim=1)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        shift = self.brightness * brightness * images.abs().amax(dim=(1, 2, 3), keepdim=True)
        changed = (images - mean) * (1 + self.contrast * contrast) + mean + shift
        return changed * (1 + self.colour * colour) if images.shape[1] > 1 else changed


@dataclass(frozen=True)
class RandomChanges:
    """Mirror, turn, scale and shift images of one size and their masks, and change their intensity.

    All images of a batch are changed at once, on the device where they are.

    Parameters
    ----------
    degrees : float, default=0.0
        The largest angle.
    scale : tuple (float, float), default=(1.0, 1.0)
        The least and the largest factor of the size.
    shift : float, default=0.0
        The largest shift, as a share of height and width.
    intensity : RandomIntensity, optional

    Examples
    --------
    >>> changes = RandomChanges(degrees=10, shift=0.1)
    >>> images, masks = torch.rand(2, 3, 8, 9), torch.ones(2, 8, 9, dtype=torch.uint8)
    >>> [part.shape for part in changes.of_stack(images, masks, changes.draw(2, n_channels=3))]
    [torch.Size([2, 3, 8, 9]), torch.Size([2, 8, 9])]
    """

    degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    intensity: RandomIntensity | None = None

    def draw(self, n_images: int, n_channels: int) -> torch.Tensor:
        """Draw the numbers from 0 to 1 that decide the changes, a row an image."""
        return torch.rand(n_images, 7 + n_channels)

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change an image (channels, H, W) and its mask (H, W)."""
        image, mask = (part.as_subclass(torch.Tensor) for part in (image, mask))
        images, masks = self.of_stack(image[None], mask[None], self.draw(1, len(image)))
        return tv_tensors.Image(images[0]), tv_tensors.Mask(masks[0])

    def of_stack(
        self, images: torch.Tensor, masks: torch.Tensor, draws: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Change images (n, channels, H, W) of float and masks (n, H, W), each by its own row of `draw`.

        Pixels from beyond the border are 0 in the images, and unlabelled in the masks.
        """
        is_mirrored = draws[:, 0] < 0.5
        if self.degrees or self.shift or self.scale != (1.0, 1.0):
            grid = self._grid(is_mirrored, draws[:, 1:5], images.shape)
            images = F.grid_sample(images, grid, align_corners=False)
            labels = masks[:, None].float() - UNLABELLED
            labels = F.grid_sample(labels, grid, mode="nearest", align_corners=False) + UNLABELLED
            masks = labels[:, 0].to(masks.dtype)
        else:
            images = torch.where(is_mirrored[:, None, None, None], images.flip(-1), images)
            masks = torch.where(is_mirrored[:, None, None], masks.flip(-1), masks)
        if self.intensity is not None:
            images = self.intensity.of_stack(images, draws[:, 5:])
        return images, masks

    def _grid(self, is_mirrored: torch.Tensor, draws: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Where each pixel comes from, (n, H, W, 2)."""
        height, width = shape[2:]
        turn, size, *shift = draws.unbind(dim=1)
        angle = math.radians(self.degrees) * (2 * turn - 1)
        low, high = self.scale
        factor = low + (high - low) * size
        cos, sin = angle.cos() / factor, angle.sin() / factor
        # in coordinates from -1 to 1 along each side
        turned = torch.stack([cos, sin * (height / width), -sin * (width / height), cos], dim=1).view(-1, 2, 2)
        moved = turned @ (2 * self.shift * (1 - 2 * torch.stack(shift, dim=1)))[:, :, None]
        affine = torch.cat([turned, moved], dim=2)
        affine[:, 0] *= 1 - 2 * is_mirrored[:, None].to(affine)
        return F.affine_grid(affine, [len(draws), 1, height, width], align_corners=False)


_NAMED = {
    "flip": RandomChanges(),
    "standard": RandomChanges(10, (0.8, 1.25), 0.1, RandomIntensity()),
    "strong": RandomChanges(15, (0.6, 1.6), 0.1, RandomIntensity(contrast=0.4, brightness=0.2, colour=0.2)),
}


def build_augmentation(augmentation: str | Augmentation | None) -> Augmentation | None:
    """Make the augmentation that an estimator's parameter names.

    It acts on training images only. Changes that `predict` needs too, such as `Normalize`, do not belong here.

    Parameters
    ----------
    augmentation : {"flip", "standard", "strong"}, callable or None
        "flip" mirrors half of the images left to right. "standard" also scales them by 0.8 to 1.25, shifts them by up
        to a tenth, rotates them by up to 10 degrees, and changes contrast and brightness (`RandomIntensity`). Pixels
        from beyond the border are unlabelled. "strong" does the same with scales of 0.6 to 1.6, up to 15 degrees, twice
        the changes of intensity, and changes of colour. A callable takes and returns an image and its mask, as
        torchvision's transforms v2 do. The image is a `tv_tensors.Image` of float32 and shape (channels, H, W). The
        mask is a `tv_tensors.Mask` (H, W) of 0, 1, and 255 where unlabelled. A transform of albumentations, or a
        `Compose` of them, takes arrays instead, the image as (H, W, channels). Its ``fill_mask=255`` leaves pixels from
        beyond the border unlabelled. The estimator's `random_state` seeds it. Some transforms of albumentations clip
        floats to [0, 1].

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If the name is unknown. If it is one of torchvision's transforms v1, which do not change masks.

    Examples
    --------
    >>> import torch
    >>> image, mask = tv_tensors.Image(torch.rand(1, 6, 8)), tv_tensors.Mask(torch.ones(6, 8, dtype=torch.uint8))
    >>> [part.shape for part in build_augmentation("standard")(image, mask)]
    [torch.Size([1, 6, 8]), torch.Size([6, 8])]
    """
    constraints = {"augmentation": AUGMENTATIONS}
    validate_parameter_constraints(constraints, {"augmentation": augmentation}, caller_name="build_augmentation")
    if isinstance(augmentation, str):
        return _NAMED[augmentation]
    for part in _parts(augmentation):
        module, name = type(part).__module__, type(part).__name__
        if module.startswith("torchvision.transforms.") and not module.startswith("torchvision.transforms.v2."):
            raise ValueError(
                f"augmentation: {name} of torchvision.transforms does not change masks: use the one of "
                "torchvision.transforms.v2"
            )
    if any(kind.__module__.partition(".")[0] == "albumentations" for kind in type(augmentation).__mro__):
        return FromAlbumentations(augmentation)
    return augmentation  # type: ignore[return-value]  # no other name is left


class FromAlbumentations:
    """An augmentation by a transform of albumentations, seeded by torch's generator.

    Parameters
    ----------
    transform : albumentations.BasicTransform or albumentations.BaseCompose
    """

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change an image (channels, H, W) and its mask (H, W)."""
        if hasattr(self.transform, "set_random_seed"):  # earlier versions draw from the global generators
            self.transform.set_random_seed(int(torch.randint(2**31 - 1, ())))
        pixels = np.ascontiguousarray(image.movedim(0, -1).numpy())
        changed = self.transform(image=pixels, mask=mask.numpy())
        image = changed["image"]
        if not isinstance(image, torch.Tensor):  # as ToTensorV2 gives
            image = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0)
        return image, torch.from_numpy(np.ascontiguousarray(changed["mask"]))


def changed_by(change: Augmentation, image: tv_tensors.Image, mask: tv_tensors.Mask) -> Any:
    """Change an image and its mask, and give what the augmentation gives.

    Raises
    ------
    ValueError
        If the augmentation raises an error. The message says how it was called.
    """
    try:
        return change(image, mask)
    except Exception as error:  # of the user's code
        how = "augmentation(image, mask), a tv_tensors.Image (channels, H, W) and a tv_tensors.Mask (H, W)"
        if isinstance(change, FromAlbumentations):
            how = "augmentation(image=..., mask=...), arrays (H, W, channels) and (H, W)"
        raise ValueError(
            f"called as {how}, of {tuple(image.shape)} and {tuple(mask.shape)}, it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def warn_of_normalize(augmentation: str | Augmentation | None) -> None:
    """Warn, by a UserWarning, of a transform that `predict` would need too."""
    if any(type(part).__name__ == "Normalize" for part in _parts(augmentation)):
        warnings.warn(
            "augmentation: Normalize acts in training only, so predict would see other images: normalise the images "
            "for both fit and predict, or normalise in the network",
            UserWarning,
            stacklevel=4,
        )


def _parts(transform: Any) -> Iterator[Any]:
    """A transform, and what it is composed of."""
    yield transform
    inner = getattr(transform, "transforms", ())
    for part in inner if isinstance(inner, (list, tuple, nn.ModuleList)) else ():
        yield from _parts(part)
