import time

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torchvision.transforms.v2 import RandomHorizontalFlip, RandomVerticalFlip

from skmmcrf import MaxMarginLoss, joint
from skmmcrf.energy import scale_image
from skmmcrf.image_datasets import AugmentedDataset, ImageDataset
from skmmcrf.joint import WeightUpdate, joint_net
from skmmcrf.labelings import Labelings
from skmmcrf.max_margin import learn_weights
from skmmcrf.networks import UNet
from skmmcrf.progress import EpochLines
from skmmcrf.quadratic_program import solve_program
from skmmcrf.random_states import seeded
from skmmcrf.training import compute_log_odds, history_rows
from skmmcrf.validation import check_labelled_images


@pytest.fixture
def problem(phantoms):
    images, truths = check_labelled_images(*phantoms)
    labelings = [Labelings(truth) for truth in truths]
    with seeded(0):
        network = UNet(1, width=8, depth=2)
    return network, images, labelings, MaxMarginLoss(0.01, sigma=0.2)


def train(network, images, labelings, loss, n_epochs=4, seed=0, training_set=None, **kwargs):
    net = joint_net(
        network,
        images,
        labelings,
        loss,
        n_epochs=n_epochs,
        learning_rate=3e-3,
        batch_size=2,
        device="cpu",
        seed=seed,
        **kwargs,
    )
    net.partial_fit(training_set or ImageDataset(images, labelings))
    return history_rows(net, stage="joint")


def gamma(network, images, labelings):
    """The optimum of (8) over all labelings, by Algorithm 1 from nothing."""
    log_odds = compute_log_odds(network, images, batch_size=6, device="cpu")
    fresh = [Labelings(stored.truth) for stored in labelings]
    scaled = [scale_image(image) for image in images]
    return learn_weights(log_odds, scaled, fresh, 0.01, connectivity=8, sigma=0.2, tol=1e-6, max_iter=100).value


def test_training_lowers_gamma(problem):
    network, images, labelings, _ = problem
    before = gamma(network, images, labelings)
    history = train(*problem)
    after = gamma(network, images, labelings)
    assert after < 0.8 * before
    assert history[-1]["gamma"] < history[0]["gamma"]


def test_gamma_of_an_epoch_is_that_of_the_labelings_of_its_batches(problem):
    _, images, labelings, loss = problem
    history = train(*problem, n_epochs=2)
    # what is stored was priced at the log-odds of its batch
    solution = solve_program(labelings, 0.01)
    assert history[-1]["gamma"] == pytest.approx(solution.value, rel=1e-6)
    np.testing.assert_allclose(loss.coef_, solution.w, rtol=1e-4)


def test_batches_of_changed_images_leave_the_weights_to_the_images_as_they_are(problem):
    network, images, labelings, loss = problem
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(net.criterion_.coef_.tolist())

    upside_down = AugmentedDataset(images, [s.known for s in labelings], RandomVerticalFlip(1.0))
    history = train(*problem, n_epochs=2, training_set=upside_down, callbacks=[("watch", Watch())])
    assert seen[:3] == [[1, 1, 1]] * 3
    assert seen[3] == seen[4] == seen[5] != seen[0]
    assert history[-1]["gamma"] == pytest.approx(gamma(network, images, labelings), rel=2e-3)
    np.testing.assert_allclose(loss.coef_, solve_program(labelings, 0.01).w, atol=0.05)


def test_training_on_changed_images_lowers_gamma_of_the_images_as_they_are(problem):
    network, images, labelings, _ = problem
    before = gamma(network, images, labelings)
    mirrored = AugmentedDataset(images, [s.known for s in labelings], RandomHorizontalFlip())
    train(*problem, training_set=mirrored)
    assert gamma(network, images, labelings) < 0.8 * before


def test_history_and_progress(problem, phantoms, capsys):
    images = problem[1]
    history = train(
        *problem,
        n_epochs=2,
        validation_data=(images, [s.known for s in problem[2]]),
        callbacks=[("progress", EpochLines("joint training"))],
    )
    assert [(row["stage"], row["epoch"]) for row in history] == [("joint", 1), ("joint", 2)]
    for row in history:
        assert set(row) == {"stage", "epoch", "loss", "gamma", "jaccard", "valid_jaccard", "seconds"}
        assert row["jaccard"] == row["valid_jaccard"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["joint training 1/2", "joint training 2/2"]
    assert all(word in lines[0] for word in ("gamma", "Jaccard", "validation", "s left"))


def test_seconds_hold_what_is_done_at_the_end_of_an_epoch(problem, monkeypatch):
    end = WeightUpdate.on_epoch_end

    def slow(self, net, **kwargs):
        time.sleep(0.3)
        end(self, net, **kwargs)

    monkeypatch.setattr(WeightUpdate, "on_epoch_end", slow)
    assert train(*problem, n_epochs=1)[0]["seconds"] >= 0.3


def test_batch_norm_statistics_are_kept(problem):
    _, images, labelings, loss = problem
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 1, 1)
    )
    train(network, images, labelings, loss, n_epochs=1)
    assert torch.equal(network[1].running_var, torch.ones(2))


def test_a_number_of_labelings_is_kept_from_epoch_to_epoch(problem, monkeypatch):
    monkeypatch.setattr(joint, "N_STORED", 3)
    train(*problem, n_epochs=3)
    assert max(map(len, problem[2])) == 3
