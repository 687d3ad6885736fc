"""Images that are legal and hard for a network and a field: each ends within its bounds, with a finite model."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter

TOL = 1e-3
EXTREME_C = [1e-8, 1.0, 1e8]


def assert_finite_and_within_bounds(model, X, y):
    """The model is finite, its gap is closed, and its labels are those of the images' pixels."""
    assert model.coef_.shape == (3,)
    assert np.isfinite(model.coef_).all()
    assert (model.coef_[1:] >= 0).all()
    assert np.isfinite(model.objective_)
    # w = 0 is feasible, with all pixels wrong
    most = model.C * np.mean([np.size(truth) for truth in y])
    assert 0 <= model.objective_ - model.dual_gap_ <= most * (1 + 1e-9)
    assert 0 <= model.dual_gap_ <= TOL * model.objective_
    assert np.isfinite(model.slack_).all()
    assert (model.slack_ >= 0).all()
    for labels, truth in zip(model.predict(X), y, strict=True):
        assert labels.shape == np.shape(truth)
        assert np.isin(labels, (0, 1)).all()


class Constant(nn.Module):
    """Gives one value, which can be trained, for every pixel."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images):
        return 0 * images[:, :1] + self.value


def pixelwise(n_channels):
    return nn.Conv2d(n_channels, 1, 1)


def trained(network, X, y, C):
    cnn = CNNSegmenter(network, n_epochs=1, device="cpu", random_state=0)
    model = DeepStructuredSegmenter(cnn, n_epochs=1, C=C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of batches; the final model is checked
        warnings.filterwarnings("ignore", "y has no foreground|X.0. holds floats")
        model.fit(X, y)
    assert_finite_and_within_bounds(model, X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert all(np.isfinite(row[key]) for row in model.history_ for key in ("loss", "gamma") if key in row)
    return model


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_a_network_whose_output_is_constant(phantoms, C, value):
    X, y = phantoms
    trained(Constant(value), X, y, C=C)


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X[:1], y[:1]),
        lambda X, y: (X[[0, 0, 0]], y[[0, 0, 0]]),
        lambda X, y: (X[[0, 0]], np.stack([y[0], 1 - y[0]])),
        lambda X, y: (np.zeros_like(X), y),
        lambda X, y: (X[:, :1, :1], y[:, :1, :1]),
        lambda X, y: (X.reshape(1, 1, -1)[..., :5000], y.reshape(1, 1, -1)[..., :5000]),
        lambda X, y: (X, np.where(np.random.default_rng(0).uniform(size=y.shape) < 0.3, 1 - y, y)),
        lambda X, y: (X, 0 * y),
        lambda X, y: (X, 0 * y + 1),
    ],
    ids=[
        "one image", "images alike", "opposite truths", "constant images", "single pixels", "a line", "wrong labels",
        "no foreground", "no background",
    ],
)  # fmt: skip
def test_hard_images_for_network_and_field(phantoms, C, change):
    X, y = change(*phantoms)
    trained(pixelwise, X, y, C=C)
