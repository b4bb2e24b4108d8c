"""What recall adds to the insert of a message: for ``benchmarks.targets``.

The median of blocks of 50 messages, bare (triggers disabled) and with recall in turns, in the
database of each checkout with 10,000 messages and without HNSW indexes.
"""

import tempfile
from pathlib import Path

import psycopg
from pgvector.psycopg import register_vector

from benchmarks.growth import costs
from benchmarks.people import World, write
from benchmarks.recalls import fill_side
from benchmarks.sides import Checkout, Figures, databases

ROWS = 10_000
KINDS = ("bare", "recall")


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The line of an insert. ``quick`` changes nothing: it takes seconds."""
    added = {}
    with tempfile.TemporaryDirectory() as folder, databases(both) as sides:
        world = World()
        people = write(Path(folder), ROWS, world, sizes=(700,))
        for side in sides:
            fill_side(side, people)
            with psycopg.connect(side.url, autocommit=True) as database:
                register_vector(database)
                figures = costs(database, world, KINDS)
            added[side.name] = figures["insert, recall, CPU ms"] - figures["insert, bare, CPU ms"]
    return {"insert of a message over the bare table, backend CPU ms": added}
