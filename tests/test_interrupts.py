"""Ctrl-C, at any stage of training."""

import signal
import threading
import warnings

import numpy as np
import pytest
from skorch.callbacks import Callback

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, crf, load
from skmmcrf.interrupts import noting_interrupts
from skmmcrf.sequences import Mapped

QUICK = {"pretrain_epochs": 3, "n_epochs": 3, "batch_size": 2, "random_state": 0}


@pytest.fixture(autouse=True)
def _interrupts_are_handled():
    """As they are not in processes that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC(Callback):
    """Presses Ctrl-C at a batch, counted over both stages."""

    def __init__(self, at_batch):
        self.left = at_batch

    def on_batch_begin(self, net, **kwargs):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


class StopsEarly(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def fit_interrupted(model, *data):
    with pytest.warns(UserWarning, match="fit was interrupted; the estimator is left as it was trained until then"):
        return model.fit(*data)


def segmenter(at_batch, **parameters):
    return DeepStructuredSegmenter(callbacks=[("ctrl_c", CtrlC(at_batch))], **QUICK | parameters)


def check_usable(model, X, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # callbacks can't be kept in files
        model.save(tmp_path / "model")
    labels = model.predict(X)
    assert set(np.unique(labels)) <= {0, 1}
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), labels)


def test_in_pretraining_the_network_is_kept(phantoms, tmp_path):
    X, y = phantoms
    model = fit_interrupted(segmenter(5), X, y)
    assert [(row["stage"], row["epoch"]) for row in model.history_] == [("cnn", 1)]
    assert model.crf_ is None
    check_usable(model, X, tmp_path)


def test_in_joint_training_network_and_field_are_kept(phantoms, tmp_path):
    X, y = phantoms
    model = fit_interrupted(segmenter(9 + 5), X, y)
    assert [row["epoch"] for row in model.history_ if row["stage"] == "joint"] == [0, 1]
    assert model.crf_ is not None
    assert np.isfinite(model.coef_).all()
    assert not np.array_equal(model.coef_, [1, 1, 1])
    assert np.isnan(model.objective_)
    assert model.dual_gap_ == np.inf
    assert not model.network_.training
    check_usable(model, X, tmp_path)


def test_in_algorithm_1_the_network_is_kept(phantoms, tmp_path, monkeypatch):
    X, y = phantoms
    monkeypatch.setattr(crf, "learn_weights", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    model = fit_interrupted(DeepStructuredSegmenter(**QUICK), X, y)
    assert model.crf_ is None
    assert len(model.history_) == QUICK["pretrain_epochs"]
    check_usable(model, X, tmp_path)


def test_the_network_alone(phantoms, tmp_path):
    X, y = phantoms
    model = fit_interrupted(CNNSegmenter(n_epochs=3, batch_size=2, callbacks=[("ctrl_c", CtrlC(7))]), X, y)
    assert model.n_iter_ == 2
    check_usable(model, X, tmp_path)


def test_weights_for_the_labelings_that_were_found_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.uniform(size=(6, 20, 24)) < 0.5
    Z = np.stack([y + rng.normal(size=y.shape), rng.uniform(size=y.shape)], axis=-1)
    asked = []

    def image(n):
        asked.append(n)
        if len(asked) == 60:  # images are checked first, then cut in passes
            signal.raise_signal(signal.SIGINT)
        return Z[n]

    model = fit_interrupted(MaxMarginCRF(), Mapped(image, range(6)), y)
    whole = MaxMarginCRF().fit(Z, y)
    assert model.dual_gap_ == np.inf
    assert 0 < model.objective_ < whole.objective_
    check_usable(model, Z, tmp_path)


def test_before_there_is_anything_to_keep_fit_is_just_interrupted(phantoms):
    X, y = phantoms

    def image(n):
        signal.raise_signal(signal.SIGINT)
        return X[n]

    model = DeepStructuredSegmenter(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        model.fit(Mapped(image, range(6)), y)
    assert not hasattr(model, "network_")


def test_a_callback_ends_its_stage_only(phantoms):
    model = DeepStructuredSegmenter(callbacks=[("stop", StopsEarly())], **QUICK).fit(*phantoms)
    assert [(row["stage"], row["epoch"]) for row in model.history_] == [("cnn", 1), ("joint", 0), ("joint", 1)]
    assert model.dual_gap_ <= 1e-3 * model.objective_


@pytest.mark.parametrize("at_batch", [5, 14])
def test_an_interrupted_fit_goes_on_from_its_last_state(phantoms, tmp_path, at_batch):
    expected = DeepStructuredSegmenter(**QUICK).fit(*phantoms)
    model = fit_interrupted(segmenter(at_batch, checkpoint=tmp_path), *phantoms)
    model.set_params(callbacks=None).fit(*phantoms)
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    np.testing.assert_array_equal(model.decision_function(phantoms[0]), expected.decision_function(phantoms[0]))


def test_interrupts_are_noted_in_the_main_thread_only_and_their_handler_stays():
    before = signal.getsignal(signal.SIGINT)
    with noting_interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert len(interrupts) == 1
    assert signal.getsignal(signal.SIGINT) is before
    noted = []

    def work():
        with noting_interrupts() as interrupts:
            noted.append(interrupts)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [[]]
