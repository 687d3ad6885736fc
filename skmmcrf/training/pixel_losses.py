"""Losses of pretraining, of log-odds against the annotated labels, pixel by pixel or by overlap."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from skmmcrf.field.labels import Annotation


class PixelwiseLogLikelihood(nn.Module):
    """Mean negative log-likelihood of the labelled pixels of an image, averaged over the images.

    Pixels and images count by their weights.
    """

    def forward(self, log_odds: Sequence[torch.Tensor], annotations: Sequence[Annotation]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their annotations."""
        losses = []
        for l, annotation in zip(log_odds, annotations):
            labels, weights = _tensors(annotation, l)
            total = F.binary_cross_entropy_with_logits(l, labels, weights, reduction="sum")
            losses.append(annotation.weight * total / max(int(annotation.labelled.sum()), 1))
        return torch.stack(losses).mean()


class DiceLoss(nn.Module):
    """One minus the Dice index of probabilities and truth, in the mean over the images.

    As in Milletari, Navab, Ahmadi, "V-Net" (2016), but with sums in the denominator instead of squares. One pixel is
    added to numerator and denominator, so that images without foreground have a loss too.
    """

    def forward(self, log_odds: Sequence[torch.Tensor], annotations: Sequence[Annotation]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their annotations."""
        losses = []
        for l, annotation in zip(log_odds, annotations):
            labels, weights = _tensors(annotation, l)
            probabilities = torch.sigmoid(l)
            overlap = (weights * probabilities * labels).sum()
            sizes = (weights * (probabilities + labels)).sum()
            losses.append(annotation.weight * (1 - (2 * overlap + 1) / (sizes + 1)))
        return torch.stack(losses).mean()


class SumOfLosses(nn.Module):
    """Log-likelihood and Dice loss together."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([PixelwiseLogLikelihood(), DiceLoss()])

    def forward(self, log_odds: Sequence[torch.Tensor], annotations: Sequence[Annotation]) -> torch.Tensor:
        """Compute it from a list of log-odds (H, W) and their annotations."""
        return torch.stack([part(log_odds, annotations) for part in self.parts]).sum()


#: By the name that estimators know them by.
PIXEL_LOSSES = {"log_likelihood": PixelwiseLogLikelihood, "dice": DiceLoss, "log_likelihood+dice": SumOfLosses}


def _tensors(annotation: Annotation, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and weights of the pixels."""
    return torch.from_numpy(annotation.truth).to(like), torch.from_numpy(annotation.pixel_weights).to(like)
