"""A file system in memory whose chance is a seed's: a made file always has the same bytes."""

from __future__ import annotations

import random

from m2mdb.index.database import Database
from m2mdb.pager.memory_vfs import MemoryVfs
from m2mdb.wal.store import StoreOptions

PATH = "fuzz.m2m"


class SeededVfs(MemoryVfs):
    """A MemoryVfs that draws salts and names from a seed."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self._choose = random.Random(seed)

    def random(self, size: int) -> bytes:
        """Bytes of the seed's."""
        return self._choose.randbytes(size)


def content(vfs: MemoryVfs, path: str = PATH) -> bytes:
    """All bytes of a file."""
    file = vfs.open(path)
    return file.read_at(0, file.size())


def holding(**files: bytes) -> SeededVfs:
    """A file system with a main file and, as `wal`, its log."""
    vfs = SeededVfs()
    for name, raw in files.items():
        file = vfs.open(PATH if name == "main" else f"{PATH}-{name}", create=True)
        file.write_at(0, raw)
    return vfs


def open_database(
    vfs: MemoryVfs,
    compute: str = "numpy",
    *,
    create: bool = False,
    read_only: bool = False,
    untrusted: bool = False,
) -> Database:
    """The database in a file system, without waiting for anybody."""
    chosen = StoreOptions(create=create, read_only=read_only, untrusted=untrusted, timeout=0.0)
    return Database.open(vfs, PATH, chosen, compute=compute, autocommit=True)
