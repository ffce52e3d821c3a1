"""Compiled scans of float16 and int8 rows: widened to float32 a block at a time, then scanned.

    rows --widen--> float32 block, which stays in the cache --numba_kernels.scan--> candidates

Widening is exact, so that what `bound.py` says of float32 rows holds for these.

Invariants
    K1  As in `numba_kernels`, whose kernels these call.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from m2mdb.compute.numba_kernels import (
    INT,
    MATRIX,
    RANGE,
    READ_MASK,
    READ_VECTOR,
    STATE,
    kernel,
    scan,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from m2mdb.compute.numba_kernels import Mask, Matrix, State, Vector

    Halves = NDArray[np.uint16]
    Bytes = NDArray[np.int8]
    Bits = NDArray[np.uint32]

WIDEN = np.float32(2.0**112)  # from the exponent of float16 to that of float32
READ_HALVES = types.Array(types.uint16, 2, "C", readonly=True)
READ_BYTES = types.Array(types.int8, 2, "C", readonly=True)
BITS = types.uint32[:, ::1]
WIDE_STATE = types.Tuple((types.Tuple((MATRIX, BITS)), STATE))


@kernel(types.void, READ_HALVES, BITS, MATRIX)
def widen_halves(rows: Halves, bits: Bits, out: Matrix) -> None:
    """out[i] = rows[i], finite float16 given as uint16, exactly; `bits` is the memory of `out`.

    A float16's exponent and fraction, moved to a float32's place, are its value times 2^-112.
    Twin    numpy.ndarray.astype
    """
    d = rows.shape[1]
    for r in range(rows.shape[0]):
        for j in range(d):
            half = np.uint32(rows[r, j])
            sign = (half & np.uint32(0x8000)) << np.uint32(16)
            bits[r, j] = sign | (half & np.uint32(0x7FFF)) << np.uint32(13)
        for j in range(d):
            out[r, j] *= WIDEN


@kernel(types.void, READ_BYTES, MATRIX)
def widen_bytes(rows: Bytes, out: Matrix) -> None:
    """out[i] = rows[i].

    Twin    numpy.ndarray.astype
    """
    for r in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            out[r, j] = np.float32(rows[r, j])


@kernel(INT, INT, READ_HALVES, READ_VECTOR, READ_MASK, READ_VECTOR, RANGE, WIDE_STATE)
def scan_halves(
    kind: int,
    rows: Halves,
    norms: Vector,
    mask: Mask,
    query: Vector,
    span: tuple[int, int],
    wide_state: tuple[tuple[Matrix, Bits], State],
) -> int:
    """`scan` of float16 rows, given as uint16, which are widened block by block.

    wide_state  ((float32[m, d], the same memory as uint32[m, d]), state)
    """
    r, first = span
    (wide, bits), state = wide_state
    n, room = rows.shape[0], wide.shape[0]
    while r < n:
        stop = min(n, r + room)
        live = mask[r:stop]
        if live.shape[0] == 0 or live.any():
            block = wide[: stop - r]
            widen_halves(rows[r:stop], bits[: stop - r], block)
            done = scan(kind, block, norms[r:stop], live, query, (0, first + r), state)
            if done < stop - r:
                return r + done
        r = stop
    return n


@kernel(INT, INT, READ_BYTES, READ_VECTOR, READ_MASK, READ_VECTOR, RANGE, WIDE_STATE)
def scan_bytes(
    kind: int,
    rows: Bytes,
    norms: Vector,
    mask: Mask,
    query: Vector,
    span: tuple[int, int],
    wide_state: tuple[tuple[Matrix, Bits], State],
) -> int:
    """`scan` of int8 rows, which are widened block by block; see `scan_halves`.

    The loop stands twice: a kernel that were given as an argument, or caught in a closure, would
    be compiled anew in each process, because the cache knows neither.
    """
    r, first = span
    (wide, _), state = wide_state
    n, room = rows.shape[0], wide.shape[0]
    while r < n:
        stop = min(n, r + room)
        live = mask[r:stop]
        if live.shape[0] == 0 or live.any():
            block = wide[: stop - r]
            widen_bytes(rows[r:stop], block)
            done = scan(kind, block, norms[r:stop], live, query, (0, first + r), state)
            if done < stop - r:
                return r + done
        r = stop
    return n
