"""A cache of pretrained networks, and of factors that are found for them, for further fits, by joblib's memory."""

from collections.abc import Callable
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from filelock import FileLock
from joblib import Memory
from joblib import hash as hash_of
from sklearn.utils.validation import check_memory

from skmmcrf._shown import shortened
from skmmcrf._version import __version__
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.identity import as_text, names_of_data
from skmmcrf.images.checking import LabelledImages
from skmmcrf.networks.any_size import check_scales
from skmmcrf.training.checkpoints import Checkpoints

# parameters of the network that do not change what is learned, or do so by its first weights
_OF_NO_INFLUENCE = ("network", "weights", "callbacks", "checkpoint", "num_workers", "verbose")


def fit_once(
    cnn: CNNSegmenter,
    memory: Memory | str | None,
    data: LabelledImages,
    validation: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> None:
    """Fit a network to checked data, or take the fitted network from the memory."""
    cnn.__dict__.update(_once(_fit, cnn, memory, data, validation, checkpoints))
    if cnn.given_scale is not None:  # further factors are no part of the key
        cnn.network_scale_ = cnn.given_scale


def scale_once(
    cnn: CNNSegmenter,
    memory: Memory | str | None,
    data: LabelledImages,
    validation: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> float | list[float]:
    """Find the factors of a training on checked data, or take them from the memory."""
    return _once(_scale, cnn, memory, data, validation, checkpoints)


def _once(
    compute: Callable[..., Any],
    cnn: CNNSegmenter,
    memory: Memory | str | None,
    data: LabelledImages,
    validation: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> Any:
    """Compute what depends on a network's parameters and data, or take it from the memory."""
    location = getattr(memory, "location", memory)
    try:
        cache: Memory = check_memory(memory)
        if isinstance(location, (str, PathLike)):
            Path(location).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OSError(
            f"memory: networks can't be kept in {shortened(location)}: {shortened(error)}. "
            "Give a folder that can be written to"
        ) from error
    if location is None:
        return compute("", cnn, data, validation, checkpoints)
    key = _name_of(cnn, data, validation)
    compute = cache.cache(compute, ignore=["cnn", "data", "validation", "checkpoints"])
    lock: Any = nullcontext()
    if isinstance(location, (str, PathLike)):
        # candidates of a search that run side by side wait for one of them
        lock = FileLock(Path(location) / f"skmmcrf-{key}.lock")
    with lock:
        return compute(key, cnn, data, validation, checkpoints)


def _fit(
    key: str,
    cnn: CNNSegmenter,
    data: LabelledImages,
    validation: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> dict[str, Any]:
    """What the memory keeps, under its key."""
    with nullcontext(checkpoints) if checkpoints else cnn.open_checkpoints(data, validation) as kept:
        cnn.train(data, validation, kept)
    return {name: getattr(cnn, name) for name in CNNSegmenter._fitted_attributes}


def _scale(
    key: str,
    cnn: CNNSegmenter,
    data: LabelledImages,
    validation: LabelledImages | None,
    checkpoints: Checkpoints | None,
) -> float | list[float]:
    """What the memory keeps, under its key, and the checkpoint as the state of a network without epochs."""
    with nullcontext(checkpoints) if checkpoints else cnn.open_checkpoints(data, validation, finds="scale") as kept:
        scale = cnn.scale_for(data, validation, kept)
        if kept and kept.state is None:
            kept.write({"stage": "cnn", "network_scale": scale, "net": {"history": []}})
    return scale


def _name_of(cnn: CNNSegmenter, data: LabelledImages, validation: LabelledImages | None) -> str:
    """A name for everything that decides what is learned."""
    parameters = cnn.get_params(deep=False)
    for name in _OF_NO_INFLUENCE:
        del parameters[name]
    # the steps of training are with neither mirror images nor further scales
    if validation is None and cnn.given_scale is not None:
        del parameters["average_mirrored"]
        parameters["network_scale"] = check_scales(cnn.given_scale, "network_scale")[0]
    images = [names_of_data(part) for part in (data, validation) if part is not None]
    parameters = {name: as_text(value) if callable(value) else value for name, value in parameters.items()}
    return hash_of([__version__, parameters, data.scheme.classes, cnn.first_weights(data), images])
