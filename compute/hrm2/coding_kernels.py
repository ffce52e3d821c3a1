"""Coding, compiled: 1-bit codes of residuals and their factors, a code at a time.

    rows, centroids --residual in the first cache--> nibbles of a block's lane, h, f and e

Invariants
    CO1 Codes are those of `lists.coded`'s NumPy form, bit for bit; factors are but for roundings.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2.kernels import READ_FLOAT_ROWS, kernel
from m2mdb.compute.hrm2.steps import step

READ_LONGS = types.Array(types.int64, 1, "C", readonly=True)
CODES_OF = types.UniTuple(READ_LONGS, 5)
OUT = types.Tuple((types.uint8[:, :, ::1], types.float32[:, :, ::1]))
SHORTEST, LEAST_ALONG = np.float32(1e-20), np.float32(1e-6)


@step
def sums_of(row: Any, center: Any, signs: Any) -> Any:
    """Of a residual r with signs b: |r|^2, the sum of |r|, and <b, c>; fills in the signs."""
    square, length, product = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for i in range(row.shape[0]):
        gap = row[i] - center[i]
        is_above = gap > np.float32(0.0)
        signs[i] = np.uint8(is_above)
        square += gap * gap
        length += abs(gap)
        product += center[i] if is_above else -center[i]
    return square, length, product


@kernel(
    types.void, READ_FLOAT_ROWS, READ_FLOAT_ROWS, CODES_OF, types.boolean, types.uint8[::1], OUT
)
def code(rows: Any, centers: Any, codes_of: Any, is_near: bool, signs: Any, out: Any) -> None:
    """1-bit codes and factors of some rows around centroids.

    rows, centers  float32, rotated
    codes_of       of each code its centroid, its row, its block, its lane, its slot among factors
    signs          uint8[width], scratch
    out            codes uint8[blocks, width / 4, 16], zero before; factors float32[blocks, 3, 32]
    Twin           lists.coded
    """
    labels, members, blocks, lanes, slots = codes_of
    codes, factors = out
    width = rows.shape[1]
    root = np.float32(1.0) / np.float32(np.sqrt(np.float64(width)))
    spread = np.float32(np.sqrt(np.float64(width - 1)))
    for at in range(labels.shape[0]):
        square, total, product = sums_of(rows[members[at]], centers[labels[at]], signs)
        block, lane, slot = blocks[at], lanes[at] & 15, slots[at]
        shift = np.uint8(4 * (lanes[at] >> 4))
        for group in range(width >> 2):
            first = 4 * group
            nibble = signs[first] | signs[first + 1] << 1 | signs[first + 2] << 2
            nibble |= signs[first + 3] << 3
            codes[block, group, lane] |= np.uint8(nibble << shift)
        length = max(np.sqrt(square), SHORTEST)
        along = max(root * total / length, LEAST_ALONG)
        f = np.float32(2.0) * length / along
        rest = np.sqrt(max(np.float32(0.0), np.float32(1.0) - along * along))
        factors[block, 0, slot] = length * length + f * root * product if is_near else 0.0
        factors[block, 1, slot] = f
        factors[block, 2, slot] = f * rest / spread
