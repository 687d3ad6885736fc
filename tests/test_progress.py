import re
import subprocess
import sys

import numpy as np
import pytest
from skorch.callbacks import Callback

from skmmcrf import CNNSegmenter, MaxMarginCRF
from skmmcrf.networks import UNet


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def test_epoch_lines_tell_the_time_left(phantoms, capsys):
    CNNSegmenter(small_unet, n_epochs=3, random_state=0, verbose=1).fit(*phantoms)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"pretraining 2/3: Jaccard \d\.\d{3}, loss 0\.\d+, \d+\.\d s, \d+ s left", lines[1])
    assert lines[2].endswith(", 0 s left")


def test_epoch_bar_reaches_its_end(phantoms, capsys):
    CNNSegmenter(small_unet, n_epochs=3, batch_size=2, random_state=0, verbose=2).fit(*phantoms)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert re.search(r"^pretraining \|█+\| 9/9 \[.*3/3: Jaccard \d\.\d{3}, loss 0\.\d+\]", last)


@pytest.mark.parametrize(("columns", "shown"), [(60, 1), (80, 2), (120, 3)])
def test_epoch_bar_drops_values_for_which_there_is_no_room(phantoms, capsys, monkeypatch, columns, shown):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (columns, 24))
    X, y = phantoms
    CNNSegmenter(small_unet, n_epochs=1, random_state=0, verbose=2).fit(X, y, validation_data=(X, y))
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    values = ["Jaccard", "validation", "loss"]
    assert [name for name in values if name in last] == values[:shown]
    assert last.endswith("]")
    assert len(last) <= columns


def test_the_last_epoch_before_an_early_stop_is_shown(phantoms, capsys):
    X, y = phantoms
    stops = {"early_stopping": True, "n_iter_no_change": 1, "learning_rate": 1e-9, "schedule": "constant"}
    for verbose in (1, 2):
        cnn = CNNSegmenter(small_unet, n_epochs=9, random_state=0, verbose=verbose, **stops)
        cnn.fit(X, y, validation_data=(X, y))
        assert cnn.n_iter_ == 2
        out, err = capsys.readouterr()
        assert "2/9: Jaccard" in (out if verbose == 1 else err)
    assert re.search(r"\| 2/2 \[", err.split("\r")[-1])


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("it fails")


def test_an_error_closes_the_bar(phantoms, capsys):
    with pytest.raises(RuntimeError, match="it fails"):
        CNNSegmenter(small_unet, n_epochs=3, verbose=2, callbacks=[("fails", Fails())]).fit(*phantoms)
    assert capsys.readouterr().err.endswith("\n")


def test_tqdm_is_imported_only_for_bars():
    code = "import sys, skmmcrf; sys.exit('tqdm.auto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def stacked(phantoms):
    X, y = phantoms
    return np.stack([2.0 * y - 1, X / 255], axis=-1), y


def test_pass_lines_and_bar_hold_the_bounds(stacked, capsys):
    crf = MaxMarginCRF(verbose=1).fit(*stacked)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == crf.n_iter_
    assert all(re.match(r"Algorithm 1, pass \d+: gap .*%, gamma .* to .*", line) for line in lines)
    MaxMarginCRF(verbose=2).fit(*stacked)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(rf"Algorithm 1: {crf.n_iter_}pass .*gap .*%, gamma .* to .*", err.split("\r")[-1])
