"""The house: what is installed is what is on disk, and it works in a bare environment."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("pager", "wal", "index", "compute", "query")
DATA = {"m2mdb/py.typed", "m2mdb/query/grammar.lark", "m2mdb/query/tables.json"}
USE = """
import m2mdb
con = m2mdb.connect(":memory:")
con.execute("CREATE COLLECTION t (id INTEGER PRIMARY KEY, body TEXT FULLTEXT, v VECTOR(2))")
con.execute("INSERT INTO t VALUES (1, 'red apple', ?), (2, 'green pear', ?)", ([1, 0], [0, 1]))
rows = con.execute("SEARCH t NEAR ? MATCH 'pear' K 1 RETURNING id", ([0.1, 0.9],)).fetchall()
assert rows == [(2,)], rows
assert con.collection("t").search(near=[1.0, 0.1], k=1).ids.tolist() == [1]
print(m2mdb.__file__)
"""


def configuration() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def modules_on_disk() -> set[str]:
    """Every module as an installation names it."""
    found = {f"m2mdb/{path.name}" for path in (ROOT / "m2mdb").glob("*.py")}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            found.add(f"m2mdb/{path.relative_to(ROOT).as_posix()}")
    return found


def test_the_list_of_packages_is_what_is_on_disk() -> None:
    on_disk = {
        ".".join(Path(name).parent.parts)
        for name in modules_on_disk()
        if name.endswith("/__init__.py")
    }

    setuptools = configuration()["tool"]["setuptools"]

    assert set(setuptools["packages"]) == on_disk
    assert set(setuptools["package-dir"]) == on_disk


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {(ROOT / name.removeprefix("m2mdb/")).parent for name in modules_on_disk()}

    missing = [folder for folder in folders if not (folder / "__init__.py").is_file()]

    assert [folder for folder in missing if folder != ROOT] == []


@pytest.mark.parametrize("layer", LAYERS)
def test_the_link_of_a_layer_leads_to_it(layer: str) -> None:
    link = ROOT / "m2mdb" / layer

    assert link.is_symlink()
    assert link.readlink() == Path("..", layer)


def test_third_party_modules_of_the_product_and_tests_are_declared() -> None:
    project = configuration()["project"]
    runtime = declared(project["dependencies"])
    extras = project["optional-dependencies"]
    known_to_product = runtime | declared(
        extras["pandas"]
        + extras["arrow"]
        + extras["polars"]
        + extras["text"]
        + extras["models"]
        + extras["fastembed"]
    )
    known_to_tests = known_to_product | declared(
        extras["test"] + extras["test-models"] + extras["test-notebook"]
    )
    known_to_tests |= {"dbapi20", "IPython"}  # modules of dbapi-compliance and ipython

    product = third_party([ROOT / "m2mdb", *(ROOT / layer for layer in LAYERS)])
    tests = third_party([ROOT / "tests"])

    assert product - known_to_product == set()
    assert tests - known_to_tests == set()


def declared(requirements: list[str]) -> set[str]:
    """The modules that requirements install."""
    names = {re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in requirements}
    return {name.replace("-", "_") for name in names}


def third_party(folders: list[Path]) -> set[str]:
    """The top-level modules that are neither ours nor Python's."""
    found: set[str] = set()
    for path in {path.resolve() for folder in folders for path in folder.rglob("*.py")}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"m2mdb", "tests", "fuzz"}


def built(folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, built from a copy, so that nothing built before gets in."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    for kind in ("--wheel", "--sdist"):
        call = [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(folder)]
        found = subprocess.run(
            [*call, str(source)], capture_output=True, text=True, check=False, cwd=folder
        )
        assert found.returncode == 0, found.stdout + found.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.mark.slow
def test_a_built_wheel_and_sdist_hold_every_file_and_the_wheel_works(tmp_path: Path) -> None:
    pytest.importorskip("build")
    wheel, sdist = built(tmp_path)

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {name for name in names if name.endswith(".py")}
    assert modules == modules_on_disk()
    assert set(names) >= DATA
    assert len(names) == len(set(names))

    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    inside = {member.name.partition("/")[2] for member in members}
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert inside >= {name.removeprefix("m2mdb/") for name in modules if name.count("/") > 1}
    assert inside >= {"LICENSE", "README.md", "pyproject.toml", "query/grammar.lark"}

    assert_it_works_in_a_bare_environment(wheel, tmp_path)


def assert_it_works_in_a_bare_environment(wheel: Path, folder: Path) -> None:
    """Install the wheel where there is nothing else, outside the checkout, and search."""
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    found = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    found = subprocess.run(
        [str(python), "-I", "-c", USE], capture_output=True, text=True, check=False, cwd=folder
    )
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).is_relative_to(environment)
    script = environment / "bin" / "m2mdb"
    version = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("m2mdb ")
