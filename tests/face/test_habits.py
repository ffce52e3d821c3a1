"""sqlite3's habits: the same calls on both modules give the same, or a difference that is listed.

Each case of HABITS is a function of (module, connection); what it returns is compared. A case that
raises is compared by the PEP 249 class of its error.
"""

from __future__ import annotations

import datetime
import decimal
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import m2mdb

Case = Callable[[Any, Any], Any]
HABITS: dict[str, Case] = {}
PEP_249 = (
    "IntegrityError", "DataError", "NotSupportedError", "ProgrammingError", "InternalError",
    "OperationalError", "DatabaseError", "InterfaceError", "Error",
)  # fmt: skip


def habit(case: Case) -> Case:
    HABITS[case.__name__] = case
    return case


def connection(module: ModuleType) -> Any:
    con = module.connect(":memory:")
    con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, x REAL)")
    con.executemany(
        "INSERT INTO t VALUES (?, ?, ?)",
        [(1, "one", 1.5), (2, "Two", None), (3, None, 3.0), (4, "two", -1.0)],
    )
    con.commit()
    return con


def outcome(module: ModuleType, case: Case) -> Any:
    """What a case gives, or the class of its error."""
    con = connection(module)
    try:
        return case(module, con)
    except module.Error as error:
        return next(name for name in PEP_249 if isinstance(error, getattr(module, name)))
    finally:
        con.close()


# Functions


@habit
def function_of_one_argument(module: Any, con: Any) -> Any:
    con.create_function("twice", 1, lambda x: None if x is None else x * 2)
    return con.execute("SELECT twice(id), twice(name), twice(x) FROM t ORDER BY id").fetchall()


@habit
def function_in_where_and_order(module: Any, con: Any) -> Any:
    con.create_function("last", 1, lambda s: s and s[-1], deterministic=True)
    return con.execute("SELECT id FROM t WHERE last(name) = 'o' ORDER BY last(name), id").fetchall()


@habit
def function_of_any_number(module: Any, con: Any) -> Any:
    con.create_function("count_of", -1, lambda *values: len(values))
    return con.execute("SELECT count_of(), count_of(1), count_of(1, 2, 3)").fetchall()


@habit
def function_by_number_goes_before_any_number(module: Any, con: Any) -> Any:
    con.create_function("f", -1, lambda *values: "any")
    con.create_function("f", 1, lambda value: "one")
    return con.execute("SELECT f(1), f(1, 2)").fetchall()


@habit
def function_hides_a_built_in_one(module: Any, con: Any) -> Any:
    con.create_function("upper", 1, lambda text: "mine")
    return con.execute("SELECT upper('a'), lower('A')").fetchall()


@habit
def function_names_have_no_case(module: Any, con: Any) -> Any:
    con.create_function("MixedCase", 0, lambda: 7)
    return con.execute("SELECT mixedcase(), MIXEDCASE()").fetchall()


@habit
def function_results_of_each_type(module: Any, con: Any) -> Any:
    values = iter([None, 1, 2.5, "text", b"blob", True, float("nan"), bytearray(b"x")])
    con.create_function("each", 1, lambda _: next(values))
    statement = "SELECT " + ", ".join(f"each({n})" for n in range(8))
    return con.execute(statement).fetchall()


@habit
def function_with_a_wrong_number_of_arguments(module: Any, con: Any) -> Any:
    con.create_function("f", 2, lambda a, b: 0)
    return con.execute("SELECT f(1)").fetchall() if module is m2mdb else "ProgrammingError"


@habit
def function_that_raises(module: Any, con: Any) -> Any:
    con.create_function("bad", 0, lambda: 1 // 0)
    return con.execute("SELECT bad()").fetchall()


@habit
def function_that_gives_no_value(module: Any, con: Any) -> Any:
    con.create_function("odd", 0, object)
    return con.execute("SELECT odd()").fetchall()


@habit
def function_removed_again(module: Any, con: Any) -> Any:
    con.create_function("upper", 1, lambda text: "mine")
    con.create_function("upper", 1, None)
    return con.execute("SELECT count(*) FROM t").fetchall()


@habit
def function_in_insert_and_update(module: Any, con: Any) -> Any:
    con.create_function("plus", 2, lambda a, b: a + b)
    con.execute("INSERT INTO t (id, x) VALUES (plus(4, 6), plus(0.5, 0.25))")
    con.execute("UPDATE t SET x = plus(id, 1) WHERE plus(id, 0) < 3")
    return con.execute("SELECT id, x FROM t ORDER BY id").fetchall()


class Joined:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def step(self, *values: Any) -> None:
        self.parts.append("/".join(map(str, values)))

    def finalize(self) -> str:
        return ";".join(self.parts)


@habit
def aggregate_over_all_rows(module: Any, con: Any) -> Any:
    con.create_aggregate("joined", 1, Joined)
    return con.execute("SELECT joined(name) FROM (SELECT name FROM t ORDER BY id)").fetchall()


@habit
def aggregate_of_two_arguments_in_groups(module: Any, con: Any) -> Any:
    con.create_aggregate("joined", 2, Joined)
    return con.execute(
        "SELECT lower(name), joined(id, x) FROM t GROUP BY lower(name) HAVING count(*) > 0"
    ).fetchall()


@habit
def aggregate_over_no_rows(module: Any, con: Any) -> Any:
    con.create_aggregate("joined", 1, Joined)
    return con.execute("SELECT joined(name) FROM t WHERE id > 99").fetchall()


@habit
def aggregate_that_raises(module: Any, con: Any) -> Any:
    class Bad(Joined):
        def step(self, *values: Any) -> None:
            raise ValueError("no")

    con.create_aggregate("bad", 1, Bad)
    return con.execute("SELECT bad(name) FROM t").fetchall()


@habit
def collation_in_order_by(module: Any, con: Any) -> Any:
    con.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    return con.execute("SELECT name FROM t ORDER BY name COLLATE backwards").fetchall()


@habit
def collation_in_a_comparison(module: Any, con: Any) -> Any:
    con.create_collation("of_length", lambda a, b: len(a) - len(b))
    return con.execute("SELECT id FROM t WHERE name = 'xyz' COLLATE of_length").fetchall()


@habit
def unknown_collation(module: Any, con: Any) -> Any:
    if module is sqlite3:
        return "ProgrammingError"  # listed: OperationalError there
    return con.execute("SELECT name FROM t ORDER BY name COLLATE nothing").fetchall()


# Callbacks


ASKED = [
    "SELECT name FROM t WHERE id = 1",
    "SELECT count(*) FROM t",
    "SELECT * FROM t",
    "SELECT abs(x) FROM t ORDER BY name",
    "SELECT q.name FROM t AS q",
    "INSERT INTO t VALUES (9, 'nine', 9.0)",
    "INSERT INTO t SELECT id + 100, name, x FROM t",
    "INSERT INTO t (id) VALUES (10) RETURNING name",
    "UPDATE t SET name = x WHERE id = 2",
    "DELETE FROM t WHERE x > 100",
    "SELECT (SELECT max(id) FROM t) FROM t AS u",
    "SAVEPOINT s",
    "RELEASE s",
    "PRAGMA user_version",
    "PRAGMA user_version = 4",
    "EXPLAIN SELECT name FROM t",
]


@habit
def authorizer_is_asked(module: Any, con: Any) -> Any:
    con.isolation_level = None
    found = []
    for statement in ASKED:
        asked: set[Any] = set()
        con.set_authorizer(lambda *call, asked=asked: asked.add(call[:3]) or 0)
        list(con.execute(statement))
        if module is sqlite3:
            asked.discard((sqlite3.SQLITE_TRANSACTION, "BEGIN", None))
        found.append((statement, sorted(asked, key=str)))
    return found


@habit
def authorizer_denies_a_column(module: Any, con: Any) -> Any:
    def deny(action: int, one: Any, other: Any, *rest: Any) -> int:
        denies = action == module.SQLITE_READ and other == "name"
        return int(module.SQLITE_DENY) if denies else int(module.SQLITE_OK)

    con.set_authorizer(deny)
    found = [con.execute("SELECT id FROM t").fetchall()]
    for statement in ("SELECT name FROM t", "SELECT * FROM t", "SELECT id FROM t ORDER BY name",
                      "SELECT id FROM t WHERE name = 'one'"):  # fmt: skip
        try:
            con.execute(statement)
        except module.DatabaseError:
            found.append("denied")
    con.set_authorizer(None)
    found.append(con.execute("SELECT name FROM t WHERE id = 1").fetchall())
    return found


@habit
def authorizer_ignores_a_column(module: Any, con: Any) -> Any:
    def ignore(action: int, one: Any, other: Any, *rest: Any) -> int:
        ignores = action == module.SQLITE_READ and other == "name"
        return int(module.SQLITE_IGNORE) if ignores else int(module.SQLITE_OK)

    con.set_authorizer(ignore)
    found = con.execute("SELECT *, name AS n, id FROM t WHERE id < 3 ORDER BY id")
    return [column[0] for column in found.description], found.fetchall()


@habit
def authorizer_denies_writes(module: Any, con: Any) -> Any:
    denied = (module.SQLITE_INSERT, module.SQLITE_UPDATE, module.SQLITE_DELETE)
    con.set_authorizer(lambda action, *rest: 1 if action in denied else 0)
    found = []
    for statement in ("INSERT INTO t (id) VALUES (7)", "UPDATE t SET x = 0", "DELETE FROM t"):
        try:
            con.execute(statement)
        except module.DatabaseError:
            found.append("denied")
    return found, con.execute("SELECT count(*) FROM t").fetchall()


@habit
def authorizer_that_raises_denies(module: Any, con: Any) -> Any:
    con.set_authorizer(lambda *call: 1 // 0)
    try:
        con.execute("SELECT 1")
    except module.DatabaseError:
        return "denied"
    return "allowed"


@habit
def trace_shows_values(module: Any, con: Any) -> Any:
    found: list[str] = []
    con.set_trace_callback(found.append)
    con.execute("SELECT ?, ?, ?, ?", (1, "it's", None, b"\x01"))
    con.execute("SELECT :a + :b", {"a": 1, "b": 2.5})
    con.set_trace_callback(None)
    con.execute("SELECT 3")
    return found


@habit
def trace_of_a_transaction(module: Any, con: Any) -> Any:
    found: list[str] = []
    con.set_trace_callback(found.append)
    con.execute("INSERT INTO t (id) VALUES (8)")
    con.commit()
    con.executemany("DELETE FROM t WHERE id = ?", [(8,), (9,)])
    con.rollback()
    return [each for each in found if not each.startswith("BEGIN")]


@habit
def progress_handler_stops_a_statement(module: Any, con: Any) -> Any:
    con.executemany("INSERT INTO t (name) VALUES (?)", [("a",)] * 9000)
    con.set_progress_handler(lambda: 1, 10)
    try:
        con.execute("SELECT count(*) FROM t WHERE abs(id) > 5").fetchall()
    except module.OperationalError:
        con.set_progress_handler(None, 0)
        return con.execute("SELECT count(*) FROM t WHERE abs(id) > 5").fetchall()
    return "not stopped"


@habit
def progress_handler_is_called(module: Any, con: Any) -> Any:
    con.executemany("INSERT INTO t (name) VALUES (?)", [("a",)] * 9000)
    calls: list[int] = []
    con.set_progress_handler(lambda: calls.append(1), 100)
    con.execute("SELECT count(*) FROM t WHERE abs(id) > 5").fetchall()
    return len(calls) > 1


# Values


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


class Conforming(Point):
    def __conform__(self, protocol: type) -> str | None:
        is_known = protocol in (sqlite3.PrepareProtocol, m2mdb.PrepareProtocol)
        return f"{self.x};{self.y}" if is_known else None


@habit
def adapters_of_a_type(module: Any, con: Any) -> Any:
    module.register_adapter(Point, lambda point: f"{point.x},{point.y}")
    con.execute("INSERT INTO t (id, name) VALUES (20, ?)", (Point(3, 4),))
    con.executemany("INSERT INTO t (id, name) VALUES (?, ?)", [(21, Point(5, 6)), (22, "z")])
    return con.execute("SELECT name FROM t WHERE id >= 20").fetchall()


@habit
def conforming_types(module: Any, con: Any) -> Any:
    return con.execute("SELECT ?", (Conforming(1, 2),)).fetchall()


@habit
def unknown_types_are_refused(module: Any, con: Any) -> Any:
    try:
        con.execute("SELECT ?", (object(),))
    except module.Error:
        return "refused"
    return "taken"


@habit
def converters_by_column_name(module: Any, con: Any) -> Any:
    module.register_converter("halves", lambda raw: raw.decode().split("/"))
    own = module.connect(":memory:", detect_types=module.PARSE_COLNAMES)
    found = own.execute("SELECT 'a/b' AS \"x [halves]\", 'c/d' AS y, NULL AS \"z [halves]\"")
    result = [column[0] for column in found.description], found.fetchall()
    own.close()
    return result


@habit
def converters_by_declared_type(module: Any, con: Any) -> Any:
    module.register_converter("blob", list)
    own = module.connect(":memory:", detect_types=module.PARSE_DECLTYPES)
    own.execute("CREATE TABLE d (a BLOB, b TEXT)")
    own.execute("INSERT INTO d VALUES (?, ?)", (b"\x01\x02", "x"))
    result = own.execute("SELECT a, b, a FROM d").fetchall()
    own.close()
    module.register_converter("blob", bytes)
    return result


@habit
def text_factory_of_bytes(module: Any, con: Any) -> Any:
    con.text_factory = bytes
    found = [con.execute("SELECT name, id FROM t ORDER BY id").fetchall()]
    con.text_factory = lambda raw: raw.decode() + "!"
    return [*found, con.execute("SELECT name FROM t ORDER BY id").fetchall()]


# Rows


@habit
def row_by_name_and_place(module: Any, con: Any) -> Any:
    con.row_factory = module.Row
    row = con.execute("SELECT id, name AS Title, x FROM t WHERE id = 1").fetchone()
    return (
        row[0], row["id"], row["ID"], row["title"], row[-1], row[0:2], row[::-1], tuple(row),
        row.keys(), len(row), list(row), "one" in row, dict(row),
    )  # fmt: skip


@habit
def row_equality_and_hash(module: Any, con: Any) -> Any:
    con.row_factory = module.Row
    one, two = (
        con.execute("SELECT 1 AS a, 2 AS b").fetchone(),
        con.execute("SELECT 1 AS a, 2 AS b").fetchone(),
    )
    other, named = (
        con.execute("SELECT 1 AS a, 3 AS b").fetchone(),
        con.execute("SELECT 1 AS a, 2 AS c").fetchone(),
    )
    return (
        one == two, hash(one) == hash(two), one == other, one != other, one == named,
        one == (1, 2), len({one, two, other}),
    )  # fmt: skip


@habit
def row_without_the_column(module: Any, con: Any) -> Any:
    con.row_factory = module.Row
    row = con.execute("SELECT id FROM t").fetchone()
    found = []
    for key in ("nothing", 7, -9, 1.5):
        try:
            row[key]
        except (IndexError, TypeError) as error:
            found.append(type(error).__name__)
    return found


@habit
def row_factory_of_the_program(module: Any, con: Any) -> Any:
    con.row_factory = lambda cursor, row: {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
    cursor = con.execute("SELECT id, x FROM t ORDER BY id")
    return [cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall()]


@habit
def row_factory_of_a_cursor(module: Any, con: Any) -> Any:
    cursor = con.cursor()
    cursor.row_factory = lambda cursor, row: list(row)
    return [cursor.execute("SELECT 1, 2").fetchone(), con.execute("SELECT 1, 2").fetchone()]


# Cursors and connections


@habit
def lastrowid(module: Any, con: Any) -> Any:
    cursor = con.cursor()
    found = [cursor.lastrowid]
    for statement in ("INSERT INTO t (name) VALUES ('a')", "UPDATE t SET x = 1", "SELECT 1",
                      "INSERT INTO t (id) VALUES (50)", "DELETE FROM t WHERE id = 50"):  # fmt: skip
        cursor.execute(statement)
        found.append(cursor.lastrowid)
    return found


@habit
def rowcount(module: Any, con: Any) -> Any:
    cursor = con.cursor()
    found = [cursor.rowcount]
    for statement in ("INSERT INTO t (name) VALUES ('a'), ('b')", "UPDATE t SET x = 1",
                      "DELETE FROM t WHERE id > 4", "SELECT 1", "CREATE TABLE v (a)"):  # fmt: skip
        cursor.execute(statement)
        found.append(cursor.rowcount)
    cursor.executemany("INSERT INTO t (name) VALUES (?)", [("c",), ("d",)])
    return [*found, cursor.rowcount]


@habit
def total_changes(module: Any, con: Any) -> Any:
    start = con.total_changes
    con.execute("INSERT INTO t (name) VALUES ('a'), ('b')")
    con.execute("UPDATE t SET x = 1 WHERE id < 3")
    con.execute("DELETE FROM t WHERE id = 1")
    con.execute("SELECT * FROM t")
    return con.total_changes - start


@habit
def in_transaction(module: Any, con: Any) -> Any:
    found = [con.in_transaction]
    for statement in ("SELECT 1", "INSERT INTO t (name) VALUES ('a')", "COMMIT", "BEGIN"):
        con.execute(statement)
        found.append(con.in_transaction)
    con.rollback()
    return [*found, con.in_transaction]


@habit
def isolation_level_none_commits_each_statement(module: Any, con: Any) -> Any:
    con.isolation_level = None
    con.execute("INSERT INTO t (id) VALUES (60)")
    return con.isolation_level, con.in_transaction


@habit
def with_commits_and_rolls_back(module: Any, con: Any) -> Any:
    with con:
        con.execute("INSERT INTO t (id) VALUES (70)")
    try:
        with con:
            con.execute("INSERT INTO t (id) VALUES (71)")
            raise KeyError
    except KeyError:
        pass
    return con.execute("SELECT id FROM t WHERE id >= 70").fetchall(), con.in_transaction


@habit
def arraysize(module: Any, con: Any) -> Any:
    cursor = con.execute("SELECT id FROM t ORDER BY id")
    found = [cursor.arraysize, cursor.fetchmany()]
    cursor.arraysize = 2
    return [*found, cursor.fetchmany(), cursor.fetchmany(9), cursor.fetchmany(), cursor.fetchone()]


@habit
def executescript(module: Any, con: Any) -> Any:
    cursor = con.executescript(
        "CREATE TABLE s (a TEXT); -- a ; in a comment\nINSERT INTO s VALUES ('x;y'); ;"
    )
    return cursor.description, con.execute("SELECT a FROM s").fetchall()


@habit
def description(module: Any, con: Any) -> Any:
    cursor = con.cursor()
    found = [cursor.description]
    for statement in ("SELECT id, name AS n, 1 + 1, count(*) FROM t", "DELETE FROM t"):
        cursor.execute(statement)
        shown = cursor.description
        found.append(shown and [(column[0], len(column)) for column in shown])
    return found


@habit
def iterating_a_cursor(module: Any, con: Any) -> Any:
    cursor = con.execute("SELECT id FROM t ORDER BY id")
    return next(cursor), list(cursor), list(cursor)


@habit
def complete_statements(module: Any, con: Any) -> Any:
    texts = ["select 1;", "select 1", "select ';", "select ';';", "", ";", "a; -- b", "a; b"]
    return [bool(module.complete_statement(text)) for text in texts]


@habit
def names_and_numbers_of_parameters(module: Any, con: Any) -> Any:
    return [
        con.execute("SELECT :a, :b, :a", {"a": 1, "b": 2, "c": 3}).fetchone(),
        con.execute("SELECT ?2, ?1", (1, 2)).fetchone(),
        con.execute("SELECT ?", [np.int64(5).item()]).fetchone(),
    ]


@habit
def wrong_parameters(module: Any, con: Any) -> Any:
    found = []
    for parameters in ((), (1, 2), {"b": 1}):
        try:
            con.execute("SELECT :a" if isinstance(parameters, dict) else "SELECT ?", parameters)
        except module.ProgrammingError:
            found.append("refused")
    return found


@habit
def serialize_and_deserialize(module: Any, con: Any) -> Any:
    other = module.connect(":memory:")
    other.deserialize(con.serialize())
    found = other.execute("SELECT id, name FROM t ORDER BY id").fetchall()
    other.close()
    return found


@habit
def backup_to_a_connection(module: Any, con: Any) -> Any:
    other = module.connect(":memory:")
    con.backup(other)
    found = other.execute("SELECT id, name FROM t ORDER BY id").fetchall()
    other.close()
    return found


@habit
def iterdump_builds_an_equal_database(module: Any, con: Any) -> Any:
    other = module.connect(":memory:")
    other.executescript("\n".join(con.iterdump()))
    found = other.execute("SELECT id, name, x FROM t ORDER BY id").fetchall()
    other.close()
    return found


@habit
def closed_connections_refuse(module: Any, con: Any) -> Any:
    other = module.connect(":memory:")
    cursor = other.cursor()
    other.close()
    found = []
    for call in (other.commit, other.cursor, lambda: other.execute("SELECT 1"),
                 lambda: cursor.execute("SELECT 1")):  # fmt: skip
        try:
            call()
        except module.Error:
            found.append("refused")
    return found


@habit
def integers_beyond_64_bits(module: Any, con: Any) -> Any:
    try:
        con.execute("SELECT ?", (2**63,))
    except (OverflowError, module.DataError):
        return "refused"
    return "taken"


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Adapters and converters are the process's."""
    from m2mdb.adapters import ADAPTERS, CONVERTERS

    yield
    ADAPTERS.clear()
    CONVERTERS.clear()


@pytest.mark.parametrize("name", sorted(HABITS))
def test_both_do_the_same(name: str) -> None:
    found = outcome(m2mdb, HABITS[name])

    assert found == outcome(sqlite3, HABITS[name])
    assert found is not None


def test_python_s_own_types_have_adapters() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    con.execute("CREATE TABLE t (a TEXT, b TEXT, c TIMESTAMP, d TIMESTAMP, e JSON, f VECTOR(2))")
    own = uuid.UUID(int=7)
    moment = datetime.datetime(2026, 2, 3, 4, 5, 6, 7, datetime.UTC)
    row = (
        own, decimal.Decimal("1.10"), moment, datetime.date(2026, 2, 3),
        {"a": [1, {"b": own}]}, np.array([1.0, 2.0]),
    )  # fmt: skip
    con.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", row)
    con.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", [row])
    con.collection("t").add(
        {
            "a": [own],
            "b": [decimal.Decimal("1.10")],
            "c": [moment],
            "d": [row[3]],
            "e": [row[4]],
            "f": [row[5]],
        }
    )

    rows = con.execute("SELECT * FROM t").fetchall()

    assert len(rows) == 3
    for a, b, c, d, e, f in rows:
        assert (a, b, c) == (str(own), "1.10", moment)
        assert d == datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC)
        assert json.loads(e) == {"a": [1, {"b": str(own)}]}
        assert f.tolist() == [1.0, 2.0]
    numbers = (np.int32(4), np.float32(0.5), np.bool_(True), np.str_("s"), np.datetime64("2026"))
    found = con.execute("SELECT ?, ?, ?, ?, ?", numbers).fetchone()
    assert found[:4] == (4, 0.5, True, "s")
    assert found[4].year == 2026
    con.close()


def test_a_hook_cannot_use_its_own_connection() -> None:
    con = connection(m2mdb)
    con.create_function("inner", 0, lambda: con.execute("SELECT 1").fetchone()[0])

    with pytest.raises(m2mdb.OperationalError, match=r"its function inner\(\) is running"):
        con.execute("INSERT INTO t SELECT inner() + id, name, x FROM t")

    assert con.execute("SELECT count(*) FROM t").fetchone() == (4,)
    con.close()


def test_hooks_are_checked() -> None:
    con = connection(m2mdb)
    for call in (
        lambda: con.create_function(5, 1, len),
        lambda: con.create_function("f", "1", len),
        lambda: con.create_function("f", 1, 5),
        lambda: con.set_authorizer(5),
        lambda: con.set_trace_callback("x"),
        lambda: con.set_progress_handler(len, "x"),
        lambda: m2mdb.register_adapter(5, len),  # type: ignore[arg-type]
        lambda: m2mdb.register_converter("x", 5),  # type: ignore[arg-type]
        lambda: m2mdb.connect(":memory:", detect_types=9),
    ):
        with pytest.raises(m2mdb.InterfaceError):
            call()
    for name, count in (("", 1), ("f", 128), ("f", -2)):
        with pytest.raises(m2mdb.ProgrammingError):
            con.create_function(name, count, len)
    con.close()


def test_the_authorizer_keeps_statements_in_their_file(tmp_path: Any) -> None:
    con = connection(m2mdb)
    con.set_authorizer(lambda action, *rest: 1 if action == m2mdb.SQLITE_ATTACH else 0)

    with pytest.raises(m2mdb.OperationalError, match="not authorized: ATTACH"):
        con.execute("VACUUM INTO ?", (str(tmp_path / "copy.m2m"),))

    assert list(tmp_path.iterdir()) == []
    con.close()


def test_the_authorizer_is_asked_of_conditions_and_searches() -> None:
    con = m2mdb.connect(":memory:", compute="numpy")
    notes = con.create_collection(
        "notes", {"body": "TEXT FULLTEXT", "secret": "TEXT", "v": "VECTOR(2)"}
    )
    notes.add({"body": ["red", "blue"], "secret": ["x", "y"], "v": [[1.0, 0.0], [0.0, 1.0]]})

    def hide(action: int, one: Any, other: Any, *rest: Any) -> int:
        return m2mdb.SQLITE_IGNORE if other == "secret" else m2mdb.SQLITE_OK

    def deny(action: int, one: Any, other: Any, *rest: Any) -> int:
        return m2mdb.SQLITE_DENY if other in ("secret", "v") else m2mdb.SQLITE_OK

    con.set_authorizer(hide)
    found = con.execute("SEARCH notes NEAR [1, 0] K 1").fetchall()
    assert found == [("red", None, 1.0)]
    assert notes.search(match="red", where="secret = 'x'").ids.tolist() == []
    con.set_authorizer(deny)
    for statement in ("SEARCH notes NEAR [1, 0] RETURNING body", "SEARCH notes MATCH 'red'"):
        with pytest.raises(m2mdb.OperationalError, match="not authorized"):
            con.execute(statement)
    with pytest.raises(m2mdb.OperationalError, match=r"not authorized: READ notes\.secret"):
        notes.search(match="red", where="secret = 'x'")
    con.close()


class NoFinalize:
    def step(self, *values: Any) -> None: ...


class FailsAtOnce:
    def __init__(self) -> None:
        raise ValueError("no")


@pytest.mark.parametrize("made", [NoFinalize, FailsAtOnce, lambda: None])
def test_an_aggregate_that_is_none_is_an_operational_error(made: Callable[[], Any]) -> None:
    """They were AttributeError and ValueError."""
    con = m2mdb.connect(":memory:", autocommit=True)
    con.create_aggregate("agg", 1, made)

    with pytest.raises(m2mdb.OperationalError, match=r"user-defined aggregate's '\w+' method"):
        con.execute("SELECT agg(column1) FROM (VALUES (1), (2))").fetchall()

    assert con.execute("SELECT 1").fetchone() == (1,)
    con.close()
