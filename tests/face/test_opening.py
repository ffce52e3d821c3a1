"""Opening: paths, URIs, memory, modes and wrong arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import m2mdb
from m2mdb.opening import target


@pytest.mark.parametrize(
    ("name", "path", "mode", "immutable", "no_lock"),
    [
        (":memory:", ":memory:", "memory", False, False),
        ("/x/a.m2m", "/x/a.m2m", "rwc", False, False),
        ("file:/x/a.m2m", "/x/a.m2m", "rwc", False, False),
        ("file:///x/a.m2m?mode=ro", "/x/a.m2m", "ro", False, False),
        ("file://localhost/x/a%20b.m2m?mode=rw", "/x/a b.m2m", "rw", False, False),
        ("file:/x/a.m2m?mode=ro&immutable=1&nolock=1", "/x/a.m2m", "ro", True, True),
        ("file:anything?mode=memory", ":memory:", "memory", False, False),
        ("file::memory:", ":memory:", "memory", False, False),
    ],
)
def test_meaning_of_a_name(name: str, path: str, mode: str, immutable: bool, no_lock: bool) -> None:
    found = target(name)

    assert (found.path, found.mode) == (path, mode)
    assert (found.immutable, found.no_lock) == (immutable, no_lock)


def test_relative_paths_are_bound_to_the_folder_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert target("a.m2m").path == str(tmp_path / "a.m2m")
    assert target("file:a.m2m?mode=ro").path == str(tmp_path / "a.m2m")
    assert target("file:a.m2m", uri=False).path == str(tmp_path / "file:a.m2m")
    assert target(Path("a.m2m"), read_only=True).mode == "ro"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (17, "the path is int"),
        (b"a.m2m", "the path is bytes"),
        ("", "the path is empty"),
        ("a\0b", "null character"),
        ("file:a?mode=rx", "mode 'rx' is not"),
        ("file:a?modus=ro", "unknown option 'modus'"),
        ("file:a?immutable=maybe", "immutable is 'maybe'"),
        ("file://elsewhere/a", "authority 'elsewhere'"),
        ("file:?mode=ro", "the path is empty"),
    ],
)
def test_wrong_names_are_refused(name: Any, message: str) -> None:
    with pytest.raises(m2mdb.InterfaceError, match=message):
        m2mdb.connect(name)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout": "5"}, m2mdb.InterfaceError, "timeout is str"),
        ({"timeout": -1}, m2mdb.ProgrammingError, "timeout -1"),
        ({"page_size": 1000}, m2mdb.ProgrammingError, "page_size 1000"),
        ({"synchronous": "maybe"}, m2mdb.ProgrammingError, "synchronous 'maybe'"),
        ({"compute": "abacus"}, m2mdb.ProgrammingError, "abacus"),
    ],
)
def test_wrong_options_are_refused_and_no_file_is_made(
    path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        m2mdb.connect(path, **options)

    assert not path.exists()


def test_a_database_in_memory_is_its_connection_s_own(tmp_path: Path) -> None:
    one, other = m2mdb.connect(":memory:"), m2mdb.connect(":memory:")
    one.create_collection("t", {"a": "INTEGER"}).add({"a": [1, 2]})

    assert one.collection("t").count() == 2
    assert other.collections() == []
    assert list(tmp_path.iterdir()) == []
    one.close()
    other.close()


def test_mode_rw_makes_no_file(path: Path) -> None:
    with pytest.raises(m2mdb.OperationalError, match=r"memory\.m2m"):
        m2mdb.connect(f"file:{path}?mode=rw")

    assert not path.exists()


def test_mode_ro_reads_and_refuses_to_write(path: Path, notes: m2mdb.Collection) -> None:
    reader = m2mdb.connect(f"file:{path}?mode=ro")

    assert reader.collection("notes").count() == 4
    with pytest.raises(m2mdb.OperationalError, match="reading only"):
        reader.execute("DELETE FROM notes")
    with pytest.raises(m2mdb.OperationalError, match="reading only"):
        reader.collection("notes").delete("a")
    assert reader.collection("notes").count() == 4
    reader.close()


def test_immutable_needs_no_shared_memory(path: Path, notes: m2mdb.Collection) -> None:
    notes.connection.close()
    before = sorted(path.parent.iterdir())

    reader = m2mdb.connect(f"file:{path}?immutable=1")

    assert reader.collection("notes").count() == 4
    assert sorted(path.parent.iterdir()) == before
    reader.close()


def test_a_clean_close_leaves_one_file(path: Path, notes: m2mdb.Collection) -> None:
    notes.connection.close()

    assert [file.name for file in path.parent.iterdir()] == ["memory.m2m"]


def test_page_size_is_the_file_s(path: Path) -> None:
    con = m2mdb.connect(path, page_size=16384)
    con.create_collection("t", {"a": "TEXT"})
    con.close()

    con = m2mdb.connect(path, page_size=4096)

    assert con.execute("PRAGMA page_size").fetchone() == (16384,)
    con.close()
