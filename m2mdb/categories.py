"""Categories: which of a program's classes a text belongs to, by words and by examples.

    text --whole words and phrases--> the class with most of them --none, or two alike--+
                                                                                        |
         +---- nearest centroid, by a margin over the second <-------------------------+
         |
         +--none learned, or too close--> the default class, or None

    ui = Categories({"ui": ["dark mode", "font"], "storage": ["disk", "backup"]}, stem="english")

Words are compared as a FULLTEXT column would compare them: folded, stemmed where `stem` says so,
whole ("call" is not in "scallop"), phrases as neighbours in their order.

Invariants
    CA1 The same definitions and examples give the same class, whatever the order of the rows.
    CA2 A class is only given for a reason: words of it, or a centroid that is nearer than any other
        by `margin`. All else is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from m2mdb.context import text_column
from m2mdb.index.text.options import parse_options
from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError
from m2mdb.query.words import quoted
from m2mdb.searching import around

if TYPE_CHECKING:
    from m2mdb.collection import Collection
    from m2mdb.index.collection import CollectionView
    from m2mdb.index.database import Database
    from m2mdb.index.encoder import Encoder
    from m2mdb.index.view import WriteView
    from m2mdb.memories import Memories

    Matrix = np.ndarray[Any, np.dtype[np.float64]]

MARGIN = 0.05  # cosines: what a class's centroid must be nearer than the second one's
BATCH_ROWS = 4096  # that are categorised by one statement's step
ANALYSIS = ("fold", "code", "stem", "stop")  # options of FULLTEXT that may be given


class _Phrase(NamedTuple):
    words: tuple[bytes, ...]
    name: str  # of its class
    number: int  # among all phrases


class Categories:
    """Classes with their words, and centroids of what they look like; see the module."""

    def __init__(
        self,
        classes: Mapping[str, Iterable[str]],
        *,
        default: str | None = None,
        column: str = "category",
        text: str | None = None,
        margin: float = MARGIN,
        **analysis: Any,
    ) -> None:
        """classes   words and phrases by the class that they speak for; a class may have none
        default   the class of what is unsure
        column    where the class of a row is kept
        text      the column that is read; without it the one that `Collection.context` would read
        margin    0..2: how much nearer the best centroid must be than the second, in cosines
        analysis  fold, code, stem, stop, as FULLTEXT takes them

        Raises InterfaceError, ProgrammingError for what can be no class.
        """
        if not isinstance(classes, Mapping):
            raise InterfaceError(f"classes are {type(classes).__name__}; wanted is a dict")
        unknown = sorted(set(analysis) - set(ANALYSIS))
        if unknown:
            raise ProgrammingError(f"Categories takes {', '.join(ANALYSIS)}, not {unknown[0]}")
        if not 0 <= margin <= 2:
            raise ProgrammingError(f"margin is {margin!r}; expected 0 to 2")
        self._analyzer = parse_options(analysis).analyzer({})
        self.default, self.column, self.text, self.margin = default, column, text, float(margin)
        self.names: list[str] = list(classes)
        self._phrases: dict[bytes, list[_Phrase]] = {}  # by their first word
        number = 0
        for name, phrases in classes.items():
            if not isinstance(name, str) or isinstance(phrases, str):
                raise InterfaceError(
                    f"class {name!r}: wanted is a text, and a list of words and phrases"
                )
            for phrase in phrases:
                words = tuple(self._analyzer.terms(_checked(phrase, name)))
                if not words:
                    raise ProgrammingError(f"class {name!r}: {phrase!r} has no word")
                self._phrases.setdefault(words[0], []).append(_Phrase(words, name, number))
                number += 1
        self._sums: dict[str, Matrix] = {}  # of unit vectors, by class
        self._counts: dict[str, int] = {}
        self.encoder: Encoder | None = None

    # ----------------------------------------------------------------- words

    def found(self, text: str) -> dict[str, int]:
        """How many of each class's words and phrases are in a text; classes without any are out."""
        terms = self._analyzer.terms(text)
        met: dict[int, str] = {}
        for at, term in enumerate(terms):
            for phrase in self._phrases.get(term, ()):
                if tuple(terms[at : at + len(phrase.words)]) == phrase.words:
                    met[phrase.number] = phrase.name
        counts: dict[str, int] = {}
        for name in met.values():
            counts[name] = counts.get(name, 0) + 1
        return counts

    def by_words(self, text: str) -> str | None:
        """The class with most words in a text; None without any, and where two have as many."""
        counts = self.found(text)
        most = max(counts.values(), default=0)
        best = [name for name, count in counts.items() if count == most]
        return best[0] if len(best) == 1 else None

    # ----------------------------------------------------------------- centroids

    def learn(self, examples: Mapping[str, Sequence[str]], encoder: Encoder) -> None:
        """Add examples of classes to their centroids; `encoder` then serves `of` too.

        Raises ProgrammingError where the encoder is another than before, or a class unknown.
        """
        unknown = [name for name in examples if name not in self.names]
        if unknown:
            known = ", ".join(self.names) or "none"
            raise ProgrammingError(f"unknown class {unknown[0]!r}; known are {known}")
        self._use(encoder)
        for name, texts in examples.items():
            if isinstance(texts, str):
                raise InterfaceError(f"examples of {name!r} are a text; wanted is a list of them")
            if texts:
                self.learn_vectors(encoder.encode(list(texts)), [name] * len(texts))

    def learn_vectors(self, vectors: Any, labels: Sequence[str | None]) -> None:
        """Add vectors, of shape (len(labels), d), to the centroids of their classes.

        A vector without a label, or without a direction, is passed over. Raises DataError for
        other shapes and what is not finite.
        """
        matrix = np.asarray(vectors, np.float64)
        known = next((each.shape[0] for each in self._sums.values()), None)
        if matrix.ndim != 2 or len(matrix) != len(labels) or not np.isfinite(matrix).all():
            raise DataError(
                f"vectors of shape {matrix.shape} for {len(labels)} labels; expected a finite "
                f"matrix with a row a label"
            )
        if known is not None and known != matrix.shape[1]:
            raise DataError(f"vectors have dimension {matrix.shape[1]}, those before {known}")
        unit, has_direction = _unit(matrix)
        for name in dict.fromkeys(labels):
            if name is None:
                continue
            chosen = has_direction & np.array([each == name for each in labels], bool)
            if chosen.any():
                zero = np.zeros(matrix.shape[1])
                self._sums[name] = self._sums.get(name, zero) + unit[chosen].sum(axis=0)
                self._counts[name] = self._counts.get(name, 0) + int(chosen.sum())
                if name not in self.names:
                    self.names.append(name)

    def by_centroids(self, vectors: Any) -> list[str | None]:
        """For each vector the class of the nearest centroid; None where the second is too near.

        One class alone is nobody's choice: without two centroids all are None.
        """
        matrix = np.asarray(vectors, np.float64)
        if len(self._sums) < 2:
            return [None] * len(matrix)
        names = sorted(self._sums)
        centroids, _ = _unit(np.stack([self._sums[name] for name in names]))
        if matrix.ndim != 2 or matrix.shape[1] != centroids.shape[1]:
            raise DataError(
                f"vectors of shape {matrix.shape}; the centroids have dimension "
                f"{centroids.shape[1]}"
            )
        unit, has_direction = _unit(matrix)
        cosines = unit @ centroids.T
        order = np.sort(cosines, axis=1)
        is_sure = has_direction & (order[:, -1] - order[:, -2] >= self.margin)
        best = cosines.argmax(axis=1).tolist()
        return [
            names[at] if sure else None for at, sure in zip(best, is_sure.tolist(), strict=True)
        ]

    @property
    def learned(self) -> dict[str, int]:
        """How many examples each class has."""
        return dict(self._counts)

    # ----------------------------------------------------------------- both

    def of(self, text: str) -> str | None:
        """The class of a text: by its words, else by centroids where an encoder has learned some,
        else the default.
        """
        return self.of_many([text])[0]

    def of_many(
        self,
        texts: Sequence[str | None],
        vectors: Any = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[str | None]:
        """As `of` for many texts; NULL has the default.

        vectors  of the texts, of shape (len(texts), d) with zeros where there is none; without
                 them the encoder of `learn` makes those that are needed
        known    vectors of texts that it need not make
        """
        found = [None if text is None else self.by_words(_checked(text, "of")) for text in texts]
        open_ = [at for at, name in enumerate(found) if name is None and texts[at] is not None]
        if open_ and len(self._sums) > 1 and (vectors is not None or self.encoder is not None):
            if vectors is not None:
                chosen = np.asarray(vectors, np.float64)[open_]
            else:
                chosen = self._encoded([texts[at] or "" for at in open_], known or {})
            for at, name in zip(open_, self.by_centroids(chosen), strict=True):
                found[at] = name
        return [self.default if name is None else name for name in found]

    def learn_from(self, collection: Collection, where: str | None = None, params: Any = ()) -> int:
        """Add the rows of a collection that have a class, by its VECTOR column; how many that were.

        Raises ProgrammingError where the collection has not exactly one VECTOR column.
        """
        return learn_from(self, collection, where, params)

    def _encoded(self, texts: list[str], known: Mapping[str, Any]) -> Any:
        assert self.encoder is not None
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        fresh = dict(zip(missing, self.encoder.encode(missing), strict=True)) if missing else {}
        return np.stack([fresh[text] if text in fresh else known[text] for text in texts])

    def _use(self, encoder: Encoder) -> None:
        if self.encoder is not None and self.encoder.fingerprint != encoder.fingerprint:
            raise ProgrammingError(
                f"the centroids are of {self.encoder.model_id}; {encoder.model_id} is another model"
            )
        self.encoder = encoder

    def __repr__(self) -> str:
        return f"<m2mdb.Categories {', '.join(self.names)}>"


def _check_kind(categories: object) -> None:
    """InterfaceError for what is no Categories: it says how one is made."""
    if not isinstance(categories, Categories):
        raise InterfaceError(
            f"categories are {type(categories).__name__}; wanted is m2mdb.Categories({{…}})"
        )


def _checked(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise InterfaceError(f"class {name!r}: {text!r} is {type(text).__name__}; wanted is a str")
    return text


def _unit(matrix: Matrix) -> tuple[Matrix, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Rows of length one, and which rows had a direction."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
    return matrix / np.where(lengths > 0, lengths, 1.0)[:, None], lengths > 0


# ------------------------------------------------------------------------- rows


def labelled(
    database: Database, collection: str, rows: tuple[dict[str, Any], int], categories: Categories
) -> tuple[dict[str, Any], int]:
    """Columns that are to be added and their number of rows, the category filled where absent."""
    _check_kind(categories)
    columns, count = rows
    if not count:
        return rows
    with database.reading() as view:
        schema = view.collection(collection).schema
    named = {name.lower(): name for name in columns}
    label = schema.columns[schema.column(categories.column)].name
    target = named.get(label.lower(), label)
    source = named.get(text_column(schema, categories.text, categories.column).lower())
    given = list(columns[target]) if target in columns else [None] * count
    texts = [None] * count if source is None else list(columns[source])
    wanted = [at for at, value in enumerate(given) if value is None]
    some = [texts[at] if isinstance(texts[at], str) else None for at in wanted]
    known: dict[str, Any] = {}
    if categories.encoder is not None:  # what is to be stored is not encoded twice
        own = categories.encoder.model_id, categories.encoder.fingerprint
        for space, vectors in database.ahead.items():
            known.update(vectors if space[1:3] == own else {})
    for at, name in zip(wanted, categories.of_many(some, known=known), strict=True):
        given[at] = name
    return {**columns, target: given}, count


def categorise_rows(
    collection: Memories, categories: Categories, where: str | None, params: Any
) -> dict[str, int]:
    """`Collection.categorise`."""
    from m2mdb.searching import condition

    _check_kind(categories)
    connection, name = collection.connection, collection.name

    def run(write: WriteView) -> dict[str, int]:
        view = write.collection(name)
        schema = view.schema
        target = schema.column(categories.column)
        text = schema.column(text_column(schema, categories.text, categories.column))
        is_wanted = condition(connection, write, name, where, params)
        rowids: list[int] = []
        for part in view.parts():
            mask = np.ones(part.size, bool) if part.live is None else part.live.copy()
            if is_wanted is not None:
                mask &= is_wanted.mask(part)
            elif part.size:
                values = part.values(target)[: part.size]
                mask &= np.fromiter((value is None for value in values), bool, part.size)
            rowids += part.rowids[np.flatnonzero(mask)].tolist()
        counts: dict[str, int] = {}
        for start in range(0, len(rowids), BATCH_ROWS):
            write.database.check_interrupted()
            some = rowids[start : start + BATCH_ROWS]
            _categorise(write, (name, text, target), categories, some, counts)
        return counts

    return connection.write(run)


def _categorise(
    write: WriteView,
    what: tuple[str, int, int],
    categories: Categories,
    rowids: Sequence[int],
    counts: dict[str, int],
) -> None:
    """Give some rows their classes, and count them."""
    name, text, target = what
    view = write.collection(name)
    found = [(rowid, place) for rowid in rowids if (place := view.place(rowid)) is not None]
    places = [place for _, place in found]
    if not places:
        return
    texts = view.column_at(text, places)
    vectors = _vectors(view, places) if categories.encoder is None else None
    classes = categories.of_many(texts, vectors)
    before = view.column_at(target, places)
    changed = [
        (rowid, each)
        for (rowid, _), each, old in zip(found, classes, before, strict=True)
        if each is not None and each != old
    ]
    for _, each in changed:
        counts[each] = counts.get(each, 0) + 1
    if changed:
        values = {view.schema.columns[target].name: [each for _, each in changed]}
        write.update(name, [rowid for rowid, _ in changed], values)


def _vectors(view: CollectionView, places: Sequence[Any]) -> Any:
    """The rows' vectors of the only VECTOR column, zeros for NULL; None where none is meant."""
    if len(view.schema.near_columns) != 1:
        return None
    (index,) = view.schema.near_columns
    matrix = np.zeros((len(places), view.schema.columns[index].dimension))
    for row, vector in enumerate(view.column_at(index, places)):
        if vector is not None:
            matrix[row] = vector
    return matrix


def learn_from(
    categories: Categories, collection: Collection, where: str | None, params: Any
) -> int:
    """`Categories.learn_from`."""
    schema = collection.schema
    if len(schema.near_columns) != 1:
        raise ProgrammingError(
            f"learning from {schema.name} needs exactly one VECTOR column; it has "
            f"{len(schema.near_columns)}"
        )
    vector = quoted(schema.columns[schema.near_columns[0]].name)
    label = quoted(schema.columns[schema.column(categories.column)].name)
    source = f"SELECT {label}, {vector} FROM {quoted(collection.name)}"
    count = 0
    with around(f"{source} WHERE {label} IS NOT NULL AND {vector} IS NOT NULL AND (") as head:
        text = f"{head}{'true' if where is None else where}) ORDER BY rowid"
        cursor = collection.connection.execute(text, params)
    while rows := cursor.fetchmany(BATCH_ROWS):
        categories.learn_vectors(np.stack([row[1] for row in rows]), [str(row[0]) for row in rows])
        count += len(rows)
    return count
