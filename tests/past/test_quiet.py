"""Commits of maintenance do not use up what keep_commits keeps (S25)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

import m2mdb
from m2mdb.index.copying import copy_into
from m2mdb.index.database import Database
from m2mdb.index.quiet import (
    MOST_RANGES,
    Ranges,
    count_back,
    decode_ranges,
    encode_ranges,
    with_commit,
)
from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.past.history import small_thresholds
from tests.vacuum.cases import opened

COPY = "d/copy.m2m"
WAYS = ("VACUUM", "OPTIMIZE", "PRAGMA incremental_vacuum", "CHECKPOINT")


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    with small_thresholds():
        yield


def filled(vfs: SimVfs, keep: int) -> Database:
    database = opened(vfs)
    execute(database, f"PRAGMA keep_commits = {keep}")
    execute(database, "CREATE COLLECTION t (k INTEGER PRIMARY KEY, v TEXT)")
    execute(database, "CREATE COLLECTION gone (v TEXT)")
    with database.writing() as write:
        write.insert("gone", {"v": ["g" * 50] * 3000}, 3000)
        write.insert("t", {"v": [f"x{i}" * 5 for i in range(3000)]}, 3000)
    execute(database, "DROP COLLECTION gone")
    execute(database, "DELETE FROM t WHERE k <= 1500")
    return database


def at(database: Database, commit: int) -> list[Any]:
    return execute(database, f"SELECT k, v FROM t AS OF {commit} ORDER BY k").rows


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_s25_maintenance_takes_no_kept_version_away(keep: int, way: str) -> None:
    vfs = SimVfs(keep)
    database = filled(vfs, keep)
    execute(database, "PRAGMA secure_delete = on")
    newest = database.store.last_commit
    oldest = newest - keep
    before = [at(database, commit) for commit in range(oldest, newest + 1)]
    assert len(before[-2]) == 3000

    for _ in range(3):
        execute(database, way)

    if way != "CHECKPOINT":
        assert database.store.last_commit > newest
    assert [at(database, commit) for commit in range(oldest, newest + 1)] == before
    later = range(newest, database.store.last_commit + 1)
    assert all(at(database, commit) == before[-1] for commit in later)
    assert execute(database, "PRAGMA keep_commits").rows[0][:2] == (keep, oldest)
    assert execute(database, "PRAGMA integrity_check").rows == [("ok",)]
    database.close()
    database = opened(vfs)
    assert [at(database, commit) for commit in range(oldest, newest + 1)] == before

    for number in range(keep):  # commits that count
        execute(database, "UPDATE t SET v = 'new' WHERE k = ?", (2000 + number,))
        assert at(database, newest) == before[-1]
    with pytest.raises(m2mdb.OperationalError, match="the oldest commit that can be read"):
        at(database, newest - 1)
    execute(database, way)
    assert at(database, newest) == before[-1]


def test_s25_a_scrub_takes_no_kept_version_away() -> None:
    vfs = SimVfs(3)
    database = filled(vfs, 2)
    execute(database, "CREATE COLLECTION other (v TEXT)")
    commit = database.store.last_commit - 1
    expected = at(database, commit)

    receipt = execute(database, "FORGET FROM other WHERE true").rows[0]

    assert receipt[3] == "done"
    assert database.store.last_commit == receipt[1] + 1
    assert at(database, commit) == expected
    assert execute(database, "PRAGMA keep_commits").rows[0][1] == receipt[1] - 2


@pytest.mark.parametrize("keep", [1, 2])
def test_s25_a_copy_can_name_the_commits_of_its_source(keep: int) -> None:
    vfs = SimVfs(keep)
    database = filled(vfs, keep)
    newest = database.store.last_commit
    before = [at(database, commit) for commit in range(newest - keep, newest + 1)]

    copy_into(database, COPY)
    execute(database, "VACUUM")
    copy_into(database, COPY + "2")

    for path in (COPY, COPY + "2"):
        copy = opened(vfs, path)
        assert [at(copy, commit) for commit in range(newest - keep, newest + 1)] == before
        copy.close()


def test_s25_without_keep_commits_nothing_is_written_of_it() -> None:
    vfs = SimVfs(4)
    database = filled(vfs, 5)
    execute(database, "VACUUM")
    with database.reading() as view:
        assert view.catalog.quiet
    execute(database, "PRAGMA keep_commits = 0")
    execute(database, "OPTIMIZE")
    execute(database, "VACUUM")
    with database.reading() as view:
        assert not view.catalog.quiet


def test_s25_what_is_counted_back_is_what_a_list_of_all_commits_says() -> None:
    for seed in range(30):
        rng = Random(seed)
        keep = rng.randint(1, 12)
        ranges: Ranges = ()
        counted = [0]
        for commit in range(1, 120):
            if rng.random() < 0.5:
                ranges = with_commit(ranges, commit, keep)
                assert decode_ranges(encode_ranges(ranges), "test") == ranges
            else:
                counted.append(commit)
            reached = count_back(ranges, keep, commit)
            if len(counted) > keep:
                # the state after the commit before the oldest counted one
                assert counted[-keep - 1] <= reached < counted[-keep]
                is_quiet_before = counted[-keep] - 1 not in counted
                assert reached == counted[-keep - 1] or is_quiet_before


def test_s25_ranges_are_bounded_and_refused_where_they_are_none() -> None:
    ranges: Ranges = ()
    for commit in range(2, 3 * MOST_RANGES, 2):
        ranges = with_commit(ranges, commit, 1 << 40)
    assert len(ranges) == MOST_RANGES
    for wrong in (b"x", encode_ranges(((5, 4),)), encode_ranges(((3, 4), (4, 5)))):
        with pytest.raises(m2mdb.CorruptDatabaseError, match="quiet commits"):
            decode_ranges(wrong, "test")
