"""Problems that are legal and hard: each ends within its bounds, with a finite model that predicts."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skmmcrf import DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.metrics import mean_jaccard

TOL = 1e-3
EXTREME_C = [1e-8, 1.0, 1e8]


def stacked(log_odds, images):
    return np.stack([log_odds, images], axis=-1)


def noisy(y, seed=0):
    """Log-odds that are mostly right, and an image with the edges of the truth."""
    rng = np.random.default_rng(seed)
    return 2.0 * y - 1 + rng.normal(size=y.shape), y + 0.1 * rng.normal(size=y.shape)


def assert_finite_and_within_bounds(model, X, y, tol=TOL):
    """The model is finite, its gap is closed, and its labels are those of the images' pixels."""
    assert model.coef_.shape == (3,)
    assert np.isfinite(model.coef_).all()
    assert (model.coef_[1:] >= 0).all()
    assert np.isfinite(model.objective_)
    # w = 0 is feasible, with all pixels wrong
    crf = getattr(model, "crf_", model)
    most = crf.C * np.mean([np.size(truth) for truth in y])
    assert 0 <= model.objective_ - model.dual_gap_ <= most * (1 + 1e-9)
    assert 0 <= model.dual_gap_ <= tol * model.objective_
    assert np.isfinite(crf.slack_).all()
    assert (crf.slack_ >= 0).all()
    for labels, truth in zip(model.predict(X), y, strict=True):
        assert labels.shape == np.shape(truth)
        assert np.isin(labels, (0, 1)).all()


def learned(Z, y, **parameters):
    crf = MaxMarginCRF(**{"tol": TOL} | parameters).fit(Z, y)
    assert_finite_and_within_bounds(crf, Z, y, tol=crf.tol)
    return crf


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_truth_that_no_labeling_can_fit(C, connectivity):
    # the same log-odds and image with opposite truths, and checkerboards that every pairwise weight speaks against
    board = np.indices((9, 10)).sum(axis=0) % 2
    y = np.stack([board, 1 - board])
    log_odds, image = (a[np.zeros(2, int)] for a in noisy(board[np.newaxis]))
    crf = learned(stacked(log_odds, image), y, C=C, connectivity=connectivity)
    # whatever is right for one is wrong for the other
    assert crf.score(stacked(log_odds, image), y) < 0.7


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, -1.0, 1e4, -1e4, 1e6])
def test_constant_log_odds(phantoms, C, value):
    X, y = phantoms
    crf = learned(stacked(np.full(y.shape, value), X / 255), y, C=C)
    if value == 0:
        assert crf.coef_[0] == 0


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize(
    "images",
    [
        lambda y: np.zeros(y.shape),
        lambda y: np.ones(y.shape),
        lambda y: np.full(y.shape, -1e30),
        lambda y: 1e30 * np.random.default_rng(0).normal(size=y.shape),
        lambda y: 3e38 * (y - 0.5),
        lambda y: 1e-30 * y,
    ],
    ids=["all 0", "all 1", "all -1e30", "noise of 1e30", "edges of 3e38", "edges of 1e-30"],
)
@pytest.mark.parametrize("sigma", ["auto", 1e-300, 1e-8, 1.0, 1e300])
def test_contrast_terms_of_0_and_of_1(phantoms, C, images, sigma):
    _, y = phantoms
    y = y[:2, ::2, ::2]
    learned(stacked(noisy(y)[0], images(y)), y, C=C, sigma=sigma)


@pytest.mark.parametrize("C", EXTREME_C)
def test_all_images_equal(C):
    y = np.zeros((5, 8, 9), dtype=int)
    y[:, 2:6, 3:7] = 1
    Z = np.repeat(stacked(*noisy(y))[:1], 5, axis=0)
    crf, alone = learned(Z, y, C=C, tol=1e-9), learned(Z[:1], y[:1], C=C, tol=1e-9)
    assert crf.objective_ == pytest.approx(alone.objective_)
    np.testing.assert_allclose(crf.coef_, alone.coef_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("C", EXTREME_C)
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("label", [0, 1, None])
def test_one_image_of_extreme_shape(C, shape, label):
    y = np.random.default_rng(1).integers(0, 2, (1, *shape)) if label is None else np.full((1, *shape), label)
    learned(stacked(*noisy(y)), y, C=C)


@pytest.mark.parametrize("C", EXTREME_C)
def test_images_of_extreme_shapes_together(C):
    y = [
        np.random.default_rng(n).integers(0, 2, shape) for n, shape in enumerate([(1, 1), (1, 500), (20, 30), (700, 1)])
    ]
    learned([stacked(*noisy(labels)) for labels in y], y, C=C)


@pytest.mark.parametrize("C", EXTREME_C)
def test_many_wrong_labels(phantoms, C):
    X, y = phantoms
    wrong = np.random.default_rng(0).uniform(size=y.shape) < 0.3
    Z = stacked(noisy(y)[0], X / 255)
    learned(Z, np.where(wrong, 1 - y, y), C=C)


@pytest.mark.parametrize("C", EXTREME_C)
def test_one_labelled_pixel_an_image(C):
    rng = np.random.default_rng(0)
    y = np.full((4, 18, 22), 255)
    y[:, 0, 0] = [1, 0, 0, 0]
    truth = rng.uniform(size=y.shape) < 0.4
    learned(stacked(noisy(truth)[0], rng.uniform(size=y.shape)), y, C=C)


def test_the_field_sees_through_wrong_labels(phantoms):
    X, y = phantoms
    wrong = np.random.default_rng(0).uniform(size=y.shape) < 0.3
    Z = stacked(noisy(y)[0], X / 255)
    assert learned(Z, np.where(wrong, 1 - y, y)).score(Z, y) > mean_jaccard(y, Z[..., 0] > 0) + 0.1


def test_what_does_not_converge_says_so_and_is_finite(phantoms):
    X, y = phantoms
    Z = stacked(noisy(y)[0], X / 255)
    with pytest.warns(ConvergenceWarning, match="did not converge in max_iter=1 passes"):
        crf = MaxMarginCRF(1e8, tol=0, max_iter=1).fit(Z, y)
    assert crf.n_iter_ == 1
    assert_finite_and_within_bounds(crf, Z, y, tol=1.0)


# ---------------------------------------------------------------------------------------------------------------------
# With a network


class Constant(nn.Module):
    """Gives one value, which can be trained, for every pixel."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images):
        return 0 * images[:, :1] + self.value


def pixelwise(n_channels):
    return nn.Conv2d(n_channels, 1, 1)


def trained(network, X, y, **parameters):
    model = DeepStructuredSegmenter(
        network, **{"pretrain_epochs": 1, "n_epochs": 1, "device": "cpu", "random_state": 0} | parameters
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of batches; the final model is checked
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


@pytest.mark.slow
def test_a_large_image():
    rows, columns = np.ogrid[:3000, :2000]
    truth = (np.hypot(rows - 1600, columns - 900) < 700).astype(int)[np.newaxis]
    log_odds, image = noisy(truth)
    wrong = np.random.default_rng(1).uniform(size=truth.shape) < 0.05
    y = np.where(wrong, 1 - truth, truth)
    Z = stacked(log_odds + 4.0 * truth - 2, image).astype(np.float32)
    crf = learned(Z, y)
    assert crf.score(Z, truth) > 0.99
