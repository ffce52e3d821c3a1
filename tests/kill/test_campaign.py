"""A short round of the kill campaign, and faults that it must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

import m2mdb
from m2mdb.compute.hrm2 import calibration
from m2mdb.index import hrm2
from tests.kill import books, notes, roles
from tests.kill.campaign import campaign
from tests.kill.processes import Board, Worker


def test_processes_killed_at_any_moment_lose_nothing_acknowledged() -> None:
    """S3, S4, S8, S10: five seconds of the campaign."""
    counts = campaign(5.0, 1)

    assert counts["kills"] >= 5
    assert counts["acknowledged_commits"] >= 5


def lose_an_acknowledged_commit(con: m2mdb.Connection, place: roles.Workplace) -> None:
    place.board.acknowledge(0, 8)


def write_beside_the_model(con: m2mdb.Connection, place: roles.Workplace) -> None:
    key = con.execute("SELECT id FROM notes LIMIT 1").fetchone()[0]
    con.execute("UPDATE notes SET body = 'changed' WHERE id = ?", (key,))
    con.commit()


def commit_half_of_a_transaction(con: m2mdb.Connection, place: roles.Workplace) -> None:
    con.execute("UPDATE progress SET done = done + 1 WHERE owner = 0")
    con.commit()


def bring_a_row_back(con: m2mdb.Connection, place: roles.Workplace) -> None:
    con.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?, ?)", notes.row(0, 10_000, 3))
    con.commit()


def leave_a_file_behind(con: m2mdb.Connection, place: roles.Workplace) -> None:
    Path(f"{place.path}-more").write_bytes(b"")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lose_an_acknowledged_commit, "8 operations acknowledged, 6 found"),
        (write_beside_the_model, "different"),
        (commit_half_of_a_transaction, "owner 0 after 7 operations"),
        (bring_a_row_back, "owner 0 at operation 6"),
        (leave_a_file_behind, "after the last close"),
    ],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, plant: Callable[[m2mdb.Connection, roles.Workplace], None], said: str
) -> None:
    board = Board(tmp_path, 1, slots=1)
    place = roles.Workplace(tmp_path / "notes.m2m", board, 5, "off")

    def work() -> None:
        con = place.connect(0)
        notes.create(con, 1)
        state = notes.State(5, 0)
        for _ in range(6):
            con.execute("BEGIN")
            state.step(con)
            con.commit()
            board.acknowledge(0, state.done)
        plant(con, place)
        con.close()

    Worker(board, 0, work, "planter").await_end()
    with pytest.raises(AssertionError, match=said):
        Worker(board, 0, lambda: roles.verify(place, 0, Random(1)), "verifier").await_end()
    board.close()


@pytest.fixture
def small_lists() -> Iterator[None]:
    """Lists as `books.make_small` has them, and then as they were."""
    kept = {
        (module, name): value
        for module in (hrm2, calibration)
        for name, value in vars(module).items()
        if name.isupper()
    }
    books.make_small()
    yield
    for (module, name), value in kept.items():
        setattr(module, name, value)


def test_a_book_is_what_its_model_says(tmp_path: Path, small_lists: None) -> None:
    path, book, rng = tmp_path / "a.m2m", books.Book(0), Random(3)
    with m2mdb.connect(path, compute="numpy") as con:
        book.begin(con)
    for number in range(40):
        con.execute("BEGIN")
        undone = book.copy()
        undone.step(con, Random(number))
        con.rollback()
        con.execute("BEGIN")
        book.step(con, rng)
        con.commit()
        if number % 8 == 7:
            book.check(con)
            con.close()
            con = m2mdb.connect(path, compute="numpy")
    book.check(con)
    notes.check_integrity(con)

    con.execute("UPDATE book0 SET body = 'another' WHERE id = (SELECT max(id) FROM book0)")
    with pytest.raises(AssertionError, match="another"):
        book.check(con)
    con.close()
