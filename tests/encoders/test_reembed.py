"""REEMBED: a column goes over to another encoder, row by row, and is searched all the while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb.encoders import HashingEncoder
from m2mdb.index import reembedding
from tests.encoders.conftest import Counting

SCHEMA = "body TEXT FULLTEXT, tag INTEGER, embedding VECTOR(32) FROM body ENCODER 'old'"
NEW = 48


class Stop(Exception):
    """What a test stops a migration by."""


@pytest.fixture
def old() -> Counting:
    return Counting()


@pytest.fixture
def new() -> Counting:
    return Counting(NEW, "tests/counting-2", "fedcba9876543210")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "FIRST_TEXTS", 16)
    monkeypatch.setattr(reembedding, "MOST_TEXTS", 16)


def opened(path: Path | str, *encoders: Counting, **options: Any) -> m2mdb.Connection:
    named = dict(zip(("old", "new"), encoders, strict=False))
    options = {"autocommit": True, **options}
    return m2mdb.connect(path, encoders=named, **options)


def body(number: int) -> str | None:
    return None if number % 7 == 3 else f"text number {number % 50} of many"


def filled(path: Path | str, *encoders: Counting, rows: int = 100) -> m2mdb.Connection:
    con = opened(path, *encoders)
    notes = con.create_collection("notes", SCHEMA)
    notes.add({"body": [body(at) for at in range(rows)], "tag": list(range(rows))})
    return con


def stopping(after: int) -> Callable[[int, int | None], None]:
    def progress(done: int, of: int | None) -> None:
        if done >= after:
            raise Stop

    return progress


def half_done(con: m2mdb.Connection, after: int = 40) -> None:
    with pytest.raises(Stop):
        con.collection("notes").reembed("new", progress=stopping(after))


def assert_space(con: m2mdb.Connection, dimensions: int, column: str = "embedding") -> None:
    """Every row's vector is that of its text."""
    encoder = HashingEncoder(dimensions)
    rows = con.execute(f"SELECT rowid, body, {column} FROM notes").fetchall()
    assert rows
    for rowid, text, vector in rows:
        if text is None:
            assert vector is None, rowid
        else:
            np.testing.assert_array_equal(vector, encoder.encode([text])[0], str(rowid))


def assert_sound(con: m2mdb.Connection) -> None:
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def hidden_of(con: m2mdb.Connection) -> list[str]:
    schema = con.collection("notes").schema
    return [schema.columns[index].name for index in schema.hidden_columns]


@pytest.mark.parametrize("rows", [1, 15, 16, 100, 1300])
def test_all_rows_get_the_new_vectors_and_each_text_is_encoded_once(
    path: Path, old: Counting, new: Counting, rows: int
) -> None:
    con = filled(path, old, new, rows=rows)
    before = con.execute("SELECT rowid, body, tag FROM notes ORDER BY rowid").fetchall()

    found = con.execute("REEMBED notes USING 'new'")

    texts = {text for _, text, _ in before if text is not None}
    assert [column[0] for column in found.description or ()] == [
        "collection", "column", "rows", "encoded", "dimension",
    ]  # fmt: skip
    with_text = sum(text is not None for _, text, _ in before)
    assert found.fetchall() == [("notes", "embedding", with_text, len(texts), NEW)]
    assert sorted(new.texts) == sorted(texts)
    assert con.execute("SELECT rowid, body, tag FROM notes ORDER BY rowid").fetchall() == before
    con.close()
    con = opened(path, old, new)
    assert_space(con, NEW)
    assert hidden_of(con) == []
    assert con.execute("SEARCH notes FOR ? K 1 RETURNING body", (body(0),)).fetchall() == [
        (body(0),)
    ]
    con.collection("notes").add({"body": ["a row that came later"], "tag": [-1]})
    assert_space(con, NEW)
    assert_sound(con)


def test_a_stopped_migration_goes_on_where_it_stopped(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    half_done(con)
    con.close()
    first = len(new.texts)

    con = opened(path, old, new)
    assert hidden_of(con) == ["embedding_next"]
    assert_sound(con)
    done: list[tuple[int, int | None]] = []
    con.collection("notes").reembed("new", progress=lambda at, of: done.append((at, of)))

    assert 0 < first < 50
    assert len(new.texts) == len(set(new.texts)) == len({body(at) for at in range(100)} - {None})
    assert [at for at, _ in done] == sorted(at for at, _ in done)
    assert done[-1][0] == done[-1][1]
    assert_space(con, NEW)
    assert_sound(con)


def test_an_encoder_that_fails_leaves_what_was_done(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    half_done(con, after=16)
    new.answer = ConnectionError("the server is gone")

    with pytest.raises(m2mdb.OperationalError, match="the server is gone"):
        con.execute("REEMBED notes USING 'new'")

    assert not con.in_transaction
    assert_space(con, 32)
    waiting = "SELECT count(*) FROM notes WHERE body IS NOT NULL AND embedding_next IS NULL"
    left = con.execute(waiting).fetchone()
    assert left is not None and 0 < left[0] < 86
    new.answer = None
    assert con.execute("REEMBED notes USING 'new'").fetchall()[0][2] == left[0]
    assert_space(con, NEW)


def test_both_spaces_are_searched_while_it_lasts(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    half_done(con)

    near_old = HashingEncoder(32).encode([body(1) or ""])[0]
    near_new = HashingEncoder(NEW).encode([body(1) or ""])[0]
    wanted = [(body(1),)]
    assert con.execute("SEARCH notes NEAR ? K 1 RETURNING body", (near_old,)).fetchall() == wanted
    assert con.execute("SEARCH notes FOR ? K 1 RETURNING body", (body(1),)).fetchall() == wanted
    named = "SEARCH notes NEAR embedding_next ? K 1 RETURNING body"
    assert con.execute(named, (near_new,)).fetchall() == wanted
    notes = con.collection("notes")
    assert notes.search(near={"embedding_next": near_new}, k=1)[0]["body"] == body(1)
    assert notes.search(near=near_old, k=1)[0]["body"] == body(1)
    assert len(con.execute("SELECT * FROM notes").description or ()) == 3
    joined = con.execute("SELECT * FROM notes AS a JOIN notes AS b ON a.tag = b.tag LIMIT 1")
    assert len(joined.description or ()) == 6
    row = notes.get(1)
    assert row is not None and len(row) == 3
    assert [each[1] for each in con.execute("PRAGMA table_info(notes)")] == [
        "body", "tag", "embedding",
    ]  # fmt: skip


def test_others_write_while_it_runs(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    other = opened(path, old)  # which does not know the new encoder
    steps = iter(range(1000))

    def meddle(done: int, of: int | None) -> None:
        step = next(steps)
        if step < 6:
            other.execute("INSERT INTO notes (body, tag) VALUES (?, -1)", (f"inserted {step}",))
            other.execute(
                "UPDATE notes SET body = ? WHERE rowid = ?", (f"changed {step}", step + 1)
            )
            other.execute("UPDATE notes SET tag = tag + 1000 WHERE rowid = ?", (step + 2,))
            other.execute("UPDATE notes SET body = NULL WHERE rowid = ?", (60 + step,))
            other.execute("DELETE FROM notes WHERE rowid IN (?, ?)", (90 - step, 10 + step))
            assert_space(other, 32)

    con.collection("notes").reembed("new", progress=meddle)

    assert_space(con, NEW)
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (100 + 6 - 12,)
    assert con.execute("SELECT count(*) FROM notes WHERE body LIKE 'changed%'").fetchone() == (6,)
    assert_sound(con)
    with pytest.raises(m2mdb.ProgrammingError, match="'new' is not there"):
        other.execute("INSERT INTO notes (body) VALUES ('x')")


def test_a_writer_that_never_rests_does_not_hold_it_up(
    path: Path, old: Counting, new: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    con = filled(path, old, new, rows=20)
    other = opened(path, old)
    switch = reembedding._switch
    looks: list[bool] = []

    def late(database: Any, target: Any, *, at_any_cost: bool) -> bool:
        other.execute("INSERT INTO notes (body) VALUES (?)", (f"late {len(looks)}",))
        looks.append(at_any_cost)
        return switch(database, target, at_any_cost=at_any_cost)

    monkeypatch.setattr(reembedding, "_switch", late)
    con.execute("REEMBED notes USING 'new'")

    assert looks == [False, False, True]
    assert_space(con, NEW)


def test_another_writer_is_not_locked_out_while_the_encoder_works(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    other = opened(path, old, timeout=0)

    def slow(texts: Any) -> Any:
        other.execute("INSERT INTO notes (body) VALUES (NULL)")
        return HashingEncoder(NEW).encode(texts)

    new.answer = slow
    con.execute("REEMBED notes USING 'new'")

    assert_space(con, NEW)
    batches = len(new.batches)
    assert con.execute("SELECT count(*) FROM notes").fetchone() == (100 + batches,)


def test_a_row_that_is_forgotten_leaves_nothing_in_either_space(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    half_done(con)
    word = "text number 2 of many"
    vectors = [HashingEncoder(size).encode([word])[0].tobytes() for size in (32, NEW)]
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert all(vector in path.read_bytes() for vector in vectors)

    con.execute("FORGET FROM notes WHERE body = ?", (word,))
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.close()

    raw = path.read_bytes()
    assert not any(vector in raw for vector in vectors)
    con = opened(path, old, new)
    con.execute("REEMBED notes USING 'new'")
    assert_space(con, NEW)
    assert con.execute("SELECT count(*) FROM notes WHERE body = ?", (word,)).fetchone() == (0,)


def test_the_old_vectors_are_gone_when_it_is_done(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new, rows=1300)
    con.execute("REEMBED notes USING 'new'")

    known = {0, *(column.id for column in con.collection("notes").schema.columns)}
    with con.engine().reading() as view:
        for segment in view.collection("notes").segments:
            assert {column for _, column in segment.names()} <= known


@pytest.mark.parametrize("statement", ["VACUUM", "OPTIMIZE notes", "REINDEX notes", "ANALYZE notes",
                                       "PRAGMA wal_checkpoint(TRUNCATE)"])  # fmt: skip
def test_maintenance_in_the_middle_loses_nothing(
    path: Path, old: Counting, new: Counting, statement: str
) -> None:
    con = filled(path, old, new, rows=700)
    half_done(con)
    done = len(new.texts)

    con.execute(statement)

    assert_sound(con)
    assert_space(con, 32)
    con.execute("REEMBED notes USING 'new'")
    assert len(new.texts) == len(set(new.texts)) >= done
    assert_space(con, NEW)
    assert_sound(con)


def test_copies_of_a_half_done_file(
    path: Path, old: Counting, new: Counting, tmp_path: Path
) -> None:
    con = filled(path, old, new)
    half_done(con)
    con.execute("VACUUM INTO ?", (str(tmp_path / "into.m2m"),))
    with m2mdb.connect(tmp_path / "backup.m2m") as target:
        con.backup(target)
    loaded = m2mdb.connect(tmp_path / "dumped.m2m", autocommit=True)
    loaded.executescript("\n".join(con.iterdump()))

    assert hidden_of(loaded) == []
    assert_space(loaded, 32)
    for name in ("into.m2m", "backup.m2m"):
        copy = opened(tmp_path / name, old, new)
        before = len(new.texts)
        copy.execute("REEMBED notes USING 'new'")
        assert len(new.texts) - before < 10
        assert_space(copy, NEW)
        assert_sound(copy)


def test_as_of_reads_the_old_space_while_it_lasts(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    con.execute("PRAGMA keep_commits = 1000")
    con.execute("UPDATE notes SET tag = 7 WHERE rowid = 1")
    half_done(con)
    commit = con.execute("SELECT max(oldest_commit) FROM m2m_collections").fetchone()
    assert commit is not None
    con.execute("DELETE FROM notes WHERE rowid = 2")

    near = HashingEncoder(32).encode([body(1) or ""])[0]
    found = con.execute(f"SEARCH notes NEAR ? K 100 AS OF {commit[0]} RETURNING tag", (near,))

    assert len(found.fetchall()) == 86
    con.execute("REEMBED notes USING 'new'")
    with pytest.raises(m2mdb.Error):
        con.execute(f"SEARCH notes NEAR ? AS OF {commit[0]} RETURNING tag", (near,))
    assert_space(con, NEW)


def test_alter_in_the_middle(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    half_done(con)

    con.execute("ALTER COLLECTION notes RENAME COLUMN embedding TO meaning")
    con.execute("ALTER COLLECTION notes RENAME COLUMN body TO words")
    con.execute("ALTER COLLECTION notes ADD COLUMN extra TEXT DEFAULT 'x'")
    con.execute("ALTER COLLECTION notes RENAME TO memo")
    done = con.execute("REEMBED memo USING 'new'").fetchall()

    assert done[0][:2] == ("memo", "meaning")
    con.execute("ALTER COLLECTION memo RENAME TO notes")
    con.execute("ALTER COLLECTION notes RENAME COLUMN words TO body")
    assert_space(con, NEW, "meaning")
    assert con.execute("SELECT DISTINCT extra FROM notes").fetchall() == [("x",)]
    assert_sound(con)


def test_dropping_the_column_ends_the_migration(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    half_done(con)

    con.execute("ALTER COLLECTION notes DROP COLUMN embedding")

    assert hidden_of(con) == []
    with pytest.raises(m2mdb.ProgrammingError, match="has none"):
        con.execute("REEMBED notes USING 'new'")
    con.execute("ALTER COLLECTION notes DROP COLUMN body")
    assert_sound(con)


def test_another_target_begins_anew_and_the_old_one_gives_up(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    half_done(con)

    assert con.execute("REEMBED notes USING 'old'").fetchall() == [("notes", "embedding", 0, 0, 32)]
    assert hidden_of(con) == []
    half_done(con)
    con.execute("REEMBED notes USING 'hashing'")

    assert_space(con, 32)
    column = con.collection("notes").schema.columns[2]
    assert column.generated is not None and column.generated["encoder"] == "hashing"
    assert hidden_of(con) == []


def test_a_migration_that_another_connection_ends_says_so(
    path: Path, old: Counting, new: Counting
) -> None:
    con = filled(path, old, new)
    other = opened(path, old, new)

    with pytest.raises(m2mdb.OperationalError, match="another connection has ended"):
        con.collection("notes").reembed(
            "new", progress=lambda done, of: other.execute("REEMBED notes USING 'old'")
        )

    assert_space(con, 32)


def test_two_at_once_come_to_the_same_end(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    other = opened(path, old, new)
    ran: list[Any] = []

    def both(done: int, of: int | None) -> None:
        if not ran:
            ran.append(other.execute("REEMBED notes USING 'new'").fetchall())

    with pytest.raises(m2mdb.OperationalError, match="has ended the migration"):
        con.collection("notes").reembed("new", progress=both)

    assert_space(con, NEW)
    assert con.execute("REEMBED notes USING 'new'").fetchall()[0][2:4] == (0, 0)


def test_the_same_model_under_another_name_encodes_nothing(path: Path, old: Counting) -> None:
    con = filled(path, old, old)
    before = len(old.texts)

    con.execute("REEMBED notes USING 'new'")

    assert len(old.texts) == before
    con.close()
    con = m2mdb.connect(path, encoders={"new": old}, autocommit=True)
    con.execute("INSERT INTO notes (body) VALUES ('more')")
    assert_space(con, 32)


def test_another_model_under_the_same_name(path: Path, old: Counting, new: Counting) -> None:
    filled(path, old).close()
    con = opened(path, new)
    with pytest.raises(m2mdb.DataError, match="dimension 48, the column 32"):
        con.execute("SEARCH notes FOR 'text'")

    con.execute("REEMBED notes USING 'old'")

    assert_space(con, NEW)
    assert con.execute("SEARCH notes FOR 'text' K 3").fetchall()


def test_an_index_stays_with_the_name(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new, rows=1300)
    con.execute("CREATE INDEX by_meaning ON notes USING hrm2 (embedding)")

    con.execute("REEMBED notes USING 'new'")

    assert [info.name for info in con.collection("notes").schema.indexes] == ["by_meaning"]
    near = HashingEncoder(NEW).encode([body(1) or ""])[0]
    assert con.execute("SEARCH notes NEAR ? K 1 RETURNING body", (near,)).fetchall() == [(body(1),)]
    assert_sound(con)
    con.execute("DROP INDEX by_meaning")


def test_what_cannot_be(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)
    with pytest.raises(m2mdb.ProgrammingError, match=r"'other'.* is not there"):
        con.execute("REEMBED notes USING 'other'")
    with pytest.raises(m2mdb.ProgrammingError, match="column body of notes is not generated"):
        con.execute("REEMBED notes (body) USING 'new'")
    with pytest.raises(m2mdb.ProgrammingError, match="no such collection"):
        con.execute("REEMBED nothing USING 'new'")
    con.execute("BEGIN")
    with pytest.raises(m2mdb.OperationalError, match="inside a transaction"):
        con.execute("REEMBED notes USING 'new'")
    con.execute("ROLLBACK")
    new.answer = lambda texts: np.zeros((len(texts), 3), np.float32)
    with pytest.raises(m2mdb.DataError, match="gave shape"):
        con.execute("REEMBED notes USING 'new'")
    assert_space(con, 32)
    with pytest.raises(m2mdb.ProgrammingError, match="waits for the end of a REEMBED"):
        con.execute("CREATE INDEX i ON notes USING hrm2 (embedding_next)")
    with pytest.raises(m2mdb.ProgrammingError, match="cannot be given a value"):
        con.execute("UPDATE notes SET embedding_next = ?", (np.ones(NEW, np.float32),))
    con.execute("ALTER COLLECTION notes DROP COLUMN embedding_next")
    assert hidden_of(con) == []
    con.execute("ALTER COLLECTION notes ADD COLUMN second VECTOR(32) FROM body ENCODER 'old'")
    with pytest.raises(m2mdb.ProgrammingError, match=r"exactly one.* has embedding, second"):
        con.execute("REEMBED notes USING 'old'")
    new.answer = None
    assert con.execute("REEMBED notes (second) USING 'new'").fetchall()[0][1] == "second"
    assert_space(con, NEW, "second")
    assert_space(con, 32)


def test_an_interrupt_stops_it_between_batches(path: Path, old: Counting, new: Counting) -> None:
    con = filled(path, old, new)

    def interrupt(done: int, of: int | None) -> None:
        thread = threading.Thread(target=con.interrupt)
        thread.start()
        thread.join()

    with pytest.raises(m2mdb.OperationalError, match="interrupted"):
        con.collection("notes").reembed("new", progress=interrupt)

    assert len(new.batches) == 1
    assert not con.in_transaction
    con.execute("REEMBED notes USING 'new'")
    assert_space(con, NEW)


def test_a_connection_that_is_not_autocommit(path: Path, old: Counting, new: Counting) -> None:
    filled(path, old, new).close()
    con = opened(path, old, new, autocommit=False)

    con.execute("REEMBED notes USING 'new'")

    assert not con.in_transaction
    con.close()
    assert_space(opened(path), NEW)
