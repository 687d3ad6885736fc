import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skmmcrf import MaxMarginCRF
from skmmcrf.field import Grid, estimate_sigma


def noisy_squares(seed=0, n=4, shape=(14, 16), n_channels=1):
    rng = np.random.default_rng(seed)
    y = np.zeros((n, *shape), dtype=int)
    y[:, 4:10, 5:12] = 1
    log_odds = 2.0 * y - 1 + 1.2 * rng.normal(size=y.shape)
    images = y[..., np.newaxis] + 0.2 * rng.normal(size=(*y.shape, n_channels))
    return np.concatenate([log_odds[..., np.newaxis], images], axis=-1), y


@pytest.fixture(scope="module")
def fitted():
    return MaxMarginCRF().fit(*noisy_squares())


def test_field_mends_the_log_odds(fitted):
    Z, y = noisy_squares(1)
    alone = MaxMarginCRF().fit(*noisy_squares())
    alone.coef_ = np.array([1.0, 0.0, 0.0])
    assert fitted.score(Z, y) > 0.97 > 0.8 > alone.score(Z, y)


def test_attributes_are_those_of_the_optimum(fitted):
    w, slack = fitted.coef_, fitted.slack_
    assert w.shape == (3,)
    assert (w[1:] >= 0).all()
    assert slack.shape == (4,)
    assert fitted.objective_ == pytest.approx(0.5 * w @ w + slack.mean())
    assert 0 <= fitted.dual_gap_ <= 1e-3 * fitted.objective_
    assert fitted.n_iter_ >= 1
    assert fitted.n_channels_in_ == 2
    np.testing.assert_array_equal(fitted.classes_, [0, 1])


def test_tighter_tolerance_comes_within_the_gap():
    rough, exact = (MaxMarginCRF(tol=tol).fit(*noisy_squares()) for tol in (1e-1, 0.0))
    assert exact.objective_ <= rough.objective_ <= exact.objective_ + rough.dual_gap_ * (1 + 1e-9)


def test_sigma_auto_is_estimated_from_the_image_channels(fitted):
    Z, y = noisy_squares()
    assert fitted.sigma_ == pytest.approx(estimate_sigma(Grid.from_connectivity(8), list(Z[..., 1:]), np.ones(4)))
    assert MaxMarginCRF(sigma=0.3).fit(Z, y).sigma_ == 0.3


def test_terms_and_neighbours_make_other_fields(fitted):
    Z, y = noisy_squares()
    assert not np.allclose(MaxMarginCRF(connectivity=4).fit(Z, y).coef_, fitted.coef_)
    offsets = ((0, 1), (1, 0), (1, 1), (1, -1))
    np.testing.assert_allclose(MaxMarginCRF(connectivity=offsets).fit(Z, y).coef_, fitted.coef_, rtol=1e-6)
    smooth = MaxMarginCRF(pairwise="smoothness").fit(Z, y)
    assert smooth.coef_.shape == (2,)
    assert smooth.sigma_ is None
    assert 0.8 < smooth.score(Z, y) < fitted.score(Z, y)


def test_labels_are_read_by_the_parameters(fitted):
    Z, y = noisy_squares()
    y = np.where(y, 7, 0)
    crf = MaxMarginCRF(pos_label=7, class_weight={7: 3.0}).fit(Z, y)
    np.testing.assert_array_equal(crf.classes_, [0, 7])
    np.testing.assert_array_equal(crf.class_weight_, [1, 3])
    assert set(np.unique(crf.predict(Z))) == {0, 7}
    assert crf.score(Z, y) > 0.9
    unlabelled = MaxMarginCRF(pos_label=7, ignore_label=9).fit(Z, np.where(Z[..., 0] * (y - 3.5) < 0, 9, y))
    assert unlabelled.objective_ < 0.5 * fitted.objective_


def test_warm_start_begins_at_the_last_weights():
    Z, y = noisy_squares(n=8)
    cold, warm = MaxMarginCRF(tol=1e-2), MaxMarginCRF(tol=1e-2, warm_start=True)
    warm.fit(Z, y).coef_[:] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        warm.fit(Z, y)
    cold.fit(Z, y).coef_[:] = np.nan
    assert np.isfinite(cold.fit(Z, y).coef_).all()
    with pytest.raises(ValueError, match="pairwise: warm_start goes on with 3 weights, not 2"):
        warm.set_params(pairwise="smoothness").fit(Z, y)


def test_jobs_do_not_change_the_result(fitted):
    together = clone(fitted).set_params(n_jobs=2).fit(*noisy_squares())
    np.testing.assert_array_equal(together.coef_, fitted.coef_)


def test_progress_is_printed_only_when_asked(capsys):
    MaxMarginCRF().fit(*noisy_squares())
    assert capsys.readouterr().out == ""
    crf = MaxMarginCRF(verbose=1).fit(*noisy_squares())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [f"  pass {n + 1}" for n in range(crf.n_iter_)]


def test_too_few_passes_warn():
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        MaxMarginCRF(max_iter=1).fit(*noisy_squares())


def test_log_odds_that_count_the_wrong_way_round_are_told():
    y = np.zeros((2, 8, 9), int)
    y[:, 2:6, 3:7] = 1
    inverted = np.stack([1.0 - 2 * y, y], axis=-1)
    with pytest.warns(UserWarning, match=r"coef_\[0\], is negative: .* Either labels are inverted"):
        crf = MaxMarginCRF().fit(inverted, y)
    assert crf.score(inverted, y) == 1


def test_parameters_may_be_numbers_of_little_precision():
    y = np.zeros((2, 8, 9), int)
    y[:, 2:6, 3:7] = 1
    MaxMarginCRF(sigma=np.float32(0.2), C=np.float32(0.5), tol=np.float16(0.1)).fit(
        np.stack([2 * y - 1.0, y], axis=-1), y
    )
