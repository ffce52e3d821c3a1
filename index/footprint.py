"""Footprint: how many bytes of this process's own memory a connection holds for a collection.

What is warm lies in maps of the file, which the system may take back. What is counted here was
made from it and is kept: values and masks of columns, inverted lists as they were unpacked, rotated
centroids, codes of the delta, the tables of prepared searches, and decoded pages.

    own_bytes(root) --> arrays that own their numbers, texts, numbers, containers, objects of ours
                    --> stops at what others own: views, segments, extents, schemas, maps

Invariants
    FP1 No object is counted twice in one Counter, whoever refers to it.
    FP2 An array that looks into a map of the file counts nothing: those bytes are warm.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.audit import Audit
from m2mdb.index.catalog import CollectionEntry
from m2mdb.index.collection import CollectionView
from m2mdb.index.database import Database
from m2mdb.index.delta import DeltaMirror
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.index.segment import Segment
from m2mdb.index.view import View
from m2mdb.pager.extent import Extent

if TYPE_CHECKING:
    from m2mdb.wal.store import Store

_OTHERS = (
    Audit, CollectionEntry, CollectionSchema, CollectionView, Column, Database, DeltaMirror, Extent,
    Segment, View,
)  # fmt: skip
_OF_SEGMENT = {
    "_texts": "text", "_lists": "routing", "_matrices": "vectors", "_values": "columns",
    "_readers": "columns", "_views": "columns", "dictionaries": "columns", "masks": "columns",
}  # fmt: skip
_OF_DELTA = {"_codes": "codes", "_postings": "text", "vectors": "vectors"}
_PLAIN = (str, bytes, bytearray, int, float, complex, array)
_CHECK_EACH = 1 << 16  # objects between two looks for an interrupt
TEXT, COLUMNS, DELTA, PREPARED = "text", "columns", "delta", "prepared"


class Counter:
    """Counts objects, each once (FP1)."""

    def __init__(self, check: Callable[[], None]) -> None:
        """`check` is called now and then; it may raise."""
        self._check = check
        self._seen: set[int] = set()
        self._roots: list[Any] = []  # kept, so that no other object gets an id that was seen

    def own_bytes(self, root: Any) -> int:
        """Bytes of what hangs at an object and was not counted yet."""
        total = looked_at = 0
        self._roots.append(root)
        stack = [root]
        while stack:
            each = stack.pop()
            if each is None or each is True or each is False or id(each) in self._seen:
                continue
            looked_at += 1
            if not looked_at % _CHECK_EACH:
                self._check()
            self._seen.add(id(each))
            if isinstance(each, _PLAIN):
                total += sys.getsizeof(each)
            elif isinstance(each, np.ndarray):
                total += self._array_bytes(each)
            elif isinstance(each, dict | list | tuple | set | frozenset):
                total += sys.getsizeof(each) if each else 0
                stack.extend(each)
                if isinstance(each, dict):
                    stack.extend(each.values())
            elif isinstance(each, memoryview):
                stack.append(_owner(each))
            else:
                stack.extend(self._parts(each))
        return total

    def _array_bytes(self, found: np.ndarray) -> int:
        """What an array owns, or the bytes object that it looks into."""
        owner: Any = found
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        if owner is not found:
            return self.own_bytes(_owner(owner))
        return sys.getsizeof(found)

    def _parts(self, each: Any) -> Iterator[Any]:
        """What an object of this package, or a function made here, refers to."""
        if isinstance(each, _OTHERS):
            return
        if isinstance(each, FunctionType):
            yield from each.__closure__ or ()
        elif isinstance(each, CellType):
            yield each.cell_contents
        elif type(each).__module__.startswith("m2mdb."):
            for kind in type(each).__mro__:
                for name in getattr(kind, "__slots__", ()):
                    yield getattr(each, name, None)
            yield from getattr(each, "__dict__", {}).values()


def _owner(buffer: Any) -> Any:
    """What a memoryview looks into; None for a map of the file (FP2)."""
    owner = buffer.obj if isinstance(buffer, memoryview) else buffer
    return owner if isinstance(owner, (*_PLAIN, np.ndarray)) else None


def segment_bytes(
    segment: Segment, counter: Counter, content_of: Callable[[str], str]
) -> Iterator[tuple[str, int]]:
    """(content, bytes) of what is kept of a segment; contents may come more than once."""
    for (part, _), found in _slot(segment, "_arrays").items():
        yield content_of(part), counter.own_bytes(found)
    for name, content in _OF_SEGMENT.items():
        yield content, counter.own_bytes(_slot(segment, name))


def collection_bytes(view: CollectionView, counter: Counter) -> Iterator[tuple[str, str, int]]:
    """(part, content, bytes) of what is kept of the delta and of the whole collection."""
    for name in DeltaMirror.__slots__:
        if name not in ("owner", "_tokenizers"):
            found = counter.own_bytes(_slot(view.mirror, name))
            yield DELTA, _OF_DELTA.get(name, DELTA), found
    for segment, dead in view.entry.dead.items():
        yield f"segment {segment}", COLUMNS, counter.own_bytes(dead)
    yield "all", TEXT, counter.own_bytes(view.text_searchers)
    yield "all", PREPARED, counter.own_bytes(view.prepared)


def page_bytes(store: Store, counter: Counter) -> int:
    """Bytes of the decoded pages of trees."""
    return counter.own_bytes(store.versions)


def _slot(owner: object, name: str) -> Any:
    """A slot by its name, private or not: counting is all that is done with it."""
    return getattr(owner, name)
