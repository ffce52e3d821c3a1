"""Races by name: each driven step by step, and the broken rule that loses it, planted.

A race that the right engine wins and the broken one loses shows both that the rule holds and that
the test would see it broken. Where a mutant has no test of the same steps (it takes a lock less,
so the script does not fit it), `test_schedules.py` has it found by exploration.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from m2mdb.pager.errors import OperationalError
from m2mdb.pager.extent import Extent
from m2mdb.wal.locks import ATTACH, CHECKPOINT, OPENING, WRITER
from tests.sim.mutants import MUTANTS
from tests.sim.scenarios import (
    EXTENT,
    ROW,
    Scenario,
    checkpointer,
    copied,
    died,
    freed,
    freed_frames,
    leaver,
    logged,
    reader,
    visitor,
    writer,
)
from tests.sim.scheduler import Body, Process, Scheduler
from tests.sim.script import END, Script, before
from tests.sim.steps import Step
from tests.sim.store_runs import PATH, Changes
from tests.sim.witness import Witness, filled, open_store, rows_of

pytestmark = pytest.mark.usefixtures("only_own_garbage")

ROWS: Changes = {b"a": filled(1, ROW), b"q": filled(2, ROW)}
MORE: Changes = {b"b": filled(3, ROW)}
TWO: Changes = {b"f": filled(4, EXTENT), b"g": filled(5, EXTENT)}


def a_frame(step: Step) -> bool:
    """A page is about to be read from the log."""
    return step.kind == "read" and step.path.endswith("-wal") and step.size == 4096


def follow(scenario: Scenario, script: Script) -> Scheduler:
    scheduler = scenario.run(script)
    assert script.is_done, "the run was over before the script was"
    assert scheduler.whole
    return scheduler


def lost_by(mutant: str, scenario: Scenario, *parts: Script) -> None:
    """The right engine wins the race, the mutant loses it."""
    right, wrong = parts
    follow(scenario, right)
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[mutant].plant(patch)
        with pytest.raises(AssertionError, match="replay"):
            scenario.run(wrong)


def noting(race: Scenario, witnesses: list[Witness]) -> Callable[[Witness], list[Body]]:
    """What makes a race's bodies, and keeps the witness that they tell."""

    def make(witness: Witness) -> list[Body]:
        witnesses.append(witness)
        return race.make(witness)

    return make


def twice(*parts: tuple[int, Callable[[Step], bool]], kill_at: int = -1) -> tuple[Script, Script]:
    made = [Script(*parts, kill_at=kill_at) for _ in range(2)]
    return made[0], made[1]


# -- S10 -------------------------------------------------------------------------------------------


def test_s10_the_wal_reset_race_of_sqlite() -> None:
    """One checkpointer has read the end and waits for its lock; another copies all of the log, a
    writer begins the log anew and commits; the first one must not take the new frames for old."""
    race = Scenario(
        "wal reset",
        lambda w: [
            checkpointer(w, "passive"),
            checkpointer(w, "full"),
            writer(w, ROWS),
            reader(w),
        ],
        prelude=logged,
        crash_every=1,
    )

    lost_by(
        "stale checkpoint",
        race,
        *twice((0, before("lock", CHECKPOINT)), (1, END), (2, END), (0, END), (3, END)),
    )


def test_s10_a_log_is_not_begun_anew_while_it_is_copied() -> None:
    race = Scenario(
        "reset under a copy",
        lambda w: [checkpointer(w, "passive"), writer(w, ROWS, MORE), reader(w)],
        prelude=logged,
        crash_every=1,
    )

    script = Script(
        (0, before("store", 192)), (1, before("lock", WRITER)), (0, END), (1, END), (2, END)
    )
    follow(race, script)
    script = Script((0, before("store", 192)), (1, END), (0, END), (2, END))
    follow(race, script)


def test_s10_nothing_newer_than_a_mark_is_copied() -> None:
    """A reader has its snapshot and has read nothing; what a checkpoint copies is not newer."""
    race = Scenario(
        "copy under a reader",
        lambda w: [reader(w), writer(w, ROWS), checkpointer(w, "passive")],
        prelude=logged,
    )

    lost_by(
        "marks overlooked by checkpoints",
        race,
        *twice((0, before("read", 4096, "notes.m2m")), (1, END), (2, END), (0, END)),
    )


def test_s10_a_reader_of_the_log_keeps_it() -> None:
    """A checkpoint that begins the log anew waits for the reader."""
    race = Scenario(
        "reset under a reader",
        lambda w: [reader(w), checkpointer(w, "restart"), writer(w, ROWS, MORE)],
        prelude=logged,
    )

    right = Script((0, a_frame), (1, END), (0, END), (1, END), (2, END))
    wrong = Script((0, a_frame), (1, END), (2, END), (0, END))
    follow(race, right)
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS["readers overlooked by resets"].plant(patch)
        with pytest.raises(AssertionError, match="replay"):
            race.run(wrong)


def test_s10_a_reader_of_the_file_alone_keeps_the_file() -> None:
    """All is copied; the log is begun anew under the reader, and nothing of it copied."""
    race = Scenario(
        "reader of the file",
        lambda w: [reader(w), writer(w, ROWS), checkpointer(w, "passive")],
        prelude=copied,
    )

    lost_by(
        "marks of the file forgotten",
        race,
        *twice((0, before("read", 4096, "notes.m2m")), (1, END), (2, END), (0, END)),
    )


@pytest.mark.parametrize("offset", [64, 128, 192])
def test_s10_a_reset_that_dies_before_it_is_published(offset: int) -> None:
    """CP5: the next writer finishes it; no frame is lost under the new header."""
    race = Scenario(
        "dying reset",
        lambda w: [checkpointer(w, "restart"), reader(w), writer(w, ROWS), reader(w)],
        prelude=copied,
        crash_every=1,
    )

    stop = (0, before("store", offset))
    follow(race, Script(stop, (1, END), (2, END), (3, END), kill_at=0))


# -- S2 --------------------------------------------------------------------------------------------


def test_s2_a_mark_is_taken_while_the_end_moves() -> None:
    """Who looked for marks before this one saw an end that is not newer."""
    race = Scenario(
        "late mark",
        lambda w: [reader(w), writer(w, ROWS), checkpointer(w, "passive")],
        prelude=copied,
    )

    lost_by(
        "no second look",
        race,
        *twice((0, before("store")), (1, END), (2, END), (0, END)),
    )


def test_s2_marks_in_one_slot_do_not_take_each_others_place() -> None:
    """A mark changes only under its slot's exclusive lock."""
    race = Scenario(
        "one slot",
        lambda w: [reader(w), writer(w, {b"e": None}, TWO), reader(w)],
        prelude=logged,
        one_slot=True,
    )

    lost_by(
        "mark without lock",
        race,
        *twice(
            (0, before("map")),
            (1, before("store", 64)),
            (1, before("lock", WRITER)),
            (2, END),
            (1, END),
            (0, END),
        ),
    )


@pytest.mark.parametrize("torn", [False, True])
def test_s2_a_writer_dies_between_the_copies_of_the_end(torn: bool) -> None:
    """The end stands twice; one copy is written, or half of one, and nobody comes to finish it."""
    race = Scenario(
        "torn end",
        lambda w: [writer(w, ROWS), reader(w), writer(w, MORE), reader(w)],
        prelude=logged,
        torn=torn,
        doubtful=True,
        crash_every=1,
    )
    stops = [(0, before("store", 64)), (0, before("store", 64))] if torn else []
    stops = stops or [(0, before("store", 128))]
    parts = (*stops, (1, END), (2, END), (3, END))

    lost_by("no mending", race, *twice(*parts, kill_at=len(stops) - 1))


# -- S3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("where", ["-wal", "notes.m2m"])
def test_s3_two_openers_race_to_recover(where: str, dies: bool) -> None:
    """The second waits for the first; where that one dies in it, it recovers itself."""
    race = Scenario(
        "two openers",
        lambda w: [visitor(w, ROWS), visitor(w, MORE)],
        state="crashed",
        doubtful=dies,
        crash_every=1,
    )
    stop = (0, before("write", path=where))

    follow(
        race,
        Script(stop, (1, END), (0, END), (1, END))
        if not dies
        else Script(stop, (1, END), kill_at=0),
    )


@pytest.mark.parametrize("path", ["-wal", "-shm"])
def test_s3_an_opener_comes_while_the_last_one_leaves(path: str) -> None:
    """It waits, and finds one file that is whole, not what is about to be removed."""
    race = Scenario("leaving", lambda w: [leaver(w, ROWS), visitor(w, MORE)], crash_every=1)

    follow(race, Script((0, before("unlink", path=path)), (1, END), (0, END), (1, END)))


@pytest.mark.parametrize("lock", [OPENING, ATTACH])
def test_s3_the_last_one_leaves_while_an_opener_comes(lock: int) -> None:
    race = Scenario("coming", lambda w: [leaver(w, ROWS), visitor(w, MORE)], crash_every=1)

    lost = (1, before("lock", lock))
    follow(race, Script((0, before("lock", ATTACH)), lost, (0, END), (1, END)))


def test_s3_two_openers_wait_for_the_last_one_to_leave() -> None:
    """O4: neither takes the other for somebody who is attached."""
    race = Scenario(
        "two behind a leaver",
        lambda w: [leaver(w, ROWS), visitor(w, MORE), visitor(w, None)],
    )

    follow(
        race,
        Script((0, before("unlink", path="-wal")), (1, END), (2, END), (0, END), (2, END)),
    )


def test_s3_two_leave_at_once() -> None:
    """One of them is the last, whichever lets go first."""
    race = Scenario("two leave", lambda w: [leaver(w, ROWS), leaver(w)], prelude=logged)

    follow(race, Script((0, before("close", path="notes.m2m")), (1, END), (0, END)))


# -- S8 --------------------------------------------------------------------------------------------


def test_s8_a_commit_that_died_before_publication_stays_dead() -> None:
    """The next writer erases it before it writes an extent on the same pages; then power is lost
    at every moment."""
    race = Scenario("dead frames", lambda w: [writer(w, TWO), reader(w)], prelude=died)

    def lose_power() -> None:
        witnesses: list[Witness] = []
        scenario = race._replace(make=noting(race, witnesses))
        scheduler = follow(scenario, Script((0, END), (1, END)))
        for point in range(len(scheduler.machine.timeline.log) + 1):
            witnesses[0].crash_at(point, 6)

    lose_power()
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS["no erasing"].plant(patch)
        with pytest.raises(AssertionError, match="extent"):
            lose_power()


# -- S9 --------------------------------------------------------------------------------------------


def test_s9_pages_freed_under_an_older_snapshot_are_left_alone() -> None:
    race = Scenario(
        "freed under a reader",
        lambda w: [writer(w, TWO), reader(w, 0, held=True)],
        prelude=freed,
        late=True,
    )

    lost_by("marks overlooked by writers", race, *twice((0, END), (1, END)))


def test_s9_a_snapshot_taken_while_pages_are_being_taken() -> None:
    """The writer has looked for marks; who comes now sees a commit that has freed the pages."""
    race = Scenario(
        "mark behind the look",
        lambda w: [writer(w, TWO), reader(w)],
        prelude=freed,
    )

    follow(race, Script((0, before("allocate")), (1, before("read")), (0, END), (1, END)))


def test_s9_pages_that_an_unsynced_commit_freed_are_left_alone() -> None:
    """After a power loss the older commit is the newest, and its extents are whole."""
    race = Scenario(
        "unsynced",
        lambda w: [writer(w, {b"e": None}, TWO, synchronous="normal")],
        prelude=logged,
    )

    def lose_power() -> None:
        witnesses: list[Witness] = []
        scenario = race._replace(make=noting(race, witnesses))
        scheduler = scenario.run(Script((0, END)))
        for point in range(len(scheduler.machine.timeline.log) + 1):
            witnesses[0].crash_at(point, 4)

    lose_power()
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS["unsynced overlooked"].plant(patch)
        with pytest.raises(AssertionError, match="extent"):
            lose_power()


def test_s9_no_extent_lies_on_pages_that_have_frames_in_the_log() -> None:
    """A checkpoint would copy the frame over the extent."""
    race = Scenario(
        "frames of freed pages",
        lambda w: [writer(w, TWO), checkpointer(w, "passive"), reader(w)],
        prelude=freed_frames,
    )

    lost_by("frames overlooked", race, *twice((0, END), (1, END), (2, END)))


# -- S13 -------------------------------------------------------------------------------------------


def test_s13_a_first_write_sees_what_the_writer_before_it_committed() -> None:
    """WRITER first, the snapshot after: no update is lost and nobody is refused as stale."""
    race = Scenario(
        "two first writes", lambda w: [writer(w, ROWS), writer(w, MORE)], prelude=logged
    )

    lost_by("snapshot before writer", race, *twice((0, before("lock", WRITER)), (1, END), (0, END)))


@pytest.mark.parametrize("stale", [False, True])
def test_s13_only_who_has_read_before_is_refused(stale: bool) -> None:
    outcome: list[str] = []

    def upgrader(witness: Witness) -> Body:
        def body(process: Process) -> None:
            store = open_store(process.vfs)
            process.ready()
            snapshot = store.begin_read()
            witness.look(snapshot)
            try:
                witness.finish(store.upgrade(snapshot), MORE)
                outcome.append("committed")
            except OperationalError as error:
                assert "stale" in str(error)
                outcome.append("stale")
            snapshot.close()
            process.park()
            store.close()

        return body

    race = Scenario("upgrade", lambda w: [upgrader(w), writer(w, ROWS)], prelude=logged)
    first = (0, before("lock", WRITER))
    follow(race, Script(first, (1, END), (0, END)) if stale else Script(first, (0, END), (1, END)))
    assert outcome == ["stale" if stale else "committed"]


# -- S19 -------------------------------------------------------------------------------------------


def test_s19_views_of_a_snapshot_stay_over_reuse_truncation_and_closes() -> None:
    """While a snapshot is open its extents' views show what they showed: the pages are freed, the
    log is cut, everybody else leaves; and the file is not left as if nobody had it."""
    found: list[bool] = []

    def holder(witness: Witness) -> Body:
        def body(process: Process) -> None:
            store = open_store(process.vfs)
            process.ready()
            snapshot = store.begin_read()
            extents: dict[bytes, Extent] = {}
            rows = rows_of(snapshot, extents)
            views = {key: extent.view(0, extent.size) for key, extent in extents.items()}
            assert views
            process.vfs.sleep(0)
            assert process.vfs.exists(PATH + "-shm"), "somebody took himself for the last one"
            for key, view in views.items():
                assert bytes(view) == rows[key]
            assert rows_of(snapshot) == rows
            snapshot.close()
            store.close()
            found.append(True)

        return body

    race = Scenario(
        "views",
        lambda w: [
            holder(w),
            leaver(w, {b"e": None}),
            leaver(w, TWO),
            visitor(w, {b"e": filled(6, EXTENT)}),
        ],
        prelude=logged,
    )
    follow(race, Script((0, END), (1, END), (2, END), (3, END), (0, END)))
    assert found
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS["marks overlooked by writers"].plant(patch)
        with pytest.raises(AssertionError, match="replay"):
            race.run(Script((0, END), (1, END), (2, END), (3, END), (0, END)))
