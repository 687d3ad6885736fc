import copy
import pickle
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from skmmcrf import CNNSegmenter, load
from skmmcrf.datasets import make_phantoms
from skmmcrf.networks import BackboneUNet, FCN8s, build_network
from skmmcrf.networks.state import empty_network
from skmmcrf.networks.timm_backbones import load_timm_backbone

SMALL = "test_resnet"
STRIDES = {"test_resnet": 32, "efficientnet_lite0": 32, "mobilenetv3_small_050": 32, "convnext_atto": 32}


def model_with_statistics(name, **parameters):
    """A model whose batch-norm statistics are not those of a new one."""
    model = timm.create_model(name, **parameters)
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.uniform_(0.1, 0.2)
    return model


@pytest.mark.parametrize(("backbone", "n_channels"), [(name, n) for n, name in enumerate(STRIDES, start=1)])
def test_one_map_of_the_images_size(backbone, n_channels):
    network = BackboneUNet(f"timm/{backbone}", n_channels)
    assert network.size_divisor == STRIDES[backbone]
    assert all(module.training for module in network.modules())
    log_odds = network(torch.rand(2, n_channels, 32, 64))
    assert log_odds.shape == (2, 1, 32, 64)
    log_odds.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_fcn8s_scores_the_three_coarsest_resolutions():
    network = FCN8s(f"timm/{SMALL}")
    assert network(torch.rand(1, 3, 32, 64)).shape == (1, 1, 32, 64)
    assert [score.in_channels for score in network.scores] == [48, 192, 96]


@pytest.mark.parametrize(("name", "mean"), [(SMALL, 0.5), ("efficientnet_lite0", 0.485), ("mobilevit_xxs", 0.0)])
def test_images_are_normalised_as_the_model_says(name, mean):
    network = BackboneUNet(f"timm/{name}")
    assert float(network.to_rgb.mean[0]) == pytest.approx(mean)
    config = timm.get_pretrained_cfg(name)
    image = torch.tensor(config.mean).view(1, 3, 1, 1) + torch.tensor(config.std).view(1, 3, 1, 1)
    torch.testing.assert_close(network.to_rgb(image), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("name", [SMALL, "convnext_atto", "efficientnet_lite0"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_of_a_file_are_those_of_the_backbone(name, kind, tmp_path, caplog):
    model, file = model_with_statistics(name, num_classes=5).eval(), tmp_path / f"weights.{kind}"
    (torch.save if kind == "pth" else save_file)(model.state_dict(), file)
    features = load_timm_backbone(name, file).features.eval()
    images = torch.rand(1, 3, 64, 64)
    _, expected = model.forward_intermediates(images)
    torch.testing.assert_close(features(images), expected)
    assert not any("pretrained_cfg" in vars(part) for part in features.modules())  # it would hold them once more
    assert not caplog.records


@pytest.mark.parametrize("content", ["other network", "less", "no state", "damaged", "missing", "code"])
def test_files_of_something_else_are_told_in_short(tmp_path, content):
    file, model = tmp_path / "weights.pth", timm.create_model(SMALL)
    if content == "other network":
        torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), file)
    elif content == "less":
        state = model.state_dict()
        del state["layer1.0.conv1.weight"]
        torch.save(state, file)
    elif content == "no state":
        torch.save([1, 2], file)
    elif content == "damaged":
        file.write_bytes(8 * b"\xff" + b"{}")
    elif content == "code":
        torch.save(model, file)  # opening it would run code
    with pytest.raises(ValueError, match=f"weights: .*weights.pth .*timm/{SMALL}") as caught:
        BackboneUNet(f"timm/{SMALL}", weights=file)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", "does not take images of any size: Input height .* doesn't match"),
        ("xcit_nano_12_p16_224", "does not give one map of features for each of several resolutions"),
        ("efficientnet_lite0.nonsense", "timm gives no feature maps of it: Invalid pretrained tag"),
    ],
)
def test_models_without_feature_maps_are_told(name, message):
    with pytest.raises(ValueError, match=f"network: timm/{name} can't be a backbone, because .*{message}"):
        build_network(f"unet_timm/{name}", 3)


@pytest.mark.parametrize("name", ["", "squeezenet", "hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "hf_hub:a/b"])
def test_names_that_timm_does_not_list_are_told(name):
    with pytest.raises(ValueError, match=rf"network: '{name}' is not one of timm's models, which timm.list_models\(\)"):
        build_network(f"unet_timm/{name}", 3)


def test_without_timm_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r'timm is needed .*test_resnet.*: pip install "skmmcrf\[timm\]"'):
        build_network(f"unet_timm/{SMALL}", 3)


def test_without_internet_the_source_of_timms_weights_is_named(monkeypatch):
    create = timm.create_model

    def create_model(name, **parameters):
        if parameters.get("pretrained"):
            raise OSError("no route")
        return create(name, **parameters)

    monkeypatch.setattr(timm, "create_model", create_model)
    expected = 'weights: "imagenet" can\'t be loaded for timm/resnet18: no route. .* from timm/resnet18.a1_in1k. '
    with pytest.raises(ValueError, match=expected):
        BackboneUNet("timm/resnet18", weights="imagenet")


def test_a_model_without_weights_is_told():
    with pytest.raises(ValueError, match="no weights of this model. Give a file"):
        BackboneUNet("timm/mobilenetv2_035", weights="imagenet")


def test_imagenet_asks_timm_for_its_weights(monkeypatch):
    create, asked = timm.create_model, []

    def create_model(name, **parameters):
        asked.append((name, parameters.pop("pretrained", False)))
        return create(name, **parameters)

    monkeypatch.setattr(timm, "create_model", create_model)
    BackboneUNet(f"timm/{SMALL}.r160_in1k", weights="imagenet")
    assert asked == [(f"{SMALL}.r160_in1k", True)]


def test_a_fitted_one_is_copied_pickled_saved_and_loaded(tmp_path):
    X, y = make_phantoms(4, shape=(33, 41), random_state=0)
    model = model_with_statistics(SMALL)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    cnn = CNNSegmenter(f"unet_timm/{SMALL}", weights=tmp_path / "weights.pth", n_epochs=1, random_state=0).fit(X, y)
    assert torch.equal(cnn.network_.backbone.bn1.running_mean, model.bn1.running_mean)
    cnn.save(tmp_path / "cnn.safetensors")
    (tmp_path / "weights.pth").unlink()
    for same in (copy.deepcopy(cnn), pickle.loads(pickle.dumps(cnn)), load(tmp_path / "cnn.safetensors")):
        assert (same.decision_function(X) == cnn.decision_function(X)).all()


def test_a_name_in_a_file_makes_no_network_that_its_weights_do_not_fit(memory_growth):
    load_timm_backbone(SMALL, None)  # so that timm is imported
    assert memory_growth(lambda: empty_network("unet_timm/convnext_xxlarge", 3)) < 100_000_000
