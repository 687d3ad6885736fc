import copy

import numpy as np
import pytest
import torch
from nets import PLAIN
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.estimators.folds import Fold, parts_of_folds, read_folds
from skmmcrf.field import Annotation
from skmmcrf.images.checking import check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.learning.example import violation
from skmmcrf.networks import UNet
from skmmcrf.networks.ensemble import MeanOfNetworks
from skmmcrf.training.interrupts import Interrupted

CV = KFold(3)


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def quick(**parameters):
    cnn = CNNSegmenter(small_unet, **PLAIN, n_epochs=3, learning_rate=1e-2, batch_size=3, device="cpu")
    model = DeepStructuredSegmenter(cnn, training="piecewise", cv=CV, n_epochs=2, batch_size=3, random_state=0)
    return model.set_params(**parameters)


@pytest.fixture(scope="module")
def of_folds(phantoms):
    """The networks of the folds, each trained by itself."""
    X, y = phantoms
    return [clone(quick().cnn).set_params(random_state=0).fit(X[kept], y[kept]) for kept, _ in CV.split(X)]


@pytest.fixture
def trainings(monkeypatch):
    """How many images each network was trained on."""
    trained = []
    train = CNNSegmenter.train
    monkeypatch.setattr(
        CNNSegmenter, "train", lambda self, data, *args: trained.append(len(data)) or train(self, data, *args)
    )
    return trained


def pairs(*folds):
    return [tuple(np.array(numbers, dtype=int) for numbers in fold) for fold in folds]


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "between 2 and the number of images, 4, got 1"),
        (5, "between 2 and the number of images, 4, got 5"),
        ([], "leave out each of the 4 images once, in one of its 0 folds"),
        (pairs(([0, 1], [2, 3])), "leave out each of the 4 images once"),
        (pairs(([0, 1], [2, 3]), ([2, 3], [0, 1, 1])), "leave out each of the 4 images once"),
        (pairs(([0, 1], [2, 3]), ([1, 2, 3], [0, 1])), "fold 2 of 2 must train on some images, and on none"),
        (pairs(([], [0, 1, 2, 3])), "fold 1 of 1 must train on some images"),
        (pairs(([0, 1], [2, 4]), ([2, 3], [0, 1])), "gave the error: index 4 is out of bounds"),
        ([3, 4], "pairs of the numbers of images"),
        (GroupKFold(2), r"give list\(GroupKFold\(...\).split\(X, groups=...\)\), with one entry of groups an image"),
        (StratifiedKFold(2), r"give list\(StratifiedKFold\(...\).split\(X, y=...\)\), with one entry of y an image"),
    ],
)
def test_folds_that_are_none_are_refused(cv, message):
    with pytest.raises(ValueError, match=f"^cv.*{message}"):
        read_folds(cv, 4, random_state=0)


def test_a_number_of_folds_is_drawn_by_the_seed():
    left_out = [[fold.left_out.tolist() for fold in read_folds(2, 6, random_state=seed)] for seed in (0, 0, 1)]
    assert left_out[0] == left_out[1] != left_out[2]


def test_masks_of_numbers_are_folds_too():
    mask = np.array([True, False, True])
    (first, second) = read_folds([(mask, ~mask), (~mask, mask)], 3, random_state=0)
    assert first.kept.tolist() == [0, 2] == second.left_out.tolist()


def test_weights_of_a_fold_have_a_mean_of_one(phantoms):
    data = check_labelled_images(*phantoms, LabelScheme(1, "auto")).weighted(np.arange(len(phantoms[0]), dtype=float))
    part = Fold(np.array([1, 3]), np.array([0])).images_of(data)
    assert [annotation.weight for annotation in part.annotations] == [0.5, 1.5]
    with pytest.raises(ValueError, match="sample_weight is 0 for all images that are left"):
        Fold(np.array([0]), np.array([1])).images_of(data)


def test_the_field_is_learned_on_images_that_the_networks_have_not_seen(phantoms, of_folds):
    X, y = phantoms
    unseen = np.concatenate([cnn.transform(X[left_out]) for cnn, (_, left_out) in zip(of_folds, CV.split(X))])
    field = MaxMarginCRF().fit(unseen, y)
    model = quick().fit(X, y)
    np.testing.assert_allclose(model.coef_, field.coef_)
    assert model.objective_ == pytest.approx(field.objective_)
    assert len(model.slack_) == len(X)


def test_one_network_predicts_that_saw_all_images(phantoms):
    model, alone = quick().fit(*phantoms), clone(quick().cnn).set_params(random_state=0).fit(*phantoms)
    np.testing.assert_array_equal(model.decision_function(phantoms[0]), alone.decision_function(phantoms[0]))


@pytest.mark.parametrize("training", ["cnn", "piecewise"])
def test_an_ensemble_gives_the_mean_log_odds_of_the_folds(phantoms, of_folds, training, trainings):
    model = quick(training=training, ensemble=True).fit(*phantoms)
    mean = np.mean([cnn.decision_function(phantoms[0]) for cnn in of_folds], axis=0)
    np.testing.assert_allclose(model.decision_function(phantoms[0]), mean, atol=1e-5)
    assert model.cnn_.n_networks_ == 3
    assert trainings == [4, 4, 4]
    assert [row["epoch"] for row in model.history_] == [1, 2, 3]
    losses = [cnn.history_[1]["loss"] for cnn in of_folds]
    assert model.history_[1]["loss"] == pytest.approx(np.mean(losses))


def test_a_network_alone_needs_no_folds(phantoms, trainings):
    assert quick(training="cnn").fit(*phantoms).objective_ is None
    assert trainings == [6]


@pytest.mark.parametrize("ensemble", [False, True])
def test_joint_training_keeps_the_weights_of_the_field_and_lowers_gamma(phantoms, ensemble):
    piecewise, joint = (quick(training=way, ensemble=ensemble).fit(*phantoms) for way in ("piecewise", "joint"))
    np.testing.assert_array_equal(joint.coef_, piecewise.coef_)
    assert joint.objective_ == piecewise.objective_
    np.testing.assert_array_equal(joint.slack_, piecewise.slack_)
    gammas = [row["gamma"] for row in joint.history_ if row["stage"] == "joint"]
    assert gammas[2] < gammas[1] < gammas[0] != joint.objective_


def test_gamma_of_joint_training_is_that_of_the_network_on_its_training_images(phantoms):
    X, y = phantoms
    joint = quick(training="joint").fit(X, y)
    slack = [violation(joint.coef_, joint.energy(image), Annotation(truth == 1))[0] for image, truth in zip(X, y)]
    gamma = 0.5 * joint.coef_ @ joint.coef_ + np.mean(slack)
    assert joint.history_[-1]["gamma"] == pytest.approx(gamma)
    assert joint.history_[-1]["jaccard"] == pytest.approx(joint.score(X, y))


def test_every_network_of_an_ensemble_is_trained_jointly(phantoms):
    piecewise, joint = (quick(training=way, ensemble=True).fit(*phantoms) for way in ("piecewise", "joint"))
    assert isinstance(joint.network_, MeanOfNetworks)
    for before, after in zip(piecewise.network_.networks, joint.network_.networks, strict=True):
        assert any((a != b).any() for a, b in zip(before.parameters(), after.parameters()))


@pytest.mark.parametrize("ensemble", [False, True])
def test_networks_are_taken_from_the_memory(phantoms, tmp_path, trainings, ensemble):
    first = quick(ensemble=ensemble, memory=str(tmp_path)).fit(*phantoms)
    n_trained = len(trainings)
    second = quick(ensemble=ensemble, memory=str(tmp_path), training="joint").fit(*phantoms)
    assert len(trainings) == n_trained
    np.testing.assert_array_equal(second.coef_, first.coef_)


def test_a_fit_that_is_started_again_goes_on_in_the_fold_where_it_ended(phantoms, tmp_path, monkeypatch):
    whole = quick(training="joint", checkpoint=tmp_path / "whole").fit(*phantoms)
    train, begun = CNNSegmenter.train, []

    def failing(self, data, *args):
        begun.append(len(data))
        if len(begun) == 3:
            raise RuntimeError("the machine goes down")
        return train(self, data, *args)

    monkeypatch.setattr(CNNSegmenter, "train", failing)
    model = quick(training="joint", checkpoint=tmp_path / "parts")
    with pytest.raises(RuntimeError, match="goes down"):
        model.fit(*phantoms)
    monkeypatch.setattr(CNNSegmenter, "train", train)
    seen = []
    monkeypatch.setattr("skmmcrf.training.net.SegmentationNet.train_step_single", _counting(seen))
    again = model.fit(*phantoms)
    assert len(seen) == 2 * 3 + 2 * 2  # steps of three epochs of two folds, and of two joint epochs
    np.testing.assert_array_equal(again.coef_, whole.coef_)
    np.testing.assert_array_equal(again.decision_function(phantoms[0]), whole.decision_function(phantoms[0]))


def _counting(seen):
    from skmmcrf.training.net import SegmentationNet

    step = SegmentationNet.train_step_single
    return lambda self, *args, **kwargs: seen.append(1) or step(self, *args, **kwargs)


@pytest.mark.parametrize("n_trained", [1, 2])
def test_an_interrupted_ensemble_keeps_the_networks_that_are_trained(phantoms, monkeypatch, tmp_path, n_trained):
    train, begun = CNNSegmenter.train, []

    def interrupted(self, data, *args):
        begun.append(len(data))
        if len(begun) > n_trained:
            raise Interrupted
        return train(self, data, *args)

    monkeypatch.setattr(CNNSegmenter, "train", interrupted)
    model = quick(ensemble=True, cv=3)
    with pytest.warns(UserWarning, match="fit was interrupted"):
        model.fit(*phantoms)
    assert model.cnn_.n_networks_ == n_trained
    assert model.objective_ is None
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", network=small_unet)
    np.testing.assert_array_equal(loaded.decision_function(phantoms[0]), model.decision_function(phantoms[0]))


@pytest.mark.parametrize("training", ["piecewise", "joint"])
def test_an_ensemble_is_the_same_after_saving(phantoms, tmp_path, training):
    model = quick(training=training, ensemble=True, cv=3, cnn__network="unet", cnn__n_epochs=1, n_epochs=1)
    model.fit(*phantoms).save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.decision_function(phantoms[0]), model.decision_function(phantoms[0]))
    assert loaded.cnn_.n_networks_ == 3
    assert loaded.get_params()["cv"] == 3


def as_module(width=8):
    return UNet(1, width=width, depth=2)


@pytest.mark.parametrize("network", [small_unet, as_module()])
@pytest.mark.parametrize("whole", [True, False])
def test_an_ensemble_of_an_own_network_is_the_same_after_saving(phantoms, tmp_path, network, whole):
    model = quick(ensemble=True, cv=3, cnn__network=network, cnn__n_epochs=1).fit(*phantoms)
    saved = model if whole else model.cnn_
    saved.save(tmp_path / "model")
    loaded = load(tmp_path / "model", network=small_unet)
    np.testing.assert_array_equal(loaded.predict_proba(phantoms[0]), saved.predict_proba(phantoms[0]))
    np.testing.assert_array_equal(loaded.predict(phantoms[0]), saved.predict(phantoms[0]))
    assert len(loaded.network_) == 3


@pytest.mark.parametrize("n_networks", [2, 10**9])
def test_a_file_whose_number_of_networks_does_not_fit_is_refused(phantoms, tmp_path, n_networks):
    model = quick(ensemble=True).fit(*phantoms)
    model.cnn_.n_networks_ = n_networks
    with pytest.raises(ValueError, match=f"arrays, which are not those of {n_networks} networks"):
        model.save(tmp_path / "model")


def test_a_warm_start_keeps_the_weights_and_trains_no_folds(phantoms, trainings):
    model = quick(training="joint", warm_start=True).fit(*phantoms)
    n_trained, coef = len(trainings), model.coef_
    model.fit(*phantoms)
    assert len(trainings) == n_trained
    np.testing.assert_array_equal(model.coef_, coef)
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("training", ["piecewise", "joint"])
def test_a_warm_start_holds_the_field_on_other_images(phantoms, training):
    X, y = phantoms
    model = quick(training=training, warm_start=True, cv=list(CV.split(X))).fit(X, y)
    before, network = (model.sigma_, model.n_iter_, model.coef_.tolist()), copy.deepcopy(model.cnn_)
    X, y = X[:2] // 2, y[:2]
    model.fit(X, y)
    assert (model.sigma_, model.n_iter_, model.coef_.tolist()) == before
    field = model._field(model.sigma_)
    energies = [field.energy(l, image[..., None]) for l, image in zip(network.decision_function(X), X)]
    slack = [violation(model.coef_, energy, Annotation(truth == 1))[0] for energy, truth in zip(energies, y)]
    np.testing.assert_allclose(model.slack_, slack)
    assert model.objective_ == pytest.approx(0.5 * model.coef_ @ model.coef_ + np.mean(slack))
    assert model.dual_gap_ == np.inf


@pytest.mark.parametrize(
    ("name", "value", "before"),
    [
        ("sigma", 0.5, "'auto'"),
        ("C", 5.0, "1.0"),
        ("tol", 0.1, "0.001"),
        ("max_iter", 50, "100"),
        ("connectivity", 4, "8"),
        ("cv", 2, "KFold"),
        ("ensemble", True, "False"),
        ("cnn__learning_rate", 0.5, "0.01"),
    ],
)
def test_a_warm_start_with_other_parameters_of_what_it_holds_is_refused(phantoms, name, value, before):
    model = quick(warm_start=True).fit(*phantoms)
    with pytest.raises(ValueError, match=f"^{name}: .* from {before}.* to {value}.* set it back, or set warm"):
        clone_of(model).set_params(**{name: value}).fit(*phantoms)
    clone_of(model).set_params(**{name: value}, warm_start=False).fit(*phantoms)


def clone_of(model):
    """The same fitted model, whose parameters can be set without changing it."""
    return copy.copy(model).set_params(cnn=clone(model.cnn))


def test_a_warm_start_after_loading_knows_the_parameters_that_are_saved(phantoms, tmp_path):
    quick(warm_start=True, cv=list(CV.split(phantoms[0]))).fit(*phantoms).save(tmp_path / "model")
    model = load(tmp_path / "model", network=small_unet)
    coef = model.coef_.copy()
    np.testing.assert_array_equal(model.set_params(C=1).fit(*phantoms).coef_, coef)
    with pytest.raises(ValueError, match="^C: warm_start"):
        model.set_params(C=5.0).fit(*phantoms)


def test_folds_can_not_come_after_weights_of_a_warm_start_are_learned(phantoms):
    model = quick(warm_start=True, cv=None).fit(*phantoms)
    with pytest.raises(ValueError, match="^cv: .* a change from None to 3 would have no effect"):
        model.set_params(cv=3).fit(*phantoms)


def test_a_warm_start_of_a_network_alone_is_refused(phantoms):
    model = quick(training="cnn", warm_start=True).fit(*phantoms)
    with pytest.raises(ValueError, match="the last fit learned none"):
        model.set_params(training="joint").fit(*phantoms)


def test_other_images_of_a_patient_are_no_unseen_images(phantoms, trainings):
    X, y = phantoms
    groups = [0, 0, 0, 1, 1, 2]
    quick(cv=list(GroupKFold(3).split(X, groups=groups))).fit(X, y)
    assert sorted(trainings) == [3, 4, 5, 6]


def test_search_tries_it(phantoms):
    search = GridSearchCV(quick(), {"cv": [None, 2], "ensemble": [False]}, cv=2, refit=False).fit(*phantoms)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cv": None, "ensemble": True}, "ensemble needs the networks of folds"),
        ({"training": "joint_by_batch"}, "leave cv out"),
        ({"cv": 7}, "between 2 and the number of images, 6"),
        ({"cv": "4"}, "cv must be a number of folds"),
        ({"cv": iter([([0], [1])])}, r"a list of pairs .* can be read once only: give list\(\) of it"),
        ({"cv": 2, "cnn__network": "alexnet"}, "^network must be"),
    ],
)
@pytest.mark.parametrize("ensemble", [False, True])
def test_bad_parameters_are_refused_before_training(phantoms, trainings, parameters, message, ensemble):
    with pytest.raises((ValueError, TypeError), match=message):
        quick(**{"ensemble": ensemble} | parameters).fit(*phantoms)
    assert trainings == []


class OfOnePixel(torch.nn.Sequential):
    """A network that normalises where one pixel is left of an image."""

    def __init__(self):
        super().__init__(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))

    def forward(self, images):
        return super().forward(images) + 0 * images


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cnn__validation_fraction": 0.4}, "validation_fraction leaves no image to train on"),
        ({"cnn__network": OfOnePixel()}, "network: its batch normalisation can't train on an image"),
        ({"cnn__early_stopping": True, "cnn__validation_fraction": 0.2}, "early_stopping .* no validation image has"),
    ],
)
@pytest.mark.parametrize("ensemble", [False, True])
def test_folds_that_a_network_cant_be_trained_on_are_told_before_any_training(
    phantoms, trainings, parameters, message, ensemble
):
    X, y = phantoms
    cv = pairs(([1, 2, 3, 4, 5], [0]), ([0], [1, 2, 3, 4, 5]))
    if "cnn__early_stopping" in parameters:
        cv, y = list(KFold(2).split(X))[::-1], np.where(np.arange(6)[:, None, None] < 3, y, 0)
    model = quick(cv=cv, ensemble=ensemble, **parameters)
    with pytest.raises(ValueError, match=f"^cv: fold 2 of 2: {message}"):
        model.fit(X, y)
    assert trainings == []
    assert not hasattr(model, "cnn_")


def test_a_trial_of_the_folds_draws_nothing(phantoms):
    states = [np.random.RandomState(0) for _ in range(2)]
    data = check_labelled_images(*phantoms, LabelScheme(1, "auto"))
    parts_of_folds(read_folds(CV, 6, None), clone(quick().cnn).set_params(random_state=states[0]), data, None)
    assert states[0].randint(10**9) == states[1].randint(10**9)


def test_the_index_of_an_epoch_is_the_mean_over_folds_where_it_is_defined(phantoms):
    X, y = phantoms
    y = np.where(np.arange(6)[:, None, None] < 3, y, 0)
    nowhere = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.constant_(nowhere.bias, -9.0)
    model = quick(training="cnn", ensemble=True, cv=KFold(2), cnn__network=nowhere, cnn__n_epochs=1).fit(X, y)
    assert model.history_[0]["jaccard"] == 0.0


def test_a_checkpoint_is_of_the_folds_that_are_drawn(phantoms, tmp_path):
    cv = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
    drawn = [quick(training="joint", ensemble=True, cv=list(copy.deepcopy(cv).split(range(6))))]
    drawn += [quick(training="joint", ensemble=True, cv=cv, checkpoint=tmp_path) for _ in range(2)]
    first, same, other = (model.fit(*phantoms).decision_function(phantoms[0]) for model in drawn)
    np.testing.assert_array_equal(first, same)
    assert (other != same).any()
    again = drawn[0].set_params(checkpoint=tmp_path)
    n_folders = len(list(tmp_path.iterdir()))
    np.testing.assert_array_equal(again.fit(*phantoms).decision_function(phantoms[0]), first)
    assert len(list(tmp_path.iterdir())) == n_folders


def test_a_checkpoint_of_the_network_keeps_those_of_the_folds(phantoms, tmp_path):
    quick(cnn__checkpoint=tmp_path).fit(*phantoms)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_frozen_network_is_refused(phantoms, of_folds):
    with pytest.raises(ValueError, match="cnn is frozen"):
        DeepStructuredSegmenter(FrozenEstimator(of_folds[0]), cv=2).fit(*phantoms)


def test_images_without_weight_in_a_fold_are_refused_before_training(phantoms, trainings):
    with pytest.raises(ValueError, match="^cv: fold 1 of 2: sample_weight is 0 for all images that are left"):
        quick(cv=2, random_state=0).fit(*phantoms, sample_weight=[0, 0, 0, 0, 0, 1])
    assert trainings == []


def test_validation_images_of_the_network_are_held_out_of_each_fold(phantoms, trainings):
    quick(cnn__validation_fraction=0.5).fit(*phantoms)
    assert trainings == [3, 2, 2, 2]


def test_images_that_are_read_when_needed_give_the_same(phantoms, of_folds):
    X, y = phantoms
    lazy = quick().fit(torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y)))
    np.testing.assert_allclose(lazy.coef_, quick().fit(X, y).coef_)
