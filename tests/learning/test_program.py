import sys
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems

from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.field.labels import pack_labeling
from skmmcrf.learning import Example, evaluate_stored, optimality_residuals, solve_program
from skmmcrf.learning import program as programs
from skmmcrf.learning.example import Constraint

TERMS = {2: build_terms("smoothness"), 3: build_terms("contrast", 1.0)}


def blank(shape=(4, 5), n_weights=3, weight=1.0):
    """An image of background, without labelings."""
    energy = Field(Grid.from_connectivity(4), TERMS[n_weights]).energy(np.zeros(shape), np.zeros((*shape, 1)))
    return Example(energy, Annotation(np.zeros(shape, dtype=bool), weight=weight))


def random_program(seed, n_images=6, n_labelings=5, scale=1.0, n_weights=3, weights=None):
    """Constraints that no graph cut need have made; losses in pixels, differences of their size."""
    rng = np.random.default_rng(seed)
    examples = [blank(n_weights=n_weights, weight=weight) for weight in weights or [1.0] * n_images]
    for example in examples:
        for k in range(n_labelings):
            loss = float(rng.integers(1, 1000))
            difference = loss * rng.normal(0.4, 1, size=n_weights) * scale
            example.add(Constraint(pack_labeling((np.arange(20) == k).reshape(4, 5)), difference, loss))
    return examples


def constraints_of(program):
    owners = np.repeat(np.arange(len(program)), [len(example) for example in program])
    differences = np.array([d for example in program for d in example.differences])
    losses = np.array([loss for example in program for loss in example.losses])
    return owners, differences, losses


@pytest.mark.parametrize("C", [1e-6, 1e-2, 1e3])
@pytest.mark.parametrize("n_weights", [2, 3])
@pytest.mark.parametrize("weights", [None, [0.3, 2.0, 0.5, 0.5, 2.0, 0.3]])
def test_program_equals_an_independent_solver(C, n_weights, weights):
    program = random_program(n_weights, n_weights=n_weights, weights=weights)
    owners, differences, losses = constraints_of(program)
    w, slack = cp.Variable(n_weights), cp.Variable(6, nonneg=True)
    # gamma / C, for its absolute tolerance
    objective = 0.5 / C * cp.sum_squares(w) + (weights or np.ones(6)) @ slack / 6
    margins = [differences @ w >= losses - slack[owners], w[1:] >= 0]
    expected = C * cp.Problem(cp.Minimize(objective), margins).solve(solver=cp.CLARABEL)
    solution = solve_program(program, C)
    assert solution.value == pytest.approx(expected, rel=1e-7)
    # the other solver is not exact to more where a slack counts little
    tolerance = 5e-3 if weights else 1e-4
    np.testing.assert_allclose(solution.w, w.value, rtol=1e-4, atol=tolerance * np.abs(solution.w).max())
    np.testing.assert_allclose(np.concatenate(solution.multipliers), C * margins[0].dual_value, atol=1e-4 * C / 6)


def random_metric_program(seed, n_labels=4, n_images=5, n_labelings=12):
    """The same for weights of pairs of labels, whose triangle inequalities would be violated."""
    rng, field = np.random.default_rng(seed), Field(Grid.from_connectivity(4), TERMS[3], "metric")
    energy = field.energy(np.zeros((n_labels, 4, 5)), np.zeros((4, 5, 1)))
    examples = [
        Example(energy, Annotation(np.zeros((4, 5), np.uint8), class_weight=(1.0,) * n_labels)) for _ in range(n_images)
    ]
    for example in examples:
        for k in range(n_labelings):
            loss = float(rng.integers(1, 1000))
            difference = loss * rng.normal(0.4, 1, size=energy.n_weights)
            example.add(
                Constraint(pack_labeling((np.arange(20) == k).reshape(4, 5).astype(np.uint8)), difference, loss)
            )
    return examples


@pytest.mark.parametrize("C", [1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("n_labels", [3, 4, 6])
def test_weights_of_pairs_are_those_of_an_independent_solver_and_a_metric_to_the_last_digit(n_labels, C):
    program = random_metric_program(n_labels, n_labels)
    weights, (owners, differences, losses) = program[0].energy.weights, constraints_of(program)
    w, slack = cp.Variable(weights.n_weights), cp.Variable(len(program), nonneg=True)
    triangles = weights.triangles(np.zeros(weights.n_weights), np.inf)
    norm = cp.sum_squares(cp.multiply(w, weights.scale))
    objective = 0.5 / C * norm + cp.sum(slack) / len(program)
    constraints = [differences @ w >= losses - slack[owners], w[1:] >= 0]
    free = C * cp.Problem(cp.Minimize(objective), constraints).solve(solver=cp.CLARABEL)
    expected = C * cp.Problem(cp.Minimize(objective), [*constraints, triangles @ w >= 0]).solve(solver=cp.CLARABEL)
    solution = solve_program(program, C)
    assert free < expected * (1 - 1e-6)
    assert solution.value == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(solution.w, w.value, atol=2e-3 * np.abs(solution.w).max())
    np.testing.assert_array_equal(weights.closed(solution.w), solution.w)
    residuals = optimality_residuals(solution, program, C)
    assert max(residuals.values()) <= 1e-8


def test_residuals_tell_of_weights_that_are_no_optimal_metric():
    program = random_metric_program(0)
    solution, weights = solve_program(program, 1.0), program[0].energy.weights
    assert len(weights.triangles(solution.w, 1e-9)) > 0
    row = weights.triangles(solution.w, 1e-9)[0]
    for name, moved in [("feasibility", solution.w - 0.01 * row), ("stationarity in w", solution.w + 0.01 * row)]:
        assert optimality_residuals(replace(solution, w=moved), program, 1.0)[name] > 1e-5


@pytest.mark.parametrize("C", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("scale", [(1, 1, 1), (1e4, 1, 1), (1e-3, 1, 1)], ids=str)
@pytest.mark.parametrize("n_images", [1, 2, 30])
def test_solution_meets_the_optimality_conditions(n_images, scale, C):
    program = random_program(n_images, n_images, n_labelings=8, scale=np.array(scale))
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
    assert optimality_residuals(replace(solution, **change(solution)), program, 1.0)[name] > 1e-5


def test_program_does_not_depend_on_where_it_begins():
    program, begins = random_program(3), ([0, 0, 0], [9, 9, 9], [-5, 0, 2])
    values = [solve_program(program, 1.0, np.array(w, dtype=float)).value for w in begins]
    np.testing.assert_allclose(values, values[0], rtol=1e-10)


@pytest.mark.parametrize("truth_is_stored", [False, True])
def test_program_without_constraints_is_solved_by_no_weights(truth_is_stored):
    example = blank()
    if truth_is_stored:
        example.store(example.annotation.truth)
    solution = solve_program([example], 1.0)
    np.testing.assert_array_equal(solution.w, np.zeros(3))
    assert solution.value == 0
    assert solution.multipliers[0].tolist() == [0.0] * truth_is_stored


@pytest.mark.parametrize("size", [1e-10, 1e-160, 1e-320])
def test_differences_may_be_next_to_nothing(size):
    # as the contrast term is where sigma is small
    example = blank((1, 2))
    example.add(Constraint(pack_labeling(np.array([[True, False]])), np.array([0.0, 0.0, size]), 1.0))
    example.add(Constraint(pack_labeling(np.array([[True, True]])), np.zeros(3), 2.0))
    assert solve_program([example], 10.0).value == pytest.approx(20)


@given(problems(), st.integers(0, 2**32 - 1))
def test_a_constraint_added_to_any_problem_never_lowers_gamma(problem, seed):
    examples, rng, values = problem.examples(), np.random.default_rng(seed), []
    for _ in range(4):
        for example in examples:
            example.store(rng.uniform(size=example.annotation.shape) < 0.5)
        values.append(solve_program(examples, problem.C).value)
    assert (np.diff(values) >= -problem.rounding_of_gamma).all()


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_the_stored_program_evaluated_is_least_at_its_optimum_and_its_multipliers_give_the_slope(C):
    program = random_program(0, weights=[2.0, 1, 1, 1, 1, 1])
    solution = solve_program(program, C)
    at_optimum = evaluate_stored(solution.w, program, C)
    assert at_optimum.value == pytest.approx(solution.value, rel=1e-12)
    assert at_optimum.dual_gap == np.inf
    np.testing.assert_allclose(at_optimum.slack, solution.slack, atol=1e-9)

    _, differences, _ = constraints_of(program)
    step = 1e-7
    for w in np.random.default_rng(0).uniform(0, 1, (5, 3)):
        there = evaluate_stored(w, program, C)
        assert there.value > solution.value
        slope = w - np.concatenate(there.multipliers) @ differences
        values = [evaluate_stored(w + step * change, program, C).value for change in np.eye(3)]
        np.testing.assert_allclose((np.array(values) - there.value) / step, slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": []}, "examples is empty"),
        ({"C": 0.0}, "C must be between 1e-12 and 1e[+]08, got 0.0"),
        ({"C": 1e9}, "C must be between"),
        ({"C": np.nan}, "C must be between"),
        ({"w": np.ones(2)}, r"w must be finite and of shape \(3,\)"),
        ({"w": np.array([1, np.inf, 1])}, "w must be finite"),
        ({"examples": [blank(), blank(n_weights=2)]}, "examples must have the same terms"),
    ],
)
@pytest.mark.parametrize("function", [solve_program, lambda examples, C, w: evaluate_stored(w, examples, C)])
def test_what_is_no_program_is_refused(function, change, message):
    with pytest.raises(ValueError, match=message):
        function(**{"examples": [blank()], "C": 1.0, "w": np.ones(3)} | change)


@pytest.mark.parametrize(("difference", "loss"), [([np.nan, 0, 0], 1.0), ([0, 0, 0], np.inf)])
def test_constraints_that_are_not_finite_are_refused(difference, loss):
    example = blank()
    example.add(Constraint(pack_labeling(np.ones((4, 5), bool)), np.array(difference), loss))
    with pytest.raises(ValueError, match="labelings must have finite differences and losses"):
        solve_program([example], 1.0)


def test_the_suite_checks_the_programs_that_every_module_solves():
    solvers = {name: vars(m)["solve_program"] for name, m in sys.modules.items() if "solve_program" in vars(m)}
    of_package = {name for name in solvers if name.startswith("skmmcrf.")}
    assert of_package >= {"skmmcrf.learning", "skmmcrf.learning.program", "skmmcrf.learning.cutting_planes"}
    assert all(hasattr(solvers[name], "__wrapped__") for name in of_package)


def test_what_holds_a_solution_leads_to_the_next_one_sooner_and_changes_nothing(monkeypatch):
    n_solved, working_set, solve = [], programs.WorkingSet(), programs._take_proximal_steps
    monkeypatch.setattr(programs, "_take_proximal_steps", lambda *args: n_solved.append(len(args[3])) or solve(*args))
    before = random_metric_program(1, 5, n_images=6)
    solution, weights = solve_program(before, 0.1, working_set=working_set), before[0].energy.weights
    assert {plane.shape for plane in working_set.planes} == {(6,)}
    assert 0 < len(working_set.triangles) < max(n_solved) - (weights.n_weights - 1)
    np.testing.assert_allclose(working_set.triangles @ solution.w, 0, atol=1e-9 * solution.w.max())
    longer = random_metric_program(1, 5, n_images=6)
    labels = np.ones((4, 5), np.uint8)
    longer[0].add(Constraint(pack_labeling(labels), 0.9 * np.array(longer[0].differences[0]), 1000.0))
    counts, found = {}, {}
    for name, known in {"nothing": None, "planes": replace(working_set, triangles=[]), "all": working_set}.items():
        n_solved.clear()
        found[name] = solve_program(longer, 0.1, working_set=known)
        counts[name] = len(n_solved)
    assert counts["all"] < counts["planes"] < counts["nothing"]
    for other in (found["planes"], found["all"]):
        assert other.value == pytest.approx(found["nothing"].value, rel=1e-10)
        np.testing.assert_allclose(other.w, found["nothing"].w, rtol=1e-6, atol=1e-9)
