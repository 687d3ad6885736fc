import os
import re
import zipfile
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from skmmcrf.networks import BackboneUNet, FCN8s, backbone_names
from skmmcrf.networks.backbones import load_backbone

on_backbones = pytest.mark.parametrize("network_class", [FCN8s, BackboneUNet])


@on_backbones
def test_weights_of_a_file_are_those_of_the_backbone(network_class, tmp_path):
    model = torchvision.models.squeezenet1_1()
    torch.save(model.half().state_dict(), tmp_path / "weights.pth")  # halves are taken too
    network = network_class("squeezenet1_1", weights=tmp_path / "weights.pth")
    loaded = list(network.backbone.parameters())
    expected = list(model.float().features.parameters())
    assert len(loaded) == len(expected)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(loaded, expected))


@on_backbones
def test_building_it_leaves_batch_norm_statistics_alone(network_class):
    norms = [m for m in network_class("resnet18").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(m.training and not m.running_mean.any() for m in norms)


@pytest.mark.parametrize(
    "content",
    [
        *("other network", "no state", "long keys", "missing", "code", "a zip", "safetensors", "a folder", "a pipe"),
        *(b"", b"not weights", bytes(1000), b"a: 1\nb: 2\n", b"0123", b"(lp0\n."),
    ],
)
def test_files_of_something_else_are_told_in_short(tmp_path, content):
    file = tmp_path / "weights.pth"
    if content == "other network":
        torch.save(torchvision.models.mobilenet_v3_small().state_dict(), file)
    elif content == "no state":
        torch.save([1, 2], file)
    elif content == "long keys":
        torch.save({10**6 * "x": torch.zeros(1)}, file)
    elif content == "a zip":
        zipfile.ZipFile(file, "w").close()
    elif content == "safetensors":
        save_file({"a": torch.zeros(1)}, file)
    elif content == "a folder":
        file.mkdir()
    elif content == "a pipe":
        getattr(os, "mkfifo", os.mkdir)(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "code":
        torch.save(torchvision.models.squeezenet1_1(), file)  # opening it would run code
    with pytest.raises(ValueError, match="weights: .*squeezenet1_1") as caught:
        load_backbone("squeezenet1_1", file)
    assert len(str(caught.value)) < 2000
    assert "weights_only" not in str(caught.value)  # it would run the file's code


def test_a_file_of_weights_may_be_changed_after_it_is_read(tmp_path):
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    model = load_backbone("squeezenet1_1", tmp_path / "weights.pth")
    before = [parameter.clone() for parameter in model.parameters()]
    (tmp_path / "weights.pth").write_bytes(b"")
    assert all(map(torch.equal, before, model.parameters()))


def test_imagenet_weights_come_from_torchvision(monkeypatch):
    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        return torchvision.models.squeezenet1_1()

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    load_backbone("squeezenet1_1", "imagenet")
    assert asked == [("squeezenet1_1", "DEFAULT")]
    assert torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url.startswith("https://")


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("no route"), RuntimeError("no route: bad hash")])
def test_without_internet_the_file_for_imagenet_is_named(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    kept = tmp_path / "checkpoints" / url.rpartition("/")[2]
    expected = f'weights: "imagenet" can\'t be loaded for squeezenet1_1: .*no route.* from {re.escape(url)} .* {kept}. '
    with pytest.raises(ValueError, match=expected):
        BackboneUNet("squeezenet1_1", weights="imagenet")
    monkeypatch.undo()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), kept)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    BackboneUNet("squeezenet1_1", weights="imagenet")


@on_backbones
def test_other_parameters_are_told(network_class):
    for n_channels, weights, name in [(0, None, "n_channels"), (3, 3, "weights")]:
        with pytest.raises(ValueError, match=f"'{name}' parameter of {network_class.__name__} must be"):
            network_class("squeezenet1_1", n_channels, weights=weights)


@on_backbones
def test_unknown_backbones_are_told(network_class):
    assert "vgg16" in backbone_names()
    with pytest.raises(ValueError, match="network: 'vit_b_16' is not a known backbone, choose one of .*vgg16"):
        network_class("vit_b_16")
