"""Recover: what a damaged log has lost is told, and found where it is at another place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import m2mdb
from m2mdb.cli import run
from m2mdb.recovering import recover, text

ROWS = 20
HEADER = 512
FRAME = 4096 + 32


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A file whose log has twenty commits, a row each, as a kill leaves them."""
    con = m2mdb.connect(tmp_path / "open.m2m", autocommit=True, compute="numpy")
    con.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    con.execute("PRAGMA wal_checkpoint(truncate)")
    for n in range(ROWS):
        con.execute("INSERT INTO t VALUES (?)", (n,))
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"open.m2m{suffix}", tmp_path / f"left.m2m{suffix}")
    con.close()
    return tmp_path / "left.m2m"


def rows_in(path: Path) -> int:
    con = m2mdb.connect(path, compute="numpy")
    count: int = con.execute("SELECT count(*) FROM t").fetchone()[0]
    con.close()
    return count


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped": lambda log: log[:40_000] + bytes([log[40_000] ^ 1]) + log[40_001:],
    "a byte more": lambda log: log[:40_000] + b"x" + log[40_000:],
    "a byte less": lambda log: log[:40_000] + log[40_001:],
    "zeros in": lambda log: log[:40_960] + bytes(4096) + log[40_960:],
    "a page out": lambda log: log[:8192] + log[12_288:],
    "cut within a frame": lambda log: log[:40_000],
    "cut within the header": lambda log: log[:285],
    "nothing left": lambda log: b"",
}


@pytest.mark.parametrize("change", CHANGES)
def test_s3_a_log_that_has_lost_commits_is_never_called_complete(
    left: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path(f"{left}-wal")
    log.write_bytes(CHANGES[change](log.read_bytes()))
    new = left.parent / "new.m2m"

    report = recover(str(left), str(new))

    assert report["damage"] and not report["complete"] and report["commits_may_be_missing"]
    assert "no row was lost" not in text(report) and "nothing is damaged" not in text(report)
    if "cut" in change or "nothing" in change:
        assert rows_in(new) == (9 if "frame" in change else 0)
    else:
        assert rows_in(new) == ROWS  # the frames behind have newer versions of the same pages
    assert run(["recover", str(left), str(left.parent / "again.m2m")]) == 1
    assert "commits may be missing" in capsys.readouterr().out


def test_a_log_with_a_lost_header_and_all_its_frames_is_complete(left: Path) -> None:
    log = Path(f"{left}-wal")
    log.write_bytes(bytes(HEADER) + log.read_bytes()[HEADER:])

    report = recover(str(left), str(left.parent / "new.m2m"))

    assert report["damage"]
    assert rows_in(left.parent / "new.m2m") == ROWS


def test_a_log_that_was_kept_aside_is_read_until_the_file_is_written(left: Path) -> None:
    """Opening makes the damaged log void; what stands behind its break is saved all the same."""
    log = Path(f"{left}-wal")
    log.write_bytes(CHANGES["a bit flipped"](log.read_bytes()))
    with pytest.warns(m2mdb.LostCommitsWarning):
        con = m2mdb.connect(left, autocommit=True, compute="numpy")
    assert con.execute("SELECT count(*) FROM t").fetchone() == (9,)
    con.close()

    report = recover(str(left), str(left.parent / "new.m2m"))

    assert rows_in(left.parent / "new.m2m") == ROWS
    assert report["damage"] and report["commits_may_be_missing"]
    con = m2mdb.connect(left, autocommit=True, compute="numpy")
    con.execute("INSERT INTO t VALUES (100)")
    con.close()
    report = recover(str(left), str(left.parent / "later.m2m"))
    assert rows_in(left.parent / "later.m2m") == 10
    assert any("-wal-damaged-1 is not used" in each for each in report["damage"])
