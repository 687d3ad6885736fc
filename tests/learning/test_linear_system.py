from functools import partial

import numpy as np
import pytest
from small_images import field_of, move_log_odds, partly_labelled, squares, stripes, weighted

from skmmcrf.field import Annotation
from skmmcrf.field.labels import pack_labeling
from skmmcrf.learning import CuttingPlanes, DegenerateProgramError, Example, LinearSystem, solve_program
from skmmcrf.learning.example import Constraint


def learn(examples, C=0.05):
    return CuttingPlanes(C, tol=0.0, max_iter=200).learn(examples)


def assert_gradients_agree(system, solution, examples):
    gradients = [e.gradient(solution.w, m) for e, m in zip(examples, solution.multipliers)]
    size = max(np.abs(gradient).max() for gradient in gradients)
    assert size > 0
    for n, gradient in enumerate(gradients):
        np.testing.assert_allclose(system.gradient(n), gradient, rtol=0, atol=1e-8 * size)


SIZES = ((5, 6), (4, 7), (6, 6))


@pytest.mark.parametrize(
    ("draw", "C"),
    [
        *[(partial(squares, sizes=SIZES[:n]), C) for n in (1, 2, 3) for C in (0.01, 3.0)],
        (partial(squares, field=field_of(((0, 1), (1, 0), (0, 3)), "smoothness")), 0.05),
        (partial(squares, annotate=weighted), 0.05),
        (partial(squares, annotate=partly_labelled), 0.05),
    ],
)
def test_linear_system_equals_the_envelope_theorem(draw, C):
    compared = 0
    for seed in range(8):
        examples = draw(seed)
        solution = learn(examples, C)
        try:
            system = LinearSystem(solution, examples, C)
        except DegenerateProgramError:
            continue
        assert_gradients_agree(system, solution, examples)
        compared += 1
    assert compared >= 4


def test_an_image_of_no_weight_has_no_gradient():
    examples = squares(1, annotate=lambda n, truth: Annotation(truth, weight=2.0 * (n == 0)))
    solution = learn(examples)
    system = LinearSystem(solution, examples, 0.05)
    np.testing.assert_array_equal(system.gradient(1), np.zeros((4, 7)))
    assert_gradients_agree(system, solution, examples)


def test_linear_system_gives_the_multipliers():
    examples = squares(1)
    solution = learn(examples)
    system = LinearSystem(solution, examples, 0.05)
    expected = np.concatenate([m[active] for m, active in zip(solution.multipliers, system.active)])
    np.testing.assert_allclose(system.multipliers[: len(expected)], expected, rtol=1e-9)


def test_derivatives_of_w_and_slacks_equal_central_differences_and_vanish_where_nothing_active_changes():
    examples, step = squares(1), 1e-6
    system = LinearSystem(learn(examples), examples, 0.05)
    w, slack, multipliers = system.derivatives(0)
    same = (examples[0].unpack(system.active[0]) == examples[0].annotation.truth).all(axis=0)
    assert same.any()
    for part in (w, slack, multipliers):
        assert not part[:, same].any()
        assert part[:, ~same].any()

    def at(pixel, step):
        examples = squares(1)
        move_log_odds(examples[0], pixel, step)
        return learn(examples)

    pixels = list(map(tuple, np.argwhere(~same)))
    assert len(pixels) > 3
    for pixel in pixels[::3]:
        up, down = at(pixel, step), at(pixel, -step)
        for derivatives, name in ((w, "w"), (slack, "slack")):
            expected = (getattr(up, name) - getattr(down, name)) / (2 * step)
            np.testing.assert_allclose(derivatives[(slice(None), *pixel)], expected, rtol=1e-5, atol=1e-7)


def program(constraints):
    """Examples by hand: for each image its labelings of 4 pixels, with difference and loss; the truth is 0."""
    examples = []
    for of_image in constraints:
        energy = field_of().energy(np.zeros((1, 4)), np.zeros((1, 4, 1)))
        examples.append(Example(energy, Annotation(np.zeros((1, 4), dtype=bool))))
        for labels, difference, loss in of_image:
            packed = pack_labeling(np.array([labels], dtype=bool))
            examples[-1].add(Constraint(packed, np.array(difference, dtype=float), float(loss)))
    return examples


def test_a_weight_held_at_zero_does_not_move():
    # the second weight would rather be negative
    examples = program([[([1, 0, 0, 0], [1.0, -1.0, 0.5], 1), ([1, 1, 0, 0], [1.5, -2.0, 0.2], 2)]])
    solution = solve_program(examples, 10.0)
    assert solution.w[1] == 0
    system = LinearSystem(solution, examples, 10.0)
    np.testing.assert_array_equal(system.free, [0, 2])
    w, _, _ = system.derivatives(0)
    assert not w[1].any()
    assert w[0].any()
    assert_gradients_agree(system, solution, examples)


REGIONS = [([1, 0, 0, 0], [4, 1, 0], 1), ([0, 1, 0, 0], [-4, 0.5, 1], 1), ([1, 1, 0, 0], [0, 1.5, 1], 2)]


@pytest.mark.parametrize(
    ("constraints", "C", "message"),
    [
        # two images alike: their active rows form a parallelogram
        (
            2 * [[([1, 0, 0, 0], [1, 0.3, 0.1], 1), ([0, 1, 1, 0], [-1, 0.5, 0.1], 2)]],
            10.0,
            "(depend on each other|no multiplier)",
        ),
        # two regions that change independently of each other, both of them undecided
        ([REGIONS], 100.0, "(depend on each other|no multiplier)"),
        # the only labeling holds its margin exactly where all of C is used up: w = C a, and 1 - w . a = 0
        ([[([1, 0, 0, 0], [2, 0, 0], 1)]], 0.25, r"an active constraint of \(8\) has no multiplier"),
        # w2 is pulled neither up nor down
        (
            [[([1, 0, 0, 0], [1, 1, 0], 5)], [([1, 0, 0, 0], [1, -1, 0], 5)]],
            0.1,
            "a pairwise weight of zero has no multiplier",
        ),
    ],
    ids=["images alike", "independent regions", "multiplier zero", "weight zero"],
)
def test_degenerate_programs_are_told(constraints, C, message):
    examples = program(constraints)
    solution = solve_program(examples, C)
    with pytest.raises(DegenerateProgramError, match=message):
        LinearSystem(solution, examples, C)


def test_a_solution_of_other_images_is_refused():
    examples = squares(1)
    with pytest.raises(ValueError, match="solution and examples must be of the same images, got 2 and 1"):
        LinearSystem(learn(examples), examples[:1], 0.05)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of cvxpylayers
def test_diffcp_agrees():
    """An independent derivative of (8): cvxpylayers differentiates the optimum of a cone program with diffcp."""
    import cvxpy as cp
    import torch

    layers = pytest.importorskip("cvxpylayers.torch", reason="cvxpylayers 1 needs Python 3.11")

    examples, C = squares(1), 0.05
    solution = learn(examples, C)
    counts = list(map(len, solution.multipliers))
    owners = np.repeat(np.arange(len(examples)), counts)
    stored = [d for e, n in zip(examples, counts) for d in e.differences[:n]]
    losses = np.array([loss for e, n in zip(examples, counts) for loss in e.losses[:n]])

    w, slack, differences = cp.Variable(3), cp.Variable(len(examples)), cp.Parameter((len(owners), 3))
    constraints = [differences @ w >= losses - slack[owners], slack >= 0, w[1:] >= 0]
    objective = cp.Minimize(0.5 * cp.sum_squares(w) + C / len(examples) * cp.sum(slack))
    layer = layers.CvxpyLayer(cp.Problem(objective, constraints), parameters=[differences], variables=[w, slack])
    values = torch.tensor(np.array(stored), requires_grad=True)
    w_star, slack_star = layer(values, solver_args={"eps": 1e-10, "max_iters": 100_000})
    gamma = 0.5 * (w_star**2).sum() + C / len(examples) * slack_star.sum()
    gamma.backward()
    assert gamma.item() == pytest.approx(solution.value, rel=1e-5)
    # by the chain rule: the unary difference of labeling k moves by y_n,i - y_k,i
    for n, example in enumerate(examples):
        moves = example.annotation.truth.astype(int) - example.unpack(range(counts[n]))
        gradient = np.tensordot(values.grad[owners == n, 0].numpy(), moves, axes=1)
        expected = example.gradient(solution.w, solution.multipliers[n])
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_of_pairs_that_hold_a_triangle_inequality_with_equality_are_degenerate():
    outcomes = []
    for seed in range(6):
        examples = stripes(seed, compatibility="metric", scale=1.0)
        solution = CuttingPlanes(0.02, tol=0.0, max_iter=200).learn(examples)
        solution = solve_program(examples, 0.02, solution.w)
        outcomes.append(len(examples[0].energy.weights.triangles(solution.w, 1e-9)) > 0)
        if outcomes[-1]:
            with pytest.raises(DegenerateProgramError, match="by way of a third label"):
                LinearSystem(solution, examples, 0.02)
            continue
        system = LinearSystem(solution, examples, 0.02)
        for n, example in enumerate(examples):
            expected = example.gradient(solution.w, solution.multipliers[n])
            np.testing.assert_allclose(system.gradient(n), expected, atol=1e-7)
    assert set(outcomes) == {True, False}


def test_the_gradient_in_scores_of_several_labels_is_that_of_the_envelope_theorem():
    learner, examples = CuttingPlanes(0.02, tol=0.0, max_iter=200), stripes(0)
    solution = learner.learn(examples)
    system = LinearSystem(solution, examples, 0.02)
    for n, (example, multipliers) in enumerate(zip(examples, solution.multipliers)):
        expected = example.gradient(solution.w, multipliers)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(system.gradient(n), expected, atol=1e-9)
