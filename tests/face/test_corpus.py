"""The demo's corpus: every docstring once, in a fixed order, whatever the sources hold."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from m2mdb import corpus
from m2mdb.pager.errors import OperationalError

SOURCE = '''"""The module."""
if True:
    def twice():
        """First."""
else:
    def twice():
        """Second."""

class Box:
    """A box.

        Indented.
    """
    async def open(self):
        """Open it."""
        def inner():
            """Inner."""
    def bare(self):
        return "no docstring"
'''


def test_documents_of_a_file(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text(SOURCE)

    rows = [tuple(document) for document in corpus.documents(tmp_path)]

    assert rows == [
        ("pack", "pack", "module", "pack", "The module."),
        ("pack.twice", "pack", "function", "twice", "First."),
        ("pack.twice#2", "pack", "function", "twice", "Second."),
        ("pack.Box", "pack", "class", "Box", "A box.\n\nIndented."),
        ("pack.Box.open", "pack", "method", "open", "Open it."),
        ("pack.Box.open.inner", "pack", "function", "inner", "Inner."),
    ]


def test_broken_sources_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def broken(:")
    (tmp_path / "b.py").write_bytes(b'"""\xff\xfe not UTF-8"""')
    (tmp_path / "c.py").write_bytes(b"\x00")
    (tmp_path / "d.py").write_text('"""Invalid escape \\d is no matter."""')
    (tmp_path / "e.py").write_text('"""A lone surrogate \\ud800."""')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "f.py").write_text('"""Not taken."""')

    bodies = [document.body for document in corpus.documents(tmp_path)]

    assert bodies == ["Invalid escape \\d is no matter.", "A lone surrogate ?."]


def test_the_standard_library_gives_thousands_of_rows_and_is_not_imported() -> None:
    before = set(sys.modules)

    rows = list(corpus.documents(corpus.standard_library()))

    assert len(rows) > 5000
    assert len({row.id for row in rows}) == len(rows)
    assert {row.kind for row in rows} == {"module", "class", "function", "method"}
    assert all(row.body.strip() for row in rows)
    assert not {"antigravity", "this", "turtle"} & (set(sys.modules) - before)


def test_absent_sources_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))

    with pytest.raises(OperationalError, match="standard library are not at"):
        corpus.standard_library()
