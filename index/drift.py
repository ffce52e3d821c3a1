"""Drift: whether the rows that come still lie where the centroids of the lists were trained.

    baseline   mean squared distance of a segment's rows from their lists' centroids, when these
               were trained: the quantisation error, stored with the lists (`h.error`)
    recent     the same of the rows that came since, as an exponential moving average: each
               measured row moves it by ETA of the way to its own distance
    ratio      recent / baseline; ALARM or more, of LEAST rows at least, raises the alarm

One segment of each column is the *reference*: the largest that has lists. What a flush or a bulk
add brings is measured against its centroids, MEASURED rows of each, evenly spaced, in the
transaction that writes them; a search measures nothing and writes nothing. The figures stand in
the catalog (`m2m_drift` shows them), a key for each column. They begin anew with another
reference, and when OPTIMIZE has given every segment lists of its own; how many alarms there were,
and when the last one was, stays.

Invariants
    DR1 State names a segment that is there and has lists of the column, or there is no state.
    DR2 It is written with the rows that were measured, in one transaction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.index.values import VectorData
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CatalogItems, CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.segment import Segment
    from m2mdb.index.values import StoredColumn
    from m2mdb.index.view import WriteView
    from m2mdb.pager.btree import BTree

KIND = b"D"
ETA = 0.01
ALARM = 1.3
LEAST = 50  # rows measured before an alarm
MEASURED = 256  # rows of one flush or bulk add
_KEY = struct.Struct(">II")
_STATE = struct.Struct("<IIddQQQ")
_LARGEST = 1e30


class Drift(NamedTuple):
    """What is known of one column.

    reference  segment whose centroids measure
    alarms     how often the alarm was raised
    baseline   mean squared distance of the reference's rows
    recent     moving average of those that came since
    rows       measured since
    since      commit from which on they came
    alarmed    commit of the last alarm, 0: never
    """

    reference: int
    alarms: int
    baseline: float
    recent: float
    rows: int
    since: int
    alarmed: int

    @property
    def ratio(self) -> float:
        """Recent to baseline; 1 where both are nothing."""
        if self.baseline > 0:
            return self.recent / self.baseline
        return 1.0 if self.recent <= 0 else _LARGEST

    @property
    def is_alarm(self) -> bool:
        """Whether the rows that came lie elsewhere."""
        return self.rows >= LEAST and self.ratio >= ALARM

    def encode(self) -> bytes:
        """The value in the catalog."""
        return _STATE.pack(*self)

    @classmethod
    def decode(cls, raw: bytes, where: str) -> Drift:
        """Raises CorruptDatabaseError where it is not one."""
        if len(raw) != _STATE.size:
            raise CorruptDatabaseError(f"{where}: drift of {len(raw)} bytes")
        found = cls(*_STATE.unpack(raw))
        if not (0 <= found.baseline <= _LARGEST and 0 <= found.recent <= _LARGEST):
            raise CorruptDatabaseError(f"{where}: drift from {found.baseline} to {found.recent}")
        return found


def averaged(recent: float, errors: np.ndarray) -> float:
    """The moving average after some more rows, in their order."""
    weights = ETA * (1 - ETA) ** np.arange(len(errors) - 1, -1, -1)
    return float(recent * (1 - ETA) ** len(errors) + weights @ errors)


# ------------------------------------------------------------------------- in the catalog


def drift_key(collection: int, column: int) -> bytes:
    """The key of a column's state."""
    return KIND + _KEY.pack(collection, column)


def column_of_key(key: bytes, where: str) -> int:
    """The column of a key."""
    if len(key) != 1 + _KEY.size:
        raise CorruptDatabaseError(f"{where}: catalog key {key!r} has {len(key)} bytes")
    return int(_KEY.unpack_from(key, 1)[1])


def put_all(tree: CatalogItems, entry: CollectionEntry) -> None:
    """Write the state of every column."""
    for column, state in entry.drift.items():
        tree.put(drift_key(entry.id, column), state.encode())


def remove_all(tree: BTree, entry: CollectionEntry) -> None:
    """Remove the state of every column."""
    for column in entry.drift:
        tree.delete(drift_key(entry.id, column))


def _set(write: WriteView, entry: CollectionEntry, column: int, state: Drift | None) -> None:
    """Change the state of one column, of an entry that is the caller's to change."""
    if state == entry.drift.get(column):
        return
    tree = write.catalog_tree()
    if state is None:
        del entry.drift[column]
        tree.delete(drift_key(entry.id, column))
    else:
        entry.drift[column] = state
        tree.put(drift_key(entry.id, column), state.encode())


# ------------------------------------------------------------------------- measuring


def observe(write: WriteView, entry: CollectionEntry, stored: Sequence[StoredColumn]) -> None:
    """Measure rows that came, column by column; `entry` is the caller's to change (DR2)."""
    if not entry.drift:
        return
    from m2mdb.index.collection import open_segments
    from m2mdb.index.hrm2 import searched_rows
    from m2mdb.index.routing import routing

    segments = {each.id: each for each in open_segments(write.transaction, entry)}
    for index in entry.schema.vector_columns:
        column = entry.schema.columns[index]
        state, values = entry.drift.get(column.id), stored[index]
        assert isinstance(values, VectorData)
        if state is None or state.reference not in segments:
            continue
        found = routing(segments[state.reference], column)
        chosen = _sample(values)
        if found is None or not len(chosen):
            continue
        with np.errstate(over="ignore"):
            errors = found.errors(searched_rows(column, values.matrix, chosen))
        after = averaged(state.recent, np.minimum(errors, _LARGEST))
        now = state._replace(recent=min(after, _LARGEST), rows=state.rows + len(chosen))
        if now.is_alarm and not state.is_alarm:
            now = now._replace(
                alarms=min(now.alarms + 1, 0xFFFFFFFF), alarmed=write.transaction.new_commit
            )
        _set(write, entry, column.id, now)


def _sample(values: VectorData) -> np.ndarray:
    """At most MEASURED ordinals of values that are there, evenly spaced."""
    there = np.arange(len(values)) if values.present is None else np.flatnonzero(values.present)
    if len(there) <= MEASURED:
        return there
    out: np.ndarray = there[np.linspace(0, len(there) - 1, MEASURED).astype(np.int64)]
    return out


def settle(
    write: WriteView,
    entry: CollectionEntry,
    *,
    trained: bool = False,
    absorbed: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """After segments or lists came or went: the right reference for each column (DR1).

    trained   every segment has lists of its own now: what was measured begins anew
    absorbed  by column, a segment whose centroids another has now: what these measured stays
    """
    has_lists = any(len(record.extents) > 1 for record in entry.records.values())
    if not entry.drift and not has_lists:
        return
    from m2mdb.index.collection import open_segments

    segments = open_segments(write.transaction, entry)
    columns = {entry.schema.columns[index].id for index in entry.schema.vector_columns}
    taken = {entry.schema.columns[i].id: moved for i, moved in (absorbed or {}).items()}
    for id_ in set(entry.drift) - columns:
        _set(write, entry, id_, None)
    for id_ in sorted(columns):
        old = entry.drift.get(id_)
        moved = taken.get(id_)
        if old is not None and moved is not None and old.reference == moved[0]:
            old = old._replace(reference=moved[1])
            _set(write, entry, id_, old)
        largest = _largest(segments, id_)
        if largest is None:
            _set(write, entry, id_, None)
        elif old is None or old.reference != largest.id or (trained and old.rows):
            _set(write, entry, id_, _begun(write, entry, largest, id_, old))


def _largest(segments: Sequence[Segment], column: int) -> Segment | None:
    """The largest segment with lists of a column, the older one of two."""
    from m2mdb.index.clustering import HEAD

    able = [segment for segment in segments if segment.has(HEAD, column)]
    return max(able, key=lambda each: (each.rows, -each.id), default=None)


def _begun(
    write: WriteView, entry: CollectionEntry, segment: Segment, id_: int, old: Drift | None
) -> Drift:
    """State with nothing measured yet, and the alarms of before."""
    from m2mdb.index.absorbing import trained
    from m2mdb.index.hrm2 import searched_rows
    from m2mdb.index.routing import routing

    column = next(each for each in entry.schema.columns if each.id == id_)
    baseline = trained(segment, column).error
    if not baseline:
        # Lists of an older file, or rows that are all alike: some of the rows tell.
        nulls = segment.nulls(column)
        there = np.flatnonzero(nulls == 0) if nulls is not None else np.arange(segment.rows)
        some = there[np.linspace(0, len(there) - 1, MEASURED).astype(np.int64)]
        found = routing(segment, column)
        if found is not None and len(there):
            rows = searched_rows(column, segment.matrix(column), some)
            baseline = float(found.errors(rows).mean())
    baseline = min(baseline, _LARGEST)
    alarms, alarmed = (old.alarms, old.alarmed) if old is not None else (0, 0)
    since = write.transaction.new_commit
    return Drift(segment.id, alarms, baseline, baseline, 0, since, alarmed)


def faults(collection: CollectionView) -> Iterator[str]:
    """What is wrong with the state of a collection's columns (DR1)."""
    from m2mdb.index.clustering import HEAD

    schema = collection.schema
    names = {
        schema.columns[index].id: schema.columns[index].name for index in schema.vector_columns
    }
    for id_, state in collection.entry.drift.items():
        if id_ not in names:
            continue  # the column went; so does its state, with the next change
        segment = next((s for s in collection.segments if s.id == state.reference), None)
        if segment is None or not segment.has(HEAD, id_):
            yield f"{names[id_]} is measured by segment {state.reference}, which has no lists of it"


# ------------------------------------------------------------------------- retraining


def due_retraining(entry: CollectionEntry, page_size: int, most: int) -> list[int]:
    """Segments that an alarm asks to be made one, if an index allows it and they are small enough.

    They are the reference and all that came after it. Where they have more than `most` bytes,
    OPTIMIZE has to be asked.
    """
    from m2mdb.index.maintenance import bytes_of

    for info in entry.schema.indexes:
        if info.options.get("retrain") != "auto":
            continue
        column = entry.schema.columns[entry.schema.column(info.column)]
        state = entry.drift.get(column.id)
        if state is None or not state.is_alarm:
            continue
        ids = sorted(id_ for id_ in entry.records if id_ >= state.reference)
        if sum(bytes_of(entry.records[id_], page_size) for id_ in ids) <= most:
            return ids
    return []
