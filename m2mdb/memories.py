"""What a collection offers to programs that remember: contexts, categories, another model.

Part of `Collection`, and apart from it because it stands on searches and statements alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from m2mdb.categories import Categories
    from m2mdb.collection import Collection
    from m2mdb.connection import Connection
    from m2mdb.context import Context, Counter, Heading, Order
    from m2mdb.index.reembedding import Reembedded
    from m2mdb.query.copying import Progress


class Memories:
    """Calls of a `Collection`."""

    __slots__ = ()
    connection: Connection
    name: str

    def context(
        self,
        query: str | None = None,
        *,
        max_tokens: int,
        text: str | None = None,
        source: str | Sequence[str] = (),
        count: Counter | None = None,
        heading: Heading | None = None,
        duplicates: float | None = 0.8,
        order: Order = "score",
        whole: bool = False,
        k: int = 50,
        **search: Any,
    ) -> Context:
        """What is known about `query`, as text for a prompt of at most `max_tokens` tokens.

        text        the column of the texts; else the one that is encoded, or the only FULLTEXT one
        source      columns that say where a passage comes from
        count       a callable from a text to its tokens; else `count_tokens` of the encoder that
                    `query` goes through, else `m2mdb.approximate_tokens`
        heading     a callable from number and passage to the line above it; "" for none
        duplicates  the share of a text's runs of three words that leaves it out when a better
                    passage has them; None keeps all
        order       of the passages that fit: "score", or "source" by those columns
        whole       never cut a text behind a sentence
        k, search   the hits to choose from, as `Collection.search` takes them: near, match, where,
                    params, fusion, min_score, decay, diversity, …

        Raises what `search` raises, InterfaceError and ProgrammingError for a wrong argument.
        """
        from m2mdb.context import context_of, shape_of

        shape = shape_of(self.name, max_tokens, count, heading, duplicates, order, whole)
        search["k"] = k
        whole_self = cast("Collection", self)
        return context_of(whole_self, query, (text, source), shape, count is not None, search)

    def categorise(
        self, categories: Categories, *, where: str | None = None, params: Any = ()
    ) -> dict[str, int]:
        """Give rows their classes; how many rows each class got.

        where, params  which rows; without them those that have no class yet

        One transaction. Rows keep what they have where the class is unsure and there is no default.
        """
        from m2mdb.categories import categorise_rows

        return categorise_rows(self, categories, where, params)

    def reembed(
        self, encoder: str, *, column: str | None = None, progress: Progress | None = None
    ) -> Reembedded:
        """Bring the generated VECTOR column to another encoder, as REEMBED … USING.

        column     which one, where there are several
        progress   called with (rows done, rows to do) after each batch; what it raises ends the
                   call, and the next one goes on from there
        """
        from m2mdb.index.reembedding import reembed

        return self.connection.within_one(
            lambda database: reembed(database, self.name, encoder, column, progress)
        )
