"""Query vectors: what NEAR is given, checked as a stored vector would be (`index.values`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from m2mdb.compute.bound import row_norms
from m2mdb.index.schema import Column
from m2mdb.index.values import SHORTEST, vector_of
from m2mdb.pager.errors import DataError


def check_query_vector(column: Column, value: Any, collection: str) -> np.ndarray:
    """A query for NEAR as contiguous float32 (dimension,).

    Raises DataError as for a stored vector.
    """
    if (
        type(value) is not np.ndarray
        or value.dtype != np.float32
        or value.shape != (column.dimension,)
    ):
        place = f"NEAR {column.name} of {collection}"
        if value is None:
            raise DataError(f"{place}: NULL is not a vector")
        as_float = column if column.dtype != "i8" else _float_twin(column, value)
        value = vector_of(as_float, value, place)
    query = np.ascontiguousarray(value, np.float32)
    if not 1e-30 < np.vdot(query, query) < 1e36:  # which warns of no overflow
        _check_query_extremes(column, query, f"NEAR {column.name} of {collection}")
    return query


def check_query_vectors(column: Column, values: Any, collection: str) -> np.ndarray:
    """Queries for NEAR as contiguous float32 (len(values), dimension).

    Raises DataError as `check_query_vector` does for the first of them that is none.
    """
    if (
        type(values) is np.ndarray
        and values.dtype == np.float32
        and values.shape[1:] == (column.dimension,)
    ):
        queries = np.ascontiguousarray(values)
        squares = np.einsum("ij,ij->i", queries, queries)
        for row in np.flatnonzero(~((squares > 1e-30) & (squares < 1e36))).tolist():
            check_query_vector(column, queries[row], collection)
        return queries
    return np.stack([check_query_vector(column, value, collection) for value in values])


def _float_twin(column: Column, value: Any) -> Column:
    """The column as one of floats, unless the query comes as the int8 bytes it stores."""
    if isinstance(value, bytes | bytearray | memoryview) and len(value) == column.dimension:
        return column
    return Column(column.name, "VECTOR", dimension=column.dimension, metric=column.metric)


def _check_query_extremes(column: Column, query: np.ndarray, place: str) -> None:
    bad = np.flatnonzero(~np.isfinite(query))
    if len(bad):
        raise DataError(
            f"{place}: {query[bad[0]]} at dimension {bad[0]}; vectors hold finite numbers only"
        )
    if column.metric == "cosine" and float(row_norms(query[None, :])[0]) < SHORTEST:
        raise DataError(f"{place}: a zero vector has no direction, so cosine cannot rank by it")
