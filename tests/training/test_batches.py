import numpy as np
import pytest
import torch

from skmmcrf.field import Annotation
from skmmcrf.images.checking import LabelledImages
from skmmcrf.training.augmentation import RandomChanges
from skmmcrf.training.batches import Batch, Batches, ShuffledOrder, batch_sizes, epochs_of
from skmmcrf.training.data import TrainingSet

SHAPES = [(4, 5), (4, 6), (4, 5)]


def batch_of(dtype=np.uint8, changes=None):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*shape, 2)).astype(dtype) for shape in SHAPES]
    annotations = [
        Annotation(rng.uniform(size=shape) < 0.5, rng.uniform(size=shape) < 0.8, weight=1 + n, class_weight=(2.0, 5.0))
        for n, shape in enumerate(SHAPES)
    ]
    data = LabelledImages(images, annotations)
    return data, Batch.of_samples([TrainingSet(data, changes)[1, n] for n in range(3)])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32])
def test_images_of_one_size_are_stacked_with_their_labels_and_weights(dtype):
    data, batch = batch_of(dtype)
    assert [stack.numbers for stack in batch.stacks] == [[0, 2], [1]]
    assert len(batch) == 3
    for stack in batch.stacks:
        for n, *parts in zip(stack.numbers, stack.images, stack.truth, stack.labelled, stack.pixel_weights):
            image, truth, labelled, weights = (part.numpy() for part in parts)
            np.testing.assert_array_equal(image.transpose(1, 2, 0), data.images[n])
            np.testing.assert_array_equal(truth, data.annotations[n].truth)
            np.testing.assert_array_equal(labelled, data.annotations[n].labelled)
            np.testing.assert_array_equal(weights, data.annotations[n].pixel_weights)


def test_of_several_classes_each_has_its_weight_and_its_region():
    truth, labelled = np.array([[0, 1, 2, 2, 0]], np.uint8), np.array([[True, True, True, False, False]])
    annotation = Annotation(truth, labelled, class_weight=(2.0, 5.0, 0.5))
    data = LabelledImages([np.zeros((1, 5, 1))], [annotation])
    (stack,) = Batch.of_samples([TrainingSet(data)[1, 0]]).stacks
    assert stack.n_labels == 3
    assert stack.truth.dtype == torch.uint8
    np.testing.assert_array_equal(stack.truth[0], annotation.truth)
    np.testing.assert_array_equal(stack.pixel_weights[0], annotation.pixel_weights)
    assert stack.regions.int().tolist() == [[[[1, 0, 0, 0, 0]], [[0, 1, 0, 0, 0]], [[0, 0, 1, 0, 0]]]]


def test_images_of_one_size_but_another_dtype_are_stacked_apart():
    images = [np.zeros((3, 4, 1), dtype) for dtype in (np.uint8, np.float32, np.uint8)]
    data = LabelledImages(images, 3 * [Annotation(np.zeros((3, 4), bool))])
    batch = Batch.of_samples([TrainingSet(data)[1, n] for n in range(3)])
    assert [stack.numbers for stack in batch.stacks] == [[0, 2], [1]]


def test_halves_are_stacked_by_themselves():
    data, _ = batch_of()
    batch = Batch.of_halves([TrainingSet(data)[1, n] for n in (0, 1, 2, 0, 2)])
    assert [stack.numbers for stack in batch.stacks] == [[0, 2, 2], [1], [0]]
    assert [stack.numbers for stack in Batch.of_halves([TrainingSet(data)[1, 0]]).stacks] == [[0]]


def test_stacks_are_changed_image_by_image_as_their_draws_say():
    changes = RandomChanges(degrees=20, shift=0.1)
    _, batch = batch_of()
    stack = batch.stacks[0]
    stack.draws = changes.draw(2, n_channels=2)
    changed = stack.changed(changes)
    for n in range(2):
        (alone,) = changes.of_stack(stack.images[[n]].float() / 255, stack.masks[[n]], stack.draws[[n]])[0]
        torch.testing.assert_close(changed.images[n], alone)
    assert stack.changed(None) is stack


def test_every_epoch_has_an_order_of_its_own_which_the_seed_decides():
    orders = {}
    for seed in (0, 0, 1):
        order = ShuffledOrder(20, seed)
        for epoch in (1, 2):
            order.begin(epoch)
            assert sorted(order) == [(epoch, n) for n in range(20)]
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


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("n_images", [1, 2, 6, 11, 40])
@pytest.mark.parametrize("n_steps", [1, 7, 24])
def test_epochs_are_the_fewest_that_have_so_many_steps(n_steps, n_images, batch_size):
    n_epochs, of_epoch = epochs_of(n_steps, n_images, batch_size), len(batch_sizes(n_images, batch_size))
    assert (n_epochs - 1) * of_epoch < n_steps <= n_epochs * of_epoch
