"""Random tables and values: what the statements of the differential test work on.

A table is declared twice, as a STRICT table for SQLite and as a collection. The flavour of a column
says which values it holds, and so what an expression may do with them:

    small    integers of few digits; their sums never overflow
    wild     integers up to the ends of 64 bits
    real     reals of few binary digits: sums are exact in any order
    far      reals of any size, infinities and both zeros
    text     short texts: letters of both cases, numerals, patterns, blanks, letters beyond ASCII
    json     JSON documents
    date     what the date functions take, and some of what they do not
    raw      texts with NUL characters; SQLite's functions end at them, so they are only compared
    blob     bytes
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

TYPES = {
    "small": "INTEGER", "wild": "INTEGER", "real": "REAL", "far": "REAL", "text": "TEXT",
    "json": "TEXT", "date": "TEXT", "raw": "TEXT", "blob": "BLOB",
}  # fmt: skip
FLAVOURS = ("small", "small", "wild", "real", "real", "far", "text", "text", "text", "json", "date",
            "raw", "blob")  # fmt: skip
COLLATED = ("text", "json", "date")  # NOCASE of SQLite ends at NUL characters
INT_ENDS = (2**63 - 1, -(2**63), 2**63 - 2, -(2**63) + 1, 2**62, 2**53, 2**53 + 1, -(2**53) - 1,
            2**31, -(2**31), 2**32)  # fmt: skip
FAR = (0.0, 1e308, -1e308, 1e-300, 5e-324, float("inf"), float("-inf"), 1e15, 1e16, -1e18,
       9007199254740993.0, 9223372036854775807.0, 0.5, 1.25, 2.5, -0.5)  # fmt: skip
TEXTS = ("", "a", "A", "b", "abc", "Abc", "ABC", "ab ", "ab", " a", "12", " 12", "12 ", "-3", "1.5",
         "1e3", "12abc", "0", "0x10", ".5", "5.", "+7", "%", "_", "a%b", "a_b", "*", "[a-c]", "é",
         "É", "straße", "日本", "\U0001f600", "x'y", '"q"', "\\", "a\nb", "9223372036854775808",
         "-0", "1e400", "inf", "nan", "true")  # fmt: skip
RAW = ("a\0b", "a", "a\0", "\0", "", "a\0c", "b", "A\0B")
JSONS = ("{}", "[]", "null", "1", '"x"', "[1,2,3]", '{"a":1}', '{"a":{"b":[1,2,{"c":"d"}]}}',
         '[1.5,"two",null,true,false]', '{"a b":2,"é":"ü"}', '[[1,[2]],{"x":[]}]', "2.5", "true",
         ' { "a" : [ 1 , 2 ] } ', '{"a":"1","b":2.5,"c":null}', '"12"', "-7",
         '{"a.b":3,"a":{"b":4}}')  # fmt: skip
DATES = ("2024-02-29", "2023-12-31 23:59:59", "2000-01-01T12:30", "1969-12-31 23:59:59.5", "12:34",
         "12:34:56.789", "2460000.5", "0000-01-01", "9999-12-31", "2024-03-31 10:00+02:30", "now?",
         "2024-13-01", "2024-01-31 00:00:00Z", "0", "")  # fmt: skip
BLOBS = (b"", b"a", b"abc", b"12", b"\x01", b"\xc3\xa9", b"A")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its flavour, and what else it is declared with."""

    name: str
    flavour: str
    rest: str = ""
    is_collated: bool = False

    @property
    def declaration(self) -> str:
        """As CREATE writes it, for both."""
        return f"{self.name} {TYPES[self.flavour]}{self.rest}"


@dataclass(slots=True)
class Table:
    """A table with an INTEGER PRIMARY KEY in front."""

    name: str
    columns: list[Column] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)  # behind the columns

    def create(self, *, twin: bool) -> str:
        """CREATE for SQLite (rowids never used again, as here) or for m2mdb."""
        key = "id INTEGER PRIMARY KEY" + (" AUTOINCREMENT" if twin else "")
        declared = [column.declaration for column in self.columns]
        inside = ", ".join([key, *declared, *self.constraints])
        return f"CREATE TABLE {self.name} ({inside})" + (" STRICT" if twin else "")

    def of(self, *flavours: str) -> list[Column]:
        """The columns of some flavours."""
        return [column for column in self.columns if column.flavour in flavours]


def make_table(choose: random.Random, name: str) -> Table:
    """A random table."""
    table = Table(name)
    letters = "abcdefgh"
    has_collations = choose.random() < 0.4
    for index in range(choose.randint(3, 7)):
        flavour = FLAVOURS[index] if index < 2 else choose.choice(FLAVOURS)
        if index == 2:
            flavour = "text"
        rest = ""
        chance = choose.random() if flavour != "raw" else 1.0  # NUL characters have no literal
        if chance < 0.08:
            rest = f" DEFAULT {literal(choose, value(choose, flavour, nulls=False))}"
        elif chance < 0.14:
            rest = " NOT NULL" + f" DEFAULT {literal(choose, value(choose, flavour, nulls=False))}"
        elif chance < 0.2 and flavour in ("small", "text", "real"):
            rest = " UNIQUE"
        is_collated = has_collations and flavour in COLLATED and choose.random() < 0.7
        if is_collated:
            rest += choose.choice((" COLLATE NOCASE", " COLLATE NOCASE", " COLLATE RTRIM"))
        table.columns.append(Column(letters[index], flavour, rest, is_collated))
    table.constraints = _constraints(choose, table)
    return table


def _constraints(choose: random.Random, table: Table) -> list[str]:
    """Keys over several columns, and conditions that most rows pass."""
    found = []
    plain = table.of("small", "text", "real")
    if len(plain) > 1 and choose.random() < 0.3:
        pair = choose.sample(plain, 2)
        found.append(f"UNIQUE ({', '.join(column.name for column in pair)})")
    for column in plain:
        if choose.random() < 0.15:
            name = column.name
            condition = choose.choice(_CONDITIONS[column.flavour]).format(name)
            called = f"CONSTRAINT some_{name} " if choose.random() < 0.5 else ""
            found.append(f"{called}CHECK ({condition})")
    return found


_CONDITIONS = {
    "small": ("{0} < 39", "{0} <> 7 OR id < 50", "{0} IS NULL OR {0} % 11", "{0} NOT IN (3, 4)"),
    "real": ("{0} BETWEEN -190 AND 190", "{0} + id > -150", "NOT ({0} = 0.5)", "round({0}) <> 9"),
    "text": ("length({0}) < 12", "{0} <> 'aBc' OR id % 3", "{0} NOT IN ('b', 'AB')",
             "{0} <> 'abc' COLLATE NOCASE OR id % 2", "{0} NOT LIKE '_12%'",
             "{0} GLOB '*' OR {0} IS NULL"),
}  # fmt: skip


def value(choose: random.Random, flavour: str, *, nulls: bool = True) -> object:
    """A value of a flavour, or NULL."""
    if nulls and choose.random() < 0.15:
        return None
    if flavour == "small":
        return choose.randint(-9, 40)
    if flavour == "wild":
        return choose.choice(INT_ENDS) if choose.random() < 0.6 else choose.randint(-(10**6), 10**6)
    if flavour == "real":
        return choose.randint(-200, 200) / choose.choice((1, 2, 4, 8))
    if flavour == "far":
        return choose.choice(FAR)
    return choose.choice(_LISTS[flavour])


_LISTS: dict[str, tuple[str, ...] | tuple[bytes, ...]] = {
    "text": TEXTS, "json": JSONS, "date": DATES, "raw": RAW, "blob": BLOBS,
}  # fmt: skip


def literal(choose: random.Random, given: object) -> str:
    """A value as SQL; NUL characters have no literal and are put together with char(0)."""
    if given is None:
        return "NULL"
    if isinstance(given, str):
        if "\0" in given:
            parts = ["'" + part.replace("'", "''") + "'" for part in given.split("\0")]
            return "(" + " || char(0) || ".join(parts) + ")"
        return "'" + given.replace("'", "''") + "'"
    if isinstance(given, bytes):
        return f"x'{given.hex()}'"
    if isinstance(given, float):
        if given in (float("inf"), float("-inf")):
            return "9e999" if given > 0 else "-9e999"
        return repr(given)
    return str(given)
