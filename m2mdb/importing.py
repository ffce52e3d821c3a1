"""Importing: `m2mdb import`, from JSON Lines or CSV to a collection.

The documents are read twice: once for the types of all columns, so that nothing is written where
a line is malformed, and once to add them, a transaction a batch.

    values of a column, over all documents      type
    true and false                              BOOLEAN
    whole numbers of 64 bits                    INTEGER
    numbers                                     REAL
    lists, objects, or those and others         JSON
    anything else                               TEXT, other values in their JSON spelling

Invariants
    I1  Nothing is written before all documents, and the vectors' shape, were seen to fit.
    I2  An interrupt keeps the committed batches whole and says how many rows they hold.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from m2mdb.arrays import load_array
from m2mdb.index.schema import COMPUTED
from m2mdb.pager.errors import DataError, OperationalError, ProgrammingError
from m2mdb.tables import Progress

if TYPE_CHECKING:
    from argparse import Namespace

    from m2mdb.collection import Collection
    from m2mdb.connection import Connection

Document = dict[str, Any]
VECTOR_TYPES = {"float16": "f16", "float32": "f32", "float64": "f32", "int8": "i8"}
LARGEST_EXACT = 2**53  # beyond it a float no longer holds every whole number


class Interrupted(Exception):
    """Ctrl-C came between or inside batches; the committed ones stay."""


class ColumnFacts:
    """What the values of one column are, over all documents."""

    __slots__ = ("kinds", "largest", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kinds: set[str] = set()
        self.largest = 0

    def see(self, value: Any) -> None:
        """Take one value into account."""
        kind = type(value).__name__
        self.kinds.add(kind)
        if kind == "int":
            self.largest = max(self.largest, abs(value + (value < 0)))

    @property
    def type(self) -> str:
        """The column type that holds all values without loss."""
        kinds = self.kinds - {"NoneType"}
        if kinds & {"dict", "list"}:
            return "JSON"
        if kinds == {"bool"}:
            return "BOOLEAN"
        if kinds == {"int"} and self.largest < 2**63:
            return "INTEGER"
        if kinds == {"float"} or (kinds == {"int", "float"} and self.largest <= LARGEST_EXACT):
            return "REAL"
        return "TEXT"


def read_documents(path: str) -> Iterator[Document]:
    """The documents of a .jsonl or .csv file, packed with gzip or not.

    Raises DataError naming the line that is malformed, OperationalError where there is no file.
    """
    name = path.removesuffix(".gz")
    try:
        with open_text(path) as file:
            yield from (read_csv if name.endswith(".csv") else read_jsonl)(file, path)
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise OperationalError(f"{path}: {error.strerror or error}") from error


def open_text(path: str) -> IO[str]:
    """The file as UTF-8 text."""
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")


def read_jsonl(file: IO[str], path: str) -> Iterator[Document]:
    """One JSON object a line; empty lines are passed over."""
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        if not isinstance(document, dict):
            raise DataError(
                f"{path}, line {number}: {type(document).__name__}, wanted is an object"
            )
        yield document


def read_csv(file: IO[str], path: str) -> Iterator[Document]:
    """One record a line under a line of names; numbers become numbers, nothing becomes NULL."""
    import csv

    csv.field_size_limit(1 << 30)
    reader = csv.reader(file)
    try:
        names = next(reader, [])
        for record in reader:
            if not record:
                continue
            if len(record) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(record)} fields, "
                    f"the first line names {len(names)}"
                )
            yield dict(zip(names, map(csv_value, record), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def csv_value(text: str) -> Any:
    """A field as a number where writing the number gives the same text back."""
    if not text:
        return None
    if text[-1].isdigit() and text[0] in "-0123456789":
        try:
            number: int | float = float(text) if "." in text or "e" in text else int(text)
        except ValueError:
            return text
        if str(number) == text and math.isfinite(number):
            return number
    return text


class Import:
    """One run of `m2mdb import`."""

    def __init__(self, connection: Connection, options: Namespace) -> None:
        self.connection = connection
        self.options = options
        self.added = 0
        self.documents = 0
        self.seconds = 0.0
        self.warnings: list[str] = []
        self.facts: dict[str, ColumnFacts] = {}
        self.vectors: np.ndarray[Any, Any] | None = None

    def run(self) -> None:
        """Look at everything, create the collection, add the batches (I1).

        Raises Interrupted at Ctrl-C once batches are being added (I2).
        """
        start = time.perf_counter()
        self.survey()
        self.load_vectors()
        if self.options.encoder is not None:
            self.source()
            self.encoder()
        collection = self.create()
        before = collection.count()
        try:
            self.add(collection)
        except KeyboardInterrupt:
            self.added = collection.count() - before
            raise Interrupted from None
        finally:
            self.seconds = time.perf_counter() - start

    def survey(self) -> None:
        """The columns and their types, from all documents."""
        progress = Progress(f"reading {self.options.docs}:")
        for document in read_documents(self.options.docs):
            self.documents += 1
            for key, value in document.items():
                facts = self.facts.get(key)
                if facts is None:
                    facts = self.facts[key] = ColumnFacts(self.column_name(key))
                facts.see(value)
            progress.add()
        progress.close()
        if not self.facts:
            raise DataError(f"{self.options.docs} holds no documents")
        for name in (self.options.key, *self.options.fulltext, self.options.encode):
            if name is not None:
                self.fact(name)

    def column_name(self, key: str) -> str:
        """The column of a key: itself, unless the name is taken or computed."""
        taken = {facts.name.lower() for facts in self.facts.values()}
        taken.update(COMPUTED)
        if self.options.vectors or self.options.encoder:
            taken.add(self.options.vector_column.lower())
        candidates = itertools.chain([key], (f"{key}_{i}" for i in itertools.count(2)))
        name = next(name for name in candidates if name and name.lower() not in taken)
        if name != key:
            self.warnings.append(f"{key!r} cannot be a column's name here; it became {name!r}")
        return name

    def fact(self, name: str) -> ColumnFacts:
        """The facts of a column named by an option.

        Raises ProgrammingError where no document has it.
        """
        for key, facts in self.facts.items():
            if name in (key, facts.name):
                return facts
        raise ProgrammingError(
            f"no document of {self.options.docs} has {name!r}; there are {', '.join(self.facts)}"
        )

    def load_vectors(self) -> None:
        """The vectors, mapped; DataError where shape or type do not fit the documents."""
        path = self.options.vectors
        if path is None:
            return
        if self.options.encoder is not None:
            raise ProgrammingError("--vectors and --encoder exclude each other")
        vectors = load_array(path, path, mmap_mode="r")
        if vectors.ndim != 2 or len(vectors) != self.documents:
            raise DataError(
                f"{path}: shape {vectors.shape}, wanted is ({self.documents}, dimension): "
                "a row for each document"
            )
        if vectors.dtype.name not in VECTOR_TYPES:
            raise DataError(f"{path}: {vectors.dtype}, wanted is one of {', '.join(VECTOR_TYPES)}")
        self.vectors = vectors

    def create(self) -> Collection:
        """The collection, new or, with --append, the existing one."""
        names = [found.name.lower() for found in self.connection.collections()]
        if self.options.collection.lower() in names:
            if not self.options.append:
                raise ProgrammingError(
                    f"collection {self.options.collection} exists; --append adds to it"
                )
            return self.connection.collection(self.options.collection)
        return self.connection.create_collection(self.options.collection, self.declarations())

    def declarations(self) -> dict[str, str]:
        """The columns with their types and constraints."""
        options = self.options
        key = None if options.key is None else self.fact(options.key)
        fulltext = [self.fact(name) for name in options.fulltext]
        found = {}
        for facts in self.facts.values():
            declared = facts.type
            if facts in fulltext and declared != "JSON":
                declared = "TEXT"
            found[facts.name] = (
                declared
                + (" PRIMARY KEY" if facts is key else "")
                + (" FULLTEXT" if facts in fulltext else "")
            )
        if self.vectors is not None:
            dtype = VECTOR_TYPES[self.vectors.dtype.name]
            dimension = self.vectors.shape[1]
            found[options.vector_column] = f"VECTOR({dimension}, {dtype}) METRIC {options.metric}"
        if options.encoder is not None:
            dimension = self.encoder().dimensions
            found[options.vector_column] = f"VECTOR({dimension}) METRIC {options.metric}"
        return found

    def encoder(self) -> Any:
        """The encoder that --encoder names."""
        return self.connection.encoder(self.options.encoder, self.options.dimensions)

    def source(self) -> ColumnFacts:
        """The column whose texts are encoded: --encode, else the only --fulltext one."""
        if self.options.encode is not None:
            return self.fact(self.options.encode)
        if len(self.options.fulltext) == 1:
            return self.fact(self.options.fulltext[0])
        raise ProgrammingError("--encoder needs --encode NAME: which column holds the text")

    def add(self, collection: Collection) -> None:
        """Add all documents, a transaction a batch (I2)."""
        types = {column.name: column.type for column in collection.schema.columns}
        encoder = None if self.options.encoder is None else self.encoder()
        source = None if encoder is None else self.source()
        progress = Progress(f"adding to {collection.name}:", self.documents)
        documents = read_documents(self.options.docs)
        position = 0
        while batch := list(itertools.islice(documents, self.options.batch)):
            columns: dict[str, Any] = {
                facts.name: [
                    stored(document.get(key), types.get(facts.name, "")) for document in batch
                ]
                for key, facts in self.facts.items()
            }
            if self.vectors is not None:
                chunk = self.vectors[position : position + len(batch)]
                wide = chunk.dtype == np.float64
                columns[self.options.vector_column] = np.asarray(
                    chunk, np.float32 if wide else None
                )
            if encoder is not None and source is not None:
                texts = [text or "" for text in columns[source.name]]
                columns[self.options.vector_column] = encoder.encode(texts)
            before = self.connection.total_changes
            collection.add(columns, on_conflict=self.options.on_conflict)
            self.added += self.connection.total_changes - before
            position += len(batch)
            progress.add(len(batch))
        progress.close()

    def summary(self) -> dict[str, Any]:
        """What was done, for --json."""
        return {
            "collection": self.options.collection,
            "documents": self.documents,
            "added": self.added,
            "seconds": round(self.seconds, 3),
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """What was done, in a sentence."""
        rate = self.added / self.seconds if self.seconds else 0.0
        return (
            f"{self.options.collection}: {self.added:,} rows added in {self.seconds:.1f} s "
            f"({rate:,.0f} rows/s)"
        )


def stored(value: Any, type: str) -> Any:
    """A document's value as its column takes it."""
    if value is None or isinstance(value, str):
        if type == "JSON" and value is not None:
            return json.dumps(value, ensure_ascii=False)
        return value
    if type == "JSON" or isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if type == "TEXT":
        return json.dumps(value)
    return value
