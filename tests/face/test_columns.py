"""What `add` takes: every form of table gives the same columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from m2mdb.columns import to_columns
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.pager.errors import DataError, InterfaceError, NotSupportedError
from m2mdb.row import Names, Row

SCHEMA = CollectionSchema(
    "notes",
    (
        Column("id", "TEXT", primary_key=True),
        Column("stars", "INTEGER", default=5),
        Column("meta", "JSON"),
        Column("v", "VECTOR", dimension=2),
    ),
)
IDS, STARS = ["a", "b"], [1, 2]
VECTORS = np.array([[1, 2], [3, 4]], np.float32)
ROWS = list(zip(IDS, STARS, VECTORS, strict=True))


def as_lists(rows: Any) -> tuple[dict[str, list[Any]], int]:
    columns, count = to_columns(rows, SCHEMA)
    return {
        name: [item.tolist() if hasattr(item, "tolist") else item for item in column]
        for name, column in columns.items()
    }, count


@pytest.mark.parametrize(
    "rows",
    [
        {"id": IDS, "stars": STARS, "v": VECTORS},
        {"id": tuple(IDS), "stars": np.array(STARS), "v": VECTORS.tolist()},
        {"id": (name for name in IDS), "stars": range(1, 3), "v": list(VECTORS)},
        {"id": pd.Series(IDS), "stars": pd.Series(STARS), "v": VECTORS},
        {"id": pa.array(IDS), "stars": pa.array(STARS), "v": VECTORS},
        [{"id": "a", "stars": 1, "v": [1, 2]}, {"id": "b", "stars": 2, "v": [3, 4]}],
        (dict(zip(("id", "stars", "v"), row, strict=True)) for row in ROWS),
        [Row(Names(("id", "stars", "v")), row) for row in ROWS],
        pd.DataFrame({"id": IDS, "stars": STARS, "v": list(VECTORS)}),
        pa.table(
            {
                "id": IDS,
                "stars": STARS,
                "v": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 2),
            }
        ),
        pa.RecordBatch.from_pydict({"id": IDS, "stars": STARS, "v": VECTORS.tolist()}),
        np.array(
            [("a", 1, (1, 2)), ("b", 2, (3, 4))],
            [("id", "O"), ("stars", "i8"), ("v", "f4", 2)],
        ),
    ],
    ids=[
        "dict of lists", "dict of tuples and arrays", "dict of iterables", "dict of Series",
        "dict of Arrow arrays", "list of dicts", "generator of dicts", "list of Rows",
        "DataFrame", "Arrow table", "Arrow batch", "structured array",
    ],
)  # fmt: skip
def test_every_form_gives_the_same_columns(rows: Any) -> None:
    columns, count = as_lists(rows)

    assert count == 2
    assert columns == {"id": ["a", "b"], "stars": [1, 2], "v": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a", "stars": 1, "v": [1, 2]},
        {"id": "a", "stars": 1, "v": np.array([1, 2])},
        {"id": "a", "stars": np.int64(1), "v": [1, 2]},
    ],
)
def test_a_dict_of_scalars_is_one_row(row: dict[str, Any]) -> None:
    columns, count = as_lists(row)

    assert count == 1
    assert columns == {"id": ["a"], "stars": [1], "v": [[1, 2]]}


def test_one_vector_alone_is_one_row() -> None:
    assert as_lists({"v": [1.0, 2.0]}) == ({"v": [[1.0, 2.0]]}, 1)
    assert as_lists({"v": np.ones(2)}) == ({"v": [[1.0, 1.0]]}, 1)
    assert as_lists({"v": np.ones((1, 2))}) == ({"v": [[1.0, 1.0]]}, 1)


def test_a_json_object_or_list_may_be_one_value() -> None:
    assert as_lists({"id": "a", "meta": {"x": 1}})[0]["meta"] == [{"x": 1}]
    assert as_lists({"id": "a", "meta": [1, 2, 3]})[0]["meta"] == [[1, 2, 3]]


def test_a_name_that_some_rows_lack_takes_its_default() -> None:
    columns, count = as_lists([{"id": "a"}, {"id": "b", "stars": 2, "meta": "{}"}])

    assert count == 2
    assert columns == {"id": ["a", "b"], "stars": [5, 2], "meta": [None, "{}"]}


def test_missing_values_of_pandas_and_arrow_are_null() -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", None],
            "stars": [1.0, float("nan")],
            "at": pd.to_datetime(["2024-01-02", None]),
        }
    )
    columns, _ = as_lists(frame)

    assert columns["id"] == ["a", None]
    assert columns["stars"] == [1.0, None]
    assert columns["at"][1] is None
    assert columns["at"][0].isoformat() == "2024-01-02T00:00:00"
    assert as_lists(pa.table({"stars": [1, None]}))[0] == {"stars": [1, None]}


@pytest.mark.parametrize("rows", [[], {}, {"id": []}, {"id": [], "v": np.empty((0, 2))}, iter(())])
def test_an_empty_batch_is_no_row(rows: Any) -> None:
    assert to_columns(rows, SCHEMA)[1] == 0


def test_ragged_columns_are_told_with_their_lengths() -> None:
    with pytest.raises(DataError, match="differ in length: id 2, stars 1"):
        to_columns({"id": ["a", "b"], "stars": [1]}, SCHEMA)


def test_a_lone_str_is_never_a_column() -> None:
    with pytest.raises(DataError, match="stars is a list of 2, id is one value"):
        to_columns({"id": "ab", "stars": [1, 2]}, SCHEMA)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (17, "rows are int"),
        ("text", "rows are str"),
        ([1, 2], "row 0 is int"),
        ([{"id": "a"}, ("b", 1)], "row 1 is tuple"),
        (pd.Series([1, 2]), "pandas Series"),
        (np.zeros((2, 2)), "rows are ndarray"),
        (None, "rows are NoneType"),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(InterfaceError, match=message):
        to_columns(rows, SCHEMA)


def test_arrow_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": ["a"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)

    with pytest.raises(NotSupportedError, match=r"m2mdb\[arrow\]"):
        to_columns(table, SCHEMA)
