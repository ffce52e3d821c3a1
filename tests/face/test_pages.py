"""docs/python.md, limits.md, state.md: examples print what they show, their tables are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import m2mdb
from m2mdb.pager.limits import FORMAT, UNTRUSTED
from tests.face.test_docs import EXAMPLE, shown

DOCS = Path(__file__).parent.parent.parent / "docs"
ROW = re.compile(r"\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|")


@pytest.mark.parametrize("page", ["python.md", "limits.md", "state.md"])
def test_the_examples_of_the_page_print_what_they_show(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    con = m2mdb.connect(":memory:", compute="numpy")
    examples = EXAMPLE.findall(text)

    found = [(code, shown(con, kind, code)) for kind, code, _ in examples]

    assert len(examples) >= 3
    for (code, printed), (_, _, expected) in zip(found, examples, strict=True):
        assert printed == expected, code
    assert "```" not in EXAMPLE.sub("", text)
    con.close()


def test_the_table_of_limits_is_true() -> None:
    rows = {
        name: (int(one.replace(",", "")), int(other.replace(",", "")))
        for name, one, other in ROW.findall((DOCS / "limits.md").read_text("utf-8"))
    }
    con = m2mdb.connect(":memory:", compute="numpy")

    told = con.execute("SELECT name, trusted, untrusted, value FROM m2m_limits").fetchall()

    assert rows == dict(zip(FORMAT._fields, zip(FORMAT, UNTRUSTED, strict=True), strict=True))
    assert rows == {name: (one, other) for name, one, other, _ in told}
    assert all(value == one for _, one, _, value in told)
    con.close()


def test_every_system_table_and_every_pragma_has_an_example() -> None:
    from m2mdb.query.pragma import _PRAGMAS
    from m2mdb.query.system_tables import TABLE_NAMES

    code = "".join(each for _, each, _ in EXAMPLE.findall((DOCS / "state.md").read_text("utf-8")))
    pragmas = {word for word in re.findall(r"\w+", code) if word in _PRAGMAS}
    tables = set(re.findall(r"\bm2m_\w+", code))

    assert pragmas == set(_PRAGMAS)
    assert tables == set(TABLE_NAMES)
