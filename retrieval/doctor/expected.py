"""What there must be in the database: read out of the statements that make it, so that the two cannot disagree."""

import re
from dataclasses import dataclass

from django.apps import apps
from django.db import connection

from retrieval.models import Embedded, message_tables
from retrieval.schema import extension, structures
from retrieval.schema.indexes import VectorIndex
from retrieval.schema.operations import schema_of_messages

STATEMENT = re.compile(
    r"\n    (?=CREATE |ALTER |REVOKE |--)"
)  # a function's body is indented further
# A function that is made anew can be called by all until that is revoked.
MADE = re.compile(
    r"(?:CREATE (?:OR REPLACE )?(?:UNIQUE )?)?(?P<kind>TABLE|INDEX|FUNCTION|TRIGGER|REVOKE) (?:IF NOT EXISTS )?"
    r"(?:[\w\"]+\.)?(?P<name>\w+)"
)
BODY = re.compile(r"\$\$(.*)\$\$", re.DOTALL)


@dataclass(frozen=True)
class Thing:
    """A table, index, function, trigger or REVOKE, and its statement; ``table`` is that of messages it belongs to."""

    kind: str
    name: str
    statement: str
    table: str = ""

    @property
    def body(self) -> str:
        """Of a function, as pg_proc.prosrc has it."""
        found = BODY.search(self.statement)
        return found[1] if found else ""


def shared(kind: str) -> list[Thing]:
    """Of this kind, what both tables of messages share. At most one query."""
    schema = schema_of_messages(connection)
    made = structures.tables(schema) + structures.BACKFILL.format(schema=schema)
    found = [one for one in _things(made) if one.kind == kind]
    if kind == "INDEX":
        found += [
            Thing("INDEX", name, f"CREATE INDEX CONCURRENTLY {name} ON {schema}.{what};")
            for name, what in structures.BACKFILL_INDEXES.items()
        ]
    return found


def of_tables(kind: str) -> list[Thing]:
    """Of this kind, what each table of messages has. Two queries. VectorUnavailable: there is no extension."""
    schema, vector = schema_of_messages(connection), extension.schema(connection)
    found = []
    for source in message_tables():
        made = structures.for_source(structures.FOLLOW, source, schema=schema, vector=vector)
        found += [one for one in _things(made, source.table) if one.kind == kind]
    return found


def vector_indexes() -> list[tuple[str, VectorIndex]]:
    """The HNSW indexes with their tables, in the order of sources."""
    models = sorted(
        (model for model in apps.get_models() if issubclass(model, Embedded)),
        key=lambda model: model.memory_table.kind_bit,
    )
    return [
        (model._meta.db_table, index)
        for model in models
        for index in model._meta.indexes
        if isinstance(index, VectorIndex)
    ]


def _things(statements: str, table: str = "") -> list[Thing]:
    written = [statement.strip() for statement in STATEMENT.split(statements)]
    return [
        Thing(made["kind"], made["name"], one, table)
        for one in written
        if (made := MADE.match(one))
    ]
