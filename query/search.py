"""Search: NEAR and MATCH over one collection, fused, filtered and cut.

    WHERE --masks--> vector side --+
                     text side  ---+--fusion--> scores --K, OFFSET--> --MIN SCORE--> SearchHits

Used by SEARCH and by `Collection.search`, which needs neither parser nor expressions: WHERE comes
as anything that gives a mask for a part.

Invariants
    Y1  A search gives min(K, matches) rows; matches pass WHERE and have a vector (NEAR), a query
        term (MATCH), or either. MIN SCORE filters afterwards.
    Y2  Hits are ordered by (score descending, rowid ascending); with DIVERSITY as it says.
    Y3  `distance` is NULL for rows without a vector alone, `bm25` for rows without a query term
        alone, whichever side found the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from m2mdb.index.effort import DEFAULT_RECALL, EXACT, Effort
from m2mdb.index.found import Found
from m2mdb.index.query_vectors import check_query_vector
from m2mdb.index.schema import CollectionSchema
from m2mdb.index.slices import listed
from m2mdb.pager.errors import InterfaceError, NotSupportedError, ProgrammingError
from m2mdb.query import search_for
from m2mdb.query.limits import check_count
from m2mdb.query.markers import MARKER, marker_of

if TYPE_CHECKING:
    from m2mdb.index.collection import CollectionView, Part
    from m2mdb.index.effort import PartWork
    from m2mdb.index.signals import Signals
    from m2mdb.index.text.match_query import TextQuery
    from m2mdb.index.view import View
    from m2mdb.query.fusion import Fused
    from m2mdb.query.rescoring import Decay

DEFAULT_K = 10
LEAST_DEPTH = 100  # candidates of each side for fusion: max(100, 4 (K + OFFSET))
ROWID = -1
COMPUTED = ("rowid", "score", "distance", "bm25", "rank")
UNBUILT_COMPUTED = ("energy", "confidence")
FUSIONS = ("rrf", "weighted", "adaptive", "vector_only", "bm25_only")
Masks = list[np.ndarray | None] | None
_DEFAULT = Effort()


class Condition(Protocol):
    """A bound WHERE."""

    def mask(self, part: Part) -> np.ndarray:
        """bool (part.size,): the live rows that pass."""
        ...


class SearchRequest:
    """What to search for; the fields are SEARCH's clauses, None where one is absent.

    near, match      the query vector and the match text
    for_text         a text that is to become both (`query.search_for`); it excludes the others
    where            a bound condition
    fusion_options   of FUSION: k, depth, vector, text
    recall, probes   how much lists must find, see `effort_of`; a scan satisfies any
    as_of            the number of the commit to search; the present where it is None
    """

    __slots__ = (
        "as_of", "collection", "decay", "diversity", "exact", "for_text", "fusion",
        "fusion_options", "k", "match", "match_column", "min_score", "near", "near_column",
        "offset", "probes", "recall", "score", "where",
    )  # fmt: skip

    def __init__(
        self,
        collection: str,
        *,
        near: Any = None,
        near_column: str | None = None,
        match: Any = None,
        match_column: str | None = None,
        for_text: Any = None,
        where: Condition | None = None,
        k: int = DEFAULT_K,
        offset: int = 0,
        fusion: str | None = None,
        fusion_options: Mapping[str, float] | None = None,
        exact: bool = False,
        recall: float | None = None,
        probes: int | None = None,
        min_score: float | None = None,
        score: str | None = None,
        as_of: Any = None,
        decay: Decay | None = None,
        diversity: float | None = None,
        **unknown: Any,
    ) -> None:
        """Clauses by their field names.

        Raises ProgrammingError: no NEAR and no MATCH; K, OFFSET, RECALL, PROBES, MIN SCORE, HALF
        LIFE or DIVERSITY out of range. NotSupportedError: SCORE splat.
        """
        self.collection = collection
        self.near = near
        self.near_column = near_column
        self.match = match
        self.match_column = match_column
        self.for_text = for_text
        self.where = where
        self.k = k
        self.offset = offset
        self.fusion = fusion
        self.fusion_options: Mapping[str, float] = fusion_options or {}
        self.exact = exact
        self.recall = recall
        self.probes = probes
        self.min_score = min_score
        self.score = score or "similarity"
        self.as_of = as_of
        self.decay = decay
        self.diversity = diversity
        if unknown:
            raise ProgrammingError(f"unknown clause of a search: {', '.join(unknown)}")
        self._check()

    def _check(self) -> None:
        if self.for_text is not None:
            if self.near is not None or self.match is not None:
                raise ProgrammingError("FOR excludes NEAR and MATCH")
        elif self.near is None and self.match is None:
            raise ProgrammingError("a search needs NEAR, MATCH or FOR")
        if type(self.k) is not int or self.k <= 0:
            self.k = _whole("K", self.k, 1)
        if type(self.offset) is not int or self.offset < 0:
            self.offset = _whole("OFFSET", self.offset, 0)
        if self.probes is not None:
            if self.recall is not None:
                raise ProgrammingError("RECALL and PROBES exclude each other")
            self.probes = _whole("PROBES", self.probes, 1)
        if self.recall is not None and not 0 < _real("RECALL", self.recall) <= 1:
            raise ProgrammingError(f"RECALL is {self.recall!r}; expected more than 0, at most 1")
        if self.min_score is not None:
            self.min_score = _real("MIN SCORE", self.min_score)
        if self.diversity is not None and not 0 <= _real("DIVERSITY", self.diversity) <= 1:
            raise ProgrammingError(f"DIVERSITY is {self.diversity!r}; expected 0 to 1")
        if self.score != "similarity":
            self._refuse_score()

    def _refuse_score(self) -> None:
        if self.score == "splat":
            raise NotSupportedError("SCORE splat is not built yet; use SCORE similarity")
        raise ProgrammingError(f"SCORE {self.score}: expected splat or similarity")


def _whole(clause: str, value: Any, least: int) -> int:
    """A number of rows; ProgrammingError where it is none, or too small."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return int(value)
    wanted = "a positive integer" if least else "an integer of 0 or more"
    raise ProgrammingError(f"{clause} is {value!r}; expected {wanted}")


def _real(clause: str, value: Any) -> float:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if is_number and (number := float(value)) == number:
        return number
    raise ProgrammingError(f"{clause} is {value!r}; expected a number")


def effort_of(request: SearchRequest) -> Effort:
    """EXACT, PROBES or RECALL, which is DEFAULT_RECALL where nothing is said."""
    if request.exact:
        return EXACT
    if request.recall is None and request.probes is None:
        return _DEFAULT
    return Effort(float(request.recall or DEFAULT_RECALL), request.probes)


def searched(view: View, request: SearchRequest) -> CollectionView:
    """The collection that a request searches, as of its commit where it names one."""
    if request.as_of is None:
        return view.collection(request.collection)
    return view.collection_as_of(request.collection, request.as_of)


class _Work:
    """A request resolved against a collection: what each side searches, and for what."""

    __slots__ = (
        "backend", "collection", "effort", "masks", "near_column", "query", "text", "text_column",
    )  # fmt: skip

    def __init__(self, view: View, request: SearchRequest) -> None:
        collection = self.collection = searched(view, request)
        schema = collection.schema
        self.backend = view.database.kernels
        self.effort = effort_of(request)
        self.near_column = -1
        self.query: np.ndarray | None = None
        self.text: TextQuery | None = None
        self.text_column: int | None = None
        if request.near is not None:
            self.near_column = vector_column(schema, request.near_column)
            column = schema.columns[self.near_column]
            self.query = check_query_vector(column, request.near, schema.name)
        if request.match is not None:
            self.text_column = text_column(schema, request.match_column)
            self.text = _parsed(request.match)
        where = request.where
        self.masks: Masks = None
        if where is not None:
            self.masks = [where.mask(part) for part in collection.parts()]

    def nearest(self, k: int, masks: Masks) -> Found:
        """The vector side."""
        query, effort = self.query, self.effort
        assert query is not None
        index, backend = self.near_column, self.backend
        return self.collection.nearest(index, query, k, backend, masks, effort=effort)

    def measured(self, k: int, masks: Masks) -> Found:
        """The vector side for rows that are known: all that `masks` leave."""
        assert self.query is not None
        return self.collection.nearest(self.near_column, self.query, k, self.backend, masks)

    def matching(self, k: int, masks: Masks) -> Found:
        """The text side."""
        assert self.text is not None
        return self.collection.match(
            self.text, k, column_index=self.text_column, masks=masks, backend=self.backend
        )


def vector_column(schema: CollectionSchema, name: str | None) -> int:
    """The column that NEAR searches.

    Raises ProgrammingError: no such column, no VECTOR column, or several and none named.
    """
    if name is not None:
        index = schema.column(name)
        if not schema.columns[index].is_vector:
            kind = schema.columns[index].type
            raise ProgrammingError(f"NEAR {name} of {schema.name}: a {kind} column is no VECTOR")
        return index
    found = schema.near_columns
    if len(found) != 1:
        names = ", ".join(schema.columns[index].name for index in found) or "none"
        raise ProgrammingError(
            f"NEAR without a column needs exactly one VECTOR column; {schema.name} has {names}"
        )
    return found[0]


def text_column(schema: CollectionSchema, name: str | None) -> int | None:
    """The column that MATCH searches; None for all FULLTEXT columns.

    Raises ProgrammingError: no such column, or none that is FULLTEXT.
    """
    if name is not None:
        index = schema.column(name)
        if schema.columns[index].fulltext is None:
            raise ProgrammingError(f"MATCH {name} of {schema.name}: the column is not FULLTEXT")
        return index
    if not schema.text_columns:
        raise ProgrammingError(f"MATCH needs a FULLTEXT column; {schema.name} has none")
    return None


def _parsed(text: Any) -> TextQuery:
    from m2mdb.index.text.match_query import parse_match

    if not isinstance(text, str):
        raise InterfaceError(f"MATCH takes a str, not {type(text).__name__}")
    return parse_match(text)


def fusion_of(request: SearchRequest) -> str:
    """The method of a request, by its default: rrf for two sides, else the one side.

    Raises ProgrammingError: unknown, or the side that it wants is not searched.
    """
    name = request.fusion
    if name is None:
        if request.near is not None and request.match is not None:
            return "rrf"
        return "vector_only" if request.match is None else "bm25_only"
    name = name.lower()
    if name not in FUSIONS:
        raise ProgrammingError(f"FUSION {name}: expected one of {', '.join(FUSIONS)}")
    if name == "vector_only" and request.near is None:
        raise ProgrammingError("FUSION vector_only needs NEAR")
    if name == "bm25_only" and request.match is None:
        raise ProgrammingError("FUSION bm25_only needs MATCH")
    return name


def depth_of(request: SearchRequest) -> int:
    """How many rows of each side take part in a fusion: never fewer than are asked for (Y1)."""
    wanted = request.k + request.offset
    depth = request.fusion_options.get("depth")
    if depth is None:
        return max(LEAST_DEPTH, 4 * wanted)
    is_whole = isinstance(depth, int) or float(depth).is_integer()
    return max(_whole("FUSION depth", int(depth) if is_whole else depth, 1), wanted)


def run_search(view: View, request: SearchRequest) -> SearchHits:
    """The hits of a request at the view's snapshot.

    Raises ProgrammingError: no such collection or column, malformed match text. DataError: the
    query vector has another dimension, NaN, infinity, or no direction under cosine.
    """
    if request.for_text is not None and not search_for.settle(view, request):
        return SearchHits.nothing(_Work(view, request), request)
    method = fusion_of(request)
    if request.fusion_options:  # refused where there are no rows, too
        from m2mdb.query.fusion import options_of

        options_of(method, request.fusion_options)
    work = _Work(view, request)
    rows = sum([part.size for part in work.collection.parts()])
    check_count(view.database, request.k + request.offset)
    wanted = min(request.k + request.offset, rows)
    if not wanted:
        return SearchHits.nothing(work, request)
    if is_alone(request, method):
        if method == "vector_only":
            found = work.nearest(wanted, work.masks)
            return SearchHits.of_one_side(work, request, found, "distance")
        return SearchHits.of_one_side(work, request, work.matching(wanted, work.masks), "bm25")
    fused, sides = _fused(work, request, method, min(depth_of(request), rows))
    if request.decay is not None or request.diversity:
        from m2mdb.query.rescoring import rescored

        fused = rescored(work.collection, work.near_column, request, fused, sides)
    return SearchHits.of_fusion(work, request, fused, sides)


def is_alone(request: SearchRequest, method: str) -> bool:
    """Whether a search is no more than the best rows of one side."""
    is_one_side = method in ("vector_only", "bm25_only") and not request.fusion_options
    return is_one_side and request.decay is None and not request.diversity


def _fused(
    work: _Work, request: SearchRequest, method: str, depth: int
) -> tuple[Fused, tuple[Found | None, Found | None]]:
    """The fused ranking of all candidates, and the sides it was made of."""
    from m2mdb.query.fusion import Side, fuse, options_of

    vector = text = None
    if work.query is not None and method != "bm25_only":
        vector = work.nearest(depth, work.masks)
    if work.text is not None and method != "vector_only":
        text = work.matching(depth, work.masks)
    if method == "adaptive" and vector is not None and text is not None:
        from m2mdb.query.completion import completed

        vector, text = completed(work, vector, text)
    metric = work.collection.schema.columns[work.near_column].metric
    near = None if vector is None else Side(vector.rowids, vector.scores, metric)
    words = None if text is None else Side(text.rowids, text.scores)
    return fuse(method, near, words, options_of(method, request.fusion_options)), (vector, text)


def candidates_said(view: View, request: SearchRequest) -> str:
    """How many candidates each side has, and how many both, for EXPLAIN ANALYZE."""
    work = _Work(view, request)
    depth = min(depth_of(request), sum([part.size for part in work.collection.parts()]))
    if not depth:
        return "no candidates"
    fused, _ = _fused(work, request, fusion_of(request), depth)
    near, text = fused.vector_places >= 0, fused.text_places >= 0
    both = int(np.count_nonzero(near & text))
    return f"candidates: {near.sum()} of NEAR, {text.sum()} of MATCH, {both} of both"


def signals_of(view: View, request: SearchRequest) -> Signals | None:
    """How well the vector of a request fits what is stored; None without one, or without lists."""
    from m2mdb.index.signals import signals

    search_for.settle(view, request)
    if request.near is None:
        return None
    collection = view.collection(request.collection)
    schema = collection.schema
    index = vector_column(schema, request.near_column)
    query = check_query_vector(schema.columns[index], request.near, schema.name)
    return signals(collection, index, query)


def vector_works(view: View, request: SearchRequest) -> list[PartWork]:
    """What each part does for the vector side of a request, for EXPLAIN ANALYZE."""
    search_for.settle(view, request)
    work = _Work(view, request)
    rows = sum([part.size for part in work.collection.parts()])
    method = fusion_of(request)
    wanted = request.k + request.offset
    k = min(wanted if is_alone(request, method) else depth_of(request), rows)
    works: list[PartWork] = []
    if work.query is not None and method != "bm25_only" and k:
        from m2mdb.index.nearest import nearest

        masks, backend, index = work.masks, work.backend, work.near_column
        options: dict[str, Any] = {"effort": work.effort, "works": works}
        nearest(work.collection, index, work.query, k, backend, masks, **options)
    return works


class SearchHits:
    """What a search found, best first; values are fetched when they are asked for.

    rowids   int64
    scores   float64
    places   (part index, ordinal) of each hit
    """

    __slots__ = (
        "_found", "_fused", "_known", "_places", "_values", "_work", "collection", "first_rank",
        "rowids", "scores",
    )  # fmt: skip

    def __init__(
        self,
        work: _Work,
        request: SearchRequest,
        found: tuple[np.ndarray, np.ndarray],
        side: tuple[str, Found] | None,
    ) -> None:
        """`found`: rowids and scores, in order; `side`: its measure and hits, where it is alone."""
        rowids, scores = found
        self._work = work
        self._found = side
        self._fused: tuple[Fused, tuple[Found | None, Found | None]] | None = None
        self._known: dict[str, dict[int, float]] = {}  # distances and bm25, by rowid
        self._places: list[tuple[int, int]] | None = None
        self._values: dict[int, list[Any]] = {}
        self.collection: CollectionView = work.collection
        self.first_rank = request.offset + 1
        start, stop = request.offset, request.offset + request.k
        if request.min_score is not None:
            stop = min(stop, int(np.count_nonzero(scores >= request.min_score)))
        if start or stop < len(rowids):
            rowids, scores = rowids[start:stop], scores[start:stop]
        self.rowids, self.scores = rowids, scores

    @classmethod
    def nothing(cls, work: _Work, request: SearchRequest) -> SearchHits:
        """No hit."""
        return cls(work, request, (np.empty(0, np.int64), np.empty(0)), ("", Found.nothing()))

    @classmethod
    def of_one_side(
        cls, work: _Work, request: SearchRequest, found: Found, measure: str
    ) -> SearchHits:
        """The hits of a vector search or of a text search; `measure`: "distance" or "bm25"."""
        scores = found.scores.astype(np.float64)
        return cls(work, request, (found.rowids, scores), (measure, found))

    @classmethod
    def of_fusion(
        cls,
        work: _Work,
        request: SearchRequest,
        fused: Fused,
        sides: tuple[Found | None, Found | None],
    ) -> SearchHits:
        """The hits of a fused ranking, with what its sides know of them."""
        shown = fused.take(slice(0, request.offset + request.k))
        hits = cls(work, request, (shown.rowids, shown.scores), None)
        start = request.offset
        hits._fused = shown.take(slice(start, start + len(hits.rowids))), sides
        return hits

    @property
    def places(self) -> list[tuple[int, int]]:
        """(part index, ordinal) of each hit."""
        if self._places is None and self._fused is not None:
            from m2mdb.query.rescoring import Places

            self._places = Places(*self._fused).pairs()
        if self._places is None:
            assert self._found is not None
            start, check = self.first_rank - 1, self.collection.check
            self._places = self._found[1].placed(start, start + len(self.rowids), check)
        return self._places

    def __len__(self) -> int:
        return len(self.rowids)

    def column(self, source: int | str) -> list[Any]:
        """The values of a stored column (by index), of ROWID, or of a computed column (by name)."""
        if source in (ROWID, "rowid", self.collection.schema.rowid_alias):
            return listed(self.rowids, self.collection.check)
        if isinstance(source, int):
            values = self._values.get(source)
            if values is None:
                values = self._values[source] = self.collection.column_at(source, self.places)
            return values
        if source == "score":
            return listed(self.scores, self.collection.check)
        if source == "rank":
            return list(range(self.first_rank, self.first_rank + len(self)))
        if source.startswith(MARKER):
            work = self._work
            searched = () if work.text_column is None else (work.text_column,)
            return [marker_of(self.collection, work.text, source, *searched)] * len(self)
        return self.measured(source)

    def measured(self, name: str) -> list[float | None]:
        """`distance` or `bm25` of each hit; None where the row has no vector or no query term."""
        work = self._work
        if (work.query if name == "distance" else work.text) is None:
            return [None] * len(self)
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = self._known_of_side(name)
        rowids = self.rowids.tolist()
        missing = [row for row, rowid in enumerate(rowids) if rowid not in known]
        if missing:
            masks = self._masks_of(missing)
            search = work.measured if name == "distance" else work.matching
            found = search(len(missing), masks)
            measured = found.distances if name == "distance" else found.scores
            assert measured is not None
            known.update(zip(found.rowids.tolist(), measured.tolist(), strict=True))
        return [known.get(rowid) for rowid in rowids]

    def _known_of_side(self, name: str) -> dict[int, float]:
        """What a side has measured, by rowid."""
        found: Found | None = None
        if self._fused is not None:
            found = self._fused[1][0 if name == "distance" else 1]
        elif self._found is not None and self._found[0] == name:
            found = self._found[1]
        if found is None:
            return {}
        measured = found.distances if name == "distance" else found.scores
        assert measured is not None
        return dict(zip(found.rowids.tolist(), measured.tolist(), strict=True))

    def _masks_of(self, hits: Sequence[int]) -> Masks:
        """Masks that leave some of the hits alone."""
        masks = [np.zeros(part.size, bool) for part in self.collection.parts()]
        for hit in hits:
            part, ordinal = self.places[hit]
            masks[part][ordinal] = True
        return list(masks)

    def rows(self, sources: Sequence[int | str]) -> list[tuple[Any, ...]]:
        """The hits as rows of these columns, see `column`."""
        if not sources:
            return [()] * len(self.rowids)
        if not len(self.rowids):
            return []
        return list(zip(*[self.column(source) for source in sources], strict=True))

    @property
    def ids(self) -> np.ndarray:
        """Primary keys (int64 where they are integers, else objects), or rowids without one."""
        schema = self.collection.schema
        key = schema.primary_key
        if key is None or key == schema.rowid_alias:
            return self.rowids
        ids = np.empty(len(self), object)
        ids[:] = self.column(key)
        return ids


def returned_columns(
    schema: CollectionSchema, names: Sequence[str] | None
) -> tuple[list[str], list[int | str]]:
    """Names and sources of the result's columns; by default all but vectors, then score.

    Raises ProgrammingError: no such column. NotSupportedError: energy and confidence.
    """
    if names is None:
        sources: list[int | str] = [*schema.scalar_columns, "score"]
        return [*(schema.columns[index].name for index in schema.scalar_columns), "score"], sources
    found: list[int | str] = []
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InterfaceError(f"returning is a list of names, not {names!r}")
    for name in names:
        found.append(_source(schema, name))
    return [
        schema.columns[source].name if isinstance(source, int) else source for source in found
    ], found


def _source(schema: CollectionSchema, name: str) -> int | str:
    lower = name.lower()
    if lower in COMPUTED:
        return lower
    if lower in UNBUILT_COMPUTED:
        raise NotSupportedError(f"{lower} is not built yet")
    return schema.column(name)
