import pickle
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from small_images import all_differences, all_labelings, all_losses, is_completion, like
from strategies import problems, weights

from skmmcrf.field import (
    Annotation,
    Contrast,
    Energy,
    Field,
    Grid,
    PairwiseFeatures,
    Smoothness,
    base_energy,
    build_terms,
    grid_cut,
)
from skmmcrf.field import blocks as blocks_module
from skmmcrf.field import energy as energy_module
from skmmcrf.field.energy import LARGEST_LOG_ODDS, least_labelings, smoothed_log_odds

LONG = ((0, 1), (1, 0), (0, 2), (2, 0))
FIELDS = [
    ((3, 3), 4, "contrast"),
    ((3, 3), 8, "smoothness"),
    ((2, 4), LONG, "contrast"),
    ((1, 6), LONG, "smoothness"),
    ((1, 1), 8, "contrast"),
    ((2, 2, 3), 18, "contrast"),
]
WEIGHTS = np.array([[1.0, 0.3, 0.5], [0.2, 2.0, 0.0], [1.0, 0.0, 0.0], [-0.7, 0.4, 0.4], [0.0, 1.0, 1.0]])

each_field = pytest.mark.parametrize(("shape", "connectivity", "pairwise"), FIELDS, ids=str)


@dataclass(frozen=True)
class Counted:
    """A term that counts how often it is computed for the edges of an offset."""

    calls: list = field(default_factory=list, compare=False)

    def row(self, grid, image):
        self.calls.append(1)
        return Contrast(0.3).row(grid, image)


@each_field
def test_psi_is_that_of_the_equations(shape, connectivity, pairwise):
    rng = np.random.default_rng(0)
    log_odds, image, labels = rng.normal(size=shape), rng.uniform(size=(*shape, 2)), rng.uniform(size=shape) < 0.5
    grid = Grid.from_connectivity(connectivity, len(shape))
    probability = 1 / (1 + np.exp(-log_odds))
    expected = np.array([-np.log(np.where(labels, probability, 1 - probability)).sum(), 0.0, 0.0])
    for one in np.ndindex(shape):
        for other in np.ndindex(shape):
            step = np.subtract(other, one)
            if tuple(step) in grid.offsets and labels[one] != labels[other]:
                contrast = np.exp(-((image[one] - image[other]) ** 2).sum() / (2 * 0.3**2))
                expected[1:] += np.array([1, contrast]) / np.linalg.norm(step)
    crf = Field(grid, build_terms(pairwise, 0.3))
    assert crf.weights(2).n_weights == {"smoothness": 2, "contrast": 3}[pairwise]
    np.testing.assert_allclose(crf.energy(log_odds, image).psi(labels), expected[: crf.weights(2).n_weights])


@each_field
def test_differences_are_those_of_psi(random_grid, shape, connectivity, pairwise):
    energy, truth = random_grid(1, shape, connectivity, pairwise)
    expected = all_differences(energy, truth)
    for labels, difference in list(zip(all_labelings(shape), expected))[::37]:
        np.testing.assert_allclose(energy.psi(labels) - energy.psi(truth), difference, atol=1e-12)
        np.testing.assert_allclose(energy.difference(labels, truth), difference, atol=1e-12)
        assert energy.unary_difference(labels, truth) == pytest.approx(difference[0], abs=1e-12)


@each_field
@pytest.mark.parametrize("seed", range(3))
def test_cuts_equal_enumeration(random_grid, shape, connectivity, pairwise, seed):
    energy, truth = random_grid(seed, shape, connectivity, pairwise)
    labelled = np.random.default_rng(seed).uniform(size=shape) < 0.5
    annotations = [Annotation(truth), Annotation(truth, labelled, class_weight=(0.5, 3.0))]
    differences = all_differences(energy, truth)

    def of(labels):
        return energy.difference(labels, truth) @ w

    for w in WEIGHTS[:, : energy.n_weights]:
        energies = differences @ w
        assert of(energy.least(w)) == pytest.approx(energies.min(), abs=1e-9)
        for annotation in annotations:
            labels = energy.most_violated(w, annotation)
            loss = annotation.pixel_weights[labels != annotation.truth].sum()
            assert of(labels) - loss == pytest.approx((energies - all_losses(annotation)).min(), abs=1e-9)
            labels = energy.completion(w, annotation)
            np.testing.assert_array_equal(labels[annotation.labelled], truth[annotation.labelled])
            assert of(labels) == pytest.approx(energies[is_completion(annotation)].min(), abs=1e-9)


@given(problems(max_images=1, partly_labelled=True), weights())
def test_no_labeling_of_any_problem_is_better(problem, w):
    example = problem.examples()[0]
    energy, annotation = example.energy, example.annotation
    w, losses = w[: problem.field.weights(2).n_weights], all_losses(annotation)
    energies = all_differences(energy, annotation.truth) @ w
    pairwise = sum(weight * row.sum() for weight, row in zip(w[1:], energy.pairwise.compute().rows))
    rounding = 1e-12 * (abs(w[0]) * np.abs(energy.log_odds).sum(dtype=float) + pairwise + losses.max())

    def number(labels):
        return int("".join(map(str, labels.ravel().astype(int))), 2)

    assert energies[number(energy.least(w))] <= energies.min() + rounding
    violated = number(energy.most_violated(w, annotation))
    assert (energies - losses)[violated] <= (energies - losses).min() + rounding
    fits = is_completion(annotation)
    completed = number(energy.completion(w, annotation))
    assert fits[completed]
    assert energies[completed] <= energies[fits].min() + rounding


@given(problems(max_images=1), weights())
def test_mirroring_any_image_mirrors_the_result(problem, w):
    # the other way along both dimensions, in which any offsets mean the same pairs
    mirrored = problem.each_image_changed(lambda x: x[::-1, ::-1])
    energy, other = (p.examples()[0].energy for p in (problem, mirrored))
    w = w[: problem.field.weights(2).n_weights]
    least = energy.least(w)
    # labelings of equal energy may be exchanged
    pairwise = sum(weight * row.sum() for weight, row in zip(w[1:], energy.pairwise.compute().rows))
    rounding = 1e-12 * (abs(w[0]) * np.abs(energy.log_odds).sum(dtype=float) + pairwise)
    assert abs(w @ energy.difference(other.least(w)[::-1, ::-1], least)) <= rounding


@each_field
@pytest.mark.parametrize("seed", range(3))
def test_smoothed_log_odds_are_lower_bounds_of_min_marginals(random_grid, shape, connectivity, pairwise, seed):
    energy, truth = random_grid(seed, shape, connectivity, pairwise)
    foreground = all_labelings(shape).reshape(-1, truth.size)
    for w in WEIGHTS[:3, : energy.n_weights]:
        energies = all_differences(energy, truth) @ w
        with_label = [np.where(each, energies[:, np.newaxis], np.inf).min(axis=0) for each in (~foreground, foreground)]
        min_marginals = (with_label[0] - with_label[1]).reshape(shape)
        smoothed = energy.smoothed_log_odds(w)
        np.testing.assert_array_equal(smoothed > 0, min_marginals > 0)
        assert (w[0] * np.abs(smoothed) <= np.abs(min_marginals) + w[0] * 1.001e-3).all()
        if not w[1:].any():
            np.testing.assert_allclose(w[0] * smoothed, min_marginals, rtol=1e-6)


LEVELS = [-3.0, -1.0, -0.2, 0.0, 0.5, 2.0]


@pytest.mark.parametrize("w", [(1.0, 0.3, 0.9), (0.2, 0.0, 0.5), (5.0, 3.0, 0.0)])
@pytest.mark.parametrize("in_float32", [False, True])
def test_smoothed_log_odds_say_which_pixels_change_as_all_log_odds_do(monkeypatch, random_grid, w, in_float32):
    energy, _ = random_grid(0, (37, 41))
    energy = energy.with_unary(np.sign(energy.log_odds) * energy.log_odds**2)
    w = np.array(w)
    expected = {level: energy.with_unary(energy.log_odds - level).least(w) for level in LEVELS}
    if in_float32:
        monkeypatch.setattr(base_energy, "_MOST_PIXELS_DOUBLE", 0)
    smoothed = energy.smoothed_log_odds(w)
    assert smoothed.dtype == np.float32
    assert smoothed.min() < -3
    assert smoothed.max() > 2
    for level, labels in expected.items():
        off = (smoothed > level) != labels
        assert (np.abs(smoothed - level)[off] <= 2e-3).all()
        assert off.mean() < 0.01


@given(problems(max_images=1), weights())
def test_signs_of_smoothed_log_odds_are_the_labels_of_any_problem(problem, w):
    energy, w = problem.examples()[0].energy, w[: problem.field.weights(2).n_weights]
    if w[0] > 0:
        smoothed = energy.smoothed_log_odds(w)
        np.testing.assert_array_equal(smoothed > 0, energy.least(w))
        assert np.isfinite(smoothed).all()


def test_smoothed_log_odds_need_a_positive_weight_of_the_log_odds(random_grid):
    energy, _ = random_grid(0)
    for weight in (0.0, -1.0):
        with pytest.raises(ValueError, match=rf"w\[0\], the weight of the log-odds, must be positive, got {weight:g}"):
            energy.smoothed_log_odds(np.array([weight, 1.0, 1.0]))
    with pytest.raises(ValueError, match="pairwise weights must not be negative"):
        energy.smoothed_log_odds(np.array([1.0, -1.0, 1.0]))


def test_saturated_log_odds_stay_finite(random_grid):
    energy, truth = random_grid(2, scale=1e4)
    energy = energy.with_unary(energy.log_odds.astype(np.float32))
    wrong = np.where(truth, -energy.log_odds, energy.log_odds)
    assert energy.psi(truth)[0] == pytest.approx(np.maximum(wrong, 0).sum(), rel=1e-6)


def test_differences_of_float16_are_summed_in_full_precision():
    energy = Energy(np.full((1, 4096), 17.0, dtype=np.float16), PairwiseFeatures(Grid(((0, 1),)), (), np.empty(0)))
    every, none = np.ones((1, 4096), bool), np.zeros((1, 4096), bool)
    assert energy.unary_difference(none, every) == 17 * 4096


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.1 * LARGEST_LOG_ODDS, -1e300, np.float16(-np.inf)])
def test_log_odds_that_leave_no_digits_are_refused(random_grid, value):
    energy, _ = random_grid(0, (1, 2))
    with pytest.raises(ValueError, match="log_odds must be finite and within -1e[+]06 and 1e[+]06"):
        energy.with_unary(np.array([[0, value]], dtype=np.asarray(value).dtype))
    energy.with_unary(np.array([[LARGEST_LOG_ODDS, -LARGEST_LOG_ODDS]])).least(np.ones(3))


def test_what_does_not_fit_together_is_refused(random_grid):
    energy, truth = random_grid(0)
    annotation = Annotation(truth, np.zeros_like(truth))
    for w, message in [
        *[(np.ones(n), r"w must be of shape \(3,\)") for n in (0, 2, 4)],
        *[(np.array([1.0, 1.0, value]), "w must be finite") for value in (np.nan, np.inf)],
        *[(np.array(w), "pairwise weights must not be negative") for w in ([1, -0.1, 1], [1, 1, -1e-9])],
    ]:
        for cut in (energy.least, energy.most_violated, energy.completion):
            with pytest.raises(ValueError, match=message):
                cut(w, *[annotation] * (cut != energy.least))
    for labels in (truth[:-1], truth[np.newaxis], truth.astype(int)):
        for measure in (energy.psi, lambda labels: energy.difference(labels, truth)):
            with pytest.raises(ValueError, match="labels must be of bool and the shape of log_odds"):
                measure(labels)
        with pytest.raises(ValueError, match="truth must be of bool and the shape of log_odds"):
            energy.difference(truth, labels)
    with pytest.raises(ValueError, match=r"log_odds must have the size of their image, \(3, 4\), got \(4, 3\)"):
        energy.with_unary(energy.log_odds.T).least(np.ones(3))


LARGE = [
    ((37, 41), 8, "contrast"),
    ((37, 41), 4, "smoothness"),
    ((1, 900), ((0, 1), (1, 0), (5, -3), (0, 950)), "contrast"),
    ((7, 9, 11), 18, "contrast"),
]


@pytest.mark.parametrize(("shape", "connectivity", "pairwise"), LARGE, ids=str)
def test_labelings_of_large_images_are_as_good_in_float32(monkeypatch, random_grid, shape, connectivity, pairwise):
    energy, _ = random_grid(0, shape, connectivity, pairwise)
    w = np.array([1.0, 0.3, 0.9])[: energy.n_weights]
    expected = energy.least(w)
    assert expected.any()
    monkeypatch.setattr(base_energy, "_MOST_PIXELS_DOUBLE", expected.size - 1)
    assert energy._cut(w).terminal.dtype == (np.float32 if grid_cut.available() else np.float64)
    assert energy.difference(energy.least(w), expected) @ w == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("read_anew", [False, True])
@pytest.mark.parametrize("pixels_of_block", [1, 100, 10**6])
@pytest.mark.parametrize(("shape", "connectivity", "pairwise"), [*FIELDS, *LARGE], ids=str)
def test_how_large_blocks_of_edges_are_makes_no_difference(
    monkeypatch, random_grid, shape, connectivity, pairwise, pixels_of_block, read_anew
):
    energy, truth = random_grid(0, shape, connectivity, pairwise)
    w = np.array([1.0, 0.3, 0.9])[: energy.n_weights]
    image, expected = energy.pairwise._image, energy.pairwise.compute()
    labels, difference = energy.least(w), energy.difference(energy.least(w), truth)
    monkeypatch.setattr(blocks_module, "_PIXELS_OF_BLOCK", pixels_of_block)
    energy = like(energy, energy.log_odds, (lambda: image) if read_anew else image)
    np.testing.assert_array_equal(energy.pairwise.compute().rows, expected.rows)
    np.testing.assert_array_equal(energy.least(w), labels)
    np.testing.assert_allclose(energy.difference(labels, truth), difference, rtol=1e-12, atol=1e-12)


@dataclass(frozen=True)
class Given:
    """A term of a given row."""

    values: object

    def row(self, grid, image):
        return self.values


@pytest.mark.parametrize("row", [np.nan, np.inf, -1.0, *[np.array([value]) for value in (np.nan, np.inf, -1.0)]])
def test_factors_that_no_cut_takes_are_refused(row):
    energy = Field(Grid(((0, 1),)), (Smoothness(), Given(row))).energy(np.zeros((1, 2)), np.zeros((1, 2, 1)))
    with pytest.raises(ValueError, match="the factors of .*Given.* must be finite and not negative"):
        energy.least(np.array([1.0, 1.0, 0.0]))


def test_a_term_may_give_any_number_for_all_edges():
    given, image = [Given(2.0), Given(np.full(2, 2.0))], np.zeros((1, 3, 1))
    rows = Field(Grid(((0, 1),), (1.0, 4.0)), tuple(given)).energy(np.zeros((1, 3)), image).pairwise.compute().rows
    np.testing.assert_array_equal(rows, np.full((2, 2), 0.5))


def cut_thrice(energy, annotation):
    w = np.array([1.0, 0.2, 0.7])
    energy.least(w)
    return energy.difference(energy.most_violated(w, annotation), energy.completion(w, annotation))


@pytest.mark.parametrize("read_anew", [False, True])
def test_features_of_an_array_are_computed_once_and_of_a_function_each_time(read_anew):
    rng, term = np.random.default_rng(0), Counted()
    image, log_odds, truth = rng.uniform(size=(4, 5, 1)), rng.normal(size=(4, 5)), rng.uniform(size=(4, 5)) < 0.5
    annotation = Annotation(truth, rng.uniform(size=(4, 5)) < 0.5)
    crf = Field(Grid(((1, 1),)), (Smoothness(), term))
    energy = crf.energy(log_odds, (lambda: image) if read_anew else image)
    assert not term.calls
    expected = cut_thrice(energy, annotation)
    assert len(term.calls) == (4 if read_anew else 1)
    np.testing.assert_array_equal(cut_thrice(energy.with_unary(-log_odds).with_unary(log_odds), annotation), expected)
    assert len(term.calls) == (8 if read_anew else 1)

    term.calls.clear()
    kept = energy.in_memory()
    np.testing.assert_array_equal(cut_thrice(kept, annotation), expected)
    np.testing.assert_array_equal(cut_thrice(kept, annotation), expected)
    assert len(term.calls) == int(read_anew)
    assert (kept is energy) == (not read_anew)
    assert kept.in_memory() is kept


def test_log_odds_of_a_function_are_those_that_it_gives_now(random_grid):
    energy, truth = random_grid(0)
    values = [energy.log_odds]
    live = energy.with_unary(lambda: values[0])
    np.testing.assert_array_equal(live.psi(truth), energy.psi(truth))
    kept, values[0] = live.in_memory(), -energy.log_odds
    np.testing.assert_array_equal(live.psi(truth), energy.psi(~truth))
    np.testing.assert_array_equal(kept.psi(truth), energy.psi(truth))
    assert kept.pairwise is live.pairwise is energy.pairwise


def test_any_energy_pickles_to_the_same_results_without_its_features(random_grid):
    energy, truth = random_grid(0, (20, 30))
    image = energy.pairwise._image
    annotation, w = Annotation(truth), np.array([1.0, 0.2, 0.7])
    of_functions = like(energy, lambda: energy.log_odds, lambda: image)
    expected = energy.psi(truth)
    for each in (energy, of_functions):
        pickled = pickle.dumps(each)
        assert len(pickled) < 1.5 * (image.nbytes + energy.log_odds.nbytes)
        copy = pickle.loads(pickled)
        assert copy.shape == energy.shape
        np.testing.assert_array_equal(copy.psi(truth), expected)
        np.testing.assert_array_equal(copy.least(w), energy.least(w))
        np.testing.assert_array_equal(copy.most_violated(w, annotation), energy.most_violated(w, annotation))


class Sequence:
    """A sequence that is no list, whose arrays are in memory only while they are in use."""

    def __init__(self, arrays):
        self.arrays, self.read = arrays, []

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, n):
        self.read.append(n)
        return self.arrays[n].copy()


@pytest.mark.parametrize("kind", ["list", "list of too many pixels", "sequence"])
def test_a_field_keeps_the_features_of_a_list_of_not_too_many_pixels(monkeypatch, kind):
    rng, term = np.random.default_rng(0), Counted()
    arrays = [rng.uniform(size=(*shape, 2)) for shape in [(3, 4), (2, 6)]]
    images, log_odds = ([x[..., channels] for x in arrays] for channels in (slice(1), 1))
    monkeypatch.setattr(energy_module, "_MOST_PIXELS_KEPT", 24 if kind == "list" else 23)
    crf = Field(Grid(((0, 1),)), (term,))
    sequences = [Sequence(log_odds), Sequence(images)] if kind == "sequence" else [log_odds, images]
    energies = crf.energies(*sequences)
    for n, energy in enumerate(energies):
        truth = log_odds[n] > 0.5
        expected = Field(crf.grid, (Contrast(0.3),)).energy(log_odds[n], images[n])
        for _ in range(2):
            np.testing.assert_array_equal(energy.psi(truth), expected.psi(truth))
    assert len(term.calls) == (2 if kind == "list" else 4)
    if kind == "sequence":
        assert sequences[1].read == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="shorter"):
        crf.energies(log_odds, images[:1])


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("overlap", [True, False])
def test_labelings_of_many_images_are_those_of_each_also_in_threads(random_grid, n_jobs, overlap):
    energies, w = [random_grid(seed, (8, 9))[0] for seed in range(11)], np.array([1.0, 0.5, 0.5])
    found = list(least_labelings(w, iter(energies), n_jobs, overlap=overlap))
    np.testing.assert_array_equal(found, [energy.least(w) for energy in energies])


def test_without_overlap_no_energy_is_asked_for_while_another_one_is_cut(random_grid, monkeypatch):
    if not grid_cut.available():
        pytest.skip("processes cut")
    energies, w = [random_grid(seed, (8, 9))[0] for seed in range(9)], np.array([1.0, 0.5, 0.5])
    events, least = [], Energy.least

    def cut(energy, w):
        time.sleep(0.01)  # time enough for another thread to ask
        labels = least(energy, w)
        events.append("cut")
        return labels

    def asked():
        for energy in energies:
            events.append("asked")
            yield energy

    monkeypatch.setattr(Energy, "least", cut)
    list(least_labelings(w, asked(), 2, overlap=False))
    assert events == 4 * ["asked"] + 4 * ["cut"] + 4 * ["asked"] + 4 * ["cut"] + ["asked", "cut"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_smoothed_log_odds_of_many_images_are_those_of_each(random_grid, n_jobs):
    energies, w = [random_grid(seed, (8, 9))[0] for seed in range(3)], np.array([1.0, 0.5, 0.5])
    found = list(smoothed_log_odds(w, iter(energies), n_jobs))
    np.testing.assert_array_equal(found, [energy.smoothed_log_odds(w) for energy in energies])
