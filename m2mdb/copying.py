"""Copying: the files that COPY reads and writes, by their formats.

    parquet        any columns; needs pyarrow          jsonl, ndjson  an object a line
    csv, tsv       a line of names, then records       npy            one VECTOR column, a matrix
    fvecs          one VECTOR column: for each row its dimension (int32) and its float32 numbers

The format is the option `format` or the end of the path; `.jsonl.gz` and `.csv.gz` are unpacked
when they are read.

Invariants
    CY1 A file that is written is there whole or not at all: it is written beside its place, synced
        and renamed.
    CY2 COPY TO and then COPY FROM gives the same rows; what a format cannot hold is an error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from m2mdb.copy_arrays import FvecsReader, FvecsWriter, NpyReader, NpyWriter
from m2mdb.copy_parquet import ParquetReader, ParquetWriter
from m2mdb.copy_text import CsvReader, CsvWriter, JsonlReader, JsonlWriter
from m2mdb.pager.errors import DataError, OperationalError, ProgrammingError
from m2mdb.pager.io_errors import io_error

if TYPE_CHECKING:
    from m2mdb.index.schema import CollectionSchema
    from m2mdb.query.copying import FileReader, FileWriter, Options

READERS: dict[str, Callable[..., Any]] = {
    "csv": CsvReader,
    "fvecs": FvecsReader,
    "jsonl": JsonlReader,
    "npy": NpyReader,
    "parquet": ParquetReader,
}
WRITERS: dict[str, Callable[..., Any]] = {
    "csv": CsvWriter,
    "fvecs": FvecsWriter,
    "jsonl": JsonlWriter,
    "npy": NpyWriter,
    "parquet": ParquetWriter,
}
SAME = {"ndjson": "jsonl", "tsv": "csv", "pq": "parquet"}
KNOWN_OPTIONS = {
    "csv": {"delimiter"},
    "fvecs": {"column"},
    "jsonl": set[str](),
    "npy": {"column"},
    "parquet": set[str](),
}


def format_of(path: str, options: Options) -> tuple[str, dict[str, Any]]:
    """The format of a file and its own options.

    Raises ProgrammingError: an unknown format or option.
    """
    ending = path.removesuffix(".gz").rpartition(".")[2].lower()
    name = str(options.get("format", ending)).lower()
    wanted = SAME.get(name, name)
    if wanted not in READERS:
        raise ProgrammingError(
            f"COPY {path}: format {name!r} is none of {', '.join(sorted([*READERS, *SAME]))}; "
            "say (format = 'csv') or the like"
        )
    own = {key: value for key, value in options.items() if key not in ("format", "on_conflict")}
    unknown = sorted(set(own) - KNOWN_OPTIONS[wanted])
    if unknown:
        known = ", ".join(sorted({"format", "on_conflict"} | KNOWN_OPTIONS[wanted]))
        raise ProgrammingError(
            f"COPY: unknown option {unknown[0]!r} of {wanted}; known are {known}"
        )
    if name == "tsv":
        own.setdefault("delimiter", "\t")
    return wanted, own


class OsFiles:
    """Files of the operating system; see `query.copying.Files`."""

    @contextlib.contextmanager
    def open_reader(
        self, path: str, options: Options, schema: CollectionSchema
    ) -> Iterator[FileReader]:
        """A file to be read; DataError for one that is malformed."""
        name, own = format_of(path, options)
        with _told(path, "read"), contextlib.ExitStack() as stack:
            reader = READERS[name](path, schema, own)
            stack.callback(reader.close)
            yield reader

    @contextlib.contextmanager
    def open_writer(
        self, path: str, options: Options, schema: CollectionSchema, about: tuple[int, str]
    ) -> Iterator[FileWriter]:
        """A file to be written; it takes its place when the block ends well (CY1)."""
        name, own = format_of(path, options)
        if "on_conflict" in options:
            raise ProgrammingError("COPY … TO: on_conflict is an option of COPY … FROM")
        if path.endswith(".gz"):
            raise ProgrammingError(f"COPY … TO {path}: packed files are read, not written")
        rows, database_path = about
        refuse_own_files(database_path, path)
        real = os.path.realpath(path)
        partial = f"{real}.{os.getpid()}.part"
        with _told(path, "write"):
            try:
                writer = WRITERS[name](partial, schema, own, rows)
                try:
                    yield writer
                finally:
                    writer.close()
                _synced(partial)
                os.replace(partial, real)
                _synced(os.path.dirname(real) or ".")
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial)
                raise


def _synced(path: str) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _told(path: str, operation: str) -> Iterator[None]:
    """Errors of the system and of decoding as the database's own, with the path."""
    try:
        yield
    except (UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        if error.errno is None:  # as gzip tells of a file that is none
            raise DataError(f"{path}: {error}") from error
        raise io_error(error, operation, path) from error


def refuse_own_files(database_path: str, path: str) -> None:
    """Raise OperationalError where a path means the database itself or a file of its own."""
    real = os.path.realpath(path)
    for own in (database_path, database_path + "-wal", database_path + "-shm"):
        is_same = os.path.exists(own) and os.path.exists(real) and os.path.samefile(own, real)
        if own == real or is_same:
            raise OperationalError(f"{path} is the database itself or one of its files")
