"""VACUUM: everything stays, and the file is as long as what it holds."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from m2mdb.index.database import Database
from m2mdb.index.vacuum import incremental_vacuum, vacuum
from m2mdb.pager.btree import BTree
from m2mdb.pager.btree_move import TreeWalk, move_page
from m2mdb.pager.errors import OperationalError, ProgrammingError, StatementInterruptedError
from m2mdb.pager.freespace import FreeMap
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.sim_machine import Call
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from m2mdb.wal import truncation
from tests.vacuum.cases import PATH, everything, fill, insert, opened, pages


def filled(seed: int = 1, **options: Any) -> Database:
    database = opened(MemoryVfs(), **options)
    fill(database, seed)
    return database


@pytest.mark.parametrize(
    ("seed", "page_size"), [(0, 4096), (1, 4096), (2, 4096), (3, 8192), (4, 16384), (5, 16384)]
)
def test_vacuum_keeps_every_answer(seed: int, page_size: int) -> None:
    database = filled(seed, page_size=page_size)
    before = everything(database)

    vacuum(database)

    assert everything(database) == before
    live, count, in_file = pages(database)
    assert count == in_file
    assert in_file <= 1.1 * live + 1
    database.close()


@pytest.mark.parametrize("seed", range(2))
def test_what_was_vacuumed_goes_on(seed: int) -> None:
    vfs = MemoryVfs()
    database = opened(vfs)
    fill(database, seed)
    for number in range(3):
        vacuum(database)
        insert(database, "other", Random(number), range(100_000 + 600 * number, 100_500))
        insert(
            database, "other", Random(number), range(200_000 + 600 * number, 200_600 + 600 * number)
        )
        execute(database, "DELETE FROM other WHERE id % 5 = ?", (number,))
        execute(database, "UPDATE other SET n = 7, body = 'red' WHERE id % 11 = 3")
    before = everything(database)
    database.close()

    again = opened(vfs)
    assert everything(again) == before
    again.close()


def test_s27_a_file_with_much_free_space_becomes_minimal() -> None:
    """S27: nine tenths of the rows go, and so does their space."""
    database = opened(MemoryVfs())
    fill(database, 5, batches=12)
    execute(database, "DELETE FROM other WHERE id % 10 <> 0")
    before = pages(database)[2]  # what stands in the log alone is no page of the file

    done = vacuum(database)

    live, count, in_file = pages(database)
    assert (done.pages_before, done.pages_after, done.remaining) == (before, in_file, None)
    assert done.bytes_given_back == (before - in_file) * 4096
    assert in_file == count <= 1.1 * live
    assert in_file < before / 2


def test_extents_slide_where_no_free_place_is_long_enough() -> None:
    """Free places of one extent's length between longer ones: none can move before some have."""
    database = opened(MemoryVfs())
    for number, (kind, rows) in enumerate((("a", 600), ("b", 1500)) * 6):
        name = f"{kind}{number}"
        execute(database, f"CREATE COLLECTION {name} (id INTEGER PRIMARY KEY, v VECTOR(8))")
        with database.writing() as write:
            write.insert(name, {"v": [[i + 1.0] * 8 for i in range(rows)]}, rows)
    for (name,) in execute(database, "SELECT name FROM m2m_collections").rows:
        if name.startswith("a"):
            execute(database, f"DROP COLLECTION {name}")
    live, count, _ = pages(database)
    assert count > 1.3 * live

    vacuum(database)

    live, count, in_file = pages(database)
    assert count == in_file <= 1.1 * live
    assert execute(database, "PRAGMA integrity_check").rows == [("ok",)]


def test_sparse_trees_are_loaded_anew() -> None:
    database = opened(MemoryVfs())
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, k TEXT)")
    execute(database, "CREATE INDEX by_k ON t (k)")
    keys = [f"{i:05d}{'k' * 60}" for i in range(6000)]
    with database.writing() as write:
        write.insert("t", {"k": keys}, len(keys))
    execute(database, "DELETE FROM t WHERE id % 2 = 0")

    def leaves() -> int:
        with database.reading() as view:
            info = view.collection("t").schema.indexes[0]
            walk = TreeWalk(view.pages, info.root)
            return sum(1 for _ in walk)

    before = leaves()
    vacuum(database)

    assert leaves() < 0.7 * before
    assert execute(database, "SELECT count(*) FROM t WHERE k >= '03'").rows == [(1500,)]
    assert execute(database, "PRAGMA integrity_check").rows == [("ok",)]


def test_vacuum_does_nothing_to_a_compact_file() -> None:
    database = filled(3)
    vacuum(database)
    commit = database.store.last_commit

    done = vacuum(database)

    assert database.store.last_commit == commit
    assert (done.pages_before, done.bytes_given_back, done.remaining) == (done.pages_after, 0, None)


def test_vacuum_is_refused_inside_a_transaction_and_for_readers() -> None:
    vfs = MemoryVfs()
    database = opened(vfs)
    execute(database, "CREATE COLLECTION t (x INTEGER)")
    execute(database, "BEGIN")
    for statement in ("VACUUM", "PRAGMA incremental_vacuum(5)", "VACUUM INTO 'x'"):
        with pytest.raises(OperationalError, match="inside a transaction"):
            execute(database, statement)
    execute(database, "INSERT INTO t VALUES (1)")
    with pytest.raises(OperationalError, match="inside a transaction"):
        execute(database, "VACUUM")
    execute(database, "COMMIT")
    assert execute(database, "SELECT x FROM t").rows == [(1,)]
    database.close()

    reader = opened(vfs, read_only=True)
    with pytest.raises(OperationalError, match="reading only"):
        vacuum(reader)
    reader.close()


def test_pragmas_count_pages() -> None:
    database = filled(2)
    live, count, _ = pages(database)

    assert execute(database, "PRAGMA page_count").rows == [(count,)]
    assert execute(database, "PRAGMA freelist_count").rows == [(count - live,)]
    assert execute(database, "PRAGMA page_size").rows == [(4096,)]
    for name in ("page_count", "freelist_count"):
        with pytest.raises(ProgrammingError, match=name):
            execute(database, f"PRAGMA {name} = 5")
    with pytest.raises(ProgrammingError, match="incremental_vacuum"):
        execute(database, "PRAGMA incremental_vacuum(many)")


def test_s26_under_secure_delete_nothing_of_what_was_deleted_or_moved_is_left() -> None:
    """S26, S27: old places are freed like all others, so they are overwritten, or cut off."""
    vfs = MemoryVfs()
    database = opened(vfs)
    execute(database, "PRAGMA secure_delete = on")
    execute(database, "CREATE COLLECTION gone (body TEXT)")
    execute(database, "CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT)")
    for name in ("gone", "t", "gone", "t"):
        with database.writing() as write:
            write.insert(name, {"body": [f"{name}word{i:04d}" for i in range(900)]}, 900)
    execute(database, "DROP COLLECTION gone")
    execute(database, "DELETE FROM t WHERE id % 2 = 0")

    vacuum(database)

    live, count, in_file = pages(database)
    assert count == in_file <= 1.1 * live + 1
    for path in (PATH, PATH + "-wal"):
        file = vfs.open(path)
        raw = file.read_at(0, file.size())
        assert b"goneword" not in raw, path
        assert b"tword0001" not in raw, path
    assert vfs.open(PATH).read_at(0, 10**9).count(b"tword0002") == 4  # text and its index
    assert execute(database, "SELECT count(*) FROM t").rows == [(900,)]


def test_incremental_vacuum_goes_step_by_step() -> None:
    database = opened(MemoryVfs())
    fill(database, 7, drop=True)
    before = everything(database)
    sizes = [pages(database)[1]]
    for _ in range(400):
        done = incremental_vacuum(database, 20)
        sizes.append(pages(database)[1])
        assert sizes[-2] - sizes[-1] <= 20
        if done.remaining is None:
            break

    assert everything(database) == before
    live, count, in_file = pages(database)
    assert count == in_file <= 1.1 * live
    assert len(sizes) > 3


def test_an_interrupt_between_steps_keeps_the_steps_that_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = filled(4)
    before = everything(database)
    count = 0

    def interrupted() -> None:
        nonlocal count
        count += 1
        if count == 6:
            raise StatementInterruptedError("now")

    with monkeypatch.context() as patched, pytest.raises(StatementInterruptedError):
        patched.setattr(database, "check_interrupted", interrupted)
        vacuum(database)

    assert everything(database) == before
    assert not database.in_transaction
    vacuum(database)
    assert everything(database) == before


def test_an_interrupt_while_a_long_end_is_cut_leaves_the_rest_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TR2: the file is too long then, and the next one cuts it."""
    monkeypatch.setattr(truncation, "CUT_BYTES", 1 << 15)
    vfs = SimVfs(5)
    database = opened(vfs)
    fill(database, 5, batches=4, drop=True)
    database.checkpoint("full")
    before = everything(database)
    sizes: list[int] = []

    def noted(call: Call) -> None:
        if call.kind == "truncate" and call.path == PATH:
            sizes.append(vfs.size(PATH))

    def interrupted() -> None:
        if len(sizes) == 2:
            raise StatementInterruptedError("now")

    vfs.on_call = noted
    with monkeypatch.context() as patched, pytest.raises(StatementInterruptedError):
        patched.setattr(database, "check_interrupted", interrupted)
        vacuum(database)

    assert len(sizes) == 2
    _, count, in_file = pages(database)
    assert in_file > count
    assert everything(database) == before
    done = vacuum(database)
    assert done.remaining is None
    assert pages(database)[2] == pages(database)[1] == done.pages_after
    assert len(sizes) > 4
    assert all(0 <= before - after <= 1 << 15 for before, after in itertools.pairwise(sizes))
    assert everything(database) == before
    database.close()


# -- other connections -----------------------------------------------------------------------------


def test_s18_the_file_is_cut_only_where_nobody_else_has_it_open() -> None:
    """S18, S27: a cut under another process's map would end that process."""
    vfs = SimVfs(1)
    database = opened(vfs)
    fill(database, 1, batches=4, drop=True)
    database.checkpoint("full")
    other = opened(vfs.fork_process())
    calls: list[Call] = []
    vfs.on_call = calls.append

    done = vacuum(database)

    assert not [c for c in calls if c.kind == "truncate" and c.path == PATH]
    assert done.bytes_given_back == 0
    assert done.remaining is not None
    assert "another connection has the file open" in done.remaining
    live, count, in_file = pages(database)
    assert count <= 1.1 * live
    assert in_file > count
    assert everything(other) == everything(database)
    other.close()
    done = vacuum(database)
    assert (done.pages_after, done.remaining) == (count, None)
    assert pages(database)[2] == count


def test_s27_the_last_one_to_close_cuts_the_file() -> None:
    """S27: what could not be given back at once is not kept for ever."""
    vfs = SimVfs(2)
    database = opened(vfs)
    fill(database, 2, batches=4, drop=True)
    database.checkpoint("full")
    other = opened(vfs.fork_process())
    vacuum(database)
    count = pages(database)[1]
    before = everything(database)
    database.close()
    assert vfs.size(PATH) > count * 4096

    other.close()

    assert vfs.size(PATH) == count * 4096
    again = opened(vfs)
    assert everything(again) == before
    again.close()


def test_readers_of_other_processes_keep_their_snapshots() -> None:
    """S9, S27: what an older snapshot reads is neither used again nor cut."""
    vfs = SimVfs(3)
    database = opened(vfs)
    fill(database, 3, batches=4)
    reader = opened(vfs.fork_process())
    execute(reader, "BEGIN")
    before = everything(reader)
    execute(database, "DELETE FROM other WHERE id % 2 = 0")
    newest = everything(database)
    database.store.timeout = 5.0
    start = vfs.monotonic()

    done = vacuum(database)

    assert vfs.monotonic() - start < 1.0  # no writer waits a busy timeout for a reader that stays
    assert everything(reader) == before
    assert done.remaining is not None
    execute(reader, "COMMIT")
    assert everything(reader) == newest
    vacuum(database)
    assert everything(reader) == newest == everything(database)
    live, count, _ = pages(database)
    assert count <= 1.1 * live
    reader.close()
    database.close()


def test_a_snapshot_during_every_step_reads_its_own_commit() -> None:
    """Readers that begin and end at any call of a VACUUM see the same rows all along."""
    vfs = SimVfs(4)
    database = opened(vfs)
    fill(database, 6, batches=3, most=600)
    expected = everything(database)
    readers: list[Database] = []
    calls = 0

    def look(call: Call) -> None:
        nonlocal calls
        if call.process != vfs.pid:
            return
        calls += 1
        if calls % 150:
            return
        if len(readers) > 2:
            reader = readers.pop(0)
            assert everything(reader) == expected
            execute(reader, "COMMIT")
            reader.close()
        reader = opened(vfs.fork_process())
        execute(reader, "BEGIN")
        execute(reader, "SELECT count(*) FROM other")
        readers.append(reader)

    vfs.on_call = look
    vacuum(database)
    vfs.on_call = None

    assert readers
    for reader in readers:
        assert everything(reader) == expected
        reader.close()
    vacuum(database)
    assert everything(database) == expected


def test_a_writer_between_the_steps_loses_nothing() -> None:
    """Another process commits whenever VACUUM does not hold the writer's lock."""
    vfs = SimVfs(5)
    database = opened(vfs)
    fill(database, 8, batches=3, most=600)
    other = opened(vfs.fork_process(), timeout=0.0)
    rows = 0
    inside = False

    def write(call: Call) -> None:
        nonlocal rows, inside
        if call.process != vfs.pid or call.kind != "unlock" or inside or rows > 30:
            return
        inside = True
        try:
            execute(other, "INSERT INTO other (id, body) VALUES (?, 'between')", (10**6 + rows,))
            rows += 1
        except OperationalError:
            pass  # VACUUM writes
        finally:
            inside = False

    vfs.on_call = write
    vacuum(database)
    vfs.on_call = None

    assert rows > 3
    found = execute(database, "SELECT id FROM other WHERE body = 'between' ORDER BY id").rows
    assert found == [(10**6 + number,) for number in range(rows)]
    assert everything(other) == everything(database)


def test_space_behind_the_last_page_goes_at_the_last_close() -> None:
    """A rolled-back bulk load has made the file longer; nothing of it is left."""
    vfs = MemoryVfs()
    database = opened(vfs)
    fill(database, 1, batches=2)
    execute(database, "BEGIN")
    insert(database, "other", Random(1), range(10**6, 10**6 + 3000))
    execute(database, "ROLLBACK")
    count = pages(database)[1]
    assert pages(database)[2] > count

    database.close()

    assert vfs.size(PATH) == count * 4096


# -- parts -----------------------------------------------------------------------------------------


def test_a_claim_takes_exactly_the_named_pages() -> None:
    free = FreeMap()
    for start, length, commit in ((10, 5, 1), (15, 5, 2), (30, 1, 1)):
        free.give(start, length, commit)
    mark = free.mark()

    free.claim(12, 6)
    assert list(free) == [(10, 2, 1), (18, 2, 2), (30, 1, 1)]
    assert free.page_count == 5
    assert free.last() == (30, 1, 1)
    free.claim(30, 1)
    assert free.last() == (18, 2, 2)

    free.undo(mark)
    assert list(free) == [(10, 5, 1), (15, 5, 2), (30, 1, 1)]


@pytest.mark.parametrize(("first", "count"), [(9, 1), (20, 1), (18, 4), (29, 2)])
def test_a_claim_of_a_used_page_is_a_bug(first: int, count: int) -> None:
    from m2mdb.pager.errors import InternalError

    free = FreeMap()
    free.give(10, 10, 1)
    free.give(30, 1, 1)
    with pytest.raises(InternalError, match="not free"):
        free.claim(first, count)


def test_every_page_of_a_tree_can_be_moved() -> None:
    """Branches, leaves and overflow pages, in any order; the items stay."""
    database = opened(MemoryVfs())
    rng = Random(9)
    with database.writing() as write:
        transaction = write.transaction
        root = BTree.create(transaction)
        tree = BTree(transaction, root)
        items = {b"%06d" % i: rng.randbytes(rng.choice((3, 90, 9000))) for i in range(700)}
        for key, value in items.items():
            tree.put(key, value)
        for _ in range(3):
            walk = list(TreeWalk(transaction, root))
            places: dict[int, int] = {}
            rng.shuffle(walk)
            for number, parent in walk:
                if number != root:
                    places[number] = transaction.allocate()
                    move_page(transaction, places.get(parent, parent), number, places[number])
        assert dict(tree.scan()) == items
        faults: list[str] = []
        tree.check(faults.append)
        assert faults == []
        tree.destroy()
