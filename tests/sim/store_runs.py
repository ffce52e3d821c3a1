"""Small scripted workloads on a Store, with a dict as the model of what must be found again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import OperationalError
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.sim.history import History

PATH = "d/notes.m2m"
TREE_ROOT = 2  # the catalog's tree; here it holds the model's items itself
FREE_ROOT = 3
LARGE = 20_000  # bytes; longer values lie in an extent
RUN = struct.Struct(">Q")  # key of the free map: start page

Found = frozenset[tuple[bytes, bytes]]
Changes = dict[bytes, bytes | None]  # None deletes


def open_store(vfs: SimVfs, **changes: Any) -> Store:
    return Store.open(vfs, PATH, StoreOptions(create=True, **changes))


def change(transaction: Any, changes: Changes) -> None:
    """Apply changes; a long value is written as an extent and named by its row."""
    tree = BTree(transaction, TREE_ROOT)
    for key, value in changes.items():
        old = tree.get(key)
        if old is not None and old[:1] == b"x":
            transaction.free_extent(ExtentDescriptor.decode(old[1:]))
        if value is None:
            tree.delete(key)
        elif len(value) > LARGE:
            parts = [value[start : start + 50_000] for start in range(0, len(value), 50_000)]
            descriptor = transaction.write_extent(parts, len(value))
            tree.put(key, b"x" + descriptor.encode())
        else:
            tree.put(key, b"v" + value)


def contents(store: Store) -> Found:
    """All items at the newest snapshot, extents read and verified."""
    snapshot = store.begin_read()
    try:
        items = []
        for key, value in BTree(snapshot, TREE_ROOT).scan():
            if value[:1] == b"x":
                descriptor = ExtentDescriptor.decode(value[1:])
                items.append((key, snapshot.extent(descriptor).read(0, descriptor.size)))
            else:
                items.append((key, value[1:]))
        return frozenset(items)
    finally:
        snapshot.close()


def check(store: Store) -> None:
    """Both trees are sound, and no page has two uses."""
    snapshot = store.begin_read()
    try:
        faults: list[str] = []
        uses: dict[int, str] = {1: "header"}
        for name, root in (("tree", TREE_ROOT), ("free map", FREE_ROOT)):
            tree = BTree(snapshot, root)
            tree.check(faults.append)
            for page in tree.pages_used():
                _claim(uses, page, name)
        for _, value in BTree(snapshot, TREE_ROOT).scan():
            if value[:1] == b"x":
                descriptor = ExtentDescriptor.decode(value[1:])
                for page in range(descriptor.page_count):
                    _claim(uses, descriptor.start_page + page, "extent")
        for key, value in BTree(snapshot, FREE_ROOT).scan():
            for page in range(struct.unpack_from("<I", value)[0]):
                _claim(uses, RUN.unpack(key)[0] + page, "free")
        assert not faults, faults
        missing = set(range(1, snapshot.page_count + 1)) - set(uses)
        assert not missing, f"pages of no use: {sorted(missing)[:10]}"
        assert max(uses) <= snapshot.page_count
    finally:
        snapshot.close()


def _claim(uses: dict[int, str], page: int, use: str) -> None:
    assert page not in uses, f"page {page} is {use} and {uses[page]}"
    uses[page] = use


def was_taken_back(error: BaseException) -> bool:
    """Whether a commit that failed so must never be seen: otherwise the error says so."""
    return isinstance(error, OperationalError) and "outcome" not in str(error)


class StoreRun:
    """One process that works on a store, and the history of what it was promised."""

    def __init__(self, vfs: SimVfs, **options: Any) -> None:
        self.vfs = vfs
        self.options = options
        self.durable = options.get("synchronous", "full") == "full"
        self.may_be_busy = False  # locks fail
        self.model: dict[bytes, bytes] = {}
        self.history: History[Found] = History(vfs, frozenset())
        self.store = open_store(vfs, **options)

    def commit(self, changes: Changes) -> None:
        """One transaction."""
        transaction = self.store.begin_write()
        self.history.abandon()  # what a dead writer left behind the end is durably erased (S8)
        try:
            change(transaction, changes)
            self.finish(transaction, changes)
        except BaseException as error:
            transaction.rollback()
            if was_taken_back(error):
                self.history.abandon()
            raise

    def finish(self, transaction: Any, changes: Changes) -> None:
        """Commit a transaction whose sum is `changes`."""
        after = dict(self.model)
        for key, value in changes.items():
            if value is None:
                after.pop(key, None)
            else:
                after[key] = value
        self.history.begin(frozenset(after.items()))
        transaction.commit_now()
        self.model = after
        self.history.acknowledge(durable=self.durable)

    def checkpoint(self, mode: str) -> None:
        busy, in_log, copied = self.store.checkpoint(mode)
        if busy or in_log != copied:
            assert self.may_be_busy
            return
        self.history.floor()

    def closed(self) -> None:
        """The last connection has gone; where it left no log, all of it is in the file.

        Where it could not, commits that waited for a sync may be lost: the workload ends.
        """
        if PATH + "-wal" not in self.vfs.machine.disk.names:
            self.history.floor()
        elif not self.durable:
            raise OperationalError("the last connection has left its log")

    def reopen(self) -> None:
        self.store.close()
        self.closed()
        self.store = open_store(self.vfs, **self.options)


def value(seed: int, size: int) -> bytes:
    """Bytes that differ from sector to sector."""
    return b"".join(b"%08d" % (seed * 100_000 + i) for i in range(size // 8 + 1))[:size]


def rows(run: StoreRun) -> None:
    """Single rows, a tree that splits, overflow values, deletes."""
    run.commit({b"a": b"first"})
    run.commit({b"a": b"second", b"b": value(1, 300)})
    run.commit({b"k%03d" % i: value(i, 90) for i in range(120)})
    run.commit({b"long": value(2, 9000)})
    run.commit({b"k%03d" % i: None for i in range(0, 120, 2)})
    run.commit({b"long": None, b"a": b"third"})


def savepoints(run: StoreRun) -> None:
    """Statements and savepoints undone within transactions, and a rollback of all."""
    run.commit({b"kept": b"0", b"big": value(3, 30_000)})
    transaction = run.store.begin_write()
    change(transaction, {b"one": b"1"})
    token = transaction.begin_statement()
    change(transaction, {b"one": b"wrong", b"big": None, b"x": value(4, 40_000)})
    transaction.undo_statement(token)
    change(transaction, {b"two": b"2"})
    run.finish(transaction, {b"one": b"1", b"two": b"2"})
    transaction = run.store.begin_write()
    change(transaction, {b"lost": value(5, 25_000), b"kept": None})
    transaction.rollback()
    run.commit({b"big": value(6, 30_000)})


def extents(run: StoreRun) -> None:
    """Extents written, replaced, freed, and their pages used again."""
    run.commit({b"e1": value(1, 70_000)})
    run.commit({b"e2": value(2, 30_000), b"row": b"r"})
    run.commit({b"e1": None})
    run.checkpoint("passive")
    run.commit({b"e3": value(3, 50_000)})
    run.commit({b"e2": value(4, 30_000)})
    run.checkpoint("full")
    run.commit({b"e4": value(5, 60_000), b"row": None})


def checkpoints(run: StoreRun) -> None:
    """Each mode, with the log overwritten from its start and grown again."""
    for number, mode in enumerate(("passive", "full", "restart", "truncate")):
        run.commit({b"m%d" % number: value(number, 500)})
        run.commit({b"same": value(number, 2000)})
        run.checkpoint(mode)
        run.commit({b"after%d" % number: value(number, 100)})


def reopened(run: StoreRun) -> None:
    """Clean closes between the commits."""
    run.commit({b"one": value(1, 5000)})
    run.reopen()
    run.commit({b"two": value(2, 25_000)})
    run.reopen()
    run.reopen()
    run.commit({b"one": None})
    run.store.close()
    run.closed()


SCRIPTS: dict[str, Callable[[StoreRun], None]] = {
    "rows": rows,
    "savepoints": savepoints,
    "extents": extents,
    "checkpoints": checkpoints,
    "reopened": reopened,
}
