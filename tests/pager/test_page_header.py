"""Page 1: the header and the log flag."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError, NotSupportedError
from m2mdb.pager.header import FLAG_OFFSET, LARGEST_NUMBER, Header, LogFlag

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NUMBERS = st.integers(0, LARGEST_NUMBER)
I32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    size = draw(st.sampled_from([4096, 8192, 16384, 32768, 65536]))
    header = Header(size, draw(st.binary(min_size=16, max_size=16)))
    header.page_count = draw(st.integers(1, 2**32 - 1))
    header.commit, header.schema_number, header.catalog_number = draw(
        st.tuples(NUMBERS, NUMBERS, NUMBERS)
    )
    header.application_id, header.user_version = draw(st.tuples(I32, I32))
    header.format_write = draw(st.integers(1, 5))
    return header


def header() -> Header:
    return Header(4096, bytes(range(16)))


def resealed(raw: bytes) -> bytes:
    return raw[:504] + struct.pack("<Q", xxh3_64_intdigest(raw[:504])) + raw[512:]


def changed(offset: int, part: bytes) -> bytes:
    raw = header().encode(1, 4096)
    return resealed(raw[:offset] + part + raw[offset + len(part) :])


@given(headers())
def test_headers_survive_encode_and_decode(header: Header) -> None:
    found = Header.decode(header.encode(), "file")

    assert found == header == header.copy()
    assert found.uuid == header.uuid and found.user_version == header.user_version
    assert len(header.encode()) == 512
    page = header.encode(1, header.page_size)
    assert page == header.encode() + bytes(header.page_size - 512)
    assert not LogFlag.decode(page[FLAG_OFFSET:], "file").needed


@given(st.booleans(), U64, U64)
def test_flags_survive_encode_and_decode(needed: bool, salt: int, generation: int) -> None:
    flag = LogFlag(needed, salt, generation)

    assert len(flag.encode()) == 512
    assert LogFlag.decode(flag.encode(), "file") == flag


@pytest.mark.parametrize("needed", [True, False])
def test_a_flipped_bit_is_found_wherever_it_is(needed: bool) -> None:
    for bit in range(512 * 8):
        first = bytearray(header().encode())
        flag = bytearray(LogFlag(needed, 3, 4).encode())
        first[bit // 8] ^= 1 << bit % 8
        flag[bit // 8] ^= 1 << bit % 8

        with pytest.raises(DatabaseError, match="file"):
            Header.decode(first, "file")
        with pytest.raises(CorruptDatabaseError, match="log flag of file: checksum"):
            LogFlag.decode(flag, "file")


@settings(max_examples=200, derandomize=True)
@given(st.binary(max_size=520), st.booleans(), st.booleans())
def test_any_bytes_are_a_header_or_an_error(raw: bytes, begins: bool, sealed: bool) -> None:
    if begins:
        raw = (header().encode()[:28] + raw).ljust(512, b"\0")
    if sealed:
        raw = resealed(raw.ljust(512, b"\0"))

    for decode in (Header.decode, LogFlag.decode):
        try:
            decode(raw, "file")
        except (CorruptDatabaseError, NotSupportedError) as error:
            assert "file" in str(error)


@pytest.mark.parametrize("raw", [b"", b"SQLite format 3\0" + bytes(600), b"m2mdb", bytes(512)])
def test_another_file_is_not_a_database(raw: bytes) -> None:
    with pytest.raises(CorruptDatabaseError, match=r"^notes\.m2m is not a database"):
        Header.decode(raw, "notes.m2m")


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(NotSupportedError, match="reads up to format 1"):
        Header.decode(changed(16, struct.pack("<I", 2)), "file")
    with pytest.raises(NotSupportedError, match="reads up to format 1"):
        Header.decode(changed(0, b"m2mdb format 2\0\0"), "file")


def test_a_newer_format_of_writing_leaves_the_file_readable() -> None:
    found = Header.decode(changed(20, struct.pack("<I", 2)), "file")

    assert not found.is_writable
    assert header().is_writable


@pytest.mark.parametrize(
    ("offset", "part", "message"),
    [
        (24, struct.pack("<I", 512), "page size 512"),
        (24, struct.pack("<I", 131072), "page size 131072"),
        (24, struct.pack("<I", 5000), "page size 5000"),
        (48, struct.pack("<Q", 0), "0 pages"),
        (48, struct.pack("<Q", 2**32), "4294967296 pages"),
        (80, struct.pack("<I", 0), "roots at pages 0 and 3"),
        (84, struct.pack("<I", 2), "roots at pages 2 and 2"),
    ],
)
def test_impossible_values_are_damage(offset: int, part: bytes, message: str) -> None:
    with pytest.raises(CorruptDatabaseError, match="header of file: " + message):
        Header.decode(changed(offset, part), "file")


def test_a_sector_of_zeros_is_the_flag_of_a_new_file() -> None:
    assert LogFlag.decode(bytes(512), "file") == LogFlag.clear()
    assert LogFlag.needed_for(9).needed and not LogFlag.clear().needed
    with pytest.raises(CorruptDatabaseError, match="log flag of file: 100 bytes"):
        LogFlag.decode(bytes(100), "file")


def test_the_header_has_the_bytes_of_the_format() -> None:
    found = header()
    found.page_count, found.commit, found.schema_number, found.catalog_number = 9, 8, 7, 6
    found.application_id, found.user_version = -2, 5

    fields = b"m2mdb format 1\0\0" + struct.pack("<III", 1, 1, 4096) + bytes(range(16)) + bytes(4)
    fields += struct.pack("<QQQQIIii", 9, 8, 7, 6, 2, 3, -2, 5)
    assert found.encode() == resealed(fields.ljust(512, b"\0"))


def test_a_number_without_a_next_one_is_refused() -> None:
    last = header()
    last.catalog_number = LARGEST_NUMBER + 1
    with pytest.raises(CorruptDatabaseError, match="expected at most"):
        Header.decode(last.encode(), "file")
