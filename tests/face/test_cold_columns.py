"""The first reading of a long column verifies it piece by piece, with a look between two pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import m2mdb
from m2mdb.index import verifying
from tests.looks import Counted, at_each_look

ROWS = 40_000
READS = {
    "numbers": "SELECT sum(n) FROM t",
    "texts": "SELECT count(*) FROM t WHERE word LIKE '%77%'",
    "texts of columns": "SELECT word FROM t",
    "codes of texts": "SELECT topic, count(*) FROM t GROUP BY topic",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cold") / "x.m2m"
    with m2mdb.connect(path) as con:
        con.execute("CREATE TABLE t (word TEXT, topic TEXT, n INTEGER)")
        words = [f"word {number} of a list that is long" for number in range(ROWS)]
        topics = [f"the topic with the number {number % 7}" for number in range(ROWS)]
        con.collection("t").add({"word": words, "topic": topics, "n": np.arange(ROWS)})
    con.close()
    return path


def looks_of(
    path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[object]]:
    """How often a statement on a file just opened looks for an interrupt, and what it finds."""
    with m2mdb.connect(path) as con:
        looks = Counted()
        at_each_look(con.database, monkeypatch, looks)
        cursor = con.execute(statement)
        counted = looks.count
        found: list[object] = list(cursor.fetchall())
    con.close()
    return counted, found


@pytest.mark.parametrize("name", READS)
def test_a_cold_column_is_verified_in_pieces(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "VERIFIED_BYTES", 1 << 30)
    whole, wanted = looks_of(path, READS[name], monkeypatch)
    monkeypatch.setattr(verifying, "VERIFIED_BYTES", 1 << 13)

    cut, found = looks_of(path, READS[name], monkeypatch)

    assert cut - whole >= 8 * ROWS // (1 << 13) - 2
    assert found == wanted


def test_a_damaged_block_of_a_cold_column_is_told(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.m2m"
    raw = bytearray(path.read_bytes())
    at = raw.index(b"word 20000 of a list")
    raw[at] ^= 1
    damaged.write_bytes(raw)
    with m2mdb.connect(damaged) as con:
        with pytest.raises(m2mdb.CorruptDatabaseError, match="block"):
            con.execute(READS["texts"])
        assert con.execute(READS["numbers"]).fetchall() == [(ROWS * (ROWS - 1) // 2,)]
    con.close()
