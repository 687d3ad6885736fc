"""What happens with the files and habits that people have, a line each.

Each line is one small case of its kind: what is tried, and what comes of it. A message in quotes is the error or the
warning that is shown. Run it as ``python examples/habits.py``. It needs the extras ``tests`` and takes about a minute.
"""

import io
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from PIL import Image
from sklearn.metrics import precision_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, MaxMarginLoss
from skmmcrf.datasets import load_image_folder, load_image_pairs, make_phantoms, save_masks, split_pairs
from skmmcrf.display import SegmentationDisplay
from skmmcrf.images.files import read_image
from skmmcrf.metrics import make_segmentation_scorer

X, y = make_phantoms(8, shape=(32, 40), random_state=0)
CASES: dict[str, Callable[[Path], object]] = {}


def case(number: int, tried: str) -> Callable[[Callable[[Path], object]], None]:
    """Add a function to the cases. It is given an empty folder, and gives what to show."""
    return lambda function: CASES.__setitem__(f"{number:2}. {tried}", function)


def quick(**parameters: object) -> CNNSegmenter:
    return CNNSegmenter(**{"n_epochs": 2, "batch_size": 4, "device": "cpu", "random_state": 0} | parameters)


def joint(**parameters: object) -> DeepStructuredSegmenter:
    return DeepStructuredSegmenter(quick(), n_epochs=1, batch_size=4, random_state=0).set_params(**parameters)


def pixelwise(n_channels: int) -> nn.Module:
    return nn.Conv2d(n_channels, 1, 1)


def save(path: Path, pixels: np.ndarray, **how: object) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(path, **how)
    return path


class Flipping(Dataset):
    """Mirrors image and mask together, half of the time; the mask is where the image is bright."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        image = X[n, :, :: 1 if torch.rand(()) < 0.5 else -1]
        return image, image > 128


@case(1, "a dataset that mirrors image and mask at random, network alone")
def _(folder: Path) -> object:
    cnn = quick(network=pixelwise, n_epochs=60, learning_rate=0.5).fit(Flipping())
    return f"trained on pairs that belong together: Jaccard {cnn.score(X, X > 128):.2f}"


@case(1, "the same with a field, which needs images that last")
def _(folder: Path) -> object:
    return joint().fit(Flipping())


@case(2, "a photograph that is stored turned, and its upright mask")
def _(folder: Path) -> object:
    exif = Image.Exif()
    exif[274] = 3
    file = save(folder / "a.png", X[0, ::-1, ::-1], exif=exif)
    opened = quick(n_epochs=0).fit([Image.open(file)], [y[0]])
    same = np.array_equal(read_image(file), X[0])
    return f"read as viewers show it: {same}, and so is the opened image: {opened.n_channels_in_ == 1}"


@case(3, "a mask with a palette, white at index 0")
def _(folder: Path) -> object:
    mask = Image.fromarray(y[0] ^ 1).convert("P")
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(folder / "a.png")
    return f"means its greys: {np.array_equal(read_image(folder / 'a.png', as_labels=True), 255 * y[0])}"


@case(3, "a mask with a palette of colours, and pos_label=255")
def _(folder: Path) -> object:
    mask = Image.fromarray(y[0]).convert("P")
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.save(folder / "a.png")
    return quick(pos_label=255).fit(X[:1], [folder / "a.png"])


@case(4, "a PNG of 16 bits in three channels")
def _(folder: Path) -> object:
    import SimpleITK

    deep = np.random.default_rng(0).integers(0, 2**16, (32, 40, 3)).astype(np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(deep, isVector=True), str(folder / "a.png"))
    return f"no bit is lost: {np.array_equal(read_image(folder / 'a.png'), deep)}"


@case(5, "early stopping, and no validation image has foreground")
def _(folder: Path) -> object:
    return quick(early_stopping=True).fit(X, y, validation_data=(X, 0 * y))


@case(5, "validation_fraction, and two images of eight have foreground")
def _(folder: Path) -> object:
    rare = y.copy()
    rare[2:] = 0
    history = quick(early_stopping=True, validation_fraction=0.25).fit(X, rare).history_
    return f"one of the two is watched: Jaccard {history[-1]['valid_jaccard']:.2f}"


@case(6, "a search in which a fold has no foreground")
def _(folder: Path) -> object:
    empty = y.copy()
    empty[:4] = 0
    dark = nn.Conv2d(1, 1, 1)
    nn.init.constant_(dark.weight, 0)
    nn.init.constant_(dark.bias, -1)
    always_background = quick(network=dark, n_epochs=0)
    scores = cross_val_score(always_background, X, empty, cv=KFold(2))
    perfect = make_segmentation_scorer("jaccard", both_empty="perfect")
    counted = cross_val_score(always_background, X, empty, cv=KFold(2), scoring=perfect)
    return f"scores {scores.round(2)}, and with both_empty='perfect' {counted.round(2)}"


@case(7, "a network that ends in a sigmoid")
def _(folder: Path) -> object:
    quick(network=nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())).fit(X, y)
    return "trained"


@case(8, "two fits side by side in threads, same seed")
def _(folder: Path) -> object:
    alone, *both = (quick().fit(X, y), *Parallel(2, "threading")(delayed(quick().fit)(X, y) for _ in range(2)))
    same = all(np.array_equal(alone.decision_function(X), one.decision_function(X)) for one in both)
    return f"both are the model of a fit alone: {same}"


@case(9, "some masks of 0 and 1, others of 0 and 255")
def _(folder: Path) -> object:
    quick().fit(X, [255 * mask if n < 3 else mask for n, mask in enumerate(y)])
    return "trained"


@case(10, "a palette image as a path and as an opened PIL image")
def _(folder: Path) -> object:
    Image.fromarray(X[0]).convert("RGB").quantize(16).save(folder / "a.png")
    models = [quick(n_epochs=0).fit([given], y[:1]) for given in (folder / "a.png", Image.open(folder / "a.png"))]
    return f"channels: {[model.n_channels_in_ for model in models]}"


@case(11, "one RGB photograph given to a model of gray images")
def _(folder: Path) -> object:
    return quick().fit(X, y).predict(np.zeros((32, 40, 3), np.uint8))


@case(11, "arrays with channels first")
def _(folder: Path) -> object:
    return quick().fit(np.zeros((8, 3, 32, 40), np.uint8), y)


@case(12, "sorted lists that pair img_1 with img_10_mask")
def _(folder: Path) -> object:
    for n in range(12):
        save(folder / f"img_{n}.png", X[n % 8])
        save(folder / f"img_{n}_mask.png", y[n % 8])
    masks = sorted(folder.glob("*_mask.png"))
    quick().fit(sorted(set(folder.glob("*.png")) - set(masks)), masks)
    return "trained"


@case(13, "predict_proba and decision_function")
def _(folder: Path) -> object:
    return " ".join(getattr(joint(), name).__doc__.splitlines()[0] for name in ("predict_proba", "decision_function"))


@case(14, "labels after training with MaxMarginLoss")
def _(folder: Path) -> object:
    log_odds = torch.from_numpy(4.0 * y - 1 + np.random.default_rng(0).normal(size=y.shape) * 3)
    images, loss = torch.from_numpy(X / 255), MaxMarginLoss()
    loss(log_odds, torch.from_numpy(y), images)
    right = [float((labels.numpy() == y).mean()) for labels in (log_odds > 0, loss.predict(log_odds, images))]
    return f"loss.predict labels {right[1]:.1%} of the pixels right, log_odds > 0 {right[0]:.1%}"


@case(15, "what verbose=1 prints")
def _(folder: Path) -> object:
    with redirect_stdout(io.StringIO()) as printed:
        joint(verbose=1).fit(X, y)
    return "\n        " + printed.getvalue().rstrip().replace("\n", "\n        ")


@case(16, "batch normalisation, and nine images in batches of four")
def _(folder: Path) -> object:
    nine = quick(network="unet_resnet18").fit(np.concatenate([X, X[:1]]), np.concatenate([y, y[:1]]))
    return f"trained, batches of 4 and 5: {nine.n_iter_} epochs"


@case(16, "batch normalisation, and batches of one image")
def _(folder: Path) -> object:
    return quick(network="unet_resnet18", batch_size=1).fit(X[:, :, :32], y[:, :, :32])


@case(17, "a network that needs multiples of a number, and an image that is none")
def _(folder: Path) -> object:
    halving = nn.Sequential(nn.Conv2d(1, 1, 2, 2), nn.ConvTranspose2d(1, 1, 2, 2))
    return quick(network=halving).fit([*X[:7], X[7, 1:]], [*y[:7], y[7, 1:]])


@case(18, "joblib's multiprocessing backend")
def _(folder: Path) -> object:
    with parallel_config(backend="multiprocessing", n_jobs=2):
        there = joint().fit(X, y)
    return f"the same weights as without: {np.array_equal(there.coef_, joint().fit(X, y).coef_)}"


@case(19, "a lazy layer, and a network of float64")
def _(folder: Path) -> object:
    networks = nn.LazyConv2d(1, 1), nn.Conv2d(1, 1, 1).double()
    return f"trained: {[quick(network=network).fit(X, y).predict(X).shape for network in networks]}"


@case(20, "a dataset of dicts, also for validation")
def _(folder: Path) -> object:
    pairs = [{"image": image, "mask": mask, "patient": 7} for image, mask in zip(X, y)]
    return f"read: {sorted(joint().fit(pairs, validation_data=pairs).history_[-1])}"


@case(20, "a DataLoader")
def _(folder: Path) -> object:
    return quick().fit(DataLoader(list(zip(X, y))))


@case(21, "albumentations")
def _(folder: Path) -> object:
    try:
        import albumentations as A
    except ImportError:
        return "not installed here"
    quick(augmentation=A.Compose([A.HorizontalFlip(), A.Affine(rotate=(-9, 9), fill_mask=255)])).fit(X, y)
    return "trained"


@case(21, "torchvision's transforms of the first version")
def _(folder: Path) -> object:
    return quick(augmentation=transforms.Compose([transforms.RandomHorizontalFlip()])).fit(X, y)


@case(22, "names in NFD and NFC, hidden files, endings in train.txt and in upper case")
def _(folder: Path) -> object:
    save(folder / "images" / unicodedata.normalize("NFD", "Müller.PNG"), X[0])
    save(folder / "masks" / unicodedata.normalize("NFC", "müller.png"), 255 * y[0])
    (folder / "images" / "Thumbs.db").write_bytes(b"")
    (folder / "train.txt").write_text(unicodedata.normalize("NFC", "Müller.PNG"), encoding="utf-8")
    return f"read: {load_image_folder(folder, 'train').names}"


@case(24, "weights for ImageNet without internet")
def _(folder: Path) -> object:
    with patch("torchvision.models._api.load_state_dict_from_url", no_internet):
        return quick(network="unet_squeezenet1_1", weights="imagenet").fit(X, y)


@case(25, "a list of images of one size")
def _(folder: Path) -> object:
    return f"np.array(model.predict(images)) is of shape {np.array(quick().fit(X, y).predict(list(X))).shape}"


@case(26, "pos_label=255, a display and a scorer")
def _(folder: Path) -> object:
    cnn = quick(pos_label=255).fit(X, 255 * y)
    display = SegmentationDisplay.from_estimator(cnn, X[:1], 255 * y[:1])
    score = make_segmentation_scorer("dice")(cnn, X, 255 * y)
    return f"both ask the estimator: Jaccard {float(*display.jaccard.popitem()[1]):.2f}, Dice {score:.2f}"


@case(27, "scikit-learn's own measures in a search")
def _(folder: Path) -> object:
    scores = cross_val_score(quick(), X, y, cv=2, scoring=make_segmentation_scorer(precision_score))
    return f"make_segmentation_scorer(precision_score) takes them pixel by pixel: {scores.round(2)}"


@case(28, "checkpoint in a search")
def _(folder: Path) -> object:
    search = GridSearchCV(joint(checkpoint=folder), {"C": [0.1, 1.0]}, cv=2, error_score="raise").fit(X, y)
    return f"{len(list(folder.iterdir()))} fits have folders of their own; best score {search.best_score_:.2f}"


@case(29, "gray images among RGB ones")
def _(folder: Path) -> object:
    save(folder / "images" / "a.png", X[0])
    save(folder / "images" / "b.png", np.dstack([X[1]] * 3))
    for n, name in enumerate("ab"):
        save(folder / "masks" / f"{name}.png", y[n])
    shapes = [image.shape for image in load_image_pairs(folder / "images", folder / "masks", channels="RGB").images]
    try:
        load_image_pairs(folder / "images", folder / "masks")
    except ValueError as error:
        return f"channels='RGB' gives {shapes}; without it: '{error}'"
    return "not told"


@case(30, "own folders: scans/anna_1.jpg and masks/anna_1_mask.png, of several patients")
def _(folder: Path) -> object:
    for n in range(8):
        patient = ("anna", "ben", "cleo", "dora")[n // 2]
        save(folder / "scans" / f"{patient}_{n}.jpg", X[n])
        save(folder / "masks" / f"{patient}_{n}_mask.png", 255 * y[n])
    data = load_image_pairs(folder / "scans", folder / "masks", group=r"^([a-z]+)")
    train, test = split_pairs(data, test_size=0.25, random_state=0)
    model = joint().fit(train.images, train.masks)
    save_masks(folder / "results", test.names, model.predict(test.images))
    files = sorted(file.name for file in (folder / "results").iterdir())
    return f"trained on {train.names}, and wrote {files}"


@case(31, "a large image, in tiles")
def _(folder: Path) -> object:
    model = joint().fit(X, y)
    large = np.tile(X[0], (66, 66))  # the largest that is not cut into tiles has 2048 x 2048 pixels
    return f"{large.shape[0]} x {large.shape[1]} pixels labelled: {model.predict([large])[0].mean():.1%} foreground"


@case(31, "training on random crops")
def _(folder: Path) -> object:
    return (
        f"crop=16 trains on 16 x 16 pixels, and predicts whole images: {joint(cnn__crop=16).fit(X, y).predict(X).shape}"
    )


@case(32, "a TIFF of several pages")
def _(folder: Path) -> object:
    pages = [Image.fromarray(image) for image in X[:3]]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    return read_image(folder / "a.tif")


@case(32, "a volume in NIfTI")
def _(folder: Path) -> object:
    (folder / "a.nii").write_bytes(bytes(400))
    return read_image(folder / "a.nii")


def no_internet(*_: object, **__: object) -> object:
    raise URLError("no route to host")


def show(function: Callable[[Path], object]) -> str:
    """What comes of a case, in one line."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said = [str(function(Path(folder)))]
        except Exception as error:
            said = [f"{type(error).__name__}: '{error}'"]
        said += [f"{w.category.__name__}: '{w.message}'" for w in caught]
    return " | ".join(said).replace(str(folder), "FOLDER")


if __name__ == "__main__":
    for tried, function in CASES.items():
        print(f"{tried}: {show(function)}", flush=True)
