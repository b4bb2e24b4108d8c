"""Compares storing recall's data in columns of the message table and in a narrow extra table.

    .venv/bin/python -m benchmarks.structures [--rows 50000] [--users 50]

Measures both on the same messages, and a bare table: the time of an insert and of storing an
embedding, and the sizes. Without HNSW indexes.
"""

import argparse
import os
import random
import time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
import psycopg
from django.db import connection
from pgvector.psycopg import register_vector

from benchmarks.stage import scratch_database
from retrieval.message_tables import MessageTable
from retrieval.schema.statements import CURRENT_TRIGGERS, compose

BATCH = 500
WORDS = [
    f"{a}{b}"
    for a in ("ba", "ko", "mi", "ru", "te", "sa")
    for b in ("ker", "lint", "mor", "nas", "pult", "rin", "tov")
]
BARE = """
    CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint,
        chat_id bigint, role text, content text, created_at timestamptz, embedding vector(1536));
    CREATE INDEX ON bare (user_id); CREATE INDEX ON bare (chat_id, created_at, id);
"""
COLUMNS = """
    CREATE TABLE columns (LIKE bare INCLUDING ALL, conversation bigint, by_user boolean,
        terms bigint[], chars smallint, is_question boolean, bits bit(1536), model smallint);
    CREATE FUNCTION columns_fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' OR NEW.content IS DISTINCT FROM OLD.content THEN
            NEW.conversation := NEW.chat_id * 2;
            NEW.by_user := NEW.role = 'user';
            NEW.terms := message_terms(NEW.user_id, NEW.content, NEW.created_at)
                || content_term(NEW.user_id, NEW.content);
            NEW.chars := least(length(NEW.content), 300);
            NEW.is_question := right(rtrim(NEW.content), 1) IN ('?', '？', '؟');
        END IF;
        NEW.bits := binary_quantize(NEW.embedding)::bit(1536);
        NEW.model := CASE WHEN NEW.bits IS NOT NULL
            THEN (SELECT id FROM embedding_models WHERE current) END;
        RETURN NEW;
    END $$;
    CREATE TRIGGER fill BEFORE INSERT OR UPDATE OF content, embedding ON columns
        FOR EACH ROW EXECUTE FUNCTION columns_fill();
    CREATE INDEX ON columns USING gin (terms) WITH (fastupdate = off);
    CREATE INDEX ON columns (user_id, conversation, created_at, id)
        INCLUDE (bits, model, by_user, chars, is_question);
    CREATE INDEX ON columns (conversation, created_at, id);
"""
NARROW = "CREATE TABLE narrow (LIKE bare INCLUDING ALL);"
INSERT = """
    INSERT INTO {table} (user_id, chat_id, role, content, created_at)
    VALUES (%s, %s, %s, %s, now() - %s * interval '1 min')
"""
EMBED = "UPDATE {table} SET embedding = %b::vector WHERE id = %s"
SIZE = "SELECT pg_table_size(%s) / 1e6, pg_indexes_size(%s) / 1e6"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=50)
    options = parser.parse_args()
    with scratch_database() as url, psycopg.connect(url) as database:
        database.execute(BARE)
        register_vector(database)
        database.execute(COLUMNS)
        database.execute(NARROW)
        narrow = MessageTable(0, "narrow", "chat_id", "standalone_chats")
        for statement in compose(connection, CURRENT_TRIGGERS, narrow):
            database.execute(statement)
        database.execute("INSERT INTO embedding_models (name, current) VALUES ('model', true)")
        database.commit()
        sizes = "insert µs | embed µs | table MB | indexes MB"
        print(f"| | {sizes} |")
        print("|---|---|---|---|---|")
        for table in ("bare", "columns", "narrow"):
            report(database, table, options)


def report(database: psycopg.Connection[Any], table: str, options: argparse.Namespace) -> None:
    """Print a line of the table."""
    rng = random.Random(1)
    numbers = np.random.default_rng(1)
    owners = [1] * 700 + [2] * (options.rows // 5)
    owners += [3 + rng.randrange(options.users) for _ in range(options.rows - len(owners))]
    rng.shuffle(owners)
    insert = timed(database, INSERT.format(table=table), [
        (owner, owner * 100 + rng.randrange(20), rng.choice(["user", "assistant"]),
         " ".join(rng.choices(WORDS, k=rng.randrange(5, 40))), number)
        for number, owner in enumerate(owners)
    ])  # fmt: skip
    embed = timed(database, EMBED.format(table=table), [
        (numbers.standard_normal(1536, dtype=np.float32), pk + 1) for pk in range(len(owners))
    ])  # fmt: skip
    database.commit()
    database.autocommit = True
    database.execute("VACUUM ANALYZE")
    names = [table, "message_memories"] if table == "narrow" else [table]
    sizes = [database.execute(SIZE, [name, name]).fetchone() or (0, 0) for name in names]
    cells = [
        f"{insert:.0f}",
        f"{embed:.0f}",
        *(f"{sum(size[part] for size in sizes):.0f}" for part in (0, 1)),
    ]
    print(f"| {table} | {' | '.join(cells)} |", flush=True)
    database.autocommit = False


def timed(database: psycopg.Connection[Any], sql: str, rows: list[tuple[Any, ...]]) -> float:
    """Microseconds for each row, in transactions of BATCH rows."""
    started = time.perf_counter()
    with database.cursor() as cursor:
        for start in range(0, len(rows), BATCH):
            cursor.executemany(sql, rows[start : start + BATCH])
            database.commit()
    return (time.perf_counter() - started) / len(rows) * 1e6


if __name__ == "__main__":
    main()
