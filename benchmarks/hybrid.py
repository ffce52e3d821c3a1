"""Hybrid search beside zvec, LanceDB, tantivy + faiss, and FTS5 + sqlite-vec: QPS and recall.

Every store holds the same texts and vectors. A query is a vector and a text, the OR of all its
words, one a call; wanted are the ids and scores of the ten best of both rankings, fused by
reciprocal ranks (k = 60) from the best 100 of each side, and no row is fetched. Rounds take turns,
on one core, in CPU time. recall@100 is what the vector side finds of the exact 100 nearest, so
that no one is fast by finding less. Who takes milliseconds is asked fewer queries.

    python benchmarks/hybrid.py --data FOLDER [--stores A,B] [--queries N] [--keep FOLDER]

--keep leaves built stores there and uses them the next time. Exit status 1 where the gate is
missed: QPS at least 3 times the best rival's.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, workplace  # its environment comes before NumPy's threads

import m2mdb
from m2mdb.compute.loader import LOADER

K, DEPTH, CONSTANT = 10, 100, 60
GATE = 3.0
WORDS = re.compile(r"\w+")
Array = np.ndarray[Any, Any]


def fused(sides: list[list[int]]) -> list[int]:
    """Reciprocal ranks, the way one writes it by hand."""
    scores: dict[int, float] = {}
    for side in sides:
        for rank, row in enumerate(side, 1):
            scores[row] = scores.get(row, 0.0) + 1.0 / (CONSTANT + rank)
    return sorted(scores, key=lambda row: (-scores[row], row))[:K]


class M2m:
    """One collection, FUSION rrf; recall 0.95 is the default."""

    name = "m2mdb"
    package = None
    most = 10_000

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "hybrid.m2m")

    def build(self, texts: list[str], vectors: Array) -> None:
        dimension = vectors.shape[1]
        with m2mdb.connect(self.path) as con:
            con.execute(
                "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, "
                f"v VECTOR({dimension}))"
            )
            con.collection("notes").add(
                {"id": list(range(len(texts))), "body": texts, "v": vectors}
            )
            con.commit()
            con.execute("OPTIMIZE notes")
            con.commit()

    def open(self) -> None:
        self.notes = m2mdb.connect(self.path).collection("notes")

    def search(self, vector: Array, text: str) -> list[int]:
        words = m2mdb.match_text(text)
        hits = self.notes.search(near=vector, match=words, fusion="rrf", k=K, returning=[])
        found: list[int] = hits.ids.tolist()
        return found

    def nearest(self, vector: Array) -> list[int]:
        found: list[int] = self.notes.search(near=vector, k=DEPTH, returning=[]).ids.tolist()
        return found


class ByHand:
    """tantivy for words, faiss's HNSW for vectors, and a dict for ranks."""

    name = "tantivy + faiss"
    package = "tantivy"
    most = 10_000

    def __init__(self, folder: str) -> None:
        import faiss
        import tantivy

        self.faiss, self.tantivy = faiss, tantivy
        faiss.omp_set_num_threads(1)
        self.path = os.path.join(folder, "byhand")
        os.makedirs(os.path.join(self.path, "words"), exist_ok=True)
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("body", stored=False)
        builder.add_integer_field("id", stored=True, indexed=False, fast=True)
        self.words = tantivy.Index(builder.build(), path=os.path.join(self.path, "words"))

    def build(self, texts: list[str], vectors: Array) -> None:
        writer = self.words.writer(num_threads=1)
        for number, text in enumerate(texts):
            writer.add_document(self.tantivy.Document(id=number, body=text))
        writer.commit()
        writer.wait_merging_threads()
        index = self.faiss.IndexHNSWFlat(vectors.shape[1], 16, self.faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        index.add(vectors)
        self.faiss.write_index(index, os.path.join(self.path, "vectors.faiss"))

    def open(self) -> None:
        self.index = self.faiss.read_index(os.path.join(self.path, "vectors.faiss"))
        self.index.hnsw.efSearch = 160
        self.words.reload()
        self.searcher = self.words.searcher()
        count = self.searcher.num_docs
        every = self.words.parse_query("*", ["body"])
        hits = self.searcher.search(every, count).hits
        # ids by address, read once: a row is fetched by neither side
        self.ids = {(at.segment_ord, at.doc): self.searcher.doc(at)["id"][0] for _, at in hits}

    def search(self, vector: Array, text: str) -> list[int]:
        query = self.words.parse_query(" ".join(WORDS.findall(text.lower())), ["body"])
        hits = self.searcher.search(query, DEPTH, count=False).hits
        ids = self.ids
        return fused([self.nearest(vector), [ids[at.segment_ord, at.doc] for _, at in hits]])

    def nearest(self, vector: Array) -> list[int]:
        found: list[int] = self.index.search(vector[None], DEPTH)[1][0].tolist()
        return found


class Zvec:
    """One collection with an HNSW of 8-bit values and a full-text index, and its own RRF."""

    name = "zvec"
    package = "zvec"
    most = 10_000

    def __init__(self, folder: str) -> None:
        import zvec

        self.z = zvec
        with contextlib.suppress(Exception):  # it may be told once only
            zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
        self.path = os.path.join(folder, "zvec")

    def build(self, texts: list[str], vectors: Array) -> None:
        z = self.z
        index = z.HnswIndexParam(
            metric_type=z.MetricType.COSINE, m=16, ef_construction=100,
            quantize_type=z.QuantizeType.INT8,
        )  # fmt: skip
        body = z.FieldSchema("body", z.DataType.STRING, index_param=z.FtsIndexParam())
        rows = z.VectorSchema("v", z.DataType.VECTOR_FP32, vectors.shape[1], index_param=index)
        schema = z.CollectionSchema("notes", fields=[body], vectors=[rows])
        options = z.CollectionOption(read_only=False, enable_mmap=True)
        collection = z.create_and_open(self.path, schema, options)
        for start in range(0, len(texts), 1000):
            stop = min(start + 1000, len(texts))
            collection.insert(
                [
                    z.Doc(id=str(n), vectors={"v": vectors[n].tolist()}, fields={"body": texts[n]})
                    for n in range(start, stop)
                ]
            )
        collection.optimize(z.OptimizeOption(concurrency=1))
        collection.flush()

    def open(self) -> None:
        options = self.z.CollectionOption(read_only=False, enable_mmap=True)
        self.collection = self.z.open(self.path, option=options)
        self.effort = self.z.HnswQueryParam(ef=160)
        self.fusing = self.z.RrfReRanker(CONSTANT)

    def search(self, vector: Array, text: str) -> list[int]:
        z = self.z
        words = " ".join(WORDS.findall(text.lower()))
        sides = [
            z.Query(field_name="v", vector=vector, param=self.effort),
            z.Query(field_name="body", fts=z.Fts(match_string=words)),
        ]
        found = self.collection.query(sides, topk=DEPTH, output_fields=[], reranker=self.fusing)
        return [int(hit.id) for hit in found[:K]]

    def nearest(self, vector: Array) -> list[int]:
        asked = self.z.Query(field_name="v", vector=vector, param=self.effort)
        return [int(hit.id) for hit in self.collection.query(asked, topk=DEPTH, output_fields=[])]


class Lance:
    """LanceDB with a graph over 8-bit values, its inverted lists, and its own RRF."""

    name = "LanceDB"
    package = "lancedb"
    most = 200

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("LANCE_LOG", "error")
        import lancedb
        from lancedb.rerankers import RRFReranker

        self.database = lancedb.connect(os.path.join(folder, "lance"))
        self.fusing = RRFReranker(CONSTANT)

    def build(self, texts: list[str], vectors: Array) -> None:
        import pyarrow as pa

        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = {"id": pa.array(np.arange(len(texts))), "body": pa.array(texts), "v": rows}
        table = self.database.create_table("notes", pa.table(columns))
        table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, vector_column_name="v"
        )
        table.create_fts_index("body", stem=False, remove_stop_words=False)

    def open(self) -> None:
        self.table = self.database.open_table("notes")

    def search(self, vector: Array, text: str) -> list[int]:
        words = " ".join(WORDS.findall(text.lower()))
        asked = self.table.search(query_type="hybrid", vector_column_name="v")
        asked = asked.vector(vector).text(words).distance_type("cosine").ef(150).limit(DEPTH)
        found: list[int] = asked.rerank(self.fusing).select(["id"]).to_arrow()["id"].to_pylist()
        return found[:K]

    def nearest(self, vector: Array) -> list[int]:
        asked = self.table.search(vector, vector_column_name="v").distance_type("cosine")
        rows = asked.ef(150).limit(DEPTH).select(["id", "_distance"]).to_arrow()
        found: list[int] = rows["id"].to_pylist()
        return found


class Sqlite:
    """FTS5 for words, sqlite-vec for vectors, which compares every row, and a dict for ranks."""

    name = "FTS5 + sqlite-vec"
    package = "sqlite_vec"
    most = 15

    def __init__(self, folder: str) -> None:
        import apsw  # many builds of sqlite3 load no extension
        import sqlite_vec

        self.con = apsw.Connection(os.path.join(folder, "hybrid.db"))
        self.con.enable_load_extension(True)
        self.con.load_extension(sqlite_vec.loadable_path())
        self.con.execute("PRAGMA cache_size = -262144; PRAGMA mmap_size = 4294967296")

    def build(self, texts: list[str], vectors: Array) -> None:
        self.con.execute(
            "create virtual table words using fts5(body, content=''); "
            "create virtual table store using vec0(id integer primary key, "
            f"v float[{vectors.shape[1]}] distance_metric=cosine)"
        )
        with self.con:
            self.con.executemany("insert into words (rowid, body) values (?, ?)", enumerate(texts))
            rows = ((number, row.tobytes()) for number, row in enumerate(vectors))
            self.con.executemany("insert into store values (?, ?)", rows)

    def open(self) -> None:
        self.con.execute("select count(*) from words").fetchall()

    def search(self, vector: Array, text: str) -> list[int]:
        query = " OR ".join(f'"{word}"' for word in WORDS.findall(text.lower())) or '""'
        rows = self.con.execute(
            "select rowid from words where words match ? order by rank limit ?", (query, DEPTH)
        )
        return fused([self.nearest(vector), [row[0] for row in rows]])

    def nearest(self, vector: Array) -> list[int]:
        rows = self.con.execute(
            "select id from store where v match ? and k = ?", (vector.tobytes(), DEPTH)
        )
        return [row[0] for row in rows]


STORES: dict[str, type[M2m | ByHand | Zvec | Lance | Sqlite]] = {
    "m2mdb": M2m, "byhand": ByHand, "zvec": Zvec, "lance": Lance, "sqlite": Sqlite,
}  # fmt: skip


def exact_nearest(vectors: Array, queries: Array) -> Array:
    """The 100 nearest of each query, in any order."""
    found = [np.argpartition(-(vectors @ query), DEPTH)[:DEPTH] for query in queries]
    return np.array(found)


def measure(stores: list[Any], asked: list[tuple[Array, str]], rounds: int) -> dict[str, float]:
    """QPS by CPU time, medians of rounds that take turns."""
    times: dict[str, list[float]] = {store.name: [] for store in stores}
    for store in stores:
        for vector, text in asked[: min(200, store.most)]:
            store.search(vector, text)
    LOADER.wait()
    for _ in range(rounds):
        for store in stores:
            search, some = store.search, asked[: store.most]
            start = time.process_time()
            for vector, text in some:
                search(vector, text)
            times[store.name].append((time.process_time() - start) / len(some))
    return {name: 1 / statistics.median(spent) for name, spent in times.items()}


def built(names: list[str], folder: str, texts: list[str], vectors: Array) -> list[Any]:
    """The stores, opened; those that a kept folder has are not built again."""
    stores = []
    for name in names:
        make = STORES[name]
        if make.package is not None and find_spec(make.package) is None:
            print(f"{make.name}: not installed, left out")
            continue
        store = make(folder)
        done = Path(folder) / f"{name}.done"
        if not done.exists():
            start = time.process_time()
            store.build(texts, vectors)
            print(f"{store.name}: built in {time.process_time() - start:.1f} CPU s", flush=True)
            done.touch()
        store.open()
        stores.append(store)
    return stores


def main() -> int:
    description, _, _ = (__doc__ or "").partition("\n\n")
    options = parser(description, 100_000, 3)
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--stores", default=",".join(STORES))
    options.add_argument("--keep", default="", help="folder in which built stores are left")
    given = options.parse_args()
    if not given.data or not os.path.isdir(given.data):
        options.error("--data names no folder with docs.jsonl.gz, queries.jsonl.gz and vectors")
    data = Path(given.data)
    with gzip.open(data / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [
            json.loads(line)["text"] for line, _ in zip(lines, range(given.count), strict=False)
        ]
    with gzip.open(data / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        words = [json.loads(line)["text"] for line in lines]
    vectors = np.load(data / "vectors.f16.npy")[: len(texts)].astype(np.float32)
    queries = np.load(data / "query_vectors.f32.npy")
    chosen = np.random.default_rng(1).permutation(len(words))[: given.queries].tolist()
    asked = [(queries[row], words[row]) for row in chosen]
    with workplace(given.folder) as folder:
        place = given.keep or folder
        os.makedirs(place, exist_ok=True)
        stores = built(given.stores.split(","), place, texts, vectors)
        speeds = measure(stores, asked, given.rounds)
        few = asked[:200]
        truth = exact_nearest(vectors, np.array([vector for vector, _ in few]))
        print(f"\n{len(texts)} rows, {len(asked)} queries, top {K} of {DEPTH} a side, CPU time")
        for store in stores:
            some = list(zip(few, truth, strict=True))[: store.most]
            hits = [len({*store.nearest(v)} & {*t}) for (v, _), t in some]
            recall = sum(hits) / (len(some) * DEPTH)
            print(f"  {store.name:18} {speeds[store.name]:8.0f} QPS   recall@{DEPTH} {recall:.3f}")
    rivals = [speed for name, speed in speeds.items() if name != "m2mdb"]
    if "m2mdb" not in speeds or not rivals:
        return 0
    ratio = speeds["m2mdb"] / max(rivals)
    met = ratio >= GATE
    print(f"  m2mdb : best rival {ratio:.2f}  gate >= {GATE:g}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
