"""Retention: the row versions that ended within the last commits are kept for AS OF (S25).

A version that ended stays where it is until a flush or a merge rewrites its place. What `PRAGMA
keep_commits` still wants then moves to a *kept segment*: an ordinary extent whose rows have all
ended, recorded apart from the living segments, so that no read of the present ever sees it.

    delta entry, ended  --flush--------------------> kept segment
    segment row, ended  --merge--------------------> kept segment
    segment, all of whose rows ended --as it is----> kept segment
    kept segments of one size tier   --merge-------> one of the next
    kept segment whose newest end is old enough ---> gone

    visible after commit n     commit that wrote it <= n < commit that ended it
    kept at commit c           ended after Catalog.oldest_commit(entry, c)

The ends of its rows stand in the deletions tree, as those of any segment. Its rows are sorted by
(rowid, commit); a rowid may repeat.

Invariants
    H1  Every version that AS OF can be asked for is in the delta, in a segment or in a kept one,
        and in exactly one of them.
    H2  A version that was written and ended by one commit is visible after none, and never kept.
    H3  With `keep_commits` 0, and before the first commit that sets it, no kept segment is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index import maintenance
from m2mdb.index.catalog import past_key, put_kept, put_limits, put_past, put_quiet
from m2mdb.index.collection import (
    CHUNK_ROWS,
    decode_deletions,
    deletion_key,
    encode_deletions,
    open_past,
)
from m2mdb.index.merged import merged_column, merged_text, ordinal_maps
from m2mdb.index.scratch import Scratch
from m2mdb.index.segment import NamedPart, Segment, SegmentRecord
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.delta import DeltaMirror
    from m2mdb.index.schema import Column
    from m2mdb.index.values import StoredColumn
    from m2mdb.index.view import WriteView
    from m2mdb.pager.pages import Pages

ALIVE = (1 << 64) - 1  # the end of a row that has not ended


# ------------------------------------------------------------------------- settings


def set_keep_commits(write: WriteView, count: int) -> None:
    """Keep what ends within the next `count` commits; what is too old for it goes at once."""
    catalog = write.catalog
    if count == catalog.keep_commits:
        return
    changed = catalog.replaced(None)
    changed.kept_from = catalog.oldest_commit(None, write.transaction.new_commit)
    changed.keep_commits = count
    if not count and changed.quiet:
        changed.quiet = ()
        put_quiet(write.catalog_tree(), changed)
    put_kept(write.catalog_tree(), changed)
    write.set_catalog(changed)
    for name in [entry.schema.name for entry in changed.by_id.values() if entry.past]:
        view = write.collection(name)
        entry = view.entry.copy()
        _drop_old(write, entry)
        write.replace_entry(view, entry)


def end_past(write: WriteView, entry: CollectionEntry, *, forgotten: bool = False) -> None:
    """Let the past of a collection begin with this commit: its schema changed, or rows of it were
    forgotten. `entry` is the caller's to change; its kept segments are freed.

    It is written down where commits are kept alone (A3): the first commit that keeps any is no
    older than it.
    """
    if not write.catalog.keep_commits:
        return
    commit = write.transaction.new_commit
    if forgotten:
        entry.forget_commit = commit
    else:
        entry.schema_commit = commit
    put_limits(write.catalog_tree(), entry)
    for id_ in list(entry.past):
        drop_kept(write, entry, id_)


def forget_past(write: WriteView, view: CollectionView) -> None:
    """Before rows are forgotten: no version that has ended, or ends in this transaction, stays."""
    entry = view.entry.copy()
    end_past(write, entry, forgotten=True)
    write.replace_entry(view, entry)


# ------------------------------------------------------------------------- what ended in the delta


def limit_of(write: WriteView, entry: CollectionEntry) -> int:
    """Versions that ended at this commit or before go."""
    return write.catalog.oldest_commit(entry, write.transaction.new_commit)


def keep_from_delta(write: WriteView, entry: CollectionEntry, mirror: DeltaMirror) -> None:
    """Before a flush empties the delta: its ended versions that are still wanted."""
    limit = limit_of(write, entry)
    wanted = [
        version
        for version, end in mirror.ends.items()
        if end > limit and mirror.commits[version] < end
    ]
    if not wanted:
        return
    chosen = np.array(sorted(wanted), np.int64)
    rowids = mirror.rowids(len(mirror))
    chosen = chosen[np.argsort(rowids[chosen], kind="stable")]
    stored = maintenance.delta_columns(mirror, chosen)
    commits = np.array(mirror.commits, np.uint64)[chosen]
    ends = np.array([mirror.ends[version] for version in chosen.tolist()], np.uint64)
    _write_kept(write, entry, (rowids[chosen], stored), commits, ends)


def _write_kept(
    write: WriteView,
    entry: CollectionEntry,
    rows: tuple[np.ndarray, Sequence[StoredColumn]],
    commits: np.ndarray,
    ends: np.ndarray,
    texts: maintenance.TextParts | None = None,
) -> None:
    """A new kept segment of versions sorted by (rowid, commit)."""
    record = maintenance.write_segment(write, entry, rows, commits=commits, texts=texts, kept=True)
    tree = BTree(write.transaction, entry.deletes_root)
    for start in range(0, record.rows, CHUNK_ROWS):
        some = enumerate(ends[start : start + CHUNK_ROWS].tolist(), start)
        tree.put(deletion_key(record.id, start // CHUNK_ROWS), encode_deletions(dict(some)))
    record.deleted = record.rows
    _add_kept(write, entry, record, int(ends.max()))


def _add_kept(
    write: WriteView, entry: CollectionEntry, record: SegmentRecord, newest_end: int
) -> None:
    """Make a segment of ended rows a kept one."""
    record = record.copy()
    record.newest_end = newest_end
    entry.records.pop(record.id)
    entry.dead.pop(record.id, None)
    entry.opened = entry.past_opened = None
    entry.past[record.id] = record
    put_past(write.catalog_tree(), entry.id, record)


# ------------------------------------------------------------------------- what ended in segments


def load_ends(pages: Pages, entry: CollectionEntry, record: SegmentRecord) -> np.ndarray:
    """u64 (rows,): the commit that ended each row by the deletions tree, else ALIVE.

    Raises CorruptDatabaseError where the tree and the segment's record disagree.
    """
    ends = np.full(record.rows, ALIVE, np.uint64)
    where = f"collection {entry.schema.name}, deletions of segment {record.id}"
    tree = BTree(pages, entry.deletes_root)
    for _, raw in tree.scan(deletion_key(record.id, 0), deletion_key(record.id + 1, 0)):
        chunk = decode_deletions(raw, where)
        if len(chunk) and int(chunk["ordinal"].max()) >= record.rows:
            raise CorruptDatabaseError(
                f"{where}: ordinal {chunk['ordinal'].max()} of {record.rows} rows"
            )
        ends[chunk["ordinal"]] = chunk["commit"]
    ended = np.count_nonzero(ends != ALIVE)
    if ended != record.deleted:
        raise CorruptDatabaseError(f"{where}: {ended} rows, the record says {record.deleted}")
    return ends


def keep_whole(write: WriteView, entry: CollectionEntry, segment: int) -> bool:
    """Make a segment whose rows have all ended a kept one as it is; False where none is wanted."""
    record = entry.records[segment]
    newest_end = int(load_ends(write.transaction, entry, record).max())
    if newest_end <= limit_of(write, entry):
        return False
    write.forget_segment(entry, segment)
    _add_kept(write, entry, record, newest_end)
    return True


def keep_from_segments(write: WriteView, entry: CollectionEntry, chosen: Sequence[Segment]) -> None:
    """Before a merge drops segments, living or kept: their ended rows that are still wanted."""
    limit = limit_of(write, entry)
    pages = write.transaction
    ends, commits, wanted = [], [], []
    for segment in chosen:
        record = entry.records.get(segment.id) or entry.past[segment.id]
        ended, written = load_ends(pages, entry, record), segment.commits()
        is_wanted = (ended != ALIVE) & (ended > limit) & (written < ended)
        wanted.append(np.flatnonzero(is_wanted))
        ends.append(ended[wanted[-1]])
        commits.append(written[wanted[-1]])
    rowids = np.concatenate([s.rowids[w] for s, w in zip(chosen, wanted, strict=True)])
    if not len(rowids):
        return
    all_commits = np.concatenate(commits)
    order = np.lexsort((all_commits, rowids))
    scratch = Scratch(write.database)
    maps = ordinal_maps(chosen, wanted, order, scratch.tick)

    def texts(column: Column) -> list[NamedPart]:
        return merged_text(column, chosen, maps, scratch.tick)

    stored = [
        merged_column(column, chosen, wanted, order, scratch) for column in entry.schema.columns
    ]
    _write_kept(
        write, entry, (rowids[order], stored), all_commits[order],
        np.concatenate(ends)[order], texts,
    )  # fmt: skip


# ------------------------------------------------------------------------- kept segments


def drop_kept(write: WriteView, entry: CollectionEntry, segment: int) -> None:
    """Free a kept segment, its record and its ends."""
    record = entry.past.pop(segment)
    for descriptor in record.extents:
        write.transaction.free_extent(descriptor)
    tree = BTree(write.transaction, entry.deletes_root)
    first, behind = deletion_key(segment, 0), deletion_key(segment + 1, 0)
    for key in [key for key, _ in tree.scan(first, behind)]:
        tree.delete(key)
    entry.segments.pop(segment, None)
    entry.past_opened = None
    write.catalog_tree().delete(past_key(entry.id, segment))


def _drop_old(write: WriteView, entry: CollectionEntry) -> None:
    """Drop the kept segments of which nothing is wanted any more."""
    limit = limit_of(write, entry)
    for id_, record in list(entry.past.items()):
        if record.newest_end <= limit:
            drop_kept(write, entry, id_)


def tidy(write: WriteView, entry: CollectionEntry) -> None:
    """Drop old kept segments, and merge a size tier of which there are TIER_FACTOR."""
    _drop_old(write, entry)
    tiers: dict[int, list[int]] = {}
    for id_ in sorted(entry.past):
        tiers.setdefault(maintenance.tier_of(entry.past[id_].rows), []).append(id_)
    page_size = write.transaction.page_size
    for ids in tiers.values():
        size = sum(maintenance.bytes_of(entry.past[id_], page_size) for id_ in ids)
        if len(ids) < maintenance.TIER_FACTOR or size > maintenance.MERGE_BYTES:
            continue
        opened = {segment.id: segment for segment in open_past(write.transaction, entry)}
        keep_from_segments(write, entry, [opened[id_] for id_ in ids])
        for id_ in ids:
            drop_kept(write, entry, id_)
