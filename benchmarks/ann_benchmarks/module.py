"""m2mdb for ann-benchmarks: this folder is a copy-ready `ann_benchmarks/algorithms/m2mdb`.

    cp -r benchmarks/ann_benchmarks ANN_BENCHMARKS/ann_benchmarks/algorithms/m2mdb
    python install.py --algorithm m2mdb && python run.py --algorithm m2mdb --dataset NAME

Without ann-benchmarks, on data of one's own, the same calls in the same order:

    python benchmarks/ann_benchmarks/module.py --data FOLDER [--count N]

One query is one `Collection.search` on a file; a batch is one `search_batch`. The query argument
is the recall that is asked for.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import numpy as np

import m2mdb

try:
    from ..base.module import BaseANN  # noqa: TID252 - its place in ann-benchmarks
except ImportError:
    BaseANN = object

METRICS = {"angular": "cosine", "euclidean": "l2"}


# The base comes with ann-benchmarks, which has no types and is not installed beside this file.
class M2mdb(BaseANN):
    """A database of one collection; the constructor's arguments are those of config.yml."""

    def __init__(self, metric: str, options: dict[str, Any]) -> None:
        if metric not in METRICS:
            raise NotImplementedError(f"m2mdb does not support the metric {metric}")
        self.metric = METRICS[metric]
        self.options = options
        self.recall = 0.95
        self.name = ""
        self._folder = tempfile.TemporaryDirectory(dir=options.get("folder"))
        self.set_query_arguments(0.95)

    def fit(self, X: np.ndarray) -> None:
        """Write the vectors, float32 (n, d), and make their lists."""
        rows = np.ascontiguousarray(X, np.float32)
        self._connection = m2mdb.connect(os.path.join(self._folder.name, "ann.m2m"))
        self._connection.execute(
            f"CREATE COLLECTION rows (id INTEGER PRIMARY KEY, "
            f"e VECTOR({rows.shape[1]}) METRIC {self.metric})"
        )
        self._rows = self._connection.collection("rows")
        self._rows.add({"id": np.arange(len(rows)), "e": rows})
        self._connection.commit()
        self._connection.execute("OPTIMIZE rows")
        self._connection.commit()

    def set_query_arguments(self, recall: float) -> None:
        """The recall that the next searches ask for; 1 compares every row."""
        self.recall = recall
        self.name = f"m2mdb (recall={recall:g})"

    def query(self, q: np.ndarray, n: int) -> np.ndarray:
        """Row numbers of the n nearest, best first."""
        found = self._rows.search(near=q, k=n, recall=self.recall, returning=[])
        return np.asarray(found.ids)

    def batch_query(self, X: np.ndarray, n: int) -> None:
        """Search many at once; `get_batch_results` gives what was found."""
        queries = np.ascontiguousarray(X, np.float32)
        self._found = self._rows.search_batch(queries, k=n, recall=self.recall)[0]

    def get_batch_results(self) -> np.ndarray:
        """Row numbers, (queries, n); -1 where there are fewer rows."""
        return np.asarray(self._found)

    def done(self) -> None:
        """Close and remove the file."""
        self._connection.close()
        self._folder.cleanup()

    def __str__(self) -> str:
        return self.name


def main() -> int:
    """What ann-benchmarks does with a module, without it."""
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
    import ann
    import common

    options = common.parser(__doc__ or "", 20_000, 1).parse_args()
    data = common.Data(options.data, options.count)
    rows, queries = data.vectors, data.queries[:200]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    edges = ann.edges_of(rows, queries, 10)
    algorithm = M2mdb("angular", {})
    algorithm.fit(rows)
    for wanted in (0.8, 0.9, 0.95, 0.99, 1.0):
        algorithm.set_query_arguments(wanted)
        found = [algorithm.query(query, 10) for query in queries]
        algorithm.batch_query(queries, 10)
        same = algorithm.get_batch_results()
        reached = [ann.recall(rows, queries, edges, some, 10, None) for some in (found, same)]
        print(f"{algorithm}: recall {reached[0]:.4f}, in a batch {reached[1]:.4f}")
    algorithm.done()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
