import numpy as np
import pandas as pd
import polars
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset

from skmmcrf.images.checking import (
    LabelledImages,
    as_given,
    check_images,
    check_labelled_images,
    check_sample_weight,
    check_validation_data,
    warn_of_range,
)
from skmmcrf.images.labels import LabelScheme

IMAGES = np.random.default_rng(0).uniform(size=(2, 4, 5, 2))
LABELS = np.arange(40).reshape(2, 4, 5) % 2


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


class Broken:
    """Looks like a sequence, but has no length to tell."""

    def __len__(self):
        raise TypeError("no length")

    def __getitem__(self, n):
        return np.zeros((4, 5))


STRUCTURED = np.zeros((2, 4, 5), dtype=[("a", float), ("b", int)])
MASKED = np.ma.masked_array(IMAGES, mask=np.arange(80).reshape(IMAGES.shape) == 3)

# of images: what is wrong, the images, the error, and words of it
BAD_IMAGES = {
    "None": (None, TypeError, "X must be an array or a list of arrays, got NoneType"),
    "number": (3.0, TypeError, "X must be an array or a list of arrays, got float"),
    "word": ("horse.png", TypeError, "X must be an array or a list of arrays, got str"),
    "dict": ({"a": IMAGES}, TypeError, "X must be .*, got dict"),
    "set": ({1, 2}, TypeError, "X must be .*, got set"),
    "generator": ((image for image in IMAGES), TypeError, "X must be .*, got generator"),
    "class": (list, TypeError, "X must be an array or a list of arrays"),
    "without length": (Broken(), TypeError, "X must be an array or a list of arrays: no length"),
    "sparse": (csr_array(IMAGES[0, ..., 0]), TypeError, "X must be dense, got the sparse csr_array"),
    "two columns": (pd.DataFrame({"a": [1], "b": [2]}), ValueError, "X must be one column, got 2"),
    "0-d array": (np.array(1.0), ValueError, r"X must be of shape \(n, H, W\) or \(n, H, W, channels\), got \(\)"),
    "0-d tensor": (torch.tensor(1.0), ValueError, r"X must be of shape .*, got \(\)"),
    "one image": (IMAGES[0, ..., 0], ValueError, r"X must be of shape .*, got \(4, 5\): give X\[np.newax"),
    "a photo": (
        np.zeros((20, 30, 3)),
        ValueError,
        r"X of shape \(20, 30, 3\) looks like one image of 3 channels: give",
    ),
    "channels first": (np.zeros((2, 3, 20, 30)), ValueError, r"X\[0\] would be an image of 3 x 20 pixels with 30 ch"),
    "channels last": (torch.zeros(2, 20, 30, 3), ValueError, r"X\[0\] would be .* and the first of a tensor"),
    "file": (
        Image.new("L", (5, 4)),
        TypeError,
        "X must be an array or a list .*, got Image: put a single one into",
    ),
    "loader": (DataLoader(IMAGES), TypeError, "X must not be a DataLoader, which gives batches: give its dataset"),
    "two images": (
        [{"image": 1, "img": 2}] * 2,
        ValueError,
        r"X\[0\] must have one of the keys image, .*, got \['image', 'img'\]",
    ),
    "two masks": (
        [{"x": 1, "mask": 2, "label": 3}] * 2,
        ValueError,
        r"X\[0\] must have one of .* for labels, got \['x', 'mask', 'label'\]",
    ),
    "volumes": (IMAGES[..., None], ValueError, r"X must be of shape .*, got \(2, 4, 5, 2, 1\)"),
    "empty array": (IMAGES[:0], ValueError, "X is empty"),
    "empty list": ([], ValueError, "X is empty"),
    "empty entry": ([(), IMAGES[1]], ValueError, r"X\[0\] must be of"),
    "no pixels": (IMAGES[:, :0], ValueError, r"X\[0\] must be of shape .*none of them 0"),
    "no channels": (IMAGES[..., :0], ValueError, r"X\[0\] must be of shape .*none of them 0"),
    "ragged": ([[[0.0, 1.0], [1.0]], IMAGES[1]], ValueError, r"X\[0\] can't be made an array"),
    "numbers in a list": ([1.0, 2.0], ValueError, r"X\[0\] must be of shape \(H, W\)"),
    "None in a list": ([IMAGES[0], None], ValueError, r"X\[1\] must be of dtype .*, got object"),
    "NaN": (changed(IMAGES, (1, 2, 3), np.nan), ValueError, r"X\[1\] contains NaN or infinite"),
    "infinite": (changed(IMAGES, (0, 0, 0), -np.inf), ValueError, r"X\[0\] contains NaN or infinite"),
    "huge": (changed(IMAGES, (0, 0, 0), 1e300), ValueError, r"X\[0\] contains .* too large for float32"),
    "int64": (IMAGES.astype(int), ValueError, r"X\[0\] must be of dtype .*, got int64"),
    "complex": (IMAGES + 1j, ValueError, r"X\[0\] must be of dtype .*, got complex128"),
    "objects": (IMAGES.astype(object), ValueError, r"X\[0\] must be of dtype .*, got object"),
    "words": (IMAGES.astype(str), ValueError, r"X\[0\] must be of dtype .*, got <U"),
    "dates": (IMAGES.astype("M8[s]"), ValueError, r"X\[0\] must be of dtype .*, got datetime64"),
    "structured": (STRUCTURED, ValueError, r"X\[0\] must be of dtype"),
    "masked": (MASKED, TypeError, r"X\[0\] must not be masked"),
    "bfloat16": (list(torch.zeros(2, 2, 4, 5).bfloat16()), ValueError, r"X\[0\] can't be made an array: .*BFloat16"),
    "sparse tensor": ([torch.zeros(2, 4, 5).to_sparse()] * 2, ValueError, r"X\[0\] can't be made"),
    "unequal channels": ([IMAGES[0], IMAGES[1][..., [0, 1, 1]]], ValueError, r"X\[1\] has 3 channels, but .* has 2"),
    "no file": (["nowhere.png"] * 2, FileNotFoundError, r"X\[0\]: .*nowhere.png"),
    "too few": (IMAGES[:1], ValueError, "X and y must have the same length, got 1 images and 2 labels"),
}
# the same of labels
BAD_LABELS = {
    "None": (None, TypeError, r"y is None, but X\[0\] is an image without labels"),
    "number": (1, TypeError, "y must be an array or a list of arrays, got int"),
    "word": ("mask.png", TypeError, "y must be an array or a list of arrays, got str"),
    "empty": ([], ValueError, "y is empty"),
    "too few": (LABELS[:1], ValueError, "X and y must have the same length, got 2 images and 1 labels"),
    "columns": (LABELS.reshape(2, 20), ValueError, r"y must be of shape \(n, H, W\), got \(2, 20\)"),
    "channels": (LABELS[..., None], ValueError, r"y must be of shape \(n, H, W\), got \(2, 4, 5, 1\)"),
    "transposed": (LABELS.swapaxes(1, 2), ValueError, r"y\[0\] has shape \(5, 4\), but its image has \(4, 5\)"),
    "one image wrong": ([LABELS[0], LABELS[1, 1:]], ValueError, r"y\[1\] has shape \(3, 5\)"),
    "a channel": ([LABELS[0], LABELS[1][..., None]], ValueError, r"y\[1\] must be of shape .*, got \(4, 5, 1\)"),
    "ragged": ([[[0, 1], [1]], LABELS[1]], ValueError, r"y\[0\] can't be made an array"),
    "another label": (LABELS + 1, ValueError, r"y\[0\] must hold the labels 0, 1 and 255 only, found \[2\]"),
    "negative": (-LABELS, ValueError, r"y\[0\] must hold the labels .* only, found \[-1\]"),
    "between": (LABELS / 2, ValueError, r"y\[0\] must hold the labels .* only, found \[0.5\]"),
    "NaN": (changed(LABELS + 0.0, (1, 0, 0), np.nan), ValueError, r"y\[1\] .* only, found \[nan\]"),
    "0 and 255": (255 * LABELS, ValueError, "y holds 255 but no 1, .*give pos_label=255"),
    "words": (LABELS.astype(str), ValueError, r"y\[0\] must hold the labels 0 and 1, got dtype <U"),
    "objects": (LABELS.astype(object), ValueError, r"y\[0\] must hold the labels .*, got dtype object"),
    "complex": (LABELS + 0j, ValueError, r"y\[0\] must hold the labels .*, got dtype complex128"),
    "dates": (LABELS.astype("M8[D]"), ValueError, r"y\[0\] must hold the labels .*, got dtype datetime"),
    "structured": (STRUCTURED, ValueError, r"y\[0\] must hold the labels"),
    "masked": (np.ma.masked_equal(LABELS, 1), TypeError, r"y\[0\] must not be masked: .*ignore_label"),
}


@pytest.mark.parametrize(("X", "error", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_told(X, error, message):
    with pytest.raises(error, match=message):
        check_labelled_images(X, LABELS, LabelScheme())


@pytest.mark.parametrize(("y", "error", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_bad_labels_are_told(y, error, message):
    with pytest.raises(error, match=message):
        check_labelled_images(IMAGES, y, LabelScheme())


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1, 1, 1], ValueError, r"must be of shape \(2,\), one weight an image, got \(3,\)"),
        (2.0, ValueError, r"must be of shape \(2,\)"),
        ([[1, 2]], ValueError, r"must be of shape \(2,\)"),
        ([1, -1], ValueError, "must be finite and not negative"),
        ([1, np.nan], ValueError, "must be finite"),
        ([1, np.inf], ValueError, "must be finite"),
        ([0, 0], ValueError, "must be .*not all of it 0"),
        (["a", "b"], TypeError, "must be numbers"),
        (np.ones(2, complex), TypeError, "must be numbers, got dtype complex128"),
        (np.ones(2, "M8[D]"), TypeError, "must be numbers, got dtype datetime64"),
        ([[1], [1, 2]], ValueError, "can't be made an array"),
        (np.ma.masked_equal([1, 2], 2), TypeError, "must not be masked"),
        (np.array([1, object()]), TypeError, "must be numbers"),
    ],
)
def test_bad_sample_weights_are_told(weights, error, message):
    with pytest.raises(error, match=f"sample_weight {message}"):
        check_sample_weight(weights, 2)


def test_sample_weights_have_a_mean_of_one_however_large_they_are():
    for weights in ([3, 1, 0, 0], [1.5e308, 0.5e308, 0, 0]):
        np.testing.assert_allclose(check_sample_weight(weights, 4), [3, 1, 0, 0])
    np.testing.assert_array_equal(check_sample_weight(None, 3), [1, 1, 1])


@pytest.mark.parametrize(
    ("validation_data", "error", "message"),
    [
        (IMAGES, TypeError, r"\[0\] is an image without labels"),
        ((IMAGES,), TypeError, r" must be a tuple \(X, y\) or a dataset of pairs, got 1"),
        ((IMAGES[..., :1], LABELS), ValueError, r"\[0\]\[0\] has 1 channel, but the model or the first image has 2"),
        ((IMAGES, LABELS[1:]), ValueError, r"\[0\] and validation_data\[1\] must have the same length"),
        ((IMAGES, LABELS + 1), ValueError, r"\[1\]\[0\] must hold the labels"),
        ((IMAGES[:0], LABELS[:0]), ValueError, r"\[0\] is empty"),
    ],
)
def test_bad_validation_data_are_told(validation_data, error, message):
    with pytest.raises(error, match=f"validation_data{message}"):
        check_validation_data(validation_data, LabelScheme(), 2)


def test_validation_data_are_none_a_tuple_or_pairs():
    assert check_validation_data(None, LabelScheme(), 2) is None
    for given in ((IMAGES, LABELS), list(zip(IMAGES, LABELS)), [list(pair) for pair in zip(IMAGES, LABELS)]):
        data = check_validation_data(given, LabelScheme(), 2)
        np.testing.assert_array_equal([annotation.truth for annotation in data.annotations], LABELS == 1)


def test_opened_images_give_what_their_files_give(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 10, 20])
    palette.save(tmp_path / "a.png")
    for X in ([palette, palette], [str(tmp_path / "a.png")]):
        np.testing.assert_array_equal(check_images(X)[0], [[[0, 0, 0], [255, 10, 20]]])


@pytest.mark.skipif(np.dtype(np.longdouble) == np.float64, reason="it has no more bits here")
def test_floats_of_more_bits_are_refused():
    with pytest.raises(ValueError, match=r"X\[0\] must be of dtype .*, got float(96|128)"):
        check_images(IMAGES.astype(np.longdouble))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, ">u2", np.float16, np.float32, float])
def test_images_keep_their_pixels(dtype):
    X = np.ones((2, 4, 5), dtype=dtype)
    images = check_images(X)
    assert [image.shape for image in images] == [(4, 5, 1)] * 2
    assert all(np.shares_memory(image, X) for image in images)


def test_lists_may_hold_unequal_images():
    data = check_labelled_images(
        [np.zeros((4, 5, 3)), np.zeros((1, 9, 3))], [np.zeros((4, 5), int), np.ones((1, 9), bool)], LabelScheme()
    )
    assert [image.shape for image in data.images] == [(4, 5, 3), (1, 9, 3)]
    assert [annotation.truth.all() for annotation in data.annotations] == [False, True]
    assert (len(data), data.n_channels) == (2, 3)


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


class As(Pairs):
    """The same in another form."""

    def __init__(self, form, images, masks):
        super().__init__(images, masks)
        self.form = form

    def __getitem__(self, n):
        return self.form(*super().__getitem__(n))


class Flipped(Dataset):
    """Images that are mirrored each second time that they are read, together with their masks."""

    def __init__(self, images, masks):
        self.pairs = list(zip(images, masks))
        self.n_read = 0

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, n):
        self.n_read += 1
        image, mask = self.pairs[n]
        return (image[:, ::-1], mask[:, ::-1]) if self.n_read % 2 else (image, mask)


KINDS = {
    "lists": (lambda images, masks, X, y: (images, masks), False),
    "tuples": (lambda images, masks, X, y: (tuple(images), tuple(masks)), False),
    "PIL": (lambda images, masks, X, y: [[Image.fromarray(a) for a in kind] for kind in (images, masks)], False),
    "tensors": (lambda images, masks, X, y: ([torch.from_numpy(i).permute(2, 0, 1) for i in images], masks), False),
    "tensors of masks": (lambda images, masks, X, y: (images, [torch.from_numpy(m)[None] for m in masks]), False),
    "bool masks": (lambda images, masks, X, y: (images, [m > 0 for m in masks]), False),
    "paths": (lambda images, masks, X, y: (X, y), True),
    "arrays of paths": (lambda images, masks, X, y: (np.array(X), np.array(y)), True),
    "series": (lambda images, masks, X, y: (pd.Series(X, index=[3, 1, 2]), pd.Series(y)), True),
    "data frames": (lambda images, masks, X, y: (pd.DataFrame({"image": X}), pd.DataFrame({"mask": y})), True),
    "paths and arrays": (lambda images, masks, X, y: (X, masks), True),
    "dataset of pairs": (lambda images, masks, X, y: (Pairs(images, masks), None), True),
    "slices of a dataset": (lambda images, masks, X, y: [SliceDataset(Pairs(images, masks), k) for k in (0, 1)], True),
    "dataset of dicts": (
        lambda images, masks, X, y: (As(lambda i, m: {"image": i, "mask": m, "id": 7}, images, masks), None),
        True,
    ),
    "dataset of lists": (lambda images, masks, X, y: (As(lambda i, m: [i, m], images, masks), None), True),
    "dataset of triples": (lambda images, masks, X, y: (As(lambda i, m: (i, m, "name"), images, masks), None), True),
    "list of pairs": (lambda images, masks, X, y: (list(zip(images, masks)), None), False),
    "list of pairs of paths": (lambda images, masks, X, y: (list(zip(X, y)), None), True),
    "polars": (lambda images, masks, X, y: (polars.Series(X), polars.DataFrame({"mask": y})), True),
    "dataset and arrays": (lambda images, masks, X, y: (Pairs(images, masks), masks), True),
}


@pytest.mark.parametrize(("give", "lazy"), KINDS.values(), ids=KINDS)
def test_all_kinds_of_images_and_labels_are_read(files, give, lazy):
    data = check_labelled_images(*give(*files), LabelScheme(pos_label=255))
    assert data.is_lazy == lazy
    for image, annotation, expected, mask in zip(data.images, data.annotations, *files[:2], strict=True):
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(annotation.truth, mask == 255)


def test_lazy_images_are_read_when_they_are_asked_for(files):
    pairs = Pairs(*files[:2])
    data = check_labelled_images(pairs, files[1], LabelScheme(pos_label=255))
    before = pairs.n_read
    assert before <= len(pairs)
    np.testing.assert_array_equal(data.images[1], files[0][1])
    assert pairs.n_read == before + 1
    chosen = data.chosen([2, 0])
    assert chosen.is_lazy
    assert pairs.n_read == before + 1
    for image, annotation, n in zip(chosen.images, chosen.annotations, [2, 0], strict=True):
        np.testing.assert_array_equal(image, files[0][n])
        assert annotation is data.annotations[n]


def test_of_a_dataset_that_changes_image_and_mask_together_each_pair_comes_from_one_call(files):
    images = [np.arange(40, dtype=np.uint8).reshape(5, 8) + n for n in range(3)]
    data = check_labelled_images(Flipped(images, [image % 2 for image in images]), None, LabelScheme())
    data = data.weighted(np.array([1.0, 2.0, 3.0])).chosen([0, 2])
    for _ in range(2):
        for n in range(2):
            image, annotation = data[n]
            np.testing.assert_array_equal(image[..., 0] % 2 == 1, annotation.truth)
            assert annotation.weight == [1.0, 3.0][n]


def test_images_that_are_others_each_time_are_told_where_labels_would_not_belong_to_them(files):
    images = [np.arange(40, dtype=np.uint8).reshape(5, 8) + n for n in range(3)]
    pairs = Flipped(images, [image % 2 for image in images])
    with pytest.raises(ValueError, match=r"X\[0\] changes each time that it is read"):
        check_labelled_images(pairs, None, LabelScheme()).check_lasting()
    with pytest.raises(ValueError, match="validation_data.0. changes each time"):
        check_validation_data(pairs, LabelScheme(), 1)
    with pytest.raises(ValueError, match=r"X\[0\] changes each time"):
        check_labelled_images(pairs, [image % 2 for image in images], LabelScheme()).images[0]


def test_files_that_sorting_paired_wrongly_are_told(tmp_path):
    for n in range(12):
        for name in (f"img_{n}.png", f"img_{n}_mask.png"):
            Image.new("L", (5, 4)).save(tmp_path / name)
    masks = sorted(map(str, tmp_path.glob("*_mask.png")))
    images = sorted(set(map(str, tmp_path.glob("*"))) - set(masks))
    with pytest.warns(
        UserWarning, match=r"y\[1\], .*img_10_mask.png, has the name of another .*, not of X\[1\], .*img_1.png"
    ):
        check_labelled_images(images, masks, LabelScheme())
    check_labelled_images(images, [image.replace(".png", "_mask.png") for image in images], LabelScheme())


def test_broken_files_are_named(files):
    _, _, X, y = files
    with pytest.raises(FileNotFoundError, match=r"X\[1\]: .*nowhere.png"):
        check_images([X[0], "nowhere.png"])
    with open(y[2], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"y\[2\]: .*mask2.png can't be read as an image"):
        check_labelled_images(X, y, LabelScheme(pos_label=255))


def test_what_images_and_pixels_count_is_set_apart():
    data = check_labelled_images(IMAGES, LABELS, LabelScheme())
    weighted = data.weighted(np.array([0.5, 1.5])).with_class_weight((1.0, 4.0))
    assert [(a.weight, a.class_weight) for a in weighted.annotations] == [(0.5, (1.0, 4.0)), (1.5, (1.0, 4.0))]
    assert [a.class_weight for a in weighted.weighted(np.ones(2)).annotations] == [(1.0, 4.0)] * 2
    assert [(a.weight, a.class_weight) for a in data.annotations] == [(1.0, (1.0, 1.0))] * 2
    assert isinstance(weighted, LabelledImages)
    assert weighted.images is data.images


def test_images_that_are_left_have_weights_of_a_mean_of_one():
    data = check_labelled_images(IMAGES, LABELS, LabelScheme()).weighted(np.array([0.5, 1.5]))
    assert [a.weight for a in data.chosen([1]).weighted_anew().annotations] == [1.0]
    with pytest.raises(ValueError, match="sample_weight is 0 for all images that are left"):
        data.weighted(np.array([2.0, 0.0])).chosen([1]).weighted_anew()


def test_background_is_no_foreground_of_two_labels_but_a_class_of_several():
    empty = np.zeros_like(LABELS[:1])
    assert check_labelled_images(IMAGES[:1], empty, LabelScheme()).has_foreground == [False]
    assert check_labelled_images(IMAGES[:1], empty, LabelScheme(several=(0, 1, 2))).has_foreground == [True]
    unlabelled = np.full_like(LABELS[:1], 255)
    assert check_labelled_images(IMAGES[:1], unlabelled, LabelScheme(several=(0, 1, 2))).has_foreground == [False]


def test_results_come_out_as_images_went_in():
    results = [np.zeros((4, 5)), np.ones((4, 5))]
    assert as_given(results, np.zeros((2, 4, 5))).shape == (2, 4, 5)
    for X in ([np.zeros((4, 5))] * 2, np.array(["a.png", "b.png"])):
        given = as_given(results, X)
        assert isinstance(given, list)
        assert all(a is b for a, b in zip(given, results, strict=True))


def test_floats_that_hold_the_values_of_integers_are_told():
    with pytest.warns(UserWarning, match=r"X\[3\] holds floats up to 255, .* as X / 255 does"):
        warn_of_range(np.full((4, 5, 1), 255.0), "X[3]")
    for image in (np.full((4, 5, 1), 255, np.uint8), np.full((4, 5, 1), 9.0)):
        warn_of_range(image, "X[3]")


def test_classes_are_found_in_all_labels_and_go_with_parts_of_the_images():
    X, y = np.zeros((3, 1, 2), np.uint8), [[[0, 4]], [[0, 0]], [[9, 255]]]
    data = check_labelled_images(X, y, LabelScheme(), find_classes=True)
    assert data.scheme.classes == data.chosen([1]).weighted(np.ones(1)).scheme.classes == (0, 4, 9)
    assert [a.mask.tolist() for a in data.annotations] == [[[0, 1]], [[0, 0]], [[2, 255]]]
    with pytest.raises(ValueError, match=r"y\[0\] must hold the labels 0, 1 and 255 only, found \[4\]"):
        check_labelled_images(X, y, LabelScheme())


def test_datasets_of_pairs_are_read_again_by_the_classes_that_were_found():
    class Pairs:
        def __len__(self):
            return 2

        def __getitem__(self, n):
            return np.full((1, 2), n, np.uint8), np.array([[[0, 4]], [[9, 9]]])[n]

    data = check_labelled_images(Pairs(), None, LabelScheme(), find_classes=True)
    assert [data[n][1].truth.tolist() for n in (0, 1)] == [[[0, 1]], [[2, 2]]]
