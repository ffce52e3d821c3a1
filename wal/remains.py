"""Remains of a database: its pages, each in its newest version that verifies.

A page may stand in the file and in frames of the log. The newest committed frame wins where it is
newer than the file's last checkpoint, then the file, then any frame that still verifies, the older
generations of the log last. Page 1 may be gone: its roots are where they always are, and the page
size is the one with which most pages verify.

Invariants
    RM1 Nothing is written and no lock is taken: the file is read as it lies there.
    RM2 What a page holds is believed when its checksum and its own number hold, else not at all.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError, NotSupportedError, OperationalError
from m2mdb.pager.header import (
    CATALOG_ROOT,
    FLAG_OFFSET,
    FLAG_SIZE,
    FREE_ROOT,
    HEADER_SIZE,
    Header,
    LogFlag,
    is_newer_format,
)
from m2mdb.pager.page import decode_page
from m2mdb.wal.frame import LOG_HEADER_SIZE, LogHeader
from m2mdb.wal.log_remains import LogRemains
from m2mdb.wal.options import PAGE_SIZES

if TYPE_CHECKING:
    from m2mdb.pager.page import TreeNode
    from m2mdb.pager.vfs import File, Vfs
    from m2mdb.wal.stray_frames import GoodFrame

_KEPT_NODES = 4096  # decoded pages that are kept


class Remains:
    """A damaged file with its log; read-only."""

    def __init__(self, vfs: Vfs, path: str) -> None:
        """Raises OperationalError where the file cannot be opened, NotSupportedError for a newer
        format, CorruptDatabaseError where nothing in it is a page of a database.
        """
        self.path = path
        self.damage: list[str] = []  # of header, flag and log
        self.misses_commits = False  # some that the log held are lost, or may be
        self.file: File = vfs.open(path, read_only=True)
        self.log: LogRemains | None = None
        try:
            self.header: Header | None = self._read_header()
            flag = self._read_flag()
            log_file = self._open_log(vfs, flag)
            self.page_size = self._page_size(log_file)
            if log_file is not None:
                self.log = LogRemains(log_file, self.page_size, flag)
                self._judge_log(flag)
            self._look_for_kept_logs(vfs)
        except BaseException:
            self.close()
            raise
        self.newer: dict[int, GoodFrame] = {}  # frames that are newer than the file
        self.others: dict[int, list[GoodFrame]] = {}  # those that may help, the best last
        self._sort_frames()
        self._settle_header()
        self._nodes: dict[int, TreeNode] = {}

    def close(self) -> None:
        """Close the files."""
        for file in (self.file, self.log.file if self.log is not None else None):
            if file is not None:
                with contextlib.suppress(OperationalError):
                    file.close()

    # -- the parts of page 1 -------------------------------------------------------------------

    def _read_header(self) -> Header | None:
        raw = self.file.read_at(0, HEADER_SIZE)
        try:
            return Header.decode(raw, self.path)
        except NotSupportedError as error:
            if is_newer_format(raw):
                raise
            self.damage.append(f"page 1, header: {error}")
        except CorruptDatabaseError as error:
            self.damage.append(f"page 1, header: {error}")
        return None

    def _read_flag(self) -> LogFlag | None:
        try:
            return LogFlag.decode(self.file.read_at(FLAG_OFFSET, FLAG_SIZE), self.path)
        except CorruptDatabaseError as error:
            self.damage.append(f"page 1, log flag: {error}")
            return None

    def _open_log(self, vfs: Vfs, flag: LogFlag | None) -> File | None:
        path = self.path + "-wal"
        if vfs.exists(path):
            return vfs.open(path, read_only=True)
        if flag is not None and flag.needed:
            self.damage.append(f"{path} is missing: the newest commits were in it")
            self.misses_commits = True
        return None

    def _page_size(self, log_file: File | None) -> int:
        if self.header is not None:
            return self.header.page_size
        if log_file is not None:
            with contextlib.suppress(CorruptDatabaseError):
                raw = log_file.read_at(0, LOG_HEADER_SIZE)
                found = LogHeader.decode(raw, log_file.path).page_size
                if found in PAGE_SIZES:
                    return found
        counts = {size: self._count_pages(size) for size in PAGE_SIZES}
        best = max(PAGE_SIZES, key=lambda size: counts[size])
        if not counts[best]:
            raise CorruptDatabaseError(
                f"{self.path}: no page of any size in it verifies; it is no database, or nothing "
                "of it is left"
            )
        return best

    def _count_pages(self, size: int) -> int:
        count = 0
        for number in range(2, self.file.size() // size + 1):
            with contextlib.suppress(CorruptDatabaseError):
                decode_page(self.file.read_at((number - 1) * size, size), number, size, "")
                count += 1
        return count

    # -- the log -------------------------------------------------------------------------------

    def _judge_log(self, flag: LogFlag | None) -> None:
        """Whether the log's frames count; a log of another file is not looked at."""
        log = self.log
        assert log is not None
        header = log.header
        reason = ""
        if header is not None and self.header is not None and header.uuid != self.header.uuid:
            reason = "it belongs to another database"
        elif header is not None and header.page_size != self.page_size:
            reason = f"it has pages of {header.page_size} bytes"
        elif flag is not None and header is not None and header.generation < flag.generation:
            reason = "it is older than the file"
        if reason:
            self.damage.append(f"{log.path} is not used: {reason}")
            self.misses_commits = flag is None or flag.needed
            log.file.close()
            self.log = None
            return
        if flag is not None and not flag.needed:
            log.older, log.committed = log.older + log.committed, []  # left over of a close
            return
        if log.header_error:
            self.damage.append(log.header_error)
        self.damage += log.damage
        lost_all = bool(log.header_error) and not log.committed
        self.misses_commits = log.is_cut_short or lost_all

    def _look_for_kept_logs(self, vfs: Vfs) -> None:
        """A log that a recovery kept aside goes on where the file ends, if nothing came since."""
        number = 0
        while vfs.exists(path := f"{self.path}-wal-damaged-{(number := number + 1)}"):
            file = vfs.open(path, read_only=True)
            kept = LogRemains(file, self.page_size, None)
            of_this = (
                kept.header is not None
                and self.header is not None
                and kept.header.uuid == self.header.uuid
                and kept.header.page_size == self.page_size
            )
            if of_this and kept.broken_at == self.commit < kept.last_commit:
                if self.log is not None:
                    self.log.file.close()
                self.log = kept
                self.damage += kept.damage
                self.misses_commits = True
                return
            file.close()
            if of_this and kept.is_cut_short:
                self.damage.append(f"{path} is not used: the file was written since")

    def _sort_frames(self) -> None:
        log = self.log
        if log is None:
            return
        copied = self.header.commit if self.header is not None else 0
        for frame in sorted(log.older, key=lambda frame: frame.commit):
            self.others.setdefault(frame.page_number, []).append(frame)
        for frame in log.committed:
            self.others.setdefault(frame.page_number, []).append(frame)
            if frame.commit > copied:
                self.newer[frame.page_number] = frame

    def _settle_header(self) -> None:
        """The newest header that can be read, in the log or the file."""
        for frame in (self.newer.get(1), *reversed(self.others.get(1, []))):
            if frame is None or self.log is None or (self.header is not None and
                                                     frame is not self.newer.get(1)):  # fmt: skip
                continue
            try:
                self.header = Header.decode(self.log.page(frame)[:HEADER_SIZE], self.path)
                break
            except (CorruptDatabaseError, NotSupportedError):
                continue
        in_file = -(-self.file.size() // self.page_size)
        counts = [in_file, self.log.page_count if self.log is not None else 0]
        if self.header is not None:
            counts.append(self.header.page_count)
            missing = self.header.page_count - in_file
            if missing > 0 and not (self.log is not None and self.log.committed):
                self.damage.append(
                    f"{self.path} is truncated: {in_file} pages, expected {self.header.page_count}"
                )
        self.page_count = min(max(counts), 1 << 32)

    @property
    def catalog_root(self) -> int:
        """The root of the catalog."""
        return CATALOG_ROOT if self.header is None else self.header.catalog_root

    @property
    def free_root(self) -> int:
        """The root of the free map."""
        return FREE_ROOT if self.header is None else self.header.free_root

    @property
    def commit(self) -> int:
        """The newest commit that is known of, 0 where none is."""
        numbers = [self.header.commit if self.header is not None else 0]
        numbers.append(self.log.last_commit if self.log is not None else 0)
        return max(numbers)

    # -- pages ---------------------------------------------------------------------------------

    def get(self, page_number: int) -> TreeNode:
        """A tree page in its newest version that verifies (RM2); CorruptDatabaseError: none does.

        As `pager.pages.Pages` has it.
        """
        node = self._nodes.get(page_number)
        if node is None:
            node = self._read(page_number)
            if len(self._nodes) >= _KEPT_NODES:
                self._nodes.clear()
            self._nodes[page_number] = node
        return node

    def _read(self, page_number: int) -> TreeNode:
        if not 1 < page_number <= self.page_count:
            raise CorruptDatabaseError(
                f"page {page_number} of {self.path}: expected 2 to {self.page_count}"
            )
        frame = self.newer.get(page_number)
        if frame is not None:
            with contextlib.suppress(CorruptDatabaseError):
                return self._in_log(frame)
        size = self.page_size
        try:
            raw = self.file.read_at((page_number - 1) * size, size)
            return decode_page(raw, page_number, size, self.path)
        except (CorruptDatabaseError, OperationalError) as error:
            for frame in reversed(self.others.get(page_number, [])):
                with contextlib.suppress(CorruptDatabaseError):
                    return self._in_log(frame)
            if isinstance(error, CorruptDatabaseError):
                raise
            raise CorruptDatabaseError(f"page {page_number} of {self.path}: {error}") from error

    def _in_log(self, frame: GoodFrame) -> TreeNode:
        assert self.log is not None
        return decode_page(self.log.page(frame), frame.page_number, self.page_size, self.log.path)
