"""scikit-learn's estimator checks, on images.

Of estimators that take no tables scikit-learn checks next to nothing. So each of its checks is here called as it is,
replaced by an image version, or excused with a reason.
"""

import inspect
import os
import pickle
from collections import Counter
from contextlib import suppress
from unittest import SkipTest, mock

import joblib
import numpy as np
import pytest
import sklearn
from nets import PLAIN
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import ClassifierTags, TransformerTags, estimator_checks, get_tags
from sklearn.utils._testing import create_memmap_backed_data
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet


def tiny_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


CNN = CNNSegmenter(tiny_unet, **PLAIN, n_epochs=2, learning_rate=1e-2, device="cpu", random_state=0)
ESTIMATORS = [CNN, DeepStructuredSegmenter(CNN, n_epochs=1, random_state=0), MaxMarginCRF()]
METHODS = ("predict", "decision_function", "predict_proba", "predict_confidence", "transform")


def name_of(estimator):
    return type(estimator).__name__


def network_alone(estimator):
    """The part of an estimator that trains a network and reads labels; the estimator itself if it has none."""
    return getattr(estimator, "cnn", estimator)


def longer(estimator):
    """The estimator with as much training as it takes to fit the images."""
    if not isinstance(estimator, MaxMarginCRF):
        network_alone(estimator).set_params(n_epochs=40)
    return estimator


def data_for(estimator, label=None):
    """Four phantoms and their labels, or one label everywhere; for the random field, noisy log-odds are stacked on."""
    X, y = make_phantoms(4, shape=(16, 20), random_state=0)
    X = X / 255
    if label is not None:
        y = np.full_like(y, label)
    if isinstance(estimator, MaxMarginCRF):
        log_odds = 2.0 * y - 1 + np.random.default_rng(0).normal(size=y.shape)
        X = np.stack([log_odds, X], axis=-1)
    return X, y


def methods_of(estimator):
    return {method: getattr(estimator, method) for method in METHODS if hasattr(estimator, method)}


def outputs(estimator, X):
    return {name: method(X) for name, method in methods_of(estimator).items()}


def outputs_after_fit(estimator, X, y, **metadata):
    return outputs(clone(estimator).fit(X, y, **metadata), X)


def assert_same(one, other, atol=0.0):
    """Both have the same outputs, be they arrays or lists of arrays."""
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(np.stack(one[name]), np.stack(other[name]), rtol=0, atol=atol, err_msg=name)


class NotAnArray:
    """Has nothing but what makes an array of it."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.values.dtype)


class Series(NotAnArray):
    """Like a pandas series after a split: found by label, not by position."""

    def __len__(self):
        return len(self.values)

    def __getitem__(self, label):
        raise KeyError(label)


LISTS = (tuple, lambda values: [NotAnArray(value) for value in values], lambda values: values.tolist())

# image versions: each takes an unfitted estimator, and images and labels for it

VERSIONS = []


def replaces(*checks, method="predict"):
    """Enter what replaces checks of scikit-learn, for estimators that have a method."""

    def enter(version):
        VERSIONS.append((version, checks, method))
        return version

    return enter


# parameters and state


@replaces("check_fit_score_takes_y", "check_estimators_fit_returns_self", "check_fit_check_is_fitted")
def fit_and_score_take_y(estimator, X, y):
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    with pytest.raises(NotFittedError, match=f"This {name_of(estimator)} instance is not fitted yet"):
        estimator.score(X, y)
    assert estimator.fit(X, y) is estimator
    check_is_fitted(estimator)
    for name in {"fit", "score", "fit_transform"} & set(dir(estimator)):
        assert list(inspect.signature(getattr(estimator, name)).parameters)[1] == "y"


@replaces("check_dont_overwrite_parameters", "check_estimators_overwrite_params")
def fit_leaves_parameters(estimator, X, y):
    if not isinstance(estimator, MaxMarginCRF):
        network_alone(estimator).set_params(network=tiny_unet(1))
    before, state = vars(estimator).copy(), joblib.hash(estimator.get_params())
    estimator.fit(X, y)
    public = {name: value for name, value in vars(estimator).items() if not (name[0] == "_" or name[-1] == "_")}
    assert public.keys() == before.keys()
    assert all(public[name] is before[name] for name in before)
    assert joblib.hash(estimator.get_params()) == state


@replaces("check_fit_idempotent", "check_dict_unchanged", "check_estimators_pickle")
def outputs_come_from_the_fitted_state_alone(estimator, X, y):
    once = outputs(estimator.fit(X, y), X)
    before = joblib.hash(vars(estimator))
    for name, method in methods_of(estimator).items():
        method(X)
        assert joblib.hash(vars(estimator)) == before, name
    for same in (pickle.loads(pickle.dumps(estimator)), create_memmap_backed_data(estimator), estimator.fit(X, y)):
        assert_same(outputs(same, X), once)


@replaces("check_pipeline_consistency", "check_non_transformer_estimators_n_iter")
def a_pipeline_of_one_is_the_estimator(estimator, X, y):
    pipeline = make_pipeline(clone(estimator)).fit(X, y)
    assert pipeline.score(X, y) == estimator.fit(X, y).score(X, y)
    expected = outputs(estimator, X)
    expected.pop("predict_confidence", None)  # pipelines pass on the methods of scikit-learn alone
    assert_same(outputs(pipeline, X), expected)
    most = estimator.max_iter if hasattr(estimator, "max_iter") else estimator.n_epochs
    assert 1 <= estimator.n_iter_ <= most


# images as they may come


@replaces(
    "check_readonly_memmap_input",
    "check_inplace_ensure_writeable",
    "check_f_contiguous_array_estimator",
    "check_array_api_input",
)
def how_arrays_lie_in_memory_makes_no_difference(estimator, X, y):
    expected = outputs_after_fit(estimator, X, y)
    assert_same(outputs_after_fit(estimator, *create_memmap_backed_data([X, y])), expected)
    assert_same(outputs_after_fit(estimator, np.asfortranarray(X), np.asfortranarray(y)), expected, atol=1e-5)
    # scikit-learn dispatches only where SciPy may, too
    # earlier versions ask for a package of their own for that
    with (
        suppress(ImportError),
        mock.patch.dict(os.environ, SCIPY_ARRAY_API="1"),
        sklearn.config_context(array_api_dispatch=True),
    ):
        assert_same(outputs_after_fit(estimator, X, y), expected)
    kept = X.copy(), y.copy()
    for array in (X, y):
        array.setflags(write=False)
    outputs(estimator.fit(X, y), X)
    estimator.score(X, y)
    for array, before in zip((X, y), kept):
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, before)


@replaces("check_estimators_dtypes", "check_positive_only_tag_during_fit")
def dtypes_of_images_are_taken(estimator, X, y):
    floats = [np.float16, np.float32, np.float64]
    for dtype in floats if isinstance(estimator, MaxMarginCRF) else [bool, np.uint8, np.uint16, *floats]:
        scaled = X * np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else X > 0.5 if dtype is bool else X
        results = outputs_after_fit(estimator, scaled.astype(dtype), y)
        assert results.pop("predict").dtype == np.uint8
        assert all(result.dtype == np.float32 and np.isfinite(result).all() for result in results.values())
    assert not get_tags(estimator).input_tags.positive_only
    outputs(estimator.fit(X - X.mean(), y), -X)


@replaces("check_complex_data", "check_dtype_object")
def other_dtypes_are_told(estimator, X, y):
    for pixels in (X + 1j, (100 * X).astype(np.int64), X.astype(object), X.astype(str)):
        with pytest.raises(ValueError, match=r"\[0\] must be of dtype .* got "):
            estimator.fit(pixels, y)
    images = np.empty(len(X), dtype=object)
    images[:] = list(X)
    assert_same(outputs_after_fit(estimator, images, y), outputs_after_fit(estimator, X, y))


@replaces("check_estimators_nan_inf")
def pixels_that_are_not_finite_are_told(estimator, X, y):
    fitted = clone(estimator).fit(X, y)
    for value in (np.nan, np.inf, -np.inf):
        bad = X.copy()
        bad[2, 3, 4] = value
        for method in [*methods_of(fitted).values(), lambda bad: estimator.fit(bad, y)]:
            with pytest.raises(ValueError, match=r"\[2\] contains NaN or infinite"):
                method(bad)


# how many images, of which shape


@replaces("check_estimators_empty_data_messages")
def empty_data_are_told(estimator, X, y):
    with pytest.raises(ValueError, match="is empty"):
        estimator.fit(X[:0], y[:0])
    for empty, labels in ((X[:, :0], y[:, :0]), (X[:, :, :0], y[:, :, :0]), (np.empty((*y.shape, 0)), y)):
        with pytest.raises(ValueError, match=r"\[0\] must be of shape .* none of them 0"):
            estimator.fit(empty, labels)


@replaces("check_fit2d_1sample", "check_fit2d_1feature")
def one_image_and_one_row_or_column_are_taken(estimator, X, y):
    assert all(len(result) == 1 for result in outputs(estimator.fit(X[:1], y[:1]), X[:1]).values())
    for narrow in (np.s_[:, :, :1], np.s_[:, :1, :], np.s_[:, :1, :1]):
        assert clone(estimator).fit(X[narrow], y[narrow]).predict(X[narrow]).shape == y[narrow].shape
    if isinstance(estimator, MaxMarginCRF):
        with pytest.raises(ValueError, match="log-odds in channel 0 and the image .* got 1 channels"):
            estimator.fit(X[..., :1], y)
    else:
        expected = outputs_after_fit(estimator, X, y)
        assert_same(outputs_after_fit(estimator, X[..., np.newaxis], y), expected)


@replaces("check_fit2d_predict1d", "check_n_features_in", "check_n_features_in_after_fitting")
def channels_are_counted(estimator, X, y):
    assert not hasattr(estimator, "n_channels_in_")
    stacked = X.reshape(*y.shape, -1)
    for channels in (np.concatenate([stacked, stacked, stacked], axis=-1), X):
        n_channels = channels.shape[-1] if channels.ndim == 4 else 1
        assert estimator.fit(channels, y).n_channels_in_ == n_channels
    twice = np.concatenate([stacked, stacked], axis=-1)
    for method in [*methods_of(estimator).values(), lambda X: estimator.score(X, y)]:
        with pytest.raises(
            ValueError,
            match=rf"\[0\] has {twice.shape[-1]} channels, but the model or the first image has {n_channels}",
        ):
            method(twice)
        with pytest.raises(ValueError, match=r"must be of shape \(n, H, W\)|channels?, but|same length"):
            method(X[0])


@replaces("check_methods_subset_invariance", "check_methods_sample_order_invariance")
def images_are_taken_one_by_one(estimator, X, y):
    order = np.random.default_rng(0).permutation(len(X))
    for name, method in methods_of(estimator.fit(X, y)).items():
        one_by_one = np.concatenate([method(X[n : n + 1]) for n in order])
        for result in (one_by_one, method(X[order])):
            np.testing.assert_allclose(result, method(X)[order], rtol=0, atol=1e-5, err_msg=name)


# labels, and what is said of them


@replaces(
    "check_requires_y_none",
    "check_supervised_y_no_nan",
    "check_supervised_y_2d",
    "check_classifiers_regression_target",
    "check_classifier_not_supporting_multiclass",
)
def other_labels_are_told(estimator, X, y):
    def changed(value):
        labels = y.astype(float)
        labels[2, 3, 4] = value
        return labels

    wrong = [(changed(value), r"y\[2\] .*found") for value in (np.nan, np.inf, 0.5)]
    wrong += [(labels, r"y must be of shape \(n, H, W\)") for labels in (y[..., None], y[0], y.reshape(len(y), -1))]
    wrong += [(np.take(["background", "foreground"], y), r"y\[0\]"), (y[:-1], "same length")]
    assert get_tags(estimator).target_tags.required
    with pytest.raises((TypeError, ValueError), match=r"\by\b.* None"):
        estimator.fit(X, None)
    for labels, message in wrong:
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, labels)


@replaces("check_classifiers_classes")
def labels_may_be_of_any_dtype(estimator, X, y):
    expected = outputs_after_fit(estimator, X, y)
    for labels in (y.astype(bool), y.astype(np.int64), y.astype(float), y.tolist()):
        fitted = clone(estimator).fit(X, labels)
        np.testing.assert_array_equal(fitted.classes_, [0, 1])
        assert_same(outputs(fitted, X), expected)


@replaces("check_classifiers_one_label", "check_classifiers_one_label_sample_weights")
def one_label_is_learned(estimator, X, y):
    empty, full = data_for(estimator, 0), data_for(estimator, 1)
    for X, y in (empty, full):
        np.testing.assert_array_equal(longer(clone(estimator)).fit(X, y).predict(X), y)
    X, y = (np.concatenate(pair) for pair in zip(empty, full))
    longer(estimator).fit(X, y, sample_weight=y[:, 0, 0])
    np.testing.assert_array_equal(estimator.predict(X[4:]), y[4:])


@replaces("check_classifiers_train", "check_decision_proba_consistency")
def training_images_are_fitted_and_outputs_agree(estimator, X, y):
    results = outputs(longer(estimator).fit(X, y), X)
    assert results["predict"].shape == y.shape
    assert (results["predict"] == y).mean() > 0.9
    assert ("decision_function" in results) == ("predict_proba" in results)
    if "decision_function" in results:
        assert ((results["decision_function"] > 0) == y).mean() > 0.9
        np.testing.assert_allclose(results["predict_proba"].sum(axis=-1), 1, rtol=1e-6)
        np.testing.assert_allclose(results["predict_proba"][..., 1], expit(results["decision_function"]), rtol=1e-6)
    if "predict_confidence" in results:
        np.testing.assert_array_equal(results["predict"], results["predict_confidence"] > 0)
    if isinstance(estimator, CNNSegmenter):
        np.testing.assert_array_equal(results["predict"], results["decision_function"] > 0)
        np.testing.assert_array_equal(results["predict"], results["predict_proba"].argmax(axis=-1))


@replaces("check_classifier_data_not_an_array")
def lists_give_lists(estimator, X, y):
    expected = outputs_after_fit(estimator, X, y)
    for form in LISTS:
        results = outputs_after_fit(estimator, form(X), form(y))
        assert all(isinstance(result, list) for result in results.values())
        assert_same(results, expected)
    with pytest.raises(TypeError, match="must be an array or a list of arrays, got NotAnArray"):
        estimator.fit(NotAnArray(X), y)


@replaces("check_class_weight_classifiers")
def class_weights_count(estimator, X, y):
    def share(class_weight):
        weighted = clone(estimator)
        network_alone(weighted).set_params(class_weight=class_weight)
        return weighted.fit(X, y).predict(X).mean()

    assert share({0: 10, 1: 1}) < share(None) < share({0: 1, 1: 10})


# weights of images


@replaces(
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_pandas_series",
    "check_sample_weights_not_overwritten",
)
def weights_come_in_any_form(estimator, X, y):
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    expected = outputs_after_fit(estimator, X, y, sample_weight=weights)
    np.testing.assert_array_equal(weights, [1, 2, 3, 4])
    for form in (list, NotAnArray, Series):
        assert_same(outputs_after_fit(estimator, X, y, sample_weight=form([1, 2, 3, 4])), expected)


@replaces("check_sample_weights_shape", "check_all_zero_sample_weights_error")
def other_weights_are_told(estimator, X, y):
    for shape in (2 * len(X), (len(X), 2), y.shape):
        with pytest.raises(ValueError, match="(?i)sample_?weight"):
            estimator.fit(X, y, sample_weight=np.ones(shape))
    with pytest.raises(ValueError, match=r"sample_weight .*\b(0|zero)\b"):
        estimator.fit(X, y, sample_weight=np.zeros(len(X)))


@replaces("check_sample_weight_equivalence_on_dense_data")
def a_weight_is_a_number_of_images(estimator, X, y):
    weights = np.array([2, 0, 1, 3])
    if hasattr(estimator, "tol"):
        estimator.set_params(tol=1e-6)

    def learned(fitted):
        """Weights of the field and log-odds of the network, if there are any."""
        log_odds = fitted.decision_function(X) if hasattr(fitted, "decision_function") else []
        return np.concatenate([getattr(fitted, "coef_", []), np.ravel(log_odds)])

    repeated = clone(estimator).fit(X.repeat(weights, axis=0), y.repeat(weights, axis=0))
    weighted = clone(estimator).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(learned(weighted), learned(repeated), rtol=0, atol=1e-3)
    assert not np.allclose(learned(estimator.fit(X, y)), learned(repeated), rtol=0, atol=1e-2)
    # labels may flip where energies are nearly equal
    assert (weighted.predict(X) == repeated.predict(X)).mean() > 0.99


# what comes of transform


@replaces(
    "check_transformer_general",
    "check_transformer_data_not_an_array",
    "check_transformer_preserve_dtypes",
    "check_transformer_n_iter",
    method="transform",
)
def transform_is_fit_transform(estimator, X, y):
    Z = clone(estimator).fit(X, y).transform(X)
    assert Z.shape == (*y.shape, 2)
    for images, labels in ((X, y), create_memmap_backed_data([X, y]), *((form(X), form(y)) for form in LISTS)):
        transformed = estimator.fit_transform(images, labels)
        assert isinstance(transformed, np.ndarray if isinstance(images, np.ndarray) else list)
        np.testing.assert_array_equal(np.stack(transformed), Z)
    assert estimator.n_iter_ == estimator.n_epochs
    preserved = get_tags(estimator).transformer_tags.preserves_dtype
    for dtype in ("float16", "float32", "float64"):
        assert (estimator.transform(X.astype(dtype)).dtype == dtype) == (dtype in preserved)


@replaces(
    "check_set_output_transform",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    method="transform",
)
def transform_gives_arrays_whatever_is_set(estimator, X, y):
    with pytest.raises(ValueError, match="set_output"):
        make_pipeline(estimator).set_output(transform="default")
    Z = estimator.fit(X, y).transform(X)
    for library in ("pandas", "polars"):
        with sklearn.config_context(transform_output=library):
            np.testing.assert_array_equal(estimator.transform(X), Z, strict=True)


# the tables: each check of scikit-learn is in one of them

REPLACED = [check for _, checks, _ in VERSIONS for check in checks]
RUN = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_param_validation",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformers_unfitted",
    "check_valid_tag_types",
}
# those of regressors and of columns of data frames are not yielded
EXCUSED = {
    "check_estimators_partial_fit_n_features": "There is no partial_fit; warm_start goes on with a fit.",
    "check_sample_weight_equivalence_on_sparse_data": "Images are dense. Earlier versions of scikit-learn yield it.",
}
SINCE_1_9 = {"check_all_zero_sample_weights_error"}


def yielded(estimator):
    """What scikit-learn would check if our estimator took tables and classified their rows."""

    class StandIn(type(estimator)):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array = True
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_class=False)
            if hasattr(self, "transform"):
                tags.transformer_tags = TransformerTags(preserves_dtype=["float32"])
            return tags

    parameters = estimator.get_params(deep=False)
    return {check.func.__name__ for _, check in estimator_checks_generator(StandIn(**parameters))}


each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)


@each_estimator
def test_each_check_that_scikit_learn_yields_is_in_one_table(estimator):
    tables = Counter([*RUN, *REPLACED, *EXCUSED])
    assert set(tables.values()) == {1}
    checks = yielded(estimator)
    assert len(checks) > 40
    assert checks <= tables.keys()
    assert {check for check in tables if not hasattr(estimator_checks, check)} <= SINCE_1_9


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{name_of(estimator)}-{check}")
        for estimator in ESTIMATORS
        for check in sorted(RUN)
        if hasattr(estimator, "transform") or check != "check_transformers_unfitted"
    ],
)
def test_check_as_it_is(estimator, check):
    try:
        getattr(estimator_checks, check)(name_of(estimator), clone(estimator))
    except SkipTest as reason:
        pytest.fail(f"skipped, so it belongs to another table: {reason}")


@pytest.mark.parametrize(
    ("estimator", "version"),
    [
        pytest.param(estimator, version, id=f"{name_of(estimator)}-{version.__name__}")
        for estimator in ESTIMATORS
        for version, _, method in VERSIONS
        if hasattr(estimator, method)
    ],
)
@pytest.mark.filterwarnings("ignore:y has no foreground")
def test_image_version(estimator, version):
    estimator = clone(estimator)
    version(estimator, *data_for(estimator))


# what scikit-learn's checks leave out


@each_estimator
def test_clone_of_a_fitted_estimator_is_unfitted_and_fits_the_same(estimator):
    X, y = data_for(estimator)
    fitted = clone(estimator).fit(X, y)
    copy = clone(fitted)
    assert vars(copy).keys() == copy.get_params(deep=False).keys()
    assert repr(copy) == repr(fitted)
    assert_same(outputs(copy.fit(X, y), X), outputs(fitted, X))
