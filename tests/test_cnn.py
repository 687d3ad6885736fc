import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torchvision.transforms import v2

from skmmcrf import CNNSegmenter
from skmmcrf.datasets import make_phantoms
from skmmcrf.energy import scale_image


@pytest.fixture(scope="module")
def fitted(phantoms):
    X, y = phantoms
    return CNNSegmenter(n_epochs=12, learning_rate=1e-2, batch_size=3, random_state=0).fit(X, y, validation_data=(X, y))


def test_training_learns(fitted, phantoms):
    X, y = phantoms
    assert fitted.score(X, y) > 0.6
    losses = [epoch["loss"] for epoch in fitted.history_]
    assert losses[-1] < 0.7 * losses[0]
    assert fitted.n_iter_ == len(losses) == 12
    assert fitted.history_[-1]["valid_jaccard"] == pytest.approx(fitted.score(X, y), abs=1e-3)


def test_outputs_agree(fitted, phantoms):
    X, _ = phantoms
    log_odds, labels, probabilities = fitted.decision_function(X), fitted.predict(X), fitted.predict_proba(X)
    assert log_odds.shape == labels.shape == X.shape
    np.testing.assert_array_equal(labels, log_odds > 0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities[..., 1], 1 / (1 + np.exp(-log_odds)), rtol=1e-5)
    Z = fitted.transform(X)
    np.testing.assert_array_equal(Z[..., 0], log_odds)
    np.testing.assert_array_equal(Z[..., 1], scale_image(X))


def test_lists_give_lists(phantoms):
    X, y = phantoms
    X, y = [X[0], X[1][:20], X[2][:, :9]], [y[0], y[1][:20], y[2][:, :9]]
    cnn = CNNSegmenter(n_epochs=1, random_state=0).fit(X, y)
    for results in (cnn.predict(X), cnn.decision_function(X)):
        assert [r.shape for r in results] == [x.shape for x in X]
    assert [z.shape for z in cnn.transform(X)] == [(*x.shape, 2) for x in X]
    assert [p.shape for p in cnn.predict_proba(X)] == [(*x.shape, 2) for x in X]


def test_the_same_random_state_gives_the_same_network(phantoms):
    def weights(random_state):
        return CNNSegmenter(n_epochs=2, batch_size=2, random_state=random_state).fit(*phantoms).network_.state_dict()

    first, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_module_given_is_not_changed(phantoms):
    module = nn.Conv2d(1, 1, 3, padding=1)
    before = module.weight.clone()
    cnn = CNNSegmenter(module, n_epochs=1, random_state=0).fit(*phantoms)
    assert cnn.network is module
    assert torch.equal(module.weight, before)
    assert not torch.equal(cnn.network_.weight, before)


def test_no_epoch_leaves_the_network_as_it_is(phantoms):
    module = nn.Conv2d(1, 1, 3, padding=1)
    cnn = CNNSegmenter(module, n_epochs=0).fit(*phantoms)
    assert torch.equal(cnn.network_.weight, module.weight)
    assert cnn.history_ == []


@pytest.mark.parametrize("n_images", [1, 3])
def test_one_epoch_of_one_step(phantoms, n_images):
    X, y = phantoms
    cnn = CNNSegmenter(n_epochs=1, random_state=0).fit(X[:n_images], y[:n_images])
    assert np.isfinite(cnn.history_[0]["loss"])


def test_pretrained_batch_norm_keeps_its_statistics(tmp_path, phantoms):
    import torchvision

    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    X, y = phantoms[0][:2], phantoms[1][:2]
    moved = {}
    for weights in (None, tmp_path / "resnet18.pth"):
        cnn = CNNSegmenter("fcn8s_resnet18", weights=weights, n_epochs=1, random_state=0).fit(X, y)
        norms = [m for m in cnn.network_.modules() if isinstance(m, nn.BatchNorm2d)]
        moved[weights is None] = any(m.running_mean.any() for m in norms)
    assert moved == {True: True, False: False}


def test_losses_teach_different_networks(phantoms):
    X, y = phantoms
    networks = []
    for loss in ("log_likelihood", "dice", "log_likelihood+dice"):
        cnn = CNNSegmenter(n_epochs=12, learning_rate=1e-2, batch_size=3, loss=loss, random_state=0).fit(X, y)
        assert cnn.score(X, y) > 0.6
        networks.append(next(cnn.network_.parameters()))
    assert not any(torch.equal(a, b) for a, b in zip(networks, networks[1:]))


def test_fit_is_silent_unless_asked(phantoms, capsys):
    cnn = CNNSegmenter(n_epochs=2, random_state=0).fit(*phantoms)
    assert capsys.readouterr().out == ""
    clone(cnn).set_params(verbose=1).fit(*phantoms)
    assert capsys.readouterr().out.count("pretraining") == 2


def test_unfitted_and_other_channels_are_told(fitted, phantoms):
    with pytest.raises(NotFittedError):
        CNNSegmenter().predict(phantoms[0])
    with pytest.raises(ValueError, match=r"X\[0\] has 3 channels, but 1 are wanted"):
        fitted.predict(np.zeros((2, 8, 8, 3)))


def backbone_weights(cnn):
    return torch.cat([parameter.flatten() for parameter in cnn.network_.backbone.parameters()])


def test_the_backbone_stays_for_some_epochs(phantoms, tmp_path):
    import torchvision

    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    network = {"network": "fcn8s_squeezenet1_1", "weights": tmp_path / "weights.pth", "random_state": 0}
    start, frozen, thawed = (
        CNNSegmenter(**network, n_epochs=n_epochs, freeze_epochs=1).fit(*phantoms) for n_epochs in (0, 1, 2)
    )
    assert torch.equal(backbone_weights(start), backbone_weights(frozen))
    assert not torch.equal(backbone_weights(start), backbone_weights(thawed))
    assert any(score.weight.any() for score in frozen.network_.scores)
    assert all(parameter.requires_grad for parameter in frozen.network_.parameters())


@pytest.mark.parametrize("augmentation", ["flip", "standard", "strong", v2.RandomCrop((16, 20)), v2.RandomRotation(90)])
def test_augmentation_changes_what_is_learned(phantoms, augmentation):
    cnns = [
        CNNSegmenter(n_epochs=1, augmentation=a, random_state=0).fit(*phantoms)
        for a in (None, augmentation, augmentation)
    ]
    weights = [next(cnn.network_.parameters()) for cnn in cnns]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


def test_augmentation_makes_more_of_few_images():
    X, y = make_phantoms(34, shape=(32, 32), random_state=0)
    scores = [
        CNNSegmenter(n_epochs=100, learning_rate=3e-3, batch_size=4, augmentation=augmentation, random_state=0)
        .fit(X[:4], y[:4])
        .score(X[4:], y[4:])
        for augmentation in (None, "standard")
    ]
    assert scores[1] > scores[0] + 0.04
