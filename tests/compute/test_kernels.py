"""Every compiled kernel does what its NumPy twin does."""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.compute import reference
from m2mdb.compute.bound import METRICS, Query
from m2mdb.compute.loader import LOADER, NARROW_KERNELS

SHAPES = st.tuples(st.sampled_from((1, 2, 3, 5, 64, 65)), st.sampled_from((1, 2, 15, 16, 17, 384)))


def kernels() -> ModuleType:
    """The compiled kernels."""
    assert LOADER.wait(), LOADER.error
    assert LOADER.module is not None
    return LOADER.module


def narrow() -> ModuleType:
    """The compiled kernels of float16 and int8 rows."""
    kernels()
    return importlib.import_module(NARROW_KERNELS)


def drawn(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    """Seeded float32 values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.booleans(), st.integers(0, 1000))
def test_products_and_distances(shape: tuple[int, int], is_run: bool, seed: int) -> None:
    count, dimension = shape
    rows, queries = drawn(seed, 3 * count, dimension), drawn(seed + 1, 7, dimension)
    places = np.arange(count) + 2 if is_run and count > 1 else np.arange(count) * 3
    one, many = np.empty(count, np.float32), np.empty((7, count), np.float32)
    chosen = rows[places]
    slack = 1e-6 * (dimension + 16)

    kernels().dots(rows, queries[0], count, places, one)
    assert one == pytest.approx(reference.dots(chosen, queries[0]), abs=slack, rel=1e-5)

    kernels().distances(rows, queries[0], count, places, one)
    twin = reference.squared_distances(chosen, queries[0])
    assert -one == pytest.approx(twin, rel=1e-5)

    kernels().products(rows, queries, count, places, many)
    twin = reference.products(chosen, queries)
    assert many == pytest.approx(twin, abs=slack, rel=1e-5)


def test_every_finite_float16_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16)
    halves = every[np.isfinite(every.view(np.float16))].reshape(-1, 62)
    out = np.empty(halves.shape, np.float32)

    narrow().widen_halves(halves, out.view(np.uint32), out)

    twin = halves.view(np.float16).astype(np.float32)
    assert np.array_equal(out.view(np.uint32), twin.view(np.uint32))  # signs of zeros too


def test_every_byte_is_widened_exactly() -> None:
    rows = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    out = np.empty(rows.shape, np.float32)

    narrow().widen_bytes(rows, out)

    assert np.array_equal(out, rows.astype(np.float32))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(METRICS),
    st.sampled_from((1e-30, 1e-10, 1.0, 1e10, 1e30)),
    st.floats(-(2.0**126), 2.0**126, width=32),
)
def test_thresholds(metric: str, length: float, kth: float) -> None:
    query = Query(np.full(17, length, np.float32), metric)
    limits = np.array((*query.limits, query.spread, query.norm, -math.inf))

    kernels().lift(limits, np.array([kth], np.float32))

    twin = query.threshold(kth)
    assert limits[kernels().THRESHOLD] == pytest.approx(twin, rel=1e-12)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.integers(1, 20))
def test_the_heap_keeps_the_largest(values: list[float], k: int) -> None:
    heap = np.empty(k, np.float32)
    for i, value in enumerate(values):
        if i < k or value > heap[0]:
            kernels().push(heap, min(i, k), np.float32(value))

    size = min(k, len(values))
    assert sorted(heap[:size].tolist()) == sorted(values)[-size:]
    assert heap[0] == min(heap[:size])


@given(st.binary(max_size=50), st.integers(1, 10), st.integers(0, 50))
def test_picking_finds_the_rows_that_count(raw: bytes, room: int, start: int) -> None:
    mask = np.frombuffer(raw, np.uint8) & 1
    places = np.empty(room, np.int64)

    count = kernels().pick(start, len(mask), mask, places)
    if len(mask):
        live = np.flatnonzero(mask)
        assert places[:count].tolist() == live[live >= start][:room].tolist()


def test_room_for_candidates_grows_while_a_scan_goes_on() -> None:
    from m2mdb.compute.numba_backend import NumbaCollector

    rows = np.zeros((20_000, 2), np.float32)
    collector = NumbaCollector(Query(rows[0], "l2"), 1, kernels())

    collector.scan(rows, None, None, 7)

    assert sorted(collector.result().ordinals.tolist()) == list(range(7, 20_007))
