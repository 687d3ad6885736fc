import copy
import weakref

import numpy as np
import pytest
import torch
import torchvision
from nets import PLAIN
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, MaxMarginLoss
from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn as cnns
from skmmcrf.metrics import mean_jaccard
from skmmcrf.networks import UNet

TRAININGS = ["cnn", "piecewise", "joint", "joint_by_batch"]


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def quick(**parameters):
    cnn = CNNSegmenter(small_unet, **PLAIN, n_epochs=6, learning_rate=1e-2, batch_size=3, device="cpu")
    joint = {"n_epochs": 2, "learning_rate": 1e-4, "batch_size": 3}
    return DeepStructuredSegmenter(cnn, **joint, random_state=0).set_params(**parameters)


def quicker(**parameters):
    return quick(**{"cnn__n_epochs": 1, "n_epochs": 1} | parameters)


@pytest.fixture(scope="module")
def unequal(phantoms):
    X, y = phantoms
    crops = [np.s_[:], np.s_[2:], np.s_[:, 3:], np.s_[1:, :-5], np.s_[:], np.s_[:-4]]
    return [x[c] for x, c in zip(X, crops)], [t[c] for t, c in zip(y, crops)]


@pytest.fixture(scope="module")
def joint(phantoms):
    return quick().fit(*phantoms, validation_data=phantoms)


@pytest.fixture(scope="module")
def piecewise(phantoms):
    return quick(training="piecewise").fit(*phantoms)


@pytest.fixture(scope="module")
def pretrained(phantoms):
    """The network alone, as `quick` pretrains it."""
    return clone(quick().cnn).set_params(random_state=0).fit(*phantoms)


@pytest.fixture
def trainings(monkeypatch):
    """The networks that were really pretrained."""
    trained = []
    train = CNNSegmenter.train
    monkeypatch.setattr(CNNSegmenter, "train", lambda self, *args: trained.append(self) or train(self, *args))
    return trained


def same_weights(one, other):
    one, other = one.network_.state_dict(), other.network_.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


def same_models(one, other):
    return same_weights(one, other) and np.array_equal(one.coef_, other.coef_)


def epochs(model, stage):
    return [row["epoch"] for row in model.history_ if row["stage"] == stage]


# what is learned


def test_joint_training_keeps_the_contract(joint, phantoms):
    X, y = phantoms
    assert joint.predict(X).shape == joint.decision_function(X).shape == X.shape
    assert joint.predict_proba(X).shape == (*X.shape, 2)
    assert joint.score(X, y) > 0.6
    assert joint.coef_.shape == (3,)
    assert (joint.coef_[1:] >= 0).all()
    assert joint.objective_ == pytest.approx(0.5 * joint.coef_ @ joint.coef_ + joint.slack_.mean())
    assert 0 <= joint.dual_gap_ <= 1e-3 * joint.objective_
    assert joint.network_ is joint.cnn_.network_
    assert joint.sigma_ > 0
    assert joint.n_iter_ >= 1
    assert joint.n_channels_in_ == 1
    np.testing.assert_array_equal(joint.classes_, [0, 1])


def test_history_tells_both_stages(joint, piecewise, phantoms):
    assert (epochs(joint, "cnn"), epochs(joint, "joint")) == ([1, 2, 3, 4, 5, 6], [0, 1, 2])
    assert all({"jaccard", "valid_jaccard", "seconds"} <= set(row) for row in joint.history_)
    first, *_, last = (row for row in joint.history_ if row["stage"] == "joint")
    assert first["gamma"] == piecewise.objective_
    assert first["jaccard"] == piecewise.score(*phantoms)
    assert last["gamma"] < first["gamma"]
    assert joint.cnn_.history_ == joint.history_[:6]


@pytest.mark.parametrize("training", TRAININGS[1:])
def test_the_field_is_that_of_the_network_that_predicts(phantoms, training):
    X, y = phantoms
    model = quick(training=training).fit(X, y)
    Z = np.stack([model.decision_function(X), X / np.float32(255)], axis=-1)
    crf = MaxMarginCRF(sigma=model.sigma_, tol=1e-6).fit(Z, y)
    assert model.objective_ == pytest.approx(crf.objective_, rel=2e-3)
    labelings = [model.energy(image).least(model.coef_) for image in X]
    np.testing.assert_array_equal(model.predict(X), labelings)
    crf.coef_ = model.coef_
    np.testing.assert_array_equal(model.predict(X), crf.predict(Z))
    np.testing.assert_array_equal(model.predict_confidence(X), crf.predict_confidence(Z), strict=True)


def test_confidence_has_the_sign_of_the_label_and_the_size_of_what_changes_it(joint, unequal):
    X, _ = unequal
    confidence = joint.predict_confidence(X)
    assert isinstance(confidence, list)
    for image, each, labels in zip(X, confidence, joint.predict(X), strict=True):
        assert each.dtype == np.float32
        np.testing.assert_array_equal(each > 0, labels)
        energy = joint.energy(image)
        for level in np.quantile(each, [0.1, 0.5, 0.9]):
            changed = energy.with_unary(energy.log_odds - level).least(joint.coef_)
            assert (np.abs(each - level)[changed != (each > level)] <= 2e-3).all()


def test_confidence_of_a_network_alone_is_its_log_odds(phantoms):
    model = quicker(training="cnn").fit(*phantoms)
    confidence = model.predict_confidence(phantoms[0])
    np.testing.assert_array_equal(confidence, model.decision_function(phantoms[0]), strict=True)


@pytest.mark.parametrize("weight", [0.0, -0.5])
def test_confidence_needs_a_positive_weight_of_the_log_odds(joint, phantoms, weight):
    model = copy.copy(joint)
    model.coef_ = np.array([weight, 1.0, 1.0])
    with pytest.raises(ValueError, match=rf"predict_confidence .* coef_\[0\] is {weight:g}"):
        model.predict_confidence(phantoms[0])


def test_cnn_is_the_network_alone(phantoms, pretrained):
    X, _ = phantoms
    model = quick(training="cnn").fit(*phantoms)
    assert same_weights(model, pretrained)
    np.testing.assert_array_equal(model.predict(X), pretrained.predict(X))
    np.testing.assert_array_equal(model.coef_, [1, 0, 0])
    assert {getattr(model, f"{name}_") for name in ("objective", "dual_gap", "slack", "sigma", "n_iter")} == {None}
    with pytest.raises(ValueError, match='energy needs a field, but training="cnn" learns none'):
        model.energy(X[0])


def test_piecewise_is_the_pipeline(phantoms, piecewise):
    cnn = clone(piecewise.cnn).set_params(random_state=0)
    pipeline = make_pipeline(cnn, MaxMarginCRF()).fit(*phantoms)
    np.testing.assert_array_equal(pipeline[-1].coef_, piecewise.coef_)
    np.testing.assert_array_equal(pipeline.predict(phantoms[0]), piecewise.predict(phantoms[0]))


def test_no_joint_epoch_is_piecewise_training(phantoms, piecewise):
    assert same_models(quick(n_epochs=0).fit(*phantoms), piecewise)


def test_joint_training_by_batch_needs_images_as_they_are(phantoms):
    changed = quick(training="joint_by_batch", cnn__augmentation="flip")
    for changes in ({"augmentation": "same"}, {"augmentation": "flip"}, {"cnn__crop": 8}):
        with pytest.raises(ValueError, match='training="joint_by_batch" needs images without random changes'):
            clone(changed).set_params(**changes).fit(*phantoms)
    model = quicker(training="joint_by_batch", cnn__augmentation="flip", cnn__average_mirrored=True).fit(*phantoms)
    assert epochs(model, "joint") == [0, 1]


def test_the_random_state_decides_the_model_and_jobs_do_not(joint, phantoms):
    assert same_models(joint, quick(n_jobs=2).fit(*phantoms))
    assert not same_weights(joint, quick(random_state=1).fit(*phantoms))


def test_a_field_may_be_of_smoothness_or_of_other_neighbours(phantoms):
    X, y = phantoms
    smooth = quicker(pairwise="smoothness").fit(X, y)
    assert smooth.coef_.shape == (2,)
    assert smooth.sigma_ is None
    eight = quicker().fit(X, y)
    said = quicker(connectivity=[(0, 1), (1, 0), (1, 1), (1, -1)]).fit(X, y)
    np.testing.assert_allclose(said.coef_, eight.coef_, rtol=1e-5)
    far = quicker(connectivity=((0, 1), (1, 0), (0, 4))).fit(X, y)
    assert not np.allclose(far.coef_, eight.coef_)
    for model in (smooth, far):
        np.testing.assert_array_equal(model.predict(X)[0], model.energy(X[0]).least(model.coef_))


# the network


def test_the_network_is_said_in_four_ways(phantoms, monkeypatch):
    monkeypatch.setattr(cnns, "_MOST_EPOCHS", 2)  # a name can't say how many
    module = nn.Conv2d(1, 1, 3, padding=1)
    weight = module.weight.clone()
    for network in ("unet", module, small_unet):
        plain = DeepStructuredSegmenter(network, training="cnn", random_state=0).set_params(cnn=network)
        assert plain.cnn is network
        wrapped = DeepStructuredSegmenter(CNNSegmenter(network), training="cnn", random_state=0)
        for model in (plain, wrapped):
            model.fit(phantoms[0][:2], phantoms[1][:2])
        assert same_weights(plain, wrapped)
    assert plain.cnn is small_unet
    assert torch.equal(module.weight, weight)


def test_setting_a_parameter_of_the_network_makes_it_an_estimator():
    model = DeepStructuredSegmenter(small_unet).set_params(cnn__n_epochs=3, C=2.0)
    assert isinstance(model.cnn, CNNSegmenter)
    assert (model.cnn.network, model.cnn.n_epochs, model.C) == (small_unet, 3, 2.0)
    assert model.set_params(cnn="unet", cnn__n_epochs=4).cnn.network == "unet"
    assert model.get_params()["cnn__n_epochs"] == 4
    kept = model.cnn
    assert model.set_params(cnn__n_epochs=5).cnn is kept
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense' for estimator CNNSegmenter"):
        DeepStructuredSegmenter().set_params(cnn__nonsense=1)
    pipeline = make_pipeline(DeepStructuredSegmenter()).set_params(deepstructuredsegmenter__cnn__n_epochs=3)
    assert pipeline[0].cnn.n_epochs == 3


def test_random_state_and_verbose_are_those_of_the_network_where_it_has_none(phantoms, capsys):
    inner = quicker(training="cnn", random_state=1, cnn__random_state=0).fit(*phantoms)
    assert same_weights(inner, quicker(training="cnn").fit(*phantoms))
    assert inner.cnn_.random_state == 0
    assert not same_weights(inner, quicker(training="cnn", random_state=1).fit(*phantoms))
    assert capsys.readouterr().out == ""
    quicker(verbose=1).fit(*phantoms)
    out = capsys.readouterr().out
    assert all(stage in out for stage in ("Pretraining", " 1/1 ", "pass 1:", "Joint training"))
    quicker(cnn__verbose=1).fit(*phantoms)
    out = capsys.readouterr().out
    assert "Pretraining" in out
    assert "Joint training" not in out


@pytest.mark.parametrize("training", TRAININGS[:3])
def test_a_frozen_network_is_not_trained_before_the_field(phantoms, pretrained, trainings, training):
    network = {key: value.clone() for key, value in pretrained.network_.state_dict().items()}
    history = list(pretrained.history_)
    expected = quick(training=training).fit(*phantoms)
    assert len(trainings) == 1
    for _ in range(2):
        model = clone(quick(training=training, cnn=FrozenEstimator(pretrained))).fit(*phantoms)
        assert same_models(model, expected)
        assert model.objective_ == expected.objective_
        assert [row["stage"] for row in model.history_] == [row["stage"] for row in expected.history_]
    assert len(trainings) == 1
    again = model.set_params(cnn=FrozenEstimator(model.cnn_)).fit(*phantoms)
    assert again.cnn_.network_ is not again.cnn.estimator.network_
    assert pretrained.history_ == history
    assert all(torch.equal(network[key], value) for key, value in pretrained.network_.state_dict().items())


def test_a_frozen_network_must_fit(phantoms, pretrained):
    X, y = phantoms
    frozen = quick(cnn=FrozenEstimator(pretrained))
    with pytest.raises(ValueError, match="X has 2 channels, but the network was trained on 1"):
        frozen.fit(np.stack([X, X], axis=-1), y)
    with pytest.raises(NotFittedError):
        quick(cnn=FrozenEstimator(CNNSegmenter())).fit(X, y)
    with pytest.raises(TypeError, match="cnn: FrozenEstimator must hold a CNNSegmenter, got a MaxMarginCRF"):
        quick(cnn=FrozenEstimator(MaxMarginCRF())).fit(X, y)
    search = GridSearchCV(frozen, {"C": [0.1, 1.0]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.cnn.estimator is pretrained


# what pretraining shares


def test_memory_pretrains_once_and_changes_nothing(joint, phantoms, tmp_path, trainings):
    for training in TRAININGS[:3]:
        model = quick(training=training, memory=str(tmp_path)).fit(*phantoms, validation_data=phantoms)
    assert len(trainings) == 1
    assert same_models(model, joint)
    assert [row["stage"] for row in model.history_] == [row["stage"] for row in joint.history_]


def test_a_memory_that_cant_be_written_to_is_told_before_training(phantoms, tmp_path, trainings):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "folder", "null\0byte"):
        with pytest.raises(OSError, match="memory: networks can't be kept in .*. Give a folder that can be written to"):
            quicker(memory=str(folder)).fit(*phantoms)
    assert not trainings


def test_networks_that_are_damaged_in_the_memory_are_trained_again(phantoms, tmp_path, trainings):
    models = [quicker(memory=str(tmp_path)).fit(*phantoms)]
    (kept,) = tmp_path.glob("**/output.pkl")
    kept.write_bytes(kept.read_bytes()[:-99])
    models.append(quicker(memory=str(tmp_path)).fit(*phantoms))
    assert len(trainings) == 2
    assert same_models(*models)


class Names(Callback):
    def on_train_begin(self, net, **kwargs):
        self.names = [name for name, _ in net.callbacks_]


def test_callbacks_have_no_name_that_the_estimator_has_for_its_own(phantoms, tmp_path):
    watch = [Names(), Names()]
    model = quicker(callbacks=watch[:1], cnn__callbacks=watch[1:], checkpoint=tmp_path, verbose=2)
    model.set_params(validation_fraction=0.4, early_stopping=True, cnn__early_stopping=True).fit(*phantoms)
    taken = {name for each in watch for name in each.names} - {"Names"}
    assert "keep_best" in taken
    for name in taken:
        with pytest.raises(ValueError, match=f"callbacks: the name '{name}' is taken"):
            model.set_params(callbacks=[(name, Names())]).fit(*phantoms)


def test_memory_knows_all_that_decides_what_is_learned(phantoms, tmp_path, trainings):
    X, y = phantoms
    changed = y.copy()
    changed[0, 0, 0] = 1 - changed[0, 0, 0]
    module = nn.Conv2d(1, 1, 3, padding=1)
    model = quicker(training="cnn", memory=str(tmp_path))
    fits = [
        ({}, (X, y), {}),
        ({}, (X, changed), {}),
        ({}, (255 - X, y), {}),
        ({}, (X, y), {"validation_data": (X, y)}),
        ({}, (X, y), {"sample_weight": np.arange(1, 7)}),
        ({"cnn__class_weight": "balanced"}, (X, y), {}),
        ({"cnn__augmentation": "flip"}, (X, y), {}),
        ({"random_state": 1}, (X, y), {}),
        ({"cnn__n_epochs": 2}, (X, y), {}),
        ({"cnn__network": module}, (X, y), {}),
        ({"cnn__network": nn.Conv2d(1, 1, 3, padding=1)}, (X, y), {}),
    ]
    for _ in range(2):
        for parameters, data, metadata in fits:
            clone(model).set_params(**parameters).fit(*data, **metadata)
        assert len(trainings) == len(fits)
    # nothing of joint training, of the outside, of how the same images are given, or of what is done in prediction only
    same = clone(model).set_params(C=3.0, learning_rate=1.0, cnn__random_state=0, verbose=0).fit(list(X), list(y))
    same.set_params(cnn__average_mirrored=True, cnn__network_scale=(1.0, 0.5)).fit(X, y)
    assert len(trainings) == len(fits)
    assert same.cnn_.average_mirrored
    same.set_params(cnn__network_scale=(0.5, 1.0)).fit(X, y)
    same.set_params(cnn__network_scale=(1.0, 0.5)).fit(X, y, validation_data=(X, y))
    assert len(trainings) == len(fits) + 2


class Fails(Callback):
    """Stops training in the second epoch."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("power cut")


def test_a_checkpoint_is_kept_by_either_but_not_by_both(phantoms, tmp_path):
    with pytest.raises(ValueError, match="cnn: its checkpoint must be None, because that of Deep"):
        quick(checkpoint=tmp_path, cnn__checkpoint=tmp_path).fit(*phantoms)
    expected = quick().fit(*phantoms)
    for name in ("checkpoint", "cnn__checkpoint"):
        model = quick(**{name: tmp_path / name})
        with pytest.raises(RuntimeError, match="power cut"):
            clone(model).set_params(cnn__callbacks=[("fails", Fails())]).fit(*phantoms)
        assert [*(tmp_path / name).glob("*/state-*")]
        assert same_models(model.fit(*phantoms), expected)


def test_a_fit_that_goes_on_in_joint_training_knows_the_pretraining(phantoms, tmp_path, trainings):
    model = quick(checkpoint=tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        clone(model).set_params(callbacks=[("fails", Fails())]).fit(*phantoms)
    model.fit(*phantoms)
    assert len(trainings) == 1
    assert model.cnn_.n_iter_ == 6
    assert epochs(model, "cnn") == [1, 2, 3, 4, 5, 6]


def test_warm_start_goes_on_after_epochs_of_auto(phantoms, monkeypatch):
    monkeypatch.setattr(cnns, "_MOST_EPOCHS", 2)
    model = quicker(cnn__n_epochs="auto", warm_start=True).fit(*phantoms).fit(*phantoms)
    assert (epochs(model, "cnn"), epochs(model, "joint")) == ([1, 2], [0, 1, 2])


class Groups(Callback):
    """Records the learning rate and the layers of each group at the beginning of training."""

    def on_train_begin(self, net, **kwargs):
        names = {parameter: name for name, parameter in net.module_.named_parameters()}
        self.found = [(group["lr"], {names[one] for one in group["params"]}) for group in net.optimizer_.param_groups]


@pytest.mark.parametrize("folds", [{}, {"cv": 2, "ensemble": True}])
def test_layers_of_a_pretrained_backbone_learn_at_a_tenth_of_the_rate_in_joint_training(tmp_path, phantoms, folds):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    cnn = CNNSegmenter("unet_squeezenet1_1", weights=tmp_path / "weights.pth", **PLAIN, n_epochs=1)
    groups = Groups()
    model = DeepStructuredSegmenter(cnn, n_epochs=1, schedule="constant", callbacks=[groups], warm_start=True, **folds)
    model.set_params(random_state=0).fit(phantoms[0][:2], phantoms[1][:2])
    (of_backbone, backbone), (of_others, others) = groups.found
    assert backbone == {name for name in backbone | others if ".backbone." in name}
    assert others
    assert (of_backbone, of_others) == pytest.approx((1e-5, 1e-4))
    model.set_params(callbacks=None).save(tmp_path / "model")  # which checks that the moments fit their layers


def test_warm_start_goes_on_where_it_stood(phantoms):
    X, y = phantoms
    model = quick(warm_start=True, learning_rate=1e-3).fit(X, y)
    objective = model.objective_
    model.set_params(n_epochs=3).fit(X, y)
    assert (epochs(model, "cnn"), epochs(model, "joint")) == ([1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5])
    assert model.objective_ < objective
    # Adam counts its steps: two of three images an epoch
    assert {int(moments["step"]) for moments in model.optimizer_state_.values()} == {2 * (2 + 3)}
    with pytest.raises(ValueError, match="X has 2 channels, but the network was trained on 1"):
        model.fit(np.stack([X, X], axis=-1), y)
    with pytest.raises(ValueError, match="pairwise: warm_start goes on with 3 weights"):
        model.set_params(pairwise="smoothness").fit(X, y)
    other = quicker(training="piecewise", warm_start=True).fit(X, y).set_params(training="joint").fit(X, y)
    assert (epochs(other, "cnn"), epochs(other, "joint")) == ([1], [0, 1])


# images and labels


@pytest.mark.parametrize("training", TRAININGS)
def test_lists_of_unequal_images(unequal, training):
    X, y = unequal
    labels = quicker(training=training).fit(X, y).predict(X)
    assert isinstance(labels, list)
    assert [l.shape for l in labels] == [l.shape for l in y]


def test_mask_files_are_read_by_the_label_of_the_network(joint, phantoms, tmp_path):
    X, y = [], []
    for n, (image, mask) in enumerate(zip(*phantoms)):
        for paths, kind, array in ((X, "image", image), (y, "mask", 255 * mask)):
            paths.append(tmp_path / f"{kind}{n}.png")
            Image.fromarray(array).save(paths[-1])
    model = quick(cnn__pos_label=255).fit(X, y, validation_data=(X, y))
    assert same_models(model, joint)
    np.testing.assert_array_equal(model.classes_, [0, 255])
    np.testing.assert_array_equal(np.stack(model.predict(X)), 255 * joint.predict(phantoms[0]))
    assert model.score(X, y) == joint.score(*phantoms)


def test_another_fit_reads_labels_anew(phantoms):
    X, y = phantoms
    model = quicker().fit(X, y)
    model.set_params(cnn__pos_label=9)
    np.testing.assert_array_equal(model.classes_, [0, 1])  # until it is fitted again
    assert model.score(X, y) == quicker().fit(X, y).score(X, y)
    model.fit(X, 9 * y)
    np.testing.assert_array_equal(model.classes_, [0, 9])
    assert set(np.unique(model.predict(X))) <= {0, 9}
    with pytest.raises(ValueError, match=r"must hold the labels 0, 9 and 255 only, found \[1\]"):
        model.score(X, y)


class Watched(Dataset):
    """Pairs that know how many of their images are held at most."""

    def __init__(self, X, y):
        self.X, self.y, self.held, self.most = X, y, 0, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, n):
        image = self.X[n].copy()
        self.held += 1
        self.most = max(self.most, self.held)
        weakref.finalize(image, self.let_go)
        return image, self.y[n]

    def let_go(self):
        self.held -= 1


@pytest.mark.parametrize("training", TRAININGS[::2])
def test_of_a_dataset_only_a_batch_is_held(training):
    data = Watched(*make_phantoms(24, shape=(24, 24), random_state=0))
    model = quicker(training=training).fit(data)
    model.predict(data)
    assert 0 <= model.score(data) <= 1
    assert data.most <= 2 * model.batch_size


def test_weights_reach_both_stages_and_the_score(phantoms, pretrained):
    X, y = phantoms
    wrong = np.concatenate([y[:3], 1 - y[3:]])
    weights = np.array([1.0, 1, 1, 0, 0, 0])
    model = quicker(cnn__class_weight="balanced").fit(X, wrong, sample_weight=weights)
    np.testing.assert_allclose(model.cnn_.class_weight_, 0.5 / np.array([1 - y[:3].mean(), y[:3].mean()]))
    assert model.score(X, wrong, sample_weight=weights) == pytest.approx(model.score(X[:3], y[:3]))
    field = quick(cnn=FrozenEstimator(pretrained), training="piecewise", tol=1e-6)
    coef = field.fit(X, wrong, sample_weight=weights).coef_
    np.testing.assert_allclose(coef, field.fit(X[:3], y[:3]).coef_, rtol=1e-3)


def test_unlabelled_pixels_count_nowhere(phantoms):
    X, y = phantoms
    unlabelled = y.copy()
    unlabelled[:, :, 20:] = 255
    model = quick().fit(X, unlabelled, validation_data=(X, unlabelled))
    assert model.score(X, unlabelled) == pytest.approx(mean_jaccard(y[..., :20], model.predict(X)[..., :20]))
    assert set(np.unique(model.predict(X))) <= {0, 1}
    last = model.history_[-1]
    assert last["jaccard"] == last["valid_jaccard"]
    # whatever is not labelled is the same to it
    assert same_models(model, quick(cnn__ignore_label=7).fit(X, np.where(unlabelled == 255, 7, y)))


# validation images, and what goes along with training


def test_joint_training_is_on_crops_and_the_field_learned_on_whole_images(phantoms, monkeypatch):
    sizes = set()
    at_weights = MaxMarginLoss.at_weights

    def noting(self, parts):
        parts = list(parts)
        sizes.update(l.shape for log_odds, *_ in parts for l in log_odds)
        return at_weights(self, parts)

    monkeypatch.setattr(MaxMarginLoss, "at_weights", noting)
    model = quick(cnn__crop=(16, 12)).fit(*phantoms)
    assert sizes == {(16, 12)}
    assert np.isfinite(model.dual_gap_)
    assert model.predict(phantoms[0]).shape == phantoms[1].shape


def test_validation_images_may_be_a_fraction(phantoms):
    X, y = phantoms
    kept, held_out = train_test_split(np.arange(6), test_size=0.3, random_state=np.random.RandomState(0))
    assert len(held_out) == 2
    given = quick().fit(X[kept], y[kept], validation_data=(X[held_out], y[held_out]))
    # those of the whole fit serve pretraining too
    for changes in ({}, {"cnn__validation_fraction": 0.5}):
        model = quick(validation_fraction=0.3, **changes).fit(X, y)
        assert same_models(model, given)
        assert [row["valid_jaccard"] for row in model.history_] == [row["valid_jaccard"] for row in given.history_]


def test_the_network_may_hold_out_images_of_its_own(phantoms):
    X, y = phantoms
    early = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 1, "learning_rate": 0.3}
    model = quick(**{f"cnn__{name}": value for name, value in early.items()}, cnn__n_epochs=20).fit(X, y)
    alone = clone(model.cnn).set_params(random_state=0).fit(X, y)
    assert model.cnn_.n_iter_ == alone.n_iter_ < 20
    stages = {stage: [row for row in model.history_ if row["stage"] == stage] for stage in ("cnn", "joint")}
    assert all("valid_jaccard" in row for row in stages["cnn"])
    assert not any("valid_jaccard" in row for row in stages["joint"])
    assert len(model.slack_) == 6


def test_early_stopping_keeps_the_best_epoch(phantoms):
    X, y = phantoms
    # a rate under which nothing lasts
    model = quick(n_epochs=8, early_stopping=True, n_iter_no_change=2, schedule="constant", learning_rate=0.1)
    model.fit(X[:4], y[:4], validation_data=(X[4:], y[4:]))
    rows = [row["valid_jaccard"] for row in model.history_ if row["stage"] == "joint"]
    # the weights of the field are learned once more for the network that was kept
    assert model.score(X[4:], y[4:]) == pytest.approx(max(rows), abs=0.05)
    assert len(rows) == min(int(np.nanargmax(rows)) + 1 + 2, 9)
    kept = [row["kept"] for row in model.history_ if row["stage"] == "joint"]
    assert kept == [n == np.nanargmax(rows) for n in range(len(rows))]
    assert epochs(model, "cnn") == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="early_stopping of .* needs validation images"):
        model.fit(X, y)


class Rates(Callback):
    """Keeps the learning rate of each step."""

    def __init__(self):
        self.rates = []

    def on_batch_begin(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


def test_each_stage_has_a_schedule_and_callbacks_of_its_own(phantoms):
    of_cnn, of_joint = Rates(), Rates()
    cnn = {"n_epochs": 2, "schedule": "cosine", "callbacks": [("rates", of_cnn)]}
    model = quick(**{f"cnn__{name}": value for name, value in cnn.items()}, learning_rate=1e-3)
    model.set_params(callbacks=[("rates", of_joint)]).fit(*phantoms)
    np.testing.assert_allclose(of_cnn.rates, 1e-2 * np.array([1, 0.854, 0.5, 0.146]), rtol=1e-2)
    np.testing.assert_allclose(of_joint.rates, 1e-3 * np.array([1, 0.75, 0.5, 0.25]), rtol=1e-2)


def test_callbacks_of_skorch_see_what_the_history_has(phantoms, tmp_path):
    boards = {stage: TensorBoard(SummaryWriter(tmp_path / stage)) for stage in ("cnn", "joint")}
    model = quick(cnn__callbacks=[boards["cnn"]], callbacks=[boards["joint"]]).fit(*phantoms)
    for stage, more in {"cnn": {}, "joint": {"gamma": "gamma"}}.items():
        events = EventAccumulator(str(tmp_path / stage))
        events.Reload()
        trained = [row for row in model.history_ if row["stage"] == stage and "loss" in row]
        for name, key in {"Loss/train_loss": "loss", "jaccard": "jaccard", **more}.items():
            written = [event.value for event in events.Scalars(name)]
            np.testing.assert_allclose(written, [row[key] for row in trained], rtol=1e-5)


def test_joint_training_may_change_images_otherwise_than_pretraining(phantoms):
    pretrained = quick().cnn.set_params(augmentation="standard", random_state=0).fit(*phantoms)
    models = {}
    for name in (None, "flip", "same"):
        models[name] = quick(cnn__augmentation="standard", augmentation=name).fit(*phantoms)
        assert same_weights(models[name].cnn_, models[name])
        frozen = quick(cnn=FrozenEstimator(pretrained), augmentation="standard" if name == "same" else name)
        assert same_models(models[name], frozen.fit(*phantoms)), name
    assert not same_weights(models[None], models["flip"])
    assert not same_weights(models["flip"], models["same"])


@pytest.mark.parametrize(("average_mirrored", "augmentation"), [(True, "flip"), (False, None)])
def test_joint_training_mirrors_images_if_predictions_do(phantoms, average_mirrored, augmentation):
    changes = {"cnn__average_mirrored": average_mirrored, "cnn__augmentation": "strong"}
    expected = quicker(augmentation=augmentation, **changes).fit(*phantoms)
    assert same_models(quicker(augmentation="auto", **changes).fit(*phantoms), expected)
    assert not same_models(quicker(augmentation="same", **changes).fit(*phantoms), expected)


@pytest.mark.parametrize("training", TRAININGS[1:3])
def test_how_the_network_is_run_counts_where_the_field_is_learned(phantoms, training):
    X, y = phantoms
    model = quick(training=training, cnn__network_scale=(1.0, 0.5), cnn__average_mirrored=True, tol=1e-6).fit(X, y)
    log_odds = model.decision_function(X)
    np.testing.assert_array_equal(log_odds, model.cnn_.decision_function(X))
    crf = MaxMarginCRF(sigma=model.sigma_, tol=1e-6).fit(np.stack([log_odds, X / 255], axis=-1), y)
    np.testing.assert_allclose(model.coef_, crf.coef_, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# images that are held out, and what a warm start goes on with


def test_weights_of_the_images_that_are_left_count_as_if_they_were_all(phantoms):
    X, y = phantoms
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 60.0])
    kept, held_out = train_test_split(range(6), test_size=0.3, random_state=0)
    drawn = quicker(validation_fraction=0.3).fit(X, y, sample_weight=weights)
    given = quicker().fit(X[kept], y[kept], sample_weight=weights[kept], validation_data=(X[held_out], y[held_out]))
    np.testing.assert_allclose(drawn.coef_, given.coef_)
    only_held_out = np.isin(np.arange(6), held_out).astype(float)
    with pytest.raises(ValueError, match="validation_fraction: sample_weight is 0 for all images that are left"):
        quicker(validation_fraction=0.3).fit(X, y, sample_weight=only_held_out)


def test_a_warm_start_takes_another_augmentation_of_the_cnn_only_where_joint_training_uses_it(phantoms):
    model = quicker(warm_start=True).fit(*phantoms)
    with pytest.raises(ValueError, match="cnn__augmentation: warm_start goes on .* would have no effect"):
        model.set_params(cnn__augmentation="flip").fit(*phantoms)
    with pytest.raises(ValueError, match="cnn__augmentation: warm_start goes on .* would have no effect"):
        model.set_params(augmentation="same", training="piecewise").fit(*phantoms)
    model.set_params(training="joint").fit(*phantoms)
    assert epochs(model, "joint")[-1] == 2


def test_the_augmentation_of_a_frozen_cnn_is_not_called_unless_it_is_used(phantoms):
    def fails(image, mask):
        raise RuntimeError

    cnn = quicker().cnn.set_params(random_state=0).fit(*phantoms).set_params(augmentation=fails)
    quick(cnn=FrozenEstimator(cnn)).fit(*phantoms)
    with pytest.raises(ValueError, match="augmentation"):
        quick(cnn=FrozenEstimator(cnn), augmentation="same").fit(*phantoms)


def test_a_warm_start_with_another_network_is_refused(phantoms):
    model = quicker(warm_start=True).fit(*phantoms)
    with pytest.raises(ValueError, match="cnn: warm_start goes on with the network of the last fit"):
        model.set_params(cnn__network="unet").fit(*phantoms)


@pytest.mark.parametrize(("name", "value", "before"), [("loss", "dice", "'log_likelihood'"), ("n_epochs", 2, "1")])
def test_a_warm_start_with_another_pretraining_is_refused(phantoms, name, value, before):
    model = quicker(warm_start=True).fit(*phantoms)
    with pytest.raises(ValueError, match=f"^cnn__{name}: .* change from {before} to {value!r}.* set it back"):
        model.set_params(**{f"cnn__{name}": value}).fit(*phantoms)


def test_a_warm_start_learns_weights_with_other_parameters_of_the_field(phantoms):
    X, y = phantoms
    model = quicker(training="piecewise", warm_start=True).fit(X, y)
    model.set_params(C=0.01, sigma=0.5).fit(X[:4], y[:4])
    cold = DeepStructuredSegmenter(FrozenEstimator(model.cnn_), training="piecewise", C=0.01, sigma=0.5)
    cold.fit(X[:4], y[:4])
    np.testing.assert_allclose(model.coef_, cold.coef_, rtol=0.05)
    assert (model.sigma_, len(model.slack_)) == (0.5, 4)


def test_a_warm_start_after_the_network_alone_may_have_other_terms(phantoms):
    model = quicker(training="cnn", warm_start=True).fit(*phantoms)
    assert model.set_params(training="piecewise", pairwise="smoothness").fit(*phantoms).coef_.shape == (2,)


class Scaling(nn.Module):
    """A network of which neither name nor weights tell the factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images):
        return self.factor * self.layer(images)


def test_the_memory_tells_modules_apart_by_their_attributes(phantoms, tmp_path):
    one = Scaling(1.0)
    other = Scaling(5.0)
    other.load_state_dict(one.state_dict())
    fitted = [
        DeepStructuredSegmenter(network, training="cnn", memory=str(tmp_path), random_state=0)
        .set_params(cnn__n_epochs=1)
        .fit(*phantoms)
        for network in (one, other)
    ]
    assert [model.network_.factor for model in fitted] == [1.0, 5.0]


def test_the_memory_tells_folds_with_class_weights_of_all_images_from_fits_without_the_others(phantoms, tmp_path):
    X, y = phantoms
    y = y.copy()
    y[5] = 0
    model = quicker(training="piecewise", random_state=0).set_params(cnn__class_weight="balanced")
    alone = clone(model).fit(X[:4], y[:4]).cnn_.class_weight_
    model.set_params(memory=str(tmp_path))
    clone(model).set_params(cv=[([0, 1, 2, 3], [4, 5]), ([4, 5], [0, 1, 2, 3])]).fit(X, y)
    np.testing.assert_array_equal(model.fit(X[:4], y[:4]).cnn_.class_weight_, alone)


def test_a_field_that_turns_the_log_odds_round_is_told(phantoms):
    X, y = phantoms
    cnn = quick().cnn.set_params(random_state=0).fit(X, y)
    inverted = DeepStructuredSegmenter(FrozenEstimator(cnn), training="piecewise")
    with pytest.warns(UserWarning, match=r"coef_\[0\], is negative: .* Either labels are inverted"):
        inverted.fit(X, 1 - y)
