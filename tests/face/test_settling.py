"""What is written in bulk is synced on the way (EW3): the sync that ends it is short.

No interrupt is looked for within a sync; that of a file to which a gigabyte was written would take
the system a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import m2mdb
from m2mdb.pager import extent_writer
from m2mdb.pager.os_vfs import OsFile

SETTLED = 1 << 18
PART = 1 << 22  # the largest part that is written at once
ROWS = 8_000
Work = Callable[[m2mdb.Connection, Path], object]


class Syncs:
    """The bytes that were written before each sync of a file; at one of them it fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written = 0
        self.before: list[int] = []
        self.fails_at = 0
        write, sync = OsFile.write_at, OsFile.sync

        def noted_write(file: OsFile, offset: int, data: bytes) -> None:
            self.written += len(data)
            write(file, offset, data)

        def noted_sync(file: OsFile) -> None:
            self.before.append(self.written)
            self.written = 0
            if len(self.before) == self.fails_at:
                raise m2mdb.OperationalError("the disk is gone")
            sync(file)

        monkeypatch.setattr(OsFile, "write_at", noted_write)
        monkeypatch.setattr(OsFile, "sync", noted_sync)
        monkeypatch.setattr(extent_writer, "SETTLED_BYTES", SETTLED)


@pytest.fixture
def con(tmp_path: Path) -> Iterator[m2mdb.Connection]:
    con = m2mdb.connect(tmp_path / "x.m2m")
    con.execute("CREATE TABLE v (id INTEGER PRIMARY KEY, body BLOB)")
    con.execute("CREATE TABLE i (word TEXT)")
    con.execute("CREATE INDEX i_word ON i (word)")
    _add(con, tmp_path)
    con.collection("i").add({"word": [f"word {number}" for number in range(20_000)]})
    con.execute("DELETE FROM v WHERE id % 3 = 0")
    con.commit()
    yield con
    with contextlib.suppress(m2mdb.InterfaceError):  # a test has closed it
        con.close()


def _add(con: m2mdb.Connection, folder: Path) -> object:
    return con.collection("v").add({"body": [bytes([row % 256]) * 2048 for row in range(ROWS)]})


WORK: dict[str, Work] = {
    "add": _add,
    "backup": lambda con, folder: con.backup(folder / "copy.m2m"),
    "VACUUM INTO": lambda con, folder: con.execute(f"VACUUM INTO '{folder}/copy.m2m'"),
    "OPTIMIZE": lambda con, folder: con.execute("OPTIMIZE v"),
}


@pytest.mark.parametrize("name", WORK)
def test_little_is_written_between_two_syncs(
    con: m2mdb.Connection, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    WORK[name](con, tmp_path)
    con.commit()
    assert max(syncs.before) < SETTLED + PART
    assert sum(syncs.before) > 8 << 20
    assert syncs.before[-1] < SETTLED + (1 << 18)


def test_nothing_is_synced_where_the_program_wants_none(
    con: m2mdb.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    con.execute("PRAGMA synchronous = off")
    syncs = Syncs(monkeypatch)
    _add(con, tmp_path)
    con.commit()
    assert syncs.before == []
    assert syncs.written > 10 << 20


@pytest.mark.parametrize("name", WORK)
def test_a_sync_that_fails_on_the_way_leaves_nothing_behind(
    con: m2mdb.Connection, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = con.execute("SELECT count(*), sum(id) FROM v").fetchall()
    con.rollback()
    with monkeypatch.context() as patched:
        syncs = Syncs(patched)
        syncs.fails_at = 3
        with pytest.raises(m2mdb.OperationalError, match="the disk is gone"):
            WORK[name](con, tmp_path)
    assert not (tmp_path / "copy.m2m").exists()
    con.close()
    with m2mdb.connect(tmp_path / "x.m2m") as again:
        found = again.execute("SELECT count(*), sum(id) FROM v").fetchall()
        assert found == before
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again.close()
