import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from nets import pretraining_net
from skorch.callbacks import Callback, EpochTimer
from torch import nn
from torchvision.transforms.v2 import RandomVerticalFlip

from skmmcrf import MaxMarginLoss
from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages, check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.learning import CuttingPlanes, Example, solve_program
from skmmcrf.metrics import mean_jaccard
from skmmcrf.networks import UNet
from skmmcrf.networks.running import Runner
from skmmcrf.training import joint
from skmmcrf.training.batches import Batch
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.joint import HeldWeights, JaccardOfField, WeightsOfBatches, joint_net
from skmmcrf.training.net import history_rows
from skmmcrf.training.progress import EpochLines
from skmmcrf.training.random_states import seeded

ALGORITHMS = [HeldWeights, WeightsOfBatches]
RUNNER = Runner(batch_size=6, device="cpu")
C = 0.01


@dataclass
class Problem:
    """A network, a loss, images, and the examples that are learned from."""

    network: nn.Module
    data: LabelledImages
    loss: MaxMarginLoss
    examples: list

    @property
    def runner(self):
        n_labels = self.data.annotations[0].n_labels
        return RUNNER if n_labels == 2 else replace(RUNNER, n_maps=n_labels)

    def train(self, algorithm, n_epochs=4, augmentation=None, callbacks=(), **parameters):
        """Give the trained net."""
        algorithm = algorithm(self.data.images, self.examples)
        net = joint_net(
            self.network,
            algorithm,
            self.loss,
            self.runner,
            seed=0,
            lr=3e-3,
            callbacks=[("algorithm", algorithm), *callbacks],
            max_epochs=n_epochs,
            batch_size=2,
            **parameters,
        )
        return net.partial_fit(TrainingSet(self.data, Changes(augmentation)))

    def gamma(self):
        """The optimum of (8) over all labelings, by Algorithm 1 from nothing."""
        log_odds = self.runner.log_odds(self.network, self.data.images)
        energies = self.loss.field.energies(log_odds, self.data.images)
        return CuttingPlanes(C, tol=1e-6).learn(list(map(Example, energies, self.data.annotations))).value


@pytest.fixture
def problem(phantoms):
    data = check_labelled_images(*phantoms, LabelScheme())
    with seeded(0):
        network = UNet(1, width=8, depth=2)
    loss = MaxMarginLoss(C, sigma=0.2)
    energies = loss.field.energies(RUNNER.log_odds(network, data.images), data.images)
    return Problem(network, data, loss, list(map(Example, energies, data.annotations)))


@pytest.mark.parametrize(
    ("algorithm", "augmentation"), [(HeldWeights, None), (HeldWeights, "flip"), (WeightsOfBatches, None)]
)
def test_training_lowers_gamma(problem, algorithm, augmentation):
    before = problem.gamma()
    history = problem.train(algorithm, augmentation=augmentation).history
    assert problem.gamma() < 0.8 * before
    assert history[-1]["gamma"] < history[0]["gamma"]


def forward(problem, algorithm, log_odds):
    """Log-odds and gamma of all images in one batch, for a network that gives these log-odds."""
    net = joint_net(problem.network, algorithm, problem.loss, problem.runner, seed=0)
    batch = Batch.of_samples([TrainingSet(problem.data)[1, n] for n in range(len(problem.data))])
    net.log_odds = lambda stacks: [torch.stack([log_odds[n] for n in stack.numbers]) for stack in stacks]
    return algorithm.forward(net, batch.stacks)


def test_held_weights_give_what_the_most_violated_labelings_cost_there(problem):
    log_odds = [torch.from_numpy(example.energy.log_odds) for example in problem.examples]
    problem.loss.coef_ = w = np.array([0.5, 0.1, 0.3])
    _, gamma = forward(problem, HeldWeights(problem.data.images, problem.examples), log_odds)
    slack = []
    for example in problem.examples:
        truth, labels = example.annotation.truth, example.energy.most_violated(w, example.annotation)
        slack.append(np.count_nonzero(labels != truth) - w @ example.energy.difference(labels, truth))
    assert float(gamma) == pytest.approx(0.5 * w @ w + C * np.mean(slack))
    assert problem.loss.coef_ is w


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_of_a_batch_equals_finite_differences(algorithm):
    rng = np.random.default_rng(0)
    truths = [rng.uniform(size=shape) < 0.5 for shape in [(3, 4), (2, 5), (3, 4)]]
    log_odds = tuple(torch.from_numpy(2.0 * t - 1 + rng.normal(size=t.shape)).requires_grad_() for t in truths)
    images = [rng.uniform(size=(*t.shape, 1)).astype(np.float32) for t in truths]
    annotations = [Annotation(truth, weight=0.5 + n) for n, truth in enumerate(truths)]
    loss = MaxMarginLoss(0.1, sigma=0.3, tol=0.0)
    loss.coef_ = np.array([0.8, 0.3, 0.4])
    energies = loss.field.energies([l.detach().numpy() for l in log_odds], images)
    examples = list(map(Example, energies, annotations))
    problem = Problem(nn.Conv2d(1, 1, 1), LabelledImages(images, annotations), loss, examples)
    algorithm = algorithm(images, examples)
    assert torch.autograd.gradcheck(
        lambda *l: forward(problem, algorithm, l)[1], log_odds, eps=1e-6, atol=1e-6, rtol=1e-5
    )


class Weights(Callback):
    """Collects the weights of the field after each batch."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, net, **kwargs):
        self.seen.append(net.criterion_.coef_.tolist())


def test_weights_are_held_in_an_epoch_and_learned_after_it_on_images_as_they_are(problem):
    weights = Weights()
    net = problem.train(HeldWeights, n_epochs=2, augmentation=RandomVerticalFlip(1.0), callbacks=[("weights", weights)])
    assert weights.seen[:3] == [[1, 1, 1]] * 3
    assert weights.seen[3] == weights.seen[4] == weights.seen[5] != weights.seen[0]
    assert net.history[-1, "gamma"] == pytest.approx(problem.gamma(), rel=2e-3)
    np.testing.assert_allclose(problem.loss.coef_, solve_program(problem.examples, C).w, atol=0.05)


def test_weights_of_batches_are_followed_by_those_of_all_labelings_that_batches_found(problem):
    weights = Weights()
    net = problem.train(WeightsOfBatches, n_epochs=2, callbacks=[("weights", weights)])
    assert len(set(map(tuple, weights.seen))) == 6
    # what is stored was priced at the log-odds of its batch
    solution = solve_program(problem.examples, C)
    assert net.history[-1, "gamma"] == pytest.approx(solution.value, rel=1e-6)
    np.testing.assert_allclose(problem.loss.coef_, solution.w, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_number_of_labelings_is_kept_from_epoch_to_epoch(problem, monkeypatch, algorithm):
    monkeypatch.setattr(joint, "_N_STORED", 3)
    problem.train(algorithm, n_epochs=3)
    assert max(map(len, problem.examples)) == 3


def test_the_field_is_measured_and_shown(problem, capsys):
    callbacks = [
        ("jaccard", JaccardOfField(problem.data, problem.data.chosen([0, 1]))),
        ("seconds", EpochTimer()),
        ("progress", EpochLines("joint training", len(problem.data))),
    ]
    net = problem.train(HeldWeights, n_epochs=2, callbacks=callbacks)
    rows = history_rows(net, stage="joint")
    assert [(row["stage"], row["epoch"]) for row in rows] == [("joint", 1), ("joint", 2)]
    assert rows[0].keys() == {"stage", "epoch", "loss", "gamma", "jaccard", "valid_jaccard", "seconds"}
    log_odds = RUNNER.log_odds(problem.network, problem.data.images)
    energies = problem.loss.field.energies(log_odds, problem.data.images)
    labels = [energy.least(problem.loss.coef_) for energy in energies]
    truths = [annotation.truth for annotation in problem.data.annotations]
    assert rows[-1]["jaccard"] == pytest.approx(mean_jaccard(truths, labels))
    assert rows[-1]["valid_jaccard"] == pytest.approx(mean_jaccard(truths[:2], labels[:2]))
    _, _, names, *lines = capsys.readouterr().out.splitlines()
    assert names.split() == ["epoch", "loss", "gamma", "train", "valid", "seconds", "left"]
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]


def test_seconds_hold_what_is_done_at_the_end_of_an_epoch(problem, monkeypatch):
    end = HeldWeights.on_epoch_end

    def slow(self, net, **kwargs):
        time.sleep(0.3)
        end(self, net, **kwargs)

    monkeypatch.setattr(HeldWeights, "on_epoch_end", slow)
    net = problem.train(HeldWeights, n_epochs=1, callbacks=[("seconds", EpochTimer())])
    assert net.history[0, "dur"] >= 0.3


def test_batch_norm_statistics_are_kept(problem):
    problem.network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    problem.train(HeldWeights, n_epochs=1)
    assert torch.equal(problem.network[1].running_var, torch.ones(2))


@pytest.mark.parametrize("rates", [[], [("network.1.*", {"lr": 1e-6})]])
def test_training_goes_on_with_the_moments_that_are_given(problem, rates):
    problem.network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 1))
    moments = problem.train(HeldWeights, n_epochs=1, optimizer__param_groups=rates).moments
    shapes = [tuple(parameter.shape) for parameter in problem.network.parameters()]
    assert [of_one["exp_avg"].shape for of_one in moments.values()] == shapes
    net = problem.train(HeldWeights, n_epochs=0, moments=moments, optimizer__param_groups=rates)
    assert net.moments.keys() == moments.keys() == {"0", "1", "2", "3"}
    for n, of_one in moments.items():
        assert all(np.array_equal(net.moments[n][name], array) for name, array in of_one.items())


@pytest.fixture
def of_classes(phantoms):
    """A problem of three classes: the phantoms, with a class of its own in the upper part of the chamber."""
    X, y = phantoms
    y = y.copy()
    y[:, :16] *= 2
    data = check_labelled_images(X, y, LabelScheme(), find_classes=True)
    with seeded(0):
        network = UNet(1, width=8, depth=2, n_maps=3)
        net = pretraining_net(network, 6, n_maps=3, max_epochs=3, batch_size=2, lr=1e-2, optimizer=torch.optim.Adam)
        net.fit(TrainingSet(data))
    loss = MaxMarginLoss(C, sigma=0.2)
    energies = loss.field.energies(Runner(6, "cpu", n_maps=3).log_odds(network, data.images), data.images)
    return Problem(network, data, loss, list(map(Example, energies, data.annotations)))


@pytest.mark.parametrize(
    ("algorithm", "augmentation"), [(HeldWeights, None), (HeldWeights, "flip"), (WeightsOfBatches, None)]
)
def test_training_lowers_gamma_of_several_classes(of_classes, algorithm, augmentation):
    before = of_classes.gamma()
    callbacks = [("jaccard", JaccardOfField(of_classes.data, of_classes.data.chosen([0, 1])))]
    history = of_classes.train(algorithm, augmentation=augmentation, callbacks=callbacks).history
    assert of_classes.gamma() < 0.8 * before
    assert history[-1]["gamma"] < history[0]["gamma"]
    assert 0 < history[-1]["jaccard"] < 1


@pytest.mark.parametrize(("algorithm", "share"), [(HeldWeights, 0.8), (WeightsOfBatches, 1.0)])
def test_the_gradient_of_a_batch_of_several_classes_equals_finite_differences(algorithm, share):
    rng = np.random.default_rng(0)
    truths = [rng.integers(3, size=shape, dtype=np.uint8) for shape in [(3, 4), (2, 5), (3, 4)]]
    scores = tuple(
        torch.from_numpy(2.0 * np.eye(3)[t].transpose(2, 0, 1) + rng.normal(size=(3, *t.shape))).requires_grad_()
        for t in truths
    )
    images = [rng.uniform(size=(*t.shape, 1)).astype(np.float32) for t in truths]
    annotations = [
        # of labels that are completed anew for each w, gamma has kinks
        Annotation(t, rng.uniform(size=t.shape) < share, weight=0.5 + n, class_weight=(1.0, 2.0, 0.5))
        for n, t in enumerate(truths)
    ]
    loss = MaxMarginLoss(0.1, sigma=0.3, tol=0.0)
    loss.coef_ = np.array([0.8, 0.3, 0.4])
    energies = loss.field.energies([s.detach().numpy() for s in scores], images)
    examples = list(map(Example, energies, annotations))
    problem = Problem(nn.Conv2d(1, 3, 1), LabelledImages(images, annotations), loss, examples)
    algorithm = algorithm(images, examples)
    assert torch.autograd.gradcheck(
        lambda *s: forward(problem, algorithm, s)[1], scores, eps=1e-6, atol=1e-6, rtol=1e-5
    )


def test_changed_images_of_several_classes_keep_the_weights_of_these(of_classes):
    annotations = [a.weighted(0.5 + n, (1.0, 3.0, 0.5)) for n, a in enumerate(of_classes.data.annotations)]
    of_classes.examples = [Example(e.energy, a) for e, a in zip(of_classes.examples, annotations)]
    of_classes.loss.coef_ = w = np.array([0.5, 0.1, 0.3])
    scores = [torch.from_numpy(example.energy.scores) for example in of_classes.examples]
    _, value = forward(of_classes, HeldWeights(of_classes.data.images, of_classes.examples), scores)
    assert float(value) == pytest.approx(of_classes.loss.learner.objective(of_classes.examples, w))
