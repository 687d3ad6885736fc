import re

import numpy as np
import pytest
from nets import pretraining_net
from skorch.callbacks import EarlyStopping, EpochTimer
from torch import nn

from skmmcrf import MaxMarginCRF
from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.callbacks import JaccardOfNetwork
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.progress import epoch_progress

LINE = r"pretraining {}/{}: Jaccard \d\.\d{{3}}, validation \d\.\d{{3}}, loss \d+\.\d+, \d+\.\d s, \d+ s left"


@pytest.fixture
def train(phantoms):
    """A function that trains on three batches an epoch."""
    X, y = phantoms
    data = LabelledImages([image[..., np.newaxis] for image in X], [Annotation(labels == 1) for labels in y])

    def run(verbose, callbacks=(), n_epochs=3):
        callbacks = [
            ("jaccard", JaccardOfNetwork(data)),
            ("seconds", EpochTimer()),
            *epoch_progress("pretraining", verbose),
            *callbacks,
        ]
        net = pretraining_net(nn.Conv2d(1, 1, 1), 6, max_epochs=n_epochs, batch_size=2, callbacks=callbacks)
        net.fit(TrainingSet(data))

    return run


def test_lines_hold_the_measures_and_the_time_left(train, capsys):
    train(verbose=1)
    out, err = capsys.readouterr()
    for n, line in enumerate(out.splitlines(), 1):
        assert re.fullmatch(LINE.format(n, 3), line)
    assert n == 3
    assert line.endswith(", 0 s left")
    assert err == ""


def test_a_bar_shows_the_batches_of_an_epoch_beside_the_lines(train, capsys):
    train(verbose=2)
    out, err = capsys.readouterr()
    assert re.search(LINE.format(3, 3), out)
    assert "/3 [" in err


def test_the_last_epoch_before_an_early_stop_is_shown(train, capsys):
    stop = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs", sink=lambda *_: None)
    train(1, [("stop", stop)], n_epochs=9)
    assert re.fullmatch(LINE.format(2, 9), capsys.readouterr().out.splitlines()[-1])


def test_nothing_is_shown_unless_it_is_asked_for(train, capsys):
    train(verbose=0)
    assert capsys.readouterr() == ("", "")


def test_passes_are_shown_with_the_bounds_of_gamma(phantoms, capsys):
    X, y = phantoms
    crf = MaxMarginCRF(verbose=1).fit(np.stack([2.0 * y - 1, X / 255], axis=-1), y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == crf.n_iter_
    assert all(re.match(r"Algorithm 1, pass \d+: gap .*%, gamma .* to .*", line) for line in lines)
