"""connect(…, clock=…): what time it is for statements and for half-life decay."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m2mdb
from m2mdb import aio

DAY = 86_400.0
START = 1_790_000_000.0  # 2026-09-21T14:13:20Z
TEXTS = ["red apple", "red pear pear", "green apple", "red fig apple", "a plain fig"]
FUSIONS = [None, "rrf", "weighted", "adaptive", "vector_only", "bm25_only"]


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds


def filled(clock: Any) -> m2mdb.Collection:
    con = m2mdb.connect(":memory:", autocommit=True, clock=clock)
    notes = con.create_collection(
        "notes",
        "id INTEGER PRIMARY KEY, body TEXT FULLTEXT, created TIMESTAMP, e VECTOR(64) FROM body "
        "ENCODER 'hashing'",
    )
    moments = [
        datetime.datetime.fromtimestamp(START - age * DAY, datetime.UTC)
        for age in range(len(TEXTS))
    ]
    notes.add({"id": list(range(len(TEXTS))), "body": TEXTS, "created": moments})
    return notes


def scores_of(hits: m2mdb.Hits) -> dict[int, float]:
    return dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))


def test_statements_have_the_time_of_the_clock() -> None:
    clock = Clock()
    con = m2mdb.connect(":memory:", autocommit=True, clock=clock)

    said = "SELECT CURRENT_TIMESTAMP, datetime('now'), strftime('%s', 'now')"
    assert con.execute(said).fetchone() == (
        "2026-09-21 14:13:20", "2026-09-21 14:13:20", "1790000000",
    )  # fmt: skip
    clock.seconds += DAY
    con.execute("CREATE COLLECTION t (w TEXT)")
    con.execute("INSERT INTO t VALUES (date('now'))")
    con.executemany("INSERT INTO t VALUES (date('now', ?))", [("+1 day",), ("+2 days",)])
    assert con.execute("SELECT w FROM t ORDER BY w").fetchall() == [
        ("2026-09-22",), ("2026-09-23",), ("2026-09-24",),
    ]  # fmt: skip


def test_a_clock_may_give_datetimes() -> None:
    moment = datetime.datetime(2020, 2, 29, 12, 0, 0)
    clock = iter([moment, moment.replace(tzinfo=datetime.UTC)])
    con = m2mdb.connect(":memory:", clock=lambda: next(clock))
    for _ in range(2):
        assert con.execute("SELECT CURRENT_TIMESTAMP").fetchone() == ("2020-02-29 12:00:00",)
    con = m2mdb.connect(":memory:", clock=lambda: np.float64(0))
    assert con.execute("SELECT CURRENT_TIMESTAMP").fetchone() == ("1970-01-01 00:00:00",)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("half_life", [0.5, 30.0])
def test_scores_halve_with_each_half_life(fusion: str | None, half_life: float) -> None:
    clock = Clock()
    notes = filled(clock)
    search: dict[str, Any] = {"fusion": fusion, "k": 5, "returning": []}
    plain = scores_of(notes.search("red apple", **search))

    for later in (0.0, 0.25, 3.0):
        clock.seconds = START + later * DAY
        found = scores_of(notes.search("red apple", decay={"created": half_life}, **search))
        assert found.keys() == plain.keys()
        for key, score in found.items():
            halved = 2.0 ** ((key + later) / half_life)
            expected = plain[key] / halved if plain[key] > 0 else plain[key] * halved
            assert score == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("fusion", "is_aged"), list(itertools.product(FUSIONS, [False, True])))
def test_a_least_score_drops_what_is_below_it_and_nothing_else(
    fusion: str | None, is_aged: bool
) -> None:
    notes = filled(Clock())
    search: dict[str, Any] = {"fusion": fusion, "k": 5, "returning": []}
    if is_aged:
        search["decay"] = {"created": 2.0}
    every = scores_of(notes.search("red apple", **search))
    assert len(every) >= 3

    for least in [*every.values(), 0.0, 1e9]:
        kept = scores_of(notes.search("red apple", min_score=least, **search))
        assert kept == {key: score for key, score in every.items() if score >= least}


def test_a_row_that_a_moment_hides_comes_back_when_the_clock_goes_back() -> None:
    clock = Clock()
    notes = filled(clock)
    search: dict[str, Any] = {"fusion": "bm25_only", "decay": {"created": 1}, "returning": []}
    best = notes.search("pear", **search).scores[0]

    clock.seconds += 10 * DAY
    assert len(notes.search("pear", min_score=best, **search)) == 0
    clock.seconds -= 10 * DAY
    assert notes.search("pear", min_score=best, **search).ids.tolist() == [1]


@pytest.mark.parametrize(
    ("clock", "error", "words"),
    [
        (lambda: "noon", m2mdb.DataError, "the clock gave 'noon'"),
        (lambda: None, m2mdb.DataError, "the clock gave None"),
        (lambda: float("nan"), m2mdb.DataError, "the clock gave nan"),
        (lambda: 1e18, m2mdb.DataError, "years 1 to 9999"),
        (lambda: 1 / 0, m2mdb.OperationalError, "the clock failed: ZeroDivisionError"),
    ],
)
def test_a_clock_that_gives_no_time(clock: Any, error: type[Exception], words: str) -> None:
    con = m2mdb.connect(":memory:", clock=clock, autocommit=True)
    with pytest.raises(error, match=words):
        con.execute("SELECT CURRENT_TIMESTAMP")
    con.execute("CREATE COLLECTION t (w TEXT)")
    with pytest.raises(error, match=words):
        con.execute("INSERT INTO t VALUES (CURRENT_TIMESTAMP)")
    assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_what_is_no_clock(path: Path) -> None:
    with pytest.raises(m2mdb.InterfaceError, match="clock is float"):
        m2mdb.connect(path, clock=1.5)  # type: ignore[arg-type]
    assert not path.exists()


def test_the_awaitable_twin_has_it_too() -> None:
    async def said() -> Any:
        async with aio.connect(":memory:", clock=Clock()) as con:
            return await (await con.execute("SELECT CURRENT_TIMESTAMP")).fetchone()

    assert asyncio.run(said()) == ("2026-09-21 14:13:20",)


class NoNumber:
    """A number of the program that fails."""

    def __float__(self) -> float:
        raise RuntimeError("no number")


WEST = datetime.timezone(datetime.timedelta(hours=-12))
LAST = datetime.datetime.max


@pytest.mark.parametrize(
    ("given", "error", "shown"),
    [
        (LAST, None, "9999-12-31 23:59:59"),
        (datetime.datetime.min, None, "0001-01-01 00:00:00"),
        (LAST.replace(tzinfo=WEST), m2mdb.DataError, None),
        (datetime.datetime.min.replace(tzinfo=datetime.UTC), None, "0001-01-01 00:00:00"),
        (NoNumber(), m2mdb.OperationalError, None),
        (253_402_300_800.0, m2mdb.DataError, None),
        (10**400, m2mdb.OperationalError, None),
    ],
)
def test_what_a_clock_gives_at_the_ends_of_time(
    given: Any, error: type[Exception] | None, shown: str | None, tmp_path: Path
) -> None:
    with m2mdb.connect(tmp_path / "x.m2m", autocommit=True, clock=lambda: given) as con:
        con.execute("PRAGMA keep_commits = 9")
        con.execute("CREATE TABLE t (a INTEGER)")
        con.execute("INSERT INTO t VALUES (1)")  # no clock loses a commit
        ((time,),) = con.execute("SELECT time FROM m2m_history").fetchall()
        assert (time is None) == (error is not None)
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if error is None:
            assert con.execute("SELECT CURRENT_TIMESTAMP").fetchone() == (shown,)
        else:
            with pytest.raises(error, match="clock"):
                con.execute("SELECT CURRENT_TIMESTAMP")


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_clock_may_read_its_own_connection_while_that_commits(
    tmp_path: Path, autocommit: bool, explicit: bool
) -> None:
    seen: list[Any] = []

    def clock() -> float:
        seen.append(con.execute("SELECT count(*) FROM t").fetchall())
        return 1e9

    con = m2mdb.connect(tmp_path / "x.m2m", autocommit=True)
    con.execute("CREATE TABLE t (a INTEGER)")
    con.execute("PRAGMA author = 'me'")
    con.close()
    con = m2mdb.connect(tmp_path / "x.m2m", autocommit=autocommit, clock=clock)
    con.execute("PRAGMA author = 'me'")
    for number in range(1, 4):
        if explicit:
            con.execute("BEGIN")
        con.execute("INSERT INTO t VALUES (?)", (number,))
        if explicit or not autocommit:
            con.commit()
        assert seen == [[(number,)]], "asked once, and it sees what is committed then"
        seen.clear()
    rows = con.execute("SELECT author, time FROM m2m_history ORDER BY 1").fetchall()
    assert [author for author, _ in rows] == ["me"]  # AS OF reaches the newest alone
    assert {time.timestamp() for _, time in rows} == {1e9}
    con.close()
    with m2mdb.connect(tmp_path / "x.m2m") as again:
        assert again.execute("SELECT count(*) FROM t").fetchall() == [(3,)]
        assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again.close()
