"""Integrity: every page is reached once, and every structure says what the rows say.

    page 1, flag, log frame by frame          wal.file_check
    all trees, the free map, each page's use  here
    catalog, deltas, deletions, segments      index.integrity_rows

All of it is read from the disk at one snapshot, whatever this connection has in memory.
`quick_check` leaves out the comparison of indexes with the rows. Each fault is one line that names
page or place, kind and reason.

Invariants
    IC1 Each page of the file has one use: page 1, a tree, an extent, or the free map says that it
        has none. A page without any is told, where all trees could be walked.
    IC2 A fault in one structure does not hide those of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.integrity_rows import check_collection
from m2mdb.index.moments import moment_faults
from m2mdb.index.slices import Check, unchecked
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError, StatementInterruptedError
from m2mdb.pager.freespace import decode_run
from m2mdb.wal.file_check import check_file
from m2mdb.wal.transaction import Transaction

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.pager.pages import Node
    from m2mdb.wal.snapshot import Snapshot

MAX_FAULTS = 100  # as many lines as SQLite gives before it stops
KEPT_NODES = 4096
LOOKED_PAGES = 16  # one of so many is read behind a look for an interrupt
MAX_RUNS = 10  # of pages that nothing uses
Report = Callable[[str], None]


class _Full(Exception):
    """Enough faults were found."""


class _Faults(list[str]):
    """The faults, and when they are enough."""

    def of(self, what: str, fault: str) -> None:
        """Report one of a structure."""
        self(f"{what}: {fault}")

    def __call__(self, fault: str) -> None:
        """Report one."""
        self.append(fault)
        if len(self) >= MAX_FAULTS:
            raise _Full


class FreshPages:
    """The pages of a snapshot or transaction, read from the disk."""

    def __init__(self, pages: Snapshot | Transaction, look: Check = unchecked) -> None:
        """`look` is called between the pages, and may raise."""
        self._pages = pages
        self._look = look
        self._nodes: dict[int, Node] = {}  # trees are walked twice
        self.page_size = pages.page_size
        self.page_count = pages.page_count

    def get(self, page_number: int) -> Node:
        """As `pager.pages.Pages`."""
        node = self._nodes.get(page_number)
        if node is None:
            if not page_number % LOOKED_PAGES:
                self._look()
            node = self._pages.get_fresh(page_number)
            if len(self._nodes) >= KEPT_NODES:
                self._nodes.clear()
            self._nodes[page_number] = node
        return node


def check_database(database: Database, *, quick: bool = False) -> list[str]:
    """The faults of a database, also where its catalog cannot be read."""
    try:
        with database.reading() as view:
            return check(view, quick=quick)
    except CorruptDatabaseError as problem:
        faults = _Faults()
        snapshot = database.store.begin_read()
        try:
            check_file(snapshot.store, faults)
            header = snapshot.header()
            for what, root in (("catalog", header.catalog_root), ("free map", header.free_root)):
                BTree(FreshPages(snapshot), root).check(partial(faults.of, what))
        except (_Full, DatabaseError):
            pass
        finally:
            snapshot.close()
        return [*faults, *([] if str(problem) in "\n".join(faults) else [str(problem)])]


def check(view: View, *, quick: bool = False) -> list[str]:
    """The faults of the database at the view's snapshot; an empty list where all is well."""
    faults = _Faults()
    try:
        check_file(view.pages.store, faults, view.database.check_interrupted)
        pages = FreshPages(view.pages, view.database.check_interrupted)
        _Pages(view, pages, faults).check()
        for name in view.names():
            check_collection(view, pages, name, faults, quick=quick)
    except _Full:
        pass
    except StatementInterruptedError:
        raise
    except DatabaseError as problem:  # IC2: a damaged page on the way to the rest
        if not any(str(problem) in fault for fault in faults):
            faults.append(str(problem))
    return list(faults)


class _Pages:
    """Who uses which page (IC1)."""

    def __init__(self, view: View, pages: FreshPages, report: Report) -> None:
        self.view = view
        self.pages = pages
        self.report = report
        self.owners = np.zeros(pages.page_count + 1, np.int32)
        self.names = ["nothing", "page 1"]
        self.owners[1] = 1
        self.is_whole = True

    def check(self) -> None:
        """Walk all trees, extents and free runs."""
        for what, root in self._trees():
            self._check_tree(what, root)
        self._check_moments()
        for entry in self.view.catalog.by_id.values():
            for record in (*entry.records.values(), *entry.past.values()):
                for extent in record.extents:
                    what = f"segment {record.id} of {entry.schema.name}"
                    self._claim(extent.start_page, extent.page_count, what)
        try:
            for start, length, _ in self._free_runs():
                self._claim(start, length, "free run")
        except CorruptDatabaseError as problem:
            self.is_whole = False
            if "free map" in str(problem):
                self.report(str(problem))
        if self.is_whole:
            self._tell_unused()
        self._check_size()

    def _trees(self) -> Iterator[tuple[str, int]]:
        header = self.view.header()
        yield "catalog", header.catalog_root
        yield "free map", header.free_root
        for entry in self.view.catalog.by_id.values():
            yield f"delta of {entry.schema.name}", entry.delta_root
            yield f"deletions of {entry.schema.name}", entry.deletes_root
            for info in entry.schema.indexes:
                if info.kind == "btree":
                    yield f"index {info.name}", info.root

    def _check_tree(self, what: str, root: int) -> None:
        """Walk one tree and claim its pages."""
        tree = BTree(self.pages, root)
        tree.check(lambda fault: self.report(f"{what}: {fault}"))
        try:
            for number in tree.pages_used():
                self._claim(number, 1, what)
        except StatementInterruptedError:
            raise
        except DatabaseError:
            self.is_whole = False  # `check` has said why

    def _check_moments(self) -> None:
        tree = BTree(self.pages, self.view.header().catalog_root)
        for fault in moment_faults(self.view.commit, tree):
            self.report(fault)

    def _free_runs(self) -> Iterator[tuple[int, int, int]]:
        """The free map; inside a transaction as it will be written at the commit."""
        if isinstance(self.view.pages, Transaction):
            yield from self.view.pages.free_runs()
            return
        for key, value in BTree(self.pages, self.view.header().free_root).scan():
            yield decode_run(key, value)

    def _claim(self, start: int, length: int, what: str) -> None:
        if not 1 <= start <= start + length <= len(self.owners):
            self.report(f"{what}: pages {start}..{start + length - 1} lie outside the file")
            return
        run = self.owners[start : start + length]
        if run.any():
            at = int(np.argmax(run > 0))
            other = self.names[run[at]]
            self.report(f"{what}: page {start + at} is used twice, also by {other}")
        if self.names[-1] != what:
            self.names.append(what)
        run[:] = len(self.names) - 1

    def _tell_unused(self) -> None:
        unused = np.flatnonzero(self.owners[1:] == 0) + 1
        runs = np.split(unused, np.flatnonzero(np.diff(unused) > 1) + 1) if len(unused) else []
        count = self.pages.page_count
        for run in runs[:MAX_RUNS]:
            if len(run) == 1:
                self.report(f"page {run[0]} of {count} is neither used nor free")
            else:
                self.report(f"pages {run[0]} to {run[-1]} of {count} are neither used nor free")
        if len(runs) > MAX_RUNS:
            self.report(f"{len(unused)} pages of {count} are neither used nor free")

    def _check_size(self) -> None:
        """The file has the pages that extents and the last checkpoint need."""
        store = self.view.pages.store
        try:
            needed = store.read_header().page_count * self.pages.page_size
        except DatabaseError:
            return  # said before
        size = store.file.size()
        if size < needed:
            self.report(f"file of {size} bytes: its header needs {needed}")
