"""Joins: several tables of FROM, matched by hashing.

    FROM --flatten--> tables and steps --restrict(ON, WHERE)--> terms by the tables they read
    run:  each table's rows by its own terms, then step by step
          equal keys --> pairs --the step's other terms--> pairs --unmatched rows--> JoinedRows
    at the end the terms of WHERE that an outer join's NULLs may reach

Terms of WHERE and of the ON of inner joins are one pool. A term goes to the first place where all
its tables are there: to the access of its one table, to a step as a pair of keys (`a.x = b.y`) or
as a check of pairs. Without an outer join the tables are taken in an order in which each next one
shares a key with those before it where one does, from the one that is far the smallest on. Where
few rows have come so far and the next table has a key or an index on its side of an equality, its
rows are looked up instead of scanned.

Invariants
    J1  A term that reads a table which an outer join may pad is checked behind that join.
    J2  Keys are compared as `=` compares: affinities and collations are those of the comparison.
    J3  Looking rows up leaves out only rows that no pair of keys can match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from m2mdb.index.collations import Fold
from m2mdb.index.slices import mapped
from m2mdb.pager.errors import NotSupportedError, PlacedFault
from m2mdb.query.access import SPARSE
from m2mdb.query.affinity import APPLY, NONE
from m2mdb.query.comparison import conversions, fold_of_type
from m2mdb.query.conditions import affinity_of, chain, collation_of
from m2mdb.query.constants import is_constant, walk
from m2mdb.query.functions import Bindings
from m2mdb.query.join_scope import JoinScope, Merged
from m2mdb.query.joined import (
    JoinedRows,
    Places,
    Rows,
    matches_of_numbers,
    matches_of_values,
    with_unmatched,
)
from m2mdb.query.nodes import Binary, ColumnRef, Expression, Join, Node, Source
from m2mdb.query.pairs import Check, PairCheck
from m2mdb.query.plan import Explained
from m2mdb.query.profile import Noted, profile_of
from m2mdb.query.projection import Computed, fetched_columns
from m2mdb.query.rewriting import rewritten
from m2mdb.query.scope import RowScope
from m2mdb.query.sources import Context, Leaf, TableSource, explained_leaf, leaf_of

if TYPE_CHECKING:
    from m2mdb.index.view import View
    from m2mdb.query.table_functions import Lateral

FAR_FEWER = 8  # times fewer rows, for which a join begins with another table than the first
KINDS = ("inner", "cross", "left", "right", "full", "natural")
_CODED = ("INTEGER", "TIMESTAMP", "BOOLEAN", "TEXT")
Coded = tuple[np.ndarray, list[str]]  # codes of texts, and what they stand for


class Step:
    """One JOIN: how the table `number` is matched with what stands before it.

    terms  what is checked at this step, by the time it is compiled into keys and checks
    """

    __slots__ = (
        "_checks", "_keys", "kind", "lateral", "number", "on", "position", "terms", "using",
    )  # fmt: skip

    def __init__(self, number: int, join: Join | None, using: list[str]) -> None:
        """`join` None: a table that stands first in FROM and is not taken first."""
        self.number = number
        self.kind = "inner" if join is None or join.kind in ("cross", "natural") else join.kind
        self.on = None if join is None else join.on
        self.using = using
        self.position = 0 if join is None else join.right.position
        self.terms: list[Expression] = []
        self.lateral: Lateral | None = None
        self._keys: list[_KeyPair] = []
        self._checks: PairCheck | None = None

    @property
    def keys(self) -> list[_KeyPair]:
        """The equalities that it matches by."""
        return self._keys

    def compile(self, scope: JoinScope, before: set[int]) -> None:
        """Keys and checks of the terms; `before`: the tables that are there already."""
        rest = []
        for term in self.terms:
            pair = None if self.lateral else _key_pair(term, scope, before, self.number)
            if pair is None:
                rest.append(term)
            else:
                self._keys.append(pair)
        self._checks = PairCheck(rest, scope, self.number)

    def run(
        self,
        rows: JoinedRows,
        table: Rows,
        context: tuple[JoinScope, Bindings, Callable[[], None]],
        pairs: tuple[Places, Places] | None = None,
    ) -> JoinedRows:
        """What stands before this table, and beside it the table's rows; `pairs`: which of them."""
        scope, bindings, check = context
        assert self._checks is not None, "the step is compiled"
        if pairs is None and self._keys:
            own = JoinedRows.of_one(scope.layout, self.number, table, check)
            pairs = self._matched(rows, own, bindings)
        if pairs is None:
            pairs = self._checks.every(rows, table, bindings)
        else:
            pairs = self._checks.passed(rows, table, pairs, bindings)
        pairs = with_unmatched(pairs, (len(rows), len(table)), self.kind, check)
        return rows.beside(self.number, table, pairs)

    def _matched(
        self, rows: JoinedRows, table: JoinedRows, bindings: Bindings
    ) -> tuple[Places, Places]:
        """The pairs whose keys are equal."""
        if len(self._keys) == 1:
            numbers = self._keys[0].numbers(rows, table)
            if numbers is not None:
                return matches_of_numbers(numbers[0], numbers[1], bindings.check)
        left = [key.left.values(rows, bindings) for key in self._keys]
        right = [key.right.values(table, bindings) for key in self._keys]
        return matches_of_values(left, right, bindings.check)


class _KeySide:
    """One side of an equality, over the rows of a join."""

    __slots__ = ("_computed", "_scope", "_shapes", "node")

    def __init__(self, node: Expression, scope: JoinScope, shapes: Sequence[Any]) -> None:
        self.node = node
        self._scope = scope.sibling()
        self._computed = Computed(node, self._scope)
        self._shapes = [shape for shape in shapes if shape is not None]

    def values(self, rows: JoinedRows, bindings: Bindings) -> list[Any]:
        """The key of each row, converted as the comparison converts it (J2)."""
        columns = fetched_columns(rows, self._scope.sources, bindings)
        found = self._computed.values(columns, len(rows), bindings)
        for shape in self._shapes:
            found = mapped(found, shape, bindings.check)
        return found

    @property
    def plain_source(self) -> tuple[int, str] | None:
        """The source and type of a plain column of whole numbers or texts; None for all else."""
        if self._shapes or self._computed.position is None or not isinstance(self.node, ColumnRef):
            return None
        type = self._scope.column(self.node).type
        source = self._scope.sources[self._computed.position]
        assert isinstance(source, int)
        return (source, type) if type in _CODED else None


class _KeyPair:
    """An equality between what stands before a table and the table itself."""

    __slots__ = ("fold", "left", "right", "term")

    def __init__(
        self, left: _KeySide, right: _KeySide, term: Expression, fold: Fold | None
    ) -> None:
        self.left = left
        self.right = right
        self.term = term
        self.fold = fold

    def numbers(self, rows: JoinedRows, table: JoinedRows) -> Any:
        """Both sides as arrays, where both are columns of whole numbers, or texts with codes."""
        one, other = self.left.plain_source, self.right.plain_source
        if one is None or other is None or one[1] != other[1]:
            return None
        if one[1] == "TEXT":
            return self._codes(rows.codes(one[0]), table.codes(other[0]))
        left, right = rows.numbers(one[0]), table.numbers(other[0])
        return None if left is None or right is None else (left, right)

    def _codes(self, left: Coded | None, right: Coded | None) -> Any:
        """Codes that mean the same on both sides; −1 equals nothing."""
        if left is None or right is None:
            return None
        known = {value: code for code, value in enumerate(left[1])}
        moved = np.array([*[known.get(value, -1) for value in right[1]], -1], np.int32)
        mine, theirs = left[0], moved[right[0]]
        return (mine, mine < 0), (theirs, theirs < 0)


def _key_pair(term: Expression, scope: JoinScope, before: set[int], table: int) -> _KeyPair | None:
    """A term as an equality of keys; None where it is none between the two sides."""
    if not isinstance(term, Binary) or term.operator != "=":
        return None
    one, other = conversions(affinity_of(term.left, scope), affinity_of(term.right, scope))
    fold = collation_of(scope, term.left, term.right)
    for left, right, shapes in (
        (term.left, term.right, (one, other)),
        (term.right, term.left, (other, one)),
    ):
        mine, theirs = tables_of(left, scope), tables_of(right, scope)
        if mine and mine <= before and theirs == {table} and not _is_volatile(term):
            return _KeyPair(
                _KeySide(left, scope, (_applied(shapes[0]), fold)),
                _KeySide(right, scope, (_applied(shapes[1]), fold)),
                term,
                fold,
            )
    return None


def _fold_of(leaf: Leaf, column: int) -> Fold | None:
    """What the collation of a table's column does, or of its rowid."""
    return None if column < 0 else fold_of_type(leaf.schema.columns[column].value_type)


def _applied(affinity: str) -> Any:
    return None if affinity == NONE else APPLY[affinity]


def tables_of(node: Expression, scope: JoinScope) -> set[int]:
    """The tables whose columns an expression reads."""
    return {scope.place(each)[0] for each in walk(node) if isinstance(each, ColumnRef)}


def _is_volatile(node: Expression) -> bool:
    """Whether an expression has another value each time, whatever its columns are."""

    def without_columns(each: Node) -> Node | None:
        return _NOTHING if isinstance(each, ColumnRef) else None

    return not is_constant(rewritten(node, without_columns))


class _Nothing(Expression):
    __slots__ = ()


_NOTHING = _Nothing(0)


# ------------------------------------------------------------------------- the source


class JoinSource:
    """The rows of several tables that pass ON and WHERE."""

    __slots__ = ("_first", "_order", "_rest", "_steps", "_tables", "leaf", "scope")

    def __init__(self, source: Join, context: Context) -> None:
        """Raises ProgrammingError: unknown names, columns of USING that are not on both sides."""
        leaves: list[Leaf] = []
        self._steps: list[Step] = []
        _flatten(source, context, leaves, self._steps)
        merged = _merged(leaves, self._steps)
        self.scope = JoinScope(leaves, merged, context.subqueries)
        self._tables = [
            TableSource(leaf, RowScope(leaf.schema, context.subqueries, name=leaf.name))
            for leaf in leaves
        ]
        self._first = 0  # the table that is taken first
        self._order: list[Step] = []
        self._rest: Check | None = None
        self.leaf = Leaf(leaves[0].open, leaves[0].schema, None, "JOIN")
        for leaf in leaves:
            self.leaf.tables.extend(leaf.tables)

    def resolve(self, resolve: Callable[[Expression], Expression]) -> None:
        """Mark outer columns and correlated subqueries in ON."""
        for step in self._steps:
            if step.on is not None:
                step.on = resolve(step.on)

    def conditions(self) -> list[Expression]:
        """All ON."""
        return [step.on for step in self._steps if step.on is not None]

    def restrict(self, where: Expression | None) -> None:
        """Plan the join for a WHERE."""
        nullable = _nullable(self._steps)
        pool: list[Expression] = []
        rest: list[Expression] = []
        for term in [] if where is None else chain(where, "AND"):
            is_late = self._is_late(tables_of(term, self.scope), nullable) or _is_volatile(term)
            (rest if is_late else pool).append(term)
        for step in self._steps:
            self._sort_terms(step, nullable, pool)
        is_inner = all(step.kind == "inner" and step.lateral is None for step in self._steps)
        own = [self._own_terms(table, pool, nullable) for table in range(len(self._tables))]
        for step in self._steps:
            if step.kind == "left":
                alone = [t for t in step.terms if tables_of(t, self.scope) <= {step.number}]
                step.terms = [term for term in step.terms if term not in alone]
                own[step.number] += alone
        for table, terms in zip(self._tables, own, strict=True):
            table.restrict(_joined([_of_one_table(term) for term in terms]))
        self._plan_steps(pool, is_inner)
        self._rest = Check(rest, self.scope) if rest else None

    def _is_late(self, tables: set[int], nullable: set[int]) -> bool:
        """Whether a condition has to see the joined row: it reads what may be padded with NULL.

        One that reads no table belongs to the first, unless that may be padded itself.
        """
        return bool(tables & nullable) or (not tables and 0 in nullable)

    def _sort_terms(self, step: Step, nullable: set[int], pool: list[Expression]) -> None:
        """The terms of ON and USING: into the pool, or to the step itself."""
        terms = [] if step.on is None else chain(step.on, "AND")
        terms += [self._equality(step, name) for name in step.using]
        for term in terms:
            tables = tables_of(term, self.scope)
            is_late = self._is_late(tables, nullable) or _is_volatile(term)
            if step.kind == "inner" and not is_late:
                pool.append(term)
                continue
            if tables and max(tables) > step.number:
                raise PlacedFault("ON clause references tables to its right", term.position)
            step.terms.append(term)

    def _equality(self, step: Step, name: str) -> Expression:
        """`left.name = right.name` of USING."""
        position = step.position
        merged = self.scope.merged[name.lower()]
        earlier = [table for table in merged.tables if table < step.number]
        sides: list[Expression] = [self.scope.pinned(t, name, position) for t in earlier]
        left = sides[0]
        if merged.is_padded and len(sides) > 1:
            from m2mdb.query.nodes import FunctionCall

            left = FunctionCall("coalesce", sides, False, False, position)
        return Binary("=", left, self.scope.pinned(step.number, name, position), position)

    def _own_terms(
        self, table: int, pool: list[Expression], nullable: set[int]
    ) -> list[Expression]:
        """The terms of the pool that read this table alone; those of no table go to the first."""
        wanted = [{table}, set()] if table == 0 and not nullable else [{table}]
        found = [term for term in pool if tables_of(term, self.scope) in wanted]
        if table == 0 and nullable:
            found += [term for term in pool if not tables_of(term, self.scope)]
        return found

    def _plan_steps(self, pool: list[Expression], is_inner: bool) -> None:
        """The order of the steps, and what each of them checks."""
        waiting = list(self._steps)
        if is_inner and not any(step.terms for step in waiting):
            self._first = self._smallest()
        if self._first:
            waiting = [Step(0, None, []), *[s for s in waiting if s.number != self._first]]
        before, left = {self._first}, [t for t in pool if len(tables_of(t, self.scope)) > 1]
        while waiting:
            step = self._next(waiting, before, left) if is_inner else waiting[0]
            waiting.remove(step)
            there = before | {step.number}
            ready = [term for term in left if tables_of(term, self.scope) <= there]
            step.terms += ready
            left = [term for term in left if term not in ready]
            step.compile(self.scope, before)
            before = there
            self._order.append(step)
        assert not left, "every term has tables that are there at the end"

    def _smallest(self) -> int:
        """The table to begin with: the first, unless another one has far fewer rows."""
        sizes = [table.access.estimate for table in self._tables]
        if None in sizes:
            return 0
        known = [size for size in sizes if size is not None]
        best = min(range(len(known)), key=known.__getitem__)
        return best if (known[best] + 1) * FAR_FEWER < known[0] else 0

    def _next(self, waiting: list[Step], before: set[int], terms: list[Expression]) -> Step:
        """The first step that shares a key with what is there; else the first."""
        for step in waiting:
            if any(_key_pair(term, self.scope, before, step.number) for term in terms):
                return step
        return waiting[0]

    # --------------------------------------------------------------- running

    def select(self, view: View, bindings: Bindings) -> JoinedRows:
        """The joined rows that pass."""
        check = view.database.check_interrupted
        profile = profile_of(bindings) if bindings.shared else None
        first = self._tables[self._first].select(view, bindings)
        rows = JoinedRows.of_one(self.scope.layout, self._first, first, check)
        for step in self._order:
            check()
            pairs: tuple[Places, Places] | None = None
            if step.lateral is None:
                table = self._selected(step, rows, view, bindings)
            else:
                table, pairs = step.lateral.select(rows, self._tables[step.number], bindings)
            start = 0.0 if profile is None else profile.clock()
            rows = step.run(rows, table, (self.scope, bindings, check), pairs)
            if profile is not None:
                profile.note(step, len(rows), start)
        if self._rest is not None:
            rows = rows.reordered(self._rest.passed(rows, bindings))
        return rows

    def _selected(self, step: Step, rows: JoinedRows, view: View, bindings: Bindings) -> Rows:
        """The rows of a step's table: by its own access, or looked up by the keys so far (J3)."""
        table = self._tables[step.number]
        collection = table.open(view, bindings)
        if step.kind in ("inner", "left") and not table.leaf.is_past and table.leaf.plan is None:
            for key in step.keys:
                column = self._plain_column(key.right.node, step.number)
                if column is None or len(rows) * SPARSE > collection.count():
                    continue
                if key.fold is not None and key.fold is not _fold_of(table.leaf, column):
                    continue  # the column's keys go by another collation
                values = key.left.values(rows, bindings)
                found = table.access.looked_up(collection, column, values, bindings)
                if found is not None:
                    return found
        return table.access.select(collection, bindings, view.database.check_interrupted)

    def _plain_column(self, node: Expression, table: int) -> int | None:
        if not isinstance(node, ColumnRef):
            return None
        owner, column = self.scope.place(node)
        return column if owner == table else None

    def explain(self, view: View) -> Explained:
        """The steps in the order in which they are taken."""
        first = self._tables[self._first]
        lines: Explained = [
            (0, first.access.describe(first.leaf.title)), *explained_leaf(first.leaf, view)
        ]  # fmt: skip
        for step in self._order:
            table = self._tables[step.number]
            how = "HASH JOIN" if step.keys else "NESTED LOOP JOIN"
            kind = "" if step.kind == "inner" else f"{step.kind.upper()} "
            shown = " AND ".join(self._shown(key) for key in step.keys)
            text = f"{kind}{how} {table.leaf.title}" + (f" ON {shown}" if shown else "")
            lines.append((0, Noted.of(text, step)))
            lines.append((1, table.access.describe(table.leaf.title)))
            lines += [(depth + 1, text) for depth, text in explained_leaf(table.leaf, view)]
        return lines

    def _shown(self, key: _KeyPair) -> str:
        return f"{self._side(key.left.node)} = {self._side(key.right.node)}"

    def _side(self, node: Expression) -> str:
        if not isinstance(node, ColumnRef):
            return "(expression)"
        table, column = self.scope.place(node)
        leaf = self._tables[table].leaf
        name = "rowid" if column < 0 else leaf.schema.columns[column].name
        return f"{leaf.name}.{name}"


def _flatten(source: Source, context: Context, leaves: list[Leaf], steps: list[Step]) -> None:
    """The tables from the left, and a step for each but the first."""
    if not isinstance(source, Join):
        leaves.append(leaf_of(source, context))
        return
    chain_: list[Join] = []
    current: Source = source
    while isinstance(current, Join):
        chain_.append(current)
        current = current.left
    leaves.append(leaf_of(current, context))
    for join in reversed(chain_):
        if join.kind not in KINDS:
            raise NotSupportedError(f"{join.kind.upper()} JOIN is not built yet")
        if isinstance(join.right, Join):
            raise NotSupportedError("a join in parentheses is not built yet")
        there = JoinScope(leaves.copy(), {}, context.subqueries)
        leaves.append(leaf := leaf_of(join.right, context, there))
        using = list(join.using)
        if join.kind == "natural":
            if join.on is not None or using:
                words = "a NATURAL join may not have an ON or USING clause"
                raise PlacedFault(words, join.position)
            using = _shared_names(leaves)
        step = Step(len(leaves) - 1, join, using)
        step.lateral = leaf.lateral
        if leaf.lateral is not None and join.kind in ("right", "full"):
            words = f"{leaf.title} in a {join.kind.upper()} JOIN cannot name what is left of it"
            raise PlacedFault(words, join.position)
        steps.append(step)


def _shared_names(leaves: Sequence[Leaf]) -> list[str]:
    """The columns that NATURAL joins by: of the last table and of one before it."""
    *before, last = [
        [leaf.schema.columns[index].name for index in leaf.schema.shown_columns] for leaf in leaves
    ]
    earlier = {name.lower() for names in before for name in names}
    return [name for name in last if name.lower() in earlier]


def _merged(leaves: Sequence[Leaf], steps: Sequence[Step]) -> dict[str, Merged]:
    """The columns that USING makes one."""
    merged: dict[str, Merged] = {}
    for step in steps:
        for name in step.using:
            owners = [
                number
                for number in range(step.number)
                if leaves[number].schema.position(name) is not None
            ]
            if not owners or leaves[step.number].schema.position(name) is None:
                raise PlacedFault(
                    f"cannot join using column {name} - column not present in both tables",
                    step.position,
                )
            known = merged.get(name.lower())
            if known is None:
                if len(owners) > 1:
                    raise PlacedFault(f"ambiguous reference to {name} in USING()", step.position)
                known = merged[name.lower()] = Merged(owners[0])
            known.tables.append(step.number)
            known.is_padded = known.is_padded or step.kind in ("right", "full")
    return merged


def _nullable(steps: Sequence[Step]) -> set[int]:
    """The tables whose rows an outer join may replace by NULLs."""
    found: set[int] = set()
    for step in steps:
        if step.kind in ("left", "full"):
            found.add(step.number)
        if step.kind in ("right", "full"):
            found.update(range(step.number))
    return found


def _joined(terms: Sequence[Expression]) -> Expression | None:
    """Terms as one condition."""
    if not terms:
        return None
    whole = terms[0]
    for term in terms[1:]:
        whole = Binary("AND", whole, term, term.position)
    return whole


def _of_one_table(term: Expression) -> Expression:
    """A term whose names need no table, because one table alone is in sight."""

    def unpinned(each: Node) -> Node | None:
        if isinstance(each, ColumnRef) and each.table is not None:
            return ColumnRef(each.name, None, each.position)
        return None

    return rewritten(term, unpinned)
