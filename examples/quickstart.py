"""The first steps with m2mdb: a file, some notes, a hybrid search, a transaction.

Run it with `python examples/quickstart.py [FILE]`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import m2mdb
from m2mdb.encoders import HashingEncoder

NOTES = [
    ("n1", "ui", "The user prefers dark mode in every editor."),
    ("n2", "ui", "Font size 14 is comfortable on the laptop screen."),
    ("n3", "food", "Allergic to peanuts; loves dark chocolate."),
    ("n4", "travel", "Flies to Lisbon on the 3rd of May, window seat."),
]


def main(path: str) -> None:
    """Create the notes, search them, change one, and show that a failure undoes itself."""
    encoder = HashingEncoder(dimensions=256)
    con = m2mdb.connect(path)
    notes = con.create_collection(
        "notes",
        {
            "id": "TEXT PRIMARY KEY",
            "topic": "TEXT",
            "body": "TEXT FULLTEXT",
            "embedding": "VECTOR(256) METRIC cosine",
        },
    )
    ids, topics, bodies = zip(*NOTES, strict=True)
    notes.add({"id": ids, "topic": topics, "body": bodies, "embedding": encoder.encode(bodies)})

    query = "which editor theme does the user like?"
    near = encoder.encode([query])[0]
    print("hybrid search:")
    for hit in notes.search(near=near, match="editor theme user", k=2):
        print(f"  {hit.score:.4f}  {hit.id}  {hit.body}")

    print("only about the ui, as a statement:")
    statement = "SEARCH notes NEAR ? MATCH ? WHERE topic = ? K 2 RETURNING id, body, score"
    for id, body, score in con.execute(statement, (near, "dark mode", "ui")):
        print(f"  {score:.4f}  {id}  {body}")

    try:
        with con:
            con.execute("UPDATE notes SET topic = ? WHERE id = ?", ("home", "n2"))
            con.execute("INSERT INTO notes (id) VALUES (?)", ("n1",))
    except m2mdb.IntegrityError as error:
        print(f"refused: {error}")
    row = notes.get("n2")
    assert row is not None
    print(f"and undone: the topic of n2 is still {row['topic']!r}")
    con.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(str(Path(folder, "notes.m2m")))
