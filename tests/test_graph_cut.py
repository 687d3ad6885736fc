import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from strategies import problems, weights

from skmmcrf.energy import joint_feature, joint_feature_difference, pairwise_features
from skmmcrf.graph_cut import loss_augmented_labeling, minimum_cut, minimum_energy_labeling, segment

WEIGHTS = [np.array(w) for w in ([1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [1.0, 0.0, 0.0], [-0.7, 0.4, 0.4], [0.0, 1.0, 1.0])]


@pytest.mark.parametrize("shape", [(3, 4), (1, 6), (5, 1), (1, 1)])
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("w", WEIGHTS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_inference_equals_enumeration(random_grid, all_labelings, shape, connectivity, w, seed):
    log_odds, _, truth, edges, features = random_grid(seed, shape, connectivity)

    def energy(labels):
        return w @ joint_feature(labels, log_odds, edges, features)

    def augmented(labels):
        return energy(labels) - np.count_nonzero(labels != truth)

    found = minimum_energy_labeling(w, log_odds, edges, features)
    assert energy(found) == pytest.approx(min(map(energy, all_labelings(shape))), abs=1e-9)
    found = loss_augmented_labeling(w, log_odds, truth, edges, features)
    assert augmented(found) == pytest.approx(min(map(augmented, all_labelings(shape))), abs=1e-9)


def test_no_pairwise_weight_is_the_sign_of_the_log_odds(random_grid):
    log_odds, image, *_ = random_grid(0, (9, 7))
    (labels,) = segment(np.array([1.0, 0, 0]), [(log_odds, image)], connectivity=8, sigma=0.1)
    np.testing.assert_array_equal(labels, log_odds > 0)


def test_segment_is_the_same_in_processes(random_grid):
    problems = [random_grid(seed, (8, 9)) for seed in range(3)]
    problems = [p[:2] for p in problems]
    w = np.array([1.0, 0.5, 0.5])
    alone = list(segment(w, problems, connectivity=8, sigma=0.2))
    together = list(segment(w, problems, connectivity=8, sigma=0.2, n_jobs=2))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together))


@pytest.mark.parametrize("function", [minimum_energy_labeling, loss_augmented_labeling])
@pytest.mark.parametrize("w", [[1, -0.1, 1], [1, 1, -1e-9]])
def test_negative_pairwise_weights_are_refused(random_grid, function, w):
    log_odds, _, truth, edges, features = random_grid(0)
    arguments = [truth] if function is loss_augmented_labeling else []
    with pytest.raises(ValueError, match="pairwise weights must not be negative"):
        function(np.array(w), log_odds, *arguments, edges, features)


def test_negative_capacities_are_refused():
    with pytest.raises(ValueError, match="capacities must not be negative, got -0.5"):
        minimum_cut(np.zeros(2), np.array([[0], [1]]), np.array([-0.5]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    edges, features = pairwise_features(np.zeros((1, 2, 1)), connectivity=4, sigma=1.0)
    with pytest.raises(ValueError, match="must be finite"):
        minimum_energy_labeling(np.ones(3), np.array([[0.0, value]]), edges, features)
    with pytest.raises(ValueError, match="must be finite"):
        minimum_cut(np.zeros(2), edges, np.array([value]))


@given(problems(max_images=1), weights())
def test_no_labeling_of_any_problem_is_better(all_labelings, problem, w):
    log_odds, image, truth = problem.log_odds[0], problem.images[0], problem.truths[0]
    edges, features = pairwise_features(image, connectivity=problem.connectivity, sigma=problem.sigma)

    def energy(labels):  # less that of the truth, which spares digits
        return w @ joint_feature_difference(labels, truth, log_odds, edges, features)

    def augmented(labels):
        return energy(labels) - np.count_nonzero(labels != truth)

    labelings = all_labelings(truth.shape)
    size = abs(w[0]) * np.abs(log_odds).sum(dtype=float) + (w[1:] @ features).sum() + truth.size
    found = minimum_energy_labeling(w, log_odds, edges, features)
    assert energy(found) <= min(map(energy, labelings)) + 1e-12 * size
    found = loss_augmented_labeling(w, log_odds, truth, edges, features)
    assert augmented(found) <= min(map(augmented, labelings)) + 1e-12 * size


@given(problems(max_images=1), weights())
def test_mirroring_any_image_mirrors_the_result(problem, w):
    log_odds, image = problem.log_odds[0], problem.images[0]
    crf = {"connectivity": problem.connectivity, "sigma": problem.sigma}
    edges, features = pairwise_features(image, **crf)
    found = minimum_energy_labeling(w, log_odds, edges, features)
    mirrored = minimum_energy_labeling(w, log_odds[:, ::-1], *pairwise_features(image[:, ::-1], **crf))[:, ::-1]
    # labelings of equal energy may be exchanged
    size = abs(w[0]) * np.abs(log_odds).sum(dtype=float) + (w[1:] @ features).sum()
    difference = joint_feature_difference(mirrored, found, log_odds, edges, features)
    assert abs(w @ difference) <= 1e-12 * size


def test_processes_that_cut_import_no_torch():
    code = "import sys, skmmcrf.max_margin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
