"""Recovering: `m2mdb recover`, the rows of a damaged file in a new one.

    index.salvage --> collections, with the rows that verify --> NEW, a commit a batch
                 \\--> what is damaged, and what is lost          --> the report

Invariants
    RC1 Nothing is written to DAMAGED or beside it.
    RC2 NEW is made by this run alone: where it cannot be finished, no file stays.
    RC3 A row that NEW refuses, for its key is another row's that is newer, is counted.
"""

from __future__ import annotations

import contextlib
import os
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseError,
    DataError,
    IntegrityError,
    OperationalError,
)
from m2mdb.tables import Progress

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.salvage import Salvage
    from m2mdb.index.salvage_rows import CollectionRemains
    from m2mdb.index.view import WriteView

SHOWN_FAULTS = 20  # lines of damage that people are shown; JSON has them all


def recover(damaged: str, new: str) -> dict[str, Any]:
    """Save what can be read of a file in a new one; the report, as JSON has it.

    Raises OperationalError where DAMAGED cannot be read or NEW exists, CorruptDatabaseError where
    nothing of DAMAGED can be read.
    """
    from m2mdb.index.salvage import Salvage
    from m2mdb.opening import connect, new_file
    from m2mdb.pager.os_vfs import OsVfs

    if not os.path.exists(damaged):
        raise OperationalError(f"{damaged}: no such file")
    real = new_file(new)
    salvage = Salvage(OsVfs(), os.path.realpath(damaged))
    try:
        if not salvage.collections and salvage.nothing_was_read:
            raise CorruptDatabaseError(f"{damaged}: nothing of it can be read as a database")
        connection = connect(
            new, autocommit=True, page_size=salvage.remains.page_size, synchronous="normal"
        )
        try:
            saved = [_save(connection, each) for each in salvage.collections]
            _keep_settings(connection, salvage)
            faults = [row[0] for row in connection.execute("PRAGMA quick_check")]
        except BaseException:
            connection.close()
            for path in (real, real + "-wal", real + "-shm"):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise
        connection.close()
    finally:
        salvage.close()
    return {
        "damaged": damaged,
        "new": new,
        "commit": salvage.remains.commit,
        "complete": not (
            salvage.catalog_is_damaged
            or salvage.remains.misses_commits
            or any(map(_is_missing, saved))
        ),
        "commits_may_be_missing": salvage.remains.misses_commits,
        "collections_may_be_missing": salvage.catalog_is_damaged,
        "collections": saved,
        "damage": salvage.damage,
        "check": faults,
    }


def _is_missing(saved: dict[str, Any]) -> bool:
    return bool(
        saved["lost"] or saved["lost_entries"] or saved["refused"] or saved["more_may_be_lost"]
    )


def _keep_settings(connection: Connection, salvage: Salvage) -> None:
    header = salvage.remains.header
    for name in ("application_id", "user_version"):
        value = getattr(header, name, 0)
        if value:
            with contextlib.suppress(DatabaseError):
                connection.execute(f"PRAGMA {name} = {value}")
    with contextlib.suppress(DatabaseError):
        connection.execute(f"PRAGMA keep_commits = {salvage.keep_commits}")


# ------------------------------------------------------------------------- one collection


def _save(connection: Connection, remains: CollectionRemains) -> dict[str, Any]:
    """Write one collection; what became of its rows."""
    schema = remains.schema
    notes = list(remains.notes)
    named = {info.column.lower() for info in schema.indexes if info.kind == "bm25"}
    connection.write(lambda write: _create(write, schema, named, remains.next_rowid))
    _index(connection, schema, "bm25", notes)
    progress = Progress(f"saving rows of {schema.name}:", remains.count)
    rows = refused = 0
    for rowids, columns in remains.batches():
        added = _insert(connection, schema.name, rowids, columns)
        rows += added
        refused += len(rowids) - added
        progress.add(len(rowids))
    progress.close()
    _index(connection, schema, "btree", notes)
    _index(connection, schema, "hrm2", notes)
    if not remains.is_named:
        notes.append("its name and its columns' names and types are made up")
    return {
        "name": schema.name,
        "saved": rows,
        "lost": remains.lost,
        "lost_entries": remains.missing,
        "refused": refused,
        "more_may_be_lost": remains.is_unknown,
        "notes": notes,
    }


def _create(write: WriteView, schema: CollectionSchema, named: set[str], next_rowid: int) -> None:
    columns = tuple(Column.decode(column.encode()) for column in schema.columns)
    for column in columns:
        if column.name.lower() in named:
            column.fulltext = None  # its index has a name, and is made by itself
    made = CollectionSchema(schema.name, columns, checks=schema.checks)
    write.create_collection(made, max(1, next_rowid))


def _index(connection: Connection, schema: CollectionSchema, kind: str, notes: list[str]) -> None:
    for info in schema.indexes:
        if info.kind != kind:
            continue
        column = schema.columns[schema.column(info.column)]
        options = column.fulltext if kind == "bm25" else info.options
        try:
            connection.write(methodcaller("create_index", schema.name, info.unbuilt(), options))
        except DatabaseError as error:
            notes.append(f"index {info.name} was not made: {error}")


def _insert(
    connection: Connection, name: str, rowids: np.ndarray, columns: dict[str, list[Any]]
) -> int:
    """Add rows; where some are refused, one by one (RC3). Returns how many there are."""
    given = {"rowid": rowids.tolist(), **columns}
    alias = connection.collection(name).schema.rowid_alias
    if alias is not None:
        del given["rowid"]  # the column has them
    try:
        connection.write(lambda write: _write(write, name, given, len(rowids)))
        return len(rowids)
    except (IntegrityError, DataError):
        if len(rowids) == 1:
            return 0
    half = len(rowids) // 2
    return sum(
        _insert(connection, name, rowids[some], {key: each[some] for key, each in columns.items()})
        for some in (slice(0, half), slice(half, None))
    )


def _write(write: WriteView, name: str, given: dict[str, list[Any]], count: int) -> None:
    write.database.give_generated = True  # until this transaction ends: no encoder is needed
    write.insert(name, given, count)


# ------------------------------------------------------------------------- for people


def text(report: dict[str, Any]) -> str:
    """The report in lines."""
    lines = []
    for saved in report["collections"]:
        parts = [f"{saved['saved']:,} rows saved"]
        if saved["lost"]:
            parts.append(f"{saved['lost']:,} lost")
        if saved["lost_entries"]:
            parts.append(f"{saved['lost_entries']:,} recent changes lost")
        if saved["refused"]:
            parts.append(f"{saved['refused']:,} refused for their keys")
        if saved["more_may_be_lost"]:
            parts.append("more may be lost")
        lines.append(f"{saved['name']}: {', '.join(parts)}")
        lines += [f"  {note}" for note in saved["notes"]]
    if not report["collections"]:
        lines.append("no collection was found")
    if report["collections_may_be_missing"]:
        lines.append("the catalog is damaged: whole collections may be missing")
    if report["commits_may_be_missing"]:
        lines.append("the log is damaged: commits may be missing, and rows be as they were before")
    damage = report["damage"]
    if damage:
        lines.append(f"damaged ({len(damage):,}):")
        lines += [f"  {fault}" for fault in damage[:SHOWN_FAULTS]]
        if len(damage) > SHOWN_FAULTS:
            lines.append(f"  … and {len(damage) - SHOWN_FAULTS:,} more; --json has them all")
    if report["complete"]:
        lines.append("no row was lost" if damage else "nothing is damaged")
    return "\n".join(lines)
