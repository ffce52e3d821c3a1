"""docs/format.md describes the bytes: its reader reads what the pager writes."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_64_intdigest

from m2mdb.pager.btree import BTree
from m2mdb.pager.freespace import encode_run
from m2mdb.pager.header import Header, LogFlag
from m2mdb.pager.os_vfs import OsVfs
from m2mdb.wal.store import Store, StoreOptions
from tests.pager.dict_pages import DictPages

DOC = Path(__file__).parent.parent.parent / "docs" / "format.md"


def read_by_the_doc(path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (reader,) = re.findall(r"```python\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["reader", str(path)])
    names: dict[str, Any] = {}
    exec(compile(reader, "docs/format.md", "exec"), names)
    return names


def database(page_size: int, items: dict[bytes, bytes], runs: list[tuple[int, int, int]]) -> bytes:
    """A cleanly closed file, made of the pager's parts."""
    pages = DictPages(page_size)
    catalog, free = BTree(pages, BTree.create(pages)), BTree(pages, BTree.create(pages))
    for key, value in items.items():
        catalog.put(key, value)
    free.bulk_load(encode_run(*run) for run in runs)
    header = Header(page_size, bytes(16))
    header.page_count = pages.page_count
    first = bytearray(header.encode(1, page_size))
    first[512:1024] = LogFlag(False, 5, 1).encode()
    return bytes(first) + b"".join(pages.images().values())


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_the_reader_in_the_doc_reads_a_file(
    page_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = {b"%05d" % n: b"value %d " % n * (n % 700) for n in range(0, 9000, 37)}
    runs = [(50, 3, 7), (90, 1, 8)]
    path = tmp_path / "notes.m2m"
    path.write_bytes(database(page_size, items, runs))

    found = read_by_the_doc(path, monkeypatch)

    assert found["catalog"] == items
    assert found["free"] == runs


def test_the_reader_in_the_doc_reads_what_a_store_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notes.m2m"
    store = Store.open(OsVfs(), str(path), StoreOptions(create=True))
    items = {b"%05d" % n: b"v" * (n * 7919 % 5000) for n in range(600)}
    writer = store.begin_write()
    BTree(writer, 2).bulk_load(items.items())
    writer.commit_now()
    writer = store.begin_write()
    for key in [*items][::3]:
        BTree(writer, 2).delete(key)
        del items[key]
    writer.commit_now()
    store.close()

    found = read_by_the_doc(path, monkeypatch)

    assert found["catalog"] == items
    assert found["free"] and {commit for _, _, commit in found["free"]} == {2}


def test_the_reader_in_the_doc_refuses_a_file_that_needs_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = database(4096, {}, [])
    flag = LogFlag.needed_for(5, 1).encode()
    path = tmp_path / "notes.m2m"
    path.write_bytes(raw[:512] + flag + raw[1024:])

    with pytest.raises(AssertionError, match="in the log"):
        read_by_the_doc(path, monkeypatch)


def test_tables_of_offsets_in_the_doc_add_up() -> None:
    """Rows `| offset | size |` of a table follow each other without a gap."""
    tables = re.findall(r"\| offset \| size .*?\n((?:\|.*\n)+)", DOC.read_text("utf-8"))
    checked = 0

    for table in tables:
        end = None
        for row in table.splitlines()[1:]:
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            if not (cells[0].isdigit() and cells[1].isdigit()):
                break
            assert end is None or int(cells[0]) == end, row
            end = int(cells[0]) + int(cells[1])
            checked += 1

    assert checked > 45


def test_checksums_are_what_the_doc_says() -> None:
    raw = Header(4096, bytes(16)).encode()

    assert struct.unpack_from("<Q", raw, 504)[0] == xxh3_64_intdigest(raw[:504])
