"""Networks of folds of the training images, which give log-odds of images that they have not seen."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Integral
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state

from skmmcrf._shown import shortened, shown
from skmmcrf._typing import RandomStateLike
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.images.checking import LabelledImages
from skmmcrf.images.sequences import Mapped
from skmmcrf.metrics.means import mean_of_defined
from skmmcrf.networks.ensemble import MeanOfNetworks
from skmmcrf.training.random_states import seeded


class Splitter(Protocol):
    """What splits images into folds, such as `sklearn.model_selection.KFold`."""

    def split(self, X: Any) -> Iterator[tuple[Any, Any]]:
        """Give the numbers to train on and the numbers left out, for each fold."""


#: Images to train on and to validate on.
Part: TypeAlias = tuple[LabelledImages, LabelledImages | None]

#: What the parameter `cv` may be.
FoldsLike: TypeAlias = int | Splitter | Sequence[tuple[Any, Any]] | None

_MEANT = (
    "cv must be a number of folds, a splitter of scikit-learn, or a list of pairs of the numbers of images to train on "
    "and to leave out"
)


@dataclass(frozen=True)
class Fold:
    """Numbers of the images that a network is trained on, and of those that are left out."""

    kept: NDArray[np.int_]
    left_out: NDArray[np.int_]

    def images_of(self, data: LabelledImages) -> LabelledImages:
        """Give the images to train on, with weights of a mean of 1."""
        return data.chosen(self.kept.tolist()).weighted_anew()


def check_kind_of_folds(cv: Any) -> None:
    """Raise a TypeError if folds could be read once only."""
    if isinstance(cv, Iterator):
        raise TypeError(f"{_MEANT}, got {shown(cv)}, which can be read once only: give list() of it")


def read_folds(cv: FoldsLike, n_images: int, random_state: RandomStateLike) -> list[Fold]:
    """Give the folds that the parameter `cv` means. None are given for None.

    Raises
    ------
    ValueError, TypeError
        If `cv` is none of what it may be. If not every image is left out once. If a network would be trained on images
        that are left out, or on none.

    Examples
    --------
    >>> [fold.left_out.size for fold in read_folds(3, 8, random_state=0)]
    [3, 3, 2]
    """
    if cv is None:
        return []
    splitter: Any = cv
    if isinstance(splitter, Integral):
        if not 2 <= int(splitter) <= n_images:
            raise ValueError(f"cv must be between 2 and the number of images, {n_images}, got {splitter}")
        splitter = KFold(int(splitter), shuffle=True, random_state=check_random_state(random_state))
    if isinstance(splitter, (str, bytes)):
        raise ValueError(f"{_MEANT}, got {shown(splitter)}")
    try:
        pairs = splitter.split(np.arange(n_images)) if hasattr(splitter, "split") else splitter
        folds = [Fold(_numbers(kept, n_images), _numbers(left_out, n_images)) for kept, left_out in pairs]
    except (TypeError, ValueError, IndexError) as error:
        hint = ""
        if needed := [name for name in ("y", "groups") if f"'{name}'" in str(error)]:
            given = f"{type(cv).__name__}(...).split(X, {needed[0]}=...)"
            hint = f". It gets nothing but the images: give list({given}), with one entry of {needed[0]} an image"
        reason = shortened(error).removesuffix(".")
        raise ValueError(f"{_MEANT}, but {shown(cv)} gave the error: {reason}{hint}") from error
    left_out = np.concatenate([fold.left_out for fold in folds]) if folds else np.empty(0, int)
    if not np.array_equal(np.sort(left_out), np.arange(n_images)):
        raise ValueError(f"cv must leave out each of the {n_images} images once, in one of its {len(folds)} folds")
    for n, fold in enumerate(folds):
        if not fold.kept.size or np.isin(fold.kept, fold.left_out).any():
            raise ValueError(
                f"cv: {name_of_fold(n, folds)} must train on some images, and on none of those that it leaves out"
            )
    return folds


def name_of_fold(n: int, folds: Sequence[Any]) -> str:
    """Give what messages call a fold.

    Examples
    --------
    >>> name_of_fold(0, ["first", "second"])
    'fold 1 of 2'
    """
    return f"fold {n + 1} of {len(folds)}"


def _numbers(given: Any, n_images: int) -> NDArray[np.int_]:
    return np.arange(n_images)[np.asarray(given)]


def parts_of_folds(
    folds: Sequence[Fold], cnn: CNNSegmenter, data: LabelledImages, validation: LabelledImages | None
) -> list[Part]:
    """Give the images that the network of each fold is trained and validated on, after a trial of the network.

    Raises
    ------
    ValueError, TypeError
        If the network can't be trained on a fold.
    """
    if folds:
        with seeded(0) as seed:
            cnn.build(data, seed)  # what is wrong in every fold is told without naming one
    parts = []
    for n, fold in enumerate(folds):
        try:
            part = cnn.hold_out(fold.images_of(data), validation)
            cnn.try_on(*part)
        except ValueError as error:
            raise ValueError(f"cv: {name_of_fold(n, folds)}: {error}") from error
        parts.append(part)
    return parts


def mean_of(cnns: Sequence[CNNSegmenter], data: LabelledImages) -> CNNSegmenter:
    """Make the estimator whose network gives the mean log-odds of several, trained on folds of the data.

    Entries of its history are means over the networks, and their seconds are sums. Of one estimator it is that one.
    """
    if len(cnns) == 1:
        return cnns[0]
    mean = copy.copy(cnns[0])
    network = MeanOfNetworks(cnn.network_ for cnn in cnns)
    return mean.adopt(network, _mean_history([cnn.history_ for cnn in cnns]), data, mean.network_scale_)


def _mean_history(histories: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for of_epoch in zip_longest(*histories):
        present = [row for row in of_epoch if row]
        numbers = {key: [row[key] for row in present] for key in present[0] if key not in ("stage", "epoch")}
        means = {key: mean_of_defined(np.array(values)) for key, values in numbers.items()}
        rows.append({**present[0], **means, "seconds": sum(numbers["seconds"])})
    return rows


def log_odds_of_left_out(
    cnns: Sequence[CNNSegmenter], folds: Sequence[Fold], data: LabelledImages
) -> Sequence[NDArray[np.float32]]:
    """Give each image's log-odds by the network that was trained without it."""
    parts: list[Sequence[NDArray[np.float32]]] = []
    places: list[tuple[int, int]] = [(0, 0)] * len(data)
    for k, (cnn, fold) in enumerate(zip(cnns, folds, strict=True)):
        parts.append(cnn._runner().log_odds(cnn.network_, data.chosen(fold.left_out.tolist()).images))
        for position, n in enumerate(fold.left_out):
            places[n] = (k, position)
    read = Mapped(lambda place: parts[place[0]][place[1]], places)
    return read if data.is_lazy else list(read)
