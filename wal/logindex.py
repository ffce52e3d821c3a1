"""The log's index: which frames of the log hold a page.

Each process keeps its own, extended from the log when it sees a newer end (S16):

    page number -> [offset of its first frame, ..., offset of its newest frame]

Offsets ascend, so that a snapshot finds its version by bisection below its own end, and mostly
by a look at the last one.

Invariants
    LI1 All frames of the generation before `end` are in the index, and none behind it is shown:
        a snapshot asks with its own end.
    LI2 Extending twice over the same frames changes nothing: an interrupted step is repeated.
    LI3 `commit` is a commit all of whose frames are in the index: a log that goes on from it
        leaves every page as the index knows it. It is set last.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE, READ_CHUNK, FrameHeader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from m2mdb.pager.vfs import File


class LogIndex:
    """The frames of one generation of the log, up to `end`."""

    __slots__ = ("commit", "end", "frames", "generation")

    def __init__(self, generation: int = 0, base_commit: int = 0) -> None:
        self.generation = generation
        self.end = LOG_HEADER_SIZE
        self.commit = base_commit  # the newest commit before `end`
        self.frames: dict[int, list[int]] = {}

    def place(self, page_number: int, end: int) -> int:
        """Offset of a page's newest frame before `end`; 0 when the file has its newest version."""
        offsets = self.frames.get(page_number)
        if offsets is None:
            return 0
        newest = offsets[-1]
        if newest < end:
            return newest
        at = bisect_left(offsets, end)
        return offsets[at - 1] if at else 0

    def add(self, page_numbers: Iterable[int], offset: int, step: int, commit: int) -> None:
        """Frames one behind the other from `offset` (LI2); `commit` is the newest that is whole."""
        frames = self.frames
        for page_number in page_numbers:
            offsets = frames.get(page_number)
            if offsets is None:
                frames[page_number] = [offset]
            elif offsets[-1] < offset:
                offsets.append(offset)
            offset += step
        self.end = offset
        self.commit = commit  # LI3

    def extend(self, file: File, salt: int, end: int, page_size: int) -> None:
        """Read the headers of the frames from the index's end to `end`, a published one.

        Raises CorruptDatabaseError where there is no frame of this generation.
        """
        size = FRAME_HEADER_SIZE + page_size
        per_chunk = max(1, READ_CHUNK // size)
        while self.end < end:
            count = min(per_chunk, (end - self.end) // size)
            chunk = memoryview(file.read_at(self.end, count * size))
            numbers = []
            commit = self.commit
            for start in range(0, count * size, size):
                raw = chunk[start : start + FRAME_HEADER_SIZE]
                found = FrameHeader.decode(raw) if len(raw) == FRAME_HEADER_SIZE else None
                if found is None or found.salt != salt or not found.page_number:
                    raise CorruptDatabaseError(
                        f"log {file.path}: no frame of generation {self.generation} at offset "
                        f"{self.end + start}, expected frames up to {end}"
                    )
                numbers.append(found.page_number)
                if found.page_count:
                    commit = found.commit
            self.add(numbers, self.end, size, commit)
