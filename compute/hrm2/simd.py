"""SIMD values for compiled kernels: a vector type, and operations on it as intrinsics.

Vectors live in registers. Only the byte shuffle and the dot product of bytes name instructions of
a processor; everything else is generic LLVM. The layouts that they read are made of 16-byte lanes,
so that one file serves every width:

    WIDTH   bytes of a register: 64 (AVX-512BW), 32 (AVX2), 16 (SSSE3, NEON), 0 where no byte
            shuffle is known: the portable kernels are used then
    VNNI    whether four products of bytes are summed by one instruction

Invariants
    V1  What counts is the processor that Numba compiles for, not the one that runs: they differ
        under NUMBA_CPU_NAME, and an instruction that the target lacks makes LLVM abort the process.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-untyped-def, misc, attr-defined"
# ruff: noqa: D103

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel, register_default
from numba.core.registry import cpu_target
from numba.extending import intrinsic

ir = cgutils.ir  # of the llvmlite that this Numba was made for
_TRIPLE, _, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = {name[1:] for name in _features.split(",") if name.startswith("+")}
if "avx512bw" in FEATURES:
    WIDTH, _SHUFFLE = 64, "llvm.x86.avx512.pshuf.b.512"
elif "avx2" in FEATURES:
    WIDTH, _SHUFFLE = 32, "llvm.x86.avx2.pshuf.b"
elif "ssse3" in FEATURES:
    WIDTH, _SHUFFLE = 16, "llvm.x86.ssse3.pshuf.b.128"
elif _TRIPLE.startswith(("aarch64", "arm64")):
    WIDTH, _SHUFFLE = 16, "llvm.aarch64.neon.tbl1.v16i8"
else:
    WIDTH, _SHUFFLE = 0, ""
VNNI = WIDTH == 64 and "avx512vnni" in FEATURES
_DOT = "llvm.x86.avx512.vpdpbusd.512"


class Vector(types.Type):
    """WIDTH bytes as lanes of `bits` bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.lanes = WIDTH * 8 // bits
        super().__init__(name=f"Vector(i{bits}x{self.lanes})")


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _ll(fe_type))


def _ll(vector: Any) -> Any:
    return ir.VectorType(ir.IntType(vector.bits), vector.lanes)


U8, U16, I32 = Vector(8), Vector(16), Vector(32)


def _splat(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, kind: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())


@intrinsic
def load_u8(typingctx, array, offset):
    """WIDTH bytes of an array from element `offset`, which need not be aligned."""

    def codegen(context, builder, sig, args):
        out = builder.load(_pointer(context, builder, sig.args[0], args[0], args[1], _ll(U8)))
        out.align = 1
        return out

    return U8(array, types.intp), codegen


def _binary(operation: str) -> Any:
    @intrinsic
    def binary(typingctx, a, b):
        return a(a, a), lambda context, builder, sig, args: getattr(builder, operation)(*args)

    return binary


add, sub = _binary("add"), _binary("sub")


@intrinsic
def low_nibbles(typingctx, a):
    return a(a), lambda context, builder, sig, args: builder.and_(args[0], _splat(_ll(a), 15))


@intrinsic
def high_nibbles(typingctx, a):
    return a(a), lambda context, builder, sig, args: builder.lshr(args[0], _splat(_ll(a), 4))


@intrinsic
def high_bytes(typingctx, a):
    """Of lanes of 16 bits: the odd bytes as numbers."""
    return a(a), lambda context, builder, sig, args: builder.lshr(args[0], _splat(_ll(a), 8))


@intrinsic
def shift_up_byte(typingctx, a):
    return a(a), lambda context, builder, sig, args: builder.shl(args[0], _splat(_ll(a), 8))


@intrinsic
def as_u16(typingctx, a):
    return U16(a), lambda context, builder, sig, args: builder.bitcast(args[0], _ll(U16))


@intrinsic
def zero_u16(typingctx):
    return U16(), lambda context, builder, sig, args: _splat(_ll(U16), 0)


@intrinsic
def zero_i32(typingctx):
    return I32(), lambda context, builder, sig, args: _splat(_ll(I32), 0)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


@intrinsic
def shuffle(typingctx, table, index):
    """In each 16-byte lane, table[index]; index bytes are 0..15."""

    def codegen(context, builder, sig, args):
        return _call(builder, _SHUFFLE, _ll(table), *args)

    return table(table, index), codegen


@intrinsic
def dot_u8_i8(typingctx, total, u8, i8):
    """total + the sums of four neighbouring products of an unsigned and a signed byte (VNNI)."""

    def codegen(context, builder, sig, args):
        a, u, s = args
        return _call(
            builder, _DOT, a.type, a, builder.bitcast(u, a.type), builder.bitcast(s, a.type)
        )

    return total(total, u8, i8), codegen


@intrinsic
def sum_lanes(typingctx, a):
    """The sum of lanes of 32 bits."""

    def codegen(context, builder, sig, args):
        count = args[0].type.count
        name = f"llvm.vector.reduce.add.v{count}i32"
        return _call(builder, name, ir.IntType(32), args[0])

    return types.int32(a), codegen


@intrinsic
def fold_lanes(typingctx, a):
    """Of lanes of 16 bits: the sum of the 16-byte lanes, in the first of them."""

    def codegen(context, builder, sig, args):
        value, count = args[0], a.lanes
        undefined = ir.Constant(value.type, ir.Undefined)
        kind = ir.VectorType(ir.IntType(32), a.lanes)
        while count > 8:
            count //= 2
            mask = ir.Constant(kind, [(i + count) % a.lanes for i in range(a.lanes)])
            value = builder.add(value, builder.shuffle_vector(value, undefined, mask))
        return value

    return a(a), codegen


@intrinsic
def store_first_lane(typingctx, array, offset, value):
    """Write the first 16 bytes of a vector to a uint16 array."""

    def codegen(context, builder, sig, args):
        vector = args[2]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(8)))
        low = builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)
        at = _pointer(context, builder, sig.args[0], args[0], args[1], low.type)
        builder.store(low, at).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen
