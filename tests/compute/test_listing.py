"""Rows of the delta are coded as their twin codes them, and searches beside lists find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.compute import listing, search_kernels
from m2mdb.compute.hrm2.lists import SLOTS, padded
from m2mdb.compute.loader import LOADER
from m2mdb.compute.ranking_kernels import LISTED
from m2mdb.index import hrm2, merge_policy
from m2mdb.index.compiled import HeldSearch

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    assert LOADER.wait(300), LOADER.error


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dimension", [1, 3, 64, 100, 384])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_rows_are_coded_as_their_twin_codes_them(metric: str, dimension: int, dtype: Any) -> None:
    rng = np.random.default_rng(dimension)
    rows = np.clip(rng.standard_normal((75, dimension)) * 9, -127, 127).astype(dtype)
    rows[~rows.any(axis=1), 0] = 1
    width = padded(dimension)
    center = (0.1 * rng.standard_normal(width)).astype(np.float32)
    found = listing.Listing(metric, dimension, 77, center)
    for count in (10, 41, 75):  # as a delta grows
        found.extend(rows, count)

    signs, bytes8, factors = listing.listed_rows(rows, metric, 77, center)
    plan, (_, arrays, _) = found.plan(75)
    codes, own, own_bytes, numbers = arrays
    at = np.arange(75)
    block, lane, slot = at // 32, at % 32, np.argsort(SLOTS)[at % 32]
    nibbles = codes.reshape(-1, width // 4, 16)[block, :, lane % 16] >> (lane // 16 * 4)[:, None]
    bits = (nibbles[:, :, None] >> np.arange(4)) & 1
    unlike = bits.reshape(75, width).astype(bool) != signs

    assert found.fits and found.count == 75 == plan[-1]
    assert unlike.mean() < 1e-3  # coordinates at the centre, which rounding tells apart
    off = own_bytes.reshape(-1, width)[:75].astype(int) - bytes8
    assert np.abs(off).max() <= 1 and (off != 0).mean() < 1e-2
    own = own.reshape(-1, 3, 32)
    scale = np.abs(factors[1]).max()
    for each, (expected, tolerance) in enumerate(zip(factors, (3e-3, 1e-3, 1e-2), strict=True)):
        assert np.abs(own[block, each, slot] - expected).max() <= tolerance * scale
    assert np.isposinf(own[2, 0, np.argsort(SLOTS)[11:]]).all()  # lanes without a row
    wide = rows.astype(np.float64)
    squares = np.ones(75) if metric == "cosine" else np.einsum("ij,ij->i", wide, wide)
    assert np.allclose(numbers[1, :75], squares, rtol=1e-4)


@pytest.mark.parametrize("length", [1e13, 1e-11])
def test_rows_of_lengths_that_float32_has_no_squares_of_are_refused(length: float) -> None:
    rows = np.ones((70, 8), np.float32)
    rows[40, :] = 0
    rows[40, 0] = length
    found = listing.Listing("l2", 8, 77, np.zeros(64, np.float32))
    found.extend(rows, 40)
    assert found.fits

    found.extend(rows, 70)
    found.extend(rows, 70)

    assert not found.fits and found.count == 40
    of_length_one = listing.Listing("cosine", 8, 77, np.zeros(64, np.float32))
    of_length_one.extend(rows, 70)
    assert of_length_one.fits


def beside_lists(
    path: Path, monkeypatch: pytest.MonkeyPatch, rows: np.ndarray, listed: int, declared: str
) -> m2mdb.Collection:
    """The rows in a collection: the first ones in lists, the others in a delta that stays one."""
    monkeypatch.setattr(hrm2, "LEAST_ROWS", 600)
    monkeypatch.setattr(hrm2, "LEAST_MEASURED", 1 << 30)
    monkeypatch.setattr("m2mdb.index.costs.ROW", 1.0)
    monkeypatch.setattr(merge_policy, "LEAST_CHANGED", 1 << 30)
    con = m2mdb.connect(path / "a.m2m", autocommit=True)
    con.execute(f"CREATE COLLECTION n (id INTEGER PRIMARY KEY, e {declared})")
    con.execute("CREATE INDEX near ON n USING hrm2 (e)")
    notes = con.collection("n")
    notes.add({"id": np.arange(listed), "e": rows[:listed]})
    for start in range(listed, len(rows), 100):
        notes.add({"id": np.arange(start, start + 100), "e": rows[start : start + 100]})
    return notes


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "i8"])
def test_searches_beside_lists_find_the_rows_of_the_delta(
    metric: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    kind = {"f32": np.float32, "f16": np.float16, "i8": np.int8}[dtype]
    centers = rng.standard_normal((12, 96)) * 6 + 2  # the mean is not zero
    rows = centers[rng.integers(0, 12, 2700)] + rng.standard_normal((2700, 96)) * 5
    rows = np.clip(np.rint(rows), -127, 127).astype(kind)
    declared = f"VECTOR(96, {dtype}) METRIC {metric}"
    notes = beside_lists(tmp_path, monkeypatch, rows, 1000, declared)
    notes.delete(list(range(1500, 1600)))
    used: list[int] = []
    made = HeldSearch.__init__

    def noted(self: HeldSearch, k: int, how: Any) -> None:
        used.append(int(how.plan.parts_of_call()[0][LISTED]))
        made(self, k, how)

    monkeypatch.setattr(HeldSearch, "__init__", noted)
    picked = rng.integers(0, 2700, 40)
    queries = rows[picked].astype(np.float32) + 3 * rng.standard_normal((40, 96)).astype(np.float32)
    for k in (1, 10, 64):
        for query in queries:
            every = notes.search(near=query, k=k, exact=True, returning=["id"])
            # of the delta nothing is missing, however little is probed
            few = notes.search(near=query, k=k, probes=1, returning=["id"])
            wanted = [i for i in every.ids.tolist() if i >= 1000]
            assert set(wanted) <= set(few.ids.tolist())
            alone = notes.search(near=query, k=k, probes=1)
            assert alone.ids.tolist() == few.ids.tolist()
    assert used and all(used)
    notes.connection.close()


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("spread", ["few values", "noise"])
def test_rows_near_one_point_far_from_zero_are_found(
    metric: str, spread: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rounding of the query's table errs goes with the query, not with its distance."""
    rng = np.random.default_rng(10)
    rows = np.full((1400, 640), 7.0)
    rows += rng.random(rows.shape) < 0.01 if spread == "few values" else (
        0.02 * rng.standard_normal(rows.shape)
    )  # fmt: skip
    rows = rows.astype(np.float32)
    notes = beside_lists(tmp_path, monkeypatch, rows, 800, f"VECTOR(640) METRIC {metric}")
    lost = 0
    for query in rows[rng.integers(0, 1400, 24)]:
        every = notes.search(near=query, k=200, exact=True, returning=["id"])
        few = notes.search(near=query, k=200, probes=64, returning=["id"])
        lost += len({i for i in every.ids.tolist() if i >= 800} - set(few.ids.tolist()))
    notes.connection.close()

    assert lost == 0


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_batch_finds_the_rows_of_a_delta_that_its_queries_find_alone(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    rows = (rng.standard_normal((1900, 70)) + 0.5).astype(np.float32)
    notes = beside_lists(tmp_path, monkeypatch, rows, 900, f"VECTOR(70) METRIC {metric}")
    notes.delete(list(range(1000, 1040)))
    calls: list[int] = []
    answer_many_listed = search_kernels.answer_many_listed

    def noted(*arguments: Any) -> None:
        calls.append(len(arguments[4]))
        answer_many_listed(*arguments)

    monkeypatch.setattr(search_kernels, "answer_many_listed", noted)
    queries = rows[rng.integers(0, 1900, 50)] + rng.standard_normal((50, 70)).astype(np.float32)
    if metric != "cosine":
        queries[3] *= np.float32(1e13)  # longer than lists are searched for
    for k in (1, 10, 50):
        ids, scores = notes.search_batch(queries, k=k)
        for each, query in enumerate(queries):
            alone = notes.search(near=query, k=k)
            assert ids[each].tolist() == alone.ids.tolist()
            assert scores[each].tolist() == alone.scores.tolist()
    notes.connection.close()

    assert calls == [50, 50, 50]
