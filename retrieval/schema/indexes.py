"""The HNSW index, and index builds that let reads and writes go on."""

from contextlib import suppress
from typing import Any, cast

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddIndex
from django.db.migrations.state import ProjectState
from pgvector.django import HnswIndex
from psycopg import sql

from retrieval.schema import extension

CLIENT_CHECK = "1s"  # a build whose client was killed ends within this
IS_VALID = """
    SELECT i.indisvalid FROM pg_catalog.pg_index i
    WHERE i.indexrelid = pg_catalog.to_regclass(%s)
"""
CREATE = """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table}
    USING hnsw (embedding {vector}.vector_cosine_ops)
    WITH (m = {m}, ef_construction = {ef_construction})
"""


class VectorIndex(HnswIndex):
    """An HNSW index for cosine distance, with a name of up to PostgreSQL's own 63 characters.

    Django's limit of 30 is for other databases; docs/promises.md, "Tables", names longer ones.
    """

    max_name_length = 63  # NAMEDATALEN - 1

    def __init__(
        self, *, name: str, m: int = 16, ef_construction: int = 64, **options: Any
    ) -> None:
        # 16 and 64 are pgvector's own defaults.
        options.setdefault("fields", ["embedding"])
        options.setdefault("opclasses", ["vector_cosine_ops"])
        super().__init__(name=name, m=m, ef_construction=ef_construction, **options)


def state(connection: BaseDatabaseWrapper, name: str) -> bool | None:
    """Whether the index is valid; None if there is none. One query."""
    with connection.cursor() as cursor:
        cursor.execute(IS_VALID, [name])
        row = cursor.fetchone()
    return None if row is None else bool(row[0])


def build(connection: BaseDatabaseWrapper, table: str, index: VectorIndex) -> None:
    """Build the HNSW index, as ``ensure`` does."""
    create = sql.SQL(CREATE).format(
        name=sql.Identifier(index.name),
        table=sql.Identifier(table),
        vector=sql.SQL(extension.schema(connection)),
        m=sql.Literal(index.m),
        ef_construction=sql.Literal(index.ef_construction),
    )
    ensure(connection, index.name, create)


def ensure(connection: BaseDatabaseWrapper, name: str, create: str | sql.Composable) -> None:
    """Run CREATE INDEX CONCURRENTLY unless the index is valid; first drop an INVALID one.

    An ended build leaves an INVALID index. Lock: SHARE UPDATE EXCLUSIVE on the table, so reads and
    writes go on; it waits for the transactions that are open.
    """
    is_valid = state(connection, name)
    if is_valid is False:
        drop(connection, name)
    if not is_valid:
        execute(connection, create)


def drop(connection: BaseDatabaseWrapper, name: str) -> None:
    """Drop the index CONCURRENTLY, if it exists. Lock: as ``ensure``."""
    statement = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {name}")
    execute(connection, statement.format(name=sql.Identifier(name)))


def execute(connection: BaseDatabaseWrapper, statement: str | sql.Composable) -> None:
    """Run a statement that builds or drops an index. It ends soon after its client has died."""
    with connection.cursor() as cursor:
        with suppress(DatabaseError):  # not every operating system notices a dead client
            cursor.execute(
                "SELECT pg_catalog.set_config('client_connection_check_interval', %s, false)",
                [CLIENT_CHECK],
            )
        cursor.execute(statement)


class AddVectorIndex(AddIndex):
    """Build the index CONCURRENTLY, replace one that a kill left INVALID. Back: drops it."""

    atomic = False

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            index = cast("VectorIndex", self.index)
            build(schema_editor.connection, model._meta.db_table, index)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            drop(schema_editor.connection, self.index.name)
