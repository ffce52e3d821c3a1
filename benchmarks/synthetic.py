"""A likeness of real vectors, for sets larger than those at hand: deterministic, made in blocks.

    python benchmarks/synthetic.py [--count 1000000] [--dimension 384]     its figures

Sentence vectors differ from normal noise in four ways, which decide how hard a search is:

    low intrinsic dimension   a row is a point of COORDINATES numbers, whose spread falls as a
                              power of their number, laid into the space by a fixed random matrix,
                              with a little noise in all dimensions
    clusters within clusters  topics, and themes in each; sizes fall as a power of the rank, and
                              spreads differ from topic to topic
    a common direction        all rows share a part: no inner product is centred at zero
    queries unlike rows       a part of the queries comes from the same source as rows; the others
                              lie between themes, or far from all, as questions do that search
                              for statements

Inner products by rank are near those of wordnet's sentence vectors (main prints them). Rows of a
number are the same in every set of a seed and dimension that is large enough: the first
100,000 of a million are the set of 100,000.

Invariants
    SY1 Block b of the rows depends on (seed, dimension, b) alone, queries on (seed, dimension).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK_ROWS = 1 << 14
TOPICS = 300
THEMES = 40  # of a topic
COORDINATES = 192  # of a theme's rows; about 60 dimensions by participation ratio
DECAY = 0.3  # the spread of coordinate i falls as (i + 1) ** -DECAY
SIZES = 0.9  # the share of the topic of rank r falls as (r + 1) ** -SIZES
COMMON = 0.35  # length of what all rows share, where a topic's center has 1
THEME = 0.7  # a theme's distance from its topic's center
WITHIN = 1.1  # a row's distance from its theme's center
NOISE = 0.25  # of it in all dimensions
FAR = 0.5  # the share of the queries that are not like rows: a half of these lie between themes,
AWAY = 2.0  # the others so many times as far from their theme's center


class Source(NamedTuple):
    """What blocks are drawn from.

    basis    float32 (coordinates, dimension)
    common   float32 (dimension,)
    themes   float32 (TOPICS * THEMES, coordinates)
    spreads  float32 (TOPICS * THEMES,) of the rows of each theme
    shares   float64 (TOPICS * THEMES,) cumulative
    """

    basis: Array
    common: Array
    themes: Array
    spreads: Array
    shares: Array


def source(dimension: int, seed: int) -> Source:
    """The mixture of a seed."""
    random = np.random.default_rng([seed, dimension])
    coordinates = min(COORDINATES, dimension)
    basis = random.standard_normal((coordinates, dimension)) / np.sqrt(dimension)
    common = random.standard_normal(dimension)
    common *= COMMON / np.linalg.norm(common)
    topics = _directions(random, TOPICS, coordinates)
    themes = np.repeat(topics, THEMES, axis=0)
    themes += THEME * _directions(random, TOPICS * THEMES, coordinates)
    spreads = np.repeat(random.uniform(0.7, 1.3, TOPICS), THEMES)
    weights = (np.arange(TOPICS) + 1.0) ** -SIZES
    inner = random.permuted(np.tile((np.arange(THEMES) + 1.0) ** -SIZES, (TOPICS, 1)), axis=1)
    shares = np.cumsum((weights[:, None] * inner / inner.sum(axis=1)[:, None]).ravel())
    return Source(
        basis.astype(np.float32),
        common.astype(np.float32),
        themes.astype(np.float32),
        spreads.astype(np.float32),
        shares / shares[-1],
    )


def _directions(random: np.random.Generator, count: int, coordinates: int) -> Array:
    """Vectors of length 1, the first coordinates the longest in the mean."""
    out = random.standard_normal((count, coordinates))
    out *= (np.arange(coordinates) + 1.0) ** -DECAY
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


def _points(random: np.random.Generator, made: Source, themes: Array, wide: float) -> Array:
    """Points of themes, float32 (n, coordinates); `wide` times as far from their centers."""
    offsets = _directions(random, len(themes), made.themes.shape[1])
    offsets *= (WITHIN * wide) * made.spreads[themes][:, None]
    out: Array = made.themes[themes] + offsets.astype(np.float32)
    return out


def _laid(random: np.random.Generator, made: Source, points: Array) -> Array:
    """Points in all dimensions, of length 1."""
    out = points @ made.basis
    out += made.common
    noise = random.standard_normal(out.shape, np.float32)
    out += (NOISE / np.sqrt(out.shape[1])) * noise
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return np.ascontiguousarray(out, np.float32)


def blocks(count: int, dimension: int, seed: int = 1) -> Iterator[Array]:
    """float32 (at most BLOCK_ROWS, dimension), of length 1, until there are `count` rows (SY1)."""
    made = source(dimension, seed)
    for number, start in enumerate(range(0, count, BLOCK_ROWS)):
        random = np.random.default_rng([seed, dimension, 1, number])
        themes = np.searchsorted(made.shares, random.random(BLOCK_ROWS))
        yield _laid(random, made, _points(random, made, themes, 1.0))[: count - start]


def queries_of(count: int, dimension: int, seed: int = 1) -> Array:
    """float32 (count, dimension), of length 1: the share FAR of them unlike rows, mixed."""
    made = source(dimension, seed)
    random = np.random.default_rng([seed, dimension, 2])
    themes = np.searchsorted(made.shares, random.random((3, count)))
    points = _points(random, made, themes[0], 1.0)
    other = _points(random, made, themes[1], AWAY)
    between = 0.5 * points + 0.5 * made.themes[themes[2]]  # of two themes, often of two topics
    kinds = random.random(count)
    points[kinds < FAR] = other[kinds < FAR]
    points[kinds < FAR / 2] = between[kinds < FAR / 2]
    return _laid(random, made, points)


def vectors(count: int, dimension: int, queries: int, seed: int = 1) -> tuple[Array, Array]:
    """Rows and queries, float32, of length 1."""
    rows = np.empty((count, dimension), np.float32)
    start = 0
    for block in blocks(count, dimension, seed):
        rows[start : start + len(block)] = block
        start += len(block)
    return rows, queries_of(queries, dimension, seed)


def main() -> None:
    """Print what the set is like."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    options = parser.parse_args()
    rows, queries = vectors(options.count, options.dimension, 300)
    centred = rows[:20_000] - rows[:20_000].mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred)
    print(f"dimensions by participation ratio: {variances.sum() ** 2 / (variances**2).sum():.0f}")
    for name, some in (("rows", rows[::997][:300]), ("queries", queries)):
        keys = -np.sort(-(some @ rows.T), axis=1)
        means = ", ".join(f"{at}: {keys[:, at].mean():.3f}" for at in (0, 1, 10, 100, 1000))
        print(f"inner products of {name} with rows by rank  {means}; mean {keys.mean():.3f}")


if __name__ == "__main__":
    main()
