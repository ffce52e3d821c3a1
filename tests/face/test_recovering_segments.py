"""Recover: a segment that is lost together with the catalog, which alone says whose it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.index.salvage_rows import DeltaEntry
from m2mdb.index.schema import CollectionSchema
from m2mdb.recovering import recover

PAGE = 4096
ROWS = 400


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A closed file: `n` has a segment of one block and changes of it, `k` a delta alone."""
    path = tmp_path_factory.mktemp("segments") / "s.m2m"
    con = m2mdb.connect(path, autocommit=True, compute="numpy")
    con.execute("CREATE TABLE n (id INTEGER PRIMARY KEY, t TEXT, v VECTOR(4))")
    con.execute("CREATE TABLE k (key TEXT PRIMARY KEY)")
    rows = [[i, f"text {i}", [i, 1, 2, 3]] for i in range(ROWS)]
    con.collection("n").add(
        dict(zip(("id", "t", "v"), map(list, zip(*rows, strict=True)), strict=True))
    )
    con.execute("OPTIMIZE")
    con.execute("DELETE FROM n WHERE id % 5 = 0")
    con.execute("UPDATE n SET t = 'changed' WHERE id % 7 = 0")
    con.executemany("INSERT INTO k VALUES (?)", [(f"key {i}",) for i in range(50)])
    con.close()
    return path.read_bytes()


def recovered(tmp_path: Path, raw: bytes) -> dict[str, Any]:
    (tmp_path / "d.m2m").write_bytes(raw)
    new = tmp_path / "new.m2m"
    report = recover(str(tmp_path / "d.m2m"), str(new))
    new.unlink()
    return report


def test_a_lost_catalog_alone_costs_no_row_and_leaves_none_in_doubt(
    raw: bytes, tmp_path: Path
) -> None:
    damaged = bytearray(raw)
    damaged[PAGE + 200] ^= 1

    report = recovered(tmp_path, bytes(damaged))

    found = {each["name"]: each for each in report["collections"]}
    assert found["n"]["saved"] == ROWS - ROWS // 5
    assert not any(each["more_may_be_lost"] for each in found.values())


def test_rows_lost_with_catalog_and_segment_are_told_whichever_page_is_hit(
    raw: bytes, tmp_path: Path
) -> None:
    """Page 2 is the catalog; each other page is damaged with it, one after the other."""
    wanted = {"n": ROWS - ROWS // 5, "k": 50}
    lost = 0
    for page in range(2, len(raw) // PAGE):
        damaged = bytearray(raw)
        damaged[PAGE + 200] ^= 1
        damaged[page * PAGE + 200] ^= 1
        report = recovered(tmp_path, bytes(damaged))
        for each in report["collections"]:
            missing = wanted.get(each["name"], 0) - each["saved"]
            if missing > 0:
                lost += 1
                assert each["lost"] + each["lost_entries"] >= missing or each["more_may_be_lost"], (
                    f"page {page + 1}: {missing} rows of {each['name']} are untold"
                )
                assert len(report["damage"]) >= 2, f"page {page + 1}: {report['damage']}"
        assert not report["complete"]
    assert lost > 5


def test_an_entry_whose_page_verifies_and_that_fits_no_row_is_told(
    raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged page: the last entry of `k` has values that its columns cannot have."""
    original = DeltaEntry.fits

    def fits(self: DeltaEntry, schema: CollectionSchema) -> bool:
        return self.values != ["key 49"] and original(self, schema)

    monkeypatch.setattr(DeltaEntry, "fits", fits)

    report = recovered(tmp_path, raw)

    found = {each["name"]: each for each in report["collections"]}
    assert found["k"]["saved"] == 49
    assert found["k"]["more_may_be_lost"] and not report["complete"]
