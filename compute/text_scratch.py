"""What a compiled text search works in: its scratch, and the list at hand.

scratch   addresses of what a search works in, and how much there is, see `compiled.Scratch`
row       int64[WORK], the list at hand: its row (`text_lists`), then where the window begins,
          addresses for its column, the part, and which of the ordered lists it is
progress  int64[PROGRESS], at PROGRESS_AT: what the next call of a search goes on from; all 0 where
          no search is under way
"""

from m2mdb.compute.text_lists import LIST

# scratch
(
    SUMS, TOUCHED, ORDER, STARTS, STOPS, REST, UPPERS, TALLY, KEYS, PROGRESS_AT, WINDOW,
    PIECE, SCRATCH,
) = range(13)  # fmt: skip
SCAN_COST = 24  # postings that are added in the time of one look-up
# the list at hand, behind its row
(
    FIRST, NORMS_AT, LENGTHS_AT, MASK_AT, PART, LISTS, K, ROWS, IMPACTS_AT, AT, WORK,
) = range(LIST, LIST + 11)  # fmt: skip
# progress
(
    STAGE,  # SUMMING a window, TAKING its rows as hits, or ORDERING all hits
    NEXT_PART,
    NEXT_FIRST,  # where the window begins
    TOUCHED_ROWS,  # of the window
    TAKEN,  # of which so many have been taken
    HITS_FOUND,
    HEAP_ROOT,  # hits before this one are still to be sifted down (`text_hits.heap_hits`)
    MERGED_RUN,  # so many hits are being merged with the next so many; 0: not begun
    MERGED_TO,
    LEFT,
    RIGHT,
    IS_TURNED,  # whether the order stands in the second half of the keys
    RING,
    RING_AT,
    PROGRESS,
) = range(15)
SUMMING, TAKING, ORDERING = 0, 1, 2
