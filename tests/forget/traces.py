"""A byte search over all that a database leaves: what FORGET must not leave (S26).

A needle is a run of bytes that only one row can have made. Every form in which an engine might
keep a value is looked for: a text in UTF-8 and UTF-16 of both orders, as given and folded; a
number as it is stored and as keys have it; a vector by sixteen neighbouring bytes.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from m2mdb.index.column_parts import key_hash
from m2mdb.index.keys import encode_value
from m2mdb.pager.freespace import decode_run
from m2mdb.pager.sim_vfs import SimVfs

Needles = dict[str, bytes]
_FEW_ZEROS = bytes(64)  # more than a needle has in a row
_ZEROS = re.compile(b"\\0{64,}")
SUFFIXES = ("", "-wal", "-shm")


def text_needles(text: str) -> Needles:
    """The forms of a text of at least six characters."""
    assert len(text) >= 6, "a shorter text may stand there by chance"
    found: Needles = {}
    for form, word in (("as given", text), ("folded", text.casefold()), ("upper", text.upper())):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            found[f"{text} {form} in {encoding}"] = word.encode(encoding)
    return found


def number_needles(number: int) -> Needles:
    """An integer of eight bytes that are unlike each other."""
    little, big = number.to_bytes(8, "little", signed=True), number.to_bytes(8, "big", signed=True)
    return {f"{number} little": little, f"{number} big": big, f"{number} key": encode_value(number)}


def real_needles(number: float) -> Needles:
    """A float with a long fraction."""
    return {
        f"{number} stored": struct.pack("<d", number),
        f"{number} big": struct.pack(">d", number),
        f"{number} key": encode_value(number),
    }


def vector_needles(vector: Any, dtype: str) -> Needles:
    """Sixteen bytes of a vector as each precision would store them; of int8 the given one alone."""
    array = np.asarray(vector)
    dtypes = ("<f4", "<f2", "<f8") if dtype != "i1" else ("i1",)
    found = {}
    for kind in dtypes:
        raw = array.astype(kind).tobytes()
        assert len(raw) >= 16, "a shorter vector may stand there by chance"
        found[f"{dtype} vector in {kind}, its head"] = raw[:16]
        found[f"{dtype} vector in {kind}, its tail"] = raw[-16:]
    return found


def key_needles(key: str | bytes) -> Needles:
    """The hash of a key that segments keep."""
    return {f"hash of {key!r}": key_hash(key).to_bytes(8, "little")}


def files_at(path: Any) -> dict[str, bytes]:
    """The bytes of main file, log and shared memory on a real disk, those that exist."""
    names = [f"{path}{suffix}" for suffix in SUFFIXES]
    found = {}
    for name in names:
        if os.path.exists(name):
            with open(name, "rb") as file:
                found[name] = file.read()
    return found


def files_of(vfs: SimVfs) -> dict[str, bytes]:
    """The bytes of every file of a simulated machine, and of its shared regions."""
    found = {}
    disk = vfs.machine.disk
    for path, inode in sorted(disk.names.items()):
        found[path] = disk.files[inode].read(0, disk.files[inode].size)
    for inode, raw in vfs.machine.share():
        found[f"shared region {inode}"] = raw
    return found


def traces(files: Mapping[str, bytes], needles: Needles) -> list[str]:
    """Where which needle stands, a line each."""
    found = []
    for name, raw in files.items():
        dense = _ZEROS.sub(_FEW_ZEROS, raw)  # most of a log is zeros, which are slow to search
        found += [
            f"{what} at byte {raw.index(needle)} of {name}"
            for what, needle in needles.items()
            if needle in dense
        ]
    return found


def assert_gone(files: Mapping[str, bytes], needles: Needles) -> None:
    assert files, "there is something to search"
    found = traces(files, needles)
    assert not found, f"{len(found)} traces: {found[:8]}"


def assert_kept(files: Mapping[str, bytes], needles: Iterable[bytes]) -> None:
    """Other rows are still there, so the search looks at the right bytes."""
    for needle in needles:
        assert any(needle in raw for raw in files.values()), needle


def assert_free_pages_are_zero(
    raw: bytes, page_size: int, free: Iterable[tuple[bytes, bytes]]
) -> None:
    """Freed pages are zeros, all of them."""
    for key, value in free:
        start, length, _ = decode_run(key, value)
        run = raw[(start - 1) * page_size : (start - 1 + length) * page_size]
        assert not any(run), f"free pages {start}..{start + length - 1} are not zero"
