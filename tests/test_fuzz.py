"""Arrays of any shape, dtype and content are fitted, or refused by a documented error: nothing crashes or hangs."""

import copy
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF

# arbitrary labels teach nothing, or have no foreground
NOTHING_LEARNED = ("the weight of the log-odds", "the score is NaN", "y has no foreground", "X.0. holds floats")
pytestmark = [pytest.mark.filterwarnings(f"ignore:{told}") for told in NOTHING_LEARNED]

SIZES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
DTYPES = st.one_of(
    st.sampled_from(["?", "u1", "u2", "u4", "i1", "i8", "f2", "f4", "f8", ">f4", ">f8", ">u2", "c8", "O", "U3", "S2"]),
    st.sampled_from(["M8[D]", "m8[s]", [("a", "f8"), ("b", "i4")], "g"]),
)
NUMBERS = st.sampled_from([0, 1, 255, 0.5, -1.0, np.nan, np.inf, 5e-324, 1e-30, 1e30, 1e300, -1e38, 3e38])
OBJECTS = st.one_of(st.none(), NUMBERS, st.text(max_size=2), st.just([1, 2]), st.just(()), st.just({}))


def pixelwise(n_channels, n_maps=1):
    return nn.Conv2d(n_channels, n_maps, 1)


ESTIMATORS = {
    "CNNSegmenter": CNNSegmenter(pixelwise, n_epochs=1, device="cpu", random_state=0),
    "MaxMarginCRF": MaxMarginCRF(max_iter=5),
    "DeepStructuredSegmenter": DeepStructuredSegmenter(
        CNNSegmenter(pixelwise, n_epochs=1, device="cpu"), n_epochs=1, max_iter=5, random_state=0
    ),
}


@st.composite
def arrays(draw, shape=SIZES, dtype=DTYPES):
    """Arrays of any content and layout."""
    shape = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    dtype = np.dtype(draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype)
    elements = {"O": OBJECTS, "f": NUMBERS, "c": NUMBERS}.get(dtype.kind)
    if elements is None:
        array = draw(hnp.arrays(dtype, shape))
    else:
        array = np.zeros(shape, dtype)
        values = draw(st.lists(elements, min_size=1, max_size=5))
        with np.errstate(all="ignore"):
            for n in range(array.size):
                array.flat[n] = values[n % len(values)]
    return draw(st.sampled_from(LAYOUTS))(array)


def masked(array):
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 1)


def read_only(array):
    array.flags.writeable = False
    return array


def reversed_rows(array):
    return array[::-1] if array.ndim else array


LAYOUTS = [*[np.asarray] * 4, np.asfortranarray, reversed_rows, read_only, masked, np.ndarray.tolist]


@st.composite
def images_and_labels(draw, n_labels=2):
    """Images and labels that belong together, with pixels that may be extreme."""
    n, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    channels = draw(st.sampled_from([(), (1,), (2,), (3,)]))
    X = draw(arrays((n, height, width, *channels), st.sampled_from(["f8", "f8", "f4", ">f4", "f2", "u1", "u2", "?"])))
    elements = st.sampled_from(range(n_labels))
    labels = hnp.arrays(draw(st.sampled_from(["u1", "i8", "f4"])), (n, height, width), elements=elements)
    y = draw(st.sampled_from([np.asarray, list, np.ndarray.tolist]))(draw(labels))
    return X, y


ANYTHING = st.one_of(
    arrays(),
    st.lists(arrays(), max_size=3),
    st.tuples(arrays(), arrays()),
    OBJECTS,
    st.recursive(NUMBERS, lambda children: st.lists(children, max_size=3), max_leaves=9),
)


def outcome(function, *args):
    """What it gives, or None for a documented error; all warnings but of slow convergence are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        for told in NOTHING_LEARNED:
            warnings.filterwarnings("ignore", told)
        try:
            return function(*args)
        except (ValueError, TypeError, FileNotFoundError, FloatingPointError):
            return None


def check(model, X, y):
    """Fit, predict and score; what succeeds is finite, of the right shapes, and of the labels that there are."""
    before = vars(model).copy()
    if outcome(model.fit, X, y) is None:
        assert all(vars(model)[name] is before[name] for name in before)
        if vars(model).keys() != before.keys():  # training broke off, and what was trained is kept
            outcome(model.predict, X)
        return False
    for name in ("coef_", "objective_", "dual_gap_", "inference_gap_", "sigma_"):
        assert np.isfinite(getattr(model, name, 0.0)).all()
    labels = outcome(model.predict, X)
    if labels is not None:  # training may have made log-odds that are too large for a float
        for found, image in zip(labels, X, strict=True):
            image = np.asarray(image)
            assert found.shape == image.shape[:2]
            assert np.isin(found, model.classes_).all()
        score = outcome(model.score, X, y)
        assert np.isnan(score) or 0 <= score <= 1
    return True


@pytest.mark.parametrize("name", ESTIMATORS)
@given(X=ANYTHING, y=ANYTHING)
def test_anything_is_fitted_or_refused(name, X, y):
    check(copy.copy(ESTIMATORS[name]), X, y)


@pytest.mark.parametrize("name", ["CNNSegmenter", "DeepStructuredSegmenter"])
@given(data=images_and_labels())
def test_images_with_extreme_pixels_are_fitted_or_refused(name, data):
    check(copy.copy(ESTIMATORS[name]), *data)


@pytest.mark.parametrize("name", ["CNNSegmenter", "DeepStructuredSegmenter"])
@given(data=images_and_labels(n_labels=4))
def test_images_of_several_classes_are_fitted_or_refused(name, data):
    model = copy.copy(ESTIMATORS[name])
    if check(model, *data) and len(model.classes_) > 2:
        gaps = outcome(getattr(model, "optimality_gap", lambda X: np.zeros(len(X))), data[0])
        assert gaps is None or (gaps >= 0).all()


@pytest.fixture(scope="module")
def fitted():
    X, y = np.random.default_rng(0).uniform(size=(2, 4, 5, 2)), np.arange(40).reshape(2, 4, 5) % 2
    return {name: copy.copy(estimator).fit(X, y) for name, estimator in ESTIMATORS.items()}


@pytest.mark.parametrize("name", ESTIMATORS)
@given(X=ANYTHING | images_and_labels().map(lambda data: data[0]), y=ANYTHING)
def test_anything_is_predicted_or_refused(fitted, name, X, y):
    model = fitted[name]
    for method in ("predict", "decision_function", "predict_proba", "predict_confidence", "transform"):
        if hasattr(model, method):
            results = outcome(getattr(model, method), X)
            assert results is None or all(np.isfinite(result).all() for result in results)
    outcome(model.score, X, y)


@given(
    scale=st.sampled_from([5e-324, 1e-300, 1e-30, 1e-8, 1.0, 1e4, 1e6, 1e30, 3e38, 1e300]),
    contrast=st.sampled_from([0.0, 5e-324, 1e-30, 1.0, 1e30, 3e38]),
    C=st.sampled_from([1e-300, 1e-30, 1e-12, 1e-8, 1.0, 1e8, 1e12, 1e30, 1e300]),
    sigma=st.sampled_from(["auto", 5e-324, 1e-170, 1e-8, 1.0, 1e170, 1e308]),
    class_weight=st.sampled_from([None, {1: 5e-324}, {1: 1e-4}, {1: 1e4}, {0: 1e4, 1: 1e-4}, {0: 1e308}]),
    sample_weight=st.sampled_from([None, [1, 1e-6], [1e308, 1e308], [0, 5e-324]]),
    pairwise=st.sampled_from(["contrast", "contrast", "smoothness"]),
    seed=st.integers(0, 99),
)
def test_extreme_numbers_are_learned_or_refused(scale, contrast, C, sigma, class_weight, sample_weight, pairwise, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (2, 3, 4))
    Z = np.stack([scale * rng.choice([-1, 0.5, 1], y.shape), contrast * rng.choice([0, 0.5, 1], y.shape)], axis=-1)
    model = MaxMarginCRF(C, pairwise=pairwise, sigma=sigma, class_weight=class_weight, max_iter=5)
    fit = outcome(lambda: model.fit(Z, y, sample_weight=sample_weight))
    if fit is not None:
        assert np.isfinite([*fit.coef_, fit.objective_, fit.dual_gap_, fit.sigma_ or 0.0]).all()
        assert (fit.coef_[1:] >= 0).all()
        assert fit.predict(Z).shape == y.shape
    legal = scale <= 1e6 and 1e-12 <= C <= 1e8 and (class_weight is None or 1e-4 <= class_weight.get(1, 0) <= 1e4)
    assert (fit is not None) == legal


@given(
    scale=st.sampled_from([5e-324, 1e-30, 1.0, 1e6, 1e30]),
    contrast=st.sampled_from([0.0, 5e-324, 1.0, 1e30]),
    C=st.sampled_from([1e-12, 1e-8, 1.0, 1e8]),
    n_labels=st.sampled_from([3, 5]),
    seed=st.integers(0, 99),
)
def test_extreme_scores_of_several_classes_are_learned_or_refused(scale, contrast, C, n_labels, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(24) % n_labels).reshape(2, 3, 4)
    scores = scale * rng.choice([-1, 0.5, 1], (*y.shape, n_labels))
    Z = np.concatenate([scores, contrast * rng.choice([0, 0.5, 1], (*y.shape, 1))], axis=-1)
    model = MaxMarginCRF(C, max_iter=5)
    fit = outcome(lambda: model.fit(Z, y))
    assert (fit is not None) == (scale <= 1e6)
    if fit is not None:
        assert np.isfinite([*fit.coef_, fit.objective_, fit.dual_gap_, fit.inference_gap_]).all()
        assert min(fit.dual_gap_, fit.inference_gap_, *fit.optimality_gap(Z), *fit.coef_[1:]) >= 0
