"""load and recover: NEW is a new file that stays, whatever the way it is named in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import m2mdb
from m2mdb.cli import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=["load", "recover"])
def make(request: pytest.FixtureRequest, path: Path, tmp_path: Path) -> list[str]:
    """The command with NEW to be put in the place of ''."""
    con = m2mdb.connect(path, autocommit=True, compute="numpy")
    con.execute("CREATE COLLECTION n (id INTEGER PRIMARY KEY)")
    con.execute("INSERT INTO n VALUES (1), (2)")
    con.close()
    assert run(["dump", str(path), "--output", str(tmp_path / "n.sql")]) == 0
    if request.param == "load":
        return ["load", "", str(tmp_path / "n.sql")]
    return ["recover", str(path), ""]


def with_new(make: list[str], new: str) -> list[str]:
    return [new if word == "" else word for word in make]


def test_a_file_that_is_there_is_refused_as_uri_too(
    make: list[str], tmp_path: Path, capsys: Capture
) -> None:
    there = tmp_path / "there.m2m"
    con = m2mdb.connect(there, autocommit=True, compute="numpy")
    con.execute("CREATE COLLECTION other (id INTEGER)")
    con.close()
    before = there.read_bytes()
    (tmp_path / "old.m2m-wal").write_bytes(b"somebody's")

    for name in (f"{there}", f"file:{there}", f"file:{there}?mode=rwc", f"file:{tmp_path}/old.m2m"):
        assert run(with_new(make, name)) > 0
        assert "exists" in capsys.readouterr().err

    assert there.read_bytes() == before
    assert not (tmp_path / "old.m2m").exists()


def test_a_name_that_keeps_nothing_is_refused(
    make: list[str], tmp_path: Path, capsys: Capture
) -> None:
    before = sorted(os.listdir(tmp_path))
    file = f"file:{tmp_path}/new.m2m"

    for name in (":memory:", f"{file}?mode=memory", f"{file}?mode=ro", f"{file}?immutable=1"):
        assert run(with_new(make, name)) > 0
        assert "no new file" in capsys.readouterr().err

    assert sorted(os.listdir(tmp_path)) == before


def test_a_uri_names_a_new_file(make: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert run(with_new(make, f"file:{tmp_path}/new%20one.m2m")) == 0

    con = m2mdb.connect(tmp_path / "new one.m2m", read_only=True, compute="numpy")
    assert con.execute("SELECT count(*) FROM n").fetchall() == [(2,)]
    con.close()


def test_a_load_that_fails_removes_what_a_uri_named(
    path: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "bad.sql").write_text("CREATE COLLECTION bad (")

    assert run(["load", f"file:{path}", str(tmp_path / "bad.sql")]) == 1

    assert os.listdir(tmp_path) == ["bad.sql"]


@pytest.mark.parametrize("name", ["\ud800", "x\0", "file:%00", "file:\ud800"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    con = m2mdb.connect(":memory:", autocommit=True, compute="numpy")
    for use in (m2mdb.connect, con.backup, lambda name: con.execute("VACUUM INTO ?", (name,))):
        with pytest.raises(m2mdb.Error):
            use(name)
    con.close()
