"""Lists that somebody made: right checksums, and numbers that cannot be (S17, S18)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import m2mdb
from fuzz.targets.segments import made_extent
from m2mdb.compute.hrm2 import patience
from m2mdb.compute.hrm2.reference import EPSILON, HARD, MANY_LISTS
from m2mdb.index.catalog import CollectionEntry
from m2mdb.index.column_parts import column_parts
from m2mdb.index.description import describe_segment
from m2mdb.index.effort import Effort
from m2mdb.index.hrm2 import lists_parts
from m2mdb.index.integrity_lists import list_faults
from m2mdb.index.schema import CollectionSchema, Column
from m2mdb.index.segment import NamedPart, Segment, SegmentRecord, lay_out
from m2mdb.index.values import VectorData
from m2mdb.pager.errors import CorruptDatabaseError
from tests.hrm2.conftest import clustered, filled

COUNT, WIDTH = 400, 12
COLUMN = Column("v", "VECTOR", id=1, dimension=WIDTH, metric="l2")
Parts = dict[str, np.ndarray]
Change = Callable[[Parts], None]


@pytest.fixture
def parts(small: None) -> Parts:
    """The parts of the lists of a segment whose last ten rows are NULL."""
    found = lists_parts(COLUMN, values(), measured=False)
    return {name: array.copy() for name, _, array in found}


def values() -> VectorData:
    rows = clustered(COUNT, WIDTH)
    present = np.arange(COUNT) < COUNT - 10
    rows[~present] = 0
    return VectorData(rows, None, present)


def made(lists: Parts) -> Segment:
    """A segment of these vectors and lists, all checksums as they must be."""
    rows: list[NamedPart] = [("rowids", 0, np.arange(1, COUNT + 1, dtype=np.int64))]
    rows += column_parts(COLUMN, values())
    extents = []
    entry = CollectionEntry(1, CollectionSchema("notes", (COLUMN,)))
    for some in (rows, [(name, COLUMN.id, array) for name, array in lists.items()]):
        buffers, _ = lay_out(COUNT, some, describe_segment(entry, 1, 1))
        extents.append(made_extent(b"".join(bytes(buffer) for buffer in buffers)))
    return Segment(SegmentRecord(1, COUNT, rowids=(1, COUNT), commit=1), extents, "made")


def put(part: str, at: int, value: float) -> Change:
    def change(parts: Parts) -> None:
        parts[f"h.{part}"][at] = value

    return change


def cut(part: str) -> Change:
    def change(parts: Parts) -> None:
        parts[f"h.{part}"] = parts[f"h.{part}"][:-1]

    return change


def retyped(part: str, dtype: str) -> Change:
    def change(parts: Parts) -> None:
        with np.errstate(invalid="ignore"):
            parts[f"h.{part}"] = parts[f"h.{part}"].astype(dtype)

    return change


def ruled(at: int, value: float) -> Change:
    """Rules that lists without a measured table do not have, of which one number is another."""

    def change(parts: Parts) -> None:
        rules = patience.unmeasured_table().rules
        assert rules is not None
        parts["h.rules"] = rules.ravel()
        parts["h.rules"][at] = value

    return change


def rules_cut_short(parts: Parts) -> None:
    ruled(0, 0.5)(parts)
    cut("rules")(parts)


def rules_of_another_type(parts: Parts) -> None:
    ruled(0, 0.5)(parts)
    retyped("rules", "<u2")(parts)


def missing(part: str) -> Change:
    def change(parts: Parts) -> None:
        del parts[f"h.{part}"]

    return change


def one_ordinal_twice(parts: Parts) -> None:
    parts["h.ordinals"][0] = parts["h.ordinals"][1]


def slope_without_code(factor: int) -> Change:
    """A factor (1: f, 2: e) where no code is: as large as one may be."""

    def change(parts: Parts) -> None:
        block, slot = divmod(int(np.flatnonzero(parts["h.positions"] == 2**32 - 1)[0]), 32)
        parts["h.factors"][96 * block + 32 * factor + slot] = 1e17

    return change


NAMES = (
    "head", "centers", "center_scales", "center_squares", "starts", "codes", "factors",
    "positions", "bytes8", "scales", "squares", "ordinals", "patience",
)  # fmt: skip
FLOATS = ("center_scales", "center_squares", "factors", "scales", "squares")
REFUSED: dict[str, Change] = {
    **{f"{name} cut short": cut(name) for name in NAMES},
    **{f"{name} missing": missing(name) for name in NAMES[1:]},
    **{f"{name} of another type": retyped(name, "<u2") for name in NAMES},
    "version": put("head", 0, 2),
    "width": put("head", 2, 128),
    "no lists": put("head", 3, 0),
    "more lists than rows": put("head", 3, COUNT + 1),
    "no blocks": put("head", 4, 0),
    "blocks without end": put("head", 4, 2**32 - 1),
    "no rows": put("head", 5, 0),
    "more rows than the segment": put("head", 5, COUNT + 1),
    "points without end": put("head", 6, 2**32 - 1),
    "starts behind the first block": put("starts", 0, 1),
    "starts that descend": put("starts", 1, 2**40),
    "a negative start": put("starts", 1, -1),
    "a last start beyond the blocks": put("starts", -1, 2**40),
    "a position beyond the rows": put("positions", 0, COUNT),
    "a position below none": put("positions", 0, 2**32 - 2),
    "an ordinal beyond the segment": put("ordinals", 0, COUNT),
    "an ordinal twice": one_ordinal_twice,
    "a row that is NULL": put("ordinals", 0, COUNT - 1),
    "patience that is no number": put("patience", -1, np.nan),
    "negative patience": put("patience", -1, -1),
    "effort that is no number": put("effort", -1, np.nan),
    "negative effort": put("effort", -1, -1),
    "effort cut short": cut("effort"),
    "effort of another type": retyped("effort", "<u2"),
    "epsilon that is no number": put("epsilon", -1, np.nan),
    "negative epsilon": put("epsilon", 0, -0.1),
    "epsilon without end": put("epsilon", 0, np.inf),
    "epsilon cut short": cut("epsilon"),
    "epsilon of another type": retyped("epsilon", "<u2"),
    "a share that is no number": ruled(0, np.nan),
    "a share beyond the whole": ruled(1, 1.01),
    "a negative share": ruled(5, -0.1),
    "no lists in order": ruled(6, 0),
    "lists in order that are no number": ruled(-1, np.nan),
    "lists in order without end": ruled(-1, 1e30),
    "rules cut short": rules_cut_short,
    "rules of another type": rules_of_another_type,
    **{f"{name} not a number": put(name, 3, np.nan) for name in FLOATS},
    **{f"{name} infinite": put(name, 3, np.inf) for name in FLOATS},
    **{f"{name} that is no number": put("factors", 32 * i, np.nan)
       for i, name in ((1, "a slope"), (2, "an error"))},
    "a negative scale": put("scales", 0, -1),
    "a slope without a code": slope_without_code(1),
    "an error without a code": slope_without_code(2),
    "a large centroid": put("center_scales", 0, 1e30),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_s18_lists_that_cannot_be_are_refused_before_a_kernel_reads_them(
    parts: Parts, what: str
) -> None:
    REFUSED[what](parts)
    with pytest.raises(CorruptDatabaseError, match=r"segment 1|made") as caught:
        made(parts).lists(COLUMN)
    assert "h." in str(caught.value)


def test_sound_lists_are_taken(parts: Parts) -> None:
    segment = made(parts)
    lists = segment.lists(COLUMN)
    assert lists is not None
    assert lists.rows == COUNT - 10
    assert list(list_faults(segment, COLUMN)) == []


def test_a_table_of_other_points_is_not_used(parts: Parts) -> None:
    parts["h.patience"][0] = 7
    lists = made(parts).lists(COLUMN)
    assert lists is not None
    assert (lists.table.patience > 0).all()
    assert (lists.table.patience == lists.table.patience[:, :1, :, :1]).all()


def test_lists_of_older_files_have_one_patience_for_all_queries(parts: Parts) -> None:
    newer = made(parts).lists(COLUMN)
    del parts["h.effort"]
    older = made(parts).lists(COLUMN)
    parts["h.effort"] = np.concatenate(([9], np.ones(20))).astype(np.float32)
    other = made(parts).lists(COLUMN)
    assert newer is not None
    for lists in (older, other):
        assert lists is not None
        hardest = newer.table.patience[0, :, :, -1]
        assert (lists.table.patience[0] == hardest[:, :, None]).all()
        assert (lists.table.patience[1] >= lists.table.patience[0]).all()


def test_lists_of_older_files_have_the_usual_bounds(parts: Parts) -> None:
    del parts["h.epsilon"]
    older = made(parts).lists(COLUMN)
    assert older is not None
    assert (older.table.epsilon == np.float32(EPSILON)).all()
    stop = older.stop(10, COUNT // 2, Effort(0.99))
    assert stop is not None
    assert stop.epsilon == pytest.approx(EPSILON)


def test_lists_of_older_files_end_their_searches_as_before(parts: Parts) -> None:
    """The whole factor, and hardness after the first lists; with rules what these say."""
    older = made(parts).lists(COLUMN)
    ruled(3 * (HARD + 1) - 1, 8)(parts)  # lists in order, for k = 1 at the third recall
    parts["h.rules"][HARD + 1 : HARD + 4] = 0  # and shares at the second
    newer = made(parts).lists(COLUMN)
    assert older is not None
    assert newer is not None
    assert older.table.rules is None
    for recall in patience.RECALLS:
        stop = older.stop(1, COUNT - 10, Effort(recall))
        ruled_stop = newer.stop(1, COUNT - 10, Effort(recall))
        if stop is None or ruled_stop is None:
            assert stop is ruled_stop
            continue
        assert stop.hardness is not None
        assert ruled_stop.hardness is not None
        assert (stop.factor, stop.ahead, stop.waits) == (1.5, MANY_LISTS, False)
        assert (stop.hardness[-HARD:] == 1).all()
        assert ruled_stop.waits
        is_second = recall == patience.RECALLS[1]
        assert ruled_stop.hardness[-HARD:].tolist() == [*[1 - is_second] * 3, 1, 1, 1]
        assert ruled_stop.ahead == (8 if recall == patience.RECALLS[2] else MANY_LISTS)


def swap_rows(parts: Parts) -> None:
    parts["h.ordinals"][[3, 9]] = parts["h.ordinals"][[9, 3]]


def flip_code(parts: Parts) -> None:
    parts["h.codes"] ^= np.uint8(0x11)


def swap_positions(parts: Parts) -> None:
    flat = parts["h.positions"]
    there = np.flatnonzero(flat != 2**32 - 1)
    a, b = there[0], there[-1]
    flat[[a, b]] = flat[[b, a]]


def lose_position(parts: Parts) -> None:
    """One row's codes become another's."""
    flat = parts["h.positions"]
    flat[flat == 5] = 6


def other_byte(parts: Parts) -> None:
    parts["h.bytes8"][100] ^= 0x40


def other_square(parts: Parts) -> None:
    parts["h.squares"][7] *= 1.5


def other_length(parts: Parts) -> None:
    """The f of some code."""
    parts["h.factors"][32] *= 3


def other_center(parts: Parts) -> None:
    parts["h.centers"][:64] = 255 - parts["h.centers"][:64]


@pytest.mark.parametrize(
    "change",
    [swap_rows, flip_code, swap_positions, lose_position, other_byte, other_square, other_length,
     other_center],
)  # fmt: skip
def test_codes_of_other_values_are_faults(parts: Parts, change: Change) -> None:
    change(parts)
    assert list(list_faults(made(parts), COLUMN))
    assert not list(list_faults(made(parts), COLUMN, quick=True))


def test_a_row_that_stands_in_no_list_is_a_fault(parts: Parts) -> None:
    """A NULL too many in the lists is refused; a vector too few is a fault."""
    found = lists_parts(
        COLUMN, VectorData(values().matrix, None, np.arange(COUNT) < COUNT - 30), measured=False
    )
    fewer = {name: array for name, _, array in found}
    assert any("stands 0 times" in fault for fault in list_faults(made(fewer), COLUMN))


def test_s17_an_untrusted_file_with_lists_opens(tmp_path: Path, small: None) -> None:
    path = tmp_path / "m.m2m"
    filled(path, clustered(600)).close()
    con = m2mdb.connect(str(path), untrusted=True)
    query = clustered(600)[3]
    assert con.collection("notes").search(near=query, k=1).ids.tolist() == [3]
    con.close()


def test_s18_a_damaged_block_of_lists_is_an_error_and_no_answer(
    tmp_path: Path, small: None
) -> None:
    path, rows = tmp_path / "m.m2m", clustered(2000)
    con = filled(path, rows)
    with con.engine().reading() as view:
        codes = view.collection("notes").segments[0].array("h.bytes8", 3).tobytes()
    con.execute("CHECKPOINT truncate")
    con.close()
    raw = bytearray(path.read_bytes())
    raw[raw.index(codes[-200:]) + 77] ^= 1
    path.write_bytes(raw)

    con = m2mdb.connect(str(path))
    with pytest.raises(CorruptDatabaseError, match="checksum"):
        con.collection("notes").search(near=rows[3], k=1)
    assert con.collection("notes").search(near=rows[3], k=1, exact=True).ids.tolist() == [3]
    assert con.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
    con.close()
