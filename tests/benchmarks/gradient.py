"""Milliseconds of the gradient of gamma: by the envelope theorem, and by the paper's linear system.

The programs are random, with as many active labelings as such programs have: each image has one, three have another.
Medians of several runs, one thread:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python tests/benchmarks/gradient.py
"""

import argparse
import time

import numpy as np

from skmmcrf.field import Annotation, Field, Grid, build_terms
from skmmcrf.field.labels import pack_labeling
from skmmcrf.learning import DegenerateProgramError, Example, LinearSystem, solve_program
from skmmcrf.learning.example import Constraint

C = 1.0
FIELD = Field(Grid.from_connectivity(8), build_terms("contrast", sigma=1.0))


def random_program(n_images, shape, rng, n_labelings=4):
    """Examples whose stored labelings differ from the truth in about a tenth of the pixels."""
    examples = []
    energy = FIELD.energy(np.zeros(shape), np.zeros((*shape, 1)))  # of no influence on constraints that are given
    for _ in range(n_images):
        truth = rng.uniform(size=shape) < 0.3
        example = Example(energy, Annotation(truth))
        for _ in range(n_labelings):
            labels = truth ^ (rng.uniform(size=shape) < 0.1)
            loss = float(np.count_nonzero(labels != truth))
            example.add(Constraint(pack_labeling(labels), loss * rng.normal(0.4, 1, size=3), loss))
        examples.append(example)
    return examples


def median_seconds(function, repeat):
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(n_images, shape, repeat, rng):
    while True:
        examples = random_program(n_images, shape, rng)
        solution = solve_program(examples, C)
        try:
            LinearSystem(solution, examples, C)
            break
        except DegenerateProgramError:
            continue

    def by_envelope():
        return [example.gradient(solution.w, m) for example, m in zip(examples, solution.multipliers)]

    def by_linear_system():
        system = LinearSystem(solution, examples, C)
        return [system.gradient(n) for n in range(n_images)]

    for one, other in zip(by_envelope(), by_linear_system()):
        np.testing.assert_allclose(one, other, atol=1e-8 * np.abs(one).max())
    return median_seconds(by_envelope, repeat), median_seconds(by_linear_system, repeat)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[1, 10, 50])
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()

    print("images     pixels   envelope  linear system  ratio")
    for n_images in arguments.images:
        for shape in [(32, 32), (64, 64), (128, 128), (180, 240), (256, 256)]:
            envelope, system = measure(n_images, shape, arguments.repeat, np.random.default_rng(0))
            size = f"{n_images:6d} {shape[0]:4d} x {shape[1]:3d}"
            print(f"{size} {1e3 * envelope:7.2f} ms {1e3 * system:11.2f} ms {system / envelope:6.0f}", flush=True)


if __name__ == "__main__":
    main()
