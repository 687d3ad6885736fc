import re

import numpy as np
import pytest

from skmmcrf import CNNSegmenter, MaxMarginCRF
from skmmcrf.networks import UNet


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def test_epoch_lines_tell_the_time_left(phantoms, capsys):
    CNNSegmenter(small_unet, n_epochs=3, random_state=0, verbose=1).fit(*phantoms)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"pretraining 2/3: loss \d\.\d{4}, Jaccard \d\.\d{4}, \d+\.\d s, \d+ s left", lines[1])
    assert lines[2].endswith(", 0 s left")


def test_epoch_bar_reaches_its_end(phantoms, capsys):
    CNNSegmenter(small_unet, n_epochs=3, batch_size=2, random_state=0, verbose=2).fit(*phantoms)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.split("\r")[-1]
    assert re.search(r"^pretraining: 100%\|.*\| 9/9 \[.*epoch 3/3: loss \d\.\d{4}, Jaccard \d\.\d{4}\]", last)


@pytest.fixture
def stacked(phantoms):
    X, y = phantoms
    return np.stack([2.0 * y - 1, X / 255], axis=-1), y


def test_pass_lines_and_bar_hold_the_bounds(stacked, capsys):
    crf = MaxMarginCRF(verbose=1).fit(*stacked)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == crf.n_iter_
    assert all(re.match(r"Algorithm 1, pass \d+: gamma between .* and .*, gap .*%", line) for line in lines)
    MaxMarginCRF(verbose=2).fit(*stacked)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(rf"Algorithm 1: {crf.n_iter_}pass .*gamma between .* and .*, gap .*%", err.split("\r")[-1])
