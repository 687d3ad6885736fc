import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skorch.helper import SliceDataset
from torch.utils.data import Dataset

from skmmcrf.validation import (
    as_given,
    check_class_weight,
    check_images,
    check_labelled_images,
    check_sample_weight,
    check_validation_data,
    is_lazy,
    resolve_ignore_label,
)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32, float])
def test_images_keep_their_pixels(dtype):
    X = np.ones((2, 4, 5), dtype=dtype)
    images = check_images(X)
    assert [image.shape for image in images] == [(4, 5, 1)] * 2
    assert all(np.shares_memory(image, X) for image in images)


def test_lists_may_hold_unequal_images():
    images, truths = check_labelled_images(
        [np.zeros((4, 5, 3)), np.zeros((1, 9, 3))], [np.zeros((4, 5), int), np.ones((1, 9), bool)]
    )
    assert [image.shape for image in images] == [(4, 5, 3), (1, 9, 3)]
    assert [truth.foreground.all() for truth in truths] == [False, True]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([], ValueError, "X is empty"),
        (np.zeros((0, 4, 5)), ValueError, "X is empty"),
        (np.zeros((4, 5)), ValueError, r"X must be of shape \(n, H, W\) or \(n, H, W, channels\), got \(4, 5\)"),
        (np.zeros((1, 2, 3, 4, 5)), ValueError, "X must be of shape"),
        ([np.zeros(4)], ValueError, r"X\[0\] must be of shape \(H, W\)"),
        ([np.zeros((4, 0))], ValueError, r"X\[0\] must be of shape .*, none of them 0"),
        ([np.zeros((4, 5)), np.full((4, 5), np.nan)], ValueError, r"X\[1\] contains NaN or infinite"),
        (np.full((1, 2, 2), -np.inf), ValueError, r"X\[0\] contains NaN or infinite"),
        ([np.zeros((4, 5)), np.zeros((4, 5, 3))], ValueError, r"X\[1\] has 3 channels, but 1 are wanted"),
        (np.zeros((1, 2, 2), int), ValueError, r"X\[0\] must be of dtype .*, got int64"),
        (np.zeros((1, 2, 2), complex), ValueError, r"X\[0\] must be of dtype .*, got complex128"),
        ([np.array([["a"]])], ValueError, r"X\[0\] must be of dtype"),
        (None, TypeError, "X must be an array or a list of arrays, got NoneType"),
        ("horse.png", TypeError, "X must be an array or a list of arrays, got str"),
        (iter([np.zeros((2, 2))]), TypeError, "X must be an array or a list of arrays"),
    ],
)
def test_bad_images_are_told(X, error, message):
    with pytest.raises(error, match=message):
        check_images(X)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros((1, 4, 5), int), "X and y must have the same length, got 2 images and 1 labels"),
        (np.zeros((2, 5, 4), int), r"y\[0\] has shape \(5, 4\), but its image has \(4, 5\)"),
        (
            [np.zeros((4, 5), int), np.zeros((4, 5, 1), int)],
            r"y\[1\] must be of shape \(H, W\), none of them 0, got \(4, 5, 1\)",
        ),
        (np.full((2, 4, 5), 255, np.uint8), "y holds no 1, but 255, .*: if it is the foreground, give pos_label=255"),
        (np.full((2, 4, 5), 254, np.uint8), r"y\[0\] must hold the labels 0, 1 and 255 only, found \[254\]"),
        (np.full((2, 4, 5), -1), r"labels 0, 1 and 255 only, found \[-1\]"),
        (np.full((2, 4, 5), 0.5), r"labels 0, 1 and 255 only, found \[0.5\]"),
        (np.full((2, 4, 5), np.nan), "labels 0, 1 and 255 only"),
        (np.full((2, 4, 5), "1"), "must hold the labels 0 and 1, got dtype"),
        (np.zeros((2, 20), int), r"y must be of shape \(n, H, W\), got \(2, 20\)"),
    ],
)
def test_bad_labels_are_told(y, message):
    with pytest.raises(ValueError, match=message):
        check_labelled_images(np.zeros((2, 4, 5)), y)


def test_validation_data_is_a_pair_with_the_channels_of_training():
    X, y = np.zeros((2, 4, 5)), np.zeros((2, 4, 5), int)
    assert check_validation_data(None, 1) is None
    assert len(check_validation_data((X, y), 1)) == 2
    with pytest.raises(TypeError, match=r"validation_data must be a pair \(X, y\)"):
        check_validation_data(X[:1], 1)
    with pytest.raises(ValueError, match="has 1 channels, but 3 are wanted"):
        check_validation_data((X, y), 3)


def test_results_come_out_as_images_went_in():
    results = [np.zeros((4, 5)), np.ones((4, 5))]
    assert as_given(results, np.zeros((2, 4, 5))).shape == (2, 4, 5)
    assert all(a is b for a, b in zip(as_given(results, [np.zeros((4, 5))] * 2), results))
    joined = np.concatenate([as_given(results[:1], [None]), as_given([np.ones((1, 2))], [None])])
    assert [result.shape for result in joined] == [(4, 5), (1, 2)]


@pytest.fixture
def files(tmp_path):
    """Three colour images of unequal sizes and their masks of 0 and 255, in memory and as files."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in [(4, 5), (6, 3), (4, 5)]]
    masks = [255 * (image[..., 0] > 99).astype(np.uint8) for image in images]
    paths = []
    for kind, arrays in {"image": images, "mask": masks}.items():
        paths.append([str(tmp_path / f"{kind}{n}.png") for n in range(3)])
        for path, array in zip(paths[-1], arrays):
            Image.fromarray(array).save(path)
    return images, masks, *paths


class Pairs(Dataset):
    """Images and masks as a dataset of torch has them; counts what is read."""

    def __init__(self, images, masks):
        self.pairs = [(torch.from_numpy(i).permute(2, 0, 1), torch.from_numpy(m)) for i, m in zip(images, masks)]
        self.n_read = 0

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, n):
        self.n_read += 1
        return self.pairs[n]


@pytest.mark.parametrize(
    ("give", "lazy"),
    [
        (lambda images, masks, X, y: (images, masks), False),
        (lambda images, masks, X, y: (tuple(images), tuple(masks)), False),
        (lambda images, masks, X, y: tuple([Image.fromarray(a) for a in kind] for kind in (images, masks)), False),
        (lambda images, masks, X, y: ([torch.from_numpy(i).permute(2, 0, 1) for i in images], masks), False),
        (lambda images, masks, X, y: (images, [torch.from_numpy(m)[None] for m in masks]), False),
        (lambda images, masks, X, y: (images, [m > 0 for m in masks]), False),
        (lambda images, masks, X, y: (X, y), True),
        (lambda images, masks, X, y: (np.array(X), np.array(y)), True),
        (lambda images, masks, X, y: (pd.Series(X, index=[3, 1, 2]), pd.Series(y)), True),
        (lambda images, masks, X, y: (pd.DataFrame({"image": X}), pd.DataFrame({"mask": y})), True),
        (lambda images, masks, X, y: (X, masks), True),
        (lambda images, masks, X, y: (Pairs(images, masks), None), True),
        (lambda images, masks, X, y: tuple(SliceDataset(Pairs(images, masks), k) for k in (0, 1)), True),
        (lambda images, masks, X, y: (Pairs(images, masks), masks), True),
    ],
    ids=[
        "lists", "tuples", "PIL", "tensors", "tensors of masks", "bool masks", "paths", "arrays of paths", "series",
        "data frames", "paths and arrays", "dataset of pairs", "slices of a dataset", "dataset and arrays",
    ],
)  # fmt: skip
def test_all_kinds_of_images_and_labels_are_read(files, give, lazy):
    images, truths = check_labelled_images(*give(*files), pos_label=255)
    assert is_lazy(images) == lazy
    for image, truth, expected, mask in zip(images, truths, *files[:2], strict=True):
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(truth.foreground, mask == 255)


def test_lazy_images_are_read_when_they_are_asked_for(files):
    pairs = Pairs(*files[:2])
    images, _ = check_labelled_images(pairs, files[1], pos_label=255)
    before = pairs.n_read
    assert before <= len(pairs)
    np.testing.assert_array_equal(images[1], files[0][1])
    assert pairs.n_read == before + 1


def test_broken_files_are_named(files):
    _, _, X, y = files
    with pytest.raises(FileNotFoundError, match=r"X\[1\]: .*nowhere.png"):
        check_labelled_images([X[0], "nowhere.png"], y[:2], pos_label=255)
    with open(y[2], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"y\[2\]: .*mask2.png can't be read as an image"):
        check_labelled_images(X, y, pos_label=255)
    with pytest.raises(ValueError, match="X must be one column, got 2"):
        check_images(pd.DataFrame({"a": X, "b": X}))


def test_unlabelled_pixels():
    y = np.array([[[0, 1, 255, 7]]])
    X = np.zeros((1, 1, 4))
    with pytest.raises(ValueError, match=r"labels 0, 1 and 255 only, found \[7\]"):
        check_labelled_images(X, y)
    _, (truth,) = check_labelled_images(X, np.where(y == 7, 255, y))
    np.testing.assert_array_equal(truth.labelled, [[True, True, False, False]])
    _, (truth,) = check_labelled_images(X, np.where(y == 255, 0, y), ignore_label=7)
    np.testing.assert_array_equal(truth.labelled, [[True, True, True, False]])
    with pytest.raises(ValueError, match=r"labels 0 and 1 only, found \[255\]"):
        check_labelled_images(X, np.where(y == 7, 255, y), ignore_label=None)
    # no foreground at all, and that is said
    _, (truth,) = check_labelled_images(X, np.full((1, 1, 4), 255), ignore_label=255)
    assert not truth.labelled.any()


def test_labels_mean_one_thing():
    assert resolve_ignore_label(1, None) is None
    assert resolve_ignore_label(255, 7) == 7
    for pos_label, ignore_label in [(1, 0), (1, 1), (255, 255)]:
        with pytest.raises(ValueError, match="ignore_label must be neither 0, the background, nor"):
            resolve_ignore_label(pos_label, ignore_label)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"of shape \(3,\), one weight an image, got \(2,\)"),
        ([[1, 2, 3]], "of shape"),
        ([1, -1, 1], "not negative"),
        ([1, np.inf, 1], "finite"),
        ([0, 0, 0], "not all of it 0"),
    ],
)
def test_bad_sample_weights_are_told(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight must be .*{message}"):
        check_sample_weight(weights, 3)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({2: 1.0}, "of the labels 0 and 1, got one of 2"),
        ({1: 0.0}, "positive and finite, .*, got 0.0 for 1"),
        ({0: np.nan}, "positive and finite"),
        ({0: "a"}, "positive and finite"),
    ],
)
def test_bad_class_weights_are_told(class_weight, message):
    with pytest.raises(ValueError, match=f"class_weight must be {message}"):
        check_class_weight(class_weight, [], pos_label=1)


def test_class_weights_by_label():
    assert check_class_weight({255: 3}, [], pos_label=255) == (1.0, 3.0)
    assert check_class_weight({0: 2.0}, [], pos_label=1) == (2.0, 1.0)
    assert check_class_weight(None, [], pos_label=1) == (1.0, 1.0)
