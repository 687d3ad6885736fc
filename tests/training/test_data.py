import numpy as np
import pytest
import torch

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.data import Batches, Changes, ShuffledOrder, TrainingSet, batch_sizes, check_crop


def image():
    return np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))[..., np.newaxis]


def one_image(**weights):
    return LabelledImages([image()], [Annotation(image()[..., 0] < 0.5, **weights)])


def test_weights_go_with_the_labels():
    data = one_image(weight=3.0, class_weight=(1.0, 4.0))
    _, changed = TrainingSet(data, Changes("flip", crop=5))[0]
    assert (changed.weight, changed.class_weight) == (3.0, (1.0, 4.0))


def test_an_augmentation_gets_scaled_pixels_and_a_mask_and_says_what_is_unlabelled():
    data = LabelledImages([np.full((2, 3, 1), 255, np.uint8)], [Annotation(np.eye(2, 3) > 0, np.eye(2, 3) < 1)])
    seen = []

    def forget_a_row(image, mask):
        seen.append((image.max().item(), mask.clone().as_subclass(torch.Tensor).tolist()))
        mask[0] = 255
        return image, mask

    changed, annotation = TrainingSet(data, Changes(forget_a_row))[0]
    assert seen == [(1.0, [[255, 0, 0], [0, 255, 0]])]
    assert type(changed) is torch.Tensor
    assert annotation.mask.tolist() == [[255, 255, 255], [0, 255, 0]]


def test_without_changes_images_and_annotations_are_as_they_are():
    data = one_image()
    ((pixels, annotation),) = TrainingSet(data)
    np.testing.assert_array_equal(pixels.numpy(), data.images[0].transpose(2, 0, 1))
    assert annotation is data.annotations[0]


def test_crops_are_parts_of_the_image_and_its_labels_anywhere_in_it():
    pixels = np.arange(120, dtype=np.uint8).reshape(10, 12)
    annotation = Annotation(pixels % 3 == 0, pixels % 7 > 0, weight=2.0, class_weight=(1.0, 4.0))
    crops = TrainingSet(LabelledImages([pixels[..., np.newaxis]], [annotation]), Changes(crop=(4, 99)))
    corners = set()
    for _ in range(100):
        image, part = crops[0]
        assert image.shape == (1, 4, 12)
        assert (part.weight, part.class_weight) == (2.0, (1.0, 4.0))
        rows = image[0].numpy()
        np.testing.assert_array_equal(part.labelled, rows % 7 > 0)
        np.testing.assert_array_equal(part.truth, (rows % 3 == 0) & (rows % 7 > 0))
        corners.add(int(rows[0, 0]))
    assert corners == set(range(0, 7 * 12, 12))


@pytest.mark.parametrize("crop", [0, True, -1, 2.5, (8,), (8, 8, 8), (8, 0), "ab"])
def test_a_crop_is_one_or_two_positive_integers(crop):
    with pytest.raises((ValueError, TypeError), match="crop|iterable"):
        check_crop(crop)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image, mask: image, "must give an image and a mask, not Image"),
        (lambda image, mask: (image.numpy(), mask), "must give two tensors, not ndarray, Mask"),
        (lambda image, mask: (image[:, 1:], mask), r"image \(1, 9, 12\) of torch.float32 and a mask \(10, 12\)"),
        (lambda image, mask: ((255 * image).to(torch.uint8), mask), "of torch.uint8"),
        (lambda image, mask: (image, mask * 2), "a mask must hold 0, 1 and 255 only, got"),
        (lambda image, mask: (image.expand(3, -1, -1), mask), "do not fit"),
        (lambda image, mask: (image[:, :0], mask[:0]), "do not fit"),
    ],
)
def test_other_results_are_refused(transform, message):
    with pytest.raises(ValueError, match=f"augmentation: .*{message}"):
        TrainingSet(one_image(), Changes(transform))[0]


def test_every_epoch_has_an_order_of_its_own_which_the_seed_decides():
    orders = {}
    for seed in (0, 0, 1):
        order = ShuffledOrder(20, seed)
        for epoch in (1, 2):
            order.begin(epoch)
            assert sorted(order) == list(range(20))
            assert orders.setdefault((seed, epoch), list(order)) == list(order)
    assert len(set(map(tuple, orders.values()))) == 4


@pytest.mark.parametrize("n_images", range(1, 12))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 20])
def test_no_image_is_alone_in_a_batch_unless_it_has_to_be(n_images, batch_size):
    batches = list(Batches(range(n_images), batch_size))
    assert sum(batches, []) == list(range(n_images))
    assert list(map(len, batches)) == batch_sizes(n_images, batch_size)
    assert len(Batches(range(n_images), batch_size)) == len(batches)
    if n_images > 1 and batch_size > 1:
        assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)
    else:
        assert all(len(batch) == 1 for batch in batches)
