"""Quiet commits: those of maintenance end no row version, and do not count for keep_commits (S25).

    commits     1  2  3  4  5  6  7  8  9        5 to 8 are VACUUM's, quiet
    counted     .  4  3  2  .  .  .  .  1        keep_commits = 3 reaches back to 3 ... and to 2

VACUUM and OPTIMIZE commit once a step and a scrub commits when it is done, so that without this a
few of them would push everything that is kept out of reach. Their numbers stand in the catalog
under the key "Q", as ranges, for as long as they are within reach.

Invariants
    QC1 Only a commit that wrote or ended no row version is quiet, so that AS OF any commit of a
        range, or the one before it, gives the same rows.
    QC2 The ranges ascend and do not touch. There are at most MOST_RANGES; of older ones the
        commits count.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.header import LARGEST_NUMBER

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import WriteView

QUIET_KEY = b"Q"
MOST_RANGES = 4096
Ranges = tuple[tuple[int, int], ...]  # first and last commit of each
_RANGE = struct.Struct("<QQ")


def encode_ranges(ranges: Ranges) -> bytes:
    """The "Q" value."""
    return b"".join([_RANGE.pack(*each) for each in ranges])


def decode_ranges(raw: bytes, where: str) -> Ranges:
    """Raises CorruptDatabaseError where they are none (QC2)."""
    if len(raw) % _RANGE.size or len(raw) > MOST_RANGES * _RANGE.size:
        raise CorruptDatabaseError(f"{where}: quiet commits of {len(raw)} bytes")
    ranges: Ranges = tuple(_RANGE.iter_unpack(raw))
    is_sound = all(0 < first <= last <= LARGEST_NUMBER for first, last in ranges)
    if not is_sound or any(before[1] >= after[0] for before, after in pairwise(ranges)):
        raise CorruptDatabaseError(f"{where}: the quiet commits do not ascend")
    return ranges


def count_back(ranges: Ranges, count: int, newest: int) -> int:
    """The oldest commit that `count` commits before `newest` reach, quiet ones not counted."""
    at = newest
    for first, last in reversed(ranges) if count else ():
        if first > newest:
            continue
        counted = at - min(last, newest)
        if counted > count:
            break
        count -= counted
        at = first - 1
    return at - count


def with_commit(ranges: Ranges, commit: int, count: int) -> Ranges:
    """The ranges with one more, the newest commit; those that `count` does not reach are gone."""
    if ranges and ranges[-1][1] + 1 == commit:
        ranges = (*ranges[:-1], (ranges[-1][0], commit))
    else:
        ranges = (*ranges, (commit, commit))
    oldest = count_back(ranges, count, commit)
    return tuple([each for each in ranges if each[1] > oldest][-MOST_RANGES:])


@contextlib.contextmanager
def maintaining(database: Database) -> Iterator[WriteView]:
    """A writing statement that changes no row, committed at its end by a quiet commit (QC1)."""
    database.noting = False
    try:
        with _quietly(database) as write:
            yield write
        database.commit()
    finally:
        database.noting = True


@contextlib.contextmanager
def _quietly(database: Database) -> Iterator[WriteView]:
    """The statement of `maintaining`."""
    from m2mdb.index.catalog import put_quiet

    with database.writing() as write:
        before = write.catalog
        if before.keep_commits:
            # From the start: what it drops from the past goes by it. Not yet in the tree: where
            # nothing changes there is no commit.
            quiet = before.replaced(None)
            quiet.quiet = with_commit(
                before.quiet, write.transaction.new_commit, before.keep_commits
            )
            write.catalog = quiet
            database.set_transaction_catalog(quiet)
        yield write
        if before.keep_commits:
            if write.transaction.changed:
                put_quiet(write.catalog_tree(), write.catalog)
                write.set_catalog(write.catalog)
            else:
                write.catalog = before
                database.set_transaction_catalog(before)
