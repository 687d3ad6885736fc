"""Joint training of network and conditional random field.

Two algorithms share a net. `HeldWeights` holds the weights of the field within an epoch, and learns them anew after it.
`WeightsOfBatches` is Algorithm 2 of the paper, which learns the weights in each batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn

from skmmcrf.field.energy import LARGEST_LOG_ODDS, least_labelings, sources
from skmmcrf.field.labels import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.images.tensors import scaled
from skmmcrf.learning import Example, solve_program
from skmmcrf.metrics.means import jaccard_of_annotations, mean_of_defined
from skmmcrf.networks.running import Runner
from skmmcrf.training.batches import Batch, ShuffledOrder, Stack
from skmmcrf.training.loss import MaxMarginLoss, Part
from skmmcrf.training.net import SegmentationNet, largest_of, segmentation_net

#: How many of the training images the Jaccard index is measured of, which takes a cut and a run of the network each.
N_WATCHED = 10
# how many labelings of an image are kept from epoch to epoch
_N_STORED = 20

#: Adam's moments of each parameter, by its number in the network.
Moments: TypeAlias = dict[str, dict[str, np.ndarray]]


class JointNet(SegmentationNet):
    """A skorch net with `MaxMarginLoss` as its criterion, trained by an algorithm."""

    stage = "joint training"
    largest_log_odds = LARGEST_LOG_ODDS
    algorithm: "HeldWeights | WeightsOfBatches"

    def forward_stacks(self, stacks: Sequence[Stack]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Give the log-odds (n, H, W), or scores (n, K, H, W), of each stack, and gamma of all."""
        return self.algorithm.forward(self, stacks)

    def log_odds(self, stacks: Sequence[Stack]) -> list[torch.Tensor]:
        """Give the log-odds (n, H, W), or scores (n, K, H, W), of each stack, after a check that cuts can take them."""
        log_odds = self.module_.of_stacks([scaled(s.images) for s in stacks], [s.name for s in stacks])
        self.check({"log-odds": (largest_of(log_odds), self.largest_log_odds)})
        return log_odds

    @property
    def moments(self) -> Moments:
        """The moments of the parameters that were trained."""
        state = self.optimizer_.state
        return {
            str(n): {name: tensor.numpy(force=True) for name, tensor in state[parameter].items()}
            for n, parameter in enumerate(self.module_.parameters())
            if parameter in state
        }

    @moments.setter
    def moments(self, moments: Moments) -> None:
        groups = self.optimizer_.state_dict()["param_groups"]
        parameters = [*self.module_.parameters()]
        in_order = [parameter for group in self.optimizer_.param_groups for parameter in group["params"]]
        place = {parameter: n for n, parameter in enumerate(in_order)}  # the optimizer counts group by group
        state = {
            place[parameters[int(n)]]: {name: torch.tensor(array) for name, array in of_one.items()}
            for n, of_one in moments.items()
        }
        self.optimizer_.load_state_dict({"state": state, "param_groups": groups})


class _Algorithm(Callback):
    """Base of both algorithms: examples of the unchanged training images, whose stored labelings last.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W, channels)
    examples : sequence of Example
    learns : bool, default=True
        Whether the weights of the field are learned.

    Attributes
    ----------
    is_at_end_of_epoch : bool
        Whether the examples have the log-odds of the network as it is at the end of an epoch.
    """

    is_at_end_of_epoch = False

    def __init__(self, images: Sequence[np.ndarray], examples: Sequence[Example], *, learns: bool = True) -> None:
        self.images = images
        self.examples = examples
        self.learns = learns

    def state_dict(self) -> dict[str, Any]:
        """Give the stored labelings."""
        return {"examples": [example.state_dict() for example in self.examples]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them."""
        for example, of_one in zip(self.examples, state["examples"], strict=True):
            example.load_state_dict(of_one)


class HeldWeights(_Algorithm):
    """Within an epoch w is held, and a batch takes one cut an image. Images may be changed at random.

    After the epoch, Algorithm 1 learns w on all images without changes, at the new log-odds of the network. Changed
    images have ragged outlines and unknown borders. Weights learned on them would be those of another field.
    """

    is_at_end_of_epoch = True

    def forward(self, net: JointNet, stacks: Sequence[Stack]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Give log-odds, and the objective of a batch at the weights.

        Images count each by itself, so one half is cut while the network runs on the other, if both may overlap.
        """
        loss: MaxMarginLoss = net.criterion_
        middle = (len(stacks) + 1) // 2 if net.runner.may_overlap else len(stacks)
        log_odds: list[torch.Tensor] = []

        def parts() -> Iterator[Part]:
            for half in filter(None, (stacks[:middle], stacks[middle:])):
                log_odds.extend(net.log_odds(half))
                images = [image for stack in half for image in stack.images.movedim(1, -1).numpy(force=True)]
                annotations = [annotation for stack in half for annotation in self._annotations(stack)]
                yield [l for of_stack in log_odds[-len(half) :] for l in of_stack], annotations, images

        return log_odds, loss.at_weights(parts())

    def _annotations(self, stack: Stack) -> list[Annotation]:
        """The labels of changed images, with the weights of the unchanged ones."""
        of_images = [self.examples[n].annotation for n in stack.numbers]
        parts = zip(stack.truth.numpy(force=True), stack.labelled.numpy(force=True), of_images)
        return [Annotation(*part, weight=old.weight, class_weight=old.class_weight) for *part, old in parts]

    def on_epoch_end(self, net: JointNet, **kwargs: Any) -> None:
        """Learn the weights if they are learned, and record gamma of all images."""
        reprice(self.examples, net.runner.log_odds(net.module.network, self.images))
        loss: MaxMarginLoss = net.criterion_
        if not self.learns:
            net.history.record("gamma", loss.learner.objective(self.examples, loss.coef_))
            return
        solution = loss.learn(self.examples)
        for example in self.examples:
            example.keep_most_violated(solution.w, _N_STORED)
        net.history.record("gamma", solution.value)


class WeightsOfBatches(_Algorithm):
    """Algorithm 2 of the paper: each batch learns its own w, by Algorithm 1 on its unchanged images.

    After the epoch, (8) is solved over the stored labelings of all images, at the log-odds from their batch.
    """

    def forward(self, net: JointNet, stacks: Sequence[Stack]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Give log-odds, and the optimum of the batch."""
        loss: MaxMarginLoss = net.criterion_
        log_odds = net.log_odds(stacks)
        of_images = [l for of_stack in log_odds for l in of_stack]
        examples = [self.examples[n] for stack in stacks for n in stack.numbers]
        reprice(examples, [l.numpy(force=True) for l in of_images])
        gamma = loss.of_examples(of_images, examples)
        for example in examples:
            example.keep_most_violated(loss.coef_, _N_STORED)
        return log_odds, gamma

    def on_epoch_end(self, net: JointNet, **kwargs: Any) -> None:
        """Solve for the weights of all images, and record gamma."""
        solution = solve_program(self.examples, net.criterion_.learner.C, net.criterion_.coef_)
        net.criterion_.coef_ = solution.w
        net.history.record("gamma", solution.value)


class JaccardOfField(Callback):
    """Record the mean Jaccard index of the first training images and of the validation images under the weights."""

    def __init__(self, data: LabelledImages, validation: LabelledImages | None) -> None:
        watched = data.chosen(range(min(len(data), N_WATCHED)))
        self.measured = {"jaccard": watched} | ({} if validation is None else {"valid_jaccard": validation})

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the indices."""
        loss = net.criterion_
        for name, data in self.measured.items():
            if name == "jaccard" and net.algorithm.is_at_end_of_epoch:
                energies = (example.energy for example in net.algorithm.examples[: len(data)])
            else:
                results = net.runner.run(net.module.network, data.images)
                energies = (loss.field.energy(log_odds, image) for log_odds, image in results)
            labelings = least_labelings(loss.coef_, energies, loss.learner.n_jobs, overlap=net.runner.may_overlap)
            net.history.record(name, mean_of_defined(jaccard_of_annotations(data.annotations, labelings)))


def reprice(examples: Sequence[Example], log_odds: Sequence[np.ndarray]) -> None:
    """Give examples changed log-odds or scores, a list or another sequence of arrays (H, W) or (K, H, W)."""
    for example, values in zip(examples, sources(log_odds), strict=True):
        example.reprice(example.energy.with_unary(values))


def joint_net(
    network: nn.Module,
    algorithm: HeldWeights | WeightsOfBatches,
    loss: MaxMarginLoss,
    runner: Runner,
    *,
    seed: int,
    moments: Moments | None = None,
    **parameters: Any,
) -> JointNet:
    """Make a net that trains a network in place on the max-margin objective, in batches, by Adam.

    Batch-norm statistics are kept. The history has gamma, the value of (8) after the epoch.

    Parameters
    ----------
    network : torch.nn.Module
    algorithm : HeldWeights or WeightsOfBatches
        Of the images that the net is fitted to. It has to be among the callbacks.
    loss : MaxMarginLoss
        The first batch starts from its `coef_`.
    runner : Runner
        How the fitted network will be run.
    seed : int
        Of the order of images.
    moments : dict, optional
        Adam's moments to go on with. See `JointNet.moments`.
    **parameters
        Further parameters of skorch's NeuralNet.
    """
    net = segmentation_net(
        JointNet,
        network,
        loss,
        runner,
        ShuffledOrder(len(algorithm.images), seed),
        freeze_batch_norm=True,
        collate=Batch.of_halves if runner.may_overlap else Batch.of_samples,
        optimizer=torch.optim.Adam,
        **parameters,
    )
    net.algorithm = algorithm
    if moments is not None:
        net.moments = moments
    return net
