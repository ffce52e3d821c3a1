"""Tree pages: what is encoded is decoded, and nothing else is."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import (
    Branch,
    Leaf,
    OverflowPage,
    OverflowReference,
    TreeNode,
    decode_page,
)

PAGE_SIZES = [512, 4096, 8192, 16384, 32768, 65536]
REFERENCES = st.builds(OverflowReference.of, st.integers(1, 2**32 - 1), st.integers(1, 2**64 - 1))


@st.composite
def leaves(draw: st.DrawFn) -> tuple[Leaf, int]:
    page_size = draw(st.sampled_from(PAGE_SIZES))
    count = draw(st.integers(0, 40) | st.integers(500, 600))
    generator = random.Random(draw(st.integers(0, 999)))
    key_size = draw(st.sampled_from([0, 2, 8, 30]))
    uniform = draw(st.booleans())
    leaf = Leaf([], [])
    for number in range(count):
        size = key_size if uniform else generator.randrange(key_size + 1)
        key = struct.pack(">I", number) + generator.randbytes(size)
        value = generator.randbytes(5 if uniform else generator.randrange(90))
        if draw(st.booleans()) if number < 3 else generator.random() < 0.1 and not uniform:
            value = draw(REFERENCES)
        if leaf.size + 6 + len(key) + len(value) <= page_size - 24:
            leaf.insert(number, key, value)
        else:
            break
    return leaf, page_size


@st.composite
def branches(draw: st.DrawFn) -> tuple[Branch, int]:
    page_size = draw(st.sampled_from(PAGE_SIZES))
    generator = random.Random(draw(st.integers(0, 999)))
    branch = Branch([], [draw(st.integers(1, 2**32 - 1))])
    for number in range(draw(st.integers(0, 600))):
        key = struct.pack(">I", number) + generator.randbytes(generator.randrange(5))
        if branch.size + 6 + len(key) <= page_size - 24:
            branch.insert(len(branch.keys), key, generator.randrange(1, 2**32))
        else:
            break
    return branch, page_size


@st.composite
def overflow_pages(draw: st.DrawFn) -> tuple[OverflowPage, int]:
    page_size = draw(st.sampled_from(PAGE_SIZES))
    size = draw(st.integers(1, page_size - 24))
    data = random.Random(size).randbytes(size)
    return OverflowPage(draw(st.integers(0, 2**32 - 1)), data), page_size


NODES = st.one_of(leaves(), branches(), overflow_pages())
NUMBERS = st.integers(1, 2**32 - 1)


def parts(node: TreeNode) -> tuple[object, ...]:
    if isinstance(node, Leaf):
        return node.keys, node.values, [*map(type, node.values)], node.size
    if isinstance(node, Branch):
        return node.keys, node.children, node.size
    return node.next, node.data


def resealed(raw: bytes | bytearray) -> bytes:
    return struct.pack("<Q", xxh3_64_intdigest(bytes(raw[8:]))) + bytes(raw[8:])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(NODES, NUMBERS)
def test_nodes_survive_encode_and_decode(case: tuple[TreeNode, int], number: int) -> None:
    node, page_size = case

    raw = node.encode(number, page_size)
    found = decode_page(raw, number, page_size, "file")

    assert len(raw) == page_size
    assert type(found) is type(node)
    assert parts(found) == parts(node)
    assert found.encode(number, page_size) == raw
    assert parts(decode_page(memoryview(raw), number, page_size, "file")) == parts(node)
    assert raw[24 + node.size :] == bytes(page_size - 24 - node.size), "PG3"


@pytest.mark.parametrize(
    "node",
    [
        Leaf([b"key", b"other"], [b"value", OverflowReference.of(3, 9)]),
        Branch([b"key", b"other"], [3, 4, 5]),
        OverflowPage(9, b"piece" * 20),
    ],
)
def test_a_flipped_bit_is_found_wherever_it_is(node: TreeNode) -> None:
    good = node.encode(7, 512)

    for bit in range(512 * 8):
        raw = bytearray(good)
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptDatabaseError, match=r"^page 7 of file: checksum 0x\w{16}, "):
            decode_page(raw, 7, 512, "file")


@settings(max_examples=600, deadline=None, derandomize=True)
@given(NODES, st.data())
def test_a_sealed_page_with_other_bytes_is_a_node_or_damage(
    case: tuple[TreeNode, int], data: st.DataObject
) -> None:
    node, page_size = case
    raw = bytearray(node.encode(7, page_size))
    generator = random.Random(data.draw(st.integers(0, 9999)))
    for _ in range(generator.randrange(1, 4)):
        limit = min(generator.choice([24, 60, 600, page_size]), page_size)
        raw[generator.randrange(8, limit)] = generator.randrange(256)

    accepted_or_damage(resealed(raw), page_size)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.data(), st.booleans(), st.sampled_from([2, 3, 4]))
def test_any_bytes_are_a_node_or_damage(data: st.DataObject, sealed: bool, kind: int) -> None:
    count = data.draw(st.integers(0, 90) | st.integers(0, 65535))
    used = data.draw(st.integers(0, 488) | st.integers(0, 2**32 - 1))
    rest = data.draw(st.binary(max_size=488)).ljust(488, b"\0")
    raw = struct.pack("<QIBBHII", 0, 7, kind, 0, count, 0, used) + rest

    accepted_or_damage(resealed(raw) if sealed else raw, 512)


@given(st.binary(max_size=600))
def test_pages_of_another_size_are_damage(raw: bytes) -> None:
    accepted_or_damage(raw, 512)


def accepted_or_damage(raw: bytes, page_size: int) -> None:
    try:
        node = decode_page(raw, 7, page_size, "file")
    except CorruptDatabaseError as error:
        assert str(error).startswith("page 7 of file: ")
        return
    again = decode_page(node.encode(7, page_size), 7, page_size, "file")
    assert parts(again) == parts(node)


def sealed_leaf(keys: list[bytes], values: list[bytes], **changes: int) -> bytes:
    """A leaf of 512 bytes, made by hand: nothing is checked on the way."""
    table = struct.pack(
        f"<{len(keys)}H{len(keys)}I",
        *map(len, keys),
        *(len(v) | changes.get("bit", 0) for v in values),
    )
    content = table + b"".join(keys) + b"".join(values)
    used = changes.get("used", len(content))
    head = struct.pack("<QIBBHII", 0, 7, 2, 0, len(keys), 0, used)
    return resealed((head + content).ljust(512, b"\0"))


REFERENCE_BIT = 1 << 31


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (sealed_leaf([b"b", b"a"], [b"", b""]), "keys that do not ascend"),
        (sealed_leaf([b"a", b"a"], [b"", b""]), "keys that do not ascend"),
        (sealed_leaf([b"a"], [b"v"], used=9), "cells end at byte 32, expected 33"),
        (sealed_leaf([b"a"], [b"v"], used=4), "a table of 1 cells in 4 bytes"),
        (sealed_leaf([b"a"], [b"v"], used=489), "489 bytes used of 512"),
        (sealed_leaf([b"a"], [b"v"], bit=REFERENCE_BIT), "an overflow reference of 1 bytes"),
        (sealed_leaf([b"a"], [bytes(16)], bit=REFERENCE_BIT), "reference to page 0, 0 bytes"),
        (bytes(512), "checksum"),
        (resealed(bytes(512)), "the page found there is page 0"),
        (resealed(struct.pack("<QIBBHII", 0, 7, 9, 0, 0, 0, 0).ljust(512, b"\0")), "kind 9"),
        (resealed(struct.pack("<QIBBHII", 0, 7, 2, 0, 0, 5, 0).ljust(512, b"\0")), "next 5"),
        (resealed(struct.pack("<QIBBHII", 0, 7, 4, 0, 0, 5, 0).ljust(512, b"\0")), "0 bytes used"),
        (resealed(struct.pack("<QIBBHIII", 0, 7, 3, 0, 0, 0, 4, 0).ljust(512, b"\0")), "page 0"),
        (b"short", "5 bytes, expected 512"),
    ],
)
def test_a_damaged_structure_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(CorruptDatabaseError, match="^page 7 of file: .*" + message):
        decode_page(raw, 7, 512, "file")


def test_a_branch_whose_keys_do_not_ascend_is_damage() -> None:
    for keys in ([b"b", b"a"], [b"a", b"a"]):
        with pytest.raises(CorruptDatabaseError, match="page 7 of file: keys that do not ascend"):
            decode_page(Branch(keys, [2, 3, 4]).encode(7, 512), 7, 512, "file")


def test_a_misdirected_page_is_found() -> None:
    raw = Leaf([b"k"], [b"v"]).encode(8, 4096)

    with pytest.raises(
        CorruptDatabaseError, match="page 7 of file: the page found there is page 8"
    ):
        decode_page(raw, 7, 4096, "file")


def test_a_copy_is_private() -> None:
    leaf, branch = Leaf([b"k"], [b"v"]), Branch([b"k"], [2, 3])

    leaf.copy().insert(0, b"a", b"")
    leaf.copy().replace(0, b"other")
    branch.copy().remove(0)

    assert (leaf.keys, leaf.values, branch.keys, branch.children) == (
        [b"k"],
        [b"v"],
        [b"k"],
        [2, 3],
    )


def test_a_leaf_has_the_bytes_of_the_format() -> None:
    raw = Leaf([b"a", b"bc"], [b"xyz", OverflowReference.of(9, 70_000)]).encode(5, 512)

    head = struct.pack("<IBBHII", 5, 2, 0, 2, 0, 12 + 3 + 3 + 16)
    table = struct.pack("<2H2I", 1, 2, 3, 16 | 1 << 31)
    content = table + b"abcxyz" + struct.pack("<IIQ", 9, 0, 70_000)
    assert raw == resealed((bytes(8) + head + content).ljust(512, b"\0"))


def test_a_branch_has_the_bytes_of_the_format() -> None:
    raw = Branch([b"a", b"bc"], [7, 8, 9]).encode(5, 512)

    head = struct.pack("<IBBHII", 5, 3, 0, 2, 0, 4 + 12 + 3)
    content = struct.pack("<2H3I", 1, 2, 7, 8, 9) + b"abc"
    assert raw == resealed((bytes(8) + head + content).ljust(512, b"\0"))
