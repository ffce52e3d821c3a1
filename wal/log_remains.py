"""Remains of a log: which of its frames verify, and which of those were committed.

Recovery stops at the first frame that breaks the chain. Here a damaged frame in the middle is
passed over: each frame's checksum is seeded with that of the frame before, as it stands there, so
the frames behind a damaged one verify again; where bytes were lost or put in, at other places.

    | run: commits 1 .. c | damaged | run: c+1 (rest), c+2 | end | left over of c+3, which failed |

What stands behind the end of the log may be left over of a commit that failed, which has the
number of the next one. So a run behind a gap counts only where it holds the end of a commit two
beyond the last whole one before it: nobody writes that before the one between is published.

Invariants
    LR1 A frame that is given as committed was committed: by the chain, or by what was written
        behind it.
    LR2 Nothing is written; nothing that the log holds is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.wal.frame import (
    CHECKSUM_OFFSET,
    FRAME_HEADER_SIZE,
    LOG_HEADER_SIZE,
    READ_CHUNK,
    FrameHeader,
    LogHeader,
    frame_checksum,
)
from m2mdb.wal.stray_frames import GoodFrame, frames_of

if TYPE_CHECKING:
    from m2mdb.pager.header import LogFlag
    from m2mdb.pager.vfs import File


class LogRemains:
    """The frames of one log that can be believed."""

    def __init__(self, file: File, page_size: int, flag: LogFlag | None) -> None:
        """`flag` is the main file's; None where it cannot be read."""
        self.file = file
        self.path = file.path
        self.page_size = page_size
        self.damage: list[str] = []
        self.header: LogHeader | None = None
        self.header_error = ""
        try:
            self.header = LogHeader.decode(file.read_at(0, LOG_HEADER_SIZE), file.path)
        except CorruptDatabaseError as error:
            self.header_error = str(error)
        self.committed: list[GoodFrame] = []  # of the generation that counts, in order
        self.older: list[GoodFrame] = []  # of generations before it, copied into the file long ago
        self.page_count = 0  # after the last commit
        self.is_cut_short = False  # commits that it held are known to be missing, wholly or partly
        self.broken_at = -1  # the last commit before the first gap
        runs = self._runs()
        self.salt = self._salt(runs, flag)
        self.older += [frame for run in runs if run[0].salt != self.salt for frame in run]
        self._choose(self._runs_of_salt())

    @property
    def last_commit(self) -> int:
        """The newest commit in the log, 0 without any."""
        return self.committed[-1].commit if self.committed else 0

    def page(self, frame: GoodFrame) -> bytes:
        """The page in a frame."""
        return self.file.read_at(frame.offset + FRAME_HEADER_SIZE, self.page_size)

    def _salt(self, runs: list[list[GoodFrame]], flag: LogFlag | None) -> int:
        """The salt of the generation that counts."""
        if self.header is not None:
            return self.header.salt
        if runs:
            return runs[0][0].salt  # the first frame is always of the newest generation
        return flag.salt if flag is not None else 0

    def _runs(self) -> list[list[GoodFrame]]:
        """Frames that verify, in runs of neighbours of one salt."""
        size = FRAME_HEADER_SIZE + self.page_size
        per_chunk = max(1, READ_CHUNK // size)
        offset = LOG_HEADER_SIZE
        before = int.from_bytes(self.file.read_at(LOG_HEADER_SIZE - 8, 8), "little")
        runs: list[list[GoodFrame]] = []
        is_open = False
        while chunk := self.file.read_at(offset, size * per_chunk):
            for start in range(0, len(chunk) - size + 1, size):
                raw = chunk[start : start + size]
                header = FrameHeader.decode(raw)
                expected = frame_checksum(raw[:CHECKSUM_OFFSET], raw[FRAME_HEADER_SIZE:], before)
                before = header.checksum
                if expected != header.checksum or not header.page_number:
                    is_open = False
                    continue
                frame = GoodFrame(offset + start, *header[:4])
                if not is_open or runs[-1][-1].salt != frame.salt:
                    runs.append([])
                runs[-1].append(frame)
                is_open = True
            if len(chunk) < size * per_chunk:
                break
            offset += size * per_chunk
        return runs

    def _runs_of_salt(self) -> list[list[GoodFrame]]:
        """The generation that counts, its frames at other distances too (`stray_frames`)."""
        size = FRAME_HEADER_SIZE + self.page_size
        before = int.from_bytes(self.file.read_at(LOG_HEADER_SIZE - 8, 8), "little")
        runs: list[list[GoodFrame]] = []
        for frame in frames_of(self.file, self.page_size, self.salt, LOG_HEADER_SIZE, before):
            if not runs or runs[-1][-1].offset + size != frame.offset:
                runs.append([])
            runs[-1].append(frame)
        return runs

    def _choose(self, runs: list[list[GoodFrame]]) -> None:
        """The committed frames (LR1)."""
        size = FRAME_HEADER_SIZE + self.page_size
        whole = self.header.base_commit if self.header is not None else -1
        expected = LOG_HEADER_SIZE
        begun: list[GoodFrame] = []  # of a commit whose end is not in its run
        for run in runs:
            last = max((frame.commit for frame in run if frame.page_count), default=0)
            is_next = run[0].offset == expected and (whole < 0 or run[0].commit == whole + 1)
            if not last or not (is_next or last >= whole + 2):
                continue
            if not is_next:
                if not self.is_cut_short:
                    self.broken_at = whole
                self.is_cut_short = True
                self.damage.append(
                    f"bytes {expected} to {run[0].offset} of {self.path}: frames that do not "
                    "verify; newer versions of some pages were in them"
                )
                self.committed += begun
            frames = [frame for frame in run if frame.commit <= last]
            begun = [frame for frame in run if frame.commit > last]
            self.committed += frames
            end = [frame for frame in frames if frame.page_count][-1]
            whole, self.page_count = last, end.page_count
            expected = frames[-1].offset + size
        self._look_at_the_end(expected + size * len(begun), size)

    def _look_at_the_end(self, expected: int, size: int) -> None:
        """A frame that the end of the file cuts was whole once: its space is had before it."""
        raw = self.file.read_at(expected, size)
        if FRAME_HEADER_SIZE <= len(raw) < size and FrameHeader.decode(raw).salt == self.salt:
            self.is_cut_short = True
            self.damage.append(
                f"{self.path} ends within the frame at byte {expected}: the newest commits are lost"
            )
