"""Losses of pretraining, of log-odds or scores against the annotated labels, pixel by pixel or by overlap."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from skmmcrf.training.batches import Stack


class PixelLoss(nn.Module, ABC):
    """Base of losses that give each image a number. The loss of a batch is their mean, by the weights of the images."""

    def forward(self, log_odds: Sequence[torch.Tensor], stacks: Sequence[Stack]) -> torch.Tensor:
        """Compute it from the log-odds (n, H, W), or scores (n, K, H, W), of each stack of images."""
        return torch.cat([stack.weights[:, 0] * self.of_images(l, stack) for l, stack in zip(log_odds, stacks)]).mean()

    @abstractmethod
    def of_images(self, log_odds: torch.Tensor, stack: Stack) -> torch.Tensor:
        """Compute the loss (n,) of each image of a stack."""


class PixelwiseLogLikelihood(PixelLoss):
    """Mean negative log-likelihood of the labelled pixels of an image, weighted by their classes."""

    def of_images(self, log_odds: torch.Tensor, stack: Stack) -> torch.Tensor:
        """Compute the loss (n,) of each image of a stack."""
        if stack.n_labels == 2:
            losses = F.binary_cross_entropy_with_logits(
                log_odds, stack.truth.to(log_odds), stack.pixel_weights, reduction="none"
            )
        else:
            losses = stack.pixel_weights * F.cross_entropy(log_odds, stack.truth.long(), reduction="none")
        return losses.sum(dim=(1, 2)) / stack.labelled.sum(dim=(1, 2)).clamp(min=1)


class DiceLoss(PixelLoss):
    """One minus the Dice index of probabilities and truth.

    As in Milletari, Navab, Ahmadi, "V-Net" (2016), but with sums in the denominator instead of squares. One pixel is
    added to numerator and denominator, so that images without foreground have a loss too. For more than two classes it
    is the mean over the classes that occur in the stack, each against all others.
    """

    def of_images(self, log_odds: torch.Tensor, stack: Stack) -> torch.Tensor:
        """Compute the loss (n,) of each image of a stack."""
        is_binary, truth, weights = stack.n_labels == 2, stack.regions, stack.pixel_weights[:, None]
        probabilities = torch.sigmoid(log_odds)[:, None] if is_binary else log_odds.softmax(dim=1)
        overlap = (weights * probabilities * truth).sum(dim=(2, 3))
        sizes = (weights * (probabilities + truth)).sum(dim=(2, 3))
        losses = 1 - (2 * overlap + 1) / (sizes + 1)
        if is_binary:
            return losses[:, 0]
        occurs = truth.any(dim=(0, 2, 3))
        return (losses * occurs).sum(dim=1) / occurs.sum().clamp(min=1)


class SumOfLosses(PixelLoss):
    """Log-likelihood and Dice loss together."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = PixelwiseLogLikelihood(), DiceLoss()

    def of_images(self, log_odds: torch.Tensor, stack: Stack) -> torch.Tensor:
        """Compute the loss (n,) of each image of a stack."""
        return torch.stack([part.of_images(log_odds, stack) for part in self.parts]).sum(dim=0)


#: By the name that estimators know them by.
PIXEL_LOSSES: dict[str, Callable[[], PixelLoss]] = {
    "log_likelihood": PixelwiseLogLikelihood,
    "dice": DiceLoss,
    "log_likelihood+dice": SumOfLosses,
}
