"""Fusion: the formulas of each method, order, absent sides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2mdb.pager.errors import ProgrammingError
from m2mdb.query.fusion import Fused, Side, fuse


@st.composite
def sides(draw: st.DrawFn, metric: str = "cosine") -> Side:
    """A side: distinct rowids and scores in -1..1, best first, ties by rowid."""
    rowids = draw(st.lists(st.integers(-5, 30), unique=True, max_size=12))
    scores = draw(
        st.lists(
            st.floats(-1, 1, width=32), min_size=len(rowids), max_size=len(rowids)
        )
    )  # fmt: skip
    ranked = sorted(zip([-s for s in scores], rowids, strict=True))
    return Side(
        np.array([rowid for _, rowid in ranked], np.int64),
        np.array([-score for score, _ in ranked], np.float32),
        metric,
    )


def side(*rows: tuple[int, float], metric: str = "cosine") -> Side:
    """A side of (rowid, score) rows, best first."""
    return Side(
        np.array([r for r, _ in rows], np.int64), np.array([s for _, s in rows], np.float32), metric
    )


def as_rows(fused: Fused) -> list[tuple[int, float]]:
    """The ranking as (rowid, score) rows."""
    return list(zip(fused.rowids.tolist(), fused.scores.tolist(), strict=True))


@given(sides(), sides(), st.sampled_from([1.0, 10.0, 60.0]))
def test_rrf_adds_reciprocal_ranks(vector: Side, text: Side, k: float) -> None:
    fused = fuse("rrf", vector, text, {"k": k})

    expected: dict[int, float] = {}
    for found in (vector, text):
        for rank, rowid in enumerate(found.rowids.tolist(), 1):
            expected[rowid] = expected.get(rowid, 0.0) + 1.0 / (k + rank)
    ranking = sorted(expected.items(), key=lambda row: (-row[1], row[0]))
    assert as_rows(fused) == ranking
    assert as_rows(fuse("RRF", text, vector, {"k": k})) == ranking


@given(sides(), sides(), st.sampled_from(["rrf", "weighted"]))
def test_each_row_comes_once_in_order_with_the_scores_of_its_sides(
    vector: Side, text: Side, method: str
) -> None:
    fused = fuse(method, vector, text)

    union = set(vector.rowids.tolist()) | set(text.rowids.tolist())
    assert sorted(fused.rowids.tolist()) == sorted(union)
    order = list(zip((-fused.scores).tolist(), fused.rowids.tolist(), strict=True))
    assert order == sorted(order)
    for found, places, scores in (
        (vector, fused.vector_places, fused.vector_scores),
        (text, fused.text_places, fused.text_scores),
    ):
        of = dict(zip(found.rowids.tolist(), found.scores.tolist(), strict=True))
        for rowid, place, score in zip(fused.rowids.tolist(), places, scores, strict=True):
            assert (place == -1 and math.isnan(score)) == (rowid not in of)
            if place >= 0:
                assert found.rowids[place] == rowid
                assert score == of[rowid]


def test_weighted_takes_normalised_similarities() -> None:
    text = side((2, 8.0), (3, 4.0))

    fused = fuse("weighted", side((1, 0.5), (2, 0.0)), text)
    found = as_rows(fused)
    assert [rowid for rowid, _ in found] == [2, 1, 3]
    assert [score for _, score in found] == pytest.approx([0.65, 0.525, 0.15])

    l2 = fuse("weighted", side((1, 0.5), metric="l2"), text, {"vector": 1.0, "text": 0.0})
    assert as_rows(l2) == [(1, pytest.approx(0.5)), (2, 0.0), (3, 0.0)]

    products = side((1, 30.0), (2, 20.0), (3, -10.0), metric="ip")
    ip = fuse("weighted", products, None, {"vector": 1.0})
    assert as_rows(ip) == [(1, 1.0), (2, 0.75), (3, 0.0)]


def test_weighted_takes_equal_products_and_worthless_texts() -> None:
    equal = fuse("weighted", side((1, 3.0), (2, 3.0), metric="ip"), None, {"vector": 1.0})
    assert as_rows(equal) == [(1, 1.0), (2, 1.0)]

    worthless = fuse("weighted", None, side((1, 0.0), (2, -1.0)))
    assert as_rows(worthless) == [(1, 0.0), (2, 0.0)]


@given(sides(), sides())
def test_one_side_alone_keeps_its_rows_scores_and_order(vector: Side, text: Side) -> None:
    for fused, alone in (
        (fuse("vector_only", vector, text), vector),
        (fuse("bm25_only", vector, text), text),
    ):
        assert fused.rowids.tolist() == alone.rowids.tolist()
        assert fused.scores.tolist() == alone.scores.tolist()


@pytest.mark.parametrize("method", ["rrf", "weighted", "vector_only", "bm25_only"])
def test_absent_sides_give_an_empty_ranking(method: str) -> None:
    fused = fuse(method, None, None)

    assert len(fused) == 0
    assert fused.rowids.dtype == np.int64
    assert fused.scores.dtype == np.float64


@pytest.mark.parametrize(
    ("method", "options"),
    [("median", {}), ("rrf", {"depth": 3}), ("rrf", {"k": -1}), ("weighted", {"text": math.nan})],
)
def test_unknown_methods_and_options_are_refused(method: str, options: dict[str, float]) -> None:
    with pytest.raises(ProgrammingError, match="FUSION"):
        fuse(method, None, None, options)
