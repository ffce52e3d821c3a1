"""Maintenance: new segments, the flush of the delta, deletions in bulk, merges.

All of it runs inside the writer's statement (S22): there is no background writer. A merge takes
segments of one size tier, at most MERGE_BYTES a commit, so that the cost of an added row is
amortised over a logarithmic number of rewrites.

    tier of a segment = how often TIER_FACTOR divides its rows / SEGMENT_ROWS
    a tier with TIER_FACTOR segments becomes one segment of the next tier
    segments with lists become one when `index.merge_policy` says so, and keep centroids

Invariants
    M1  A merge starts with an empty delta: no entry of the log names a segment that goes away.
    M2  The rows of a merged segment are the live rows of its sources, rowids and bytes unchanged;
        ended ones that AS OF may still name move to a kept segment (`index.retention`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index import absorbing, clustering, drift, merge_policy, zones
from m2mdb.index.catalog import CollectionEntry
from m2mdb.index.collection import (
    CHUNK_ROWS,
    CollectionView,
    Place,
    decode_deletions,
    deletion_key,
    encode_deletions,
)
from m2mdb.index.column_parts import column_parts, hash_parts
from m2mdb.index.delta import FLUSH_BYTES, FLUSH_ROWS, DeltaMirror, indexable_text
from m2mdb.index.description import describe_segment
from m2mdb.index.merged import MergedColumns, merged_text, ordinal_maps
from m2mdb.index.schema import Column
from m2mdb.index.scratch import Scratch
from m2mdb.index.segment import (
    TEXT_PREFIX,
    NamedPart,
    SegmentRecord,
    lay_out,
)
from m2mdb.index.slices import Check, number_order, pieces, slices, unchecked, watched
from m2mdb.index.values import StoredColumn, VectorData
from m2mdb.pager.btree import BTree

if TYPE_CHECKING:
    from m2mdb.index.absorbing import Base
    from m2mdb.index.text.analysis import Tokenizer
    from m2mdb.index.text.segment import TextSegment
    from m2mdb.index.view import WriteView

SEGMENT_BYTES = 1 << 30  # a bulk load is cut into segments of about this size
MERGE_BYTES = 64 << 20  # S22: the most that one commit rewrites
TIER_FACTOR = 8
CHUNKS_CHECKED = 64  # of deletions that are written between two checks for an interrupt
TIER_BASE = 512  # rows of the smallest segments

NO_BASES: Mapping[int, Base] = {}

TextParts = Callable[[Column], list[NamedPart]]


# ------------------------------------------------------------------------- segments


def text_parts(
    column: Column,
    values: list[Any],
    tokenizers: Mapping[str, Tokenizer] | None = None,
    like: TextSegment | None = None,
    check: Check = unchecked,
) -> list[NamedPart]:
    """The inverted lists of one column's values; `like` those of an older build, if given.

    check  called between slices of the work; it may raise
    Raises ProgrammingError: a tokenizer that is not among `tokenizers`, or that fails.
    """
    from m2mdb.index.text import postings
    from m2mdb.index.text.options import parse_options

    texts = values
    if column.type == "JSON":
        texts = [indexable_text(column.type, value) for value in watched(values, check)]
    options = parse_options(column.fulltext)
    has_positions = options.positions if like is None else like.has_positions
    version = postings.VERSION if like is None else like.version
    has_blocks = like is None or like.has_blocks
    built = postings.build(
        texts,
        options.analyzer(tokenizers),
        positions=has_positions,
        version=version,
        blocks=has_blocks,
        check=check,
    )
    return [(TEXT_PREFIX + name, column.id, _as_array(part)) for name, part in built.items()]


def _as_array(part: Any) -> np.ndarray:
    return part if isinstance(part, np.ndarray) else np.frombuffer(part, np.uint8)


def write_segment(
    write: WriteView,
    entry: CollectionEntry,
    rows: tuple[np.ndarray, Sequence[StoredColumn]],
    *,
    commits: np.ndarray | None = None,
    texts: TextParts | None = None,
    replaces: Sequence[int] = (),
    kept: bool = False,
    lists: Collection[int] | None = (),
    bases: Mapping[int, Base] = NO_BASES,
) -> SegmentRecord:
    """Write rows, sorted by rowid, as a new segment of `entry`, which is the caller's to change.

    commits  u64 per row where they differ from this transaction's commit
    texts    gives the inverted lists of a column where they need not be built from its values
    replaces segments that are merged into this one, for its description
    kept     whether all rows have ended, for its description
    lists    columns that get lists beside those with an index that says so (`index.clustering`);
             None where no column does, as a merge is to follow
    bases    whose lists a column takes, by its index
    """
    rowids, stored = rows
    parts: list[NamedPart] = [("rowids", 0, rowids)]
    if commits is not None:
        parts.append(("commits", 0, commits))
    zone_maps: list[NamedPart] = []  # beside each other: a scan that they spare reads no column
    check = write.database.check_interrupted
    for index, column in enumerate(entry.schema.columns):
        check()
        values = stored[index]
        written = list(column_parts(column, values, check))
        parts.extend(written)
        zone_maps += zones.zone_parts(column, written, len(rowids), check)
        check()
        if index in entry.schema.hashed_columns:
            assert isinstance(values, list)
            parts.extend(hash_parts(column, values, check))
        if column.fulltext is not None:
            assert isinstance(values, list)
            own = write.database.tokenizers
            parts.extend(texts(column) if texts else text_parts(column, values, own, check=check))
    commit = write.transaction.new_commit
    description = describe_segment(entry, entry.next_segment, commit, replaces, kept=kept)
    buffers, size = lay_out(len(rowids), [*parts, *zone_maps], description)
    descriptor = write.transaction.write_extent(pieces(buffers, check), size)
    record = SegmentRecord(
        entry.next_segment,
        len(rowids),
        rowids=(int(rowids[0]), int(rowids[-1])),
        commit=commit,
    )
    record.extents = (descriptor,)
    if not kept and lists is not None:
        for index in sorted({*lists, *clustering.declared_columns(entry.schema)}):
            values = stored[index]
            assert isinstance(values, VectorData)
            clustering.add_lists(write, entry, record, index, values, bases.get(index))
    entry.next_segment += 1
    entry.records[record.id] = record
    entry.opened = None
    return record


def add_segments(
    write: WriteView,
    view: CollectionView,
    rowids: np.ndarray,
    stored: Sequence[StoredColumn],
    next_rowid: int,
) -> bool:
    """A batch of new rows, sorted by rowid, as segments of at most about SEGMENT_BYTES.

    Returns whether lists were left to a merge that is to follow, `after_write`.
    """
    entry = view.entry.copy()
    entry.next_rowid = next_rowid
    row_bytes = 16 + sum(_row_bytes(column) for column in entry.schema.columns)
    step = max(TIER_BASE, SEGMENT_BYTES // row_bytes)
    written = []
    unlisted = _merges_soon(write, view, len(rowids))
    for start in range(0, len(rowids), step):
        some = slice(start, start + step)
        chosen = [_slice(values, some) for values in stored] if step < len(rowids) else stored
        written.append(
            write_segment(write, entry, (rowids[some], chosen), lists=None if unlisted else ())
        )
        drift.observe(write, entry, chosen)
    drift.settle(write, entry)
    write.replace_entry(view, entry, written)
    return unlisted


def _row_bytes(column: Column) -> int:
    if column.is_vector:
        return column.dimension * {"f32": 4, "f16": 2, "i8": 1}[column.dtype]
    return 8 if column.type in ("INTEGER", "REAL", "BOOLEAN", "TIMESTAMP") else 64


def _slice(values: StoredColumn, some: slice) -> StoredColumn:
    if isinstance(values, VectorData):
        return values.take(some)
    return values[some]


# ------------------------------------------------------------------------- the delta


def after_write(write: WriteView, view: CollectionView, *, unlisted: bool = False) -> None:
    """Flush and merge where the last write made it due.

    unlisted  whether `add_segments` has left segments without lists
    """
    mirror, left = view.mirror, MERGE_BYTES
    is_full = (
        len(mirror) >= FLUSH_ROWS
        or mirror.bytes_used >= FLUSH_BYTES
        or mirror.end - mirror.base >= 2 * FLUSH_ROWS
    )
    if merge_policy.applies(view.entry):
        left -= _absorb(write, view, is_full, unlisted)
    elif is_full:
        flush(write, view)
    while len(view.entry.records) >= TIER_FACTOR and left > 0:
        taken = merge_step(write, view, left)
        if not taken:
            break
        left -= taken
    if left < MERGE_BYTES:
        # What earlier merges left at the file's end: else it stays three times as long as its rows.
        write.transaction.shrink(write.transaction.page_count)
    if view.entry.drift and drift.due_retraining(view.entry, write.transaction.page_size, left):
        flush(write, view)  # M1
        ids = drift.due_retraining(view.entry, write.transaction.page_size, MERGE_BYTES)
        if ids:
            merge(write, view, ids)


def _merges_soon(write: WriteView, view: CollectionView, coming: int) -> bool:
    """Whether so many rows, as a segment, are probably to be merged with others at once."""
    if not view.entry.records or not merge_policy.applies(view.entry):
        return False
    return bool(merge_policy.due(view, write.transaction.page_size, MERGE_BYTES, coming))


def _absorb(write: WriteView, view: CollectionView, full: bool, unlisted: bool) -> int:
    """Merge what `merge_policy` says, lists and all; returns the bytes that were merged.

    full  whether the delta cannot stay one
    """
    page_size = write.transaction.page_size
    ids = merge_policy.due(view, page_size, MERGE_BYTES, full=full, unlisted=unlisted)
    size = 0
    if ids is not None:
        fresh = view.entry.next_segment
        flush(write, view, lists=None if ids else ())  # M1
        if ids and not merge_policy.kept_apart(view.entry).isdisjoint(ids):
            ids, unlisted = [], True  # what was flushed has raised the alarm
        ids = [id_ for id_ in view.entry.records if ids and (id_ in ids or id_ >= fresh)]
        size = sum(bytes_of(view.entry.records[id_], page_size) for id_ in ids)
        if ids:
            merge(write, view, ids, anew=False)
    if unlisted:
        entry = view.entry.copy()
        declared = clustering.declared_columns(view.schema)
        wanted = [each for each in clustering.without_lists(view) if each[1] in declared]
        records = clustering.list_segments(write, view, entry, wanted)
        if records:
            write.replace_entry(view, entry, records)
    return size


def flush(write: WriteView, view: CollectionView, *, lists: Collection[int] | None = ()) -> None:
    """Move the delta's live rows into a segment and its deletions into their tree; empty it."""
    mirror = view.mirror
    if mirror.end == mirror.base:
        return
    entry = view.entry.copy()
    keeps = _keeps_past(write, entry)
    if keeps:
        from m2mdb.index import retention

        retention.keep_from_delta(write, entry, mirror)
    written: list[SegmentRecord] = []
    live = mirror.live(len(mirror), view.end)
    rowids = mirror.rowids(len(mirror))
    chosen = np.flatnonzero(live)
    chosen = chosen[np.argsort(rowids[chosen], kind="stable")]
    if len(chosen):
        stored = delta_columns(mirror, chosen)
        commits = np.array(mirror.commits, np.uint64)[chosen]
        rows = rowids[chosen], stored
        written.append(write_segment(write, entry, rows, commits=commits, lists=lists))
        drift.observe(write, entry, stored)
    changed: set[int] = set()
    for segment, kills in mirror.kills.items():
        ended = ((ordinal, when[1]) for ordinal, when in kills.items())
        changed |= end_places(write, entry, segment, ended)
    BTree(write.transaction, entry.delta_root).clear()
    entry.base_sequence = mirror.end
    entry.next_rowid = max(mirror.next_rowid, entry.next_rowid)
    drop_empty(write, entry, changed)
    if keeps:
        retention.tidy(write, entry)
    drift.settle(write, entry)
    records = written + [entry.records[i] for i in sorted(changed) if i in entry.records]
    write.replace_entry(view, entry, records)


def delta_columns(mirror: DeltaMirror, chosen: np.ndarray) -> list[StoredColumn]:
    """The values of some versions of the delta, column by column."""
    stored: list[StoredColumn] = []
    picked = chosen.tolist()
    for index, column in enumerate(mirror.columns):
        growing = mirror.vectors.get(index)
        if growing is None:
            stored.append([column[i] for i in picked])
        else:
            present = growing.present[chosen]
            norms = growing.norms(len(mirror))[chosen]
            stored.append(
                VectorData(growing.matrix[chosen], norms, None if present.all() else present)
            )
    return stored


# ------------------------------------------------------------------------- deletions


def end_in_bulk(write: WriteView, view: CollectionView, found: Sequence[tuple[int, Place]]) -> None:
    """End the rows of segments among `found` by the deletions tree at once."""
    by_segment: dict[int, list[int]] = {}
    commit = write.transaction.new_commit
    for _, (part, ordinal) in watched(found, write.database.check_interrupted):
        if part:
            by_segment.setdefault(view.segments[part - 1].id, []).append(ordinal)
    if not by_segment:
        return
    entry = view.entry.copy()
    changed: set[int] = set()
    for segment, ordinals in by_segment.items():
        ended = ((ordinal, commit) for ordinal in ordinals)
        changed |= end_places(write, entry, segment, ended)
    if not view.mirror.kills:
        drop_empty(write, entry, changed)
        drift.settle(write, entry)
    records = [entry.records[i] for i in sorted(changed) if i in entry.records]
    write.replace_entry(view, entry, records)


def end_places(
    write: WriteView, entry: CollectionEntry, segment: int, ended: Iterable[tuple[int, int]]
) -> set[int]:
    """Add (ordinal, ending commit) to a segment's deletions; returns the segments changed."""
    record = entry.records.get(segment)
    if record is None:
        return set()
    tree = BTree(write.transaction, entry.deletes_root)
    chunks: dict[int, dict[int, int]] = {}
    check = write.database.check_interrupted
    for ordinal, commit in watched(ended, check):
        chunks.setdefault(ordinal // CHUNK_ROWS, {})[ordinal] = commit
    if not chunks:
        return set()
    mask = entry.dead.pop(segment, None)
    if mask is not None:
        mask = mask.copy()  # A1: the old mask may still be read
    added = 0
    for number, chunk in enumerate(sorted(chunks)):
        if not number % CHUNKS_CHECKED:
            check()
        fresh = chunks.pop(chunk)
        if mask is not None:
            mask[list(fresh)] = True
        key = deletion_key(segment, chunk)
        raw = tree.get(key)
        entries: dict[int, int] = {}
        if raw is not None:
            entries = dict(decode_deletions(raw, f"deletions of segment {segment}").tolist())
        before = len(entries)
        entries = {**fresh, **entries}
        added += len(entries) - before
        tree.put(key, encode_deletions(entries))
    record = record.copy()
    record.deleted += added
    record.version += 1
    entry.records[segment] = record
    if mask is not None:
        entry.dead[segment] = mask
    return {segment}


def drop_empty(write: WriteView, entry: CollectionEntry, candidates: set[int]) -> None:
    """Give up segments of which no row is left, or keep them for AS OF."""
    for segment in candidates:
        record = entry.records.get(segment)
        if record is None or record.deleted != record.rows:
            continue
        if _keeps_past(write, entry):
            from m2mdb.index import retention

            if retention.keep_whole(write, entry, segment):
                continue
        drop_segment(write, entry, segment)


def _keeps_past(write: WriteView, entry: CollectionEntry) -> bool:
    """Whether there is a past to take care of (S25)."""
    return bool(write.catalog.keep_commits or entry.past)


def drop_segment(write: WriteView, entry: CollectionEntry, segment: int) -> None:
    """Free a segment's extents, its record and its deletions."""
    record = entry.records.pop(segment)
    for descriptor in record.extents:
        write.transaction.free_extent(descriptor)
    if record.deleted:
        tree = BTree(write.transaction, entry.deletes_root)
        keys = [k for k, _ in tree.scan(deletion_key(segment, 0), deletion_key(segment + 1, 0))]
        for some in slices(len(keys), CHUNKS_CHECKED, write.database.check_interrupted):
            for key in keys[some]:
                tree.delete(key)
    entry.segments.pop(segment, None)
    entry.dead.pop(segment, None)
    entry.opened = None
    write.forget_segment(entry, segment)


# ------------------------------------------------------------------------- merging


def tier_of(rows: int) -> int:
    """The size tier of a segment."""
    tier = 0
    while rows >= TIER_BASE * TIER_FACTOR:
        rows //= TIER_FACTOR
        tier += 1
    return tier


def due_merge(entry: CollectionEntry, page_size: int, most: int) -> tuple[list[int], int]:
    """The segments, of `most` bytes together, that one step should merge: their ids and bytes."""
    tiers: dict[int, list[int]] = {}
    for id_ in sorted(entry.records):
        record = entry.records[id_]
        tiers.setdefault(tier_of(record.rows - record.deleted), []).append(id_)
    for tier in sorted(tiers):
        ids = tiers[tier][:TIER_FACTOR]
        if len(ids) < TIER_FACTOR:
            continue
        sizes = [bytes_of(entry.records[id_], page_size) for id_ in ids]
        if sum(sizes) <= most:
            return ids, sum(sizes)
    return [], 0


def bytes_of(record: SegmentRecord, page_size: int) -> int:
    """What a segment's extents take in the file."""
    return sum(extent.page_count for extent in record.extents) * page_size


def merge_step(write: WriteView, view: CollectionView, most: int) -> int:
    """Merge the segments that are due, if any are; returns how many bytes they had."""
    ids, size = due_merge(view.entry, write.transaction.page_size, most)
    if not ids:
        return 0
    flush(write, view)  # M1
    if all(id_ in view.entry.records for id_ in ids):
        merge(write, view, ids)
    return size


def merge(
    write: WriteView,
    view: CollectionView,
    ids: Sequence[int],
    lists: Collection[int] = (),
    *,
    anew: bool = True,
) -> None:
    """Replace segments by one that holds their live rows.

    lists  columns that get lists whether one of the segments had them or not
    anew   whether lists are trained by the rows that are left, or absorb them where they can
    """
    check = write.database.check_interrupted
    chosen = [segment for segment in view.segments if segment.id in set(ids)]
    masks = [view.dead(segment.id) for segment in chosen]
    keep = [
        np.arange(segment.rows) if mask is None else np.flatnonzero(~mask)
        for segment, mask in zip(chosen, masks, strict=True)
    ]
    rowids = np.concatenate([s.rowids[k] for s, k in zip(chosen, keep, strict=True)])
    order = number_order(rowids, check)
    entry = view.entry.copy()
    written, absorbed = [], {}
    if len(order):
        maps = ordinal_maps(chosen, keep, order, check)

        def texts(column: Column) -> list[NamedPart]:
            return merged_text(column, chosen, maps, check)

        scratch = Scratch(write.database)
        stored = MergedColumns(view.schema.columns, chosen, keep, order, scratch)
        commits = np.concatenate([s.commits()[k] for s, k in zip(chosen, keep, strict=True)])
        bases = {} if anew else absorbing.bases_for(view.schema, chosen, maps, stored, MERGE_BYTES)
        written.append(
            write_segment(
                write,
                entry,
                (rowids[order], stored),
                commits=commits[order],
                texts=texts,
                replaces=ids,
                lists={*lists, *clustering.columns_with_lists(view.schema, chosen)},
                bases=bases,
            )
        )
        absorbed = {index: (base.segment.id, written[0].id) for index, base in bases.items()}
    keeps = _keeps_past(write, entry)
    if keeps:
        from m2mdb.index import retention

        retention.keep_from_segments(write, entry, chosen)
    for id_ in ids:
        drop_segment(write, entry, id_)
    if keeps:
        retention.tidy(write, entry)
    drift.settle(write, entry, absorbed=absorbed)
    write.replace_entry(view, entry, written)
