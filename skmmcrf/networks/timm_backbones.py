"""The models of timm as backbones."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import nn

from skmmcrf._shown import shortened, shown
from skmmcrf.networks.reading import read_state


class TimmBackbone(NamedTuple):
    """A model that gives feature maps, and the means and deviations of the images that it was trained on.

    Attributes
    ----------
    features : torch.nn.Module
        Gives a list of feature maps, from fine to coarse.
    mean, deviation : sequence of float
        One a channel.
    """

    features: nn.Module
    mean: Sequence[float]
    deviation: Sequence[float]


def load_timm_backbone(name: str, weights: str | PathLike[str] | None) -> TimmBackbone:
    """Make one of timm's models as a backbone.

    Its weights are random (None), timm's own ("imagenet"), or those of a file with the state dict of the model.

    Raises
    ------
    ValueError
        If timm is missing. If the model is unknown, or gives no feature maps of several resolutions. If timm's weights
        can't be downloaded. If the file can't be read, or belongs to another network.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f'timm is needed for the network timm/{shown(name)}: pip install "skmmcrf[timm]"') from error
    # other names, which timm takes too, lead to folders and to models of anyone on the hub
    if name.partition(".")[0] not in timm.list_models():
        raise ValueError(f"network: {shown(name)} is not one of timm's models, which timm.list_models() gives")
    if weights == "imagenet":
        model = _with_weights_of_timm(name)
    elif weights is None:
        model = _built(name)
    else:
        model = _with_weights_of_file(name, weights)
    _check_features(model, name)
    config = timm.data.resolve_model_data_config(model)
    for part in model.modules():  # which may hold the weights once more
        vars(part).pop("pretrained_cfg", None)
        vars(part).pop("default_cfg", None)
    return TimmBackbone(model, config["mean"], config["std"])


def _built(name: str, **parameters: Any) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, features_only=True, **parameters)
    except (RuntimeError, AssertionError, AttributeError, TypeError) as error:  # timm says by each that it can't
        raise ValueError(
            f"network: timm/{name} can't be a backbone, because timm gives no feature maps of it: {shortened(error)}"
        ) from error
    return model


def _with_weights_of_timm(name: str) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, features_only=True, pretrained=True)
    except Exception as error:  # of whatever library downloads
        config = timm.models.get_pretrained_cfg(name)
        source = config and (config.hf_hub_id or config.url)
        raise ValueError(
            f'weights: "imagenet" can\'t be loaded for timm/{name}: {shortened(error)}. '
            + (
                f"timm takes them from {source}. Download the file there on another machine, and give its path as "
                "weights"
                if source
                else "timm has no weights of this model. Give a file of weights"
            )
        ) from error
    return model


def _with_weights_of_file(name: str, path: str | PathLike[str]) -> nn.Module:
    import timm

    state = read_state(path, f"timm/{name}")
    try:
        with torch.device("meta"):
            whole = timm.create_model(name, num_classes=0)
        # the file may have a classifier of any classes
        missing = whole.load_state_dict(state, strict=False, assign=True).missing_keys
    except Exception as error:  # the file may hold anything
        raise ValueError(f"weights: {path} does not hold the weights of timm/{name}: {shortened(error)}") from error
    if missing:
        raise ValueError(f"weights: {path} does not hold the weights of timm/{name}: it lacks {shown(missing[0])}")
    with _without_warnings_of_timm():  # of what a backbone leaves out, since nothing is missing
        return _built(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state})


@contextmanager
def _without_warnings_of_timm() -> Iterator[None]:
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def _check_features(model: nn.Module, name: str) -> None:
    """Raise a ValueError unless a model gives maps (n, channels, H, W) of several resolutions, from fine to coarse."""
    info: Any = model.feature_info
    strides = info.reduction()
    try:
        maps = model.eval()(torch.zeros(1, 3, 2 * strides[-1], 3 * strides[-1]))
        found = [tuple(features.shape[1:]) for features in maps]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"network: timm/{name} can't be a backbone, because it does not take images of any size: {shortened(error)}"
        ) from error
    finally:
        model.train()
    wanted = [(n, 2 * strides[-1] // s, 3 * strides[-1] // s) for n, s in zip(info.channels(), strides)]
    if found != wanted or len(set(strides)) < len(strides):
        raise ValueError(
            f"network: timm/{name} can't be a backbone, because it does not give one map of features for each of "
            "several resolutions"
        )
