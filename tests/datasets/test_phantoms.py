import numpy as np
import pytest
from scipy.ndimage import label

from skmmcrf.datasets import make_phantoms


@pytest.mark.parametrize("shape", [(96, 96), (40, 64)])
def test_phantoms_hold_one_chamber_each(shape):
    X, y = make_phantoms(20, shape=shape, random_state=0)
    assert X.shape == y.shape == (20, *shape)
    assert X.dtype == y.dtype == np.uint8
    assert all(label(labels)[1] == 1 for labels in y)
    share = y.mean(axis=(1, 2))
    assert 0.03 < share.min() < share.max() < 0.6


def test_random_state_decides_the_phantoms():
    (X, y), (same, _), (other, _) = (make_phantoms(2, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(X, same)
    assert not np.array_equal(X, other)
    assert not np.array_equal(y[0], y[1])
    np.testing.assert_array_equal(make_phantoms(2, random_state=np.random.RandomState(0))[0], X)


def test_vessels_are_labelled_where_asked_for_and_are_as_dark_as_chambers():
    X, y = make_phantoms(5, random_state=0)
    same, of_vessels = make_phantoms(5, label_vessels=True, random_state=0)
    np.testing.assert_array_equal(same, X)
    assert of_vessels.dtype == np.uint8
    assert set(np.unique(of_vessels)) == {0, 1, 2}
    np.testing.assert_array_equal(np.where(of_vessels == 2, 0, of_vessels), y)
    darkness = [np.mean(X[of_vessels == label]) for label in range(3)]
    assert darkness[0] - darkness[2] > 20


def test_chambers_are_darker_but_no_threshold_finds_them():
    X, y = make_phantoms(20, random_state=0)
    assert X[y == 1].mean() < 0.75 * X[y == 0].mean()
    best = max(((t > X) & (y == 1)).sum() / ((t > X) | (y == 1)).sum() for t in range(20, 200, 10))
    assert best < 0.6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *(({"n_images": n}, "'n_images' parameter of make_phantoms must be an int") for n in (0, 1.5)),
        *(({"shape": s}, "shape must be a height and a width") for s in [(8,), 8, (8, 0), (8.0, 8)]),
        ({"random_state": "a"}, "'random_state' parameter"),
    ],
)
def test_parameters_out_of_range_are_told(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_phantoms(**parameters)
