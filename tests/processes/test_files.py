"""Files that are opened, closed, copied, moved and linked by processes (S3, S4, S6, S29)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import m2mdb
from m2mdb.pager.os_vfs import OsVfs
from tests.processes.peers import Peer, PeerError

ROWS = [1, 2, 3]


def beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def rows(con: m2mdb.Connection) -> list[int]:
    return [x for (x,) in con.execute("SELECT x FROM t ORDER BY x").fetchall()]


def add(con: m2mdb.Connection, x: int) -> None:
    con.execute("INSERT INTO t VALUES (?, NULL)", (x,))
    con.commit()


def test_s03_the_next_to_open_recovers_what_a_killed_process_has_acknowledged(
    path: Path, peer: Peer
) -> None:
    peer.run("con.execute('INSERT INTO t VALUES (4, NULL)'); con.commit()")
    peer.run("con.execute('INSERT INTO t VALUES (5, NULL)')")
    peer.kill()
    assert beside(path) == ["notes.m2m", "notes.m2m-shm", "notes.m2m-wal"]
    Path(f"{path}-shm").write_bytes(os.urandom(8192))  # S3: nothing of it counts

    con = m2mdb.connect(path)

    assert rows(con) == [*ROWS, 4]
    con.close()
    assert beside(path) == ["notes.m2m"]


def test_s03_several_open_at_once_what_has_to_be_recovered(
    path: Path, peer: Peer, new_peer: Callable[..., Peer]
) -> None:
    peer.run("con.execute('INSERT INTO t VALUES (4, NULL)'); con.commit()")
    peer.kill()
    open_and_read = (
        "con = m2mdb.connect(path); "
        "answer = [x for (x,) in con.execute('SELECT x FROM t').fetchall()]; con.close()"
    )
    peers = [new_peer(path) for _ in range(4)]
    for each in peers:
        each.tell(open_and_read)
    assert [sorted(each.hear()) for each in peers] == [[*ROWS, 4]] * 4
    assert beside(path) == ["notes.m2m"]


def test_s04_log_and_shared_state_are_there_until_the_last_one_closes(
    path: Path, con: m2mdb.Connection, peer: Peer
) -> None:
    add(con, 4)
    assert beside(path) == ["notes.m2m", "notes.m2m-shm", "notes.m2m-wal"]

    con.close()
    assert beside(path) == ["notes.m2m", "notes.m2m-shm", "notes.m2m-wal"]
    assert peer.run("answer = con.execute('SELECT count(*) FROM t').fetchone()[0]") == 4
    peer.run("con.close()")

    assert beside(path) == ["notes.m2m"]
    copy = path.with_name("copy.m2m")
    shutil.copy(path, copy)
    with m2mdb.connect(copy) as copied:
        assert rows(copied) == [*ROWS, 4]
    copied.close()


def test_s04_a_file_copied_without_its_log_is_refused(path: Path, con: m2mdb.Connection) -> None:
    add(con, 4)
    copy = path.with_name("copy.m2m")
    shutil.copy(path, copy)

    with pytest.raises(
        m2mdb.CorruptDatabaseError,
        match=r"copy.m2m was copied without its log.*copy.m2m-wal is missing.*newest commits",
    ):
        m2mdb.connect(copy)

    shutil.copy(f"{path}-wal", f"{copy}-wal")
    copied = m2mdb.connect(copy)
    assert rows(copied) == [*ROWS, 4]
    copied.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("log_left", [False, True])
def test_s06_a_reader_that_cannot_leave_a_mark_is_sent_to_immutable(
    new_peer: Callable[..., Peer], log_left: bool
) -> None:
    folder = Path("/tmp") / f"m2m-s06-{os.getpid()}-{log_left}"  # that nobody can enter
    folder.mkdir(mode=0o755)
    path = folder / "notes.m2m"
    try:
        writer = new_peer(path)
        writer.run(
            "con = m2mdb.connect(path); con.execute('CREATE TABLE t (x INTEGER)'); "
            "con.execute('INSERT INTO t VALUES (1)'); con.commit()"
        )
        if not log_left:
            writer.run("con.close()")
        writer.kill()
        for file in folder.iterdir():
            file.chmod(0o644)
        before = {file.name: file.read_bytes() for file in folder.iterdir()}

        reader = new_peer(path, as_nobody=True)
        with pytest.raises(PeerError, match=r"OperationalError: .*immutable=1"):
            reader.run("m2mdb.connect(f'file:{path}?mode=ro')")
        found = reader.run(
            "con = m2mdb.connect(f'file:{path}?immutable=1', compute='numpy'); "
            "answer = con.execute('SELECT x FROM t').fetchone()[0]; con.close()"
        )
        assert found == 1

        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    finally:
        shutil.rmtree(folder)


def test_s06_a_reader_leaves_a_mark_that_a_writer_of_another_process_respects(
    path: Path, peer: Peer
) -> None:
    reader = m2mdb.connect(f"file:{path}?mode=ro")
    reader.execute("BEGIN")
    assert rows(reader) == ROWS
    peer.run("con.execute('DELETE FROM t'); con.commit()")

    assert peer.run("answer = con.execute('CHECKPOINT restart').fetchone()[0]") == 1
    assert rows(reader) == ROWS
    with pytest.raises(m2mdb.OperationalError, match="reading only"):
        reader.execute("INSERT INTO t VALUES (9, NULL)")
    reader.close()
    assert peer.run("answer = con.execute('CHECKPOINT restart').fetchone()[0]") == 0


# -- S29 -----------------------------------------------------------------------------------------


def move(path: Path) -> None:
    path.rename(path.with_name("moved.m2m"))


def unlink(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other.m2m")
    shutil.copy(path, other)
    other.rename(path)


@pytest.mark.parametrize("harm", [move, unlink, replace])
@pytest.mark.parametrize("side", ["", "-wal"])
@pytest.mark.parametrize("amid", [False, True])
def test_s29_a_file_that_has_lost_its_name_is_not_written(
    path: Path, con: m2mdb.Connection, harm: Callable[[Path], None], side: str, amid: bool
) -> None:
    """Neither the next transaction nor the one that is open: it would commit what nobody finds."""
    add(con, 4)
    reader = m2mdb.connect(path)
    reader.execute("BEGIN")
    rows(reader)
    if amid:
        con.execute("INSERT INTO t VALUES (5, NULL)")

    harm(Path(f"{path}{side}"))

    with pytest.raises(m2mdb.OperationalError, match=f"notes.m2m{side} was moved, removed or"):
        if not amid:
            con.execute("INSERT INTO t VALUES (5, NULL)")
        con.commit()
    assert not con.in_transaction
    assert rows(con) == rows(reader) == [*ROWS, 4]


def test_s29_a_file_moved_while_open_keeps_its_commits_under_its_new_name(
    path: Path, con: m2mdb.Connection
) -> None:
    add(con, 4)
    moved = path.with_name("moved.m2m")

    path.rename(moved)
    con.close()

    assert beside(path) == ["moved.m2m"]
    again = m2mdb.connect(moved)
    assert rows(again) == [*ROWS, 4]
    again.close()


def test_s29_a_log_removed_while_open_loses_nothing_that_a_clean_close_can_save(
    path: Path, con: m2mdb.Connection
) -> None:
    add(con, 4)

    Path(f"{path}-wal").unlink()
    with pytest.raises(m2mdb.OperationalError, match="until all connections have closed it"):
        add(con, 5)
    con.close()

    again = m2mdb.connect(path)
    assert rows(again) == [*ROWS, 4]
    add(again, 5)
    again.close()


def test_s29_hard_links_refuse_writing_only(path: Path, peer: Peer) -> None:
    """A tool that copies a tree by links may read through them."""
    link = path.with_name("link.m2m")
    os.link(path, link)

    with pytest.raises(PeerError, match=r"OperationalError: .*2 hard links"):
        peer.run("con.execute('INSERT INTO t VALUES (4, NULL)')")
    assert peer.run("answer = con.execute('SELECT count(*) FROM t').fetchone()[0]") == 3
    with pytest.raises(m2mdb.OperationalError, match="open under another name"):
        m2mdb.connect(link)

    link.unlink()
    peer.run("con.execute('INSERT INTO t VALUES (4, NULL)'); con.commit()")


def test_s29_a_link_made_in_a_transaction_keeps_it_from_being_committed(
    path: Path, con: m2mdb.Connection
) -> None:
    """The other name has no log: whoever opens it would miss the commit, or refuse."""
    con.execute("INSERT INTO t VALUES (4, NULL)")
    os.link(path, path.with_name("link.m2m"))

    with pytest.raises(m2mdb.OperationalError, match="2 hard links"):
        con.commit()

    assert rows(con) == ROWS


def test_s29_network_file_systems_are_read_and_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OsVfs, "is_network", lambda self, path: True)
    con = m2mdb.connect(path, timeout=0)

    assert rows(con) == ROWS
    with pytest.raises(m2mdb.OperationalError, match=r"network file system.*nolock=1"):
        con.execute("INSERT INTO t VALUES (4, NULL)")
    con.close()

    alone = m2mdb.connect(f"file:{path}?nolock=1")
    add(alone, 4)
    alone.close()
    monkeypatch.undo()
    again = m2mdb.connect(path)
    assert rows(again) == [*ROWS, 4]
    again.close()
