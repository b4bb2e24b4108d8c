"""A database full of people who have said much: the data of benchmarks/recall.py.

Vectors of 1,536 numbers are made from 64 hidden ones, in 400 topics with noise, so that neighbours mean something and
are as hard to tell apart as those of texts (cosine of unrelated pairs 0 to 0.3, of the nearest 0.6 to 0.9). Words
follow Zipf's law. The same seed gives the same data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types import TypeInfo

from retrieval.sql import VectorDumper

SIZES = (20, 200, 2_000, 20_000)  # messages of the users that are asked about
OTHERS = 120  # messages of everybody else, about
HIDDEN, TOPICS, NOISE = 64, 400, 0.55
VOCABULARY = 30_000
CHUNK = 2_000
TABLES = (("standalone_chat_messages", "chat_id"), ("chat_messages", "passage_id"))
PEOPLE = """
    INSERT INTO auth_user (id, username, password, is_superuser, first_name, last_name, email, is_staff, is_active,
        date_joined)
    SELECT n, 'user' || n, '!', false, '', '', '', false, true, now() FROM generate_series(1, %(n)s) n;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user ORDER BY id;
    INSERT INTO passages (user_id, reference, text) SELECT id, 'Tobit 6', '' FROM auth_user ORDER BY id;
"""
COPY = "COPY {table} (user_id, {parent}, role, content, created_at, embedding) FROM STDIN (FORMAT BINARY)"


@dataclass
class World:
    """What the vectors and words are drawn from."""

    seed: int = 1

    def __post_init__(self) -> None:
        self.luck = np.random.default_rng(self.seed)
        self.topics = self.luck.standard_normal((TOPICS, HIDDEN), dtype=np.float32)
        self.out = self.luck.standard_normal((HIDDEN, 1536), dtype=np.float32)
        self.words = np.array([f"w{n:x}ord" for n in range(VOCABULARY)])
        self.zipf = 1 / np.arange(1, VOCABULARY + 1)
        self.zipf /= self.zipf.sum()

    def vectors(self, count: int) -> NDArray[np.float32]:
        """So many, of length 1; shape (count, 1536)."""
        hidden = self.topics[self.luck.integers(TOPICS, size=count)]
        return self.near(hidden @ self.out)

    def near(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Neighbours of the vectors, as a question is one of a message."""
        hidden = self.luck.standard_normal((len(vectors), HIDDEN), dtype=np.float32) @ self.out
        length = np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(hidden, axis=1, keepdims=True)
        found = vectors + NOISE * hidden * length
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def texts(self, count: int) -> list[str]:
        """So many, of 5 to 40 words."""
        lengths = self.luck.integers(5, 41, size=count)
        drawn = iter(self.luck.choice(self.words, size=int(lengths.sum()), p=self.zipf))
        return [" ".join(next(drawn) for _ in range(length)) for length in lengths]


def owners(rows: int) -> list[int]:
    """Whose each message is: users 1 to 4 have SIZES messages, the others OTHERS each; mixed."""
    found = [number for number, size in enumerate(SIZES, start=1) for _ in range(size)]
    found += [len(SIZES) + 1 + n // OTHERS for n in range(max(rows - len(found), 0))]
    np.random.default_rng(2).shuffle(found)
    return [int(one) for one in found]


def fill(database: psycopg.Connection[Any], rows: int, world: World) -> None:
    """Put them into both tables in turn, embeddings included; recall's triggers do the rest."""
    whose = owners(rows)
    psycopg.ClientCursor(database).execute(PEOPLE, {"n": max(whose)})
    database.execute("INSERT INTO embedding_models (name, current) VALUES ('model', true)")
    found = TypeInfo.fetch(database, "vector")
    assert found is not None
    found.register(database)
    database.adapters.register_dumper(np.ndarray, type("OfThisDatabase", (VectorDumper,), {"oid": found.oid}))
    for turn, start in enumerate(range(0, len(whose), CHUNK)):
        table, parent = TABLES[turn % 2]
        with database.cursor().copy(COPY.format(table=table, parent=parent)) as copy:
            copy.set_types(["int4", "int8", "text", "text", "timestamptz", "vector"])
            for row in chunk(whose[start : start + CHUNK], start, world):
                copy.write_row(row)
        database.commit()
    database.autocommit = True
    database.execute("VACUUM ANALYZE")


def chunk(whose: list[int], start: int, world: World) -> Iterator[tuple[Any, ...]]:
    """Rows to copy."""
    vectors, texts = world.vectors(len(whose)), world.texts(len(whose))
    began = datetime(2024, 1, 1, tzinfo=UTC)
    for place, user in enumerate(whose):
        role = "user" if place % 2 else "assistant"
        yield user, user, role, texts[place], began + timedelta(minutes=start + place), vectors[place]
