import threading

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.batches import Batch
from skmmcrf.training.data import Changes, TrainingSet, check_crop
from skmmcrf.training.random_states import seeded


def by_numpy(image, mask):
    return (image.flip(-1), mask.flip(-1)) if np.random.rand() < 0.5 else (image, mask)  # noqa: NPY002


def equal(one, other):
    return one.number == other.number and all(map(torch.equal, one[1:], other[1:]))


def drawing_in_a_thread(image):
    thread = threading.Thread(target=torch.rand, args=(7,))
    thread.start()
    thread.join()
    return image


def image():
    return np.tile(np.linspace(0.1, 1, 12, dtype=np.float32), (10, 1))[..., np.newaxis]


def one_image(**weights):
    return LabelledImages([image()], [Annotation(image()[..., 0] < 0.5, **weights)])


def test_weights_go_with_the_labels():
    data = one_image(weight=3.0, class_weight=(1.0, 4.0))
    assert TrainingSet(data, Changes("flip", crop=5))[1, 0].weights.tolist() == [3.0, 1.0, 4.0]


def test_an_augmentation_gets_scaled_pixels_and_a_mask_and_says_what_is_unlabelled():
    data = LabelledImages([np.full((2, 3, 1), 255, np.uint8)], [Annotation(np.eye(2, 3) > 0, np.eye(2, 3) < 1)])
    seen = []

    def forget_a_row(image, mask):
        seen.append((image.max().item(), mask.clone().as_subclass(torch.Tensor).tolist()))
        mask[0] = 255
        return image, mask

    sample = TrainingSet(data, Changes(forget_a_row))[1, 0]
    assert seen == [(1.0, [[255, 0, 0], [0, 255, 0]])]
    assert type(sample.image) is type(sample.mask) is torch.Tensor
    assert sample.mask.tolist() == [[255, 255, 255], [0, 255, 0]]


def test_without_changes_images_and_annotations_are_as_they_are():
    data = one_image()
    sample = TrainingSet(data)[1, 0]
    np.testing.assert_array_equal(sample.image.numpy(), data.images[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(sample.mask.numpy(), data.annotations[0].mask)


@pytest.mark.parametrize("augmentation", ["strong", v2.RandomHorizontalFlip(), by_numpy])
@pytest.mark.parametrize("crop", [None, 6])
def test_an_entry_is_changed_in_the_same_way_whenever_it_is_asked_for(augmentation, crop):
    data = LabelledImages(3 * [image()], 3 * [Annotation(image()[..., 0] < 0.5)])
    with seeded(0):
        first, again, other = (TrainingSet(data, Changes(augmentation, crop), seed) for seed in (3, 3, 4))
        expected = [first[1, n] for n in range(3)]
        found = [again[1, n] for n in (2, 1, 0)][::-1]
        assert all(equal(*pair) for pair in zip(expected, found))
        assert not all(equal(first[0, 0], first[epoch, 0]) for epoch in range(9))
        assert not all(equal(first[epoch, 0], other[epoch, 0]) for epoch in range(9))


def test_a_thread_that_draws_does_not_change_what_torch_draws_for_an_entry():
    data = LabelledImages([image()], [Annotation(image()[..., 0] < 0.5)])

    def augmentation(image, mask):
        return v2.RandomAffine(30)(drawing_in_a_thread(image), mask)

    with seeded(0):
        plain, beside = (TrainingSet(data, Changes(change))[1, 0] for change in (v2.RandomAffine(30), augmentation))
    assert equal(plain, beside)


def test_crops_are_parts_of_the_image_and_its_labels_anywhere_in_it():
    pixels = np.arange(120, dtype=np.uint8).reshape(10, 12)
    annotation = Annotation(pixels % 3 == 0, pixels % 7 > 0, weight=2.0, class_weight=(1.0, 4.0))
    crops = TrainingSet(LabelledImages([pixels[..., np.newaxis]], [annotation]), Changes(crop=(4, 99)))
    corners = set()
    for epoch in range(100):
        sample = crops[epoch, 0]
        assert sample.image.shape == (1, 4, 12)
        assert sample.weights.tolist() == [2.0, 1.0, 4.0]
        rows = sample.image[0].numpy()
        expected = np.where(rows % 7 > 0, rows % 3 == 0, 255)
        np.testing.assert_array_equal(sample.mask, expected)
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
        TrainingSet(one_image(), Changes(transform))[1, 0]


def test_an_augmentation_that_fails_on_a_later_image_is_told_with_the_image():
    def fails_on_dark(image, mask):
        if image.max() < 0.1:
            raise ZeroDivisionError("dark")
        return image, mask

    images = [np.full((6, 8, 1), value, np.float32) for value in (1, 1, 0)]
    training = TrainingSet(LabelledImages(images, [Annotation(np.ones((6, 8), bool))] * 3), Changes(fails_on_dark))
    assert training[1, 1].number == 1
    message = r"augmentation: called as .* it raised ZeroDivisionError: dark \(number 2 of the images to train on\)"
    with pytest.raises(ValueError, match=message) as told:
        training[1, 2]
    assert type(told.value.__cause__) is ZeroDivisionError


def test_masks_of_several_classes_are_changed_by_the_numbers_of_these():
    truth = np.tile(np.arange(12, dtype=np.uint8) % 3, (10, 1))
    annotation = Annotation(truth, image()[..., 0] > 0.3, class_weight=(1.0, 2.0, 3.0))
    data, seen = LabelledImages([image()], [annotation]), []

    def change(image, mask):
        seen.append(mask)
        return image.flip(-1), mask.flip(-1)

    sample = TrainingSet(data, Changes(change))[1, 0]
    np.testing.assert_array_equal(seen[0], annotation.mask)
    np.testing.assert_array_equal(sample.mask, annotation.mask[:, ::-1])
    assert sample.weights.tolist() == [1.0, 1.0, 2.0, 3.0]
    for name in ("strong", v2.RandomRotation(20, fill={tv_tensors.Mask: 255, "others": 0})):
        changed = TrainingSet(data, Changes(name))
        draws = changed[1, 0]
        mask = (
            draws.mask
            if changed.of_stacks is None
            else Batch.of_samples([draws]).stacks[0].changed(changed.of_stacks).masks
        )
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
    with pytest.raises(ValueError, match=r"a mask must hold the numbers of classes, 0 to 2, and 255 only, got \[4\]"):
        TrainingSet(data, Changes(lambda image, mask: (image, torch.where(mask == 2, 4, mask))))[1, 0]
