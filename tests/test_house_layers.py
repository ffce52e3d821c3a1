"""The house: layers import downwards only, and only the VFS touches the operating system."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("pager", "wal", "index", "compute", "query")
BELOW = {  # and `version`, a constant, for all
    "pager": {"pager"},
    "wal": {"wal", "pager"},
    "compute": {"compute", "pager"},
    "index": {"index", "compute", "wal", "pager"},
    "query": {"query", "index", "compute", "wal", "pager"},
}
SYSTEM_MODULES = {
    "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil",
    "signal", "socket", "subprocess", "tempfile", "time",
}  # fmt: skip
UNSAFE_MODULES = {"dill", "marshal", "pickle", "runpy", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
SYSTEM_SEAMS = re.compile(r"pager/(os_\w+|memory_vfs|io_errors|sim_\w+)\.py")  # the VFSes
PACKAGE_DATA_READERS = {"query/tables.py", "query/parser.py"}  # open the package's own data files


def sources(*layers: str) -> Iterator[tuple[str, ast.Module]]:
    """All modules of the layers, by their paths from the root."""
    for layer in layers:
        for path in sorted((ROOT / layer).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The full names that a module imports, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The built-in functions that a module calls, with their lines."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    own |= {name.rpartition(".")[2] for name, _ in imports(tree)}
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id not in own:
            yield called.id, called.lineno


def test_layers_import_downwards_only() -> None:
    wrong = []
    for layer in LAYERS:
        for path, tree in sources(layer):
            for name, line in imports(tree):
                parts = name.split(".")
                if parts[0] == "" or parts[0] in LAYERS:
                    wrong.append(f"{path}:{line}: {name} is no absolute name under m2mdb")
                elif parts[0] == "m2mdb" and parts[1] not in BELOW[layer] | {"version"}:
                    wrong.append(f"{path}:{line}: {layer} may not import {name}")
                elif layer == "compute" and "pager" in parts and parts[2] != "errors":
                    wrong.append(f"{path}:{line}: compute may not import {name}")

    assert wrong == []


def test_only_the_vfs_touches_the_operating_system() -> None:
    wrong = []
    for path, tree in sources("pager", "wal", "index", "query"):
        if SYSTEM_SEAMS.fullmatch(path):
            continue
        wrong += [
            f"{path}:{line}: imports {name}"
            for name, line in imports(tree)
            if name.split(".")[0] in SYSTEM_MODULES
        ]
        if path not in PACKAGE_DATA_READERS:
            wrong += [f"{path}:{line}: open()" for name, line in calls(tree) if name == "open"]

    assert wrong == []


def test_nothing_in_a_file_is_ever_executed() -> None:
    wrong = []
    for path, tree in sources(*LAYERS, "m2mdb"):
        wrong += [
            f"{path}:{line}: imports {name}"
            for name, line in imports(tree)
            if name.split(".")[0] in UNSAFE_MODULES
        ]
        wrong += [f"{path}:{line}: {name}()" for name, line in calls(tree) if name in UNSAFE_CALLS]

    assert wrong == []


def test_errors_are_defined_in_one_place() -> None:
    wrong = [
        f"{path}:{node.lineno}: {node.name}"
        for path, tree in sources(*LAYERS)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and path != "pager/errors.py"
        and any(isinstance(base, ast.Name) and base.id.endswith("Error") for base in node.bases)
    ]

    assert wrong == []


def test_import_linter_holds_the_contracts() -> None:
    pytest.importorskip("importlinter")
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stdout + found.stderr
