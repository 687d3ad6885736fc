import numpy as np
import pytest
import torch

from skmmcrf.field.terms import scale_image
from skmmcrf.images.tensors import ImageDataset, as_lists, scaled


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, ">u2", np.float16, np.float32, float, np.longdouble])
@pytest.mark.parametrize("writeable", [True, False])
def test_images_of_every_dtype_and_layout_are_scaled_as_in_the_field(dtype, writeable, recwarn):
    image = np.random.default_rng(0).uniform(0, 2, (4, 5, 3)).astype(dtype)[::-1]
    image.flags.writeable = writeable
    tensor, target = ImageDataset([image], ["target"])[0]
    assert target == "target"
    np.testing.assert_array_equal(tensor.numpy(), np.moveaxis(image, -1, 0).astype(tensor.numpy().dtype))
    assert scaled(tensor).dtype == torch.float32
    np.testing.assert_allclose(scaled(tensor).movedim(0, -1), scale_image(image), rtol=1e-6)
    assert not recwarn


def test_tensors_do_not_share_the_memory_of_images():
    image = np.zeros((2, 3, 1), np.float32)
    ImageDataset([image])[0][0].add_(1)
    assert not image.any()


def test_batches_are_lists_because_sizes_differ():
    dataset = ImageDataset([np.zeros((4, 5, 2)), np.zeros((3, 7, 2))])
    images, targets = as_lists([dataset[n] for n in range(len(dataset))])
    assert [image.shape for image in images] == [(2, 4, 5), (2, 3, 7)]
    assert targets == [None, None]
