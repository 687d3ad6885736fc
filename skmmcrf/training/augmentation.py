"""Random changes of an image together with its mask, so that few images teach more."""

from collections.abc import Callable
from numbers import Real
from typing import TypeAlias

import torch
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from skmmcrf.field.labels import UNLABELLED

Augmentation: TypeAlias = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

#: What the parameter `augmentation` may be.
AUGMENTATIONS = [StrOptions({"flip", "standard", "strong"}), callable, None]


class RandomIntensity(nn.Module):
    """Change contrast, brightness and colour of images of any range and number of channels.

    Parameters
    ----------
    contrast : float, default=0.2
        The factor lies between 1 less and 1 more this.
    brightness : float, default=0.1
        The shift lies between less and more this, times the largest absolute value of the image.
    colour : float, default=0.0
        Factor and shift are one for all channels, but images of several channels have each multiplied by a factor of
        its own too, between 1 less and 1 more this.

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
        """Change the image, a Tensor of float and shape (channels, H, W); the mask stays."""
        factor = 1 + self.contrast * (2 * torch.rand(()) - 1)
        shift = self.brightness * (2 * torch.rand(()) - 1) * image.abs().max()
        mean = image.mean()
        changed = (image - mean) * factor + mean + shift
        if self.colour and len(image) > 1:
            changed = changed * (1 + self.colour * (2 * torch.rand(len(image), 1, 1) - 1))
        return tv_tensors.wrap(changed, like=image), mask


def build_augmentation(augmentation: str | Augmentation | None) -> Augmentation | None:
    """Make the augmentation that an estimator's parameter names.

    Parameters
    ----------
    augmentation : {"flip", "standard", "strong"}, callable or None
        "flip" mirrors half of the images left to right. "standard" does so too, scales them by 0.8 to 1.25, shifts them
        by up to a tenth, turns them by up to 10 degrees, and changes contrast and brightness (`RandomIntensity`);
        pixels from beyond the border are unlabelled. "strong" does all of that with scales of 0.6 to 1.6, up to 15
        degrees, twice the changes of intensity, and changes of colour. A callable takes and gives an image and its
        mask, as torchvision's transforms v2 do.

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If there is no such augmentation.

    Examples
    --------
    >>> import torch
    >>> image, mask = tv_tensors.Image(torch.rand(1, 6, 8)), tv_tensors.Mask(torch.ones(6, 8, dtype=torch.uint8))
    >>> [part.shape for part in build_augmentation("standard")(image, mask)]
    [torch.Size([1, 6, 8]), torch.Size([6, 8])]
    """
    constraints = {"augmentation": AUGMENTATIONS}
    validate_parameter_constraints(constraints, {"augmentation": augmentation}, caller_name="build_augmentation")
    if augmentation == "flip":
        return v2.RandomHorizontalFlip()
    if augmentation == "standard":
        return _compose(degrees=10, scale=(0.8, 1.25), intensity=RandomIntensity())
    if augmentation == "strong":
        return _compose(
            degrees=15, scale=(0.6, 1.6), intensity=RandomIntensity(contrast=0.4, brightness=0.2, colour=0.2)
        )
    return augmentation  # type: ignore[return-value]  # no other name is left


def _compose(degrees: float, scale: tuple[float, float], intensity: RandomIntensity) -> Augmentation:
    moved = v2.RandomAffine(
        degrees=degrees,
        translate=(0.1, 0.1),
        scale=scale,
        interpolation=InterpolationMode.BILINEAR,
        fill={tv_tensors.Image: 0, tv_tensors.Mask: UNLABELLED},
    )
    return v2.Compose([v2.RandomHorizontalFlip(), moved, intensity])
