"""The conditional random field: its grid, its terms, and the energy of an image. Plain arrays, no torch."""

from skmmcrf.field.energy import Energy, Features, Field, PairwiseFeatures
from skmmcrf.field.grid import Grid
from skmmcrf.field.labels import UNLABELLED, Annotation
from skmmcrf.field.metric import MetricEnergy
from skmmcrf.field.minimum_cut import minimum_cut
from skmmcrf.field.multiclass import MulticlassEnergy
from skmmcrf.field.pair_weights import PairWeights
from skmmcrf.field.terms import Contrast, Smoothness, build_terms, estimate_sigma

__all__ = [
    "UNLABELLED",
    "Annotation",
    "Contrast",
    "Energy",
    "Features",
    "Field",
    "Grid",
    "MetricEnergy",
    "MulticlassEnergy",
    "PairWeights",
    "PairwiseFeatures",
    "Smoothness",
    "build_terms",
    "estimate_sigma",
    "minimum_cut",
]
