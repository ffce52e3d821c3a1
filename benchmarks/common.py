"""What the benchmarks share: data, repeated measuring, and a table of medians of ratios.

A figure is a ratio to a rival or to a physical limit measured in the same run, turn by turn; the
machines these run on are shared, so single times mean little and medians of ratios mean something.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy loads: every store gets one thread

import numpy as np  # noqa: E402

DIMENSION = 384


class Data:
    """Texts and vectors: the wordnet set where it is there, else seeded random ones."""

    def __init__(self, folder: str | None, count: int) -> None:
        self.name = "wordnet"
        path = Path(folder) if folder else None
        if path is None or not (path / "vectors.f16.npy").exists():
            self.name = "random"
            self._make(count)
            return
        stored = np.load(path / "vectors.f16.npy", mmap_mode="r")[:count]
        self.vectors = np.ascontiguousarray(stored, np.float32)
        with gzip.open(path / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
        self.ids = [row["id"] for row in rows]
        self.texts = [row["text"] for row in rows]
        self.queries = np.load(path / "query_vectors.f32.npy")

    def _make(self, count: int) -> None:
        random = np.random.default_rng(1)
        self.vectors = random.standard_normal((count, DIMENSION)).astype(np.float32)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)
        words = [f"word{i}" for i in range(20_000)]
        picks = np.minimum(random.zipf(1.2, (count, 11)), len(words)) - 1
        self.texts = [" ".join(words[i] for i in row) for row in picks.tolist()]
        self.ids = [f"row{i}" for i in range(count)]
        self.queries = random.standard_normal((100, DIMENSION)).astype(np.float32)

    @property
    def raw_bytes(self) -> int:
        """Vector bytes and UTF-8 bytes of ids and texts."""
        text = sum(len(t.encode()) for t in self.texts) + sum(len(i.encode()) for i in self.ids)
        return self.vectors.nbytes + text


def arguments(description: str, count: int, rounds: int) -> argparse.Namespace:
    """The options that all benchmarks take, as they were given."""
    return parser(description, count, rounds).parse_args()


def parser(description: str, count: int, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("M2M_DATA"), help="folder of wordnet")
    parser.add_argument("--count", type=int, default=count, help="rows")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns; medians are shown")
    parser.add_argument("--folder", default=None, help="where the files are made")
    return parser


@contextmanager
def workplace(folder: str | None) -> Iterator[str]:
    """A folder for the files of a run."""
    with tempfile.TemporaryDirectory(prefix="m2m-bench-", dir=folder) as path:
        yield path


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Table:
    """Ratios of ours to theirs, collected turn by turn."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._ratios: dict[str, list[float]] = {}
        self._texts: dict[str, tuple[str, float | None, bool]] = {}

    def add(
        self, name: str, ratio: float, text: str, gate: float | None = None, least: bool = True
    ) -> None:
        """One turn's ratio; `text` tells the absolute figures of the last turn."""
        self._ratios.setdefault(name, []).append(ratio)
        self._texts[name] = (text, gate, least)

    def show(self) -> bool:
        """Print medians and spreads; whether every gate is met."""
        print(f"\n{self.title}")
        good = True
        for name, ratios in self._ratios.items():
            text, gate, least = self._texts[name]
            middle = statistics.median(ratios)
            verdict = ""
            if gate is not None:
                met = middle >= gate if least else middle <= gate
                good &= met
                sign = ">=" if least else "<="
                verdict = f"  gate {sign} {gate:g}: {'met' if met else 'MISSED'}"
            spread = f"{min(ratios):.3g} .. {max(ratios):.3g}"
            print(f"  {name:44} {middle:8.3g}  ({spread}, n={len(ratios)}){verdict}   {text}")
        sys.stdout.flush()
        return good
