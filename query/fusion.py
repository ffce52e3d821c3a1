"""Fusion: one ranking of the rows that a vector search and a text search found.

A side is a list of rows, best first. Which and how many rows it holds is the caller's matter (the
best max(100, 4 (K + OFFSET)) of each side); a row that a side does not hold is absent there.

    method         fused score
    rrf            sum over sides of weight / (k + rank), rank from 1; an absent side adds 0
    weighted       vector * similarity + text * BM25 / best BM25; an absent side adds 0, where
                   similarity is (1 + cos) / 2, 1 / (1 + l2 distance), or min-max of dot products
    adaptive       text * BM25 / best BM25 + vector * w * similarity, stretched to 0..1 over all
                   candidates. w, 0.3 to 1, is 0.15 / (s + 0.01), and s is how far the other hits
                   of the text side fall behind its best: 1 - their mean / the best, of 100 hits.
                   The caller has both sides measure each other's rows (`query.completion`), so
                   that absent means no word, or no vector
    vector_only    the vector side's scores and rows
    bm25_only      the text side's scores and rows

Invariants
    F1  The result holds each row once, ordered by (fused score descending, rowid ascending).
    F2  Fusion is pure, and symmetric in rrf: swapping sides and their weights changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from m2mdb.pager.errors import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    RowIds = NDArray[np.int64]
    Scores = NDArray[np.float32] | NDArray[np.float64]
    # (vector side, text side, union of rows, options) -> fused score of each row of the union
    Method = Callable[["Side", "Side", "_Union", Mapping[str, float]], NDArray[np.float64]]


SPREAD_OVER = 100  # hits of the text side that tell how its scores are spread
LEAST_WEIGHT, WEIGHT_OF_SPREAD = 0.3, 0.15  # tuned on half of WordNet's queries


class Side:
    """What one side found: rowids and scores, best first; `metric` for the vector side."""

    __slots__ = ("metric", "rowids", "scores")

    def __init__(self, rowids: RowIds, scores: Scores, metric: str = "cosine") -> None:
        """Keep the arrays. Scores are higher for better: cos, 1 / (1 + distance), dot, or BM25."""
        self.rowids = rowids
        self.scores = scores
        self.metric = metric


class Fused:
    """The fused ranking.

    rowids    int64, best first
    scores    float64, the fused score
    vector_places, text_places   int64: the row's place in each side, -1 where absent
    vector_scores, text_scores   float32: the side's own score, NaN where absent
    """

    __slots__ = ("_sides", "rowids", "scores", "text_places", "vector_places")

    def __init__(
        self,
        rowids: RowIds,
        scores: NDArray[np.float64],
        places: tuple[NDArray[np.int64], NDArray[np.int64]],
        sides: tuple[Side, Side],
    ) -> None:
        """Keep the ranking; the sides' own scores are looked up when they are asked for."""
        self.rowids = rowids
        self.scores = scores
        self.vector_places, self.text_places = places
        self._sides = sides

    @property
    def vector_scores(self) -> NDArray[np.float32]:
        """The vector side's own scores."""
        return _looked_up(self._sides[0], self.vector_places)

    @property
    def text_scores(self) -> NDArray[np.float32]:
        """The text side's own scores."""
        return _looked_up(self._sides[1], self.text_places)

    def __len__(self) -> int:
        """How many rows the ranking has."""
        return len(self.rowids)

    def take(self, chosen: NDArray[np.int64] | slice) -> Fused:
        """Some rows of the ranking, in the order of `chosen`."""
        places = self.vector_places[chosen], self.text_places[chosen]
        return Fused(self.rowids[chosen], self.scores[chosen], places, self._sides)

    def with_scores(self, scores: NDArray[np.float64]) -> Fused:
        """The same rows in the same order, with other scores."""
        return Fused(self.rowids, scores, (self.vector_places, self.text_places), self._sides)


class _Union:
    """The rows of both sides, each once, ascending, and their places in the sides."""

    __slots__ = ("rowids", "text_places", "vector_places")

    def __init__(self, vector: Side, text: Side) -> None:
        """Unite the rows."""
        count = len(vector.rowids)
        both = np.concatenate((vector.rowids, text.rowids))
        order = both.argsort(kind="stable")  # of a row in both sides, the vector side's comes first
        ordered = both[order]
        is_first = np.empty(len(both), bool)
        is_first[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
        starts = is_first.nonzero()[0]
        first = order[starts]
        self.rowids = ordered[starts]
        self.vector_places = np.where(first < count, first, -1)
        self.text_places = np.where(first < count, -1, first - count)
        again = (~is_first).nonzero()[0]
        if len(again):
            self.text_places[starts.searchsorted(again) - 1] = order[again] - count


_EMPTY = Side(np.empty(0, np.int64), np.empty(0, np.float32))


def options_of(method: str, options: Mapping[str, float]) -> Mapping[str, float]:
    """Checked options without `depth`, which rrf alone has and which is the search's own.

    Raises ProgrammingError for an unknown option, or one below 0.
    """
    if options:
        options = {key: options[key] for key in options if method != "rrf" or key != "depth"}
        _settings(method, METHODS[method][1], options)
    return options


def fuse(
    method: str, vector: Side | None, text: Side | None, options: Mapping[str, float] | None = None
) -> Fused:
    """The fused ranking of two sides; None is a side that was not asked for.

    Options: rrf has k (60), vector and text (1, 1); weighted has vector and text (0.7, 0.3),
    adaptive too (1, 1).
    Raises ProgrammingError for an unknown method or option.
    """
    name = method.lower()
    if name not in METHODS:
        raise ProgrammingError(f"FUSION {method}: expected one of {', '.join(METHODS)}")
    function, defaults = METHODS[name]
    settings = _settings(name, defaults, options or {})
    if name == "vector_only":
        text = None
    if name == "bm25_only":
        vector = None
    vector, text = vector or _EMPTY, text or _EMPTY
    union = _Union(vector, text)
    fused = function(vector, text, union, settings)
    order = (-fused).argsort(kind="stable")  # the union ascends by rowid (F1)
    places = union.vector_places[order], union.text_places[order]
    return Fused(union.rowids[order], fused[order], places, (vector, text))


def _settings(
    name: str, defaults: Mapping[str, float], options: Mapping[str, float]
) -> dict[str, float]:
    """The defaults with the given options in their place."""
    settings = dict(defaults)
    for option, value in options.items():
        if option not in defaults:
            known = ", ".join(["depth", *defaults] if name == "rrf" else defaults) or "none"
            raise ProgrammingError(f"FUSION {name}: unknown option {option!r}, expected {known}")
        if not 0 <= value < float("inf"):
            raise ProgrammingError(f"FUSION {name}: {option} = {value}, expected 0 or more")
        settings[option] = float(value)
    return settings


def _rrf(
    vector: Side, text: Side, union: _Union, options: Mapping[str, float]
) -> NDArray[np.float64]:
    """Reciprocal ranks."""
    fused = np.zeros(len(union.rowids))
    for side, places, weight in (
        (vector, union.vector_places, options["vector"]),
        (text, union.text_places, options["text"]),
    ):
        gains = np.zeros(len(side.rowids) + 1)  # the last one is that of place -1
        gains[:-1] = weight / (options["k"] + 1.0 + np.arange(len(side.rowids)))
        fused += gains[places]
    return fused


def _weighted(
    vector: Side, text: Side, union: _Union, options: Mapping[str, float]
) -> NDArray[np.float64]:
    """Weighted normalised similarities."""
    similarities = _taken(normalized_similarity(vector), union.vector_places)
    relevances = _taken(normalized_bm25(text), union.text_places)
    return options["vector"] * similarities + options["text"] * relevances


def _adaptive(
    vector: Side, text: Side, union: _Union, options: Mapping[str, float]
) -> NDArray[np.float64]:
    """What both sides have measured of every row, on scales of the candidates."""
    similarities = _taken(_stretched(vector.scores.astype(np.float64)), union.vector_places)
    relevances = _taken(normalized_bm25(text), union.text_places)
    return options["vector"] * vector_weight(text) * similarities + options["text"] * relevances


def vector_weight(text: Side) -> float:
    """The w of adaptive, 0.3 to 1, by how a text side's scores are spread."""
    scores = text.scores[:SPREAD_OVER].astype(np.float64)
    if len(scores) < 2 or scores[0] <= 0:
        return LEAST_WEIGHT
    spread = 1.0 - float(np.maximum(scores[1:], 0.0).mean()) / float(scores[0])
    return max(LEAST_WEIGHT, min(1.0, WEIGHT_OF_SPREAD / (spread + 0.01)))


def _vector_only(
    vector: Side, text: Side, union: _Union, options: Mapping[str, float]
) -> NDArray[np.float64]:
    """The vector side's own scores."""
    return _taken(vector.scores.astype(np.float64), union.vector_places)


def _bm25_only(
    vector: Side, text: Side, union: _Union, options: Mapping[str, float]
) -> NDArray[np.float64]:
    """The text side's own scores."""
    return _taken(text.scores.astype(np.float64), union.text_places)


def normalized_similarity(side: Side) -> NDArray[np.float64]:
    """The vector side's scores in 0..1, comparable between queries where the metric allows it."""
    scores = side.scores.astype(np.float64)
    if side.metric == "cosine":
        return (1.0 + scores) / 2.0
    if side.metric == "l2":
        return scores
    return _stretched(scores)


def _stretched(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores on 0..1, the least and the largest of them; all 1 where they are equal."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones(len(scores))


def normalized_bm25(side: Side) -> NDArray[np.float64]:
    """The text side's scores over the best of them; 0 where the best is not positive."""
    scores = side.scores.astype(np.float64)
    best = scores.max() if len(scores) else 0.0
    return np.maximum(scores, 0.0) / best if best > 0 else np.zeros(len(scores))


def _taken(values: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """values[place] for each place, 0 where it is -1."""
    return np.append(values, 0.0)[places]


def _looked_up(side: Side, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """The side's own score of each place, NaN where it is -1."""
    return np.append(side.scores, np.nan).astype(np.float32)[places]


# A later method is a function and the defaults of its options.
METHODS: dict[str, tuple[Method, Mapping[str, float]]] = {
    "rrf": (_rrf, {"k": 60.0, "vector": 1.0, "text": 1.0}),
    "weighted": (_weighted, {"vector": 0.7, "text": 0.3}),
    "adaptive": (_adaptive, {"vector": 1.0, "text": 1.0}),
    "vector_only": (_vector_only, {}),
    "bm25_only": (_bm25_only, {}),
}
