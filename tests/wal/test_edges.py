"""The log's rarer paths: closed objects, damage that a reader meets, ends of space and of marks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import (
    CorruptDatabaseError,
    DatabaseBusyError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from m2mdb.pager.header import FLAG_OFFSET, FLAG_SIZE, LogFlag
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.page import Leaf
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import allocation
from m2mdb.wal.file_check import check_file
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.locks import WRITER
from m2mdb.wal.scrub import begin_scrub, zero_free_pages
from m2mdb.wal.store import Store, StoreOptions
from m2mdb.wal.versions import VersionCache
from tests.wal.conftest import TREE, Place, change, put, read, rows_of

PAD = "." * 1500


def memory_store(**options: Any) -> Store:
    return Store.open(MemoryVfs(), "m", StoreOptions(create=True, **options))


def sim_of(place: Place) -> SimVfs:
    assert isinstance(place.vfs, SimVfs)
    return place.vfs


def tear(store: Store) -> None:
    """Make the first of both ends differ from the second, as a publication does midway."""
    shared = store.shared
    assert shared is not None
    view = shared.view
    for at in range(len(view)):
        view[at] ^= 255
        if shared.decode(shared.look()) is None:
            return
        view[at] ^= 255
    raise AssertionError("no byte counts")


def fill(store: Store, count: int) -> None:
    for number in range(count):
        put(store, **{f"k{number:03}": f"{number}{PAD}"})


# -- objects that have ended --------------------------------------------------------------------


def test_a_closed_snapshot_reads_nothing_more_from_the_disk() -> None:
    store = memory_store()
    fill(store, 20)
    snapshot = store.begin_read()
    rows = rows_of(snapshot)
    assert "closed" not in repr(snapshot)
    assert f"commit {snapshot.commit} " in repr(snapshot)
    snapshot.close()
    snapshot.close()

    assert repr(snapshot).endswith("(closed)>")
    store.versions = VersionCache(0, store.page_size)
    snapshot._versions = store.versions
    with pytest.raises(InterfaceError, match="the snapshot is closed"):
        rows_of(snapshot)
    assert read(store) == rows
    store.close()


def test_objects_say_what_they_are_and_in_which_state() -> None:
    store = memory_store()
    transaction = store.begin_write()
    assert repr(transaction) == "<Transaction on commit 0 of 'm', open>"
    transaction.rollback()
    assert repr(transaction) == "<Transaction on commit 0 of 'm', ended>"
    assert repr(store) == "<Store 'm'>"
    store.timeout = 1.5
    assert store.timeout == 1.5
    store.close()
    store.close()
    assert repr(store) == "<Store 'm' (closed)>"
    assert store.closed


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.begin_read(),
        lambda store: store.begin_write(),
        lambda store: store.checkpoint(),
        lambda store: store.cut(),
        lambda store: store.stats(),
        lambda store: store.last_commit,
        lambda store: store.log_bytes,
    ],
)
def test_a_closed_store_refuses_every_use(use: Callable[[Store], object]) -> None:
    """ST2."""
    store = memory_store()
    put(store, a="1")
    store.close()
    with pytest.raises(InterfaceError, match="the database is closed"):
        use(store)


def test_an_ended_transaction_refuses_what_vacuum_and_scrubbing_ask_of_it() -> None:
    store = memory_store()
    transaction = store.begin_write()
    token = transaction.savepoint()
    transaction.rollback()
    transaction.undo_statement(token)  # of an end that undid it already: nothing to do
    for use in (
        transaction.end_scrub,
        lambda: transaction.allocate_at(5),
        lambda: transaction.shrink(1),
        lambda: transaction.rollback_to(token),
        lambda: transaction.release(token),
        lambda: transaction.write_extent([b"x"], 1, at=9),
        lambda: transaction.put(9, Leaf([], [])),
        transaction.commit_now,
    ):
        with pytest.raises(InterfaceError, match="the transaction has ended"):
            use()
    assert read(store) == {}
    store.close()


# -- pages and extents --------------------------------------------------------------------------


def test_pages_outside_the_database_are_damage_however_they_are_read() -> None:
    store = memory_store()
    fill(store, 5)
    snapshot, transaction = store.begin_read(), store.begin_write()
    for pages in (snapshot, transaction):
        for number in (0, -1, snapshot.page_count + 1):
            for get in (pages.get, pages.get_fresh):
                with pytest.raises(CorruptDatabaseError, match=f"page {number} of m: expected 1"):
                    get(number)
    transaction.rollback()
    store.close()


def test_fresh_pages_are_read_from_the_disk_and_changed_ones_from_the_transaction(
    place: Place,
) -> None:
    store = place.open(wal_autocheckpoint=0)
    fill(store, 5)
    snapshot = store.begin_read()
    cached = snapshot.get(TREE)
    fresh = snapshot.get_fresh(TREE)
    assert fresh is not cached
    assert fresh.encode(TREE, 4096) == cached.encode(TREE, 4096)

    transaction = store.begin_write()
    assert transaction.get_fresh(TREE).encode(TREE, 4096) == cached.encode(TREE, 4096)
    assert transaction.get_fresh(TREE) is not transaction.get(TREE)
    assert transaction.change(TREE) is transaction.get_fresh(TREE)
    transaction.begin_statement()
    assert transaction.get_fresh(TREE) is transaction.get(TREE)
    transaction.rollback()
    assert store.checkpoint()[0] == 0
    snapshot.close()
    snapshot = store.begin_read()
    assert snapshot.get_fresh(TREE).encode(TREE, 4096) == cached.encode(TREE, 4096)
    snapshot.close()


def test_an_extent_on_pages_that_were_named_is_its_transactions_own(place: Place) -> None:
    """S9, S15: usable runs are what may be claimed, and only once."""
    store = place.open(wal_autocheckpoint=0)
    transaction = store.begin_write()
    old = transaction.write_extent([b"o" * 40_000], 40_000)
    change(transaction, a="1")
    transaction.commit_now()
    transaction = store.begin_write()
    transaction.free_extent(old)
    transaction.commit_now()
    assert store.checkpoint("restart")[0] == 0

    transaction = store.begin_write()
    (start, length, for_extent), *_ = transaction.usable_runs()
    assert (start, for_extent) == (old.start_page, True)
    assert length >= old.page_count
    extent = transaction.write_extent([b"n" * 30_000], 30_000, at=start)
    assert extent.start_page == start
    opened = transaction.extent(extent)
    assert opened is transaction.extent(extent)
    assert bytes(opened.view(0, 30_000)) == b"n" * 30_000
    with pytest.raises(InternalError, match="is claimed, which is not free"):
        transaction.allocate_at(start)
    change(transaction, a="2")
    transaction.commit_now()
    snapshot = store.begin_read()
    assert bytes(snapshot.extent(extent).view(0, 30_000)) == b"n" * 30_000
    snapshot.close()


def test_runs_of_several_commits_that_touch_are_one_to_the_one_who_uses_them() -> None:
    store = memory_store(wal_autocheckpoint=0)
    transaction = store.begin_write()
    extents = [transaction.write_extent([b"%d" % i * 9000], 9000) for i in range(3)]
    transaction.write_extent([b"end"], 3)
    transaction.commit_now()
    for extent in extents:
        transaction = store.begin_write()
        transaction.free_extent(extent)
        transaction.commit_now()
    assert store.checkpoint("restart")[0] == 0

    transaction = store.begin_write()
    pages = sum(extent.page_count for extent in extents)
    assert (extents[0].start_page, pages, True) in transaction.usable_runs()
    first = extents[0].start_page
    for number in range(first, first + pages):
        transaction.allocate_at(number)
        transaction.put(number, Leaf([], []))
    assert all(start != first for start, _, _ in transaction.usable_runs())
    transaction.rollback()
    store.close()


def test_nothing_is_given_back_behind_an_extent_of_this_transaction() -> None:
    """S14, S27: its pages stay reserved though the extent was undone."""
    store = memory_store()
    put(store, a="1")
    transaction = store.begin_write()
    token = transaction.begin_statement()
    transaction.write_extent([b"x" * 20_000], 20_000)
    transaction.undo_statement(token)
    assert transaction.shrink(1 << 20) == 0
    page = transaction.allocate()
    assert page > 20_000 // 4096
    transaction.put(page, Leaf([], []))
    transaction.rollback()
    assert read(store) == {"a": "1"}
    store.close()


def test_a_database_of_the_largest_size_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on with the pages that it has."""
    store = memory_store()
    fill(store, 3)
    monkeypatch.setattr(allocation, "MOST_PAGES", store.end.page_count + 1)
    transaction = store.begin_write()
    with pytest.raises(OperationalError, match=r"m is full: \d+ pages, \d+ more are wanted"):
        transaction.write_extent([b"x" * 20_000], 20_000)
    transaction.rollback()
    put(store, k000="short")
    assert read(store)["k000"] == "short"
    store.close()


def test_a_transaction_that_undid_all_commits_nothing() -> None:
    store = memory_store()
    put(store, a="1")
    transaction = store.begin_write()
    token = transaction.begin_statement()
    page = transaction.allocate()
    transaction.put(page, Leaf([], []))
    transaction.free(page)
    transaction.undo_statement(token)
    before = store.last_commit
    assert transaction.commit_now() == before == store.last_commit
    assert not transaction.is_open
    assert read(store) == {"a": "1"}
    store.close()


def test_a_commit_of_many_megabytes_is_written_in_parts(sim: Place) -> None:
    """And counts as a whole after the death of its process."""
    store = sim.open(wal_autocheckpoint=0)
    rows = {f"k{number:05}": "v" * 3000 for number in range(1500)}
    before = len(sim_of(sim).log)
    transaction = store.begin_write()
    change(transaction, **rows)
    transaction.commit_now()

    written = [op for op in sim_of(sim).log[before:] if op.kind == "write" and op.data.strip(b"\0")]
    assert sum(op.path.endswith("-wal") for op in written) > 2
    assert read(sim.open(sim_of(sim).process_crash())) == rows


def test_older_versions_are_kept_apart_from_the_newest() -> None:
    cache = VersionCache(0, 4096)
    nodes = [Leaf([b"%d" % i], [b""]) for i in range(2000)]
    for number, node in enumerate(nodes):
        cache.put(number, 10, node)
    assert 0 < len(cache) < len(nodes)
    last = len(nodes) - 1
    assert cache.find(last, 10) is nodes[last]
    assert cache.find(last, 11) is None
    kept = [number for number in range(len(nodes)) if number not in cache.young]
    kept = [number for number in kept if cache.find(number, 10) is nodes[number]]
    assert kept, "the older half is looked through too"
    cache.put(last, 5, nodes[0])
    assert cache.find(last, 10) is nodes[last], "an older version does not drive out a newer one"


# -- the log ------------------------------------------------------------------------------------


def test_a_log_is_cut_to_its_limit_when_it_is_begun_anew(place: Place) -> None:
    store = place.open(wal_autocheckpoint=0)
    store.journal_size_limit = LOG_HEADER_SIZE
    fill(store, 30)
    before = store.log_bytes
    assert store.checkpoint("restart")[0] == 0
    assert store.log_bytes < before
    assert store.log_bytes == LOG_HEADER_SIZE
    put(store, last="1")
    assert read(store)["last"] == "1"


def test_a_log_that_the_system_does_not_cut_stays_as_long_as_it_is(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    store.journal_size_limit = 0
    fill(store, 30)
    before = store.log_bytes
    sim_of(sim).fail("truncate", path_end="-wal", once=False)
    assert store.checkpoint("restart")[0] == 0
    sim_of(sim).clear_faults()
    assert store.log_bytes == before
    put(store, last="1")
    assert read(sim.open(sim_of(sim).process_crash()))["last"] == "1"


def test_space_that_another_process_has_made_is_used(sim: Place) -> None:
    one, two = sim.open(wal_autocheckpoint=0), sim.open(sim_of(sim).fork_process())
    put(one, a="1")
    put(two, b="2")
    transaction = two.begin_write()
    change(transaction, **{f"k{i:03}": PAD for i in range(100)})
    transaction.commit_now()
    size = two.log_bytes
    put(one, c="3")
    assert one.log_bytes == size, "one finds the room that two has made"
    assert read(two)["c"] == "3"


def test_a_log_header_with_numbers_that_no_log_has_is_refused() -> None:
    raw = LogHeader(4096, (1 << 62) + 1, 1, 1 << 63, bytes(16)).encode()
    with pytest.raises(CorruptDatabaseError, match="header of log x: generation"):
        LogHeader.decode(raw, "x")


def test_a_failing_cut_of_a_failed_growth_keeps_the_first_error(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    put(store, a="1")
    vfs = sim_of(sim)
    vfs.fail("write", path_end="-wal", error=errno.ENOSPC)
    vfs.fail("truncate", path_end="-wal")
    transaction = store.begin_write()
    change(transaction, **{f"k{i:03}": PAD for i in range(300)})
    with pytest.raises(OperationalError, match="disk full"):
        transaction.commit_now()
    vfs.clear_faults()
    put(store, b="2")
    assert read(store) == {"a": "1", "b": "2"}


# -- several connections ------------------------------------------------------------------------


def test_a_writer_takes_over_a_half_published_end(sim: Place) -> None:
    """S2: the writer that died in its publication has let WRITER go."""
    one, two = sim.open(), sim.open(sim_of(sim).fork_process())
    put(one, a="1")
    assert read(two) == {"a": "1"}
    tear(one)
    put(two, b="2")
    assert read(two) == {"a": "1", "b": "2"}
    assert read(one) == {"a": "1", "b": "2"}


def test_a_reader_behind_a_stopped_publication_is_told_by_whom(sim: Place) -> None:
    """S2: as long as that process holds WRITER, nobody mends what it may be writing."""
    one, two = sim.open(), sim.open(sim_of(sim).fork_process())
    put(one, a="1")
    assert read(two) == {"a": "1"}
    assert one.locks.exclusive(WRITER)
    tear(one)
    with pytest.raises(DatabaseBusyError, match=r"process \d+ has stopped while it publishes"):
        two.begin_read()
    one.locks.drop(WRITER)
    assert read(two) == {"a": "1"}


def test_a_log_of_another_database_is_noticed_by_who_joins(sim: Place) -> None:
    one, two = sim.open(), sim.open(sim_of(sim).fork_process())
    put(one, a="1")
    assert one.log is not None
    header = one.log.header()
    one.log.file.write_at(0, header._replace(uuid=bytes(16)).encode())
    with pytest.raises(CorruptDatabaseError, match="belongs to another database"):
        read(two)


def test_a_long_reader_is_named_once_and_again_when_the_log_has_doubled(sim: Place) -> None:
    """S28."""
    store = sim.open(wal_autocheckpoint=2)
    put(store, a="1")
    other = sim.open(sim_of(sim).fork_process())
    snapshot = other.begin_read()
    told = []
    for number in range(60):
        put(store, **{f"k{number}": PAD})
        told.append(store.held_back)
        store.held_back = ""
    texts = [text for text in told if text]
    assert 1 < len(texts) < 10
    assert all(f"process {other.pid} reads commit {snapshot.commit}" in text for text in texts)
    snapshot.close()
    put(store, last="1")
    put(store, last="2")
    assert store.frames_told == 0


def test_a_store_that_cannot_leave_whole_leaves_the_log(sim: Place) -> None:
    """CL2: closing fails silently where the file cannot be made whole; the next one recovers."""
    store = sim.open(wal_autocheckpoint=0)
    fill(store, 5)
    rows = read(store)
    vfs = sim_of(sim)
    vfs.fail("write", path_end=".m2m", once=False)
    store.close()
    vfs.clear_faults()

    assert vfs.exists("d/notes.m2m-wal")
    assert read(sim.open()) == rows


def test_a_cut_is_refused_to_readers_and_inside_a_transaction(sim: Place) -> None:
    store = sim.open()
    put(store, a="1")
    transaction = store.begin_write()
    for call in (store.cut, store.checkpoint):
        with pytest.raises(OperationalError, match="inside a transaction"):
            call()
    with pytest.raises(InterfaceError, match="a transaction is open already"):
        store.begin_write()
    transaction.rollback()
    assert store.cut() == (0, "")
    reader = sim.open(sim_of(sim).fork_process(), read_only=True)
    for refused in (reader.cut, reader.checkpoint, reader.begin_write):
        with pytest.raises(OperationalError, match="open for reading only"):
            refused()


def test_a_writer_that_does_not_wait_is_refused_at_once(sim: Place) -> None:
    one, two = sim.open(), sim.open(sim_of(sim).fork_process(), timeout=60.0)
    put(one, a="1")
    transaction = one.begin_write()
    before = two.vfs.monotonic()
    with pytest.raises(DatabaseBusyError):
        two.begin_write(wait=False)
    assert two.vfs.monotonic() - before < 1
    transaction.rollback()
    two.begin_write(wait=False).rollback()


# -- scrubbing ----------------------------------------------------------------------------------


def test_s26_scrubbing_waits_for_writers_and_readers_as_long_as_it_may(sim: Place) -> None:
    one, two = sim.open(), sim.open(sim_of(sim).fork_process())
    put(one, a="secret" * 300)
    put(one, a=None)
    writer = two.begin_write()
    before = one.vfs.monotonic()
    assert begin_scrub(one, grace=0.5) is None
    assert 0.5 <= one.vfs.monotonic() - before < 5
    writer.rollback()
    snapshot = two.begin_read()
    put(one, b="1")
    assert begin_scrub(one) is None, "a reader of an older commit"
    snapshot.close()
    transaction = begin_scrub(one)
    assert transaction is not None
    zero_free_pages(transaction, everything=True)
    transaction.commit_now()
    assert read(one) == {"b": "1"}
    one.close()
    two.close()
    for path in ("d/notes.m2m", "d/notes.m2m-wal"):
        if two.vfs.exists(path):
            file = two.vfs.open(path)
            assert b"secretsecret" not in file.read_at(0, file.size())


def test_s26_a_log_that_cannot_be_overwritten_ends_the_scrubbing(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    fill(store, 5)
    vfs = sim_of(sim)
    assert store.checkpoint("restart")[0] == 0
    vfs.fail("write", path_end="-wal", once=False)
    with pytest.raises(OperationalError):
        begin_scrub(store)
    vfs.clear_faults()
    assert store.open_transaction() is None
    other = sim.open(vfs.fork_process())
    assert len(read(other)) == 5


# -- what check_file sees -----------------------------------------------------------------------


def faults(store: Store) -> list[str]:
    found: list[str] = []
    check_file(store, found.append)
    return found


def test_checking_names_what_is_wrong_with_page_one_and_the_log(sim: Place) -> None:
    """Each kind of damage alone, and nothing where nothing is wrong."""
    store = sim.open(wal_autocheckpoint=0)
    assert faults(store) == []
    fill(store, 4)
    assert faults(store) == []
    log, end = store.log, store.end
    assert log is not None
    flag = LogFlag.decode(store.file.read_at(FLAG_OFFSET, FLAG_SIZE), "x")

    def with_flag(other: LogFlag) -> list[str]:
        store.file.write_at(FLAG_OFFSET, other.encode())
        found = faults(store)
        store.file.write_at(FLAG_OFFSET, flag.encode())
        return found

    cases = {
        "the log is not needed, but generation": LogFlag(False, flag.salt, flag.generation),
        "expected up to": LogFlag.needed_for(flag.salt, flag.generation + 1),
        "page 1 (log flag): salt": LogFlag.needed_for(flag.salt ^ 1, flag.generation),
    }
    for text, other in cases.items():
        (fault,) = with_flag(other)
        assert text in fault

    def with_bytes(file: Any, offset: int, raw: bytes) -> list[str]:
        before = file.read_at(offset, len(raw))
        file.write_at(offset, raw)
        found = faults(store)
        file.write_at(offset, before)
        return found

    assert any("log flag" in text for text in with_bytes(store.file, FLAG_OFFSET, b"\xff" * 16))
    assert any("are not zero" in text for text in with_bytes(store.file, 4000, b"x"))
    assert any("(header)" in text for text in with_bytes(store.file, 16, b"\xff" * 8))
    found = with_bytes(log.file, 8, b"\xff" * 8)
    assert any("log d/notes.m2m-wal: begins with" in text for text in found), found
    middle = LOG_HEADER_SIZE + log.frame_size + 100
    assert any("does not continue commit" in t for t in with_bytes(log.file, middle, b"\xff"))
    header = log.header()
    later = header._replace(generation=end.generation + 2).encode()
    assert any("expected" in text for text in with_bytes(log.file, 0, later))
    assert faults(store) == []


def test_a_tree_that_is_read_while_a_busy_handler_is_set_and_unset() -> None:
    store = memory_store()
    asked: list[int] = []

    def handler(times: int) -> bool:
        asked.append(times)
        return times < 2

    store.busy_handler = handler
    assert store.busy_handler is handler
    other = Store.open(store.vfs, "m", StoreOptions(create=True, timeout=0.0))
    transaction = other.begin_write()
    BTree(transaction, TREE).put(b"k", b"v")
    with pytest.raises(DatabaseBusyError):
        store.begin_write()
    assert asked == [0, 1, 2]
    store.busy_handler = None
    store.timeout = 0.0
    with pytest.raises(DatabaseBusyError):
        store.begin_write()
    assert asked == [0, 1, 2]
    transaction.commit_now()
    assert read(store) == {"k": "v"}
    other.close()
    store.close()
