"""Transactions: statements and savepoints against a stack of dicts, and interrupts anywhere."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, InterfaceError
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.transaction import Transaction
from tests.sim.store_runs import check as check_store
from tests.wal.conftest import TREE, Place, change, put, read, rows_of
from tests.wal.interrupts import interrupted

KEYS = st.integers(0, 40)
SIZES = st.sampled_from([0, 10, 400, 1500, 9000])


def memory_store(vfs: MemoryVfs | None = None, **options: Any) -> Store:
    return Store.open(vfs or MemoryVfs(), "m", StoreOptions(create=True, **options))


class TransactionAgreesWithDicts(RuleBasedStateMachine):
    """Layers: whatever is begun, ended and undone, the tree holds what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.store = memory_store(synchronous="off", wal_autocheckpoint=20)
        self.committed: dict[bytes, bytes] = {}
        self.model: dict[bytes, bytes] = {}
        self.points: list[tuple[int, dict[bytes, bytes]]] = []

    @initialize()
    def start(self) -> None:
        self.transaction = self.store.begin_write()

    @rule(key=KEYS, size=SIZES, seed=st.integers(0, 250))
    def put(self, key: int, size: int, seed: int) -> None:
        row = b"v" + bytes([seed]) * size  # an "x" would name an extent, see store_runs.change
        BTree(self.transaction, TREE).put(b"%04d" % key, row)
        self.model[b"%04d" % key] = row

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        found = BTree(self.transaction, TREE).delete(b"%04d" % key)
        assert found == (self.model.pop(b"%04d" % key, None) is not None)

    @rule()
    def begin(self) -> None:
        self.points.append((self.transaction.begin_statement(), dict(self.model)))

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.points) - 1))
        self.transaction.end_statement(self.points[at][0])
        del self.points[at:]

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.points) - 1))
        token, self.model = self.points[at]
        self.transaction.undo_statement(token)
        del self.points[at:]

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def rollback_to(self, data: st.DataObject) -> None:
        """S14: the savepoint stays."""
        at = data.draw(st.integers(0, len(self.points) - 1))
        token, model = self.points[at]
        self.transaction.rollback_to(token)
        self.model = dict(model)
        del self.points[at + 1 :]

    @rule()
    def commit(self) -> None:
        changed = self.model != self.committed
        before = self.transaction.commit
        after = self.transaction.commit_now()
        assert after == before + 1 or (after == before and not changed)
        self.committed = dict(self.model)
        self._next()

    @rule()
    def rollback(self) -> None:
        self.transaction.rollback()
        self.model = dict(self.committed)
        self._next()

    def _next(self) -> None:
        self.points = []
        check_store(self.store)
        self.transaction = self.store.begin_write()

    @invariant()
    def rows_are_the_models(self) -> None:
        if hasattr(self, "transaction"):
            assert dict(BTree(self.transaction, TREE).scan()) == self.model
            snapshot = self.store.begin_read()
            assert dict(BTree(snapshot, TREE).scan()) == self.committed
            snapshot.close()


TestTransactionAgreesWithDicts = TransactionAgreesWithDicts.TestCase
TestTransactionAgreesWithDicts.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)


def test_many_statements_keep_few_layers() -> None:
    store = memory_store()
    transaction = store.begin_write()
    for number in range(600):
        token = transaction.begin_statement()
        BTree(transaction, TREE).put(b"%06d" % (number * 7919 % 1000), b"." * 900)
        transaction.end_statement(token)

    assert len(transaction._layer.below) < 8
    transaction.commit_now()
    check_store(store)


def test_a_commit_without_changes_is_none(place: Place) -> None:
    store = place.open()
    put(store, a="1")

    transaction = store.begin_write()
    number = transaction.commit_now()

    assert number == store.last_commit == 1
    assert store.begin_write().commit == 1


def test_a_transaction_that_has_ended_refuses_changes(place: Place) -> None:
    store = place.open()
    transaction = store.begin_write()
    change(transaction, a="1")
    transaction.commit_now()

    for action in (
        lambda: change(transaction, a="2"),
        transaction.commit_now,
        transaction.begin_statement,
        lambda: transaction.write_extent([b"x"], 1),
    ):
        with pytest.raises(InterfaceError):
            action()
    transaction.rollback()
    assert read(store) == {"a": "1"}


def test_a_store_has_one_transaction_at_a_time(place: Place) -> None:
    store = place.open()
    transaction = store.begin_write()

    with pytest.raises(InterfaceError, match="open already"):
        store.begin_write()

    change(transaction, a="1")
    transaction.commit_now()


def test_a_transaction_that_nobody_holds_is_undone_at_the_next_use(place: Place) -> None:
    """S12: an interrupt may come before the caller has it."""
    store = place.open()
    change(store.begin_write(), a="1")
    gc.collect()

    put(store, b="2")

    assert read(store) == {"b": "2"}


def test_pages_of_an_undone_extent_stay_unused_until_the_end(place: Place) -> None:
    """S14: somebody may hold a view of them."""
    store = place.open()
    transaction = store.begin_write()
    token = transaction.begin_statement()
    undone = transaction.write_extent([b"u" * 30_000], 30_000)
    view = transaction.extent(undone).view(0, 30_000)
    transaction.undo_statement(token)

    later = transaction.write_extent([b"l" * 30_000], 30_000)
    tree = BTree(transaction, TREE)
    for number in range(50):
        tree.put(b"%d" % number, b"." * 3000)

    assert later.start_page >= undone.start_page + undone.page_count
    assert bytes(view) == b"u" * 30_000
    tree.put(b"x", later.encode())
    transaction.commit_now()
    check_pages(store, later)


def test_pages_of_an_undone_extent_from_the_map_stay_unused_too(place: Place) -> None:
    """S14"""
    store = place.open()
    first = write(store, b"f" * 50_000)
    transaction = store.begin_write()
    transaction.free_extent(first)
    BTree(transaction, TREE).delete(b"x")
    transaction.commit_now()
    transaction = store.begin_write()
    token = transaction.begin_statement()
    undone = transaction.write_extent([b"u" * 50_000], 50_000)
    assert undone.start_page == first.start_page
    transaction.undo_statement(token)

    later = transaction.write_extent([b"l" * 50_000], 50_000)

    assert later.start_page != undone.start_page
    transaction.rollback()
    transaction = store.begin_write()
    again = transaction.write_extent([b"a" * 50_000], 50_000)
    assert again.start_page == first.start_page, "the next transaction may use them"
    transaction.rollback()


def write(store: Store, content: bytes) -> ExtentDescriptor:
    transaction = store.begin_write()
    descriptor = transaction.write_extent([content], len(content))
    BTree(transaction, TREE).put(b"x", descriptor.encode())
    transaction.commit_now()
    return descriptor


def check_pages(store: Store, extent: ExtentDescriptor) -> None:
    """The extent's bytes, and that every page has one use."""
    snapshot = store.begin_read()
    assert snapshot.extent(extent).read(0, extent.size)[:1] == b"l"
    uses = set(range(extent.start_page, extent.start_page + extent.page_count))
    for root in (TREE, 3):
        pages = set(BTree(snapshot, root).pages_used())
        assert not pages & uses
        uses |= pages
    free = [
        page
        for key, value in BTree(snapshot, 3).scan()
        for page in range(
            int.from_bytes(key, "big"),
            int.from_bytes(key, "big") + int.from_bytes(value[:4], "little"),
        )
    ]
    assert sorted([*uses, *free, 1]) == list(range(1, snapshot.page_count + 1))
    snapshot.close()


def test_extents_of_others_transactions_are_not_found_by_a_snapshot(place: Place) -> None:
    """S15: shared caches hold committed extents only."""
    store = place.open()
    put(store, a="1")
    snapshot = store.begin_read()
    transaction = store.begin_write()
    descriptor = transaction.write_extent([b"x" * 100], 100)
    assert transaction.extent(descriptor).read(0, 3) == b"xxx"

    with pytest.raises(CorruptDatabaseError, match="of commit 2"):
        snapshot.extent(descriptor)

    assert not store.extents
    transaction.rollback()
    assert not store.extents
    snapshot.close()


def test_an_extent_outside_the_file_is_refused(place: Place) -> None:
    """S18"""
    store = place.open()
    descriptor = write(store, b"l" * 100)
    snapshot = store.begin_read()

    with pytest.raises(CorruptDatabaseError, match="page"):
        snapshot.extent(descriptor._replace(start_page=1000))
    with pytest.raises(CorruptDatabaseError):
        snapshot.extent(descriptor._replace(start_page=1))
    snapshot.close()


# -- S12 ---------------------------------------------------------------------------------------


def statement(transaction: Transaction) -> None:
    """A statement that splits, frees, allocates from the map and the end, and writes extents."""
    tree = BTree(transaction, TREE)
    tree.put(b"new", b"n" * 2500)
    tree.delete(b"long")
    tree.put(b"k05", b"c" * 1200)
    old = tree.get(b"x")
    assert old is not None
    transaction.free_extent(ExtentDescriptor.decode(old))
    tree.put(b"x", transaction.write_extent([b"e" * 5000], 5000).encode())
    transaction.change_header().user_version += 1


def state_of(transaction: Transaction) -> object:
    layer = transaction._layer
    return (
        dict(BTree(transaction, TREE).scan()),
        transaction.header().user_version,
        list(transaction._allocator.free_map(layer)),
        layer.page_count,
    )


def seeded(vfs: MemoryVfs) -> Store:
    """A store with a free map, long values and an extent."""
    store = memory_store(vfs, synchronous="off")
    transaction = store.begin_write()
    tree = BTree(transaction, TREE)
    for number in range(12):
        tree.put(b"k%02d" % number, b"." * 700)
    tree.put(b"long", b"l" * 20_000)
    tree.put(b"gone", b"g" * 20_000)
    tree.put(b"x", transaction.write_extent([b"e" * 9000], 9000).encode())
    transaction.commit_now()
    transaction = store.begin_write()
    BTree(transaction, TREE).delete(b"gone")
    transaction.commit_now()
    return store


@pytest.mark.parametrize("nested", [False, True])
def test_a_statement_interrupted_between_any_two_bytecodes_is_undone(nested: bool) -> None:
    """S12"""
    store = seeded(MemoryVfs())
    transaction = store.begin_write()
    change(transaction, before="1")
    if nested:
        transaction.savepoint()
        change(transaction, before="2")
    expected = state_of(transaction)
    at = 1
    step = 7  # a prime: over the runs every kind of place is met
    while True:
        token = transaction.begin_statement()
        struck = interrupted(lambda: statement(transaction), at, opcodes=True)
        transaction.undo_statement(token)
        assert state_of(transaction) == expected, struck
        if not struck:
            break
        at += step
    assert at > 500

    token = transaction.begin_statement()
    statement(transaction)
    transaction.end_statement(token)
    transaction.commit_now()
    check_tree(store)


def check_tree(store: Store) -> None:
    faults: list[str] = []
    snapshot = store.begin_read()
    for root in (TREE, 3):
        BTree(snapshot, root).check(faults.append)
    snapshot.close()
    assert faults == []


def test_beginning_ending_and_undoing_may_be_interrupted_anywhere() -> None:
    """S12: after an interrupt in the end of a statement it is still undone whole."""
    store = seeded(MemoryVfs())
    transaction = store.begin_write()
    change(transaction, before="1")
    expected = rows_of_bytes(transaction)
    for at in range(1, 200):
        struck = interrupted(transaction.begin_statement, at, opcodes=True)
        assert rows_of_bytes(transaction) == expected
        token = transaction.begin_statement()
        change(transaction, inside="x" * 100)
        first = interrupted(partial(transaction.end_statement, token), at, opcodes=True)
        if first:
            second = interrupted(partial(transaction.undo_statement, token), at, opcodes=True)
            if second:
                transaction.undo_statement(token)
            assert rows_of_bytes(transaction) == expected, (struck, first, second)
        else:
            assert rows_of_bytes(transaction) == {**expected, b"inside": b"x" * 100}
            change(transaction, inside=None)
    transaction.rollback()


def rows_of_bytes(transaction: Transaction) -> dict[bytes, bytes]:
    return dict(BTree(transaction, TREE).scan())


def test_rows_of_helper_sees_own_changes(place: Place) -> None:
    store = place.open()
    transaction = store.begin_write()
    change(transaction, a="1")

    assert rows_of(transaction) == {"a": "1"}
    assert read(store) == {}
