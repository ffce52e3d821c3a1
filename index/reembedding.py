"""REEMBED: a generated vector column goes over to another encoder, and can be searched meanwhile.

    begin --a commit--> batches --a commit each--> switch --a commit--> tidy --a commit a step-->
      |                   |                          |
      |                   |                          `- the hidden column takes the name, the place
      |                   |                             and the indexes of the old one, which goes
      |                   `- texts of a snapshot are encoded, then written where they still stand
      `- a hidden column `<name>_next` for the vectors of the new encoder

The hidden column is the memory of how far it is: a row whose text has no vector there waits.
So whatever stops a REEMBED, an error, an interrupt, a crash, the next one goes on from the rows
that wait. Until the switch everything is answered from the old column; whoever wants the vectors
that are there already names the hidden one: `NEAR embedding_next ?`.

Invariants
    RE1 A hidden column has for each row NULL, or the new encoder's vector of the row's text: what
        others insert or update in the meantime has NULL there, and waits.
    RE2 A hidden column is meant by its name alone: `*`, NEAR and FOR without a column, dumps and
        COPY pass it over. Nobody else gives it values or indexes.
    RE3 The switch is one commit, and happens in a transaction in which no row waits: every reader
        sees one space, whole.
    RE4 The encoder runs without any lock or snapshot, but for what others wrote again and again
        between the last look and the writer lock: after PATIENCE looks that is encoded inside.
    RE5 Where the encoder fails in the middle of a batch and has kept what it made (`take_kept`,
        as encoders over HTTP have it), that is written before the error is raised: the next
        REEMBED, of another process too, does not ask for it again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.index import clustering, drift, generated, maintenance, retention
from m2mdb.index.quiet import maintaining
from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema, Column
from m2mdb.index.statistics import statistics_key
from m2mdb.index.values import store_vectors
from m2mdb.index.writer import CollectionWriter
from m2mdb.pager.errors import DataError, OperationalError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.database import Database
    from m2mdb.index.encoder import Encoder
    from m2mdb.index.view import WriteView

    Progress = Callable[[int, int], object]  # rows done, rows in all

FIRST_TEXTS = 256  # of a batch; a slow encoder's batches stay small, so that little is lost
MOST_TEXTS = 8192  # of a batch
BATCH_SECONDS = 2.0  # a batch that took less is followed by one of twice its texts
PATIENCE = 3  # looks for rows that wait before the rest is encoded under the writer lock (RE4)
SUFFIX = "_next"


class Reembedded(NamedTuple):
    """What became of a column."""

    collection: str
    column: str
    rows: int  # that got a vector by this call
    encoded: int  # texts that the encoder was given for that
    dimension: int


class _Target(NamedTuple):
    """What a REEMBED is after."""

    collection: str
    hidden: int  # the id of the hidden column
    encoder: Encoder


def reembed(
    database: Database,
    name: str,
    encoder_name: str,
    column: str | None = None,
    progress: Progress | None = None,
) -> Reembedded:
    """Bring a generated column to another encoder, in transactions that commit themselves.

    column    which one, where the collection has several

    Raises OperationalError: inside a transaction, read-only, the encoder fails, somebody else
    ended the migration. ProgrammingError: no such collection, column or encoder. DataError: what
    the encoder gives is no vectors of its dimension. What was committed stays, and the next call
    goes on from there.
    """
    if database.in_transaction:
        raise OperationalError("cannot REEMBED inside a transaction")
    if database.store.read_only:
        raise OperationalError(f"{database.path} is open for reading only")
    target, label = _begin(database, name, encoder_name, column)
    rows = encoded = 0
    if target is not None:
        rows, encoded = _fill(database, target, progress)
    tidy(database, name)
    with database.reading() as view:
        schema = view.collection(name).schema
        dimension = schema.columns[schema.column(label)].dimension
        return Reembedded(schema.name, label, rows, encoded, dimension)


# ------------------------------------------------------------------------- the hidden column


def _begin(
    database: Database, name: str, encoder_name: str, column: str | None
) -> tuple[_Target | None, str]:
    """Find or add the hidden column; no target where the vectors are the encoder's already."""
    with database.reading() as view:
        schema = view.collection(name).schema
    old = _generated(schema, column)
    encoder, dimension, model, fingerprint = _described(database, schema, old, encoder_name)
    with database.writing() as write:
        view_ = write.collection(name)
        schema = view_.schema
        old = _generated(schema, old.name)
        hidden = _hidden(schema, old)
        wanted = {"encoder": encoder_name, "model": model, "fingerprint": fingerprint}
        is_same = _space(old) == (model, fingerprint, dimension)
        if hidden is not None and (is_same or _space(hidden) != (model, fingerprint, dimension)):
            from m2mdb.index import alter  # the migration to another model is given up

            alter.drop_column(write, name, hidden.name)
            hidden = None
        if is_same:
            _describe(write, name, old.id, wanted)
        elif hidden is None:
            hidden = _add_hidden(write, name, old, dimension, wanted)
        else:
            _describe(write, name, hidden.id, wanted)
    database.commit()
    if hidden is None:
        return None, old.name
    return _Target(schema.name, hidden.id, encoder), old.name


def _generated(schema: CollectionSchema, name: str | None) -> Column:
    """The column to migrate. ProgrammingError: none, several, or one that nothing generates."""
    found = [schema.columns[index] for index in schema.generated_columns]
    found = [each for each in found if not each.is_hidden]
    if name is not None:
        column = schema.columns[schema.column(name)]
        if column not in found:
            raise ProgrammingError(f"REEMBED: column {column.name} of {schema.name} is not "
                                   "generated by an encoder")  # fmt: skip
        return column
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise ProgrammingError(
            f"REEMBED without a column needs exactly one generated VECTOR column; "
            f"{schema.name} has {names}"
        )
    return found[0]


def _hidden(schema: CollectionSchema, old: Column) -> Column | None:
    """The column that waits for the place of another, if there is one."""
    for index in schema.hidden_columns:
        column = schema.columns[index]
        if generated.goes_with(column, old):
            return column
    return None


def _space(column: Column) -> tuple[str, str, int]:
    """The model, fingerprint and dimension of a column's vectors."""
    assert column.generated is not None
    return column.generated["model"], column.generated["fingerprint"], column.dimension


def _described(
    database: Database, schema: CollectionSchema, old: Column, name: str
) -> tuple[Encoder, int, str, str]:
    """The new encoder, its dimension, model id and fingerprint."""
    where = f"REEMBED {schema.name} USING {name!r}"
    encoder = database.encoders(name, old.dimension)
    if encoder is None:
        raise ProgrammingError(
            f"{where}: the encoder is not there; give it by "
            f"connect(path, encoders={{{name!r}: encoder}})"
        )
    try:
        dimension = int(encoder.dimensions)
        model, fingerprint = str(encoder.model_id), str(encoder.fingerprint)
    except Exception as error:
        raise OperationalError(f"{where}: encoder {name!r} failed: {error}") from error
    if dimension < 1:
        raise DataError(f"{where}: the encoder has dimension {dimension}")
    return encoder, dimension, model, fingerprint


def _describe(write: WriteView, name: str, id_: int, wanted: dict[str, str]) -> None:
    """The vectors stay, the encoder has another name."""
    view = write.collection(name)
    columns = [copy.copy(column) for column in view.schema.columns]
    column = next(each for each in columns if each.id == id_)
    if {**(column.generated or {}), **wanted} == column.generated:
        return
    column.generated = {**(column.generated or {}), **wanted}
    _replace(write, view, columns)


def _add_hidden(
    write: WriteView, name: str, old: Column, dimension: int, wanted: dict[str, str]
) -> Column:
    """The new column, without a vector yet."""
    from m2mdb.index import alter

    assert old.generated is not None
    schema = write.collection(name).schema
    label, number = old.name + SUFFIX, 1
    while schema.position(label) is not None:
        number += 1
        label = f"{old.name}{SUFFIX}{number}"
    hidden = Column(
        label, "VECTOR", dimension=dimension, dtype=old.dtype, metric=old.metric,
        generated={"from": old.generated["from"], **wanted, "replaces": old.name},
    )  # fmt: skip
    alter.add_column(write, name, hidden)
    return hidden


# ------------------------------------------------------------------------- batches


def _fill(database: Database, target: _Target, progress: Progress | None) -> tuple[int, int]:
    """Batch after batch until no row waits, then the switch; (rows, texts encoded)."""
    rows = encoded = looks = 0
    most = FIRST_TEXTS
    while True:
        database.check_interrupted()
        started = database.store.vfs.monotonic()
        waiting, work, failure = _next_batch(database, target, most)
        if work is None:
            looks += 1
            if _switch(database, target, at_any_cost=looks >= PATIENCE):
                return rows, encoded
            continue
        rowids, texts, vectors, fresh = work
        changed = _write(database, target, rowids, texts, vectors) if rowids else 0
        if failure is not None:
            raise failure
        rows += changed
        encoded += fresh
        if progress is not None:
            progress(rows, rows + waiting - changed)
        if len(rowids) == most and database.store.vfs.monotonic() - started < BATCH_SECONDS:
            most = min(2 * most, MOST_TEXTS)


_Work = tuple[list[int], list[str], dict[str, np.ndarray], int]


def _next_batch(
    database: Database, target: _Target, most: int
) -> tuple[int, _Work | None, Exception | None]:
    """(rows that wait, the next of them with texts, their vectors, how many were encoded), and why
    these are not all: the encoder's error, after which what it has made is written still (RE5).
    """
    with database.reading() as view:
        collection = view.collection(target.collection)
        index = _position(collection, target)
        waiting, rowids, texts = _waiting(collection, index, most)
        unique = list(dict.fromkeys(texts))
        known = _known(collection, index, unique)
        column = collection.schema.columns[index]
    if not rowids:
        return 0, None, None
    missing = [text for text in unique if text not in known]
    failure: Exception | None = None
    try:
        if missing:
            known.update(_encoded(database, target, column, missing))
    except (OperationalError, DataError) as error:
        failure = error
        known.update(_left(target, column, missing))
        has = [at for at, text in enumerate(texts) if text in known]
        rowids, texts = [rowids[at] for at in has], [texts[at] for at in has]
    return waiting, (rowids, texts, known, len(missing)), failure


def _left(target: _Target, column: Column, texts: list[str]) -> dict[str, np.ndarray]:
    """The vectors, in stored form, that an encoder has kept of a call that failed."""
    take = getattr(target.encoder, "take_kept", None)
    found: dict[str, np.ndarray] = take(texts) if take is not None else {}
    if not found:
        return {}
    matrix = np.stack(list(found.values()))
    is_good = np.isfinite(matrix).all(axis=1)
    if column.metric == "cosine":
        is_good &= matrix.any(axis=1)
    if not is_good.all():
        return {}  # what is wrong with them is for the next call to say
    stored = store_vectors(column, matrix, len(matrix), target.collection).matrix
    return dict(zip(found, stored, strict=True))


def _encoded(
    database: Database, target: _Target, column: Column, texts: list[str]
) -> dict[str, np.ndarray]:
    """The vectors that the encoder makes, in stored form."""
    found = generated.encode(database, target.encoder, column, texts)
    stored = store_vectors(column, found, len(texts), target.collection).matrix
    return dict(zip(texts, stored, strict=True))


def _position(collection: CollectionView, target: _Target) -> int:
    """Where the hidden column is; OperationalError where another connection ended it."""
    for index in collection.schema.hidden_columns:
        if collection.schema.columns[index].id == target.hidden:
            return index
    raise OperationalError(
        f"REEMBED {collection.schema.name}: another connection has ended the migration"
    )


def _waiting(collection: CollectionView, index: int, most: int) -> tuple[int, list[int], list[str]]:
    """(how many rows wait, the rowids and texts of the first `most` of them)."""
    source = generated.source_of(collection.schema, index)
    count = 0
    rowids: list[int] = []
    texts: list[str] = []
    for part in collection.parts():
        if not part.size:
            continue
        is_waiting = ~_is_null(part, collection, source)
        present = part.present(index)
        if present is None:
            continue
        is_waiting &= ~present
        if part.live is not None:
            is_waiting &= part.live
        ordinals = np.flatnonzero(is_waiting)
        count += len(ordinals)
        chosen = ordinals[: max(most - len(rowids), 0)]
        rowids += part.rowids[chosen].tolist()
        texts += part.few_values(source, chosen.tolist()) if len(chosen) else []
    return count, rowids, texts


def _is_null(part: Part, collection: CollectionView, source: int) -> np.ndarray:
    """bool (size,): which versions have no text."""
    segment = getattr(part, "segment", None)
    if segment is None:
        values = collection.mirror.columns[source]
        return np.fromiter((values[at] is None for at in range(part.size)), bool, part.size)
    nulls = segment.nulls(collection.schema.columns[source])
    return np.zeros(part.size, bool) if nulls is None else nulls == 1


def _known(collection: CollectionView, index: int, texts: list[str]) -> dict[str, np.ndarray]:
    """The new vectors of texts that another row version has already (GE3)."""
    if not texts:
        return {}
    found = generated.stored_vectors(collection, index, texts)
    left = set(texts) - set(found)
    delta = collection.parts()[0]
    present = delta.present(index) if delta.size else None
    if present is None or not left or not present.any():
        return found
    values = collection.mirror.columns[generated.source_of(collection.schema, index)]
    for ordinal in np.flatnonzero(present).tolist():
        if values[ordinal] in left:
            found[values[ordinal]] = delta.vectors(index, np.array([ordinal]))[0]
    return found


def _write(
    database: Database,
    target: _Target,
    rowids: list[int],
    texts: list[str],
    vectors: dict[str, np.ndarray],
) -> int:
    """One batch, one commit: rows that still have the text and wait get their vectors."""
    with database.writing() as write:
        changed = _give(write, target, rowids, texts, vectors)
    database.commit()
    return changed


def _give(
    write: WriteView,
    target: _Target,
    rowids: list[int],
    texts: list[str],
    vectors: dict[str, np.ndarray],
) -> int:
    view = write.collection(target.collection)
    index = _position(view, target)
    source = generated.source_of(view.schema, index)
    parts = view.parts()
    kept: list[int] = []
    matrix: list[np.ndarray] = []
    for rowid, text in zip(rowids, texts, strict=True):
        place = view.place(rowid)
        if place is None:
            continue
        part = parts[place[0]]
        if part.stored(source, place[1]) == text and part.stored(index, place[1]) is None:
            kept.append(rowid)
            matrix.append(vectors[text])
    if not kept:
        return 0
    column = view.schema.columns[index]
    given = np.array(matrix, VECTOR_DTYPES[column.dtype])
    writer = CollectionWriter(write, target.collection, gives_hidden=True)
    return writer.update(kept, {column.name: given})


# ------------------------------------------------------------------------- the switch


def _switch(database: Database, target: _Target, *, at_any_cost: bool) -> bool:
    """Put the new column into the place of the old one; False where rows wait again (RE3)."""
    with database.writing() as write:
        view = write.collection(target.collection)
        index = _position(view, target)
        waiting, _, _ = _waiting(view, index, 0)
        if waiting and not at_any_cost:
            return False
        while waiting:
            database.check_interrupted()
            view = write.collection(target.collection)
            _, rowids, texts = _waiting(view, index, MOST_TEXTS)
            unique = list(dict.fromkeys(texts))
            known = _known(view, index, unique)
            missing = [text for text in unique if text not in known]
            if missing:
                column = view.schema.columns[index]
                known.update(_encoded(database, target, column, missing))
            waiting -= _give(write, target, rowids, texts, known)
        _take_place(write, target)
    database.commit()
    return True


def _take_place(write: WriteView, target: _Target) -> None:
    """One schema for another: the hidden column under the name and in the place of the old."""
    view = write.collection(target.collection)
    hidden = view.schema.columns[_position(view, target)]
    assert hidden.generated is not None
    position = view.schema.column(hidden.generated["replaces"])
    old = view.schema.columns[position]
    maintenance.flush(write, view)  # what the delta has stands by the columns' places
    fresh = copy.copy(hidden)
    fresh.name, fresh.not_null = old.name, old.not_null
    fresh.generated = {k: v for k, v in hidden.generated.items() if k != "replaces"}
    columns = [fresh if each is old else each for each in view.schema.columns]
    columns.remove(hidden)
    entry = _replace(write, view, columns, ends_past=True)
    if entry.statistics.pop(old.id, None) is not None:
        write.catalog_tree().delete(statistics_key(entry.id, old.id))


def _replace(
    write: WriteView, view: CollectionView, columns: list[Column], *, ends_past: bool = False
) -> CollectionEntry:
    """The collection with other columns."""
    from m2mdb.index.alter import reopen

    entry = view.entry.copy()
    entry.schema = CollectionSchema(
        view.schema.name, tuple(columns), view.schema.indexes, view.schema.checks
    )
    if ends_past:
        retention.end_past(write, entry)
    reopen(entry)
    if ends_past:
        drift.settle(write, entry)
    write.replace_entry(view, entry, schema_changed=True)
    write.forget_views()
    return entry


# ------------------------------------------------------------------------- what is left


def tidy(database: Database, name: str) -> None:
    """Write anew the segments that still have vectors of a column that is gone, a group a commit.

    Lists are made for a column with an index, and where the segments had some of the old one.
    """
    with database.reading() as view:
        groups = _stale_groups(view.collection(name))
    for ids, had_lists in groups:
        database.check_interrupted()
        with maintaining(database) as write:
            collection = write.collection(name)
            maintenance.flush(write, collection)
            left = [id_ for id_ in ids if id_ in collection.entry.records]
            if left:
                schema = collection.schema
                lists = schema.near_columns if had_lists else ()
                maintenance.merge(write, collection, left, lists)


def _stale_groups(collection: CollectionView) -> list[tuple[list[int], bool]]:
    """Segments with parts of columns that are gone, in groups, and whether any has old lists."""
    ids = {0, *(column.id for column in collection.schema.columns)}
    page_size = collection.view.pages.page_size
    groups: list[tuple[list[int], bool]] = []
    size = 0
    for segment in collection.segments:
        gone = [part for part, column in segment.names() if column not in ids]
        if not gone:
            continue
        own = maintenance.bytes_of(collection.entry.records[segment.id], page_size)
        if not groups or size + own > maintenance.SEGMENT_BYTES:
            groups.append(([], False))
            size = 0
        size += own
        chosen, had_lists = groups[-1]
        groups[-1] = [*chosen, segment.id], had_lists or clustering.HEAD in gone
    return groups
