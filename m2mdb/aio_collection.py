"""The awaitable twin of `Collection`; see `m2mdb.aio`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import m2mdb.collection
from m2mdb.aio_worker import Worker

if TYPE_CHECKING:
    import datetime

    import numpy as np
    import pyarrow

    from m2mdb.categories import Categories
    from m2mdb.collection import Key, Keys, OnConflict
    from m2mdb.context import Context, Counter, Heading, Order
    from m2mdb.hits import Hits
    from m2mdb.index.receipts import Receipt
    from m2mdb.index.reembedding import Reembedded
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.query.copying import Progress
    from m2mdb.row import Row

    Array = np.ndarray[Any, Any]

T = TypeVar("T")


class Collection:
    """A collection as an object whose calls are awaited; see `m2mdb.Collection`."""

    __slots__ = ("_worker", "plain")

    def __init__(self, plain: m2mdb.collection.Collection, worker: Worker) -> None:
        """`plain` is the collection that does the work."""
        self.plain = plain
        self._worker = worker

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._worker.run(call)

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.plain.name

    async def schema(self) -> CollectionSchema:
        """The columns and indexes, as of now."""
        return await self._run(lambda: self.plain.schema)

    async def add(
        self, rows: Any, on_conflict: OnConflict = "error", *, categories: Categories | None = None
    ) -> Array:
        """Add rows and return their primary keys."""
        return await self._run(lambda: self.plain.add(rows, on_conflict, categories=categories))

    @overload
    async def get(self, ids: Key) -> Row | None: ...
    @overload
    async def get(self, ids: Keys) -> list[Row | None]: ...
    async def get(self, ids: Any) -> Any:
        """The row of one id, or None; for a list of ids a list of rows and Nones."""
        return await self._run(lambda: self.plain.get(ids))

    async def update(self, id: Any, values: Mapping[str, Any]) -> int:
        """Give columns of the row of an id new values; returns the rows changed, 0 or 1."""
        return await self._run(lambda: self.plain.update(id, values))

    async def delete(self, ids: Any = None, where: str | None = None, params: Any = ()) -> int:
        """Delete the rows of ids, or those that `where` holds for; returns how many."""
        return await self._run(lambda: self.plain.delete(ids, where, params))

    async def forget(self, ids: Any = None, where: str | None = None, params: Any = ()) -> Receipt:
        """Delete rows with every trace of them in file and log."""
        return await self._run(lambda: self.plain.forget(ids, where, params))

    async def has_forgotten(self, receipt: Receipt | int, ids: Any) -> bool:
        """Whether the receipt's rows had these ids, all of them and no others."""
        return await self._run(lambda: self.plain.has_forgotten(receipt, ids))

    async def count(self, where: str | None = None, params: Any = ()) -> int:
        """How many rows there are, or how many `where` holds for."""
        return await self._run(lambda: self.plain.count(where, params))

    async def search(
        self,
        query: str | None = None,
        *,
        near: Any = None,
        match: str | Mapping[str, str] | None = None,
        where: str | None = None,
        params: Any = (),
        k: int = 10,
        offset: int = 0,
        fusion: str | tuple[str, Mapping[str, float]] | None = None,
        recall: float | None = None,
        probes: int | None = None,
        exact: bool = False,
        min_score: float | None = None,
        score: str = "similarity",
        as_of: int | None = None,
        diversity: float | None = None,
        decay: Mapping[str, float | datetime.timedelta] | None = None,
        returning: str | Sequence[str] | None = None,
        signals: bool = False,
    ) -> Hits:
        """The best k rows for a vector, a text, or both."""
        return await self._run(
            lambda: self.plain.search(
                query,
                near=near,
                match=match,
                where=where,
                params=params,
                k=k,
                offset=offset,
                fusion=fusion,
                recall=recall,
                probes=probes,
                exact=exact,
                min_score=min_score,
                score=score,
                as_of=as_of,
                diversity=diversity,
                decay=decay,
                returning=returning,
                signals=signals,
            )
        )

    async def search_batch(
        self,
        near: Any = None,
        match: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        where: str | None = None,
        params: Any = (),
        k: int = 10,
        recall: float | None = None,
        probes: int | None = None,
        exact: bool = False,
    ) -> tuple[Array, Array]:
        """Keys and scores of many searches, of shape (queries, k)."""
        return await self._run(
            lambda: self.plain.search_batch(
                near,
                match,
                where=where,
                params=params,
                k=k,
                recall=recall,
                probes=probes,
                exact=exact,
            )
        )

    async def feedback(self, near: Any, relevant: Any = (), irrelevant: Any = ()) -> None:
        """Learn from what was relevant to a query."""
        await self._run(lambda: self.plain.feedback(near, relevant, irrelevant))

    async def copy_to(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> int:
        """Write all rows to a file; `progress` is called in the connection's thread."""
        return await self._run(lambda: self.plain.copy_to(path, progress=progress, **options))

    async def copy_from(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
    ) -> int:
        """Add the rows of a file, all or none; `progress` is called in the connection's thread."""
        return await self._run(lambda: self.plain.copy_from(path, progress=progress, **options))

    async def context(
        self,
        query: str | None = None,
        *,
        max_tokens: int,
        text: str | None = None,
        source: str | Sequence[str] = (),
        count: Counter | None = None,
        heading: Heading | None = None,
        duplicates: float | None = 0.8,
        order: Order = "score",
        whole: bool = False,
        k: int = 50,
        **search: Any,
    ) -> Context:
        """What is known about a query, as text for a prompt of at most `max_tokens` tokens."""
        return await self._run(
            lambda: self.plain.context(
                query, max_tokens=max_tokens, text=text, source=source, count=count,
                heading=heading, duplicates=duplicates, order=order, whole=whole, k=k, **search,
            )
        )  # fmt: skip

    async def categorise(
        self, categories: Categories, *, where: str | None = None, params: Any = ()
    ) -> dict[str, int]:
        """Give rows their classes; how many rows each class got."""
        return await self._run(
            lambda: self.plain.categorise(categories, where=where, params=params)
        )

    async def reembed(
        self, encoder: str, *, column: str | None = None, progress: Progress | None = None
    ) -> Reembedded:
        """Bring the generated VECTOR column to another encoder; `progress` as in `copy_to`."""
        return await self._run(
            lambda: self.plain.reembed(encoder, column=column, progress=progress)
        )

    async def arrow(self) -> pyarrow.Table:
        """All rows and columns as an Arrow table."""
        return await self._run(self.plain.arrow)

    def __repr__(self) -> str:
        return f"<m2mdb.aio.Collection {self.name}>"
