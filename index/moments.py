"""Moments: when each commit within reach was made, and by whom.

Under "W" and the commit's number (u64 big-endian) the catalog's tree has, for each commit that a
statement made:

    offset  size  field
         0     8  time    i64, microseconds since 1970-01-01T00:00:00 UTC; -2^63: not known
         8     -  author  UTF-8, what `PRAGMA author` said; empty: nobody

One leaf of a tree that is written anyway where the catalog changed, else one frame more a commit:
so commits have moments where some of the past is kept (`PRAGMA keep_commits`) or an author is told.
No view needs a moment but that of m2m_history, so the catalog is loaded without them, and writing
one does not raise the catalog's number: caches of other connections stay good.

Invariants
    MO1 A moment is of the transaction whose commit it names, and goes with it where that is undone.
    MO2 Moments of commits that AS OF cannot reach are removed, by every SPARE-th commit, so that
        few commits change the tree at two ends.
    MO3 Maintenance (`index.quiet`) has no moments: it wrote and ended no version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.wal.transaction import Transaction

KIND = b"W"
AFTER = b"X"  # the first key behind all moments
MOST_AUTHOR_BYTES = 255
SPARE = 16
UNKNOWN = -(1 << 63)
_COMMIT = struct.Struct(">Q")
_TIME = struct.Struct("<q")
_KEY_SIZE = len(KIND) + _COMMIT.size
_FIRST_TIME, _LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999


class Moment(NamedTuple):
    """When a commit was made, in microseconds since 1970 UTC, and by whom; None: not known."""

    time: int | None
    author: str | None

    def encode(self) -> bytes:
        """The value under the commit's key."""
        return (
            _TIME.pack(UNKNOWN if self.time is None else self.time) + (self.author or "").encode()
        )


def decode(key: bytes, raw: bytes, where: str) -> tuple[int, Moment]:
    """A commit and its moment; CorruptDatabaseError where they are none."""
    if len(key) != _KEY_SIZE or not _TIME.size <= len(raw) <= _TIME.size + MOST_AUTHOR_BYTES:
        raise CorruptDatabaseError(f"{where}: a moment of {len(key)} and {len(raw)} bytes")
    (commit,) = _COMMIT.unpack_from(key, len(KIND))
    (time,) = _TIME.unpack_from(raw)
    if time != UNKNOWN and not _FIRST_TIME <= time <= _LAST_TIME:
        raise CorruptDatabaseError(f"{where}: commit {commit} has the time {time}")
    try:
        author = raw[_TIME.size :].decode() or None
    except UnicodeDecodeError as problem:
        raise CorruptDatabaseError(f"{where}: author of commit {commit}: {problem}") from problem
    return commit, Moment(None if time == UNKNOWN else time, author)


def key_of(commit: int) -> bytes:
    """The key of a commit's moment in the catalog's tree."""
    return KIND + _COMMIT.pack(commit)


def coming_moment(database: Database, transaction: Transaction | None) -> Moment | None:
    """The moment of the commit that comes; None where it gets none.

    It is told before the commit begins, as the program's clock may use the connection.
    """
    if not database.noting or transaction is None or not transaction.changed:
        return None
    if not database.transaction_catalog().keep_commits and database.author is None:
        return None
    return Moment(_now(database), database.author)


def note_moment(database: Database, transaction: Transaction, moment: Moment | None) -> None:
    """Write the moment of the commit that comes, and drop those out of reach (MO1, MO2).

    None is written where nothing of the past is kept and nobody is named.
    """
    commit = transaction.new_commit
    if not database.noting or not transaction.changed or (moment is None and commit % SPARE):
        return
    tree = BTree(transaction, transaction.header().catalog_root)
    if moment is not None:
        tree.put(key_of(commit), moment.encode())
    if not commit % SPARE:
        oldest = database.transaction_catalog().oldest_commit(None, commit)
        for key, _ in list(tree.scan(KIND, key_of(oldest))):
            tree.delete(key)


def _now(database: Database) -> int | None:
    """The time; None where the program's clock fails, which is no reason to lose a commit."""
    try:
        return round(database.now() * 1_000_000)
    except DatabaseError:
        return None


def moments(view: View, first: int) -> dict[int, Moment]:
    """The moments of the commits from `first` on that the view's snapshot knows."""
    tree = BTree(view.pages, view.header().catalog_root)
    where = view.database.path
    return dict(decode(key, raw, where) for key, raw in tree.scan(key_of(first), AFTER))


def moment_faults(newest: int, tree: BTree) -> Iterator[str]:
    """What is wrong with the moments in a catalog's tree, where `newest` is the newest commit."""
    for key, raw in tree.scan(KIND, AFTER):
        try:
            commit, _ = decode(key, raw, "catalog")
        except CorruptDatabaseError as problem:
            yield str(problem)
            continue
        if not 0 < commit <= newest:
            yield f"catalog: a moment of commit {commit}, the newest is {newest}"


def checked_author(author: object) -> str | None:
    """What `PRAGMA author` takes: a text of 255 bytes at most, empty for nobody.

    Raises ProgrammingError for anything else.
    """
    if not isinstance(author, str):
        raise ProgrammingError(f"PRAGMA author = {author!r}: expected a text, '' for nobody")
    size = len(author.encode("utf-8", "replace"))
    if size > MOST_AUTHOR_BYTES or "\0" in author or not author.isprintable():
        raise ProgrammingError(
            f"PRAGMA author = {author[:40]!r}: {size} bytes; expected {MOST_AUTHOR_BYTES} at "
            "most, and no control characters"
        )
    return author or None
