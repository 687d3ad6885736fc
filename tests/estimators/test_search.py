"""scikit-learn's tools of model selection over arrays, lists of unequal images, and images that are read lazily."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config
from nets import PLAIN
from PIL import Image
from scipy.stats import loguniform
from sklearn import config_context
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the next import possible
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from skorch.helper import SliceDataset
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.metrics import make_segmentation_scorer, mean_jaccard
from skmmcrf.networks import UNet


@dataclass
class SmallUNet:
    """A network that can leave a mark in a file, also from other processes, each time that it is made."""

    marks: Path | None = None

    def __call__(self, n_channels):
        if self.marks is not None:
            with self.marks.open("a") as file:
                file.write(".")
        return UNet(n_channels, width=8, depth=1)


def quick(**parameters):
    cnn = CNNSegmenter(SmallUNet(), **PLAIN, n_epochs=2, learning_rate=1e-2, batch_size=3, device="cpu")
    return DeepStructuredSegmenter(cnn, n_epochs=1, batch_size=3, random_state=0).set_params(**parameters)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve images in every form, by its name."""
    X, y = make_phantoms(12, shape=(24, 28), random_state=0)
    crops = [np.s_[n % 3 :, n % 4 :] for n in range(12)]
    unequal = [x[c] for x, c in zip(X, crops)], [t[c] for t, c in zip(y, crops)]
    folder = tmp_path_factory.mktemp("images")
    paths = [[str(folder / f"{kind}{n}.png") for n in range(12)] for kind in ("image", "mask")]
    for files, arrays in zip(paths, unequal):
        for file, array in zip(files, arrays):
            Image.fromarray(array).save(file)
    dataset = TensorDataset(torch.from_numpy(X[:, None]), torch.from_numpy(y))
    return {
        "array": (X, y),
        "unequal": unequal,
        "files": paths,
        "dataset": (SliceDataset(dataset, 0), SliceDataset(dataset, 1)),
    }


@pytest.mark.parametrize("kind", ["unequal", "dataset"])
def test_searches(data, kind):
    X, y = data[kind]
    common = {"cv": 2, "error_score": "raise"}
    field = {"pairwise": ["smoothness"], "connectivity": [4, ((0, 1), (1, 0), (0, 3))]}
    grid = [{"training": ["cnn", "piecewise"], "cnn__n_epochs": [1]}, field | {"cnn__network_scale": [(1.0, 0.5)]}]
    searches = [
        GridSearchCV(quick(), grid, **common),
        RandomizedSearchCV(quick(), {"cnn__learning_rate": loguniform(1e-4, 1e-2)}, n_iter=2, random_state=0, **common),
        HalvingGridSearchCV(quick(), {"C": [0.1, 1.0]}, min_resources=6, factor=2, random_state=0, **common),
    ]
    for search in searches:
        search.fit(X, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert len(search.predict(X)) == 12
        assert 0 <= search.score(X, y) <= 1
        best = search.best_estimator_.get_params()
        assert all(best[name] == value for name, value in search.best_params_.items())


def test_a_search_over_a_name_makes_it_an_estimator(data):
    X, y = data["array"]
    search = GridSearchCV(DeepStructuredSegmenter(training="cnn"), {"cnn__n_epochs": [0, 1]}, cv=2).fit(X, y)
    assert search.best_estimator_.cnn_.n_iter_ == search.best_params_["cnn__n_epochs"]
    assert search.estimator.cnn == "unet"


def test_a_search_in_processes_pretrains_once_a_fold(data, tmp_path):
    X, y = data["files"]
    model = quick(cnn__network=SmallUNet(tmp_path / "marks"), memory=str(tmp_path))
    # folds come first, so that two candidates of the same fold begin together
    folds = [(np.arange(6), np.arange(6, 12))]
    search = GridSearchCV(model, {"C": [0.1, 1.0, 10.0]}, cv=folds, n_jobs=2, refit=False).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # once to name what is wanted for each of three candidates, once to train
    assert (tmp_path / "marks").read_text() == "." * 4


@pytest.mark.parametrize("kind", ["array", "files"])
def test_scores_and_curves(data, kind):
    X, y = data[kind]
    scores = cross_val_score(quick(), X, y, cv=3, error_score="raise")
    sizes, train, test = learning_curve(quick(), X, y, train_sizes=[3, 6], cv=2, error_score="raise")
    assert scores.shape == (3,)
    np.testing.assert_array_equal(sizes, [3, 6])
    assert all(np.isfinite(values).all() for values in (scores, train, test))
    measures = {name: make_segmentation_scorer(name) for name in ("jaccard", "dice", "boundary_f", "hausdorff")}
    results = cross_validate(quick(), X, y, scoring=measures, cv=3, error_score="raise")
    np.testing.assert_allclose(results["test_jaccard"], scores)
    assert all(np.isfinite(results[f"test_{name}"]).all() for name in measures)
    assert (results["test_hausdorff"] <= 0).all()


@pytest.mark.parametrize("kind", ["array", "unequal", "files", "dataset"])
def test_predictions_of_cross_validation(data, kind):
    X, y = data[kind]
    found = cross_val_predict(quick(), X, y, cv=3)
    arrays = data["unequal" if kind in ("unequal", "files") else "array"]
    assert [labels.shape for labels in found] == [truth.shape for truth in arrays[1]]
    # each image by the model that has not seen it
    fold = quick().fit(*([values[n] for n in range(4, 12)] for values in arrays))
    np.testing.assert_array_equal(found[0], fold.predict([arrays[0][0]])[0])
    assert mean_jaccard(arrays[1], list(found)) > 0


def test_the_kinds_agree(data):
    scores = {kind: cross_val_score(quick(), *data[kind], cv=2, error_score="raise") for kind in data}
    np.testing.assert_array_equal(scores["array"], scores["dataset"])
    np.testing.assert_array_equal(scores["unequal"], scores["files"])


@pytest.mark.parametrize("kind", ["unequal", "files"])
def test_pipelines(data, kind):
    X, y = data[kind]
    pipeline = make_pipeline(CNNSegmenter(SmallUNet(), random_state=0), MaxMarginCRF())
    grid = {"cnnsegmenter__n_epochs": [1, 3], "maxmargincrf__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    cnn, crf = search.best_estimator_
    assert search.best_params_ == {"cnnsegmenter__n_epochs": cnn.n_iter_, "maxmargincrf__C": crf.C}
    assert len(search.predict(X)) == 12


def test_weights_are_routed_through_a_search(data):
    X, y = data["array"]
    weights = np.r_[np.ones(6), np.zeros(6)]
    with config_context(enable_metadata_routing=True):
        model = quick(training="cnn").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        everything = [(np.arange(12), np.arange(12))]
        search = GridSearchCV(model, {"C": [1.0]}, cv=everything, error_score="raise").fit(X, y, sample_weight=weights)
        expected = quick(training="cnn").fit(X, y, sample_weight=weights)
    assert search.cv_results_["mean_test_score"][0] == expected.score(X[:6], y[:6])


def test_weights_are_routed_to_the_parts_of_a_pipeline(data):
    X, y = data["array"]
    weights = np.arange(1, 13)
    with config_context(enable_metadata_routing=True):
        cnn = CNNSegmenter(SmallUNet(), n_epochs=1, device="cpu", random_state=0).set_fit_request(sample_weight=True)
        crf = MaxMarginCRF().set_fit_request(sample_weight=True)
        routed = make_pipeline(cnn, crf).fit(X, y, sample_weight=weights)[-1].coef_
    by_hand = MaxMarginCRF().fit(cnn.fit(X, y, sample_weight=weights).transform(X), y, sample_weight=weights)
    np.testing.assert_array_equal(routed, by_hand.coef_)


def test_the_backend_of_joblib_is_the_users(data):
    X, y = data["array"]
    model = quick(training="piecewise", n_jobs=2)
    with parallel_config(backend="threading"):
        threads = model.fit(X, y).coef_
    np.testing.assert_array_equal(threads, model.fit(X, y).coef_)


class Silent(CNNSegmenter):
    """Finds nothing."""

    def predict(self, X):
        return np.zeros(X.shape, np.uint8)


@pytest.mark.filterwarnings("ignore:y has no foreground")
def test_a_fold_without_foreground_is_told_and_can_be_counted_as_right(data):
    X, y = data["array"]
    y = np.where(np.arange(12)[:, None, None] < 6, y, 0)
    search = GridSearchCV(Silent(SmallUNet()), {"n_epochs": [1, 0]}, cv=KFold(2), error_score="raise", refit=False)
    with (
        pytest.warns(UserWarning, match="test scores are non-finite"),
        pytest.warns(UserWarning, match="score is NaN, because no image counts"),
    ):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["split1_test_score"]).all()
    search.set_params(scoring=make_segmentation_scorer("jaccard", both_empty="perfect")).fit(X, y)
    assert search.cv_results_["split0_test_score"].tolist() == [0, 0]
    assert search.cv_results_["split1_test_score"].tolist() == [1, 1]


def test_transforms_with_a_get_params_of_their_own_can_be_cloned_and_searched_with(data):
    crop = v2.RandomCrop(16)
    cnn = CNNSegmenter(n_epochs=1, augmentation=crop, random_state=0)
    model = DeepStructuredSegmenter(cnn, training="piecewise", n_epochs=1)
    assert clone(cnn).augmentation.size == crop.size
    assert clone(cnn).augmentation is not crop
    assert clone(model).cnn.augmentation.size == crop.size
    assert model.set_params(cnn__n_epochs=2).cnn.augmentation is crop
    search = GridSearchCV(cnn, {"n_epochs": [1, 2]}, cv=2, error_score="raise").fit(*data["array"])
    assert search.best_estimator_.augmentation.size == crop.size
