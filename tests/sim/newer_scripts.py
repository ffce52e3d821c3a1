"""Workloads of the newer parts: columns that ALTER adds, generated vectors, lists and drift rows.

The functions here change a run's model and its database, as the methods of `DatabaseRun` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock

from m2mdb.compute.hrm2 import calibration
from m2mdb.encoders import built_in
from m2mdb.index import hrm2, list_counts
from tests.sim.database_oracle import Row

if TYPE_CHECKING:
    from tests.sim.database_runs import DatabaseRun

GENERATED = 4  # dimension
QUERIES = (
    "STORED_QUERIES", "MADE_QUERIES", "HALVED_QUERIES", "FREE_QUERIES", "FILTERED_QUERIES",
    "LEAST_QUERIES", "NOISY_QUERIES",
)  # fmt: skip


@contextmanager
def small_lists() -> Iterator[None]:
    """Segments of a dozen rows get lists, which few queries measure."""
    with ExitStack() as stack:
        for name in ("LEAST_ROWS", "LEAST_MEASURED"):
            stack.enter_context(mock.patch.object(hrm2, name, 12))
        stack.enter_context(mock.patch.object(list_counts, "LIST_ROWS", 4))
        for name in QUERIES:
            if hasattr(calibration, name):
                stack.enter_context(mock.patch.object(calibration, name, 4))
        yield


@cache
def encoded(text: str | None) -> bytes | None:
    """What the built-in encoder makes of a text."""
    if text is None:
        return None
    found: bytes = built_in("hashing", GENERATED).encode([text])[0].tobytes()
    return found


def add_column(run: DatabaseRun, name: str, value: int | None, to: str = "notes") -> None:
    """A column of one value in every row, those to come too."""
    run.model.added[to] = {**run.model.added.get(to, {}), name: lambda row: value}
    default = "" if value is None else f" DEFAULT {value}"
    run.execute(f"ALTER COLLECTION {to} ADD COLUMN {name} INTEGER{default}")


def add_generated(run: DatabaseRun, name: str, to: str = "notes") -> None:
    """A column of vectors that are made of `body`."""
    run.model.added[to] = {**run.model.added.get(to, {}), name: lambda row: encoded(row[2])}
    run.execute(
        f"ALTER COLLECTION {to} ADD COLUMN {name} VECTOR({GENERATED}) FROM body ENCODER 'hashing'"
    )


def rename_column(run: DatabaseRun, old: str, new: str, of: str = "notes") -> None:
    """A column by another name."""
    added: dict[str, Callable[[Row], Any]] = run.model.added[of]
    run.model.added[of] = {new if name == old else name: each for name, each in added.items()}
    run.execute(f"ALTER COLLECTION {of} RENAME COLUMN {old} TO {new}")


def drop_column(run: DatabaseRun, name: str, of: str = "notes") -> None:
    """A column goes."""
    run.model.added[of] = {n: each for n, each in run.model.added[of].items() if n != name}
    run.execute(f"ALTER COLLECTION {of} DROP COLUMN {name}")


def altering(run: DatabaseRun) -> None:
    """Columns come, are renamed and go, over delta, segments, a merge and a rollback."""
    run.create()
    run.insert(*range(6))
    run.insert(10)
    add_column(run, "x", 7)
    run.insert(11, 12)
    add_column(run, "y", None)
    run.update(50, 1, 11)
    rename_column(run, "x", "z")
    run.insert(*range(20, 26))
    run.begin()
    drop_column(run, "z")
    add_column(run, "w", 3)
    run.insert(30)
    run.rollback()
    run.aside("OPTIMIZE notes")
    run.begin()
    drop_column(run, "y")
    run.insert(31)
    run.commit()
    run.checkpoint("full")
    drop_column(run, "z")
    run.delete(1, 20, 21)
    run.insert(*range(40, 46))


def generated(run: DatabaseRun) -> None:
    """Vectors that follow their texts, in rows that were there before and rows that come."""
    run.create()
    run.insert(*range(6))
    run.insert(10)
    add_generated(run, "g")
    run.insert(11)
    run.update(50, 1, 10, 11)
    run.insert(*range(20, 26))
    run.begin()
    run.update(51, 2, 20)
    kept = run.savepoint("a")
    run.update(52, 2, 3)
    run.rollback_to("a", kept)
    run.connection.execute("RELEASE a")
    run.commit()
    rename_column(run, "g", "h")
    run.forget(2, 21)
    run.aside("OPTIMIZE notes")
    run.insert(30)
    drop_column(run, "h")


def lists(run: DatabaseRun) -> None:
    """Lists are laid out, get drift rows, die by a quarter, are merged, forgotten and dropped."""
    with small_lists():
        run.create()
        run.insert(*range(24))
        run.index("notes", "e", "hrm2")
        found = run.connection.execute("SELECT sum(rows) FROM m2m_lists").fetchone()
        assert found is not None and found[0], "no segment has lists"
        run.insert(30)
        run.insert(*range(40, 56))
        run.update(60, 1, 2, 40)
        run.delete(*range(3, 12))
        run.insert(*range(70, 84))
        run.forget(20, 41)
        run.aside("OPTIMIZE notes")
        run.checkpoint("truncate")
        run.begin()
        run.insert(*range(90, 104))
        run.drop_index("notes", "e", "hrm2")
        run.rollback()
        run.insert(110)
        run.drop_index("notes", "e", "hrm2")


NEWER_SCRIPTS: dict[str, Callable[[DatabaseRun], None]] = {
    "altering": altering,
    "generated": generated,
    "lists": lists,
}
