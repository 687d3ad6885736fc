import numpy as np
import pytest
from small_images import all_differences, all_losses, random_classes

from skmmcrf.field import Annotation, grid_cut

WEIGHTS = np.array([[1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [1.0, 0.0, 0.0], [-0.7, 0.4, 0.4], [1.0, 1.0, 1.0]])


@pytest.mark.parametrize("engine", ["numba", "pymaxflow"])
@pytest.mark.parametrize(("shape", "n_labels"), [((3, 3), 3), ((2, 3), 4), ((2, 2, 2), 3), ((2, 5), 2)], ids=str)
def test_no_labeling_has_less_energy_than_the_bound_and_proved_ones_are_least(monkeypatch, engine, shape, n_labels):
    if engine == "pymaxflow":
        monkeypatch.setattr(grid_cut, "available", lambda: False)
    is_proved = []
    for seed in range(6):
        connectivity = 8 if len(shape) == 2 else 6
        energy, truth = random_classes(seed, shape, n_labels, connectivity, scale=(0.5, 2.0)[seed % 2])
        energies = all_differences(energy, truth)
        annotation = Annotation(truth, truth != 1, class_weight=tuple(np.arange(1.0, n_labels + 1)))
        for w in WEIGHTS:
            for n_rounds in (1, 3, 40):
                labels, gap = energy.bound(w, n_rounds=n_rounds)
                found = energy.difference(labels, truth) @ w
                assert found - gap <= (energies @ w).min() + 1e-9 <= found + 2e-9
                labels, gap_of_loss = energy.bound(w, annotation, n_rounds)
                found = energy.difference(labels, truth) @ w - annotation.loss(labels)
                assert found - gap_of_loss <= (energies @ w - all_losses(annotation)).min() + 1e-9 <= found + 2e-9
            is_proved += [gap <= 1e-9, gap_of_loss <= 1e-9]
    assert np.mean(is_proved) > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_more_rounds_narrow_the_gap_and_lead_to_labelings_as_good_as_those_of_expansion_or_better(seed):
    energy, _ = random_classes(seed, (14, 15), 5, scale=1.0)
    w = np.array([1.0, 0.2, 0.5])
    bounds = [energy.bound(w, n_rounds=n) for n in (1, 5, 20, 80)]
    gaps = np.array([bound.gap for bound in bounds])
    assert (np.diff(gaps) <= 1e-9).all()
    assert gaps[0] > 10 * gaps[2]
    assert all(energy.difference(bound.labels, energy.least(w)) @ w <= 1e-9 for bound in bounds)


def test_without_edges_one_round_proves_the_labeling():
    energy, _ = random_classes(0, (20, 30), 6)
    labels, gap = energy.bound(np.array([1.0, 0.0, 0.0]), n_rounds=1)
    np.testing.assert_array_equal(labels, energy.scores.argmax(axis=0))
    assert gap == 0
