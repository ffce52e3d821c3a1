"""The stores that the search benchmarks run: m2mdb and its rivals, each behind the same few calls.

    build(rows, labels, folder)   make the store from vectors and an integer label a row, durably
    open(folder)                  in another process, as a program would that uses it
    use(effort)                   what the next searches may spend, one of `efforts`
    search(query, k)              row numbers of one query, best first
    batch(queries, k)             of many queries in one call, where the store has such a call
    filtered(query, k, share)     of the rows that have one label: one row in `share`, 10 or 100

Vectors have length one, so the inner product is the cosine. Settings are those that were found to
be best for each rival at 100,000 real sentence vectors; every store has one thread. A store whose
library is not installed raises ModuleNotFoundError in `build`.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import os
from collections.abc import Sequence
from typing import Any

import common  # sets the number of threads before NumPy loads
import numpy as np

Array = np.ndarray[Any, Any]
Effort = dict[str, Any]

__all__ = ["LABELS", "STORES", "Store", "bytes_under", "common", "label_of"]

LABELS = (10, 100)  # a filter lets one row in so many pass
_PART = 20_000  # rows of one insert


def label_of(share: int, count: int) -> Array:
    """The label of each row, 0 .. share - 1; labels have nothing to do with the vectors."""
    return np.random.default_rng(share).integers(0, share, count)


def bytes_under(folder: str) -> int:
    """The size of all files in a folder."""
    return sum(
        os.path.getsize(os.path.join(place, name))
        for place, _, names in os.walk(folder)
        for name in names
    )


class Store(abc.ABC):
    """One store; the methods are described in the module's header."""

    name = ""
    settings = ""
    efforts: Sequence[Effort] = ({},)
    has_batch = False
    has_filter = False

    @abc.abstractmethod
    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        """Make it, durably."""

    @abc.abstractmethod
    def open(self, folder: str) -> None:
        """Open what was built."""

    def use(self, effort: Effort) -> None:
        """Set what the next searches may spend."""
        self.effort = effort

    @abc.abstractmethod
    def search(self, query: Array, k: int) -> Any:
        """Row numbers, best first."""

    # Not abstract: a store may lack these, says so by has_batch and has_filter, and is not asked.

    def batch(self, queries: Array, k: int) -> Any:
        """Row numbers of many queries."""
        raise NotImplementedError(f"{self.name}: has_batch is false")

    def filtered(self, query: Array, k: int, share: int) -> Any:
        """Row numbers among those with label 0."""
        raise NotImplementedError(f"{self.name}: has_filter is false")


class M2mdb(Store):
    """Through the public face: a file, `Collection.add`, OPTIMIZE, `Collection.search`."""

    name = "m2mdb"
    settings = "lists by OPTIMIZE; RECALL or PROBES as asked"
    efforts: Sequence[Effort] = [
        *({"recall": each} for each in (0.5, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)),
        *({"probes": each} for each in (4, 5, 6, 8)),
    ]
    has_batch = has_filter = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        m2mdb = importlib.import_module("m2mdb")
        loader = importlib.import_module("m2mdb.compute.loader").LOADER
        if not loader.wait():
            raise SystemExit(f"no compiled kernels: {loader.error!r}")
        connection = m2mdb.connect(os.path.join(folder, "store.m2m"))
        columns = ", ".join(f"of{share} INTEGER" for share in labels)
        connection.execute(
            f"CREATE COLLECTION notes (id INTEGER PRIMARY KEY, {columns}, "
            f"e VECTOR({rows.shape[1]}) METRIC cosine)"
        )
        values = {f"of{share}": label for share, label in labels.items()}
        connection.collection("notes").add({"id": np.arange(len(rows)), **values, "e": rows})
        connection.commit()
        connection.execute("OPTIMIZE notes")
        connection.commit()
        connection.close()

    def open(self, folder: str) -> None:
        path = os.path.join(folder, "store.m2m")
        self.connection = importlib.import_module("m2mdb").connect(path)
        self.notes = self.connection.collection("notes")

    def search(self, query: Array, k: int) -> Any:
        return self.notes.search(near=query, k=k, returning=[], **self.effort).ids

    def batch(self, queries: Array, k: int) -> Any:
        return self.notes.search_batch(queries, k=k, **self.effort)[0]

    def filtered(self, query: Array, k: int, share: int) -> Any:
        some = {"where": f"of{share} = ?", "params": (0,), "returning": [], **self.effort}
        return self.notes.search(near=query, k=k, **some).ids


class Svs(Store):
    """Intel's Vamana graph over 16-bit floats."""

    name = "svs"
    settings = "Vamana, float16, 64 links, window 200, alpha 0.95"
    efforts: Sequence[Effort] = [
        {"window": each} for each in (10, 14, 20, 28, 40, 60, 80, 120, 160, 240)
    ]
    has_batch = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        svs = importlib.import_module("svs")
        how = svs.VamanaBuildParameters(graph_max_degree=64, window_size=200, alpha=0.95)
        index = svs.Vamana.build(how, rows.astype(np.float16), svs.DistanceType.MIP, 1)
        index.save(*[os.path.join(folder, name) for name in ("config", "graph", "data")])

    def open(self, folder: str) -> None:
        svs = importlib.import_module("svs")
        loader = svs.VectorDataLoader(os.path.join(folder, "data"), svs.DataType.float16)
        places = [os.path.join(folder, name) for name in ("config", "graph")]
        self.index = svs.Vamana(
            *places, loader, svs.DistanceType.MIP, query_type=svs.DataType.float32, num_threads=1
        )

    def use(self, effort: Effort) -> None:
        self.window = effort["window"]

    def search(self, query: Array, k: int) -> Any:
        return self.batch(query[None], k)[0]

    def batch(self, queries: Array, k: int) -> Any:
        self.index.search_window_size = max(self.window, k)
        return self.index.search(queries, k)[0]


class Faiss(Store):
    """An index of faiss, by its factory string."""

    has_batch = True

    def __init__(self, name: str, factory: str, efforts: list[Effort]) -> None:
        self.name = f"faiss {name}"
        self.factory = factory
        self.settings = factory
        self.efforts = efforts
        self.has_filter = "fs" not in factory
        self._selectors: dict[int, tuple[Any, Array]] = {}

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(1)
        text = self.factory.format(lists=max(16, len(rows) // 100), half=rows.shape[1] // 2)
        index = faiss.index_factory(rows.shape[1], text, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" in text:
            faiss.ParameterSpace().set_index_parameter(index, "efConstruction", 200)
        index.train(rows)
        index.add(rows)
        faiss.write_index(index, os.path.join(folder, "index"))
        for share, label in labels.items():
            np.save(
                os.path.join(folder, f"of{share}.npy"), np.packbits(label == 0, bitorder="little")
            )

    def open(self, folder: str) -> None:
        self.faiss = importlib.import_module("faiss")
        self.faiss.omp_set_num_threads(1)
        self.index = self.faiss.read_index(os.path.join(folder, "index"))
        for share in LABELS:
            bits = np.load(os.path.join(folder, f"of{share}.npy"))
            pointer = self.faiss.swig_ptr(bits)
            self._selectors[share] = (self.faiss.IDSelectorBitmap(self.index.ntotal, pointer), bits)

    def use(self, effort: Effort) -> None:
        self.effort = effort
        space = self.faiss.ParameterSpace()
        for name, value in effort.items():
            space.set_index_parameter(self.index, name, value)

    def search(self, query: Array, k: int) -> Any:
        return self.index.search(query[None], k)[1][0]

    def batch(self, queries: Array, k: int) -> Any:
        return self.index.search(queries, k)[1]

    def filtered(self, query: Array, k: int, share: int) -> Any:
        selector = self._selectors[share][0]
        if "efSearch" in self.effort:
            how = self.faiss.SearchParametersHNSW(sel=selector, efSearch=self.effort["efSearch"])
        else:
            how = self.faiss.SearchParametersIVF(sel=selector, nprobe=self.effort["nprobe"])
        return self.index.search(query[None], k, params=how)[1][0]


class Hnswlib(Store):
    """The reference HNSW."""

    name = "hnswlib"
    settings = "M = 16, ef_construction = 200"
    efforts: Sequence[Effort] = [{"ef": each} for each in (16, 32, 64, 96, 128, 256, 400)]
    has_batch = has_filter = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        library = importlib.import_module("hnswlib")
        index = library.Index(space="ip", dim=rows.shape[1])
        index.init_index(len(rows), ef_construction=200, M=16, random_seed=1)
        index.set_num_threads(1)
        index.add_items(rows)
        index.save_index(os.path.join(folder, "index"))
        np.savez(os.path.join(folder, "labels.npz"), **{str(s): v for s, v in labels.items()})
        np.save(os.path.join(folder, "shape.npy"), rows.shape)

    def open(self, folder: str) -> None:
        dimension = int(np.load(os.path.join(folder, "shape.npy"))[1])
        self.index = importlib.import_module("hnswlib").Index(space="ip", dim=dimension)
        self.index.load_index(os.path.join(folder, "index"))
        self.index.set_num_threads(1)
        stored = np.load(os.path.join(folder, "labels.npz"))
        self.passing = {int(name): (stored[name] == 0).tolist() for name in stored.files}

    def use(self, effort: Effort) -> None:
        self.index.set_ef(effort["ef"])

    def search(self, query: Array, k: int) -> Any:
        return self.batch(query, k)[0]

    def batch(self, queries: Array, k: int) -> Any:
        if self.index.ef < k:
            self.index.set_ef(k)
        return self.index.knn_query(queries, k)[0]

    def filtered(self, query: Array, k: int, share: int) -> Any:
        passing = self.passing[share]
        return self.index.knn_query(query, k, filter=lambda row: passing[row])[0][0]


class Usearch(Store):
    """HNSW over 16-bit floats."""

    name = "usearch"
    settings = "float16, connectivity 16, expansion_add 128"
    efforts: Sequence[Effort] = [{"expansion": each} for each in (16, 32, 64, 128, 256, 512)]
    has_batch = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        index = self._index(rows.shape[1])
        index.add(np.arange(len(rows)), rows, threads=1)
        index.save(os.path.join(folder, "index"))

    def _index(self, dimension: int) -> Any:
        return importlib.import_module("usearch.index").Index(
            ndim=dimension, metric="ip", dtype="f16", connectivity=16, expansion_add=128
        )

    def open(self, folder: str) -> None:
        library = importlib.import_module("usearch.index")
        self.index = library.Index.restore(os.path.join(folder, "index"))

    def use(self, effort: Effort) -> None:
        self.index.expansion_search = effort["expansion"]

    def search(self, query: Array, k: int) -> Any:
        return self.index.search(query, k, threads=1).keys

    def batch(self, queries: Array, k: int) -> Any:
        return self.index.search(queries, k, threads=1).keys


class Scann(Store):
    """Google's ScaNN: a tree, anisotropic hashing, and a reordering in full precision."""

    name = "scann"
    settings = "1 leaf for 100 rows, AH 2 dimensions a block, threshold 0.2, reorder"
    efforts: Sequence[Effort] = [
        {"leaves": leaves, "pre": pre}
        for leaves, pre in ((10, 30), (20, 60), (30, 100), (50, 100), (100, 200), (200, 300))
    ]
    has_batch = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        ops = importlib.import_module("scann").scann_ops_pybind
        tree = ops.builder(rows, 10, "dot_product").tree(
            num_leaves=len(rows) // 100,
            num_leaves_to_search=20,
            training_sample_size=min(len(rows), 250_000),
        )
        made = tree.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
        made.serialize(folder)

    def open(self, folder: str) -> None:
        self.searcher = importlib.import_module("scann").scann_ops_pybind.load_searcher(folder)

    def search(self, query: Array, k: int) -> Any:
        return self.searcher.search(query, k, self.effort["pre"], self.effort["leaves"])[0]

    def batch(self, queries: Array, k: int) -> Any:
        return self.searcher.search_batched(queries, k, self.effort["pre"], self.effort["leaves"])[
            0
        ]


class Zvec(Store):
    """Zvec's HNSW over 8-bit values, with a refinement in full precision."""

    name = "zvec"
    settings = "HNSW m = 16, ef_construction = 200, INT8, refined"
    efforts: Sequence[Effort] = [
        {"ef": ef, "refine": refine}
        for ef, refine in ((40, 0), (60, 0), (100, 0), (100, 4), (200, 4), (300, 4))
    ]
    has_filter = True

    def _module(self) -> Any:
        zvec = importlib.import_module("zvec")
        with contextlib.suppress(Exception):  # it may be told once only
            zvec.init(query_threads=1, optimize_threads=1, log_level=zvec.LogLevel.ERROR)
        return zvec

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        z = self._module()
        index = z.HnswIndexParam(
            metric_type=z.MetricType.COSINE,
            m=16,
            ef_construction=200,
            quantize_type=z.QuantizeType.INT8,
        )
        fields = [
            z.FieldSchema(f"of{share}", z.DataType.INT64, index_param=z.InvertIndexParam())
            for share in labels
        ]
        kind = z.DataType.VECTOR_FP32
        vectors = [z.VectorSchema("e", kind, rows.shape[1], index_param=index)]
        schema = z.CollectionSchema("store", fields=fields, vectors=vectors)
        options = z.CollectionOption(read_only=False, enable_mmap=True)
        collection = z.create_and_open(os.path.join(folder, "store"), schema, options)
        for start in range(0, len(rows), 1000):
            collection.insert(
                [
                    z.Doc(
                        id=str(row),
                        vectors={"e": rows[row].tolist()},
                        fields={f"of{s}": int(label[row]) for s, label in labels.items()},
                    )
                    for row in range(start, min(start + 1000, len(rows)))
                ]
            )
        collection.optimize(z.OptimizeOption(concurrency=1))
        collection.flush()

    def open(self, folder: str) -> None:
        self.z = self._module()
        options = self.z.CollectionOption(read_only=False, enable_mmap=True)
        self.collection = self.z.open(os.path.join(folder, "store"), option=options)

    def use(self, effort: Effort) -> None:
        refine = effort["refine"]
        more = {"is_using_refiner": True, "scale_factor": refine} if refine else {}
        self.parameters = self.z.HnswQueryParam(ef=effort["ef"], **more)

    def search(self, query: Array, k: int, condition: str | None = None) -> Any:
        asked = self.z.Query(field_name="e", vector=query, param=self.parameters)
        found = self.collection.query(asked, topk=k, output_fields=[], filter=condition)
        return [int(each.id) for each in found]

    def filtered(self, query: Array, k: int, share: int) -> Any:
        return self.search(query, k, f"of{share} = 0")


class Chroma(Store):
    """Chroma's HNSW in a folder."""

    name = "chroma"
    settings = "PersistentClient, M = 16, ef_construction = 200, cosine"
    efforts: Sequence[Effort] = [{"ef": each} for each in (20, 60, 100, 200)]
    has_batch = has_filter = True

    def _client(self, folder: str) -> Any:
        chromadb = importlib.import_module("chromadb")
        chromadb.api.client.SharedSystemClient.clear_system_cache()  # it keeps the effort
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(folder, settings=settings)

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        graph = {
            "space": "cosine",
            "ef_construction": 200,
            "max_neighbors": 16,
            "ef_search": 100,
            "num_threads": 1,
        }
        collection = self._client(folder).create_collection(
            "store", embedding_function=None, configuration={"hnsw": graph}
        )
        for start in range(0, len(rows), 5000):
            part = range(start, min(start + 5000, len(rows)))
            collection.add(
                ids=[str(row) for row in part],
                embeddings=rows[part.start : part.stop],
                metadatas=[{f"of{s}": int(v[row]) for s, v in labels.items()} for row in part],
            )

    def open(self, folder: str) -> None:
        self.folder = folder
        self.collection = self._client(folder).get_collection("store", embedding_function=None)

    def use(self, effort: Effort) -> None:
        self.collection.modify(configuration={"hnsw": {"ef_search": effort["ef"]}})
        self.open(self.folder)

    def _query(self, queries: list[Array], k: int, **more: Any) -> list[list[int]]:
        found = self.collection.query(query_embeddings=queries, n_results=k, include=[], **more)
        return [[int(each) for each in ids] for ids in found["ids"]]

    def search(self, query: Array, k: int) -> Any:
        return self._query([query], k)[0]

    def batch(self, queries: Array, k: int) -> Any:
        return self._query(list(queries), k)

    def filtered(self, query: Array, k: int, share: int) -> Any:
        return self._query([query], k, where={f"of{share}": 0})[0]


class Lancedb(Store):
    """LanceDB: a graph over 8-bit values in one partition."""

    name = "lancedb"
    settings = "IVF_HNSW_SQ, one partition; bitmaps on the labels"
    efforts: Sequence[Effort] = [{"ef": each} for each in (20, 60, 150, 300)]
    has_filter = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        lancedb = importlib.import_module("lancedb")
        pa = importlib.import_module("pyarrow")
        flat = pa.array(rows.ravel(), pa.float32())
        columns = {
            "id": pa.array(np.arange(len(rows))),
            "e": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]),
            **{f"of{share}": pa.array(label) for share, label in labels.items()},
        }
        table = lancedb.connect(folder).create_table("store", pa.table(columns))
        table.create_index(
            metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, vector_column_name="e"
        )
        for share in labels:
            table.create_scalar_index(f"of{share}", index_type="BITMAP")

    def open(self, folder: str) -> None:
        self.table = importlib.import_module("lancedb").connect(folder).open_table("store")

    def query(self, query: Array, k: int) -> Any:
        """What search and filtered ask for, without a filter."""
        asked = self.table.search(query, vector_column_name="e").distance_type("cosine")
        return asked.limit(k).select(["id", "_distance"]).ef(self.effort["ef"])

    def search(self, query: Array, k: int) -> Any:
        return self.query(query, k).to_arrow()["id"].to_numpy()

    def filtered(self, query: Array, k: int, share: int) -> Any:
        asked = self.query(query, k).where(f"of{share} = 0", prefilter=True)
        return asked.to_arrow()["id"].to_numpy()


class SqliteVec(Store):
    """sqlite-vec compares every row."""

    name = "sqlite-vec"
    settings = "vec0 float, cosine; WAL, synchronous FULL"
    has_filter = True

    def _connect(self, folder: str) -> Any:
        apsw = importlib.import_module("apsw")  # many builds of sqlite3 load no extension
        connection = apsw.Connection(os.path.join(folder, "store.db"))
        connection.enable_load_extension(True)
        connection.load_extension(importlib.import_module("sqlite_vec").loadable_path())
        connection.execute(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full;"
            "PRAGMA cache_size = -262144; PRAGMA mmap_size = 4294967296"
        ).fetchall()
        return connection

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        connection = self._connect(folder)
        columns = "".join(f", of{share} integer" for share in labels)
        connection.execute(
            "create virtual table store using vec0(id integer primary key, "
            f"e float[{rows.shape[1]}] distance_metric=cosine{columns})"
        )
        marks = ", ?" * len(labels)
        for start in range(0, len(rows), _PART):
            part = range(start, min(start + _PART, len(rows)))
            values = (
                (row, rows[row].tobytes(), *[int(label[row]) for label in labels.values()])
                for row in part
            )
            with connection:
                connection.executemany(f"insert into store values (?, ?{marks})", values)
        connection.close()

    def open(self, folder: str) -> None:
        self.connection = self._connect(folder)

    def search(self, query: Array, k: int, more: str = "") -> Any:
        statement = f"select id from store where e match ? and k = ? {more}"
        return [row[0] for row in self.connection.execute(statement, (query.tobytes(), k))]

    def filtered(self, query: Array, k: int, share: int) -> Any:
        return self.search(query, k, f"and of{share} = 0")


class Numpy(Store):
    """Every product, and argpartition: what needs no index."""

    name = "numpy"
    settings = "float32 products, argpartition; a filter's rows gathered first"
    has_batch = has_filter = True

    def build(self, rows: Array, labels: dict[int, Array], folder: str) -> None:
        np.save(os.path.join(folder, "rows.npy"), rows)
        for share, label in labels.items():
            np.save(os.path.join(folder, f"of{share}.npy"), np.flatnonzero(label == 0))

    def open(self, folder: str) -> None:
        self.rows = np.load(os.path.join(folder, "rows.npy"))
        self.passing = {s: np.load(os.path.join(folder, f"of{s}.npy")) for s in LABELS}

    def search(self, query: Array, k: int) -> Any:
        keys = self.rows @ query
        best = np.argpartition(keys, -k)[-k:]
        return best[np.argsort(-keys[best])]

    def batch(self, queries: Array, k: int) -> Any:
        parts = [queries[i : i + 100] @ self.rows.T for i in range(0, len(queries), 100)]
        return np.concatenate([np.argpartition(part, -k, axis=1)[:, -k:] for part in parts])

    def filtered(self, query: Array, k: int, share: int) -> Any:
        passing = self.passing[share]
        keys = self.rows[passing] @ query
        return passing[np.argpartition(keys, -k)[-k:]]


_EF = [{"efSearch": each} for each in (8, 16, 32, 64, 96, 128, 192, 256, 400)]
_PROBES = [
    {"nprobe": probes, "k_factor_rf": factor}
    for probes, factor in ((8, 4), (16, 4), (32, 4), (64, 4), (96, 8), (192, 8), (384, 10))
]

STORES: dict[str, Store] = {
    each.name: each
    for each in (
        M2mdb(),
        Svs(),
        Faiss("HNSW16 SQ8", "HNSW16_SQ8", _EF),
        Faiss("HNSW32", "HNSW32,Flat", _EF),
        Faiss("IVF256", "IVF256,Flat", [{"nprobe": n} for n in (1, 2, 4, 8, 16, 32, 64, 128)]),
        Faiss("IVF-PQ fs", "IVF{lists},PQ{half}x4fs,RFlat", _PROBES),
        Faiss("IVF-RaBitQ fs", "IVF{lists},RaBitQfs,RFlat", _PROBES),
        Hnswlib(),
        Usearch(),
        Scann(),
        Zvec(),
        Chroma(),
        Lancedb(),
        SqliteVec(),
        Numpy(),
    )
}
