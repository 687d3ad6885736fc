"""The factor by which a network sees images is found from the data, once, and kept wherever the network goes."""

import signal

import numpy as np
import pytest
from comparing import everything
from nets import PLAIN
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn as cnns
from skmmcrf.estimators.scale_search import ScaleSearch, TimeLimit, candidate_factors, search_scale
from skmmcrf.images.checking import check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.images.sequences import Mapped
from skmmcrf.networks import UNet

NAN = np.nan


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=1)


def auto(**parameters):
    """A segmenter whose short trainings have few steps."""
    defaults = {"network": small_unet, "network_scale": "auto", "n_epochs": 2, "batch_size": 3}
    return CNNSegmenter(**PLAIN | defaults | {"device": "cpu", "random_state": 0} | parameters)


def deep(cnn=None, **parameters):
    return DeepStructuredSegmenter(cnn or auto(), **{"n_epochs": 1, "random_state": 0} | parameters)


@pytest.fixture(scope="module")
def data():
    """Images that are large enough for three factors."""
    return make_phantoms(4, shape=(92, 96), random_state=0)


@pytest.fixture
def searches(monkeypatch):
    """A list of the searches that are made, each of which finds 0.7 without training."""
    made = []

    def fake(data, trial, factors, seed, **options):
        made.append((len(data), factors, seed))
        return search_scale(data, lambda factor, *_: (np.array([float(factor < 1)]), 1.0), factors, seed, **options)

    monkeypatch.setattr(cnns, "search_scale", fake)
    return made


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({1.0: [0.9, 0.8], 0.5: [0.5, 0.4]}, 1.0),
        ({1.0: [0.5, 0.4], 0.5: [0.9, 0.8]}, 0.5),
        ({1.0: [0.8, 0.6], 0.5: [0.7, 0.65], 0.25: [0.1, 0.1]}, 1.0),
        ({1.0: [0.8, 0.6, NAN], 0.5: [0.7, 0.65, NAN]}, 1.0),
        ({1.0: [0.8, 0.7], 0.5: [0.8, 0.7]}, 0.5),  # as good, and faster
        ({1.0: [NAN], 0.5: [NAN]}, 1.0),
        ({1.4: [NAN], 1.0: [NAN], 0.5: [NAN]}, 1.0),  # none is enlarged without a reason
        ({1.0: [NAN, NAN], 0.5: [0.2, 0.3]}, 0.5),
    ],
)
def test_the_factor_with_the_best_mean_is_taken(scores, expected):
    assert ScaleSearch({factor: np.array(indices) for factor, indices in scores.items()}).factor == expected


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(500, 700)], [0.25, 0.35, 0.5, 0.7, 1.0]),
        ([(700, 500), (32, 32), (5000, 5000)], [0.25, 0.35, 0.5, 0.7, 1.0]),  # of the median image
        ([(100, 700)], [0.7, 1.0]),
        ([(32, 40)], [1.0]),
        ([(46, 46)], [1.0]),
        ([(64, 80)], [1.0, 1.4]),
        ([(320, 240)], [0.35, 0.5, 0.7, 1.0, 1.4]),
        ([(50, 2000)], [0.35]),
        ([(3000, 4000)], [0.045, 0.06, 0.09, 0.125, 0.18]),
        ([(100_000, 100_000)], [0.03]),
    ],
)
def test_the_network_sees_neither_too_few_nor_too_many_pixels(shapes, expected):
    assert candidate_factors(shapes) == expected


def numbered(n_images):
    X = np.arange(n_images, dtype=np.uint8).reshape(-1, 1, 1) * np.ones((1, 4, 4), np.uint8)
    return check_labelled_images(X, np.ones_like(X), LabelScheme())


@pytest.mark.parametrize(
    ("n_images", "n_trials", "n_train", "n_held_out"),
    [(2, 2, 1, 1), (39, 3, 26, 13), (40, 3, 30, 10), (250, 3, 100, 50)],
)
def test_each_factor_is_compared_on_the_same_images_held_out(n_images, n_trials, n_train, n_held_out):
    seen = {0.5: [], 1.0: []}

    def trial(factor, n_steps, train, held_out):
        numbers = [[int(image[0, 0, 0]) for image in part.images] for part in (train, held_out)]
        assert not set(numbers[0]) & set(numbers[1])
        seen[factor].append((n_steps, numbers))
        return np.full(len(held_out), float(n_steps)), 2 * factor + len(seen[factor])

    found = search_scale(numbered(n_images), trial, [0.5, 1.0], seed=0)
    assert seen[0.5] == seen[1.0]
    assert [n_steps for n_steps, _ in seen[1.0]] == [120, *(n_trials - 1) * [300]]
    assert [(len(train), len(held_out)) for _, (train, held_out) in seen[1.0]] == n_trials * [(n_train, n_held_out)]
    assert len({number for _, (_, held_out) in seen[1.0] for number in held_out}) == n_trials * n_held_out
    assert found.means == {0.5: 300.0, 1.0: 300.0}  # of the longer trainings
    assert {len(indices) for indices in found.scores.values()} == {(n_trials - 1) * n_held_out}
    assert found.seconds == {0.5: 2.0, 1.0: 3.0}  # of the fastest trial
    assert found.factor == 0.5


def test_the_best_three_factors_have_longer_trainings():
    tried = []

    def trial(factor, n_steps, train, held_out):
        tried.append((factor, n_steps))
        of_short = {0.35: 0.1, 0.5: 0.5, 0.7: 0.4, 1.0: 0.6, 1.4: 0.3}
        return np.full(len(held_out), of_short[factor] if n_steps == 120 else factor), 1.0

    found = search_scale(numbered(40), trial, [0.35, 0.5, 0.7, 1.0, 1.4], seed=0)
    assert tried[:5] == [(0.35, 120), (0.5, 120), (0.7, 120), (1.0, 120), (1.4, 120)]
    assert tried[5:] == 2 * [(0.5, 300), (0.7, 300), (1.0, 300)]
    assert found.means == pytest.approx({0.5: 0.5, 0.7: 0.7, 1.0: 1.0})
    assert found.factor == 1.0
    assert [*found.seconds] == [0.35, 0.5, 0.7, 1.0, 1.4]


@pytest.mark.parametrize("without", [120, 300])
def test_images_that_have_an_index_decide_wherever_they_are(without):
    def trial(factor, n_steps, train, held_out):
        return np.full(len(held_out), np.nan if n_steps == without else factor), 1.0

    assert search_scale(numbered(6), trial, [0.5, 1.0, 1.4], seed=0).factor == 1.4


@pytest.mark.parametrize(
    ("seconds", "n_trials"),
    # at 0.5 and 1, ten steps take 5 and 10 s, 120 take 60 and 120, and 300 take 150 and 300
    [(184, 1), (185, 3), (634, 3), (635, 5), (1084, 5), (1085, 7)],
)
def test_trainings_are_made_only_if_the_time_allows(monkeypatch, seconds, n_trials):
    now, tried = 0.0, []
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def trial(factor, n_steps, train, held_out):
        nonlocal now
        now += factor * n_steps
        tried.append((factor, n_steps))
        return np.zeros(len(held_out)), factor

    found = search_scale(numbered(40), trial, [0.5, 1.0], seed=0, limit=TimeLimit(search=seconds))
    assert tried == [(0.5, 10), (0.5, 120), (1.0, 120), *2 * [(0.5, 300), (1.0, 300)]][:n_trials]
    assert found.factor == 0.5


@pytest.mark.parametrize(
    ("factors", "limit"),
    [
        ([0.25, 0.5], TimeLimit(search=0.0)),
        ([0.25, 0.5], TimeLimit(of_image=1.9)),
        ([0.25], TimeLimit(search=1e9)),
    ],
)
def test_a_factor_that_has_no_rival_is_measured_by_a_few_steps(factors, limit, capsys):
    tried = []

    def trial(factor, n_steps, train, held_out):
        tried.append((factor, n_steps))
        return np.zeros(len(held_out)), 1.0

    found = search_scale(numbered(3), trial, factors, seed=0, limit=limit, verbose=1)
    assert tried == [(0.25, 10)]
    assert (found.factor, found.seconds, found.scores) == (0.25, {0.25: 1.0}, {})
    assert capsys.readouterr().out == "first steps with network_scale=0.25: 3.0 s an epoch of all images\n"


def test_no_factor_is_tried_at_which_training_would_take_too_long():
    tried = []

    def trial(factor, n_steps, train, held_out):
        tried.append(factor)
        return np.zeros(len(held_out)), factor**2

    search_scale(numbered(3), trial, [0.25, 0.5, 1.0, 1.4], seed=0, limit=TimeLimit(of_image=1.1))
    assert tried == [0.25, *3 * [0.25, 0.5, 1.0]]
    tried.clear()
    # 1.4 is expected to take at least 1.4 s, and takes 1.96
    found = search_scale(numbered(3), trial, [0.5, 1.0, 1.4], seed=0, limit=TimeLimit(of_image=1.5))
    assert tried == [0.5, 0.5, 1.0, 1.4] + 2 * [0.5, 1.0]
    assert [*found.seconds] == [*found.scores] == [0.5, 1.0]


def test_a_factor_is_found_by_training_and_the_same_each_time(data, capsys):
    model = auto(verbose=1).fit(*data)
    assert model.network_scale_ in (0.7, 1.0, 1.4)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("short training")]
    assert ["network_scale=0.7:" in line for line in lines] == [True, False, False]
    by_hand = auto(network_scale=model.network_scale_).fit(*data)
    for same in (auto(), clone(model), auto().set_params(random_state=np.random.RandomState(0))):
        assert same.fit(*data).network_scale_ == model.network_scale_
    np.testing.assert_array_equal(by_hand.decision_function(data[0]), model.decision_function(data[0]))


def test_a_network_that_sees_little_is_given_small_images(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.zeros((6, 132, 128), np.uint8)
    for mask in y:
        top, left = rng.integers(60, size=2)
        mask[top : top + 64, left : left + 64] = 1
    X = (y + 2 * rng.normal(size=y.shape)).astype(np.float32)
    monkeypatch.setattr("skmmcrf.estimators.scale_search.N_STEPS", (14, 15))
    cnn = auto(network=nn.Conv2d(1, 1, 3, padding=1), n_epochs=30, learning_rate=0.3)
    search = cnn.search_scale(check_labelled_images(X, y, LabelScheme()))
    assert search.ranked[:2] == [0.5, 0.7]
    assert search.factor == 0.5


def test_short_trainings_have_so_many_steps_and_leave_out_what_watches_training(data, tmp_path, monkeypatch):
    short = []
    train = CNNSegmenter.train
    monkeypatch.setattr(CNNSegmenter, "train", lambda cnn, *args: short.append(cnn) or train(cnn, *args))
    parameters = {"checkpoint": tmp_path, "callbacks": [("one", cnns.JaccardOfNetwork(None))], "early_stopping": True}
    of_search = auto(n_epochs=100, **parameters)
    monkeypatch.setattr("skmmcrf.estimators.scale_search.N_STEPS", (5, 6))
    of_search.search_scale(check_labelled_images(*data, LabelScheme()))
    assert len(short) == 9
    assert [cnn.n_epochs for cnn in short] == 3 * [5] + 6 * [6]  # a step an epoch
    assert all((cnn.checkpoint, cnn.callbacks, cnn.early_stopping) == (None, None, False) for cnn in short)
    assert not [*tmp_path.iterdir()]
    short.clear()
    of_search.set_params(n_epochs=2).search_scale(check_labelled_images(*data, LabelScheme()))
    assert {cnn.n_epochs for cnn in short} == {2}


def test_images_without_foreground_or_weight_do_not_count(data):
    y = data[1].copy()
    y[:2] = 0
    given = check_labelled_images(data[0], y, LabelScheme()).weighted([1, 1, 1, 0])
    indices, _ = auto()._try_scale(0, 1.0, 1, given.chosen([0, 2]), given)
    assert np.isnan(indices).tolist() == [True, True, False, True]


@pytest.mark.parametrize("parameters", [{"n_epochs": 0}, {"images": 1}, {}])
def test_without_a_choice_nothing_is_searched(data, searches, parameters):
    X, y = data
    if parameters.pop("images", 0):
        with pytest.raises(ValueError, match="leaves one image to train on. Give more images, or a number as network"):
            auto().fit(X[:1], y[:1])
        return
    if not parameters:
        X, y = X[:, :63, :63], y[:, :63, :63]
    assert auto(**parameters).fit(X, y).network_scale_ == 1.0
    assert not searches


def test_what_is_given_is_what_is_kept(data, tmp_path):
    for given, kept in [(0.5, 0.5), (1, 1.0), ((1.0, np.int64(2)), [1.0, 2.0]), ([0.5], [0.5])]:
        model = auto(network_scale=given, n_epochs=0).fit(*data)
        model.save(tmp_path / "model")
        assert model.network_scale_ == load(tmp_path / "model", network=small_unet).network_scale_ == kept


def test_a_further_fit_searches_anew_and_a_number_needs_no_search(data, searches):
    model = auto().fit(*data)
    assert model.network_scale_ == 0.7
    assert model.set_params(network_scale=1.0).fit(*data).network_scale_ == 1.0
    expected = auto(network_scale=1.0).fit(*data)
    np.testing.assert_array_equal(model.decision_function(data[0]), expected.decision_function(data[0]))
    model.set_params(network_scale="auto").fit(*data)
    assert len(searches) == 2


@pytest.mark.parametrize("training", ["cnn", "piecewise", "joint", "joint_by_batch"])
def test_a_factor_found_is_used_in_all_ways_of_training_and_kept_in_files(training, data, searches, tmp_path):
    model = deep("unet", training=training, augmentation=None)
    model.set_params(cnn=small_unet, cnn__network_scale="auto", cnn__n_epochs=1)
    model.fit(*data).save(tmp_path / "model")
    assert model.cnn_.network_scale_ == 0.7
    same = load(tmp_path / "model", network=small_unet)
    assert (same.cnn_.network_scale, same.cnn_.network_scale_) == ("auto", 0.7)
    given = clone(model).set_params(cnn__network_scale=0.7).fit(*data)
    for other in (same, given):
        np.testing.assert_array_equal(other.decision_function(data[0]), model.decision_function(data[0]))
    assert len(searches) == 1


def test_a_warm_start_and_a_frozen_network_keep_the_factor(data, searches):
    model = deep(warm_start=True).fit(*data)
    assert model.fit(*data).cnn_.network_scale_ == 0.7
    assert deep(FrozenEstimator(model.cnn_)).fit(*data).cnn_.network_scale_ == 0.7
    assert len(searches) == 1


def test_the_memory_keeps_the_factor_too(data, searches, tmp_path):
    models = [deep(memory=str(tmp_path), training=training).fit(*data) for training in ("cnn", "piecewise")]
    assert [model.cnn_.network_scale_ for model in models] == [0.7, 0.7]
    assert len(searches) == 1
    further = [deep(auto(network_scale=scale), memory=str(tmp_path)).fit(*data) for scale in (1.0, (1.0, 0.5))]
    assert [model.cnn_.network_scale_ for model in further] == [1.0, [1.0, 0.5]]
    assert len(searches) == 1
    deep(auto(average_mirrored=True), memory=str(tmp_path)).fit(*data)  # which has an influence on the search
    assert len(searches) == 2


@pytest.mark.parametrize("ensemble", [False, True])
def test_networks_of_folds_have_the_same_factor(ensemble, data, searches, tmp_path):
    model = deep(cv=2, ensemble=ensemble, memory=str(tmp_path)).fit(*data)
    assert (model.cnn_.network_scale, model.cnn_.network_scale_) == ("auto", 0.7)
    assert [n_images for n_images, _, _ in searches] == [4]
    given = clone(model).set_params(cnn__network_scale=0.7, memory=None).fit(*data)
    np.testing.assert_array_equal(given.coef_, model.coef_)
    np.testing.assert_array_equal(given.decision_function(data[0]), model.decision_function(data[0]))


@pytest.mark.parametrize("kept_by", ["memory", "checkpoint", "cnn__checkpoint"])
def test_the_factor_of_an_ensemble_is_kept_before_its_networks_are_trained(
    kept_by, data, searches, tmp_path, monkeypatch
):
    def make():
        return deep(cv=2, ensemble=True).set_params(**{kept_by: str(tmp_path)})

    with monkeypatch.context() as patched:
        patched.delattr("skmmcrf.estimators.segmenter.fit_once")
        with pytest.raises(NameError):
            make().fit(*data)
    model = make().fit(*data)
    assert len(searches) == 1
    assert everything(model) == everything(deep(cv=2, ensemble=True).fit(*data))


class Stops(Exception):
    """Ends training from outside."""


@pytest.mark.parametrize("of_outer", [False, True])
def test_a_fit_that_goes_on_from_a_state_searches_no_more(of_outer, data, searches, tmp_path, monkeypatch):
    make = (lambda: deep(checkpoint=tmp_path)) if of_outer else (lambda: auto(checkpoint=tmp_path))
    write, left = cnns.Checkpoints.write, iter(range(4 if of_outer else 2))

    def write_some(checkpoints, state):
        write(checkpoints, state)
        if next(left, None) is None:
            raise Stops

    with monkeypatch.context() as patched:
        patched.setattr(cnns.Checkpoints, "write", write_some)
        with pytest.raises(Stops):
            make().fit(*data)
    expected = everything(make().set_params(checkpoint=None).fit(*data))
    assert len(searches) == 2
    assert everything(make().fit(*data)) == expected
    assert len(searches) == 2


def test_an_interrupted_search_leaves_nothing_and_ends_as_before_training(data, monkeypatch):
    class CtrlC(nn.Conv2d):
        def forward(self, images):
            if self.training:
                signal.raise_signal(signal.SIGINT)
            return super().forward(images)

    monkeypatch.setattr("skmmcrf.estimators.cnn.try_network", lambda *_: None)
    for model in (auto(), deep().set_params(cnn=auto())):
        network = CtrlC(1, 1, 3, padding=1)
        model.set_params(**{"network" if isinstance(model, CNNSegmenter) else "cnn__network": network})
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                model.fit(*data)
        finally:
            signal.signal(signal.SIGINT, before)
        assert not [name for name in vars(model) if name.endswith("_")]


def test_what_is_wrong_is_told_before_the_search(data, searches):
    X, y = data
    mirrors = nn.Sequential(nn.ReflectionPad2d(40), nn.Conv2d(1, 1, 81))  # takes no small images
    for parameters, arguments, message in [
        ({"network_scale": "automatic"}, {}, "'network_scale' parameter of CNNSegmenter must be"),
        ({"network": nn.Conv2d(3, 1, 1)}, {}, "network: it can't take an image of shape"),
        ({"device": "nonsense"}, {}, "device: 'nonsense' is not available"),
        ({"network": mirrors}, {"validation_data": (X[:, :25], y[:, :25])}, r"can't take .* \(number 0 of the valid"),
    ]:
        with pytest.raises(ValueError, match=message):
            auto(**parameters).fit(X, y, **arguments)
    assert not searches


def test_datasets_that_change_are_told_before_the_search(data, searches):
    calls = []

    def changing(n):
        calls.append(n)
        return data[0][n] + np.uint8(len(calls)), data[1][n]

    with pytest.raises(ValueError, match="changes each time that it is read"):
        auto().fit(Mapped(changing, range(4)))
    assert not searches


def test_only_images_to_train_on_are_used(data, searches):
    model = deep(auto(validation_fraction=0.5)).fit(*data)
    assert model.cnn_.network_scale_ == 0.7
    assert [n_images for n_images, _, _ in searches] == [2]


def test_a_search_in_no_time_measures_the_smallest_factor(data):
    found = auto(n_epochs=1).search_scale(check_labelled_images(*data, LabelScheme()), limit=TimeLimit(search=0.0))
    assert (found.factor, found.scores) == (0.7, {})
    assert found.seconds[0.7] > 0
