"""Pointers: addresses in a plan as items of a type, for compiled kernels.

Pointers are indexed as arrays are, without a length: nothing is checked, and no index wraps. What
is read through them has been checked before, where it comes from a file (`text_lists`, M4).
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


def _pointer_to(item: Any) -> Any:
    """An intrinsic that makes an address a pointer to items of a type."""

    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        kind = types.CPointer(item)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), codegen

    return pointer


bytes_at, small_at = _pointer_to(types.uint8), _pointer_to(types.int8)
halves_at = _pointer_to(types.uint16)  # float16, as its bits
ints_at, words_at = _pointer_to(types.int32), _pointer_to(types.uint32)
longs_at, offsets_at = _pointer_to(types.int64), _pointer_to(types.uint64)
floats_at, doubles_at = _pointer_to(types.float32), _pointer_to(types.float64)
