"""Slices: long work in pieces gives what one call gives, and looks for an interrupt meanwhile."""

from __future__ import annotations

import gc
import random as randomness
import weakref
from typing import Any

import numpy as np
import pytest

from m2mdb.index import slices as work
from m2mdb.index.slices import (
    counted_numbers,
    distinct_numbers,
    distinct_values,
    joined,
    label_order,
    listed,
    number_order,
    picked,
    rows_of,
    slices,
    taken,
    value_order,
    watched,
)

COUNT = 20_000


class Looks:
    """Counts how often somebody looked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (
        ("SLICE_VALUES", 256), ("SLICE_NUMBERS", 1024), ("SORTED_VALUES", 128),
        ("SORTED_NUMBERS", 512),
    ):  # fmt: skip
        monkeypatch.setattr(work, name, size)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    skewed = random.integers(0, 5, COUNT) * (random.random(COUNT) < 0.3)
    reals = random.standard_normal(COUNT)
    odd = np.where(random.random(COUNT) < 0.2, np.nan, np.round(reals, 1))
    odd[random.integers(0, COUNT, 900)] = np.inf
    return {
        "different": random.permutation(COUNT) - 50,
        "equal": np.zeros(COUNT, np.int64),
        "skewed": skewed,
        "periodic": np.tile([1, 2, 3, 4, 0], COUNT // 5),
        "sorted": np.arange(COUNT),
        "extreme": random.integers(-(2**63), 2**63 - 1, COUNT),
        "reals": reals,
        "not numbers and infinite": odd,
        "zeros of both signs": np.where(random.random(COUNT) < 0.5, 0.0, -0.0),
        "flags": (random.random(COUNT) < 0.1).astype(np.uint8),
    }


@pytest.mark.parametrize("name", arrays())
def test_numbers_are_sorted_as_by_one_call(name: str) -> None:
    values, looks = arrays()[name], Looks()

    order = number_order(values, looks)

    assert np.array_equal(order, np.argsort(values, kind="stable"))
    assert looks.count > 20


@pytest.mark.parametrize("name", [each for each in arrays() if not each.startswith("not")])
def test_distinct_numbers_are_those_of_one_call(name: str) -> None:
    values = arrays()[name]

    found, inverse = distinct_numbers(values, Looks())

    expected, places = np.unique(values, return_inverse=True)
    assert np.array_equal(found, expected)
    assert np.array_equal(inverse, places)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kinds", ["texts", "few texts", "pairs", "one", "periodic"])
def test_values_are_sorted_as_by_one_call(kinds: str, descending: bool) -> None:
    random, looks = randomness.Random(2), Looks()
    made: dict[str, Any] = {
        "texts": lambda: str(random.random()),
        "few texts": lambda: random.choice(["a", "b", "b", "b", "cc"]),
        "pairs": lambda: (random.randrange(3), random.choice(["x", "y"])),
        "one": lambda: "same",
        "periodic": lambda: "z",
    }
    values = [made[kinds]() for _ in range(COUNT)]
    if kinds == "periodic":
        values = [f"{at % 64:02}" for at in range(COUNT)]
    places = random.sample(range(COUNT), COUNT)

    order = value_order(places, values, looks, descending=descending)

    assert order == sorted(places, key=values.__getitem__, reverse=descending)
    assert looks.count > 20


def test_what_is_taken_in_slices_is_what_is_taken_at_once() -> None:
    random = np.random.default_rng(3)
    values, order = random.standard_normal((COUNT, 3)), random.integers(-1, COUNT, COUNT)
    texts = [f"t{number}" for number in range(COUNT)]

    assert np.array_equal(taken(values, order, Looks()), values[order])
    assert picked(texts, order, Looks()) == [texts[place] for place in order.tolist()]
    assert listed(order, Looks()) == order.tolist()
    assert rows_of([texts, order.tolist()], Looks()) == list(
        zip(texts, order.tolist(), strict=True)
    )


def test_of_equal_values_the_first_is_kept() -> None:
    values = [1.0, 1, "a", 2, True, 2.0, *range(3000), *range(3000)]

    found = list(distinct_values(values, Looks()))

    assert list(map(repr, found)) == list(map(repr, dict.fromkeys(values)))


def test_work_stops_where_the_check_raises() -> None:
    left = [5]

    def check() -> None:
        left[0] -= 1
        if not left[0]:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        number_order(np.arange(COUNT), check)


@pytest.mark.parametrize("name", [each for each in arrays() if not each.startswith("not")])
def test_counted_numbers_are_those_of_one_call(name: str) -> None:
    values, looks = arrays()[name], Looks()

    found, counts = counted_numbers(values, looks)

    expected, times = np.unique(values, return_counts=True)
    assert np.array_equal(found, expected)
    assert np.array_equal(counts, times)
    assert looks.count > 20


@pytest.mark.parametrize("labels", [1, 7, 300, COUNT])
def test_labels_are_ordered_as_by_one_call(labels: int) -> None:
    values = np.random.default_rng(labels).integers(0, labels, COUNT).astype(np.uint32)
    looks = Looks()

    order = label_order(values, np.bincount(values, minlength=labels), looks)

    assert np.array_equal(order, np.argsort(values, kind="stable"))
    assert looks.count > 20
    none = label_order(values[:0], np.zeros(labels, np.int64), looks)
    assert not len(none)


def test_arrays_are_joined_as_by_one_call() -> None:
    arrays = [np.arange(count) for count in (0, 3, 5000, 0, 1)]
    assert np.array_equal(joined(arrays, Looks()), np.concatenate(arrays))
    assert not len(joined(arrays[:1], Looks()))


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, COUNT])
def test_watched_values_are_all_given_with_a_look_before_each_slice_but_the_first(
    count: int,
) -> None:
    looks = Looks()
    assert list(watched(iter(range(count)), looks)) == list(range(count))
    assert looks.count == max(0, -(-count // work.WATCHED_VALUES) - 1)


def test_circles_are_freed_though_a_program_does_long_work_all_the_time() -> None:
    class Circle:
        own: Circle

    lost = Circle()
    lost.own = lost
    end = weakref.ref(lost)
    work.grow_old()  # else the next collection of the young would do
    del lost
    kept: list[list[int]] = []  # what lives on is what makes a full collection due
    for _ in range(2_000):
        for _ in slices(20, 1, Looks()):
            kept += [[] for _ in range(50)]
        if end() is None:
            break
    assert end() is None


@pytest.mark.parametrize("count", [0, 1, work.SLICE_VALUES, 3 * work.SLICE_VALUES + 5])
def test_handed_over_is_a_zip_that_empties_its_columns(count: int) -> None:
    numbers, texts = list(range(count)), [str(number) for number in range(count)]
    wanted = list(zip(numbers, texts, strict=True))
    found = []
    for at, pair in enumerate(work.handed_over(numbers, texts)):
        found.append(pair)
        assert len(numbers) == len(texts) <= count - at
    assert found == wanted
    assert (len(numbers), len(texts)) == (0, 0)


def test_emptied_takes_dicts_and_sets() -> None:
    looks: list[None] = []
    count = 2 * work.SLICE_VALUES + 9
    keyed, members = dict.fromkeys(range(count)), set(range(count))
    work.emptied(lambda: looks.append(None), keyed, members)
    assert len(keyed) == len(members) == 9
    assert len(looks) == 4


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100, 101, 1000])
def test_numbers_that_rise_and_count_up(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "SLICE_NUMBERS", 100)
    looks = []
    found = work.counting_up(5, count, lambda: looks.append(1))
    assert found.dtype == np.int64
    assert found.tolist() == list(range(5, 5 + count))
    assert len(looks) >= count // 100 - 1

    looks.clear()
    assert work.rises(found, lambda: looks.append(1))
    assert len(looks) >= count // 100 - 1
    for place in {1, 50, 99, 100, 101, count - 1}:
        if 0 < place < count:
            equal = found.copy()
            equal[place] = equal[place - 1]
            assert not work.rises(equal, work.unchecked), place


def test_the_collector_has_its_turn_after_many_moves_and_none_where_it_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each young collection would look at all new lists from then on."""
    monkeypatch.setattr(work, "MOST_MOVES", 5)
    monkeypatch.setattr(work._Moves, "count", 0)
    full = gc.get_stats()[-1]["collections"]
    for _ in range(18):
        work.grow_old()
        assert gc.get_count()[1:] == (0, 0), "the young are moved each time"
    assert gc.get_stats()[-1]["collections"] == full + 3
    gc.disable()
    try:
        for _ in range(12):
            work.grow_old()
    finally:
        gc.enable()
    assert gc.get_stats()[-1]["collections"] == full + 3
