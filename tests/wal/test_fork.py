"""Fork: the child has lost the database, the parent has not noticed (S5)."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import pytest

from m2mdb.pager.errors import DatabaseBusyError, InterfaceError
from tests.wal.conftest import Place, change, put, read, rows_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(action: Callable[[], None]) -> int:
    """Run an action in a forked child; its exit status."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_use_nothing_and_harms_nothing(disk: Place) -> None:
    store, other = disk.open(), disk.open()
    put(store, a="1")
    snapshot = store.begin_read()
    rows_of(snapshot)
    transaction = store.begin_write()
    change(transaction, a="2")
    transaction.begin_statement()

    def use() -> None:
        uses: list[Callable[[], object]] = [
            store.begin_read,
            store.begin_write,
            store.checkpoint,
            store.stats,
            lambda: store.last_commit,
            lambda: snapshot.get(2),
            lambda: transaction.get(1),
            lambda: transaction.put(2, snapshot),  # type: ignore[arg-type]
            transaction.allocate,
            transaction.begin_statement,
            transaction.commit_now,
        ]
        for number, attempt in enumerate(uses):
            try:
                attempt()
            except InterfaceError as error:
                assert "fork" in str(error) or "closed" in str(error), error
            else:
                raise AssertionError(f"use {number} was allowed")
        snapshot.close()
        transaction.rollback()
        store.close()
        other.close()

    assert in_child(use) == 0

    with pytest.raises(DatabaseBusyError):
        other.begin_write()
    assert other.stats()["readers"] == 1
    transaction.commit_now()
    assert rows_of(snapshot) == {"a": "1"}
    assert read(other) == {"a": "2"}
    assert disk.vfs.exists(disk.path + "-wal")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_open_the_database_itself(disk: Place) -> None:
    store = disk.open()
    put(store, a="1")

    def use() -> None:
        mine = disk.open()
        assert read(mine) == {"a": "1"}
        put(mine, b="2")
        mine.close()

    assert in_child(use) == 0

    assert read(store) == {"a": "1", "b": "2"}
    put(store, c="3")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_locks_do_not_outlive_the_parent_in_a_child(disk: Place) -> None:
    """A child that lives on keeps no lock of a parent that has closed."""
    store = disk.open()
    put(store, a="1")
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        store.close()
        assert not disk.vfs.exists(disk.path + "-wal"), "the parent was the last one"
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
