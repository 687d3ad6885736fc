"""Settings of the main estimator that suit given images, labels and machine."""

import math
import time
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import ImagesLike, LabelsLike, NetworkLike, RandomStateLike
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.scale_search import N_STEPS, ScaleSearch, TimeLimit, candidate_factors
from skmmcrf.estimators.segmenter import DeepStructuredSegmenter
from skmmcrf.field.labels import Annotation
from skmmcrf.images.checking import LabelledImages, check_labelled_images, warn_of_range
from skmmcrf.images.labels import CLASS_WEIGHT_BOUNDS, LABEL_CONSTRAINTS, LabelScheme
from skmmcrf.networks import build_network
from skmmcrf.networks.running import resolve_device
from skmmcrf.training.batches import batch_sizes
from skmmcrf.training.random_states import seeded

_FEWEST_EPOCHS = 10
# in epochs of pretraining
_COST_OF_JOINT_EPOCH = 2.5
_COST_OF_CLASS, _COST_OF_CLASS_IN_JOINT_EPOCH = 1.0, 0.1  # of each class beyond two
_SHARE_FOR_SEARCH = 1 / 3
_LEAST_SHARE_OF_EPOCHS = 1 / 2
_BATCH_SIZE, _LARGE_BATCH_SIZE, _MANY_IMAGES = 5, 16, 300
_LARGEST_SIDE, _CROPPED_SIDE = 768, 512  # pixels that the network sees
_RARE = 0.005
_FEW_WITH_FOREGROUND, _UNEQUAL = 8, 4


@documented
def configure(
    X: ImagesLike,
    y: LabelsLike | None = None,
    *,
    network: NetworkLike = "auto",
    weights: str | PathLike[str] | None = "imagenet",
    time_budget: float = 2400.0,
    pos_label: int = 1,
    classes: Sequence[int] | None = None,
    ignore_label: int | Literal["auto"] | None = "auto",
    random_state: RandomStateLike = None,
    verbose: int = 1,
) -> DeepStructuredSegmenter:
    """Choose the settings of a `DeepStructuredSegmenter` by images, labels and the machine.

    The network is trained for a short time at each of some values of `network_scale`. The results choose the scale, and
    the seconds choose `n_epochs`. `fit` does not repeat these trainings. `set_params` changes a setting afterwards.

    - `network_scale`: the factor with the best mean Jaccard index, as with ``network_scale="auto"`` of
      `CNNSegmenter`. Factors are tried from the smallest on. A larger one is compared only if a third of `time_budget`
      seems enough for it too, and the rest for at least half of the epochs. If the time is enough for the smallest
      factor alone, that one is taken after a few steps, without a comparison. The best three factors are compared
      again, by longer trainings on other images, while the time is enough.
    - `n_epochs` of pretraining: as ``n_epochs="auto"`` of `CNNSegmenter`. It is fewer if `time_budget` leaves no time
      for them, but at least 10, and at least those of 120 steps.
    - `batch_size`: 5. It is 16 on another device than the CPU for 300 images or more.
    - `crop`: None, if the network sees at most 768 pixels of any side of an image. Otherwise training uses parts of
      images, of which the network sees 512 x 512 pixels.
    - `class_weight`: "balanced" if less than 0.5 % of the labelled pixels are foreground, otherwise None. Of K classes,
      more than two, one whose share of the labelled pixels is s < 1 / K weighs 1 / sqrt(K s). The others, and those
      that y lacks, weigh 1.
    - All other parameters keep their defaults.

    Parameters
    ----------
    %(X_to_fit)s
    %(y_to_fit)s
    network : "auto", str, torch.nn.Module or callable, default="auto"
        "auto" is a U-Net on MobileNetV2 ("unet_mobilenet_v2"), or the small "unet" without `weights`. Other values are
        kept. See `CNNSegmenter`.
    weights : "imagenet", path or None, default="imagenet"
        Weights of the backbone. torchvision downloads those for ImageNet. Without internet, give None or the path of
        their file. Networks without a backbone have no weights.
    time_budget : float, default=2400.0
        Seconds for this function and the later fit together, on this machine. They are a wish and no bound: the
        smallest factor and the fewest epochs may take longer. A warning then says how long. ``float("inf")`` compares
        all factors, and asks for the epochs of ``n_epochs="auto"``.
    %(pos_label)s
    %(classes)s
    %(ignore_label)s
    random_state : int, RandomState or None, default=None
        Seeds the short trainings, and becomes that of the estimator. The same int may give other settings, because the
        time that the trainings take influences them.
    verbose : int, default=1
        1 prints a line for each short training and each setting. 0 prints nothing.

    Returns
    -------
    DeepStructuredSegmenter
        Not fitted.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of its range. If images and labels do not fit. If only one image is given, or none has
        foreground. If the weights can't be loaded. If the network does not give one log-odds map, or a map of scores
        for each of several classes.

    Warns
    -----
    UserWarning
        If fewer than 8 images have foreground. If some have none. If the longer side of one image is more than 4 times
        that of another. If `time_budget` is too short.

    Examples
    --------
    >>> from skmmcrf import configure
    >>> from skmmcrf.datasets import make_phantoms
    >>> from skmmcrf.networks import UNet
    >>> X, y = make_phantoms(8, shape=(32, 32), random_state=0)
    >>> model = configure(X, y, network=UNet(1, width=8, depth=1), random_state=0, verbose=0)
    >>> model.cnn.network_scale, model.cnn.batch_size, model.cnn.n_epochs
    (1.0, 5, 300)
    >>> model = model.set_params(cnn__n_epochs=2, n_epochs=1).fit(X, y)
    """
    began = time.perf_counter()
    if isinstance(time_budget, bool):  # which would count as a number
        raise TypeError(f"time_budget must be a number of seconds above 0, got {time_budget}")
    labels: dict[str, Any] = {"pos_label": pos_label, "classes": classes, "ignore_label": ignore_label}
    given = {"time_budget": time_budget, "random_state": random_state, "verbose": verbose}
    validate_parameter_constraints(_CONSTRAINTS, given | labels, caller_name="configure")
    scheme = LabelScheme.of_classes(classes, pos_label, ignore_label)
    data = _checked(X, y, scheme)
    _warn_of(data)

    def chosen(name: str, value: Any, why: str) -> Any:
        if verbose:
            print(f"{name}={shown(value)}: {why}", flush=True)
        return value

    network, weights, why = _network(network, weights, data.n_channels)
    chosen("network", network, why)
    on_cpu = torch.device(resolve_device("auto")).type == "cpu"
    batch_size = chosen("batch_size", *_batch_size(len(data), on_cpu))
    class_weight = chosen("class_weight", *_class_weight(data.annotations, data.scheme.classes))
    cnn = CNNSegmenter(
        network,
        weights=weights,
        batch_size=batch_size,
        class_weight=class_weight,
        random_state=random_state,
        verbose=verbose,
        **labels,
    )
    cost_of_joint = _cost_of_joint(len(data), len(data.scheme.classes))
    search = cnn.search_scale(
        data.with_class_weight(data.scheme.check_class_weight(class_weight, data.annotations)),
        limit=_time_limit(cnn, len(data), cost_of_joint, time_budget),
    )
    shapes = [annotation.shape for annotation in data.annotations]
    scale = chosen("network_scale", search.factor, _why_factor(search, shapes))
    seconds = search.seconds[scale] * len(data)
    spent = time.perf_counter() - began
    n_epochs, why = _n_epochs(cnn, len(data), cost_of_joint, seconds, time_budget - spent)
    needed = spent + seconds * (n_epochs + cost_of_joint)
    if needed > 1.1 * time_budget:  # as the times are estimates
        warnings.warn(
            f"time_budget={time_budget:g} is too short: {spent:.0f} seconds have passed, and fit needs about "
            f"{needed - spent:.0f} more. Give about {needed:.0f} seconds",
            stacklevel=2,
        )
    cnn.set_params(
        network_scale=scale,
        crop=chosen("crop", *_crop(shapes, scale)),
        n_epochs=chosen("n_epochs", n_epochs, why),
        random_state=None,
        verbose=0,
    )
    return DeepStructuredSegmenter(cnn, batch_size=batch_size, random_state=random_state)


_CONSTRAINTS: dict[str, Any] = {
    "time_budget": [Interval(Real, 0, None, closed="right")],
    **{name: LABEL_CONSTRAINTS[name] for name in ("pos_label", "classes", "ignore_label")},
    "random_state": ["random_state"],
    "verbose": [Interval(Integral, 0, None, closed="left"), "boolean"],
}


def _checked(X: ImagesLike, y: LabelsLike | None, scheme: LabelScheme) -> LabelledImages:
    data = check_labelled_images(X, y, scheme, find_classes=True)
    warn_of_range(data[0][0], "X[0]")
    if len(data) == 1:
        raise ValueError("X has one image only, but settings are compared on images held out of training: give more")
    if not any(data.has_foreground):
        what, other = f"foreground, which is pos_label={scheme.pos_label},", "pos_label"
        if data.scheme.several:
            what, other = "labelled pixel", "ignore_label"
        raise ValueError(
            f"y has no {what} in any image, so settings can't be compared: give masks that have it, or another {other}"
        )
    return data


def _warn_of(data: LabelledImages) -> None:
    """Warn of images that are few, empty or very unequal."""
    n_with, what = sum(data.has_foreground), "labelled pixels" if data.scheme.several else "foreground"
    sides = [max(annotation.shape) for annotation in data.annotations]
    if n_with < _FEW_WITH_FOREGROUND:
        warnings.warn(
            f"the number of images with {what} is {n_with}: label at least {_FEW_WITH_FOREGROUND}, because "
            "settings that so few images choose depend on chance",
            stacklevel=3,
        )
    if n_with < len(data):
        warnings.warn(
            f"{len(data) - n_with} of {len(data)} masks are empty: see whether these images show no {what}, or are "
            "just not labelled",
            stacklevel=3,
        )
    if max(sides) > _UNEQUAL * min(sides):
        warnings.warn(
            f"the longer sides of the images are {min(sides)} to {max(sides)} pixels, but the network sees all images "
            "resized by one factor: resize the images before, so that objects have similar sizes in pixels",
            stacklevel=3,
        )


def _network(
    network: NetworkLike, weights: str | PathLike[str] | None, n_channels: int
) -> tuple[NetworkLike, str | PathLike[str] | None, str]:
    """The network and its weights, which can be loaded, and why."""
    why = "as given"
    if isinstance(network, str) and network == "auto":
        network = "unet" if weights is None else "unet_mobilenet_v2"
        why = "a small U-Net, because weights=None" if weights is None else f"a U-Net on a backbone, weights={weights}"
    if isinstance(weights, str) and weights == "imagenet" and not (isinstance(network, str) and "_" in network):
        weights = None
    try:
        with seeded(0):
            build_network(network, n_channels, weights)
    except ValueError as error:
        if weights is None or not str(error).startswith("weights:"):
            raise
        raise ValueError(f"{error}. Or give configure weights=None, which needs no file") from error
    return network, weights, why


def _batch_size(n_images: int, on_cpu: bool) -> tuple[int, str]:
    large = not on_cpu and n_images >= _MANY_IMAGES
    where = "the CPU" if on_cpu else "a device that computes many at once"
    return (_LARGE_BATCH_SIZE if large else _BATCH_SIZE), f"{n_images} images, on {where}"


def _class_weight(
    annotations: Sequence[Annotation], classes: Sequence[int]
) -> tuple[dict[int, float] | Literal["balanced"] | None, str]:
    counts = np.sum([np.bincount(a.truth[a.labelled], minlength=len(classes)) for a in annotations], axis=0)
    shares = counts / counts.sum()
    if len(classes) > 2:
        rare = {label: share for label, share in zip(classes, shares) if 0 < share < 1 / len(classes)}
        weights = {label: round(float((len(classes) * share) ** -0.5), 1) for label, share in rare.items()}
        weights = {label: min(weight, CLASS_WEIGHT_BOUNDS[1]) for label, weight in weights.items()}
        why = f"the rarest class in y has {shares[shares > 0].min():.2%} of the labelled pixels"
        return weights or None, f"{why}. An equal share would be {1 / len(classes):.0%}"
    if shares[1] < _RARE:
        return "balanced", f"only {shares[1]:.2%} of the labelled pixels are foreground"
    why = "of the labelled pixels are foreground, which the Dice part of the loss balances enough"
    return None, f"{shares[1]:.1%} {why}"


def _why_factor(search: ScaleSearch, shapes: Sequence[Sequence[int]]) -> str:
    height, width = (round(float(np.median(sides))) for sides in zip(*shapes))
    larger = [f"{factor:g}" for factor in candidate_factors(shapes) if factor not in search.seconds]
    untried = f" {', '.join(larger)} would take too long." if larger else ""
    size = f"{untried} The median image has {height} x {width} pixels"
    if len(search.seconds) == 1:
        smallest = "smallest factor for this size, which was compared with no other"
        return f"the {smallest if larger else 'only factor'}.{size}"
    if not search.ranked:
        return f"the largest factor up to 1, because no image held out has an index.{size}"
    behind = ", ".join(f"{factor:g}" for factor in sorted(search.seconds.keys() - search.scores.keys()))
    left_out = f" {behind} fell behind earlier, in shorter trainings." if behind else ""
    indices = ", ".join(f"{mean:.3f} at {factor:g}" for factor, mean in sorted(search.means.items()))
    return f"the factor with the best mean Jaccard index: {indices}.{left_out}{size}"


def _crop(shapes: Sequence[Sequence[int]], scale: float) -> tuple[int | None, str]:
    largest = round(scale * max(map(max, shapes)))
    seen = f"the network sees up to {largest} pixels of a side"
    if largest <= _LARGEST_SIDE:
        return None, seen
    side = round(_CROPPED_SIDE / scale)
    return side, f"{seen} of whole images, so training uses parts, of which it sees {_CROPPED_SIDE} pixels of a side"


def _cost_of_joint(n_images: int, n_classes: int) -> float:
    """The time of joint training, and of labelings by several classes, in epochs of pretraining."""
    n_epochs = DeepStructuredSegmenter().epochs_for(n_images)
    of_class = _COST_OF_CLASS + _COST_OF_CLASS_IN_JOINT_EPOCH * n_epochs
    return _COST_OF_JOINT_EPOCH * n_epochs + max(n_classes - 2, 0) * of_class


def _time_limit(cnn: CNNSegmenter, n_images: int, cost_of_joint: float, time_budget: float) -> TimeLimit:
    """What leaves the time for at least half of the epochs that are wanted."""
    n_epochs = _LEAST_SHARE_OF_EPOCHS * cnn.epochs_for(n_images) + cost_of_joint
    for_fit = (1 - _SHARE_FOR_SEARCH) * time_budget
    return TimeLimit(_SHARE_FOR_SEARCH * time_budget, for_fit / (n_epochs * n_images))


def _n_epochs(cnn: CNNSegmenter, n_images: int, cost_of_joint: float, seconds: float, left: float) -> tuple[int, str]:
    """Epochs of pretraining, for the seconds of an epoch and those that are left."""
    wanted = cnn.epochs_for(n_images)
    fitting = left / seconds - cost_of_joint if seconds > 0 else wanted
    n_steps = len(batch_sizes(n_images, cnn.batch_size))
    steps = f"an epoch has {n_steps} steps and takes about {seconds:.2g} s"
    if wanted <= fitting:
        return wanted, steps
    n_epochs = max(int(fitting), _FEWEST_EPOCHS, math.ceil(N_STEPS[0] / n_steps))
    total = seconds * (n_epochs + cost_of_joint)
    time_left = f"but only {max(left, 0):.0f} s of time_budget are left"
    return n_epochs, f"{steps}. {wanted} would be better, {time_left}. fit takes about {total:.0f} s"
