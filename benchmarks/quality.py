"""Quality of hybrid search: how often the one relevant row is among the ten best.

    wordnet     texts (weight 0.06, tuned on the queries' tune half) and lemmas are FULLTEXT, and
                the texts' vectors; queries of kind example and lemmas, the test half
    text only   the same without lemmas: the text side is weak, the vector side is the better one
    made        a few words of a text, one to four, and its vector with noise

Each under vector_only, bm25_only, rrf and adaptive. Vectors are searched exactly.

    python benchmarks/quality.py --data FOLDER [--queries N] [--split test] [--keep FOLDER]

Exit status 1 where adaptive is not 1.05 times the better side for examples, or falls more than
0.02 behind it for lemmas.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, workplace  # its environment comes before NumPy's threads

import m2mdb
from m2mdb.collection import Collection

WEIGHT = 0.06  # of the texts beside their lemmas: the best of 0.03 to 1 on the tune half
FUSIONS = ("vector_only", "bm25_only", "rrf", "adaptive")
K = 10
GAIN, LOSS = 1.05, 0.02
Query = tuple[str, str, Any, int]  # kind, text, vector, relevant row


def build(path: str, docs: list[dict[str, Any]], vectors: Any) -> None:
    """The rows."""
    with m2mdb.connect(path) as con:
        con.execute(
            "CREATE COLLECTION notes (id INTEGER PRIMARY KEY, lemmas TEXT FULLTEXT, "
            f"text TEXT FULLTEXT (weight={WEIGHT}), v VECTOR({vectors.shape[1]}))"
        )
        con.collection("notes").add(
            {
                "id": list(range(len(docs))),
                "text": [doc["text"] for doc in docs],
                "lemmas": [", ".join(doc["lemmas"]) for doc in docs],
                "v": vectors,
            }
        )
        con.commit()


def made(docs: list[dict[str, Any]], vectors: Any, rows: list[int]) -> list[Query]:
    """Queries of a few words of a row, and of its vector with noise."""
    rng = np.random.default_rng(5)
    found: list[Query] = []
    for number, row in enumerate(rows):
        words, count = docs[row]["text"].split(), 1 + number % 4
        text = " ".join(rng.choice(words, min(count, len(words)), replace=False))
        noise = rng.standard_normal(vectors.shape[1])
        noise *= (2.0, 3.0, 4.0)[number % 3] / np.linalg.norm(noise)
        found.append((f"{count} words", text, (vectors[row] + noise).astype(np.float32), row))
    return found


def recall(
    notes: Collection, queries: list[Query], fusion: str, column: str | None
) -> dict[str, float]:
    """recall@10 by kind."""
    hits: dict[str, list[bool]] = {}
    for kind, text, vector, row in queries:
        words: Any = m2mdb.match_text(text)
        match = words if column is None else {column: words}
        found = notes.search(near=vector, match=match, fusion=fusion, k=K, exact=True, returning=[])
        hits.setdefault(kind, []).append(row in found.ids.tolist())
    return {kind: float(np.mean(each)) for kind, each in sorted(hits.items())}


def compared(
    notes: Collection, title: str, queries: list[Query], column: str | None
) -> dict[str, dict[str, float]]:
    """recall@10 of all fusions by kind, printed."""
    print(f"\n{title}, {len(queries)} queries")
    table = {}
    for fusion in FUSIONS:
        table[fusion] = recall(notes, queries, fusion, column)
        shown = "  ".join(f"{kind} {value:.3f}" for kind, value in table[fusion].items())
        print(f"  {fusion:12} {shown}", flush=True)
    return table


def main() -> int:
    description, _, _ = (__doc__ or "").partition("\n\n")
    options = parser(description, 100_000, 1)
    options.add_argument("--queries", type=int, default=1500, help="of each set")
    options.add_argument("--split", default="test", help="tune or test")
    options.add_argument("--keep", default="", help="folder in which the file is left")
    given = options.parse_args()
    if not given.data or not os.path.isdir(given.data):
        options.error("--data names no folder with docs.jsonl.gz, queries.jsonl.gz and vectors")
    data = Path(given.data)
    with gzip.open(data / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        docs = [json.loads(line) for line in lines]
    with gzip.open(data / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        asked = [json.loads(line) for line in lines]
    vectors = np.load(data / "vectors.f16.npy").astype(np.float32)
    asked_vectors = np.load(data / "query_vectors.f32.npy")
    row_of = {doc["id"]: row for row, doc in enumerate(docs)}
    queries: list[Query] = [
        (each["kind"], each["text"], asked_vectors[number], row_of[each["relevant"][0]])
        for number, each in enumerate(asked)
        if each["split"] == given.split
    ]
    order = np.random.default_rng(2).permutation(len(queries))[: given.queries].tolist()
    queries = [queries[each] for each in order]
    with workplace(given.folder) as folder:
        path = os.path.join(given.keep or folder, "quality.m2m")
        if not os.path.exists(path):
            build(path, docs, vectors)
        notes = m2mdb.connect(path).collection("notes")
        table = compared(notes, f"wordnet, {given.split} half", queries, None)
        compared(notes, "text only", queries, "text")
        compared(notes, "made", made(docs, vectors, [row for *_, row in queries]), "text")
    good = True
    for kind, value in table["adaptive"].items():
        better = max(table["vector_only"][kind], table["bm25_only"][kind])
        met = value >= GAIN * better if kind == "example" else value >= better - LOSS
        wanted = f"{GAIN} times" if kind == "example" else f"{LOSS} within"
        good &= met
        print(f"  {kind}: {value:.3f}, better side {better:.3f}, gate {wanted}: {met}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
