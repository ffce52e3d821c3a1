"""Tracing: compiled searches that tell what every shorter one would have found, and done.

A search is a prefix of every longer one (K5). So one search of a query, which goes on until all
true neighbours came among its best, says at which list each of them did; and the lists at which
the k best changed say where a search of any patience would have stopped (`calibration`). Where many
rows are as near as their codes can tell, as copies of a row are, later ones may take the places of
true neighbours again: it goes on a while, and counts anew after each list.

    trace_recalls  recall at each level of patience, and the hardness of queries
    trace_works    lists, codes and comparisons of searches that differ in patience alone

Both take the plan of a search with a log (`kernels`), and take the steps that `kernels.probe`
takes, in the same order.

Invariants
    TR1 What a trace tells of a patience is what `kernels.search` does with it.
    TR2 The mask is given back as it came.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-call, no-any-return, return-value"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from m2mdb.compute.hrm2.kernels import (
    BEST,
    LISTS,
    LOG,
    NUMBERS,
    ORDER,
    ORDINALS,
    PENDING_BOUNDS,
    PLAN,
    READ_FLOAT_ROWS,
    STARTS,
    begin,
    compare,
    kernel,
    next_wave,
    scan_list,
    take,
)
from m2mdb.compute.hrm2.reference import MANY, TOLD
from m2mdb.compute.hrm2.steps import HARDNESS, cut, finite_range, patience_for, step
from m2mdb.compute.pointers import floats_at, ints_at, longs_at

FLOAT, INT = types.float32, types.int64
OPEN_MASK = types.uint8[::1]
READ_INTS = types.Array(types.int64, 1, "C", readonly=True)
READ_FLOATS = types.Array(types.float32, 1, "C", readonly=True)
ROUNDING = np.float32(1e-5)  # of the k-th best key, that float32 sums may differ by
# a search goes on once it has found all: for a half of the lists that it took, and so many
TAIL_PART, TAIL = 2, 16


@step
def turn(
    plan: Any, mask: Any, k: int, done: int, ready: int, known: int, epsilon: Any, state: Any
) -> Any:
    """Probe the next list; how many are in order then, its blocks, and the state of `compare`.

    No list was left where fewer are in order than `done` + 1.
    """
    if done == ready:
        ready = next_wave(plan, ready, known)
        if done == ready:
            return ready, 0, state
    order, starts = ints_at(plan[ORDER]), longs_at(plan[STARTS])
    bounds = floats_at(plan[PENDING_BOUNDS])
    each, later = order[done], order[min(done + 1, ready - 1)]
    asked = state[1] < np.float32(np.inf)  # by scan_list
    count = scan_list(plan, mask, each, later, epsilon, state[1])
    if count > MANY:
        low, high = finite_range(bounds, count)
        limit = cut(bounds, count, max(MANY >> 1, count >> 2), low, high)
        state = compare(plan, k, done, (count, limit, asked, 0, 0), state)
    if count:
        state = compare(plan, k, done, (count, np.float32(np.inf), asked, 0, 0), state)
    return ready, starts[each + 1] - starts[each], state


@step
def key_of(rows: Any, ordinal: int, queries: Any, at: int, is_near: bool) -> Any:
    """What is sought of a row, the more the better: -|x - q|^2, or <x, q>."""
    total = np.float32(0.0)
    if is_near:
        for i in range(rows.shape[1]):
            gap = rows[ordinal, i] - queries[at, i]
            total -= gap * gap
    else:
        for i in range(rows.shape[1]):
            total += rows[ordinal, i] * queries[at, i]
    return total


@step
def hits_of_turn(plan: Any, size: int, logged: int, sought: Any, stamps: Any, stamp: int) -> int:
    """How many true neighbours are among the best, some of which a list has just brought."""
    rows, queries, at, edge, is_near = sought
    log, ordinals, best = ints_at(plan[LOG]), ints_at(plan[ORDINALS]), ints_at(plan[BEST])
    for i in range(logged):
        position = log[3 * i]
        if key_of(rows, ordinals[position], queries, at, is_near) >= edge:
            stamps[position] = stamp
    hits = 0
    for i in range(size):
        hits += int(stamps[best[i]] == stamp)
    return hits


@step
def follow(
    plan: Any, mask: Any, how: Any, epsilon: Any, sought: Any, marks: Any, stamps: Any
) -> Any:
    """Search until all true neighbours were found and a while longer, or all lists probed.

    marks[0]  hits among the best after each list
    marks[1]  whether each list changed the k best
    Returns hardness, lists probed, and how many were probed when there were k rows.
    """
    k, least, ahead = how
    size = np.int64(0)
    state = (size, np.float32(np.inf), np.int64(0), np.int64(0), np.int64(0))
    hardness, ready, done, hits = np.float32(np.inf), 0, 0, 0
    full, known, end = plan[LISTS] + 1, min(ahead, plan[LISTS]), np.int64(0)
    stamp = sought[2] + 1  # of the query
    while done < plan[LISTS] and (hits < k or done < max(least, end)):
        before = (state[0], state[1], np.int64(-1), state[3], np.int64(0))  # the log begins anew
        ready, _, state = turn(plan, mask, k, done, ready, known, epsilon, before)
        if done == ready:
            break
        if state[4]:
            hits = hits_of_turn(plan, state[0], state[4], sought, stamps, stamp)
        marks[0, done] = hits
        marks[1, done] = np.int32(state[2] == done)
        done += 1
        if state[0] >= k:
            full = min(full, done)
        if hits >= k and not end:
            end = np.int64(done + done // TAIL_PART + TAIL)
        if done >= least and hardness == np.float32(np.inf):
            hardness = state[1]  # once there are k rows
    return hardness, done, full


@step
def read_off(
    plan: Any, found: Any, how: Any, factor: Any, levels: Any, marks: Any, out: Any
) -> None:
    """Recall, and lists probed, where a search would have stopped at each patience.

    out   float64[levels] twice
    """
    k, least, _ = how
    _, done, full = found
    recalls, probed = out
    at, last = np.int64(0), np.int64(0)
    for level in range(levels.shape[0]):
        end = factor * np.float32(last) + np.float32(levels[level])
        while at < done and (at < least or at < full or np.float32(at) < end):
            if marks[1, at]:
                last = at
                end = factor * np.float32(last) + np.float32(levels[level])
            at += 1
        recalls[level] = min(marks[0, at - 1], k) / k if at else 0.0
        probed[level] = max(np.float64(at), min(np.ceil(np.float64(end)), plan[LISTS]))


@kernel(
    types.void, PLAN, OPEN_MASK, READ_FLOAT_ROWS, READ_FLOAT_ROWS, READ_INTS, READ_FLOATS,
    types.UniTuple(INT, 3), READ_FLOATS, FLOAT, types.boolean, READ_INTS,
    types.int32[:, ::1], types.int32[::1], types.float64[:, :, ::1], types.float64[:, :, ::1],
    types.float64[::1],
)  # fmt: skip
def trace_recalls(
    plan: Any, mask: Any, rows: Any, queries: Any, own: Any, edges: Any, how: Any, factors: Any,
    epsilon: Any, is_near: bool, levels: Any, marks: Any, stamps: Any, recalls: Any, probed: Any,
    hardness: Any,
) -> None:  # fmt: skip
    """Search for every query; what searches of each factor and patience would have found and done.

    mask      uint8[n], 1 = may be found; own[i], where it is not -1, may not
    rows      float32[n, d], by ordinal
    edges     the k-th best key of each query
    how       (k, least, ahead)
    levels    of patience, ascending
    marks     int32[2, lists], scratch
    stamps    int32[n], zeros, scratch
    recalls   float64[queries, factors, levels]; probed, lists, the same; hardness float64[queries].
              A search that has found all is taken to change no more after some lists
    """
    stamps[:] = 0
    for at in range(queries.shape[0]):
        before = np.uint8(0)
        if own[at] >= 0:
            before = mask[own[at]]
            mask[own[at]] = 0
        edge = edges[at] - ROUNDING * abs(edges[at])
        take(plan, queries, at)
        begin(plan)
        found = follow(plan, mask, how, epsilon, (rows, queries, at, edge, is_near), marks, stamps)
        hardness[at] = found[0]
        for each in range(factors.shape[0]):
            out = (recalls[at, each], probed[at, each])
            read_off(plan, found, how, factors[each], levels, marks, out)
        if own[at] >= 0:
            mask[own[at]] = before


@step
def add_work(out: Any, stop: int, done: int, blocks: int, state: Any) -> None:
    """Count a search that has stopped."""
    out[stop, 0] += done
    out[stop, 1] += 32 * blocks
    out[stop, 2] += state[3]


@kernel(
    types.void, PLAN, OPEN_MASK, READ_FLOAT_ROWS, types.UniTuple(INT, 3), FLOAT, FLOAT,
    READ_FLOAT_ROWS, types.float64[:, ::1],
)  # fmt: skip
def trace_works(
    plan: Any, mask: Any, queries: Any, how: Any, factor: Any, epsilon: Any, hardness: Any,
    out: Any,
) -> None:  # fmt: skip
    """Add up what searches of every query do, each until it stops by its own table.

    mask      uint8[n], or empty: every row may be found
    how       (k, least, ahead)
    hardness  float32[stops, TOLD], see reference.Stop; searches get longer with the stops
    out       float64[stops, 3]: lists probed, codes, rows compared by 8-bit codes
    """
    k, least, ahead = how
    known = min(ahead, plan[LISTS])
    numbers = floats_at(plan[NUMBERS])
    for at in range(queries.shape[0]):
        take(plan, queries, at)
        begin(plan)
        state = (np.int64(0), np.float32(np.inf), np.int64(0), np.int64(0), np.int64(0))
        ready, done, blocks, stop = 0, 0, 0, 0
        worst = np.float32(np.inf)  # as soon as there are k rows
        while stop < hardness.shape[0]:
            if done >= least and state[0] >= k:
                worst = state[1] if worst == np.float32(np.inf) else worst
                for i in range(TOLD):
                    numbers[HARDNESS + i] = hardness[stop, i]
                patience, share = patience_for(numbers, worst)
                end = factor * share * np.float32(state[2]) + patience
                if np.float32(done) >= end:
                    add_work(out, stop, done, blocks, state)
                    stop += 1
                    continue
            ready, scanned, state = turn(plan, mask, k, done, ready, known, epsilon, state)
            if done == ready:
                break
            blocks += scanned
            done += 1
        for left in range(stop, hardness.shape[0]):
            add_work(out, left, done, blocks, state)
