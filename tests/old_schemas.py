"""Memory's schema as earlier states of this repository made it, for tests of the upgrade.

``tests/data/old_schemas`` holds a dump of memory's own tables, functions and triggers by the last
migration of each state. Each is added to a database at today's 0004_vector_indexes.
"""

import json
from collections.abc import Callable
from typing import Any

from fake_openai.vectors import vector_of
from tests.support import ROOT

FOLDER = ROOT / "tests" / "data" / "old_schemas"
# Migrations that no longer exist, as each state has recorded them.
RECORDED = {
    "0004_vector_indexes": ["0003_recall"],
    "0006_model_of_vectors": ["0003_recall", "0005_backfill", "0006_model_of_vectors"],
    "0006_model_and_text": ["0003_recall", "0005_backfill", "0006_model_and_text"],
    "0008_forgetting": [
        "0003_recall",
        "0005_backfill",
        "0006_model_and_text",
        "0007_import",
        "0008_forgetting",
    ],
}
RECORD = "INSERT INTO django_migrations (app, name, applied) VALUES ('chat', %s, now())"
SEED = """
    INSERT INTO recall_texts (config, months, current)
    VALUES ('pg_catalog.english', ARRAY['january', 'february', 'march', 'april', 'may', 'june',
        'july', 'august', 'september', 'october', 'november', 'december'], true)
"""
# Only 0003 of the last state: what its 0005 added is missing.
WITHOUT_BACKFILL = """
    ALTER TABLE message_memories DROP COLUMN embedding_error;
    DROP INDEX IF EXISTS message_memories_pending;
    DROP TABLE embedding_usage;
    DELETE FROM django_migrations WHERE app = 'chat' AND name > '0004_vector_indexes'
"""


def add_old_memory(run: Callable[..., object], state: str) -> None:
    """Add memory as ``state`` made it; ``run`` executes SQL, with parameters, in the database."""
    text = (FOLDER / f"{state}.sql").read_text()
    run(text)
    for name in RECORDED[state]:
        run(RECORD, name)
    if "recall_texts" in text:
        run(SEED)


INSERT_USER = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    VALUES ('demo', '!', false, '', '', '', false, true, now()) RETURNING id
"""
TABLES = {
    "chat": ("standalone_chat_messages", "chat_id"),
    "passage": ("chat_messages", "passage_id"),
}
PARENTS = {
    "chat": "INSERT INTO standalone_chats (user_id, title) VALUES (%s, %s) RETURNING id",
    "passage": "INSERT INTO passages (user_id, reference, text) VALUES (%s, %s, '') RETURNING id",
}
INSERT_MESSAGE = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    VALUES (%s, %s, %s, %s, %s) RETURNING id
"""
EMBED = "UPDATE {table} SET embedding = %s::vector WHERE id = %s"
MODEL = "text-embedding-3-small"
USER_ID = 3  # after those of tests.databases


def add_samples(run: Callable[..., list[Any]]) -> int:
    """Write the sample conversations and the fake service's vectors by SQL; returns the user's id.

    The database's own triggers bring them into memory.
    """
    ((user_id,),) = run(INSERT_USER)
    run("INSERT INTO embedding_models (name, current) VALUES (%s, true)", MODEL)
    parents: dict[str, int] = {}
    for line in (ROOT / "chat" / "samples" / "conversations.jsonl").read_text().splitlines():
        message = json.loads(line)
        table, parent = TABLES[message["kind"]]
        title, content = message["conversation"], message["content"]
        if title not in parents:
            parents[title] = run(PARENTS[message["kind"]], user_id, title)[0][0]
        values = (user_id, parents[title], message["role"], content, message["created_at"])
        ((pk,),) = run(INSERT_MESSAGE.format(table=table, parent=parent), *values)
        run(EMBED.format(table=table), str(vector_of(content, 1536)), pk)
    return int(user_id)
