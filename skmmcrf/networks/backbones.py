"""The convolutional part of classification networks, as a backbone."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torchvision
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from torch import nn

from skmmcrf._shown import shortened, shown
from skmmcrf.networks.reading import read_state
from skmmcrf.networks.timm_backbones import load_timm_backbone

_OF_TIMM = "timm/"
_FAMILIES = (
    "vgg",
    "squeezenet",
    "resnet",
    "resnext",
    "wide_resnet",
    "mobilenet",
    "efficientnet",
    "densenet",
    "convnext",
)


def backbone_names() -> list[str]:
    """Give the names of the torchvision networks that can be a backbone.

    Examples
    --------
    >>> {"vgg16", "squeezenet1_1", "resnet18", "mobilenet_v3_small"} <= set(backbone_names())
    True
    """
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if name.startswith(_FAMILIES)]


class OnBackbone(nn.Module):
    """Base of networks with a classification network as their backbone.

    Parameters
    ----------
    backbone : str
        One of `backbone_names`, or "timm/" and the name of one of timm's models.
    n_channels : int
        Channels of the images.
    weights : None, "imagenet" or path
        Of the backbone.
    stages : callable
        Cuts a classification network of torchvision into successive parts, whose outputs are used.

    Attributes
    ----------
    to_rgb : torch.nn.Module
    backbone : torch.nn.Module
        Gives a list of feature maps.
    feature_sizes : list of tuple (int, int)
        Channels and stride of each, from fine to coarse.
    size_divisor : int
        The largest of these strides.
    """

    def __init__(
        self,
        backbone: str,
        n_channels: int,
        weights: str | PathLike[str] | None,
        stages: Callable[[nn.Module], nn.ModuleList],
    ) -> None:
        super().__init__()
        validate_parameter_constraints(
            {"n_channels": [Interval(Integral, 1, None, closed="left")], "weights": [None, str, PathLike]},
            {"n_channels": n_channels, "weights": weights},
            caller_name=type(self).__name__,
        )
        if backbone.startswith(_OF_TIMM):
            loaded = load_timm_backbone(backbone.removeprefix(_OF_TIMM), weights)
            self.to_rgb = ToNormalisedRGB(n_channels, loaded.mean, loaded.deviation)
            self.backbone = loaded.features
        else:
            self.to_rgb = ToNormalisedRGB(n_channels)
            self.backbone = Stages(stages(load_backbone(backbone, weights)))
        with torch.no_grad():
            features = self.eval().features(torch.zeros(1, n_channels, 64, 64))
        self.train()
        self.feature_sizes = [(f.shape[1], 64 // f.shape[2]) for f in features]
        self.size_divisor = self.feature_sizes[-1][1]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Give the feature maps of the backbone for images (n, n_channels, H, W)."""
        features: list[torch.Tensor] = self.backbone(self.to_rgb(images))
        return features


class Stages(nn.ModuleList):
    """Successive parts of a network, of all of which the outputs are given."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run each part on the output of the one before."""
        return list(accumulate(self, lambda features, stage: stage(features), initial=images))[1:]


class ToNormalisedRGB(nn.Module):
    """Bring images to three channels, and to the mean and deviation of a training, by default that on ImageNet."""

    def __init__(
        self,
        n_channels: int,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        deviation: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.mix = nn.Identity() if n_channels in (1, 3) else nn.Conv2d(n_channels, 3, 1)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Change images, a Tensor of shape (n, n_channels, H, W)."""
        # broadcasting repeats a single channel
        return (self.mix(images) - self.mean) / self.deviation


def load_backbone(name: str, weights: str | PathLike[str] | None) -> nn.Module:
    """Make a classification network of torchvision, one of `backbone_names`.

    Its weights are random (None), torchvision's for ImageNet ("imagenet"), or those of a file with a state dict.

    Raises
    ------
    ValueError
        If the network is unknown. If the weights for ImageNet can't be downloaded. If the file can't be read, or
        belongs to another network.
    """
    if name not in backbone_names():
        raise ValueError(f"network: {shown(name)} is not a known backbone, choose one of {', '.join(backbone_names())}")
    if weights == "imagenet":
        return _with_imagenet_weights(name)
    model = torchvision.models.get_model(name, weights=None)
    if weights is not None:
        _load_state(model, name, weights)
    return model


def _with_imagenet_weights(name: str) -> nn.Module:
    try:
        return torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torch finds a RuntimeError in a damaged file
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        kept = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
        raise ValueError(
            f'weights: "imagenet" can\'t be loaded for {name}: {error}. They come from {url} and are kept as {kept}. '
            "Put the file there on a machine without internet, or give its path as weights"
        ) from error


def _load_state(model: nn.Module, name: str, path: str | PathLike[str]) -> None:
    state = read_state(path, name)
    try:
        model.load_state_dict(state)
    except Exception as error:  # the file may hold anything
        raise ValueError(
            f"weights: {shortened(path)} does not hold the weights of {name}: {shortened(error)}"
        ) from error


def convolutional_layers(model: Any) -> list[nn.Module]:
    """Give the layers of a network up to its pooling, for VGG with fc6 and fc7 as convolutions."""
    if isinstance(model, torchvision.models.ResNet):
        return [layer for name, layer in model.named_children() if name not in ("avgpool", "fc")]
    layers = list(model.features)
    if isinstance(model, torchvision.models.VGG):
        fc6, fc7 = model.classifier[0], model.classifier[3]
        layers += [_as_convolution(fc6, 7), nn.ReLU(), nn.Dropout(), _as_convolution(fc7, 1), nn.ReLU(), nn.Dropout()]
    if isinstance(model, torchvision.models.SqueezeNet):
        # the only backbone whose first convolution loses the border, and with it the whole-numbered strides
        layers[0].padding = (layers[0].kernel_size[0] // 2,) * 2
    return layers


def _as_convolution(linear: nn.Linear, size: int) -> nn.Conv2d:
    """A linear layer over a map of size x size features as a convolution that keeps the size of its input."""
    conv = nn.Conv2d(linear.in_features // size**2, linear.out_features, size, padding=size // 2)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.view_as(conv.weight))
        conv.bias.copy_(linear.bias)  # type: ignore[union-attr]  # nn.Conv2d has a bias by default
    return conv


@torch.no_grad()
def output_strides(layers: Sequence[nn.Module]) -> list[int]:
    """Give the stride of each layer's output."""
    features = torch.zeros(1, 3, 64, 64)
    strides = []
    for layer in layers:
        features = layer.eval()(features)
        strides.append(64 // features.shape[2])
        layer.train()
    return strides


def ends_of_resolutions(strides: Sequence[int]) -> list[int]:
    """Give the last layer of each resolution, by the strides of the layers' outputs.

    Examples
    --------
    >>> ends_of_resolutions([2, 2, 4, 8, 8])
    [2, 3, 5]
    """
    return [k + 1 for k, stride in enumerate(strides) if strides[k + 1 : k + 2] != [stride]]


def cut_into_stages(layers: Sequence[nn.Module], ends: Sequence[int]) -> nn.ModuleList:
    """Group layers into parts, each of which ends at one of the ends."""
    return nn.ModuleList(nn.Sequential(*layers[a:b]) for a, b in zip([0, *ends], ends))
