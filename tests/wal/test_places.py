"""Where extents are put: beside pages whose frames stand in the log, and never over them (S9)."""

from __future__ import annotations

from random import Random

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.store import Store
from tests.sim.store_runs import (
    LARGE,
    TREE_ROOT,
    Changes,
    change,
    check,
    contents,
    open_store,
    value,
)

LONG = 400_000


def commit(store: Store, changes: Changes, *, shrink: bool = False) -> None:
    transaction = store.begin_write()
    change(transaction, changes)
    if shrink:
        transaction.shrink(transaction.page_count)
    transaction.commit_now()


def descriptor(store: Store, key: bytes) -> ExtentDescriptor:
    snapshot = store.begin_read()
    found = BTree(snapshot, TREE_ROOT).get(key)
    snapshot.close()
    assert found is not None
    return ExtentDescriptor.decode(found[1:])


def covers_frames(store: Store, key: bytes) -> bool:
    place = descriptor(store, key)
    pages = range(place.start_page, place.start_page + place.page_count)
    return any(page in store.index.frames for page in pages)


def test_an_extent_lies_between_free_pages_with_frames() -> None:
    """A tree page that was written in a long free run does not close all of the run."""
    vfs = SimVfs(3)
    store = open_store(vfs)
    store.wal_autocheckpoint = 0
    commit(store, {b"a": value(1, LONG)})
    commit(store, {b"k%03d" % i: value(i, 900) for i in range(40)})
    commit(store, {b"a": None, **{b"k%03d" % i: None for i in range(40)}})
    before = store.stats()["page_count"]

    commit(store, {b"c": value(3, LONG)})

    assert store.stats()["page_count"] == before
    assert not covers_frames(store, b"c")
    expected = contents(store)
    again = open_store(vfs.process_crash())
    assert contents(again) == expected
    check(again)


@pytest.mark.parametrize("seed", range(6))
def test_no_extent_lies_over_a_frame_whatever_is_freed(seed: int) -> None:
    vfs = SimVfs(seed)
    store = open_store(vfs)
    rng = Random(seed)
    store.wal_autocheckpoint = rng.choice([0, 60])
    keys = [b"%02d" % number for number in range(40)]
    for number in range(60):
        changes: Changes = {}
        for key in rng.sample(keys, rng.randrange(1, 12)):
            size = rng.choice([0, 50, 700, 3000, LARGE + 1, 90_000, LONG])
            changes[key] = value(number, size) if size else None
        reader = store.begin_read() if rng.random() < 0.2 else None
        commit(store, changes, shrink=rng.random() < 0.3)
        for key, found in changes.items():
            assert found is None or len(found) <= LARGE or not covers_frames(store, key)
        if reader is not None:
            reader.close()
        if not number % 15:
            expected, limit = contents(store), store.wal_autocheckpoint
            vfs = vfs.process_crash()
            store = open_store(vfs)
            store.wal_autocheckpoint = limit
            assert contents(store) == expected
            check(store)
    check(store)
