"""Draw the figures of the theory page, on generated images: ``python docs/theory_figures.py``."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from skmmcrf.datasets import make_phantoms
from skmmcrf.field import Annotation, Field, Grid, build_terms, estimate_sigma
from skmmcrf.learning import CuttingPlanes, Example, Solution

_SHAPE = (64, 64)
_SHOWN = 3


def make_examples(n_images: int) -> tuple[list[np.ndarray], list[Example]]:
    """Make images, and examples whose log-odds are those of a network that is often wrong: the truth under noise."""
    X, y = make_phantoms(n_images, shape=_SHAPE, random_state=1)
    images = list(X[..., np.newaxis])
    grid = Grid.from_connectivity(8)
    field = Field(grid, build_terms("contrast", estimate_sigma(grid, images, np.ones(n_images))))
    noise = gaussian_filter(np.random.default_rng(0).normal(size=y.shape), (0, 1.5, 1.5))
    log_odds = list(2.0 * y - 1.0 + 1.2 * noise / noise.std())
    examples = [Example(energy, Annotation(truth == 1)) for energy, truth in zip(field.energies(log_odds, images), y)]
    return images, examples


def draw_cut(image: np.ndarray, example: Example, w: np.ndarray) -> Figure:
    """An image, its log-odds, and the labels before and after the cut."""
    energy = example.energy
    figure, axes = plt.subplots(1, 4, figsize=(8, 2.4), layout="constrained")
    axes[0].imshow(image, cmap="gray")
    _draw_signed(axes[1], energy.log_odds)
    for ax, labels in zip(axes[2:], (energy.log_odds > 0, energy.least(w))):
        ax.imshow(labels, cmap="gray")
        ax.contour(example.annotation.truth, [0.5], colors="tab:orange")
    _name(axes, ["image", "log-odds", "log-odds above 0", "least energy"])
    return figure


def draw_bounds(passes: list[tuple[int, float, float]], tol: float) -> Figure:
    """The bounds of gamma after each pass, and the gap between them."""
    n, lower, upper = np.array(passes).T
    figure, (of_bounds, of_gap) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    of_bounds.plot(n, upper, marker="o", label="upper bound")
    of_bounds.plot(n, lower, marker="o", label="lower bound")
    of_bounds.set(title="gamma", ylim=(0, 1.1 * upper.max()))
    of_bounds.legend()
    of_gap.plot(n, (upper - lower) / upper, marker="o", color="tab:green")
    of_gap.axhline(tol, color="gray", linestyle="--", label="tol")
    of_gap.set(title="gap, relative to gamma", yscale="log")
    of_gap.legend()
    for ax in (of_bounds, of_gap):
        ax.set(xlabel="pass")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_gradient(image: np.ndarray, example: Example, solution: Solution, multipliers: np.ndarray) -> Figure:
    """An image, its labels of least energy, its most violated labeling, and the gradient of gamma in its log-odds."""
    w, truth = solution.w, example.annotation.truth
    figure, axes = plt.subplots(1, 4, figsize=(8, 2.4), layout="constrained")
    axes[0].imshow(image, cmap="gray")
    axes[1].imshow(example.energy.least(w), cmap="gray")
    axes[2].imshow(example.energy.most_violated(w, example.annotation), cmap="gray")
    _draw_signed(axes[3], example.gradient(w, multipliers))
    for ax in axes[:3]:
        ax.contour(truth, [0.5], colors="tab:orange")
    _name(axes, ["image and truth", "least energy", "most violated", "gradient"])
    return figure


def _draw_signed(ax: Axes, values: np.ndarray) -> None:
    limit = np.abs(values).max()
    picture = ax.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.figure.colorbar(picture, ax=ax, shrink=0.7)


def _name(axes: np.ndarray, names: list[str]) -> None:
    for ax, name in zip(axes, names):
        ax.set(title=name, xticks=[], yticks=[])


def main() -> None:
    """Write the figures beside this file."""
    images, examples = make_examples(12)
    passes: list[tuple[int, float, float]] = []
    learner = CuttingPlanes()
    solution = learner.learn(examples, report=lambda n, lower, upper, share: passes.append((n, lower, upper)))
    image, example = images[_SHOWN], examples[_SHOWN]
    figures = {
        "cut": draw_cut(image, example, solution.w),
        "bounds": draw_bounds(passes, learner.tol),
        "gradient": draw_gradient(image, example, solution, solution.multipliers[_SHOWN]),
    }
    for name, figure in figures.items():
        figure.savefig(Path(__file__).with_name(f"theory_{name}.png"), dpi=100)
    print(f"weights {solution.w.round(3)}, gamma {solution.value:.1f}, passes {solution.n_iter}")


if __name__ == "__main__":
    main()
