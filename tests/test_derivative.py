import numpy as np
import pytest

from skmmcrf.derivative import envelope_gradient
from skmmcrf.max_margin import Labelings, learn_weights


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
