"""Untrusted files: what is done before the first row of somebody else's file is read.

    connect(path, untrusted=True)
        |  the file must be there; its extents are read without a map (E5)
        v
    the catalog's numbers against `limits.UNTRUSTED` --> the whole integrity check --> values
        |                                                       |
        +--> CorruptDatabaseError, and the file is closed <-----+

Invariants
    UN1 No row is given out before every page and block was read and every structure compared.
    UN2 What the check itself takes is bounded by the file's size and by the limits, which are
        compared before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.index.integrity import check
from m2mdb.index.limits import LONG_TYPES, beyond, catalog_excesses, long_values
from m2mdb.index.schema import VECTOR_DTYPES
from m2mdb.pager.btree import BTree
from m2mdb.pager.errors import CorruptDatabaseError
from m2mdb.pager.page import Branch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.database import Database
    from m2mdb.index.view import View
    from m2mdb.pager.limits import Limits

_SHOWN = 3  # faults in the message


def admit(database: Database) -> None:
    """Check a file that came from someone else (UN1).

    Raises CorruptDatabaseError: it is damaged, or larger somewhere than the limits allow.
    """
    limits = database.store.options.limits
    with database.reading() as view:
        for problem in _excesses(view, limits):
            raise _refusal(database, [problem])
        faults = check(view)
        if faults:
            raise _refusal(database, faults)
        for name in view.names():
            for problem in _long_values(view.collection(name), limits):
                raise _refusal(database, [problem])


def _refusal(database: Database, faults: list[str]) -> CorruptDatabaseError:
    more = f"; and {len(faults) - _SHOWN} faults more" if len(faults) > _SHOWN else ""
    return CorruptDatabaseError(
        f"{database.path} is refused as untrusted: {'; '.join(faults[:_SHOWN])}{more}"
    )


def _excesses(view: View, limits: Limits) -> Iterator[str]:
    """What of the catalog is beyond the limits."""
    catalog = view.catalog
    header = view.header()
    yield from _deep(view, "the catalog", header.catalog_root, limits)
    yield from _deep(view, "the free map", header.free_root, limits)
    yield from catalog_excesses(catalog, limits)
    for entry in catalog.by_id.values():
        yield from _tree_excesses(view, entry, limits)


def _tree_excesses(view: View, entry: CollectionEntry, limits: Limits) -> Iterator[str]:
    schema = entry.schema
    yield from _deep(view, f"the delta of {schema.name}", entry.delta_root, limits)
    yield from _deep(view, f"the deletions of {schema.name}", entry.deletes_root, limits)
    for index in schema.indexes:
        if index.kind == "btree":
            yield from _deep(view, f"index {index.name}", index.root, limits)
    width = 0
    for column in schema.columns:
        if column.is_vector:
            width += column.dimension * np.dtype(VECTOR_DTYPES[column.dtype]).itemsize
    if width:
        entries = sum(len(keys) for keys, _ in BTree(view.pages, entry.delta_root).runs())
        most = limits.null_vector_bytes + view.pages.page_count * view.pages.page_size
        yield from beyond(f"bytes of vectors in the delta of {schema.name}", entries * width, most)


def _deep(view: View, what: str, root: int, limits: Limits) -> Iterator[str]:
    """The way to the first leaf of a tree; that all leaves are as deep is the check's matter."""
    number, depth = root, 1
    while type(node := view.pages.get(number)) is Branch:
        number = node.children[0]
        depth += 1
        if depth > limits.tree_depth:
            yield f"{what} is deeper than {limits.tree_depth} pages"
            return


def _long_values(collection: CollectionView, limits: Limits) -> Iterator[str]:
    """Values that are longer than the limit."""
    for index, column in enumerate(collection.schema.columns):
        if column.type not in LONG_TYPES:
            continue
        longest = 0
        for segment in collection.segments:
            offsets = segment.array("offsets", column.id)
            longest = max(longest, int((offsets[1:] - offsets[:-1]).max()))
        name = collection.schema.name
        yield from beyond(f"bytes in a value of {name}.{column.name}", longest, limits.value_bytes)
        yield from long_values(name, column, collection.mirror.columns[index], limits)
