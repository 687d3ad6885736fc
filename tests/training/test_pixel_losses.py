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


THREE = stack_of(
    *(
        Annotation(truth, np.arange(42).reshape(6, 7) % 5 > 0, weight=weight, class_weight=(1.0, 3.0, 0.5))
        for truth, weight in (
            (np.arange(42, dtype=np.uint8).reshape(6, 7) % 3, 2.0),
            (np.eye(6, 7, dtype=np.uint8), 1.0),
        )
    )
)


def random_scores(seed=0):
    return torch.randn(2, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_log_likelihood_of_several_classes_is_that_of_their_softmax():
    scores, expected = random_scores(), 0.0
    for probabilities, truth, weights, weight in zip(
        scores.softmax(dim=1).numpy(), THREE.truth.numpy(), THREE.pixel_weights.numpy(), (2.0, 1.0)
    ):
        of_truth = np.take_along_axis(probabilities, truth[None].astype(int), axis=0)[0]
        expected += weight * (weights * -np.log(of_truth)).sum() / np.count_nonzero(weights) / 2
    assert PixelwiseLogLikelihood()([scores], [THREE]).item() == pytest.approx(expected)


def test_dice_loss_of_several_classes_is_the_mean_of_those_of_each_against_all_others():
    scores, expected = random_scores(), []
    for label in range(3):
        weights = THREE.pixel_weights
        probability, truth = scores.softmax(dim=1)[:, label], THREE.truth == label
        overlap, sizes = (
            (weights * part).sum(dim=(1, 2)) for part in (probability * truth, probability + truth.double())
        )
        expected.append(1 - (2 * overlap + 1) / (sizes + 1))
    weighted = torch.stack(expected).mean(dim=0) @ torch.tensor([2.0, 1.0], dtype=torch.float64) / 2
    assert DiceLoss()([scores], [THREE]).item() == pytest.approx(weighted.item())


def test_dice_loss_leaves_out_classes_that_occur_in_no_image():
    truth = np.eye(6, 7, dtype=np.uint8)
    scores = random_scores()[:1]
    without, with_more = (
        DiceLoss()([given], [stack_of(Annotation(truth, class_weight=n * (1.0,)))])
        for n, given in ((3, scores), (4, torch.cat([scores, torch.full((1, 1, 6, 7), -99.0)], dim=1)))
    )
    assert without.item() == pytest.approx(with_more.item())
    unlabelled = stack_of(Annotation(truth, np.zeros((6, 7), bool), class_weight=3 * (1.0,)))
    assert DiceLoss()([scores], [unlabelled]).item() == 0


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_gradients_lead_to_each_of_several_classes(name):
    scores = random_scores().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: PIXEL_LOSSES[name]()([s], [THREE]), scores, atol=1e-6)
    scores = torch.zeros(1, 3, 6, 7, requires_grad=True)
    PIXEL_LOSSES[name]()(
        [scores], [stack_of(Annotation(np.full((6, 7), 2, np.uint8), class_weight=3 * (1.0,)))]
    ).backward()
    assert (scores.grad[:, 2] < 0).all()
    assert (scores.grad[:, :2] > 0).all()
