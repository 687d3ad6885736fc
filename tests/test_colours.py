import numpy as np
import pytest
from scipy.spatial.distance import pdist

from skmmcrf._colours import UNLABELLED_COLOUR, WRONG_COLOUR, class_colours, tinted


@pytest.mark.parametrize("n_classes", [2, 3, 7, 8, 21])
def test_colours_of_classes_are_far_from_each_other_and_from_those_of_other_meaning(n_classes):
    colours = class_colours(n_classes)
    assert (colours.shape, colours.dtype) == ((n_classes, 3), np.uint8)
    assert pdist([*colours.astype(int), UNLABELLED_COLOUR, WRONG_COLOUR]).min() > 40


def test_all_classes_of_8_bits_have_a_colour():
    assert len(np.unique(class_colours(255), axis=0)) == 255


def test_images_are_seen_through_the_colours_of_classes_and_not_where_unlabelled():
    mask = np.array([[0, 2], [3, 255]], np.uint8)
    pixels = np.array([[[0], [100]], [[0], [100]]], np.uint8)
    first, _, third = class_colours(3).astype(float)
    result = tinted(pixels, mask, 3)
    np.testing.assert_allclose(result[0], [first / 2, (third + 100) / 2], atol=0.5)
    np.testing.assert_array_equal(result[1], [UNLABELLED_COLOUR] * 2)
    np.testing.assert_array_equal(result, tinted(pixels.repeat(3, axis=2), mask, 3))


def test_errors_of_classes_have_a_colour_that_no_class_has():
    assert min(np.abs(class_colours(n).astype(int) - WRONG_COLOUR).sum(axis=1).min() for n in (7, 21)) > 80
