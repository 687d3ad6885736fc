"""Every number is an optimum
==========================

Check that each number is the optimum that it is said to be, on generated images, and print a table.

Each row is a max-margin program on phantoms with noisy log-odds. Shown are the largest residual of its optimality
conditions, the proved relative gap of gamma, and how far, relative to its size, the gradient of gamma by the envelope
theorem is from the paper's linear system and from central differences of gamma solved anew; and, where cvxpy is
installed, how far gamma is from that of an independent solver.
"""

import numpy as np

from skmmcrf.datasets import make_phantoms
from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.learning import (
    CuttingPlanes,
    DegenerateProgramError,
    Example,
    LinearSystem,
    optimality_residuals,
    solve_program,
)

FIELD = Field(Grid.from_connectivity(8), build_terms("contrast", sigma=0.2))


def make_problem(n_images, side, seed):
    X, y = make_phantoms(n_images, shape=(side, side), random_state=seed)
    noise = np.random.default_rng(seed).normal(size=y.shape)
    return list(2.0 * y - 1 + 2 * noise), list(X[..., np.newaxis] / 255), list(map(Annotation, y.astype(bool)))


def solve(log_odds, images, annotations, C):
    examples = list(map(Example, FIELD.energies(log_odds, images), annotations))
    return CuttingPlanes(C, tol=0.0, max_iter=1000).learn(examples), examples


def relative(difference, reference):
    return np.abs(difference).max() / np.abs(reference).max()


def by_linear_system(gradients, solution, examples, C):
    try:
        system = LinearSystem(solution, examples, C)
    except DegenerateProgramError:
        return "degenerate"
    return f"{max(relative(system.gradient(n) - g, g) for n, g in enumerate(gradients)):.0e}"


def by_differences(gradients, problem, C, step=1e-6):
    """The error of one gradient entry, the largest, against central differences."""
    log_odds, images, annotations = problem
    pixel = np.unravel_index(np.abs(gradients[0]).argmax(), gradients[0].shape)
    gammas = []
    for sign in (1, -1):
        changed = [log_odds[0].copy(), *log_odds[1:]]
        changed[0][pixel] += sign * step
        gammas.append(solve(changed, images, annotations, C)[0].value)
    return abs((gammas[0] - gammas[1]) / (2 * step) / gradients[0][pixel] - 1)


def by_cvxpy(examples, C):
    try:
        import cvxpy as cp
    except ImportError:
        return "-"
    owners = np.repeat(np.arange(len(examples)), list(map(len, examples)))
    differences = np.array([d for example in examples for d in example.differences])
    losses = np.array([loss for example in examples for loss in example.losses])
    w, slack = cp.Variable(3), cp.Variable(len(examples), nonneg=True)
    objective = 0.5 / C * cp.sum_squares(w) + cp.sum(slack) / len(examples)
    margins = [differences @ w >= losses - slack[owners], w[1:] >= 0]
    value = C * cp.Problem(cp.Minimize(objective), margins).solve(solver=cp.CLARABEL)
    return f"{abs(value / solve_program(examples, C).value - 1):.0e}"


print("images pixels      C  residual      gap  linear system  differences   cvxpy")
for n_images, side in [(1, 16), (3, 24), (6, 32)]:
    for C in (1e-4, 1e-2, 1.0, 1e2):
        problem = make_problem(n_images, side, seed=n_images)
        solution, examples = solve(*problem, C)
        gradients = [example.gradient(solution.w, m) for example, m in zip(examples, solution.multipliers)]
        residual = max(optimality_residuals(solve_program(examples, C), examples, C).values())
        print(
            f"{n_images:6d} {side:3d}^2 {C:8g}  {residual:8.0e} {solution.dual_gap / solution.value:8.0e}  "
            f"{by_linear_system(gradients, solution, examples, C):>13} "
            f"{by_differences(gradients, problem, C):12.0e} {by_cvxpy(examples, C):>7}",
            flush=True,
        )
