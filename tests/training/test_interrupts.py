"""Ctrl-C, at any stage of training."""

import signal
import threading
import warnings

import numpy as np
import pytest
from comparing import everything
from nets import PLAIN
from skorch.callbacks import Callback

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF, load
from skmmcrf.estimators import segmenter as segmenters
from skmmcrf.images.sequences import Mapped
from skmmcrf.learning import CuttingPlanes
from skmmcrf.training.interrupts import Interrupted, ending_fit, noting_interrupts


@pytest.fixture(autouse=True)
def _interrupts_are_handled():
    """As they are not in processes that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC(Callback):
    """Presses Ctrl-C at a batch, of which an epoch has three."""

    def __init__(self, at_batch):
        self.left = at_batch

    def on_batch_begin(self, net, **kwargs):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


class StopsEarly(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


def cnn(*callbacks):
    return CNNSegmenter(**PLAIN, n_epochs=2, batch_size=2, callbacks=list(callbacks), device="cpu", random_state=0)


def segmenter(*callbacks, in_pretraining=(), checkpoint=None):
    return DeepStructuredSegmenter(
        cnn(*in_pretraining),
        n_epochs=3,
        batch_size=2,
        callbacks=list(callbacks),
        checkpoint=checkpoint,
        random_state=0,
    )


def fit_interrupted(model, *data):
    with pytest.warns(UserWarning, match="fit was interrupted. The estimator keeps what was trained") as record:
        model.fit(*data)
    assert record[0].filename == __file__
    return model


def assert_usable(model, X, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # callbacks can't be kept in files
        model.save(tmp_path / "model")
    labels = model.predict(X)
    assert set(np.unique(labels)) <= {0, 1}
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), labels)


def epochs(model):
    return [(row["stage"], row["epoch"]) for row in model.history_]


def test_of_the_network_alone_whole_epochs_are_kept(phantoms, tmp_path):
    model = fit_interrupted(cnn(("ctrl_c", CtrlC(5))), *phantoms)
    assert epochs(model) == [("cnn", 1)]
    assert_usable(model, phantoms[0], tmp_path)


def test_in_pretraining_the_network_is_kept_without_a_field(phantoms, tmp_path):
    model = fit_interrupted(segmenter(in_pretraining=[("ctrl_c", CtrlC(5))]), *phantoms)
    assert epochs(model) == [("cnn", 1)]
    assert model.objective_ is None
    assert_usable(model, phantoms[0], tmp_path)


def test_in_algorithm_1_the_network_is_kept_without_a_field(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(CuttingPlanes, "learn", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    model = fit_interrupted(segmenter(), *phantoms)
    assert epochs(model) == [("cnn", 1), ("cnn", 2)]
    assert model.objective_ is None
    assert_usable(model, phantoms[0], tmp_path)


def test_in_joint_training_network_and_field_are_kept(phantoms, tmp_path):
    model = fit_interrupted(segmenter(("ctrl_c", CtrlC(5))), *phantoms)
    assert epochs(model)[2:] == [("joint", 0), ("joint", 1)]
    assert np.isfinite(model.coef_).all()
    assert not np.array_equal(model.coef_, [1, 1, 1])
    assert np.isnan(model.objective_)
    assert model.dual_gap_ == np.inf
    assert not model.network_.training
    assert_usable(model, phantoms[0], tmp_path)


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
    assert_usable(model, Z, tmp_path)


def test_before_there_is_anything_to_keep_fit_is_just_interrupted(phantoms):
    X, y = phantoms

    def image(n):
        signal.raise_signal(signal.SIGINT)
        return X[n]

    model = segmenter()
    with pytest.raises(KeyboardInterrupt):
        model.fit(Mapped(image, range(6)), y)
    assert not hasattr(model, "network_")


def test_a_callback_ends_its_stage_only(phantoms):
    model = segmenter(("stop", StopsEarly()), in_pretraining=[("stop", StopsEarly())]).fit(*phantoms)
    assert epochs(model) == [("cnn", 1), ("joint", 0), ("joint", 1)]
    assert model.dual_gap_ <= 1e-3 * model.objective_


def test_an_interrupted_fit_goes_on_from_its_last_state(phantoms, tmp_path):
    expected = everything(segmenter().fit(*phantoms))
    fit_interrupted(segmenter(in_pretraining=[("ctrl_c", CtrlC(5))], checkpoint=tmp_path), *phantoms)
    fit_interrupted(segmenter(("ctrl_c", CtrlC(5)), checkpoint=tmp_path), *phantoms)
    assert everything(segmenter(checkpoint=tmp_path).fit(*phantoms)) == expected


def test_before_a_state_is_restored_an_estimator_that_can_be_kept_is_left(phantoms, tmp_path, monkeypatch):
    model = segmenter(checkpoint=tmp_path / "states").fit(*phantoms)
    monkeypatch.setattr(segmenters, "joint_net", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert_usable(fit_interrupted(model, *phantoms), phantoms[0], tmp_path)


def test_interrupts_are_noted_and_their_handler_stays():
    before = signal.getsignal(signal.SIGINT)
    with noting_interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert len(interrupts) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_is_noted_in_other_threads():
    noted = []

    def work():
        with noting_interrupts() as interrupts:
            noted.append(interrupts)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [[]]


def test_only_an_interrupt_of_training_ends_as_a_warning():
    with pytest.warns(UserWarning, match="fit was interrupted"), ending_fit():
        raise Interrupted
    with pytest.raises(KeyboardInterrupt), ending_fit():
        raise KeyboardInterrupt
