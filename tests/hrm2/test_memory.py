"""PRAGMA memory_budget: mapped pages are given back, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.index import residence
from m2mdb.pager.errors import ProgrammingError
from m2mdb.pager.os_vfs import OsFile, OsVfs
from tests.hrm2.conftest import clustered, filled, found

RESIDENT = OsVfs().resident_bytes()
needs_linux = pytest.mark.skipif(
    RESIDENT is None, reason="the system does not say what is resident"
)
WIDE = 768


@pytest.fixture
def wide(tmp_path: Path, small: None) -> Path:
    """A closed file of some 20 MB."""
    filled(tmp_path / "wide.m2m", clustered(4000, WIDE)).close()
    return tmp_path / "wide.m2m"


def touch(con: m2mdb.Connection, queries: np.ndarray) -> list[list[int]]:
    return [found(con, query, k=10) for query in queries]


@needs_linux
def test_a_budget_bounds_what_is_resident_and_answers_stay(wide: Path) -> None:
    queries = clustered(4000, WIDE)[:60]
    vfs = OsVfs()

    def resident() -> int:
        bytes_ = vfs.resident_bytes()
        assert bytes_ is not None
        return bytes_

    con = m2mdb.connect(str(wide))
    before = touch(con, queries)
    full = resident()
    con.execute("PRAGMA memory_budget = 1000000")
    floor = resident()
    assert full - floor > 4_000_000
    for query, answer in zip(queries, before, strict=True):
        assert found(con, query, k=10) == answer
        assert resident() - floor <= 1_000_000 + 2_000_000  # and what the last search touched
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.execute("PRAGMA memory_budget = 0")
    assert touch(con, queries) == before
    assert resident() - floor > 4_000_000
    con.close()


@needs_linux
def test_rows_go_first_and_codes_stay_where_they_fit(
    wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = m2mdb.connect(str(wide))
    con.execute("PRAGMA memory_budget = 4000000")
    budget = con.engine().budget
    assert budget is not None
    released: list[tuple[int, int]] = []
    with con.engine().reading() as view:
        lists = next(
            segment.range_of("h.codes", 3) for segment in view.collection("notes").segments
        )
    place = (lists[0].descriptor.start_page - 1) * view.pages.page_size + lists[1]
    release = OsFile.release

    def watched(self: OsFile, offset: int, size: int) -> None:
        released.append((offset, offset + size))
        release(self, offset, size)

    monkeypatch.setattr(OsFile, "release", watched)
    budget.trim()
    assert released
    assert not any(start < place + lists[2] and place < end for start, end in released)
    budget.trim(everything=True)
    assert any(start <= place and place + lists[2] <= end for start, end in released)
    con.close()


def test_without_figures_all_goes_now_and_then(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OsVfs, "resident_bytes", lambda self: None)
    monkeypatch.setattr(residence, "UNMEASURED", 5)
    con = m2mdb.connect(str(wide))
    queries = clustered(4000, WIDE)[:12]
    before = touch(con, queries)
    con.execute("PRAGMA memory_budget = 1")
    budget = con.engine().budget
    assert budget is not None
    trims = budget.trims
    assert touch(con, queries) == before
    assert budget.trims > trims
    con.close()


@pytest.mark.parametrize("value", ["-1", "'much'", "1.5"])
def test_other_budgets_are_refused(con: m2mdb.Connection, value: str) -> None:
    with pytest.raises(ProgrammingError, match="expected bytes, 0 or more"):
        con.execute(f"PRAGMA memory_budget = {value}")
    assert con.execute("PRAGMA memory_budget").fetchone() == (0,)
    assert con.execute("PRAGMA memory_budget = 5000").fetchone() == (5000,)
    assert con.execute("PRAGMA memory_budget").fetchone() == (5000,)


def test_a_budget_in_memory_changes_nothing() -> None:
    con = m2mdb.connect(":memory:", autocommit=True)
    con.execute("PRAGMA memory_budget = 1")
    con.execute("CREATE COLLECTION t (id INTEGER PRIMARY KEY)")
    con.execute("INSERT INTO t VALUES (1)")
    for _ in range(200):
        assert con.execute("SELECT * FROM t").fetchall() == [(1,)]
    con.close()
