from pathlib import Path

import numpy as np
import pytest

from skmmcrf.images.sequences import ArraysOnDisk, ImageList, Mapped, OnDemand


def test_mapped_asks_each_time():
    asked = []
    mapped = Mapped(lambda value: asked.append(value) or -value, [1, 2, 3])
    assert len(mapped) == 3
    assert asked == []
    assert mapped[1] == -2
    assert list(mapped) == [-1, -2, -3]
    assert asked == [2, 1, 2, 3]
    with pytest.raises(IndexError):
        mapped[3]


def test_arrays_on_disk_come_back_and_go_with_their_owner():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (1, 1), (5, 2), (2, 0)]]
    kept = ArraysOnDisk(np.float32)
    for array in arrays:
        kept.append(array.T.copy().T)  # in another order of memory
    for array, read in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, read)
        assert read.dtype == np.float32
    folder = Path(kept._folder)
    assert folder.exists()
    del kept
    assert not folder.exists()


@pytest.mark.parametrize("shapes", [[(2, 3), (4, 5)], [(2, 3), (2, 4)], []])
def test_a_list_of_unequal_images_is_an_array_of_objects(shapes):
    images = ImageList(np.zeros(shape) for shape in shapes)
    assert isinstance(images, list)
    array = np.asarray(images)
    assert array.shape == (len(shapes),)
    assert all(a is b for a, b in zip(array, images, strict=True))


def test_a_list_of_equal_images_is_one_array_for_numpy():
    images = ImageList([np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8)])
    assert np.array(images).shape == (2, 2, 3)
    assert np.array(images, float).dtype == float
    assert np.mean(images) == 0.5
    assert np.unique(images).tolist() == [0, 1]
    assert np.stack([images, images]).shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(images, np.array(images))


def test_a_list_is_compared_with_a_number_image_by_image():
    images = ImageList([np.array([[0, 1]]), np.array([[1], [0], [1]])])
    assert [equal.tolist() for equal in images == 1] == [[[False, True]], [[True], [False], [True]]]
    assert [unequal.tolist() for unequal in images != 0] == [[[False, True]], [[True], [False], [True]]]
    assert np.mean((images == 1)[1]) == pytest.approx(2 / 3)
    assert ImageList([1]) == [1]


def test_folds_are_joined_whatever_their_sizes():
    small, large = ImageList([np.zeros((2, 3))] * 2), ImageList([np.ones((4, 5))])
    joined = np.concatenate([small, large])
    assert [entry.shape for entry in joined] == [(2, 3), (2, 3), (4, 5)]
    assert np.concatenate([small, small]).shape == (4, 2, 3)
    with pytest.raises(ValueError, match="axis"):
        np.concatenate([small, large], axis=7)


@pytest.mark.parametrize("key", [slice(1, None), [2, 0], np.array([True, False, True]), range(2), (np.array([1]), ...)])
def test_parts_of_values_on_demand_are_those_of_an_array_and_computed_when_asked_for(key):
    asked = []

    def tenfold(value):
        asked.append(value)
        return 10 * value

    values = OnDemand(tenfold, [1, 2, 3])
    part = values[key]
    assert not asked
    assert list(part) == np.array([10, 20, 30])[key].tolist()
    assert asked


def test_entries_of_values_on_demand_are_found_from_both_ends_and_not_beyond():
    values = OnDemand(abs, [-1, -2])
    assert (values[0], values[-1], values[np.int64(1)], len(values)) == (1, 2, 2, 2)
    with pytest.raises(IndexError):
        values[2]
