import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from small_images import Gamma, all_labelings, random_weights

from skmmcrf import MaxMarginLoss
from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.learning import CuttingPlanes, Example, Solution
from skmmcrf.training.loss import warn_unless_converged

FAR = ((0, 1), (1, 0), (0, 4), (4, 0))


def batch(seed=0, n=2, shape=(5, 6), n_channels=None):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n, *shape, dtype=torch.long)
    labels[:, 1:3, 1:4] = 1
    log_odds = 1.5 * labels - 0.7 + torch.randn(n, *shape, dtype=torch.float64, generator=generator)
    image_shape = (n, *shape) if n_channels is None else (n, n_channels, *shape)
    images = torch.rand(image_shape, dtype=torch.float64, generator=generator)
    return log_odds.requires_grad_(), labels, images


def unequal_batch():
    parts = [batch(seed, 1, shape) for seed, shape in enumerate([(5, 6), (4, 7)])]
    return ([part[k][0].detach() for part in parts] for k in range(3))


def exact(**parameters):
    return MaxMarginLoss(0.1, sigma=0.3, tol=0.0, **parameters)


def energies(log_odds, images, connectivity=8, pairwise="contrast"):
    """Of single-channel images, for the field of `exact`."""
    field = Field(Grid.from_connectivity(connectivity), build_terms(pairwise, 0.3))
    return [field.energy(l.numpy(), image.numpy()[..., np.newaxis]) for l, image in zip(log_odds.detach(), images)]


def assert_gradients_are_central_differences(function, inputs):
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "parameters",
    [{}, {"gradient": "kkt"}, {"pairwise": "smoothness"}, {"connectivity": FAR}, {"class_weight": {0: 0.5, 1: 2.0}}],
)
def test_backward_gives_central_differences(parameters):
    log_odds, labels, images = batch(seed=3, n_channels=3)
    loss = exact(**parameters)
    assert_gradients_are_central_differences(lambda l: loss(l, labels, images), log_odds)


def test_backward_gives_central_differences_for_lists_of_unequal_images():
    log_odds, labels, images = unequal_batch()
    loss = exact()
    assert_gradients_are_central_differences(
        lambda *l: loss(list(l), labels, images), tuple(l.requires_grad_() for l in log_odds)
    )


def test_the_gradient_of_the_linear_system_is_that_of_the_envelope_theorem():
    gradients = []
    for gradient in ("envelope", "kkt"):
        log_odds, labels, images = batch(seed=3)
        MaxMarginLoss(0.1, sigma=0.3, gradient=gradient)(log_odds, labels, images).backward()
        gradients.append(log_odds.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-8 * gradients[0].abs().max().item())


def test_a_degenerate_system_warns_and_takes_the_envelope_theorem():
    log_odds, labels, images = (torch.cat([part.detach(), part.detach()]) for part in batch(seed=3, n=1))
    l, same = log_odds.clone().requires_grad_(), log_odds.clone().requires_grad_()
    MaxMarginLoss(1.0, sigma=0.3)(l, labels, images).backward()
    loss = MaxMarginLoss(1.0, sigma=0.3, gradient="kkt")
    with pytest.warns(RuntimeWarning, match=r"the envelope theorem gave the gradient: .*active constraint"):
        value = loss(same, labels, images)
    value.backward()
    assert torch.equal(l.grad, same.grad)


@pytest.mark.parametrize("given", [lambda t: t[:, None], list, lambda t: list(t[:, None])])
def test_a_channel_of_its_own_and_a_list_are_the_same_batch(given):
    log_odds, labels, images = batch()
    value = exact()(log_odds, labels, images)
    value.backward()
    same = log_odds.detach().clone().requires_grad_()
    loss = exact()
    other = loss(given(same), given(labels), given(images))
    other.backward()
    assert other.item() == value.item()
    assert torch.equal(same.grad, log_odds.grad)
    labels = loss.predict(given(same), given(images))
    assert torch.equal(torch.stack(list(labels)), exact_prediction(loss, log_odds, images))
    assert isinstance(labels, list) == isinstance(given(same), list)


def exact_prediction(loss, log_odds, images):
    return torch.stack([torch.from_numpy(e.least(loss.coef_)).to(torch.uint8) for e in energies(log_odds, images)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    log_odds, labels, images = batch()
    half = log_odds.detach().to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    losses = exact(), exact()
    values = [loss(l, labels, images) for loss, l in zip(losses, (half, single))]
    for value in values:
        value.backward()
    assert values[0].dtype == torch.float32
    assert values[0].item() == values[1].item()
    assert half.grad.dtype == dtype
    assert torch.equal(half.grad, single.grad.to(dtype))
    assert torch.equal(losses[0].predict(half, images), losses[1].predict(single, images))


@pytest.mark.parametrize(("connectivity", "pairwise"), [(8, "contrast"), (4, "smoothness"), (FAR, "contrast")])
def test_gamma_is_that_of_the_learner_and_the_prediction_has_the_least_energy(connectivity, pairwise):
    log_odds, labels, images = batch()
    loss = exact(connectivity=connectivity, pairwise=pairwise)
    value = loss(log_odds, labels, images)
    of_images = energies(log_odds, images, connectivity, pairwise)
    examples = [Example(e, Annotation(truth.numpy() == 1)) for e, truth in zip(of_images, labels)]
    solution = CuttingPlanes(0.1, tol=0.0).learn(examples)
    assert value.item() == pytest.approx(solution.value, rel=1e-9)
    assert len(loss.coef_) == {"contrast": 3, "smoothness": 2}[pairwise]
    np.testing.assert_allclose(loss.coef_, solution.w, rtol=1e-6, atol=1e-9)
    predicted = loss.predict(log_odds, images)
    assert predicted.dtype == torch.uint8
    assert not predicted.requires_grad
    np.testing.assert_array_equal(predicted.numpy(), [energy.least(loss.coef_) for energy in of_images])


def test_images_of_unequal_sizes_are_predicted_as_a_list():
    log_odds, labels, images = unequal_batch()
    loss = exact()
    loss(log_odds, labels, images)
    predicted = loss.predict(log_odds, images)
    assert [labels.shape for labels in predicted] == [(5, 6), (4, 7)]
    with pytest.raises(ValueError, match="log_odds and images must have the same length, got 1 and 2"):
        loss.predict(log_odds[:1], images)
    with pytest.raises(ValueError, match=r"log_odds\[0\] has shape \(4, 7\), but its images have \(5, 6\)"):
        loss.predict(log_odds[::-1], images)


def test_a_training_loop_lowers_gamma_and_goes_on_from_its_weights():
    noise, labels, _ = batch()
    images = (labels + 0.5 * noise.detach()).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Conv2d(1, 1, 3, padding=1)
    loss = MaxMarginLoss(0.1, sigma=0.3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(network(images[:, None]), labels[:, None], images)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert value.dtype == torch.float32
    assert values[-1] < 0.9 * values[0]
    other = MaxMarginLoss(0.1, sigma=0.3)
    other.load_state_dict(loss.state_dict())
    assert not np.array_equal(loss.coef_, [1, 1, 1])
    np.testing.assert_array_equal(other.coef_, loss.coef_)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, -1.0, 1.0], [np.nan, 1.0, 1.0]])
def test_a_state_with_other_weights_is_refused(weights):
    loss = MaxMarginLoss()
    with pytest.raises(ValueError, match="the state has weights"):
        loss.load_state_dict({"_extra_state": torch.tensor(weights)})
    assert loss.coef_.tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_saturated_float32_gives_finite_gamma_and_gradient(scale):
    log_odds, labels, images = batch()
    saturated = (scale * log_odds.detach()).float().requires_grad_()
    value = exact()(saturated, labels, images)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(saturated.grad).all()


def test_a_perfect_network_leaves_nothing_to_lower():
    _, labels, images = batch()
    log_odds = 1e4 * (2.0 * labels - 1)
    assert MaxMarginLoss(sigma=0.3, tol=1e-9)(log_odds, labels, images).item() < 1e-6


def test_unlabelled_pixels_and_class_weights_count_as_they_should():
    log_odds, labels, images = batch()
    labels[:, :, 4:] = 255
    value = exact(class_weight={1: 2.0})(log_odds, labels, images)
    examples = [
        Example(e, Annotation(truth.numpy() == 1, truth.numpy() != 255, class_weight=(1.0, 2.0)))
        for e, truth in zip(energies(log_odds, images), labels)
    ]
    assert value.item() == pytest.approx(CuttingPlanes(0.1, tol=0.0).learn(examples).value, rel=1e-9)
    with pytest.raises(ValueError, match=r"labels 0 and 1 only, found \[255\]"):
        MaxMarginLoss(ignore_label=None)(log_odds, labels, images)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda l, y, x: (l.expand(2, 2, 5, 6), y, x), ValueError, r"log_odds\[0\] has shape \(2, 5, 6\)"),
        (lambda l, y, x: (l[0], y, x), ValueError, "log_odds must be of shape"),
        (
            lambda l, y, x: (l.detach().numpy(), y, x),
            TypeError,
            r"log_odds\[0\] must be a tensor of float, got ndarray",
        ),
        (lambda l, y, x: (y, y, x), TypeError, r"log_odds\[0\] must be a tensor of float, got torch.int64"),
        (lambda l, y, x: (l, y[:1], x), ValueError, "same length"),
        (lambda l, y, x: (l[:1], y, x), ValueError, "log_odds and labels must have the same length"),
        (lambda l, y, x: (l, 2 * y, x), ValueError, "labels 0, 1 and 255 only"),
        (lambda l, y, x: (l, y, x[..., 1:]), ValueError, "shape"),
        (lambda l, y, x: (l, y, x * np.nan), ValueError, "NaN"),
        (lambda l, y, x: (l * np.nan, y, x), ValueError, r"log_odds\[0\] contains NaN"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        exact()(*change(*batch()))


@pytest.mark.parametrize(
    "parameters",
    [
        *({"C": 0}, {"pairwise": "edges"}, {"connectivity": "8"}, {"sigma": "auto"}, {"sigma": 0.0}, {"tol": -1}),
        *({"max_iter": 0}, {"n_jobs": 0}, {"gradient": "lu"}, {"class_weight": "balanced"}, {"ignore_label": "auto"}),
    ],
)
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of MaxMarginLoss must be"):
        MaxMarginLoss(**parameters)


def test_a_connectivity_that_is_none_is_refused():
    with pytest.raises(ValueError, match="connectivity"):
        MaxMarginLoss(connectivity=6)


def test_at_given_weights_these_are_held_and_backward_gives_central_differences():
    log_odds, labels, images = batch(seed=1)
    loss = exact()
    w = loss.coef_ = np.array([0.8, 0.3, 0.4])
    assert_gradients_are_central_differences(lambda l: at_weights(loss, l, labels, images), log_odds)
    assert loss.coef_ is w


def at_weights(loss, log_odds, labels, images):
    annotations = [Annotation(truth.numpy() == 1) for truth in labels]
    parts = [slice(0, 1), slice(1, None)]
    return loss.at_weights((list(log_odds[p]), annotations[p], list(images[p, ..., None].numpy())) for p in parts)


def test_at_the_weights_of_gamma_the_objective_is_gamma():
    log_odds, labels, images = batch()
    loss = exact()
    value = loss(log_odds, labels, images)
    assert at_weights(loss, log_odds, labels, images).item() == pytest.approx(value.item(), rel=1e-9)


def test_labels_of_255_without_1_are_told_until_a_batch_has_foreground():
    log_odds, labels, images = batch()
    borders = 0 * labels
    borders[:, 0] = 255
    loss = exact()
    for masks in (255 * labels, borders):
        with pytest.warns(UserWarning, match="255 but no 1, .* If it is the foreground, give labels == 255. If these"):
            loss(log_odds, masks, images)
    loss(log_odds, labels, images)
    loss(log_odds, borders, images)
    exact()(log_odds, 0 * labels, images)


def test_images_beyond_0_to_1_are_told_unless_sigma_fits_them_or_does_not_matter():
    log_odds, labels, images = batch()
    for call in (lambda loss, x: loss(log_odds, labels, x), lambda loss, x: loss.predict(log_odds, x)):
        with pytest.warns(UserWarning, match=r"far above 1, for which sigma=0.1 is too small: scale images"):
            call(MaxMarginLoss(), 255 * images)
        for loss in (MaxMarginLoss(sigma=20), MaxMarginLoss(pairwise="smoothness")):
            call(loss, 255 * images)
        call(MaxMarginLoss(), (255 * images).to(torch.uint8))
        call(MaxMarginLoss(), 1.9 * images)


def test_log_odds_that_count_the_wrong_way_round_are_told_where_labels_are_predicted():
    log_odds, labels, images = batch()
    loss = exact()
    loss(-3 * log_odds, labels, images)
    assert loss.coef_[0] < 0
    with pytest.warns(UserWarning, match=r"coef_\[0\], is negative: .* Either labels are inverted"):
        loss.predict(log_odds, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss.coef_ = np.array([-1.5e-16, 1.0, 1.0])  # a weight of 0, rounded
        loss.predict(log_odds, images)


def batch_of_classes(seed=0, n=2, shape=(4, 5), n_labels=3):
    """Scores, labels and images of stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(shape[1]) * n_labels // shape[1]).expand(n, *shape).clone()
    scores = 1.5 * torch.nn.functional.one_hot(labels, n_labels).movedim(-1, 1)
    scores = scores + torch.randn(scores.shape, dtype=torch.float64, generator=generator)
    return scores.requires_grad_(), labels, torch.rand((n, *shape), dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"gradient": "kkt"},
        {"pairwise": "smoothness"},
        {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}},
    ],
)
def test_backward_gives_central_differences_of_several_classes(parameters):
    scores, labels, images = batch_of_classes(seed=3)
    loss = exact(**parameters)
    assert_gradients_are_central_differences(lambda s: loss(s, labels, images), scores)


def test_gamma_of_several_classes_is_that_of_all_labelings_where_cuts_miss_none():
    scores, labels, images = batch_of_classes(seed=1, shape=(2, 4))
    loss = exact()
    value = loss(scores, labels, images)
    field = loss.field
    examples = [
        Example(
            field.energy(s.numpy(), x.numpy()[..., None]),
            Annotation(y.numpy().astype(np.uint8), class_weight=3 * (1.0,)),
        )
        for s, y, x in zip(scores.detach(), labels, images)
    ]
    gamma = Gamma(examples, 0.1)
    assert value.item() == pytest.approx(gamma(loss.coef_), rel=1e-9)
    nearby = loss.coef_ + 0.01 * np.random.default_rng(0).normal(size=(200, 3))
    assert min(gamma(np.r_[w[0], w[1:].clip(0)]) for w in nearby) >= value.item() - 1e-9
    predicted = loss.predict(scores, images)
    for energy, labels in zip((example.energy for example in examples), predicted.numpy()):
        energies = [energy.psi(y) @ loss.coef_ for y in all_labelings((2, 4), 3)]
        assert energy.psi(labels) @ loss.coef_ == pytest.approx(min(energies))


def test_weights_of_pairs_are_of_the_labels_of_the_batch_and_are_kept_in_its_state():
    scores, labels, images = batch_of_classes(seed=2)
    loss, other = exact(compatibility="metric"), exact(compatibility="metric")
    with pytest.raises(ValueError, match=r"coef_ has 3 weights, but 3 labels of log_odds need 7 by compatibility='met"):
        loss.predict(scores, images)
    value = loss(scores, labels, images)
    assert loss.coef_.shape == (7,)
    np.testing.assert_array_equal(loss.field.weights(3).closed(loss.coef_), loss.coef_)
    assert value.item() <= exact()(scores, labels, images).item()
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other.predict(scores, images), loss.predict(scores, images))
    assert exact(compatibility="metric", class_weight={0: 1, 1: 1, 2: 1}).predict(scores, images).shape == (2, 4, 5)
    beyond = torch.tensor([1.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    for weights, message in [(beyond, "must not exceed the sum"), (torch.ones(8), r"of shape \(8,\)")]:
        with pytest.raises(ValueError, match=f"the state has weights .*{message}"):
            loss.load_state_dict({"_extra_state": weights})


def test_weights_of_the_only_pair_of_two_labels_are_those_of_all_pairs():
    log_odds, labels, images = torch.randn(2, 6, 7), torch.randint(2, (2, 6, 7)), torch.rand(2, 6, 7)
    losses = [MaxMarginLoss(compatibility=each) for each in ("potts", "metric")]
    values = [loss(log_odds, labels, images).item() for loss in losses]
    assert values[0] == values[1]
    np.testing.assert_array_equal(losses[0].coef_, losses[1].coef_)


def test_backward_gives_central_differences_for_weights_of_pairs():
    scores, labels, images = batch_of_classes(seed=1, shape=(3, 3))  # of which moves miss no labeling
    loss = exact(compatibility="metric")
    assert_gradients_are_central_differences(lambda s: loss(s, labels, images), scores)


def test_the_gradient_for_held_weights_of_pairs_gives_central_differences():
    scores, labels, images = batch_of_classes(seed=4)
    loss = exact(compatibility="metric")
    loss.coef_ = random_weights(0, loss.field.weights(3))
    annotations = [Annotation(y.numpy().astype(np.uint8), class_weight=3 * (1.0,)) for y in labels]

    def at_weights(scores):
        return loss.at_weights([(list(scores), annotations, [x.numpy()[..., None] for x in images])])

    examples = [
        Example(loss.field.energy(s.detach().numpy(), x.numpy()[..., None]), annotation)
        for s, x, annotation in zip(scores, images, annotations)
    ]
    assert at_weights(scores).item() == pytest.approx(loss.learner.objective(examples, loss.coef_))
    assert_gradients_are_central_differences(at_weights, scores)


def test_a_list_of_scores_of_unequal_images_is_a_batch_too():
    parts = [batch_of_classes(seed, 1, shape) for seed, shape in enumerate([(3, 4), (4, 3)])]
    scores, labels, images = ([part[k][0].detach() for part in parts] for k in range(3))
    loss = exact()
    assert_gradients_are_central_differences(
        lambda *s: loss(list(s), labels, images), tuple(s.requires_grad_() for s in scores)
    )
    assert [labels.shape for labels in loss.predict(scores, images)] == [(3, 4), (4, 3)]


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (lambda s, y, x: (s, y + 1, x), {}, r"labels\[0\] must hold the labels 0, 1, 2 and 255 only, found \[3\]"),
        (lambda s, y, x: (s, y[..., 1:], x), {}, "shape"),
        (lambda s, y, x: ([s[0], s[1, :, 1:]], y, x), {}, r"log_odds\[1\] has shape \(3, 3, 5\)"),
        (lambda s, y, x: ([s[0], s[1, :2]], y, x), {}, r"log_odds\[1\] has 2, and log_odds\[0\] has 3"),
        (lambda s, y, x: ([s[0], s[1, 0]], y, x), {}, r"log_odds\[1\] has 1, and log_odds\[0\] has 3"),
        (lambda s, y, x: (s, y, x), {"class_weight": {1: 2.0}}, "an entry for each of the 3 labels of log_odds, got 2"),
        (lambda s, y, x: (s[:, 0], y.clamp(max=1), x), {"class_weight": {0: 1, 1: 1, 2: 1}}, "2 labels .*, got 3"),
    ],
)
def test_batches_of_several_classes_that_do_not_fit_are_refused(change, parameters, message):
    with pytest.raises(ValueError, match=message):
        exact(**parameters)(*change(*batch_of_classes()))


@pytest.mark.parametrize(
    ("gap", "message"),
    [(0.25, "not found may add up to 0.25 to the upper bound"), (np.nan, "not found may add to the upper bound")],
)
def test_a_warning_of_learning_that_did_not_converge_says_what_labelings_may_be_missing(gap, message):
    solution = Solution(np.ones(3), np.ones(1), [], 2.0, dual_gap=0.5, inference_gap=gap, converged=False)
    with pytest.warns(
        ConvergenceWarning, match=f"between 1.5 and 2, a relative gap of 0.25. Labelings that were {message}"
    ):
        warn_unless_converged(solution, CuttingPlanes())
