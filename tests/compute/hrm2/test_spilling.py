"""Spilling: of many rows, those keep a second code whose residuals differ the most."""

from __future__ import annotations

import numpy as np
import pytest

from m2mdb.compute.hrm2 import spilling
from m2mdb.compute.hrm2.spilling import sparing
from m2mdb.compute.hrm2.training import assign, train


def test_few_rows_keep_all_and_many_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((9000, 24)).astype(np.float32)
    rows[50] = 0
    router = train(rows, 60, 1)
    first, second = assign(router, rows, spill=True)
    assert second is not None
    assert sparing(rows, router.centers, first, second) is second
    monkeypatch.setattr(spilling, "MANY", 5000)
    kept = sparing(rows, router.centers, first, second)
    chosen = kept >= 0
    assert chosen.mean() == pytest.approx(spilling.KEPT, abs=0.01)
    assert np.array_equal(kept[chosen], second[chosen])
    one, other = rows - router.centers[first], rows - router.centers[second]
    cosines = (
        (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    )
    assert cosines[chosen].max() <= cosines[~chosen].min() + 1e-4
    second[:8000] = -1
    some = sparing(rows, router.centers, first, second)
    assert (some[:8000] == -1).all()
    assert np.array_equal(some[8000:], second[8000:])
