"""What EXPLAIN ANALYZE tells of a vector search: rows, time, and the work of each part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.query.search import SearchHits, SearchRequest, run_search, vector_works

if TYPE_CHECKING:
    from m2mdb.index.effort import PartWork
    from m2mdb.index.view import View
    from m2mdb.query.profile import Profile


def profiled_search(
    profile: Profile, step: object, view: View, request: SearchRequest, *, is_whole: bool = False
) -> SearchHits:
    """Run a search and note it for `step`.

    is_whole  the statement is this SEARCH, which has lines of its own for what its parts did
              (`SearchPlan.details`); else the line of the step says it
    """
    start = profile.clock()
    hits = run_search(view, request)
    profile.note(step, len(hits), start)
    if not is_whole:
        profile.remark(step, lambda: "; ".join(map(said_of, vector_works(view, request))))
    return hits


def said_of(work: PartWork) -> str:
    """What a part did, as a line of EXPLAIN ANALYZE."""
    if not work.lists:
        return f"{work.name}: scanned, {work.rows} rows compared"
    recall = "by PROBES" if work.recall is None else f"expected recall {work.recall:g}"
    if work.given_up:
        recall = "given up for a scan"
    return (
        f"{work.name}: {work.probed} of {work.lists} lists probed, {work.codes} codes, "
        f"{work.reranked} re-ranked, {recall}"
    )
