"""Golden files: what an earlier build wrote opens for ever, and says what it said then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import m2mdb
from tests.golden.make import FILES, describe

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.m2m"))


def copied(name: str, folder: Path) -> Path:
    """A copy of a golden file with its log."""
    for suffix in (".m2m", ".m2m-wal"):
        if (FOLDER / (name + suffix)).exists():
            shutil.copyfile(FOLDER / (name + suffix), folder / ("copy" + suffix))
    return folder / "copy.m2m"


def expected(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Equal, but for the last bits of BM25's logarithms."""
    searches, expected_ones = found.pop("searches"), wanted.pop("searches")
    assert found == wanted
    assert len(searches) == len(expected_ones)
    for search, other in zip(searches, expected_ones, strict=True):
        assert search[:2] == other[:2]
        assert [row[0] for row in search[2]] == [row[0] for row in other[2]], search[0]
        for row, wanted_row in zip(search[2], other[2], strict=True):
            assert row[1] == (wanted_row[1] and pytest.approx(wanted_row[1], rel=1e-6)), search[0]


def test_the_golden_files_are_all_there_and_small() -> None:
    assert {name.removeprefix("format1-") for name in NAMES} >= set(FILES)
    assert sum(path.stat().st_size for path in FOLDER.glob("*.m2m*")) < 200 << 10
    assert (FOLDER / "format1-recovery.m2m-wal").stat().st_size % 4128 != 512  # its tail is torn


@pytest.mark.parametrize("mode", ["rw", "ro", "immutable"])
@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_opens_and_says_what_it_said(name: str, mode: str, tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    wanted = expected(name)
    uri = f"file:{path}?" + ("immutable=1" if mode == "immutable" else f"mode={mode}")

    with m2mdb.connect(uri) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        compare(describe(con, [search[:2] for search in wanted["searches"]]), wanted)
        con.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_is_written_further(name: str, tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    wanted = expected(name)
    with m2mdb.connect(str(path), autocommit=True) as con:
        con.execute("CREATE COLLECTION added (t TEXT FULLTEXT)")
        con.execute("INSERT INTO added VALUES ('a new row')")
        for collection in wanted["collections"]:
            con.execute(f'DELETE FROM "{collection}" WHERE rowid = 1')
        con.close()

    with m2mdb.connect(str(path)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert con.execute("SEARCH added MATCH 'new' RETURNING t").fetchall() == [("a new row",)]
        found = describe(con, [])
        con.close()
    assert found["collections"].pop("added")["rows"] == [[1, "a new row"]]
    for entry in wanted["collections"].values():
        entry["rows"] = [row for row in entry["rows"] if row[0] != 1]
    assert found["collections"] == wanted["collections"]
