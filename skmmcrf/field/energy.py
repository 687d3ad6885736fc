"""The energy of an image, E(y) = w . psi(y), (2), for two labels: psi, and the labelings that minimise it.

A labeling is an array of bool, True in the foreground. One log-odds a pixel gives the unary term (3) of both labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any

import numpy as np
from joblib import delayed, effective_n_jobs
from numpy.typing import NDArray

from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, FloatArray, LabelArray
from skmmcrf.field.base_energy import LARGEST_LOG_ODDS, BaseEnergy, LogOddsError
from skmmcrf.field.features import Features, PairwiseFeatures, Source, read
from skmmcrf.field.grid import Grid
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.labels import Annotation
from skmmcrf.field.metric import MetricEnergy
from skmmcrf.field.minimum_cut import ListedCut
from skmmcrf.field.multiclass import MulticlassEnergy
from skmmcrf.field.pair_weights import COMPATIBILITIES, PairWeights
from skmmcrf.field.parametric_cut import critical_shifts
from skmmcrf.field.terms import Term
from skmmcrf.field.workers import workers

__all__ = [
    "LARGEST_LOG_ODDS",
    "Energy",
    "Features",
    "Field",
    "LogOddsError",
    "PairwiseFeatures",
    "least_labelings",
    "optimality_gaps",
    "smoothed_log_odds",
    "sources",
]

# of the images whose features are kept at once, which take 16 bytes a pixel with 8 neighbours
_MOST_PIXELS_KEPT = 2**24

_TOL_OF_SMOOTHED = 1e-3


@dataclass(frozen=True)
class Field:
    """A conditional random field: the neighbours of a pixel, and the pairwise terms.

    Parameters
    ----------
    grid : Grid
    terms : tuple of Term
        The pairwise terms, as `skmmcrf.field.build_terms` makes them.
    compatibility : {"potts", "metric"}, default="potts"
        Whether a term has one weight, or for scores of K labels one for each pair of labels. See `PairWeights`.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Grid, build_terms
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.array([[3.0, -1.0, 1.0]]), np.zeros((1, 3, 1)))
    >>> energy.least(np.array([1.0, 0.3, 0.3]))
    array([[ True,  True,  True]])
    """

    grid: Grid
    terms: tuple[Term, ...]
    compatibility: str = "potts"

    def __post_init__(self) -> None:
        if self.compatibility not in COMPATIBILITIES:
            names = " or ".join(map(repr, COMPATIBILITIES))
            raise ValueError(f"compatibility must be {names}, got {shown(self.compatibility)}")

    def weights(self, n_labels: int) -> PairWeights:
        """Give what the entries of w mean for a number of labels, and which w are allowed."""
        return PairWeights(len(self.terms), n_labels, self.compatibility)

    def energy(self, unary: Source, image: Source) -> Any:
        """Make the energy of an image (H, W, channels).

        Parameters
        ----------
        unary : ndarray of float
            Log-odds of foreground (H, W), for the `Energy` of two labels, or one score for each of K labels (K, H, W),
            for a `MulticlassEnergy` or `MetricEnergy`.
        image : ndarray of shape (H, W, channels)

        Returns
        -------
        Energy, MulticlassEnergy or MetricEnergy
        """
        return self._kind_of_energy(unary)(unary, PairwiseFeatures(self.grid, self.terms, image))

    def energies(self, unary: Sequence[FloatArray], images: Sequence[np.ndarray]) -> list[Any]:
        """Make the energies of many images, whose features are kept unless they are too large.

        Parameters
        ----------
        unary, images : list of ndarray of shape (H, W) or (K, H, W), and (H, W, channels), or other sequences
            The entries of a sequence that is not a list are read on every access.
        """
        few = isinstance(images, list) and sum(image[..., 0].size for image in images) <= _MOST_PIXELS_KEPT
        features = [PairwiseFeatures(self.grid, self.terms, image) for image in sources(images, in_memory=few)]
        values = sources(unary)
        kind = self._kind_of_energy(values[0]) if values else Energy
        return [kind(of_one, pairwise) for of_one, pairwise in zip(values, features, strict=True)]

    def _kind_of_energy(self, unary: Source) -> type[BaseEnergy]:
        if read(unary).ndim <= self.grid.ndim:
            return Energy
        return MetricEnergy if self.compatibility == "metric" else MulticlassEnergy


class Energy(BaseEnergy):
    """The energy of the labelings of one image by two labels, which minimum cuts minimise exactly.

    Parameters
    ----------
    unary : ndarray of float and shape (H, W), or callable
        l, the log-odds of foreground, or a function that reads them on every access.
    pairwise : PairwiseFeatures

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image.
    n_labels : int
        2.
    pairwise : PairwiseFeatures

    Raises
    ------
    LogOddsError
        If log-odds are not finite, or larger than `LARGEST_LOG_ODDS` in size.

    Examples
    --------
    See `Field`.
    """

    name, dtype = "log_odds", np.dtype(bool)

    @property
    def log_odds(self) -> FloatArray:
        """l, ndarray of float and shape (H, W)."""
        return self.unary

    def unary_difference(self, labels: LabelArray, truth: LabelArray) -> float:
        """Give the first entry of psi(y) - psi(y_n), sum_i l_i (y_n,i - y_i), which needs no features."""
        self._check_labelings(labels=labels, truth=truth)
        log_odds = self.log_odds
        return log_odds[truth & ~labels].sum(dtype=float) - log_odds[labels & ~truth].sum(dtype=float)

    def unary_differences(self, labelings: LabelArray, truth: LabelArray) -> FloatArray:
        """Give the first entries of psi(y) - psi(y_n) of many labelings (n, H, W), (n,)."""
        # 0 where labels agree, so that large log-odds there cost no digits
        changes = truth.astype(np.int8) - labelings
        return changes.reshape(len(labelings), -1) @ np.ravel(self.log_odds).astype(float)

    def change(self, labels: LabelArray, truth: LabelArray) -> NDArray[np.int8]:
        """Give y - y_n, the derivative of the first entry of psi(y_n) - psi(y) in the log-odds, of int8 and (H, W)."""
        return labels.astype(np.int8) - truth

    def least(self, w: FloatArray) -> BoolArray:
        """Give the labeling of least energy, (5), ndarray of bool and shape (H, W).

        For images of more than about a million pixels, the energy is rounded to float32.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            Weights. All but the first are pairwise, and must not be negative.

        Raises
        ------
        ValueError
            If w has another length. If a pairwise weight is negative.
        """
        return self._cut(w).labels()

    def smoothed_log_odds(self, w: FloatArray) -> NDArray[np.float32]:
        """Give the log-odds, smoothed so that their signs are the labels of `least`.

        The value u_i of a pixel is by how much all log-odds of the image would have to fall for the least labeling to
        give it background, or if it is negative, to rise for it to give foreground.

        Parameters
        ----------
        w : ndarray of shape (n_weights,)
            See `least`. The first must be positive.

        Returns
        -------
        ndarray of float32 and shape (H, W)
            u, positive where `least` gives foreground. Each is exact within 0.001, up to rounding.

        Raises
        ------
        ValueError
            See `least`. If the first weight is not positive.

        Notes
        -----
        With the costs of edges v_e >= 0, u minimises ``sum_i (u_i - l_i)^2 / 2 + sum_e v_e |u_i - u_j| / w1``. This is
        a total variation: its level sets are the labelings of least energy for all shifts, see
        `skmmcrf.field.parametric_cut.critical_shifts`.

        ``w1 |u_i|`` is a lower bound of the min-marginal, which is the energy that changing the label of pixel i costs
        if the other pixels adapt. If i keeps foreground while all log-odds fall by t, it does so while l_i alone falls
        by t, because the other log-odds are then larger, and least labelings only gain foreground with them. So to
        change it costs at least w1 t. The same holds for background.

        Examples
        --------
        >>> import numpy as np
        >>> from skmmcrf.field import Field, Grid, build_terms
        >>> field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
        >>> energy = field.energy(np.array([[3.0, -1.0, 2.0, -5.0]]), np.zeros((1, 4, 1)))
        >>> energy.smoothed_log_odds(np.array([1.0, 2.0])).round(2)
        array([[ 1. ,  0.5,  0.5, -3. ]], dtype=float32)
        """
        cut = self._cut(w)
        if not w[0] > 0:
            raise ValueError(f"w[0], the weight of the log-odds, must be positive, got {w[0]:g}")
        labels, shifts = critical_shifts(cut, _TOL_OF_SMOOTHED * w[0])
        smoothed = (shifts / w[0]).astype(np.float32)
        # rounding must not change a sign
        return np.where(labels, np.maximum(smoothed, np.finfo(np.float32).tiny), np.minimum(smoothed, 0))

    def most_violated(self, w: FloatArray, annotation: Annotation) -> BoolArray:
        """Give the labeling of least energy less its loss: the constraint of (8) that w violates most.

        The loss is the Hamming distance, weighted by the pixel weights of the annotation.
        """
        cut = self._cut(w)
        cut.terminal -= annotation.margin
        return cut.labels()

    def completion(self, w: FloatArray, annotation: Annotation) -> BoolArray:
        """Give the labeling of least energy among all that have the true labels where these are known."""
        cut, known, truth = self._cut(w), annotation.labelled, annotation.truth
        cut.fold(known, truth)
        return np.where(known, truth, cut.labels())

    def _cut(self, w: FloatArray) -> GridCut | ListedCut:
        """Give the cut of least energy, whose unary costs and edges may be changed before it is made."""
        self.weights.check(w)
        cut = self._cut_of_edges(w[1:])
        # -log Phi(1) + log Phi(0) = -l
        np.multiply(self.log_odds, -w[0], out=cut.terminal, casting="same_kind")
        return cut

    def _labels_and_shape(self, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        return 2, shape

    def _negative_log_likelihood(self, labels: LabelArray) -> float:
        # -log sigmoid(l) = log(1 + exp(-l)), without passing through the probability
        return np.logaddexp(0, np.where(labels, -1.0, 1.0) * self.log_odds).sum(dtype=float)


def least_labelings(
    w: FloatArray, energies: Iterable[BaseEnergy], n_jobs: int | None = None, *, overlap: bool = True
) -> Iterator[LabelArray]:
    """Give the labelings of least energy of many images, one after the other, (5).

    Parameters
    ----------
    w : ndarray of shape (n_weights,)
        See `Energy.least`.
    energies : iterable of Energy or MulticlassEnergy
        They are taken one by one, so they need not be in memory at once.
    n_jobs : int, optional
        The number of threads that cut side by side, as in joblib.
    overlap : bool, default=True
        Whether energies are taken while others are cut. A network on the CPU that gives them is slower then, because
        its threads wait for each other.
    """
    return _of_each(methodcaller("least", w), energies, n_jobs, overlap)


def smoothed_log_odds(
    w: FloatArray, energies: Iterable[Energy], n_jobs: int | None = None, *, overlap: bool = True
) -> Iterator[NDArray[np.float32]]:
    """Give the smoothed log-odds of many images, as `least_labelings` gives their labelings."""
    return _of_each(methodcaller("smoothed_log_odds", w), energies, n_jobs, overlap)


def optimality_gaps(
    w: FloatArray, energies: Iterable[BaseEnergy], n_jobs: int | None = None, *, overlap: bool = True
) -> Iterator[float]:
    """Bound how far the labelings of many images are from those of least energy, as `least_labelings` gives them."""
    return _of_each(methodcaller("optimality_gap", w), energies, n_jobs, overlap)


def _of_each(
    function: Callable[[Any], Any], energies: Iterable[BaseEnergy], n_jobs: int | None, overlap: bool
) -> Iterator[Any]:
    job, energies = delayed(function), iter(energies)
    if overlap:
        yield from workers(n_jobs)(map(job, energies))
        return
    with workers(n_jobs) as parallel:
        while some := list(islice(energies, 2 * effective_n_jobs(n_jobs))):
            yield from parallel(map(job, some))


def sources(arrays: Sequence[np.ndarray], *, in_memory: bool = True) -> list[Source]:
    """Give the arrays of a list, unless they are too large. Give functions that read the entries of other sequences."""
    if in_memory and isinstance(arrays, list):
        return list(arrays)
    return [partial(arrays.__getitem__, n) for n in range(len(arrays))]
