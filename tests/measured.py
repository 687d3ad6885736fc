"""Measures of images, and estimators and labels to be measured."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from skmmcrf.metrics import (
    boundary_f_measures,
    dice_indices,
    hausdorff_distances,
    jaccard_indices,
    mean_boundary_f,
    mean_dice,
    mean_hausdorff,
    mean_jaccard,
)

MEASURES = {
    "jaccard": (jaccard_indices, mean_jaccard),
    "dice": (dice_indices, mean_dice),
    "boundary_f": (boundary_f_measures, mean_boundary_f),
    "hausdorff": (hausdorff_distances, mean_hausdorff),
}
every_measure = pytest.mark.parametrize("measure", [measure for measure, _ in MEASURES.values()])
every_mean = pytest.mark.parametrize(("measure", "mean"), MEASURES.values(), ids=MEASURES)


def best(measure):
    return 0 if measure is hausdorff_distances else 1


def worst(measure, shape):
    return np.hypot(*shape) if measure is hausdorff_distances else 0


class Given(BaseEstimator):
    """What it is given as an image is its result."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X


class Labelled(Given):
    """An estimator of others that says its labels."""

    def __init__(self, classes=(0, 1)):
        self.classes = classes

    @property
    def classes_(self):
        return np.array(self.classes)


def three_classes():
    """Truths and predictions of labels 0, 5 and 9, as arrays."""
    return np.array([[[0, 5, 255, 9]], [[0, 0, 5, 5]]]), np.array([[[0, 5, 9, 5]], [[5, 0, 5, 5]]])
