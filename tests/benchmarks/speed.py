"""How fast the package is, in ratios that no machine changes much, as a table in Markdown.

On photographs, or without a folder on phantoms with the U-Net:

    python tests/benchmarks/speed.py --data FOLDER --weights squeezenet1_1.pth
    python tests/benchmarks/speed.py --only memory

Medians of three runs after a first, where nothing else is said; two threads cut. Leave the machine alone meanwhile:
torch's threads wait for each other, and become several times slower beside other work.
"""

import argparse
import re
import subprocess
import sys
import time
import tracemalloc
from itertools import combinations, count, product
from pathlib import Path

import numpy as np
import torch
from gradient import random_program
from joblib import Parallel
from measuring import (
    N_JOBS,
    PLAIN,
    TOL,
    C,
    Problem,
    Setting,
    add_data_options,
    counted_cuts,
    print_header,
    print_row,
    problem_of,
    time_each,
)
from scipy.ndimage import gaussian_filter
from skorch.callbacks import Callback

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginLoss
from skmmcrf.datasets import make_phantoms
from skmmcrf.field.energy import least_labelings
from skmmcrf.field.terms import scale_image
from skmmcrf.learning import optimality_residuals, solve_program
from skmmcrf.networks import AnySize, build_network
from skmmcrf.networks.running import resolve_device

MB = 1e6


class EpochClock(Callback):
    """Seconds of whole epochs, with what the estimator does at their end."""

    def __init__(self):
        self.seconds = []

    def on_epoch_begin(self, net, **kwargs):
        self.start_ = time.perf_counter()

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(time.perf_counter() - self.start_)


def measure_epochs(setting):
    clock, n = EpochClock(), 3
    training = {"n_epochs": n, "batch_size": 10, "callbacks": [("clock", clock)], "random_state": 0}
    model = DeepStructuredSegmenter(CNNSegmenter(**setting.network, **PLAIN | training), n_jobs=N_JOBS, **training)
    model.fit(*setting.train)
    rows = [row for row in model.history_ if row["epoch"] > 0]
    by_history = [np.median([row["seconds"] for row in rows if row["stage"] == stage]) for stage in ("cnn", "joint")]
    whole = np.median(clock.seconds[:n]), np.median(clock.seconds[n:])
    for what, (cnn, joint) in {"whole": whole, "`seconds` of `history_`": by_history}.items():
        measured = f"{joint:.2f} s; pretraining {cnn:.2f} s"
        print_row(f"a joint epoch against one of pretraining, {what}", measured, f"{joint / cnn:.2f}", "<= 1.25")


def bare_loop(network, X, y, batch_size, device, amp):
    """Images a second of a loop with nothing but the network and its steps, on images that lie on the device."""
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    pixels = torch.from_numpy(np.moveaxis(X, -1, 1).copy()).to(device)
    truth = torch.from_numpy(y == 1).to(device, torch.float32)[:, None]
    n_steps = max(len(X) // batch_size, 1)

    def epoch():
        for k in range(n_steps):
            part = slice(k * batch_size, (k + 1) * batch_size)
            with torch.autocast(device, torch.bfloat16, enabled=amp):
                log_odds = network(pixels[part].float() / 255)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(log_odds.float(), truth[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()  # waits for the device

    _, (seconds,) = time_each(epoch)
    return n_steps * batch_size / seconds


def measure_loop(setting):
    """On the device that "auto" means, at one size of images. Medians of three epochs after a first."""
    device = resolve_device("auto")
    X, y = setting.train
    height, width = np.min([labels.shape for labels in y], axis=0) // 32 * 32
    X, y = (np.stack([array[:height, :width] for array in arrays]) for arrays in (X, y))
    X = X if X.ndim == 4 else X[..., np.newaxis]
    precisions = (False, True) if device == "cuda" else (False,)
    for batch_size, augmentation, amp in product((5, 20), (None, "strong"), precisions):
        network = build_network(n_channels=X.shape[3], **setting.network)
        bare = bare_loop(network, X, y, batch_size, device, amp)
        clock = EpochClock()
        training = PLAIN | {"augmentation": augmentation, "amp": amp, "batch_size": batch_size, "callbacks": [clock]}
        CNNSegmenter(**setting.network, **training, n_epochs=4, device=device, random_state=0).fit(X, y)
        ours = len(X) / np.median(clock.seconds[1:])
        what = f"pretraining on {device}, {height} x {width}, batches of {batch_size}, {augmentation or 'no'} changes"
        measured = f"{ours:.4g} images a second; a bare loop {bare:.4g}"
        print_row(what + (", mixed precision" if amp else ""), measured, f"{bare / ours:.2f}", "<= 1.25")


def plain_algorithm(problem: Problem, parallel: Parallel) -> tuple[float, int]:
    """Algorithm 1 as it is written: each pass cuts each image once. Give gamma's upper bound, and the passes."""
    examples = problem.examples()
    w, lower = np.ones(3), -np.inf
    for n_passes in count(1):
        found = problem.most_violated(w, examples, parallel)
        upper, _ = problem.upper_bound(w, found)
        if upper - lower <= TOL * upper:
            return upper, n_passes
        for example, constraint in zip(examples, found):
            example.add(constraint)
        solution = solve_program(examples, C)
        w, lower = solution.w, solution.value
    raise AssertionError


def measure_learning(setting):
    problem = setting.problem("train")

    def plain():
        with Parallel(N_JOBS, prefer="threads") as parallel:
            return plain_algorithm(problem, parallel)

    (solution, (plain_gamma, plain_passes)), (seconds, plain_seconds) = time_each(lambda: problem.learn(N_JOBS), plain)
    np.testing.assert_allclose(solution.value, plain_gamma, rtol=2 * TOL)
    with counted_cuts() as counted:
        problem.learn(n_jobs=1)
    plain_cuts = plain_passes * len(problem)
    print_row(
        f"Algorithm 1 on {len(problem)} images, against its seconds inside `maxflow()` on one core",
        f"{seconds:.2f} s; {counted.seconds:.2f} s",
        f"{seconds / counted.seconds:.2f}",
        "<= 0.8",
    )
    print_row(
        "its minimum cuts, against plain Algorithm 1's",
        f"{counted.cuts}; {plain_passes} x {len(problem)}",
        f"{counted.cuts / plain_cuts:.2f}",
        "<= 0.5",
    )
    print_row(
        "its seconds, against plain Algorithm 1's",
        f"{seconds:.2f} s; {plain_seconds:.2f} s",
        f"{seconds / plain_seconds:.2f}",
        "",
    )


def measure_program(setting):
    examples = random_program(10_000, (16, 16), np.random.default_rng(0), n_labelings=10)
    (solution,), (seconds,) = time_each(lambda: solve_program(examples, C))
    tracemalloc.start()
    solve_program(examples, C)
    _, added = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    residual = max(optimality_residuals(solution, examples, C).values())
    of_what = "program (8), 10 labelings of each of 10,000 images"
    print_row(f"{of_what}: seconds", f"{seconds:.2f} s", "", "<= 1 s")
    print_row(f"{of_what}: memory added", f"{added / MB:.0f} MB", "", "<= 300 MB")
    print_row(f"{of_what}: residual of optimality", f"{residual:.1e}", "", "<= 1e-8")


def measure_gradient(setting):
    X, y = (part[:10] for part in setting.train)
    problem = problem_of(setting.model, X, y)
    network = AnySize(setting.model.network_, freeze_batch_norm=True).train()
    images = [torch.from_numpy(scale_image(image)).permute(2, 0, 1).contiguous() for image in problem.images]
    loss = MaxMarginLoss(C, sigma=problem.sigma, tol=TOL, n_jobs=N_JOBS)
    examples = problem.examples()
    solution = problem.learn(N_JOBS, examples)

    def batch():
        loss(network(images), problem.truths, images).backward()

    def gradient():
        return [example.gradient(solution.w, m) for example, m in zip(examples, solution.multipliers)]

    _, (whole, part) = time_each(batch, gradient, repeat=5)
    measured = f"{1e3 * part:.2f} ms; {whole:.2f} s"
    print_row("the gradient (*) of a joint batch of 10, against the batch", measured, f"{part / whole:.4f}", "<= 0.01")


def measure_predict(setting):
    model, (X, y) = setting.model, setting.valid
    problem = problem_of(model, X, y)

    def cuts():
        energies = map(problem.field.energy, problem.log_odds, problem.images)
        return list(least_labelings(model.coef_, energies, N_JOBS))

    _, (cnn, cuts, whole) = time_each(lambda: model.decision_function(X), cuts, lambda: model.predict(X))
    what = f"predict on {len(problem)} images"
    print_row(f"{what}: cuts against CNN", f"{cuts:.2f} s; {cnn:.2f} s", f"{cuts / cnn:.2f}", "<= 0.5")
    print_row(f"{what}: all against CNN", f"{whole:.2f} s; {cnn:.2f} s", f"{whole / cnn:.2f}", "<= 1.2")


def measure_images(setting):
    """Each fit runs once."""
    numbers = [50, 200, 800]
    X, y = make_phantoms(numbers[-1], shape=(64, 64), random_state=0)
    for training in ("piecewise", "joint"):
        cnn, joint = CNNSegmenter(**PLAIN, n_epochs=1), {"n_epochs": 1, "batch_size": 10}
        model = DeepStructuredSegmenter(cnn, training=training, **joint, C=C, n_jobs=N_JOBS, random_state=0)
        model.fit(X[:10], y[:10])  # warms up
        seconds = []
        for n in numbers:
            start = time.perf_counter()
            model.fit(X[:n], y[:n])
            seconds.append((time.perf_counter() - start) / n)
        print_growth(f"fit, {training}, an image, from {numbers} phantoms", seconds, 1e3, "ms")


def measure_pixels(setting):
    sides = [64, 128, 256, 512, 1024]
    X, y = make_phantoms(100, shape=(64, 64), random_state=0)
    cnn = CNNSegmenter(**PLAIN, n_epochs=5)
    model = DeepStructuredSegmenter(cnn, training="piecewise", C=C, random_state=0).fit(X, y)
    of_cut, of_predict = [], []
    for side in sides:
        n_images = (sides[-1] // side) ** 2  # as many pixels of each size
        X, y = make_phantoms(n_images, shape=(side, side), random_state=1)
        problem = problem_of(model, X, y)

        def cut(problem=problem):
            return problem.most_violated(model.coef_, problem.examples(), Parallel(n_jobs=1))

        _, seconds = time_each(cut, lambda X=X: model.predict(X))
        for of_one, second in zip((of_cut, of_predict), seconds):
            of_one.append(second / y.size)
    print_growth(f"loss-augmented cuts, a pixel, on one core, from sides {sides}", of_cut, 1e6, "us")
    print_growth(f"predict, a pixel, n_jobs=1, from sides {sides}", of_predict, 1e6, "us")


def print_growth(what, seconds, scale, unit):
    growth = max(later / earlier for earlier, later in combinations(seconds, 2))
    print_row(what, f"{', '.join(f'{scale * s:.3g}' for s in seconds)} {unit}", f"{growth:.2f}", "<= 1.5")


class LazyPhantoms(torch.utils.data.Dataset):
    """Phantoms of 256 x 256 pixels with their labels, each made when it is asked for by shifting one of twenty.

    Their second channel is the truth, blurred and noisy.
    """

    def __init__(self, n_images):
        self.n_images = n_images
        phantoms, self.y = make_phantoms(20, shape=(256, 256), random_state=0)
        hint = np.random.default_rng(0).normal(255 * gaussian_filter(self.y.astype(float), (0, 4, 4)), 20)
        self.X = np.stack([phantoms, np.clip(hint, 0, 255).astype(np.uint8)], axis=-1)

    def __len__(self):
        return self.n_images

    def __getitem__(self, n):
        return tuple(np.roll(array[n % 20], n // 20, axis=1) for array in (self.X, self.y))


def read_hint(n_channels):
    """A network that knows from the start what the second channel hints at, so that few and quick cuts are needed."""
    score = torch.nn.Conv2d(n_channels, 1, 1)
    with torch.no_grad():
        score.weight[0, :, 0, 0] = torch.tensor([0.0, 10.0])
        score.bias.fill_(-5)
    return score


#: "small" is quick, for how memory grows by the images; what a network itself takes does not depend on them. The U-Net
#: would take a gigabyte more for its features of ten images, but the fewer images in a batch, the more cuts each takes.
MEMORY_NETWORKS = {"unet": {"network": "unet", "batch_size": 4}, "small": {"network": read_hint, "batch_size": 10}}


def peaks_of_fit(network, n_images):
    """Bytes that a joint fit in this process held at most, and those that the processes which cut did, added up.

    Without the code of libraries, which is mapped from files.
    """
    parameters = MEMORY_NETWORKS[network]
    DeepStructuredSegmenter(
        CNNSegmenter(**PLAIN | parameters, n_epochs=1),
        n_epochs=1,
        batch_size=parameters["batch_size"],
        C=C,
        n_jobs=N_JOBS,
        random_state=0,
    ).fit(LazyPhantoms(n_images))
    children = [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    return peak_of("self"), sum(map(peak_of, children))


def peak_of(pid):
    # not getrusage's ru_maxrss: a child's begins at what its parent held when it was started
    status = Path(f"/proc/{pid}/status").read_text()
    most, of_files = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("VmHWM", "RssFile"))
    return 1024 * (most - of_files)


def measure_memory(network, numbers):
    totals = []
    for n in numbers:
        fresh = [sys.executable, __file__, "--peaks-of-fit", network, str(n)]
        printed = subprocess.run(fresh, stdout=subprocess.PIPE, text=True, check=True).stdout
        own, of_children = map(int, printed.split())
        totals.append(own + of_children)
        measured = f"{own / MB:.0f} MB; with the processes that cut {totals[-1] / MB:.0f} MB"
        print_row(f"memory of fit, {network}, {n} lazy images of 256 x 256", measured, "", "< 2000 MB")
    measured = ", ".join(f"{total / MB:.0f}" for total in totals)
    print_row(
        f"memory of fit, {network}, from {numbers} images",
        f"{measured} MB",
        f"{max(totals) / totals[0]:.2f}",
        "<= 1.10",
    )


MEASURES = {
    "loop": measure_loop,
    "epochs": measure_epochs,
    "learning": measure_learning,
    "program": measure_program,
    "gradient": measure_gradient,
    "predict": measure_predict,
    "images": measure_images,
    "pixels": measure_pixels,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_options(parser)
    parser.add_argument("--images", type=int, default=150, help="to train with, at most")
    parser.add_argument("--only", nargs="+", choices=[*MEASURES, "memory"], default=list(MEASURES))
    parser.add_argument("--memory-images", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--memory-network", choices=list(MEMORY_NETWORKS), default="small")
    parser.add_argument("--peaks-of-fit", nargs=2, help=argparse.SUPPRESS)  # what `measure_memory` runs
    arguments = parser.parse_args()
    if arguments.peaks_of_fit:
        network, n_images = arguments.peaks_of_fit
        print(*peaks_of_fit(network, int(n_images)))
        return

    setting = Setting(arguments.data, arguments.weights, arguments.images, n_epochs=5)
    print_header("what", "measured", "ratio", "limit")
    for name in arguments.only:
        if name == "memory":
            measure_memory(arguments.memory_network, arguments.memory_images)
        else:
            MEASURES[name](setting)


if __name__ == "__main__":
    main()
