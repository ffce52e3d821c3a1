"""Hits of a compiled text search: the best of many, in order; and places of rows in bitmaps."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.loader import LOADER


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    """The compiled kernels, which these tests are about."""
    assert LOADER.wait(300), LOADER.error


@pytest.mark.parametrize("values", [1, 3, 1000])
@pytest.mark.parametrize("k", [1, 2, 3, 10, 64, 100, 257])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_the_best_hits_come_in_order_whatever_came_before(k: int, values: int, piece: int) -> None:
    from m2mdb.compute.text_hits import heap_hits, order_hits, push
    from m2mdb.compute.text_scratch import HEAP_ROOT, PROGRESS

    random = np.random.default_rng(k)
    for size in {0, 1, k // 2, max(k - 1, 0), k, k + 1, 5 * k}:
        scores = random.integers(0, values, size).astype(np.float32)
        rowids = random.permutation(3 * size)[:size]
        hits = np.empty(k, np.float32), np.empty(k, np.int64), np.empty((2, k), np.int64)
        found, progress = 0, np.zeros(PROGRESS, np.int64)
        for number in range(size):
            one = (scores[number], int(rowids[number]))
            if found == k and (hits[0][0], -hits[1][0]) > (one[0], -one[1]):
                continue
            push(hits, found, *one, number % 7, number)
            found = min(found + 1, k)
            if number == k - 1:
                progress[HEAP_ROOT] = k // 2
                while progress[HEAP_ROOT]:
                    assert heap_hits(hits, progress.ctypes.data, piece) >= 0
        keys, pieces = np.empty(2 * k, np.int64), 1
        while not order_hits(hits, found, keys.ctypes.data, progress.ctypes.data, piece):
            pieces += 1

        assert not progress.any()
        assert pieces >= (1 + (found - 1).bit_length()) * found // piece
        best = np.lexsort((rowids, -scores))[:k]
        assert found == len(best)
        assert hits[0][:found].tolist() == scores[best].tolist()
        assert hits[1][:found].tolist() == rowids[best].tolist()
        assert hits[2][:, :found].tolist() == [(best % 7).tolist(), best.tolist()]


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
def test_a_bitmap_says_which_posting_is_of_a_row(rows: int) -> None:
    from m2mdb.compute import text_lists as lists

    random = np.random.default_rng(rows)
    for share in (0.02, 0.5, 1.0):
        docs = np.flatnonzero(random.random(rows) < share).astype(np.uint32)
        checked = np.zeros(lists.CHECKED, np.int64)
        checked[lists.DOCS], checked[lists.COUNT] = docs.ctypes.data, len(docs)
        bitmap = np.zeros(2 * -(-rows // 64), np.int64)
        lists.map_list(checked, bitmap)

        found = [lists.place_in(bitmap.ctypes.data, row) for row in range(rows)]

        expected = np.full(rows, -1)
        expected[docs] = np.arange(len(docs))
        assert found == expected.tolist()
