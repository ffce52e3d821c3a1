"""Ids: what a call is given is one id or some, and what can be no id is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import m2mdb

Call = Callable[[m2mdb.Collection, Any], Any]
CALLS: dict[str, Call] = {
    "forget": lambda n, ids: n.forget(ids),
    "delete": lambda n, ids: n.delete(ids),
    "get": lambda n, ids: n.get(ids),
}


@pytest.fixture(params=sorted(CALLS))
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


@pytest.fixture(params=["TEXT", "INTEGER"])
def n(request: pytest.FixtureRequest) -> Iterator[m2mdb.Collection]:
    con = m2mdb.connect(":memory:", autocommit=True, compute="numpy")
    con.execute(f"CREATE COLLECTION n (id {request.param} PRIMARY KEY, t TEXT)")
    con.execute("INSERT INTO n VALUES (0, 'a'), (1, 'b'), (2, 'c')")
    yield con.collection("n")
    con.close()


def keys(n: m2mdb.Collection) -> list[Any]:
    return [key for (key,) in n.connection.execute("SELECT id FROM n ORDER BY id")]


def several(a: Any, b: Any) -> list[Any]:
    """The same two ids in all the ways that hold some."""
    array = np.array([a, b])
    ways = [[a, b], (a, b), {a, b}, frozenset([a, b]), iter([a, b]), (x for x in [a, b])]
    return [*ways, {a: 1, b: 2}.keys(), {1: a, 2: b}.values(), array, map(type(a), [a, b])]


@pytest.mark.parametrize("way", range(10))
def test_any_iterable_is_some_ids(n: m2mdb.Collection, way: int) -> None:
    before = keys(n)
    a, b, rest = before

    found = n.get(several(a, b)[way])
    assert sorted(row["t"] for row in found if row is not None) == ["a", "b"]
    receipt = n.forget(several(a, b)[way])
    assert (receipt.rows, receipt.status) == (2, "done")
    assert keys(n) == [rest]
    assert n.has_forgotten(receipt, several(a, b)[way])
    assert n.delete(several(rest, rest)[way]) == 1
    assert keys(n) == []


def test_an_array_without_dimensions_is_one_id(n: m2mdb.Collection) -> None:
    first, *rest = keys(n)

    row: Any = n.get(np.array(first))
    assert isinstance(row, m2mdb.Row) and row["t"] == "a"
    assert n.delete(np.array(first)) == 1
    assert keys(n) == rest


BAD = [
    {}, {"0": 1}, {0: 1}, b"0", object(), "\ud800", [None], True, [True], ["\ud800"], [["0"]],
    [object()], np.array([["0"]]), np.array([[0]]), np.bool_(True), 1j, [b"0"],
]  # fmt: skip


@pytest.mark.parametrize("ids", BAD, ids=map(repr, range(len(BAD))))
def test_what_can_be_no_id_is_refused(n: m2mdb.Collection, call: Call, ids: Any) -> None:
    before = keys(n)

    with pytest.raises((m2mdb.InterfaceError, m2mdb.DataError)):
        call(n, ids)

    assert keys(n) == before
    assert n.connection.execute("SELECT count(*) FROM m2m_receipts").fetchall() == [(0,)]


@pytest.mark.parametrize("receipt", [True, None, "1", (1,), object()])
def test_has_forgotten_wants_a_receipt(n: m2mdb.Collection, receipt: Any) -> None:
    with pytest.raises(m2mdb.InterfaceError, match="receipt is"):
        n.has_forgotten(receipt, keys(n)[:1])
