"""The public face against a dict, brute force and a naive BM25, step by step.

Rules: every statement that changes rows, FORGET, savepoints, readers that hold a snapshot,
reopening, checkpoints, OPTIMIZE, VACUUM and copies. After each step rows, vector search, matches
and the index are compared; scores of texts are compared after OPTIMIZE, because dead rows count in
statistics until they are merged (S24). Thresholds are lowered so that flushes, merges and bulk
paths come within a few rows.
"""

from __future__ import annotations

import itertools
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import m2mdb

DIMENSION = 5
WORDS = ("red", "green", "blue", "dark", "light", "mode")
K1, B = 1.2, 0.75  # of the BM25 variant `lucene`

Row = tuple[str, int | None, bytes | None]  # body, n, vector as float32 bytes
Model = dict[str, Row]

keys = st.integers(0, 40).map(lambda n: f"k{n}")
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
numbers = st.none() | st.integers(-5, 5)
vectors = st.none() | st.integers(0, 30).map(
    lambda seed: np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32).tobytes()
)
rows = st.tuples(texts, numbers, vectors)
batches = st.dictionaries(keys, rows, min_size=1, max_size=9)

steps = 0  # of all machines so far


def contents(con: m2mdb.Connection) -> Model:
    """All rows as a dict."""
    found = con.execute("SELECT id, body, n, e FROM notes").fetchall()
    return {row[0]: (row[1], row[2], None if row[3] is None else row[3].tobytes()) for row in found}


def naive_bm25(model: Model, words: list[str]) -> dict[str, float]:
    """Scores of the rows that hold a word; BM25 as Lucene defines it (IDF with + 1)."""
    tokens = {key: row[0].split() for key, row in model.items()}
    average = sum(map(len, tokens.values())) / max(1, len(tokens))
    scores: dict[str, float] = {}
    for word in words:
        holders = [key for key, found in tokens.items() if word in found]
        idf = math.log(1 + (len(tokens) - len(holders) + 0.5) / (len(holders) + 0.5))
        for key in holders:
            often = tokens[key].count(word)
            norm = K1 * (1 - B + B * len(tokens[key]) / average)
            scores[key] = scores.get(key, 0.0) + idf * often / (often + norm)
    return scores


class FaceAgreesWithDict(RuleBasedStateMachine):
    """One connection that writes, readers beside it, and the dict that says what is right."""

    @initialize()
    def create(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="m2mdb-model-"))
        self.path = self.folder / "notes.m2m"
        self.con = self.open()
        self.con.execute(
            "CREATE COLLECTION notes (id TEXT PRIMARY KEY, body TEXT FULLTEXT, n INTEGER, "
            f"e VECTOR({DIMENSION}))"
        )
        self.con.execute("CREATE INDEX by_n ON notes (n)")
        self.con.commit()
        self.model: Model = {}
        self.committed: Model = {}
        self.points: list[Model] = []  # of the savepoints that are open
        self.readers: list[tuple[m2mdb.Connection, Model]] = []
        self.names = itertools.count()

    def open(self) -> m2mdb.Connection:
        return m2mdb.connect(self.path, synchronous="off", compute="numpy")

    def teardown(self) -> None:
        if hasattr(self, "con"):
            for reader, _ in self.readers:
                reader.close()
            self.con.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # --------------------------------------------------------------- rows

    @rule(batch=batches, mode=st.sampled_from(["error", "ignore", "replace"]))
    def add(self, batch: Model, mode: Any) -> None:
        notes = self.con.collection("notes")
        given = [
            {"id": k, "body": b, "n": n, "e": v and np.frombuffer(v, np.float32)}
            if v is None
            else {"id": k, "body": b, "n": n, "e": np.frombuffer(v, np.float32)}
            for k, (b, n, v) in batch.items()
        ]
        inside = self.con.in_transaction
        if mode == "error" and any(key in self.model for key in batch):
            try:
                notes.add(given)
            except m2mdb.IntegrityError:
                return
            raise AssertionError("a duplicate key was taken")
        notes.add(given, on_conflict=mode)
        for key, row in batch.items():
            if mode == "replace" or key not in self.model:
                self.model[key] = row
        if not inside:
            self.committed = dict(self.model)

    @rule(key=keys, row=rows)
    def upsert(self, key: str, row: Row) -> None:
        self.con.execute(
            "INSERT INTO notes (id, body, n, e) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body, n = excluded.n, e = excluded.e",
            (key, *row),
        )
        self.model[key] = row

    @rule(low=st.integers(-5, 5), number=numbers, body=texts)
    def update(self, low: int, number: int | None, body: str) -> None:
        cursor = self.con.execute(
            "UPDATE notes SET n = ?, body = ? WHERE n >= ?", (number, body, low)
        )
        changed = [key for key, row in self.model.items() if row[1] is not None and row[1] >= low]
        assert cursor.rowcount == len(changed)
        for key in changed:
            self.model[key] = (body, number, self.model[key][2])

    @rule(chosen=st.sets(keys, max_size=6), vector=vectors)
    def update_keys(self, chosen: set[str], vector: bytes | None) -> None:
        there = sorted(chosen & set(self.model))
        self.con.execute("UPDATE notes SET e = ? WHERE id IN ?", (vector, there or [""]))
        for key in there:
            self.model[key] = (*self.model[key][:2], vector)

    @rule(old=keys, new=keys)
    def rename(self, old: str, new: str) -> None:
        if old not in self.model or old == new:
            return
        try:
            self.con.execute("UPDATE notes SET id = ? WHERE id = ?", (new, old))
        except m2mdb.IntegrityError:
            assert new in self.model
            return
        assert new not in self.model
        self.model[new] = self.model.pop(old)

    @rule(chosen=st.sets(keys, max_size=9))
    def delete(self, chosen: set[str]) -> None:
        cursor = self.con.execute("DELETE FROM notes WHERE id IN ?", (sorted(chosen) or [""],))
        there = [key for key in chosen if key in self.model]
        assert cursor.rowcount == len(there)
        for key in there:
            del self.model[key]

    @rule(word=st.sampled_from(WORDS), body=texts)
    def insert_select(self, word: str, body: str) -> None:
        """Half of what is read is written back under other keys."""
        wanted = {f"c{k}": (body, r[1], r[2]) for k, r in self.model.items() if word in r[0]}
        if any(key in self.model for key in wanted):
            return
        self.con.execute(
            "INSERT INTO notes (id, body, n, e) SELECT 'c' || id, ?, n, e FROM notes "
            "WHERE body LIKE ?",
            (body, f"%{word}%"),
        )
        self.model.update(wanted)

    # --------------------------------------------------------------- transactions

    @rule(keep=st.booleans())
    def finish(self, keep: bool) -> None:
        if keep:
            self.con.commit()
            self.committed = dict(self.model)
        else:
            self.con.rollback()
            self.model = dict(self.committed)
        self.points = []

    @precondition(lambda self: len(self.points) < 4)
    @rule()
    def savepoint(self) -> None:
        self.con.execute(f"SAVEPOINT s{len(self.points)}")
        self.points.append(dict(self.model))

    @precondition(lambda self: self.points)
    @rule()
    def rollback_to(self) -> None:
        self.con.execute(f"ROLLBACK TO s{len(self.points) - 1}")
        self.model = dict(self.points[-1])

    @precondition(lambda self: len(self.points) > 1)
    @rule()
    def release(self) -> None:
        self.points.pop()
        self.con.execute(f"RELEASE s{len(self.points)}")

    # --------------------------------------------------------------- other connections

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def read_from_here_on(self) -> None:
        """A second connection takes a snapshot and keeps it."""
        reader = self.open()
        reader.execute("BEGIN")
        assert contents(reader) == self.committed
        self.readers.append((reader, dict(self.committed)))

    @precondition(lambda self: self.readers)
    @rule()
    def end_a_reader(self) -> None:
        reader, seen = self.readers.pop(0)
        assert contents(reader) == seen
        reader.close()

    @precondition(lambda self: not self.con.in_transaction)
    @rule(checkpoint=st.sampled_from([None, "passive", "full", "restart", "truncate"]))
    def reopen(self, checkpoint: str | None) -> None:
        if checkpoint is not None and not self.readers:
            self.con.execute(f"PRAGMA wal_checkpoint({checkpoint})")
        self.con.close()
        self.con = self.open()

    @precondition(lambda self: not self.con.in_transaction)
    @rule(word=st.sampled_from(WORDS), other=st.sampled_from(WORDS))
    def optimize(self, word: str, other: str) -> None:
        """Without dead rows the scores of texts are those of the rows alone."""
        self.con.execute("OPTIMIZE notes")
        found = self.con.execute(
            "SEARCH notes MATCH ? K 100 RETURNING id, score", (f"{word} {other}",)
        ).fetchall()
        wanted = naive_bm25(self.model, [word, other])  # a word said twice counts twice
        assert {row[0] for row in found} == set(wanted)
        for key, score in found:
            assert math.isclose(score, wanted[key], rel_tol=1e-6), (key, score, wanted[key])
        scores = [row[1] for row in found]
        assert scores == sorted(scores, reverse=True)

    @precondition(lambda self: not self.con.in_transaction)
    @rule(pages=st.sampled_from([None, 1, 20]))
    def vacuum(self, pages: int | None) -> None:
        """The file may shrink; rows, readers and answers stay, as the invariants say."""
        busy = bool(self.readers)
        self.con.execute("PRAGMA busy_timeout = 0" if busy else "PRAGMA busy_timeout = 5000")
        statement = "VACUUM" if pages is None else f"PRAGMA incremental_vacuum({pages})"
        before, after, given, _ = self.con.execute(statement).fetchone()
        assert given == (before - after) * 4096 or after >= before

    @rule(how=st.sampled_from(["backup", "into", "connection"]))
    def copy(self, how: str) -> None:
        """A copy is the last commit, whole, and a database of its own."""
        if how == "into" and self.con.in_transaction:
            return
        path = self.folder / f"copy{next(self.names)}.m2m"
        source = self.open()
        if how == "into":
            source.execute("VACUUM INTO ?", (str(path),))
        elif how == "backup":
            source.backup(path)
        else:
            target = m2mdb.connect(path)
            source.backup(target)
            target.close()
        source.close()
        with m2mdb.connect(path) as copied:
            assert contents(copied) == self.committed
            assert copied.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        copied.close()
        path.unlink()

    @precondition(lambda self: not self.con.in_transaction)
    @rule(chosen=st.sets(keys, min_size=1, max_size=4))
    def forget(self, chosen: set[str]) -> None:
        """Rows go as by DELETE; the receipt is done unless a reader is in the way."""
        receipt = self.con.collection("notes").forget(where="id IN ?", params=(sorted(chosen),))
        there = [key for key in chosen if key in self.model]
        assert receipt.rows == len(there)
        assert receipt.done or self.readers, receipt
        for key in there:
            del self.model[key]
        self.committed = dict(self.model)

    @precondition(lambda self: not self.con.in_transaction)
    @rule()
    def integrity(self) -> None:
        assert self.con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    # --------------------------------------------------------------- what must hold

    @invariant()
    def rows_are_the_same(self) -> None:
        global steps
        steps += 1
        if not hasattr(self, "con"):
            return
        assert contents(self.con) == self.model
        for reader, seen in self.readers:
            assert reader.execute("SELECT count(*) FROM notes").fetchone()[0] == len(seen)

    @invariant()
    def searches_are_the_same(self) -> None:
        if not hasattr(self, "con"):
            return
        query = np.ones(DIMENSION, np.float32)
        found = self.con.execute("SEARCH notes NEAR ? K 4 RETURNING id, score", (query,)).fetchall()
        cosines = {
            key: float(np.dot(v, query) / np.linalg.norm(v) / np.linalg.norm(query))
            for key, row in self.model.items()
            if row[2] is not None and (v := np.frombuffer(row[2], np.float32)) is not None
        }
        best = sorted(cosines.values(), reverse=True)[:4]
        assert np.allclose([row[1] for row in found], best, atol=1e-5)
        assert all(abs(cosines[key] - score) < 1e-5 for key, score in found)
        hits = self.con.execute("SEARCH notes MATCH 'dark' K 100 RETURNING id").fetchall()
        assert {row[0] for row in hits} == {k for k, r in self.model.items() if "dark" in r[0]}
        low = self.con.execute("SELECT id FROM notes WHERE n >= 2").fetchall()
        assert {row[0] for row in low} == {k for k, r in self.model.items() if (r[1] or 0) >= 2}
