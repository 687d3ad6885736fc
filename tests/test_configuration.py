"""Settings suit the images and the time, and each is told with its reason."""

import numpy as np
import pytest
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf import CNNSegmenter, DeepStructuredSegmenter, configuration, configure
from skmmcrf.datasets import make_phantoms
from skmmcrf.estimators import cnn as cnns
from skmmcrf.estimators.scale_search import ScaleSearch
from skmmcrf.field.labels import Annotation
from skmmcrf.networks import UNet


@pytest.fixture(scope="module")
def data():
    return make_phantoms(8, shape=(32, 40), random_state=0)


@pytest.fixture
def searches(monkeypatch):
    """A list of the searches that are made. None trains: 0.5 is as good as 1, and an image takes a second."""
    made = []

    def search(cnn, data, validation=None, *, limit):
        made.append((cnn, data, limit))
        return ScaleSearch({0.5: np.array([0.7, 0.8]), 1.0: np.array([0.8, 0.7])}, {0.5: 1.0, 1.0: 4.0})

    monkeypatch.setattr(cnns.CNNSegmenter, "search_scale", search)
    return made


def test_a_model_is_given_that_can_be_fitted(data, monkeypatch, capsys):
    monkeypatch.setattr("skmmcrf.estimators.scale_search.N_STEPS", (2, 3))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    model = configure(*data, network=UNet(1, width=8, depth=1), random_state=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert isinstance(model, DeepStructuredSegmenter)
    assert not hasattr(model, "cnn_")
    assert (model.random_state, model.n_epochs, model.learning_rate, model.batch_size) == (3, 10, 1e-4, 5)
    cnn = model.cnn
    assert (cnn.loss, cnn.augmentation, cnn.average_mirrored) == ("log_likelihood+dice", "strong", True)
    assert (cnn.network_scale, cnn.crop, cnn.class_weight, cnn.n_epochs) == (1.0, None, None, 300)
    told = capsys.readouterr().out.splitlines()
    assert all(
        line.startswith(("first steps", "short", "longer", "network", "batch", "n_ep", "crop", "class"))
        for line in told
    )
    names = ("network=", "network_scale=1.0:", "batch_size=5:", "n_epochs=300:", "crop=None:", "class_weight=None:")
    assert all(any(line.startswith(name) for line in told) for name in names)
    check_is_fitted(model.set_params(cnn__n_epochs=1, n_epochs=1).fit(*data))


def test_masks_may_have_another_label_of_foreground(data, searches):
    X, y = data
    model = configure(X, 255 * y, weights=None, pos_label=255, verbose=0)
    assert (model.cnn.pos_label, model.cnn.ignore_label) == (255, "auto")
    assert all(annotation.truth.any() for annotation in searches[0][1].annotations)


def test_nothing_is_printed_without_verbose(data, searches, capsys):
    configure(*data, weights=None, verbose=0)
    assert capsys.readouterr().out == ""


def test_time_is_shared_by_the_search_and_the_epochs(data, searches, capsys):
    model = configure(*data, weights=None, time_budget=900.0)
    ((_, _, limit),) = searches
    # half of 300 epochs, and 10 joint epochs as dear as 25, of 8 images each
    assert (limit.search, limit.of_image) == pytest.approx((300.0, 600.0 / (175 * 8)))
    assert model.cnn.network_scale == 0.5
    # 8 s an epoch, 900 s less the few that passed, and 10 joint epochs as dear as 25
    assert 82 <= model.cnn.n_epochs <= 87
    assert "0.750 at 0.5, 0.750 at 1" in capsys.readouterr().out
    for much in (1e5, 1e308, float("inf")):
        assert configure(*data, weights=None, time_budget=much).cnn.n_epochs == 300


def test_too_short_a_time_leaves_the_steps_of_a_short_training_and_a_warning(data, searches, capsys):
    with pytest.warns(UserWarning, match="time_budget=1 is too short: .* fit needs about 680 more. Give about 68"):
        model = configure(*data, weights=None, time_budget=1.0)
    assert model.cnn.n_epochs == 60  # of 2 steps, 8 s each, and joint epochs as dear as 25
    assert "300 would be better" in capsys.readouterr().out
    assert configuration._n_epochs(CNNSegmenter(), 1000, 25.0, seconds=1.0, left=0.0)[0] == 10


def test_the_reason_for_a_factor_has_all_that_was_looked_at():
    def why(indices, shape, *, tried=(0.7, 1.0, 1.4)):
        scores = {factor: np.array([index]) for factor, index in indices.items()}
        return configuration._why_factor(ScaleSearch(scores, dict.fromkeys(tried, 1.0)), [shape])

    all_three = why({0.7: 0.7, 1.0: 1.0, 1.4: 0.9}, (90, 96))
    assert "0.700 at 0.7, 1.000 at 1, 0.900 at 1.4. The median image has 90 x 96" in all_three
    two = why({1.0: 0.55, 1.4: 0.5}, (90, 96))
    assert "0.550 at 1, 0.500 at 1.4. 0.7 fell behind earlier, in shorter trainings. The median" in two
    none = why({0.7: np.nan, 1.0: np.nan, 1.4: np.nan}, (90, 96))
    assert none.startswith("the largest factor up to 1, because no image held out has an index. The")
    one = why({0.5: 0.7}, (128, 130), tried=[0.5])
    assert "which was compared with no other. 0.7, 1, 1.4 would take too long. The" in one
    assert why({1.0: 0.7}, (32, 32), tried=[1.0]) == "the only factor. The median image has 32 x 32 pixels"


@pytest.mark.parametrize("n_images", [5, 40, 1000])
def test_epochs_are_those_of_auto_if_the_time_allows(n_images):
    cnn = CNNSegmenter()
    assert configuration._n_epochs(cnn, n_images, 25.0, seconds=1.0, left=1e6)[0] == cnn.epochs_for(n_images)


def test_classes_beyond_two_leave_fewer_epochs_of_pretraining():
    two, eleven = (configuration._cost_of_joint(300, n_classes) for n_classes in (2, 11))
    assert (two, eleven) == (25, 43)
    n_epochs = [configuration._n_epochs(CNNSegmenter(), 300, cost, seconds=1.0, left=70.0)[0] for cost in (two, eleven)]
    assert n_epochs == [45, 27]


@pytest.mark.parametrize(
    ("n_images", "on_cpu", "expected"), [(8, True, 5), (1000, True, 5), (100, False, 5), (300, False, 16)]
)
def test_batches_are_large_for_many_images_on_a_device_only(n_images, on_cpu, expected):
    assert configuration._batch_size(n_images, on_cpu)[0] == expected


@pytest.mark.parametrize(
    ("shapes", "scale", "expected"),
    [
        ([(700, 700)], 1.0, None),
        ([(100, 100), (90, 800)], 1.0, 512),
        ([(3000, 1000)], 0.25, None),
        ([(4000, 10)], 0.25, 2048),
    ],
)
def test_a_crop_is_in_pixels_of_the_image_and_512_of_the_network(shapes, scale, expected):
    assert configuration._crop(shapes, scale)[0] == expected


def test_rare_foreground_is_weighted():
    truth = np.zeros((10, 100), bool)
    truth[0, :4] = True
    assert configuration._class_weight([Annotation(truth)], (0, 1))[0] == "balanced"
    labelled = np.zeros_like(truth)
    labelled[:, :50] = True
    assert configuration._class_weight([Annotation(truth, labelled)], (0, 1))[0] is None  # 0.8 % of the labelled ones


def test_no_class_weighs_more_than_fit_takes(monkeypatch):
    truth = np.repeat(np.arange(3, dtype=np.uint8), [900, 90, 10])[np.newaxis]
    annotation = Annotation(truth, class_weight=(1.0, 1.0, 1.0))
    monkeypatch.setattr(configuration, "CLASS_WEIGHT_BOUNDS", (1e-4, 2.5))
    assert configuration._class_weight([annotation], (0, 1, 2))[0] == {1: 1.9, 2: 2.5}


def test_rare_classes_weigh_the_square_root_of_how_much_rarer_they_are():
    def chosen(*counts):
        truth = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)[np.newaxis]
        annotation = Annotation(truth, class_weight=(1.0,) * len(counts))
        return configuration._class_weight([annotation], (0, 5, 9, 11)[: len(counts)])

    assert chosen(91, 3, 6, 20) == (
        {5: 3.2, 9: 2.2, 11: 1.2},
        "the rarest class in y has 2.50% of the labelled pixels. An equal share would be 25%",
    )
    assert chosen(7, 7, 7)[0] is None
    without_rarest = "the rarest class in y has 50.00% of the labelled pixels. An equal share would be 33%"
    assert chosen(7, 7, 0) == (None, without_rarest)


def test_classes_that_y_lacks_may_be_named(data, searches):
    X, y = data
    model = configure(X, np.where(y == 1, 7, 9), weights=None, classes=[5, 7, 20], ignore_label=9, verbose=0)
    assert (model.cnn.classes, model.cnn.ignore_label, model.cnn.class_weight) == ([5, 7, 20], 9, None)


def test_the_search_trains_with_the_weights_of_classes_that_are_chosen(data, searches):
    X, y = data
    rare = np.zeros_like(y)
    rare[:, 0, :2] = 1
    model = configure(X, rare, weights=None)
    assert model.cnn.class_weight == "balanced"
    ((cnn, checked, _),) = searches
    assert cnn.class_weight == "balanced"
    assert checked.annotations[0].class_weight[1] > 100


def test_networks_are_as_given_or_suit_the_weights(data, searches, monkeypatch):
    built = []

    def build(network, n_channels, weights):
        built.append((network, weights))
        if weights == "imagenet" and network == "unet_resnet18":
            raise ValueError('weights: "imagenet" can\'t be loaded')

    monkeypatch.setattr(configuration, "build_network", build)
    own = nn.Conv2d(1, 1, 3, padding=1)
    for given, expected in [
        ({}, ("unet_mobilenet_v2", "imagenet")),
        ({"weights": "a.pth"}, ("unet_mobilenet_v2", "a.pth")),
        ({"weights": None}, ("unet", None)),
        ({"network": "unet"}, ("unet", None)),
        ({"network": own}, (own, None)),
        ({"network": "fcn8s_vgg16", "weights": None}, ("fcn8s_vgg16", None)),
    ]:
        cnn = configure(*data, **given).cnn
        assert (cnn.network, cnn.weights) == built[-1] == expected
    with pytest.raises(ValueError, match="can't be loaded. Or give configure weights=None, which needs no file"):
        configure(*data, network="unet_resnet18")


def test_what_users_should_know_of_their_images_is_warned_of(data, searches):
    X, y = data
    empty = y.copy()
    empty[:2] = 0
    with (
        pytest.warns(UserWarning, match="2 of 8 masks are empty: see whether"),
        pytest.warns(UserWarning, match="the number of images with foreground is 6: label at least 8") as record,
    ):
        configure(X, empty, weights=None)
    assert {warning.filename for warning in record} == {__file__}
    large = [np.kron(image, np.ones((5, 5), np.uint8)) for image in (X[0], y[0])]
    with pytest.warns(UserWarning, match="longer sides of the images are 40 to 200 pixels"):
        configure([*X, large[0]], [*y, large[1]], weights=None)


def test_what_is_wrong_is_told_before_any_training(data, searches):
    X, y = data
    for arguments, parameters, error, message in [
        ((X, y[:3]), {}, ValueError, "X and y must have the same length"),
        ((X, 2 * y), {}, ValueError, r"y\[0\] must hold the labels"),
        ((X, 0 * y), {}, ValueError, "y has no foreground, which is pos_label=1, in any image"),
        ((X, 255 * y), {}, ValueError, "y holds 255 but no 1, and 255 counts as unlabelled: give pos_label=255"),
        ((X, 255 * y), {"ignore_label": 255}, ValueError, "y has no foreground, .* or another pos_label"),
        (
            (X, 9 + 0 * y),
            {"classes": range(3), "ignore_label": 9},
            ValueError,
            "y has no labelled pixel in any image, .* or another ignore_label",
        ),
        ((X, y), {"classes": [0, 1]}, ValueError, "classes must be 3 to 255 integers"),
        ((X[:1], y[:1]), {}, ValueError, "X has one image only, but settings are compared"),
        ((X, y), {"time_budget": 0}, ValueError, "'time_budget' parameter of configure"),
        ((X, y), {"time_budget": True}, TypeError, "time_budget must be a number of seconds above 0, got True"),
        ((X, y), {"time_budget": float("nan")}, ValueError, "'time_budget' parameter of configure"),
        ((X, y), {"network": "alexnet"}, ValueError, "network must be 'unet', or"),
        ((X, y), {"network": 3}, TypeError, "network must be a name"),
        ((X, y), {"network": "unet", "weights": "a.pth"}, ValueError, "weights: only networks named after a backbone"),
        ((X, y), {"network": "unet_resnet18", "weights": "missing.pth"}, ValueError, "weights.*missing.pth"),
    ]:
        with pytest.raises(error, match=message):
            configure(*arguments, **{"weights": None} | parameters)
    assert not searches
