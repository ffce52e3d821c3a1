"""Every single-bit flip of a closed file is found before it gives a wrong answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from m2mdb.index.untrusted import admit
from m2mdb.pager.errors import CorruptDatabaseError, DatabaseError
from m2mdb.pager.extent import Extent
from m2mdb.pager.header import FIRST_PAGE_SIZE, HEADER_SIZE, Header, LogFlag
from m2mdb.pager.page import decode_page
from tests.hostile.campaign import SHARDS, shard_bits
from tests.hostile.flips import PAGE, SharedCopy, free_pages, judge, made_file, opened

PAGES = len(made_file()) // PAGE


def extents() -> list[Extent]:
    copy = SharedCopy()
    database = opened(copy)
    with database.reading() as view:
        found = [
            view.pages.extent(descriptor)
            for entry in view.catalog.by_id.values()
            for record in (*entry.records.values(), *entry.past.values())
            for descriptor in record.extents
        ]
    database.close()
    return found


def test_the_file_has_every_structure() -> None:
    copy = SharedCopy()
    database = opened(copy)
    with database.reading() as view:
        notes = view.collection("notes").entry
        assert len(notes.records) >= 1 and any(r.deleted for r in notes.records.values())
        assert len(view.collection("notes").mirror) > 0
        assert any(index.kind == "btree" for index in notes.schema.indexes)
    database.close()
    assert free_pages() and extents()
    kinds = {
        made_file()[(number - 1) * PAGE + 12]
        for number in range(2, PAGES + 1)
        if number not in free_pages()
    }
    assert {2, 4} <= kinds, "leaves and overflow pages"


def flipped(raw: bytes) -> Iterator[bytes]:
    """All that a single flip makes of some bytes."""
    data = bytearray(raw)
    for bit in range(len(raw) * 8):
        data[bit // 8] ^= 1 << bit % 8
        yield bytes(data)
        data[bit // 8] ^= 1 << bit % 8


def test_every_bit_of_page_1_is_guarded() -> None:
    raw = made_file()[:PAGE]
    for one in flipped(raw[:HEADER_SIZE]):
        with pytest.raises(DatabaseError):
            Header.decode(one, "file")
    for one in flipped(raw[HEADER_SIZE:FIRST_PAGE_SIZE]):
        with pytest.raises(CorruptDatabaseError):
            LogFlag.decode(one, "file")
    assert not any(raw[FIRST_PAGE_SIZE:])  # integrity_check compares the rest with zeros


def test_every_bit_of_every_tree_page_is_guarded() -> None:
    inside = {
        number
        for extent in extents()
        for number in range(
            extent.descriptor.start_page,
            extent.descriptor.start_page + extent.descriptor.page_count,
        )
    }
    others = [n for n in range(2, PAGES + 1) if n not in inside and n not in free_pages()]
    assert len(others) >= 8
    for number in others:
        raw = made_file()[(number - 1) * PAGE : number * PAGE]
        assert decode_page(raw, number, PAGE, "file")
        missed = 0
        for one in flipped(raw):
            try:
                decode_page(one, number, PAGE, "file")
                missed += 1
            except CorruptDatabaseError:
                pass
        assert missed == 0, f"{missed} flips in page {number} were not found"


def test_every_bit_of_every_extent_is_guarded() -> None:
    """Content, padding, the array of checksums, and the slack behind it."""
    for extent in extents():
        start = (extent.descriptor.start_page - 1) * PAGE
        copy = SharedCopy()
        for bit in range(start * 8, (start + extent.descriptor.page_count * PAGE) * 8):
            copy.flip(bit)
            again = Extent(copy.file, extent.descriptor, PAGE, "file")
            with pytest.raises(CorruptDatabaseError):
                again.verify_all()
            copy.flip(bit)


def test_the_shards_visit_each_bit_once() -> None:
    visited = [bit for seed in range(SHARDS) for bit in shard_bits(seed)]

    assert sorted(visited) == list(range(len(made_file()) * 8))


@pytest.mark.parametrize("page", range(1, PAGES + 1))
def test_a_flip_is_found_or_changes_nothing(page: int) -> None:
    choose = random.Random(page)
    copy = SharedCopy()
    bits = [choose.randrange((page - 1) * PAGE * 8, page * PAGE * 8) for _ in range(4)]
    header = [((page - 1) * PAGE + at) * 8 + choose.randrange(8) for at in (9, 12, 14, 20)]

    found = [judge(copy, bit) for bit in bits + header]

    assert all(found) or page in free_pages()


def test_no_flip_gets_an_untrusted_file_admitted() -> None:
    from fuzz.seeded import open_database

    choose = random.Random(5)
    for _ in range(40):
        copy = SharedCopy()
        bit = choose.randrange(len(made_file()) * 8)
        if bit // 8 // PAGE + 1 in free_pages():
            continue
        copy.flip(bit)
        with pytest.raises(DatabaseError):
            database = open_database(copy.vfs, read_only=True, untrusted=True)
            try:
                admit(database)
            finally:
                database.close()
