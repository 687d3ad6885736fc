import re
import sys

import numpy as np
import pytest
from nets import pretraining_net
from skorch.callbacks import EarlyStopping, EpochTimer
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF
from skmmcrf.datasets import make_phantoms
from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.callbacks import JaccardOfNetwork
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.progress import epoch_progress, pass_progress

LINE = r" +(\d)/(\d) +\S+( +[01]\.\d{3}){2} +\d+\.\d +\d+"


@pytest.fixture
def train(phantoms):
    """A function that trains on three batches an epoch."""
    X, y = phantoms
    data = LabelledImages([image[..., np.newaxis] for image in X], [Annotation(labels == 1) for labels in y])

    def run(verbose, callbacks=(), n_epochs=3):
        callbacks = [
            ("jaccard", JaccardOfNetwork(data)),
            ("seconds", EpochTimer()),
            *epoch_progress("pretraining", 6, verbose),
            *callbacks,
        ]
        net = pretraining_net(nn.Conv2d(1, 1, 1), 6, max_epochs=n_epochs, batch_size=2, callbacks=callbacks)
        net.fit(TrainingSet(data))

    return run


def test_lines_hold_the_measures_and_the_time_left(train, capsys):
    train(verbose=1)
    out, err = capsys.readouterr()
    heading, note, names, *lines = out.splitlines()
    assert heading == "Pretraining of the network (training images: 6)"
    assert (
        note == "  train, valid: mean Jaccard index of the training images while training and of the validation images"
    )
    assert names.split() == ["epoch", "loss", "train", "valid", "seconds", "left"]
    assert {len(line) for line in lines} == {len(names)}
    for n, line in enumerate(lines, 1):
        assert re.fullmatch(LINE, line).groups()[:2] == (str(n), "3")
    assert n == 3
    assert line.endswith(" 0")
    assert err == ""


def test_a_bar_shows_the_batches_of_an_epoch_beside_the_lines(train, capsys):
    train(verbose=2)
    out, err = capsys.readouterr()
    assert re.search(LINE, out.splitlines()[-1]).groups()[:2] == ("3", "3")
    assert "/3 [" in err


def test_a_bar_has_ended_where_a_line_is_printed(train, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    train(verbose=2)
    rows = [row.rpartition("\r")[2] for row in capsys.readouterr().out.splitlines()]
    assert len([row for row in rows if re.fullmatch(LINE, row)]) == 3


def test_the_last_epoch_before_an_early_stop_is_shown(train, capsys):
    stop = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs", sink=lambda *_: None)
    train(1, [("stop", stop)], n_epochs=9)
    assert re.fullmatch(LINE, capsys.readouterr().out.splitlines()[-1]).groups()[:2] == ("2", "9")


def test_nothing_is_shown_unless_it_is_asked_for(train, capsys):
    train(verbose=0)
    assert capsys.readouterr() == ("", "")


def test_a_pass_has_a_line_with_the_bounds_of_gamma(phantoms, capsys):
    X, y = phantoms
    crf = MaxMarginCRF(verbose=1).fit(np.stack([2.0 * y - 1, X / 255], axis=-1), y)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.startswith("Learning the weights of the field by Algorithm 1 (training images: 6;")
    assert len(lines) == crf.n_iter_
    for n, line in enumerate(lines, 1):
        assert re.fullmatch(rf"  pass {n}: gamma between [\d.]+ and [\d.]+, gap [\d.]+%", line)
    assert f"{crf.objective_:.5g}, " in line


def test_the_parts_of_a_pass_share_a_line(capsys):
    show = pass_progress(33, verbose=1)
    for report in ((1, 1.0, 4.0, 0.1), (1, 1.5, 3.0, 0.1), (2, 1.6, 2.0, 0.1), (2, 1.6, 2.5, 1.0), (3, 2.4, 2.5, 1.0)):
        show(*report)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  pass 1: gamma between 1.5 and about 3, gap about 50.00%",
        "  pass 2: gamma between 1.6 and 2.5, gap 36.00%",
        "  pass 3: gamma between 2.4 and 2.5, gap 4.00%",
    ]


@pytest.mark.parametrize(("n_images", "of"), [(4, "the training images"), (12, "the first 10 training images")])
def test_each_stage_has_a_heading_and_each_number_says_what_it_is_of(capsys, n_images, of):
    X, y = make_phantoms(n_images, shape=(16, 20), random_state=0)
    cnn = CNNSegmenter(lambda n_channels: nn.Conv2d(n_channels, 1, 3, padding=1), n_epochs=1, learning_rate=0.1)
    model = DeepStructuredSegmenter(cnn, n_epochs=1, random_state=0, verbose=1).fit(X, y, validation_data=(X, y))
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  pass")]
    learning, table = "Learning the", ["train, valid:", "epoch loss", "1/1 "]
    starts = ["Pretraining of", *table, learning, "before joint", "Joint training", *table, learning]
    assert [" ".join(line.split()).startswith(start) for line, start in zip(lines, starts, strict=True)]
    assert lines[1].endswith("of the training images while training and of the validation images")
    start, trained = (row for row in model.history_ if row["stage"] == "joint")
    indices = [f"{row[key]:.3f}" for row in (start, trained) for key in ("jaccard", "valid_jaccard")]
    before = (
        f"gamma {start['gamma']:.4g}, mean Jaccard index {indices[0]} of {of}, {indices[1]} of the validation images"
    )
    assert lines[5].endswith(before)
    assert lines[7] == f"  train, valid: mean Jaccard index of {of} and of the validation images"
    assert lines[9].split()[2:5] == [f"{trained['gamma']:.4g}", *indices[2:]]


def test_an_upper_bound_that_may_lack_labelings_is_never_called_proved(capsys):
    show = pass_progress(2, verbose=1, is_exact=False)
    show(1, 1.0, 2.0, 1.0)
    assert capsys.readouterr().out.splitlines()[-1] == "  pass 1: gamma between 1 and about 2, gap about 50.00%"
