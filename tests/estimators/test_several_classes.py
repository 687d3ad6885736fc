"""Estimators of more than two labels."""

import copy
import pickle

import numpy as np
import pytest
import torch
from comparing import everything
from nets import PLAIN
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from small_images import Gamma, all_labelings, stripes
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, configure, load
from skmmcrf.field.terms import scale_image
from skmmcrf.metrics import jaccard_indices, mean_jaccard
from skmmcrf.networks import UNet
from skmmcrf.training import joint as joints
from skmmcrf.training.interrupts import Interrupted

TRAININGS = ["cnn", "piecewise", "joint", "joint_by_batch"]
LABELS = np.array([-3, 4, 300])


def small_unet(n_channels, n_maps=1):
    return UNet(n_channels, width=8, depth=2, n_maps=n_maps)


def quick_cnn(**parameters):
    defaults = {"n_epochs": 25, "learning_rate": 1e-2, "batch_size": 3, "device": "cpu", "random_state": 0}
    return CNNSegmenter(small_unet, **PLAIN | defaults | parameters)


def quick(**parameters):
    model = DeepStructuredSegmenter(quick_cnn(), n_epochs=1, batch_size=3, random_state=0)
    return model.set_params(**{"augmentation": None} | parameters)


@pytest.fixture(scope="module")
def data(phantoms):
    """Images whose chambers have two parts, and labels that are no numbers of classes. Some pixels have none."""
    X, numbers = phantoms
    parts = np.array([[1], [2]], np.uint8).repeat(16, axis=0)
    y = LABELS[numbers * parts]
    y[:, -4:] = 255
    return X, y


@pytest.fixture(scope="module")
def cnn(data):
    return quick_cnn().fit(*data, validation_data=data)


@pytest.fixture(scope="module")
def models(data):
    return {training: quick(training=training).fit(*data, validation_data=data) for training in TRAININGS}


@pytest.fixture(scope="module")
def fitted(cnn, models, data):
    return {"network": cnn, "field": MaxMarginCRF().fit(cnn.transform(data[0]), data[1]), **models}


NAMES = ["network", "field", *TRAININGS]


def inputs(fitted, name, X):
    return fitted["network"].transform(X) if name == "field" else X


@pytest.mark.parametrize("name", NAMES)
def test_predictions_are_of_the_labels_that_were_given(fitted, name, data):
    X, y = inputs(fitted, name, data[0]), data[1]
    model = fitted[name]
    np.testing.assert_array_equal(model.classes_, LABELS)
    labels = model.predict(X)
    assert labels.dtype == np.int32
    assert set(np.unique(labels)) == set(LABELS)
    assert model.score(X, y) == pytest.approx(mean_jaccard(y, labels, classes=LABELS))
    assert 0.5 < model.score(X, y) < 1
    weights = np.arange(1, 7)
    of_images = np.nanmean(jaccard_indices(y, labels, classes=LABELS), axis=1)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(np.average(of_images, weights=weights))


def test_labels_from_0_to_255_are_of_bytes(data):
    X, y = data
    model = quick_cnn(n_epochs=1).fit(X, np.select([y == 4, y == 300], [120, 240]))
    assert model.predict(X).dtype == np.uint8
    np.testing.assert_array_equal(model.classes_, [0, 120, 240])


def test_scores_and_probabilities_belong_together(cnn, data):
    X, _ = data
    scores, probabilities, Z = cnn.decision_function(X), cnn.predict_proba(X), cnn.transform(X)
    assert scores.shape == probabilities.shape == (6, 32, 40, 3)
    assert scores.dtype == probabilities.dtype == Z.dtype == np.float32
    np.testing.assert_allclose(probabilities, softmax(scores, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(LABELS[scores.argmax(axis=-1)], cnn.predict(X))
    np.testing.assert_array_equal(Z, np.concatenate([scores, scale_image(X)[..., None]], axis=-1))


def test_training_learns_and_is_measured(cnn, data):
    losses = [row["loss"] for row in cnn.history_]
    assert losses[-1] < 0.7 * losses[0]
    assert cnn.history_[-1]["valid_jaccard"] == pytest.approx(cnn.score(*data), abs=1e-3)


def test_unequal_images_with_changes_at_half_size_and_crops(data):
    X, y = ([image[: 32 - 3 * n] for n, image in enumerate(part)] for part in data)
    cnn = quick_cnn(
        n_epochs=2, augmentation="strong", average_mirrored=True, network_scale=(0.5, 1.0), crop=24, loss="dice"
    )
    model = quick(cnn=cnn, augmentation="same").fit(X, y)
    labels = model.predict(X)
    assert [each.shape for each in labels] == [each.shape for each in y]
    assert model.score(X, y) == pytest.approx(mean_jaccard(y, labels, classes=LABELS))
    assert [each.shape for each in model.predict_proba(X)] == [(*each.shape, 3) for each in y]


@pytest.mark.parametrize("training", TRAININGS)
def test_pairs_of_classes_may_have_weights_of_their_own(models, cnn, training, data, tmp_path):
    X, y = data
    model = quick(cnn=FrozenEstimator(cnn), training=training, compatibility="metric", warm_start=True).fit(X, y)
    assert model.coef_.shape == (7,)
    for w, matrix in zip(model.coef_[1:].reshape(2, 3), model.pair_weights_):
        np.testing.assert_array_equal(matrix, [[0, w[0], w[1]], [w[0], 0, w[2]], [w[1], w[2], 0]])
        assert (matrix[:, None] <= matrix[:, :, None] + matrix[None]).all()
    assert len(np.unique(model.coef_)) > 3 or training == "cnn"
    assert 0.5 < model.score(X, y) < 1
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", network=small_unet)
    for copied in (loaded, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied.coef_, model.coef_)
        np.testing.assert_array_equal(copied.predict(X), model.predict(X))
        np.testing.assert_array_equal(copied.optimality_gap(X), model.optimality_gap(X))
    n_before = len(model.history_)
    assert len(model.fit(X, y).history_) == n_before + (training.startswith("joint"))
    model.set_params(compatibility="potts")
    if training != "cnn":
        with pytest.raises(ValueError, match="7 weights: leave pairwise and compatibility, or set warm_start=False"):
            model.fit(X, y)


def test_a_field_of_weights_of_pairs_goes_on_and_is_kept_in_files(cnn, data, tmp_path):
    Z, y = cnn.transform(data[0]), data[1]
    y = np.where(y == 255, -3, y)  # labels of unlabelled pixels would be others under other weights
    model, potts = MaxMarginCRF(compatibility="metric", warm_start=True).fit(Z, y), MaxMarginCRF().fit(Z, y)
    assert model.objective_ - model.dual_gap_ <= potts.objective_ + potts.inference_gap_
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(Z), model.predict(Z))
    objective, n_iter = model.objective_, model.n_iter_
    lower, upper = objective - model.dual_gap_, objective + model.inference_gap_
    model.fit(Z, y)  # moves from other weights find other labelings, which may add to the objective
    assert model.n_iter_ < n_iter
    assert model.objective_ == pytest.approx(objective, rel=2e-2)
    assert model.objective_ - model.dual_gap_ <= upper
    assert lower <= model.objective_ + model.inference_gap_
    with pytest.raises(ValueError, match="7 weights, not 3: leave pairwise and compatibility, or set warm_start=False"):
        model.set_params(compatibility="potts").fit(Z, y)
    model.set_params(compatibility="metric").coef_[1] = model.coef_[2:4].sum() + 1
    with pytest.raises(ValueError, match="coef_ must be weights of a field: the weight of a pair of labels must not"):
        model.save(tmp_path / "other")
    np.testing.assert_array_equal(potts.pair_weights_, potts.coef_[1:, None, None] * (1 - np.eye(3)))


def test_of_two_classes_pairs_have_the_same_weights(data):
    X, y = data[0], (data[1] > 0).astype(int)
    Z = quick_cnn(n_epochs=2).fit_transform(X, y)
    fields = [MaxMarginCRF(compatibility=each).fit(Z, y) for each in ("potts", "metric")]
    np.testing.assert_array_equal(fields[0].coef_, fields[1].coef_)
    np.testing.assert_array_equal(fields[0].predict(Z), fields[1].predict(Z))
    assert fields[1].pair_weights_.shape == (2, 2, 2)
    with pytest.raises(ValueError, match="need 2 weights, but fit learned 3 with other parameters"):
        _ = fields[1].set_params(pairwise="smoothness").pair_weights_


def test_weights_are_by_label(data):
    X, y = data
    balanced, by_dict = quick_cnn(n_epochs=1, class_weight="balanced"), quick_cnn(n_epochs=1, class_weight={300: 7})
    known = y[y != 255]
    expected = [len(known) / 3 / np.count_nonzero(known == label) for label in LABELS]
    np.testing.assert_allclose(balanced.fit(X, y).class_weight_, expected)
    np.testing.assert_array_equal(by_dict.fit(X, y).class_weight_, [1, 1, 7])
    field = MaxMarginCRF(class_weight={300: 7}).fit(by_dict.transform(X), y)
    np.testing.assert_array_equal(field.class_weight_, [1, 1, 7])
    with pytest.raises(ValueError, match="class_weight must have only the labels -3, 4 and 300 as keys, got 2"):
        quick_cnn(class_weight={2: 1.0}).fit(X, y)


def test_images_of_weight_zero_do_not_count(data):
    X, y = data
    weights = [1, 1, 0, 1, 1, 0]
    other = y.copy()
    other[[2, 5]] = 4
    model = quick(training="piecewise", tol=1e-9)
    models = [clone(model).fit(X, labels, sample_weight=weights) for labels in (y, other)]
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-3)
    for one, two in zip(*(model.network_.parameters() for model in models)):
        assert torch.equal(one, two)


@pytest.mark.parametrize("training", TRAININGS)
def test_everything_is_kept_in_files_and_pickles(models, training, data, tmp_path):
    X, y = data
    model = models[training]
    model.save(tmp_path / "model")
    for other in (
        load(tmp_path / "model", network=small_unet),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        np.testing.assert_array_equal(other.classes_, LABELS)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        assert other.score(X, y) == model.score(X, y)
        assert other.inference_gap_ == model.inference_gap_
    with pytest.raises(ValueError, match="the weights do not fit this network"):
        load(tmp_path / "model", network=lambda n_channels: small_unet(n_channels))


def test_a_field_is_kept_in_files(fitted, data, tmp_path):
    Z = inputs(fitted, "field", data[0])
    fitted["field"].save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(Z), fitted["field"].predict(Z))
    np.testing.assert_array_equal(loaded.classes_, LABELS)


def test_a_network_of_ones_own_gives_a_map_for_each_class(data):
    cnn = quick_cnn(n_epochs=1).set_params(network=nn.Conv2d(1, 3, 3, padding=1)).fit(*data)
    assert cnn.predict_proba(data[0]).shape == (6, 32, 40, 3)
    for network in (nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1), lambda n_channels: nn.Conv2d(n_channels, 1, 1)):
        with pytest.raises(ValueError, match="a map of scores .* each of 3 classes, .* must have 3 channels"):
            quick_cnn().set_params(network=network).fit(*data)
    with pytest.raises(ValueError, match="it must give one log-odds map"):
        quick_cnn().set_params(network=nn.Conv2d(1, 3, 1)).fit(data[0], data[1] == 300)


def test_the_number_of_classes_may_change_from_fit_to_fit(data):
    X, y = data
    for make in (lambda: quick_cnn(n_epochs=1), lambda: quick(cnn__n_epochs=1, training="piecewise")):
        model = make().fit(X, y)
        for labels, shape in (((y == 300) & (y != 255), (2,)), (y, (3,))):
            model.fit(X, labels)
            assert model.classes_.shape == shape
            assert model.predict_proba(X).shape == (6, 32, 40, *shape)
            assert everything(model) == everything(make().fit(X, labels))


@pytest.mark.parametrize("name", ["field", *TRAININGS])
def test_gaps_bound_what_is_not_proved(fitted, name, data):
    X = inputs(fitted, name, data[0])
    model = fitted[name]
    gaps = model.optimality_gap(X)
    assert gaps.shape == (6,)
    assert (gaps >= 0).all()
    if name == "cnn":
        assert not gaps.any()
        assert model.inference_gap_ is None
    else:
        assert np.isfinite(model.inference_gap_)
        assert model.inference_gap_ >= 0
        expected = 0.5 * model.coef_ @ model.coef_ + model.slack_.mean()
        assert model.objective_ == pytest.approx(expected)


def test_two_labels_have_no_gap(data):
    X, y = data
    model = quick(training="piecewise", cnn__n_epochs=1).fit(X, y == 4)
    assert model.inference_gap_ == 0
    assert model.optimality_gap(X).tolist() == 6 * [0.0]
    field = MaxMarginCRF().fit(model.cnn_.transform(X), y == 4)
    assert field.inference_gap_ == 0
    assert field.optimality_gap(model.cnn_.transform(X)).tolist() == 6 * [0.0]


def test_all_labelings_of_tiny_images_are_within_the_gaps():
    examples = stripes(0, sizes=((2, 3), (3, 2), (2, 4)), scale=1.0)
    Z = [np.concatenate([e.energy.scores, np.zeros((1, *e.energy.shape))]).transpose(1, 2, 0) for e in examples]
    y = [example.annotation.truth for example in examples]
    model = MaxMarginCRF(C=2.0, pairwise="smoothness", tol=1e-6).fit(Z, y)
    field = model._field(None)
    for example, z in zip(examples, Z):
        example.reprice(field.energy(example.energy.scores, z[..., 3:]))
    gamma = Gamma(examples, C=2.0)
    assert model.objective_ - 1e-9 <= gamma(model.coef_) <= model.objective_ + model.inference_gap_ + 1e-9
    near = model.coef_ + 0.05 * np.random.default_rng(0).normal(size=(300, 2))
    near[:, 1:] = near[:, 1:].clip(0)
    assert min(map(gamma, near)) >= model.objective_ - model.dual_gap_ - 1e-9
    for example, labels, gap in zip(examples, model.predict(Z), model.optimality_gap(Z)):
        energies = [example.energy.psi(labeling) @ model.coef_ for labeling in all_labelings(labels.shape, 3)]
        assert example.energy.psi(labels) @ model.coef_ <= min(energies) + gap + 1e-9


@pytest.mark.parametrize("name", ["field", *TRAININGS])
def test_what_is_for_two_labels_says_so(fitted, name, data):
    with pytest.raises(ValueError, match="predict_confidence is for two labels, and this model has 3: see"):
        fitted[name].predict_confidence(inputs(fitted, name, data[0]))


def test_pos_label_is_for_two_labels(data):
    for model in (quick_cnn(pos_label=4), quick(cnn__pos_label=4)):
        with pytest.raises(ValueError, match="pos_label is for two labels: leave it out for several classes"):
            model.fit(*data)


def test_scores_and_image_are_counted_in_z(data):
    Z = np.zeros((6, 32, 40, 3))
    with pytest.raises(
        ValueError, match="scores of the 3 classes in the first channels and the image .* got 3 channels"
    ):
        MaxMarginCRF().fit(Z, data[1])


def test_other_labels_than_those_of_fit_are_told(models, data):
    X, y = data
    with pytest.raises(ValueError, match=r"y\[0\] must hold the labels -3, 4, 300 and 255 only, found \[0\]"):
        models["cnn"].score(X, 0 * y)
    with pytest.raises(ValueError, match=r"validation_data\[1\]\[0\] must hold the labels -3, 4, 300 and 255 only"):
        quick().fit(X, y, validation_data=(X, 0 * y))


def test_classes_are_those_of_all_images_also_where_folds_or_training_images_lack_one(data):
    X, y = data
    y = np.where((y == 300) & (np.arange(6) > 0)[:, None, None], -3, y)
    for parameters in ({"cv": KFold(3)}, {"cv": KFold(3), "ensemble": True}, {"validation_fraction": 0.5}):
        model = quick(cnn__n_epochs=1, **parameters).fit(X, y)
        np.testing.assert_array_equal(model.classes_, LABELS)
        assert model.predict_proba(X).shape == (6, 32, 40, 3)
        assert np.isfinite(model.inference_gap_)
    alone = quick_cnn(n_epochs=1, validation_fraction=0.7).fit(X, y)
    assert alone.predict_proba(X).shape == (6, 32, 40, 3)


def test_ensembles_give_mean_scores_and_are_kept_in_files(data, tmp_path):
    X, y = data
    model = quick(cnn__n_epochs=1, cv=2, ensemble=True, training="cnn").fit(X, y)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model", network=small_unet).predict(X), model.predict(X))
    with torch.no_grad():
        images = torch.from_numpy(X / np.float32(255))[:, None]
        mean = sum(network(images) for network in model.network_.networks) / 2
    np.testing.assert_allclose(model.decision_function(X), mean.movedim(1, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", [FrozenEstimator, lambda cnn: FrozenEstimator(load_of(cnn))])
def test_a_trained_network_says_which_classes_there_are(cnn, data, wrap):
    X, y = data
    few = np.where(y == 300, -3, y)
    model = DeepStructuredSegmenter(wrap(cnn), training="piecewise").fit(X, few)
    np.testing.assert_array_equal(model.classes_, LABELS)
    with pytest.raises(ValueError, match="must hold the labels -3, 4, 300 and 255 only"):
        model.fit(X, y + 1)


def load_of(cnn):
    return pickle.loads(pickle.dumps(cnn))


def test_a_warm_start_goes_on(data):
    X, y = data
    model = quick(warm_start=True, cnn__n_epochs=2).fit(X, y)
    first = model.coef_
    model.fit(X, np.where(y == 300, -3, y))
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1, 2]
    np.testing.assert_array_equal(model.classes_, LABELS)
    assert not np.array_equal(model.coef_, first)
    with pytest.raises(ValueError, match="must hold the labels -3, 4, 300 and 255 only"):
        model.fit(X, y + 1)


def test_a_fit_goes_on_from_its_checkpoint(data, tmp_path, monkeypatch):
    X, y = data
    kept = {"cnn__n_epochs": 2, "n_epochs": 2, "cnn__network_scale": 0.5}
    whole = quick(**kept).fit(X, y)
    measured = joints.JaccardOfField.on_epoch_end

    def killed(self, net, **kwargs):
        if len(net.history) == 2:
            raise ZeroDivisionError
        measured(self, net, **kwargs)

    monkeypatch.setattr(joints.JaccardOfField, "on_epoch_end", killed)
    with pytest.raises(ZeroDivisionError):
        quick(checkpoint=tmp_path, **kept).fit(X, y)
    monkeypatch.undo()
    assert everything(quick(checkpoint=tmp_path, **kept).fit(X, y)) == everything(whole)


def test_a_memory_tells_labels_of_the_same_masks_apart(data, tmp_path):
    X, y = data
    trained = quick(training="cnn", memory=str(tmp_path), cnn__n_epochs=1)
    for labels in (y, y, np.where(y == 300, 301, y)):
        model = clone(trained).fit(X, labels)
        assert set(model.classes_) == set(np.unique(labels)) - {255}


def test_searches_compare_candidates(data):
    X, y = data
    search = GridSearchCV(quick(cnn__n_epochs=2), {"C": [0.1, 1.0], "training": ["cnn", "piecewise"]}, cv=2)
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    np.testing.assert_array_equal(search.classes_, LABELS)
    pipeline = make_pipeline(quick_cnn(n_epochs=2), MaxMarginCRF())
    assert 0 < pipeline.fit(X, y).score(X, y) < 1


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_threads_change_nothing(models, data, n_jobs):
    assert everything(quick(n_jobs=n_jobs).fit(*data, validation_data=data)) == everything(models["joint"])


def test_an_interrupt_leaves_what_was_learned(data, monkeypatch):
    def interrupted(*args, **kwargs):
        raise Interrupted

    monkeypatch.setattr(DeepStructuredSegmenter, "_train_jointly", interrupted)
    with pytest.warns(UserWarning, match="interrupted"):
        model = quick(cnn__n_epochs=1).fit(*data)
    assert np.isnan(model.inference_gap_)
    assert set(np.unique(model.predict(data[0]))) <= set(LABELS)


def test_settings_are_found(data, capsys, monkeypatch):
    monkeypatch.setattr("skmmcrf.estimators.scale_search.N_STEPS", (2, 3))
    with pytest.warns(UserWarning, match="the number of images with labelled pixels is 6"):
        model = configure(*data, network=small_unet, random_state=0)
    assert "the rarest class in y has" in capsys.readouterr().out
    model.set_params(cnn__n_epochs=1, training="cnn").fit(*data)
    np.testing.assert_array_equal(model.classes_, LABELS)


def test_datasets_of_pairs_are_read(data):
    class Pairs:
        def __len__(self):
            return 6

        def __getitem__(self, n):
            return data[0][n], data[1][n]

    one, other = quick(cnn__n_epochs=1).fit(Pairs()), quick(cnn__n_epochs=1).fit(*data)
    assert everything(one) == everything(other)
    assert one.score(Pairs()) == other.score(*data)


def test_the_labels_are_those_of_fit_until_the_next_one(data):
    X, y = data
    cnn = quick_cnn(n_epochs=1, pos_label=9).fit(X, 9 * (y == 4))
    cnn.set_params(pos_label=1)
    np.testing.assert_array_equal(cnn.classes_, [0, 9])
    assert set(np.unique(cnn.predict(X))) <= {0, 9}
    assert np.isfinite(cnn.score(X, 9 * (y == 4)))
    np.testing.assert_array_equal(cnn.fit(X, y == 4).classes_, [0, 1])


def test_images_of_the_first_class_alone_can_be_validated_on(data):
    X, y = data
    cnn = quick_cnn(n_epochs=2, early_stopping=True).fit(X, y, validation_data=(X[:2], np.full_like(y[:2], -3)))
    assert all(0 <= row["valid_jaccard"] <= 1 for row in cnn.history_)
    with pytest.raises(ValueError, match="no validation image has foreground"):
        quick_cnn(early_stopping=True).fit(X, y == 4, validation_data=(X[:2], np.zeros_like(y[:2])))


def test_no_bound_is_called_proved_while_the_field_is_learned(fitted, data, capsys):
    MaxMarginCRF(verbose=1).fit(inputs(fitted, "field", data[0]), data[1])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  pass ")]
    assert lines
    assert all("and about " in line and "gap about " in line for line in lines)


def test_named_classes_may_be_missing_in_training_images_and_occur_in_others(data, tmp_path):
    X, y = data
    without = np.where(y == 300, 4, y)
    model = quick(cnn__classes=LABELS.tolist(), cnn__n_epochs=2).fit(X, without, validation_data=(X, y))
    np.testing.assert_array_equal(model.classes_, LABELS)
    assert model.decision_function(X).shape == (*y.shape, 3)
    assert 0 < model.score(X, y) < model.score(X, without)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", network=small_unet)
    assert loaded.cnn_.classes == LABELS.tolist()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    field = MaxMarginCRF(classes=LABELS.tolist()).fit(model.cnn_.transform(X), without)
    assert 0 < field.score(model.cnn_.transform(X), y) < 1


def test_a_search_whose_parts_lack_a_class_has_scores_if_classes_are_named(data):
    X, y = data
    y = np.array(y)
    y[2:][y[2:] == 300] = 4
    search = GridSearchCV(quick_cnn(n_epochs=1), {"classes": [None, LABELS.tolist()]}, cv=KFold(2), refit=False)
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite|Scoring failed"):
        search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [False, True]


def test_zero_can_mean_unlabelled_if_classes_are_named(data):
    X, numbers = data[0], np.searchsorted(LABELS, data[1]).clip(0, 2) + 1
    numbers[:, :3] = 0
    model = quick_cnn(classes=[1, 2, 3], ignore_label=0, n_epochs=1).fit(X, numbers)
    assert set(np.unique(model.predict(X))) <= {1, 2, 3}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"classes": [0, 1]},
            "classes must be 3 to 255 integers in ascending order, such as range.5., .* got .0, 1.",
        ),
        ({"classes": [2, 1, 0]}, "classes must be 3 to 255 integers in ascending order"),
        ({"classes": [0.5, 1, 2]}, "classes must be 3 to 255 integers in ascending order"),
        ({"classes": 3}, "classes"),
        ({"classes": [0, 1, 2**31]}, "of at most 2147483647 in size, got .0, 1, 2147483648."),
        ({"classes": [0, 1, 2]}, "y.0. must hold the labels 0, 1, 2 and 255 only, found .-3, 4, 300."),
        ({"classes": LABELS, "pos_label": 2}, "pos_label is for two labels"),
        ({"classes": [-3, 4, 255, 300], "ignore_label": 255}, "ignore_label must not be one of the classes"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_training(data, parameters, message):
    cnn = quick_cnn(**parameters)
    with pytest.raises(ValueError, match=message):
        cnn.fit(*data)
    assert not hasattr(cnn, "network_")


def test_a_warm_start_refuses_other_classes(data):
    model = quick(cnn__n_epochs=1, warm_start=True).fit(*data)
    with pytest.raises(ValueError, match="cnn__classes: warm_start goes on"):
        model.set_params(cnn__classes=[-3, 4, 5, 300]).fit(*data)


def test_a_range_of_classes_is_kept_in_a_file_and_by_a_warm_start(data, tmp_path):
    X, numbers = data[0], np.searchsorted(LABELS, data[1]).clip(0, 2)
    quick(cnn__classes=range(4), cnn__n_epochs=1, warm_start=True).fit(X, numbers).save(tmp_path / "model")
    loaded = load(tmp_path / "model", network=small_unet)
    assert loaded.cnn_.classes == [0, 1, 2, 3]
    loaded.set_params(cnn__classes=range(4), warm_start=True).fit(X, numbers)
    np.testing.assert_array_equal(loaded.classes_, range(4))


def test_what_configure_takes_fit_takes(phantoms, monkeypatch):
    monkeypatch.setattr("skmmcrf.estimators.scale_search.N_STEPS", (2, 3))
    X, numbers = phantoms
    scribbles = np.full(numbers.shape, 255)
    for label in range(10):
        scribbles[:, 3 * label, 3:10] = label
    with pytest.warns(UserWarning, match="the number of images with labelled pixels is 6"):
        model = configure(X, scribbles, network=small_unet, ignore_label=255, random_state=0, verbose=0)
    model.set_params(cnn__n_epochs=1, training="cnn").fit(X, scribbles)
    np.testing.assert_array_equal(model.classes_, range(10))


def test_labels_and_network_of_a_fit_stay_whatever_parameters_are_changed(data, fitted):
    X, y = data
    binary = quick_cnn(n_epochs=1).fit(X, y == 4)
    expected = binary.predict(X)
    np.testing.assert_array_equal(binary.set_params(classes=LABELS.tolist()).predict(X), expected)
    several = copy.deepcopy(fitted["cnn"])
    expected = several.predict(X)
    np.testing.assert_array_equal(several.set_params(cnn__pos_label=2).predict(X), expected)


@pytest.mark.parametrize("change", [{"pairwise": "smoothness"}, {"compatibility": "metric"}])
def test_a_field_of_other_parameters_than_those_of_fit_is_told(data, fitted, change):
    model = copy.deepcopy(fitted["piecewise"]).set_params(**change)
    with pytest.raises(ValueError, match="^pairwise=.* but fit learned 3 with other parameters: set them back"):
        model.predict(data[0])
    with pytest.raises(ValueError, match="set them back, or fit again"):
        model.energy(data[0][0])


def test_a_warm_start_of_a_network_alone_refuses_other_class_weights(data):
    model = quick(training="cnn", cnn__n_epochs=1, warm_start=True).fit(*data)
    with pytest.raises(ValueError, match="cnn__class_weight: warm_start goes on"):
        model.set_params(cnn__class_weight={4: 5.0}).fit(*data)
    model.set_params(training="joint").fit(*data)
    assert model.cnn_.class_weight_.tolist() == [1.0, 5.0, 1.0]


@pytest.mark.parametrize("parameters", [{"classes": LABELS.tolist()}, {"ignore_label": 255}])
def test_masks_without_any_labelled_pixel_are_refused(data, parameters):
    with pytest.raises(ValueError, match="^y has no labelled pixel: all are 255, which means unlabelled"):
        quick_cnn(**parameters).fit(data[0], np.full_like(data[1], 255))
