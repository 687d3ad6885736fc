"""Small images to learn from, and references that try all their labelings."""

import itertools
from functools import lru_cache

import numpy as np

from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.learning import Example


def field_of(connectivity=8, pairwise="contrast", sigma=0.3, ndim=2, compatibility="potts"):
    return Field(Grid.from_connectivity(connectivity, ndim), build_terms(pairwise, sigma), compatibility)


def like(energy, unary, image):
    """The energy of another image, or of the same one read otherwise, by the field of an energy."""
    return Field(energy.pairwise.grid, energy.pairwise.terms, energy.weights.compatibility).energy(unary, image)


def squares(seed, sizes=((5, 6), (4, 7)), annotate=lambda n, truth: Annotation(truth), field=None):
    """Examples of noisy squares."""
    rng, field, examples = np.random.default_rng(seed), field or field_of(), []
    for n, shape in enumerate(sizes):
        truth = np.zeros(shape, dtype=bool)
        truth[1:3, 1:4] = True
        log_odds = 1.5 * truth - 0.7 + rng.normal(size=shape)
        image = (truth + 0.3 * rng.normal(size=shape))[..., np.newaxis]
        examples.append(Example(field.energy(log_odds, image), annotate(n, truth)))
    return examples


def weighted(n, truth):
    return Annotation(truth, weight=1.5 - n, class_weight=(1.0, 3.0))


def partly_labelled(n, truth):
    return Annotation(truth, np.random.default_rng(n).uniform(size=truth.shape) < 0.7)


def move_log_odds(example, pixel, step):
    log_odds = example.energy.log_odds.copy()
    log_odds[pixel] += step
    example.reprice(example.energy.with_unary(log_odds))


def random_classes(
    seed, shape=(3, 3), n_labels=3, connectivity=8, pairwise="contrast", scale=2.0, compatibility="potts"
):
    """A small problem of several labels: an energy and a truth."""
    rng = np.random.default_rng(seed)
    field = field_of(connectivity, pairwise, ndim=len(shape), compatibility=compatibility)
    scores, image = scale * rng.normal(size=(n_labels, *shape)), rng.uniform(size=(*shape, 2))
    return field.energy(scores, image), rng.integers(n_labels, size=shape, dtype=np.uint8)


def random_weights(seed, weights, unary=1.0, scale=1.0):
    """Any w that is allowed."""
    return weights.closed(np.append(unary, scale * np.random.default_rng(seed).exponential(size=weights.n_weights - 1)))


def stripes(seed, sizes=((5, 6), (4, 7)), n_labels=3, annotate=Annotation, scale=0.7, compatibility="potts"):
    """Examples of noisy stripes of several labels. `annotate` makes an annotation of a truth and class weights."""
    rng, field, examples = np.random.default_rng(seed), field_of(compatibility=compatibility), []
    for shape in sizes:
        truth = np.broadcast_to(np.arange(shape[1]) * n_labels // shape[1], shape).astype(np.uint8)
        scores = np.array([1.5 * (truth == label) for label in range(n_labels)])
        scores += scale * rng.normal(size=scores.shape)
        image = (truth + 0.3 * rng.normal(size=shape))[..., np.newaxis]
        examples.append(Example(field.energy(scores, image), annotate(truth, class_weight=(1.0,) * n_labels)))
    return examples


@lru_cache(maxsize=8)
def all_labelings(shape, n_labels=2):
    """Every labeling, (n_labels^n, *shape)."""
    numbers = itertools.product(range(n_labels), repeat=int(np.prod(shape)))
    return np.array(list(numbers), dtype=bool if n_labels == 2 else np.uint8).reshape(-1, *shape)


def all_differences(energy, truth):
    """psi(y) - psi(y_n) of every labeling, (n_labels^n, n_weights)."""
    labelings = all_labelings(energy.shape, energy.n_labels).reshape(-1, truth.size)
    _, (first, second), rows = energy.pairwise.compute()

    def cuts(labels):
        pairs, numbers = energy.weights.pairs, np.arange(energy.weights.n_pairs)
        return [(pairs[labels[:, first].astype(int), labels[:, second].astype(int)] == n).astype(int) for n in numbers]

    if energy.unary.ndim == truth.ndim:
        unary = (truth.ravel().astype(int) - labelings) @ energy.log_odds.ravel().astype(float)
    else:
        scores, pixels = energy.scores.reshape(energy.n_labels, -1).astype(float), np.arange(truth.size)
        unary = (scores[truth.ravel(), pixels] - scores[labelings.astype(int), pixels]).sum(axis=1)
    cut = [changed - of_truth for changed, of_truth in zip(cuts(labelings), cuts(truth.reshape(1, -1)))]
    return np.column_stack([unary, *(of_pair @ row for row in rows for of_pair in cut)])


def all_losses(annotation):
    """Delta(y_n, y) of every labeling, (n_labels^n,)."""
    wrong = all_labelings(annotation.shape, annotation.n_labels) != annotation.truth
    return (wrong * annotation.pixel_weights).reshape(len(wrong), -1).sum(axis=1)


def is_completion(annotation):
    """Of every labeling, whether it has the true labels where these are known, (n_labels^n,)."""
    right = (all_labelings(annotation.shape, annotation.n_labels) == annotation.truth) | ~annotation.labelled
    return right.reshape(len(right), -1).all(axis=1)


class Gamma:
    """The objective of (8) over all labelings, as a function of w; truths may be completed anew for each w."""

    def __init__(self, examples, C, *, completed_anew=False):
        self.C = C
        self.scale = examples[0].energy.weights.scale
        self.weights = np.array([example.annotation.weight for example in examples])
        self.differences = [all_differences(e.energy, e.annotation.truth) for e in examples]
        self.losses = [all_losses(example.annotation) for example in examples]
        self.completions = [is_completion(example.annotation) for example in examples]
        self.completed_anew = completed_anew

    def slack(self, w):
        slack = np.array([(loss - d @ w).max() for loss, d in zip(self.losses, self.differences)])
        if self.completed_anew:
            slack += [(d[fits] @ w).min() for d, fits in zip(self.differences, self.completions)]
        return slack

    def __call__(self, w):
        return np.square(w * self.scale).sum() / 2 + self.C * (self.weights @ self.slack(w)) / len(self.weights)
