"""Watches: reading the newest commit without a mark, for as long as one compiled call takes.

    look --as expected--> read extents --look again, as expected--> what was read is that commit's
      |                                   |
      +------------- changed -------------+----> a snapshot, with its mark

A mark costs two system calls and tells writers what they must not overwrite. Who reads nothing of
the file but extents of the newest commit can do without: a page that they lie on is freed by a
later commit, and used again by a transaction that begins after that one (S9). So where ends and
backfill are the same bytes before and after, nothing that was read in between was overwritten. And
as the newest commit is looked up anew each time, every commit is seen by the next search.

Invariants
    WA1 Both looks compare every byte that `SharedState.look` gives with those of the commit's
        snapshot. They never come again: the end has the commit's number and the log's checksum.
    WA2 Until the second look, bytes of extents may be anybody's: nothing that is made of them is
        used as an address or a length without being compared with bounds that are our own, and no
        error is raised for what they are.
    WA3 Mapped pages stay readable: a file is cut under ATTACH exclusive only (S18), which nobody
        has while a connection is open.
    WA4 The address is that of a region that lives until the store is closed or given up in a forked
        child; whoever uses it makes sure before that neither was done.
"""

from __future__ import annotations

from ctypes import addressof, c_char
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.wal.shared import STATE

if TYPE_CHECKING:
    from m2mdb.wal.attachment import Attachment

WORD = 8  # bytes


class Watch(NamedTuple):
    """What is looked at, and what it has to be.

    address   of the first byte; 8-byte words
    expected  bytes, a multiple of 8; none where nobody can change the database
    """

    address: int
    expected: bytes


def watch(store: Attachment, commit: int) -> Watch | None:
    """A watch over a commit, which a snapshot still holds; None where a newer one was seen."""
    if store.refusal or store.end.commit != commit:
        return None
    if store.shared is None:
        return Watch(0, b"")
    expected = store.seen
    if not expected:
        return None
    assert not len(expected) % WORD
    start = c_char.from_buffer(store.shared.view, STATE.start)
    return Watch(addressof(start), expected)
