"""What is loaded when: importing is light, searching needs no parser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NEVER_AT_IMPORT = {
    "argparse", "asyncio", "concurrent.futures", "dataclasses", "inspect", "lark", "llvmlite",
    "logging", "m2mdb.index", "m2mdb.query", "numba", "numpy", "pandas", "pickle", "pyarrow",
    "subprocess", "tempfile", "uuid",
}  # fmt: skip
NEVER_AT_SEARCH = {
    "argparse", "asyncio", "lark", "llvmlite", "logging", "m2mdb.language", "m2mdb.query.parser",
    "m2mdb.query.planner", "m2mdb.query.grammar", "numba", "pandas", "pyarrow", "uuid",
}  # fmt: skip
SEARCH = """
con = m2mdb.connect(PATH)
hits = con.collection("t").search(near=[1.0, 0.0], match="red", k=2)
assert hits.ids.tolist() == [1, 2], hits
con.close()
"""


def modules_after(code: str, tmp_path: Path) -> set[str]:
    """The modules that a fresh interpreter has loaded beyond those it starts with."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        f"PATH = {str(tmp_path / 'a.m2m')!r}\nimport m2mdb\n{code}\n"
        "import json; print(json.dumps(sorted(set(sys.modules) - before - {'json'})))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return set(json.loads(found.stdout))


def test_importing_loads_neither_numpy_nor_the_engine(tmp_path: Path) -> None:
    assert modules_after("", tmp_path) & NEVER_AT_IMPORT == set()


def test_naming_connect_loads_nothing_more(tmp_path: Path) -> None:
    assert modules_after("m2mdb.connect; m2mdb.Row", tmp_path) & NEVER_AT_IMPORT == set()


def test_searching_a_collection_loads_no_parser(tmp_path: Path) -> None:
    import m2mdb

    con = m2mdb.connect(tmp_path / "a.m2m")
    table = con.create_collection(
        "t", {"id": "INTEGER PRIMARY KEY", "body": "TEXT FULLTEXT", "v": "VECTOR(2)"}
    )
    table.add({"id": [1, 2], "body": ["red", "green"], "v": [[1, 0], [0, 1]]})
    con.close()

    loaded = modules_after(SEARCH, tmp_path)

    assert loaded & NEVER_AT_SEARCH == set()
    assert "m2mdb.index.database" in loaded


def test_all_public_names_are_there() -> None:
    import m2mdb

    for name in m2mdb.__all__:
        assert getattr(m2mdb, name) is not None
    assert dir(m2mdb) == sorted(m2mdb.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = m2mdb.nothing
