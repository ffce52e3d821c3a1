"""Pages and what they make: tree pages, whole trees, the first page, the free map.

page     one page of 512 bytes; its checksum is put right, its number is what it says
tree     pages of 512 bytes, put right, numbered from 2: a tree to read, check and change
header   two sectors, put right unless the first byte of the second one is odd
"""

from __future__ import annotations

import contextlib
import random
from itertools import islice
from struct import Struct, pack_into

from xxhash import xxh3_64_intdigest

from fuzz.target import Target
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError, Error
from m2mdb.pager.extent import ExtentDescriptor
from m2mdb.pager.freespace import FreeMap, decode_run
from m2mdb.pager.header import Header, LogFlag
from m2mdb.pager.page import Branch, Leaf, OverflowPage, OverflowReference, TreeNode, decode_page
from m2mdb.pager.pages import Node

PAGE = 512
_NUMBER = Struct("<I")
_ITEMS = 20_000  # of one scan: far more than pages of 512 bytes can hold


def sealed_page(raw: bytes, number: int, size: int = PAGE) -> bytes:
    """A page of the right size, with its checksum and its number."""
    data = bytearray(raw[:size].ljust(size, b"\0"))
    pack_into("<I", data, 8, number)
    pack_into("<Q", data, 0, xxh3_64_intdigest(memoryview(data)[8:]))
    return bytes(data)


def run_page(data: bytes) -> None:
    """Decode, and what was decoded encodes to a page that decodes to the same."""
    raw = data[:PAGE].ljust(PAGE, b"\0")
    (number,) = _NUMBER.unpack_from(raw, 8)
    node = decode_page(sealed_page(raw, number), number, PAGE, "fuzz")
    again = decode_page(node.encode(number, PAGE), number, PAGE, "fuzz")
    if isinstance(node, OverflowPage):
        assert isinstance(again, OverflowPage)
        assert (node.next, node.data) == (again.next, again.data)
    else:
        assert not isinstance(again, OverflowPage)
        assert node.keys == again.keys


def _keys(choose: random.Random, count: int) -> list[bytes]:
    return sorted({choose.randbytes(choose.randint(1, 12)) for _ in range(count)})


def page_seeds() -> list[bytes]:
    """Leaves, branches and overflow pages."""
    choose = random.Random(1)
    nodes: list[TreeNode] = []
    for count in (0, 1, 2, 5, 12):
        keys = _keys(choose, count)
        nodes.append(Leaf(keys, [choose.randbytes(choose.randint(0, 20)) for _ in keys]))
        nodes.append(Leaf(keys, [b"same"] * len(keys)))
        nodes.append(Branch(keys, [choose.randint(1, 99) for _ in range(len(keys) + 1)]))
    nodes.append(Leaf([b"a", b"b"], [OverflowReference.of(3, 700), b"x"]))
    nodes.append(OverflowPage(7, bytes(488)))
    nodes.append(OverflowPage(0, b"end"))
    return [node.encode(9, PAGE) for node in nodes]


class MemoryPages:
    """Pages of a made file, decoded when they are asked for, with a transaction's changes."""

    def __init__(self, data: bytes) -> None:
        self.page_size = PAGE
        self.raw = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        self.nodes: dict[int, Node] = {}
        self.count = len(self.raw) + 1

    def get(self, page_number: int) -> Node:
        """The node, as a snapshot gives it."""
        if page_number not in self.nodes:
            if not 2 <= page_number < len(self.raw) + 2:
                raise CorruptDatabaseError(f"page {page_number} of fuzz: no page")
            raw = sealed_page(self.raw[page_number - 2], page_number)
            self.nodes[page_number] = decode_page(raw, page_number, PAGE, "fuzz")
        return self.nodes[page_number]

    def change(self, page_number: int) -> Node:
        """A copy, as a transaction gives it."""
        self.nodes[page_number] = self.get(page_number).copy()
        return self.nodes[page_number]

    def put(self, page_number: int, node: Node) -> None:
        """Replace a page."""
        self.nodes[page_number] = node

    def allocate(self) -> int:
        """A new page."""
        self.count += 1
        return self.count

    def free(self, page_number: int) -> None:
        """Give a page back."""
        self.get(page_number)


def run_tree(data: bytes) -> None:
    """Every call on a tree, each of which may find its damage anew."""
    tree = BTree(MemoryPages(data), 2)
    found: list[str] = []
    tree.check(found.append)
    key = data[40:44]
    calls = [
        lambda: tree.get(key),
        lambda: list(islice(tree.scan(), _ITEMS)),
        lambda: list(islice(tree.scan(key, b"\xf0", reverse=True), _ITEMS)),
        tree.first,
        tree.last,
        lambda: list(tree.pages_used()),
        lambda: FreeMap.load(tree, 1 << 20, "fuzz"),
        lambda: tree.put(key, data[50:350]),
        lambda: tree.put(data[60:62], b"v"),
        lambda: tree.delete(key),
        tree.clear,
    ]
    for call in calls:
        try:
            result = call()
        except Error:
            continue
        assert not isinstance(result, list) or len(result) < _ITEMS, "a scan without an end"


def tree_seeds() -> list[bytes]:
    """Trees of one to twelve pages, with and without long values."""
    choose = random.Random(2)
    found = []
    for count, longest in ((0, 0), (6, 20), (40, 30), (60, 60), (12, 1200), (3, 2500)):
        pages = MemoryPages(b"")
        tree = BTree(pages, BTree.create(pages))
        for _ in range(count):
            tree.put(choose.randbytes(choose.randint(1, 9)), choose.randbytes(longest))
        numbers = range(2, pages.count + 1)
        found.append(b"".join(pages.nodes[number].encode(number, PAGE) for number in numbers))
    pages = MemoryPages(b"")
    tree = BTree(pages, BTree.create(pages))
    for number in range(30):
        key, value = (number * 9 + 4).to_bytes(8, "big"), number.to_bytes(12, "little")
        assert decode_run(key, b"\1" + value[1:])
        tree.put(key, b"\1" + value[1:])
    found.append(b"".join(pages.nodes[n].encode(n, PAGE) for n in range(2, pages.count + 1)))
    return found


def run_header(data: bytes) -> None:
    """The first page's two sectors and a descriptor of an extent."""
    raw = bytearray(data[:1024].ljust(1024, b"\0"))
    if not raw[512] & 1:
        for at in (0, 512):
            pack_into("<Q", raw, at + 504, xxh3_64_intdigest(memoryview(raw)[at : at + 504]))
    for decode in (
        lambda: LogFlag.decode(raw[512:], "fuzz"),
        lambda: ExtentDescriptor.decode(data),
    ):
        with contextlib.suppress(Error):
            decode()
    header = Header.decode(raw, "fuzz")
    assert Header.decode(header.encode(), "fuzz") == header


def header_seeds() -> list[bytes]:
    """Headers with a clear flag, a flag of zeros and a needed one."""
    header = Header(4096, bytes(range(16)))
    header.page_count, header.commit = 70, 9
    flags = [LogFlag.clear().encode(), bytes(512), LogFlag.needed_for(5, 6).encode()]
    return [header.encode() + flag for flag in flags]


TARGETS = [
    Target("page", run_page, page_seeds, share=2.0, in_place=True),
    Target("tree", run_tree, tree_seeds, share=2.0, in_place=True),
    Target("header", run_header, header_seeds, share=1.0, in_place=True),
]
