"""What pretraining minimises: losses of log-odds against truths, pixel by pixel or by overlap."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from skmmcrf.truth import Truth


class PixelwiseLogLikelihood(nn.Module):
    """Negative log-likelihood of the labelled pixels, in the mean over an image's, and over the images.

    Pixels and images count by their weights.
    """

    def forward(self, log_odds: Sequence[torch.Tensor], truths: Sequence[Truth]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their truths."""
        losses = []
        for l, truth in zip(log_odds, truths):
            labels, weights = _tensors(truth, l)
            total = F.binary_cross_entropy_with_logits(l, labels, weights, reduction="sum")
            losses.append(truth.weight * total / max(int(truth.labelled.sum()), 1))
        return torch.stack(losses).mean()


class DiceLoss(nn.Module):
    """One minus the Dice index of probabilities and truth, in the mean over the images.

    Milletari, Navab, Ahmadi, "V-Net" (2016), with sums in the denominator instead of squares, and one pixel added to
    numerator and denominator, so that images without foreground have a loss too.
    """

    def forward(self, log_odds: Sequence[torch.Tensor], truths: Sequence[Truth]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their truths."""
        losses = []
        for l, truth in zip(log_odds, truths):
            labels, weights = _tensors(truth, l)
            probabilities = torch.sigmoid(l)
            overlap = (weights * probabilities * labels).sum()
            sizes = (weights * (probabilities + labels)).sum()
            losses.append(truth.weight * (1 - (2 * overlap + 1) / (sizes + 1)))
        return torch.stack(losses).mean()


class SumOfLosses(nn.Module):
    """Log-likelihood and Dice loss together."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([PixelwiseLogLikelihood(), DiceLoss()])

    def forward(self, log_odds: Sequence[torch.Tensor], truths: Sequence[Truth]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their truths."""
        return torch.stack([part(log_odds, truths) for part in self.parts]).sum()


#: By the name that estimators know them by.
PIXEL_LOSSES = {
    "log_likelihood": PixelwiseLogLikelihood,
    "dice": DiceLoss,
    "log_likelihood+dice": SumOfLosses,
}


def _tensors(truth: Truth, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and weights of the pixels."""
    return torch.from_numpy(truth.foreground).to(like), torch.from_numpy(truth.pixel_weights).to(like)
