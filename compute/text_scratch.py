"""What a compiled text search works in: its scratch, and the list at hand.

scratch   addresses of what a search works in, and how much there is, see `compiled.Scratch`
row       int64[WORK], the list at hand: its row (`text_lists`), then where the window begins,
          addresses for its column, the part, and which of the ordered lists it is
"""

from m2mdb.compute.text_lists import LIST

# scratch
SUMS, TOUCHED, ORDER, STARTS, STOPS, REST, UPPERS, TALLY, KEYS, WINDOW, SCRATCH = range(11)
SCAN_COST = 24  # postings that are added in the time of one look-up
# the list at hand, behind its row
(
    FIRST, NORMS_AT, LENGTHS_AT, MASK_AT, PART, LISTS, K, ROWS, IMPACTS_AT, AT, WORK,
) = range(LIST, LIST + 11)  # fmt: skip
