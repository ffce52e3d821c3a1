"""Lists of rows as long as they may be: no fourth power of a length leaves float32.

A power of two scales rows without any rounding, so what is found must scale exactly with them.
"""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import spilling
from m2mdb.compute.hrm2.spilling import sparing
from m2mdb.compute.hrm2.training import Router, assign, train
from m2mdb.compute.hrm2.truth import exact

LONG = np.float32(2.0**36)  # rows of length 10 become as long as `index.hrm2.LARGEST` lets them be


def rows_of(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 24)).astype(np.float32)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_the_keys_that_recall_is_measured_by_are_finite_for_long_rows(metric: str) -> None:
    rows, queries = rows_of(600, 1), rows_of(20, 2)
    found = exact(rows * LONG, queries * LONG, metric, 10)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, exact(rows, queries, metric, 10) * LONG**2)


def test_long_rows_spill_into_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spilling, "MANY", 0)
    rows = rows_of(3000, 3)
    router = train(rows, 40, 5)
    assert router.middle is not None
    middle = router.middle * LONG
    long = Router(router.supers * LONG, router.centers * LONG, router.owned, router.near, middle)
    with np.errstate(all="raise"):
        first, second = assign(router, rows, spill=True)
        firsts, seconds = assign(long, rows * LONG, spill=True)
        assert second is not None
        assert seconds is not None
        kept = sparing(rows, router.centers, first, second)
        keeps = sparing(rows * LONG, long.centers, firsts, seconds)
    np.testing.assert_array_equal(firsts, first)
    np.testing.assert_array_equal(seconds, second)
    np.testing.assert_array_equal(keeps, kept)
    assert 0 < np.count_nonzero(kept < 0) < len(rows)
