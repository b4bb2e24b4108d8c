"""Tries other forms of storage on the data of ``benchmarks.scale``: partitions, and halfvec.

Partitions: ``message_memories`` by hash of the user, in 16. Both forms take turns under the table's
name, so that the same recall reads them. halfvec: copies of the vectors as 4 and as 2 bytes a
number, with an HNSW index each.
"""

import statistics
import time
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.generated_messages import SIZES, DataGenerator, Messages
from benchmarks.processes import cpu_ms
from benchmarks.recall import ask_of, backend, nearest_first, whole
from benchmarks.ways import Question, Way, ask_all, local

PARTITIONS = 16
ROUNDS = 4  # of both forms in turns
INSERTED = 2_000  # rows, to measure an insert
COPIED = 50_000  # vectors, to measure halfvec
HALFVEC_USER = 4  # with 2,000 messages
NEW_TABLE = """
    CREATE TABLE other_memories (LIKE message_memories, PRIMARY KEY (user_id, id))
    PARTITION BY HASH (user_id)
"""
NEW_PARTITION = sql.SQL("""
    CREATE TABLE {name} PARTITION OF other_memories FOR VALUES WITH (MODULUS {of}, REMAINDER {at})
""")
# The indexes of message_memories, after the rows are there.
INDEXES = """
    CREATE INDEX ON other_memories USING gin (terms);
    CREATE INDEX ON other_memories (user_id, conversation, created_at, id)
        INCLUDE (bits, model, by_user, chars, is_question);
    CREATE INDEX ON other_memories (conversation, created_at, id);
    CREATE INDEX ON other_memories (model, (id & 1), id);
    CREATE INDEX ON other_memories (id) WHERE embedding_error IS NOT NULL;
    CREATE INDEX ON other_memories (id)
"""
EXCHANGE = """
    ALTER TABLE message_memories RENAME TO exchanged_memories;
    ALTER TABLE other_memories RENAME TO message_memories;
    ALTER TABLE exchanged_memories RENAME TO other_memories
"""
INSERT = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, bits, model, search_config_id)
    SELECT id + 1000000000000, user_id, conversation, created_at, by_user, terms, chars,
        is_question, bits, model, search_config_id
    FROM message_memories LIMIT %s
"""
# Of the table, or of its partitions.
SIZE = """
    SELECT sum(pg_total_relation_size(c.oid)) / 1e6 FROM pg_class c
    WHERE c.oid = 'message_memories'::regclass OR c.oid IN (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'message_memories'::regclass)
"""
COPY = sql.SQL("""
    CREATE TABLE {name} AS SELECT id, user_id, embedding::{kind} AS embedding FROM (
        (SELECT id, user_id, embedding FROM standalone_chat_messages WHERE user_id = %(user)s)
        UNION ALL (SELECT id, user_id, embedding FROM standalone_chat_messages
            WHERE user_id <> %(user)s ORDER BY id LIMIT %(rows)s)) x
""")
SCAN = sql.SQL("""
    SELECT id FROM {name} WHERE user_id = %(user)s
    ORDER BY (embedding <=> %(vector)b::vector::{kind}) + 0 LIMIT 5
""")
SEARCH = sql.SQL("SELECT id FROM {name} ORDER BY embedding <=> %(vector)b::vector::{kind} LIMIT 5")
BUILD = sql.SQL("CREATE INDEX {index} ON {name} USING hnsw (embedding {kind_ops})")


def partitions(
    database: psycopg.Connection[Any], messages: Messages, generator: DataGenerator
) -> dict[str, dict[str, float]]:
    """Figures by form: MB, seconds to fill, CPU of an insert and of recall by size of user."""
    figures: dict[str, dict[str, list[float]]] = {"one table": {}, f"{PARTITIONS} partitions": {}}
    seconds = fill_partitions(database)
    questions = {
        size: ask_of(messages, user, generator, 15)
        for user, size in enumerate(SIZES, start=1)
        if (messages.users == user).sum() == size
    }
    for _ in range(ROUNDS):
        for measured in figures.values():
            for name, value in measure_form(database, questions).items():
                measured.setdefault(name, []).append(value)
            database.execute(EXCHANGE)
    medians = {
        form: {name: round(statistics.median(values), 3) for name, values in measured.items()}
        for form, measured in figures.items()
    }
    medians[f"{PARTITIONS} partitions"]["seconds to fill and index"] = round(seconds)
    return medians


def fill_partitions(database: psycopg.Connection[Any]) -> float:
    """Make ``other_memories`` of all rows; the seconds that it took."""
    started = time.monotonic()
    database.execute(NEW_TABLE)
    for at in range(PARTITIONS):
        name = sql.Identifier(f"other_memories_{at}")
        database.execute(NEW_PARTITION.format(name=name, of=PARTITIONS, at=at))
    database.execute("INSERT INTO other_memories SELECT * FROM message_memories")
    database.execute(INDEXES)
    database.execute("VACUUM ANALYZE other_memories")
    return time.monotonic() - started


def measure_form(
    database: psycopg.Connection[Any], questions: dict[int, list[Question]]
) -> dict[str, float]:
    """The figures of the form that is called ``message_memories`` now."""
    measured = {"MB": float((database.execute(SIZE).fetchone() or (0,))[0])}
    pids = [database.info.backend_pid]
    with database.transaction(force_rollback=True):
        before = cpu_ms(pids)
        database.execute(INSERT, [INSERTED])
        measured["insert, CPU ms"] = (cpu_ms(pids) - before) / INSERTED
    way = Way(local(lambda q: nearest_first(whole(q, q.vector))), backend)
    for size, chosen in questions.items():
        row = ask_all({"recall": way}, chosen)["recall"]
        measured[f"recall of {size}, server CPU ms"] = row["server_cpu_ms"]
    return measured


def halfvec(
    database: psycopg.Connection[Any], messages: Messages, generator: DataGenerator
) -> dict[str, dict[str, float]]:
    """Figures by type: MB, an exact scan of a user's messages, and an HNSW index."""
    database.execute("SET maintenance_work_mem = '1GB'")
    questions = ask_of(messages, HALFVEC_USER, generator, 60)
    figures = {}
    nearest: dict[int, set[int]] = {}
    for kind in ("vector", "halfvec"):
        copy = Copy(database, kind)
        figures[kind] = copy.measure(questions, nearest)
    return figures


class Copy:
    """A table of vectors of one type."""

    def __init__(self, database: psycopg.Connection[Any], kind: str) -> None:
        self.database = database
        name, index = f"copied_{kind}", f"copied_{kind}_hnsw"
        self.tables, self.indexes = [name], [index]
        self.names = {
            "name": sql.Identifier(name),
            "index": sql.Identifier(index),
            "kind": sql.SQL(kind) + sql.SQL("(1536)"),
            "kind_ops": sql.Identifier(f"{kind}_cosine_ops"),
        }
        params = {"user": HALFVEC_USER, "rows": COPIED}
        psycopg.ClientCursor(database).execute(COPY.format(**self.names), params)
        database.execute(sql.SQL("VACUUM ANALYZE {name}").format(**self.names))

    def measure(self, questions: list[Question], nearest: dict[int, set[int]]) -> dict[str, float]:
        """The figures. ``nearest``: the five nearest by the type that is measured first."""
        figures = {"MB": self.megabytes(self.tables)}
        scanned = self.ask(SCAN, questions, figures, "exact scan, CPU ms")
        for number, ids in scanned.items():
            nearest.setdefault(number, ids)
        shares = [len(ids & nearest[number]) / len(ids) for number, ids in scanned.items()]
        figures["five nearest in common with vector"] = round(statistics.mean(shares), 4)
        started = time.monotonic()
        self.database.execute(BUILD.format(**self.names))
        figures["HNSW, seconds to build"] = round(time.monotonic() - started)
        figures["HNSW, MB"] = self.megabytes(self.indexes)
        self.ask(SEARCH, questions, figures, "HNSW search, CPU ms")
        return figures

    def megabytes(self, relations: list[str]) -> float:
        statement = "SELECT sum(pg_table_size(oid)) / 1e6 FROM pg_class WHERE relname = ANY (%s)"
        row = self.database.execute(statement, [relations]).fetchone() or (0,)
        return round(float(row[0]), 1)

    def ask(
        self, statement: sql.SQL, questions: list[Question], figures: dict[str, float], name: str
    ) -> dict[int, set[int]]:
        """The ids that it finds, by question; adds the processor time of one to the figures."""
        pids = [self.database.info.backend_pid]
        before = cpu_ms(pids)
        ids = {}
        for question in questions:
            params = {"user": HALFVEC_USER, "vector": question.vector}
            rows = self.database.execute(statement.format(**self.names), params).fetchall()
            ids[question.number] = {pk for (pk,) in rows}
        figures[name] = round((cpu_ms(pids) - before) / len(questions), 2)
        return ids
