from functools import partial

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_images import (
    Gamma,
    all_differences,
    all_labelings,
    all_losses,
    field_of,
    like,
    random_classes,
    squares,
    stripes,
)
from strategies import problems

from skmmcrf.field import Annotation, Grid, MulticlassEnergy, estimate_sigma, grid_cut
from skmmcrf.learning import CuttingPlanes, Example, cutting_planes, evaluate_stored, solve_program
from skmmcrf.learning.example import most_violated, violation


def many(seed, n_images=3, shape=(6, 7)):
    return squares(seed, [shape] * n_images)


def learn(examples, C=1.0, tol=1e-9, max_iter=100, n_jobs=None, **kwargs):
    return CuttingPlanes(C, tol, max_iter, n_jobs).learn(examples, **kwargs)


def forgotten(examples):
    """The same examples without what is stored."""
    return [Example(example.energy, example.annotation) for example in examples]


def weighted(example, weight):
    return Example(example.energy, example.annotation.weighted(weight, (1.0, 1.0)))


# ---------------------------------------------------------------------------------------------------------------------
# what is learned


@pytest.mark.parametrize(
    ("shape", "connectivity", "pairwise"),
    [((3, 3), 8, "contrast"), ((2, 4), ((0, 1), (1, 0), (0, 2)), "smoothness"), ((2, 2, 2), 26, "contrast")],
    ids=str,
)
@pytest.mark.parametrize("class_weight", [(1.0, 1.0), (0.5, 3.0)])
def test_learning_equals_the_program_over_every_labeling(random_grid, shape, connectivity, pairwise, class_weight):
    drawn = [random_grid(seed, shape, connectivity, pairwise, scale=1.0) for seed in range(3)]
    examples = [Example(energy, Annotation(truth, class_weight=class_weight)) for energy, truth in drawn]
    found = learn(examples, C=2.0)
    assert found.value == pytest.approx(Gamma(examples, 2.0)(found.w), rel=1e-8)
    for example in examples:
        for labels in all_labelings(shape):
            example.store(labels)
    expected = solve_program(examples, 2.0)
    assert found.value == pytest.approx(expected.value, rel=1e-8)
    np.testing.assert_allclose(found.w, expected.w, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.slack, expected.slack, rtol=1e-6, atol=1e-9)
    assert found.converged


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_a_weight_of_two_is_the_image_twice_and_one_of_zero_asks_nothing(C):
    a, b, c = many(5)
    twice = learn([a, b, c, *forgotten([a])], C)
    weights = np.array([2.0, 1.0, 1.0, 0.0])
    other = learn([weighted(example, weight) for example, weight in zip([a, b, c, *many(6, 1)], weights)], C)
    assert other.value == pytest.approx(twice.value, rel=1e-8)
    np.testing.assert_allclose(other.w, twice.w, rtol=1e-6, atol=1e-9)
    assert ([m.sum() for m in other.multipliers] <= C * weights / 4 * (1 + 1e-9)).all()


def test_bounds_close_and_the_lower_one_rises():
    bounds = []
    solution = learn(many(0, n_images=5), report=lambda n, lower, upper, share: bounds.append((lower, upper)))
    lower, upper = np.array(bounds).T
    assert len(bounds) == solution.n_iter > 2
    assert (np.diff(lower) >= -1e-12).all()
    assert (lower <= upper * (1 + 1e-12)).all()
    assert solution.dual_gap <= 1e-9 * solution.value
    assert solution.value == upper[-1]


@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-5])
def test_learning_stops_at_the_relative_gap(tol):
    exact, rough = (learn(many(1, n_images=5), tol=t) for t in (0.0, tol))
    assert rough.dual_gap <= tol * rough.value
    assert exact.value * (1 - 1e-9) <= rough.value <= exact.value / (1 - tol) * (1 + 1e-9)


def test_learning_goes_on_from_stored_labelings_at_changed_log_odds():
    examples = many(2)
    w = learn(examples).w
    for example in examples:
        example.reprice(example.energy.with_unary(1.2 * example.energy.log_odds + 0.1))
    anew = learn(forgotten(examples))
    again = learn(examples, w=w)
    assert again.value == pytest.approx(anew.value, rel=1e-8)
    assert again.n_iter < anew.n_iter


@pytest.mark.parametrize("n_images", [3, 30])
def test_learning_is_the_same_in_processes_and_for_images_read_anew(n_images):
    examples = many(3, n_images)
    read_anew = [
        Example(like(e.energy, partial(np.copy, e.energy.log_odds), partial(np.copy, image)), e.annotation)
        for e, image in zip(examples, [e.energy.pairwise._image for e in examples])
    ]
    alone = learn(examples, tol=0.0)
    for other in (learn(forgotten(examples), tol=0.0, n_jobs=2), learn(read_anew, tol=0.0)):
        np.testing.assert_array_equal(other.w, alone.w)
        assert other.value == alone.value


@pytest.mark.parametrize("n_images", [3, 40])
def test_too_few_passes_have_not_converged_and_their_bounds_are_true(n_images):
    exact, solution = learn(many(0, n_images)), learn(many(0, n_images), max_iter=1)
    assert (exact.converged, solution.converged, solution.n_iter) == (True, False, 1)
    assert solution.dual_gap > 0
    assert solution.value - solution.dual_gap <= exact.value * (1 + 1e-9)
    assert exact.value <= solution.value * (1 + 1e-9)


def plainly(examples, C, tol):
    """Algorithm 1 as it is printed, every image cut in every pass: gamma and the number of cuts."""
    w, lower = np.ones(3), -np.inf
    for n_passes in range(1, 100):
        found = [most_violated(w, example.energy, example.annotation) for example in examples]
        slack = np.array([max(loss - difference @ w, 0) for _, difference, loss in found])
        upper = 0.5 * w @ w + C * slack.mean()
        if upper - lower <= tol * upper:
            return upper, n_passes * len(found)
        for example, constraint in zip(examples, found):
            example.add(constraint)
        solution = solve_program(examples, C)
        w, lower = solution.w, solution.value
    raise AssertionError("no optimum in 100 passes")


@pytest.mark.parametrize(("seed", "C"), [(0, 0.1), (1, 1.0)])
def test_many_images_take_fewer_cuts(seed, C, monkeypatch):
    examples, cuts, bounds = many(seed, n_images=60, shape=(12, 12)), [], []
    monkeypatch.setattr(cutting_planes, "most_violated", lambda *args: cuts.append(1) or most_violated(*args))
    solution = learn(examples, C, tol=1e-3, report=lambda n, lower, upper, share: bounds.append((n, upper, share)))
    expected, n_cuts = plainly(forgotten(examples), C, tol=1e-3)
    assert len(cuts) < 0.85 * n_cuts
    assert solution.value == pytest.approx(expected, rel=1e-3)
    assert solution.dual_gap <= 1e-3 * solution.value
    # the bound that ends it is proved, by cuts of all images
    assert bounds[-1] == (solution.n_iter, pytest.approx(solution.value), 1.0)
    assert {share for _, _, share in bounds} >= {1.0, 8 / 60}
    # slacks and multipliers are in the order of the images
    for n in (0, 17, 59):
        _, difference, loss = most_violated(solution.w, examples[n].energy, examples[n].annotation)
        assert solution.slack[n] == pytest.approx(max(loss - difference @ solution.w, 0), abs=1e-9)
        assert len(solution.multipliers[n]) <= len(examples[n])


def test_many_images_are_learned_exactly():
    expected, _ = plainly(many(0, n_images=30), 1.0, tol=1e-12)
    assert learn(many(0, n_images=30), tol=0.0).value == pytest.approx(expected, rel=1e-10)


# ---------------------------------------------------------------------------------------------------------------------
# any problem


@given(problems())
def test_bounds_of_any_problem_close_or_it_has_not_converged(problem):
    bounds = []
    solution = problem.learn(1e-6, 30, report=lambda n, lower, upper, share: bounds.append((lower, upper)))
    lower, upper = np.array(bounds).T
    rounding = 1e-9 * upper.max()
    assert (np.diff(lower) >= -rounding).all()
    assert (lower <= np.minimum.accumulate(upper) + rounding).all()
    assert solution.value == upper[-1]
    assert solution.n_iter == len(bounds) <= 30
    assert solution.dual_gap <= 1e-6 * solution.value + rounding or not solution.converged
    assert all(np.isfinite(values).all() for values in (solution.w, solution.slack, *solution.multipliers))
    assert (solution.w[1:] >= 0).all()


def same_gamma(one, other, problem):
    return one.value == pytest.approx(other.value, rel=1e-7, abs=problem.rounding_of_gamma)


@given(problems())
def test_gamma_stays_when_labels_are_exchanged_with_the_sign_of_the_log_odds(problem):
    exchanged = problem.changed(
        log_odds=[-l for l in problem.log_odds],
        truths=[~truth for truth in problem.truths],
        class_weight=problem.class_weight[::-1],
    )
    assert same_gamma(problem.learn(), exchanged.learn(), problem)


@given(problems())
def test_gamma_stays_when_images_are_mirrored_and_slacks_are_permuted_with_the_images(problem):
    turned = problem.each_image_changed(lambda x: x[::-1, ::-1]).in_order(range(len(problem.images))[::-1])
    one, other = problem.learn(), turned.learn()
    assert same_gamma(one, other, problem)
    counted = np.array(problem.weights) > 0  # the slack of others is not minimised
    slacks = problem.C / len(counted) * np.array([one.slack, other.slack[::-1]])[:, counted]
    np.testing.assert_allclose(*slacks, atol=1e-6 * max(one.value, 1e-9))


@given(problems(max_images=2, max_pixels=9, partly_labelled=True), st.sampled_from([0.0, 1e-2, 0.3]))
def test_gamma_of_partly_labelled_images_never_rises_with_max_iter_and_is_that_of_the_returned_weights(problem, tol):
    values = []
    for max_iter in range(1, 6):
        examples = problem.examples()
        solution = problem.learn(tol, max_iter, examples)
        rounding = 1e-9 * solution.value + problem.rounding_of_gamma
        assert solution.value == pytest.approx(Gamma(examples, problem.C)(solution.w), abs=rounding)
        assert solution.n_iter <= max_iter
        assert not values or solution.value <= values[-1] + rounding
        values.append(solution.value)


# ---------------------------------------------------------------------------------------------------------------------
# unlabelled pixels


def half_labelled(seed, shape=(3, 3)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=shape) < 0.5
    log_odds, image = 1.5 * truth - 0.75 + rng.normal(size=shape), rng.uniform(size=(*shape, 1))
    return Example(field_of().energy(log_odds, image), Annotation(truth, rng.uniform(size=shape) < 0.6))


@pytest.mark.parametrize("seed", range(4))
def test_unlabelled_pixels_are_free_in_the_truth_and_in_its_rivals(seed):
    examples, C = [half_labelled(10 * seed + n) for n in range(3)], 0.5
    found, gamma = learn(examples, C, tol=1e-10), Gamma(examples, C, completed_anew=True)
    # gamma is that of the program in which the truths take their best labels
    assert found.value == pytest.approx(gamma(found.w), rel=1e-7)
    # and no step leads down from it
    for direction in np.random.default_rng(seed).normal(size=(20, 3)):
        w = found.w + 1e-3 * np.linalg.norm(found.w) * direction
        w[1:] = np.maximum(w[1:], 0)
        assert gamma(w) >= found.value * (1 - 1e-9)
    for example in examples:
        wrong = (example.unpack(range(len(example))) != example.annotation.truth) & example.annotation.labelled
        assert example.losses == wrong.sum(axis=(1, 2)).tolist()


def test_an_image_without_labels_asks_nothing():
    examples = many(0)
    unknown = Example(examples[0].energy, Annotation(examples[0].annotation.truth, np.zeros((6, 7), bool)))
    assert learn([*examples, unknown]).slack[3] == pytest.approx(0, abs=1e-9)


def a_row(log_odds, y, C, tol, max_iter):
    """Learn from a constant image of one row."""
    y, image = np.array([y]), np.zeros((1, len(y), 1))
    example = Example(
        field_of(sigma=1.0).energy(np.array([log_odds], dtype=float), image), Annotation(y == 1, y != 255)
    )
    return learn([example], C, tol, max_iter)


@pytest.mark.parametrize(
    ("log_odds", "y", "C", "tol", "first", "last", "n_passes"),
    [
        ([4, -2, -3, -3, 4], [255, 0, 1, 255, 255], 100.0, 1e-2, 316.68, 133.36, 7),
        ([-1, 2, -1], [1, 255, 255], 10.0, 0.3, 10.0, 10.0, 2),
    ],
)
def test_completing_truths_anew_never_loses_a_better_solution(log_odds, y, C, tol, first, last, n_passes):
    solutions = [a_row(log_odds, y, C, tol, max_iter) for max_iter in range(1, 9)]
    values = [solution.value for solution in solutions]
    assert (np.diff(values) <= 0).all()
    assert (values[0], values[-1]) == pytest.approx((first, last), abs=0.005)
    assert [solution.n_iter for solution in solutions] == [min(n, n_passes) for n in range(1, 9)]


@pytest.mark.parametrize("seed", range(6))
def test_the_gap_is_that_of_the_truths_as_they_are_left(seed):
    examples = [half_labelled(10 * seed + n, shape=(2, 4)) for n in range(3)]
    for max_iter in range(1, 9):
        examples = forgotten(examples)
        solution = learn(examples, 0.5, 1e-3, max_iter)
        stored = solve_program(examples, 0.5)
        assert solution.dual_gap == pytest.approx(solution.value - stored.value, abs=1e-9)
        np.testing.assert_allclose(np.concatenate(solution.multipliers).sum(), np.concatenate(stored.multipliers).sum())


@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_many_images_are_never_cut_in_more_passes_than_max_iter(max_iter):
    for seed in range(4):
        assert learn(many(seed, n_images=20), 0.1, 1e-6, max_iter).n_iter <= max_iter


def test_truths_that_could_be_completed_better_have_not_converged():
    early, late = (a_row([2, -1, 1], [255, 1, 0], 1.0, 1e-3, max_iter) for max_iter in (2, 3))
    assert not early.converged
    assert late.converged
    assert 0.499 < late.value < 0.501 < early.value


# ---------------------------------------------------------------------------------------------------------------------
# the objective at given weights


@pytest.mark.parametrize("seed", range(3))
def test_the_violations_at_the_optimum_are_the_slacks_and_elsewhere_they_cost_more(seed):
    first, *others = many(seed)
    examples = [weighted(first, 2.0), *others]
    solution = CuttingPlanes(tol=1e-9).learn(examples)
    slack = [violation(solution.w, example.energy, example.annotation)[0] for example in examples]
    np.testing.assert_allclose(slack, solution.slack, rtol=1e-6, atol=1e-8)
    at_optimum = CuttingPlanes().at_weights(examples, solution.w)
    np.testing.assert_array_equal(at_optimum.slack, slack)
    assert at_optimum.value == CuttingPlanes().objective(examples, solution.w) == pytest.approx(solution.value)
    for change in ([0.1, 0, 0], [-0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]):
        assert CuttingPlanes().objective(examples, solution.w + change) > solution.value


@pytest.mark.parametrize("parameters", [{"tol": -1e-3}, {"tol": np.nan}, {"max_iter": 0}])
def test_learners_that_never_end_are_refused(parameters):
    with pytest.raises(ValueError, match="tol must not be negative and max_iter be at least 1"):
        CuttingPlanes(**parameters)


# ---------------------------------------------------------------------------------------------------------------------
# what is legal and hard

EXTREME_C = pytest.mark.parametrize("C", [1e-8, 1.0, 1e8])


def noisy(truths, seed=0):
    """Log-odds that are mostly right, and images with the edges of the truths."""
    rng = np.random.default_rng(seed)
    log_odds = [2.0 * truth - 1 + rng.normal(size=truth.shape) for truth in truths]
    return log_odds, [truth + 0.1 * rng.normal(size=truth.shape) for truth in truths]


def learned(log_odds, images, truths, C, labelled=None, connectivity=8, sigma=None, tol=1e-3):
    """Learn from images of one channel; the solution is finite and within its bounds, its gap closed to rounding."""
    images = [image[..., np.newaxis] for image in images]
    grid = Grid.from_connectivity(connectivity)
    sigma = estimate_sigma(grid, images, [1.0] * len(images)) if sigma is None else sigma
    energies = map(field_of(connectivity, sigma=sigma).energy, log_odds, images)
    annotations = [Annotation(truth == 1, labelled) for truth in truths]
    solution = learn(list(map(Example, energies, annotations)), C, tol)
    assert solution.converged
    assert all(np.isfinite(values).all() for values in (solution.w, solution.slack, *solution.multipliers))
    assert (solution.w[1:] >= 0).all()
    assert (solution.slack >= 0).all()
    # w = 0 is feasible, with all pixels wrong
    most = C * np.mean([truth.size for truth in truths])
    assert 0 <= solution.value - solution.dual_gap <= most * (1 + 1e-9)
    rounding = np.finfo(float).eps * most  # of the slacks, which C magnifies
    assert 0 <= solution.dual_gap <= tol * solution.value + rounding
    return solution


def two_squares():
    truths = np.zeros((2, 16, 20), dtype=bool)
    truths[0, 3:9, 4:15] = truths[1, 8:14, 1:9] = True
    return truths


@EXTREME_C
@pytest.mark.parametrize("connectivity", [4, 8])
def test_truths_that_no_labeling_can_fit(C, connectivity):
    # the same log-odds and image with opposite truths, and checkerboards that every pairwise weight speaks against
    board = np.indices((9, 10)).sum(axis=0) % 2
    log_odds, images = noisy([board])
    solution = learned(2 * log_odds, 2 * images, [board, 1 - board], C, connectivity=connectivity)
    # whatever is right for one is wrong for the other
    assert solution.slack.sum() >= board.size * (1 - 1e-9)


@EXTREME_C
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, 1e4, -1e6])
def test_constant_log_odds(C, value):
    truths = two_squares()
    w = learned(np.full(truths.shape, value), noisy(truths)[1], truths, C).w
    assert value or w[0] == 0


@EXTREME_C
@pytest.mark.parametrize(
    "image_of",
    [
        lambda y: np.zeros(y.shape),
        lambda y: np.ones(y.shape),
        lambda y: 1e30 * np.random.default_rng(0).normal(size=y.shape),
        lambda y: 3e38 * (y - 0.5),
        lambda y: 1e-30 * y,
    ],
    ids=["all 0", "all 1", "noise of 1e30", "edges of 3e38", "edges of 1e-30"],
)
@pytest.mark.parametrize("sigma", [None, 1e-300, 1.0, 1e300])
def test_contrast_terms_of_0_and_of_1(C, image_of, sigma):
    truths = two_squares()
    learned(noisy(truths)[0], image_of(truths), truths, C, sigma=sigma)


@EXTREME_C
def test_images_that_are_all_the_same_are_one(C):
    truths = two_squares()[:1]
    log_odds, images = noisy(truths)
    alone = learned(log_odds, images, truths, C, tol=1e-9)
    five = learned(5 * log_odds, 5 * images, truths[[0] * 5], C, tol=1e-9)
    assert five.value == pytest.approx(alone.value)
    np.testing.assert_allclose(five.w, alone.w, rtol=1e-4, atol=1e-4)


@EXTREME_C
@pytest.mark.parametrize(
    "shapes", [[(1, 1)], [(2, 1)], [(1, 5000)], [(5000, 1)], [(1, 1), (1, 500), (20, 30), (700, 1)]], ids=str
)
@pytest.mark.parametrize("label", [0, 1, None])
def test_images_of_extreme_shapes(C, shapes, label):
    rng = np.random.default_rng(1)
    truths = [rng.integers(0, 2, shape) if label is None else np.full(shape, label) for shape in shapes]
    learned(*noisy(truths), truths, C)


@EXTREME_C
def test_one_labelled_pixel_an_image(C):
    rng = np.random.default_rng(0)
    truths, labelled = rng.uniform(size=(4, 18, 22)) < 0.4, np.zeros((18, 22), bool)
    labelled[0, 0] = True
    truths[:, 0, 0] = [1, 0, 0, 0]
    learned(noisy(truths)[0], rng.uniform(size=truths.shape), truths, C, labelled)


@EXTREME_C
def test_the_field_sees_through_many_wrong_labels(C):
    truths = two_squares()
    wrong = np.random.default_rng(0).uniform(size=truths.shape) < 0.3
    log_odds, images = noisy(truths)
    w = learned(log_odds, images, truths ^ wrong, C, sigma=0.5).w
    if C == 1:
        found = [field_of(sigma=0.5).energy(l, x[..., np.newaxis]).least(w) for l, x in zip(log_odds, images)]
        assert (found != truths).mean() < 0.3 * ((np.array(log_odds) > 0) != truths).mean()


@pytest.mark.slow
def test_a_large_image():
    rows, columns = np.ogrid[:1400, :1000]
    truth = np.hypot(rows - 700, columns - 500) < 350
    (log_odds,), images = noisy([truth])
    log_odds += 4.0 * truth - 2
    wrong = np.random.default_rng(1).uniform(size=truth.shape) < 0.05
    w = learned([log_odds], images, [truth ^ wrong], 1.0, sigma=0.3).w
    found = field_of(sigma=0.3).energy(log_odds, images[0][..., np.newaxis]).least(w)
    assert (found & truth).sum() > 0.99 * (found | truth).sum()


def test_both_engines_of_cuts_lead_to_the_same_weights(phantoms, monkeypatch):
    def solution():
        rng, field = np.random.default_rng(0), field_of(sigma=0.1)
        images, labels = phantoms
        log_odds = [3.0 * truth - 1.5 + 2 * rng.normal(size=truth.shape) for truth in labels]
        energies = [field.energy(l, image[..., np.newaxis]) for l, image in zip(log_odds, images)]
        examples = [Example(e, Annotation(truth == 1)) for e, truth in zip(energies, labels)]
        return learn(examples), examples

    compiled, with_compiled = solution()
    monkeypatch.setattr(grid_cut, "available", lambda: False)
    listed, with_listed = solution()
    np.testing.assert_allclose(compiled.w, listed.w, rtol=1e-9)
    assert compiled.value == pytest.approx(listed.value, rel=1e-12)
    for one, other in zip(with_compiled, with_listed):
        np.testing.assert_array_equal(one.energy.least(compiled.w), other.energy.least(compiled.w))


# ---------------------------------------------------------------------------------------------------------------------
# several labels


def examples_of_classes(seed, n_images=3, shape=(3, 3), scale=1.0):
    drawn = [random_classes(10 * seed + n, shape, scale=scale) for n in range(n_images)]
    return [Example(energy, Annotation(truth, class_weight=(1.0, 0.5, 2.0))) for energy, truth in drawn]


def with_every_labeling(examples):
    for example in examples:
        for labels in all_labelings(example.annotation.shape, 3):
            example.store(labels)
    return examples


def enumerated(energy, w, annotation):
    """The most violated labeling, without expansion moves."""
    violations = all_losses(annotation) - all_differences(energy, annotation.truth) @ w
    return all_labelings(energy.shape, energy.n_labels)[violations.argmax()]


@pytest.mark.parametrize("seed", range(4))
def test_learning_several_labels_equals_the_program_over_every_labeling_if_the_most_violated_are_found(
    seed, monkeypatch
):
    shape = (2, 3)
    expected = solve_program(with_every_labeling(examples_of_classes(seed, shape=shape)), 2.0)
    found = learn(examples_of_classes(seed, shape=shape), C=2.0)
    monkeypatch.setattr(MulticlassEnergy, "most_violated", enumerated)
    exact = learn(examples_of_classes(seed, shape=shape), C=2.0)
    assert exact.value == pytest.approx(expected.value, rel=1e-8)
    np.testing.assert_allclose(exact.w, expected.w, rtol=1e-6, atol=1e-9)
    # expansion moves miss little here
    assert 0.99 * expected.value <= found.value <= expected.value * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_iter", [1, 100])
@pytest.mark.parametrize("edges_count", [True, False])
def test_gamma_of_several_labels_lies_between_the_gaps(seed, max_iter, edges_count, monkeypatch):
    examples = examples_of_classes(seed, shape=(2, 3), scale=0.5)
    gamma_at, gamma = Gamma(examples, 1.0), solve_program(with_every_labeling(forgotten(examples)), 1.0).value
    if not edges_count:  # when labelings are sought
        find = MulticlassEnergy.most_violated
        monkeypatch.setattr(
            MulticlassEnergy, "most_violated", lambda energy, w, annotation: find(energy, w * [1, 0, 0], annotation)
        )
    solution = CuttingPlanes(1.0, 1e-9, max_iter, bound_rounds=20).learn(examples)
    lower, upper = solution.value - solution.dual_gap, solution.value + solution.inference_gap
    assert lower - 1e-9 <= gamma <= gamma_at(solution.w) + 1e-9
    assert solution.value - 1e-9 <= gamma_at(solution.w) <= upper + 1e-9
    assert edges_count or solution.inference_gap > 1e-3 * gamma


def test_the_gap_of_inference_is_unknown_unless_it_is_asked_for_and_none_for_two_labels():
    assert np.isnan(learn(examples_of_classes(0)).inference_gap)
    assert learn(many(0)).inference_gap == 0


def test_a_labeling_that_moves_miss_but_is_stored_counts(monkeypatch):
    (example,) = examples_of_classes(0, 1, scale=0.5)
    w = np.array([0.1, 0.2, 0.2])
    best = example.energy.most_violated(w, example.annotation)
    example.store(best)
    expected = example.slack(w)
    monkeypatch.setattr(MulticlassEnergy, "most_violated", lambda energy, w, annotation: annotation.truth)
    run = cutting_planes._Run(CuttingPlanes(), [example], cutting_planes.workers(1))
    np.testing.assert_array_equal(run.store_most_violated(w, np.array([0])), [expected])
    assert expected > 0


@pytest.mark.parametrize("n_images", [3, 20])
@pytest.mark.parametrize("class_weight", [(1.0, 1.0), (0.5, 3.0)])
def test_scores_of_two_labels_learn_what_log_odds_do(n_images, class_weight):
    rng, binary, multiclass = np.random.default_rng(0), [], []
    for example in many(3, n_images):
        l, truth = example.energy.log_odds, example.annotation.truth
        labelled, common = rng.uniform(size=truth.shape) < 0.8, rng.normal(size=truth.shape)
        scores = MulticlassEnergy(np.array([common, common + l]), example.energy.pairwise)
        binary.append(Example(example.energy, Annotation(truth, labelled, class_weight=class_weight)))
        truth = truth.astype(np.uint8)
        multiclass.append(Example(scores, Annotation(truth, labelled, class_weight=class_weight)))
    expected, found = (learn(examples, C=0.3, tol=1e-8) for examples in (binary, multiclass))
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    np.testing.assert_allclose(found.w, expected.w, rtol=1e-6, atol=1e-9)
    assert (found.n_iter, found.inference_gap) == (expected.n_iter, 0)
    for one, other, m in zip(binary, multiclass, expected.multipliers):
        np.testing.assert_array_equal(one.unpack(range(len(one))), other.unpack(range(len(other))))
        gradient = one.gradient(expected.w, m)
        np.testing.assert_allclose(other.gradient(expected.w, m), [-gradient, gradient], atol=1e-12)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_several_labels_are_learned_with_unlabelled_pixels_which_never_raises_gamma(n_jobs):
    def annotate(truth, class_weight):
        return Annotation(truth, np.random.default_rng(1).uniform(size=truth.shape) < 0.6, class_weight=class_weight)

    values = []
    for max_iter in (1, 2, 4, 30):
        examples = stripes(0, annotate=annotate, scale=1.5)
        solution = CuttingPlanes(0.1, 1e-3, max_iter, n_jobs, bound_rounds=5).learn(examples)
        values.append(solution.value)
        assert solution.inference_gap < 0.05 * solution.value
    assert solution.converged
    assert (np.diff(values) <= 1e-9).all()
    assert CuttingPlanes(0.1).objective(examples, solution.w) == pytest.approx(solution.value, rel=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# weights of pairs of labels


@pytest.mark.parametrize("seed", range(4))
def test_weights_of_pairs_solve_the_program_over_every_labeling(seed):
    drawn = [random_classes(10 * seed + n, (2, 4), scale=1.0, compatibility="metric") for n in range(2)]
    examples = [Example(energy, Annotation(truth, class_weight=(1.0, 2.0, 1.0))) for energy, truth in drawn]
    solution = CuttingPlanes(0.5, 1e-9, bound_rounds=50).learn(examples)
    weights, gamma = examples[0].energy.weights, Gamma(examples, 0.5)
    w, slack = cp.Variable(weights.n_weights), cp.Variable(len(examples))
    constraints = [d @ w >= loss - slack[n] for n, (d, loss) in enumerate(zip(gamma.differences, gamma.losses))]
    constraints += [w[1:] >= 0, weights.triangles(np.zeros(weights.n_weights), np.inf) @ w >= 0]
    norm = cp.square(w[0]) + cp.sum_squares(w[1:]) / weights.n_pairs
    objective = norm / 2 + 0.5 * cp.sum(slack) / len(examples)
    expected = cp.Problem(cp.Minimize(objective), constraints).solve(solver=cp.CLARABEL)
    assert solution.value - solution.dual_gap <= expected * (1 + 1e-7)
    assert gamma(solution.w) <= solution.value + solution.inference_gap + 1e-9
    if solution.value == pytest.approx(gamma(solution.w), rel=1e-9):  # no labeling was missed
        assert solution.value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(solution.w, w.value, atol=1e-4)
    np.testing.assert_array_equal(weights.closed(solution.w), solution.w)


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_pairs_lead_to_no_higher_objective_than_those_of_all_pairs(seed):
    of_both = {c: stripes(seed, scale=1.5, compatibility=c) for c in ("potts", "metric")}
    solutions = {c: CuttingPlanes(1.0, 1e-6, bound_rounds=20).learn(examples) for c, examples in of_both.items()}
    potts, metric = solutions["potts"], solutions["metric"]
    assert metric.value < potts.value + potts.inference_gap


def test_weights_of_pairs_are_learned_of_many_images_in_parts():
    of_both = [stripes(0, 20 * [(5, 6)], scale=1.5, compatibility="metric") for _ in range(2)]
    quick, slow = CuttingPlanes(1.0).learn(of_both[0]), CuttingPlanes(1.0, 1e-7, n_jobs=2).learn(of_both[1])
    assert quick.converged
    assert quick.value - quick.dual_gap <= slow.value <= quick.value * (1 + 1e-9)


def test_weights_of_many_pairs_are_found_sooner_by_cuts_halfway_from_the_best(monkeypatch):
    def solution():
        return CuttingPlanes(1.0).learn(stripes(0, [(12, 20)] * 2, n_labels=5, scale=1.0, compatibility="metric"))

    found = solution()
    monkeypatch.setattr(cutting_planes, "_WIDE_GAP", np.inf)
    plain = solution()
    assert found.converged
    assert found.n_iter < 0.8 * plain.n_iter
    assert found.value == pytest.approx(plain.value, rel=2e-2)  # both miss some labelings


@pytest.mark.parametrize("compatibility", ["potts", "metric"])
def test_a_labeling_that_is_found_later_counts_where_it_was_missed(monkeypatch, compatibility):
    examples = stripes(1, scale=1.5, compatibility=compatibility)
    find, n_found = MulticlassEnergy.most_violated, []

    def find_later(energy, w, annotation):  # nothing for the first image in the second and third pass
        n_found.append(w)
        return annotation.truth if len(n_found) in (3, 5) else find(energy, w, annotation)

    monkeypatch.setattr(MulticlassEnergy, "most_violated", find_later)
    solution = CuttingPlanes(1.0).learn(examples)
    assert solution.converged
    assert solution.value >= evaluate_stored(solution.w, examples, 1.0).value * (1 - 1e-12)
