"""Rescoring: what DECAY and DIVERSITY make of the candidates of a search.

    candidates --DECAY--> final scores --MIN SCORE--> those that pass --DIVERSITY--> order

Candidates are what the sides found, the best max(100, 4 (K + OFFSET)) of each.

    DECAY       score * 2^(-age / half life); a score below 0 is divided by that factor, so that
                age never makes a row better. A row without a time, or with one to come, has age 0.
    DIVERSITY   maximal marginal relevance: the next hit is the candidate with the largest
                (1 - x) * relevance - x * (largest similarity to a hit before it), where

                relevance   score, its range among the candidates stretched to 0..1; 1 if all are
                            equal
                similarity  cosine for cosine and ip, 1 / (1 + distance) for l2; a row without a
                            vector, and a vector of zeros under cosine and ip, is like no other: 0

Invariants
    D1  The result depends on candidates, vectors and clock alone: of equal values the one with the
        better score comes first, then the lower rowid.
    D2  DIVERSITY changes the order and which rows are among the first K, never a score; 0 changes
        nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from m2mdb.index.collection import CollectionView
    from m2mdb.index.found import Found
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.query.fusion import Fused
    from m2mdb.query.search import SearchRequest

    Ints = NDArray[np.int64]
    Doubles = NDArray[np.float64]
    Sides = tuple[Found | None, Found | None]

MICROSECONDS = 1_000_000
UNITS = {  # seconds of the units of HALF LIFE
    "second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0,
}  # fmt: skip
_LARGEST = 1000.0  # half lives; 2^-1000 is a number still


class Decay(NamedTuple):
    """Half-life decay: the TIMESTAMP column, the half life in seconds, and seconds since 1970."""

    column: str
    half_life: float
    now: float


def decay_of(column: str, half_life: float, now: float, said: str | None = None) -> Decay:
    """A checked decay; `said` is the half life as it was written, for the error.

    Raises ProgrammingError: the half life is no positive number of seconds.
    """
    is_number = isinstance(half_life, int | float | np.number) and not isinstance(half_life, bool)
    if not is_number or not 0 < half_life < float("inf"):
        raise ProgrammingError(f"HALF LIFE is {said or repr(half_life)}; expected more than 0")
    return Decay(column, float(half_life), now)


def unit_seconds(unit: str) -> float:
    """The seconds of a unit.

    Raises ProgrammingError: no unit of time, or one without a fixed length.
    """
    name = unit.lower()
    found = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
    if found is None:
        known = ", ".join(f"{each.upper()}S" for each in UNITS)
        raise ProgrammingError(f"HALF LIFE in {unit}: expected one of {known}")
    return found


def decay_column(schema: CollectionSchema, name: str) -> int:
    """The column whose times rows age by.

    Raises ProgrammingError: no such column, or it holds no times.
    """
    index = schema.column(name)
    kind = schema.columns[index].type
    if kind != "TIMESTAMP":
        raise ProgrammingError(f"DECAY ON {name} of {schema.name}: {kind} is no TIMESTAMP")
    return index


def diversity_column(schema: CollectionSchema, near_column: int) -> int:
    """The column whose vectors say how like rows are: that of NEAR (-1 without), or the only one.

    Raises ProgrammingError where neither is.
    """
    if near_column >= 0:
        return near_column
    found = schema.near_columns
    if len(found) != 1:
        names = ", ".join(schema.columns[index].name for index in found) or "none"
        raise ProgrammingError(
            f"DIVERSITY without NEAR needs exactly one VECTOR column; {schema.name} has {names}"
        )
    return found[0]


class Places:
    """Where the rows of a fused ranking stand: part and ordinal of each, int64 (m,)."""

    __slots__ = ("ordinals", "parts")

    def __init__(self, fused: Fused, sides: Sides) -> None:
        """Look them up in the side that found the row."""
        self.parts = np.zeros(len(fused), np.int64)
        self.ordinals = np.zeros(len(fused), np.int64)
        for side, places in zip(sides, (fused.vector_places, fused.text_places), strict=True):
            if side is None or not len(side):
                continue
            there = np.flatnonzero(places >= 0)
            chosen = places[there]
            parts = side.parts
            self.parts[there] = parts if isinstance(parts, int) else parts[chosen]
            self.ordinals[there] = side.ordinals[chosen]

    def by_part(self) -> Iterator[tuple[int, Ints, Ints]]:
        """(part, which rows of the ranking stand in it, their ordinals)."""
        for part in np.unique(self.parts).tolist():
            rows = np.flatnonzero(self.parts == part)
            yield part, rows, self.ordinals[rows]

    def pairs(self) -> list[tuple[int, int]]:
        """(part, ordinal) of each row."""
        return list(zip(self.parts.tolist(), self.ordinals.tolist(), strict=True))


def rescored(
    collection: CollectionView, near_column: int, request: SearchRequest, fused: Fused, sides: Sides
) -> Fused:
    """The candidates of a request as its DECAY, MIN SCORE and DIVERSITY leave them."""
    if request.decay is not None:
        fused = decayed(collection, fused, sides, request.decay)
    if request.diversity:
        if request.min_score is not None:
            fused = fused.take(slice(0, int(np.count_nonzero(fused.scores >= request.min_score))))
        column = diversity_column(collection.schema, near_column)
        how = float(request.diversity), request.k + request.offset
        fused = diversified(collection, column, fused, sides, how)
    return fused


def decayed(collection: CollectionView, fused: Fused, sides: Sides, decay: Decay) -> Fused:
    """The ranking by scores that have aged."""
    column, parts = decay_column(collection.schema, decay.column), collection.parts()
    ages = np.zeros(len(fused))
    now = decay.now * MICROSECONDS
    for part, rows, ordinals in Places(fused, sides).by_part():
        stored = [parts[part].stored(column, ordinal) for ordinal in ordinals.tolist()]
        ages[rows] = [0.0 if time is None else now - time for time in stored]
    halvings = np.clip(ages / (decay.half_life * MICROSECONDS), 0.0, _LARGEST)
    scores = fused.scores.astype(np.float64)
    scores = scores * np.exp2(np.where(scores < 0, halvings, -halvings))
    aged = fused.with_scores(scores)
    return aged.take(np.lexsort((aged.rowids, -aged.scores)))


def diversified(
    collection: CollectionView, column: int, fused: Fused, sides: Sides, how: tuple[float, int]
) -> Fused:
    """The ranking in the order of maximal marginal relevance.

    how  x in 0..1, and how many rows are wanted: no more are ordered, nor given
    """
    x, wanted = how
    vectors, present = _vectors(collection, column, fused, sides)
    is_l2 = collection.schema.columns[column].metric == "l2"
    if not is_l2:
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        present &= lengths > 0
        vectors /= np.where(lengths > 0, lengths, 1.0)[:, None]
    scores = fused.scores
    spread = scores[0] - scores[-1] if len(scores) else 0.0
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(len(scores))
    likeness = np.zeros(len(scores))  # the largest to a hit before; 0 before the first
    is_free = np.ones(len(scores), bool)
    chosen: list[int] = []
    check = collection.view.database.check_interrupted
    while len(chosen) < min(wanted, len(scores)):
        check()
        worth = (1.0 - x) * relevance - x * likeness
        worth[~is_free] = -np.inf
        best = int(worth.argmax())  # D1: the first of equal ones
        alike = _likeness(vectors, best, is_l2)
        alike[~present] = 0.0
        if not present[best]:
            alike[:] = 0.0
        likeness = np.maximum(likeness, alike) if chosen else alike
        is_free[best] = False
        chosen.append(best)
    return fused.take(np.array(chosen, np.int64))


def _likeness(vectors: Doubles, row: int, is_l2: bool) -> Doubles:
    """How like each row is to one of them."""
    if is_l2:
        apart = vectors - vectors[row]
        distances: Doubles = np.sqrt(np.einsum("ij,ij->i", apart, apart))
        return 1.0 / (1.0 + distances)
    cosines: Doubles = np.einsum("ij,j->i", vectors, vectors[row])
    return cosines


def _vectors(
    collection: CollectionView, column: int, fused: Fused, sides: Sides
) -> tuple[Doubles, NDArray[np.bool_]]:
    """The vectors of a ranking, zeros for rows without one; and which rows have one."""
    parts = collection.parts()
    vectors = np.zeros((len(fused), collection.schema.columns[column].dimension))
    present = np.ones(len(fused), bool)
    for part, rows, ordinals in Places(fused, sides).by_part():
        mask = parts[part].present(column)
        there = np.ones(len(rows), bool) if mask is None else mask[ordinals]
        present[rows] = there
        if there.any():
            vectors[rows[there]] = parts[part].vectors(column, ordinals[there])
    return vectors, present
