"""A reset of the log that is stopped behind its durable header is no fault of the file (CP5)."""

from __future__ import annotations

from typing import Any

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.attachment import Attachment
from m2mdb.wal.file_check import check_file
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.store import Store
from tests.wal.conftest import Place, put, read


def faults_of(store: Store) -> list[str]:
    faults: list[str] = []
    check_file(store, faults.append)
    return faults


def stop_in_reset(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C once the new header is durable, and before it is published."""
    original = Attachment.sync_log

    def sync_and_stop(self: Attachment) -> None:
        original(self)
        assert self.log is not None
        if self.log.header().generation != self.end.generation:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Attachment, "sync_log", sync_and_stop)
        with pytest.raises(KeyboardInterrupt):
            store.checkpoint("restart")


def test_s12_an_interrupted_reset_is_no_fault_to_anyone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = place.open(), place.open()
    put(store, a="1")
    assert read(other) == {"a": "1"}

    stop_in_reset(store, monkeypatch)

    late = place.open()
    for each in (store, other, late):
        assert faults_of(each) == []
        assert read(each) == {"a": "1"}
    put(late, b="2")
    for each in (store, other, late):
        assert read(each) == {"a": "1", "b": "2"}
        assert faults_of(each) == []


@pytest.mark.parametrize("what", ["generation", "base_commit", "uuid"])
def test_a_header_that_no_reset_writes_is_a_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store = place.open()
    put(store, a="1")
    stop_in_reset(store, monkeypatch)
    assert store.log is not None
    header = store.log.header()
    wrong: Any = {"generation": header.generation + 1, "base_commit": 0, "uuid": bytes(16)}[what]
    changed: LogHeader = header._replace(**{what: wrong})
    store.log.file.write_at(0, changed.encode())

    assert len(faults_of(store)) == 1
    store.log.file.write_at(0, header.encode())


def test_a_header_of_the_next_generation_over_frames_that_are_not_copied_is_a_fault(
    place: Place,
) -> None:
    store = place.open(wal_autocheckpoint=0)
    put(store, a="1")
    assert store.log is not None
    header = store.log.header()
    after = header._replace(generation=header.generation + 1, base_commit=1)
    store.log.file.write_at(0, after.encode())

    assert len(faults_of(store)) == 1
    store.log.file.write_at(0, header.encode())
    assert faults_of(store) == []


def stop_in_the_first_write(place: Place) -> Store:
    """A log that is made and whose first frame was never written."""
    store = place.open()
    put(store, a="1")
    store.close()
    place.stores.clear()
    store = place.open()
    assert isinstance(place.vfs, SimVfs)
    place.vfs.fail("sync", path_end=".m2m")  # of page 1, behind that of the log's header
    with pytest.raises(OperationalError):
        put(store, b="2")
    return store


def test_s4_a_first_write_that_was_stopped_is_no_fault_to_anyone(sim: Place) -> None:
    """The flag said needed while generation 0 was read: the check called the file damaged."""
    store = stop_in_the_first_write(sim)
    other = sim.open()

    for each in (store, other):
        assert read(each) == {"a": "1"}
        assert faults_of(each) == []
    for each in (store, other):
        each.close()
    late = sim.open()
    put(late, c="3")
    assert read(late) == {"a": "1", "c": "3"}
    assert faults_of(late) == []


@pytest.mark.parametrize("what", ["generation", "salt", "uuid"])
def test_s4_a_needed_log_that_is_another_is_a_fault(sim: Place, what: str) -> None:
    store = stop_in_the_first_write(sim)
    file = sim.vfs.open(store.log_path)
    header = LogHeader.decode(file.read_at(0, LOG_HEADER_SIZE), store.log_path)
    others = {"generation": header.generation + 1, "salt": header.salt ^ 1, "uuid": bytes(16)}
    wrong: Any = others[what]
    file.write_at(0, header._replace(**{what: wrong}).encode())

    assert faults_of(store) == [
        "page 1 (log flag): the log is needed, but generation 0 is read",
    ]
    file.write_at(0, header.encode())
    file.close()
