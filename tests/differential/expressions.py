"""Random expressions as SQL text, over everything that both languages have.

An `Expressions` writes expressions over the columns that are in reach. Values to bind are asked for
by `parameter`, which remembers the flavour of each, so that one statement can be run with several
sets of values. What is known to differ (see `differences`) is not written where that is easily
said; the rest is told by the list.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.differential.schemas import DATES, JSONS, TEXTS, literal, value

COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "IS", "IS NOT", "==", "<>", "IS DISTINCT FROM",
               "IS NOT DISTINCT FROM")  # fmt: skip
PATTERNS = ("a%", "%B%", "_", "", "%", "a_c", "%%", "é%", "%\\%%", "1%", "A%C", "a\\_b")
GLOBS = ("a*", "*B*", "?", "", "*", "a?c", "[a-c]*", "[^a]*", "*[0-9]", "[]a]*", "é*", "[a", "1*")
PATHS = ("$", "$.a", "$.a.b", "$[0]", "$[1]", "$[#-1]", "$.a.b[2].c", "$.x", '$."a b"', "$[9]",
         "$.a[0]")  # fmt: skip
KEYS = ("'a'", "0", "1", "2", "'$.a'", "'b'", "'x'", "'$[0]'", "'a b'")
CASTS = ("INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "VARCHAR(9)", "BIGINT", "DOUBLE", "DECIMAL")
COLLATIONS = ("NOCASE", "BINARY", "RTRIM", "nocase")
MODIFIERS = ("'+1 day'", "'-1 month'", "'+1 year'", "'start of month'", "'start of year'",
             "'start of day'", "'weekday 0'", "'weekday 3'", "'+90 minutes'", "'-3.5 hours'",
             "'+1.5 days'", "'unixepoch'", "'+12:30'", "'-00:00:30.5'", "'utc?'", "'+11 months'",
             "'julianday'", "'auto'", "NULL", "'+100000 days'", "'weekday 7'", "'1 second'",
             "'+1.5 months'")  # fmt: skip
FORMATS = ("%Y-%m-%d", "%H:%M:%S", "%f", "%j", "%J", "%s", "%w", "%W", "%%", "%d/%m/%Y", "%x", "%",
           "week %W", "é%Y")  # fmt: skip
PRINTF = ("%d", "%5d|", "%-5d|", "%05d", "%+d", "%x", "%X", "%o", "%s", "%!10s|", "%-!4s|", "%!.2s",
          "%f", "%.1f", "%8.2f", "%e", "%g", "%.3g", "%c", "%q", "%Q", "%w", "%%", "%u", "%i",
          "% d", "%,d", "%#x", "%!.15g", "%.0f", "%5.1f|", "%-8.1f|", "%08.2f")  # fmt: skip
QUOTED = ("small", "real", "text", "blob")
MATHS = ("ceil", "floor", "trunc", "ceiling", "sqrt", "exp", "ln", "log", "log10", "log2", "sin",
         "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
         "degrees", "radians", "sign")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """A column in reach: how it is written, and its flavour."""

    name: str
    flavour: str


class Expressions:
    """Writes expressions over some fields."""

    def __init__(self, choose: random.Random, features: frozenset[str]) -> None:
        self.choose = choose
        self.features = features
        self.fields: list[Field] = []
        self.wanted: list[str] = []  # the flavours of the parameters
        self.subquery: Callable[[str], str] | None = None  # writes (SELECT …) of a kind
        self._makers: list[tuple[Callable[[int], str], int]] = [
            (self.arithmetic, 10), (self.compared, 12), (self.logic, 6), (self.unary, 4),
            (self.null_test, 3), (self.between, 3), (self.listed, 4), (self.like, 5),
            (self.case, 4), (self.cast, 4), (self.text_call, 12), (self.number_call, 6),
            (self.any_call, 6), (self.collated, 2), (self.json, 5), (self.date, 4),
            (self.maths, 3), (self.formatted, 2), (self.nested, 2),
        ]  # fmt: skip
        self._weights = [weight for _, weight in self._makers]
        self._calls = [maker for maker, _ in self._makers]

    def begin(self, fields: Sequence[Field]) -> None:
        """A new statement over these fields."""
        self.fields = list(fields)
        self.wanted = []

    def parameter(self, flavour: str) -> str:
        """A parameter that is bound to values of a flavour."""
        self.wanted.append(flavour)
        return f":p{len(self.wanted) - 1}"

    def bound(self) -> dict[str, object]:
        """Values for the statement's parameters."""
        return {f"p{at}": value(self.choose, each) for at, each in enumerate(self.wanted)}

    def any(self, depth: int) -> str:
        """An expression of any type."""
        if depth <= 0 or self.choose.random() < 0.2:
            return self.leaf()
        return self.choose.choices(self._calls, self._weights)[0](depth - 1)

    def leaf(self, *flavours: str) -> str:
        """A column, a literal or a parameter, of some flavours where they are given."""
        choose = self.choose
        wanted = flavours or ("small", "small", "wild", "real", "far", "text", "text", "blob")
        chance = choose.random()
        if chance < 0.6:
            fits = [each for each in self.fields if each.flavour in wanted]
            if fits:
                return choose.choice(fits).name
        flavour = choose.choice(wanted)
        if chance < 0.75 and "parameters" in self.features:
            return self.parameter(flavour)
        if chance > 0.98:
            return choose.choice(("TRUE", "FALSE", "NULL"))
        return literal(choose, value(choose, flavour))

    def number(self, depth: int) -> str:
        """Something that is mostly a number of few digits."""
        if depth <= 0 or self.choose.random() < 0.4:
            return self.leaf("small", "real")
        return self.choose.choice((self.arithmetic, self.number_call, self.cast))(depth - 1)

    def text(self, depth: int) -> str:
        """Something that is mostly a text."""
        if depth <= 0 or self.choose.random() < 0.4:
            return self.leaf("text")
        return self.choose.choice((self.text_call, self.text_call, self.any))(depth - 1)

    def condition(self, depth: int) -> str:
        """Something for WHERE."""
        choose = self.choose
        if depth <= 0 or choose.random() < 0.3:
            return self.plain_condition()
        forms = (self.logic, self.compared, self.compared, self.null_test, self.like, self.between,
                 self.listed, self.negated, self.any)  # fmt: skip
        if "rows" in self.features and len(self.fields) > 1 and choose.random() < 0.08:
            return self.rows()
        return choose.choice(forms)(depth - 1)

    def plain_condition(self, least: int = 0) -> str:
        """A column against a constant: what indexes and vectorised filters see.

        least  the fewest items of a list
        """
        choose = self.choose
        if not self.fields:
            return self.compared(1)
        column = choose.choice(self.fields)
        other = value(choose, column.flavour)
        constant = literal(choose, other)
        if choose.random() < 0.3 and "parameters" in self.features:
            constant = self.parameter(column.flavour)
        elif choose.random() < 0.15:
            constant = self.leaf_constant()
        chance = choose.random()
        if chance < 0.65:
            symbol = choose.choice(COMPARISONS[:8])
            if choose.random() < 0.15:
                return f"{constant} {symbol} {column.name}"
            return f"{column.name} {symbol} {constant}"
        if chance < 0.75:
            return f"{column.name} IS {choose.choice(('', 'NOT '))}NULL"
        if chance < 0.88:
            low, high = (literal(choose, value(choose, column.flavour)) for _ in range(2))
            return f"{column.name} {choose.choice(('', 'NOT '))}BETWEEN {low} AND {high}"
        items = ", ".join(
            literal(choose, value(choose, column.flavour)) for _ in range(choose.randint(least, 4))
        )
        return f"{column.name} {choose.choice(('', 'NOT '))}IN ({items})"

    def rows(self) -> str:
        """Two columns against rows of constants."""
        choose = self.choose
        pair = choose.sample(self.fields, 2)
        left = f"({', '.join(each.name for each in pair)})"

        def right() -> str:
            items = ", ".join(literal(choose, value(choose, each.flavour)) for each in pair)
            return f"({items})"

        chance = choose.random()
        if chance < 0.2:
            return f"{left} BETWEEN {right()} AND {right()}"
        if chance < 0.5:
            count = choose.randint(1, 3)
            listed = ", ".join(right() for _ in range(count))
            return f"{left} {choose.choice(('', 'NOT '))}IN (VALUES {listed})"
        return f"{left} {choose.choice(COMPARISONS[:8])} {right()}"

    def leaf_constant(self) -> str:
        """A literal of any flavour."""
        flavour = self.choose.choice(("small", "wild", "real", "far", "text", "blob"))
        return literal(self.choose, value(self.choose, flavour))

    # The forms, each of operands of less depth

    def arithmetic(self, depth: int) -> str:
        """Numbers, bits and `||`."""
        symbol = self.choose.choice(("+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>"))
        return f"({self.any(depth)} {symbol} {self.any(depth)})"

    def compared(self, depth: int) -> str:
        """A comparison; texts with NUL characters among its operands."""
        left, right = self.any(depth), self.any(depth)
        raw = [each.name for each in self.fields if each.flavour == "raw"]
        if raw and self.choose.random() < 0.3:
            left = self.choose.choice(raw)
            right = self.choose.choice((*raw, literal(self.choose, value(self.choose, "raw"))))
        return f"({left} {self.choose.choice(COMPARISONS)} {right})"

    def logic(self, depth: int) -> str:
        """AND, OR."""
        symbol = self.choose.choice(("AND", "OR"))
        parts = [self.condition(depth) for _ in range(self.choose.randint(2, 3))]
        return "(" + f" {symbol} ".join(parts) + ")"

    def negated(self, depth: int) -> str:
        """NOT."""
        return f"(NOT {self.condition(depth)})"

    def unary(self, depth: int) -> str:
        """A sign, `~`, NOT."""
        return f"({self.choose.choice(('-', '+', '~', 'NOT '))} {self.any(depth)})"

    def null_test(self, depth: int) -> str:
        """IS NULL, ISNULL and the like; IS TRUE."""
        words = ("IS NULL", "IS NOT NULL", "ISNULL", "NOTNULL", "NOT NULL", "IS TRUE",
                 "IS NOT TRUE", "IS FALSE", "IS NOT FALSE")  # fmt: skip
        word = self.choose.choice(words)
        return f"({self.any(depth)} {word})"

    def between(self, depth: int) -> str:
        """BETWEEN."""
        word = self.choose.choice(("BETWEEN", "NOT BETWEEN"))
        return f"({self.any(depth)} {word} {self.any(depth)} AND {self.any(depth)})"

    def listed(self, depth: int) -> str:
        """IN a list."""
        word = self.choose.choice(("IN", "NOT IN"))
        items = [self.any(depth - 1) for _ in range(self.choose.randint(1, 4))]
        return f"({self.any(depth)} {word} ({', '.join(items)}))"

    def like(self, depth: int) -> str:
        """LIKE, with and without ESCAPE; GLOB."""
        choose = self.choose
        word = choose.choice(("", "NOT "))
        if choose.random() < 0.3:
            pattern = literal(choose, choose.choice(GLOBS))
            return f"({self.text(depth)} {word}GLOB {pattern})"
        pattern = literal(choose, choose.choice(PATTERNS))
        if choose.random() < 0.2:
            pattern = self.text(0)
        escape = " ESCAPE '\\'" if choose.random() < 0.3 else ""
        return f"({self.text(depth)} {word}LIKE {pattern}{escape})"

    def case(self, depth: int) -> str:
        """Both forms of CASE."""
        choose = self.choose
        operand = f" {self.any(depth)}" if choose.random() < 0.4 else ""
        make = self.any if operand else self.condition
        whens = "".join(
            f" WHEN {make(depth)} THEN {self.any(depth)}" for _ in range(choose.randint(1, 2))
        )
        otherwise = f" ELSE {self.any(depth)}" if choose.random() < 0.6 else ""
        return f"(CASE{operand}{whens}{otherwise} END)"

    def cast(self, depth: int) -> str:
        """CAST."""
        return f"CAST({self.any(depth)} AS {self.choose.choice(CASTS)})"

    def collated(self, depth: int) -> str:
        """A comparison with COLLATE."""
        name = self.choose.choice(COLLATIONS)
        left, right = self.text(depth), self.text(depth)
        if self.choose.random() < 0.5:
            left += f" COLLATE {name}"
        else:
            right += f" COLLATE {name}"
        if self.choose.random() < 0.2:
            return f"({left} BETWEEN {right} AND {self.text(0)})"
        return f"({left} {self.choose.choice(COMPARISONS[:8])} {right})"

    def nested(self, depth: int) -> str:
        """A query as a value, in IN, in EXISTS."""
        if self.subquery is None:
            return self.leaf()
        choose = self.choose
        form = choose.choice(("scalar", "list", "exists"))
        query = self.subquery(form)
        if form == "scalar":
            return query
        word = choose.choice(("", "NOT "))
        if form == "list":
            return f"({self.any(depth)} {word}IN {query})"
        return f"({word}EXISTS {query})"

    # Functions

    def text_call(self, depth: int) -> str:
        """Functions of texts."""
        choose, text = self.choose, self.text
        small = str(choose.randint(-3, 5))
        return choose.choice((
            lambda: f"lower({text(depth)})", lambda: f"upper({text(depth)})",
            lambda: f"length({self.any(depth)})", lambda: f"hex({self.any(depth)})",
            lambda: f"trim({text(depth)})", lambda: f"ltrim({text(depth)}, {text(0)})",
            lambda: f"rtrim({text(depth)}, 'ab ')", lambda: f"trim({text(depth)}, {text(0)})",
            lambda: f"substr({self.any(depth)}, {small})",
            lambda: f"substring({text(depth)}, {small}, {choose.randint(-2, 4)})",
            lambda: f"replace({text(depth)}, {text(0)}, {text(0)})",
            lambda: f"instr({self.any(depth)}, {self.any(0)})",
            lambda: f"unicode({text(depth)})", lambda: f"quote({self.leaf(*QUOTED)})",
            lambda: f"char({choose.randint(32, 900)}, {choose.randint(32, 90)})",
            lambda: f"({text(depth)} || {text(depth)})",
            lambda: f"like({text(0)}, {text(depth)})", lambda: f"glob({text(0)}, {text(depth)})",
        ))()  # fmt: skip

    def number_call(self, depth: int) -> str:
        """Functions of numbers."""
        choose, number = self.choose, self.number
        return choose.choice((
            lambda: f"abs({self.any(depth)})", lambda: f"round({number(depth)})",
            lambda: f"round({self.leaf('real', 'small')}, {choose.randint(-1, 4)})",
            lambda: f"sign({self.any(depth)})", lambda: f"min({number(depth)}, {number(depth)})",
            lambda: f"max({self.any(depth)}, {self.any(depth)}, {self.any(0)})",
            lambda: f"length(zeroblob({choose.randint(-1, 9)}))",
        ))()  # fmt: skip

    def any_call(self, depth: int) -> str:
        """Functions of any value."""
        choose, any_ = self.choose, self.any
        return choose.choice((
            lambda: f"coalesce({any_(depth)}, {any_(depth)})",
            lambda: f"ifnull({any_(depth)}, {any_(0)})",
            lambda: f"nullif({any_(depth)}, {any_(depth)})",
            lambda: f"iif({self.condition(depth)}, {any_(depth)}, {any_(depth)})",
            lambda: f"typeof({self.leaf(*QUOTED)} || '')",
            lambda: f"min({any_(depth)}, {any_(depth)})",
            lambda: f"coalesce({self.leaf()}, {any_(depth)}, {any_(0)})",
            lambda: f"likely({any_(depth)})", lambda: f"unlikely({any_(depth)})",
        ))()  # fmt: skip

    def json(self, depth: int) -> str:
        """JSON functions and operators, on JSON; what they make of other texts is an error."""
        choose = self.choose
        documents = [each.name for each in self.fields if each.flavour == "json"]
        document = literal(choose, choose.choice(JSONS))
        if documents and choose.random() < 0.8:
            document = choose.choice(documents)
        path = literal(choose, choose.choice(PATHS))
        inside = literal(choose, choose.choice(PATHS[1:]))
        item = choose.choice((self.leaf("small", "real", "text"), f"json({document})", "NULL"))
        valid = choose.choice((document, self.leaf("text")))
        return choose.choice((
            lambda: f"json_extract({document}, {path})",
            lambda: f"json_extract({document}, {path}, '$.a')",
            lambda: f"({document} -> {choose.choice(KEYS)})",
            lambda: f"({document} ->> {choose.choice(KEYS)})",
            lambda: f"json_type({document}, {path})", lambda: f"json_type({document})",
            lambda: f"json_array_length({document})",
            lambda: f"json_array_length({document}, {path})",
            lambda: f"json_valid(coalesce({valid}, ''))",
            lambda: f"json({document})",
            lambda: f"json_array({item}, {self.leaf('small', 'text')})",
            lambda: f"json_object('k', {item}, 'm', {self.leaf('small', 'real')})",
            lambda: f"json_quote({item})", lambda: f"json_set({document}, {inside}, {item})",
            lambda: f"json_insert({document}, {inside}, {item})",
            lambda: f"json_replace({document}, {inside}, {item})",
            lambda: f"json_remove({document}, {path})",
            lambda: f"json_patch({document}, {literal(choose, choose.choice(JSONS))})",
        ))()  # fmt: skip

    def moment(self) -> str:
        """What stands for a time."""
        choose = self.choose
        dates = [each.name for each in self.fields if each.flavour == "date"]
        chance = choose.random()
        if dates and chance < 0.5:
            return choose.choice(dates)
        if chance < 0.8:
            return literal(choose, choose.choice(DATES))
        return self.leaf("small", "real", "text")

    def date(self, depth: int) -> str:
        """Date functions with modifiers."""
        choose = self.choose
        modifiers = "".join(
            f", {choose.choice(MODIFIERS)}" for _ in range(choose.choice((0, 0, 1, 1, 2, 3)))
        )
        name = choose.choice(("date", "time", "datetime", "julianday", "unixepoch", "strftime"))
        if name == "strftime":
            return (
                f"strftime({literal(choose, choose.choice(FORMATS))}, {self.moment()}{modifiers})"
            )
        return f"{name}({self.moment()}{modifiers})"

    def maths(self, depth: int) -> str:
        """Mathematical functions."""
        choose = self.choose
        operand = self.any(depth) if choose.random() < 0.3 else self.number(depth)
        name = choose.choice((*MATHS, "pow", "power", "mod", "atan2", "log", "pi"))
        if name == "pi":
            return "pi()"
        if name in ("pow", "power", "mod", "atan2") or (name == "log" and choose.random() < 0.5):
            call = f"{name}({operand}, CAST({self.number(0)} AS REAL))"
        else:
            call = f"{name}({operand})"
        # SQLite scales the natural logarithm by a constant, so that log2(2.0 * 4) and the like
        # miss a whole number by the last digit, which pow() of what was stored turns to NULL.
        return f"round({call}, 9)" if name in ("log", "log2", "log10") else call

    def formatted(self, depth: int) -> str:
        """printf and format."""
        choose = self.choose
        pattern = choose.choice(PRINTF)
        wanted = ("small", "real") if pattern[-1:] not in "sqQwc" else ("text", "small", "real")
        name = choose.choice(("printf", "format"))
        if pattern == "%c":
            return f"{name}('%c', coalesce(nullif({self.leaf('text')}, ''), 'x'))"
        return f"{name}({literal(choose, pattern)}, {self.leaf(*wanted)})"

    def text_constant(self) -> str:
        """A literal text."""
        return literal(self.choose, self.choose.choice(TEXTS))
