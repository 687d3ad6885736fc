import copy
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from nets import PLAIN
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch.callbacks import Callback, EpochScoring, Freezer, Unfreezer
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn as cnns
from skmmcrf.field.terms import scale_image
from skmmcrf.images.checking import check_labelled_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.networks import AnySize, BackboneUNet, UNet


def small_unet(n_channels):
    return UNet(n_channels, width=8, depth=2)


def quick(**parameters):
    defaults = {"n_epochs": 12, "learning_rate": 1e-2, "batch_size": 3, "device": "cpu", "random_state": 0}
    return CNNSegmenter(small_unet, **PLAIN | defaults | parameters)


@pytest.fixture(scope="module")
def fitted(phantoms):
    return quick().fit(*phantoms, validation_data=phantoms)


def first_weights(cnn):
    return next(cnn.network_.parameters())


def test_training_learns(fitted, phantoms):
    assert fitted.score(*phantoms) > 0.6
    losses = [epoch["loss"] for epoch in fitted.history_]
    assert losses[-1] < 0.7 * losses[0]
    assert fitted.n_iter_ == len(losses) == 12
    assert fitted.history_[-1]["valid_jaccard"] == pytest.approx(fitted.score(*phantoms), abs=1e-3)


@pytest.mark.parametrize(("n_images", "expected"), [(5, 300), (40, 188), (1000, 60)])
def test_auto_makes_about_1500_steps_in_60_to_300_epochs(n_images, expected):
    assert CNNSegmenter().epochs_for(n_images) == expected
    assert CNNSegmenter(n_epochs=7).epochs_for(n_images) == 7


def test_auto_is_trained_kept_and_loaded_as_the_number_that_it_stands_for(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(cnns, "_STEPS", 4)
    monkeypatch.setattr(cnns, "_LEAST_EPOCHS", 1)
    cnn, expected = (quick(n_epochs=n).fit(*phantoms) for n in ("auto", 2))  # 2 steps an epoch
    assert cnn.n_iter_ == 2
    np.testing.assert_array_equal(cnn.decision_function(phantoms[0]), expected.decision_function(phantoms[0]))
    assert quick(n_epochs="auto", validation_fraction=0.5).fit(*phantoms).n_iter_ == 4  # of the images left
    cnn.save(tmp_path / "cnn")
    loaded = load(tmp_path / "cnn", network=small_unet)
    assert loaded.n_epochs == "auto"
    np.testing.assert_array_equal(loaded.decision_function(phantoms[0]), expected.decision_function(phantoms[0]))


@pytest.mark.parametrize("n_epochs", [0, 1])
def test_the_module_given_is_not_changed(phantoms, n_epochs):
    module = nn.Conv2d(1, 1, 3, padding=1)
    before = module.weight.clone()
    cnn = CNNSegmenter(module, n_epochs=n_epochs).fit(phantoms[0][:1], phantoms[1][:1])
    assert cnn.network is module
    assert torch.equal(module.weight, before)
    assert torch.equal(cnn.network_.weight, before) == (n_epochs == 0)
    assert cnn.n_iter_ == n_epochs


def test_transform_stacks_log_odds_and_scaled_images(fitted, phantoms):
    X, _ = phantoms
    Z = fitted.transform(X)
    np.testing.assert_array_equal(Z[..., 0], fitted.decision_function(X))
    np.testing.assert_array_equal(Z[..., 1], scale_image(X))


def test_pretrained_batch_norm_keeps_its_statistics(tmp_path, phantoms):
    model, moved = torchvision.models.resnet18(), {}
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.fill_(2.0)
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    for weights in (None, tmp_path / "resnet18.pth"):
        cnn = CNNSegmenter("fcn8s_resnet18", weights=weights, n_epochs=1).fit(phantoms[0][:2], phantoms[1][:2])
        norms = [m for m in cnn.network_.modules() if isinstance(m, nn.BatchNorm2d)]
        moved[weights is None] = any(m.running_mean.any() for m in norms)
    assert moved == {True: True, False: False}


def test_losses_teach_different_networks(fitted, phantoms):
    networks = [first_weights(fitted)]
    for loss in ("dice", "log_likelihood+dice"):
        cnn = quick(loss=loss).fit(*phantoms)
        assert cnn.score(*phantoms) > 0.6
        networks.append(first_weights(cnn))
    assert not any(torch.equal(a, b) for a, b in zip(networks, networks[1:]))


class Rates(Callback):
    """Records the highest learning rate of each group of layers."""

    def on_train_begin(self, net, **kwargs):
        names = {id(parameter): name for name, parameter in net.module_.named_parameters()}
        self.layers = [{names[id(one)] for one in group["params"]} for group in net.optimizer_.param_groups]
        self.highest = [0.0] * len(self.layers)

    def on_batch_end(self, net, **kwargs):
        self.highest = [max(rate, group["lr"]) for rate, group in zip(self.highest, net.optimizer_.param_groups)]


@pytest.mark.parametrize("kind", ["unet", "fcn8s"])
def test_layers_that_are_pretrained_learn_at_a_tenth_of_the_rate(tmp_path, phantoms, kind):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    rates = Rates()
    cnn = CNNSegmenter(f"{kind}_squeezenet1_1", weights=tmp_path / "weights.pth", n_epochs=12, callbacks=[rates])
    cnn.set_params(learning_rate=0.1, batch_size=3, random_state=0).fit(phantoms[0][:1], phantoms[1][:1])
    (backbone, others), (of_backbone, of_others) = rates.layers, rates.highest
    assert backbone == {name for name in backbone | others if ".backbone." in name}
    assert others
    assert of_backbone == pytest.approx(of_others / 10)
    assert 0.09 < of_others <= 0.1


def test_layers_that_begin_at_random_learn_at_one_rate(phantoms):
    rates = Rates()
    CNNSegmenter("unet_squeezenet1_1", n_epochs=1, callbacks=[rates]).fit(*phantoms)
    assert len(rates.layers) == 1


def test_skorch_holds_a_backbone_for_some_epochs(phantoms):
    def backbone(n_epochs):
        callbacks = [Freezer("network.backbone.*"), Unfreezer("network.backbone.*", at=2)]
        cnn = CNNSegmenter("fcn8s_squeezenet1_1", n_epochs=n_epochs, callbacks=callbacks, random_state=0)
        return torch.cat([p.flatten() for p in cnn.fit(*phantoms).network_.backbone.parameters()])

    start, frozen, thawed = map(backbone, (0, 1, 2))
    assert torch.equal(start, frozen)
    assert not torch.equal(start, thawed)


def test_a_pretrained_module_of_ones_own_trains_as_the_named_one_does_but_for_its_rate(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr("skmmcrf.estimators.cnn._RATE_OF_BACKBONE", 1.0)
    model, file = torchvision.models.mobilenet_v3_small(), tmp_path / "weights.pth"
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.fill_(0.1)
    torch.save(model.state_dict(), file)
    named = CNNSegmenter("unet_mobilenet_v3_small", weights=file, n_epochs=1, random_state=0)
    own = CNNSegmenter(partial(BackboneUNet, "mobilenet_v3_small", weights=file), n_epochs=1, random_state=0)
    states = [cnn.fit(*phantoms).network_.state_dict() for cnn in (named, own)]
    assert all(map(torch.equal, *(state.values() for state in states)))
    assert all((value == 0.1).all() for key, value in states[1].items() if key.endswith("running_mean"))


@pytest.mark.parametrize("augmentation", ["flip", "standard", "strong", v2.RandomCrop((16, 20)), v2.RandomRotation(90)])
def test_augmentation_changes_what_is_learned(phantoms, augmentation):
    one, other, without = (quick(n_epochs=1, augmentation=a).fit(*phantoms) for a in (augmentation, augmentation, None))
    assert torch.equal(first_weights(one), first_weights(other))
    assert not torch.equal(first_weights(one), first_weights(without))


@pytest.mark.slow
def test_augmentation_makes_more_of_few_images():
    X, y = make_phantoms(34, shape=(32, 32), random_state=0)
    training = {"n_epochs": 100, "learning_rate": 3e-3, "batch_size": 4, "random_state": 0}
    without, scores = (
        CNNSegmenter(**PLAIN | training | {"augmentation": augmentation}).fit(X[:4], y[:4]).score(X[4:], y[4:])
        for augmentation in (None, "standard")
    )
    assert scores > without + 0.04


def test_early_stopping_keeps_the_best_epoch(phantoms):
    X, y = phantoms
    # a rate under which nothing lasts
    cnn = quick(learning_rate=0.3, schedule="constant", early_stopping=True, n_iter_no_change=2)
    cnn.fit(X[:4], y[:4], validation_data=(X[4:], y[4:]))
    rows = [row["valid_jaccard"] for row in cnn.history_]
    assert cnn.score(X[4:], y[4:]) == pytest.approx(max(rows))
    assert len(rows) == min(int(np.nanargmax(rows)) + 1 + 2, 12)
    assert [row["kept"] for row in cnn.history_] == [n == np.nanargmax(rows) for n in range(len(rows))]


@pytest.mark.parametrize(("parameters", "patience"), [({"n_epochs": 12}, 5), ({"n_epochs": 40}, 8), ({}, 60)])
def test_early_stopping_waits_for_a_fifth_of_the_epochs(phantoms, parameters, patience):
    X, y = phantoms
    # its index never rises
    still = {"schedule": "constant", "learning_rate": 1e-12, "augmentation": None}
    cnn = CNNSegmenter(nn.Conv2d(1, 1, 1), early_stopping=True, random_state=0, **still, **parameters)
    assert cnn.fit(X[:4], y[:4], validation_data=(X[4:], y[4:])).n_iter_ == 1 + patience


def test_held_out_images_are_not_trained_on(phantoms):
    X, y = phantoms
    cnn = quick(validation_fraction=0.3).fit(X, y)
    scores = [cnn.history_[-1]["valid_jaccard"], cnn.score(X, y)]
    assert scores[0] != pytest.approx(scores[1])
    others = X.copy()
    order = np.random.RandomState(0).permutation(6)  # as train_test_split draws
    others[order[:2]] = 0
    assert torch.equal(first_weights(cnn), first_weights(quick(validation_fraction=0.3).fit(others, y)))


@pytest.mark.parametrize("n_foreground", range(7))
def test_foreground_is_held_out_and_left_where_it_can_be(phantoms, n_foreground):
    X = phantoms[0]
    for seed in range(6):
        y = phantoms[1].copy()
        y[np.random.default_rng(seed).permutation(6)[n_foreground:]] = 0
        data = check_labelled_images(X, y, LabelScheme())
        parts = quick(validation_fraction=0.3, random_state=seed).hold_out(data, None)
        assert [len(part) for part in parts] == [4, 2]
        left, held_out = (any(annotation.truth.any() for annotation in part.annotations) for part in parts)
        assert (left, held_out) == (n_foreground >= 1, n_foreground >= 2)
        pixels = np.sort([image.sum() for part in parts for image in part.images])
        np.testing.assert_array_equal(pixels, np.sort([image.sum() for image in X]))


def test_early_stopping_needs_foreground_to_watch(phantoms):
    X, y = phantoms[0], phantoms[1].copy()
    y[1:] = 0
    with pytest.raises(
        ValueError, match="early_stopping .* no validation image has foreground: .* larger validation_fr"
    ):
        quick(validation_fraction=0.3, early_stopping=True).fit(X, y)
    y[1] = 1
    assert quick(validation_fraction=0.3, early_stopping=True, n_epochs=1).fit(X, y).history_[0]["valid_jaccard"] >= 0


def test_a_network_is_trained_on_crops_and_predicts_whole_images(phantoms):
    X, y = phantoms
    sizes = set()

    class Small(nn.Conv2d):
        def forward(self, images):
            sizes.add((self.training, images.shape[2:]))
            return super().forward(images)

    cnn = CNNSegmenter(Small(1, 1, 1), crop=(16, 12), augmentation="flip", n_epochs=2, random_state=0).fit(X, y)
    assert {size for trained, size in sizes if trained} == {(16, 12)}
    assert cnn.predict(X).shape == y.shape


class OfEvenSides(nn.Module):
    """It gives maps of another size for images of odd sides."""

    def __init__(self, n_channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(n_channels, 2, 2, stride=2), nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, images):
        return self.up(self.down(images))


@pytest.mark.parametrize("training", ["cnn", "piecewise"])
def test_whole_images_that_a_field_is_learned_on_are_tried_before_training_on_crops(phantoms, training):
    X, y = [*phantoms[0][:4], phantoms[0][4][1:]], [*phantoms[1][:4], phantoms[1][4][1:]]
    cnn = CNNSegmenter(OfEvenSides, crop=16, augmentation=None, n_epochs=1, batch_size=2)
    model = DeepStructuredSegmenter(cnn, training=training, random_state=0)
    if training == "cnn":
        assert len(model.fit(X, y).history_) == 1
    else:
        with pytest.raises(ValueError, match="size_divisor.*number 4 of the images as a whole"):
            model.fit(X, y)
        assert not hasattr(model, "cnn_")


def test_images_of_each_size_are_tried_as_an_augmentation_leaves_them(phantoms):
    X, y = [*phantoms[0][:4], phantoms[0][4][1:]], [*phantoms[1][:4], phantoms[1][4][1:]]
    cnn = CNNSegmenter(OfEvenSides, augmentation=lambda image, mask: (image, mask), n_epochs=1, random_state=0)
    with pytest.raises(ValueError, match="size_divisor.*number 4 of the images to train on"):
        cnn.fit(X, y)
    assert not hasattr(cnn, "network_")


def test_an_image_that_fails_in_training_is_named(phantoms):
    X, y = phantoms
    first = 0

    class Cutting(Callback):
        def on_train_begin(self, net, **kwargs):
            nonlocal first
            first = 1

    def change(image, mask):
        return image[:, first:], mask[first:]

    cnn = CNNSegmenter(OfEvenSides, augmentation=change, n_epochs=1, callbacks=[Cutting()], random_state=0)
    with pytest.raises(ValueError, match=r"size_divisor.*\(number \d of the images to train on\)"):
        cnn.fit(X, y)


def test_networks_that_differ_in_a_method_begin_a_training_anew(phantoms):
    class Network(nn.Conv2d):
        def forward(self, images):
            return self.head(super().forward(images))

        def head(self, features):
            return features

    data = check_labelled_images(*phantoms, LabelScheme())
    cnn = CNNSegmenter(lambda n: Network(n, 1, 1), random_state=0)
    before = str(cnn.first_weights(data)[""])
    assert str(cnn.first_weights(data)[""]) == before
    Network.head = lambda self, features: -features
    assert str(cnn.first_weights(data)[""]) != before


class Flipping(Dataset):
    """A dataset that mirrors image and mask together, half of the time; the mask is where the image is bright."""

    def __init__(self, n, form=tuple):
        self.pixels = np.random.default_rng(0).uniform(size=(n, 20, 24)).astype(np.float32)
        self.form = form

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, n):
        image = self.pixels[n] if torch.rand(()) < 0.5 else self.pixels[n, :, ::-1]
        return self.form((image, image > 0.5))


@pytest.mark.parametrize("form", [tuple, list, lambda pair: dict(zip(("image", "mask"), pair))])
def test_a_dataset_that_changes_images_and_masks_together_teaches_the_network(form):
    training = PLAIN | {"n_epochs": 40, "learning_rate": 0.5, "batch_size": 4, "random_state": 0}
    dataset = Flipping(8, form)
    cnn = CNNSegmenter(lambda n: nn.Conv2d(n, 1, 1), **training).fit(dataset)
    assert cnn.score(dataset.pixels, dataset.pixels > 0.5) > 0.9
    assert cnn.history_[-1]["jaccard"] > 0.9


def test_a_dataset_that_changes_at_random_is_refused_where_labels_would_not_belong_to_its_images(tmp_path):
    dataset = Flipping(12)
    labels = list(dataset.pixels > 0.5)
    cnn = CNNSegmenter(lambda n: nn.Conv2d(n, 1, 1), n_epochs=1, random_state=0)
    fits = {
        "a field": lambda: DeepStructuredSegmenter(cnn, n_epochs=1).fit(dataset),
        "labels beside": lambda: cnn.fit(dataset, labels),
        "checkpoint": lambda: CNNSegmenter(checkpoint=tmp_path, random_state=0).fit(dataset),
        "validation": lambda: cnn.fit(dataset, validation_data=dataset),
        "held out": lambda: CNNSegmenter(validation_fraction=0.9, random_state=0).fit(dataset),
        "score": lambda: CNNSegmenter(cnn.network, n_epochs=0).fit(dataset).score(dataset),
    }
    for name, fit in fits.items():
        with pytest.raises(ValueError, match="changes each time that it is read") as error:
            fit()
        assert "give them as augmentation" in str(error.value), name


@pytest.mark.parametrize("scale", [0.5, (1.0, 0.5)])
def test_the_network_is_run_at_other_scales(phantoms, scale):
    X, y = phantoms
    cnn = quick(n_epochs=3, network_scale=scale).fit(X, y, validation_data=(X, y))
    by_hand = AnySize(cnn.network_, scale=scale).eval()
    with torch.inference_mode():
        (log_odds,) = by_hand([torch.from_numpy(X[0])[None] / 255])
    np.testing.assert_allclose(cnn.decision_function(X[:1])[0], log_odds, rtol=1e-4, atol=1e-5)
    assert cnn.score(X, y) == pytest.approx(cnn.history_[-1]["valid_jaccard"])
    whole = quick(n_epochs=3).fit(X, y)
    assert not np.allclose(cnn.decision_function(X), whole.decision_function(X))


def test_with_the_mean_of_mirrored_images_left_and_right_are_alike(phantoms):
    X, y = phantoms
    cnn = quick(n_epochs=3, average_mirrored=True).fit(X, y, validation_data=(X, y))
    mirrored = cnn.decision_function(X[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(cnn.decision_function(X), mirrored, rtol=1e-4, atol=1e-5)
    assert cnn.history_[-1]["valid_jaccard"] == pytest.approx(cnn.score(X, y))


def own_network(*layers):
    """A small network of a user, with further layers behind its convolutions."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1), *layers)


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(1, 1))


class KeepsItsMaps(nn.Sequential):
    """Keeps tensors of each run, some for the next."""

    def forward(self, images):
        self.scale = getattr(self, "scale", images.new_ones(1))
        self.last = super().forward(images) * self.scale
        return self.last


def weight_normed(n_channels):
    network = own_network()
    with warnings.catch_warnings(action="ignore"):  # torch has a newer one
        nn.utils.weight_norm(network[0])
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda n_channels: lazy(),
        lambda: nn.Sequential(nn.LazyConv2d(1, 3, padding=1)),
        lambda: weight_normed,
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 1)), nn.Conv2d(4, 1, 1)),
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 1, 1))),
        lambda: nn.DataParallel(small_unet(1)),
        lambda: nn.Sequential(small_unet(1)),
        lambda: small_unet(1).double(),
        lambda: KeepsItsMaps(*own_network()),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 1).requires_grad_(False), nn.Conv2d(4, 1, 1)),
    ],
)
def test_unusual_networks_are_trained_run_copied_and_kept(make, phantoms, tmp_path):
    X, y = [image[:29] for image in phantoms[0]], [mask[:29] for mask in phantoms[1]]
    cnn = CNNSegmenter(make(), n_epochs=1, batch_size=4, random_state=0)
    clone(cnn)
    copied = copy.deepcopy(cnn.fit(X, y))
    expected = cnn.decision_function(X)
    model = DeepStructuredSegmenter(FrozenEstimator(cnn), n_epochs=1, random_state=0).fit(X, y)
    assert model.history_[-1]["stage"] == "joint"
    cnn.save(tmp_path / "cnn")
    for same in (cnn, copied, load(tmp_path / "cnn", network=make())):
        for log_odds, wanted in zip(same.decision_function(X), expected, strict=True):
            np.testing.assert_array_equal(log_odds, wanted)


def test_what_a_network_keeps_of_a_run_does_not_end_training(phantoms):
    cnn = CNNSegmenter(KeepsItsMaps(*own_network()), n_epochs=2, random_state=0)
    cnn.fit(*phantoms, validation_data=phantoms)
    assert cnn.n_iter_ == 2
    pickle.dumps(cnn)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (own_network().half(), "its parameters are of torch.float16, which is too coarse for training: call its float"),
        (own_network().bfloat16(), "its parameters are of torch.bfloat16, which is too coarse"),
        (lazy(), "torch can't copy this module"),
        (nn.Conv2d(1, 1, 1, dtype=torch.complex64), r"it can't take an image .*complex<float>\) should be the same$"),
    ],
)
def test_networks_that_can_not_be_trained_are_told_before(network, message, phantoms):
    with pytest.raises(ValueError, match=f"^network: {message}"):
        CNNSegmenter(network).fit(*phantoms)


def test_scripted_modules_are_told_the_way_out(phantoms):
    with warnings.catch_warnings(action="ignore"):  # torch advises against them
        network = torch.jit.script(own_network())
    with pytest.raises(ValueError, match="network: torch can't copy this module.* Give a function"):
        CNNSegmenter(network).fit(*phantoms)
    CNNSegmenter(lambda n_channels: network, n_epochs=1).fit(*phantoms)


def test_networks_are_trained_whatever_dtype_torch_defaults_to(phantoms, tmp_path):
    model = DeepStructuredSegmenter(quick(n_epochs=1).set_params(network="unet"), n_epochs=1, random_state=0)
    torch.set_default_dtype(torch.float64)
    try:
        model.fit(*phantoms).save(tmp_path / "model")
    finally:
        torch.set_default_dtype(torch.float32)
    same = load(tmp_path / "model")
    np.testing.assert_array_equal(same.decision_function(phantoms[0]), model.decision_function(phantoms[0]))


@pytest.mark.parametrize("n_epochs", [0, 1])
def test_networks_that_give_probabilities_are_warned_of(n_epochs, phantoms):
    with pytest.warns(UserWarning, match="network: it ends in a sigmoid or softmax"):
        CNNSegmenter(own_network(nn.Sigmoid()).requires_grad_(), n_epochs=n_epochs).fit(*phantoms)


def test_sizes_that_do_not_fit_are_told_before_training_and_in_prediction(phantoms):
    class Coarse(nn.Conv2d):
        def forward(self, images):
            coarse = nn.functional.max_pool2d(super().forward(images), 8)
            return images + nn.functional.interpolate(coarse, scale_factor=8)

    X, y = phantoms
    began = []
    cnn = CNNSegmenter(Coarse(1, 1, 1), n_epochs=1, callbacks=[EpochScoring(lambda *args: began.append(1))])
    for images, labels, validation in [([*X, X[0][:30]], [*y, y[0][:30]], None), (X, y, (X[:, :30], y[:, :30]))]:
        with pytest.raises(ValueError, match=r"network: it can't take .* \(30, 40, 1\) \(number [60] of"):
            cnn.fit(images, labels, validation_data=validation)
    assert not began
    cnn.set_params(callbacks=None).fit(X, y)
    with pytest.raises(
        ValueError, match=r"shape \(30, 40, 1\) \(image number 1\): .* its attribute size_divisor to that number$"
    ):
        cnn.predict([X[0], X[1][:30]])


@pytest.mark.parametrize("schedule", ["one_cycle", "linear", "cosine"])
def test_the_schedule_ends_with_the_last_batch(schedule, phantoms):
    rates = []

    class Rates(Callback):
        def on_batch_end(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    quick(n_epochs=2, batch_size=5, schedule=schedule, callbacks=[Rates()]).fit(*phantoms)  # 6 images in a batch
    assert len(rates) == 2
    assert rates[-1] < 1e-2 * max(rates)


@pytest.mark.filterwarnings("ignore:network. its batch normalisation will learn from single images")
def test_batch_norm_of_single_pixels_trains_in_batches_and_is_told_for_single_images(phantoms):
    X, y = phantoms[0][:, :, :32], phantoms[1][:, :, :32]
    CNNSegmenter("fcn8s_resnet18", n_epochs=1, batch_size=5).fit(X, y)
    with pytest.raises(ValueError, match="network: its batch normalisation can't train on .*batch_size"):
        CNNSegmenter("fcn8s_resnet18", n_epochs=1, batch_size=1).fit(X, y)
    grown = v2.Resize((40, 40))
    CNNSegmenter("fcn8s_resnet18", n_epochs=1, batch_size=1, augmentation=grown).fit(X[:2], y[:2])


def test_fits_and_predictions_tell_what_they_are_not_meant_for(phantoms):
    X, y = phantoms
    with pytest.warns(UserWarning, match="y has no foreground in any image"):
        CNNSegmenter(nn.Conv2d(1, 1, 1), n_epochs=0).fit(X, 0 * y)
    cnn = CNNSegmenter(nn.Conv2d(1, 1, 1), n_epochs=0).fit(X, y)
    with pytest.warns(UserWarning, match=r"X\[0\] holds floats up to 2\d\d"):
        cnn.predict(X.astype(float))
    with pytest.warns(UserWarning, match=r"X\[0\] holds floats up to 2\d\d"):
        cnn.fit(X.astype(float), y)
