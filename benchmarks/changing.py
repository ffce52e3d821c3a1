"""Churn of each store: how a row gets another vector, and how it is made durable.

`WAYS` has, for each kind of store that can, a function of (store, numbers, rows, labels): rows
`numbers` get the vectors `rows`, float32 (n, d), and keep their labels. `KEEPS` has what a library
without files of its own does at the end, so that the next process sees it. A store that is in
neither cannot change a row: svs (this index), ScaNN, faiss' graphs and refined indexes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import stores
from stores import Array

Labels = dict[int, Array]
Way = Callable[[Any, Array, Array, Labels], None]


def way_of(store: stores.Store) -> Way | None:
    """How a store changes rows; None where it cannot."""
    if isinstance(store, stores.Faiss) and store.factory != "IVF256,Flat":
        return None
    return WAYS.get(type(store))


def keep(store: stores.Store, folder: str) -> None:
    """Write what was changed where the store has not done so itself."""
    if type(store) in KEEPS:
        KEEPS[type(store)](store, folder)


def _m2mdb(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    values = {f"of{share}": label[numbers] for share, label in labels.items()}
    store.notes.add({"id": numbers, **values, "e": rows}, on_conflict="replace")
    store.connection.commit()


def _faiss(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    store.index.remove_ids(store.faiss.IDSelectorBatch(numbers.astype(np.int64)))
    store.index.add_with_ids(rows, numbers.astype(np.int64))


def _hnswlib(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    store.index.add_items(rows, numbers, num_threads=1)  # a label that is there is updated


def _usearch(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    store.index.remove(numbers)
    store.index.add(numbers, rows, threads=1)


def _zvec(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    for start in range(0, len(numbers), 1000):
        store.collection.upsert(
            [
                store.z.Doc(
                    id=str(number),
                    vectors={"e": row.tolist()},
                    fields={f"of{s}": int(label[number]) for s, label in labels.items()},
                )
                for number, row in zip(
                    numbers[start : start + 1000].tolist(), rows[start:], strict=False
                )
            ]
        )
    store.collection.flush()


def _chroma(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    for start in range(0, len(numbers), 5000):
        part = slice(start, start + 5000)
        store.collection.update(ids=[str(each) for each in numbers[part]], embeddings=rows[part])


def _lancedb(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    pa = importlib.import_module("pyarrow")
    flat = pa.array(rows.ravel(), pa.float32())
    columns = {
        "id": pa.array(numbers),
        "e": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]),
        **{f"of{share}": pa.array(label[numbers]) for share, label in labels.items()},
    }
    store.table.merge_insert("id").when_matched_update_all().execute(pa.table(columns))


def _sqlite_vec(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    values = [(row.tobytes(), int(n)) for n, row in zip(numbers, rows, strict=True)]
    with store.connection:
        store.connection.executemany("update store set e = ? where id = ?", values)


def _numpy(store: Any, numbers: Array, rows: Array, labels: Labels) -> None:
    store.rows[numbers] = rows


WAYS: dict[type[stores.Store], Way] = {
    stores.M2mdb: _m2mdb,
    stores.Faiss: _faiss,
    stores.Hnswlib: _hnswlib,
    stores.Usearch: _usearch,
    stores.Zvec: _zvec,
    stores.Chroma: _chroma,
    stores.Lancedb: _lancedb,
    stores.SqliteVec: _sqlite_vec,
    stores.Numpy: _numpy,
}
KEEPS: dict[type[stores.Store], Callable[[Any, str], None]] = {
    stores.Faiss: lambda s, folder: s.faiss.write_index(s.index, os.path.join(folder, "index")),
    stores.Hnswlib: lambda s, folder: s.index.save_index(os.path.join(folder, "index")),
    stores.Usearch: lambda s, folder: s.index.save(os.path.join(folder, "index")),
    stores.Numpy: lambda s, folder: np.save(os.path.join(folder, "rows.npy"), s.rows),
}
