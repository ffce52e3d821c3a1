"""Fuzzing: a moment of every target, the inputs that once were findings, and that it finds."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest

from fuzz.campaign import counts
from fuzz.grammar import grammar
from fuzz.mutation import mutated
from fuzz.runner import Finding, feed, fuzz
from fuzz.target import Target
from fuzz.targets import TARGETS
from m2mdb.pager.errors import DataError
from m2mdb.query.parser import parse

FOUND = [  # inputs that raised what is no error of PEP 249, or took too long
    ("text", b"SEARCH notes NEAR [1,\x1e2] K 5"),
    ("values", base64.b85decode("1qCH!ASH7L10*g25+!6HC36P@BrahR2zw%7B03;3eFy")),
    ("statement", b"SELECT round ( 1.5 , 9223372036854775807 )"),
    ("statement", b"SELECT t FROM c WHERE n > 0 LIMIT 9223372036854775807 OFFSET 1e308"),
    ("statement", b"SELECT hex ( '\xed\xb3\xbf' )"),
]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_moment_of_each_target(name: str) -> None:
    found = fuzz([TARGETS[name]], seed=1, seconds=0.1)

    assert found[name][0] > len(TARGETS[name].seeds)


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"sentence", "statement", "text", "match"}))
def test_the_seeds_of_a_target_are_valid(name: str) -> None:
    """Else the inputs made of them would all stop at the first check."""
    passed = 0
    for seed in TARGETS[name].seeds:
        try:
            TARGETS[name].run(seed)
            passed += 1
        except Exception:
            continue
    assert passed * 5 >= len(TARGETS[name].seeds)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_stays_answered(name: str, data: bytes) -> None:
    feed(TARGETS[name], data)


def spin(data: bytes) -> None:
    while True:
        pass


def greedy(data: bytes) -> None:
    bytearray(64 << 30)


def wrong(data: bytes) -> None:
    raise IndexError("list index out of range")


@pytest.mark.parametrize(
    ("run", "message"),
    [(spin, "more than 1.0 s"), (greedy, "MemoryError"), (wrong, "IndexError: list index")],
)
def test_what_is_wrong_is_a_finding(run: Callable[[bytes], None], message: str) -> None:
    target = Target("bad", run, lambda: [b"seed"])

    with pytest.raises(Finding, match=message) as caught:
        fuzz([target], seed=1, seconds=0.1)

    assert caught.value.data == b"seed"
    assert "python -m fuzz --target bad --input" in str(caught.value)


def test_an_error_of_pep_249_is_an_answer() -> None:
    def refuse(data: bytes) -> None:
        raise DataError("no")

    assert fuzz([Target("good", refuse, lambda: [b"x"])], 1, 0.05)["good"][0] > 1


def test_a_seed_gives_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        choose = random.Random(seed)
        return [mutated([b"some bytes to change"], choose) for _ in range(200)]

    assert inputs(3) == inputs(3) != inputs(4)
    assert len(set(inputs(3))) > 150


def test_sentences_of_the_grammar_are_statements() -> None:
    choose = random.Random(4)
    parsed = 0
    for _ in range(300):
        try:
            parse(grammar().sentence(choose))
            parsed += 1
        except Exception:
            continue
    assert parsed > 150


def test_a_round_counts_every_target() -> None:
    found = counts(2.0, 2)

    assert set(TARGETS) <= set(found)
    assert sum(found.values()) > 1_000
