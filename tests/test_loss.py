import numpy as np
import pytest
import torch

from skmmcrf import MaxMarginCRF, MaxMarginLoss
from skmmcrf.labelings import Labelings


def batch(seed=0, n=2, shape=(5, 6), n_channels=None):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n, *shape, dtype=torch.long)
    labels[:, 1:3, 1:4] = 1
    log_odds = 1.5 * labels - 0.7 + torch.randn(n, *shape, dtype=torch.float64, generator=generator)
    image_shape = (n, *shape) if n_channels is None else (n, n_channels, *shape)
    images = torch.rand(image_shape, dtype=torch.float64, generator=generator)
    return log_odds.requires_grad_(), labels, images


def gamma(log_odds, labels, images, C=0.1):
    return MaxMarginLoss(C, sigma=0.3, tol=0.0)(log_odds, labels, images)


@pytest.mark.parametrize("n_channels", [None, 1, 3])
def test_backward_equals_central_differences(n_channels):
    log_odds, labels, images = batch(n_channels=n_channels)
    gamma(log_odds, labels, images).backward()
    size = log_odds.grad.abs().max().item()
    assert size > 0
    step = 1e-5
    for pixel in [(0, 1, 1), (0, 3, 5), (1, 0, 0), (1, 2, 2), (1, 4, 5)]:
        values = []
        for sign in (1, -1):
            changed = log_odds.detach().clone()
            changed[pixel] += sign * step
            values.append(gamma(changed, labels, images).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert log_odds.grad[pixel].item() == pytest.approx(slope, rel=1e-5, abs=1e-5 * size)


def test_lists_of_unequal_images_equal_finite_differences_too():
    parts = [batch(seed, 1, shape) for seed, shape in enumerate([(5, 6), (4, 7)])]
    log_odds, labels, images = ([part[k][0] for part in parts] for k in range(3))
    log_odds = [l.detach().requires_grad_() for l in log_odds]
    gamma(log_odds, labels, images).backward()
    step = 1e-5
    shift = torch.zeros(4, 7, dtype=torch.float64)
    shift[2, 2] = step
    values = [gamma([log_odds[0], log_odds[1] + s * shift], labels, images).item() for s in (1, -1)]
    assert log_odds[1].grad[2, 2].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_a_list_of_equal_images_is_the_batch():
    log_odds, labels, images = batch()
    assert gamma(list(log_odds), list(labels), list(images)).item() == gamma(log_odds, labels, images).item()


def test_training_loop_lowers_gamma_and_keeps_w():
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
        value = loss(network(images[:, None])[:, 0], labels, images)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert value.dtype == torch.float32
    assert values[-1] < 0.9 * values[0]
    assert loss.coef_.shape == (3,)
    assert (loss.coef_[1:] >= 0).all()


@pytest.mark.parametrize("gradient", ["envelope", "kkt"])
def test_gradcheck(gradient):
    log_odds, labels, images = batch(seed=3)
    loss = MaxMarginLoss(0.1, sigma=0.3, tol=0.0, gradient=gradient)
    assert torch.autograd.gradcheck(lambda l: loss(l, labels, images), log_odds, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_both_gradients_agree():
    gradients = []
    for gradient in ("envelope", "kkt"):
        log_odds, labels, images = batch(seed=3)
        MaxMarginLoss(0.1, sigma=0.3, gradient=gradient)(log_odds, labels, images).backward()
        gradients.append(log_odds.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-8 * gradients[0].abs().max().item())


def test_a_degenerate_system_warns_and_takes_the_envelope_theorem():
    log_odds, labels, images = (torch.cat([part.detach(), part.detach()]) for part in batch(seed=3, n=1))
    gradients = {}
    for gradient in ("envelope", "kkt"):
        l = log_odds.clone().requires_grad_()
        loss = MaxMarginLoss(1.0, sigma=0.3, gradient=gradient)
        if gradient == "kkt":
            with pytest.warns(RuntimeWarning, match=r"the envelope theorem gave the gradient: .*active constraint"):
                value = loss(l, labels, images)
        else:
            value = loss(l, labels, images)
        value.backward()
        gradients[gradient] = l.grad
    assert torch.equal(gradients["envelope"], gradients["kkt"])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_saturated_float32_gives_finite_gamma_and_gradient(scale):
    log_odds, labels, images = batch()
    saturated = (scale * log_odds.detach()).float().requires_grad_()
    value = gamma(saturated, labels, images)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(saturated.grad).all()


def test_the_optimum_of_a_perfect_network_needs_no_gradient():
    _, labels, images = batch()
    log_odds = (1e4 * (2.0 * labels - 1)).requires_grad_()
    value = MaxMarginLoss(C=1.0, sigma=0.3, tol=1e-9)(log_odds, labels, images)
    assert value.item() < 1e-6


def test_unlabelled_pixels_and_class_weights_count_as_they_should():
    log_odds, labels, images = batch()
    unlabelled = labels.clone()
    unlabelled[:, :, 4:] = 255
    loss = MaxMarginLoss(0.1, sigma=0.3, tol=0.0, class_weight={1: 2.0})
    value = loss(log_odds, unlabelled, images)
    crf = MaxMarginCRF(0.1, sigma=0.3, tol=0.0, class_weight={1: 2.0})
    Z = torch.stack([log_odds.detach(), images], dim=-1).numpy()
    assert value.item() == pytest.approx(crf.fit(Z, unlabelled.numpy()).objective_, rel=1e-6)
    assert value.item() != pytest.approx(gamma(*batch()).item(), rel=0.01)
    with pytest.raises(ValueError, match=r"labels 0 and 1 only, found \[255\]"):
        MaxMarginLoss(ignore_label=None)(log_odds, unlabelled, images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda l, y, x: (list(l[:, None]), y, x), r"log_odds\[0\] has shape"),
        (lambda l, y, x: (l, y[:1], x), "same length"),
        (lambda l, y, x: (l[:1], y, x), "1 log-odds"),
        (lambda l, y, x: (l, 2 * y, x), "labels 0, 1 and 255 only"),
        (lambda l, y, x: (l, y, x[..., 1:]), "shape"),
        (lambda l, y, x: (l, y, x * np.nan), "NaN"),
        (lambda l, y, x: (l * np.nan, y, x), r"log_odds\[0\] contains NaN"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gamma(*change(*batch()))


@pytest.mark.parametrize(
    "parameters",
    [
        {"C": 0},
        {"C": -1.0},
        {"connectivity": 6},
        {"sigma": "auto"},
        {"sigma": 0.0},
        {"tol": -1},
        {"max_iter": 0},
        {"gradient": "lu"},
        {"class_weight": "balanced"},
        {"ignore_label": "auto"},
    ],
)
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises(ValueError, match=f"'{next(iter(parameters))}' parameter of MaxMarginLoss must be"):
        MaxMarginLoss(**parameters)


def at_weights(log_odds, labels, images, w):
    loss = MaxMarginLoss(0.1, sigma=0.3)
    loss.coef_ = np.array(w)
    arrays = [image.numpy()[..., np.newaxis] for image in images]
    value = loss.at_weights(log_odds, [Labelings(truth.numpy().astype(bool)) for truth in labels], arrays)
    assert loss.coef_.tolist() == w
    return value


def test_at_weights_backward_equals_central_differences_and_w_stays():
    log_odds, labels, images = batch(seed=1)
    w = [0.8, 0.3, 0.4]
    at_weights(log_odds, labels, images, w).backward()
    size = log_odds.grad.abs().max().item()
    assert size > 0
    step = 1e-6
    for pixel in np.ndindex(*log_odds.shape):
        changed = [log_odds.detach().clone() for _ in range(2)]
        changed[0][pixel] += step
        changed[1][pixel] -= step
        above, below = (at_weights(l, labels, images, w).item() for l in changed)
        assert log_odds.grad[pixel].item() == pytest.approx((above - below) / (2 * step), abs=1e-6 * size)


def test_at_the_weights_of_gamma_the_objective_is_gamma():
    log_odds, labels, images = batch()
    loss = MaxMarginLoss(0.1, sigma=0.3, tol=0.0)
    value = loss(log_odds, labels, images).item()
    assert at_weights(log_odds, labels, images, loss.coef_.tolist()).item() == pytest.approx(value, rel=1e-9)
