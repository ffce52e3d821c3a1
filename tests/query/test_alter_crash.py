"""ALTER is atomic and durable: every I/O point of a script of changes, crashed and reopened."""

from __future__ import annotations

from typing import Any

from m2mdb.pager.sim_vfs import SimVfs
from m2mdb.query.executor import execute
from tests.query.conftest import opened
from tests.sim.crash_explorer import Explorer
from tests.sim.database_oracle import State, read_state
from tests.sim.database_runs import DatabaseLevel, DatabaseRun
from tests.thresholds import small_thresholds

# ruff: noqa: E501  # a statement a line
SCRIPT = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT, n INTEGER)",
    "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 1), (5, 'e', 2), (6, 'f', 3)",
    "INSERT INTO t VALUES (7, 'late', 4)",
    "CREATE INDEX by_n ON t (n)",
    "ALTER TABLE t ADD COLUMN word TEXT DEFAULT 'old'",
    "INSERT INTO t VALUES (8, 'h', 5, 'new')",
    "ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'some words' FULLTEXT",
    "ALTER TABLE t RENAME COLUMN n TO size",
    "ALTER TABLE t DROP COLUMN body",
    "DELETE FROM t WHERE size = 2",
    "ALTER TABLE t ADD COLUMN body INTEGER DEFAULT 9",
    "ALTER TABLE t RENAME TO u",
    "UPDATE u SET word = 'changed' WHERE id < 4",
    "DROP INDEX by_n",
]  # fmt: skip


class AlterRun(DatabaseRun):
    """A script on the disk, and on a twin in memory that says what must be there."""

    def __init__(self, vfs: SimVfs, **options: Any) -> None:
        super().__init__(vfs, **options)
        self.twin = opened()

    def follow(self, statement: str) -> None:
        """Run a statement that commits itself on both."""
        execute(self.twin, statement)
        self.history.begin(read_state(self.twin))
        self.connection.execute(statement)
        self.history.acknowledge(durable=self.durable)


class AlterLevel(DatabaseLevel):
    """The script as a workload of the crash explorer."""

    def start(self, vfs: SimVfs, synchronous: str) -> AlterRun:
        """A run on an open, new database."""
        return AlterRun(vfs, synchronous=synchronous)

    def drive(self, run: DatabaseRun, script: str) -> None:
        """Run the statements one by one."""
        assert isinstance(run, AlterRun)
        with small_thresholds():
            for statement in SCRIPT:
                run.follow(statement)


def test_a_crash_during_a_change_leaves_it_done_or_not_done() -> None:
    explorer: Explorer[State] = Explorer(AlterLevel(), images=2, one_everywhere=False)

    points = list(explorer.points("alter", 3, "full"))

    assert len(points) > 50
    assert explorer.counts.crash_images > 100
