"""The house: sizes of files and functions, and their docstrings."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("m2mdb", "pager", "wal", "index", "compute", "query")
FILE_LINES = 600
FUNCTION_LINES = 70
ARGUMENTS = 7
DEPTH = 5
MEDIAN_FILE_LINES = 250
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def paths() -> list[Path]:
    """All modules of the product, each once (not through the links)."""
    found = [
        path for folder in FOLDERS if folder != "m2mdb" for path in (ROOT / folder).rglob("*.py")
    ]
    return sorted(found + list((ROOT / "m2mdb").glob("*.py")))


def functions() -> Iterator[tuple[str, Function]]:
    """All functions and methods of the product, with their places."""
    for path in paths():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def depth(node: ast.AST, level: int = 0) -> int:
    """How deep blocks are nested in a node; `elif` is no deeper than its `if`."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.Lambda | ast.ClassDef):
            continue
        is_elif = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        inner = level + (isinstance(child, BLOCKS) and not is_elif)
        deepest = max(deepest, depth(child, inner))
    return deepest


def test_files_fit_in_one_mind() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in paths()}

    assert {path: size for path, size in sizes.items() if size > FILE_LINES} == {}
    assert statistics.median(sizes.values()) <= MEDIAN_FILE_LINES


def test_functions_fit_on_a_screen() -> None:
    sizes = {where: (node.end_lineno or 0) - node.lineno + 1 for where, node in functions()}

    assert {where: size for where, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_functions_take_few_arguments() -> None:
    wrong = {}
    for where, node in functions():
        taken = {argument.arg for argument in node.args.posonlyargs + node.args.args}
        count = len(taken - {"self", "cls"})
        if node.name not in FACE_SIGNATURES | STEPS and count > ARGUMENTS:
            wrong[where] = count

    assert wrong == {}


FACE_SIGNATURES = {"connect", "search"}  # given by the interface; their options go by keyword
# Steps of the list search are given its arrays one by one: a tuple of them, unboxed at each step,
# costs what the step saves. What codes a part has the part's own arrays.
STEPS = {
    "search_batch", "by_bytes", "scan_block", "build", "coded", "turn", "trace_recalls",
    "trace_works", "seconds", "search_in_turn",
}  # fmt: skip


def test_blocks_are_not_nested_deeply() -> None:
    assert {where: depth(node) for where, node in functions() if depth(node) > DEPTH} == {}


def test_every_module_class_and_public_function_has_a_docstring() -> None:
    missing = []
    for path in paths():
        tree = ast.parse(path.read_text("utf-8"))
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(ROOT)))
        for node in tree.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")

    assert missing == []
