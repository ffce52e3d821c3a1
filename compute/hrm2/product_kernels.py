"""Products of bytes, compiled: rows times columns, summed as integers.

Sums of integers are exact, so no order of adding matters: the numbers are those of the twin
(`products`) to the last bit. On a Zen 5 these are 1.0e12 operations a second and core, where a
matrix product of float32 by OpenBLAS reaches 0.2e12.

Invariants
    PK1 There is a kernel only for processors that sum four products of bytes by one instruction
        (`simd.VNNI`); for others `multiply` is None, and the twin serves.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2 import simd as simd_module
from m2mdb.compute.hrm2.choosing import READ_FLOATS, kernel
from m2mdb.compute.pointers import bytes_at, floats_at, ints_at

simd: Any = simd_module
TILE_ROWS, TILE_COLUMNS = simd.TILE_ROWS, 16 * simd.TILE_PANELS
dot_tile, dot_line = simd.dot_tile, simd.dot_line
READ_CODES = types.Array(types.uint8, 2, "C", readonly=True)
READ_PANELS = types.Array(types.int8, 4, "C", readonly=True)
READ_INTS = types.Array(types.int32, 1, "C", readonly=True)
multiply: Any = None

if simd.VNNI:

    @kernel(READ_CODES, READ_FLOATS, READ_PANELS, READ_INTS, READ_FLOATS, types.float32[:, ::1])
    def multiply(codes: Any, own: Any, panels: Any, bias: Any, scales: Any, out: Any) -> None:
        """out[i, j] = (the sum of codes[i] * column j, less its bias) * scales[j] * own[i].

        codes   uint8[rows, 4 * groups]
        own     float32[rows]
        panels  int8[panels, groups, 16, 4]: four bytes of each of 16 columns in turn
        bias    int32[16 * panels], what sums begin with; scales float32[16 * panels]
        out     float32[rows, 16 * panels]; panels are a multiple of TILE_PANELS
        Twin    products.Columns.times
        """
        rows, width, columns = codes.shape[0], codes.shape[1], out.shape[1]
        base, target = bytes_at(codes.ctypes.data), floats_at(out.ctypes.data)
        for column in range(0, columns, TILE_COLUMNS):
            panel = bytes_at(panels.ctypes.data + np.int64(column) * width)
            first = ints_at(bias.ctypes.data + 4 * column)
            scale = floats_at(scales.ctypes.data + 4 * column)
            whole = rows - rows % TILE_ROWS
            for row in range(0, whole, TILE_ROWS):
                tile = (panel, first, scale, floats_at(own.ctypes.data + 4 * row))
                to = (row * columns + column, columns)
                dot_tile(base, row * width, width // 4, tile, target, to)
            for row in range(whole, rows):
                line = (panel, first, scale, floats_at(own.ctypes.data + 4 * row))
                to = (row * columns + column, columns)
                dot_line(base, row * width, width // 4, line, target, to)
