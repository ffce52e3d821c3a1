"""Inspection: what `m2mdb info` says of a file, and `m2mdb warmup`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from m2mdb.tables import table

if TYPE_CHECKING:
    from m2mdb.connection import Connection
    from m2mdb.index.schema import Column
    from m2mdb.index.view import View


def describe(con: Connection) -> dict[str, Any]:
    """Collections, rows, bytes and the commit of a database, as JSON has them."""
    return con.read(lambda view: _describe(con, view))


def _describe(con: Connection, view: View) -> dict[str, Any]:
    database = con.engine()
    collections = []
    for name in sorted(view.names()):
        collection = view.collection(name)
        schema = collection.schema
        collections.append(
            {
                "name": schema.name,
                "rows": collection.count(),
                "parts": len(collection.parts()),
                "columns": {column.name: declared(column) for column in schema.columns},
                "indexes": {
                    info.name: f"{info.kind} ({', '.join(info.columns)})" for info in schema.indexes
                },
            }
        )
    return {
        "path": con.path,
        "bytes": os.path.getsize(con.path) if os.path.exists(con.path) else 0,
        "page_size": database.store.page_size,
        "commit": view.commit,
        "user_version": view.header().user_version,
        "collections": collections,
    }


def declared(column: Column) -> str:
    """A column's type and constraints, as a CREATE statement has them."""
    words = [column.declaration()]
    if column.is_vector:
        words.append(f"METRIC {column.metric}")
    if column.collation != "BINARY":
        words.append(f"COLLATE {column.collation}")
    for holds, word in (
        (column.primary_key, "PRIMARY KEY"),
        (column.unique, "UNIQUE"),
        (column.not_null, "NOT NULL"),
        (column.fulltext is not None, "FULLTEXT"),
    ):
        if holds:
            words.append(word)
    return " ".join(words)


def report(found: dict[str, Any]) -> str:
    """The description for people."""
    lines = [
        f"{found['path']}: {found['bytes']:,} bytes, pages of {found['page_size']:,}, "
        f"commit {found['commit']}"
    ]
    rows = [
        (
            collection["name"],
            collection["rows"],
            collection["parts"],
            ", ".join(f"{name} {kind}" for name, kind in collection["columns"].items()),
            ", ".join(f"{name} {kind}" for name, kind in collection["indexes"].items()),
        )
        for collection in found["collections"]
    ]
    if rows:
        names = ("collection", "rows", "parts", "columns", "indexes")
        lines += ["", table(names, rows, 120)]
    return "\n".join(lines)


def compile_kernels() -> str:
    """Compile all kernels of this processor into the cache; what was done."""
    from m2mdb.compute import loader

    seconds = loader.warm()
    return f"kernels are compiled and cached in {loader.kernel_folder()} ({seconds:.1f} s)"
