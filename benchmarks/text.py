"""Full text beside bm25s, tantivy, zvec and SQLite's FTS5: building, searching, updates, size.

Every store holds the same texts; a query is the OR of all words of a text, tokenised by the store
inside the call, and asks for the ids and scores of the ten best. Rounds take turns, on one core;
figures are medians of ratios of CPU time, because the machines these run on are shared. hit@10 says
whether the rankings are of one quality: how often the known relevant text is among the ten.

    python benchmarks/text.py [--data FOLDER] [--count N] [--rounds N] [--queries N] [--rows N,N]

Stores that are not installed are left out and named. --rows also measures what adding one row
costs in collections of these sizes. Exit status 1 where a gate is missed.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import Table, parser, workplace  # its environment comes before NumPy's threads

import m2mdb
from m2mdb.compute.loader import LOADER

K = 10
GATES = {"bm25s": 1.2, "tantivy": 2.5, "zvec": 3.0, "fts5": 200.0}
BUILD_GATE = 100_000.0  # texts a CPU second
POSITIONS_GATE = 1.5  # bytes of ours with positions to tantivy's with positions
ROW_GATE = 1.5
WORDS = re.compile(r"\w+")


class M2m:
    """A collection of id and body, the latter FULLTEXT."""

    name = "m2mdb"

    def __init__(self, folder: str, options: str = "") -> None:
        self.path = os.path.join(folder, f"text{len(options)}.m2m")
        self.con = m2mdb.connect(self.path)
        self.con.execute(
            f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT {options})"
        )
        self.notes = self.con.collection("notes")

    def build(self, texts: list[str]) -> None:
        self.notes.add({"id": list(range(len(texts))), "body": texts})
        self.con.commit()

    def search(self, text: str) -> list[int]:
        words = m2mdb.match_text(text)
        found: list[int] = self.notes.search(match=words, k=K, returning=[]).ids.tolist()
        return found

    def index_bytes(self) -> int:
        """Bytes of the inverted lists alone."""
        with self.con.engine().reading() as view:
            collection = view.collection("notes")
            body = collection.schema.columns[collection.schema.column("body")]
            return sum(segment.text(body).stored_bytes for segment in collection.segments)


class Bm25s:
    """In memory, with its Numba backend; the ids are row numbers."""

    name = "bm25s"

    def __init__(self, folder: str) -> None:
        import bm25s

        self.retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")

    def build(self, texts: list[str]) -> None:
        tokens = [WORDS.findall(text.lower()) for text in texts]
        self.retriever.index(tokens, show_progress=False)

    def search(self, text: str) -> list[int]:
        tokens = [WORDS.findall(text.lower())]
        rows, _ = self.retriever.retrieve(tokens, k=K, show_progress=False, n_threads=1)
        found: list[int] = rows[0].tolist()
        return found


class Tantivy:
    """An index on disk, with positions; the ids are of the documents' addresses."""

    name = "tantivy"

    def __init__(self, folder: str) -> None:
        import tantivy

        self.tantivy = tantivy
        self.folder = os.path.join(folder, "tantivy")
        os.makedirs(self.folder, exist_ok=True)
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("body", stored=False)
        builder.add_integer_field("id", stored=True, indexed=False, fast=True)
        self.index = tantivy.Index(builder.build(), path=self.folder)

    def build(self, texts: list[str]) -> None:
        writer = self.index.writer(num_threads=1)
        for number, text in enumerate(texts):
            writer.add_document(self.tantivy.Document(id=number, body=text))
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()

    def search(self, text: str) -> list[Any]:
        query = self.index.parse_query(" ".join(WORDS.findall(text.lower())), ["body"])
        return list(self.searcher.search(query, K).hits)  # scores and addresses, no id fetched

    def ids(self, hits: list[Any]) -> list[int]:
        """The ids of what a search gave, outside its time."""
        return [self.searcher.doc(address)["id"][0] for _, address in hits]

    def index_bytes(self) -> int:
        """Bytes of terms, lists, positions and lengths: no stored fields, no columns."""
        ends = (".term", ".idx", ".pos", ".fieldnorm")
        return sum(
            path.stat().st_size for path in Path(self.folder).iterdir() if path.suffix in ends
        )


class Zvec:
    """A collection with a full-text index, with its defaults; the ids are its keys."""

    name = "zvec"

    def __init__(self, folder: str) -> None:
        import zvec

        self.z = zvec
        with contextlib.suppress(Exception):  # it may be told once only
            zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
        body = zvec.FieldSchema("body", zvec.DataType.STRING, index_param=zvec.FtsIndexParam())
        # a collection without vectors is none to it
        rows = zvec.VectorSchema(
            "v", zvec.DataType.VECTOR_FP32, 1, index_param=zvec.FlatIndexParam()
        )
        schema = zvec.CollectionSchema("notes", fields=[body], vectors=[rows])
        options = zvec.CollectionOption(read_only=False, enable_mmap=True)
        self.collection = zvec.create_and_open(os.path.join(folder, "zvec"), schema, options)

    def build(self, texts: list[str]) -> None:
        z = self.z
        for start in range(0, len(texts), 1000):
            stop = min(start + 1000, len(texts))
            self.collection.insert(
                [
                    z.Doc(id=str(n), vectors={"v": [1.0]}, fields={"body": texts[n]})
                    for n in range(start, stop)
                ]
            )
        self.collection.optimize(z.OptimizeOption(concurrency=1))
        self.collection.flush()

    def search(self, text: str) -> list[int]:
        words = " ".join(WORDS.findall(text.lower()))
        query = self.z.Query(field_name="body", fts=self.z.Fts(match_string=words))
        return [int(hit.id) for hit in self.collection.query(query, topk=K, output_fields=[])]


class Fts5:
    """SQLite's FTS5 as it comes."""

    name = "fts5"

    def __init__(self, folder: str) -> None:
        self.con = sqlite3.connect(os.path.join(folder, "fts5.db"))
        self.con.execute("CREATE VIRTUAL TABLE notes USING fts5(body, content='')")

    def build(self, texts: list[str]) -> None:
        rows = enumerate(texts)
        self.con.executemany("INSERT INTO notes (rowid, body) VALUES (?, ?)", rows)
        self.con.commit()

    def search(self, text: str) -> list[int]:
        query = " OR ".join(f'"{word}"' for word in WORDS.findall(text.lower())) or '""'
        rows = self.con.execute(
            "SELECT rowid FROM notes WHERE notes MATCH ? ORDER BY rank LIMIT ?", (query, K)
        )
        return [row[0] for row in rows]


STORES: dict[str, tuple[Callable[[str], Any], str | None]] = {
    "m2mdb": (M2m, None), "bm25s": (Bm25s, "bm25s"), "tantivy": (Tantivy, "tantivy"),
    "zvec": (Zvec, "zvec"), "fts5": (Fts5, None),
}  # fmt: skip


def load(folder: str, count: int) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Ids and texts of the rows, and (text, id of the relevant row) of the queries."""
    with gzip.open(Path(folder) / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    with gzip.open(Path(folder) / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        queries = [json.loads(line) for line in lines]
    relevant = [(query["text"], query["relevant"][0]) for query in queries]
    return [row["id"] for row in rows], [row["text"] for row in rows], relevant


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call, all threads together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def searching(store: Any, texts: list[str]) -> float:
    """CPU seconds a query."""
    search = store.search
    return cpu(lambda: [search(text) for text in texts]) / len(texts)


def quality(store: Any, queries: list[tuple[str, str]], ids: list[str]) -> float:
    """hit@10."""
    found = 0
    for text, wanted in queries:
        hits = store.search(text)
        rows = store.ids(hits) if hasattr(store, "ids") else hits
        found += any(ids[row] == wanted for row in rows)
    return found / len(queries)


def adding(folder: str, texts: list[str], sizes: list[int], table: Table) -> None:
    """What one row costs in collections of several sizes, against the smallest."""
    costs = []
    for size in sizes:
        place = os.path.join(folder, f"rows{size}")
        os.makedirs(place)
        store = M2m(place)
        store.build([texts[i % len(texts)] for i in range(size)])
        notes = store.notes
        notes.add({"id": -1, "body": "a first row"})
        times = []
        for number in range(300):
            start = time.perf_counter()
            notes.add({"id": size + number, "body": texts[number]})
            times.append(time.perf_counter() - start)
        costs.append(statistics.median(times))
        store.con.close()
    for size, cost in zip(sizes[1:], costs[1:], strict=True):
        text = f"{cost * 1e6:.0f} µs beside {costs[0] * 1e6:.0f}"
        name = f"adding a row at {size:,} rows : at {sizes[0]:,}"
        table.add(name, cost / costs[0], text, ROW_GATE, least=False)


def main() -> int:
    description, _, _ = (__doc__ or "").partition("\n\n")
    options = parser(description, 100_000, 3)
    options.add_argument("--queries", type=int, default=3000)
    options.add_argument("--stores", default=",".join(STORES))
    options.add_argument(
        "--rows", default="", help="sizes to add one row at, such as 10000,1000000"
    )
    given = options.parse_args()
    if not given.data or not os.path.isdir(given.data):
        options.error("--data names no folder with docs.jsonl.gz and queries.jsonl.gz")
    ids, texts, queries = load(given.data, given.count)
    queries = queries[: given.queries]
    words = [text for text, _ in queries]
    table = Table(f"{len(texts)} texts, {len(words)} queries, CPU time")
    with workplace(given.folder) as folder:
        stores = []
        for name in given.stores.split(","):
            make, package = STORES[name]
            if package is not None and find_spec(package) is None:
                print(f"{name}: not installed, left out")
                continue
            stores.append(make(folder))
        for store in stores:
            spent = cpu(lambda store=store: store.build(texts))
            gate = BUILD_GATE if store.name == "m2mdb" else None
            table.add(f"{store.name}: texts built a second", len(texts) / spent, "", gate)
        LOADER.wait()
        few = {"fts5": 60}
        for store in stores:
            searching(store, words[: few.get(store.name, 300)])
            hit = quality(store, queries[: 10 * few.get(store.name, 300)], ids)
            table.add(f"{store.name}: hit@10", hit, f"of {min(len(queries), 3000)} queries at most")
        for _ in range(given.rounds):
            times = {s.name: searching(s, words[: few.get(s.name, len(words))]) for s in stores}
            ours = times.pop("m2mdb")
            table.add("m2mdb: queries a second", 1 / ours, f"{ours * 1e6:.0f} µs")
            for name, spent in times.items():
                text = f"{1 / ours:,.0f} beside {1 / spent:,.0f} a second"
                table.add(f"queries a second, m2mdb : {name}", spent / ours, text, GATES[name])
        sizes = {
            store.name: store.index_bytes() for store in stores if hasattr(store, "index_bytes")
        }
        for name, size in sizes.items():
            table.add(f"{name}: bytes of the index", size, f"{size / len(texts):.1f} a text")
        if "tantivy" in sizes:
            ratio = sizes["m2mdb"] / sizes["tantivy"]
            name = "bytes with positions, m2mdb : tantivy"
            table.add(name, ratio, "", POSITIONS_GATE, least=False)
        if given.rows:
            adding(folder, texts, [int(size) for size in given.rows.split(",")], table)
    return 0 if table.show() else 1


if __name__ == "__main__":
    sys.exit(main())
