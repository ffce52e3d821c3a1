"""Every type through delta, segment, merge and reopen; constraints; schema changes."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from m2mdb.index import maintenance
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.index.schema import CollectionSchema, Column, IndexInfo
from m2mdb.index.text.match_query import parse_match
from m2mdb.pager.errors import (
    DataError,
    IntegrityError,
    ProgrammingError,
)
from m2mdb.wal.store import StoreOptions

Opener = Callable[[], Database]
MOMENT = datetime.datetime(2026, 11, 21, 8, 30, 0, 123456, tzinfo=datetime.UTC)

EVERY_TYPE = (
    Column("key", "TEXT", primary_key=True),
    Column("i", "INTEGER"),
    Column("r", "REAL"),
    Column("t", "TEXT", fulltext={}),
    Column("b", "BLOB"),
    Column("o", "BOOLEAN"),
    Column("m", "TIMESTAMP"),
    Column("j", "JSON"),
    Column("v", "VECTOR", dimension=3),
    Column("h", "VECTOR", dimension=3, dtype="f16", metric="l2"),
    Column("c", "VECTOR", dimension=3, dtype="i8", metric="ip"),
)


def row_of(number: int) -> dict[str, Any]:
    if number % 3 == 2:
        return {"key": f"k{number}", **{c.name: None for c in EVERY_TYPE[1:]}}
    return {
        "key": f"k{number}",
        "i": number * 10**15 - 5,
        "r": number / 3,
        "t": f"text é 東京 {number}",
        "b": bytes([number % 256, 0]),
        "o": number % 2 == 0,
        "m": MOMENT + datetime.timedelta(days=number),
        "j": f'{{"n": {number}}}',
        "v": np.array([number + 1, 2, 3], np.float32),
        "h": np.array([number, 0, 0.5], np.float16),
        "c": np.array([number % 100, -1, 1], np.int8),
    }


def insert(database: Database, name: str, rows: list[dict[str, Any]], mode: str = "error") -> Any:
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    with database.writing() as write:
        return write.insert(name, columns, len(rows), mode)


def create(database: Database, schema: CollectionSchema) -> None:
    with database.writing() as write:
        write.create_collection(schema)


def assert_rows(database: Database, numbers: range) -> None:
    with database.reading() as view:
        notes = view.collection("notes")
        assert notes.count() == len(numbers)
        for number in numbers:
            rowid = notes.find(0, f"k{number}")
            assert rowid is not None
            place = notes.place(rowid)
            assert place is not None
            found = notes.row(place, range(len(EVERY_TYPE)))
            for column, value, wanted in zip(
                EVERY_TYPE, found, row_of(number).values(), strict=True
            ):
                assert np.array_equal(value, wanted), column.name
                assert type(value) is type(wanted), column.name
        assert check(view) == []


@pytest.mark.parametrize("batch", [1, 7, 600])
def test_every_type_survives_delta_segment_and_reopen(reopen: Opener, batch: int) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    rows = [row_of(number) for number in range(600)]
    for start in range(0, 600, batch):
        insert(database, "notes", rows[start : start + batch])
    assert_rows(database, range(600))

    database = reopen()

    assert_rows(database, range(600))


def test_part_values_agree_whether_asked_alone_or_together(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(600)])
    insert(database, "notes", [row_of(number) for number in range(600, 610)])

    with database.reading() as view:
        for part in view.collection("notes").parts():
            for column in range(len(EVERY_TYPE)):
                together = part.values(column)
                chosen = np.array([0, 5, part.size - 1])
                few = part.values(column, chosen)
                alone = [part.value(column, ordinal) for ordinal in range(part.size)]
                assert all(map(np.array_equal, together, alone))
                assert all(map(np.array_equal, few, [alone[i] for i in chosen]))


def test_segments_of_one_tier_are_merged(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    for start in range(0, 600 * maintenance.TIER_FACTOR, 600):
        insert(database, "notes", [row_of(number) for number in range(start, start + 600)])

    with database.reading() as view:
        assert len(view.collection("notes").segments) == 1
    assert_rows(database, range(600 * maintenance.TIER_FACTOR))


def test_a_flush_keeps_deletions_updates_and_search(
    reopen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(600)])
    with database.writing() as write:
        notes = write.collection("notes")
        found = [notes.find(0, f"k{number}") for number in range(103)]
        rowids = [rowid for rowid in found if rowid is not None]
        assert len(rowids) == 103
        gone, changed = rowids[:100], rowids[100:]
        write.delete("notes", gone)
        write.update("notes", changed, {"t": ["other words"] * 3})

    with database.writing() as write:
        maintenance.flush(write, write.collection("notes"))

    database = reopen()
    with database.reading() as view:
        notes = view.collection("notes")
        assert notes.count() == 500
        assert notes.find(0, "k5") is None
        assert len(notes.match(parse_match("other"), 10)) == 3
        assert check(view) == []


def test_a_segment_without_live_rows_is_given_up(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    rowids = insert(database, "notes", [row_of(number) for number in range(600)])

    with database.writing() as write:
        assert write.delete("notes", rowids.tolist()) == 600

    with database.reading() as view:
        assert view.collection("notes").segments == ()
        assert check(view) == []


# ------------------------------------------------------------------------- keys


def keyed(database: Database) -> None:
    columns = (
        Column("id", "INTEGER", primary_key=True),
        Column("name", "TEXT", unique=True),
        Column("must", "TEXT", not_null=True, default="x"),
    )
    create(database, CollectionSchema("keys", columns))


def test_integer_primary_key_is_the_rowid_and_never_given_again(reopen: Opener) -> None:
    database = reopen()
    keyed(database)
    first = insert(database, "keys", [{"id": None, "name": "a"}, {"id": 10, "name": "b"}])
    second = insert(database, "keys", [{"id": None, "name": "c"}])
    with database.writing() as write:
        write.delete("keys", second.tolist())

    database = reopen()
    third = insert(database, "keys", [{"id": None, "name": "d"}])

    assert first.tolist() == [1, 10]
    assert second.tolist() == [11]
    assert third.tolist() == [12]


@pytest.mark.parametrize("count", [1, 3, 700])
@pytest.mark.parametrize("key", ["id", "name"])
def test_a_duplicate_key_names_the_value_and_writes_nothing(
    reopen: Opener, key: str, count: int
) -> None:
    database = reopen()
    keyed(database)
    insert(database, "keys", [{"id": i, "name": f"n{i}"} for i in range(1, count + 1)])
    more = [{"id": 5000 + i, "name": f"m{i}"} for i in range(count)]
    more[-1][key] = {"id": 1, "name": "n1"}[key]

    with pytest.raises(IntegrityError, match=rf"UNIQUE constraint failed: keys\.{key} = ") as error:
        insert(database, "keys", more)

    assert f"row {count - 1}" in str(error.value)
    with database.reading() as view:
        assert view.collection("keys").count() == count
    assert not database.in_transaction


def test_doubles_inside_a_batch(reopen: Opener) -> None:
    database = reopen()
    keyed(database)
    rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}, {"id": 3, "name": "b"}]

    with pytest.raises(IntegrityError, match="'a'"):
        insert(database, "keys", rows)

    assert insert(database, "keys", rows, "ignore").tolist() == [1, -1, 3]
    rows = [{"id": 7, "name": "a"}, {"id": 8, "name": "a"}]
    assert insert(database, "keys", rows, "replace").tolist() == [-1, 8]
    with database.reading() as view:
        keys = view.collection("keys")
        assert keys.find(1, "a") == 8
        assert keys.count() == 2


def test_not_null_and_defaults(reopen: Opener) -> None:
    database = reopen()
    keyed(database)

    with pytest.raises(IntegrityError, match=r"NOT NULL constraint failed: keys\.must \(row 1\)"):
        insert(database, "keys", [{"name": "a", "must": "y"}, {"name": "b", "must": None}])
    rowid = insert(database, "keys", [{"name": "a"}])[0]

    with database.reading() as view:
        keys = view.collection("keys")
        assert keys.row((0, 0), (0, 1, 2)) == (rowid, "a", "x")


def test_a_key_may_be_given_again_after_its_row_is_gone(reopen: Opener) -> None:
    database = reopen()
    keyed(database)
    insert(database, "keys", [{"id": i, "name": f"n{i}"} for i in range(600)])
    for _ in range(3):
        with database.writing() as write:
            write.delete("keys", [5])
        insert(database, "keys", [{"id": 5, "name": "n5", "must": "again"}])

    database = reopen()
    with database.reading() as view:
        keys = view.collection("keys")
        assert keys.count() == 600
        assert keys.find(1, "n5") == 5
        assert check(view) == []


def test_an_update_of_the_integer_key_moves_the_row(reopen: Opener) -> None:
    database = reopen()
    keyed(database)
    insert(database, "keys", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])

    with database.writing() as write:
        write.update("keys", [1], {"id": [9]})
    with pytest.raises(IntegrityError, match=r"keys\.id = 2"), database.writing() as write:
        write.update("keys", [9], {"id": [2]})

    with database.reading() as view:
        keys = view.collection("keys")
        assert keys.find(1, "a") == 9
        assert keys.place(1) is None


def test_keys_may_be_swapped_in_one_update(reopen: Opener) -> None:
    database = reopen()
    keyed(database)
    insert(database, "keys", [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])

    with database.writing() as write:
        write.update("keys", [1, 2], {"name": ["b", "a"]})

    with database.reading() as view:
        assert view.collection("keys").find(1, "a") == 2


# ------------------------------------------------------------------------- schema


def test_indexes_come_and_go_with_rows_in_delta_and_segments(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(600)])
    insert(database, "notes", [row_of(number) for number in range(600, 620)])
    with database.writing() as write:
        write.create_index("notes", IndexInfo("by_i", "i"))
        write.create_index("notes", IndexInfo("text_j", "j", kind="bm25"))
    insert(database, "notes", [row_of(number) for number in range(620, 640)])

    database = reopen()
    with database.reading() as view:
        notes = view.collection("notes")
        found = notes.index_rowids(1, 0, 10**15, high_open=True)
        assert found is not None
        assert len(found) == 1  # row 1: its value is 10**15 - 5
        assert check(view) == []
    with database.writing() as write:
        write.drop_index("by_i")
        write.drop_index("text_j")
    with database.reading() as view:
        notes = view.collection("notes")
        assert notes.index_rowids(1) is None
        assert check(view) == []


def test_a_unique_index_refuses_and_keeps(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("t", (Column("a", "TEXT"),)))
    insert(database, "t", [{"a": "x"}, {"a": "y"}, {"a": None}, {"a": None}])
    with database.writing() as write:
        write.create_index("t", IndexInfo("u", "a", unique=True))

    with pytest.raises(IntegrityError, match=r"t\.a = 'x'"):
        insert(database, "t", [{"a": "x"}])
    insert(database, "t", [{"a": "x" * 300}])
    insert(database, "t", [{"a": "x" * 300 + "y"}])
    with pytest.raises(IntegrityError), database.writing() as write:
        write.update("t", [2], {"a": ["x" * 300]})
    with pytest.raises(IntegrityError, match="equal values"):
        create(database, CollectionSchema("d", (Column("a", "TEXT"),)))
        insert(database, "d", [{"a": "x"}, {"a": "x"}])
        with database.writing() as write:
            write.create_index("d", IndexInfo("v", "a", unique=True))


def test_a_dropped_collection_leaves_its_pages_free(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(600)])
    with database.writing() as write:
        write.drop_collection("NOTES")

    with database.reading() as view:
        assert view.names() == []
        assert check(view) == []
    with pytest.raises(ProgrammingError, match="no such collection: notes"):
        insert(database, "notes", [row_of(1)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((), "has no columns"),
        ((Column("a", "TEXT"), Column("A", "TEXT")), "duplicate column name: A"),
        ((Column("score", "REAL"),), "computed name"),
        ((Column("\udfff", "TEXT"),), "not valid Unicode"),
        ((Column("a" * 1001, "TEXT"),), "1001 bytes"),
        ((Column("v", "VECTOR", dimension=0),), "dimension 0"),
        ((Column("v", "VECTOR", dimension=3, metric="dot"),), "metric dot"),
        ((Column("a", "INTEGER", fulltext={}),), "FULLTEXT needs TEXT or JSON"),
        (
            (Column("a", "TEXT", primary_key=True), Column("b", "TEXT", primary_key=True)),
            "more than one primary key",
        ),
    ],
)
def test_impossible_schemas_are_refused(columns: tuple[Column, ...], message: str) -> None:
    with pytest.raises(ProgrammingError, match=message):
        CollectionSchema("t", columns)


def test_schema_errors_name_what_is_there(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", (Column("body", "TEXT"),)))

    with pytest.raises(ProgrammingError, match="collection Notes already exists"):
        create(database, CollectionSchema("Notes", (Column("a", "TEXT"),)))
    with pytest.raises(ProgrammingError, match="no such column: bdy in notes; did you mean body"):
        insert(database, "notes", [{"bdy": "x"}])
    with pytest.raises(ProgrammingError, match="no such collection: note; did you mean notes"):
        insert(database, "note", [{"body": "x"}])
    with pytest.raises(ProgrammingError, match="body is TEXT"), database.writing() as write:
        write.create_index("notes", IndexInfo("i", "body", kind="hrm2"))
    with pytest.raises(DataError, match="2 values for 1 rows"), database.writing() as write:
        write.insert("notes", {"body": ["a", "b"]}, 1)


# ------------------------------------------------------------------------- transactions


def test_an_undone_statement_leaves_no_trace_in_mirror_catalog_or_file(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(10)])

    class Stop(BaseException):
        pass

    with pytest.raises(Stop), database.writing() as write:
        rows = [row_of(number) for number in range(10, 700)]
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        write.insert("notes", columns, len(rows))
        write.delete("notes", [1, 2, 3])
        write.create_index("notes", IndexInfo("by_i", "i"))
        raise Stop

    assert_rows(database, range(10))
    database = reopen()
    assert_rows(database, range(10))


def test_a_snapshot_does_not_see_what_comes_after(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(5)])
    other = Database.open(
        database.store.vfs, "m.m2m", StoreOptions(), compute="numpy", autocommit=True
    )
    other.begin()
    assert_rows(other, range(5))

    insert(database, "notes", [row_of(number) for number in range(5, 800)])
    with database.writing() as write:
        write.delete("notes", [1])

    assert_rows(other, range(5))
    other.rollback()
    with other.reading() as view:
        assert view.collection("notes").count() == 799
    other.close()


def test_only_the_first_scan_of_a_segment_goes_chunk_by_chunk(reopen: Opener) -> None:
    database = reopen()
    create(database, CollectionSchema("notes", EVERY_TYPE))
    insert(database, "notes", [row_of(number) for number in range(0, 3600, 3)])
    database = reopen()
    with database.reading() as view:
        notes = view.collection("notes")
        (segment,) = notes.segments
        column = notes.schema.columns[8]
        query = np.ones(3, np.float32)
        assert not segment.is_verified(column)

        first = notes.nearest(8, query, 5, database.kernels)

        assert segment.is_verified(column)
        second = notes.nearest(8, query, 5, database.kernels)
        assert first.rowids.tolist() == second.rowids.tolist()
