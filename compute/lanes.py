"""Lanes: sums of float64 products in eight running sums, as intrinsics for compiled kernels.

    left, right   float32 x 8 --widen--> float64 x 8 --multiply--> + lanes 0..7
    in the end    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))

This is how NumPy adds a block of up to 128 terms (`numba_kernels.pairwise`). A compiler may not
make it of scalar additions by itself, so the vectors are written down; they are generic LLVM, which
every processor has in one, two or four registers. Where two sums go through the same elements, one
pass makes both: their chains of additions are in flight together, and lanes are added pair by pair
in shared registers, each sum in the order above.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, misc, attr-defined"

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
ir = cgutils.ir  # of the llvmlite that this Numba was made for
_NARROW = ir.VectorType(ir.FloatType(), LANES)
_WIDE = ir.VectorType(ir.DoubleType(), LANES)


def _eight(context: Any, builder: Any, data: Any, at: Any) -> Any:
    """Eight float32 from element `at`, widened."""
    pointer = builder.bitcast(builder.gep(data, [at]), _NARROW.as_pointer())
    loaded = builder.load(pointer)
    loaded.align = 4
    return builder.fpext(loaded, _WIDE)


def _summing(of_differences: bool) -> Any:
    """An intrinsic that sums products, or squares of differences."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(sig.args[:2], args[:2], strict=True)
        )
        total = cgutils.alloca_once_value(builder, ir.Constant(_WIDE, [0.0] * LANES))
        start, count = args[2:]
        step = ir.Constant(count.type, LANES)
        stop = builder.add(start, count)
        with cgutils.for_range_slice(builder, start, stop, step, count.type) as (at, _):
            a, b = _eight(context, builder, left, at), _eight(context, builder, right, at)
            if of_differences:
                a = b = builder.fsub(a, b)
            builder.store(builder.fadd(builder.load(total), builder.fmul(a, b)), total)
        lanes = [
            builder.extract_element(builder.load(total), ir.Constant(ir.IntType(32), lane))
            for lane in range(LANES)
        ]
        while len(lanes) > 1:
            lanes = [builder.fadd(*lanes[at : at + 2]) for at in range(0, len(lanes), 2)]
        return lanes[0]

    def summing(typingctx: Any, left: Any, right: Any, start: Any, count: Any) -> Any:
        return types.float64(left, right, types.intp, types.intp), codegen

    return intrinsic(summing)


# of `count` terms from index `start` of two float32 arrays; `count` is a multiple of LANES
sum_of_products = _summing(of_differences=False)
sum_of_squares = _summing(of_differences=True)


def _added_pairs(builder: Any, left: Any, right: Any) -> Any:
    """(0 + 1) of the left, (0 + 1) of the right, (2 + 3) of the left, and so on."""
    count = left.type.count
    kind = ir.VectorType(ir.IntType(32), count)
    even = [lane + side * count for lane in range(0, count, 2) for side in (0, 1)]
    masks = (ir.Constant(kind, [lane + odd for lane in even]) for odd in (0, 1))
    return builder.fadd(*(builder.shuffle_vector(left, right, mask) for mask in masks))


def _added_apart(builder: Any, both: Any) -> Any:
    """Of sums that stand in turn, a b a b: (0 + 2), (1 + 3), (4 + 6), (5 + 7)."""
    count = both.type.count
    kind = ir.VectorType(ir.IntType(32), count // 2)
    first = [lane for lane in range(count) if lane % 4 < 2]
    masks = (ir.Constant(kind, [lane + apart for lane in first]) for apart in (0, 2))
    return builder.fadd(*(builder.shuffle_vector(both, both, mask) for mask in masks))


@intrinsic
def address_of(typingctx: Any, array: Any) -> Any:
    """A pointer to the first element of a float32 array."""
    kind = types.CPointer(types.float32)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return kind(array), codegen


@intrinsic
def sums_of_products_and_squares(
    typingctx: Any, left: Any, right: Any, start: Any, count: Any
) -> Any:
    """`sum_of_products` of left and right, and of left with itself, by pointers to float32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(_WIDE, [0.0] * LANES)
        products, squares = (cgutils.alloca_once_value(builder, zero) for _ in range(2))
        start, count = args[2:]
        step = ir.Constant(count.type, LANES)
        stop = builder.add(start, count)
        with cgutils.for_range_slice(builder, start, stop, step, count.type) as (at, _):
            a, b = _eight(context, builder, args[0], at), _eight(context, builder, args[1], at)
            builder.store(builder.fadd(builder.load(products), builder.fmul(a, b)), products)
            builder.store(builder.fadd(builder.load(squares), builder.fmul(a, a)), squares)
        both = _added_pairs(builder, builder.load(products), builder.load(squares))
        both = _added_apart(builder, _added_apart(builder, both))
        lanes = [builder.extract_element(both, ir.Constant(ir.IntType(32), i)) for i in (0, 1)]
        return context.make_tuple(builder, sig.return_type, lanes)

    pair = types.UniTuple(types.float64, 2)
    return pair(left, right, types.intp, types.intp), codegen
