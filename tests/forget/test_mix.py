"""FORGET among everything else, in any order: what is not live leaves no byte (S26)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from m2mdb.index.database import Database
from m2mdb.index.optimize import optimize
from m2mdb.index.schema import CollectionSchema, IndexInfo
from m2mdb.pager.sim_vfs import SimVfs
from tests.forget.scripts import COLUMNS, columns, ids, open_database, rowid, statuses, word
from tests.forget.traces import (
    Needles,
    assert_gone,
    files_of,
    number_needles,
    text_needles,
    vector_needles,
)
from tests.thresholds import small_thresholds

choices = st.integers(0, 1 << 30)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_thresholds():
        yield


def values_of(number: int, version: int) -> dict[str, list[object]]:
    found = columns([number], f"version{version}")
    found["v"] = columns([1000 * number + version])["v"]
    return found


def version_needles(number: int, version: int) -> Needles:
    values = values_of(number, version)
    found = text_needles(word(number, f"version{version}"))
    found |= vector_needles(values["v"][0], "f4")
    return found | number_needles(int(str(values["n"][0])))


class WhatIsNotLiveIsGone(RuleBasedStateMachine):
    @initialize()
    def create(self) -> None:
        self.vfs = SimVfs(seed=5)
        self.database = open_database(self.vfs)
        with self.database.writing() as write:
            write.create_collection(CollectionSchema("notes", COLUMNS))
            write.create_index("notes", IndexInfo("by_n", "n"))
            write.create_index("notes", IndexInfo("by_id", "id"))
        self.model: dict[int, int] = {}  # number of a row: its version
        self.written: set[tuple[int, int]] = set()
        self.next = 0
        self.reader: Database | None = None

    def teardown(self) -> None:
        if hasattr(self, "database"):
            if self.reader is not None:
                self.reader.close()
            self.database.close()

    def some(self, choice: int, most: int) -> list[int]:
        rng = Random(choice)
        return sorted(rng.sample(sorted(self.model), min(len(self.model), rng.randint(1, most))))

    @rule(count=st.sampled_from([1, 1, 2, 6, 9]), undone=st.booleans())
    def insert(self, count: int, undone: bool) -> None:
        numbers = list(range(self.next, self.next + count))
        self.next += count
        given = [values_of(number, 0) for number in numbers]
        rows = {name: [each[name][0] for each in given] for name in given[0]}
        self.database.begin()
        with self.database.writing() as write:
            write.insert("notes", rows, count)
        self.written |= {(number, 0) for number in numbers}
        if undone:
            self.database.rollback()
        else:
            self.database.commit()
            self.model |= dict.fromkeys(numbers, 0)

    @precondition(lambda self: self.model)
    @rule(choice=choices)
    def update(self, choice: int) -> None:
        for number in self.some(choice, 3):
            version = self.model[number] + 1
            values = values_of(number, version)
            del values["id"]
            with self.database.writing() as write:
                write.update("notes", [rowid(write, number)], values)
            self.model[number] = version
            self.written.add((number, version))

    @precondition(lambda self: self.model)
    @rule(choice=choices)
    def delete(self, choice: int) -> None:
        numbers = self.some(choice, 7)
        with self.database.writing() as write:
            write.delete("notes", [rowid(write, number) for number in numbers])
        for number in numbers:
            del self.model[number]

    @precondition(lambda self: self.model)
    @rule(choice=choices)
    def forget(self, choice: int) -> None:
        numbers = self.some(choice, 4)
        with self.database.writing() as write:
            write.forget("notes", [rowid(write, number) for number in numbers])
        for number in numbers:
            del self.model[number]
        assert (statuses(self.database)[-1] == "pending") == (self.reader is not None)
        self.compare()
        if self.reader is None:
            self.search()

    @rule()
    def checkpoint(self) -> None:
        self.database.checkpoint("passive")
        if self.reader is None:
            assert set(statuses(self.database)) <= {"done"}

    @rule()
    def compact(self) -> None:
        optimize(self.database)

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self.database = open_database(self.vfs)
        self.compare()

    @rule()
    def kill_and_recover(self) -> None:
        self.vfs = self.vfs.process_crash()
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        self.database = open_database(self.vfs)
        self.compare()

    @precondition(lambda self: self.reader is None)
    @rule()
    def hold_a_snapshot(self) -> None:
        self.reader = open_database(self.vfs.fork_process())
        self.reader.begin()
        self.held = ids(self.reader)

    @precondition(lambda self: self.reader is not None)
    @rule()
    def let_it_go(self) -> None:
        assert self.reader is not None
        assert ids(self.reader) == self.held
        self.reader.rollback()
        self.reader.close()
        self.reader = None

    def compare(self) -> None:
        assert ids(self.database) == {word(number, "id") for number in self.model}

    def search(self) -> None:
        needles: Needles = {}
        for number, version in self.written:
            if self.model.get(number) != version:
                needles |= version_needles(number, version)
            if number not in self.model:
                needles |= text_needles(word(number, "id"))
        assert_gone(files_of(self.vfs), needles)


WhatIsNotLiveIsGone.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestForgetAmongEverythingElse = WhatIsNotLiveIsGone.TestCase
