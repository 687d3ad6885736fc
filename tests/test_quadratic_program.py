from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems

from skmmcrf.energy import joint_feature_difference, pairwise_features
from skmmcrf.labelings import Labelings
from skmmcrf.quadratic_program import evaluate_stored, optimality_residuals, solve_program


def random_program(seed, n_images=6, n_labelings=5, scale=(1.0, 1.0, 1.0)):
    """Constraints that no graph cut need have made; losses in pixels, differences of their size."""
    rng = np.random.default_rng(seed)
    program = []
    for _ in range(n_images):
        stored = Labelings(np.zeros((4, 5), dtype=bool))
        for k in range(n_labelings):
            labels = np.zeros(20, dtype=bool)
            labels[k] = True
            loss = float(rng.integers(1, 1000))
            stored.add(labels.reshape(4, 5), loss * rng.normal(0.4, 1, size=3) * scale, loss)
        program.append(stored)
    return program


def constraints_of(program):
    owners = np.repeat(np.arange(len(program)), [len(stored) for stored in program])
    differences = np.array([d for stored in program for d in stored.differences])
    losses = np.array([loss for stored in program for loss in stored.losses])
    return owners, differences, losses


@pytest.mark.parametrize("C", [1e-6, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_program_equals_an_independent_solver(seed, C, weighted):
    program = random_program(seed)
    shares = np.random.default_rng(seed).choice([0.3, 0.5, 2.0], len(program)) if weighted else np.ones(len(program))
    for stored, share in zip(program, shares):
        stored.known.weight = share
    owners, differences, losses = constraints_of(program)
    n_images = len(program)

    w, slack = cp.Variable(3), cp.Variable(n_images, nonneg=True)
    objective = 0.5 / C * cp.sum_squares(w) + shares @ slack / n_images  # gamma / C, for its absolute tolerance
    margins = [differences @ w >= losses - slack[owners], w[1:] >= 0]
    expected = C * cp.Problem(cp.Minimize(objective), margins).solve(solver=cp.CLARABEL)
    solution = solve_program(program, C)
    assert solution.value == pytest.approx(expected, rel=1e-7)
    # the other solver is not exact to more where a slack counts little
    tolerance = 5e-3 if weighted else 1e-4
    np.testing.assert_allclose(solution.w, w.value, rtol=1e-4, atol=tolerance * np.abs(solution.w).max())
    multipliers = C * margins[0].dual_value
    np.testing.assert_allclose(np.concatenate(solution.multipliers), multipliers, atol=1e-4 * C / n_images)


@pytest.mark.parametrize("C", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("scale", [(1, 1, 1), (1e4, 1, 1), (1e-3, 1, 1)], ids=str)
@pytest.mark.parametrize("n_images", [1, 2, 30])
def test_solution_meets_the_optimality_conditions(n_images, scale, C):
    program = random_program(n_images, n_images=n_images, n_labelings=8, scale=np.array(scale))
    residuals = optimality_residuals(solve_program(program, C), program, C)
    assert len(residuals) == 4
    assert max(residuals.values()) <= 1e-8


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stationarity in w", lambda s: {"w": s.w * 1.1}),
        ("stationarity in w", lambda s: {"w": s.w + [0, 0, 0.1]}),
        ("stationarity in xi", lambda s: {"multipliers": [1.001 * m for m in s.multipliers]}),
        ("feasibility", lambda s: {"slack": 0.999 * s.slack}),
        ("feasibility", lambda s: {"w": s.w - [0, 0.001 + s.w[1], 0]}),
        ("complementarity", lambda s: {"slack": 1.001 * s.slack}),
        ("complementarity", lambda s: {"multipliers": [0.999 * m for m in s.multipliers]}),
    ],
)
def test_residuals_tell_what_is_wrong(name, change):
    program = random_program(0)
    solution = solve_program(program, 1.0)
    assert np.count_nonzero(solution.slack) > 3
    wrong = replace(solution, **change(solution))
    assert optimality_residuals(wrong, program, 1.0)[name] > 1e-5


def test_program_does_not_depend_on_where_it_begins():
    program = random_program(3)
    values = [
        solve_program(program, 1.0, w).value for w in (np.zeros(3), np.array([9.0, 9, 9]), np.array([-5.0, 0, 2]))
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-10)


def test_program_without_constraints_is_solved_by_no_weights():
    for program in ([Labelings(np.zeros((2, 2), dtype=bool))], random_program(0, n_labelings=1)[:1]):
        stored = program[0]
        if len(stored):  # only the truth itself is stored
            stored = Labelings(stored.truth)
            stored.add(stored.truth, np.zeros(3), 0.0)
        solution = solve_program([stored], 1.0)
        np.testing.assert_array_equal(solution.w, np.zeros(3))
        assert solution.value == 0


@pytest.mark.parametrize("size", [1e-10, 1e-160, 1e-320])
def test_differences_may_be_next_to_nothing(size):
    # as the contrast term is where sigma is small
    stored = Labelings(np.array([[False, False]]))
    stored.add(np.array([[True, False]]), np.array([0.0, 0.0, size]), 1.0)
    stored.add(np.array([[True, True]]), np.array([0.0, 0.0, 0.0]), 2.0)
    assert solve_program([stored], 10.0).value == pytest.approx(20)


def test_a_further_constraint_never_lowers_gamma():
    values = [solve_program(random_program(5, n_labelings=n), 0.5).value for n in (2, 4)]
    program = random_program(5, n_labelings=2)
    before = solve_program(program, 0.5).value
    program[0].add(np.ones((4, 5), dtype=bool), np.array([-1.0, 5.0, 2.0]), 20.0)
    assert solve_program(program, 0.5).value >= before - 1e-12
    assert np.isfinite(values).all()


@given(problems(), st.integers(0, 2**32 - 1))
def test_a_constraint_added_to_any_problem_never_lowers_gamma(problem, seed):
    labelings = problem.labelings()
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(4):
        for stored, l, image in zip(labelings, problem.log_odds, problem.images):
            edges, features = pairwise_features(image, connectivity=problem.connectivity, sigma=problem.sigma)
            labels = rng.uniform(size=stored.truth.shape) < 0.5
            difference = joint_feature_difference(labels, stored.truth, l, edges, features)
            stored.add(labels, difference, float(np.count_nonzero(labels != stored.truth)))
        values.append(solve_program(labelings, problem.C).value)
    assert (np.diff(values) >= -problem.rounding_of_gamma).all()


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_the_stored_program_evaluated_is_least_at_its_optimum_and_its_multipliers_give_the_slope(C):
    program = random_program(0)
    program[0].known.weight = 2.0
    solution = solve_program(program, C)
    at_optimum = evaluate_stored(solution.w, program, C)
    assert at_optimum.value == pytest.approx(solution.value, rel=1e-12)
    np.testing.assert_allclose(at_optimum.slack, solution.slack, atol=1e-9)

    _, differences, _ = constraints_of(program)
    step = 1e-7
    for w in np.random.default_rng(0).uniform(0, 1, (5, 3)):
        there = evaluate_stored(w, program, C)
        assert there.value > solution.value
        slope = w - np.concatenate(there.multipliers) @ differences
        values = [evaluate_stored(w + step * change, program, C).value for change in np.eye(3)]
        np.testing.assert_allclose((np.array(values) - there.value) / step, slope, rtol=1e-4, atol=1e-4)
