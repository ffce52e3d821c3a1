"""m2mdb as a client of VectorDBBench, and its own runner on data that lies here.

    pip install vectordb-bench
    python benchmarks/vectordbbench.py --data FOLDER [--count N] [--recall 0.95]

VectorDBBench fetches its data sets from a server; this runs its client protocol and its serial
search runner, which measures recall, NDCG and latency, on local vectors. `M2mdbClient` is what
would be registered there under `vectordb_bench/backend/clients`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import common
import numpy as np
from vectordb_bench.backend.clients.api import EmptyDBCaseConfig, VectorDB
from vectordb_bench.backend.filter import Filter, FilterOp, NewIntFilter, non_filter
from vectordb_bench.backend.runner.serial_runner import SerialSearchRunner

import m2mdb

K = 10


# The base comes with vectordb-bench, whose types are not looked at.
class M2mdbClient(VectorDB):
    """One file, a collection in it; `db_config` has its path and the recall that is asked for."""

    supported_filter_types: ClassVar = [FilterOp.NonFilter, FilterOp.NumGE, FilterOp.StrEqual]
    name = "m2mdb"

    def __init__(
        self,
        dim: int,
        db_config: dict[str, Any],
        db_case_config: Any,
        collection_name: str = "vectors",
        drop_old: bool = False,
        **options: Any,
    ) -> None:
        self.path, self.recall = db_config["path"], db_config.get("recall", 0.95)
        self.collection_name = collection_name
        self.where: str | None = None
        self.parameters: tuple[Any, ...] = ()
        with m2mdb.connect(self.path) as connection:
            if drop_old:
                connection.execute(f"DROP COLLECTION IF EXISTS {collection_name}")
            connection.execute(
                f"CREATE COLLECTION IF NOT EXISTS {collection_name} "
                f"(id INTEGER PRIMARY KEY, label TEXT, e VECTOR({dim}) METRIC cosine)"
            )
        connection.close()

    @contextmanager
    def init(self) -> Iterator[None]:
        """A connection for the calls inside."""
        self.connection = m2mdb.connect(self.path)
        self.rows = self.connection.collection(self.collection_name)
        try:
            yield
        finally:
            self.connection.close()
            del self.connection, self.rows

    def insert_embeddings(
        self,
        embeddings: list[list[float]],
        metadata: list[int],
        labels_data: list[str] | None = None,
        tenant_labels_data: list[str] | None = None,
        **options: Any,
    ) -> tuple[int, Exception | None]:
        """Add rows, durably; how many there were, and what went wrong."""
        vectors = np.asarray(embeddings, np.float32)
        columns: dict[str, Any] = {"id": list(metadata), "e": vectors}
        if labels_data is not None:
            columns["label"] = list(labels_data)
        try:
            return len(self.rows.add(columns)), None
        except m2mdb.Error as error:
            return 0, error

    def optimize(self, data_size: int | None = None) -> None:
        """Make the lists."""
        self.connection.execute("OPTIMIZE")

    def prepare_filter(self, filters: Filter) -> None:
        """What the next searches have to pass."""
        self.where, self.parameters = None, ()
        if filters.type == FilterOp.NumGE:
            self.where, self.parameters = "id >= ?", (filters.int_value,)
        elif filters.type == FilterOp.StrEqual:
            self.where, self.parameters = "label = ?", (filters.label_value,)

    def search_embedding(self, query: list[float], k: int = 100, **options: Any) -> list[int]:
        """The ids of the k nearest rows."""
        found = self.rows.search(
            near=query,
            k=k,
            where=self.where,
            params=self.parameters,
            recall=self.recall,
            returning=[],
        )
        ids: list[int] = found.ids.tolist()
        return ids


def main() -> int:
    """Load, optimise and search, with and without a filter."""
    parser = common.parser(__doc__ or "", 20_000, 1)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    data = common.Data(options.data, options.count)
    rows, queries = data.vectors, data.queries[: options.queries]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = {"path": os.path.join(folder, "bench.m2m"), "recall": options.recall}
        client = M2mdbClient(rows.shape[1], config, EmptyDBCaseConfig(), drop_old=True)
        started = time.perf_counter()
        with client.init():
            for start in range(0, len(rows), 5000):
                part = range(start, min(start + 5000, len(rows)))
                client.insert_embeddings(rows[part.start : part.stop].tolist(), list(part))
            client.optimize()
        print(f"load_duration {time.perf_counter() - started:.2f} s for {len(rows):,} rows")
        tenth = NewIntFilter(filter_rate=0.9, int_value=len(rows) * 9 // 10)
        for name, filters, first in (
            ("no filter", non_filter, 0),
            ("10 %", tenth, tenth.int_value),
        ):
            keys = queries @ rows[first:].T
            truth = (np.argsort(-keys, axis=1)[:, :K] + first).tolist()
            runner = SerialSearchRunner(client, list(queries), truth, K, filters)
            recall, ndcg, p99, p95, p50, _ = runner.search((runner.test_data, truth))
            print(f"{name}: recall {recall}, ndcg {ndcg}, p50 {p50} s, p95 {p95} s, p99 {p99} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
