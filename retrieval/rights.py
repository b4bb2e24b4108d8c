"""The rights on memory's tables and functions that the servers' database role needs.

``grant_roles`` grants them (verse/grants.py) and ``rag_doctor`` checks them (database.rights).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from retrieval.models import message_tables


@dataclass(frozen=True)
class Privilege:
    """SELECT, INSERT, UPDATE or DELETE, on a whole table or only on the named columns."""

    action: LiteralString
    columns: tuple[str, ...] = ()

    def compose(self) -> sql.Composable:
        """The privilege as GRANT names it."""
        if not self.columns:
            return sql.SQL(self.action)
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        return sql.SQL("{action} ({columns})").format(action=sql.SQL(self.action), columns=columns)


SELECT, INSERT = Privilege("SELECT"), Privilege("INSERT")
UPDATE, DELETE = Privilege("UPDATE"), Privilege("DELETE")
READ = (SELECT,)
WRITE = (SELECT, INSERT, UPDATE, DELETE)
# Triggers write message_memories, with the rights of its owner. The admin makes messages that were
# set aside pending again, and sets them aside.
MEMORY_RIGHTS = {
    "message_memories": (SELECT, Privilege("UPDATE", ("embedding_error",))),
    "forgotten_messages": (SELECT, INSERT, DELETE),
    "embedding_models": (SELECT, INSERT, Privilege("UPDATE", ("min_similarity", "measured_at"))),
    "embedding_usage": (SELECT, INSERT, UPDATE),
    "user_embedding_usage": WRITE,
    "log_counts": WRITE,
    "audit_log": (SELECT, INSERT),
    "doctor_run": (SELECT, INSERT, UPDATE),
    "rag_rollout": (SELECT, INSERT, UPDATE),
    "embedding_claims": READ,
    "embedding_rate": READ,
    "recall_times": WRITE,
    "token_usage": (SELECT, INSERT, UPDATE),
    "kept_conversations": WRITE,
    "retention_state": (SELECT, INSERT, UPDATE),
    "user_token_usage": WRITE,
    "user_writes": WRITE,
    "search_configs": READ,  # by message_terms, which has its caller's rights
}
# Their names alone identify them: none has a second signature.
MEMORY_FUNCTIONS: tuple[LiteralString, ...] = (
    "message_terms",
    "content_term",
    "memory_row",
    "recall_shows_1",
    "recall_traits_1",
    "recall_candidates_1",
    "is_tainted_1",
    "recall_messages_1",
    "recall_message_1",
    "tainted_by_1",
    "recall_messages_2",
)


def server_rights() -> dict[str, tuple[Privilege, ...]]:
    """The rights on memory's tables and on the message tables, by table."""
    return MEMORY_RIGHTS | dict.fromkeys((table.table for table in message_tables()), WRITE)


def grant(privileges: Iterable[Privilege], table: sql.Identifier, role: str) -> sql.Composed:
    """The statement that grants the privileges. Locks nothing that reading or writing waits for."""
    return sql.SQL("GRANT {privileges} ON {table} TO {role}").format(
        privileges=sql.SQL(", ").join(privilege.compose() for privilege in privileges),
        table=table,
        role=sql.Identifier(role),
    )
