"""Rotation: a fast orthogonal map that spreads each vector's weight over all coordinates.

    ROUNDS times:  signs * x,  Hadamard on the first 2^p,  signs * x,  Hadamard on the last 2^p

with 2^p the largest power of two up to `width`; where the two are the same, once. Each step is
orthogonal, so lengths and inner products stay. A 1-bit code's error bound holds for random
rotations; this one needs width * log(width) operations for a query (the compiled form stands in
kernels.py), and is applied to many rows as a matrix product.

Invariants
    O1  The map depends on (width, seed) alone: the bits come from a generator written out here,
        not from a library's, whose streams may change.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

ROUNDS = 3
_MASK = (1 << 64) - 1


def power_of(width: int) -> int:
    """The largest power of two up to `width`."""
    return 1 << (width.bit_length() - 1)


@lru_cache(maxsize=16)
def signs(width: int, seed: int) -> Floats:
    """float32[2 * ROUNDS, width] of +1 and -1 (splitmix64, one bit a number; O1)."""
    out = np.empty(2 * ROUNDS * width, np.float32)
    state = seed & _MASK
    for i in range(len(out)):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        out[i] = 1.0 if (z ^ (z >> 31)) >> 63 else -1.0
    out.flags.writeable = False
    return out.reshape(2 * ROUNDS, width)


def hadamard(rows: Floats, start: int, power: int) -> None:
    """Replace rows[:, start : start + power] by its normalised Walsh-Hadamard transform."""
    part = rows[:, start : start + power]
    half = 1
    while half < power:
        view = part.reshape(len(part), power // (2 * half), 2, half)
        low, high = view[:, :, 0] + view[:, :, 1], view[:, :, 0] - view[:, :, 1]
        part[...] = np.stack((low, high), axis=2).reshape(len(part), power)
        half *= 2
    part *= np.float32(1 / np.sqrt(power))


def transform(rows: Floats, seed: int) -> Floats:
    """Rows float32[n, width], rotated step by step: what the compiled form does to a query."""
    out = np.array(rows, np.float32)
    width = out.shape[1]
    power = power_of(width)
    flips = signs(width, seed)
    for turn in range(ROUNDS):
        out *= flips[2 * turn]
        hadamard(out, 0, power)
        if power < width:
            out *= flips[2 * turn + 1]
            hadamard(out, width - power, power)
    return out


@lru_cache(maxsize=4)
def matrix(width: int, seed: int) -> Floats:
    """The map as a matrix: rotated = rows @ matrix."""
    return transform(np.eye(width, dtype=np.float32), seed)


def rotate(rows: Floats, width: int, seed: int) -> Floats:
    """Rows float32[n, d], padded to `width` and rotated, by one matrix product."""
    product: Floats = rows @ matrix(width, seed)[: rows.shape[1]]
    return product
