"""The log's index against a list that is searched from its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.frame import FRAME_HEADER_SIZE, LOG_HEADER_SIZE, FrameHeader
from m2mdb.wal.logindex import LogIndex

PAGE = 512
SIZE = FRAME_HEADER_SIZE + PAGE
COMMITS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True), max_size=12)


def twin(frames: list[int], page_number: int, end: int) -> int:
    for at in range(len(frames) - 1, -1, -1):
        offset = LOG_HEADER_SIZE + at * SIZE
        if offset < end and frames[at] == page_number:
            return offset
    return 0


@given(COMMITS)
def test_places_are_those_of_a_linear_search(commits: list[list[int]]) -> None:
    index = LogIndex(1, 0)
    frames: list[int] = []
    ends = [LOG_HEADER_SIZE]
    for number, pages in enumerate(commits, 1):
        index.add(pages, index.end, SIZE, number)
        frames += pages
        ends.append(index.end)

    for end in ends:
        for page_number in range(1, 14):
            assert index.place(page_number, end) == twin(frames, page_number, end)
    assert index.commit == len(commits)


@given(COMMITS, st.integers(0, 12))
def test_extending_from_the_log_is_adding(commits: list[list[int]], known: int) -> None:
    """LI2: also where a step was done before, and the end not moved."""
    file = MemoryVfs().open("x-wal", create=True)
    added, read = LogIndex(1, 0), LogIndex(1, 0)
    for number, pages in enumerate(commits, 1):
        for at, page in enumerate(pages):
            header = FrameHeader(page, int(at == len(pages) - 1), number, 7, 0)
            file.write_at(added.end + at * SIZE, header.encode() + bytes(PAGE))
        if number <= known:
            read.add(pages, added.end, SIZE, number)
        added.add(pages, added.end, SIZE, number)
    read.end = LOG_HEADER_SIZE

    read.extend(file, 7, added.end, PAGE)

    assert read.frames == added.frames
    assert (read.end, read.commit) == (added.end, added.commit)


def test_frames_of_another_generation_are_refused() -> None:
    file = MemoryVfs().open("x-wal", create=True)
    file.write_at(LOG_HEADER_SIZE, FrameHeader(3, 1, 1, 8, 0).encode() + bytes(PAGE))

    with pytest.raises(CorruptDatabaseError, match="no frame of generation 1 at offset 512"):
        LogIndex(1, 0).extend(file, 7, LOG_HEADER_SIZE + SIZE, PAGE)
    with pytest.raises(CorruptDatabaseError, match="no frame of generation 1"):
        LogIndex(1, 0).extend(file, 8, LOG_HEADER_SIZE + 2 * SIZE, PAGE)
