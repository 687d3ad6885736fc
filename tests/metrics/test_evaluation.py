from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from measured import Given, Labelled, three_classes
from PIL import Image
from torch.utils.data import TensorDataset

from skmmcrf import CNNSegmenter
from skmmcrf.images.labels import LabelScheme
from skmmcrf.metrics import boundary_f_measures, dice_indices, evaluate, hausdorff_distances, jaccard_indices


def kinds_of(X, y, folder):
    """The same images in all ways that a table can be asked for."""
    files = [folder / f"{n}.png" for n in range(len(X))]
    for file, image in zip(files, X):
        Image.fromarray(image).save(file)
    return {
        "array": (X, y),
        "list": (list(X), list(y)),
        "tensor": (torch.as_tensor(X), torch.as_tensor(y)),
        "paths": (files, y),
        "pairs": (list(zip(X, y)), None),
        "dataset": (TensorDataset(torch.as_tensor(X), torch.as_tensor(y)), None),
        "dicts": ([{"image": str(file), "mask": mask} for file, mask in zip(files, y)], None),
    }


def test_a_table_has_each_images_measures_and_shares_of_foreground(phantoms, tmp_path):
    X, y = phantoms
    y = y.copy()
    y[:, :5] = 255
    y[1] = 255
    cnn = CNNSegmenter(n_epochs=6, learning_rate=1e-2, batch_size=1, random_state=1).fit(X, y)
    found = cnn.predict(X)
    assert (hausdorff_distances(y, found, percentile=95) < hausdorff_distances(y, found)).any()
    labelled = y[0] != 255
    for kind, data in kinds_of(X, y, tmp_path).items():
        table = evaluate(cnn, *data, tolerance=1.5)
        assert list(table)[:5] == ["image", "jaccard", "dice", "boundary_f", "hausdorff_95"]
        assert table["image"].tolist() == (list("012345") if kind in ("paths", "dicts") else list(range(6)))
        np.testing.assert_array_equal(table["jaccard"], jaccard_indices(y, found))
        np.testing.assert_array_equal(table["dice"], dice_indices(y, found))
        np.testing.assert_array_equal(table["boundary_f"], boundary_f_measures(y, found, tolerance=1.5))
        np.testing.assert_array_equal(table["hausdorff_95"], hausdorff_distances(y, found, percentile=95))
        for column, labels in {"true_foreground": y == 1, "predicted_foreground": found == 1}.items():
            expected = [np.nan if n == 1 else labels[n][labelled].mean() for n in range(6)]
            np.testing.assert_allclose(table[column], expected)
    assert pd.DataFrame(table).shape == (6, 7)


def test_a_table_gives_empty_images_what_the_measures_give_them():
    empty = np.zeros((2, 3, 4), int)
    for both_empty, expected in {"omit": 4 * [np.nan], "perfect": [1, 1, 1, 0]}.items():
        table = evaluate(Given(), empty, empty, both_empty=both_empty)
        np.testing.assert_array_equal([table[column][1] for column in list(table)[1:5]], expected)
        np.testing.assert_array_equal(table["true_foreground"], [0, 0])


class Recorder(Given):
    """It notes how many images it is given at a time."""

    def __init__(self):
        self.parts = []

    def predict(self, X):
        self.parts.append(len(X))
        return [np.asarray(x) for x in X]


class Dataset:
    """Pairs whose image is the truth. It notes what is asked for."""

    def __init__(self, n):
        self.masks = [np.full((2, 3), k % 2, np.uint8) for k in range(n)]
        self.asked = []

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, n):
        self.asked.append(n)
        return self.masks[n], self.masks[n]


def test_estimators_get_an_array_as_it_is():
    class Same(Given):
        def predict(self, X):
            assert X is images
            return X

    images = np.ones((20, 2, 3), int)
    assert (evaluate(Same(), images, images)["dice"] == 1).all()


def test_each_image_of_a_dataset_is_asked_for_once_and_few_are_in_memory():
    dataset, recorder = Dataset(50), Recorder()
    table = evaluate(recorder, dataset, both_empty="perfect")
    assert (table["jaccard"] == 1).all()
    assert dataset.asked == list(range(50))
    assert sum(recorder.parts) == 50
    assert max(recorder.parts) <= 16


class LabelledBySeven(Given):
    _label_scheme = LabelScheme(7, 9)


def test_a_table_reads_labels_as_the_estimator_does():
    masks = [np.array([[0, 7, 9]]), np.array([[9, 0, 0]])]
    table = evaluate(
        LabelledBySeven(), [np.array([[7, 7, 7]]), np.array([[0, 0, 0]])], masks, names=pd.Series(["a", "b"], [5, 6])
    )
    assert table["image"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(table["jaccard"], [0.5, np.nan])
    np.testing.assert_array_equal(table["true_foreground"], [0.5, 0])
    np.testing.assert_array_equal(table["predicted_foreground"], [1, 0])


class Choosy(Given):
    """It takes no image of 3."""

    def predict(self, X):
        for n, x in enumerate(X):
            if np.any(x == 3):
                raise ValueError(f"X[{n}] is of 3")
        return X


def test_errors_of_later_parts_of_a_dataset_tell_the_part():
    dataset = Dataset(20)
    dataset.masks[18] = np.full((2, 3), 3)
    masks = [np.zeros((2, 3))] * 20
    with pytest.raises(ValueError, match=r"X\[2\] is of 3") as told:
        evaluate(Choosy(), dataset, masks)
    assert told.value.__notes__ == ["X[0] in this message is X[16] of all images"]
    with pytest.raises(ValueError, match=r"X\[18\] is of 3") as told:
        evaluate(Choosy(), dataset.masks, masks)
    assert not hasattr(told.value, "__notes__")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimator": object()}, TypeError, "estimator must have the method predict, object has none"),
        ({"y": None}, TypeError, "y is None, but X is no dataset of pairs"),
        ({"y": [np.zeros((2, 3))]}, ValueError, "X and y must have the same length, got 2 images and 1 labels"),
        ({"y": np.full((2, 2, 3), 255)}, ValueError, "y holds 255 but no 1"),
        ({"y": np.zeros((2, 3, 2))}, ValueError, r"the prediction of X\[0\] has shape \(2, 3\), but y\[0\] has"),
        ({"X": np.full((2, 2, 3), 3)}, ValueError, r"the prediction of X\[0\] must hold the labels 0 and 1 only"),
        ({"y": np.full((2, 2, 3), 3)}, ValueError, r"y\[0\] must hold the labels 0, 1 and 255 only"),
        ({"names": ["a"]}, ValueError, r"names must hold a name for each of the 2 images, got \['a'\]"),
        ({"names": "ab"}, ValueError, "names must hold a name for each"),
    ],
)
def test_what_has_no_table_is_told(change, error, message):
    arguments = {"estimator": Given(), "X": np.ones((2, 2, 3), int), "y": np.ones((2, 2, 3), int)} | change
    with pytest.raises(error, match=message):
        evaluate(**arguments)


def test_a_prediction_of_other_number_is_told():
    class Forgetful(Given):
        def predict(self, X):
            return X[1:]

    with pytest.raises(ValueError, match="predict must give labels for each image, got 1 for 2 images"):
        evaluate(Forgetful(), np.ones((2, 2, 3)), np.ones((2, 2, 3)))


def test_bad_names_and_parameters_of_tables_are_told_before_anything_is_predicted():
    recorder, masks = Recorder(), np.ones((2, 2, 3), int)
    for bad in ({"names": ["a"]}, {"both_empty": 1}, {"tolerance": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            evaluate(recorder, masks, masks, **bad)
    assert recorder.parts == []


def test_a_table_of_several_classes_has_their_measures_and_shares():
    y, found = three_classes()
    table = evaluate(Labelled((0, 5, 9)), found, y)
    measures = {
        "jaccard": jaccard_indices,
        "dice": dice_indices,
        "boundary_f": boundary_f_measures,
        "hausdorff_95": partial(hausdorff_distances, percentile=95),
    }
    of_classes = [f"{name}_{label}" for name in (*measures, "true", "predicted") for label in (0, 5, 9)]
    assert list(table) == ["image", *measures, "accuracy", *of_classes]
    for name, measure in measures.items():
        values = measure(y, found, classes=(0, 5, 9))
        np.testing.assert_array_equal(np.transpose([table[f"{name}_{label}"] for label in (0, 5, 9)]), values)
        np.testing.assert_allclose(table[name], np.nanmean(values, axis=1))
    np.testing.assert_allclose(table["accuracy"], [2 / 3, 3 / 4])
    np.testing.assert_allclose([table[f"true_{n}"] for n in (0, 5, 9)], [[1 / 3, 1 / 2], [1 / 3, 1 / 2], [1 / 3, 0]])
    np.testing.assert_allclose([table[f"predicted_{n}"] for n in (0, 5, 9)], [[1 / 3, 1 / 4], [2 / 3, 3 / 4], [0, 0]])
    pd.DataFrame(table)


def test_an_image_of_several_classes_without_any_label_counts_nowhere():
    y, found = three_classes()
    y[0] = 255
    table = evaluate(Labelled((0, 5, 9)), found, y, both_empty="perfect")
    numbers = np.array([column for name, column in table.items() if name != "image"])
    np.testing.assert_array_equal(np.isnan(numbers), np.broadcast_to([True, False], numbers.shape))
