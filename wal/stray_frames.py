"""Stray frames: those of one generation that verify behind a break of the chain.

    | frames that count | break | frame | frame |..| frame at another distance | zeros, older ones |
                        ^ start

The chain is broken by a torn write, which is normal at the log's end, or by damage. Behind it each
frame is judged by itself: its checksum is seeded with that of the frame before, as it stands
there, or as it should stand there. Where bytes were lost or put in, frames begin elsewhere: they
are found by the salt, which all frames of a generation bear and nothing else does.

Under `full` a commit is durable before the next one is written. So a frame two commits beyond the
last one that counts shows that the one between was committed, and is lost (S3).

Invariants
    SF1 Nothing is written; nothing that the log holds is raised.
    SF2 Time is bounded by the log's size, whatever stands in it: so many places are judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from m2mdb.wal.frame import (
    CHECKSUM_OFFSET,
    FRAME_HEADER_SIZE,
    LOG_HEADER_SIZE,
    FrameHeader,
    frame_checksum,
)

if TYPE_CHECKING:
    from m2mdb.pager.vfs import File

_SALT_OFFSET = 16
_SEARCHED_AT_ONCE = 64 << 10  # bytes
_FEWEST_JUDGED = 64  # places that may not verify, beside two for each frame that has room
_MOST_SEEDS = 4


class GoodFrame(NamedTuple):
    """A frame whose own checksum holds."""

    offset: int
    page_number: int
    page_count: int
    commit: int
    salt: int


def frames_of(
    file: File, page_size: int, salt: int, start: int, before: int
) -> Iterator[GoodFrame]:
    """The frames from `start` on that bear a salt and verify; `before`: checksum before `start`."""
    size = FRAME_HEADER_SIZE + page_size
    mark = salt.to_bytes(8, "little")
    judged = 2 * (file.size() // size) + _FEWEST_JUDGED  # SF2
    seeds = {before}
    at = start
    while judged:
        raw = file.read_at(at, size)
        if raw[_SALT_OFFSET:CHECKSUM_OFFSET] != mark:
            at = _find(file, mark, at + _SALT_OFFSET + 1) - _SALT_OFFSET
            if at < start:
                return
            raw = file.read_at(at, size)
        if len(raw) < size:
            return
        header = FrameHeader.decode(raw)
        head, page = raw[:CHECKSUM_OFFSET], raw[FRAME_HEADER_SIZE:]
        if at >= LOG_HEADER_SIZE + size:
            there = file.read_at(at - size + CHECKSUM_OFFSET, 8)
            seeds.add(int.from_bytes(there, "little"))
        found = {frame_checksum(head, page, seed) for seed in seeds}
        if header.checksum in found and header.page_number:
            yield GoodFrame(at, *header[:4])
            seeds = {header.checksum}
            at += size
            continue
        judged -= 1
        seeds = {header.checksum, *list(found)[: _MOST_SEEDS - 1]}
        at += 1


def _find(file: File, mark: bytes, start: int) -> int:
    """Where some bytes stand from `start` on; -1 where they do not."""
    while len(chunk := file.read_at(start, _SEARCHED_AT_ONCE)) >= len(mark):
        place = chunk.find(mark)
        if place >= 0:
            return start + place
        start += len(chunk) - len(mark) + 1
    return -1


def lost_behind(file: File, page_size: int, salt: int, end: int, chain: int, commit: int) -> int:
    """The newest commit that is known to be lost behind the log's last one, 0 where none is.

    `end`, `chain` and `commit` are of the last one that counts. Of a commit whose end is not there
    nothing shows that it was published, but the one before it was.
    """
    if file.size() < end + FRAME_HEADER_SIZE + page_size:
        return 0  # no room for a frame
    newest = 0
    for frame in frames_of(file, page_size, salt, end, chain):
        if frame.commit >= commit + 2:
            newest = max(newest, frame.commit if frame.page_count else frame.commit - 1)
    return newest
