import numpy as np
import pytest
import torch

from skmmcrf.augmentation import build_augmentation
from skmmcrf.image_datasets import AugmentedDataset, ShuffledOrder
from skmmcrf.truth import Truth


def image():
    return np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))[..., np.newaxis]


def half():
    return image()[..., 0] < 0.5


def test_weights_go_with_the_truth():
    truth = Truth(half(), weight=3.0, class_weight=(1.0, 4.0))
    _, changed = AugmentedDataset([image()], [truth], build_augmentation("flip"))[0]
    assert (changed.weight, changed.class_weight) == (3.0, (1.0, 4.0))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image, mask: image, "must give an image and a mask, not"),
        (lambda image, mask: (image[:, 1:], mask), r"gave \(1, 9, 12\) of torch.float32 and \(10, 12\)"),
        (lambda image, mask: ((255 * image).to(torch.uint8), mask), "of torch.uint8"),
        (lambda image, mask: (image, mask * 2), "a mask must hold 0, 1 and 255 only"),
        (lambda image, mask: (image.expand(3, -1, -1), mask), "do not fit"),
    ],
)
def test_other_results_are_refused(transform, message):
    with pytest.raises(ValueError, match=f"augmentation: .*{message}"):
        AugmentedDataset([image()], [Truth(half())], transform)[0]


def test_every_epoch_has_an_order_of_its_own_which_the_seed_decides():
    orders = {}
    for seed in (0, 0, 1):
        order = ShuffledOrder(20, seed)
        for epoch in (1, 2):
            order.begin(epoch)
            assert sorted(order) == list(range(20))
            assert orders.setdefault((seed, epoch), list(order)) == list(order)
    assert len(set(map(tuple, orders.values()))) == 4
