"""Hits: what a search found, as rows and as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from m2mdb.row import Names, Row, short

if TYPE_CHECKING:
    from m2mdb.index.signals import Signals

SHOWN_HITS = 10  # in a repr


class Hit(Row):
    """One found row: a `Row` whose `score` is computed and whose `id` is its primary key."""

    __slots__ = ("_id",)

    def __init__(self, names: Names, values: tuple[Any, ...], key: Any) -> None:
        super().__init__(names, values)
        self._id = key

    def __getattr__(self, name: str) -> Any:
        if name == "id" and "id" not in self._names.positions:
            return self._id
        return super().__getattr__(name)

    def __repr__(self) -> str:
        return f"Hit({super().__repr__()[4:-1]})"


class Hits(Sequence[Hit]):
    """The rows that a search found, best first.

    `ids` are primary keys (int64 where they are integers, else object), or rowids where the
    collection has no primary key; `scores` are float64. Both are arrays of `len(hits)`.
    `signals` says how well the query fits what is stored, where the search was asked for it
    (confidence, margin, qerr, part, list); None elsewhere, and where the column has no lists.
    """

    __slots__ = ("_names", "_rows", "ids", "scores", "signals")

    def __init__(
        self,
        names: Names,
        rows: list[tuple[Any, ...]],
        ids: np.ndarray[Any, Any],
        scores: np.ndarray[Any, Any],
    ) -> None:
        self._names = names
        self._rows = rows
        self.ids = ids
        self.scores = scores
        self.signals: Signals | None = None

    def keys(self) -> list[str]:
        """The column names, in order."""
        return list(self._names.names)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Hits: ...
    def __getitem__(self, index: int | slice) -> Hit | Hits:
        if isinstance(index, slice):
            return Hits(self._names, self._rows[index], self.ids[index], self.scores[index])
        return Hit(self._names, self._rows[index], self.ids[index])

    def __iter__(self) -> Iterator[Hit]:
        names = self._names
        for values, key in zip(self._rows, self.ids.tolist(), strict=True):
            yield Hit(names, values, key)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hits):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def df(self) -> Any:
        """A pandas DataFrame with a row a hit; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            from m2mdb.pager.errors import NotSupportedError

            raise NotSupportedError(
                "hits.df() needs pandas (pip install 'm2mdb[pandas]')"
            ) from error
        return pandas.DataFrame.from_records(self._rows, columns=list(self._names.names))

    def __repr__(self) -> str:
        noun = "hit" if len(self) == 1 else "hits"
        lines = [f"<m2mdb.Hits: {len(self)} {noun}>"]
        for number, (row, key, score) in enumerate(
            zip(self._rows[:SHOWN_HITS], self.ids.tolist(), self.scores.tolist(), strict=False), 1
        ):
            texts = [
                short(value, 48)
                for name, value in zip(self._names.names, row, strict=True)
                if name not in ("id", "score") and isinstance(value, str)
            ]
            lines.append(f"{number:3}  {score:.4f}  {short(key, 32)}  {'  '.join(texts[:3])}")
        if len(self) > SHOWN_HITS:
            lines.append(f"  …  {len(self) - SHOWN_HITS} more")
        return "\n".join(lines)
