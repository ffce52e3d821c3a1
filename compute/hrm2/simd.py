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

# mypy: disable-error-code="untyped-decorator, no-untyped-call, misc, attr-defined"

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


def _at(builder: Any, pointer: Any, offset: Any, kind: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())


def _load(builder: Any, pointer: Any, offset: Any, kind: Any) -> Any:
    out = builder.load(_at(builder, pointer, offset, kind))
    out.align = 1
    return out


@intrinsic
def load_u8(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """WIDTH bytes from element `offset`, which need not be aligned."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load(builder, args[0], args[1], _ll(U8))

    return U8(pointer, types.intp), codegen


@intrinsic
def splat_4_bytes(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """Four bytes from element `offset`, again and again."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        four = _load(builder, args[0], args[1], ir.IntType(32))
        one = ir.VectorType(ir.IntType(32), 1)
        start = builder.insert_element(ir.Constant(one, ir.Undefined), four, ir.IntType(32)(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH // 4), [0] * (WIDTH // 4))
        wide = builder.shuffle_vector(start, ir.Constant(one, ir.Undefined), mask)
        return builder.bitcast(wide, _ll(U8))

    return U8(pointer, types.intp), codegen


@intrinsic
def prefetch(typingctx: Any, pointer: Any, offset: Any) -> Any:
    """Ask for the cache line of an element."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _at(builder, args[0], args[1], ir.IntType(8))
        kind = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [at.type, kind, kind, kind])
        function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
        builder.call(function, [at, kind(0), kind(3), kind(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """What is read before is read before what is read after."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("acquire")
        return context.get_dummy_value()

    return types.void(), codegen


def _binary(operation: str) -> Any:
    @intrinsic
    def binary(typingctx: Any, a: Any, b: Any) -> Any:
        return a(a, a), lambda context, builder, sig, args: getattr(builder, operation)(*args)

    return binary


add, sub = _binary("add"), _binary("sub")


@intrinsic
def low_nibbles(typingctx: Any, a: Any) -> Any:
    """The lower four bits of each byte."""
    return a(a), lambda context, builder, sig, args: builder.and_(args[0], _splat(_ll(a), 15))


@intrinsic
def high_nibbles(typingctx: Any, a: Any) -> Any:
    """The upper four bits of each byte."""
    return a(a), lambda context, builder, sig, args: builder.lshr(args[0], _splat(_ll(a), 4))


@intrinsic
def high_bytes(typingctx: Any, a: Any) -> Any:
    """Of lanes of 16 bits: the odd bytes as numbers."""
    return a(a), lambda context, builder, sig, args: builder.lshr(args[0], _splat(_ll(a), 8))


@intrinsic
def shift_up_byte(typingctx: Any, a: Any) -> Any:
    """Of lanes of 16 bits: the even bytes where the odd ones stood."""
    return a(a), lambda context, builder, sig, args: builder.shl(args[0], _splat(_ll(a), 8))


@intrinsic
def as_u16(typingctx: Any, a: Any) -> Any:
    """The same bits as lanes of 16."""
    return U16(a), lambda context, builder, sig, args: builder.bitcast(args[0], _ll(U16))


@intrinsic
def zero_u16(typingctx: Any) -> Any:
    """Zeros in lanes of 16 bits."""
    return U16(), lambda context, builder, sig, args: _splat(_ll(U16), 0)


@intrinsic
def zero_i32(typingctx: Any) -> Any:
    """Zeros in lanes of 32 bits."""
    return I32(), lambda context, builder, sig, args: _splat(_ll(I32), 0)


def _call(builder: Any, name: str, result: Any, *args: Any) -> Any:
    signature = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), args)


@intrinsic
def shuffle(typingctx: Any, table: Any, index: Any) -> Any:
    """In each 16-byte lane, table[index]; index bytes are 0..15."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, _SHUFFLE, _ll(table), *args)

    return table(table, index), codegen


@intrinsic
def dot_u8_i8(typingctx: Any, total: Any, u8: Any, i8: Any) -> Any:
    """total + the sums of four neighbouring products of an unsigned and a signed byte (VNNI)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, u, s = args
        return _call(
            builder, _DOT, a.type, a, builder.bitcast(u, a.type), builder.bitcast(s, a.type)
        )

    return total(total, u8, i8), codegen


@intrinsic
def sum_lanes(typingctx: Any, a: Any) -> Any:
    """The sum of lanes of 32 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        count = args[0].type.count
        name = f"llvm.vector.reduce.add.v{count}i32"
        return _call(builder, name, ir.IntType(32), args[0])

    return types.int32(a), codegen


@intrinsic
def fold_lanes(typingctx: Any, a: Any) -> Any:
    """Of lanes of 16 bits: the sum of the 16-byte lanes, in the first of them."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
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
def store_first_lane(typingctx: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write the first 16 bytes of a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[2]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 8), list(range(8)))
        low = builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)
        builder.store(low, _at(builder, args[0], args[1], low.type)).align = 1
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@intrinsic
def store_i32(typingctx: Any, pointer: Any, offset: Any, value: Any) -> Any:
    """Write a vector to int32 elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _at(builder, args[0], args[1], args[2].type)).align = 1
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


class Bounds(types.Type):
    """32 numbers, one of each code of a block, in however many registers they take."""

    def __init__(self) -> None:
        super().__init__(name="Bounds")


@register_default(Bounds)
class _BoundsModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.FloatType(), 32))


BOUNDS = Bounds()
_FAST = ("reassoc", "contract", "nsz")


def _first_lanes(builder: Any, a: Any, b: Any) -> Any:
    """The first 8 lanes of 16 bits of both."""
    lanes = [*range(8), *range(a.type.count, a.type.count + 8)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), 16), lanes))


@intrinsic
def lower_bounds(typingctx: Any, sums: Any, factors: Any, at: Any, terms: Any) -> Any:
    """base + h - f * (slope * sum + level) - spread * e for a block.

    sums     four vectors, the first lane of each
    factors  float32: h, f and e of the block from element `at`
    terms    (base, slope, level, spread)
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [builder.extract_value(args[0], i) for i in range(4)]
        low, high = _first_lanes(builder, *parts[:2]), _first_lanes(builder, *parts[2:])
        every = ir.Constant(ir.VectorType(ir.IntType(32), 32), list(range(32)))
        kind = ir.VectorType(ir.FloatType(), 32)
        total = builder.uitofp(builder.shuffle_vector(low, high, every), kind)
        base, slope, level, spread = (
            _splat_value(builder, builder.extract_value(args[3], i), 32) for i in range(4)
        )
        h, f, e = (
            _load(builder, args[1], builder.add(args[2], args[2].type(32 * i)), kind)
            for i in range(3)
        )
        product = builder.fadd(builder.fmul(total, slope, _FAST), level, _FAST)
        bound = builder.fsub(builder.fadd(base, h, _FAST), builder.fmul(f, product, _FAST), _FAST)
        return builder.fsub(bound, builder.fmul(spread, e, _FAST), _FAST)

    return BOUNDS(sums, factors, types.intp, terms), codegen


def _splat_value(builder: Any, value: Any, count: int) -> Any:
    one = ir.VectorType(value.type, 1)
    undefined = ir.Constant(one, ir.Undefined)
    start = builder.insert_element(undefined, value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(start, undefined, mask)


def _bits(builder: Any, numbers: Any, limit: Any) -> Any:
    less = builder.fcmp_ordered("<", numbers, _splat_value(builder, limit, 32))
    return builder.zext(builder.bitcast(less, ir.IntType(32)), ir.IntType(64))


@intrinsic
def which_below(typingctx: Any, bounds: Any, limit: Any) -> Any:
    """Bit i: bound i is smaller than a number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _bits(builder, *args)

    return types.int64(bounds, types.float32), codegen


@intrinsic
def bits_below(typingctx: Any, pointer: Any, offset: Any, limit: Any) -> Any:
    """Bit i: float32 element offset + i is smaller than a number; of 32 elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), 32)
        return _bits(builder, _load(builder, args[0], args[1], kind), args[2])

    return types.int64(pointer, types.intp, types.float32), codegen


@intrinsic
def lowest_bit(typingctx: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set, of an int64 with one or more."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen


@intrinsic
def bit_count(typingctx: Any, bits: Any) -> Any:
    """How many bits of an int64 are set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def store_bounds(typingctx: Any, pointer: Any, offset: Any, bounds: Any) -> Any:
    """Write bounds to float32 elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _at(builder, args[0], args[1], args[2].type)).align = 1
        return context.get_dummy_value()

    return types.void(pointer, types.intp, bounds), codegen


@intrinsic
def bits_reaching(typingctx: Any, line: Any, described: Any, at: Any, terms: Any) -> Any:
    """Bit i: base - slope * (line[i] + error * size + length * gap) is no larger than a limit.

    line       float32; of all, 32 elements from `at` are meant
    described  sizes, gaps and limits, float32
    terms      (base, slope, error, length)
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.FloatType(), 32)
        sizes, gaps, limits = (
            _load(builder, builder.extract_value(args[1], i), args[2], kind) for i in range(3)
        )
        base, slope, error, length = (
            _splat_value(builder, builder.extract_value(args[3], i), 32) for i in range(4)
        )
        product = _load(builder, args[0], args[2], kind)
        margin = builder.fadd(builder.fmul(error, sizes), builder.fmul(length, gaps))
        low = builder.fsub(base, builder.fmul(slope, builder.fadd(product, margin)))
        reaches = builder.fcmp_ordered("<=", low, limits)
        return builder.zext(builder.bitcast(reaches, ir.IntType(32)), ir.IntType(64))

    return types.int64(line, described, types.intp, terms), codegen


def _tile(rows: int, panels: int) -> Any:
    """The intrinsic `dot_tile` for so many rows and panels at a time."""
    lanes, byte, long = 16, ir.IntType(8).as_pointer(), ir.IntType(64)
    ints, floats = ir.VectorType(ir.IntType(32), lanes), ir.VectorType(ir.FloatType(), lanes)

    @intrinsic
    def dot_tile(
        typingctx: Any, codes: Any, start: Any, groups: Any, columns: Any, out: Any, to: Any
    ) -> Any:
        """Products of rows and columns, summed, times the scales of both.

        codes    uint8: the first row stands at `start`, of 4 * groups bytes each
        columns  their bytes, what sums begin with, and their scales; and the scales of the rows
        out      float32; to is the element of the first product, and how far rows are apart
        """

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            base, first, count, described, target, where = args
            place, step = (builder.extract_value(where, i) for i in range(2))
            panel, bias, scales, own = (builder.extract_value(described, i) for i in range(4))
            width = builder.mul(count, long(4))
            lines = [
                builder.gep(base, [builder.add(first, builder.mul(width, long(r)))])
                for r in range(rows)
            ]
            totals = [
                [cgutils.alloca_once_value(builder, _load(builder, bias, long(lanes * p), ints))
                 for p in range(panels)] for _ in lines
            ]  # fmt: skip
            bytes_of = builder.bitcast(panel, byte)
            with cgutils.for_range(builder, count) as loop:
                parts = [
                    _load(builder, bytes_of, builder.mul(
                        builder.add(builder.mul(count, long(p)), loop.index), long(4 * lanes)
                    ), ints) for p in range(panels)
                ]  # fmt: skip
                for line, sums in zip(lines, totals, strict=True):
                    four = _load(builder, line, builder.mul(loop.index, long(4)), ir.IntType(32))
                    wide = _splat_value(builder, four, lanes)
                    for total, part in zip(sums, parts, strict=True):
                        value = _call(builder, _DOT, ints, builder.load(total), wide, part)
                        builder.store(value, total)
            for r, sums in enumerate(totals):
                scale = _splat_value(builder, builder.load(builder.gep(own, [long(r)])), lanes)
                for p, total in enumerate(sums):
                    value = builder.sitofp(builder.load(total), floats)
                    value = builder.fmul(value, _load(builder, scales, long(lanes * p), floats))
                    value = builder.fmul(value, scale)
                    at = builder.add(builder.mul(step, long(r)), long(lanes * p))
                    at = builder.add(place, at)
                    builder.store(value, _at(builder, target, at, floats)).align = 1
            return context.get_dummy_value()

        integer = types.intp
        return types.void(codes, integer, integer, columns, out, to), codegen

    return dot_tile


TILE_ROWS, TILE_PANELS = 6, 4  # whose sums stay in 24 registers
dot_tile = _tile(TILE_ROWS, TILE_PANELS)  # of products of rows and columns, see `product_kernels`
dot_line = _tile(1, TILE_PANELS)  # the same of one row
