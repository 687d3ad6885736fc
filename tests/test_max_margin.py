import warnings

import numpy as np
import pytest
from hypothesis import given
from sklearn.exceptions import ConvergenceWarning
from strategies import problems

from skmmcrf import max_margin
from skmmcrf.energy import joint_feature_difference, pairwise_features
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import completion, evaluate_program, learn_weights, most_violated
from skmmcrf.quadratic_program import solve_program
from skmmcrf.truth import Truth


def random_learner(seed, n_images=3, shape=(6, 7)):
    """Log-odds, images and empty constraint sets of noisy squares."""
    rng = np.random.default_rng(seed)
    truths = np.zeros((n_images, *shape), dtype=bool)
    truths[:, 1:4, 2:5] = True
    log_odds = list(2 * truths - 1 + 1.5 * rng.normal(size=truths.shape))
    images = list((truths + 0.3 * rng.normal(size=truths.shape))[..., np.newaxis])
    return log_odds, images, [Labelings(truth) for truth in truths]


def learn(log_odds, images, labelings, C=1.0, tol=1e-9, max_iter=100, **kwargs):
    return learn_weights(
        log_odds, images, labelings, C, connectivity=8, sigma=0.3, tol=tol, max_iter=max_iter, **kwargs
    )


def test_most_violated_is_the_worst_of_all_labelings(random_grid, all_labelings):
    log_odds, image, truth, edges, features = random_grid(4)
    w = np.array([0.4, 0.2, 0.3])

    def violation(labels):
        difference = joint_feature_difference(labels, truth, log_odds, edges, features)
        return np.count_nonzero(labels != truth) - difference @ w

    labels, difference, loss = most_violated(w, log_odds, image, Truth(truth), connectivity=8, sigma=0.3)
    assert loss - difference @ w == pytest.approx(max(map(violation, all_labelings(truth.shape))))
    assert loss == np.count_nonzero(labels != truth)


def test_learning_equals_the_program_over_every_labeling(random_grid, all_labelings):
    problems = [random_grid(seed, (3, 3), scale=1.0) for seed in range(3)]
    complete = []
    for log_odds, image, truth, *_ in problems:
        edges, features = pairwise_features(image, connectivity=8, sigma=0.3)
        stored = Labelings(truth)
        for labels in all_labelings(truth.shape):
            difference = joint_feature_difference(labels, truth, log_odds, edges, features)
            stored.add(labels, difference, float(np.count_nonzero(labels != truth)))
        complete.append(stored)
    expected = solve_program(complete, 2.0)
    found = learn([p[0] for p in problems], [p[1] for p in problems], [Labelings(p[2]) for p in problems], C=2.0)
    assert found.value == pytest.approx(expected.value, rel=1e-8)
    np.testing.assert_allclose(found.w, expected.w, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.slack, expected.slack, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_a_weight_of_two_is_the_image_twice(C):
    log_odds, images, labelings = random_learner(5)
    twice = learn(
        log_odds + log_odds[:1], images + images[:1], [Labelings(labelings[n].truth) for n in (0, 1, 2, 0)], C
    )
    weights = np.array([2.0, 1.0, 1.0, 0.0])  # of the last nothing
    weighted = [Labelings(Truth(labelings[n].truth, weight=w)) for n, w in zip((0, 1, 2, 0), weights)]
    rng = np.random.default_rng(0)
    other = learn([*log_odds, rng.normal(size=(6, 7))], [*images, rng.uniform(size=(6, 7, 1))], weighted, C)
    assert other.value == pytest.approx(twice.value, rel=1e-8)
    np.testing.assert_allclose(other.w, twice.w, rtol=1e-6, atol=1e-9)
    sums = [m.sum() for m in other.multipliers]
    assert (sums <= C * weights / 4 * (1 + 1e-9)).all()


def test_class_weights_count_in_the_hamming_distance(random_grid, all_labelings):
    log_odds, image, truth, edges, features = random_grid(4)
    w = np.array([0.4, 0.2, 0.3])
    weights = np.where(truth, 3.0, 0.5)

    def violation(labels):
        difference = joint_feature_difference(labels, truth, log_odds, edges, features)
        return weights[labels != truth].sum() - difference @ w

    known = Truth(truth, class_weight=(0.5, 3.0))
    labels, difference, loss = most_violated(w, log_odds, image, known, connectivity=8, sigma=0.3)
    assert loss - difference @ w == pytest.approx(max(map(violation, all_labelings(truth.shape))))
    assert loss == weights[labels != truth].sum()


def half_labelled(seed, shape=(3, 3)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=shape) < 0.5
    log_odds, image = 1.5 * truth - 0.75 + rng.normal(size=shape), rng.uniform(size=(*shape, 1))
    return log_odds, image, truth, rng.uniform(size=shape) < 0.6


def test_the_truth_is_completed_at_the_least_energy(random_grid, all_labelings):
    log_odds, image, truth, edges, features = random_grid(2)
    labelled = np.random.default_rng(0).uniform(size=truth.shape) < 0.4
    known = Truth(truth, labelled)
    for w in np.array([[1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [-1.0, 0.1, 0.4]]):
        labels, shift = completion(w, log_odds, image, known, connectivity=8, sigma=0.3)
        np.testing.assert_array_equal(labels[labelled], truth[labelled])
        energies = [
            w @ joint_feature_difference(y, truth, log_odds, edges, features)
            for y in all_labelings(truth.shape)
            if (y == truth)[labelled].all()
        ]
        energy = w @ joint_feature_difference(labels, truth, log_odds, edges, features)
        assert energy == pytest.approx(min(energies), abs=1e-12)
        expected = joint_feature_difference(known.foreground, labels, log_odds, edges, features)
        np.testing.assert_allclose(shift, expected)


def latent_objective(w, problems, C, all_labelings):
    """Gamma at w with the unlabelled pixels minimised over on both sides, by enumeration."""
    slacks = []
    for log_odds, image, truth, labelled in problems:
        edges, features = pairwise_features(image, connectivity=8, sigma=0.3)
        labelings = all_labelings(truth.shape)
        energies = np.array([w @ joint_feature_difference(y, truth, log_odds, edges, features) for y in labelings])
        wrong = np.array([np.count_nonzero((y != truth) & labelled) for y in labelings])
        slacks.append((wrong - energies).max() + energies[wrong == 0].min())
    return 0.5 * w @ w + C * np.mean(slacks)


@pytest.mark.parametrize("seed", range(4))
def test_unlabelled_pixels_are_free_in_the_truth_and_in_its_rivals(seed, all_labelings):
    problems = [half_labelled(10 * seed + n) for n in range(3)]
    labelings = [Labelings(Truth(p[2], p[3])) for p in problems]
    C = 0.5
    found = learn([p[0] for p in problems], [p[1] for p in problems], labelings, C, tol=1e-10)
    # gamma is that of the program in which the truths take their best labels
    assert found.value == pytest.approx(latent_objective(found.w, problems, C, all_labelings), rel=1e-7)
    # and no step leads down from it
    for direction in np.random.default_rng(seed).normal(size=(20, 3)):
        w = found.w + 1e-3 * np.linalg.norm(found.w) * direction
        w[1:] = np.maximum(w[1:], 0)
        assert latent_objective(w, problems, C, all_labelings) >= found.value * (1 - 1e-9)
    for stored in labelings:
        np.testing.assert_allclose(
            stored.losses,
            [np.count_nonzero((y != stored.truth) & stored.known.labelled) for y in stored.unpack(range(len(stored)))],
        )


def test_what_stood_at_unlabelled_pixels_does_not_matter():
    log_odds, images, labelings = random_learner(0)
    labelled = np.ones((6, 7), bool)
    labelled[2:, 3:] = False
    values = []
    for change in (np.zeros, np.ones):
        truths = [np.where(labelled, stored.truth, change((6, 7), bool)) for stored in labelings]
        values.append(learn(log_odds, images, [Labelings(Truth(truth, labelled)) for truth in truths]).value)
    assert values[0] == values[1]


def test_an_image_without_labels_asks_nothing():
    log_odds, images, labelings = random_learner(0)
    unknown = Labelings(Truth(labelings[0].truth, np.zeros((6, 7), bool)))
    alone = learn([*log_odds, log_odds[0]], [*images, images[0]], [*(Labelings(s.truth) for s in labelings), unknown])
    assert alone.slack[3] == pytest.approx(0, abs=1e-9)


def test_bounds_close_and_the_lower_one_rises():
    bounds = []
    solution = learn(
        *random_learner(0, n_images=5), report=lambda n, lower, upper, share: bounds.append((lower, upper))
    )
    lower, upper = np.array(bounds).T
    assert len(bounds) == solution.n_iter > 2
    assert (np.diff(lower) >= -1e-12).all()
    assert (lower <= upper * (1 + 1e-12)).all()
    assert solution.dual_gap <= 1e-9 * solution.value
    assert solution.value == upper[-1]


@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-5])
def test_learning_stops_at_the_relative_gap(tol):
    exact = learn(*random_learner(1, n_images=5), tol=0.0)
    rough = learn(*random_learner(1, n_images=5), tol=tol)
    assert rough.dual_gap <= tol * rough.value
    assert exact.value * (1 - 1e-9) <= rough.value <= exact.value / (1 - tol) * (1 + 1e-9)


def test_learning_goes_on_from_stored_labelings_at_changed_log_odds():
    log_odds, images, labelings = random_learner(2)
    w = learn(log_odds, images, labelings).w
    changed = [1.2 * l + 0.1 for l in log_odds]
    anew = learn(changed, images, [Labelings(stored.truth) for stored in labelings])
    again = learn(changed, images, labelings, w=w)
    assert again.value == pytest.approx(anew.value, rel=1e-8)
    assert again.n_iter < anew.n_iter


def test_learning_is_the_same_in_processes():
    alone, together = (learn(*random_learner(3), n_jobs=n_jobs) for n_jobs in (1, 2))
    np.testing.assert_array_equal(alone.w, together.w)
    assert alone.value == together.value


def plainly(log_odds, images, labelings, C, tol):
    """Algorithm 1 as it is printed, every image cut in every pass: gamma and the number of cuts."""
    w, lower = np.ones(3), -np.inf
    for n_passes in range(1, 100):
        found = [
            most_violated(w, l, image, stored.known, connectivity=8, sigma=0.3)
            for l, image, stored in zip(log_odds, images, labelings)
        ]
        slack = np.array([max(loss - difference @ w, 0) for _, difference, loss in found])
        upper = 0.5 * w @ w + C * slack.mean()
        if upper - lower <= tol * upper:
            return upper, n_passes * len(found)
        for stored, constraint in zip(labelings, found):
            stored.add(*constraint)
        solution = solve_program(labelings, C)
        w, lower = solution.w, solution.value
    raise AssertionError("no optimum in 100 passes")


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_many_images_take_fewer_cuts(seed, C, monkeypatch):
    log_odds, images, labelings = random_learner(seed, n_images=60, shape=(12, 12))
    cuts = []
    monkeypatch.setattr(max_margin, "most_violated", lambda *args, **kw: cuts.append(1) or most_violated(*args, **kw))
    bounds = []
    solution = learn(
        log_odds, images, labelings, C, tol=1e-3, report=lambda n, lower, upper, share: bounds.append((n, upper, share))
    )
    expected, n_cuts = plainly(log_odds, images, [Labelings(stored.truth) for stored in labelings], C, tol=1e-3)
    assert len(cuts) < 0.85 * n_cuts
    assert solution.value == pytest.approx(expected, rel=1e-3)
    assert solution.dual_gap <= 1e-3 * solution.value
    # the bound that ends it is proved, by cuts of all images
    assert bounds[-1] == (solution.n_iter, pytest.approx(solution.value), 1.0)
    assert {share for _, _, share in bounds} >= {1.0, 8 / 60}
    # slacks and multipliers are in the order of the images
    for n in (0, 17, 59):
        _, difference, loss = most_violated(
            solution.w, log_odds[n], images[n], labelings[n].known, connectivity=8, sigma=0.3
        )
        assert solution.slack[n] == pytest.approx(max(loss - difference @ solution.w, 0), abs=1e-9)
        assert len(solution.multipliers[n]) <= len(labelings[n])


def test_many_images_are_learned_exactly_and_the_same_in_processes():
    exact = [learn(*random_learner(0, n_images=30), tol=0.0, n_jobs=n_jobs) for n_jobs in (1, 2)]
    expected, _ = plainly(*random_learner(0, n_images=30), 1.0, tol=1e-12)
    assert exact[0].value == pytest.approx(expected, rel=1e-10)
    np.testing.assert_array_equal(exact[0].w, exact[1].w)


def test_too_few_passes_over_many_images_are_told_with_true_bounds():
    log_odds, images, labelings = random_learner(0, n_images=40)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 passes"):
        solution = learn(log_odds, images, labelings, max_iter=1)
    exact = learn(*random_learner(0, n_images=40), tol=1e-9)
    assert solution.value - solution.dual_gap <= exact.value * (1 + 1e-9)
    assert exact.value <= solution.value * (1 + 1e-9)


def test_too_few_passes_are_told():
    with pytest.warns(ConvergenceWarning, match=r"max_iter=1 passes: gamma is between .*, a relative gap of 0\.\d+\."):
        solution = learn(*random_learner(0), max_iter=1)
    assert solution.n_iter == 1
    assert solution.dual_gap > 0


@given(problems())
def test_bounds_of_any_problem_close_or_a_warning_says_so(problem):
    bounds = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = problem.learn(
            tol=1e-6, max_iter=30, report=lambda n, lower, upper, share: bounds.append((lower, upper))
        )
    lower, upper = np.array(bounds).T
    rounding = 1e-9 * upper.max()
    assert (np.diff(lower) >= -rounding).all()
    assert (lower <= np.minimum.accumulate(upper) + rounding).all()
    assert solution.value == upper[-1]
    assert solution.n_iter == len(bounds) <= 30
    closed = solution.dual_gap <= 1e-6 * solution.value + rounding
    assert closed or [w.category for w in caught] == [ConvergenceWarning]
    for values in (solution.w, solution.slack, *solution.multipliers):
        assert np.isfinite(values).all()
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
def test_gamma_stays_when_images_are_mirrored(problem):
    mirrored = problem.changed(
        **{key: [x[:, ::-1] for x in vars(problem)[key]] for key in ("log_odds", "images", "truths")}
    )
    assert same_gamma(problem.learn(), mirrored.learn(), problem)


@given(problems())
def test_slacks_are_permuted_with_the_images(problem):
    turned = problem.changed(**{key: vars(problem)[key][::-1] for key in ("log_odds", "images", "truths", "weights")})
    one, other = problem.learn(), turned.learn()
    assert same_gamma(one, other, problem)
    gamma = one.value
    size = problem.C / len(problem.images)
    counted = np.array(problem.weights) > 0  # the slack of others is not minimised
    one, other = one.slack[counted], other.slack[::-1][counted]
    np.testing.assert_allclose(size * one, size * other, atol=1e-6 * max(gamma, 1e-9))


def evaluate(w, log_odds, images, labelings, C=1.0):
    return evaluate_program(w, log_odds, images, labelings, C, connectivity=8, sigma=0.3)


@pytest.mark.parametrize("seed", range(3))
def test_the_objective_at_the_optimum_is_gamma_and_elsewhere_more(seed):
    log_odds, images, labelings = random_learner(seed)
    labelings[0].known.weight = 2.0
    solution = learn(log_odds, images, labelings)
    fresh = [Labelings(stored.known) for stored in labelings]
    at_optimum = evaluate(solution.w, log_odds, images, fresh)
    assert at_optimum.value == pytest.approx(solution.value, rel=1e-8)
    np.testing.assert_allclose(at_optimum.slack, solution.slack, rtol=1e-6, atol=1e-8)
    for change in ([0.1, 0, 0], [-0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]):
        assert evaluate(solution.w + change, log_odds, images, fresh).value > at_optimum.value


def test_the_objective_at_weights_stores_one_labeling_an_image_and_gives_it_the_multiplier():
    log_odds, images, labelings = random_learner(0)
    labelings[0].known.weight = 2.0
    log_odds[1] = 100 * (2.0 * labelings[1].truth - 1)  # which nothing violates
    w = np.array([1.0, 0.5, 0.2])
    solution = evaluate(w, log_odds, images, labelings, C=3.0)
    assert [len(stored) for stored in labelings] == [1, 1, 1]
    assert [m.tolist() for m in solution.multipliers] == [[2.0], [0.0], [1.0]]
    assert solution.slack[1] == 0
    mean_slack = (2 * solution.slack[0] + solution.slack[2]) / 3
    assert solution.value == pytest.approx(w @ w / 2 + 3 * mean_slack)
    for n in (0, 2):
        labels, difference, loss = most_violated(
            w, log_odds[n], images[n], labelings[n].known, connectivity=8, sigma=0.3
        )
        np.testing.assert_array_equal(labelings[n].unpack([0])[0], labels)
        assert solution.slack[n] == pytest.approx(loss - difference @ w)


def test_at_weights_unlabelled_pixels_take_the_labels_of_least_energy():
    known = Truth(np.array([[True, False, False]]), np.array([[True, True, False]]))
    log_odds = [np.array([[5.0, -5.0, 5.0]])]
    evaluate([1.0, 0.0, 0.0], log_odds, [np.zeros((1, 3, 1))], [Labelings(known)])
    np.testing.assert_array_equal(known.foreground, [[True, False, True]])
