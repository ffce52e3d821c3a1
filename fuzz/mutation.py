"""Mutations: bytes changed as damage and as malice change them, by a seed.

bits, bytes, the numbers at which counts and lengths break (of 1, 2, 4 and 8 bytes, in both
byte orders), pieces cut out, doubled, moved, filled, and taken from another input
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_EDGES = [
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 1 << 32, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
]  # fmt: skip
NUMBERS = [
    (number % (1 << 8 * size)).to_bytes(size, order)
    for number in _EDGES
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
]
_LARGEST_PIECE = 64


def _flip(data: bytearray, at: int, choose: random.Random) -> None:
    data[at] ^= 1 << (choose.getrandbits(3))


def _set(data: bytearray, at: int, choose: random.Random) -> None:
    data[at] = choose.getrandbits(8)


def _number(data: bytearray, at: int, choose: random.Random) -> None:
    piece = NUMBERS[int(choose.random() * len(NUMBERS))]
    data[at : at + len(piece)] = piece


def _step(data: bytearray, at: int, choose: random.Random) -> None:
    """A number that is a little more or less: counts off by one."""
    data[at] = (data[at] + (1, -1, 2, -2)[choose.getrandbits(2)]) & 0xFF


def _cut(data: bytearray, at: int, choose: random.Random) -> None:
    del data[at : at + 1 + int(choose.random() * _LARGEST_PIECE)]


def _end(data: bytearray, at: int, choose: random.Random) -> None:
    del data[at:]


def _double(data: bytearray, at: int, choose: random.Random) -> None:
    piece = data[at : at + 1 + int(choose.random() * _LARGEST_PIECE)]
    data[at:at] = piece


def _move(data: bytearray, at: int, choose: random.Random) -> None:
    start = int(choose.random() * len(data))
    piece = data[start : start + 1 + int(choose.random() * _LARGEST_PIECE)]
    data[at : at + len(piece)] = piece


def _fill(data: bytearray, at: int, choose: random.Random) -> None:
    count = min(1 + int(choose.random() * _LARGEST_PIECE), len(data) - at)
    data[at : at + count] = bytes([choose.choice((0, 0xFF, 0x20, 0x30))]) * count


_KINDS: list[Callable[[bytearray, int, random.Random], None]] = [
    _flip, _flip, _flip, _set, _set, _number, _number, _number, _step, _step,
    _cut, _end, _double, _move, _fill,
]  # fmt: skip
_IN_PLACE = [_flip, _flip, _set, _number, _number, _step, _step, _move, _fill]


def mutated(seeds: Sequence[bytes], choose: random.Random, *, in_place: bool = False) -> bytes:
    """One of the seeds with one to six changes; `in_place` keeps its length."""
    pick = choose.random
    data = bytearray(seeds[int(pick() * len(seeds))])
    size = len(data)
    kinds = _IN_PLACE if in_place else _KINDS
    for _ in range(1 + int(pick() * pick() * 6)):
        if not data:
            break
        kinds[int(pick() * len(kinds))](data, int(pick() * len(data)), choose)
    if not in_place and pick() < 0.05:
        other = seeds[int(pick() * len(seeds))]
        data += other[int(pick() * len(other)) :]
    if in_place and len(data) != size:
        data = data[:size].ljust(size, b"\0")
    return bytes(data)
