"""Shared state: the region `-shm` in which the processes on one database see each other.

    offset  size  field
         0    16  magic       b"m2mdb shared 1" and two zero bytes
        16    16  u64 device, u64 inode of the main file
        32     8  ready       1 once the first to attach has filled the rest
        64    64  end, A      u64 generation, salt, offset, commit, page_count, chain, synced,
                              checksum: the committed end of the log
       128    64  end, B      the same once more
       192    32  backfill    u64 generation, offset, commit, checksum: up to where the log is
                              copied into the file and the file is synced
       224     8  poison      not zero: a sync failed (S11)
       232     8  writer      pid of the process that took WRITER last; for messages
       240     8  checkpointer
       248     8  unrecovered 1: a reader applied the log in memory and changed nothing (S3)
       256     8  tail        1: frames may stand behind the end that would count (S8)
       264     8  unsynced    1: a committed extent may not be durable (S7)
       512  5040  marks       126 times u64 generation, end, commit, pid, checksum

Little-endian. Python has no atomic store, so a record counts only with its checksum, and the end
only when A and B agree (S2). A is written first: where a writer died between the two, A is newer.

    end      written under WRITER        offset = LOG_HEADER_SIZE: no frame; generation 0: no log
    backfill written under CHECKPOINT    of another generation than the end's: nothing is copied
    mark i   written under READER i      end = 0: this snapshot reads the file alone

Invariants
    SH1 Nothing here is needed by recovery; the first to attach writes all of it anew (S3).
    SH2 A mark is live exactly while its slot's lock is held; what a dead mark says is no matter.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from m2mdb.pager.vfs import Identity, SharedMemory

SHARED_SIZE = 8192
MARKS = 512  # offset of the first mark
MARK_SIZE = 40
MARK_COUNT = 126

_MAGIC = b"m2mdb shared 1\0\0"
_HEAD = Struct("<16sQQQ")
_END = Struct("<7Q")
_BACKFILL = Struct("<3Q")
_MARK = Struct("<4Q")
_WORD = Struct("<Q")
_A, _B, _BACKFILL_AT = 64, 128, 192
_POISON, _WRITER, _CHECKPOINTER, _UNRECOVERED, _TAIL, _UNSYNCED = 224, 232, 240, 248, 256, 264
_RECORD = 64  # bytes of an end with its checksum
STATE = slice(_A, _POISON)  # both ends and the backfill: what a reader looks at
_NO_MARK = bytes(MARK_SIZE)


class LogEnd(NamedTuple):
    """Where the committed log ends, and what the database is there."""

    generation: int  # 0: there is no log
    salt: int
    offset: int  # behind the last commit frame; LOG_HEADER_SIZE where there is none
    commit: int
    page_count: int
    chain: int  # checksum of the last frame, or of the log header
    synced: int  # the newest commit that is known to be durable


class Backfill(NamedTuple):
    """Up to where the log is copied into the file, and that is durable."""

    generation: int
    offset: int
    commit: int


class Mark(NamedTuple):
    """What a reader leaves in its slot: the snapshot that it needs."""

    generation: int
    end: int  # 0: the reader uses no frame of the log
    commit: int
    pid: int


PIN_ALL = Mark(0, 0, -1, 0)  # a live slot that cannot be read: it may need anything


def seal(body: bytes) -> bytes:
    """A record with its checksum."""
    return body + _WORD.pack(xxh3_64_intdigest(body))


def unseal(raw: bytes) -> bytes | None:
    """The record that ends with its checksum, or None where that is wrong."""
    body = raw[:-8]
    return body if _WORD.unpack_from(raw, len(body))[0] == xxh3_64_intdigest(body) else None


class SharedState:
    """One process's view of the region."""

    __slots__ = ("_memory", "view")

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self.view = memory.view

    def close(self) -> None:
        """Drop the view; the region stays."""
        self._memory.close()

    # -- whole ---------------------------------------------------------------------------------

    def begin(self, identity: Identity, end: LogEnd, backfill: Backfill) -> None:
        """Fill the region anew; for the holder of ATTACH exclusive alone (SH1)."""
        view = self.view
        view[:] = bytes(len(view))
        self.publish(end)
        self.publish_backfill(backfill)
        view[: _HEAD.size] = _HEAD.pack(_MAGIC, identity.device, identity.inode, 1)

    def belongs_to(self, identity: Identity) -> bool:
        """Whether the region was filled, for this very file."""
        found = _HEAD.unpack_from(self.view)
        return found == (_MAGIC, identity.device, identity.inode, 1)

    # -- end and backfill ----------------------------------------------------------------------

    def look(self) -> bytes:
        """Both ends and the backfill, as bytes to be compared with an earlier look."""
        return bytes(self.view[STATE])

    @staticmethod
    def decode(raw: bytes) -> tuple[LogEnd, Backfill] | None:
        """The meaning of a look; None while the ends do not agree (S2)."""
        first = raw[:_RECORD]
        body = unseal(first)
        if body is None or first != raw[_RECORD : 2 * _RECORD]:
            return None
        copied = unseal(raw[2 * _RECORD :])
        backfill = Backfill(0, 0, 0) if copied is None else Backfill._make(_BACKFILL.unpack(copied))
        return LogEnd._make(_END.unpack(body)), backfill

    def publish(self, end: LogEnd) -> None:
        """Make a commit seen; needs WRITER."""
        raw = seal(_END.pack(*end))
        view = self.view
        view[_A : _A + _RECORD] = raw
        view[_B : _B + _RECORD] = raw

    def mend(self) -> None:
        """Finish or forget the publication of a writer that died in it; needs WRITER."""
        view = self.view
        for offset in (_A, _B):
            raw = bytes(view[offset : offset + _RECORD])
            if unseal(raw) is not None:
                view[_A : _A + _RECORD] = raw
                view[_B : _B + _RECORD] = raw
                return

    def publish_backfill(self, backfill: Backfill) -> None:
        """Say up to where the log is copied; needs CHECKPOINT."""
        self.view[_BACKFILL_AT:_POISON] = seal(_BACKFILL.pack(*backfill))

    # -- words ---------------------------------------------------------------------------------

    @property
    def poisoned(self) -> bool:
        """Whether a sync of the database failed (S11)."""
        return any(self.view[_POISON:_WRITER])

    def poison(self) -> None:
        """Let every process refuse writes and checkpoints, until one recovers (S11)."""
        self.view[_POISON:_WRITER] = _WORD.pack(1)

    @property
    def writer(self) -> int:
        """The process that took WRITER last."""
        return int(_WORD.unpack_from(self.view, _WRITER)[0])

    @writer.setter
    def writer(self, pid: int) -> None:
        self.view[_WRITER:_CHECKPOINTER] = _WORD.pack(pid)

    @property
    def checkpointer(self) -> int:
        """The process that took CHECKPOINT last."""
        return int(_WORD.unpack_from(self.view, _CHECKPOINTER)[0])

    @checkpointer.setter
    def checkpointer(self, pid: int) -> None:
        self.view[_CHECKPOINTER : _CHECKPOINTER + 8] = _WORD.pack(pid)

    @property
    def unrecovered(self) -> bool:
        """Whether the log may have a torn tail: it must be begun anew before the next frame."""
        return any(self.view[_UNRECOVERED : _UNRECOVERED + 8])

    @unrecovered.setter
    def unrecovered(self, state: bool) -> None:
        self.view[_UNRECOVERED : _UNRECOVERED + 8] = _WORD.pack(state)

    @property
    def tail(self) -> bool:
        """Whether a writer may have left frames behind the end that are not durably erased."""
        return any(self.view[_TAIL : _TAIL + 8])

    @tail.setter
    def tail(self, state: bool) -> None:
        self.view[_TAIL : _TAIL + 8] = _WORD.pack(state)

    @property
    def unsynced(self) -> bool:
        """Whether an extent was committed under `off` and the file not synced since."""
        return any(self.view[_UNSYNCED : _UNSYNCED + 8])

    @unsynced.setter
    def unsynced(self, state: bool) -> None:
        self.view[_UNSYNCED : _UNSYNCED + 8] = _WORD.pack(state)

    # -- marks ---------------------------------------------------------------------------------

    @staticmethod
    def encode_mark(mark: Mark) -> bytes:
        """A mark's bytes."""
        return seal(_MARK.pack(*mark))

    def mark_bytes(self, slot: int) -> bytes:
        """What stands in a slot."""
        start = MARKS + slot * MARK_SIZE
        return bytes(self.view[start : start + MARK_SIZE])

    def set_mark(self, slot: int, raw: bytes) -> None:
        """Write a slot's mark; needs the slot's lock, exclusive (S2)."""
        start = MARKS + slot * MARK_SIZE
        self.view[start : start + MARK_SIZE] = raw

    def clear_mark(self, slot: int) -> None:
        """Empty a slot; needs its lock, exclusive."""
        self.set_mark(slot, _NO_MARK)

    def used_slots(self) -> list[int]:
        """The slots in which something stands, live or not."""
        raw = bytes(self.view[MARKS : MARKS + MARK_COUNT * MARK_SIZE])
        if raw.count(0) == len(raw):
            return []
        starts = range(0, len(raw), MARK_SIZE)
        return [n for n, start in enumerate(starts) if raw[start : start + MARK_SIZE] != _NO_MARK]

    @staticmethod
    def decode_mark(raw: bytes) -> Mark:
        """The mark in a slot's bytes; PIN_ALL where they are none."""
        body = unseal(raw)
        return PIN_ALL if body is None else Mark._make(_MARK.unpack(body))
