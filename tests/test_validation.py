import numpy as np
import pytest

from skmmcrf.validation import as_given, check_images, check_labelled_images, check_validation_data, scale_image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([0, 255], dtype=np.uint8), [0, 1]),
        (np.array([0, 65535], dtype=np.uint16), [0, 1]),
        (np.array([False, True]), [0, 1]),
        (np.array([-3.0, 250.0]), [-3, 250]),
        (np.array([0.5], dtype=np.float16), [0.5]),
    ],
)
def test_images_are_scaled_by_their_dtype_and_floats_kept(image, expected):
    scaled = scale_image(image)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, expected)


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
