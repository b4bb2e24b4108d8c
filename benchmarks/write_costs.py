"""Measures the server's processor time to insert a message and to store its embedding."""

from typing import Any

import numpy as np
import psycopg

from benchmarks.generated_messages import DataGenerator
from benchmarks.processes import cpu_ms

BLOCK, BLOCKS = 50, 16  # messages in a block, blocks of each kind
INSERT = """INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    VALUES (%s, %s, 'user', %s, now()) RETURNING id"""
EMBED = "UPDATE standalone_chat_messages SET embedding = %b::vector WHERE id = %s"
DISABLE = "ALTER TABLE standalone_chat_messages DISABLE TRIGGER USER"
ENABLE = "ALTER TABLE standalone_chat_messages ENABLE TRIGGER USER"


def costs(
    database: psycopg.Connection[Any], generator: DataGenerator, kinds: tuple[str, ...]
) -> dict[str, float]:
    """Server CPU in ms: ``insert, KIND`` and ``embed, KIND``, in alternating blocks."""
    taken: dict[str, list[float]] = {}
    for block in range(BLOCKS + 1):  # the first is a warm-up
        for kind in kinds:
            database.execute(DISABLE if kind == "bare" else ENABLE)
            for step, ms in run_block(database, generator).items():
                if block:
                    taken.setdefault(f"{step}, {kind}, CPU ms", []).append(ms / BLOCK)
    database.execute(ENABLE)
    return {name: round(float(np.median(values)), 3) for name, values in taken.items()}


def run_block(database: psycopg.Connection[Any], generator: DataGenerator) -> dict[str, float]:
    """Insert messages one by one, then store their embeddings one by one. CPU in ms."""
    pids = [database.info.backend_pid]
    texts, vectors = generator.texts(BLOCK), generator.vectors(BLOCK)
    started = cpu_ms(pids)
    ids = [(database.execute(INSERT, [1, 1, text]).fetchone() or (0,))[0] for text in texts]
    inserted = cpu_ms(pids)
    for pk, vector in zip(ids, vectors, strict=True):
        database.execute(EMBED, [vector, pk])
    embedded = cpu_ms(pids)
    database.execute("DELETE FROM standalone_chat_messages WHERE id = ANY (%s)", [ids])
    return {"insert": inserted - started, "embed": embedded - inserted}
