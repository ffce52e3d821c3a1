"""Generated vector columns: vectors that an encoder makes of a TEXT column of the same row.

    embedding VECTOR(384) FROM body ENCODER 'minilm'

    texts of a statement --each once--> stored already? --yes--> the vector that is there
                                             \\--no---> the encoder, one batch --checked--> column

A column keeps the name of its source and of its encoder, and the model id and fingerprint that
the encoder had when the column was made. What is stored is searched by NEAR without any encoder.

Invariants
    GE1 All vectors of a column come from encoders of one model id, fingerprint and dimension.
    GE2 A row's vector is its text's: NULL with it, changed with it, given by nobody else, but for
        a load (`PRAGMA give_generated`), which brings back what was dumped.
    GE3 A text that a row of the collection has is not encoded again: segments have the hashes of
        the source, and texts of equal hashes are compared themselves. The cache is the rows, so
        that what is deleted and merged, or forgotten, is in no other place.
    GE4 Encoders run before the first byte is written (X1).
    GE5 What an insertion will ask for is encoded before it takes the writer lock, where its texts
        are known by then; `Database.ahead` has the vectors until the insertion has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collations import each_folded
from m2mdb.index.column_parts import key_hashes
from m2mdb.index.encoder import stopped_by
from m2mdb.index.schema import VECTOR_DTYPES, CollectionSchema, Column
from m2mdb.index.slices import SLICE_NUMBERS, array_of, distinct_values, slices, watched
from m2mdb.index.values import StoredColumn, VectorData, store_vectors, vector_slices
from m2mdb.pager.errors import (
    DataError,
    OperationalError,
    ProgrammingError,
    StatementInterruptedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from m2mdb.index.collection import CollectionView
    from m2mdb.index.database import Database
    from m2mdb.index.encoder import Encoder
    from m2mdb.index.view import WriteView

AHEAD_BYTES = 256 << 20  # of vectors that are made before an insertion begins
ENCODED_TEXTS = 8192  # given to an encoder at once, but where it says `texts_a_call`


# ------------------------------------------------------------------------- schema


def settle(database: Database, schema: CollectionSchema, columns: Iterable[Column]) -> None:
    """Give new generated columns the model id and fingerprint of their encoders (GE1).

    A column that has them, as in a dump, needs no encoder.
    Raises ProgrammingError: no such encoder. DataError: it has another dimension.
    """
    for column in columns:
        if column.generated is not None and "fingerprint" not in column.generated:
            encoder = _encoder(database, schema, column)
            column.generated = {
                **column.generated,
                "model": str(encoder.model_id),
                "fingerprint": str(encoder.fingerprint),
            }


def renamed(column: Column, old: str, new: str) -> None:
    """Follow a source that gets another name; `column` is the caller's own."""
    for role in ("from", "replaces"):
        if column.generated is not None and column.generated.get(role, "").lower() == old.lower():
            column.generated = {**column.generated, role: new}


def goes_with(column: Column, dropped: Column) -> bool:
    """Whether a column goes when another is dropped: what waits to take its place."""
    of = column.generated or {}
    return column is dropped or of.get("replaces", "").lower() == dropped.name.lower()


def check_droppable(schema: CollectionSchema, name: str) -> None:
    """ProgrammingError where a generated column is made of the column of this name."""
    for column in schema.columns:
        if column.is_hidden or column.generated is None:
            continue
        if column.generated["from"].lower() == name.lower():
            raise ProgrammingError(
                f"cannot drop column {name} of {schema.name}: {column.name} is generated from it; "
                f"drop {column.name} first"
            )


def fill(write: WriteView, name: str, column: Column) -> None:
    """Encode the texts of rows that were there before the column was added."""
    assert column.generated is not None
    source = column.generated["from"]
    waiting = [rowids.tolist() for rowids in write.collection(name).live_rowids()]
    for rowids in waiting:
        for start in range(0, len(rowids), ENCODED_TEXTS):
            some = rowids[start : start + ENCODED_TEXTS]
            view = write.collection(name)
            places = [place for rowid in some if (place := view.place(rowid)) is not None]
            texts = view.column_at(view.schema.column(source), places)
            write.update(name, some, {source: texts})


# ------------------------------------------------------------------------- encoders


def _encoder(database: Database, schema: CollectionSchema, column: Column) -> Encoder:
    """The encoder that a column names, whichever model it has.

    Raises ProgrammingError where there is none, DataError for another dimension.
    """
    assert column.generated is not None
    name = column.generated["encoder"]
    where = f"column {column.name} of {schema.name}"
    encoder = database.encoders(name, column.dimension)
    if encoder is None:
        raise ProgrammingError(
            f"{where}: encoder {name!r} is not there; give it by "
            f"connect(path, encoders={{{name!r}: encoder}})"
        )
    try:
        dimensions = int(encoder.dimensions)
    except Exception as error:
        raise OperationalError(f"{where}: encoder {name!r} failed: {error}") from error
    if dimensions != column.dimension:
        raise DataError(
            f"{where}: encoder {name!r} has dimension {dimensions}, the column {column.dimension}"
        )
    return encoder


def matching(database: Database, schema: CollectionSchema, column: Column) -> Encoder:
    """The encoder of a generated column (GE1).

    Raises ProgrammingError where it is not registered, or is another model than the vectors that
    are stored; DataError for another dimension; OperationalError where the encoder fails.
    """
    encoder = _encoder(database, schema, column)
    assert column.generated is not None
    kept = column.generated["model"], column.generated["fingerprint"]
    try:
        given = str(encoder.model_id), str(encoder.fingerprint)
    except Exception as error:
        name = column.generated["encoder"]
        raise OperationalError(f"encoder {name!r} failed: {error}") from error
    if given != kept:
        raise ProgrammingError(
            f"column {column.name} of {schema.name} was encoded by {kept[0]} (fingerprint "
            f"{kept[1]}); encoder {column.generated['encoder']!r} is {given[0]} (fingerprint "
            f"{given[1]}), whose vectors cannot be compared with those"
        )
    return encoder


def _texts_a_call(encoder: Encoder) -> int:
    """How many texts an encoder is given at once; between two calls an interrupt is seen."""
    said = getattr(encoder, "texts_a_call", None)
    return said if type(said) is int and said > 0 else ENCODED_TEXTS


def encode(
    database: Database,
    encoder: Encoder,
    column: Column,
    texts: Sequence[str],
    *,
    is_query: bool = False,
) -> np.ndarray:
    """Checked vectors of texts, floats of shape (len(texts), dimension).

    is_query  use the encoder's `encode_queries`, where it has one

    Raises OperationalError from what an encoder raises, DataError for what is no such matrix.
    """
    assert column.generated is not None
    name = column.generated["encoder"]
    run = getattr(encoder, "encode_queries", None) if is_query else None
    try:
        call = stopped_by(database.check_interrupted, run or encoder.encode)
        found = database.calling(f"encoder {name!r}", call)(list(texts))
    except StatementInterruptedError:
        raise
    except Exception as error:
        raise OperationalError(
            f"encoder {name!r} failed for column {column.name}: {type(error).__name__}: {error}"
        ) from error
    wanted = len(texts), column.dimension
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        kind = f"{found.dtype} array" if isinstance(found, np.ndarray) else type(found).__name__
        raise DataError(f"encoder {name!r} gave {kind}; expected float32 of shape {wanted}")
    if found.shape != wanted:
        raise DataError(f"encoder {name!r} gave shape {found.shape}; expected {wanted}")
    with np.errstate(over="ignore"):
        vectors: np.ndarray = np.ascontiguousarray(found, np.float32)
    is_bad = ~np.isfinite(vectors).all(axis=1)
    what = "a vector that is not finite"
    if column.metric == "cosine" and not is_bad.any():
        is_bad, what = ~vectors.any(axis=1), "a zero vector, which has no direction"
    if is_bad.any():
        raise DataError(f"encoder {name!r} gave {what} for text {int(np.argmax(is_bad))}")
    return vectors


# ------------------------------------------------------------------------- rows


def refuse_given(database: Database, schema: CollectionSchema, given: Iterable[int]) -> None:
    """ProgrammingError where generated columns are given values, unless a load gives them (GE2)."""
    for index in given:
        column = schema.columns[index]
        if column.generated is not None and not database.give_generated:
            raise ProgrammingError(
                f"column {column.name} of {schema.name} is generated from "
                f"{column.generated['from']}; it cannot be given a value"
            )


def source_of(schema: CollectionSchema, index: int) -> int:
    """The column that a generated one is made of."""
    of = schema.columns[index].generated
    assert of is not None
    return schema.column(of["from"])


def vectors_for(
    write: WriteView, view: CollectionView, index: int, texts: StoredColumn
) -> VectorData:
    """The vectors of a generated column for the stored texts of its source."""
    assert isinstance(texts, list)
    schema = view.schema
    column = schema.columns[index]
    dtype = np.dtype(VECTOR_DTYPES[column.dtype])
    if column.is_hidden:  # REEMBED comes by
        matrix = np.zeros((len(texts), column.dimension), dtype)
        return VectorData(matrix, None, np.zeros(len(texts), bool))
    check = write.database.check_interrupted
    wanted = [text for text in distinct_values(watched(texts, check), check) if text is not None]
    unique = np.zeros((len(wanted), column.dimension), dtype)
    if wanted:
        encoder = matching(write.database, schema, column)
        known = stored_vectors(view, index, wanted)
        ahead = write.database.ahead.get(_space(column), {})
        missing: list[int] = []
        for at, text in enumerate(watched(wanted, check)):
            found = known.get(text)
            if found is None:
                found = ahead.get(text)
            if found is None:
                missing.append(at)
            else:
                unique[at] = found
        step = _texts_a_call(encoder)
        for start in range(0, len(missing), step):
            check()
            some = missing[start : start + step]
            fresh = encode(write.database, encoder, column, [wanted[at] for at in some])
            unique[some] = store_vectors(column, fresh, len(some), schema.name).matrix
    place: dict[str | None, int] = {text: at for at, text in enumerate(watched(wanted, check))}
    place[None] = -1
    rows = array_of([place[text] for text in watched(texts, check)], np.int64, check)
    found_all = VectorData(unique)
    if len(wanted) == len(rows) and None not in texts:
        return found_all  # each text once, in order
    present = rows >= 0
    if present.all():
        return found_all.take(rows, check)
    matrix = np.zeros((len(rows), column.dimension), dtype)
    for part in vector_slices(matrix, check):
        there = np.flatnonzero(present[part]) + part.start
        matrix[there] = unique[rows[there]]
    return VectorData(matrix, None, present)


def _space(column: Column) -> tuple[Any, ...]:
    """What two columns agree in whose stored vectors of a text are the same."""
    of = column.generated or {}
    shape = column.dimension, column.dtype, column.metric
    return of.get("encoder"), of.get("model"), of.get("fingerprint"), *shape


def may_encode_ahead(database: Database, name: str) -> bool:
    """Whether an insertion that begins now may encode before it takes the writer lock.

    Not inside a transaction: one that writes has the lock, and one that reads first may then be
    too late to write (S13).
    """
    if database.in_transaction or database.give_generated or database.store.read_only:
        return False
    return database.may_generate(name)


def encode_ahead(database: Database, name: str, texts: Mapping[str, Iterable[Any]]) -> None:
    """Encode texts of columns, by their names in lower case, for the insertion that follows.

    What is no text, or is stored with its vector, is passed over, and so are texts beyond
    AHEAD_BYTES of vectors. Raises what `matching` and `encode` raise; nothing is locked.
    """
    for column, encoder, missing in _to_encode(database, name, texts):
        _encode_and_keep(database, name, (column, encoder), missing)


def _to_encode(
    database: Database, name: str, texts: Mapping[str, Iterable[Any]]
) -> list[tuple[Column, Encoder, list[str]]]:
    """The texts of each generated column that have no vector, AHEAD_BYTES of vectors at most."""
    work: list[tuple[Column, Encoder, list[str]]] = []
    with database.reading() as read:
        view = read.collection(name)
        for index in view.schema.generated_columns:
            column = view.schema.columns[index]
            source = view.schema.columns[source_of(view.schema, index)].name.lower()
            if column.is_hidden or source not in texts or column.name.lower() in texts:
                continue
            wanted = dict.fromkeys(text for text in texts[source] if type(text) is str)
            known = stored_vectors(view, index, list(wanted)) if wanted else {}
            made = database.ahead.get(_space(column), {})
            missing = [text for text in wanted if text not in known and text not in made]
            most = AHEAD_BYTES // (4 * column.dimension) - len(made)
            if missing and most > 0:
                work.append((column, matching(database, view.schema, column), missing[:most]))
    return work


def _encode_and_keep(
    database: Database, name: str, by: tuple[Column, Encoder], missing: Sequence[str]
) -> None:
    """Encode a column's texts, call by call, into `database.ahead`."""
    column, encoder = by
    vectors = database.ahead.setdefault(_space(column), {})
    keep = getattr(encoder, "keep", None)  # for the next try, should a later call fail
    made_now: dict[str, np.ndarray] = {}
    step = _texts_a_call(encoder)
    try:
        for start in range(0, len(missing), step):
            database.check_interrupted()
            some = [text for text in missing[start : start + step] if text not in vectors]
            if some:
                fresh = encode(database, encoder, column, some)
                if keep is not None:
                    made_now.update(zip(some, fresh, strict=True))
                stored = store_vectors(column, fresh, len(some), name).matrix
                vectors.update(zip(some, stored, strict=True))
    except BaseException:  # an interrupt too: what was paid for is kept, and it goes on up
        if keep is not None:
            keep(made_now)
        raise


def stored_vectors(view: CollectionView, index: int, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The vectors of those texts that a row version of the collection has (GE3)."""
    source = source_of(view.schema, index)
    found: dict[str, np.ndarray] = {}
    parts = view.parts()
    for text in watched(texts, view.check):
        entry = view.mirror.entry_with(source, text)
        if entry is not None and entry < parts[0].size:
            _take(found, text, parts[0], index, entry)
    of_source = view.schema.columns[source]
    keys = each_folded(of_source.fold, texts)
    hashes = key_hashes(keys, len(texts), view.check) if view.segments else None
    for part, segment in zip(parts[1:], view.segments, strict=True):
        if hashes is None or not segment.has("hashes", of_source.id):
            continue
        stored = segment.array("hashes", of_source.id)
        if not len(stored):
            continue
        equal: list[int] = []
        for some in slices(len(hashes), SLICE_NUMBERS >> 2, view.check):
            at = np.minimum(np.searchsorted(stored, hashes[some]), len(stored) - 1)
            equal += (np.flatnonzero(stored[at] == hashes[some]) + some.start).tolist()
        for suspect in watched(equal, view.check):
            text = texts[suspect]
            for ordinal in segment.candidates(of_source.id, int(hashes[suspect])):
                if text not in found and segment.value(of_source, ordinal) == text:
                    _take(found, text, part, index, ordinal)
    return found


def _take(found: dict[str, np.ndarray], text: str, part: Any, index: int, ordinal: int) -> None:
    present = part.present(index)
    if present is None or present[ordinal]:
        found[text] = part.vectors(index, np.array([ordinal]))[0]
