"""FCN-8s on the convolutional part of torchvision's classification networks."""

import pickle
from collections.abc import Iterator, Sequence
from numbers import Integral
from os import PathLike
from typing import Any

import torch
import torchvision
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from torch import nn
from torch.nn import functional as F

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
    """Names of the torchvision networks that `FCN8s` can stand on.

    Returns
    -------
    list of str

    Examples
    --------
    >>> {"vgg16", "squeezenet1_1", "resnet18", "mobilenet_v3_small"} <= set(backbone_names())
    True
    """
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if name.startswith(_FAMILIES)]


class FCN8s(nn.Module):
    """Fully convolutional network with two skips.

    Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (2015): 1 x 1 convolutions score
    the features of the three coarsest resolutions of a classification network; each score map is upsampled by two and
    added to the next finer one, and the sum is upsampled to the image. On VGG-16 these are pool3, pool4 and fc7
    (strides 8, 16, 32), with fc6 and fc7 turned into convolutions. Networks that stop at another stride keep their own
    three (SqueezeNet: 4, 8, 16). Scoring layers start at zero and upsampling at bilinear interpolation, as in the
    paper; unlike there the images need no border of 100 pixels, since fc6 pads its input.

    Parameters
    ----------
    backbone : str
        One of `backbone_names`.
    n_channels : int, default=3
        Channels of the images. One channel is repeated three times; other numbers than 1 and 3 get a learned mixture.
    weights : None, "imagenet" or path, default=None
        Weights of the backbone: random, torchvision's for ImageNet (downloaded at first use), or a file with its state
        dict.

    Attributes
    ----------
    size_divisor : int
        Heights and widths must be multiples of it; estimators pad the images so.
    backbone : torch.nn.ModuleList
        The layers of the classification network, in three parts.

    Raises
    ------
    ValueError
        If there is no such backbone, or the file can't be read or belongs to another network.

    Examples
    --------
    >>> import torch
    >>> FCN8s("squeezenet1_1", n_channels=1)(torch.zeros(1, 1, 64, 96)).shape
    torch.Size([1, 1, 64, 96])
    """

    def __init__(self, backbone: str, n_channels: int = 3, *, weights: str | PathLike[str] | None = None) -> None:
        super().__init__()
        validate_parameter_constraints(
            {"n_channels": [Interval(Integral, 1, None, closed="left")], "weights": [None, str, PathLike]},
            {"n_channels": n_channels, "weights": weights},
            caller_name="FCN8s",
        )
        self.to_rgb = _ToNormalisedRGB(n_channels)
        self.backbone = _three_stages(_load_backbone(backbone, weights))
        sizes = self._feature_sizes(n_channels)
        widths = [channels for channels, _ in sizes]
        self.size_divisor = 64 // sizes[-1][1]
        self.scores = nn.ModuleList(_zero_conv(width) for width in widths)
        self.upsample = nn.ModuleList(_bilinear_upsampling() for _ in widths[1:])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the log-odds.

        Parameters
        ----------
        images : Tensor of shape (n, n_channels, H, W)
            Images scaled to [0, 1].

        Returns
        -------
        Tensor of shape (n, 1, H, W)
        """
        fine, middle, coarse = [score(f) for score, f in zip(self.scores, self._features(images))]
        middle = middle + self.upsample[1](coarse)
        fine = fine + self.upsample[0](middle)
        return F.interpolate(fine, size=images.shape[2:], mode="bilinear")

    @torch.no_grad()
    def _feature_sizes(self, n_channels: int) -> list[torch.Size]:
        self.eval()
        sizes = [features.shape[1:3] for features in self._features(torch.zeros(1, n_channels, 64, 64))]
        self.train()
        return sizes

    def _features(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        features = self.to_rgb(images)
        for stage in self.backbone:
            features = stage(features)
            yield features


class _ToNormalisedRGB(nn.Module):
    """Bring images to the three channels, mean and deviation of torchvision's ImageNet training."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.mix = nn.Identity() if n_channels in (1, 3) else nn.Conv2d(n_channels, 3, 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # broadcasting repeats a single channel
        return (self.mix(images) - self.mean) / self.deviation


def _load_backbone(name: str, weights: str | PathLike[str] | None) -> nn.Module:
    if name not in backbone_names():
        raise ValueError(f"network: there is no backbone {name!r} for FCN-8s; there are {', '.join(backbone_names())}")
    model = torchvision.models.get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    if weights not in (None, "imagenet"):
        _load_state(model, name, weights)
    return model


def _load_state(model: nn.Module, name: str, path: str | PathLike[str]) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"weights: {path} can't be read as a state dict of {name}: {error}") from error
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"weights: {path} does not hold the weights of {name}: {error}") from error


def _three_stages(model: nn.Module) -> nn.ModuleList:
    """Cut a classification network into the parts that end at its three coarsest resolutions."""
    layers = _convolutional_layers(model)
    strides = _output_strides(layers)
    if isinstance(model, torchvision.models.VGG):
        # pool3, pool4 and fc7
        ends = [k + 1 for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)][2:4] + [len(layers)]
    else:
        # the last layer of each resolution sees the most
        ends = [k + 1 for k, stride in enumerate(strides) if strides[k + 1 : k + 2] != [stride]][-3:]
    return nn.ModuleList(nn.Sequential(*layers[a:b]) for a, b in zip([0, *ends], ends))


def _convolutional_layers(model: Any) -> list[nn.Module]:
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
def _output_strides(layers: Sequence[nn.Module]) -> list[int]:
    features = torch.zeros(1, 3, 64, 64)
    strides = []
    for layer in layers:
        features = layer.eval()(features)
        strides.append(64 // features.shape[2])
        layer.train()
    return strides


def _zero_conv(n_in: int) -> nn.Conv2d:
    conv = nn.Conv2d(n_in, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # nn.Conv2d has a bias by default
    return conv


def _bilinear_upsampling() -> nn.ConvTranspose2d:
    upsample = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
    weights = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        upsample.weight.copy_(weights * weights[:, None])
    return upsample
