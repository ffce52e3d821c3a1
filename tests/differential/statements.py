"""Random statements: SELECT in its forms, INSERT, UPDATE, DELETE, transactions, indexes.

Every SELECT either has an ORDER BY that leaves nothing open but rows that are equal, or is
compared as a multiset. What SQLite leaves open (bare columns of a group, the order inside
group_concat) is not asked for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.differential.expressions import Expressions, Field
from tests.differential.schemas import TYPES, Table, literal, value

FEATURES = {  # what may not be built yet, with a statement that shows it
    "joins": "SELECT x.id FROM t AS x JOIN t AS y ON x.id = y.id",
    "outer joins": "SELECT x.id FROM t AS x LEFT JOIN t AS y ON x.id = y.id",
    "compounds": "SELECT id FROM t UNION ALL SELECT id FROM t",
    "common tables": "WITH c AS (SELECT id FROM t) SELECT id FROM c",
    "values": "VALUES (1), (2)",
    "rows": "SELECT (id, id) = (1, 2), (id, id) IN (VALUES (1, 2)) FROM t",
    "table functions": "SELECT e.value FROM t, json_each('[1]') AS e",
    "outer aggregates": "SELECT (SELECT max(x.id) FROM t AS y) FROM t AS x",
    "correlation": "SELECT id FROM t AS x WHERE EXISTS (SELECT 1 FROM t AS y WHERE y.id = x.id)",
}


UPDATES = ("UPDATE OR IGNORE", "UPDATE OR REPLACE", "UPDATE OR FAIL", "UPDATE OR ROLLBACK",
           "UPDATE OR ABORT")  # fmt: skip


@dataclass(slots=True)
class Made:
    """A statement, and how its outcomes are compared.

    ordered   rows come in the order of ORDER BY; else they are a multiset
    loose     which of 1 and 1.0 stands for a group of equals is left open
    """

    sql: str
    wanted: list[str]
    is_query: bool = True
    ordered: bool = False
    loose: bool = False


def _stored(flavour: str, expression: str) -> str:
    """An expression for a column; a TEXT column keeps more digits of a real than SQLite's."""
    return f"CAST({expression} AS TEXT)" if TYPES[flavour] == "TEXT" else expression


class Statements:
    """Writes statements over some tables."""

    def __init__(
        self, choose: random.Random, tables: list[Table], features: frozenset[str]
    ) -> None:
        self.choose = choose
        self.tables = tables
        self.features = features
        self.write = Expressions(choose, features)
        self.write.subquery = self.subquery
        # which of equal texts stands for all of them is left open; so it is not asked
        self.is_collated = any(each.is_collated for table in tables for each in table.columns)
        self.gives_ids = choose.random() < 0.3  # the first rows take the ids that the table gives
        self._indexes = 0
        self._nested = False

    def fields_of(self, table: Table, alias: str | None = None) -> list[Field]:
        """The columns of a table as expressions write them."""
        dot = f"{alias}." if alias else ""
        return [
            Field(f"{dot}id", "small"),
            *(Field(dot + c.name, c.flavour) for c in table.columns),
        ]

    def _folded(self, expression: str) -> str:
        """An expression of which one of equal values is given, whichever that is."""
        if not self.is_collated:
            return expression
        return f"rtrim(lower(CAST({expression} AS TEXT)))"

    def _begin(self, table: Table) -> None:
        self.write.begin(self.fields_of(table))

    def _made(self, sql: str, **how: bool) -> Made:
        return Made(sql, list(self.write.wanted), **how)

    # Queries

    def query(self) -> Made:
        """A random query."""
        forms = [(self.plain, 8), (self.distinct, 2), (self.whole, 3), (self.grouped, 4),
                 (self.constant, 3), (self.derived, 2)]  # fmt: skip
        for feature, form, weight in (
            ("joins", self.joined, 5), ("compounds", self.compound, 3),
            ("common tables", self.with_tables, 2), ("values", self.values, 1),
            ("table functions", self.elements, 2), ("outer aggregates", self.of_the_outer, 1),
        ):  # fmt: skip
            if feature in self.features:
                forms.append((form, weight))
        makers, weights = zip(*forms, strict=True)
        made: Made = self.choose.choices(makers, weights)[0]()
        return made

    def where(self, chance: float = 0.7) -> str:
        """WHERE, or nothing."""
        if self.choose.random() > chance:
            return ""
        return f" WHERE {self.write.condition(self.choose.randint(0, 3))}"

    def outputs(self, least: int = 1, most: int = 4) -> list[str]:
        """A result list."""
        count = self.choose.randint(least, most)
        return [self.write.any(self.choose.randint(0, 3)) for _ in range(count)]

    def order(self, count: int, first: str = "") -> str:
        """ORDER BY over all outputs, in some order."""
        numbers = list(range(1, count + 1))
        self.choose.shuffle(numbers)
        keys = [f"{number}{self._collation()}{self._direction()}" for number in numbers]
        plain = [str(number) for number in numbers]
        return " ORDER BY " + ", ".join(([first] if first else []) + keys + plain)

    def _collation(self) -> str:
        return self.choose.choice(("", "", "", " COLLATE NOCASE", " COLLATE RTRIM"))

    def _direction(self) -> str:
        return self.choose.choice(("", " ASC", " DESC")) + self.choose.choice(
            ("", "", "", " NULLS FIRST", " NULLS LAST")
        )

    def limit(self) -> str:
        """LIMIT and OFFSET, or nothing."""
        choose = self.choose
        return choose.choice(
            ("", "", "", f" LIMIT {choose.randint(0, 9)}", " LIMIT -1 OFFSET 2", " LIMIT 2, 3",
             f" LIMIT {choose.randint(1, 5)} OFFSET {choose.randint(0, 9)}")
        )  # fmt: skip

    def plain(self) -> Made:
        """Rows of one table, in the order of keys that end with the id."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        outputs = self.outputs()
        if self.choose.random() < 0.2:
            outputs = ["*"]
        where = self.where()
        if self.choose.random() < 0.4:
            return self._made(f"SELECT {', '.join(outputs)} FROM {table.name}{where}")
        keys = [f"{self.write.any(1)}{self._collation()}{self._direction()}"
                for _ in range(self.choose.randint(0, 2))]  # fmt: skip
        keys = [
            key for key in keys if key.lstrip("( ")[0] not in "-+0123456789"
        ]  # a number is a column's
        order = ", ".join([*keys, "id" + self.choose.choice(("", " DESC"))])
        sql = f"SELECT {', '.join(outputs)} FROM {table.name}{where} ORDER BY {order}{self.limit()}"
        return self._made(sql, ordered=True)

    def distinct(self) -> Made:
        """DISTINCT."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        count = self.choose.randint(1, 2)
        outputs = [
            self.choose.choice(self.write.fields).name if self.choose.random() < 0.6
            else self.write.any(2) for _ in range(count)
        ]  # fmt: skip
        if self.choose.random() < 0.15:
            # which of 'a' and 'A' stands for both is left open: only how many there are is asked
            output = self.write.leaf("text", "small", "real")
            source = f"SELECT DISTINCT {output} COLLATE NOCASE AS x FROM {table.name}"
            return self._made(f"SELECT count(*), count(x) FROM ({source}{self.where(0.5)}) AS s")
        where = self.where(0.5)
        sql = f"SELECT DISTINCT {', '.join(outputs)} FROM {table.name}{where}"
        if self.is_collated:
            return self._made(f"SELECT count(*) FROM ({sql}) AS s")
        sql += " ORDER BY " + ", ".join(str(at + 1) + self._direction() for at in range(count))
        return self._made(sql + self.limit(), ordered=True, loose=True)

    def aggregate(self) -> str:
        """An aggregate of an expression whose result no order changes."""
        choose, write = self.choose, self.write
        small = write.leaf("small", "real")
        anything = write.any(2)
        distinct = choose.choice(("", "", "", "DISTINCT "))
        if self.is_collated and "DISTINCT" in distinct:
            return f"count(DISTINCT {anything})"
        name = choose.choice(("count", "min", "max", "sum", "total", "avg", "count(*)", "concat",
                              "json"))  # fmt: skip
        if name == "count(*)":
            return "count(*)"
        if name == "count" and choose.random() < 0.2:
            return f"count(DISTINCT {anything} COLLATE NOCASE)"
        if name in ("count", "min", "max"):
            whole = f"{name}({distinct}{anything})"
            return whole if name == "count" else self._folded(whole)
        if name == "json":
            if choose.random() < 0.5:
                item = f"CAST({write.leaf('text', 'small')} AS TEXT)"  # no infinity, which differs
                return f"length(json_group_array({distinct}{item}))"
            label = f"CAST({write.leaf('text', 'small')} AS TEXT)"
            return f"length(json_group_object(coalesce({label}, 'k'), {label}))"
        if name == "concat":
            # the order inside is left open: only its length is asked for
            return f"length(group_concat({distinct}{write.leaf('text', 'small')}))"
        return f"{name}({distinct}{small})"

    def whole(self) -> Made:
        """Aggregates of all rows."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        outputs = [self.aggregate() for _ in range(self.choose.randint(1, 4))]
        having = ""
        if self.choose.random() < 0.15:
            having = f" HAVING {self.aggregate()} {self.choose.choice(('>', '<', '='))} 3"
        return self._made(
            f"SELECT {', '.join(outputs)} FROM {table.name}{self.where()}{having}", loose=True
        )

    def grouped(self) -> Made:
        """GROUP BY, with HAVING and ORDER BY."""
        choose = self.choose
        table = choose.choice(self.tables)
        self._begin(table)
        keys = [choose.choice(self.write.fields).name if choose.random() < 0.6 else
                f"({self.write.any(2)})" for _ in range(choose.randint(1, 2))]  # fmt: skip
        keys = [key if key.lstrip("( ")[0] not in "-+0123456789" else "id" for key in keys]
        outputs = [self._folded(key) for key in keys]
        outputs += [self.aggregate() for _ in range(choose.randint(1, 3))]
        if choose.random() < 0.2:
            outputs.append(f"coalesce({self.aggregate()}, 0)")
        where = self.where(0.5)
        having = ""
        if choose.random() < 0.4:
            having = f" HAVING {self.aggregate()} {choose.choice(('>', '<', '=', 'IS NOT'))} 2"
        sql = f"SELECT {', '.join(outputs)} FROM {table.name}{where} GROUP BY {', '.join(keys)}"
        sql += having
        if choose.random() < 0.5 or self.is_collated:
            return self._made(sql, loose=True)
        order = ", ".join(str(at + 1) + self._direction() for at in range(len(keys)))
        first = f"{self.aggregate()}, " if choose.random() < 0.3 else ""
        return self._made(f"{sql} ORDER BY {first}{order}{self.limit()}", ordered=True, loose=True)

    def constant(self) -> Made:
        """A SELECT without FROM."""
        self.write.begin([])
        return self._made(f"SELECT {', '.join(self.outputs(1, 5))}", ordered=True)

    def derived(self) -> Made:
        """A query in FROM."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        inner = [self._own(self.write.any(2)) for _ in range(2)]
        where = self.where(0.4)
        self.write.fields = [Field("s.x", "text"), Field("y", "small"), Field("s.id", "small")]
        outputs = ", ".join(self.outputs(1, 3))
        source = f"SELECT id, {inner[0]} AS x, {inner[1]} AS y FROM {table.name}{where}"
        if "compounds" in self.features and self.choose.random() < 0.3:
            other = self.choose.choice(self.tables)
            # a column of several queries has no type of its own here, in SQLite the first one's
            inner = [f"(+ {each})" for each in inner]
            source = f"SELECT id, {inner[0]} AS x, {inner[1]} AS y FROM {table.name}{where}"
            named = [each.name for each in other.columns if each.flavour != "raw"]
            pair = [f"(+ {self.choose.choice(named)})" for _ in range(2)]
            symbol = self.choose.choice(("UNION ALL", "UNION ALL", "EXCEPT"))
            source += f" {symbol} SELECT id, {', '.join(pair)} FROM {other.name}"
        source = f"({source}) AS s"
        sql = f"SELECT {outputs} FROM {source}{self.where(0.5)}"
        return self._made(sql)

    def _own(self, expression: str) -> str:
        """A column of a query in FROM: SQLite lets COLLATE, and that a text is JSON, out of it."""
        is_let_out = "COLLATE" in expression.upper() or "json" in expression or "->" in expression
        return "id" if is_let_out else expression

    def subquery(self, form: str) -> str:
        """A query as a value; its columns are its own."""
        if self._nested:
            return "(SELECT NULL WHERE 0)" if form != "scalar" else "(SELECT 1)"
        self._nested = True
        outer, write, choose = self.write.fields, self.write, self.choose
        table = choose.choice(self.tables)
        write.fields = self.fields_of(table)
        source = table.name
        if "correlation" in self.features and choose.random() < 0.4:
            write.fields = self.fields_of(table, "q")
            source += " AS q"
            mine = choose.choice(write.fields)
            theirs = [each for each in outer if each.flavour == mine.flavour]
            where = f" WHERE {mine.name} = {choose.choice(theirs).name}" if theirs else ""
            where += f" AND {write.condition(1)}" if where and choose.random() < 0.4 else ""
        else:
            where = f" WHERE {write.condition(1)}" if choose.random() < 0.6 else ""
        if form == "scalar":
            column = choose.choice(write.fields).name
            wanted = self.aggregate() if choose.random() < 0.6 else column
            order = "" if wanted != column else f" ORDER BY {write.fields[0].name} LIMIT 1"
            sql = f"(SELECT {wanted} FROM {source}{where}{order})"
        else:
            sql = f"(SELECT {choose.choice(write.fields).name} FROM {source}{where})"
        write.fields, self._nested = outer, False
        return sql

    # Queries of several tables

    def joined(self) -> Made:
        """Joins of two or three tables."""
        choose, write = self.choose, self.write
        aliases = ["x", "y", "z"][: choose.choice((2, 2, 3))]
        write.begin([])
        source = ""
        for alias in aliases:
            table = choose.choice(self.tables)
            new = self.fields_of(table, alias)
            if not source:
                source, write.fields = f"{table.name} AS {alias}", new
                continue
            kinds = [" JOIN ", " INNER JOIN ", " CROSS JOIN ", ", "]
            if "outer joins" in self.features:
                kinds += [" LEFT JOIN ", " LEFT OUTER JOIN ", " RIGHT JOIN ", " FULL JOIN "]
            kind = choose.choice(kinds)
            mine = choose.choice(new)
            theirs = [each for each in write.fields if each.flavour == mine.flavour]
            other = choose.choice(theirs or write.fields)
            write.fields += new
            source += f"{kind}{table.name} AS {alias}"
            if kind in (" JOIN ", " LEFT JOIN ") and choose.random() < 0.15 and len(aliases) == 2:
                source += " USING (id)"
            elif kind != ", " and (kind != " CROSS JOIN " or choose.random() < 0.5):
                source += f" ON {mine.name} = {other.name}"
                if choose.random() < 0.3:
                    # no constant: SQLite 3.40 takes that of an inner join before RIGHT as WHERE
                    source += f" AND {write.plain_condition(1)}"
        return self._over(source)

    def _over(self, source: str) -> Made:
        """A query over sources that are in reach: rows, or aggregates."""
        choose, write = self.choose, self.write
        if choose.random() < 0.3:
            key = choose.choice(write.fields).name
            wanted = f"{self._folded(key)}, {self.aggregate()}"
            sql = f"SELECT {wanted} FROM {source}{self.where(0.5)} GROUP BY {key}"
            return self._made(sql, loose=True)
        outputs = self.outputs(1, 3)
        sql = f"SELECT {', '.join(outputs)} FROM {source}{self.where(0.5)}"
        if choose.random() < 0.4 and not self.is_collated:
            sql += self.order(len(outputs)) + self.limit()
            return self._made(sql, ordered=True, loose=True)
        return self._made(sql)

    def compound(self) -> Made:
        """UNION, UNION ALL, EXCEPT, INTERSECT."""
        choose = self.choose
        count = choose.randint(1, 2)
        self.write.begin([])
        parts = []
        for _ in range(choose.choice((2, 2, 3))):
            table = choose.choice(self.tables)
            self.write.fields = self.fields_of(table)
            outputs = [choose.choice(self.write.fields).name if choose.random() < 0.7 else
                       self.write.any(1) for _ in range(count)]  # fmt: skip
            outputs = [each for each in outputs if "COLLATE" not in each] or ["id"]
            outputs += ["id"] * (count - len(outputs))
            if self.is_collated:  # SQLite takes a rowid for no column when it looks for a collation
                outputs = ["(id + 0)" if each == "id" else each for each in outputs]
            parts.append(f"SELECT {', '.join(outputs)} FROM {table.name}{self.where(0.4)}")
        sql = parts[0]
        for part in parts[1:]:
            sql += choose.choice((" UNION ", " UNION ALL ", " EXCEPT ", " INTERSECT ")) + part
        if self.is_collated:
            return self._made(f"SELECT count(*) FROM ({sql}) AS s")
        if choose.random() < 0.5:
            order = ", ".join(str(at + 1) + self._direction() for at in range(count))
            return self._made(f"{sql} ORDER BY {order}{self.limit()}", ordered=True, loose=True)
        return self._made(sql, loose=True)

    def with_tables(self) -> Made:
        """WITH."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        inner = [self._own(self.write.any(1)) for _ in range(2)]
        where = self.where(0.4)
        head = f"WITH c (id, x, y) AS (SELECT id, {', '.join(inner)} FROM {table.name}{where}) "
        self.write.fields = [Field("c.x", "text"), Field("y", "small"), Field("c.id", "small")]
        made = self._over("c")
        made.sql = head + made.sql
        return made

    def elements(self) -> Made:
        """The elements of JSON documents beside their rows."""
        choose = self.choose
        table = choose.choice(self.tables)
        self.write.begin(self.fields_of(table, "x"))
        named = [f"x.{column.name}" for column in table.of("json")]
        document = choose.choice(named or ["'[1, \"a\", [2.5]]'", "json_array(x.id, 'a')"])
        name = choose.choice(("json_each", "json_tree"))
        kind = choose.choice((", ", " JOIN ", " LEFT JOIN "))
        where = self.where(0.4)
        test = choose.choice(("e.type = 'integer'", "e.atom > 1", "e.key = 'a'", "e.id < 4"))
        on = f" ON {test}" if kind != ", " else ""
        source = f"{table.name} AS x{kind}{name}({document}) AS e{on}"
        outputs = "x.id, e.key, e.value, e.type, e.atom, e.id, e.parent, e.fullkey, e.path"
        if choose.random() < 0.3:
            outputs = f"(SELECT count(*) FROM {name}({document}) AS e WHERE {test}), x.id"
            source = f"{table.name} AS x"
        return self._made(f"SELECT {outputs} FROM {source}{where}")

    def of_the_outer(self) -> Made:
        """An aggregate inside a subquery, over columns of the query around it alone."""
        choose = self.choose
        table, other = choose.choice(self.tables), choose.choice(self.tables)
        self.write.begin(self.fields_of(table, "x"))
        name = choose.choice(("count", "max", "min", "sum"))
        call = f"{name}({self.write.leaf('small', 'real')})"
        where = self.where(0.4)
        key = choose.choice(("x.id % 3", "x.id", ""))
        inner = choose.choice((f"SELECT {call} FROM {other.name} AS y LIMIT 1",
                               f"SELECT {call} + count(*) FROM {other.name} AS y",
                               f"SELECT count(*) FROM {other.name} AS y HAVING {call} > 2",
                               f"SELECT {call}"))  # fmt: skip
        sql = f"SELECT {key + ', ' if key else ''}({inner}) FROM {table.name} AS x{where}"
        return self._made(sql + (f" GROUP BY {key}" if key else ""), loose=True)

    def values(self) -> Made:
        """VALUES as a query."""
        self.write.begin([])
        count = self.choose.randint(1, 3)
        rows = [f"({', '.join(self.write.any(1) for _ in range(count))})"
                for _ in range(self.choose.randint(1, 3))]  # fmt: skip
        return self._made("VALUES " + ", ".join(rows))

    # Statements that write

    def insert(self, *, first: bool = False) -> Made:
        """INSERT in its forms; the first of a script may leave the ids to the table."""
        choose = self.choose
        table = choose.choice(self.tables)
        self.write.begin([])
        chosen = [each for each in table.columns if choose.random() < 0.85] or table.columns[:1]
        names = [each.name for each in chosen]
        verb = choose.choice(
            (
                "INSERT",
                "INSERT",
                "INSERT",
                "INSERT OR REPLACE",
                "INSERT OR IGNORE",
                "REPLACE",
                "INSERT OR FAIL",
                "INSERT OR ROLLBACK",
                "INSERT OR ABORT",
            )
        )
        if first and self.gives_ids:
            verb = "INSERT"
        with_id = not (first and self.gives_ids)
        # excluded.x is of its column's type here alone, so that upserts take values of that type
        is_upsert = verb == "INSERT" and with_id and choose.random() < 0.5
        rows = []
        for _ in range(choose.randint(1, 4)):
            row = [str(choose.randint(1, 60))] if with_id else []
            for each in chosen:
                if choose.random() < 0.3:
                    row.append(self.write.parameter(each.flavour))
                elif choose.random() < 0.05 and not is_upsert:
                    row.append(_stored(each.flavour, self.write.any(1)))
                else:
                    row.append(literal(choose, value(choose, each.flavour)))
            rows.append(f"({', '.join(row)})")
        columns = ", ".join((["id"] if with_id else []) + names)
        sql = f"{verb} INTO {table.name} ({columns}) VALUES {', '.join(rows)}"
        if is_upsert:
            self._nested = True  # a query in SET would see rows of this statement in SQLite
            sql += self._conflict(table)
            self._nested = False
        return self._made(sql + self._returning(table), is_query=False, loose=True)

    def _conflict(self, table: Table) -> str:
        """ON CONFLICT on the id."""
        choose = self.choose
        if choose.random() < 0.3:
            return choose.choice((" ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO NOTHING"))
        column = choose.choice([each for each in table.columns if "UNIQUE" not in each.rest]
                               or table.columns)  # fmt: skip
        self.write.fields = [Field(f"excluded.{column.name}", column.flavour),
                             Field(f"{table.name}.{column.name}", column.flavour)]  # fmt: skip
        new = choose.choice((f"excluded.{column.name}", self._fitting(column.flavour)))
        self.write.fields = self.write.fields[1:]  # SQLite's excluded.x has no affinity
        where = f" WHERE {self.write.condition(1)}" if choose.random() < 0.3 else ""
        return f" ON CONFLICT (id) DO UPDATE SET {column.name} = {new}{where}"

    def _fitting(self, flavour: str) -> str:
        """An expression that mostly fits a column."""
        choose, write = self.choose, self.write
        if flavour == "small":
            return f"({write.leaf('small')} + {write.leaf('small')}) % 50"
        if flavour == "real":
            return f"round({write.leaf('real', 'small')} / 4)"
        if flavour == "text":
            return choose.choice((f"substr({write.text(1)}, 1, 9)", write.leaf("text")))
        if choose.random() < 0.1:
            return _stored(flavour, write.any(1))
        return literal(choose, value(choose, flavour))

    def insert_select(self) -> Made:
        """INSERT … SELECT."""
        choose = self.choose
        table = choose.choice(self.tables)
        self._begin(table)
        column = choose.choice(table.columns)
        verb = choose.choice(("INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT"))
        columns, more = f"id, {column.name}", choose.choice((60, 10, 1))
        sql = f"{verb} INTO {table.name} ({columns}) SELECT id + {more}, {column.name}"
        sql += f" FROM {table.name}{self.where()} ORDER BY id"
        if verb == "INSERT":
            if choose.random() < 0.3:
                sql += f" LIMIT {choose.randint(0, 5)}"
            self._nested = True
            sql += self._conflict(table)
            self._nested = False
        return self._made(sql + self._returning(table), is_query=False, loose=True)

    def _returning(self, table: Table) -> str:
        choose = self.choose
        if choose.random() > 0.3:
            return ""
        self.write.fields = self.fields_of(table)
        # SQLite's RETURNING knows no affinity: nothing is compared in it
        return " RETURNING " + choose.choice(("*", "id", f"{self.write.leaf('text')} AS x, id"))

    def update(self) -> Made:
        """UPDATE."""
        choose = self.choose
        table = choose.choice(self.tables)
        self._begin(table)
        columns = choose.sample(table.columns, choose.randint(1, 2))
        sets = ", ".join(f"{each.name} = {self._fitting(each.flavour)}" for each in columns)
        verb = choose.choice(("UPDATE",) * 4 + UPDATES)
        sql = f"{verb} {table.name} SET {sets}{self.where(0.9)}{self._returning(table)}"
        return self._made(sql, is_query=False, loose=True)

    def delete(self) -> Made:
        """DELETE of not too many rows."""
        table = self.choose.choice(self.tables)
        self._begin(table)
        low = self.choose.randint(0, 60)
        few = f"id BETWEEN {low} AND {low + self.choose.randint(0, 9)}"
        where = f"{few} AND {self.write.condition(2)}" if self.choose.random() < 0.7 else few
        sql = f"DELETE FROM {table.name} WHERE {where}{self._returning(table)}"
        return self._made(sql, is_query=False, loose=True)

    def other(self) -> Made:
        """Transactions, savepoints, indexes."""
        choose = self.choose
        self.write.begin([])
        table = choose.choice(self.tables)
        column = choose.choice(table.columns).name
        self._indexes += 1
        sql = choose.choice(
            ("BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s",
             "RELEASE s", f"CREATE INDEX i{self._indexes} ON {table.name} ({column})",
             f"CREATE INDEX i{self._indexes} ON {table.name} ({column}, id)",
             f"CREATE UNIQUE INDEX i{self._indexes} ON {table.name} (id, {column})",
             f"DROP INDEX IF EXISTS i{choose.randint(1, self._indexes)}")
        )  # fmt: skip
        return self._made(sql, is_query=False)

    def statement(self) -> Made:
        """Any statement."""
        makers = (self.query, self.insert, self.update, self.delete, self.insert_select, self.other)
        made: Made = self.choose.choices(makers, (70, 10, 8, 4, 2, 4))[0]()
        return made
