"""Logs: frames that are walked, and whole `-wal` files that a database is recovered by.

frames    a log of 512-byte pages; its header's checksum and, unless byte 21 is odd, its salts
          and the chain of its frames are put right; walked as recovery does
recovery  a log beside a small database, put right alike: opened for writing, in memory, and
          at once read; the first byte's low bit says which
"""

from __future__ import annotations

from functools import cache
from struct import pack_into, unpack_from

from xxhash import xxh3_64_intdigest

from fuzz.seeded import PATH, SeededVfs, content, holding, open_database
from fuzz.target import Target
from m2mdb.index.database import Database
from m2mdb.index.integrity import check
from m2mdb.pager.header import FLAG_OFFSET, LogFlag
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.frame import (
    FRAME_HEADER_SIZE,
    LOG_HEADER_SIZE,
    FrameHeader,
    LogHeader,
    frame_checksum,
    valid_frames,
)
from m2mdb.wal.logindex import LogIndex

PAGE = 512


def mended(data: bytes, page_size: int) -> bytes:
    """A log whose header and frames have the checksums that their bytes ask for."""
    raw = bytearray(data)
    if len(raw) < LOG_HEADER_SIZE:
        return bytes(raw)
    pack_into("<Q", raw, 504, xxh3_64_intdigest(memoryview(raw)[:504]))
    if raw[21] & 1:
        return bytes(raw)
    chain, size = unpack_from("<Q", raw, 504)[0], FRAME_HEADER_SIZE + page_size
    salt = bytes(raw[32:40])
    for at in range(LOG_HEADER_SIZE, len(raw) - size + 1, size):
        raw[at + 16 : at + 24] = salt
        head, page = bytes(raw[at : at + 24]), bytes(raw[at + FRAME_HEADER_SIZE : at + size])
        chain = frame_checksum(head, page, chain)
        pack_into("<Q", raw, at + 24, chain)
    return bytes(raw)


@cache
def _frames_file() -> MemoryVfs:
    return MemoryVfs()


def run_frames(data: bytes) -> None:
    """Walk the frames that count, and index them."""
    file = _frames_file().open("log", create=True)
    file.truncate(0)
    file.write_at(0, mended(data, PAGE))
    header = LogHeader.decode(file.read_at(0, LOG_HEADER_SIZE), "fuzz")
    if header.page_size != PAGE:
        return
    found = list(valid_frames(file, header))
    assert [frame.offset for frame in found] == [
        LOG_HEADER_SIZE + n * (FRAME_HEADER_SIZE + PAGE) for n in range(len(found))
    ]
    if found:
        end = found[-1].offset + FRAME_HEADER_SIZE + PAGE
        index = LogIndex(header.generation, header.base_commit)
        index.extend(file, header.salt, end, PAGE)
        assert index.end == end


def frames_seeds() -> list[bytes]:
    """Logs of no, one and four commits."""
    header = LogHeader(PAGE, 3, 0x5A5A, 40, bytes(16)).encode()
    found = [header]
    for commits in (1, 4):
        raw = bytearray(header)
        for commit in range(41, 41 + commits):
            for page in range(2, 4 + commit % 2):
                count = 9 if page == 3 + commit % 2 else 0
                raw += FrameHeader(page, count, commit, 0x5A5A, 0).encode() + bytes([page]) * PAGE
        found.append(mended(bytes(raw), PAGE))
    return found


@cache
def _crashed() -> tuple[bytes, bytes]:
    """A database file that needs its log, and the log."""
    vfs = SeededVfs()
    database = open_database(vfs, create=True)
    from m2mdb.query.executor import execute

    execute(database, "CREATE COLLECTION c (t TEXT, n INTEGER UNIQUE)")
    execute(database, "INSERT INTO c VALUES ('one', 1), ('two', 2)")
    execute(database, "UPDATE c SET t = 'three' WHERE n = 1")
    end = database.store.end.offset
    return content(vfs), content(vfs, PATH + "-wal")[:end]


def opened(data: bytes, *, read_only: bool, untrusted: bool) -> Database:
    """The database beside a log; the flag says that this is the log that is needed."""
    main, _ = _crashed()
    log = mended(data, 4096)
    vfs = holding(main=main, wal=log)
    if len(log) >= LOG_HEADER_SIZE:
        generation, salt = unpack_from("<QQ", log, 24)
        vfs.open(PATH).write_at(FLAG_OFFSET, LogFlag.needed_for(salt, generation).encode())
    return open_database(vfs, read_only=read_only, untrusted=untrusted)


def run_recovery(data: bytes) -> None:
    """Open by the log, check, write, close."""
    from m2mdb.query.executor import execute

    mode = data[20] if len(data) > 20 else 0  # a byte of the header that has to be zero
    database = opened(data, read_only=bool(mode & 1), untrusted=bool(mode & 2))
    try:
        with database.reading() as view:
            check(view)
        execute(database, "SELECT * FROM c")
        if not mode & 1:
            execute(database, "INSERT INTO c VALUES ('four', 4)")
    finally:
        database.close()


def recovery_seeds() -> list[bytes]:
    """The log, whole, cut to its first commit, and with each mode."""
    _, log = _crashed()
    found = []
    for mode in range(4):
        raw = bytearray(log)
        raw[20] = mode
        found += [bytes(raw), bytes(raw[: 512 + 6 * 4128])]
    return found


TARGETS = [
    Target("frames", run_frames, frames_seeds, share=2.0),
    Target("recovery", run_recovery, recovery_seeds, share=2.0),
]
