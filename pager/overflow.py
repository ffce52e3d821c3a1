"""Overflow chains: values too long for a leaf.

A value of a leaf is then a reference {first page, length}; its bytes stand in a chain of pages,
each full but the last:

    leaf cell --> | piece, next --|--> | piece, next --|--> | last piece, 0 |

Invariants
    O1  Reading takes no more memory than the pages that the file really has: a chain that comes
        back to one of its pages, or is longer or shorter than its reference says, is damage.
    O2  A chain belongs to one cell, and is freed with it; whoever reads many values passes the
        pages that were seen, so that all of them together take no more than the file has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import PAGE_HEADER_SIZE, OverflowPage, OverflowReference

if TYPE_CHECKING:
    from m2mdb.pager.pages import MutablePages, Pages


def write_chain(pages: MutablePages, value: bytes) -> OverflowReference:
    """Put a value, which is not empty, into new pages."""
    capacity = pages.page_size - PAGE_HEADER_SIZE
    offsets = range(0, len(value), capacity)
    numbers = [pages.allocate() for _ in offsets]
    following = [*numbers[1:], 0]
    for number, after, offset in zip(numbers, following, offsets, strict=True):
        pages.put(number, OverflowPage(after, value[offset : offset + capacity]))
    return OverflowReference.of(numbers[0], len(value))


def read_chain(pages: Pages, reference: OverflowReference, seen: set[int] | None = None) -> bytes:
    """The value that a reference stands for; CorruptDatabaseError by O1 and O2."""
    return b"".join([piece.data for _, piece in chain(pages, reference, seen)])


def free_chain(pages: MutablePages, reference: OverflowReference) -> None:
    """Free the pages of a value."""
    for number in [number for number, _ in chain(pages, reference)]:
        pages.free(number)


def chain(
    pages: Pages, reference: OverflowReference, seen: set[int] | None = None
) -> Iterator[tuple[int, OverflowPage]]:
    """The pages of a chain in order, each checked; raises CorruptDatabaseError by O1 and O2.

    `seen` holds the pages of other chains, and gets those of this one.
    """
    capacity = pages.page_size - PAGE_HEADER_SIZE
    missing = reference.length
    number = reference.first_page
    own: set[int] = set()
    while missing:
        if not number or number in own:
            problem = "comes back to it" if number else "ends too early"
            raise _chain_error(number, reference, f"{problem}, {missing} bytes are missing")
        own.add(number)
        if seen is not None:
            if number in seen:
                raise _chain_error(number, reference, "is in another chain too")
            seen.add(number)
        piece = pages.get(number)
        if type(piece) is not OverflowPage:
            raise _chain_error(number, reference, "is no overflow page")
        size = len(piece.data)
        if size != min(missing, capacity):
            text = f"holds {size} bytes, expected {min(missing, capacity)}"
            raise _chain_error(number, reference, text)
        yield number, piece
        missing -= size
        number = piece.next
    if number:
        raise _chain_error(number, reference, "follows the last byte")


def _chain_error(number: int, reference: OverflowReference, text: str) -> CorruptDatabaseError:
    return CorruptDatabaseError(
        f"overflow chain of {reference.length} bytes from page {reference.first_page}: "
        f"page {number} {text}"
    )
