import numpy as np
import pytest
import torch

from skmmcrf.field.terms import scale_image
from skmmcrf.images.tensors import as_tensor, scaled


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, ">u2", np.float16, np.float32, float, np.longdouble])
@pytest.mark.parametrize("writeable", [True, False])
def test_images_of_every_dtype_and_layout_are_scaled_as_in_the_field(dtype, writeable, recwarn):
    image = np.random.default_rng(0).uniform(0, 2, (4, 5, 3)).astype(dtype)[::-1]
    image.flags.writeable = writeable
    tensor = as_tensor(image)
    np.testing.assert_array_equal(tensor.numpy(), np.moveaxis(image, -1, 0).astype(tensor.numpy().dtype))
    assert scaled(tensor).dtype == torch.float32
    np.testing.assert_allclose(scaled(tensor).movedim(0, -1), scale_image(image), rtol=1e-6)
    assert not recwarn


def test_tensors_do_not_share_the_memory_of_images():
    image = np.zeros((2, 3, 1), np.float32)
    as_tensor(image).add_(1)
    assert not image.any()
