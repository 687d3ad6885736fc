import builtins

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from skmmcrf.display import plot_history, plot_segmentations


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("Agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("n_channels", [None, 1, 2, 3])
def test_a_row_an_image_and_a_column_a_result(phantoms, n_channels):
    X, y = phantoms[0][:2], phantoms[1][:2]
    X = X if n_channels is None else np.stack([X] * n_channels, axis=-1)
    half = y.copy()
    half[:, :16] = 0
    figure = plot_segmentations(list(X), list(y), {"same": list(y), "half": list(half)})
    axes = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["image", "truth", "same", "half"]
    assert axes[1, 2].get_xlabel() == "Jaccard 100.0 %"
    assert axes[1, 3].get_xlabel() != "Jaccard 100.0 %"
    assert [len(ax.collections) for ax in axes[1]] == [0, 1, 1, 1]


def test_outline_runs_between_foreground_and_background():
    labels = np.zeros((6, 8), dtype=int)
    labels[:3, 2:5] = 1
    figure = plot_segmentations([labels.astype(float)], [labels], {})
    (path,) = figure.axes[1].collections[0].get_paths()
    np.testing.assert_allclose([path.vertices.min(0), path.vertices.max(0)], [[1.5, -0.5], [4.5, 2.5]])


def test_empty_results_draw_without_noise(phantoms):
    X, y = phantoms[0][:1], np.zeros_like(phantoms[1][:1])
    figure = plot_segmentations(X, y, {"none": y})
    assert figure.axes[2].get_xlabel() == "Jaccard: both empty"


def test_curves_hold_the_history():
    history = [{"stage": "cnn", "epoch": 1, "jaccard": 0.1}]
    history += [{"stage": "joint", "epoch": n, "gamma": 9 - n, "jaccard": 0.8, "valid_jaccard": 0.7} for n in range(3)]
    upper, lower = plot_history(history).axes
    np.testing.assert_array_equal(upper.lines[0].get_xydata(), [[0, 9], [1, 8], [2, 7]])
    assert [line.get_label() for line in lower.lines] == ["training images", "validation images"]
    np.testing.assert_allclose(lower.lines[1].get_ydata(), 70)
    with pytest.raises(ValueError, match="no epochs of joint training"):
        plot_history(history[:1])


def test_missing_matplotlib_is_asked_for_by_name(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot_history([])
