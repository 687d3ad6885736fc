"""Damage to files, drawn at random, for tests of what reads them."""

import struct

import numpy as np

# what is read as a length, an offset, a size or a number of things
NUMBERS = [0, 1, 2, 255, 2**15, 2**16 - 1, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def damaged(data: bytes, rng: np.random.Generator, other: bytes, n_first: int = 200) -> bytes:
    """Change a file in one to three ways; half of the changes fall on its first bytes, where formats keep numbers."""
    for _ in range(rng.integers(1, 4)):
        end = max(1, len(data) if rng.random() < 0.5 else min(len(data), n_first))
        data = WAYS[rng.integers(len(WAYS))](data, int(rng.integers(end)), rng, other)
    return data


def flip(data, at, rng, other):
    return over(data, at, bytes([data[at] ^ 1 << rng.integers(8)])) if data else data


def noise(data, at, rng, other):
    return over(data, at, rng.bytes(rng.integers(1, 20)))


def number(data, at, rng, other):
    value, form = int(rng.choice(NUMBERS)), rng.choice(["<I", ">I", "<H", ">H", "<Q"])
    return over(data, at, struct.pack(form, value % 2 ** (8 * struct.calcsize(form))))


def over(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def cut(data, at, rng, other):
    return data[:at]


def lose(data, at, rng, other):
    return data[:at] + data[at + rng.integers(1, 50) :]


def repeat(data, at, rng, other):
    return data[: at + rng.integers(1, 50)] + data[at:]


def insert(data, at, rng, other):
    return data[:at] + rng.bytes(rng.integers(1, 50)) + data[at:]


def splice(data, at, rng, other):
    return data[:at] + other[rng.integers(len(other) + 1) :]


WAYS = [flip, flip, noise, number, number, cut, lose, repeat, insert, splice]
