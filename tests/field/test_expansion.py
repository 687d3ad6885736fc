import maxflow.fastmin
import numpy as np
import pytest
from small_images import all_differences, all_labelings, field_of, is_completion, like, random_classes

from skmmcrf.field import Annotation, blocks, grid_cut
from skmmcrf.field.expansion import _Labeling, least_unary

WEIGHTS = np.array([[1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [1.0, 0.0, 0.0], [-0.7, 0.4, 0.4], [1.0, 1.0, 1.0]])


@pytest.fixture(autouse=True)
def _no_move_raises_the_energy(monkeypatch):
    move_to = _Labeling.move_to

    def checked(labeling, label):
        before, labels, energy = labeling.labels.copy(), labeling.labels, labeling.problem.energy
        moved = move_to(labeling, label)
        np.testing.assert_array_equal(labels, before)
        assert moved == (energy(labeling.labels) < energy(before))
        assert set(np.unique(labeling.labels[labeling.labels != before])) <= {label}
        np.testing.assert_allclose(labeling.costs, labeling.problem.unary_of(labeling.labels))
        return moved

    monkeypatch.setattr(_Labeling, "move_to", checked)


def test_a_labeling_has_at_most_twice_the_least_energy_and_mostly_the_least():
    is_least = []
    for seed in range(40):
        energy, truth = random_classes(seed, scale=(0.5, 2.0)[seed % 2])
        for w in WEIGHTS:
            problem, energies = energy._problem(w), all_differences(energy, truth) @ w
            # above the least unary costs, none is negative
            of_truth = problem.energy(truth) - problem.unary_of(least_unary(problem)).sum()
            least, found = of_truth + energies.min(), of_truth + energy.difference(energy.least(w), truth) @ w
            assert -1e-9 <= least <= found + 1e-9
            assert found <= 2 * least + 1e-9
            is_least.append(found <= least + 1e-9)
    assert np.mean(is_least) > 0.95


@pytest.mark.parametrize("seed", range(4))
def test_no_move_to_any_label_improves_a_labeling(seed):
    energy, truth = random_classes(seed, n_labels=4, scale=1.0)
    annotation = Annotation(truth, truth != 3, class_weight=(1.0, 2.0, 0.5, 1.0))
    subsets = all_labelings((3, 3))
    for w in WEIGHTS:
        for labels, loss in [(energy.least(w), 0.0), (energy.most_violated(w, annotation), 1.0)]:
            for label in range(4):
                for moves in subsets[::5]:
                    moved = np.where(moves, np.uint8(label), labels)
                    gain = loss * (annotation.loss(moved) - annotation.loss(labels))
                    assert energy.difference(moved, labels) @ w - gain >= -1e-9


def test_a_labeling_is_as_good_as_that_of_pymaxflow():
    rng, field = np.random.default_rng(0), field_of(4, "smoothness")
    differences = []
    for _ in range(50):
        n_labels, w = rng.integers(3, 7), np.array([1.0, rng.uniform(0.1, 2.0)])
        scores = rng.normal(size=(n_labels, 12, 15))
        energy = field.energy(scores, np.zeros((12, 15, 1)))
        costs = np.ascontiguousarray(np.moveaxis(-scores, 0, -1))
        other = maxflow.fastmin.aexpansion_grid(costs, w[1] * (1.0 - np.eye(n_labels))).astype(np.uint8)
        differences.append(energy.difference(energy.least(w), other) @ w)
    assert max(differences) <= 1e-9


@pytest.mark.parametrize("engine", ["numba", "pymaxflow"])
@pytest.mark.parametrize("n_labels", [2, 3, 5])
@pytest.mark.parametrize(
    ("shape", "connectivity"), [((9, 8), 8), ((2, 4, 5), 26), ((1, 30), ((0, 1), (0, 40)))], ids=str
)
def test_blocks_and_engines_make_no_difference(monkeypatch, engine, n_labels, shape, connectivity):
    energy, truth = random_classes(0, shape, n_labels, connectivity)
    annotation = Annotation(truth, truth > 0, class_weight=(1.0,) * n_labels)

    def labelings(energy):
        return [f(w, *a) for w in WEIGHTS for f, a in ((energy.least, ()), (energy.most_violated, (annotation,)))]

    expected = labelings(energy)
    monkeypatch.setattr(blocks, "_PIXELS_OF_BLOCK", 7)
    if engine == "pymaxflow":
        monkeypatch.setattr(grid_cut, "available", lambda: False)
    image = energy.pairwise._image
    np.testing.assert_array_equal(labelings(like(energy, energy.scores, image)), expected)
    read_anew = like(energy, lambda: energy.scores, lambda: image)
    np.testing.assert_array_equal(labelings(read_anew), expected)


@pytest.mark.parametrize("seed", range(5))
def test_completions_keep_known_labels_and_have_no_more_energy_than_the_truth(seed):
    energy, truth = random_classes(seed)
    annotation = Annotation(truth, np.random.default_rng(seed).uniform(size=truth.shape) < 0.5, class_weight=(1.0,) * 3)
    energies, fits = all_differences(energy, annotation.truth), is_completion(annotation)
    for w in WEIGHTS:
        labels = energy.completion(w, annotation)
        np.testing.assert_array_equal(labels[annotation.labelled], truth[annotation.labelled])
        found = energy.difference(labels, annotation.truth) @ w
        assert (energies @ w)[fits].min() - 1e-9 <= found <= 0
        # the best completion is not given up for another one
        best = all_labelings(truth.shape, 3)[fits][(energies @ w)[fits].argmin()]
        again = energy.completion(w, annotation.completed(best))
        assert energy.difference(again, best) @ w <= 0


def test_a_label_is_tried_again_only_after_a_move_to_another_one(monkeypatch):
    tried, move_to = [], _Labeling.move_to
    monkeypatch.setattr(
        _Labeling, "move_to", lambda labeling, label: tried.append((label, move_to(labeling, label))) or tried[-1][1]
    )
    energy, _ = random_classes(3, (12, 12), 4, scale=1.0)
    energy.least(np.array([1.0, 0.2, 0.2]))
    labels, moved = zip(*tried)
    assert labels == tuple(n % 4 for n in range(len(tried)))
    last = max(n for n in range(len(tried)) if moved[n])
    assert len(tried) == last + 4
    assert sum(moved) > 3


def test_large_images_are_labelled_as_well_in_float32(monkeypatch):
    energy, _ = random_classes(0, (40, 41), 5)
    w = np.array([1.0, 0.3, 0.9])
    expected = energy.least(w)
    monkeypatch.setattr("skmmcrf.field.base_energy._MOST_PIXELS_DOUBLE", 0)
    assert abs(energy.difference(energy.least(w), expected) @ w) <= 1e-3
