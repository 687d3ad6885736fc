import zlib
from functools import partial

import numpy as np
import pytest
from small_images import field_of, move_log_odds, partly_labelled, random_classes, squares, stripes, weighted

from skmmcrf.field import Annotation, Field, Grid, PairwiseFeatures, build_terms
from skmmcrf.field.labels import pack_labeling, unpack_labelings
from skmmcrf.learning import CuttingPlanes, Example
from skmmcrf.learning.example import Constraint, most_violated, violation


def stored(example, n=4, seed=1):
    """The example with some labelings, which it has not seen before."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        assert example.store(rng.uniform(size=example.annotation.shape) < 0.5)
    return example


def differences(example, energy=None):
    energy, truth = energy or example.energy, example.annotation.truth
    return [energy.difference(labels, truth) for labels in example.unpack(range(len(example)))]


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (4, 8), (2, 2, 3)])
def test_labelings_come_back_as_they_were_stored_each_once(random_grid, shape):
    energy, truth = random_grid(0, shape, 8 if len(shape) == 2 else 6)
    example = Example(energy, Annotation(truth, class_weight=(0.5, 3.0)))
    labelings = np.unique(np.random.default_rng(0).uniform(size=(5, *shape)) < 0.5, axis=0)
    for labels in labelings:
        assert example.store(labels)
        assert not example.store(labels.copy())
        assert not example.add(Constraint(pack_labeling(labels), np.zeros(3), 1.0))
    assert len(example) == len(example.losses) == len(labelings)
    np.testing.assert_array_equal(example.unpack(range(len(example))), labelings)
    np.testing.assert_allclose(example.differences, differences(example))
    assert example.losses == [np.where(truth, 3.0, 0.5)[y != truth].sum() for y in labelings]
    assert example.unpack([]).shape == (0, *shape)


def test_shapes_that_differ_are_refused(random_grid):
    (energy, truth), (other, _) = random_grid(0), random_grid(0, (4, 3))
    with pytest.raises(ValueError, match="log_odds must have the shape of the truth"):
        Example(other, Annotation(truth))
    example = Example(energy, Annotation(truth))
    with pytest.raises(ValueError, match="log_odds must have the shape of the truth"):
        example.reprice(other)
    with pytest.raises(ValueError, match="labels must be of bool and the shape of log_odds"):
        example.store(truth.T)


def test_repricing_by_log_odds_changes_the_unary_differences_and_computes_no_features(random_grid, monkeypatch):
    energy, truth = random_grid(0)
    example = stored(Example(energy, Annotation(truth)))
    before = np.array(example.differences)
    changed = energy.with_unary((energy.log_odds + np.random.default_rng(2).normal(size=truth.shape)).astype("f4"))
    expected = differences(example, changed)
    monkeypatch.setattr(PairwiseFeatures, "compute", None)
    example.reprice(changed)
    np.testing.assert_allclose(example.differences, expected)
    np.testing.assert_array_equal(np.array(example.differences)[:, 1:], before[:, 1:])
    assert (np.array(example.differences)[:, 0] != before[:, 0]).all()
    assert example.energy is changed


@pytest.mark.parametrize("read_anew", [False, True])
def test_repricing_by_another_image_changes_every_difference(random_grid, read_anew):
    energy, truth = random_grid(0)
    example = stored(Example(energy, Annotation(truth)))
    before, losses = np.array(example.differences), list(example.losses)
    rng = np.random.default_rng(3)
    field = field_of(4, sigma=0.7)
    image, log_odds = rng.uniform(size=(*truth.shape, 1)), rng.normal(size=truth.shape)
    changed = field.energy(log_odds, partial(np.copy, image) if read_anew else image)
    example.reprice(changed)
    np.testing.assert_allclose(example.differences, differences(example, field.energy(log_odds, image)))
    assert (np.array(example.differences) != before).all()
    assert example.losses == losses
    assert example.energy is changed


def test_an_example_without_labelings_is_repriced_too(random_grid):
    (energy, truth), (other, _) = random_grid(0), random_grid(1)
    example = Example(energy, Annotation(truth))
    example.reprice(other)
    stored(example)
    np.testing.assert_allclose(example.differences, differences(example, other))


def test_completion_shifts_the_differences_and_leaves_the_losses(random_grid):
    energy, truth = random_grid(0)
    annotation = Annotation(truth, np.random.default_rng(0).uniform(size=truth.shape) < 0.5)
    example = stored(Example(energy, annotation))
    before, losses = annotation.truth, list(example.losses)
    labels = ~before
    completed = annotation.completed(labels).truth
    example.complete(labels, energy.difference(before, completed))
    np.testing.assert_array_equal(example.annotation.truth, completed)
    np.testing.assert_allclose(example.differences, differences(example), atol=1e-12)
    assert example.losses == losses
    np.testing.assert_array_equal(annotation.truth, before)


def test_labelings_that_ask_for_most_slack_are_kept_in_their_order(random_grid):
    energy, truth = random_grid(0, (6, 7))
    example, w = stored(Example(energy, Annotation(truth)), n=12), np.array([0.5, 0.1, 0.2])
    labelings, losses, of_all = example.unpack(range(12)), np.array(example.losses), np.array(example.differences)
    slacks = losses - of_all @ w
    kept = np.flatnonzero(slacks >= np.sort(slacks)[-4])
    for n in (4, 9):  # then there are no more than that
        example.keep_most_violated(w, n)
        np.testing.assert_array_equal(example.unpack(range(4)), labelings[kept])
        np.testing.assert_array_equal(example.differences, of_all[kept])
        np.testing.assert_array_equal(example.losses, losses[kept])
    assert example.store(labelings[np.setdiff1d(range(12), kept)[0]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("packed", np.zeros(9, dtype=np.uint8)),
        ("lengths", np.array([1, 1])),
        ("lengths", np.array([-1])),
        ("differences", np.zeros((1, 5))),
        ("differences", np.full((1, 2), np.nan)),
        ("losses", np.zeros(3)),
        ("losses", np.array([np.nan])),
        ("truth", np.zeros(9, dtype=np.uint8)),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused(name, value):
    field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
    example = Example(field.energy(np.zeros((2, 3)), np.zeros((2, 3, 1))), Annotation(np.eye(2, 3, dtype=bool)))
    example.store(np.ones((2, 3), dtype=bool))
    state = example.state_dict()
    example.load_state_dict(state)
    with pytest.raises((ValueError, zlib.error)):
        example.load_state_dict({**state, name: value})


@pytest.mark.parametrize("n", [0, 4])
def test_a_state_dict_restores_labelings_and_truth(random_grid, n):
    energy, truth = random_grid(0)
    annotation = Annotation(truth, np.random.default_rng(0).uniform(size=truth.shape) < 0.5)
    example, other = stored(Example(energy, annotation), n), stored(Example(energy, annotation), 2, seed=5)
    example.complete(~truth, np.ones(3))
    state = example.state_dict()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())
    other.load_state_dict(state)
    assert len(other) == n
    assert (other.differences, other.losses) == (example.differences, example.losses)
    np.testing.assert_array_equal(other.unpack(range(n)), example.unpack(range(n)))
    np.testing.assert_array_equal(other.annotation.truth, example.annotation.truth)
    np.testing.assert_array_equal(other.annotation.mask, annotation.mask)
    if n:
        assert not other.store(example.unpack([0])[0])


@pytest.mark.parametrize(
    ("draw", "C"),
    [
        (partial(squares, field=field_of(4)), 0.3),
        (squares, 0.01),
        (partial(squares, field=field_of(((0, 1), (1, 0), (0, 3)), "smoothness")), 0.3),
        (partial(squares, annotate=weighted), 0.05),
        (partial(squares, annotate=partly_labelled), 0.05),
    ],
    ids=["4", "8", "long", "weighted", "partly labelled"],
)
@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_the_slope_of_gamma_and_at_most_w1_C_over_N(draw, C, seed):
    learner, examples = CuttingPlanes(C, tol=0.0, max_iter=200), draw(seed)
    solution = learner.learn(examples)
    gradients = [e.gradient(solution.w, m) for e, m in zip(examples, solution.multipliers)]
    bounds = [abs(solution.w[0]) * C / 2 * example.annotation.weight for example in examples]
    assert all(0 < np.abs(g).max() <= bound * (1 + 1e-9) for g, bound in zip(gradients, bounds))

    def gamma(n, pixel, step):
        examples = draw(seed)
        move_log_odds(examples[n], pixel, step)
        return learner.learn(examples).value

    for n, pixel in [(0, (1, 1)), (0, (3, 4)), (1, (0, 0)), (1, (2, 3)), (1, (2, 5))]:
        slope = (gamma(n, pixel, 1e-5) - gamma(n, pixel, -1e-5)) / 2e-5
        assert gradients[n][pixel] == pytest.approx(slope, rel=1e-5, abs=1e-5 * max(bounds))


def test_no_labeling_gives_no_gradient_and_multipliers_are_one_a_labeling(random_grid):
    energy, truth = random_grid(0)
    example = Example(energy, Annotation(truth))
    np.testing.assert_array_equal(example.gradient(np.ones(3), np.empty(0)), np.zeros(truth.shape))
    with pytest.raises(ValueError, match=r"multipliers must be of shape \(3,\), one a labeling, got 2"):
        stored(example, 3).gradient(np.ones(3), np.ones(2))


def test_a_violation_is_the_slack_and_the_change_of_the_most_violated_labeling():
    rng, w = np.random.default_rng(0), np.array([1.0, 0.5, 0.2])
    truth = rng.uniform(size=(6, 7)) < 0.5
    field = Field(Grid.from_connectivity(8), build_terms("contrast", sigma=1.0))
    energy = field.energy(rng.normal(size=truth.shape), rng.uniform(size=(*truth.shape, 1)))
    packed, difference, loss = most_violated(w, energy, Annotation(truth))
    (labels,) = unpack_labelings([packed], truth.shape)
    slack, change = violation(w, energy, Annotation(truth))
    assert slack == pytest.approx(loss - difference @ w)
    assert slack > 0
    np.testing.assert_array_equal(change, labels.astype(int) - truth)
    sure = energy.with_unary(100 * (2.0 * truth - 1))
    slack, change = violation(w, sure, Annotation(truth))
    assert slack == 0
    assert not change.any()


def test_of_a_violation_unlabelled_pixels_take_the_labels_of_least_energy():
    field = Field(Grid.from_connectivity(4), build_terms("smoothness"))
    energy = field.energy(np.array([[5.0, -5.0, 5.0]]), np.zeros((1, 3, 1)))
    annotation = Annotation(np.array([[True, False, False]]), np.array([[True, True, False]]))
    slack, change = violation(np.array([1.0, 0.0]), energy, annotation)
    assert slack == 0
    assert not change.any()
    np.testing.assert_array_equal(annotation.truth, [[True, False, False]])


# ---------------------------------------------------------------------------------------------------------------------
# several labels


def stored_classes(example, n=4, seed=1):
    rng, n_labels = np.random.default_rng(seed), example.energy.n_labels
    for _ in range(n):
        assert example.store(rng.integers(n_labels, size=example.annotation.shape, dtype=np.uint8))
    return example


def test_labelings_of_several_labels_come_back_are_repriced_completed_and_restored():
    energy, truth = random_classes(0, (5, 6), 4)
    annotation = Annotation(truth, truth != 2, class_weight=(1.0, 2.0, 3.0, 0.5))
    example = stored_classes(Example(energy, annotation))
    labelings = example.unpack(range(4))
    assert labelings.dtype == np.uint8
    assert not example.store(labelings[2])
    np.testing.assert_allclose(example.differences, differences(example))
    assert example.losses == [annotation.loss(labels) for labels in labelings]
    example.reprice(energy.with_unary(random_classes(1, (5, 6), 4)[0].scores))
    np.testing.assert_allclose(example.differences, differences(example), atol=1e-12)
    example.reprice(random_classes(2, (5, 6), 4)[0])
    np.testing.assert_allclose(example.differences, differences(example), atol=1e-12)

    completed = annotation.completed(labelings[0]).truth
    example.complete(labelings[0], example.energy.difference(annotation.truth, completed))
    np.testing.assert_array_equal(example.annotation.truth, completed)
    np.testing.assert_allclose(example.differences, differences(example), atol=1e-12)
    other = Example(example.energy, annotation)
    other.load_state_dict(example.state_dict())
    np.testing.assert_array_equal(other.unpack(range(4)), labelings)
    np.testing.assert_array_equal(other.annotation.truth, completed)
    assert (other.differences, other.losses) == (example.differences, example.losses)


def test_the_slack_is_that_of_the_worst_stored_labeling_and_not_negative():
    energy, truth = random_classes(0, (5, 6))
    example, w = Example(energy, Annotation(truth, class_weight=(1.0,) * 3)), np.array([0.1, 0.1, 0.1])
    assert example.slack(w) == 0
    example.store(truth)
    assert example.slack(w) == 0
    stored_classes(example)
    expected = max(loss - np.dot(difference, w) for loss, difference in zip(example.losses, example.differences))
    assert example.slack(w) == pytest.approx(expected)
    assert expected > 0


@pytest.mark.parametrize("C", [0.02, 0.3])
def test_gradient_in_scores_is_the_slope_of_gamma(C):
    learner, examples = CuttingPlanes(C, tol=0.0, max_iter=200), stripes(0)
    solution = learner.learn(examples)
    gradients = [e.gradient(solution.w, m) for e, m in zip(examples, solution.multipliers)]
    assert [g.shape for g in gradients] == [(3, 5, 6), (3, 4, 7)]
    np.testing.assert_allclose([g.sum(axis=0).max() for g in gradients], 0, atol=1e-12)

    def gamma(n, pixel, step):
        examples = stripes(0)
        scores = examples[n].energy.scores.copy()
        scores[pixel] += step
        examples[n].reprice(examples[n].energy.with_unary(scores))
        return learner.learn(examples).value

    largest = [np.unravel_index(np.abs(g).argmax(), g.shape) for g in gradients]
    for n, pixel in [(0, (0, 1, 1)), (0, (2, 3, 4)), (1, (1, 2, 3)), *enumerate(largest)]:
        slope = (gamma(n, pixel, 1e-5) - gamma(n, pixel, -1e-5)) / 2e-5
        assert gradients[n][pixel] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_a_violation_of_several_labels_has_a_change_for_each():
    example, w = stripes(0, scale=1.5)[0], np.array([1.0, 0.5, 0.2])
    energy, annotation = example.energy, example.annotation
    labels = energy.most_violated(w, annotation)
    slack, change = violation(w, energy, annotation)
    assert slack == pytest.approx(annotation.loss(labels) - energy.difference(labels, annotation.truth) @ w)
    assert slack > 0
    np.testing.assert_array_equal(change, energy.change(labels, annotation.truth))
    sure = energy.with_unary(np.array([100.0 * (annotation.truth == label) for label in range(3)]))
    slack, change = violation(w, sure, annotation)
    assert slack == 0
    assert change.shape == (3, 5, 6)
    assert not change.any()


def test_labels_of_another_kind_or_number_than_the_scores_are_refused(random_grid):
    (energy, truth), (binary, _) = random_classes(0), random_grid(0, (3, 3))
    for wrong in (Annotation(truth == 1), Annotation(truth, class_weight=(1.0,) * 4)):
        with pytest.raises(ValueError, match="scores are of 3 labels, whose truth is of uint8"):
            Example(energy, wrong)
    with pytest.raises(ValueError, match="log_odds are of 2 labels, whose truth is of bool"):
        Example(binary, Annotation(truth, class_weight=(1.0,) * 3))
