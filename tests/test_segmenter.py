import pickle
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback, TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.metrics import jaccard_indices, mean_jaccard
from skmmcrf.networks import AnySize, UNet

QUICK = {"pretrain_epochs": 6, "pretrain_learning_rate": 1e-2, "n_epochs": 2, "batch_size": 3, "random_state": 0}


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def quick(**parameters):
    return DeepStructuredSegmenter(small_unet, **(QUICK | parameters))


@pytest.fixture(scope="module")
def unequal(phantoms):
    X, y = phantoms
    crops = [np.s_[:], np.s_[2:], np.s_[:, 3:], np.s_[1:, :-5], np.s_[:], np.s_[:-4]]
    return [x[c] for x, c in zip(X, crops)], [t[c] for t, c in zip(y, crops)]


@pytest.fixture(scope="module")
def joint(phantoms):
    return quick().fit(*phantoms, validation_data=phantoms)


def same_weights(one, other):
    one, other = one.network_.state_dict(), other.network_.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


def test_joint_training_keeps_the_contract(joint, phantoms):
    X, y = phantoms
    assert joint.predict(X).shape == X.shape
    assert joint.predict_proba(X).shape == (*X.shape, 2)
    assert joint.decision_function(X).shape == X.shape
    assert joint.score(X, y) > 0.6
    assert joint.coef_.shape == (3,)
    assert (joint.coef_[1:] >= 0).all()
    assert 0 <= joint.dual_gap_ <= 1e-3 * joint.objective_
    assert isinstance(joint.network_, UNet)
    assert joint.sigma_ > 0
    assert joint.n_iter_ >= 1
    assert joint.n_channels_in_ == 1
    np.testing.assert_array_equal(joint.classes_, [0, 1])


def test_history_tells_both_stages(joint, phantoms):
    stages = [(row["stage"], row["epoch"]) for row in joint.history_]
    assert stages == [("cnn", n) for n in range(1, 7)] + [("joint", n) for n in range(3)]
    assert all({"jaccard", "valid_jaccard", "seconds"} <= set(row) for row in joint.history_)
    gammas = [row["gamma"] for row in joint.history_ if row["stage"] == "joint"]
    assert gammas[-1] < gammas[0]
    assert joint.objective_ < gammas[0]


def test_objective_is_the_optimum_for_the_network_that_predicts(joint, phantoms):
    X, y = phantoms
    Z = np.stack([joint.decision_function(X), X / np.float32(255)], axis=-1)
    crf = MaxMarginCRF(sigma=joint.sigma_, tol=1e-6).fit(Z, y)
    assert joint.objective_ == pytest.approx(crf.objective_, rel=2e-3)
    np.testing.assert_array_equal(joint.predict(X), joint.crf_.predict(Z))


def test_cnn_is_the_network_alone(phantoms):
    X, y = phantoms
    model = quick(training="cnn").fit(X, y)
    alone = CNNSegmenter(small_unet, n_epochs=6, learning_rate=1e-2, batch_size=3, random_state=0).fit(X, y)
    assert same_weights(model, alone)
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))
    np.testing.assert_array_equal(model.coef_, [1, 0, 0])
    assert model.crf_ is model.objective_ is None


def test_piecewise_is_the_pipeline(phantoms):
    X, y = phantoms
    model = quick(training="piecewise").fit(X, y)
    cnn = CNNSegmenter(small_unet, n_epochs=6, learning_rate=1e-2, batch_size=3, random_state=0)
    pipeline = make_pipeline(cnn, MaxMarginCRF()).fit(X, y)
    np.testing.assert_array_equal(pipeline[-1].coef_, model.coef_)
    np.testing.assert_array_equal(pipeline.predict(X), model.predict(X))
    assert pipeline.score(X, y) == model.score(X, y)


def test_joint_training_begins_at_the_piecewise_model(joint, phantoms):
    piecewise = quick(training="piecewise").fit(*phantoms)
    first = next(row for row in joint.history_ if row["stage"] == "joint")
    assert first["gamma"] == piecewise.objective_
    assert first["jaccard"] == piecewise.score(*phantoms)


@pytest.mark.parametrize("training", ["cnn", "piecewise", "joint"])
def test_lists_of_unequal_images(unequal, training):
    X, y = unequal
    model = quick(training=training, pretrain_epochs=2, n_epochs=1).fit(X, y)
    labels = model.predict(X)
    assert isinstance(labels, list)
    assert [l.shape for l in labels] == [l.shape for l in y]
    assert 0 <= model.score(X, y) <= 1


def test_a_list_of_equal_images_is_the_array(joint, phantoms):
    X, y = phantoms
    model = quick().fit(list(X), list(y))
    np.testing.assert_array_equal(model.coef_, joint.coef_)
    np.testing.assert_array_equal(np.stack(model.predict(list(X))), joint.predict(X))


def test_the_same_random_state_gives_the_same_model(joint, phantoms):
    again = quick().fit(*phantoms)
    other = quick(random_state=1).fit(*phantoms)
    assert same_weights(joint, again)
    np.testing.assert_array_equal(joint.coef_, again.coef_)
    assert not same_weights(joint, other)


def test_jobs_do_not_change_the_model(joint, phantoms):
    together = quick(n_jobs=2).fit(*phantoms)
    assert same_weights(joint, together)
    np.testing.assert_array_equal(joint.coef_, together.coef_)


def test_no_joint_epoch_is_piecewise_training(phantoms):
    none, piecewise = quick(n_epochs=0).fit(*phantoms), quick(training="piecewise").fit(*phantoms)
    assert same_weights(none, piecewise)
    assert none.objective_ == pytest.approx(piecewise.objective_, rel=1e-3)


@pytest.mark.filterwarnings("ignore:the envelope theorem gave the gradient:RuntimeWarning")
def test_the_linear_system_trains_the_same_model(joint, phantoms):
    by_system = quick(gradient="kkt").fit(*phantoms)
    assert by_system.objective_ == pytest.approx(joint.objective_, rel=1e-3)
    np.testing.assert_allclose(by_system.coef_, joint.coef_, rtol=0.05, atol=0.01)


@pytest.fixture
def trainings(monkeypatch):
    """The networks that were really pretrained."""
    trained = []
    learn = CNNSegmenter.learn
    monkeypatch.setattr(CNNSegmenter, "learn", lambda self, *args: trained.append(self) or learn(self, *args))
    return trained


def test_memory_pretrains_once_and_changes_nothing(joint, phantoms, tmp_path, trainings):
    for training in ("cnn", "piecewise", "joint"):
        model = quick(training=training, memory=str(tmp_path)).fit(*phantoms, validation_data=phantoms)
    assert len(trainings) == 1
    assert same_weights(model, joint)
    assert [row["stage"] for row in model.history_] == [row["stage"] for row in joint.history_]


def test_memory_knows_all_that_decides_what_is_learned(phantoms, tmp_path, trainings):
    X, y = phantoms
    changed = y.copy()
    changed[0, 0, 0] = 1 - changed[0, 0, 0]
    module = nn.Conv2d(1, 1, 3, padding=1)
    other = nn.Conv2d(1, 1, 3, padding=1)
    weight = np.arange(1, 7)
    fits = [
        ({}, (X, y), {}),
        ({}, (X, changed), {}),
        ({}, (255 - X, y), {}),
        ({}, (X, y), {"validation_data": (X, y)}),
        ({}, (X, y), {"sample_weight": weight}),
        ({"class_weight": "balanced"}, (X, y), {}),
        ({"augmentation": "flip"}, (X, y), {}),
        ({"random_state": 1}, (X, y), {}),
        ({"pretrain_epochs": 2}, (X, y), {}),
        ({"network": module}, (X, y), {}),
        ({"network": other}, (X, y), {}),
    ]
    for _ in range(2):
        for parameters, data, metadata in fits:
            model = quick(training="cnn", pretrain_epochs=1, memory=str(tmp_path))
            model.set_params(**parameters).fit(*data, **metadata)
        assert len(trainings) == len(fits)
    # nothing of joint training, of the outside, of how the same images are given, or of what is done in prediction only
    quick(C=3.0, learning_rate=1.0, training="cnn", pretrain_epochs=1, memory=str(tmp_path), verbose=1).fit(
        list(X), list(y)
    )
    in_prediction = {"average_mirrored": True, "network_scale": (1.0, 0.5)}
    model.set_params(network=small_unet, **in_prediction).fit(X, y)
    assert len(trainings) == len(fits)
    assert model.get_params().items() >= in_prediction.items()
    model.set_params(network_scale=(0.5, 1.0)).fit(X, y)
    model.set_params(network_scale=(1.0, 0.5)).fit(X, y, validation_data=(X, y))
    assert len(trainings) == len(fits) + 2


@dataclass
class CountedUNet:
    """A network that leaves a mark in a file, also from other processes, each time that it is made."""

    file: Path

    def __call__(self, n_channels):
        with self.file.open("a") as file:
            file.write(".")
        return UNet(n_channels, width=8, depth=1)


def test_a_search_in_processes_pretrains_once_a_fold(phantoms, tmp_path):
    count = CountedUNet(tmp_path / "count")
    model = quick(pretrain_epochs=1, n_epochs=1, memory=str(tmp_path)).set_params(network=count)
    # folds come first, so that two candidates of the same fold begin together
    search = GridSearchCV(model, {"C": [0.1, 1.0, 10.0]}, cv=[(np.arange(4), np.arange(4, 6))], n_jobs=2, refit=False)
    search.fit(*phantoms)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # once to name what is wanted for each of three candidates, once to train
    assert count.file.read_text() == "." * 4


def test_warm_start_goes_on_where_it_stood(phantoms):
    X, y = phantoms
    model = quick(warm_start=True, learning_rate=1e-3).fit(X, y)
    before, objective = len(model.history_), model.objective_
    model.set_params(n_epochs=3).fit(X, y)
    assert [(row["stage"], row["epoch"]) for row in model.history_[before:]] == [("joint", n) for n in (3, 4, 5)]
    assert model.objective_ < objective
    # Adam counts its steps: two of three images an epoch
    assert {int(moments["step"]) for moments in model.optimizer_state_.values()} == {2 * (2 + 3)}
    with pytest.raises(ValueError, match="X has 2 channels, but warm_start goes on with 1"):
        model.fit(np.stack([X, X], axis=-1), y)


def test_warm_start_adds_joint_training_to_piecewise(phantoms):
    model = quick(training="piecewise", warm_start=True).fit(*phantoms)
    model.set_params(training="joint").fit(*phantoms)
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1, 2]


@pytest.mark.parametrize("as_list", [False, True], ids=["array", "list"])
def test_grid_search_over_training_c_and_learning_rate(phantoms, unequal, as_list):
    X, y = unequal if as_list else phantoms
    grid = [{"training": ["cnn", "piecewise"]}, {"C": [0.1, 10.0], "learning_rate": [1e-3], "training": ["joint"]}]
    model = quick(pretrain_epochs=1, n_epochs=1)
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.predict(X)) == len(X)


def test_pipeline_in_cross_validation_on_unequal_images(unequal):
    cnn = CNNSegmenter(small_unet, n_epochs=1, random_state=0)
    scores = cross_val_score(make_pipeline(cnn, MaxMarginCRF()), *unequal, cv=3, error_score="raise")
    assert np.isfinite(scores).all()
    assert scores.shape == (3,)


def test_parameters_are_kept(joint):
    parameters = clone(joint).get_params()
    assert parameters["network"] is small_unet
    assert parameters["pretrain_epochs"] == 6
    assert set(parameters) >= {"C", "sigma", "tol", "max_iter", "connectivity", "weights", "memory", "device"}
    assert "DeepStructuredSegmenter" in repr(joint)


def test_fit_changes_neither_input_nor_module(phantoms):
    X, y = phantoms[0].copy(), phantoms[1].copy()
    module = nn.Conv2d(1, 1, 3, padding=1)
    before = module.weight.clone()
    DeepStructuredSegmenter(module, **QUICK).fit(X, y)
    np.testing.assert_array_equal(X, phantoms[0])
    np.testing.assert_array_equal(y, phantoms[1])
    assert torch.equal(module.weight, before)


def test_pickle_predicts_the_same(joint, phantoms):
    copy = pickle.loads(pickle.dumps(joint))
    np.testing.assert_array_equal(copy.predict(phantoms[0]), joint.predict(phantoms[0]))


def test_progress_is_printed_only_when_asked(phantoms, capsys):
    quick(pretrain_epochs=1, n_epochs=1).fit(*phantoms)
    assert capsys.readouterr().out == ""
    quick(pretrain_epochs=1, n_epochs=1, verbose=1).fit(*phantoms)
    out = capsys.readouterr().out
    assert all(stage in out for stage in ("pretraining 1/1:", "Algorithm 1, pass 1:", "joint training 1/1:"))


def test_a_truth_without_foreground_is_learned(phantoms):
    X, y = phantoms
    model = quick().fit(X, np.zeros_like(y))
    assert not model.predict(X).any()
    assert np.isnan(model.score(X, np.zeros_like(y)))


@pytest.fixture
def files(phantoms, tmp_path):
    """The phantoms as image files and mask files of 0 and 255."""
    X, y = phantoms
    paths = []
    for kind, arrays in {"image": X, "mask": 255 * y}.items():
        paths.append([tmp_path / f"{kind}{n}.png" for n in range(len(X))])
        for path, array in zip(paths[-1], arrays):
            Image.fromarray(array).save(path)
    return paths


def test_files_train_the_same_model(joint, phantoms, files):
    X, y = files
    model = quick(pos_label=255).fit(X, y, validation_data=(X, y))
    assert same_weights(model, joint)
    np.testing.assert_array_equal(model.coef_, joint.coef_)
    np.testing.assert_array_equal(model.classes_, [0, 255])
    np.testing.assert_array_equal(np.stack(model.predict(X)), 255 * joint.predict(phantoms[0]))
    assert model.score(X, y) == joint.score(*phantoms)


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


@pytest.mark.parametrize("training", ["cnn", "joint"])
def test_of_a_dataset_only_a_batch_is_held(training):
    data = Watched(*make_phantoms(24, shape=(24, 24), random_state=0))
    model = quick(training=training, pretrain_epochs=1, n_epochs=1).fit(data)
    model.predict(data)
    assert 0 <= model.score(data) <= 1
    assert data.most <= 2 * model.batch_size


def test_images_may_hold_anything(phantoms):
    X, y = phantoms
    kinds = [
        [x[:, :1] for x in X],
        [x[:1] for x in X],
        [x > 99 for x in X],
        [x.astype(np.uint16) * 257 for x in X],
        [(x / 255).astype(np.float16) for x in X],
        [np.stack([x] * 7, axis=-1) for x in X],
    ]
    for images in kinds:
        labels = [t[: x.shape[0], : x.shape[1]] for x, t in zip(images, y)]
        model = quick(pretrain_epochs=1, n_epochs=1).fit(images, labels)
        assert [l.shape for l in model.predict(images)] == [l.shape for l in labels]


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
    other = quick(ignore_label=7).fit(X, np.where(unlabelled == 255, 7, y))
    assert same_weights(model, other)
    np.testing.assert_array_equal(model.coef_, other.coef_)


def test_class_weight_brings_out_rare_foreground(phantoms):
    X, y = phantoms
    shares = [
        model.predict(X).mean()
        for model in (quick(class_weight=weights).fit(X, y) for weights in (None, {1: 20.0}, {0: 20.0}))
    ]
    assert shares[2] < shares[0] < shares[1]
    balanced = quick(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(balanced.class_weight_, 0.5 / np.array([1 - y.mean(), y.mean()]))


def test_sample_weight_weighs_images(phantoms):
    X, y = phantoms
    weights = np.array([1.0, 1, 1, 0, 0, 0])
    wrong = y.copy()
    wrong[3:] = 1 - y[3:]
    model = quick(pretrain_epochs=12).fit(X, wrong, sample_weight=weights)
    assert model.score(X, y) > 0.6
    assert quick(pretrain_epochs=12).fit(X, wrong).score(X, y) < 0.5
    weighted = model.score(X, wrong, sample_weight=weights)
    assert weighted == pytest.approx(model.score(X[:3], y[:3]))
    twice = quick().fit(X, y, sample_weight=2 * np.ones(6))
    assert same_weights(twice, quick().fit(X, y))


def test_images_with_nothing_in_them(phantoms):
    X, y = phantoms
    y = y.copy()
    y[:3] = 0
    empty = X.copy()
    empty[:3] = 128
    model = quick(pretrain_epochs=12).fit(empty, y)
    found = model.predict(empty)
    assert not found[:3].any()
    assert model.score(empty, y) == pytest.approx(np.mean(jaccard_indices(y[3:], found[3:])))


@pytest.mark.parametrize("training", ["cnn", "joint"])
def test_early_stopping_keeps_the_best_epoch(phantoms, training):
    X, y = phantoms
    # a rate under which nothing lasts
    rate = {"pretrain_learning_rate": 0.3} if training == "cnn" else {"learning_rate": 0.1}
    model = quick(
        training=training, n_epochs=8, early_stopping=True, n_iter_no_change=2, schedule="constant", **rate
    ).fit(X[:4], y[:4], validation_data=(X[4:], y[4:]))
    rows = [row["valid_jaccard"] for row in model.history_ if row["stage"] == training]
    # in joint training, the weights of the field are learned once more for the network that was kept
    tolerance = {"cnn": 1e-12, "joint": 0.05}[training]
    assert model.score(X[4:], y[4:]) == pytest.approx(max(rows), abs=tolerance)
    best = int(np.nanargmax(rows))
    assert len(rows) == best + 1 + 2 or len(rows) == {"cnn": 6, "joint": 9}[training]


def test_validation_images_may_be_a_fraction(phantoms):
    X, y = phantoms
    model = quick(validation_fraction=0.3, training="cnn").fit(X, y)
    kept, held_out = train_test_split(np.arange(6), test_size=0.3, random_state=np.random.RandomState(0))
    assert len(held_out) == 2
    given = quick(training="cnn").fit(X[kept], y[kept], validation_data=(X[held_out], y[held_out]))
    assert same_weights(model, given)
    rows = [[row["valid_jaccard"] for row in m.history_] for m in (model, given)]
    assert rows[0] == rows[1]


class Rates(Callback):
    """Keeps the learning rate of each step."""

    def __init__(self):
        self.rates = []

    def on_batch_begin(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25]), ("cosine", [1, 0.854, 0.5, 0.146])],
)
def test_schedules_of_both_stages(phantoms, schedule, expected):
    rates = Rates()
    quick(
        pretrain_epochs=2,
        pretrain_schedule=schedule,
        learning_rate=1e-3,
        schedule=schedule,
        callbacks=[("rates", rates)],
    ).fit(*phantoms)
    np.testing.assert_allclose(rates.rates, np.r_[1e-2 * np.array(expected), 1e-3 * np.array(expected)], rtol=1e-2)


def test_joint_training_may_change_images_otherwise_than_pretraining(phantoms):
    changed = {"augmentation": "standard"}
    pretrained = quick(training="cnn", **changed).fit(*phantoms)
    from_there = {"network": pretrained.network_, "pretrain_epochs": 0}
    models = {}
    for name in (None, "flip", "same"):
        models[name] = quick(joint_augmentation=name, **changed).fit(*phantoms)
        alone = quick().set_params(augmentation="standard" if name == "same" else name, **from_there).fit(*phantoms)
        assert same_weights(models[name], alone), name
        np.testing.assert_array_equal(models[name].coef_, alone.coef_)
    assert not same_weights(models[None], models["flip"])
    assert not same_weights(models["flip"], models["same"])


def test_callbacks_of_skorch_are_called_in_both_stages(phantoms, tmp_path):
    writer = SummaryWriter(tmp_path)
    model = quick(pretrain_epochs=2, n_epochs=1, callbacks=[TensorBoard(writer)]).fit(*phantoms)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    trained = [row for row in model.history_ if "loss" in row]
    for name, key in {"Loss/train_loss": "loss", "jaccard": "jaccard", "gamma": "gamma"}.items():
        written = [event.value for event in events.Scalars(name)]
        np.testing.assert_allclose(written, [row[key] for row in trained if key in row], rtol=1e-5)


@pytest.mark.parametrize("training", ["cnn", "piecewise", "joint"])
def test_the_network_alone_is_of_other_scale(phantoms, training):
    X, y = phantoms
    parameters = {"training": training, "pretrain_epochs": 2, "n_epochs": 1, "random_state": 0}
    half = DeepStructuredSegmenter(**parameters, network_scale=0.5).fit(X, y, validation_data=(X, y))
    assert half.predict(X).shape == y.shape
    by_hand = AnySize(half.network_, scale=0.5).eval()
    with torch.inference_mode():
        (log_odds,) = by_hand([torch.from_numpy(X[0])[None] / 255])
    np.testing.assert_allclose(half.decision_function(X[:1])[0], log_odds, rtol=1e-4, atol=1e-5)
    whole = DeepStructuredSegmenter(**parameters).fit(X, y)
    assert not np.allclose(half.decision_function(X), whole.decision_function(X))
    if training == "cnn":
        assert half.score(X, y) == pytest.approx(half.history_[-1]["valid_jaccard"])


@pytest.mark.parametrize("training", ["cnn", "piecewise", "joint"])
def test_of_several_scales_the_mean_counts_where_the_field_is_learned_and_in_prediction(phantoms, training, tmp_path):
    X, y = phantoms
    parameters = {"training": training, "pretrain_epochs": 3, "n_epochs": 1, "random_state": 0}
    model = DeepStructuredSegmenter(**parameters, network_scale=(1.0, 0.5)).fit(X, y, validation_data=(X, y))
    log_odds = model.decision_function(X)
    by_hand = AnySize(model.network_, scale=(1.0, 0.5)).eval()
    with torch.inference_mode():
        np.testing.assert_allclose(log_odds[0], by_hand([torch.from_numpy(X[0])[None] / 255])[0], rtol=1e-4, atol=1e-5)
    if training == "cnn":
        assert model.score(X, y) == pytest.approx(model.history_[-1]["valid_jaccard"])
    else:  # at the network as it is now
        crf = MaxMarginCRF(sigma=model.sigma_).fit(np.stack([log_odds, X / 255], axis=-1), y)
        np.testing.assert_allclose(model.coef_, crf.coef_, rtol=0.02, atol=0.02)
    model.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors").decision_function(X), log_odds)


@pytest.mark.parametrize("training", ["cnn", "piecewise", "joint"])
def test_with_the_mean_of_mirrored_images_left_and_right_are_alike(phantoms, training):
    X, y = phantoms
    model = DeepStructuredSegmenter(
        training=training, pretrain_epochs=3, n_epochs=1, average_mirrored=True, random_state=0
    ).fit(X, y, validation_data=(X, y))
    np.testing.assert_allclose(
        model.decision_function(X), model.decision_function(X[:, :, ::-1])[:, :, ::-1], rtol=1e-4, atol=1e-5
    )
    if training == "cnn":
        assert model.history_[-1]["valid_jaccard"] == pytest.approx(model.score(X, y))
