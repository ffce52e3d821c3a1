"""A process that commits rows and acknowledges each commit on its standard output.

    python worker.py PATH SYNCHRONOUS MODE

Row n is written by commit n's transaction: `row` holds n, `sum` the sum of all rows, and every
seventh commit replaces an extent filled with n's last byte. In mode `interrupt` a SIGINT is
taken where it comes; the worker then goes on from what the database says.
"""

from __future__ import annotations

import os
import sys

from m2mdb.pager.btree import BTree
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import Store, StoreOptions

TREE = 2
KEPT = 200  # rows; older ones are deleted, so that pages are freed and used again
EXTENT = 20_000  # bytes


def write(store: Store, number: int) -> None:
    """One transaction."""
    transaction = store.begin_write()
    try:
        tree = BTree(transaction, TREE)
        tree.put(b"row%012d" % number, b"%d" % number + b"." * (number * 37 % 900))
        tree.delete(b"row%012d" % (number - KEPT))
        total = int(tree.get(b"sum") or b"0")
        tree.put(b"sum", b"%d" % (total + number))
        tree.put(b"last", b"%d" % number)
        if number % 7 == 0:
            old = tree.get(b"extent")
            if old is not None:
                transaction.free_extent(ExtentDescriptor.decode(old))
            content = bytes([number % 256]) * EXTENT
            tree.put(b"extent", transaction.write_extent([content], EXTENT).encode())
        transaction.commit_now()
    except BaseException:
        transaction.rollback()
        raise


def last(store: Store) -> int:
    """The newest row."""
    snapshot = store.begin_read()
    try:
        return int(BTree(snapshot, TREE).get(b"last") or b"0")
    finally:
        snapshot.close()


def check(store: Store) -> int:
    """Everything that must hold of what is found; returns the newest row."""
    snapshot = store.begin_read()
    try:
        tree = BTree(snapshot, TREE)
        newest = int(tree.get(b"last") or b"0")
        rows = [int(key[3:]) for key, _ in tree.scan(b"row", b"rox")]
        assert rows == list(range(max(1, newest - KEPT + 1), newest + 1)), (newest, rows[-5:])
        assert int(tree.get(b"sum") or b"0") == newest * (newest + 1) // 2
        for row, (_, value) in zip(rows, tree.scan(b"row", b"rox"), strict=True):
            assert int(value.rstrip(b".")) == row
        raw = tree.get(b"extent")
        if raw is not None:
            descriptor = ExtentDescriptor.decode(raw)
            wanted = bytes([newest // 7 * 7 % 256]) * EXTENT
            assert snapshot.extent(descriptor).read(0, EXTENT) == wanted
        return newest
    finally:
        snapshot.close()


def open_to_write(path: str, synchronous: str) -> Store:
    """The store of a worker, made where there is none."""
    options = StoreOptions(create=True, synchronous=synchronous, wal_autocheckpoint=40, timeout=60)
    return Store.open(OsVfs(), path, options)


def main() -> None:
    """Write until killed."""
    path, synchronous, mode = sys.argv[1:4]
    store = open_to_write(path, synchronous)
    interrupts = 0
    while True:
        try:
            number = last(store) + 1
            write(store, number)
            os.write(1, b"%d\n" % number)
        except KeyboardInterrupt:
            interrupts += 1
            if mode != "interrupt":
                raise
            if store.poisoned:
                store.close()
                store = open_to_write(path, synchronous)
            check(store)
            os.write(1, b"interrupted\n")


if __name__ == "__main__":
    main()
