"""Recovery that is refused or put off."""

from __future__ import annotations

import pytest

from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError
from m2mdb.pager.header import FLAG_OFFSET, FLAG_SIZE, HEADER_SIZE, Header, LogFlag
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal.frame import LogHeader
from tests.wal.conftest import Place, put, read

PATH = "d/notes.m2m"
LOG = PATH + "-wal"


def crashed(place: Place) -> SimVfs:
    """A file whose process died with commits in the log; the machine that it is on."""
    store = place.open(wal_autocheckpoint=0)
    put(store, a="1")
    put(store, b="2")
    assert isinstance(place.vfs, SimVfs)
    return place.vfs.process_crash()


def test_a_file_of_a_newer_write_format_is_not_recovered_but_read(sim: Place) -> None:
    vfs = crashed(sim)
    file = vfs.open(PATH)
    header = Header.decode(file.read_at(0, HEADER_SIZE), PATH)
    header.format_write += 1
    file.write_at(0, header.encode(1, 4096)[:HEADER_SIZE])
    before = file.read_at(0, file.size())

    with pytest.raises(NotSupportedError, match="needs recovery and cannot be written: its write"):
        sim.open(vfs)
    assert file.read_at(0, file.size()) == before
    assert read(sim.open(vfs, read_only=True)) == {"a": "1", "b": "2"}


def test_a_log_of_the_same_generation_and_another_salt_is_not_the_files(sim: Place) -> None:
    vfs = crashed(sim)
    file, log = vfs.open(PATH), vfs.open(LOG)
    flag = LogFlag.decode(file.read_at(FLAG_OFFSET, FLAG_SIZE), PATH)
    header = LogHeader.decode(log.read_at(0, 4096), LOG)
    wrong = header._replace(generation=flag.generation, salt=flag.salt ^ 1)
    log.write_at(0, wrong.encode())
    with pytest.raises(CorruptDatabaseError, match=r"is not the log of .*: salt"):
        sim.open(vfs)
    log.write_at(0, header.encode())
    assert read(sim.open(vfs)) == {"a": "1", "b": "2"}


def test_a_file_is_not_cut_before_its_log_is_recovered(sim: Place) -> None:
    """S27: a reader came first; the cut waits for its end, and then for the next commit."""
    vfs = crashed(sim)
    reader = sim.open(vfs, read_only=True)
    writer = sim.open(vfs.fork_process())
    length = writer.file.size()
    writer.file.truncate(length + 40_960)
    assert writer.cut() == (
        0,
        "another connection has the file open; the last one that closes it cuts it",
    )
    reader.close()
    given, why = writer.cut()
    assert given == 0
    assert "is recovered first" in why
    assert writer.file.size() == length + 40_960
    put(writer, c="3")
    assert writer.cut()[1] == ""
    assert writer.file.size() <= length
    assert read(writer) == {"a": "1", "b": "2", "c": "3"}
