"""Generates the messages of many users: the data of several benchmarks and of the peers.

A vector of 1,536 numbers is computed from 64 latent numbers, which are grouped in 400 topics with
noise. So neighbours are as hard to distinguish as those of texts: the cosine of unrelated pairs is
0 to 0.3, of the nearest 0.6 to 0.9. Words follow Zipf's law; as in texts, the most common are
English stop words, which recall ignores. The same seed gives the same data.

The data is in a folder: ``vectors.npy`` (rows, 1536), ``users.npy`` (rows), ``texts.txt`` (a line
for each row). Processes with other libraries read it too.
"""

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

SIZES = (20, 200, 700, 2_000, 20_000)  # messages of users 1, 2, …, whose recall is measured
OTHERS = 120  # messages of each other user
DIMENSIONS, LATENT, TOPICS, NOISE = 1536, 64, 400, 0.55
VOCABULARY = 30_000
STOP_WORDS = """
    the of and to a in is you that it he was for on are as with his they i at be this have from
    or had by but what some we can out other were all there when up your how an each she which
    do their if will about then them so these her him has more no my than who did down me myself
    our ours ourselves yours yourself yourselves himself hers herself its itself theirs
    themselves whom those am been being having does doing because until while against between
    into through during before after above below off over under again further once here where
    why any both few most such nor not only own same too very s t just don should now
""".split()  # noqa: SIM905
CHUNK = 2_000  # rows are inserted into the two tables in turn, this many at a time
TABLES = (("standalone_chat_messages", "chat_id"), ("chat_messages", "passage_id"))
ACCOUNTS = """
    INSERT INTO auth_user (id, username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT n, 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, %(n)s) n;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user ORDER BY id;
    INSERT INTO passages (user_id, reference, text)
    SELECT id, 'Tobit 6', '' FROM auth_user ORDER BY id;
    INSERT INTO embedding_models (name, current) VALUES ('model', true);
"""
VISIBLE = "SELECT relpages, relallvisible FROM pg_class WHERE oid = 'message_memories'::regclass"
MAX_VACUUMS = 24  # 5 s apart
COPY = """
    COPY {table} (user_id, {parent}, role, content, created_at, embedding)
    FROM STDIN (FORMAT BINARY)
"""


class DataGenerator:
    """A random source of vectors and texts."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self._topics = self.rng.standard_normal((TOPICS, LATENT), dtype=np.float32)
        self._out = self.rng.standard_normal((LATENT, DIMENSIONS), dtype=np.float32)
        self._words = np.array(
            STOP_WORDS + [f"w{n:x}ord" for n in range(VOCABULARY - len(STOP_WORDS))]
        )
        self._zipf = 1 / np.arange(1, VOCABULARY + 1)
        self._zipf /= self._zipf.sum()

    def vectors(self, count: int) -> NDArray[np.float32]:
        """Unit vectors, shape (count, 1536)."""
        latent = self._topics[self.rng.integers(TOPICS, size=count)]
        return self.near(latent @ self._out)

    def near(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors similar to the given ones, like a question and its message."""
        noise = self.rng.standard_normal((len(vectors), LATENT), dtype=np.float32) @ self._out
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        length /= np.linalg.norm(noise, axis=1, keepdims=True)
        similar: NDArray[np.float32] = vectors + NOISE * noise * length
        similar /= np.linalg.norm(similar, axis=1, keepdims=True)
        return similar

    def texts(self, count: int, *, min_words: int = 5, max_words: int = 40) -> list[str]:
        lengths = self.rng.integers(min_words, max_words + 1, size=count)
        drawn = iter(self.rng.choice(self._words, size=int(lengths.sum()), p=self._zipf))
        return [" ".join(next(drawn) for _ in range(length)) for length in lengths]


@dataclass(frozen=True)
class Messages:
    """All messages, one in each row. Vectors are read from the disk when they are used."""

    folder: Path
    vectors: NDArray[np.float32]
    users: NDArray[np.int64]
    texts: list[str]

    def of(self, user: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """A user's packed message ids, and the vectors: shape (n, 1536)."""
        rows = np.flatnonzero(self.users == user)
        return np.array([reference(int(row)) for row in rows]), np.array(self.vectors[rows])


def write(
    folder: Path,
    rows: int,
    generator: DataGenerator,
    *,
    sizes: tuple[int, ...] = SIZES,
    stages: Sequence[int] = (),
) -> Messages:
    """Write ``rows`` random rows into the folder.

    The rows of each measured user are between two neighbours of ``stages``, as early as they fit.
    """
    users = owners(rows, sizes, stages)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", "w+", np.float32, (len(users), DIMENSIONS)
    )
    texts: list[str] = []
    for start in range(0, len(users), CHUNK):
        part = vectors[start : start + CHUNK]
        part[:] = generator.vectors(len(part))
        texts += generator.texts(len(part))
    vectors.flush()
    np.save(folder / "users.npy", users)
    (folder / "texts.txt").write_text("\n".join(texts))
    return Messages(folder, vectors, users, texts)


def owners(rows: int, sizes: tuple[int, ...], stages: Sequence[int]) -> NDArray[np.int64]:
    """The user of each row: users 1, 2, … have ``sizes`` messages, others OTHERS.

    Shuffled between ``stages``. All of the sizes are there, if need be in more rows.
    """
    rng = np.random.default_rng(2)
    measured = deque(enumerate(sizes, start=1))
    others = (len(sizes) + 1 + n // OTHERS for n in itertools.count())
    parts = []
    for start, end in itertools.pairwise([0, *(at for at in stages if at < rows), rows]):
        part: list[int] = []
        while measured and (end == rows or len(part) + measured[0][1] <= end - start):
            user, size = measured.popleft()
            part += [user] * size
        part += itertools.islice(others, max(end - start - len(part), 0))
        rng.shuffle(shuffled := np.array(part))
        parts.append(shuffled)
    return np.concatenate(parts).astype(np.int64)


def reference(row: int) -> int:
    """The packed message id of this row after ``fill`` into empty tables."""
    chunk, place = divmod(row, CHUNK)
    return (chunk // len(TABLES) * CHUNK + place + 1) * 2 + chunk % len(TABLES)


def sign_up(database: psycopg.Connection[Any], messages: Messages) -> None:
    """Create users, each with a chat and a passage; the embedding model is named ``model``."""
    psycopg.ClientCursor(database).execute(ACCOUNTS, {"n": int(messages.users.max())})
    register_vector(database)
    database.commit()


def fill(database: psycopg.Connection[Any], messages: Messages, rows: range) -> None:
    """Insert rows with embeddings into both tables in turn, after ``sign_up``."""
    for start in range(rows.start, rows.stop, CHUNK):
        table, parent = TABLES[start // CHUNK % len(TABLES)]
        with (
            database.transaction(),
            database.cursor().copy(COPY.format(table=table, parent=parent)) as copy,
        ):
            copy.set_types(["int4", "int8", "text", "text", "timestamptz", "vector"])
            for row in _copied_rows(messages, range(start, min(start + CHUNK, rows.stop))):
                copy.write_row(row)
    database.commit()
    database.autocommit = True
    settle(database)


def settle(database: psycopg.Connection[Any]) -> None:
    """Vacuum until statistics and visibility are as some minutes after an import.

    A vacuum does not mark pages that another process, such as autovacuum's analyze, may still need.
    Recall's index-only scan works only on marked pages.
    """
    for _ in range(MAX_VACUUMS):
        database.execute("VACUUM ANALYZE")
        pages, visible = database.execute(VISIBLE).fetchone() or (0, 0)
        if visible > 0.9 * pages:
            return
        time.sleep(5)
    raise RuntimeError(f"{visible} of {pages} pages are visible to all after {MAX_VACUUMS} vacuums")


def _copied_rows(messages: Messages, rows: range) -> Iterator[tuple[Any, ...]]:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for row in rows:
        user, role = int(messages.users[row]), "user" if row % 2 else "assistant"
        yield (
            user,
            user,
            role,
            messages.texts[row],
            start + timedelta(minutes=row),
            messages.vectors[row],
        )
