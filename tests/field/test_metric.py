"""Energies of several labels whose pairs have costs of their own, held against all labelings of small images."""

import pickle

import numpy as np
import pytest
from small_images import all_differences, all_labelings, all_losses, field_of, like, random_classes, random_weights

from skmmcrf.field import Annotation, MetricEnergy, PairWeights, blocks, grid_cut
from skmmcrf.field.expansion import _Labeling, least_unary
from skmmcrf.field.metric import _star_below


def random_metric(seed, shape=(3, 3), n_labels=3, connectivity=8, scale=1.0):
    energy, truth = random_classes(seed, shape, n_labels, connectivity, scale=scale, compatibility="metric")
    return energy, truth, random_weights(seed, energy.weights, scale=0.7)


@pytest.fixture(params=["numba", "pymaxflow"])
def _engine(request, monkeypatch):
    if request.param == "pymaxflow":
        monkeypatch.setattr(grid_cut, "available", lambda: False)


@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize(("shape", "connectivity"), [((3, 3), 8), ((2, 2, 2), 6), ((1, 6), ((0, 1), (0, 9)))], ids=str)
def test_psi_is_that_of_the_equations(monkeypatch, shape, connectivity):
    energy, labels, w = random_metric(1, shape, connectivity=connectivity)
    image, grid = energy.pairwise._image, energy.pairwise.grid
    expected, cost = np.zeros((2, 3, 3)), 0.0
    for one in np.ndindex(shape):
        for other in np.ndindex(shape):
            step = np.subtract(other, one)
            if tuple(step) in grid.offsets:
                contrast = np.exp(-((image[one] - image[other]) ** 2).sum() / (2 * 0.3**2))
                features = np.array([1, contrast]) / np.linalg.norm(step)
                expected[:, min(labels[one], labels[other]), max(labels[one], labels[other])] += features
                cost += energy.weights.matrices(w)[:, labels[one], labels[other]] @ features
    psi = energy.psi(labels)
    np.testing.assert_allclose(psi[1:], [matrix[pair] for matrix in expected for pair in [(0, 1), (0, 2), (1, 2)]])
    assert psi[1:] @ w[1:] == pytest.approx(cost)
    monkeypatch.setattr(blocks, "_PIXELS_OF_BLOCK", 4)
    np.testing.assert_allclose(like(energy, energy.scores, image).psi(labels), psi)


@pytest.mark.usefixtures("_engine")
def test_differences_are_those_of_psi():
    energy, truth, _ = random_metric(2)
    for labels, expected in zip(all_labelings((3, 3), 3)[::997], all_differences(energy, truth)[::997]):
        np.testing.assert_allclose(energy.difference(labels, truth), expected, atol=1e-12)
        np.testing.assert_allclose(energy.psi(labels) - energy.psi(truth), expected, atol=1e-12)


@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize("n_labels", [3, 5])
@pytest.mark.parametrize(("shape", "connectivity"), [((3, 3), 8), ((2, 2, 2), 26)], ids=str)
def test_each_move_is_the_best_of_all_moves(shape, connectivity, n_labels):
    subsets, n_moved = all_labelings(shape), 0
    for seed in range(4):
        energy, labels, w = random_metric(seed, shape, n_labels, connectivity)
        known = np.random.default_rng(seed).uniform(size=shape) < 0.2
        problem = energy._problem(w)
        for label in range(n_labels):
            for fixed in (np.zeros(shape, bool), known):
                labeling = _Labeling(problem, labels, fixed)
                n_moved += labeling.move_to(label)
                moves = np.unique([np.where(m & ~fixed, np.uint8(label), labels) for m in subsets], axis=0)
                least = min(energy.difference(each, labels) @ w for each in moves)
                assert energy.difference(labeling.labels, labels) @ w == pytest.approx(least, abs=1e-9)
                np.testing.assert_allclose(labeling.costs, problem.unary_of(labeling.labels))
    assert n_moved > 20


@pytest.mark.parametrize("n_labels", [3, 4])
def test_a_labeling_is_within_the_factor_of_the_metric_and_mostly_the_least(n_labels):
    is_least = []
    for seed in range(25):
        energy, truth, w = random_metric(seed, (2, 4), n_labels, scale=(0.5, 2.0)[seed % 2])
        problem, energies = energy._problem(w), all_differences(energy, truth) @ w
        of_truth = problem.energy(truth) - problem.unary_of(least_unary(problem)).sum()
        least, found = of_truth + energies.min(), of_truth + energy.difference(energy.least(w), truth) @ w
        costs = np.tensordot(energy.weights.matrices(w), energy.pairwise.compute().rows, axes=(0, 0))
        costs = costs[np.triu_indices(n_labels, 1)]
        assert -1e-9 <= least <= found + 1e-9
        assert found <= 2 * (costs.max(axis=0) / costs.min(axis=0)).max() * least + 1e-9
        is_least.append(found <= least + 1e-9)
        begun = energy.most_violated(w, Annotation(truth, class_weight=(1.0,) * n_labels))
        assert energy.difference(begun, truth) @ w - (begun != truth).sum() <= 1e-9
    assert np.mean(is_least) > 0.9


@pytest.mark.usefixtures("_engine")
@pytest.mark.parametrize(("shape", "n_labels"), [((3, 3), 3), ((2, 3), 4), ((2, 2), 6)], ids=str)
def test_no_labeling_has_less_energy_than_the_bound_and_proved_ones_are_least(shape, n_labels):
    gaps = []
    for seed in range(12):
        energy, truth, w = random_metric(seed, shape, n_labels, scale=(0.5, 2.0)[seed % 2])
        energies = all_differences(energy, truth) @ w
        annotation = Annotation(truth, truth != 1, class_weight=tuple(np.arange(1.0, n_labels + 1)))
        for n_rounds in (1, 3, 30):
            labels, gap = energy.bound(w, n_rounds=n_rounds)
            found = energy.difference(labels, truth) @ w
            assert found - gap <= energies.min() + 1e-9 <= found + 2e-9
            labels, gap_of_loss = energy.bound(w, annotation, n_rounds)
            found = energy.difference(labels, truth) @ w - annotation.loss(labels)
            assert found - gap_of_loss <= (energies - all_losses(annotation)).min() + 1e-9 <= found + 2e-9
        gaps += [gap, gap_of_loss]
        assert energy.optimality_gap(w, 30) == pytest.approx(gap, abs=1e-9)
    assert np.mean(np.array(gaps) == 0) > (0.5 if n_labels == 3 else 0.2)


@pytest.mark.parametrize("n_labels", [2, 3, 4, 8])
def test_a_star_lies_below_its_metric_and_reaches_it_for_three_labels(n_labels):
    one, other = np.triu_indices(n_labels, 1)
    for seed in range(20):
        weights = PairWeights(1, n_labels, "metric")
        (matrix,) = weights.matrices(random_weights(seed, weights, scale=10.0 ** (seed - 10)))
        star = _star_below(matrix)
        assert (star >= 0).all()
        sums, costs = star[one] + star[other], matrix[one, other]
        assert (sums <= costs * (1 + 1e-15)).all()
        assert star.sum() >= matrix.min(axis=1, where=matrix > 0, initial=np.inf).sum() / 2 * (1 - 1e-9)
        if n_labels == 3:
            np.testing.assert_allclose(sums, costs)
    np.testing.assert_allclose(_star_below(np.zeros((3, 3))), 0)
    np.testing.assert_allclose(_star_below(0.7 * (1 - np.eye(5))), 0.35)


@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_equal_weights_of_all_pairs_are_those_of_a_potts_term(n_labels):
    for seed in range(5):
        potts, truth = random_classes(seed, (9, 10), n_labels, scale=1.0)
        energy = MetricEnergy(potts.scores, potts.pairwise)
        annotation = Annotation(truth, truth != 1, class_weight=(1.0,) * n_labels)
        w = np.array([1.0, 0.3, 0.5])
        alike = np.append(w[0], np.repeat(w[1:], energy.weights.n_pairs))
        for of_metric, of_potts in [
            (energy.least(alike), potts.least(w)),
            (energy.most_violated(alike, annotation), potts.most_violated(w, annotation)),
            (energy.completion(alike, annotation), potts.completion(w, annotation)),
        ]:
            np.testing.assert_array_equal(of_metric, of_potts)
        assert energy.difference(truth, of_potts) @ alike == pytest.approx(potts.difference(truth, of_potts) @ w)
        assert energy.optimality_gap(alike) == pytest.approx(potts.optimality_gap(w), abs=1e-6)


@pytest.mark.usefixtures("_engine")
def test_large_images_are_labelled_as_well_in_float32(monkeypatch):
    energy, _, w = random_metric(0, (40, 41), 5)
    expected = energy.least(w)
    monkeypatch.setattr("skmmcrf.field.base_energy._MOST_PIXELS_DOUBLE", 0)
    assert abs(energy.difference(energy.least(w), expected) @ w) <= 1e-3


def test_energies_stay_of_their_kind():
    energy, _, w = random_metric(0)
    for each in (pickle.loads(pickle.dumps(energy)), energy.with_unary(lambda: energy.scores), energy.in_memory()):
        assert isinstance(each, MetricEnergy)
        np.testing.assert_array_equal(each.least(w), energy.least(w))


def test_weights_that_are_no_metric_are_refused():
    energy, truth, w = random_metric(0)
    w[1] = w[2] + w[3] + 0.1
    annotation = Annotation(truth, class_weight=(1.0,) * 3)
    for find in (energy.least, energy.bound, energy.optimality_gap, lambda w: energy.most_violated(w, annotation)):
        with pytest.raises(ValueError, match="must not exceed the sum of weights by way of a third label"):
            find(w)


def test_a_field_of_unknown_compatibility_is_refused():
    with pytest.raises(ValueError, match="compatibility must be 'potts' or 'metric', got 'other'"):
        field_of(compatibility="other")
