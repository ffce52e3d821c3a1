"""COPY and folders of the package mmap-ninja, which is the oracle; .bvecs and .ivecs beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmap_ninja import generic
from mmap_ninja import numpy as ninja
from mmap_ninja.ragged import RaggedMmap
from mmap_ninja.string import StringsMmap

import m2mdb

DTYPES = {"f32": np.float32, "f16": np.float16, "i8": np.int8}


def filled(matrix: list[Any] | np.ndarray[Any, Any], dtype: str = "f32") -> m2mdb.Connection:
    """A table of one vector column; its rows in a segment where they are many."""
    con = m2mdb.connect(":memory:", compute="numpy", autocommit=True)
    con.execute(f"CREATE TABLE t (n INTEGER DEFAULT 7, v VECTOR(3, {dtype}) METRIC l2)")
    con.collection("t").add({"v": matrix})
    return con


def vectors(con: m2mdb.Connection) -> list[Any]:
    found = con.execute("SELECT v FROM t").fetchall()
    return [None if row[0] is None else row[0].tolist() for row in found]


def random_matrix(dtype: str, rows: int = 9000) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(7)
    return rng.integers(-90, 90, (rows, 3)).astype(DTYPES[dtype]) / (1 if dtype == "i8" else 8)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_mmap_ninja_opens_what_is_written(tmp_path: Path, dtype: str) -> None:
    matrix = random_matrix(dtype).astype(DTYPES[dtype])
    con = filled(matrix, dtype)

    assert con.execute(f"COPY t TO '{tmp_path}/a' (format = 'mmap_ninja')").fetchone() == (9000,)

    found = generic.open_existing(tmp_path / "a")
    assert found.dtype == matrix.dtype
    np.testing.assert_array_equal(found, matrix)
    ninja.append(found, np.ones(3))  # an array of ours grows as one of its own
    assert len(ninja.open_existing(tmp_path / "a")) == 9001
    other = filled([], dtype)
    other.execute(f"COPY t FROM '{tmp_path}/a' (format = 'mmap_ninja')")
    assert vectors(other) == [*matrix.tolist(), [1, 1, 1]]
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_what_mmap_ninja_writes_is_read(tmp_path: Path, dtype: str, order: str) -> None:
    matrix = np.abs(random_matrix("f32", 9000)).astype(dtype)
    laid = np.asfortranarray(matrix) if order == "F" else matrix
    ninja.from_ndarray(tmp_path / "a.ninja", laid)
    con = filled([])

    told: list[Any] = []
    con.collection("t").copy_from(tmp_path / "a.ninja", progress=lambda *each: told.append(each))

    assert vectors(con) == matrix.tolist()
    assert con.execute("SELECT DISTINCT n FROM t").fetchall() == [(7,)]
    assert told == [(8192, 9000), (9000, 9000)]


def test_a_folder_of_an_older_mmap_ninja_has_no_type(tmp_path: Path) -> None:
    ninja.from_ndarray(tmp_path / "a", np.ones((2, 3), np.float32))
    (tmp_path / "a" / "type.ninja").unlink()
    con = filled([])

    con.execute(f"COPY t FROM '{tmp_path}/a' (format = 'mmap-ninja')")

    assert vectors(con) == [[1, 1, 1]] * 2


def test_ragged_folders_hold_null(tmp_path: Path) -> None:
    matrix = random_matrix("f32", 9000)
    rows = [None if at % 3 == 0 else row for at, row in enumerate(matrix)]
    con = filled(rows)
    copy = f"COPY t TO '{tmp_path}/a' (format = 'mmap_ninja', ragged = true)"

    con.execute(copy)

    found = RaggedMmap(tmp_path / "a")
    assert [each.tolist() for each in found] == [
        [] if row is None else row.tolist() for row in rows
    ]
    assert generic.open_existing(tmp_path / "a")[1].tolist() == matrix[1].tolist()
    found.append(np.ones(3, np.float32))
    other = filled([])
    other.execute(f"COPY t FROM '{tmp_path}/a' (format = 'mmap_ninja')")
    assert vectors(other) == [*vectors(con), [1, 1, 1]]
    con.execute(copy)  # in the place of the one that stands there
    assert len(RaggedMmap(tmp_path / "a")) == 9000
    assert os.listdir(tmp_path) == ["a"]


def test_a_ragged_folder_of_mmap_ninja_is_read(tmp_path: Path) -> None:
    rows = [np.array(each, np.float32) for each in ([1, 2, 3], [], [4, 5, 6])]
    RaggedMmap.from_generator(tmp_path / "a", rows, batch_size=2)
    con = filled([])

    con.execute(f"COPY t FROM '{tmp_path}/a' (format = 'mmap_ninja')")

    assert vectors(con) == [[1, 2, 3], None, [4, 5, 6]]


@pytest.mark.parametrize("ragged", ["false", "true"])
def test_an_empty_collection_comes_back(tmp_path: Path, ragged: str) -> None:
    con = filled([])

    con.execute(f"COPY t TO '{tmp_path}/a' (format = 'mmap_ninja', ragged = {ragged})")

    found = generic.open_existing(tmp_path / "a")
    assert len(found) == 0
    assert con.execute(f"COPY t FROM '{tmp_path}/a' (format = 'ninja')").fetchone() == (0,)


def damaged(folder: Path) -> dict[str, Any]:
    """Folders that are not what they should be, each made by a change of a good one."""
    good = folder / "good"
    ninja.from_ndarray(good, np.ones((4, 3), np.float32))
    RaggedMmap.from_lists(folder / "ragged", [np.ones(3), np.ones(2)])
    RaggedMmap.from_lists(folder / "deep", [np.ones((3, 1)), np.ones((3, 2))])
    StringsMmap.from_strings(folder / "strings", ["a", "b"])
    ninja.from_ndarray(folder / "wide", np.ones((4, 5), np.float32))
    ninja.from_ndarray(folder / "complex", np.ones((4, 3), np.complex64))
    (folder / "empty").mkdir()
    (folder / "file").write_bytes(b"x")
    changes: dict[str, tuple[str, bytes | None]] = {
        "short": ("data.ninja", b"1234"),
        "dtype": ("dtype.ninja", b"float33"),
        "object": ("dtype.ninja", b"object"),
        "code": ("dtype.ninja", b"f4,f4"),
        "long": ("dtype.ninja", b"x" * 100),
        "order": ("order.ninja", b"K"),
        "shape": ("shape.ninja", b"123"),
        "huge": ("shape.ninja", b"\xff" * 16),
        "kind": ("type.ninja", b"pickle"),
        "none": ("order.ninja", None),
    }
    for name, (file, content) in changes.items():
        shutil.copytree(good, folder / name)
        (folder / name / file).unlink()
        if content is not None:
            (folder / name / file).write_bytes(content)
    for name, at in (("outside", 10**6), ("negative", -1)):
        shutil.copytree(folder / "ragged", folder / name)
        np.array([at, 3]).tofile(folder / name / "starts" / "data.ninja")
    return {
        "short": (m2mdb.DataError, "4 bytes, expected 48 for float32"),
        "dtype": (m2mdb.DataError, "'float33' is no dtype"),
        "object": (m2mdb.DataError, "holds object; wanted are numbers"),
        "code": (m2mdb.DataError, "is no name of a type"),
        "long": (m2mdb.DataError, "more than 64 bytes"),
        "order": (m2mdb.DataError, "'K' is neither C nor F"),
        "shape": (m2mdb.DataError, "3 bytes are no axes"),
        "huge": (m2mdb.DataError, "48 bytes, expected"),
        "kind": (m2mdb.DataError, "'pickle' is none of"),
        "none": (m2mdb.DataError, "order.ninja: is missing"),
        "ragged": (m2mdb.DataError, "row 2: numbers 3 to 5 of 5, expected 3"),
        "deep": (m2mdb.DataError, "several axes"),
        "strings": (m2mdb.DataError, "map of strings"),
        "wide": (m2mdb.DataError, r"shape \(4, 5\), expected \(rows, 3\)"),
        "complex": (m2mdb.DataError, "wanted are numbers"),
        "empty": (m2mdb.DataError, "has no data.ninja"),
        "file": (m2mdb.DataError, "is a file"),
        "missing": (m2mdb.OperationalError, "missing"),
        "outside": (m2mdb.DataError, "row 1: numbers 1000000 to 3"),
        "negative": (m2mdb.DataError, "row 1: numbers -1 to 3"),
    }


def test_folders_that_are_wrong_are_told_and_leave_nothing(tmp_path: Path) -> None:
    con = filled([[1, 2, 3]])
    for name, (error, message) in damaged(tmp_path).items():
        with pytest.raises(error, match=message):
            con.execute("COPY t FROM ? (format = 'mmap_ninja')", (str(tmp_path / name),))
        assert vectors(con) == [[1, 2, 3]], name


def test_a_row_without_a_vector_needs_a_ragged_folder(tmp_path: Path) -> None:
    con = filled([None, [1, 2, 3]])
    for options, message in (
        ("", "is NULL in a row"),
        (", ragged = 'yes'", "not true or false"),
        (", column = 'n'", "not VECTOR"),
        (", colour = 1", "unknown option 'colour'"),
    ):
        with pytest.raises(m2mdb.DatabaseError, match=message):
            con.execute(f"COPY t TO '{tmp_path}/a' (format = 'mmap_ninja'{options})")
    with pytest.raises(m2mdb.ProgrammingError, match="option of COPY … TO"):
        con.execute(f"COPY t FROM '{tmp_path}/a' (format = 'mmap_ninja', ragged = true)")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    con = filled([[1, 2, 3]])
    copy = f"COPY t TO '{tmp_path}/a' (format = 'mmap_ninja')"
    con.execute(copy)
    con.execute("INSERT INTO t (v) VALUES (NULL)")

    with pytest.raises(m2mdb.DataError):
        con.execute(copy)
    assert ninja.open_existing(tmp_path / "a").tolist() == [[1, 2, 3]]
    (tmp_path / "a" / "mine.txt").write_text("keep")
    con.execute("DELETE FROM t WHERE v IS NULL")
    with pytest.raises(m2mdb.OperationalError, match="holds other things"):
        con.execute(copy)

    assert (tmp_path / "a" / "mine.txt").read_text() == "keep"
    with pytest.raises(m2mdb.OperationalError, match="cannot write"):
        con.execute(f"COPY t TO '{tmp_path}/none/a' (format = 'mmap_ninja')")
    assert os.listdir(tmp_path) == ["a"]


def test_the_folder_of_the_database_is_never_replaced(tmp_path: Path) -> None:
    con = m2mdb.connect(tmp_path / "data.ninja", compute="numpy", autocommit=True)
    con.execute("CREATE TABLE t (v VECTOR(3))")

    with pytest.raises(m2mdb.OperationalError, match="folder of the database"):
        con.execute(f"COPY t TO '{tmp_path}' (format = 'mmap_ninja')")

    con.close()
    assert (tmp_path / "data.ninja").exists()


@pytest.mark.parametrize(("name", "number"), [("bvecs", "u1"), ("ivecs", "<i4"), ("fvecs", "<f4")])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_vecs_there_and_back(tmp_path: Path, name: str, number: str, dtype: str) -> None:
    """.fvecs of an i8 column was written and then refused when it was read."""
    matrix = np.abs(random_matrix("i8", 9000)).astype(DTYPES[dtype])
    con = filled(matrix, dtype)
    path = tmp_path / f"a.{name}"

    con.execute("COPY t TO ?", (str(path),))

    row = np.dtype([("dimension", "<i4"), ("numbers", number, (3,))])
    found = np.fromfile(path, row)
    assert set(found["dimension"]) == {3}
    np.testing.assert_array_equal(found["numbers"], matrix)
    other = filled([], dtype)
    other.execute("COPY t FROM ?", (str(path),))
    assert vectors(other) == vectors(con)


def test_vecs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for name, value, message in (
        ("a.bvecs", 1.5, "v, row 2: 1.5 is no whole number of 0 to 255"),
        ("a.bvecs", -1, "row 2: -1.0 is no whole number"),
        ("a.ivecs", 2.0**31, "row 2: 2147483648.0 is no whole number"),
    ):
        with pytest.raises(m2mdb.DataError, match=message):
            filled([[1, 2, 3], [0, 0, value]]).execute(f"COPY t TO '{tmp_path}/{name}'")
    np.array([[3, 1, 2, 2**24 + 1]], "<i4").tofile(tmp_path / "b.ivecs")
    for dtype, message in (("f32", "16777217 is no f32"), ("i8", "is no whole number of -128")):
        with pytest.raises(m2mdb.DataError, match=message):
            filled([], dtype).execute(f"COPY t FROM '{tmp_path}/b.ivecs'")
