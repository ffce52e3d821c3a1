"""Tracing: compiled searches that tell what every shorter one would have found, and done.

A search is a prefix of every longer one (K5). So one search of a query, which goes on until all
true neighbours came among its best, says at which list each of them did; and the lists at which
the k best changed say where a search of any patience would have stopped (`calibration`).

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
from m2mdb.compute.hrm2.reference import HARD, MANY
from m2mdb.compute.hrm2.steps import HARDNESS, cut, finite_range, patience_for, step
from m2mdb.compute.pointers import floats_at, ints_at, longs_at

FLOAT, INT = types.float32, types.int64
OPEN_MASK = types.uint8[::1]
READ_INTS = types.Array(types.int64, 1, "C", readonly=True)
READ_FLOATS = types.Array(types.float32, 1, "C", readonly=True)
ROUNDING = np.float32(1e-5)  # of the k-th best key, that float32 sums may differ by


@step
def turn(plan: Any, mask: Any, k: int, done: int, ready: int, epsilon: Any, state: Any) -> Any:
    """Probe the next list; how many are in order then, its blocks, and the state of `compare`.

    No list was left where fewer are in order than `done` + 1.
    """
    if done == ready:
        ready = next_wave(plan, ready, plan[LISTS])
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
def hits_of_turn(plan: Any, logged: int, sought: Any) -> int:
    """How many true neighbours are among the rows that a list brought among the best."""
    rows, queries, at, edge, is_near = sought
    log, ordinals = ints_at(plan[LOG]), ints_at(plan[ORDINALS])
    hits = 0
    for i in range(logged):
        if key_of(rows, ordinals[log[3 * i]], queries, at, is_near) >= edge:
            hits += 1
    return hits


@step
def follow(plan: Any, mask: Any, how: Any, epsilon: Any, sought: Any, marks: Any) -> Any:
    """Search until all true neighbours were found, or all lists probed.

    marks[0]  hits up to and with each list
    marks[1]  lists that changed the k best, ascending
    Returns hardness, lists probed, how many of them changed the k best, and how many were probed
    when there were k rows.
    """
    k, least = how
    size = np.int64(0)
    state = (size, np.float32(np.inf), np.int64(-1), np.int64(0), np.int64(0))
    hardness, ready, done, hits, changes = np.float32(np.inf), 0, 0, 0, 0
    full = plan[LISTS] + 1
    while done < plan[LISTS] and (hits < k or done < least):
        before = (state[0], state[1], state[2], state[3], np.int64(0))  # the log begins anew
        ready, _, state = turn(plan, mask, k, done, ready, epsilon, before)
        if done == ready:
            break
        hits += hits_of_turn(plan, state[4], sought)
        marks[0, done] = hits
        if state[2] == done:
            marks[1, changes] = done
            changes += 1
        done += 1
        if state[0] >= k:
            full = min(full, done)
        if done == least:
            hardness = state[1]
    return hardness, done, changes, full


@step
def recalls_of(found: Any, how: Any, factor: Any, levels: Any, marks: Any, out: Any) -> None:
    """Recall where a search of each patience would have stopped."""
    k, least = how
    _, done, changes, full = found
    for level in range(levels.shape[0]):
        end, last = np.int64(0), np.int64(0)
        for change in range(changes + 1):
            end = np.int64(np.ceil(factor * np.float32(last) + np.float32(levels[level])))
            end = max(end, least)
            if change == changes or marks[1, change] >= end:
                break
            last = marks[1, change]
        end = min(max(end, full), done)
        out[level] = min(marks[0, end - 1], k) / k if end else 0.0


@kernel(
    types.void, PLAN, OPEN_MASK, READ_FLOAT_ROWS, READ_FLOAT_ROWS, READ_INTS, READ_FLOATS,
    types.UniTuple(INT, 2), FLOAT, FLOAT, types.boolean, READ_INTS, types.int32[:, ::1],
    types.float64[:, ::1], types.float64[::1],
)  # fmt: skip
def trace_recalls(
    plan: Any, mask: Any, rows: Any, queries: Any, own: Any, edges: Any, how: Any, factor: Any,
    epsilon: Any, is_near: bool, levels: Any, marks: Any, recalls: Any, hardness: Any,
) -> None:  # fmt: skip
    """Search for every query; what each patience would have found.

    mask      uint8[n], 1 = may be found; own[i], where it is not -1, may not
    rows      float32[n, d], by ordinal
    edges     the k-th best key of each query
    how       (k, least)
    levels    of patience, ascending
    marks     int32[2, lists], scratch
    recalls   float64[queries, levels]; hardness float64[queries]
    """
    for at in range(queries.shape[0]):
        before = np.uint8(0)
        if own[at] >= 0:
            before = mask[own[at]]
            mask[own[at]] = 0
        edge = edges[at] - ROUNDING * abs(edges[at])
        take(plan, queries, at)
        begin(plan)
        found = follow(plan, mask, how, epsilon, (rows, queries, at, edge, is_near), marks)
        hardness[at] = found[0]
        recalls_of(found, how, factor, levels, marks, recalls[at])
        if own[at] >= 0:
            mask[own[at]] = before


@step
def add_work(out: Any, stop: int, done: int, blocks: int, state: Any) -> None:
    """Count a search that has stopped."""
    out[stop, 0] += done
    out[stop, 1] += 32 * blocks
    out[stop, 2] += state[3]


@kernel(
    types.void, PLAN, OPEN_MASK, READ_FLOAT_ROWS, types.UniTuple(INT, 2), FLOAT, FLOAT,
    READ_FLOAT_ROWS, types.float64[:, ::1],
)  # fmt: skip
def trace_works(
    plan: Any, mask: Any, queries: Any, how: Any, factor: Any, epsilon: Any, hardness: Any,
    out: Any,
) -> None:  # fmt: skip
    """Add up what searches of every query do, each until it stops by its own table.

    mask      uint8[n], or empty: every row may be found
    hardness  float32[stops, 2 * HARD - 1], see reference.Stop; patience ascends with the stops
    out       float64[stops, 3]: lists probed, codes, rows compared by 8-bit codes
    """
    k, least = how
    numbers = floats_at(plan[NUMBERS])
    for at in range(queries.shape[0]):
        take(plan, queries, at)
        begin(plan)
        state = (np.int64(0), np.float32(np.inf), np.int64(0), np.int64(0), np.int64(0))
        ready, done, blocks, stop = 0, 0, 0, 0
        worst = np.float32(np.inf)  # after the first lists
        while stop < hardness.shape[0]:
            if done == least:
                worst = state[1]
            if done >= least and state[0] >= k:
                for i in range(2 * HARD - 1):
                    numbers[HARDNESS + i] = hardness[stop, i]
                end = factor * np.float32(state[2]) + patience_for(numbers, worst)
                if np.float32(done) >= end:
                    add_work(out, stop, done, blocks, state)
                    stop += 1
                    continue
            ready, scanned, state = turn(plan, mask, k, done, ready, epsilon, state)
            if done == ready:
                break
            blocks += scanned
            done += 1
        for left in range(stop, hardness.shape[0]):
            add_work(out, left, done, blocks, state)
