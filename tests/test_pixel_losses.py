import numpy as np
import pytest
import torch

from skmmcrf.pixel_losses import DiceLoss, PixelwiseLogLikelihood, SumOfLosses
from skmmcrf.truth import Truth

LOSSES = [PixelwiseLogLikelihood, DiceLoss, SumOfLosses]


def test_log_likelihood_counts_images_not_pixels():
    log_odds = [torch.zeros(2, 2), torch.full((5, 5), 3.0)]
    truths = [Truth(np.ones((2, 2), bool)), Truth(np.zeros((5, 5), bool))]
    expected = (np.log(2) + np.log1p(np.exp(3))) / 2
    assert PixelwiseLogLikelihood()(log_odds, truths).item() == pytest.approx(expected)


def test_likelihood_counts_labelled_pixels_by_their_weights():
    log_odds = torch.tensor([[0.0, 2.0, -1.0]])
    truth = Truth(np.array([[True, False, True]]), np.array([[True, True, False]]), weight=3.0, class_weight=(1.0, 5.0))
    expected = 3 * (5 * np.log(2) + np.log1p(np.exp(2))) / 2
    assert PixelwiseLogLikelihood()([log_odds], [truth]).item() == pytest.approx(expected)
    unknown = Truth(np.array([[True, False, True]]), np.zeros((1, 3), bool))
    assert PixelwiseLogLikelihood()([log_odds], [unknown]).item() == 0


def test_dice_loss_of_sure_labels_is_one_minus_their_dice_index():
    foreground = np.zeros((20, 20), bool)
    foreground[:, :10] = True
    labels = np.roll(foreground, 5, axis=1)  # half of either is shared
    log_odds = torch.from_numpy(np.where(labels, 50.0, -50.0))
    assert DiceLoss()([log_odds], [Truth(foreground)]).item() == pytest.approx(0.5, abs=2e-3)
    assert DiceLoss()([log_odds], [Truth(labels)]).item() == pytest.approx(0)


def test_dice_loss_counts_labelled_pixels_by_their_weights():
    log_odds = torch.tensor([[0.0, 0.0, 9.0]])
    truth = Truth(np.array([[True, False, True]]), np.array([[True, True, False]]), weight=3.0, class_weight=(1.0, 5.0))
    # probabilities of one half; foreground counts 5, background 1
    expected = 3 * (1 - (2 * 5 * 0.5 + 1) / ((5 * 0.5 + 0.5) + 5 + 1))
    assert DiceLoss()([log_odds], [truth]).item() == pytest.approx(expected)


def test_both_are_added():
    log_odds = [torch.randn(4, 5, generator=torch.Generator().manual_seed(0))]
    truths = [Truth(np.eye(4, 5, dtype=bool))]
    both, *parts = (loss()(log_odds, truths).item() for loss in (SumOfLosses, PixelwiseLogLikelihood, DiceLoss))
    assert both == pytest.approx(sum(parts))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("foreground", [0, 1])
def test_gradients_lead_to_the_truth_for_images_of_one_class_too(loss, foreground):
    log_odds = torch.zeros(6, 7, requires_grad=True)
    loss()([log_odds], [Truth(np.full((6, 7), bool(foreground)))]).backward()
    assert (log_odds.grad * (1 - 2 * foreground) > 0).all()
