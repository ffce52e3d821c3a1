"""Collection: one collection as an object, for arrays rather than statements.

A call joins the connection's open transaction; outside of one it is a transaction of its own,
committed when it returns, with and without autocommit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from m2mdb.hits import Hits
from m2mdb.index import scrubbing
from m2mdb.index.constraints import entry_of
from m2mdb.index.generated import may_encode_ahead
from m2mdb.index.receipts import Receipt
from m2mdb.index.values import python_value, store_scalar
from m2mdb.memories import Memories
from m2mdb.pager.errors import DataError, InterfaceError, NotSupportedError, ProgrammingError
from m2mdb.query.search import SearchRequest, signals_of
from m2mdb.row import Names, Row
from m2mdb.searching import (
    PLAIN_CLAUSES,
    LastSearch,
    NearShape,
    around,
    batch,
    batch_of_vectors,
    check_batch,
    check_condition,
    checked_name,
    column_of,
    condition,
    decay_from,
    fusion_from,
    hits_of,
    near_hits,
    only_row,
    queries_of,
)
from m2mdb.searching_filtered import filtered_hits

if TYPE_CHECKING:
    import datetime

    import pyarrow

    from m2mdb.categories import Categories
    from m2mdb.connection import Connection
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.index.view import View, WriteView
    from m2mdb.query.copying import Progress
    from m2mdb.searching_hybrid import HybridShape

    OnConflict = Literal["error", "replace", "ignore"]
    Array = np.ndarray[Any, Any]
    Key = int | float | str | bytes | bool | datetime.datetime | np.generic
    Keys = Iterable[Any]

ON_CONFLICT = ("error", "replace", "ignore")
ONE_TYPES = (str, bytes, bytearray, memoryview, np.generic)  # iterable, and yet one id


class Collection(Memories):
    """A collection of a connection; made by `Connection.collection`."""

    __slots__ = ("_last", "_last_hybrid", "connection", "name")

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self._last: LastSearch[NearShape] | None = None
        self._last_hybrid: LastSearch[HybridShape] | None = None

    @property
    def schema(self) -> CollectionSchema:
        """The columns and indexes, as of now."""
        return self.connection.read(lambda view: view.collection(self.name).schema)

    # Rows

    def add(
        self, rows: Any, on_conflict: OnConflict = "error", *, categories: Categories | None = None
    ) -> Array:
        """Add rows and return their primary keys (rowids where there is no primary key).

        `rows` is a dict of equally long columns, a list of dicts, a DataFrame, an object with
        `__arrow_c_stream__`, or a dict of scalars for one row. All rows are added or none.
        `categories` fills its column where that is absent or None.
        """
        if on_conflict not in ON_CONFLICT:
            raise ProgrammingError(f"on_conflict is {on_conflict!r}, not error, replace or ignore")
        from m2mdb.columns import columns_ahead

        connection = self.connection
        with connection.lock:
            database = connection.engine()
            ahead = None
            try:
                if categories is not None or may_encode_ahead(database, self.name):
                    ahead = columns_ahead(database, self.name, rows)
                if categories is not None and ahead is not None:
                    from m2mdb.categories import labelled

                    ahead = labelled(database, self.name, ahead, categories)
                return connection.write(lambda view: self._add(view, rows, ahead, on_conflict))
            finally:
                database.ahead.clear()

    def _add(
        self,
        view: WriteView,
        rows: Any,
        ahead: tuple[dict[str, Any], int] | None,
        on_conflict: OnConflict,
    ) -> Array:
        from m2mdb.columns import to_columns

        schema = view.collection(self.name).schema
        columns, count = to_columns(rows, schema) if ahead is None else ahead
        for name in columns:
            schema.column(name)
        if count == 0:
            return key_array(schema, [])
        rowids = view.insert(self.name, columns, count, on_conflict)
        self.connection.total_changes += int(np.count_nonzero(rowids >= 0))
        if schema.primary_key is None or schema.primary_key == schema.rowid_alias:
            return rowids
        key = schema.columns[schema.primary_key].name.lower()
        given = next((columns[name] for name in columns if name.lower() == key), [None] * count)
        return key_array(schema, stored_keys(schema, given))

    @overload
    def get(self, ids: Key) -> Row | None: ...
    @overload
    def get(self, ids: Keys) -> list[Row | None]: ...
    def get(self, ids: Key | Keys) -> Row | None | list[Row | None]:
        """The row of one id, or None; for a list of ids a list of rows and Nones."""
        return self.connection.read(lambda view: self._get(view, ids))

    def _get(self, view: View, ids: Any) -> Row | None | list[Row | None]:
        collection = view.collection(self.name)
        wanted = ids_of(ids, collection.schema)
        every = collection.schema.shown_columns
        names = Names(tuple(collection.schema.columns[index].name for index in every))
        rows: list[Row | None] = []
        for key in wanted:
            rowid = find(collection, key)
            place = None if rowid is None else collection.place(rowid)
            rows.append(None if place is None else Row(names, collection.row(place, every)))
        return rows[0] if is_one(ids, collection.schema) else rows

    def update(self, id: Any, values: Mapping[str, Any]) -> int:
        """Give columns of the row of an id new values; returns the rows changed, 0 or 1."""
        if not isinstance(values, Mapping):
            raise InterfaceError(f"values are {type(values).__name__}; wanted is a dict")
        return self.connection.write(lambda view: self._update(view, id, values))

    def _update(self, view: WriteView, id: Any, values: Mapping[str, Any]) -> int:
        collection = view.collection(self.name)
        for name in values:
            collection.schema.column(name)
        rowid = find(collection, id)
        if rowid is None or collection.place(rowid) is None:
            return 0
        if not values:
            return 1
        columns = {name: [value] for name, value in values.items()}
        changed = view.update(self.name, [rowid], columns)
        self.connection.total_changes += changed
        return changed

    def delete(self, ids: Any = None, where: str | None = None, params: Any = ()) -> int:
        """Delete the rows of ids, or those that `where` holds for; returns how many.

        Raises ProgrammingError where neither or both are given: `where="true"` means all rows.
        """
        if (ids is None) == (where is None):
            raise ProgrammingError('delete takes ids or where; where="true" deletes all rows')
        check_condition(where)
        if where is not None:
            with around(f"DELETE FROM {quoted(self.name)} WHERE ") as head:
                return int(self.connection.run_whole(head + where, params).rowcount)
        return self.connection.write(lambda view: self._delete(view, ids))

    def _delete(self, view: WriteView, ids: Any) -> int:
        collection = view.collection(self.name)
        found = {find(collection, key) for key in ids_of(ids, collection.schema)}
        rowids = [r for r in found if r is not None and collection.place(r) is not None]
        if not rowids:
            return 0
        deleted = view.delete(self.name, sorted(rowids))
        self.connection.total_changes += deleted
        return deleted

    def forget(self, ids: Any = None, where: str | None = None, params: Any = ()) -> Receipt:
        """Delete rows with every trace of them in file and log; the receipt says how far it is.

        Raises ProgrammingError where neither or both are given: `where="true"` means all rows.
        """
        if (ids is None) == (where is None):
            raise ProgrammingError('forget takes ids or where; where="true" forgets all rows')
        check_condition(where)
        if where is not None:
            with around(f"FORGET FROM {quoted(self.name)} WHERE ") as head:
                number = int(self.connection.run_whole(head + where, params).rows[0][-1])
        else:
            number = self.connection.write(lambda view: self._forget(view, ids))
        with self.connection.lock:
            return scrubbing.written_receipt(self.connection.engine(), number)

    def _forget(self, view: WriteView, ids: Any) -> int:
        collection = view.collection(self.name)
        found = {find(collection, key) for key in ids_of(ids, collection.schema)}
        rowids = [r for r in found if r is not None and collection.place(r) is not None]
        self.connection.total_changes += len(rowids)
        return view.forget(self.name, rowids)

    def has_forgotten(self, receipt: Receipt | int, ids: Any) -> bool:
        """Whether the receipt's rows had these ids, all of them and no others (by its digest).

        `receipt` is what forget returned, or its number in m2m_receipts.
        """
        if not isinstance(receipt, Receipt | int) or isinstance(receipt, bool):
            raise InterfaceError(
                f"receipt is {type(receipt).__name__}, not what forget returned, nor its number"
            )
        wanted = ids_of(ids)
        return self.connection.read(lambda view: self._has_forgotten(view, receipt, wanted))

    def _has_forgotten(self, view: View, receipt: Receipt | int, ids: Sequence[Any]) -> bool:
        schema = view.collection(self.name).schema
        if not isinstance(receipt, Receipt):
            known = {each.number: each for each in scrubbing.receipts(view)}
            if receipt not in known:
                raise ProgrammingError(f"no receipt {receipt}; m2m_receipts has {len(known)}")
            receipt = known[receipt]
        key = schema.primary_key
        keys = [plain(each) for each in ids]
        if key is not None and key != schema.rowid_alias:
            keys = [store_scalar(schema.columns[key], each, schema.name) for each in keys]
        elif not all(isinstance(each, int) for each in keys):
            raise DataError(f"ids of {schema.name} are integers")
        return None not in keys and scrubbing.has_forgotten(view, receipt, keys)

    def count(self, where: str | None = None, params: Any = ()) -> int:
        """How many rows there are, or how many `where` holds for."""
        check_condition(where)
        if where is None:
            return self.connection.read(lambda view: view.collection(self.name).count())
        with around(f"SELECT count(*) FROM {quoted(self.name)} WHERE ") as head:
            return int(self.connection.run(head + where, params).rows[0][0])

    # Searches

    def search(
        self,
        query: str | None = None,
        *,
        near: Any = None,
        match: str | Mapping[str, str] | None = None,
        where: str | None = None,
        params: Any = (),
        k: int = 10,
        offset: int = 0,
        fusion: str | tuple[str, Mapping[str, float]] | None = None,
        recall: float | None = None,
        probes: int | None = None,
        exact: bool = False,
        min_score: float | None = None,
        score: str = "similarity",
        as_of: int | None = None,
        diversity: float | None = None,
        decay: Mapping[str, float | datetime.timedelta] | None = None,
        returning: str | Sequence[str] | None = None,
        signals: bool = False,
    ) -> Hits:
        """The best k rows for a vector (`near`), a text (`match`), or both, or for `query`.

        query          a text for both: encoded for the generated VECTOR column, and its plain
                       words for the FULLTEXT columns (FOR)
        near, match    what to search; `{"column": what}` names the column, which `near` needs
                       where there are several; `match` without one searches all FULLTEXT columns
        where, params  a condition that rows must pass, and its parameters
        fusion         "rrf", "weighted", "adaptive", "vector_only" or "bm25_only"; with options
                       `("weighted", {"vector": 0.3, "text": 0.7})`
        min_score      drop hits with a lower score
        as_of          search the rows as of right after this commit (`PRAGMA keep_commits`)
        diversity      0 to 1: how much being like a hit before counts against a row
        decay          `{"created": 30}`: scores halve every 30 days (or every timedelta)
        returning      columns of the hits; without it all but vectors, and `score`
        signals        compute `hits.signals`: confidence, margin and qerr of `near`

        Score "splat" is not built yet and raises NotSupportedError.
        """
        alone = near is not None and as_of is None and query is None and not signals
        alone = alone and diversity is None and decay is None and score == "similarity"
        if alone and (fusion is None if match is None else where is None):
            clauses = k, offset, recall, probes, exact, min_score, returning
            if where is not None:
                hits = filtered_hits(self.connection, self.name, near, where, params, clauses)
            elif match is None:
                hits = self._near(near, clauses)
            else:
                hits = self._hybrid(near, match, fusion, clauses)
            if hits is not None:
                return hits
        near_column, near = column_of("near", near)
        match_column, match = column_of("match", match)
        fusion, fusion_options = fusion_from(fusion)
        request = SearchRequest(
            self.name, near=only_row(near), near_column=near_column, match=match,
            match_column=match_column, for_text=query, k=k, offset=offset, fusion=fusion,
            fusion_options=fusion_options, recall=recall, probes=probes, exact=exact,
            min_score=min_score, score=score, as_of=as_of, diversity=diversity,
        )  # fmt: skip
        with self.connection.lock, self.connection.reading() as view:
            if where is not None:
                request.where = condition(self.connection, view, self.name, where, params)
            if decay is not None:
                request.decay = decay_from(view, decay)
            hits = hits_of(view, request, returning)
            if signals:
                hits.signals = signals_of(view, request)
            return hits

    def _near(self, near: Any, clauses: tuple[Any, ...]) -> Hits | None:
        """The hits of a search by a vector alone; None where it is not to be had this way.

        clauses  k, offset, recall, probes, exact, min_score, returning
        """
        k, offset, recall, probes, exact, min_score, returning = clauses
        last, shape = self._last, None
        if (
            last is not None and returning.__class__ is list and not returning
            and k is last.k and offset is last.offset and recall is last.recall
            and probes is last.probes and exact is last.exact and min_score is last.min_score
        ):  # fmt: skip
            shape = last.shape
            hits = shape.hits_at_once(self.connection, near)
            if hits is not None:
                return hits
        return self._near_by_clauses(near, clauses, shape)

    def _near_by_clauses(
        self, near: Any, clauses: tuple[Any, ...], tried: NearShape | None
    ) -> Hits | None:
        """As `_near`, where the last search was another one, or cannot be repeated.

        tried  what could not search at once
        """
        column = None
        if type(near) is not np.ndarray:
            column, near = column_of("near", near)
        if near.__class__ is np.ndarray and near.ndim == 2:
            near = only_row(near)
        clauses = (self.name, column, *clauses)
        if type(clauses[-1]) is list:
            clauses = (*clauses[:-1], tuple(clauses[-1]))
        if tuple(map(type, clauses)) not in PLAIN_CLAUSES:
            return None
        hits = near_hits(self.connection, clauses, near, tried)
        if hits is not None and column is None and clauses[-1] == ():
            self._last = LastSearch(self.connection.shapes[clauses], *clauses[2:-1])
        return hits

    def _hybrid(self, near: Any, match: Any, fusion: Any, clauses: tuple[Any, ...]) -> Hits | None:
        """The hits of a search by a vector and a text; None where it is to go by steps.

        clauses  k, offset, recall, probes, exact, min_score, returning
        """
        if fusion is not None and fusion != "rrf":
            return None
        last, tried = self._last_hybrid, None
        if last is not None and last.is_again(clauses) and type(near) is np.ndarray:
            tried = last.shape
            hits = tried.hits_at_once(self.connection, near, match)
            if hits is not None:
                return hits
        near_column = match_column = None
        if type(near) is not np.ndarray:
            near_column, near = column_of("near", near)
        if type(match) is not str:
            match_column, match = column_of("match", match)
        if near.__class__ is np.ndarray and near.ndim == 2:
            near = only_row(near)
        if type(clauses[-1]) is list:
            clauses = (*clauses[:-1], tuple(clauses[-1]))
        if (str, NoneType, *map(type, clauses)) not in PLAIN_CLAUSES:
            return None
        from m2mdb.searching_hybrid import hybrid_hits

        key = (self.name, near_column, match_column, *clauses)
        hits = hybrid_hits(self.connection, key, near, match, tried)
        if hits is not None and near_column is None and match_column is None and clauses[-1] == ():
            self._last_hybrid = LastSearch(self.connection.shapes[key], *clauses[:-1])
        return hits

    def search_batch(
        self,
        near: Any = None,
        match: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        where: str | None = None,
        params: Any = (),
        k: int = 10,
        recall: float | None = None,
        probes: int | None = None,
        exact: bool = False,
    ) -> tuple[Array, Array]:
        """Keys and scores of many searches, of shape (queries, k).

        `near` is a matrix or a list of vectors, `match` a list of texts; `{"column": …}` names the
        column; the rest as in `search`. Where fewer than k rows match, keys are padded with -1
        (None where they are no integers) and scores with NaN.
        """
        near_column, near = column_of("near", near)
        match_column, match = column_of("match", match)
        check_batch(near, match)
        pattern = SearchRequest(
            self.name,
            near=near,
            near_column=near_column,
            match=match,
            match_column=match_column,
            k=k,
            recall=recall,
            probes=probes,
            exact=exact,
        )

        def run(view: View) -> tuple[Array, Array]:
            pattern.where = condition(self.connection, view, self.name, where, params)
            found = batch_of_vectors(view, pattern, near) if match is None else None
            return batch(view, pattern, queries_of(near, match)) if found is None else found

        return self.connection.read(run)

    def feedback(self, near: Any, relevant: Any = (), irrelevant: Any = ()) -> None:
        """Learn from what was relevant to a query; not built yet, raises NotSupportedError."""
        raise NotSupportedError("feedback is not built yet")

    def copy_to(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> int:
        """Write all rows to a file, as COPY … TO; returns how many.

        progress   called with (rows done, rows in all) after each batch; it may raise to stop
        options    format, delimiter, column
        """
        with self.connection.lock:
            database = self.connection.engine()
            from m2mdb.connection import language
            from m2mdb.query.copying import copy_to

            language()  # knows the formats
            return copy_to(database, self.name, os.fspath(path), options, progress)

    def copy_from(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> int:
        """Add the rows of a file, all or none, as COPY … FROM; returns how many.

        progress   called with (rows done, rows in all or None) after each batch; it may raise
        options    format, on_conflict, delimiter, column
        """
        from m2mdb.connection import language
        from m2mdb.query.copying import copy_from

        language()  # knows the formats
        count = self.connection.within_one(
            lambda database: copy_from(database, self.name, os.fspath(path), options, progress)
        )
        self.connection.total_changes += count
        return count

    def arrow(self) -> pyarrow.Table:
        """All rows and columns as an Arrow table; errors as `Cursor.arrow` raises them."""
        return self.connection.execute(f"SELECT * FROM {quoted(self.name)}").arrow()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """All rows and columns as an Arrow stream: DuckDB, Polars and others read a collection."""
        cursor = self.connection.execute(f"SELECT * FROM {quoted(self.name)}")
        return cursor.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        try:
            schema = self.schema
        except Exception as error:
            return f"<m2mdb.Collection {self.name}: {error}>"
        columns = ", ".join(f"{column.name} {column.declaration()}" for column in schema.columns)
        return f"<m2mdb.Collection {schema.name} ({columns}), {len(self)} rows>"


def is_one(ids: Any, schema: CollectionSchema | None = None) -> bool:
    """Whether what was given is one id, not some of them.

    A tuple is one where the primary key has several columns.
    """
    if isinstance(ids, np.ndarray):
        return ids.ndim == 0
    if schema is not None and schema.composite_key and isinstance(ids, tuple):
        return True
    return isinstance(ids, ONE_TYPES) or not isinstance(ids, Iterable)


def ids_of(ids: Any, schema: CollectionSchema | None = None) -> list[Any]:
    """The ids that a caller gave: one, or any iterable of them.

    Raises InterfaceError for a dict: whether its keys or its values are meant cannot be told.
    """
    if isinstance(ids, Mapping):
        raise InterfaceError(f"ids are {type(ids).__name__}; wanted is one id or a list of ids")
    if isinstance(ids, np.ndarray):
        if ids.ndim > 1:
            raise InterfaceError(f"ids are an array of {ids.ndim} dimensions; wanted is one")
        return [ids[()]] if ids.ndim == 0 else list(ids)
    return [ids] if is_one(ids, schema) else list(ids)


def find(collection: CollectionView, key: Any) -> int | None:
    """The rowid of a primary key; where there is none, ids are rowids.

    A key of several columns is a tuple; its rows have rowids as ids, too.

    Raises DataError for what can be no key: "there is no such row" would be no answer, least of
    all to `forget`.
    """
    schema = collection.schema
    if schema.primary_key is not None and schema.primary_key != schema.rowid_alias:
        value = _stored_part(schema, schema.primary_key, key, key)
        return None if value is None else collection.find(schema.primary_key, value)
    if schema.composite_key and isinstance(key, tuple):
        if len(key) != len(schema.composite_key):
            raise DataError(
                f"id {key!r} of {schema.name} has {len(key)} values; its primary key has "
                f"{len(schema.composite_key)} columns"
            )
        parts = zip(schema.composite_key, key, strict=True)
        stored = tuple([_stored_part(schema, index, part, key) for index, part in parts])
        info = next(info for info in schema.indexes if info.origin == "primary")
        return entry_of(collection, info, stored)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    names = ", ".join(schema.columns[index].name for index in schema.composite_key or ())
    wanted = f"a tuple of ({names}), nor a rowid" if names else "an integer"
    raise DataError(f"id {key!r} of {schema.name} is {type(key).__name__}, not {wanted}")


def _stored_part(schema: CollectionSchema, index: int, part: Any, key: Any) -> Any:
    """A value of a primary key in stored form."""
    column, value = schema.columns[index], plain(part)
    if value is None or (isinstance(value, bool) and column.type != "BOOLEAN"):
        raise DataError(f"id {key!r} of {schema.name} is {type(part).__name__}, not {column.type}")
    return store_scalar(column, value, schema.name)


def stored_keys(schema: CollectionSchema, keys: Sequence[Any]) -> list[Any]:
    """Primary keys as they were stored: 5 in a TEXT column is '5'."""
    assert schema.primary_key is not None
    column = schema.columns[schema.primary_key]
    if column.type == "TEXT" and set(map(type, keys)) == {str}:
        return list(keys)
    return [python_value(column, store_scalar(column, plain(k), schema.name)) for k in keys]


def plain(value: Any) -> Any:
    """A NumPy scalar as the Python value that it is."""
    return value.item() if isinstance(value, np.generic) else value


def key_array(schema: CollectionSchema, keys: Sequence[Any]) -> Array:
    """Primary keys as int64 where they are integers, else as objects."""
    key = schema.primary_key
    if key is None or schema.columns[key].type == "INTEGER":
        return np.array(keys, dtype=np.int64)
    array = np.empty(len(keys), dtype=object)
    array[:] = keys
    return array


def quoted(name: str) -> str:
    """A name as a statement takes it, whatever characters it holds."""
    return '"' + checked_name(name).replace('"', '""') + '"'
