"""What a column takes, what it refuses, and how the refusal reads."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2mdb.index.query_vectors import check_query_vector
from m2mdb.index.schema import Column
from m2mdb.index.values import (
    VectorData,
    python_value,
    store_column,
    store_scalar,
)
from m2mdb.pager.errors import DataError

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("type_", "given", "stored"),
    [
        ("INTEGER", 3.0, 3),
        ("INTEGER", "12", 12),
        ("INTEGER", " 7 ", 7),
        ("INTEGER", "3.0", 3),
        ("INTEGER", True, 1),
        ("INTEGER", np.int32(5), 5),
        ("REAL", 3, 3.0),
        ("REAL", "2.5", 2.5),
        ("TEXT", 12, "12"),
        ("TEXT", 1.5, "1.5"),
        ("BLOB", bytearray(b"ab"), b"ab"),
        ("BOOLEAN", 1, True),
        ("BOOLEAN", "false", False),
        ("TIMESTAMP", datetime.datetime(1970, 1, 1, 0, 0, 1), 1_000_000),
        ("TIMESTAMP", "1970-01-02", 86_400_000_000),
        ("TIMESTAMP", np.datetime64("1970-01-01T00:00:00.000005"), 5),
        ("JSON", {"a": [1, None]}, '{"a": [1, null]}'),
        ("JSON", '{"a": 1}', '{"a": 1}'),
        ("TEXT", None, None),
    ],
)
def test_lossless_conversions(type_: str, given: Any, stored: Any) -> None:
    found = store_scalar(Column("c", type_), given, "t")

    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("INTEGER", 3.5),
        ("INTEGER", "x"),
        ("INTEGER", 2**63),
        ("INTEGER", b"1"),
        ("INTEGER", float("inf")),
        ("REAL", float("nan")),
        ("REAL", "abc"),
        ("REAL", 2**60 + 1),
        ("TEXT", b"raw"),
        ("TEXT", [1]),
        ("TEXT", "lone \ud800 surrogate"),
        ("BLOB", "text"),
        ("BOOLEAN", 2),
        ("TIMESTAMP", "yesterday"),
        ("TIMESTAMP", 1.5),
        ("JSON", "{not json"),
        ("JSON", {"a": float("nan")}),
        ("JSON", object()),
    ],
)
def test_a_value_that_does_not_fit_names_place_and_type(type_: str, given: Any) -> None:
    with pytest.raises(DataError, match=r"column c of t, row 4: .*") as caught:
        store_scalar(Column("c", type_), given, "t", 4)

    assert type_ in str(caught.value) or "Unicode" in str(caught.value)


def test_a_bad_value_in_a_column_of_texts_is_found_by_row() -> None:
    with pytest.raises(DataError, match="row 1"):
        store_column(Column("c", "TEXT"), ["good", "bad \udfff"], 2, "t")


def test_timestamps_come_back_aware() -> None:
    column = Column("c", "TIMESTAMP")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)

    assert python_value(column, store_scalar(column, moment, "t")) == moment


def vector_column(**options: Any) -> Column:
    return Column("e", "VECTOR", dimension=3, **options)


def stored_vectors(column: Column, values: Any, count: int) -> VectorData:
    found = store_column(column, values, count, "t")
    assert isinstance(found, VectorData)
    return found


@pytest.mark.parametrize(
    "given",
    [
        np.arange(6, dtype=np.float64).reshape(2, 3) + 1,
        [[1, 2, 3], [4, 5, 6]],
        [np.array([1, 2, 3], np.float16), (4.0, 5.0, 6.0)],
        [np.array([1, 2, 3], "<f4").tobytes(), np.array([4, 5, 6], "<f4").tobytes()],
    ],
)
def test_vectors_in_every_form(given: Any) -> None:
    found = stored_vectors(vector_column(), given, 2)

    assert found.matrix.dtype == np.float32
    assert found.matrix.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.present is None


def test_null_vectors_are_marked() -> None:
    found = stored_vectors(vector_column(), [None, [1, 0, 0]], 2)

    assert found.present is not None
    assert found.present.tolist() == [False, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((2, 4), np.float32), "4 dimensions, the column has 3"),
        (np.ones((3, 3), np.float32), r"shape \(3, 3\) for 2 rows"),
        ([[1, 2, 3], [1, 2]], "row 1: vector has 2 dimensions, the column has 3"),
        ([[1, 2, 3], [1, float("nan"), 3]], "row 1: nan at dimension 1"),
        (np.array([[1, 2, 3], [1, 2, np.inf]], np.float32), "row 1: inf at dimension 2"),
        ([[1, 2, 3], [0, 0, 0]], "row 1: a zero vector"),
        ([[1, 2, 3], [1, 1e39, 0]], "row 1: .* overflows float32"),
        ([[1, 2, 3], [2e38, 2e38, 1]], r"row 1: norm .*; under cosine the limit is 1e\+38"),
        ([[1, 2, 3], [10**400, 1, 1]], "row 1: list .* is not a vector"),
        ([[1, 2, 3], "abc"], "row 1: str 'abc' is not a vector"),
        ([[1, 2, 3], b"1234"], "row 1: 4 bytes; a vector of 3 dimensions has 12 bytes"),
        ([[1, 2, 3]], "1 vectors for 2 rows"),
        (np.ones((2, 3), complex), "complex128"),
    ],
)
def test_bad_vectors_are_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        store_column(vector_column(), given, 2, "t")


@pytest.mark.parametrize("bad", [[np.nan, 1, 1], [np.inf, 1, 1], [0, 0, 0], [1, 2], None, "x"])
def test_a_single_bad_vector_is_refused_as_well(bad: Any) -> None:
    value = None if bad is None else (bad if bad == "x" else np.array(bad, np.float32))
    column = vector_column()

    with pytest.raises(DataError):
        check_query_vector(column, value, "t")
    if bad is not None:
        with pytest.raises(DataError):
            store_column(column, [value], 1, "t")


def test_zero_vectors_are_fine_for_other_metrics() -> None:
    for metric in ("l2", "ip"):
        assert len(stored_vectors(vector_column(metric=metric), [[0, 0, 0]], 1)) == 1


def test_f16_rounds_and_refuses_overflow() -> None:
    column = vector_column(dtype="f16")

    assert stored_vectors(column, [[1, 2, 0.1]], 1).matrix[0, 2] == np.float16(0.1)
    with pytest.raises(DataError, match=r"70000\.0 at dimension 0 overflows f16"):
        store_column(column, np.array([[70000, 1, 1]], np.float32), 1, "t")


def test_i8_takes_int8_only() -> None:
    column = vector_column(dtype="i8")

    assert stored_vectors(column, np.array([[1, -2, 3]], np.int8), 1).matrix.dtype == np.int8
    with pytest.raises(DataError, match="int8"):
        store_column(column, np.array([[1, 2, 3]], np.float32), 1, "t")
    with pytest.raises(DataError, match="int8"):
        store_column(column, [[1, 2, 300]], 1, "t")


def test_stored_vectors_are_bit_exact() -> None:
    given = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)

    assert stored_vectors(vector_column(), given, 50).matrix.tobytes() == given.tobytes()


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["INTEGER", "REAL", "TEXT", "BLOB", "BOOLEAN"]),
    st.lists(
        st.one_of(
            st.none(),
            st.integers(-(2**64), 2**64),
            st.floats(),
            st.text(st.characters(), max_size=5),
            st.binary(max_size=5),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_a_column_is_stored_as_its_values_are(type_: str, values: list[Any], one: bool) -> None:
    if one:  # a column of one type, perhaps with NULLs: the way that looks at all of it at once
        kind = next((type(value) for value in values if value is not None), int)
        values = [value for value in values if value is None or type(value) is kind]
    column = Column("c", type_)

    def each() -> list[Any]:
        return [store_scalar(column, value, "t", row) for row, value in enumerate(values)]

    def told(work: Callable[[], Any]) -> Any:
        try:
            return [(type(value), value) for value in work()]
        except DataError as error:
            return str(error)

    assert told(lambda: store_column(column, values, len(values), "t")) == told(each)


@pytest.mark.parametrize("given", ["<f8", "<f4", "<f2", "strided", "list"])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_many_vectors_are_stored_in_slices(
    given: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = Column("e", "VECTOR", dimension=16, dtype=dtype)
    matrix = np.random.default_rng(3).standard_normal((3000, 16))
    values: Any = matrix if given in ("strided", "list") else matrix.astype(given)
    if given == "strided":
        values = np.asfortranarray(matrix.astype("<f4"))
    elif given == "list":
        values = [None if row % 7 == 3 else matrix[row] for row in range(3000)]
    whole = store_column(column, values, 3000, "t")
    looks: list[None] = []
    monkeypatch.setattr("m2mdb.index.values.SLICE_BYTES", 4 * 32 * 16 * 2)
    monkeypatch.setattr("m2mdb.index.slices.WATCHED_VALUES", 32)
    cut = store_column(column, values, 3000, "t", lambda: looks.append(None))
    assert isinstance(whole, VectorData)
    assert isinstance(cut, VectorData)
    assert cut.matrix.tobytes() == whole.matrix.tobytes()
    assert cut.norms.tobytes() == whole.norms.tobytes()
    assert len(looks) >= 3000 // 32
    order = np.random.default_rng(4).permutation(3000)[:2500]
    looks.clear()
    taken = cut.take(order, lambda: looks.append(None))
    assert taken.matrix.tobytes() == whole.matrix[order].tobytes()
    assert taken.norms.tobytes() == whole.norms[order].tobytes()
    assert len(looks) >= 2500 // 32
    if whole.present is not None:
        assert taken.present is not None
        assert np.array_equal(taken.present, whole.present[order])


def test_an_overflow_in_a_later_slice_is_named_by_its_row() -> None:
    column = Column("e", "VECTOR", dimension=16)
    matrix = np.ones((200_000, 16))
    matrix[199_000, 3] = 1e300
    with pytest.raises(DataError, match="row 199000: 1e\\+300 at dimension 3 overflows f32"):
        store_column(column, matrix, 200_000, "t")
