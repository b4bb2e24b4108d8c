"""What a database holds: the connection's own, so the live one or a restored one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.models import Max
from psycopg import sql

from chat.memory import recall
from retrieval.models import AuditLine, message_tables
from retrieval.queries import rows, value
from retrieval.recall.candidates import Scope
from retrieval.reindex.index_state import declared_indexes

# Of every schema.
NEEDED = ("auth_user", "passages", "standalone_chats", "chat_messages", "standalone_chat_messages")
# A first row of another table, such as the audit log, may well be younger than the backup.
NEVER_EMPTIED = {*NEEDED, "api_tokens", "message_memories", "embedding_models"}
HAS_TABLE = "SELECT pg_catalog.to_regclass(%s) IS NOT NULL"
COUNT = sql.SQL("SELECT count(*) FROM {}")
IS_VALID = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index
        WHERE indexrelid = pg_catalog.to_regclass(%s) AND indisvalid
    )
"""
NEWEST = sql.SQL("SELECT user_id, content FROM {} WHERE content <> '' ORDER BY id DESC LIMIT 1")
# By then everything of this user's was erased; copies of conversations keep their old times.
KNOWN = sql.SQL("""
    SELECT EXISTS (
        SELECT FROM {} m JOIN auth_user u ON u.id = m.user_id
        WHERE u.username = %s AND m.created_at <= %s
    )
""")


@dataclass(frozen=True)
class Contents:
    """``rows`` by table, of Verse's tables that exist; ``indexes``: whether each HNSW one is valid.

    ``migration``: the last of the chat's, None if the database is not Verse's.
    """

    migration: str | None
    rows: dict[str, int]
    indexes: dict[str, bool]

    def as_json(self) -> dict[str, Any]:
        return {"migration": self.migration, "rows": self.rows, "indexes": self.indexes}


def read_contents() -> Contents:
    """Counts every table. Locks nothing."""
    applied = MigrationLoader(connection).applied_migrations
    names = sorted(name for app, name in applied if app == "chat")
    tables = [table for table in verse_tables() if value(HAS_TABLE, [table])]
    return Contents(
        migration=names[-1] if names else None,
        rows={table: value(COUNT.format(sql.Identifier(table))) for table in tables},
        indexes={index.name: value(IS_VALID, [index.name]) for _, index in declared_indexes()},
    )


def verse_tables() -> list[str]:
    """Verse's tables and Django's."""
    return sorted(model._meta.db_table for model in apps.get_models(include_auto_created=True))


def find_faults(backup: Contents, live: Contents) -> list[str]:
    """What the backup lacks. A table of a later migration than the backup's is no fault."""
    if backup.migration is None or "chat_messages" not in backup.rows:
        return ["it is not a backup of Verse"]
    is_older = backup.migration < (live.migration or "")
    needed = NEEDED if is_older else tuple(live.rows)
    missing = [f"{table} is missing" for table in needed if table not in backup.rows]
    empty = [
        f"{table} is empty, the live one has {live.rows[table]:,} rows"
        for table, count in backup.rows.items()
        if not count and live.rows.get(table) and table in NEVER_EMPTIED
    ]
    has_vectors = "message_memories" in backup.rows
    invalid = [
        f"the index {name} is missing or invalid"
        for name, is_valid in backup.indexes.items()
        if has_vectors and not is_valid and live.indexes.get(name)
    ]
    return missing + empty + invalid


def erasures() -> dict[str, datetime]:
    """When each user's data were last erased, by the audit log."""
    if not value(HAS_TABLE, [AuditLine._meta.db_table]):
        return {}
    lines = AuditLine.objects.filter(what="erase").values_list("whose")
    return dict(lines.annotate(at=Max("at")))


def still_known(erased: dict[str, datetime]) -> list[str]:
    """The users of whom there are messages from before their erasure."""
    return sorted(
        name
        for name, at in erased.items()
        if any(
            value(KNOWN.format(sql.Identifier(table.table)), [name, at])
            for table in message_tables()
        )
    )


def recall_newest() -> str:
    """What a recall of the newest message by its own words finds. No call to a service."""
    for table in message_tables():
        for user_id, content in rows(NEWEST.format(sql.Identifier(table.table))):
            result = recall.find_memories(content, Scope(user_id), None, limit=5)
            has_memory = result.mode != recall.OFF
            return f"{len(result.memories)} messages by words" if has_memory else "no memory yet"
    return "nothing to recall"
