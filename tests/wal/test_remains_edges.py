"""What is read of a damaged file and of its log: whose log counts, and which pages are found."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from m2mdb.pager.btree import BTree
from m2mdb.pager.btree_move import TreeWalk, move_page
from m2mdb.pager.errors import CorruptDatabaseError, InterfaceError, InternalError, OperationalError
from m2mdb.pager.header import FLAG_OFFSET, HEADER_SIZE, Header, LogFlag
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.new_file import NewFile
from m2mdb.pager.page import Branch, Leaf, OverflowPage, OverflowReference
from m2mdb.pager.pages import Node
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import snapshot as snapshots
from m2mdb.wal.frame import LogHeader
from m2mdb.wal.remains import Remains
from m2mdb.wal.store import Store, StoreOptions
from tests.pager.test_btree_damage import HostilePages
from tests.wal.conftest import TREE, Place, change, put, read, rows_of

PATH = "d/notes.m2m"
LOG = PATH + "-wal"


def crashed(place: Place, rows: int = 6, **options: Any) -> SimVfs:
    """A file whose process died with its commits in the log, and the machine that it is on."""
    store = place.open(wal_autocheckpoint=0, **options)
    put(store, first="1")
    store.checkpoint("restart")
    for number in range(rows):
        put(store, **{f"k{number}": f"{number}" + "." * 900})
    assert isinstance(place.vfs, SimVfs)
    return place.vfs.process_crash()


def rewrite_log(vfs: SimVfs, **changes: Any) -> None:
    file = vfs.open(LOG)
    header = LogHeader.decode(file.read_at(0, 4096), LOG)
    file.write_at(0, header._replace(**changes).encode())


def found(remains: Remains) -> int:
    return len(list(BTree(remains, TREE).scan()))


def test_a_whole_log_is_read_without_a_word(sim: Place) -> None:
    remains = Remains(crashed(sim), PATH)
    assert remains.damage == []
    assert not remains.misses_commits
    assert found(remains) == 7
    assert remains.commit == 7
    for number in (0, 1, remains.page_count + 1):
        with pytest.raises(CorruptDatabaseError, match=f"page {number} of"):
            remains.get(number)
    assert remains.get(TREE) is remains.get(TREE)
    remains.close()


def test_a_log_of_another_database_or_of_an_older_generation_is_not_used(sim: Place) -> None:
    vfs = crashed(sim)
    header = LogHeader.decode(vfs.open(LOG).read_at(0, 4096), LOG)
    cases: list[tuple[str, dict[str, object]]] = [
        ("it belongs to another database", {"uuid": bytes(16)}),
        ("it has pages of 8192 bytes", {"page_size": 8192}),
        ("it is older than the file", {"generation": 0}),
    ]
    for reason, changes in cases:
        rewrite_log(vfs, **changes)
        remains = Remains(vfs, PATH)
        assert f"{LOG} is not used: {reason}" in remains.damage
        assert remains.misses_commits
        assert remains.log is None
        assert found(remains) == 1, "what the file itself holds"
        remains.close()
        rewrite_log(vfs, **header._asdict())
    assert found(Remains(vfs, PATH)) == 7


def test_a_log_that_is_missing_is_named(sim: Place) -> None:
    vfs = crashed(sim)
    vfs.unlink(LOG)
    remains = Remains(vfs, PATH)
    assert remains.damage == [f"{LOG} is missing: the newest commits were in it"]
    assert remains.misses_commits
    assert found(remains) == 1


@pytest.mark.parametrize("page_size", [4096, 16384])
@pytest.mark.parametrize("with_log", [True, False])
def test_the_page_size_is_found_without_a_header(
    sim: Place, page_size: int, *, with_log: bool
) -> None:
    """In the log's header, or by the pages that verify with it."""
    vfs = crashed(sim, page_size=page_size)
    if not with_log:
        vfs.unlink(LOG)
    vfs.open(PATH).write_at(0, b"\xff" * HEADER_SIZE)
    remains = Remains(vfs, PATH)
    assert remains.page_size == page_size
    assert remains.damage[0].startswith("page 1, header: ")
    assert found(remains) == (7 if with_log else 1)
    assert (remains.catalog_root, remains.free_root) == (2, 3)
    remains.close()


def test_a_header_that_stands_in_the_log_replaces_the_damaged_one(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    transaction = store.begin_write()
    transaction.change_header()
    change(transaction, a="1")
    transaction.commit_now()
    uuid = store.uuid
    assert isinstance(sim.vfs, SimVfs)
    vfs = sim.vfs.process_crash()
    vfs.open(PATH).write_at(0, b"\xff" * HEADER_SIZE)
    remains = Remains(vfs, PATH)
    assert remains.header is not None
    assert remains.header.uuid == uuid
    assert found(remains) == 1


def test_a_clean_flag_makes_the_log_a_last_resort(sim: Place) -> None:
    """Its frames are of a close that had copied them: they mend pages, and add no commits."""
    vfs = crashed(sim)
    file = vfs.open(PATH)
    file.write_at(FLAG_OFFSET, LogFlag(False).encode())
    remains = Remains(vfs, PATH)
    assert found(remains) == 1
    assert not remains.misses_commits
    remains.close()
    file.write_at((TREE - 1) * 4096, b"\xff" * 100)
    assert found(Remains(vfs, PATH)) >= 1, "the page comes out of the log"


def test_a_file_cut_short_and_one_of_nothing_are_named(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    put(store, **{f"k{i}": "." * 1500 for i in range(40)})
    store.close()
    assert isinstance(sim.vfs, SimVfs)
    vfs = sim.vfs.fork_process()
    file = vfs.open(PATH)
    pages = file.size() // 4096
    file.truncate((pages - 2) * 4096)
    remains = Remains(vfs, PATH)
    assert remains.damage == [f"{PATH} is truncated: {pages - 2} pages, expected {pages}"]
    with pytest.raises(CorruptDatabaseError, match=f"page {pages} of"):
        remains.get(pages)
    remains.close()
    file.write_at(0, b"\xff" * file.size())
    with pytest.raises(CorruptDatabaseError, match="no page of any size in it verifies"):
        Remains(vfs, PATH)


def test_a_page_that_the_system_cannot_read_is_lost_and_the_others_are_not(sim: Place) -> None:
    store = sim.open(wal_autocheckpoint=0)
    put(store, **{f"k{i}": "." * 1500 for i in range(40)})
    store.close()
    assert isinstance(sim.vfs, SimVfs)
    vfs = sim.vfs.fork_process()
    remains = Remains(vfs, PATH)
    vfs.fail("read", path_end=".m2m")
    with pytest.raises(CorruptDatabaseError, match=f"page {TREE} of .*cannot read"):
        remains.get(TREE)
    assert found(remains) == 40


# -- moving and walking -------------------------------------------------------------------------


def test_a_page_is_moved_only_behind_a_parent_that_leads_to_it() -> None:
    """Whatever kind the parent is of."""
    value = OverflowReference.of(5, 900)
    parents: dict[str, Node] = {
        "branch": Branch([b"m"], [3, 4]),
        "leaf": Leaf([b"a", b"b"], [b"short", value]),
        "piece": OverflowPage(5, b"data"),
    }
    for name, parent in parents.items():
        pages = HostilePages({2: parent, 3: Leaf([b"a"], [b"1"]), 5: OverflowPage(0, b"x")})
        with pytest.raises(CorruptDatabaseError, match="page 2 does not lead to page 9"):
            pages.nodes[9] = Leaf([], [])
            move_page(pages, 2, 9, pages.allocate())
        old = 3 if name == "branch" else 5
        new = pages.allocate()
        move_page(pages, 2, old, new)
        assert old not in pages.nodes
        moved = pages.get(2)
        if type(moved) is Branch:
            assert moved.children == [new, 4]
        elif type(moved) is OverflowPage:
            assert moved.next == new
        else:
            assert type(moved) is Leaf
            assert moved.values == [b"short", OverflowReference.of(new, 900)]


def test_a_walk_over_a_damaged_tree_ends_with_an_error() -> None:
    twice = HostilePages({2: Branch([b"m"], [3, 3]), 3: Leaf([b"a"], [b"1"])})
    with pytest.raises(CorruptDatabaseError, match="page 3 is used twice"):
        list(TreeWalk(twice, 2))
    loop = HostilePages({2: Branch([], [2])})
    with pytest.raises(CorruptDatabaseError, match="page 2 is used twice"):
        list(TreeWalk(loop, 2))
    piece = HostilePages({2: Branch([], [3]), 3: OverflowPage(0, b"x")})
    with pytest.raises(CorruptDatabaseError, match="page 3 is no leaf or branch"):
        list(TreeWalk(piece, 2))


def test_a_new_file_is_written_forward_only() -> None:
    file = MemoryVfs().open("new", create=True)
    new = NewFile(file, 4096, 5)
    root = new.get(TREE)
    assert type(root) is Leaf
    assert root.keys == []
    new.put(TREE, Leaf([b"k"], [b"v"]))
    with pytest.raises(InternalError, match="page 2 of new is written already"):
        new.get(TREE)
    for refused in (new.change, new.free):
        with pytest.raises(InternalError, match="page 2 of new is"):
            refused(TREE)
    header = Header(4096, bytes(range(16)))
    new.finish(header)
    assert Header.decode(file.read_at(0, HEADER_SIZE), "new").page_count == new.page_count


# -- stores -------------------------------------------------------------------------------------


def test_s5_an_abandoned_store_touches_nothing(sim: Place) -> None:
    """As in a forked child: no lock is given up by a call, nothing is written or unlinked."""
    store = sim.open()
    put(store, a="1")
    snapshot = store.begin_read()
    assert isinstance(sim.vfs, SimVfs)
    before = len(sim.vfs.log)
    store.abandon()
    store.abandon()
    snapshot.close()
    store.close()
    assert len(sim.vfs.log) == before
    with pytest.raises(InterfaceError, match="before a fork"):
        store.begin_read()
    with pytest.raises(InterfaceError):
        rows_of(snapshot)
    assert read(sim.open(sim.vfs.fork_process())) == {"a": "1"}


def test_extents_are_kept_open_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """S15: what is dropped is opened again, and reads the same."""
    monkeypatch.setattr(snapshots, "_EXTENTS_KEPT", 2)
    store = Store.open(MemoryVfs(), "m", StoreOptions(create=True))
    transaction = store.begin_write()
    extents = [transaction.write_extent([b"%d" % i * 5000], 5000) for i in range(5)]
    change(transaction, a="1")
    transaction.commit_now()
    store.extents.clear()
    snapshot = store.begin_read()
    for _ in range(2):
        for number, extent in enumerate(extents):
            assert bytes(snapshot.extent(extent).view(0, 5000)) == b"%d" % number * 5000
            assert len(store.extents) <= 2
    snapshot.close()
    store.close()


def test_a_second_opener_finds_what_lies_under_the_name_of_the_shared_state(sim: Place) -> None:
    """Without it, or with another file's, nobody joins."""
    store = sim.open()
    put(store, a="1")
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    assert store.shared is not None
    view = store.shared.view
    whole = bytes(view)
    identity = store.identity
    store.shared.begin(identity._replace(inode=identity.inode + 1), store.end, store.backfill)
    with pytest.raises(OperationalError, match="-shm belongs to another file"):
        sim.open(vfs.fork_process())
    view[:] = whole
    vfs.unlink(store.shm_path)
    with pytest.raises(OperationalError, match=r"or d/notes\.m2m-shm was removed"):
        sim.open(vfs.fork_process())
    assert read(store) == {"a": "1"}


def test_a_dropped_store_leaves_nothing_behind_that_keeps_it(sim: Place) -> None:
    store = Store.open(sim.vfs, PATH, StoreOptions(create=True))
    put(store, a="1")
    gone = weakref.ref(store)
    store.close()
    del store
    gc.collect()
    assert gone() is None
    assert read(sim.open()) == {"a": "1"}
