"""Descriptions: what a segment and a collection say of themselves, for the day the catalog is lost.

Nothing reads them but `index.salvage`. Each segment's extent ends with a part `about`:

    | JSON | the header and the directory once more | u32 JSON bytes | u32 directory bytes | magic |
                                                                       the content ends here ^

and each collection's deletions tree has, under a key that no segment can have, the collection's
"C" value of the catalog with its id. So a damaged catalog page costs no name and no type, and a
segment whose first block is damaged keeps the rows of the other blocks.

    JSON of a segment     id, name, columns of the collection; segment, commit, kept (only for
                          AS OF), replaces (segments whose rows it took over in a merge)
    JSON of a collection  id, and what the "C" value of the catalog says

Invariants
    DE1 A description repeats; where the catalog can be read, the catalog counts.
    DE2 A collection's description changes in the transaction that changes its "C" value.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from m2mdb.pager.btree import BTree

if TYPE_CHECKING:
    from m2mdb.index.catalog import CollectionEntry
    from m2mdb.pager.pages import MutablePages

ABOUT = "about"  # the name of the part
FOOTER = struct.Struct("<II8s")
FOOTER_MAGIC = b"m2mabout"
DESCRIPTION_KEY = b"\xff\xff\xff\xffabout"  # behind the chunks of all segments


def describe_segment(
    entry: CollectionEntry,
    segment: int,
    commit: int,
    replaces: Sequence[int] = (),
    *,
    kept: bool = False,
) -> bytes:
    """The JSON of a segment."""
    fields = {
        "id": entry.id,
        "name": entry.schema.name,
        "columns": [column.encode() for column in entry.schema.columns],
        "segment": segment,
        "commit": commit,
        "kept": kept,
        "replaces": list(replaces),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def about_part(description: bytes, directory: bytes) -> bytes:
    """The bytes of the part; `directory` is the extent's header and directory."""
    return description + directory + FOOTER.pack(len(description), len(directory), FOOTER_MAGIC)


def about_size(description: bytes, directory_size: int) -> int:
    """Bytes that `about_part` gives."""
    return len(description) + directory_size + FOOTER.size


def decode_fields(raw: bytes) -> dict[str, Any] | None:
    """The fields of a description; None where it is none."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def describe_collection(entry: CollectionEntry) -> bytes:
    """The JSON of a collection whose "C" value is made."""
    fields = {"id": entry.id, **json.loads(entry.raw)}
    return json.dumps(fields, separators=(",", ":")).encode()


def put_description(pages: MutablePages, entry: CollectionEntry) -> None:
    """Write a collection's description beside its deletions (DE2)."""
    BTree(pages, entry.deletes_root).put(DESCRIPTION_KEY, describe_collection(entry))
