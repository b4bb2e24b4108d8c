"""What a migrated database contains, from retrieval/schema/current*.sql."""

import re
from dataclasses import dataclass

from django.db import connection

from retrieval.models import message_tables
from retrieval.schema.statements import CURRENT, CURRENT_RECALL, CURRENT_TRIGGERS, compose

# The kind and the name of what a statement creates. A REVOKE belongs to the functions before it:
# everyone may call a function that is created again.
HEAD = re.compile(
    r"(?:CREATE (?:OR REPLACE )?(?:UNIQUE )?)?(?P<kind>TABLE|INDEX|FUNCTION|TRIGGER|REVOKE) "
    r"(?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?:[\w\"]+\.)?\"?(?P<name>\w+)"
)
BODY = re.compile(r"\$\$(.*)\$\$", re.DOTALL)


@dataclass(frozen=True)
class SchemaObject:
    """A table, index, function, trigger or REVOKE; ``table``: the message table it belongs to."""

    kind: str
    name: str
    statement: str
    table: str = ""

    @property
    def body(self) -> str:
        """A function's body, as in pg_proc.prosrc."""
        body = BODY.search(self.statement)
        return body[1] if body else ""


def shared(kind: str) -> list[SchemaObject]:
    """What both message tables share, of this kind; indexes CONCURRENTLY. At most four queries."""
    statements = compose(connection, CURRENT, concurrently=True)
    return _objects(statements + compose(connection, CURRENT_RECALL), kind)


def of_tables(kind: str) -> list[SchemaObject]:
    """What each message table has, of this kind. Four queries. Raises VectorUnavailable."""
    return [
        schema_object
        for table in message_tables()
        for schema_object in _objects(
            compose(connection, CURRENT_TRIGGERS, table), kind, table.table
        )
    ]


def _objects(statements: list[str], kind: str, table: str = "") -> list[SchemaObject]:
    heads = ((HEAD.match(statement), statement) for statement in statements)
    return [
        SchemaObject(kind, head["name"], statement, table)
        for head, statement in heads
        if head and head["kind"] == kind
    ]
