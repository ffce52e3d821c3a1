"""Scrubbing a database: when FORGET and secure_delete become true of the bytes (S26).

    FORGET, committed --now, or at the next commit, checkpoint or close of anybody--> done
                           |
                           +-- pending while a snapshot is older, or reads the log

A connection asks after each of its commits whether something waits, which costs a comparison: the
record of what is pending is read when the catalog's number has moved. Under secure_delete alone
the scrub waits until the log is long enough for a checkpoint.

Invariants
    SC1 A scrub never fails a commit or a close that has done its work: what kept it from being
        done is told by `Scrubs.error` and by the receipts, which stay pending.
    SC2 Nothing is scrubbed inside a transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.index.catalog import pass_over
from m2mdb.index.receipts import (
    Receipt,
    StoredReceipt,
    digest_of,
    finish_receipts,
    load_receipt,
    load_receipts,
    load_state,
)
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import DatabaseError
from m2mdb.pager.freespace import SCRUB, decode_run
from m2mdb.wal.scrub import begin_scrub, in_the_way, zero_free_pages

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View

GRACE = 0.1  # seconds that FORGET and VACUUM wait for readers that are about to end


class Scrubs:
    """What a connection knows of the scrub that is due."""

    __slots__ = ("error", "forgot", "number", "pending", "written")

    def __init__(self) -> None:
        self.number = -1  # of the catalog for which `pending` holds
        self.pending = False
        self.forgot = False  # the transaction that ends has forgotten rows
        self.written: StoredReceipt | None = None  # the last one of this connection
        self.error = ""  # why the last scrub was not done


def after_commit(database: Database) -> None:
    """A transaction was committed: scrub where that is due and nobody is in the way (SC1)."""
    scrubs = database.scrubs
    grace = GRACE if scrubs.forgot else 0.0
    scrubs.forgot = False
    try:
        if _is_due(database):
            complete(database, grace)
    except DatabaseError as error:
        scrubs.error = str(error)


def _is_due(database: Database) -> bool:
    scrubs, store = database.scrubs, database.store
    number = database.catalog_number
    if scrubs.number != number:
        scrubs.pending = _is_pending(database)
        scrubs.number = number
    if scrubs.pending:
        return True
    known = store.free_map
    limit = store.wal_autocheckpoint
    if known is None or not known[1].scrub_count or not limit or store.log is None:
        return False
    return store.log.frame_count(store.end.offset) >= limit


def _is_pending(database: Database) -> bool:
    """Whether a receipt is pending at the newest commit."""
    snapshot = database.store.begin_read()
    try:
        tree = BTree(snapshot, snapshot.header().catalog_root)
        state = load_state(tree, database.path)
        return state is not None and state.pending > 0
    finally:
        snapshot.close()


def _has_pages_to_scrub(database: Database) -> bool:
    snapshot = database.store.begin_read()
    try:
        runs = BTree(snapshot, snapshot.header().free_root).scan()
        return any(decode_run(key, value)[2] & SCRUB for key, value in runs)
    finally:
        snapshot.close()


def why_pending(database: Database) -> str:
    """Who keeps bytes that were forgotten from being overwritten; empty where none are left."""
    return f"a FORGET is pending: {holders(database)}" if _is_pending(database) else ""


def at_checkpoint(database: Database) -> None:
    """A checkpoint was asked for: scrub where anything waits for it and nobody is in the way.

    Raises what reading or writing the file raises.
    """
    if _is_pending(database) or _has_pages_to_scrub(database):
        complete(database)


def at_close(database: Database) -> None:
    """The connection ends: the last moment for what waits (SC1)."""
    store = database.store
    if store.closed or store.read_only:
        return
    with contextlib.suppress(DatabaseError):
        # What another connection has freed waits too: this one may be the last.
        if _is_pending(database) or _has_pages_to_scrub(database):
            complete(database)


def complete(database: Database, grace: float = 0.0) -> bool:
    """Scrub file and log, and finish what is pending; False where somebody is in the way.

    Raises OperationalError where the file cannot be written; then all of it is still to be done.
    """
    store = database.store
    if store.read_only or database.in_transaction or store.open_transaction() is not None:  # SC2
        return False
    transaction = begin_scrub(store, grace)
    if transaction is None:
        return False
    try:
        header = transaction.header()
        tree = BTree(transaction, header.catalog_root)
        state = load_state(tree, database.path)
        is_pending = state is not None and state.pending > 0
        zero_free_pages(transaction, everything=is_pending)
        if is_pending:
            finish_receipts(tree, transaction.new_commit, database.path)
            transaction.change_header().catalog_number += 1
        if transaction.changed and pass_over(tree, transaction.new_commit, database.path):
            transaction.change_header().catalog_number += 1
        transaction.commit_now()
    except BaseException:
        transaction.rollback()
        raise
    database.scrubs.pending = False
    database.scrubs.error = ""
    return True


# ------------------------------------------------------------------------- receipts


def receipts(view: View) -> list[Receipt]:
    """All receipts of the database, with who is in the way of those that are pending."""
    found = load_receipts(view.pages, view.header().catalog_root, view.database.path)
    pending = any(not receipt.done for receipt in found)
    who = holders(view.database) if pending else None
    return [_shown(receipt, who) for receipt in found]


def receipt(view: View, number: int) -> Receipt:
    """One receipt by its number."""
    tree = BTree(view.pages, view.header().catalog_root)
    found = load_receipt(tree, number, view.database.path)
    return _shown(found, None if found.done else holders(view.database))


def written_receipt(database: Database, number: int) -> Receipt:
    """The receipt that this connection has written last, once its statement has ended.

    Where it cannot be read it is shown as it was written: the rows are gone, and an error would say
    that they are not.
    """
    try:
        with database.reading() as view:
            return receipt(view, number)
    except DatabaseError as error:
        written = database.scrubs.written
        if written is None or written.number != number:
            raise
        return _shown(written, str(error))


def has_forgotten(view: View, wanted: Receipt, ids: Sequence[Any]) -> bool:
    """Whether a receipt of this database is over exactly these ids, in stored form."""
    tree, where = BTree(view.pages, view.header().catalog_root), view.database.path
    state = load_state(tree, where)
    if state is None or not 0 < wanted.number < state.next_number:
        return False
    stored = load_receipt(tree, wanted.number, where)
    digest = digest_of(state.digest_key, stored.collection_id, ids)
    return digest == stored.digest and stored.digest.hex() == wanted.digest


def _shown(stored: StoredReceipt, who: str | None) -> Receipt:
    return Receipt(
        stored.rows,
        stored.commit,
        stored.digest.hex(),
        "done" if stored.done else "pending",
        None if stored.done else who,
        stored.number,
        stored.collection,
    )


def holders(database: Database) -> str:
    """Who keeps the scrub from being done, in words."""
    if database.is_writing:
        return "the open transaction of this connection"
    found: dict[str, None] = {}
    if database.in_transaction:
        found["the open transaction of this connection"] = None
    for mark in in_the_way(database.store, others=True):
        found[f"process {mark.pid} reads commit {mark.commit}"] = None
    return "; ".join(found) or database.scrubs.error or "nobody: the next checkpoint completes it"
