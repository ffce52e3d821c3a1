"""Bad input: the right error, which names value, limit and place; nothing written; usable after."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb

NAN, INF = float("nan"), float("inf")


def state(notes: m2mdb.Collection) -> list[Any]:
    rows = notes.connection.execute("SELECT id, body, topic, stars FROM notes ORDER BY id")
    return [*rows.fetchall(), len(notes.search(near=[1.0, 0.0])), len(notes.search(match="red"))]


@pytest.fixture
def unchanged(notes: m2mdb.Collection) -> Any:
    """The connection is usable, in no transaction, and holds what it held."""
    before = state(notes)
    yield notes
    assert not notes.connection.in_transaction
    assert state(notes) == before
    notes.add({"id": "new", "body": "fig", "embedding": [1.0, 1.0]})
    assert notes.count() == 5


BAD_VECTORS = [
    ([1.0, 2.0, 3.0], "3", "2"),
    ([1.0], "1", "2"),
    ([NAN, 1.0], "(?i)nan|finite", ""),
    ([INF, 1.0], "(?i)inf|finite", ""),
    ([0.0, 0.0], "(?i)zero", "cosine"),
    ([[1.0, 0.0]], "", ""),
    ("text", "", ""),
    (1.5, "", ""),
    (b"\0\0\0", "", ""),
]


@pytest.mark.parametrize(("vector", "found", "wanted"), BAD_VECTORS)
def test_a_bad_vector_is_refused_everywhere(
    unchanged: m2mdb.Collection, vector: Any, found: str, wanted: str
) -> None:
    con = unchanged.connection
    for use in (
        lambda: unchanged.add({"id": "e", "embedding": vector}),
        lambda: unchanged.add({"id": ["e", "f"], "embedding": [[1.0, 0.0], vector]}),
        lambda: unchanged.update("a", {"embedding": vector}),
        lambda: _rolled_back(con, "INSERT INTO notes (id, embedding) VALUES (?, ?)", ("e", vector)),
        lambda: _rolled_back(con, "UPDATE notes SET embedding = ?", (vector,)),
    ):
        with pytest.raises((m2mdb.DataError, m2mdb.InterfaceError)) as caught:
            use()
        _says(caught.value, found, wanted, "embedding")


@pytest.mark.parametrize(("vector", "found", "wanted"), BAD_VECTORS)
def test_a_bad_query_vector_is_refused(
    unchanged: m2mdb.Collection, vector: Any, found: str, wanted: str
) -> None:
    for use in (
        lambda: unchanged.search(near=vector),
        lambda: unchanged.search_batch(near=[vector]),
        lambda: unchanged.connection.execute("SEARCH notes NEAR ? K 1", (vector,)),
    ):
        with pytest.raises((m2mdb.DataError, m2mdb.InterfaceError)) as caught:
            use()
        _says(caught.value, found, wanted)


def _says(error: Exception, *words: str) -> None:
    for word in words:
        assert re.search(word, str(error), re.IGNORECASE), f"{error!r} does not say {word!r}"


def _rolled_back(con: m2mdb.Connection, statement: str, parameters: Any) -> None:
    try:
        con.execute(statement, parameters)
    finally:
        con.rollback()


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({"id": "a"}, m2mdb.IntegrityError, ("a", "id")),
        ({"id": ["e", "e"]}, m2mdb.IntegrityError, ("e", "id")),
        ({"id": "e", "title": "x"}, m2mdb.ProgrammingError, ("title", "notes")),
        ({"id": "e", "bdoy": "x"}, m2mdb.ProgrammingError, ("bdoy", "body")),
        ({"id": "e", "stars": "many"}, m2mdb.DataError, ("stars", "many")),
        ({"id": "e", "stars": 1.5}, m2mdb.DataError, ("stars", "1.5")),
        ({"id": "e", "stars": 2**63}, m2mdb.DataError, ("stars", str(2**63))),
        ({"id": "e", "body": b"\xff"}, m2mdb.DataError, ("body",)),
        ({"id": "e", "body": object()}, (m2mdb.DataError, m2mdb.InterfaceError), ("body",)),
        ({"id": ["e", "f"], "stars": [1]}, m2mdb.DataError, ("id 2", "stars 1")),
        (17, m2mdb.InterfaceError, ("int",)),
    ],
)
def test_a_bad_row_is_refused(
    unchanged: m2mdb.Collection,
    row: Any,
    error: type[Exception] | tuple[type[Exception], ...],
    words: tuple[str, ...],
) -> None:
    with pytest.raises(error) as caught:
        unchanged.add(row)

    _says(caught.value, *words)


def test_ragged_vectors_are_refused(unchanged: m2mdb.Collection) -> None:
    with pytest.raises(m2mdb.DataError) as caught:
        unchanged.add({"id": ["e", "f"], "embedding": [[1.0, 0.0], [1.0]]})
    _says(caught.value, "embedding")
    with pytest.raises(m2mdb.DataError) as caught:
        unchanged.add({"id": ["e", "f"], "embedding": np.ones((2, 3))})
    _says(caught.value, "3", "2")
    with pytest.raises(m2mdb.DataError):
        unchanged.search_batch(near=[[1.0, 0.0], [1.0]])


@pytest.mark.parametrize("k", [10**12, 2**62, 2**63 - 1])
@pytest.mark.parametrize("text", [None, "apple"])
def test_a_batch_too_large_for_memory_names_its_k(
    unchanged: m2mdb.Collection, k: int, text: str | None
) -> None:
    match = None if text is None else [text] * 2
    with pytest.raises(m2mdb.OperationalError) as caught:
        unchanged.search_batch(near=[[1.0, 0.0], [0.0, 1.0]], match=match, k=k)
    _says(caught.value, f"{k:,}", "2 queries", "4 rows", "notes")


def test_a_k_beyond_int64_is_not_called_untrusted(unchanged: m2mdb.Collection) -> None:
    for use in (
        lambda: unchanged.search(near=[1.0, 0.0], k=2**63),
        lambda: unchanged.search(match="red", k=2**63 - 1, offset=1),
        lambda: unchanged.search_batch(near=[[1.0, 0.0]], k=2**63),
    ):
        with pytest.raises(m2mdb.ProgrammingError) as caught:
            use()
        _says(caught.value, f"{2**63:,}", f"{2**63 - 1:,}")
        assert "untrusted" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_very_long_vectors_give_no_warnings_of_numpy(con: m2mdb.Connection) -> None:
    con.execute("CREATE COLLECTION far (id INTEGER PRIMARY KEY, v VECTOR(3) METRIC l2)")
    far = con.collection("far")
    far.add({"id": [1, 2, 3], "v": np.eye(3)})
    long = np.full(3, 1e38, np.float32)
    assert len(con.execute("SEARCH far NEAR v [1e38, 1e38, 1e38]").fetchall()) == 3
    assert len(far.search(near=long)) == len(far.search(near=long.tolist(), exact=True)) == 3
    assert (far.search_batch(near=np.stack([long, -long]), k=3)[0] > 0).all()
    for statement in (
        "SEARCH far NEAR v [1e39, 0, 0]",
        "INSERT INTO far VALUES (4, [1e39, 0, 0])",
        "UPDATE far SET v = [1e39, 0, 0]",
    ):
        with pytest.raises(m2mdb.DataError) as caught:
            con.execute(statement)
        _says(caught.value, r"1e\+39", "float32")
    con.rollback()


@pytest.mark.parametrize(
    ("statement", "parameters", "error", "words"),
    [
        ("SELECT * FROM nowhere", (), m2mdb.ProgrammingError, ("nowhere",)),
        ("SELECT title FROM notes", (), m2mdb.ProgrammingError, ("title",)),
        ("SELEC * FROM notes", (), m2mdb.ProgrammingError, ("SELEC",)),
        ("", (), m2mdb.ProgrammingError, ()),
        ("SELECT ?", (), m2mdb.ProgrammingError, ("1", "0")),
        ("SELECT ?", (1, 2), m2mdb.ProgrammingError, ("1", "2")),
        ("SELECT :a", {"b": 1}, m2mdb.ProgrammingError, ("a",)),
        ("SELECT :a", (), m2mdb.ProgrammingError, ()),
        ("SELECT ?, :a", (1,), m2mdb.ProgrammingError, ()),
        ("SELECT ?", "x", m2mdb.InterfaceError, ("str",)),
        ("SELECT ?", 5, m2mdb.InterfaceError, ("int",)),
        ("SEARCH notes NEAR [1, 0] K 0", (), m2mdb.ProgrammingError, ("K", "0")),
        ("SEARCH notes NEAR [1, 0] K -1", (), m2mdb.ProgrammingError, ("K",)),
        ("SEARCH notes K 1", (), m2mdb.ProgrammingError, ("NEAR",)),
        ("SEARCH notes MATCH '\"open' K 1", (), m2mdb.ProgrammingError, ()),
        ("PRAGMA no_such_pragma", (), m2mdb.ProgrammingError, ("no_such_pragma",)),
        ("CREATE COLLECTION t (score REAL)", (), m2mdb.ProgrammingError, ("score",)),
        ("CREATE COLLECTION t (v VECTOR(0))", (), m2mdb.ProgrammingError, ("0",)),
        ("CREATE COLLECTION notes (a TEXT)", (), m2mdb.ProgrammingError, ("notes",)),
        ("INSERT INTO notes (id) VALUES ('a')", (), m2mdb.IntegrityError, ("a",)),
        ("INSERT INTO notes (id) VALUES ('e', 'f')", (), m2mdb.ProgrammingError, ()),
        ("ROLLBACK TO nowhere", (), m2mdb.ProgrammingError, ("nowhere",)),
        ("VACUUM INTO ?", (5,), m2mdb.ProgrammingError, ("5",)),
    ],
)
def test_a_bad_statement_is_refused(
    unchanged: m2mdb.Collection,
    statement: str,
    parameters: Any,
    error: type[Exception],
    words: tuple[str, ...],
) -> None:
    with pytest.raises(error) as caught:
        _rolled_back(unchanged.connection, statement, parameters)

    _says(caught.value, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"near": [1.0, 0.0], "k": 0}, ("k", "0")),
        ({"near": [1.0, 0.0], "k": -3}, ("-3",)),
        ({"near": [1.0, 0.0], "offset": -1}, ("offset", "-1")),
        ({"near": [1.0, 0.0], "fusion": "magic"}, ("magic",)),
        ({"near": [1.0, 0.0], "recall": 1.5}, ("recall", "1.5")),
        ({"near": [1.0, 0.0], "score": "best"}, ("best",)),
        ({"near": [1.0, 0.0], "where": "title = 1"}, ("title",)),
        ({"near": [1.0, 0.0], "where": "stars = ?"}, ("1", "0")),
        ({"near": [1.0, 0.0], "returning": ["title"]}, ("title",)),
        ({"match": '"open'}, ()),
        ({}, ("near|NEAR",)),
    ],
)
def test_a_bad_search_is_refused(
    unchanged: m2mdb.Collection, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(m2mdb.ProgrammingError) as caught:
        unchanged.search(**options)

    _says(caught.value, *words)


@pytest.mark.parametrize("options", [{"match": 5}, {"near": [1.0, 0.0], "k": "ten"}])
def test_wrong_argument_types_are_refused(
    unchanged: m2mdb.Collection, options: dict[str, Any]
) -> None:
    with pytest.raises((m2mdb.InterfaceError, m2mdb.ProgrammingError)):
        unchanged.search(**options)


def test_near_needs_to_know_its_column(con: m2mdb.Connection) -> None:
    two = con.create_collection("two", {"v": "VECTOR(2)", "w": "VECTOR(2)"})
    none = con.create_collection("none", {"a": "TEXT FULLTEXT"})

    for collection in (two, none):
        with pytest.raises(m2mdb.ProgrammingError):
            collection.search(near=[1.0, 0.0])
    with pytest.raises(m2mdb.ProgrammingError):
        two.search(match="x")


def test_a_collection_that_was_dropped_is_named(
    con: m2mdb.Connection, notes: m2mdb.Collection
) -> None:
    con.execute("DROP COLLECTION notes")
    con.commit()

    for use in (notes.count, lambda: notes.add({"id": "e"}), lambda: notes.search(match="x")):
        with pytest.raises(m2mdb.ProgrammingError, match="notes"):
            use()
    assert "notes" in repr(notes)


def test_a_text_of_10_mb_is_stored_and_found(con: m2mdb.Connection) -> None:
    texts = con.create_collection("texts", {"id": "INTEGER PRIMARY KEY", "body": "TEXT FULLTEXT"})
    text = "word " * 2_000_000 + "needle"
    texts.add({"id": 1, "body": text})

    assert texts.search(match="needle").ids.tolist() == [1]
    row = texts.get(1)
    assert row is not None
    assert row.body == text


# ---------------------------------------------------------------- files


def refused(path: Path, error: type[Exception], *words: str, **options: Any) -> None:
    """Opening fails, says why, and changes nothing in the folder."""

    def contents() -> dict[str, bytes | None]:
        return {
            entry.name: entry.read_bytes() if entry.is_file() else None
            for entry in path.parent.iterdir()
        }

    before = contents()
    with pytest.raises(error) as caught:
        m2mdb.connect(path, **options).execute("SELECT 1")
    _says(caught.value, path.name.replace(".", r"\."), *words)
    assert contents() == before


@pytest.mark.parametrize(
    "content",
    [b"x", b"SQLite format 3\0" + bytes(4080), b"\xff" * 8192, b"m2mdb" * 10],
    ids=["one byte", "SQLite", "ones", "short"],
)
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    refused(path, m2mdb.CorruptDatabaseError, "(?i)not a database|truncated|checksum")


@pytest.mark.parametrize("keep", [100, 600, 4096, 5000, -4096, -1])
def test_a_truncated_file_is_refused(path: Path, notes: m2mdb.Collection, keep: int) -> None:
    notes.connection.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])

    with pytest.raises(m2mdb.CorruptDatabaseError) as caught:
        con = m2mdb.connect(path)
        rows = con.execute("PRAGMA integrity_check").fetchall()
        con.close()
        if rows != [("ok",)]:
            raise m2mdb.CorruptDatabaseError(f"{path}: {rows}")
    _says(caught.value, r"memory\.m2m")


def test_a_newer_format_is_refused(path: Path, notes: m2mdb.Collection) -> None:
    notes.connection.close()
    from m2mdb.pager.header import Header

    raw = path.read_bytes()
    header = Header.decode(raw, str(path))
    header.format_read = header.format_write = 99
    new = header.encode()
    path.write_bytes(new + raw[len(new) :])

    refused(path, m2mdb.NotSupportedError, "99")


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()

    refused(path, m2mdb.OperationalError, "(?i)directory")


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(m2mdb.OperationalError, match=r"absent/a\.m2m"):
        m2mdb.connect(tmp_path / "absent" / "a.m2m")


def test_no_permission_is_told(path: Path, notes: m2mdb.Collection) -> None:
    notes.connection.close()
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may open anything
    try:
        with pytest.raises(m2mdb.OperationalError, match=r"(?i)permission"):
            m2mdb.connect(path)
    finally:
        os.seteuid(user)
        path.chmod(0o600)


def test_a_file_copied_without_its_log_is_refused(path: Path, notes: m2mdb.Collection) -> None:
    copy = path.with_name("copy.m2m")
    shutil.copyfile(path, copy)

    refused(copy, m2mdb.DatabaseError, "log|wal")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: m2mdb.connect(path, timeout=-1.0),
        lambda path: m2mdb.connect(f"file:{path}?mode=none"),
        lambda path: m2mdb.connect(path, page_size=12),
    ],
)
def test_a_refused_connect_changes_no_file(
    path: Path, notes: m2mdb.Collection, make: Callable[[Path], Any]
) -> None:
    notes.connection.close()
    before = path.read_bytes()
    with pytest.raises(m2mdb.Error):
        make(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("rows", [20, 2000])
def test_a_full_disk_is_told_and_undone(path: Path, notes: m2mdb.Collection, rows: int) -> None:
    before = state(notes)
    largest = max(file.stat().st_size for file in path.parent.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(m2mdb.OperationalError, match=r"memory\.m2m"):
            for first in range(0, 10**6, rows):
                ids = [f"e{first + i}" for i in range(rows)]
                notes.add({"id": ids, "body": ["x" * 5000] * rows})
                before = state(notes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert not notes.connection.in_transaction
    assert state(notes) == before
    notes.add({"id": "after", "body": "fig"})
    notes.connection.close()
    con = m2mdb.connect(path)
    assert con.collection("notes").get("after") is not None
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
