"""Dumping: a database as the statements that build an equal one.

    BEGIN TRANSACTION;
    PRAGMA user_version = 3;
    CREATE COLLECTION notes (…) WITH (next_rowid = 8);
    CREATE INDEX … USING bm25 …;
    INSERT INTO notes (rowid, …) VALUES (…), (…);
    CREATE INDEX … USING btree …;
    COMMIT;

Where a VECTOR column is generated, `PRAGMA give_generated = 1` lets the transaction bring the
vectors along, so that loading needs no encoder. Text indexes come before the rows, which are then
indexed as they are written, B-tree indexes after them, so that they are built at once. Values are
written so that they are read back bit for bit:

    INTEGER, TIMESTAMP   the number (of microseconds)
    REAL                 the shortest decimal that is the same float; 1e999 for infinity
    VECTOR               x'…', the little-endian float32 of f32 and f16, the bytes of i8
    the others           as a statement has them

Invariants
    DP1 The statements show one commit, however long they are read; rows come by rowid.
    DP2 Memory is bounded by some rows of each segment, not by the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.record import HEAD
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import InterfaceError, OperationalError
from m2mdb.query.pattern import like_matcher
from m2mdb.query.words import quoted

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.schema import Check, CollectionSchema, Column
    from m2mdb.index.view import View

STATEMENT_ROWS = 1000
STATEMENT_CHARACTERS = 900_000  # a statement may have a million
WINDOW_BYTES = 4 << 20  # of the rows that are read of a part at a time
HEADER_PRAGMAS = ("application_id", "user_version")
_SIMPLE_TYPE = re.compile(r"([^\W\d]\w*(?: [^\W\d]\w*)*)(\([-+]?\w+(?:, [-+]?\w+)*\))?")
_CONSTRAINT_WORDS = frozenset(
    "PRIMARY KEY UNIQUE DEFAULT METRIC FULLTEXT ENCODER CHECK REFERENCES".split()
)


# ------------------------------------------------------------------------- literals


def literal(value: Any) -> str:
    """A scalar as a statement has it; it is read back as the same value."""
    if value is None:
        return "NULL"
    if value is True or value is False:
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, int):
        return str(value)
    return _blob(value)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _real(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "1e999" if value > 0 else "-1e999"


def _blob(value: bytes) -> str:
    return "x'" + bytes(value).hex() + "'"


def _boolean(value: bool) -> str:
    return "TRUE" if value else "FALSE"


_WRITERS: dict[str, Callable[[Any], str]] = {
    "INTEGER": str,
    "TIMESTAMP": str,
    "REAL": _real,
    "TEXT": _text,
    "JSON": _text,
    "BLOB": _blob,
    "BOOLEAN": _boolean,
}


# ------------------------------------------------------------------------- definitions


def shown(schema: CollectionSchema) -> list[Column]:
    """The columns that a dump has: not those of a REEMBED that is not done (RE2)."""
    return [schema.columns[index] for index in schema.shown_columns]


def create_statement(schema: CollectionSchema, next_rowid: int = 1) -> str:
    """CREATE COLLECTION, without the indexes that have a name of their own."""
    named = {info.column.lower() for info in schema.indexes if info.kind == "bm25"}
    columns = ",\n  ".join(
        " ".join([
            definition(column, with_fulltext=column.name.lower() not in named),
            *[_check(check) for check in schema.checks if check.column == column.name],
        ])
        for column in shown(schema)
    )  # fmt: skip
    for info in schema.indexes:
        if info.origin:
            kind = "PRIMARY KEY" if info.origin == "primary" else "UNIQUE"
            columns += f",\n  {kind} ({', '.join(map(quoted, info.columns))})"
    for check in schema.checks:
        if check.column is None:
            columns += f",\n  {_check(check)}"
    options = f" WITH (next_rowid = {next_rowid})" if next_rowid > 1 else ""
    return f"CREATE COLLECTION {quoted(schema.name)} (\n  {columns}\n){options};"


def _check(check: Check) -> str:
    """A CHECK as CREATE COLLECTION has it; its text ends in a token, never in a comment."""
    name = "" if check.name is None else f"CONSTRAINT {quoted(check.name)} "
    return f"{name}CHECK ({check.text})"


def definition(column: Column, *, with_fulltext: bool = True) -> str:
    """A column as CREATE COLLECTION has it."""
    words = [quoted(column.name), _type(column)]
    if column.collation != "BINARY":
        words.append(f"COLLATE {column.collation}")
    if column.is_vector:
        words.append(f"METRIC {column.metric}")
    if column.generated is not None:
        of = column.generated
        options = {"model": of["model"], "fingerprint": of["fingerprint"]}
        words.append(f"FROM {quoted(of['from'])} ENCODER {_text(of['encoder'])}")
        words.append(_options(options, "(", ")"))
    if column.primary_key:
        words.append("PRIMARY KEY")
    if column.unique:
        words.append("UNIQUE")
    if column.not_null:
        words.append("NOT NULL")
    if column.default_text is not None:
        words.append(f"DEFAULT ({column.default_text})")
    elif column.has_default:
        words.append(f"DEFAULT {literal(column.default)}")
    if column.fulltext is not None and with_fulltext:
        words.append("FULLTEXT" + _options(column.fulltext, " (", ")"))
    return " ".join(word for word in words if word)


def _type(column: Column) -> str:
    """The declared type; what a statement cannot say as it stands is said as one quoted name."""
    declared = column.declaration()
    if column.is_vector or not declared:
        return declared
    found = _SIMPLE_TYPE.fullmatch(declared)
    if found is None:
        return '"' + declared.replace('"', '""') + '"'
    words = [
        f'"{word}"' if word.upper() in _CONSTRAINT_WORDS else quoted(word)
        for word in found[1].split()
    ]
    return " ".join(words) + (found[2] or "")


def _options(options: dict[str, Any], before: str, behind: str) -> str:
    if not options:
        return ""
    listed = ", ".join(f"{quoted(name)} = {literal(value)}" for name, value in options.items())
    return before + listed + behind


def index_statements(schema: CollectionSchema, kinds: Sequence[str]) -> Iterator[str]:
    """CREATE INDEX for the indexes of some kinds."""
    for info in schema.indexes:
        if info.kind not in kinds or info.origin:
            continue
        options = ""
        if info.kind == "bm25":
            given = schema.columns[schema.column(info.column)].fulltext
            options = _options(given or {}, " WITH (", ")")
        elif info.options:
            options = _options(info.options, " WITH (", ")")
        unique = "UNIQUE " if info.unique else ""
        yield (
            f"CREATE {unique}INDEX {quoted(info.name)} ON {quoted(schema.name)} "
            f"USING {info.kind} ({', '.join(map(quoted, info.columns))}){options};"
        )


# ------------------------------------------------------------------------- rows


class _Source:
    """The live rows of one part, by rowid, some at a time."""

    def __init__(self, collection: CollectionView, part: Part) -> None:
        self.part = part
        self.schema = collection.schema
        live = part.live
        rowids = part.rowids
        ordinals = np.arange(part.size) if live is None else np.flatnonzero(live)
        if len(ordinals) > 1 and (np.diff(rowids[ordinals]) < 0).any():
            ordinals = ordinals[np.argsort(rowids[ordinals], kind="stable")]
        self.ordinals = ordinals
        self.rowids = rowids if live is None and len(ordinals) < 2 else rowids[ordinals]
        self.at = 0
        self.step = self._step(collection)

    def _step(self, collection: CollectionView) -> int:
        """Rows of about WINDOW_BYTES."""
        if not self.part.size:
            return 1
        segment = getattr(self.part, "segment", None)
        if segment is None:
            size = collection.mirror.bytes_used
        else:
            size = sum(segment.size_of(*name) for name in segment.names())
        return max(1, min(STATEMENT_ROWS, WINDOW_BYTES // (size // self.part.size + 1)))

    @property
    def is_done(self) -> bool:
        """Whether all rows were given."""
        return self.at >= len(self.ordinals)

    def limit(self) -> int:
        """The last rowid of the next window."""
        return int(self.rowids[min(self.at + self.step, len(self.rowids)) - 1])

    def take(self, limit: int) -> list[tuple[int, str]]:
        """(rowid, the row as VALUES has it) of the rows up to a rowid."""
        end = self.at + int(np.searchsorted(self.rowids[self.at :], limit, "right"))
        chosen, rowids = self.ordinals[self.at : end], self.rowids[self.at : end].tolist()
        self.at = end
        if not rowids:
            return []
        columns = [self._column(index, chosen) for index in self.schema.shown_columns]
        if self.schema.rowid_alias is None:
            columns.insert(0, list(map(str, rowids)))
        rows = ["(" + ",".join(row) + ")" for row in zip(*columns, strict=True)]
        return list(zip(rowids, rows, strict=True))

    def _column(self, index: int, chosen: np.ndarray) -> list[str]:
        column, part = self.schema.columns[index], self.part
        if not column.is_vector:
            write = _WRITERS[column.type]
            stored = [part.stored(index, ordinal) for ordinal in chosen.tolist()]
            return ["NULL" if value is None else write(value) for value in stored]
        matrix = part.vectors(index, chosen)
        if column.dtype == "f16":
            matrix = matrix.astype("<f4")
        rows = ["x'" + row.tobytes().hex() + "'" for row in matrix]
        present = part.present(index)
        if present is None:
            return rows
        kept = present[chosen].tolist()
        return [row if there else "NULL" for row, there in zip(rows, kept, strict=True)]


def insert_statements(
    collection: CollectionView, count: Callable[[int], None] | None = None
) -> Iterator[str]:
    """INSERT for all rows, by rowid; `count` is told how many each statement has."""
    schema = collection.schema
    names = [quoted(column.name) for column in shown(schema)]
    if schema.rowid_alias is None:
        names.insert(0, "rowid")
    head = f"INSERT INTO {quoted(schema.name)} ({', '.join(names)}) VALUES\n"
    waiting: list[str] = []
    size = 0
    for row in _rows(collection):
        if waiting and (len(waiting) >= STATEMENT_ROWS or size + len(row) > STATEMENT_CHARACTERS):
            yield head + ",\n".join(waiting) + ";"
            if count is not None:
                count(len(waiting))
            waiting, size = [], 0
        waiting.append(row)
        size += len(row) + 2
    if waiting:
        yield head + ",\n".join(waiting) + ";"
        if count is not None:
            count(len(waiting))


def _rows(collection: CollectionView) -> Iterator[str]:
    """All live rows as VALUES has them, by rowid: the parts, merged window by window (DP2)."""
    sources = [_Source(collection, part) for part in collection.parts()]
    while True:
        sources = [source for source in sources if not source.is_done]
        if not sources:
            return
        collection.check()
        limit = min(source.limit() for source in sources)
        window: list[tuple[int, str]] = []
        for source in sources:
            window += source.take(limit)
        window.sort()
        for _, row in window:
            yield row


def next_rowid(collection: CollectionView) -> int:
    """The least rowid never given out, 1 where the rows themselves say it."""
    newest = collection.entry.next_rowid
    entry = BTree(collection.view.pages, collection.entry.delta_root).last()
    if entry is not None:
        newest = max(newest, HEAD.unpack_from(entry[1])[2])
    last = max((int(rowids.max()) for rowids in collection.live_rowids() if len(rowids)), default=0)
    return newest if newest > max(last, 0) + 1 else 1


# ------------------------------------------------------------------------- the whole


def statements(
    view: View, names: Sequence[str] | None = None, count: Callable[[int], None] | None = None
) -> Iterator[str]:
    """The statements that build the collections of a view, or those named.

    Raises ProgrammingError where a name is none's.
    """
    wanted = view.names() if names is None else [view.catalog.entry(n).schema.name for n in names]
    yield "BEGIN TRANSACTION;"
    if names is None:
        yield from _settings(view)
    if any(view.collection(name).schema.generated_columns for name in wanted):
        yield "PRAGMA give_generated = 1;"
    for name in dict.fromkeys(wanted):
        collection = view.collection(name)
        schema = collection.schema
        yield create_statement(schema, next_rowid(collection))
        yield from index_statements(schema, ("bm25",))
        yield from insert_statements(collection, count)
        yield from index_statements(schema, ("btree", "hrm2"))
    yield "COMMIT;"


def _settings(view: View) -> Iterator[str]:
    """PRAGMAs for what the file keeps of itself."""
    header = view.header()
    for name in HEADER_PRAGMAS:
        value = getattr(header, name)
        if value:
            yield f"PRAGMA {name} = {value};"
    if view.catalog.keep_commits:
        yield f"PRAGMA keep_commits = {view.catalog.keep_commits};"


class Dump:
    """What `Connection.iterdump` returns; threads may share it, one at a time, as a connection."""

    def __init__(self, connection: Connection, filter: str | None = None) -> None:
        self._connection = connection
        self._statements = iterate(connection, filter)

    def __iter__(self) -> Dump:
        return self

    def __next__(self) -> str:
        with self._connection.lock:
            return next(self._statements)

    def close(self) -> None:
        """End the dump, and let go of what it reads."""
        with self._connection.lock:
            self._statements.close()


def iterate(connection: Connection, filter: str | None = None) -> Generator[str, None, None]:
    """`Connection.iterdump`: the statements one after the other, at the commit of the first.

    filter  a LIKE pattern that names of collections have to match

    In a transaction, its own changes are seen; it must not change while the statements are read.
    """
    if filter is not None and not isinstance(filter, str):
        raise InterfaceError(f"filter is {type(filter).__name__}, not a LIKE pattern")
    with connection.lock:
        connection.engine().forget_interrupt()
        view, snapshot = connection.engine().lasting_view()
        changes = connection.total_changes
    names = None
    if filter is not None:
        matches = like_matcher(filter, None)
        names = [name for name in view.names() if matches(name)]
    found = statements(view, names)
    try:
        while True:
            with connection.lock:
                connection.engine()
                if snapshot is None and not (
                    view.pages.is_open
                    and connection.total_changes == changes
                    and view.pages.header().catalog_number == view.catalog.number
                    and view.pages.header().schema_number == view.catalog.schema_number
                ):
                    raise OperationalError("the transaction changed while it was dumped")
                statement = next(found, None)
            if statement is None:
                return
            yield statement
    finally:
        if snapshot is not None:
            with connection.lock:
                snapshot.close()
