"""Compiled scans of float32 rows: similarity and selection in one pass, one thread, no GIL.

    rows --block by block--> lower[b], upper[b] --upper >= T--> heap of `lower`, candidates

A block's similarities are written to a small buffer; a vectorized count then finds whether any
row reaches the threshold T, and only then are rows looked at one by one. The k largest `lower`
stand in a min-heap, whose root gives T. `bound.py` has the meaning of lower, upper and T.

State of one query, a tuple owned by the caller, so that a scan may come in many chunks:

    places      int64[b]            rows of the block at hand, of at most b
    lower       float32[b]          their bounds
    upper       float32[b]
    heap        float32[k]          the k largest `lower`; the first `counts[HEAPED]` are in use
    ordinals    int64[capacity]     candidates; the first `counts[KEPT]` are in use
    uppers      float32[capacity]   their `upper`
    counts      int64[2]            HEAPED, KEPT
    limits      float64[7]          MULTIPLY, SUBTRACT, LOW, HIGH (see `lift`), SPREAD, LENGTH (see
                                    `bound`), THRESHOLD

The candidates of a search are then ranked by `rank`, which computes in float64, each sum in one
order of additions: what it gives is `rescore.rank`'s to the bit.

Invariants
    K1  A kernel allocates nothing, raises nothing and calls only kernels of this file and of
        those in `loader.SOURCES`: the compiled cache does not notice a change elsewhere.
    K2  Each kernel has one explicit signature, so that loading compiles it once.
    K3  A kernel returns the row where it stopped: the end, or a block that the candidates' arrays
        may not hold; the caller then grows them and goes on from there.
    K4  What gives final scores is compiled without licence to reorder or contract.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from m2mdb.compute import lanes as lanes_module
from m2mdb.compute.lanes import LANES, sum_of_products, sum_of_squares
from m2mdb.compute.loader import kernel_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Vector = NDArray[np.float32]
    Mask = NDArray[np.uint8]
    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    State = tuple[Ints, Vector, Vector, Vector, Ints, Vector, Ints, Floats]
    States = tuple[Ints, Matrix, Matrix, Matrix, Ints, Matrix, Ints, Floats]

lanes: Any = lanes_module  # its intrinsics are called otherwise than they are written
address_of, sums_of_products_and_squares = lanes.address_of, lanes.sums_of_products_and_squares
HEAPED, KEPT = 0, 1
MULTIPLY, SUBTRACT, LOW, HIGH, SPREAD, LENGTH, THRESHOLD = 0, 1, 2, 3, 4, 5, 6
COSINE, IP, L2, EXPANDED = 0, 1, 2, 3
STRIDE = 32  # rows of a mask that are looked at together
SMALLEST_NORM = np.float32(1e-37)
LARGEST_EXPANDED = np.float32(1e17)
ROUNDING = 2.0**-23
PAIRWISE_BLOCK = 128  # terms that NumPy adds in eight running sums; more are halved
SMALLEST = 5e-324  # the smallest float64 above zero

# sums may be reordered, which is what vectorizes them; NaN and infinity keep their meaning
FAST = {"reassoc", "contract", "nsz", "arcp"}

READ_MATRIX = types.Array(types.float32, 2, "C", readonly=True)
READ_VECTOR = types.Array(types.float32, 1, "C", readonly=True)
READ_MASK = types.Array(types.uint8, 1, "C", readonly=True)
READ_INTS = types.Array(types.int64, 1, "C", readonly=True)
MATRIX = types.float32[:, ::1]
VECTOR = types.float32[::1]
INTS = types.int64[::1]
INT_MATRIX = types.int64[:, ::1]
FLOATS = types.float64[::1]
FLOAT_MATRIX = types.float64[:, ::1]
INT = types.int64
RANGE = types.UniTuple(types.int64, 2)
PAIR = types.UniTuple(types.float64, 2)
FLOATS_AT = types.CPointer(types.float32)
STATE = types.Tuple((INTS, VECTOR, VECTOR, VECTOR, INTS, VECTOR, INTS, FLOATS))
STATES = types.Tuple((INTS, MATRIX, MATRIX, MATRIX, INT_MATRIX, MATRIX, INT_MATRIX, FLOAT_MATRIX))


def kernel(*signature: Any, fastmath: Any = FAST) -> Callable[[Any], Any]:
    """Compile a function for one signature: (result, argument, ...); cached in our own folder."""

    def compiled(function: Any) -> Any:
        with kernel_cache():
            return njit(
                signature[0](*signature[1:]),
                nogil=True,
                fastmath=fastmath,
                error_model="numpy",
                boundscheck=False,
                cache=True,
            )(function)

    return compiled


def step(function: Any) -> Any:
    """A helper whose code becomes part of the kernels that call it."""
    return njit(function, nogil=True, error_model="numpy", boundscheck=False)


@step
def rise(heap: Any, at: int, value: Any) -> None:
    """Put a value into a min-heap that had `at` values."""
    i = at
    while i > 0 and heap[(i - 1) >> 1] > value:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = value


@step
def sink(heap: Any, size: int, value: Any) -> None:
    """Put a value into a min-heap of `size` values in place of its root, the smallest."""
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value


@kernel(types.void, FLOATS, VECTOR)
def lift(limits: Floats, heap: Vector) -> None:
    """Set THRESHOLD from the heap's root, the k-th largest `lower`.

    Twin    bound.Query.threshold
    """
    kth = np.float64(heap[0])
    if kth < limits[LOW]:
        return
    least = min(kth, limits[HIGH]) * limits[MULTIPLY] - limits[SUBTRACT]
    least -= abs(least) * ROUNDING
    if least > limits[THRESHOLD]:
        limits[THRESHOLD] = least


@kernel(types.void, VECTOR, INT, types.float32)
def push(heap: Vector, size: int, value: np.float32) -> None:
    """Add a value to the min-heap of `size` values; a full heap loses its root, the smallest."""
    if size < heap.shape[0]:
        rise(heap, size, value)
    else:
        sink(heap, size, value)


@kernel(types.void, INT, INT, STATE)
def keep(count: int, first: int, state: State) -> None:
    """Take the block's rows that reach the threshold; the caller has made room for them.

    count   rows in the block; row i is first + places[i], with lower[i] and upper[i]
    """
    places, lower, upper, heap, ordinals, uppers, counts, limits = state
    k = heap.shape[0]
    for i in range(count):
        if not upper[i] >= np.float32(limits[THRESHOLD]):
            continue
        ordinals[counts[KEPT]] = first + places[i]
        uppers[counts[KEPT]] = upper[i]
        counts[KEPT] += 1
        if counts[HEAPED] < k:
            push(heap, counts[HEAPED], lower[i])
            counts[HEAPED] += 1
            if counts[HEAPED] == k:
                lift(limits, heap)
        elif lower[i] > heap[0]:
            push(heap, k, lower[i])
            lift(limits, heap)


@kernel(types.void, STATE)
def prune(state: State) -> None:
    """Drop candidates that fell below the threshold, keeping the order of the rest."""
    _, _, _, _, ordinals, uppers, counts, limits = state
    least = np.float32(limits[THRESHOLD])
    kept = 0
    for i in range(counts[KEPT]):
        if uppers[i] >= least:
            ordinals[kept] = ordinals[i]
            uppers[kept] = uppers[i]
            kept += 1
    counts[KEPT] = kept


@kernel(INT, INT, INT, READ_MASK, INTS)
def pick(start: int, stop: int, mask: Mask, places: Ints) -> int:
    """Fill `places` with the next rows that count, from `start`; returns how many.

    mask    uint8[n], 1 = counts; an empty one lets every row count
    """
    count = 0
    if mask.shape[0] == 0:
        count = min(places.shape[0], stop - start)
        for i in range(count):
            places[i] = start + i
        return count
    r, room = start, places.shape[0]
    while r + STRIDE <= stop and count + STRIDE <= room:  # without a branch that depends on a row
        some = mask[r]
        for i in range(1, STRIDE):
            some |= mask[r + i]
        if some:
            for i in range(STRIDE):
                places[count] = r + i
                count += mask[r + i] != 0
        r += STRIDE
    while r < stop and count < room:
        if mask[r]:
            places[count] = r
            count += 1
        r += 1
    return count


@kernel(types.void, READ_MATRIX, READ_VECTOR, INT, INTS, VECTOR)
def dots(rows: Matrix, query: Vector, count: int, places: Ints, out: Vector) -> None:
    """out[i] = rows[places[i]] . query for i < count; `places` ascends.

    A run of rows is read as two streams, its halves: about what keeps memory busiest.
    Twin    reference.dots
    """
    d = rows.shape[1]
    done = 0
    first = places[0]
    if places[count - 1] - first == count - 1:
        done = count & ~1
        half = count >> 1
        for p in range(first, first + half):
            s = t = np.float32(0.0)
            for j in range(d):
                s += rows[p, j] * query[j]
                t += rows[p + half, j] * query[j]
            out[p - first] = s
            out[p - first + half] = t
    for i in range(done, count):
        p = places[i]
        s = np.float32(0.0)
        for j in range(d):
            s += rows[p, j] * query[j]
        out[i] = s


@kernel(types.void, READ_MATRIX, READ_VECTOR, INT, INTS, VECTOR)
def distances(rows: Matrix, query: Vector, count: int, places: Ints, out: Vector) -> None:
    """out[i] = -|rows[places[i]] - query|^2 for i < count; `places` ascends; see `dots`.

    Twin    reference.squared_distances
    """
    d = rows.shape[1]
    done = 0
    first = places[0]
    if places[count - 1] - first == count - 1:
        done = count & ~1
        half = count >> 1
        for p in range(first, first + half):
            s = t = np.float32(0.0)
            for j in range(d):
                x = query[j]
                s += (rows[p, j] - x) * (rows[p, j] - x)
                t += (rows[p + half, j] - x) * (rows[p + half, j] - x)
            out[p - first] = -s
            out[p - first + half] = -t
    for i in range(done, count):
        p = places[i]
        s = np.float32(0.0)
        for j in range(d):
            delta = rows[p, j] - query[j]
            s += delta * delta
        out[i] = -s


@kernel(types.void, INT, READ_VECTOR, STATE)
def expand(count: int, norms: Vector, state: State) -> None:
    """Turn products into bounds of -(|x|^2 - 2qx + |q|^2); a huge row's are without limit.

    Twin    reference._expanded
    """
    places, lower, upper, _, _, _, _, limits = state
    spread, length = np.float32(limits[SPREAD]), np.float32(limits[LENGTH])
    for i in range(count):
        norm = norms[places[i]]
        if norm < LARGEST_EXPANDED:
            nearness = np.float32(2.0) * upper[i] - norm * norm - length * length
            error = spread * (norm + length) * (norm + length)
            lower[i] = nearness - error
            upper[i] = min(nearness + error, np.float32(0.0))
        else:
            lower[i] = -np.inf
            upper[i] = np.float32(0.0)


@kernel(INT, INT, INT, READ_VECTOR, STATE)
def bound(kind: int, count: int, norms: Vector, state: State) -> int:
    """Turn the numbers in `upper` into bounds; returns how many reach the threshold.

    Twin    reference.bounds
    """
    places, lower, upper, _, _, _, _, limits = state
    if kind == COSINE:
        for i in range(count):
            upper[i] /= max(norms[places[i]], SMALLEST_NORM)
            lower[i] = upper[i]
    elif kind == IP:
        spread = np.float32(limits[SPREAD])
        for i in range(count):
            error = spread * norms[places[i]]
            lower[i] = upper[i] - error
            upper[i] += error
    elif kind == EXPANDED:
        expand(count, norms, state)
    else:
        for i in range(count):
            lower[i] = upper[i]
    least = np.float32(limits[THRESHOLD])
    reached = 0
    for i in range(count):
        reached += upper[i] >= least
    return reached


@kernel(INT, INT, READ_MATRIX, READ_VECTOR, READ_MASK, READ_VECTOR, RANGE, STATE)
def scan(
    kind: int,
    rows: Matrix,
    norms: Vector,
    mask: Mask,
    query: Vector,
    span: tuple[int, int],
    state: State,
) -> int:
    """Collect the candidates of one query; returns the row where it stopped (K3).

    kind    COSINE, IP, EXPANDED (l2 from norms) or L2 (from differences: norms may be empty)
    rows    float32[n, d]
    mask    uint8[n], or empty for all rows
    span    row to start from, ordinal of row 0
    """
    r, first = span
    places, _, upper, _, ordinals, _, counts, _ = state
    n = rows.shape[0]
    while r < n:
        if counts[KEPT] + places.shape[0] > ordinals.shape[0]:
            prune(state)
            if counts[KEPT] + places.shape[0] > ordinals.shape[0]:
                return r
        count = pick(r, n, mask, places)
        if count == 0:
            break
        r = places[count - 1] + 1
        if kind == L2:
            distances(rows, query, count, places, upper)
        else:
            dots(rows, query, count, places, upper)
        if bound(kind, count, norms, state) > 0:
            keep(count, first, state)
    return n


@kernel(types.void, READ_MATRIX, READ_MATRIX, INT, INTS, MATRIX)
def products(rows: Matrix, queries: Matrix, count: int, places: Ints, out: Matrix) -> None:
    """out[q, i] = rows[places[i]] . queries[q] for i < count, two rows by four queries at a time.

    Twin    reference.products
    """
    d = rows.shape[1]
    many = queries.shape[0] & ~3
    half = count >> 1
    for q in range(0, many, 4):
        for i in range(half):
            a, b = places[i], places[i + half]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0.0)
            for j in range(d):
                x, y = rows[a, j], rows[b, j]
                q0, q1, q2, q3 = (
                    queries[q, j],
                    queries[q + 1, j],
                    queries[q + 2, j],
                    queries[q + 3, j],
                )
                a0 += x * q0
                a1 += x * q1
                a2 += x * q2
                a3 += x * q3
                b0 += y * q0
                b1 += y * q1
                b2 += y * q2
                b3 += y * q3
            out[q, i], out[q + 1, i], out[q + 2, i], out[q + 3, i] = a0, a1, a2, a3
            out[q, i + half], out[q + 1, i + half] = b0, b1
            out[q + 2, i + half], out[q + 3, i + half] = b2, b3
        if 2 * half < count:
            for t in range(q, q + 4):
                dots(rows, queries[t], 1, places[2 * half :], out[t, 2 * half :])
    for q in range(many, queries.shape[0]):
        dots(rows, queries[q], count, places, out[q])


@kernel(STATE, INT, STATES)
def single(q: int, states: States) -> State:
    """The state of query q."""
    places, lower, upper, heap, ordinals, uppers, counts, limits = states
    return (places, lower[q], upper[q], heap[q], ordinals[q], uppers[q], counts[q], limits[q])


@kernel(INT, INT, READ_MATRIX, READ_VECTOR, READ_MASK, READ_MATRIX, RANGE, STATES)
def scan_many(
    kind: int,
    rows: Matrix,
    norms: Vector,
    mask: Mask,
    queries: Matrix,
    span: tuple[int, int],
    states: States,
) -> int:
    """`scan` for several queries, which share the reading of each block of rows (K3).

    queries     float32[m, d]
    states      as `scan` has it, with a leading axis of m but for `places`
    """
    r, first = span
    places, _, upper, _, ordinals, _, counts, _ = states
    n = rows.shape[0]
    while r < n:
        for q in range(queries.shape[0]):
            if counts[q, KEPT] + places.shape[0] > ordinals.shape[1]:
                prune(single(q, states))
                if counts[q, KEPT] + places.shape[0] > ordinals.shape[1]:
                    return r
        count = pick(r, n, mask, places)
        if count == 0:
            break
        r = places[count - 1] + 1
        if kind == L2:
            for q in range(queries.shape[0]):
                distances(rows, queries[q], count, places, upper[q])
        else:
            products(rows, queries, count, places, upper)
        for q in range(queries.shape[0]):
            state = single(q, states)
            if bound(kind, count, norms, state) > 0:
                keep(count, first, state)
    return n


@kernel(types.float64, INT, READ_VECTOR, READ_VECTOR, INT, INT, fastmath=False)
def pairwise(kind: int, left: Vector, right: Vector, start: int, count: int) -> float:
    """The sum of `count` terms from `start` in float64, in NumPy's order of additions (K4).

    kind    IP: left * right; L2: (left - right)^2
    Twin    numpy.add.reduce over a contiguous axis
    """
    if count > PAIRWISE_BLOCK:
        half = count // 2
        half -= half % LANES
        first = pairwise(kind, left, right, start, half)
        return first + pairwise(kind, left, right, start + half, count - half)
    whole = count - count % LANES
    total = 0.0
    if whole > 0:
        if kind == L2:
            total = sum_of_squares(left, right, start, whole)
        else:
            total = sum_of_products(left, right, start, whole)
    for j in range(start + whole, start + count):
        a, b = np.float64(left[j]), np.float64(right[j])
        total += (a - b) * (a - b) if kind == L2 else a * b
    return total


@kernel(PAIR, FLOATS_AT, FLOATS_AT, INT, INT, fastmath=False)
def product_and_square(row: Any, query: Any, start: int, count: int) -> Any:
    """`pairwise` of IP for (row, query) and for (row, row), in one pass over the row.

    row, query   pointers: an array takes seven registers, and this calls itself
    """
    if count <= PAIRWISE_BLOCK:
        whole = count - count % LANES
        product, square = sums_of_products_and_squares(row, query, start, whole)
        for j in range(start + whole, start + count):
            a, b = np.float64(row[j]), np.float64(query[j])
            product += a * b
            square += a * a
        return product, square
    half = count // 2
    half -= half % LANES
    left = product_and_square(row, query, start, half)
    right = product_and_square(row, query, start + half, count - half)
    return left[0] + right[0], left[1] + right[1]


@kernel(types.float64, INT, READ_VECTOR, READ_VECTOR, types.float64, fastmath=False)
def similarity(kind: int, row: Vector, query: Vector, length: float) -> float:
    """The final similarity of a row to the query, whose length in float64 is `length` (K4).

    Twin    rescore.similarities
    """
    d = row.shape[0]
    if kind == L2:
        return (0.0 + pairwise(L2, row, query, 0, d)) * -1.0
    if kind == IP:
        return 0.0 + pairwise(IP, row, query, 0, d)
    dot, square = product_and_square(address_of(row), address_of(query), 0, d)
    dot = (0.0 + dot) / max(math.sqrt(square) * length, SMALLEST)
    return max(min(dot, 1.0), -1.0)


@kernel(
    INT, INT, READ_MATRIX, READ_INTS, READ_INTS, READ_VECTOR,
    types.Tuple((INTS, INTS, FLOATS, VECTOR)), fastmath=False,
)  # fmt: skip
def rank(
    kind: int,
    rows: Matrix,
    rowids: Ints,
    ordinals: Ints,
    query: Vector,
    out: tuple[Ints, Ints, Floats, Vector],
) -> int:
    """The k best of the rows `ordinals`, by (key descending, rowid ascending); returns how many.

    kind    COSINE, IP or L2
    out     positions in `ordinals`, rowids, scores, distances, each of k: ordered by insertion,
            so that k is to be small
    Twin    rescore.rank
    """
    positions, ids, scores, distances = out
    k = positions.shape[0]
    length = 0.0
    if kind == COSINE:
        length = math.sqrt(pairwise(IP, query, query, 0, query.shape[0]))
    count = 0
    for i in range(ordinals.shape[0]):
        r = ordinals[i]
        near = similarity(kind, rows[r], query, length)
        if kind == L2:
            distance = np.float32(math.sqrt(-near))
            score = 1.0 / (1.0 + np.float64(distance))
        else:
            shown = np.float32(near)
            score = np.float64(shown)
            distance = np.float32(1.0 if kind == COSINE else 0.0) - shown
        at = count
        while at > 0:
            # equal scores of l2 may have distances that differ: it is ordered by those
            behind = distances[at - 1] - distance if kind == L2 else score - scores[at - 1]
            if behind < 0.0 or (not behind > 0.0 and ids[at - 1] <= rowids[r]):
                break
            at -= 1
        if at == k:
            continue
        count = min(count + 1, k)
        for j in range(count - 1, at, -1):
            positions[j], ids[j] = positions[j - 1], ids[j - 1]
            scores[j], distances[j] = scores[j - 1], distances[j - 1]
        positions[at], ids[at] = i, rowids[r]
        scores[at], distances[at] = score, distance
    return count
