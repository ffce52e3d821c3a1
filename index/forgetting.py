"""FORGET: rows go, and with them every copy of what they held (S26).

    delete the rows -> each structure forgets -> receipt, pending     one transaction
    -> scrub of file and log -> receipt, done                         index/scrubbing.py

A structure that copies values out of rows, or that keeps dead versions of them, is registered
here as a `Forgetful`. FORGET deletes the rows as DELETE does and then asks the structures, in the
order of STRUCTURES, to write themselves anew without them: what they free is scrubbed. A structure
that joins needs its place in STRUCTURES and a byte-search test of the same name
(`tests/forget/test_structures.py` compares the two).

All versions that are dead in the collection go, not only those of the rows that are named: a row
whose INTEGER PRIMARY KEY was changed, or that was replaced, has left versions under another rowid,
which nothing else leads to. So a segment without dead rows is not written again.

Invariants
    FO1 After the statement no page or extent that the newest commit uses holds a byte of a row of
        the collection that is not live.
    FO2 What the statement frees carries the SCRUB bit, so nobody uses it before it is zeros; what
        older commits have freed is overwritten with it (`wal.scrub`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from m2mdb.index import clustering, maintenance, retention, statistics
from m2mdb.index.receipts import (
    DIGEST_SIZE,
    ForgetState,
    StoredReceipt,
    add_receipt,
    digest_of,
    load_state,
)
from m2mdb.index.slices import watched
from m2mdb.pager.btree_separators import renew_separators

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.view import WriteView


class Forgotten(NamedTuple):
    """The rows that a FORGET takes out."""

    rowids: np.ndarray  # int64, ascending
    ids: list[Any]  # their primary keys in stored form, or their rowids where there is none


class Forgetful(Protocol):
    """A structure that holds copies of values, or versions that are dead."""

    name: str

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        """Free or write anew every page and extent in which a copy may stand.

        The rows are deleted already; `view` is the collection as the statement sees it now.
        """
        ...


class _KeptVersions:
    """Versions that AS OF may be asked for: its past begins with this commit (S25)."""

    name = "kept versions"

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        retention.forget_past(write, view)


class _Delta:
    """Row versions and removals: all that is live moves into a segment, the log is emptied."""

    name = "delta"

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        maintenance.flush(write, view)


class _Segments:
    """Columns, vectors and their lists, key hashes, inverted lists, deletions: all written anew."""

    name = "segments"

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        for id_ in sorted(view.entry.records):
            if view.entry.records[id_].deleted:
                maintenance.merge(write, view, [id_])
        # an older version may have trained centroids that another segment has kept since
        entry = view.entry.copy()
        wanted = list(clustering.absorbed_lists(view))
        records = clustering.list_segments(write, view, entry, wanted)
        if records:
            write.replace_entry(view, entry, records)


class _Separators:
    """B-tree indexes: the entries went with the rows, their prefixes stay in branches."""

    name = "separators"

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        for info in view.schema.indexes:
            if info.kind == "btree":
                renew_separators(write.transaction, info.root)


class _Statistics:
    """What ANALYZE has counted: least, greatest and frequent values."""

    name = "statistics"

    def forget(self, write: WriteView, view: CollectionView, rows: Forgotten) -> None:
        statistics.drop(write, view)


STRUCTURES: tuple[Forgetful, ...] = (
    _KeptVersions(), _Delta(), _Segments(), _Separators(), _Statistics(),
)  # fmt: skip


def forget(write: WriteView, name: str, rowids: Sequence[int]) -> int:
    """Forget rows of a collection inside a statement; returns the number of the receipt.

    Rowids that name no row are passed over.
    """
    write.transaction.scrub_freed()  # FO2
    view = write.collection(name)
    rows = _rows(view, rowids)
    write.delete(name, rows.rowids.tolist())
    view = write.collection(name)
    for structure in STRUCTURES:
        structure.forget(write, view, rows)
    maintenance.after_write(write, view)
    write.database.scrubs.forgot = True
    return _write_receipt(write, view, rows)


def _rows(view: CollectionView, rowids: Sequence[int]) -> Forgotten:
    """Those of the rowids that are live, with the ids that users know the rows by."""
    check = view.check
    found = sorted(row for row in watched(set(rowids), check) if view.place(row) is not None)
    key = view.schema.primary_key
    if key is None or key == view.schema.rowid_alias:
        return Forgotten(np.array(found, np.int64), list(found))
    parts = view.parts()
    places = [place for row in watched(found, check) if (place := view.place(row)) is not None]
    ids = [parts[part].stored(key, ordinal) for part, ordinal in watched(places, check)]
    return Forgotten(np.array(found, np.int64), ids)


def _write_receipt(write: WriteView, view: CollectionView, rows: Forgotten) -> int:
    where = write.database.path
    tree = write.catalog_tree()
    state = load_state(tree, where)
    if state is None:
        state = ForgetState(1, 0, write.database.store.vfs.random(DIGEST_SIZE))
    receipt = StoredReceipt(
        state.next_number,
        write.transaction.new_commit,
        len(rows.rowids),
        0,
        view.entry.id,
        digest_of(state.digest_key, view.entry.id, rows.ids),
        view.schema.name,
    )
    add_receipt(tree, state, receipt, where)
    write.database.scrubs.written = receipt
    write.set_catalog(write.catalog.replaced(None))
    return receipt.number
