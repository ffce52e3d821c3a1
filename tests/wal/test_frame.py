"""The log's codecs, and the walk over frames that count, against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.pager.vfs import File
from m2mdb.wal.frame import (
    CHECKSUM_OFFSET,
    FRAME_HEADER_SIZE,
    LOG_HEADER_SIZE,
    FrameHeader,
    LogHeader,
    continues,
    frame_checksum,
    valid_frames,
)

PAGE = 512
WORDS = st.integers(0, (1 << 64) - 1)


@st.composite
def headers(draw: st.DrawFn) -> LogHeader:
    return LogHeader(
        PAGE, draw(st.integers(0, 1 << 62)), draw(WORDS), draw(st.integers(0, 1 << 40)), b"u" * 16
    )


@given(headers())
def test_log_header_survives_encode_and_decode(header: LogHeader) -> None:
    raw = header.encode()

    assert len(raw) == LOG_HEADER_SIZE
    assert LogHeader.decode(raw, "x-wal")[:5] == header[:5]


@given(headers(), st.integers(0, 8 * LOG_HEADER_SIZE - 1))
def test_a_log_header_with_a_wrong_bit_is_refused(header: LogHeader, bit: int) -> None:
    raw = bytearray(header.encode())
    raw[bit // 8] ^= 1 << bit % 8

    with pytest.raises(CorruptDatabaseError, match="x-wal"):
        LogHeader.decode(bytes(raw), "x-wal")


def test_a_log_shorter_than_its_header_is_refused() -> None:
    with pytest.raises(CorruptDatabaseError, match="511 bytes, expected a header of 512"):
        LogHeader.decode(bytes(511), "x-wal")


@given(st.builds(FrameHeader, st.integers(1, 1 << 31), st.integers(0, 9), WORDS, WORDS, WORDS))
def test_frame_header_survives_encode_and_decode(header: FrameHeader) -> None:
    assert FrameHeader.decode(header.encode()) == header
    assert len(header.encode()) == FRAME_HEADER_SIZE


def frame(number: int, page_count: int, commit: int, salt: int, before: int) -> tuple[bytes, int]:
    page = bytes([number % 256]) * PAGE
    head = FrameHeader(number, page_count, commit, salt, 0).encode()[:CHECKSUM_OFFSET]
    checksum = frame_checksum(head, page, before)
    return head + checksum.to_bytes(8, "little") + page, checksum


def write_log(commits: list[list[int]], header: LogHeader) -> tuple[File, list[tuple[int, int]]]:
    """A log of commits, each a list of page numbers; (page number, commit) of each frame."""
    file = MemoryVfs().open("x-wal", create=True)
    raw = header.encode()
    file.write_at(0, raw)
    chain = LogHeader.decode(raw, "x-wal").checksum
    offset, written = LOG_HEADER_SIZE, []
    for index, pages in enumerate(commits):
        number = header.base_commit + 1 + index
        for at, page in enumerate(pages):
            data, chain = frame(page, 9 * (at == len(pages) - 1), number, header.salt, chain)
            file.write_at(offset, data)
            offset += len(data)
            written.append((page, number))
    return file, written


COMMITS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=5), max_size=6)


def decoded(header: LogHeader) -> LogHeader:
    return LogHeader.decode(header.encode(), "x-wal")


@given(COMMITS, headers())
@settings(max_examples=40)
def test_every_frame_of_a_whole_log_counts(commits: list[list[int]], header: LogHeader) -> None:
    file, written = write_log(commits, header)

    found = list(valid_frames(file, decoded(header)))

    assert [(frame.page_number, frame.commit) for frame in found] == written
    assert [bool(frame.page_count) for frame in found] == [
        at == len(pages) - 1 for pages in commits for at in range(len(pages))
    ]


@given(COMMITS, headers(), st.data())
@settings(max_examples=60)
def test_nothing_counts_from_the_first_wrong_frame_on(
    commits: list[list[int]], header: LogHeader, data: st.DataObject
) -> None:
    """W1"""
    file, written = write_log(commits, header)
    size = FRAME_HEADER_SIZE + PAGE
    if not written:
        return
    wrong = data.draw(st.integers(0, len(written) * size - 1))
    offset = LOG_HEADER_SIZE + wrong
    byte = file.read_at(offset, 1)[0]
    file.write_at(offset, bytes([byte ^ data.draw(st.integers(1, 255))]))

    found = list(valid_frames(file, decoded(header)))

    assert len(found) == wrong // size


def test_a_frame_of_another_salt_or_place_does_not_continue() -> None:
    data, checksum = frame(3, 0, 1, 77, 5)

    assert continues(data, 77, 5) is not None
    assert continues(data, 78, 5) is None
    assert continues(data, 77, 6) is None
    assert checksum == FrameHeader.decode(data).checksum


def test_commits_that_skip_a_number_do_not_count() -> None:
    """W3"""
    header = LogHeader(PAGE, 1, 5, 10, b"u" * 16)
    raw = header.encode()
    file = MemoryVfs().open("x-wal", create=True)
    file.write_at(0, raw)
    chain = decoded(header).checksum
    first, chain = frame(2, 9, 11, 5, chain)
    second, _ = frame(2, 9, 13, 5, chain)
    file.write_at(LOG_HEADER_SIZE, first + second)

    assert [found.commit for found in valid_frames(file, decoded(header))] == [11]
