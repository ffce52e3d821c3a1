"""Lists: the arrays of one set of coded vectors, and how they are made.

    rows --rotate--> --assign to one or two lists--> 1-bit codes of the residuals, with factors
                     --primary list order----------> 8-bit codes

All coordinates are rotated ones, padded with zeros to `width`, a multiple of 64. A *position*
numbers the rows in the order of their first lists; a row that stands in a second list too has two
1-bit codes and one position. With r = x - c the residual to the list's centroid c, u = r / |r|, and
b the signs of u over sqrt(width) (RaBitQ: Gao and Long, SIGMOD 2024):

    <r, q - c>  is estimated by  |r| / <b, u> * (<b, q> - <b, c>)
    |q - x|^2   =  |q - c|^2 + |r|^2 - 2 <r, q - c>  ~  D + h - f * <b, q>,  error ~ e * sqrt(D)
    h = |r|^2 + f <b, c>,   f = 2 |r| / <b, u>,
    e = 2 |r| sqrt(1 - <b, u>^2) / <b, u> / sqrt(width - 1),   D = |q - c|^2

Where all rows lie near one point far from zero, codes and tables would err by more than rows are
apart. Under l2 and cosine distances are the same wherever the origin is, so such lists have a
*middle*: it is taken off all rows, centroids and queries once they are rotated, and all that is
said here is of what is left.

For inner product the sought value is -2 <x, q> and D = -2 <c, q>, h = 0, the error ~ e |q|.

Layout, which does not depend on the processor:

    codes      a block is 32 codes: for each group of 4 dimensions 16 bytes, byte i with code i in
               its low and code i + 16 in its high nibble; bit j of a nibble is dimension 4 g + j
    factors    a block is 32 h, 32 f, 32 e; value s belongs to the code SLOTS[s]
    positions  a block is 32 numbers in the order of factors, -1 where there is no code (h is inf)

Invariants
    L1  Every row has one position, and stands in one or two different lists.
    L2  A list begins with a block of its own: starts[l] .. starts[l + 1] are its blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking import readable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    Room = Callable[[tuple[int, ...], Any], NDArray[Any]]  # zeros of a shape and a dtype

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]
    Ints = NDArray[np.int32]
    Longs = NDArray[np.int64]

BLOCK = 32  # codes
WIDTH_STEP = 64  # dimensions are padded to a multiple of this
CHUNK_ROWS = 1024  # and
CHUNK_BLOCKS = 32  # are coded at a time: what is made of them stays in the cache
CHUNK_CODES = 8192  # the same where they are coded one by one
SLOTS = np.concatenate([np.r_[0:16:2, 1:16:2], np.r_[16:32:2, 17:32:2]])
_SLOT_OF = np.argsort(SLOTS)


def never() -> None:
    """Called between the chunks of a build that nobody can interrupt."""


class Lists(NamedTuple):
    """What a search reads; arrays may be maps of the file.

    centers         uint8[lists * width]    centroids: byte = round(value / scale) + 128
    center_scales   float32[lists]
    center_squares  float32[lists]          |c|^2
    starts          int64[lists + 1]        first block of each list (L2)
    codes           uint8[blocks * 4 * width]
    factors         float32[blocks, 96]
    positions       int32[blocks, 32]
    bytes8          uint8[rows * width]     as centers, by position
    scales          float32[rows]
    squares         float32[rows]           |x|^2 of the vector that is searched
    ordinals        int32[rows]             of each position
    vectors         float16 or int8[n, dimensions], by ordinal, or None
    middle          float32[width], what was taken off all rotated rows and centroids, or None

    Where `vectors` are given, rows are compared by these in the place of 8-bit codes: there is no
    `bytes8`, and the vector that is searched is `scales` times the one that stands there.
    """

    centers: Bytes
    center_scales: Floats
    center_squares: Floats
    starts: Longs
    codes: Bytes
    factors: Floats
    positions: Ints
    bytes8: Bytes
    scales: Floats
    squares: Floats
    ordinals: Ints
    vectors: NDArray[Any] | None = None
    middle: Floats | None = None

    @property
    def width(self) -> int:
        """Padded dimensions."""
        return int(self.codes.shape[0] // max(1, 4 * self.positions.shape[0]))


class InPlace(NamedTuple):
    """Vectors as they are stored, float16 or int8, and what makes each the one that is searched."""

    vectors: NDArray[Any]
    scales: Floats


def padded(dimensions: int) -> int:
    """The width of vectors of so many dimensions."""
    return -(-dimensions // WIDTH_STEP) * WIDTH_STEP


def to_bytes(rows: Floats) -> tuple[Bytes, Floats]:
    """8-bit codes of rows with a scale each: value ~ (byte - 128) * scale."""
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    scales = (np.maximum(largest, np.float32(1e-30)) / np.float32(127)).astype(np.float32)
    codes = rows / scales[:, None]
    np.rint(codes, out=codes)
    codes += np.float32(128)
    return codes.astype(np.uint8), scales


def build(
    rows: Floats,
    ordinals: Ints,
    centers: Floats,
    first: Ints,
    second: Ints | None,
    metric: str,
    room: Room = np.zeros,
    tick: Callable[[], None] = never,
    in_place: InPlace | None = None,
) -> Lists:
    """Code rows for their lists.

    rows      float32[n, width], rotated; of length 1 under cosine
    ordinals  int32[n], what the caller calls the rows
    centers   float32[lists, width], rotated
    first     int32[n], each row's list; second: another list, or -1, or None for all
    room      makes the large arrays; tick is called between chunks
    in_place  the vectors by ordinal, where these stand in for 8-bit codes
    """
    count, width = rows.shape
    lists = centers.shape[0]
    order = np.argsort(first, kind="stable").astype(np.int32)
    position = np.empty(count, np.int32)
    position[order] = np.arange(count, dtype=np.int32)
    labels, members = first, np.arange(count, dtype=np.int32)
    if second is not None:
        spilled = np.flatnonzero(second >= 0).astype(np.int32)
        labels = np.concatenate((labels, second[spilled]))
        members = np.concatenate((members, spilled))
    starts, codes_of = placed(labels, members, lists)
    codes, factors, positions = coded(
        rows, centers, codes_of, position, int(starts[-1]), metric, room, tick
    )
    bytes8 = room((0 if in_place else count, width), np.uint8)
    scales = np.empty(count, np.float32)
    if in_place is not None:
        scales[:] = in_place.scales[ordinals[order]]
    for start in range(0, len(bytes8), CHUNK_ROWS):
        tick()
        some = slice(start, start + CHUNK_ROWS)
        bytes8[some], scales[some] = to_bytes(rows[order[some]])
    center_bytes, center_scales = to_bytes(centers)
    return Lists(
        center_bytes.ravel(),
        center_scales,
        np.einsum("ij,ij->i", centers, centers),
        starts,
        codes.ravel(),
        factors.reshape(-1, 3 * BLOCK),
        positions,
        bytes8.ravel(),
        scales,
        np.einsum("ij,ij->i", rows, rows)[order],
        ordinals[order],
        None if in_place is None else in_place.vectors,
    )


def placed(labels: Ints, members: Ints, lists: int) -> tuple[Longs, tuple[NDArray[Any], ...]]:
    """Starts of lists (L2); and of each code its list, its member, its block and its lane."""
    by_list = np.argsort(labels, kind="stable")
    labels, members = labels[by_list], members[by_list]
    sizes = np.bincount(labels, minlength=lists)
    starts = np.zeros(lists + 1, np.int64)
    np.cumsum(-(-sizes // BLOCK), out=starts[1:])
    within = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return starts, (labels, members, starts[labels] + within // BLOCK, within % BLOCK)


def coded(
    rows: Floats,
    centers: Floats,
    codes_of: tuple[NDArray[Any], ...],
    position: Ints,
    blocks: int,
    metric: str,
    room: Room = np.zeros,
    tick: Callable[[], None] = never,
) -> tuple[Bytes, Floats, Ints]:
    """1-bit codes, their factors and positions, block by block.

    rows, centers  float32, rotated
    codes_of       from `placed`; position is the number that a row is known by
    """
    labels, members, block_of, lane_of = codes_of
    width = rows.shape[1]
    codes: Bytes = room((blocks, width // 4, 16), np.uint8)
    factors: Floats = room((blocks, 3, BLOCK), np.float32)
    factors[:, 0, :] = np.inf
    positions = np.full((blocks, BLOCK), -1, np.int32)
    positions[block_of, _SLOT_OF[lane_of]] = position[members]
    if LOADER.module is not None:
        _code_compiled(rows, centers, codes_of, metric, (codes, factors), tick)
        return codes, factors, positions
    for first in range(0, blocks, CHUNK_BLOCKS):
        tick()
        last = min(blocks, first + CHUNK_BLOCKS)
        some = slice(*np.searchsorted(block_of, (first, last)).tolist())
        label, member, block, lane = labels[some], members[some], block_of[some], lane_of[some]
        center = centers[label]
        residual = rows[member]
        residual -= center
        nibbles = np.zeros((last - first, 2, 16, width // 4), np.uint8)
        nibbles[block - first, lane // 16, lane % 16] = nibbles_of(residual > 0)
        both = nibbles[:, 0] | nibbles[:, 1] << 4
        codes[first:last] = both.transpose(0, 2, 1)
        slot = _SLOT_OF[lane]
        for index, values in enumerate(factors_of(residual, center, metric)):
            factors[block, index, slot] = values
    return codes, factors, positions


def _code_compiled(
    rows: Floats,
    centers: Floats,
    codes_of: tuple[NDArray[Any], ...],
    metric: str,
    out: tuple[Bytes, Floats],
    tick: Callable[[], None],
) -> None:
    """What `coded` does, some thousand codes at a time."""
    from m2mdb.compute.hrm2 import coding_kernels

    numbers = [*codes_of, _SLOT_OF[codes_of[3]]]
    signs = np.empty(rows.shape[1], np.uint8)
    rows, centers = readable(rows), readable(centers)
    for start in range(0, len(numbers[0]), CHUNK_CODES):
        tick()
        some = slice(start, start + CHUNK_CODES)
        chosen = tuple(readable(each[some].astype(np.int64)) for each in numbers)
        coding_kernels.code(rows, centers, chosen, metric != "ip", signs, out)


def nibbles_of(signs: NDArray[np.bool_]) -> Bytes:
    """Each four bits as a number, the first the lowest."""
    packed = np.packbits(signs, axis=1, bitorder="little")
    out = np.empty((len(signs), packed.shape[1], 2), np.uint8)
    out[:, :, 0] = packed & 15
    out[:, :, 1] = packed >> 4
    return out.reshape(len(signs), -1)


def factors_of(residual: Floats, center: Floats, metric: str) -> tuple[Floats, Floats, Floats]:
    """h, f and e of codes of residuals and centroids, float32[n, width]."""
    width = residual.shape[1]
    root = np.float32(1 / np.sqrt(width))
    signs = np.where(residual > 0, root, -root)
    length = np.maximum(np.sqrt(np.einsum("ij,ij->i", residual, residual)), np.float32(1e-20))
    along = np.einsum("ij,ij->i", signs, residual) / length
    np.maximum(along, np.float32(1e-6), out=along)
    f = 2 * length / along
    e = f * np.sqrt(np.maximum(0, 1 - along * along)) / np.float32(np.sqrt(width - 1))
    if metric == "ip":
        return np.zeros_like(f), f, e
    return length * length + f * np.einsum("ij,ij->i", signs, center), f, e
