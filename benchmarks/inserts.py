"""Measures what recall adds to the insert of a message, for ``benchmarks.targets``.

The figure is the median of blocks of 50 messages. Blocks without recall (triggers disabled) and
with it alternate, in a database of each checkout with 10,000 messages and without HNSW indexes.
"""

import tempfile
from pathlib import Path

import psycopg
from pgvector.psycopg import register_vector

from benchmarks.generated_messages import DataGenerator, write
from benchmarks.recalls import fill_side
from benchmarks.sides import Checkout, Figures, databases
from benchmarks.write_costs import costs

ROWS = 10_000
KINDS = ("bare", "recall")


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The line of an insert. ``quick`` changes nothing: it takes seconds."""
    added = {}
    with tempfile.TemporaryDirectory() as folder, databases(both) as sides:
        generator = DataGenerator()
        messages = write(Path(folder), ROWS, generator, sizes=(700,))
        for side in sides:
            fill_side(side, messages)
            with psycopg.connect(side.url, autocommit=True) as database:
                register_vector(database)
                figures = costs(database, generator, KINDS)
            added[side.name] = figures["insert, recall, CPU ms"] - figures["insert, bare, CPU ms"]
    return {"insert of a message over the bare table, backend CPU ms": added}
