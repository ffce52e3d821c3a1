"""Figures: what the log holds and who keeps it from being copied, as `m2m_stats` shows them (S28).

One row:

    last_commit       the newest commit of any process
    page_size         bytes
    page_count        pages of the database
    free_pages        of them, those that nothing uses
    pages_held        of the free ones, those that an older snapshot may still read
    log_bytes         the log's file
    log_pages         pages in the log
    log_pages_copied  of them, those that the file has too
    readers           snapshots of all processes, at most one for each kept mark
    oldest_commit     the oldest commit that one of them reads; NULL without any
    oldest_pid        the process that reads it; NULL without any
    checkpoint_error  why the last automatic checkpoint of this connection failed, or NULL

The snapshot of the statement that asks is not counted; one that its transaction holds is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2mdb.pager.btree import BTree
from m2mdb.pager.freespace import decode_run
from m2mdb.query.lists import ListSchema
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2mdb.index.view import View

_INTEGER, _TEXT = "INTEGER", "TEXT"
_NAMES = (
    "last_commit", "page_size", "page_count", "free_pages", "pages_held", "log_bytes",
    "log_pages", "log_pages_copied", "readers", "oldest_commit", "oldest_pid",
)  # fmt: skip

STATS = ListSchema(
    "m2m_stats", (*((name, _INTEGER) for name in _NAMES), ("checkpoint_error", _TEXT))
)


def stats_row(view: View) -> tuple[Any, ...]:
    """The one row of `m2m_stats`."""
    store = view.database.store
    own = None if view.database.keeps(view.pages) else view.pages
    found = store.stats(without=own)
    oldest = found["oldest_commit"] if found["readers"] else None
    free = held = 0
    for _, length, commit in _free_runs(view):
        free += length
        held += length if oldest is not None and commit > oldest else 0
    return (
        found["commit"],
        store.page_size,
        found["page_count"],
        free,
        held,
        found["log_bytes"],
        found["log_frames"],
        found["frames_copied"],
        found["readers"],
        oldest,
        found["oldest_pid"] or None,
        store.checkpoint_error or None,
    )


def _free_runs(view: View) -> Iterator[tuple[int, int, int]]:
    if isinstance(view.pages, Transaction):
        yield from view.pages.free_runs()
        return
    for key, value in BTree(view.pages, view.header().free_root).scan():
        yield decode_run(key, value)
