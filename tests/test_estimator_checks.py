"""scikit-learn's estimator checks, on images.

Of estimators that take no tables scikit-learn checks next to nothing. So each of its checks is here called as it is,
replaced by an image version of the same name, or excused with a reason, and the tests at the end count them.
"""

import functools
import inspect
import os
import pickle
from collections import Counter
from unittest import SkipTest, mock

import joblib
import numpy as np
import pytest
import sklearn
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import ClassifierTags, TransformerTags, estimator_checks, estimator_html_repr, get_tags
from sklearn.utils._testing import create_memmap_backed_data
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import UNet

# ---------------------------------------------------------------------------------------------------------------------
# Estimators, images, and what comes of them


def tiny_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


ESTIMATORS = [
    CNNSegmenter(tiny_unet, n_epochs=2, learning_rate=1e-2, device="cpu", random_state=0),
    DeepStructuredSegmenter(
        tiny_unet, pretrain_epochs=2, pretrain_learning_rate=1e-2, n_epochs=1, device="cpu", random_state=0
    ),
    MaxMarginCRF(),
]
LONGER = {"CNNSegmenter": {"n_epochs": 40}, "DeepStructuredSegmenter": {"pretrain_epochs": 40}, "MaxMarginCRF": {}}
METHODS = ("predict", "decision_function", "predict_proba", "transform")


def name_of(estimator):
    return type(estimator).__name__


def longer(estimator):
    """The estimator with as much training as it takes to fit the images."""
    return estimator.set_params(**LONGER[name_of(estimator)])


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


# ---------------------------------------------------------------------------------------------------------------------
# Image versions

REPLACED = {}


def image_version(check):
    REPLACED[check.__name__] = check
    return check


# parameters and state


@image_version
def check_fit_score_takes_y(estimator):
    X, y = data_for(estimator)
    for name in ("fit", "score", "fit_transform"):
        if hasattr(estimator, name):
            method = getattr(estimator, name)
            method(X, y)
            assert list(inspect.signature(method).parameters)[1] == "y"


@image_version
def check_dont_overwrite_parameters(estimator):
    before = vars(estimator).copy()
    estimator.fit(*data_for(estimator))
    public = {name: value for name, value in vars(estimator).items() if not (name[0] == "_" or name[-1] == "_")}
    assert public.keys() == before.keys()
    assert all(public[name] is before[name] for name in before)


@image_version
def check_estimators_overwrite_params(estimator):
    if hasattr(estimator, "network"):
        estimator.set_params(network=tiny_unet(1))
    before = joblib.hash(estimator.get_params())
    estimator.fit(*data_for(estimator))
    assert joblib.hash(estimator.get_params()) == before


@image_version
def check_estimators_fit_returns_self(estimator):
    assert estimator.fit(*data_for(estimator)) is estimator


@image_version
def check_fit_check_is_fitted(estimator):
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    check_is_fitted(estimator.fit(*data_for(estimator)))


@image_version
def check_fit_idempotent(estimator):
    X, y = data_for(estimator)
    once = outputs(estimator.fit(X, y), X)
    assert_same(outputs(estimator.fit(X, y), X), once)


@image_version
def check_dict_unchanged(estimator):
    X, y = data_for(estimator)
    before = joblib.hash(vars(estimator.fit(X, y)))
    for name, method in methods_of(estimator).items():
        method(X)
        assert joblib.hash(vars(estimator)) == before, name


@image_version
def check_estimators_pickle(estimator):
    X, y = data_for(estimator)
    before = outputs(estimator.fit(X, y), X)
    assert_same(outputs(pickle.loads(pickle.dumps(estimator)), X), before)
    assert_same(outputs(create_memmap_backed_data(estimator), X), before)


@image_version
def check_pipeline_consistency(estimator):
    X, y = data_for(estimator)
    pipeline = make_pipeline(clone(estimator)).fit(X, y)
    estimator.fit(X, y)
    assert pipeline.score(X, y) == estimator.score(X, y)
    assert_same(outputs(pipeline, X), outputs(estimator, X))


@image_version
def check_non_transformer_estimators_n_iter(estimator):
    estimator.fit(*data_for(estimator))
    most = estimator.max_iter if hasattr(estimator, "max_iter") else estimator.n_epochs
    assert 1 <= estimator.n_iter_ <= most


# images as they may come


@image_version
def check_readonly_memmap_input(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    X, y = create_memmap_backed_data([X, y])
    assert_same(outputs(estimator.fit(X, y), X), expected)


@image_version
def check_inplace_ensure_writeable(estimator):
    X, y = data_for(estimator)
    kept = X.copy(), y.copy()
    for array in (X, y):
        array.setflags(write=False)
    outputs(estimator.fit(X, y), X)
    estimator.score(X, y)
    for array, before in zip((X, y), kept):
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, before)


@image_version
def check_f_contiguous_array_estimator(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    X, y = np.asfortranarray(X), np.asfortranarray(y)
    assert_same(outputs(estimator.fit(X, y), X), expected, atol=1e-5)


@image_version
def check_array_api_input(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    # scikit-learn dispatches only where SciPy may, too
    with mock.patch.dict(os.environ, SCIPY_ARRAY_API="1"), sklearn.config_context(array_api_dispatch=True):
        assert_same(outputs(estimator.fit(X, y), X), expected)


@image_version
def check_estimators_dtypes(estimator):
    X, y = data_for(estimator)
    floats = [np.float16, np.float32, np.float64]
    for dtype in floats if isinstance(estimator, MaxMarginCRF) else [bool, np.uint8, np.uint16, *floats]:
        scaled = X * np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else X > 0.5 if dtype is bool else X
        results = outputs(estimator.fit(scaled.astype(dtype), y), scaled.astype(dtype))
        assert results.pop("predict").dtype == np.uint8
        assert all(result.dtype == np.float32 and np.isfinite(result).all() for result in results.values())
    with pytest.raises(ValueError, match=r"\[0\] must be of dtype .* got int64"):
        estimator.fit((100 * X).astype(np.int64), y)


@image_version
def check_dtype_object(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    images = np.empty(len(X), dtype=object)
    images[:] = list(X)
    assert_same(outputs(estimator.fit(images, y), images), expected)
    for pixels in (X.astype(object), X.astype(str)):
        with pytest.raises(ValueError, match=r"\[0\] must be of dtype"):
            estimator.fit(pixels, y)


@image_version
def check_complex_data(estimator):
    X, y = data_for(estimator)
    with pytest.raises(ValueError, match=r"\[0\] must be of dtype .* got complex128"):
        estimator.fit(X + 1j, y)


@image_version
def check_estimators_nan_inf(estimator):
    X, y = data_for(estimator)
    fitted = clone(estimator).fit(X, y)
    for value in (np.nan, np.inf, -np.inf):
        bad = X.copy()
        bad[2, 3, 4] = value
        for method in methods_of(fitted).values():
            with pytest.raises(ValueError, match=r"\[2\] contains NaN or infinite"):
                method(bad)
        with pytest.raises(ValueError, match=r"\[2\] contains NaN or infinite"):
            estimator.fit(bad, y)


@image_version
def check_positive_only_tag_during_fit(estimator):
    assert not get_tags(estimator).input_tags.positive_only
    X, y = data_for(estimator)
    outputs(estimator.fit(X - X.mean(), y), -X)


# how many images, of which shape


@image_version
def check_estimators_empty_data_messages(estimator):
    X, y = data_for(estimator)
    with pytest.raises(ValueError, match="is empty"):
        estimator.fit(X[:0], y[:0])
    for empty, labels in ((X[:, :0], y[:, :0]), (X[:, :, :0], y[:, :, :0]), (np.empty((*y.shape, 0)), y)):
        with pytest.raises(ValueError, match=r"\[0\] must be of shape .* none of them 0"):
            estimator.fit(empty, labels)


@image_version
def check_fit2d_1sample(estimator):
    X, y = data_for(estimator)
    assert all(len(result) == 1 for result in outputs(estimator.fit(X[:1], y[:1]), X[:1]).values())


@image_version
def check_fit2d_1feature(estimator):
    X, y = data_for(estimator)
    for narrow in (np.s_[:, :, :1], np.s_[:, :1, :], np.s_[:, :1, :1]):
        assert clone(estimator).fit(X[narrow], y[narrow]).predict(X[narrow]).shape == y[narrow].shape
    if isinstance(estimator, MaxMarginCRF):
        with pytest.raises(ValueError, match="log-odds in channel 0 and the image .* got 1 channels"):
            estimator.fit(X[..., :1], y)
    else:
        expected = outputs(clone(estimator).fit(X, y), X)
        X = X[..., np.newaxis]
        assert_same(outputs(estimator.fit(X, y), X), expected)


@image_version
def check_fit2d_predict1d(estimator):
    X, y = data_for(estimator)
    for method in methods_of(estimator.fit(X, y)).values():
        with pytest.raises(ValueError, match=r"must be of shape \(n, H, W\)|channels, but"):
            method(X[0])


@image_version
def check_n_features_in(estimator):
    assert not hasattr(estimator, "n_channels_in_")
    X, y = data_for(estimator)
    X = X.reshape(*y.shape, -1)
    for channels in (X, np.concatenate([X, X, X], axis=-1)):
        assert estimator.fit(channels, y).n_channels_in_ == channels.shape[-1]


@image_version
def check_n_features_in_after_fitting(estimator):
    X, y = data_for(estimator)
    estimator.fit(X, y)
    X = X.reshape(*y.shape, -1)
    twice = np.concatenate([X, X], axis=-1)
    message = rf"\[0\] has {twice.shape[-1]} channels, but {X.shape[-1]} are wanted"
    for method in [*methods_of(estimator).values(), lambda X: estimator.score(X, y)]:
        with pytest.raises(ValueError, match=message):
            method(twice)


@image_version
def check_methods_subset_invariance(estimator):
    X, y = data_for(estimator)
    for name, method in methods_of(estimator.fit(X, y)).items():
        one_by_one = np.concatenate([method(X[n : n + 1]) for n in range(len(X))])
        np.testing.assert_allclose(one_by_one, method(X), rtol=0, atol=1e-5, err_msg=name)


@image_version
def check_methods_sample_order_invariance(estimator):
    X, y = data_for(estimator)
    order = np.random.default_rng(0).permutation(len(X))
    for name, method in methods_of(estimator.fit(X, y)).items():
        np.testing.assert_allclose(method(X[order]), method(X)[order], rtol=0, atol=1e-5, err_msg=name)


# labels, and what is said of them


@image_version
def check_requires_y_none(estimator):
    assert get_tags(estimator).target_tags.required
    with pytest.raises((TypeError, ValueError), match=r"\by\b.* None"):
        estimator.fit(data_for(estimator)[0], None)


@image_version
def check_supervised_y_no_nan(estimator):
    X, y = data_for(estimator)
    for value in (np.nan, np.inf):
        bad = y.astype(float)
        bad[2, 3, 4] = value
        with pytest.raises(ValueError, match=r"y\[2\]"):
            estimator.fit(X, bad)


@image_version
def check_supervised_y_2d(estimator):
    X, y = data_for(estimator)
    for wrong in (y[..., np.newaxis], y[0], y.reshape(len(y), -1)):
        with pytest.raises(ValueError, match=r"y must be of shape \(n, H, W\)"):
            estimator.fit(X, wrong)


@image_version
def check_classifiers_regression_target(estimator):
    X, y = data_for(estimator)
    with pytest.raises(ValueError, match=r"y\[0\]"):
        estimator.fit(X, y + 0.5)


@image_version
def check_classifier_not_supporting_multiclass(estimator):
    X, y = data_for(estimator)
    y[2, 3, 4] = 2
    with pytest.raises(ValueError, match=r"y\[2\] .*\b2\b"):
        estimator.fit(X, y)


@image_version
def check_classifiers_classes(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    for labels in (y.astype(bool), y.astype(np.int64), y.astype(float), y.tolist()):
        fitted = clone(estimator).fit(X, labels)
        np.testing.assert_array_equal(fitted.classes_, [0, 1])
        assert_same(outputs(fitted, X), expected)
    with pytest.raises(ValueError, match=r"y\[0\]"):
        estimator.fit(X, np.take(["background", "foreground"], y))


@image_version
def check_classifiers_one_label(estimator):
    for label in (0, 1):
        X, y = data_for(estimator, label)
        np.testing.assert_array_equal(longer(estimator).fit(X, y).predict(X), y)


@image_version
def check_classifiers_one_label_sample_weights(estimator):
    X, y = (np.concatenate(pair) for pair in zip(data_for(estimator, 0), data_for(estimator, 1)))
    longer(estimator).fit(X, y, sample_weight=y[:, 0, 0])
    np.testing.assert_array_equal(estimator.predict(X[4:]), y[4:])


@image_version
def check_classifiers_train(estimator):
    X, y = data_for(estimator)
    longer(estimator)
    with pytest.raises(ValueError, match="same length"):
        estimator.fit(X, y[:-1])
    for images in (X, X.astype(np.float32), create_memmap_backed_data(X)):
        results = outputs(estimator.fit(images, y), images)
        assert results["predict"].shape == y.shape
        assert (results["predict"] == y).mean() > 0.9
        if "decision_function" in results:
            assert ((results["decision_function"] > 0) == y).mean() > 0.9
            np.testing.assert_allclose(results["predict_proba"].sum(axis=-1), 1, rtol=1e-6)
    if isinstance(estimator, CNNSegmenter):
        np.testing.assert_array_equal(results["predict"], results["decision_function"] > 0)
        np.testing.assert_array_equal(results["predict"], results["predict_proba"].argmax(axis=-1))


@image_version
def check_classifier_data_not_an_array(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y), X)
    for form in (tuple, lambda values: [NotAnArray(value) for value in values], lambda values: values.tolist()):
        fitted = clone(estimator).fit(form(X), form(y))
        results = outputs(fitted, form(X))
        assert all(isinstance(result, list) for result in results.values())
        assert_same(results, expected)
    with pytest.raises(TypeError, match="must be an array or a list of arrays, got NotAnArray"):
        estimator.fit(NotAnArray(X), y)


@image_version
def check_decision_proba_consistency(estimator):
    X, y = data_for(estimator)
    if hasattr(estimator.fit(X, y), "predict_proba"):
        probabilities = estimator.predict_proba(X)[..., 1]
        np.testing.assert_allclose(probabilities, expit(estimator.decision_function(X)), rtol=1e-6)
    else:
        assert not hasattr(estimator, "decision_function")


@image_version
def check_class_weight_classifiers(estimator):
    X, y = data_for(estimator)
    shares = []
    for class_weight in ({0: 10, 1: 1}, None, {0: 1, 1: 10}):
        weighted = clone(estimator).set_params(class_weight=class_weight)
        shares.append(weighted.fit(X, y).predict(X).mean())
    assert shares[0] < shares[1] < shares[2]


# weights of images


@image_version
def check_sample_weights_list(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y, sample_weight=np.array([1.0, 2.0, 3.0, 4.0])), X)
    assert_same(outputs(estimator.fit(X, y, sample_weight=[1, 2, 3, 4]), X), expected)


@image_version
def check_sample_weights_not_an_array(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y, sample_weight=[1, 2, 3, 4]), X)
    assert_same(outputs(estimator.fit(X, y, sample_weight=NotAnArray([1, 2, 3, 4])), X), expected)


@image_version
def check_sample_weights_pandas_series(estimator):
    X, y = data_for(estimator)
    expected = outputs(clone(estimator).fit(X, y, sample_weight=[1, 2, 3, 4]), X)
    assert_same(outputs(estimator.fit(X, y, sample_weight=Series([1, 2, 3, 4])), X), expected)


@image_version
def check_all_zero_sample_weights_error(estimator):
    X, y = data_for(estimator)
    with pytest.raises(ValueError, match=r"sample_weight .*\b(0|zero)\b"):
        estimator.fit(X, y, sample_weight=np.zeros(len(X)))


@image_version
def check_sample_weights_shape(estimator):
    X, y = data_for(estimator)
    for shape in (2 * len(X), (len(X), 2), y.shape):
        with pytest.raises(ValueError, match="(?i)sample_?weight"):
            estimator.fit(X, y, sample_weight=np.ones(shape))


@image_version
def check_sample_weights_not_overwritten(estimator):
    X, y = data_for(estimator)
    weights = np.array([10.0, 1.0, 1.0, 1.0])
    estimator.fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(weights, [10, 1, 1, 1])


@image_version
def check_sample_weight_equivalence_on_dense_data(estimator):
    X, y = data_for(estimator)
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


@image_version
def check_transformer_general(estimator):
    X, y = data_for(estimator)
    Z = clone(estimator).fit(X, y).transform(X)
    assert Z.shape == (*y.shape, 2)
    for images, labels in ((X, y), create_memmap_backed_data([X, y])):
        for _ in range(2):
            np.testing.assert_array_equal(estimator.fit_transform(images, labels), Z)


@image_version
def check_transformer_data_not_an_array(estimator):
    X, y = data_for(estimator)
    Z = clone(estimator).fit_transform(X, y)
    for form in (list, lambda values: [NotAnArray(value) for value in values], lambda values: values.tolist()):
        transformed = estimator.fit_transform(form(X), form(y))
        assert isinstance(transformed, list)
        np.testing.assert_array_equal(np.stack(transformed), Z)


@image_version
def check_transformer_preserve_dtypes(estimator):
    X, y = data_for(estimator)
    preserved = get_tags(estimator).transformer_tags.preserves_dtype
    for dtype in ("float16", "float32", "float64"):
        images = X.astype(dtype)
        for Z in (clone(estimator).fit_transform(images, y), clone(estimator).fit(images, y).transform(images)):
            assert (Z.dtype == dtype) == (dtype in preserved)


@image_version
def check_transformer_n_iter(estimator):
    assert estimator.fit(*data_for(estimator)).n_iter_ == estimator.n_epochs


@image_version
def check_set_output_transform(estimator):
    assert not hasattr(estimator, "set_output")
    with pytest.raises(ValueError, match="set_output"):
        make_pipeline(estimator).set_output(transform="default")


@image_version
def check_global_output_transform_pandas(estimator):
    X, y = data_for(estimator)
    Z = estimator.fit(X, y).transform(X)
    with sklearn.config_context(transform_output="pandas"):
        np.testing.assert_array_equal(estimator.transform(X), Z, strict=True)


@image_version
def check_global_set_output_transform_polars(estimator):
    X, y = data_for(estimator)
    Z = estimator.fit(X, y).transform(X)
    with sklearn.config_context(transform_output="polars"):
        np.testing.assert_array_equal(estimator.transform(X), Z, strict=True)


# ---------------------------------------------------------------------------------------------------------------------
# The tables: with REPLACED, each check of scikit-learn is in one of them

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

_NO_COLUMNS = "An image has no columns to be named; transform gives images, which no data frame can hold."
EXCUSED = {
    "check_dataframe_column_names_consistency": _NO_COLUMNS,
    "check_estimators_partial_fit_n_features": "There is no partial_fit; warm_start goes on with a fit.",
    "check_get_feature_names_out_error": _NO_COLUMNS,
    "check_sample_weight_equivalence_on_sparse_data": "Sparse images are refused, see check_estimator_sparse_tag.",
    "check_set_output_transform_pandas": _NO_COLUMNS,
    "check_set_output_transform_polars": _NO_COLUMNS,
    "check_transformer_get_feature_names_out": _NO_COLUMNS,
    "check_transformer_get_feature_names_out_pandas": _NO_COLUMNS,
}

# scikit-learn has these for estimators of which ours are none, and does not yield them for ours
OF_OTHERS = {
    "check_class_weight_balanced_linear_classifier": "linear classifiers",
    "check_classifier_multioutput": "several labels at once",
    "check_classifiers_multilabel_output_format_decision_function": "several labels at once",
    "check_classifiers_multilabel_output_format_predict": "several labels at once",
    "check_classifiers_multilabel_output_format_predict_proba": "several labels at once",
    "check_classifiers_multilabel_representation_invariance": "several labels at once",
    "check_clusterer_compute_labels_predict": "clusterers",
    "check_clustering": "clusterers",
    "check_fit_non_negative": "positive input only",
    "check_nonsquare_error": "pairwise input",
    "check_outlier_contamination": "outlier detectors",
    "check_outliers_fit_predict": "outlier detectors",
    "check_outliers_train": "outlier detectors",
    "check_regressor_data_not_an_array": "regressors",
    "check_regressor_multioutput": "regressors",
    "check_regressors_int": "regressors",
    "check_regressors_no_decision_function": "regressors",
    "check_regressors_train": "regressors",
    "check_sparsify_coefficients": "linear classifiers",
    "check_transformers_unfitted_stateless": "transformers that learn nothing",
}

SINCE_1_9 = {"check_all_zero_sample_weights_error", "check_array_api_input"}
OF_TRANSFORMERS = ("check_transformer", "check_get_feature_names", "check_set_output", "check_global_")


def sklearn_checks():
    """All that scikit-learn has: what takes a name and an estimator, whether it is yielded to users or not."""

    def takes_name_and_estimator(function):
        required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        return len(required) == 2 and required[0] == "name"

    found = inspect.getmembers(estimator_checks, inspect.isfunction)
    return {name for name, check in found if name.startswith("check_") and takes_name_and_estimator(check)}


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

    return {check.func.__name__ for _, check in estimator_checks_generator(StandIn(**estimator.get_params()))}


CHECKS = sklearn_checks().union(*map(yielded, ESTIMATORS))


def asked(estimator, checks):
    """Those of the checks that ask something of the estimator: not of a transformer, unless it is one."""
    transforms = hasattr(estimator, "transform")
    return {check for check in checks if transforms or not check.startswith(OF_TRANSFORMERS)}


def of_each_estimator(checks):
    """A test's parameters: each estimator with each of the checks that ask something of it."""
    pairs = [(estimator, check) for estimator in ESTIMATORS for check in sorted(asked(estimator, checks) & CHECKS)]
    return pytest.mark.parametrize(("estimator", "check"), pairs, ids=[f"{name_of(e)}-{check}" for e, check in pairs])


each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)


# ---------------------------------------------------------------------------------------------------------------------
# Tests of the checks, and that none is missing


@of_each_estimator(RUN)
def test_check_as_it_is(estimator, check):
    try:
        getattr(estimator_checks, check)(name_of(estimator), clone(estimator))
    except SkipTest as reason:
        pytest.fail(f"skipped, so it belongs to another table: {reason}")


@of_each_estimator(REPLACED)
def test_image_version(estimator, check):
    REPLACED[check](clone(estimator))


def test_each_check_of_scikit_learn_is_in_one_table():
    tables = Counter(check for table in (RUN, REPLACED, EXCUSED, OF_OTHERS) for check in table)
    assert set(tables.values()) == {1}
    assert tables.keys() >= CHECKS
    assert tables.keys() - CHECKS <= SINCE_1_9


@each_estimator
def test_what_scikit_learn_yields_is_not_left_to_others(estimator):
    checks = yielded(estimator)
    assert len(checks) > 40
    assert checks <= asked(estimator, {*RUN, *REPLACED, *EXCUSED})


@pytest.mark.parametrize(
    ("estimator", "n_run", "n_replaced", "n_excused"),
    list(zip(ESTIMATORS, [17, 16, 16], [53, 46, 46], [8, 3, 3])),
    ids=[name_of(estimator) for estimator in ESTIMATORS],
)
def test_so_many_checks(estimator, n_run, n_replaced, n_excused):
    assert [len(asked(estimator, table)) for table in (RUN, REPLACED, EXCUSED)] == [n_run, n_replaced, n_excused]
    assert len(OF_OTHERS) == 20


# ---------------------------------------------------------------------------------------------------------------------
# What scikit-learn's checks leave out


@each_estimator
def test_every_method_wants_a_fit(estimator):
    X, y = data_for(estimator)
    estimator = clone(estimator)
    for method in [*methods_of(estimator).values(), lambda X: estimator.score(X, y)]:
        with pytest.raises(NotFittedError, match=f"This {name_of(estimator)} instance is not fitted yet"):
            method(X)


@each_estimator
def test_clone_of_a_fitted_estimator_is_unfitted_and_fits_the_same(estimator):
    X, y = data_for(estimator)
    fitted = clone(estimator).fit(X, y)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert vars(copy).keys() == copy.get_params().keys()
    assert_same(outputs(copy.fit(X, y), X), outputs(fitted, X))


@each_estimator
def test_html_shows_name_parameters_and_fit(estimator):
    estimator = clone(estimator).set_params(verbose=7)
    unfitted = estimator._repr_html_()
    assert name_of(estimator) in unfitted
    assert "verbose" in unfitted
    assert "Not fitted" in unfitted
    assert "Not fitted" not in estimator.set_params(verbose=0).fit(*data_for(estimator))._repr_html_()


def piecewise():
    return Pipeline([("cnn", clone(ESTIMATORS[0])), ("crf", clone(ESTIMATORS[2]))])


def test_html_shows_the_parts_of_a_pipeline():
    html = estimator_html_repr(piecewise())
    assert all(name in html for name in ("CNNSegmenter", "MaxMarginCRF", "tiny_unet"))


def test_parts_of_a_pipeline_are_set_and_searched():
    pipeline = piecewise().set_params(cnn__n_epochs=1, crf__connectivity=4)
    assert (pipeline["cnn"].n_epochs, pipeline["crf"].connectivity) == (1, 4)
    assert pipeline.get_params()["cnn__n_epochs"] == 1
    grid = {"cnn__n_epochs": [1, 3], "crf__C": [0.1, 1.0]}
    X, y = data_for(pipeline)
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_estimator_
    assert search.best_params_ == {"cnn__n_epochs": best["cnn"].n_iter_, "crf__C": best["crf"].C}
    assert search.predict(X).shape == y.shape


def test_weights_of_images_are_routed_to_the_parts(monkeypatch):
    seen = []

    def spied(fit):
        @functools.wraps(fit)
        def spy(self, X, y, **kwargs):
            seen.append((type(self), kwargs))
            return fit(self, X, y, **kwargs)

        return spy

    for part in (CNNSegmenter, MaxMarginCRF):
        monkeypatch.setattr(part, "fit", spied(part.fit))
    weights = [1, 2, 3, 4]
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = piecewise()
        for _, part in pipeline.steps:
            part.set_fit_request(sample_weight=True)
        pipeline.fit(*data_for(pipeline), sample_weight=weights)
    assert seen == [(CNNSegmenter, {"sample_weight": weights}), (MaxMarginCRF, {"sample_weight": weights})]
