import pickle

import numpy as np
import pytest
from small_images import all_differences, all_labelings, field_of, like, random_classes

from skmmcrf.field import Annotation, Energy, MulticlassEnergy
from skmmcrf.field.base_energy import LARGEST_LOG_ODDS, LogOddsError
from skmmcrf.field.energy import least_labelings, optimality_gaps

WEIGHTS = np.array([[1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [-0.7, 0.4, 0.4], [1.0, 1.0, 1.0]])


def pair(seed, shape=(8, 9), dtype=float):
    """The same energy by scores of two labels and by log-odds, and a truth."""
    energy, truth = random_classes(seed, shape, 2)
    scores = energy.scores.astype(dtype)
    return energy.with_unary(scores), Energy(scores[1] - scores[0], energy.pairwise), truth.astype(bool)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_two_labels_are_the_energy_by_their_difference(seed, dtype):
    energy, binary, truth = pair(seed, dtype=dtype)
    labels = np.random.default_rng(9).uniform(size=truth.shape) < 0.5
    known = np.random.default_rng(8).uniform(size=truth.shape) < 0.5
    annotations = [Annotation(y, known, class_weight=(0.5, 3.0)) for y in (truth, truth.astype(np.uint8))]
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(energy.psi(labels.astype(np.uint8)), binary.psi(labels), rtol=rtol)
    difference = energy.difference(labels.astype(np.uint8), truth.astype(np.uint8))
    np.testing.assert_allclose(difference, binary.difference(labels, truth), rtol=rtol, atol=rtol)
    change = energy.change(labels.astype(np.uint8), truth.astype(np.uint8))
    np.testing.assert_array_equal(change, [-binary.change(labels, truth), binary.change(labels, truth)])
    for w in WEIGHTS:
        np.testing.assert_array_equal(energy.least(w), binary.least(w))
        np.testing.assert_array_equal(energy.most_violated(w, annotations[1]), binary.most_violated(w, annotations[0]))
        np.testing.assert_array_equal(energy.completion(w, annotations[1]), binary.completion(w, annotations[0]))
        assert energy.bound(w).gap == 0
    assert energy.is_exact


@pytest.mark.parametrize(("shape", "connectivity"), [((3, 3), 8), ((2, 2, 2), 6)], ids=str)
def test_psi_is_that_of_the_equations(shape, connectivity):
    energy, labels = random_classes(1, shape, connectivity=connectivity)
    image, grid = energy.pairwise._image, energy.pairwise.grid
    probability = np.exp(energy.scores) / np.exp(energy.scores).sum(axis=0)
    expected = np.zeros(3)
    for one in np.ndindex(shape):
        expected[0] -= np.log(probability[(labels[one], *one)])
        for other in np.ndindex(shape):
            step = np.subtract(other, one)
            if tuple(step) in grid.offsets and labels[one] != labels[other]:
                contrast = np.exp(-((image[one] - image[other]) ** 2).sum() / (2 * 0.3**2))
                expected[1:] += np.array([1, contrast]) / np.linalg.norm(step)
    np.testing.assert_allclose(energy.psi(labels), expected)


def test_differences_are_those_of_psi():
    energy, truth = random_classes(2)
    labelings, expected = all_labelings((3, 3), 3)[::997], all_differences(energy, truth)[::997]
    for labels, difference in zip(labelings, expected):
        np.testing.assert_allclose(energy.psi(labels) - energy.psi(truth), difference, atol=1e-12)
        np.testing.assert_allclose(energy.difference(labels, truth), difference, atol=1e-12)
    np.testing.assert_allclose(energy.unary_differences(labelings, truth), expected[:, 0], atol=1e-12)
    assert energy.unary_differences(labelings[:0], truth).shape == (0,)


def test_the_change_is_the_derivative_in_the_scores():
    energy, truth = random_classes(3)
    labels = random_classes(4)[1]
    change = energy.change(labels, truth)
    assert change.dtype == np.int8
    for pixel in [(0, 0, 0), (1, 2, 1), (2, 1, 1)]:
        scores = energy.scores.copy()
        scores[pixel] += 1
        moved = energy.with_unary(scores).unary_difference(labels, truth)
        assert energy.unary_difference(labels, truth) - moved == pytest.approx(change[pixel])


def test_what_all_scores_of_a_pixel_have_in_common_counts_for_nothing():
    energy, truth = random_classes(5, (6, 7))
    common = 1e5 * np.random.default_rng(0).integers(-9, 9, size=(6, 7))
    shifted, labels = energy.with_unary(energy.scores + common), random_classes(6, (6, 7))[1]
    np.testing.assert_allclose(shifted.difference(labels, truth), energy.difference(labels, truth), rtol=1e-9)
    np.testing.assert_allclose(shifted.psi(labels), energy.psi(labels), rtol=1e-9)
    for w in WEIGHTS:
        np.testing.assert_array_equal(shifted.least(w), energy.least(w))


def test_a_field_makes_the_energy_that_unary_values_ask_for():
    field, image = field_of(), np.zeros((4, 5, 1))
    scores, log_odds = np.zeros((3, 4, 5)), np.zeros((4, 5))
    for make in (lambda unary: field.energy(unary, image), lambda unary: field.energies([unary], [image])[0]):
        assert isinstance(make(log_odds), Energy)
        energy = make(scores)
        assert isinstance(energy, MulticlassEnergy)
        assert (energy.shape, energy.n_labels, energy.is_exact) == ((4, 5), 3, False)
    assert isinstance(field.energy(lambda: scores, lambda: image), MulticlassEnergy)
    assert field.energies([], []) == []


def test_energies_pickle_are_read_anew_and_are_labelled_side_by_side():
    energy, truth = random_classes(0, (9, 10), 4)
    image, w = energy.pairwise._image, WEIGHTS[0]
    read_anew = like(energy, lambda: energy.scores, lambda: image)
    copies = [pickle.loads(pickle.dumps(read_anew)), read_anew.in_memory(), read_anew]
    for copy, labels in zip(copies, least_labelings(w, copies, n_jobs=2)):
        np.testing.assert_array_equal(labels, energy.least(w))
        np.testing.assert_array_equal(copy.psi(truth), energy.psi(truth))
        assert copy.n_labels == 4
    assert energy.in_memory() is energy


def test_what_does_not_fit_is_refused():
    energy, truth = random_classes(0)
    for value in (np.nan, np.inf, 1.1 * LARGEST_LOG_ODDS):
        with pytest.raises(LogOddsError, match="scores must be finite and within"):
            energy.with_unary(np.full((3, 3, 3), value))
    for n_labels in (1, 256):
        with pytest.raises(ValueError, match=rf"scores must be of 2 to 255 labels, got shape \({n_labels}, 3, 3\)"):
            energy.with_unary(np.zeros((n_labels, 3, 3)))
    for labels in (truth[:-1], truth.astype(bool), truth.astype(int)):
        with pytest.raises(ValueError, match=r"labels must be of uint8 and the shape of scores, \(3, 3\), got"):
            energy.psi(labels)
    for w, message in [
        (np.ones(2), r"w must be of shape \(3,\)"),
        (np.array([1.0, -1.0, 1.0]), "pairwise weights must not be negative"),
    ]:
        for find in (
            energy.least,
            energy.bound,
            lambda w: energy.completion(w, Annotation(truth, class_weight=(1,) * 3)),
        ):
            with pytest.raises(ValueError, match=message):
                find(w)
    with pytest.raises(ValueError, match=r"scores must have the size of their image, \(3, 3\), got \(2, 3\)"):
        energy.with_unary(np.zeros((3, 2, 3))).least(np.ones(3))


@pytest.mark.parametrize("seed", [*range(8), 108])  # moves miss the least energy of the last one
def test_the_gap_bounds_how_far_a_labeling_is_from_the_least_energy(seed):
    energy, truth = random_classes(seed, scale=1.0)
    w = np.array([1.0, 0.6, 0.9])
    energies = all_differences(energy, truth) @ w
    excess = energy.difference(energy.least(w), truth) @ w - energies.min()
    assert -1e-9 <= excess <= energy.optimality_gap(w) + 1e-9
    assert energy.optimality_gap(w, n_rounds=1) >= energy.optimality_gap(w, n_rounds=50) - 1e-9


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_gaps_of_many_images_come_in_their_order_and_are_0_for_two_labels(n_jobs, random_grid):
    w = np.array([1.0, 0.6, 0.9])
    energies = [random_classes(seed, (8, 9))[0] for seed in range(6)]
    gaps = list(optimality_gaps(w, iter(energies), n_jobs))
    assert gaps == [energy.optimality_gap(w) for energy in energies]
    assert any(gaps)
    assert list(optimality_gaps(w, [random_grid(0)[0], random_classes(0, n_labels=2)[0]], n_jobs)) == [0, 0]
