"""Context: what a collection knows about a question, as text for a prompt, within so many tokens.

    hits, best first --duplicates dropped--> passages --each whole, or cut where a sentence ends-->
    text

A passage is the text of one row under a line that says where it comes from:

    [1] notes 17, topic ui (score 0.8312)
    Prefers dark mode in every editor.

Rows are taken in the order of their scores as long as they fit. A text that does not fit is cut
behind the last sentence that does; where not even its first one fits, behind the last line, then
behind the last word. A row of which not even that fits, or, beside others, fewer than LEAST_WORDS
words, is left out, and the next one gets its turn.

Invariants
    CT1 `tokens` is what the counter says of the whole text, headings and gaps included, and never
        more than `max_tokens`, whatever the counter is.
    CT2 Equal hits give equal contexts: nothing depends on time, chance or order of a dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from m2mdb.index.text.tokenizer import tokenize_bytes
from m2mdb.pager.errors import DataError, InterfaceError, ProgrammingError

if TYPE_CHECKING:
    from m2mdb.collection import Collection
    from m2mdb.hits import Hits
    from m2mdb.index.schema import CollectionSchema

Counter = Callable[[str], int]  # a text's tokens
Shingles = set[tuple[bytes, ...]]
Order = Literal["score", "source"]
ORDERS = ("score", "source")
GAP = "\n\n"  # between passages
DUPLICATE = 0.8  # share of the shorter text's runs of words that another passage has already
SHINGLE = 3  # words of such a run
LEAST_WORDS = 16  # of a text that is cut behind a word, where others stand before it
CANDIDATES = 50  # hits that are looked at

_PIECE = re.compile(
    r"[A-Za-z]+|\d+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\d_]+|\n+|[^\w\s]|_"
)
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[」』”’）]*|\n\s*\n|$")


def approximate_tokens(text: str) -> int:
    """About how many tokens a language model makes of a text: a count that needs no model.

    A word of up to 6 Latin letters counts 1, and 1 for every 4 letters more; 3 digits, a sign, a
    run of line ends and a Han, kana or Hangul character 1 each; 2 letters of other scripts 1.
    """
    count = 0
    for found in _PIECE.finditer(text):
        first, size = text[found.start()], found.end() - found.start()
        if size == 1 or first == "\n":
            count += 1
        elif first.isdigit():
            count += -(-size // 3)
        elif first.isascii():
            count += 1 + max(0, -(-(size - 6) // 4))
        else:
            count += -(-size // 2)
    return count


@dataclass(frozen=True, slots=True)
class Passage:
    """One row of a context: `text` as it stands in the prompt, `source` the columns asked for."""

    id: Any
    text: str
    score: float
    tokens: int  # of the text alone
    source: dict[str, Any] = field(default_factory=dict)
    is_cut: bool = False  # the row's text goes on


@dataclass(frozen=True, slots=True)
class Context:
    """What goes into a prompt: `text`, made of `passages`, of `tokens` tokens (CT1).

    left_out    rows that did not fit
    duplicates  rows whose text a better one has already
    """

    text: str
    passages: tuple[Passage, ...]
    tokens: int
    left_out: int = 0
    duplicates: int = 0

    def __str__(self) -> str:
        return self.text

    def __len__(self) -> int:
        return len(self.passages)

    def __bool__(self) -> bool:
        return bool(self.passages)


Heading = Callable[[int, Passage], str]  # number from 1, passage


@dataclass(frozen=True, slots=True)
class Shape:
    """How a context is to look; checked by `shape_of`."""

    max_tokens: int
    count: Counter
    heading: Heading
    duplicates: float | None
    order: Order
    whole: bool


def shape_of(
    collection: str,
    max_tokens: Any,
    count: Counter | None,
    heading: Heading | None,
    duplicates: float | None,
    order: Any,
    whole: bool,
) -> Shape:
    """The shape of a context. Raises InterfaceError, ProgrammingError for what cannot be one."""
    if type(max_tokens) is not int:
        raise InterfaceError(f"max_tokens is {type(max_tokens).__name__}; wanted is an int")
    if max_tokens < 1:
        raise ProgrammingError(f"max_tokens is {max_tokens}; wanted is 1 or more")
    for name, given in (("count", count), ("heading", heading)):
        if given is not None and not callable(given):
            raise InterfaceError(f"{name} is {type(given).__name__}; wanted is a callable")
    if order not in ORDERS:
        raise ProgrammingError(f"order is {order!r}, not score or source")
    if duplicates is not None and not (isinstance(duplicates, int | float) and 0 < duplicates <= 1):
        raise ProgrammingError(f"duplicates is {duplicates!r}; wanted is more than 0, up to 1")

    def titled(number: int, passage: Passage) -> str:
        known = [each for each in passage.source.items() if each[1] is not None]
        said = "".join(f", {name} {value}" for name, value in known)
        return f"[{number}] {collection} {passage.id}{said} (score {passage.score:.4f})"

    counter = count or approximate_tokens
    return Shape(max_tokens, counter, heading or titled, duplicates, order, whole)


def text_column(schema: CollectionSchema, name: str | None, other: str = "") -> str:
    """The column whose texts are the passages; not the `other` one.

    Without a name it is what the only generated column is made of, the only FULLTEXT column, or
    the only TEXT column beside the primary key. Raises ProgrammingError where none is meant.
    """
    if name is not None:
        column = schema.columns[schema.column(name)]
        if column.type != "TEXT":
            raise ProgrammingError(f"text: {column.name} of {schema.name} is {column.type}, "
                                   "not TEXT")  # fmt: skip
        return column.name
    texts = [each for each in schema.columns if each.type == "TEXT" and not each.primary_key]
    texts = [each for each in texts if each.name.lower() != other.lower()]
    sources = {(each.generated or {}).get("from", "").lower() for each in schema.columns}
    for found in (
        [each for each in texts if each.name.lower() in sources],
        [each for each in texts if each.fulltext is not None],
        texts,
    ):
        if len(found) == 1:
            return found[0].name
    names = ", ".join(each.name for each in texts) or "none"
    raise ProgrammingError(f"which column has the texts? {schema.name} has {names}; say text=…")


def built(hits: Hits, text: str, sources: Sequence[str], shape: Shape) -> Context:
    """The context of a search's hits, which have the columns `text` and `sources`."""
    chosen: list[Passage] = []
    seen: list[Shingles] = []
    left_out = doubled = 0
    for hit, score in zip(hits, hits.scores.tolist(), strict=True):
        body = hit[text]
        if body is None or not body.strip():
            continue
        body = body.strip()
        shingles = _shingles(body) if shape.duplicates is not None else set()
        if any(_share(shingles, other) >= (shape.duplicates or 2.0) for other in seen):
            doubled += 1
            continue
        source = {name: hit[name] for name in sources}
        fitting = _fitting(chosen, Passage(hit.id, body, score, 0, source), shape)
        if fitting is None:
            left_out += 1
            continue
        chosen.append(fitting)
        seen.append(shingles)
    chosen = _ordered(chosen, shape)
    whole = _rendered(chosen, shape)
    # another order puts other numbers into headings, which a counter may weigh otherwise
    while chosen and _tokens(whole, shape) > shape.max_tokens:
        chosen.remove(min(chosen, key=lambda each: each.score))
        left_out += 1
        whole = _rendered(chosen, shape)
    counted = [
        Passage(each.id, each.text, each.score, _tokens(each.text, shape), each.source, each.is_cut)
        for each in chosen
    ]
    tokens = _tokens(whole, shape) if whole else 0
    return Context(whole, tuple(counted), tokens, left_out, doubled)


def _fitting(chosen: list[Passage], passage: Passage, shape: Shape) -> Passage | None:
    """The passage, whole or cut behind a sentence, as it fits behind those chosen; else None."""

    def fits(each: Passage) -> bool:
        return _tokens(_rendered([*chosen, each], shape), shape) <= shape.max_tokens

    if fits(passage):
        return passage
    if shape.whole:
        return None

    def cut(end: int) -> Passage:
        text = passage.text[:end].rstrip()
        return Passage(passage.id, text, passage.score, 0, passage.source, True)

    for ends_of in (sentence_ends, line_ends, word_ends):
        ends = ends_of(passage.text)[:-1]
        low, high = 0, len(ends)  # the cuts before `low` fit, those from `high` on do not
        while low < high:
            middle = (low + high) // 2
            if fits(cut(ends[middle])):
                low = middle + 1
            else:
                high = middle
        if low >= (LEAST_WORDS if chosen and ends_of is word_ends else 1):
            return cut(ends[low - 1])
    return None


def line_ends(text: str) -> list[int]:
    """Where the lines of a text end that have anything, ascending; the last is the text's end."""
    return [found.end() for found in _LINE.finditer(text)]


def word_ends(text: str) -> list[int]:
    """Where the words of a text end, ascending: before spaces; the last is the end of the text.

    A character of a script without spaces is a word.
    """
    return [found.end() for found in _WORD.finditer(text)]


def sentence_ends(text: str) -> list[int]:
    """Where the sentences of a text end, ascending; the last is the end of the text.

    A sentence ends at . ! ? … with what closes it, before a space, at 。！？, and at an empty line.
    """
    ends = {found.end() for found in _SENTENCE_END.finditer(text)} | {len(text)}
    return sorted(end for end in ends if end)


def _rendered(passages: Sequence[Passage], shape: Shape) -> str:
    blocks = []
    for number, passage in enumerate(passages, 1):
        heading = shape.heading(number, passage)
        if not isinstance(heading, str):
            raise DataError(f"heading gave {type(heading).__name__}; expected a str")
        blocks.append(f"{heading}\n{passage.text}" if heading else passage.text)
    return GAP.join(blocks)


def _tokens(text: str, shape: Shape) -> int:
    found = shape.count(text)
    if isinstance(found, bool) or not hasattr(found, "__index__") or int(found) < 0:
        raise DataError(f"count gave {found!r} for a text; expected a number of tokens")
    return int(found)


def _ordered(passages: list[Passage], shape: Shape) -> list[Passage]:
    """By score as they were found, or by their source columns and ids."""
    if shape.order == "score":
        return passages
    return sorted(passages, key=lambda each: [*map(_rank, each.source.values()), _rank(each.id)])


def _rank(value: Any) -> tuple[int, Any]:
    """NULL, then numbers, then moments and texts: what compares with its like."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    if hasattr(value, "timestamp"):
        return 2, value.timestamp()
    return 3, str(value)


def _shingles(text: str) -> Shingles:
    """The runs of SHINGLE words, folded; all words as one run where there are fewer."""
    words = tokenize_bytes(text)
    last = max(len(words) - SHINGLE, 0)
    return {tuple(words[at : at + SHINGLE]) for at in range(last + 1)}


def _share(one: Shingles, other: Shingles) -> float:
    """How much of the smaller set both have."""
    return len(one & other) / max(1, min(len(one), len(other)))


def context_of(
    collection: Collection,
    query: str | None,
    columns: tuple[str | None, str | Sequence[str]],
    shape: Shape,
    is_counted: bool,
    search: dict[str, Any],
) -> Context:
    """`Collection.context`.

    columns     of the texts, and of what is said of a source
    is_counted  the shape has the caller's counter
    """
    from dataclasses import replace

    schema = collection.schema
    text = text_column(schema, columns[0])
    named = [columns[1]] if isinstance(columns[1], str) else columns[1]
    sources = [schema.columns[schema.column(name)].name for name in named]
    if not is_counted and query is not None:
        counter = counter_of(collection, schema)
        shape = shape if counter is None else replace(shape, count=counter)
    hits = collection.search(query, returning=list(dict.fromkeys([text, *sources])), **search)
    return built(hits, text, sources, shape)


def counter_of(collection: Collection, schema: CollectionSchema) -> Counter | None:
    """`count_tokens` of the encoder that the generated column names, where it has one."""
    found = [schema.columns[index] for index in schema.generated_columns]
    shown = [column for column in found if not column.is_hidden]
    if len(shown) != 1 or shown[0].generated is None:
        return None
    encoder = collection.connection.registry(shown[0].generated["encoder"], shown[0].dimension)
    return getattr(encoder, "count_tokens", None)
