"""`m2mdb demo`: hybrid search over real text, in a file that survives a kill.

    build     the documentation of Python's standard library: text, columns and vectors
    search    a few hybrid searches, with scores and timings
    kill      a child process writes and is killed in mid-commit; reopen, check, compare

`run` returns False, and the command exits with 1, where anything is not as it should be.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2mdb.corpus import Document, documents, standard_library
from m2mdb.encoders import HashingEncoder
from m2mdb.opening import connect
from m2mdb.pager.errors import OperationalError
from m2mdb.tables import Progress, as_json, table

if TYPE_CHECKING:
    from m2mdb.collection import Collection
    from m2mdb.connection import Connection

DIMENSIONS = 256
BATCH_ROWS = 2_000  # rows of one transaction while building
SHOWN = 5  # hits of each search
RETURNED = ("score", "distance", "bm25", "kind", "id", "body")
CELL_WIDTH = 48  # characters of a hit's id and text

SEARCHES: tuple[dict[str, str], ...] = (
    {"text": "parse command line arguments"},
    {"text": "temporary directory deleted when no longer needed"},
    {"text": "compress data gzip", "where": "kind = 'function'"},
    {"text": '"regular expression" +escape', "near": "escape special characters in a pattern"},
    {"text": "run a coroutine with a timeout", "where": "module LIKE 'asyncio%'"},
)


class Demo:
    """One run of the demo."""

    def __init__(self, path: str | None, *, keep: bool = False, json: bool = False) -> None:
        """Without a path the file lies in a temporary folder, removed unless `keep`."""
        self.folder = None if path else Path(tempfile.mkdtemp(prefix="m2mdb-demo-"))
        self.path = Path(path) if path else Path(str(self.folder), "stdlib.m2m")
        self.keep = keep or path is not None
        self.json = json
        self.encoder = HashingEncoder(DIMENSIONS)
        self.report: dict[str, Any] = {"path": str(self.path)}

    def run(self) -> bool:
        """All three parts; False where something is wrong."""
        if self.path.exists():
            raise OperationalError(f"{self.path} exists; the demo builds a new file")
        start = time.perf_counter()
        try:
            con = connect(self.path, encoders={"hashing": self.encoder})
            try:
                docs = self.build(con)
                self.search(docs)
            finally:
                con.close()
            self.kill()
        finally:
            self.clean()
        self.report["seconds"] = round(time.perf_counter() - start, 2)
        self.report["ok"] = not self.faults()
        self.finish()
        return bool(self.report["ok"])

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.json:
            print(text, flush=True)

    def build(self, con: Connection) -> Collection:
        """Create the collection and add every docstring of the standard library."""
        start = time.perf_counter()
        docs = con.create_collection(
            "docs",
            {
                "id": "TEXT PRIMARY KEY",
                "module": "TEXT",
                "kind": "TEXT",
                "name": "TEXT",
                "body": "TEXT FULLTEXT",
                "embedding": f"VECTOR({DIMENSIONS}) METRIC cosine",
            },
        )
        found = self.read_corpus()
        read = time.perf_counter()
        vectors = self.encoder.encode([f"{doc.id}\n{doc.body}" for doc in found])
        encoded = time.perf_counter()
        progress = Progress("adding rows:", len(found))
        for first in range(0, len(found), BATCH_ROWS):
            batch = found[first : first + BATCH_ROWS]
            columns: dict[str, Any] = dict(
                zip(Document._fields, map(list, zip(*batch, strict=True)), strict=True)
            )
            docs.add({**columns, "embedding": vectors[first : first + BATCH_ROWS]})
            progress.add(len(batch))
        progress.close()
        done = time.perf_counter()
        self.report["build"] = {
            "rows": docs.count(),
            "documents": len(found),
            "seconds": {
                "read": round(read - start, 2),
                "encode": round(encoded - read, 2),
                "add": round(done - encoded, 2),
            },
        }
        self.say(
            f"{len(found):,} docstrings of Python {sys.version.split()[0]}'s standard library: "
            f"read in {read - start:.1f} s, encoded ({DIMENSIONS} dimensions) in "
            f"{encoded - read:.1f} s, added in {done - encoded:.1f} s "
            f"({len(found) / (done - encoded):,.0f} rows/s, durable)\n"
        )
        return docs

    def read_corpus(self) -> list[Document]:
        """The documents, with progress."""
        progress = Progress("reading docstrings:")
        found = []
        for document in documents(standard_library()):
            found.append(document)
            progress.add()
        progress.close()
        return found

    def search(self, docs: Collection) -> None:
        """Run the searches and print their hits."""
        self.report["searches"] = []
        for spec in SEARCHES:
            query = self.encoder.encode([spec.get("near", spec["text"])])[0]
            where = spec.get("where")
            timings = []
            found = []
            for _ in range(2):
                start = time.perf_counter()
                found.append(
                    docs.search(
                        near=query, match=spec["text"], where=where, k=SHOWN, returning=RETURNED
                    )
                )
                timings.append((time.perf_counter() - start) * 1000)
            (first_ms, again_ms), (hits, again) = timings, found
            rows = [(*row[:-1], row[-1].partition("\n")[0]) for row in hits]
            self.report["searches"].append(
                {
                    "match": spec["text"],
                    "where": where,
                    "first_ms": round(first_ms, 2),
                    "again_ms": round(again_ms, 2),
                    "hits": [dict(zip(RETURNED[:-1], row, strict=False)) for row in rows],
                    "same_again": again.ids.tolist() == hits.ids.tolist(),
                }
            )
            condition = f" WHERE {where}" if where else ""
            self.say(
                f"SEARCH docs NEAR ? MATCH {spec['text']!r}{condition} K {SHOWN}"
                f"   {first_ms:.1f} ms, again {again_ms:.1f} ms"
            )
            self.say(table(RETURNED, rows, CELL_WIDTH) + "\n")

    def kill(self) -> None:
        """Let children write and kill them in mid-commit; check what is left."""
        from m2mdb.demo_kill import survive

        self.report["kill"] = survive(self.path, self.say)

    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = list(self.report["kill"]["faults"])
        build = self.report["build"]
        if build["rows"] != build["documents"] or not build["rows"]:
            found.append(f"{build['documents']} documents were added, {build['rows']} are there")
        for search in self.report["searches"]:
            if len(search["hits"]) != SHOWN or not search["same_again"]:
                found.append(f"search {search['match']!r} gave {search['hits']}")
        return found

    def clean(self) -> None:
        """Remove the temporary folder unless it is to be kept."""
        if self.folder is not None and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """The last words."""
        self.report["faults"] = self.faults()
        self.report["kept"] = self.keep
        if self.json:
            print(as_json(self.report))
            return
        for fault in self.report["faults"]:
            self.say(f"WRONG: {fault}")
        where = f"; the database is {self.path}" if self.keep else ""
        verdict = "all is as it should be" if self.report["ok"] else "something is wrong"
        self.say(f"{verdict}, in {self.report['seconds']:.1f} s{where}")
