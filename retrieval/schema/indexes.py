"""The HNSW index: its class, and the operation that builds it while everybody goes on writing."""

from contextlib import suppress
from typing import Any, cast

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddIndex
from django.db.migrations.state import ProjectState
from pgvector.django import HnswIndex
from psycopg.sql import Composed

from retrieval.schema import extension

# A backend whose client was killed ends its build within this, instead of going on for nobody.
CLIENT_CHECK = "1s"
STATE = """
    SELECT i.indisvalid FROM pg_catalog.pg_index i
    WHERE i.indexrelid = pg_catalog.to_regclass(%s)
"""


class VectorIndex(HnswIndex):
    """An HNSW index for cosine distance, with a name as long as PostgreSQL's own names may be.

    Django's limit of 30 characters is for databases that we do not use; contract section 6 promises longer names.
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
    """Whether the index is valid; None where there is none. One query."""
    with connection.cursor() as cursor:
        cursor.execute(STATE, [name])
        row = cursor.fetchone()
    return None if row is None else bool(row[0])


def build(connection: BaseDatabaseWrapper, table: str, index: VectorIndex) -> None:
    """Build the HNSW index, as ``ensure`` does."""
    vector = extension.schema(connection)
    options = f"m = {index.m}, ef_construction = {index.ef_construction}"
    what = f'"{table}" USING hnsw (embedding {vector}.vector_cosine_ops) WITH ({options})'
    ensure(connection, index.name, what)


def ensure(connection: BaseDatabaseWrapper, name: str, what: str) -> None:
    """Build an index CONCURRENTLY: a valid one stays, an INVALID one, left by a build that was ended, is replaced.

    ``what``: the rest of the statement, from the table's name. Lock: SHARE UPDATE EXCLUSIVE on the table, so reads
    and writes go on; it waits for transactions that are open.
    """
    found = state(connection, name)
    if found is False:
        drop(connection, name)
    if not found:
        execute(connection, f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{name}" ON {what}')


def drop(connection: BaseDatabaseWrapper, name: str) -> None:
    """Drop the index CONCURRENTLY; nothing to do where there is none. Lock: as build."""
    execute(connection, f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')


def execute(connection: BaseDatabaseWrapper, sql: str | Composed) -> None:
    """Run what builds or drops an index; it ends soon after its client has gone, where the system can tell that."""
    with connection.cursor() as cursor:
        with suppress(DatabaseError):  # not every system can tell that a client is gone
            cursor.execute(
                "SELECT pg_catalog.set_config('client_connection_check_interval', %s, false)",
                [CLIENT_CHECK],
            )
        cursor.execute(sql)


class AddVectorIndex(AddIndex):
    """Build the index without holding anybody up; run again after a kill, it repairs. Back: drops it so."""

    atomic = False

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Build."""
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            build(schema_editor.connection, model._meta.db_table, self._vector_index())

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Drop."""
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            drop(schema_editor.connection, self.index.name)

    def _vector_index(self) -> VectorIndex:
        return cast("VectorIndex", self.index)
