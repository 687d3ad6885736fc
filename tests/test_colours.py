import numpy as np
import pytest
from scipy.spatial.distance import pdist

from skmmcrf._colours import UNLABELLED_COLOUR, class_colours, coloured


@pytest.mark.parametrize("n_classes", [2, 3, 7, 8, 21])
def test_colours_of_classes_are_far_from_each_other_and_from_the_neutral_one(n_classes):
    colours = class_colours(n_classes)
    assert (colours.shape, colours.dtype) == ((n_classes, 3), np.uint8)
    assert pdist([*colours.astype(int), UNLABELLED_COLOUR]).min() > 40


def test_all_classes_of_8_bits_have_a_colour():
    assert len(np.unique(class_colours(255), axis=0)) == 255


def test_what_is_no_class_is_neutral():
    mask = np.array([[0, 2], [3, 255]], np.uint8)
    expected = [[class_colours(3)[0], class_colours(3)[2]], [UNLABELLED_COLOUR] * 2]
    np.testing.assert_array_equal(coloured(mask, 3), expected)
