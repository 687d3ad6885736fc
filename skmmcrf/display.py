"""Pictures of images, labelings and training curves. They need matplotlib."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from skmmcrf._typing import FloatArray, ImagesLike, LabelsLike
from skmmcrf.metrics import jaccard_indices
from skmmcrf.validation import scale_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_segmentations(images: ImagesLike, labels: LabelsLike, predictions: Mapping[str, LabelsLike]) -> "Figure":
    """Draw images, the truth, and one or more results with their Jaccard index, as in the paper's Fig. 1.

    Parameters
    ----------
    images : sequence of n arrays of shape (H, W) or (H, W, channels)
        bool, uint8, uint16 or float; the first of several channels is shown unless they are three.
    labels : sequence of n arrays of shape (H, W)
        The truth, 0 or 1.
    predictions : dict of str to sequence of n arrays of shape (H, W)
        Results by their name.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each image: the image, the truth and each result, outlined.

    Raises
    ------
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(2, random_state=0)
    >>> figure = plot_segmentations(X, y, {"all": y | 1})
    >>> len(figure.axes)
    6
    """
    plt = _pyplot()
    columns: dict[str, Any] = {"image": None, "truth": labels, **predictions}
    heights = [2.2 * np.shape(labeling)[0] / np.shape(labeling)[1] for labeling in labels]
    figure, axes = plt.subplots(
        len(images),
        len(columns),
        figsize=(2.2 * len(columns), sum(heights) + 0.3 * len(images)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for column, (name, labelings) in enumerate(columns.items()):
        axes[0, column].set_title(name)
        indices = jaccard_indices(labels, labelings) if name in predictions else None
        for row, image in enumerate(images):
            ax = axes[row, column]
            ax.imshow(_shown(image), cmap="gray", vmin=0, vmax=1)
            if labelings is not None:
                _outline(ax, labelings[row], "yellow" if name == "truth" else "deepskyblue")
            if indices is not None:
                index = indices[row]
                ax.set_xlabel("Jaccard: both empty" if np.isnan(index) else f"Jaccard {100 * index:.1f} %")
            ax.set(xticks=[], yticks=[])
    return figure


def plot_history(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw gamma and the Jaccard indices of joint training by epoch, as in the paper's Fig. 3.

    Parameters
    ----------
    history : list of dict
        `history_` of a `DeepStructuredSegmenter` that was trained jointly.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the history has no joint epochs.

    Examples
    --------
    >>> history = [{"stage": "joint", "epoch": n, "gamma": 9.0 - n, "jaccard": 0.8} for n in range(3)]
    >>> len(plot_history(history).axes)
    2
    """
    plt = _pyplot()
    epochs = [epoch for epoch in history if epoch["stage"] == "joint"]
    if not epochs:
        raise ValueError("history has no epochs of joint training")
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(5, 5), layout="constrained")
    numbers = [epoch["epoch"] for epoch in epochs]
    upper.plot(numbers, [epoch["gamma"] for epoch in epochs], "o-", color="black")
    upper.set_ylabel("objective $\\gamma$")
    for key, name in {"jaccard": "training images", "valid_jaccard": "validation images"}.items():
        if key in epochs[0]:
            lower.plot(numbers, [100 * epoch[key] for epoch in epochs], "o-", label=name)
    lower.set(xlabel="epoch of joint training (0: piecewise)", ylabel="mean Jaccard index in %")
    lower.xaxis.get_major_locator().set_params(integer=True)
    lower.legend()
    return figure


def _pyplot() -> ModuleType:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install matplotlib") from error
    return plt


def _shown(image: ArrayLike) -> FloatArray:
    image = scale_image(np.asarray(image))
    return np.clip(image if image.ndim == 2 or image.shape[2] == 3 else image[..., 0], 0, 1)


def _outline(ax: "Axes", labels: ArrayLike, color: str) -> None:
    if not np.any(labels):
        return
    # a border of background closes the outlines of what touches the edge of the image
    height, width = np.shape(labels)
    rows, columns = np.arange(-1, height + 1), np.arange(-1, width + 1)
    ax.contour(columns, rows, np.pad(labels, 1), levels=[0.5], colors=color, linewidths=1.2)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
