"""Pictures of results, of training and of the learned energy, as scikit-learn's displays. They need matplotlib.

A display holds what is drawn. `plot` draws it in a new figure, or in a figure or subfigure that it is given. It keeps
`figure_` and `axes_`. The class methods compute what is drawn and plot it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from skmmcrf._colours import UNLABELLED_COLOUR, class_colours, tinted
from skmmcrf._docs import documented
from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, FloatArray, ImagesLike, LabelsLike
from skmmcrf.estimators.segmenter import DeepStructuredSegmenter
from skmmcrf.field.energy import Energy
from skmmcrf.field.labels import UNLABELLED
from skmmcrf.field.terms import scale_image
from skmmcrf.images.checking import LabelledImages, check_images, check_labelled_images, check_labels
from skmmcrf.images.labels import LABEL_CONSTRAINTS, LabelScheme, listed
from skmmcrf.metrics.means import jaccard_of_annotations
from skmmcrf.metrics.reading import label_scheme_of, names_of_classes, scheme_of_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.patches import Patch


class SegmentationDisplay:
    """Images, their truth and one or more results with the Jaccard index, outlined as in the paper's Fig. 1.

    More than two classes tint the image in their colours, with a legend. The index is the mean over the classes in an
    image's truth or result.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    images : list of n ndarrays of shape (H, W, channels)
        bool, uint8, uint16 or float, of any sizes. Of several channels the first is shown, unless they
        are three. Floats are clipped to [0, 1].
    labels : list of n ndarrays of shape (H, W)
        The truth: 0, 1, or 255 for unlabelled pixels. If there are `class_names`, these are the numbers 0 to K - 1.
    predictions : dict of str to list of n ndarrays of bool or uint8 and shape (H, W)
        The foreground of results by their name. If there are `class_names`, these are the numbers 0 to K - 1.
    jaccard : dict of str to ndarray of shape (n,)
        The results' Jaccard indices, between 0 and 1. They are NaN where neither truth nor result has foreground.
    class_names : sequence of K str, optional
        The names of more than two classes.

    Attributes
    ----------
    figure_ : matplotlib Figure or SubFigure
    axes_ : ndarray of matplotlib Axes of shape (n, 2 + n_results)
        A row for each image: the image, the truth and each result.

    Examples
    --------
    >>> from skmmcrf.datasets import make_phantoms
    >>> from skmmcrf.display import SegmentationDisplay
    >>> X, y = make_phantoms(2, random_state=0)
    >>> display = SegmentationDisplay.from_predictions(X, y, {"all": y | 1, "none": 0 * y})
    >>> display.axes_.shape, display.jaccard["none"]
    ((2, 4), array([0., 0.]))
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        predictions: Mapping[str, Sequence[np.ndarray]],
        jaccard: Mapping[str, FloatArray],
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.predictions = predictions
        self.jaccard = jaccard
        self.class_names = class_names

    @classmethod
    @documented
    def from_estimator(
        cls,
        estimator: Any,
        X: ImagesLike,
        y: LabelsLike,
        *,
        pos_label: int | None = None,
        class_names: Sequence[str] | None = None,
        figure: "Figure | SubFigure | None" = None,
    ) -> "SegmentationDisplay":
        """Predict and plot.

        Parameters
        ----------
        estimator : fitted estimator, or dict of str to fitted estimator
            Anything that predicts labels of images, also Pipelines and searches. Each gets a column.
        %(X_shown)s
        y : array of shape (n, H, W) or list of arrays (H, W)
            The truth, labelled as for fit. Unlabelled pixels are shaded and not counted.
        pos_label : int, optional
            The label of foreground, in y and in predictions. By default it is the estimator's.
        %(class_names)s
        %(figure)s

        Returns
        -------
        SegmentationDisplay

        Raises
        ------
        ImportError, ValueError
            If matplotlib is missing, images and labels do not fit, labels have other values, or estimators differ in
            what these mean.

        Examples
        --------
        >>> from skmmcrf import CNNSegmenter
        >>> from skmmcrf.datasets import make_phantoms
        >>> from skmmcrf.display import SegmentationDisplay
        >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
        >>> models = {f"{n} epochs": CNNSegmenter(n_epochs=n, random_state=0).fit(X, y) for n in (1, 3)}
        >>> SegmentationDisplay.from_estimator(models, X, y).axes_.shape
        (4, 4)
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        models = _estimators(estimator)
        scheme = _common_scheme(models, pos_label)
        data = check_labelled_images(X, y, scheme)
        for name, model in models.items():
            if not hasattr(model, "predict"):
                raise TypeError(f"estimator must have the method predict, {shown(name)} has none")
        predictions = {name: model.predict(X) for name, model in models.items()}
        return cls._of_labels(data, predictions, scheme, class_names).plot(figure=figure)

    @classmethod
    @documented
    def from_predictions(
        cls,
        X: ImagesLike,
        y: LabelsLike,
        predictions: LabelsLike | Mapping[str, LabelsLike],
        *,
        pos_label: int = 1,
        classes: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        figure: "Figure | SubFigure | None" = None,
    ) -> "SegmentationDisplay":
        """Plot what was predicted.

        Parameters
        ----------
        %(X_shown)s
        %(y_shown)s
        predictions : labels like y but without 255, or dict of str to such labels
            Each gets a column.
        pos_label : int, default=1
            The label of foreground, in y and in the predictions.
        classes : sequence of int, optional
            The labels of several classes in ascending order, such as ``model.classes_``.
        class_names : sequence of str, optional
            The names of these. By default they are such as "class 2".
        %(figure)s

        Returns
        -------
        SegmentationDisplay

        Raises
        ------
        ImportError, ValueError
            If matplotlib is missing, images and labels do not fit, or labels have other values.

        Examples
        --------
        >>> import numpy as np
        >>> from skmmcrf.display import SegmentationDisplay
        >>> y = np.array([[[0, 0, 1], [2, 2, 255]]])
        >>> display = SegmentationDisplay.from_predictions(
        ...     y / 255, y, y % 255, classes=range(3), class_names=["sky", "road", "car"]
        ... )
        >>> display.axes_[0, 2].get_xlabel()
        'mean Jaccard 100.0 %'
        """
        check_matplotlib_support(f"{cls.__name__}.from_predictions")
        named = predictions if isinstance(predictions, Mapping) else {"result": predictions}
        scheme = _scheme(pos_label, classes=classes)
        data = check_labelled_images(X, y, scheme)
        return cls._of_labels(data, named, scheme, class_names).plot(figure=figure)

    @classmethod
    def _of_labels(
        cls,
        data: LabelledImages,
        predictions: Mapping[str, LabelsLike],
        scheme: LabelScheme,
        class_names: Sequence[str] | None,
    ) -> "SegmentationDisplay":
        names = names_of_classes(scheme, class_names)
        shapes = [annotation.shape for annotation in data.annotations]
        results = {}
        for name, result in predictions.items():
            complete = replace(scheme, ignore_label=None)
            read = check_labels(result, shapes, complete, ("X", f"predictions of {shown(name)}"))
            results[name] = [annotation.truth for annotation in read]
        jaccard = {name: jaccard_of_annotations(data.annotations, result) for name, result in results.items()}
        masks = [annotation.mask for annotation in data.annotations]
        return cls(data.images, masks, results, jaccard, names if scheme.several else None)

    def plot(self, *, figure: "Figure | SubFigure | None" = None) -> "SegmentationDisplay":
        """Draw in a new figure, or in a figure or subfigure that is given."""
        check_matplotlib_support(f"{type(self).__name__}.plot")
        indices = {f"jaccard of {name}": values for name, values in self.jaccard.items()}
        given: dict[str, Any] = {"labels": self.labels, **self.predictions, **indices}
        for name, values in given.items():
            if len(values) != len(self.images):
                raise ValueError(f"there are {len(self.images)} images, but {len(values)} {name}")
        if self.jaccard.keys() != self.predictions.keys():
            raise ValueError(f"jaccard must be of {', '.join(self.predictions)}, got {', '.join(self.jaccard)}")
        names = ["image", "truth", *self.predictions]
        # columns are equally wide, and tall images do not take all the room
        heights = [2.2 * min(image.shape[0] / image.shape[1], 1.4) for image in self.images]
        legend, n_columns = self._legend(2.2 * len(names))
        height = sum(heights) + 0.3 * len(heights) + 0.3 + 0.25 * ceil(len(legend) / n_columns)
        self.figure_ = figure or _new_figure(2.2 * len(names), height)
        self.axes_ = self.figure_.subplots(len(heights), len(names), height_ratios=heights, squeeze=False)
        for ax, name in zip(self.axes_[0], names):
            ax.set_title(fill(name, 26), fontsize="medium")
        plot_row = self._plot_foreground if self.class_names is None else self._plot_classes
        for row, axes in enumerate(self.axes_):
            plot_row(axes, row)
        if legend:
            self.figure_.legend(handles=legend, loc="outside lower center", ncols=n_columns, frameon=False)
        return self

    def _plot_foreground(self, axes: Sequence["Axes"], row: int) -> None:
        for ax in axes:
            _show(ax, self.images[row])
        truth = self.labels[row]
        _outline(axes[1], truth == 1, "yellow")
        if (truth == UNLABELLED).any():
            _shade(axes[1], truth == UNLABELLED)
            axes[1].set_xlabel("shaded: unlabelled")
        for ax, (name, labelings) in zip(axes[2:], self.predictions.items()):
            _outline(ax, labelings[row], "deepskyblue")
            index = self.jaccard[name][row]
            ax.set_xlabel("Jaccard: both empty" if np.isnan(index) else f"Jaccard {100 * index:.1f} %")

    def _plot_classes(self, axes: Sequence["Axes"], row: int) -> None:
        _show(axes[0], self.images[row])
        n_classes, pixels = len(self.class_names or ()), (255 * _visible(self.images[row])).round().astype(np.uint8)
        for ax, mask in zip(axes[1:], [self.labels[row], *(labels[row] for labels in self.predictions.values())]):
            _draw(ax, tinted(pixels, mask, n_classes), interpolation="nearest")
        for ax, name in zip(axes[2:], self.predictions):
            index = self.jaccard[name][row]
            ax.set_xlabel("no label" if np.isnan(index) else f"mean Jaccard {100 * index:.1f} %")

    def _legend(self, width: float) -> tuple[list["Patch"], int]:
        """The classes that are shown, by their colours, and the number of columns that have room in so many inches."""
        from matplotlib.patches import Patch

        if self.class_names is None:
            return [], 1
        masks = [*self.labels, *(mask for labelings in self.predictions.values() for mask in labelings)]
        numbers = set().union(*(np.unique(mask).tolist() for mask in masks))
        colours = [*class_colours(len(self.class_names)).tolist(), UNLABELLED_COLOUR]
        named = zip([*range(len(self.class_names)), UNLABELLED], [*self.class_names, "unlabelled"], colours)
        legend = [
            Patch(facecolor=tuple(part / 255 for part in colour), edgecolor="gray", label=name)
            for n, name, colour in named
            if n in numbers
        ]
        # letters of ten points take six on average, and a patch as much as five letters
        longest = max(len(str(patch.get_label())) for patch in legend)
        return legend, max(int(width * 72 / 6 / (5 + longest)), 1)


class TrainingCurveDisplay:
    """Loss, or gamma, and the mean Jaccard index by epoch, as in the paper's Fig. 3.

    Make one with `from_estimator`.

    Parameters
    ----------
    histories : dict of str to list of dict
        The `history_` of models by their name.

    Attributes
    ----------
    figure_ : matplotlib Figure or SubFigure
    axes_ : ndarray of matplotlib Axes of shape (2, n_stages)
        A column for each stage of training: the loss of the network alone, or gamma, above the Jaccard indices of
        training (solid) and validation images (dashed).

    Examples
    --------
    >>> from skmmcrf.display import TrainingCurveDisplay
    >>> history = [{"stage": "joint", "epoch": n, "gamma": 9.0 - n, "jaccard": 0.8} for n in range(3)]
    >>> TrainingCurveDisplay({"joint": history}).plot().axes_.shape
    (2, 1)
    """

    # by stage: what is minimised, its name, and the name of epochs
    _stages = {
        "cnn": ("loss", "loss of pretraining", "epoch of the network alone"),
        "joint": ("gamma", "objective $\\gamma$", "epoch of joint training (0: piecewise)"),
    }
    # by measure: its name and line
    _measures: dict[str, tuple[str, Any]] = {
        "jaccard": ("training images", "-"),
        "valid_jaccard": ("validation images", "--"),
    }

    def __init__(self, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        self.histories = histories

    @classmethod
    @documented
    def from_estimator(
        cls, estimator: Any, *, stage: Literal["cnn", "joint"] | None = None, figure: "Figure | SubFigure | None" = None
    ) -> "TrainingCurveDisplay":
        """Plot what the `history_` of estimators holds.

        Parameters
        ----------
        estimator : fitted DeepStructuredSegmenter or CNNSegmenter, or dict of str to such
        stage : {"cnn", "joint"}, optional
            The stage to draw. By default these are all that any estimator went through.
        %(figure)s

        Returns
        -------
        TrainingCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        TypeError
            If an estimator keeps no history.
        ValueError
            If an estimator is not fitted, or none has an epoch of the stage.

        Examples
        --------
        >>> from skmmcrf import CNNSegmenter
        >>> from skmmcrf.datasets import make_phantoms
        >>> from skmmcrf.display import TrainingCurveDisplay
        >>> cnn = CNNSegmenter(n_epochs=2, random_state=0).fit(*make_phantoms(4, shape=(32, 32), random_state=0))
        >>> TrainingCurveDisplay.from_estimator(cnn).axes_[0, 0].get_ylabel()
        'loss of pretraining'
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        histories = {name: _history(model) for name, model in _estimators(estimator).items()}
        return cls(histories).plot(stage=stage, figure=figure)

    @documented
    def plot(
        self, *, stage: Literal["cnn", "joint"] | None = None, figure: "Figure | SubFigure | None" = None
    ) -> "TrainingCurveDisplay":
        """Draw.

        Parameters
        ----------
        stage : {"cnn", "joint"}, optional
            The stage to draw. By default these are all that any history has.
        %(figure)s

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If no history has an epoch of the stage.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        if stage is not None and stage not in self._stages:
            raise ValueError(f"stage must be one of {list(self._stages)} or None, got {shown(stage)}")
        for name, history in self.histories.items():
            if not all(isinstance(epoch, Mapping) and {"stage", "epoch"} <= epoch.keys() for epoch in history):
                raise ValueError(f"histories must be of dicts with stage and epoch, that of {shown(name)} is not")
        found = {epoch["stage"] for history in self.histories.values() for epoch in history}
        stages = [name for name in self._stages if name in found and stage in (None, name)]
        if not stages:
            raise ValueError(f"there is no epoch of {'training' if stage is None else f'stage {shown(stage)}'} to draw")
        self.figure_ = figure or _new_figure(4.5 * len(stages), 5)
        self.axes_ = self.figure_.subplots(2, len(stages), sharex="col", squeeze=False)
        for (upper, lower), name in zip(self.axes_.T, stages):
            self._plot_stage(upper, lower, name)
        return self

    def _plot_stage(self, upper: "Axes", lower: "Axes", stage: str) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.ticker import MaxNLocator

        objective, objective_name, epoch_name = self._stages[stage]
        measured = set()
        for number, (name, history) in enumerate(self.histories.items()):
            rows = [row for row in history if row["stage"] == stage]
            epochs = [row["epoch"] for row in rows]
            style: dict[str, Any] = {"color": f"C{number}", "marker": "o", "markersize": 3}
            if rows:
                upper.plot(epochs, [row[objective] for row in rows], label=name, **style)
            for measure, (_, line) in self._measures.items():
                if rows and measure in rows[0]:
                    measured.add(measure)
                    percent = [100 * row[measure] for row in rows]
                    lower.plot(epochs, percent, line, label=f"{name}, {measure}", **style)
        upper.set_ylabel(objective_name)
        lower.set(xlabel=epoch_name, ylabel="mean Jaccard index in %")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(self.histories) > 1:
            upper.legend(fontsize="small")
        lines = {name: line for measure, (name, line) in self._measures.items() if measure in measured}
        colors = {line.get_color() for line in lower.lines}
        style = {"color": colors.pop() if len(colors) == 1 else "black", "marker": "o", "markersize": 3}
        handles = [Line2D([], [], linestyle=line, **style) for line in lines.values()]
        lower.legend(handles, lines, fontsize="small")


class EnergyDisplay:
    """The learned energy of one image, (2)-(4): its unary and pairwise terms, and what the labeling costs.

    Make one with `from_estimator`.

    Parameters
    ----------
    image : ndarray of shape (H, W, channels)
        bool, uint8, uint16 or float.
    labels : ndarray of bool and shape (H, W)
        The labeling whose energy is shown.
    energy : skmmcrf.field.Energy
        Of the image.
    coef : ndarray of shape (n_weights,)
        w, the weights of its terms.

    Attributes
    ----------
    figure_ : matplotlib Figure or SubFigure
    axes_ : ndarray of 4 matplotlib Axes
        The first has the image with the outline of the labeling. The second has w1 times the log-odds of the pixels.
        The third has the cost of cutting between a pixel and its neighbours, times their distance, as a mean over the
        neighbours. The fourth has the edges that the labeling cuts, by their cost.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.display import EnergyDisplay
    >>> from skmmcrf.field import Field, Grid, build_terms
    >>> image, labels = np.zeros((4, 6, 1)), np.arange(24).reshape(4, 6) < 12
    >>> field = Field(Grid.from_connectivity(4), build_terms("contrast", sigma=1.0))
    >>> energy = field.energy(np.where(labels, 9.0, -9.0), image)
    >>> display = EnergyDisplay(image, labels, energy, np.array([1.0, 0.5, 0.5]))
    >>> display.plot().axes_[3].get_xlabel()
    '6 of 38 edges are cut'
    """

    def __init__(self, image: np.ndarray, labels: BoolArray, energy: Energy, coef: FloatArray) -> None:
        self.image = image
        self.labels = labels
        self.energy = energy
        self.coef = coef

    @classmethod
    @documented
    def from_estimator(
        cls, estimator: DeepStructuredSegmenter, image: np.ndarray, *, figure: "Figure | SubFigure | None" = None
    ) -> "EnergyDisplay":
        """Plot the energy of an image and of its best labeling.

        Parameters
        ----------
        estimator : fitted DeepStructuredSegmenter
            Of training "piecewise" or "joint".
        image : array of shape (H, W) or (H, W, channels)
            bool, uint8, uint16 or float.
        %(figure)s

        Returns
        -------
        EnergyDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        TypeError
            If it is another estimator.
        ValueError
            If the estimator is not fitted, has no field or more than two classes. If the image is not one it can take.

        Examples
        --------
        >>> from skmmcrf import DeepStructuredSegmenter
        >>> from skmmcrf.datasets import make_phantoms
        >>> from skmmcrf.display import EnergyDisplay
        >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
        >>> model = DeepStructuredSegmenter(training="piecewise", random_state=0).set_params(cnn__n_epochs=5).fit(X, y)
        >>> display = EnergyDisplay.from_estimator(model, X[0])
        >>> [ax.get_title() for ax in display.axes_]
        ['result', 'unary: $w_1$ · log-odds', 'pairwise: cost of a cut', 'cost of the cut edges']
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        if not isinstance(estimator, DeepStructuredSegmenter):
            raise TypeError(f"estimator must be a DeepStructuredSegmenter, got {type(estimator).__name__}")
        check_is_fitted(estimator)
        if classes := label_scheme_of(estimator).several:
            raise ValueError(
                f"estimator must be of two labels, got the classes {listed(classes)}. SegmentationDisplay "
                "shows several classes"
            )
        images = check_images([image], n_channels=estimator.n_channels_in_, name="image")
        energy = estimator.energy(images[0])
        return cls(images[0], energy.least(estimator.coef_), energy, estimator.coef_).plot(figure=figure)

    def plot(self, *, figure: "Figure | SubFigure | None" = None) -> "EnergyDisplay":
        """Draw in a new figure, or in a figure or subfigure that is given."""
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_weights = self.energy.n_weights
        if np.shape(self.coef) != (n_weights,):
            raise ValueError(f"coef must be of shape ({n_weights},), got {np.shape(self.coef)}")
        if self.image.shape[:-1] != self.labels.shape:
            raise ValueError(f"labels must have the size of image, {self.image.shape[:-1]}, got {self.labels.shape}")
        energy = self.coef * self.energy.psi(self.labels)
        height, width = self.labels.shape
        n_rows, n_columns = (1, 4) if height > width else (2, 2)
        # inches of an image, with room beside it for the colour bar and above and below for words
        wide = 3.2 * min(1, 1.6 * width / height)
        size = n_columns * (max(wide, 2) + 0.9), n_rows * (wide * height / width + 0.7) + 0.5
        self.figure_ = figure or _new_figure(*size)
        self.axes_ = self.figure_.subplots(n_rows, n_columns, squeeze=False).ravel()
        energies = f"energy {energy.sum():.6g} = unary {energy[0]:.6g} + pairwise {energy[1:].sum():.6g}"
        weights = f"w = ({', '.join(f'{w:.3g}' for w in self.coef)})"
        width = self.figure_.bbox.width / self.figure_.dpi
        self.figure_.suptitle(f"{weights}\n{_wrapped(energies, width)}", fontsize="medium")
        result, unary, pairwise, cut = self.axes_
        _show(result, self.image)
        _outline(result, self.labels, "deepskyblue")
        captions = [
            ("result", ""),
            ("unary: $w_1$ · log-odds", self._plot_unary(unary)),
            ("pairwise: cost of a cut", self._plot_pairwise(pairwise)),
            ("cost of the cut edges", self._plot_cut(cut)),
        ]
        for ax, (above, below) in zip(self.axes_, captions):
            # a colour bar takes some of the panel's width, and its outer ticks reach above and below it
            room = width / n_columns - 0.7
            ax.set_title(_wrapped(above, room), fontsize="medium", pad=9)
            ax.set_xlabel(_wrapped(below, room), fontsize="small", labelpad=9)
        return self

    def _plot_unary(self, ax: "Axes") -> str:
        log_odds = self.energy.log_odds
        unary = self.coef[0] * log_odds
        # a few pixels of which the network is very sure would leave the others pale
        limit = np.quantile(np.abs(unary), 0.95) or 1.0
        self._add_colorbar(ax, _draw(ax, unary, cmap="RdBu", vmin=-limit, vmax=limit), extend="both")
        _outline(ax, log_odds > 0, "black")
        return "outline: log-odds above 0"

    def _plot_pairwise(self, ax: "Axes") -> str:
        edges = self.energy.pairwise.grid.edges(self.labels.shape)
        per_distance = self._costs() / edges.distance_weights
        n_pixels, ends = self.labels.size, edges.pixels.ravel()
        sums = np.bincount(ends, np.tile(per_distance, 2), n_pixels)
        means = sums / np.maximum(np.bincount(ends, minlength=n_pixels), 1)
        self._add_colorbar(ax, _draw(ax, means.reshape(self.labels.shape), cmap="viridis"))
        return "mean at distance 1"

    def _plot_cut(self, ax: "Axes") -> str:
        from matplotlib.collections import LineCollection

        pixels, flat = self.energy.pairwise.compute().edges, self.labels.ravel()
        cut = flat[pixels[0]] != flat[pixels[1]]
        _show(ax, self.image)
        if cut.any():
            rows, columns = np.unravel_index(pixels[:, cut], self.labels.shape)
            ends = np.stack([columns, rows], axis=-1).swapaxes(0, 1)
            lines = LineCollection(list(ends), array=self._costs()[cut], cmap="cool", linewidths=1.5)
            self._add_colorbar(ax, ax.add_collection(lines, autolim=False))
        return f"{np.count_nonzero(cut)} of {cut.size} edges are cut"

    def _costs(self) -> FloatArray:
        """What it costs to cut each edge."""
        return self.coef[1:] @ np.stack(self.energy.pairwise.compute().rows)

    def _add_colorbar(self, ax: "Axes", drawn: "ScalarMappable", **style: Any) -> None:
        # as high as the panel, whatever the shape of the image
        self.figure_.colorbar(drawn, cax=ax.inset_axes((1.02, 0, 0.05, 1)), **style)


def _new_figure(width: float, height: float) -> "Figure":
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def _wrapped(text: str, inches: float) -> str:
    """A text in lines of at most that width. Letters of ten points take six on average."""
    return fill(text, max(int(inches * 72 / 6), 10), break_long_words=False, break_on_hyphens=False)


def _estimators(estimator: Any) -> Mapping[str, Any]:
    named = estimator if isinstance(estimator, Mapping) else {type(estimator).__name__: estimator}
    if not named:
        raise ValueError("estimator must hold at least one estimator, got an empty dict")
    return named


def _history(estimator: Any) -> Sequence[Mapping[str, Any]]:
    check_is_fitted(estimator)
    if not hasattr(estimator, "history_"):
        raise TypeError(f"estimator must have a history_, got {type(estimator).__name__}")
    return estimator.history_


def _scheme(
    pos_label: int, ignore_label: int | Literal["auto"] | None = "auto", classes: Sequence[int] | None = None
) -> LabelScheme:
    """How labels are read. The unlabelled value is explicit, because a few images may have no foreground."""
    validate_parameter_constraints(LABEL_CONSTRAINTS, {"pos_label": pos_label}, caller_name="SegmentationDisplay")
    scheme = scheme_of_labels(pos_label, ignore_label, classes)
    return replace(scheme, ignore_label=scheme.unlabelled)


def _common_scheme(models: Mapping[str, Any], pos_label: int | None) -> LabelScheme:
    """How all estimators read labels."""
    read = {name: label_scheme_of(model) for name, model in models.items()}
    schemes = [
        _scheme(s.pos_label if pos_label is None else pos_label, s.ignore_label, s.several or None)
        for s in read.values()
    ]
    if len(set(schemes)) > 1:
        said = ", ".join(
            f"{shown(name)} {s.several or s.pos_label} and {s.unlabelled}" for name, s in zip(read, schemes)
        )
        raise ValueError(
            f"estimators must have the same foreground or classes, and the same unlabelled pixels, they have: {said}"
        )
    return schemes[0]


def _show(ax: "Axes", image: np.ndarray) -> None:
    image = _visible(image)
    _draw(ax, image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)


def _visible(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 1 or 3) between 0 and 1: its three channels or the first."""
    return np.clip(scale_image(image if image.shape[2] == 3 else image[..., :1]), 0, 1)


def _draw(ax: "Axes", values: np.ndarray, **style: Any) -> "ScalarMappable":
    height, width = values.shape[:2]
    # room for an outline along the edge of the image, where a frame would hide it
    margin = 0.5 + 0.01 * max(height, width)
    ax.set(xlim=(-margin, width - 1 + margin), ylim=(height - 1 + margin, -margin))
    ax.set(xticks=[], yticks=[], frame_on=False)
    return ax.imshow(values, **style)


def _outline(ax: "Axes", labels: BoolArray, color: str) -> None:
    if not labels.any():
        return
    # a border of background closes the outlines of what touches the edge of the image
    rows, columns = (np.arange(-1, n + 1) for n in labels.shape)
    for line_color, width in (("black", 2.4), (color, 1.2)):
        ax.contour(columns, rows, np.pad(labels, 1), levels=[0.5], colors=line_color, linewidths=width)


def _shade(ax: "Axes", area: BoolArray) -> None:
    ax.imshow(np.where(area[..., np.newaxis], [1.0, 0.2, 0.8, 0.5], 0.0), interpolation="nearest")
