import numpy as np
import pytest
import torch

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.batches import Batch
from skmmcrf.training.data import TrainingSet
from skmmcrf.training.pixel_losses import PIXEL_LOSSES, DiceLoss, PixelwiseLogLikelihood, SumOfLosses


def stack_of(*annotations):
    """A stack of images of one size with these labels."""
    data = LabelledImages([np.zeros((*a.shape, 1), np.uint8) for a in annotations], list(annotations))
    (stack,) = Batch.of_samples([TrainingSet(data)[1, n] for n in range(len(data))]).stacks
    return stack


def weighted(labelled):
    truth = np.array([[True, False, True]])
    return stack_of(Annotation(truth, np.array([labelled]), weight=3.0, class_weight=(1.0, 5.0)))


def test_log_likelihood_counts_images_not_pixels():
    log_odds = [torch.zeros(2, 2, 2), torch.full((1, 5, 5), 3.0)]
    small, large = Annotation(np.ones((2, 2), bool)), Annotation(np.zeros((5, 5), bool))
    expected = (2 * np.log(2) + np.log1p(np.exp(3))) / 3
    assert PixelwiseLogLikelihood()(log_odds, [stack_of(small, small), stack_of(large)]).item() == pytest.approx(
        expected
    )


def test_log_likelihood_counts_labelled_pixels_by_their_weights():
    log_odds = torch.tensor([[[0.0, 2.0, -1.0]]])
    expected = 3 * (5 * np.log(2) + np.log1p(np.exp(2))) / 2
    assert PixelwiseLogLikelihood()([log_odds], [weighted([True, True, False])]).item() == pytest.approx(expected)
    assert PixelwiseLogLikelihood()([log_odds], [weighted([False, False, False])]).item() == 0


def test_dice_loss_of_sure_labels_is_one_minus_their_dice_index():
    foreground = np.zeros((20, 20), bool)
    foreground[:, :10] = True
    labels = np.roll(foreground, 5, axis=1)  # half of either is shared
    log_odds = torch.from_numpy(np.where(labels, 50.0, -50.0))[None]
    assert DiceLoss()([log_odds], [stack_of(Annotation(foreground))]).item() == pytest.approx(0.5, abs=2e-3)
    assert DiceLoss()([log_odds], [stack_of(Annotation(labels))]).item() == pytest.approx(0)


def test_dice_loss_counts_labelled_pixels_by_their_weights():
    log_odds = torch.tensor([[[0.0, 0.0, 9.0]]])
    # probabilities of one half; foreground counts 5, background 1
    expected = 3 * (1 - (2 * 5 * 0.5 + 1) / ((5 * 0.5 + 0.5) + 5 + 1))
    assert DiceLoss()([log_odds], [weighted([True, True, False])]).item() == pytest.approx(expected)


def test_both_are_added():
    log_odds = [torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))]
    stacks = [stack_of(Annotation(np.eye(4, 5, dtype=bool)))]
    both, *parts = (loss()(log_odds, stacks).item() for loss in (SumOfLosses, PixelwiseLogLikelihood, DiceLoss))
    assert both == pytest.approx(sum(parts))


@pytest.mark.parametrize("name", PIXEL_LOSSES)
@pytest.mark.parametrize("foreground", [0, 1])
def test_gradients_lead_to_the_truth_for_images_of_one_class_too(name, foreground):
    log_odds = torch.zeros(1, 6, 7, requires_grad=True)
    PIXEL_LOSSES[name]()([log_odds], [stack_of(Annotation(np.full((6, 7), bool(foreground))))]).backward()
    assert (log_odds.grad * (1 - 2 * foreground) > 0).all()
