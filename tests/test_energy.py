import numpy as np
import pytest

from skmmcrf.energy import (
    estimate_sigma,
    grid_edges,
    joint_feature,
    joint_feature_difference,
    pairwise_features,
    scale_image,
    squared_contrast,
)


@pytest.mark.parametrize(
    ("shape", "connectivity", "n_edges"),
    [((3, 4), 4, 17), ((3, 4), 8, 29), ((1, 5), 8, 4), ((5, 1), 4, 4), ((1, 1), 8, 0), ((2, 2, 2), 6, 12)],
)
def test_grid_edges_counts_each_pair_of_neighbours_once(shape, connectivity, n_edges):
    edges, weights = grid_edges(shape, connectivity)
    assert edges.shape == (2, n_edges)
    assert len({frozenset(edge) for edge in edges.T.tolist()}) == n_edges
    positions = np.stack(np.unravel_index(edges, shape))
    offsets = positions[:, 0] - positions[:, 1]
    assert np.abs(offsets).max(initial=0) <= 1
    np.testing.assert_allclose(weights, 1 / np.linalg.norm(offsets, axis=0))


def test_grid_edges_of_26_neighbours_in_three_dimensions():
    edges, _ = grid_edges((3, 3, 3), 26)
    middle = 13
    assert np.count_nonzero(edges == middle) == 26


@pytest.mark.parametrize("connectivity", [0, 5, 6, 26])
def test_grid_edges_refuses_other_neighbourhoods(connectivity):
    with pytest.raises(ValueError, match="connectivity must be 4 or 8"):
        grid_edges((3, 3), connectivity)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([0, 255], dtype=np.uint8), [0, 1]),
        (np.array([0, 65535], dtype=np.uint16), [0, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([-3.0, 250.0]), [-3, 250]),
        (np.array([0.5], dtype=np.float16), [0.5]),
    ],
)
def test_images_are_scaled_by_their_dtype_and_floats_kept(image, expected):
    scaled = scale_image(image)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, expected)


def test_contrast_is_that_of_the_scaled_image():
    image = np.random.default_rng(0).integers(256, size=(5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(squared_contrast(image), squared_contrast(scale_image(image)))


def test_contrast_sums_over_channels():
    image = np.array([[[0.0, 0.0], [0.3, 0.4]]])
    np.testing.assert_allclose(squared_contrast(image), [0.25])
    _, features = pairwise_features(image, connectivity=4, sigma=0.5)
    np.testing.assert_allclose(features[:, 0], [1, np.exp(-0.25 / (2 * 0.25))])


def test_sigma_is_the_root_mean_square_over_all_pairs_of_all_images():
    images = [np.array([[[0.0], [0.5], [0.5]]]), np.array([[[0.0]], [[1.0]]])]
    assert estimate_sigma(images) == pytest.approx(np.sqrt((0.25 + 0 + 1) / 3))


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 4, 3)])
def test_sigma_of_constant_images_leaves_the_contrast_finite(shape):
    sigma = estimate_sigma([np.full(shape, 0.7)])
    _, features = pairwise_features(np.full(shape, 0.7), connectivity=8, sigma=sigma)
    np.testing.assert_array_equal(features[0], features[1])


@pytest.mark.parametrize("connectivity", [4, 8])
def test_joint_feature_is_the_energy_of_the_equations(random_grid, connectivity):
    log_odds, image, labels, _, _ = random_grid(0, connectivity=connectivity)
    edges, features = pairwise_features(image, connectivity=connectivity, sigma=0.3)
    w = np.array([1.5, 0.4, 0.7])
    probability = 1 / (1 + np.exp(-log_odds))
    expected = w[0] * -np.log(np.where(labels, probability, 1 - probability)).sum()
    for a in np.ndindex(labels.shape):
        for b in np.ndindex(labels.shape):
            steps = np.abs(np.subtract(a, b))
            neighbours = steps.sum() == 1 if connectivity == 4 else steps.max() == 1
            if a < b and neighbours and labels[a] != labels[b]:
                contrast = np.exp(-((image[a] - image[b]) ** 2).sum() / (2 * 0.3**2))
                expected += (w[1] + w[2] * contrast) / np.linalg.norm(steps)
    assert w @ joint_feature(labels, log_odds, edges, features) == pytest.approx(expected)


def test_difference_equals_the_difference(random_grid):
    log_odds, _, truth, edges, features = random_grid(1)
    labels = ~truth
    labels[0] = truth[0]
    expected = joint_feature(labels, log_odds, edges, features) - joint_feature(truth, log_odds, edges, features)
    np.testing.assert_allclose(joint_feature_difference(labels, truth, log_odds, edges, features), expected)


def test_saturated_log_odds_stay_finite(random_grid):
    log_odds, _, truth, edges, features = random_grid(2, scale=1e4)
    psi = joint_feature(truth, log_odds.astype(np.float32), edges, features)
    wrong = np.where(truth, -log_odds, log_odds)
    assert psi[0] == pytest.approx(np.maximum(wrong, 0).sum(), rel=1e-6)


@pytest.mark.parametrize("sigma", [1e-320, 1e-200, np.float64(1e-200), 1e200, np.float64(1e300)])
def test_sigma_may_be_tiny_or_huge(sigma):
    image = np.array([[[0.0], [0.0], [1.0], [50.0]]])
    expected = [1, 0, 0] if sigma < 1 else [1, 1, 1]
    np.testing.assert_array_equal(pairwise_features(image, connectivity=4, sigma=sigma)[1][1], expected)
