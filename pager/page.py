"""Tree pages: how a leaf, a branch and a piece of a long value stand in a page.

Every page but page 1 begins with this header (little-endian, as everything in the file):

    offset  size  field
         0     8  checksum     xxh3-64 of bytes 8..page_size
         8     4  page number  its own, so that a misdirected write is found
        12     1  kind         2 leaf, 3 branch, 4 overflow
        13     1  zero
        14     2  count        cells of a leaf, keys of a branch, 0
        16     4  next         the next page of an overflow chain, else 0
        20     4  used         bytes of content behind the header; the rest of the page is zero

and then its content:

    leaf      u16 key length[count], u32 value length[count], keys, values
    branch    u16 key length[count], u32 child[count + 1], keys
    overflow  a piece of the value; all pieces but the last fill their page

The top bit of a value length says that the value is an overflow reference of 16 bytes: u32 first
page, u32 zero, u64 length of the value. Child i of a branch holds the keys that are less than key
i and not less than key i - 1.

A decoded page is a node: lists of bytes, on which bisect works at C speed. The tables of lengths
stand together so that one struct call reads them all.

Invariants
    PG1 Decoding accepts exactly what encoding makes: checksum, own number, lengths that add up to
        `used`, keys strictly ascending, no child 0. Anything else is CorruptDatabaseError.
    PG2 `size` of a node is what `encode` will put behind the header, after every change.
    PG3 Bytes behind `used` are zero: nothing of an older content is left in a page.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from operator import lt
from struct import Struct
from typing import Self

from xxhash import xxh3_64_intdigest

from m2mdb.pager.errors import CorruptDatabaseError

PAGE_HEADER_SIZE = 24
LEAF_KIND = 2
BRANCH_KIND = 3
OVERFLOW_KIND = 4
CELL_SIZE = 6  # bytes in the tables of a leaf for each cell
ENTRY_SIZE = 6  # bytes in the tables of a branch for each key and the child to its right
CHILD_SIZE = 4  # bytes of the leftmost child
REFERENCE_SIZE = 16

_HEADER = Struct("<QIBBHII")
_HEADER_AFTER_CHECKSUM = Struct("<IBBHII")
_CHECKSUM = Struct("<Q")
_REFERENCE = Struct("<IIQ")
_REFERENCE_BIT = 1 << 31
_leaf_tables: dict[int, Struct] = {}
_branch_tables: dict[int, Struct] = {}
_runs: dict[tuple[int, int], Struct] = {}  # (length, count) of items that are equally long
_SHORT_RUN = 6  # items; fewer are cut one by one
_LONG_RUN = 512  # items; more are too rare to keep a struct of some 24 bytes an item for
_RUNS = 512  # structs that are kept


class OverflowReference(bytes):
    """A value that stands in a chain of overflow pages; its bytes are those in the leaf."""

    __slots__ = ()

    @classmethod
    def of(cls, first_page: int, length: int) -> Self:
        """The reference to a chain."""
        return cls(_REFERENCE.pack(first_page, 0, length))

    @property
    def first_page(self) -> int:
        """Page number of the chain's first page."""
        first: int = _REFERENCE.unpack(self)[0]
        return first

    @property
    def length(self) -> int:
        """Bytes of the value."""
        length: int = _REFERENCE.unpack(self)[2]
        return length


class Leaf:
    """Sorted keys and, at the same places, their values (bytes or OverflowReference)."""

    __slots__ = ("has_references", "keys", "size", "values")

    def __init__(
        self, keys: list[bytes], values: list[bytes], size: int = -1, has_references: bool = False
    ) -> None:
        self.keys = keys
        self.values = values
        self.size = size
        self.has_references = has_references
        if size < 0:
            self.size = CELL_SIZE * len(keys) + sum(map(len, keys)) + sum(map(len, values))
            self.has_references = OverflowReference in set(map(type, values))

    def copy(self) -> Leaf:
        """A private copy: its own lists, sharing the immutable items."""
        return Leaf(self.keys[:], self.values[:], self.size, self.has_references)

    def insert(self, index: int, key: bytes, value: bytes) -> None:
        """Put a new cell before the cell at `index`."""
        self.keys.insert(index, key)
        self.values.insert(index, value)
        self.size += CELL_SIZE + len(key) + len(value)
        if type(value) is not bytes:
            self.has_references = True

    def replace(self, index: int, value: bytes) -> None:
        """Give a cell another value."""
        self.size += len(value) - len(self.values[index])
        self.values[index] = value
        if type(value) is not bytes:
            self.has_references = True

    def remove(self, index: int) -> None:
        """Take a cell away."""
        self.size -= CELL_SIZE + len(self.keys[index]) + len(self.values[index])
        del self.keys[index]
        del self.values[index]

    def encode(self, page_number: int, page_size: int) -> bytes:
        """The whole page."""
        keys = self.keys
        values = self.values
        count = len(keys)
        table = _leaf_tables.get(count) or _leaf_table(count)
        if self.has_references:
            lengths = [len(v) | (_REFERENCE_BIT * (type(v) is not bytes)) for v in values]
            head = table.pack(*map(len, keys), *lengths)
        else:
            head = table.pack(*map(len, keys), *map(len, values))
        content = b"".join((head, *keys, *values))
        assert len(content) == self.size, "PG2: size of a leaf"
        return _seal(LEAF_KIND, page_number, page_size, count, content)


class Branch:
    """Separator keys and one child more: child i holds the keys in key[i - 1] <= key < key[i]."""

    __slots__ = ("children", "keys", "size")

    def __init__(self, keys: list[bytes], children: list[int], size: int = -1) -> None:
        self.keys = keys
        self.children = children
        self.size = size
        if size < 0:
            self.size = CHILD_SIZE + ENTRY_SIZE * len(keys) + sum(map(len, keys))

    def copy(self) -> Branch:
        """A private copy: its own lists, sharing the immutable items."""
        return Branch(self.keys[:], self.children[:], self.size)

    def insert(self, index: int, key: bytes, child: int) -> None:
        """Put a separator before the one at `index`, and the child to its right."""
        self.keys.insert(index, key)
        self.children.insert(index + 1, child)
        self.size += ENTRY_SIZE + len(key)

    def remove(self, index: int) -> None:
        """Take the child at `index` away, and a separator beside it."""
        del self.children[index]
        if self.keys:
            key = self.keys.pop(index - 1 if index else 0)
            self.size -= ENTRY_SIZE + len(key)

    def encode(self, page_number: int, page_size: int) -> bytes:
        """The whole page."""
        keys = self.keys
        count = len(keys)
        assert len(self.children) == count + 1, "PG1: children of a branch"
        table = _branch_tables.get(count) or _branch_table(count)
        content = b"".join((table.pack(*map(len, keys), *self.children), *keys))
        assert len(content) == self.size, "PG2: size of a branch"
        return _seal(BRANCH_KIND, page_number, page_size, count, content)


class OverflowPage:
    """A piece of a long value and the number of the page with the next piece (0: the last)."""

    __slots__ = ("data", "next")

    def __init__(self, next_page: int, data: bytes) -> None:
        self.next = next_page
        self.data = data

    @property
    def size(self) -> int:
        """Bytes of the piece."""
        return len(self.data)

    def copy(self) -> OverflowPage:
        """A private copy."""
        return OverflowPage(self.next, self.data)

    def encode(self, page_number: int, page_size: int) -> bytes:
        """The whole page."""
        return _seal(OVERFLOW_KIND, page_number, page_size, 0, self.data, self.next)


TreeNode = Leaf | Branch | OverflowPage


def decode_page(
    raw: bytes | bytearray | memoryview, page_number: int, page_size: int, where: str
) -> TreeNode:
    """The node that a page holds; `where` names the file or log in errors.

    Raises CorruptDatabaseError where checksum, page number or structure fail.
    """
    if type(raw) is not bytes:
        raw = bytes(raw)
    if len(raw) != page_size:
        raise page_error(page_number, where, f"{len(raw)} bytes, expected {page_size}")
    stored, number, kind, zero, count, next_page, used = _HEADER.unpack_from(raw)
    checksum = xxh3_64_intdigest(memoryview(raw)[8:])
    if checksum != stored:
        text = f"checksum {checksum:#018x}, expected {stored:#018x}"
        raise page_error(page_number, where, text)
    if number != page_number:
        raise page_error(page_number, where, f"the page found there is page {number}")
    end = PAGE_HEADER_SIZE + used
    if end > page_size or zero:
        raise page_error(page_number, where, f"{used} bytes used of {page_size}, byte 13 is {zero}")
    try:
        if kind == LEAF_KIND and not next_page:
            return _decode_leaf(raw, count, end)
        if kind == BRANCH_KIND and not next_page:
            return _decode_branch(raw, count, end)
        if kind == OVERFLOW_KIND and not count and used:
            return OverflowPage(next_page, raw[PAGE_HEADER_SIZE:end])
    except _StructureError as error:
        raise page_error(page_number, where, str(error)) from None
    text = f"no tree page: kind {kind}, count {count}, next {next_page}, {used} bytes used"
    raise page_error(page_number, where, text)


def page_error(page_number: int, where: str, text: str) -> CorruptDatabaseError:
    """The error that says what is wrong with a page."""
    return CorruptDatabaseError(f"page {page_number} of {where}: {text}")


class _StructureError(Exception):
    """A page whose checksum holds does not have the structure of its kind."""


def _leaf_table(count: int) -> Struct:
    table = _leaf_tables[count] = Struct(f"<{count}H{count}I")
    return table


def _branch_table(count: int) -> Struct:
    table = _branch_tables[count] = Struct(f"<{count}H{count + 1}I")
    return table


def _seal(
    kind: int, page_number: int, page_size: int, count: int, content: bytes, next_page: int = 0
) -> bytes:
    used = len(content)
    assert used + PAGE_HEADER_SIZE <= page_size, f"page {page_number}: {used} bytes do not fit"
    head = _HEADER_AFTER_CHECKSUM.pack(page_number, kind, 0, count, next_page, used)
    rest = (head + content).ljust(page_size - 8, b"\0")
    return _CHECKSUM.pack(xxh3_64_intdigest(rest)) + rest


def _decode_leaf(raw: bytes, count: int, end: int) -> Leaf:
    position = PAGE_HEADER_SIZE + CELL_SIZE * count
    if position > end:
        raise _StructureError(f"a table of {count} cells in {end - PAGE_HEADER_SIZE} bytes")
    table = _leaf_tables.get(count) or _leaf_table(count)
    lengths = table.unpack_from(raw, PAGE_HEADER_SIZE)
    keys, position = _cut(raw, position, end, lengths[:count])
    values, position = _cut(raw, position, end, lengths[count:])
    has_references = position != end
    if has_references:
        keys, values = _items_with_references(raw, lengths, count, end)
    if not all(map(lt, keys, keys[1:])):
        raise _StructureError("keys that do not ascend")
    return Leaf(keys, values, end - PAGE_HEADER_SIZE, has_references)


def _cut(raw: bytes, position: int, end: int, lengths: tuple[int, ...]) -> tuple[list[bytes], int]:
    """Cut items of these lengths; also says where the last one ends, which may be behind `end`."""
    count = len(lengths)
    if _SHORT_RUN < count <= _LONG_RUN:
        length = lengths[0]
        after = position + length * count
        if after <= end and lengths == (length,) * count:
            run = _runs.get((length, count)) or _run(length, count)
            return list(run.unpack_from(raw, position)), after
    items: list[bytes] = []
    append = items.append
    for length in lengths:
        after = position + length
        append(raw[position:after])
        position = after
    return items, position


def _run(length: int, count: int) -> Struct:
    if len(_runs) >= _RUNS:
        _runs.clear()
    run = _runs[length, count] = Struct(f"{length}s" * count)
    return run


def _items_with_references(
    raw: bytes, lengths: tuple[int, ...], count: int, end: int
) -> tuple[list[bytes], list[bytes]]:
    """Keys and values of a leaf where some value length has its top bit set."""
    real = [length & ~_REFERENCE_BIT for length in lengths]
    position = PAGE_HEADER_SIZE + CELL_SIZE * count
    ends = list(accumulate(real, initial=position))
    if ends[-1] != end:
        raise _StructureError(f"cells end at byte {ends[-1]}, expected {end}")
    items = [raw[start:stop] for start, stop in pairwise(ends)]
    for index in range(count, 2 * count):
        if lengths[index] & _REFERENCE_BIT:
            items[index] = _checked_reference(items[index])
    return items[:count], items[count:]


def _checked_reference(raw: bytes) -> OverflowReference:
    if len(raw) != REFERENCE_SIZE:
        raise _StructureError(f"an overflow reference of {len(raw)} bytes")
    first, zero, length = _REFERENCE.unpack(raw)
    if not first or zero or not length:
        raise _StructureError(f"an overflow reference to page {first}, {length} bytes")
    return OverflowReference(raw)


def _decode_branch(raw: bytes, count: int, end: int) -> Branch:
    position = PAGE_HEADER_SIZE + CHILD_SIZE + ENTRY_SIZE * count
    if position > end:
        raise _StructureError(f"a table of {count} keys in {end - PAGE_HEADER_SIZE} bytes")
    table = _branch_tables.get(count) or _branch_table(count)
    numbers = table.unpack_from(raw, PAGE_HEADER_SIZE)
    keys, position = _cut(raw, position, end, numbers[:count])
    if position != end:
        raise _StructureError(f"keys end at byte {position}, expected {end}")
    if not all(map(lt, keys, keys[1:])):
        raise _StructureError("keys that do not ascend")
    children = list(numbers[count:])
    if 0 in children:
        raise _StructureError("a child that is page 0")
    return Branch(keys, children, end - PAGE_HEADER_SIZE)
