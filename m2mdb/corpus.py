"""The corpus of the demo: the documentation of Python's standard library.

Every module, class and function of the library with a docstring is a row. Sources are read and
parsed, never imported, in an order that depends on their names alone.
"""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from m2mdb.pager.errors import OperationalError

SKIPPED_FOLDERS = frozenset(
    ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload")
)
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Document(NamedTuple):
    """One docstring and where it stands."""

    id: str
    module: str
    kind: str
    name: str
    body: str


def standard_library() -> Path:
    """The folder of the running Python's standard library sources.

    Raises OperationalError where this Python came without them.
    """
    folder = sysconfig.get_path("stdlib")
    if not folder or not Path(folder, "ast.py").is_file():
        raise OperationalError(
            f"the sources of Python's standard library are not at {folder}: "
            "this Python was installed without them, and the demo reads their documentation"
        )
    return Path(folder)


def source_files(folder: Path) -> list[Path]:
    """All Python sources below `folder` but tests and installed packages, by name."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in SKIPPED_FOLDERS and name.isidentifier()
        )
        found += [Path(parent, name) for name in sorted(names) if name.endswith(".py")]
    return sorted(found)


def documents(folder: Path) -> Iterator[Document]:
    """The documents of all sources below `folder`; a file that does not parse gives none."""
    seen: dict[str, int] = {}
    for path in source_files(folder):
        for document in file_documents(path, module_name(path.relative_to(folder))):
            number = seen[document.id] = seen.get(document.id, 0) + 1
            yield document if number == 1 else document._replace(id=f"{document.id}#{number}")


def module_name(path: Path) -> str:
    """The dotted name under which a source is imported."""
    parts = list(path.with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def file_documents(path: Path, module: str) -> Iterator[Document]:
    """The documents of one source file, in the order of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return
    body = docstring(tree)
    if body:
        yield Document(module, module, "module", module.rpartition(".")[2], body)
    yield from definitions(tree, module, "", inside_class=False)


def definitions(
    node: ast.AST, module: str, prefix: str, *, inside_class: bool
) -> Iterator[Document]:
    """The documents of the definitions below `node`; `prefix` is their qualified name's start."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Definition):
            if isinstance(child, ast.stmt):
                yield from definitions(child, module, prefix, inside_class=inside_class)
            continue
        name = f"{prefix}.{child.name}" if prefix else child.name
        is_class = isinstance(child, ast.ClassDef)
        body = docstring(child)
        if body:
            kind = "class" if is_class else "method" if inside_class else "function"
            yield Document(f"{module}.{name}", module, kind, child.name, body)
        yield from definitions(child, module, name, inside_class=is_class)


def docstring(node: ast.Module | Definition) -> str:
    """The cleaned docstring of a node, or an empty string."""
    text = ast.get_docstring(node, clean=True) or ""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
