"""VACUUM: what lies at the file's end moves to free places before it, and the file is cut (S27).

    rewrite   segments with many dead rows, trees with many empty places
    step      give free pages at the end back; move extents and tree pages from behind the
              boundary (the file's length if nothing were free) to free places before it; commit
    ...       until nothing moves; between steps the log is copied, so that S9 lets the places that
              were left be used
    cut       the file, under ATTACH exclusive and WRITER (`wal.truncation`)

A step is an ordinary transaction: what it copies it writes to free pages, and the old places are
freed by its commit, so that every snapshot goes on reading what it read, a crash leaves the state
of one commit, and other writers get their turn between the steps.

Where no free place before the boundary is long enough for an extent, what stands behind the
lowest free place is moved down or away, and the free place grows. It never moves back, so the
steps come to an end.

Invariants
    VA1 Rows, rowids, versions, commits and bytes of vectors are the same before and after; so is
        what AS OF can be asked for, as the steps' commits do not count (`index.quiet`).
    VA2 An extent is copied byte by byte; a checksum that differs ends the step.
    VA3 A step moves at most STEP_BYTES, or one extent that is longer (S22).
    VA4 Pages without a known owner are never moved, and pages that are not free never given back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.index import maintenance
from m2mdb.index.moving import Mover
from m2mdb.index.pagemap import PageMap
from m2mdb.index.quiet import maintaining
from m2mdb.index.scrubbing import GRACE, why_pending
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError, ProgrammingError
from m2mdb.pager.freespace import decode_run
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import Pages
    from m2mdb.index.database import Database
    from m2mdb.index.view import WriteView

STEP_BYTES = maintenance.MERGE_BYTES
ALL = 1 << 32  # more pages than a file has
_SLACK = 16  # a file longer by one part in so many is not worth sliding extents for
_DEAD = 8  # segments with one dead row in so many are written again
_MOVES_A_PAGE = 4  # the moves end by themselves; other writers must not keep them going for ever
_LARGEST_TREE = 64 << 20  # bytes of a sparse tree that is loaded anew, all of it in memory


class Vacuumed(NamedTuple):
    """What VACUUM has done: pages of the file, bytes given back, and why not more or None."""

    pages_before: int
    pages_after: int
    bytes_given_back: int
    remaining: str | None


def vacuum(database: Database) -> Vacuumed:
    """Make the file as short as its content allows.

    Raises OperationalError inside a transaction or where the file cannot be written,
    StatementInterruptedError between steps: those that are done stay.
    """
    _check(database)
    before = _file_pages(database)
    _rewrite(database)
    _move_all(database, ALL)
    return _finish(database, before)


def incremental_vacuum(database: Database, most: int) -> Vacuumed:
    """Move at most `most` pages, or one extent that is longer, and give at most so many back."""
    _check(database)
    before = _file_pages(database)
    _move_all(database, most)
    return _finish(database, before)


def _check(database: Database) -> None:
    if database.in_transaction:
        raise OperationalError("cannot VACUUM inside a transaction")
    if database.store.read_only:
        raise OperationalError(f"{database.path} is open for reading only")


def free_pages(pages: Pages) -> int:
    """How many pages of a snapshot or a transaction nothing uses."""
    if isinstance(pages, Transaction):
        return sum(length for _, length, _ in pages.free_runs())
    tree = BTree(pages, pages.header().free_root)
    return sum(decode_run(key, value)[1] for key, value in tree.scan())


def _file_pages(database: Database) -> int:
    """Pages that the file has on the disk; what stands in the log alone was never given to it."""
    return database.store.file.size() // database.store.page_size


# ------------------------------------------------------------------------- rewriting


def _rewrite(database: Database) -> None:
    """Segments without their dead rows, sparse trees without their gaps; a commit each."""
    with database.reading() as view:
        entries = [(view.collection(name).entry, name) for name in view.names()]
    for entry, name in entries:
        for id_ in half_dead(entry):
            database.check_interrupted()
            with maintaining(database) as write:
                _merge_alone(write, name, id_)
    with database.reading() as view:
        pages, page_size = PageMap(view.pages, view.catalog), database.store.page_size
        sparse = pages.sparse
    for root in sparse:
        database.check_interrupted()
        with maintaining(database) as write:
            if root in [write.header().catalog_root, *PageMap(write.pages, write.catalog).roots]:
                _load_anew(write, root, _LARGEST_TREE // page_size)


def half_dead(entry: CollectionEntry) -> list[int]:
    """The segments that have many dead rows."""
    records = entry.records.values()
    return [record.id for record in records if record.deleted * _DEAD >= record.rows]


def _merge_alone(write: WriteView, name: str, segment: int) -> None:
    """One segment without its dead rows, unless another connection was faster."""
    try:
        view = write.collection(name)
    except ProgrammingError:
        return
    maintenance.flush(write, view)
    record = view.entry.records.get(segment)
    if record is not None and record.deleted:
        maintenance.merge(write, view, [segment])


def _load_anew(write: WriteView, root: int, most: int) -> None:
    """A tree's items in full leaves; the root stays where it is."""
    tree = BTree(write.transaction, root)
    if sum(1 for _ in tree.pages_used()) > most:
        return
    items = list(tree.scan())
    tree.clear()
    tree.bulk_load(items)


# ------------------------------------------------------------------------- moving


def _move_all(database: Database, most: int) -> None:
    """Steps until nothing moves, or so many pages were moved and given back."""
    moved = given = idle = 0
    limit = _MOVES_A_PAGE * database.store.stats()["page_count"]
    while idle < 2 and moved <= limit:
        database.check_interrupted()
        with maintaining(database) as write:
            shrunk = write.transaction.shrink(most - given)
            step = 0
            if moved < most:
                step = _step(write, min(most - moved, STEP_BYTES // write.transaction.page_size))
        moved += step
        given += shrunk
        if step or shrunk:
            idle = 0
            database.checkpoint("passive")  # which scrubs what secure_delete has freed
        else:
            idle += 1
            # A reader that stays would hold every writer out for the busy timeout.
            database.checkpoint("restart" if idle == 1 else "passive", GRACE)


def _step(write: WriteView, most: int) -> int:
    """One transaction's moves; returns how many pages were moved."""
    transaction = write.transaction
    free = free_pages(transaction)
    live = transaction.page_count - free
    if not free:
        return 0
    mover = Mover(write, PageMap(transaction, write.catalog), live, most)
    mover.empty_behind(make_room=transaction.page_count > live + live // _SLACK)
    mover.finish()
    return mover.moved


# ------------------------------------------------------------------------- the end


def _finish(database: Database, before: int) -> Vacuumed:
    """Cut the file, and say what remains."""
    store = database.store
    reason = why_pending(database)
    if not reason:  # else what is cut off could not be overwritten any more (SB4)
        _, reason = store.cut(database.check_interrupted)
    after = _file_pages(database)
    if not reason:
        reason = "; ".join(_reasons(database))
    return Vacuumed(before, after, max(0, before - after) * store.page_size, reason or None)


def _reasons(database: Database) -> Iterator[str]:
    """Why the file is longer than its content."""
    store = database.store
    with database.reading() as view:
        free = free_pages(view.pages)
        live = view.pages.page_count - free
    if free <= live // _SLACK + 1:
        return
    stats = store.stats()
    if stats["oldest_commit"] < stats["commit"]:
        yield (
            f"{free} free pages are kept: process {stats['oldest_pid']} reads commit "
            f"{stats['oldest_commit']}"
        )
    else:
        yield f"{free} free pages lie before pages that were not moved; another call goes on"
