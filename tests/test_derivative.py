import numpy as np
import pytest

from skmmcrf.derivative import DegenerateProgramError, LinearSystem, envelope_gradient
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import learn_weights
from skmmcrf.quadratic_program import solve_program
from skmmcrf.truth import Truth


def problem(seed, sizes=((5, 6), (4, 7))):
    rng = np.random.default_rng(seed)
    log_odds, images, truths = [], [], []
    for shape in sizes:
        truth = np.zeros(shape, dtype=bool)
        truth[1:3, 1:4] = True
        log_odds.append(1.5 * truth - 0.7 + rng.normal(size=shape))
        images.append((truth + 0.3 * rng.normal(size=shape))[..., np.newaxis])
        truths.append(truth)
    return log_odds, images, truths


def solve(log_odds, images, truths, C=0.05, connectivity=8):
    labelings = [Labelings(truth) for truth in truths]
    solution = learn_weights(
        log_odds, images, labelings, C, connectivity=connectivity, sigma=0.3, tol=0.0, max_iter=200
    )
    return solution, labelings


def weighted(truths):
    """Truths of images and classes that count unequally."""
    return [Truth(truth, weight=1.5 - n, class_weight=(1.0, 3.0)) for n, truth in enumerate(truths)]


def partly_labelled(truths):
    rng = np.random.default_rng(0)
    return [Truth(truth, rng.uniform(size=truth.shape) < 0.7) for truth in truths]


@pytest.mark.parametrize("known", [weighted, partly_labelled])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_what_counts_unequally(seed, known):
    C = 0.05
    log_odds, images, truths = problem(seed)
    solution, labelings = solve(log_odds, images, known(truths), C)
    gradients = [envelope_gradient(solution.w, s, m) for s, m in zip(labelings, solution.multipliers)]
    bounds = [abs(solution.w[0]) * C / 2 * stored.known.weight * (1 + 1e-9) for stored in labelings]
    assert all(np.abs(gradient).max() <= bound for gradient, bound in zip(gradients, bounds))
    step = 1e-5
    for n, pixel in [(0, (1, 1)), (0, (3, 4)), (0, (2, 0)), (1, (0, 0)), (1, (2, 3)), (1, (2, 5))]:
        gammas = []
        for sign in (1, -1):
            changed = [l.copy() for l in log_odds]
            changed[n][pixel] += sign * step
            gammas.append(solve(changed, images, known(truths), C)[0].value)
        slope = (gammas[0] - gammas[1]) / (2 * step)
        assert gradients[n][pixel] == pytest.approx(slope, rel=1e-5, abs=1e-5 * max(bounds))
    try:
        system = LinearSystem(solution, labelings, C)
    except DegenerateProgramError:
        return
    for n, gradient in enumerate(gradients):
        np.testing.assert_allclose(system.gradient(n), gradient, rtol=0, atol=1e-8 * max(bounds))


def test_an_image_of_no_weight_has_no_gradient():
    log_odds, images, truths = problem(1)
    known = [Truth(truth, weight=weight) for truth, weight in zip(truths, (2.0, 0.0))]
    solution, labelings = solve(log_odds, images, known)
    system = LinearSystem(solution, labelings, 0.05)
    np.testing.assert_array_equal(system.gradient(1), np.zeros((4, 7)))
    expected = envelope_gradient(solution.w, labelings[0], solution.multipliers[0])
    np.testing.assert_allclose(system.gradient(0), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("C", [0.01, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_central_differences_of_the_solved_gamma(seed, C, connectivity):
    log_odds, images, truths = problem(seed)
    solution, labelings = solve(log_odds, images, truths, C, connectivity)
    gradients = [envelope_gradient(solution.w, s, m) for s, m in zip(labelings, solution.multipliers)]
    size = max(np.abs(gradient).max() for gradient in gradients)
    assert size > 0
    step = 1e-5
    for n, pixel in [(0, (1, 1)), (0, (3, 4)), (1, (0, 0)), (1, (2, 3)), (1, (2, 5))]:
        gammas = []
        for sign in (1, -1):
            changed = [l.copy() for l in log_odds]
            changed[n][pixel] += sign * step
            gammas.append(solve(changed, images, truths, C, connectivity)[0].value)
        slope = (gammas[0] - gammas[1]) / (2 * step)
        assert gradients[n][pixel] == pytest.approx(slope, rel=1e-5, abs=1e-5 * size)


def test_gradient_is_bounded_by_w1_C_over_N():
    C = 0.3
    log_odds, images, truths = problem(5)
    solution, labelings = solve(log_odds, images, truths, C)
    bound = abs(solution.w[0]) * C / len(truths)
    for stored, multipliers in zip(labelings, solution.multipliers):
        assert np.abs(envelope_gradient(solution.w, stored, multipliers)).max() <= bound * (1 + 1e-9)


def test_no_active_labeling_gives_no_gradient():
    stored = Labelings(np.array([[True, False]]))
    np.testing.assert_array_equal(envelope_gradient(np.ones(3), stored, np.empty(0)), np.zeros((1, 2)))


def program(constraints):
    """Stored labelings by hand: for each image its labelings of 4 pixels, with difference and loss; truth is 0."""
    labelings = []
    for of_image in constraints:
        stored = Labelings(np.zeros((1, 4), dtype=bool))
        for labels, difference, loss in of_image:
            stored.add(np.array([labels], dtype=bool), np.array(difference, dtype=float), float(loss))
        labelings.append(stored)
    return labelings


@pytest.mark.parametrize("C", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("sizes", [((5, 6),), ((5, 6), (4, 7)), ((5, 6), (4, 7), (6, 6))], ids=len)
def test_linear_system_equals_the_envelope_theorem(sizes, C):
    compared = 0
    for seed in range(8):
        solution, labelings = solve(*problem(seed, sizes), C)
        try:
            system = LinearSystem(solution, labelings, C)
        except DegenerateProgramError:
            continue
        for n, (stored, multipliers) in enumerate(zip(labelings, solution.multipliers)):
            expected = envelope_gradient(solution.w, stored, multipliers)
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(system.gradient(n), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        compared += 1
    assert compared >= 5


def test_linear_system_gives_the_multipliers():
    solution, labelings = solve(*problem(1))
    system = LinearSystem(solution, labelings, 0.05)
    expected = np.concatenate([m[active] for m, active in zip(solution.multipliers, system.active)])
    np.testing.assert_allclose(system.multipliers[: len(expected)], expected, rtol=1e-9)


def test_derivatives_of_w_and_slacks_equal_central_differences():
    log_odds, images, truths = problem(1)
    solution, labelings = solve(log_odds, images, truths)
    w, slack, multipliers = LinearSystem(solution, labelings, 0.05).derivatives(0)
    pixels = np.argwhere(np.abs(multipliers).sum(axis=0) > 0)
    assert len(pixels) > 3
    step = 1e-6
    for pixel in map(tuple, pixels[::3]):
        ends = []
        for sign in (1, -1):
            changed = [l.copy() for l in log_odds]
            changed[0][pixel] += sign * step
            ends.append(solve(changed, images, truths)[0])
        at = (slice(None), *pixel)
        np.testing.assert_allclose(w[at], (ends[0].w - ends[1].w) / (2 * step), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(slack[at], (ends[0].slack - ends[1].slack) / (2 * step), rtol=1e-5, atol=1e-7)


def test_pixels_that_no_active_labeling_changes_have_no_derivative():
    solution, labelings = solve(*problem(1))
    system = LinearSystem(solution, labelings, 0.05)
    same = (labelings[0].unpack(system.active[0]) == labelings[0].truth).all(axis=0)
    assert same.any()
    for part in system.derivatives(0):
        assert not part[:, same].any()
        assert part[:, ~same].any()


def test_a_weight_held_at_zero_does_not_move():
    # the second weight would rather be negative
    labelings = program([[([1, 0, 0, 0], [1.0, -1.0, 0.5], 1), ([1, 1, 0, 0], [1.5, -2.0, 0.2], 2)]])
    solution = solve_program(labelings, 10.0)
    assert solution.w[1] == 0
    system = LinearSystem(solution, labelings, 10.0)
    np.testing.assert_array_equal(system.free, [0, 2])
    w, _, _ = system.derivatives(0)
    assert not w[1].any()
    assert w[0].any()
    expected = envelope_gradient(solution.w, labelings[0], solution.multipliers[0])
    np.testing.assert_allclose(system.gradient(0), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("constraints", "C", "message"),
    [
        # two images alike: their active rows form a parallelogram
        (
            2 * [[([1, 0, 0, 0], [1.0, 0.3, 0.1], 1), ([0, 1, 1, 0], [-1.0, 0.5, 0.1], 2)]],
            10.0,
            "(depend on each other|no multiplier)",
        ),
        # two regions that change independently of each other, both of them undecided
        (
            [
                [
                    ([1, 0, 0, 0], [4.0, 1.0, 0.0], 1),
                    ([0, 1, 0, 0], [-4.0, 0.5, 1.0], 1),
                    ([1, 1, 0, 0], [0.0, 1.5, 1.0], 2),
                ]
            ],
            100.0,
            "(depend on each other|no multiplier)",
        ),
        # the only labeling holds its margin exactly where all of C is used up: w = C a, and 1 - w . a = 0
        ([[([1, 0, 0, 0], [2.0, 0.0, 0.0], 1)]], 0.25, "an active constraint of (8) has no multiplier"),
        # w2 is pulled neither up nor down
        (
            [[([1, 0, 0, 0], [1.0, 1.0, 0.0], 5)], [([1, 0, 0, 0], [1.0, -1.0, 0.0], 5)]],
            0.1,
            "a pairwise weight of zero has no multiplier",
        ),
    ],
    ids=["images alike", "independent regions", "multiplier zero", "weight zero"],
)
def test_degenerate_programs_are_told(constraints, C, message):
    labelings = program(constraints)
    solution = solve_program(labelings, C)
    with pytest.raises(DegenerateProgramError, match=message.replace("(8)", r"\(8\)")):
        LinearSystem(solution, labelings, C)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of cvxpylayers
def test_diffcp_agrees():
    """An independent derivative of (8): cvxpylayers differentiates the optimum of a cone program with diffcp."""
    import cvxpy as cp
    import torch

    layers = pytest.importorskip("cvxpylayers.torch", reason="cvxpylayers 1 needs Python 3.11")

    log_odds, images, truths = problem(1)
    C = 0.05
    solution, labelings = solve(log_odds, images, truths, C)
    owners = np.repeat(np.arange(len(labelings)), [len(m) for m in solution.multipliers])
    stored = [d for s, m in zip(labelings, solution.multipliers) for d in s.differences[: len(m)]]
    losses = np.array([x for s, m in zip(labelings, solution.multipliers) for x in s.losses[: len(m)]])

    w, slack, differences = cp.Variable(3), cp.Variable(len(labelings)), cp.Parameter((len(owners), 3))
    constraints = [differences @ w >= losses - slack[owners], slack >= 0, w[1:] >= 0]
    objective = cp.Minimize(0.5 * cp.sum_squares(w) + C / len(labelings) * cp.sum(slack))
    layer = layers.CvxpyLayer(cp.Problem(objective, constraints), parameters=[differences], variables=[w, slack])
    values = torch.tensor(np.array(stored), requires_grad=True)
    w_star, slack_star = layer(values, solver_args={"eps": 1e-10, "max_iters": 100_000})
    gamma = 0.5 * (w_star**2).sum() + C / len(labelings) * slack_star.sum()
    gamma.backward()
    assert gamma.item() == pytest.approx(solution.value, rel=1e-5)
    # by the chain rule: the unary difference of labeling k moves by y_n,i - y_k,i
    for n, labels_of_image in enumerate(labelings):
        known = np.arange(len(solution.multipliers[n]))
        moves = labels_of_image.truth.astype(int) - labels_of_image.unpack(known)
        gradient = np.tensordot(values.grad[owners == n, 0].numpy(), moves, axes=1)
        expected = envelope_gradient(solution.w, labels_of_image, solution.multipliers[n])
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
