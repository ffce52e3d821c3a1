"""A log damaged in its midst: commits are lost, and it is said, kept aside, reported, refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random

import pytest

import m2mdb
from m2mdb.cli import run
from m2mdb.pager.errors import CorruptDatabaseError, OperationalError
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.wal import lost_commits, stray_frames
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE, frame_checksum
from m2mdb.wal.log import Log
from m2mdb.wal.shared import LogEnd
from tests.sim.crash_explorer import Explorer, StoreLevel
from tests.sim.store_runs import PATH
from tests.wal.conftest import Place, put, read
from tests.wal.test_recovery import Files, crash_with, in_memory, restore

Capture = pytest.CaptureFixture[str]
FRAME = FRAME_HEADER_SIZE + 4096
COMMITS = 20


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, int]:
    """Twenty commits of one frame in a log, and where they end."""
    place = Place(OsVfs(), str(tmp_path_factory.mktemp("lost") / "notes.m2m"))
    files, _, end = crash_with(place, *[{f"k{n:02}": str(n)} for n in range(COMMITS)])
    assert end == LOG_HEADER_SIZE + COMMITS * FRAME
    return files, end


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A database whose log has twenty commits, one bit of the ninth of which is flipped."""
    path = tmp_path / "notes.m2m"
    con = m2mdb.connect(tmp_path / "open.m2m", autocommit=True, compute="numpy")
    con.execute("CREATE TABLE t (n INTEGER)")
    con.execute("PRAGMA wal_checkpoint(truncate)")
    for n in range(COMMITS):
        con.execute("INSERT INTO t VALUES (?)", (n,))
    log = bytearray((tmp_path / "open.m2m-wal").read_bytes())
    path.write_bytes((tmp_path / "open.m2m").read_bytes())
    con.close()
    log[40_000] ^= 1
    (tmp_path / "notes.m2m-wal").write_bytes(log)
    return path


def test_s3_a_flip_anywhere_in_the_log_is_told_or_costs_the_last_commit_alone(
    crashed: tuple[Files, int],
) -> None:
    """Every byte of three frames' headers, and random bytes of all frames."""
    files, end = crashed
    rng = Random(3)
    heads = [LOG_HEADER_SIZE + n * FRAME + at for n in (0, 9, 17, 18, 19) for at in range(40)]
    told = 0
    for at in heads + [rng.randrange(LOG_HEADER_SIZE, end) for _ in range(300)]:
        log = bytearray(files["notes.m2m-wal"])
        log[at] ^= 1 << rng.randrange(8)
        place = in_memory(files, bytes(log))

        store = place.open()

        rows = len(read(store))
        assert rows == (at - LOG_HEADER_SIZE) // FRAME
        if store.lost is not None:
            told += 1
            assert (store.lost.commit, store.lost.newest) == (rows, COMMITS)
            assert store.lost.kept_as == "notes.m2m-wal-damaged-1"
            kept = place.vfs.open(store.lost.kept_as).read_at(0, len(log) + 1)
            assert kept == bytes(log)
        else:
            assert rows == COMMITS - 1, f"byte {at}: {COMMITS - rows} commits vanish untold"
        place.close()
    assert told > 200


@pytest.mark.parametrize("at", [40_000, 8192, LOG_HEADER_SIZE])
@pytest.mark.parametrize("change", ["a byte more", "a byte less", "zeros in", "a page out"])
def test_s3_frames_at_other_places_are_found(
    crashed: tuple[Files, int], at: int, change: str
) -> None:
    files, _ = crashed
    log = files["notes.m2m-wal"]
    changed = {
        "a byte more": log[:at] + b"x" + log[at:],
        "a byte less": log[:at] + log[at + 1 :],
        "zeros in": log[:at] + bytes(4096) + log[at:],
        "a page out": log[:at] + log[at + 4096 :],
    }
    place = in_memory(files, changed[change])

    store = place.open()

    assert store.lost is not None and store.lost.newest == COMMITS
    place.close()


def test_s3_a_log_of_salts_is_opened_in_bounded_time(crashed: tuple[Files, int]) -> None:
    """SF2: whatever stands behind the break, few places are judged."""
    files, _ = crashed
    log = files["notes.m2m-wal"]
    salt = log[32:40]
    place = in_memory(files, log[: LOG_HEADER_SIZE + FRAME] + salt * (2 << 17))
    judged = 0

    def counted(head: bytes, page: bytes, before: int) -> int:
        nonlocal judged
        judged += 1
        return frame_checksum(head, page, before)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stray_frames, "frame_checksum", counted)
        store = place.open()

    assert store.lost is None and len(read(store)) == 1
    assert 0 < judged < 10 * (2 * ((2 << 20) // FRAME) + 100)
    place.close()


def test_s3_a_torn_last_commit_is_no_damage(disk: Place) -> None:
    files, states, _ = crash_with(disk, {"a": "1"}, {f"k{n}": "." * 1000 for n in range(20)})
    log = files["notes.m2m-wal"]
    for torn in range(LOG_HEADER_SIZE + FRAME, LOG_HEADER_SIZE + 4 * FRAME, FRAME):
        place = in_memory(files, log[:torn] + bytes(512) + log[torn + 512 :])
        store = place.open()
        assert store.lost is None
        assert read(store) == states[1]
        assert not place.vfs.exists("notes.m2m-wal-damaged-1")
        place.close()


def test_s3_an_ordinary_crash_under_full_loses_nothing_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Crashes at every seventh point of two workloads, in every way that the simulator knows."""
    told: list[lost_commits.LostCommits] = []
    original = lost_commits.find_lost

    def found(log: Log, end: LogEnd) -> lost_commits.LostCommits | None:
        lost = original(log, end)
        looked.append(end.commit)
        if lost is not None:
            told.append(lost)
        return lost

    looked: list[int] = []
    monkeypatch.setattr(lost_commits, "find_lost", found)
    explorer = Explorer(StoreLevel(), one_everywhere=False)
    for script in ("dead_writer", "refused"):
        for _ in explorer.points(script, 20, "full", step=7):
            pass

    assert explorer.counts.crash_images > 50
    assert len(looked) > 50 and told == []


def test_s3_what_is_kept_aside_is_neither_overwritten_nor_kept_twice(disk: Place) -> None:
    """LC2: another log takes another name; the same one, of a recovery that stopped, does not."""
    folder = Path(disk.path).parent
    for number in (1, 2):
        rows = [{f"r{number}k{n}": "1"} for n in range(6)]
        files, _, _ = crash_with(disk, *rows)
        log = bytearray(files["notes.m2m-wal"])
        log[LOG_HEADER_SIZE + FRAME + 100] ^= 1
        for _ in range(2):
            restore(disk, {**files, "notes.m2m-wal": bytes(log)})
            store = disk.open()
            assert store.lost is not None
            assert store.lost.kept_as == f"{disk.path}-wal-damaged-{number}"
            disk.close()
        assert (folder / f"notes.m2m-wal-damaged-{number}").read_bytes() == bytes(log)
        assert not (folder / "notes.m2m-wal-damaged-3").exists()


def test_s3_a_log_that_cannot_be_kept_aside_is_not_made_void(sim: Place) -> None:
    """LC1: the disk is full, nothing is changed, and a reader has what can be read."""
    vfs = sim.vfs
    assert isinstance(vfs, SimVfs)
    store = sim.open(wal_autocheckpoint=0)
    for n in range(6):
        put(store, **{f"k{n}": "1"})
    dead = vfs.process_crash()
    file = dead.open(PATH + "-wal")
    before = bytearray(file.read_at(0, 1 << 20))
    before[LOG_HEADER_SIZE + FRAME + 100] ^= 1
    file.write_at(0, before)
    dead.fail("write", path_end="-damaged-1")

    with pytest.raises(OperationalError, match="a copy of it cannot be kept"):
        sim.open(dead)

    assert dead.open(PATH + "-wal").read_at(0, 1 << 20) == bytes(before)
    assert not dead.exists(PATH + "-wal-damaged-1")
    assert len(read(sim.open(dead, read_only=True))) == 1


def test_s3_a_reader_that_came_first_leaves_the_log_to_the_writer_who_keeps_it(
    notes: Path,
) -> None:
    log = Path(f"{notes}-wal").read_bytes()
    with pytest.warns(m2mdb.LostCommitsWarning, match="11 later commits"):
        reader = m2mdb.connect(notes, read_only=True, compute="numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer = m2mdb.connect(notes, autocommit=True, compute="numpy")
    assert Path(f"{notes}-wal").read_bytes() == log
    reader.close()

    with pytest.warns(m2mdb.LostCommitsWarning, match="kept as .*-wal-damaged-1"):
        writer.execute("INSERT INTO t VALUES (100)")

    assert Path(f"{notes}-wal-damaged-1").read_bytes() == log
    writer.close()


def test_s3_commits_lost_in_a_damaged_log_are_told_at_opening(notes: Path) -> None:
    """Nine of twenty rows are there; the caller hears of it, and the log is kept."""
    log = Path(f"{notes}-wal").read_bytes()

    with pytest.warns(m2mdb.LostCommitsWarning, match="11 later commits, up to") as caught:
        con = m2mdb.connect(notes, autocommit=True, compute="numpy")

    assert caught[0].filename == __file__
    assert issubclass(m2mdb.LostCommitsWarning, RuntimeWarning)
    assert con.execute("SELECT count(*) FROM t").fetchone() == (9,)
    assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    con.close()
    assert Path(f"{notes}-wal-damaged-1").read_bytes() == log
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m2mdb.connect(notes, compute="numpy").close()


def test_s3_a_caller_who_makes_the_warning_an_error_has_no_open_connection(notes: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", m2mdb.LostCommitsWarning)
        with pytest.raises(m2mdb.LostCommitsWarning):
            m2mdb.connect(notes, compute="numpy")

    assert not Path(f"{notes}-shm").exists()


def test_s3_check_and_untrusted_refuse_a_log_with_lost_commits(
    notes: Path, capsys: Capture
) -> None:
    log = Path(f"{notes}-wal").read_bytes()

    with pytest.warns(m2mdb.LostCommitsWarning):
        assert run(["check", str(notes)]) == 1
    assert "11 later commits" in capsys.readouterr().out
    with pytest.raises(CorruptDatabaseError, match=r"refused as untrusted.* 11 later commits"):
        m2mdb.connect(notes, untrusted=True, compute="numpy")

    assert sorted(each.name for each in notes.parent.glob("notes*")) == [
        "notes.m2m",
        "notes.m2m-wal",
    ]
    assert Path(f"{notes}-wal").read_bytes() == log
