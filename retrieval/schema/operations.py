"""Migration operations on live tables: each may be killed and run again."""

from collections.abc import Sequence
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddField, AddIndex
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from psycopg import sql

from retrieval.message_tables import MessageTable
from retrieval.queries import value
from retrieval.schema import extension, indexes, locks
from retrieval.schema.statements import compose

# Frozen for migrations; retrieval.models.message_tables() has the tables of this version.
MESSAGE_TABLES = (
    MessageTable(0, "standalone_chat_messages", "chat_id", "standalone_chats"),
    MessageTable(1, "chat_messages", "passage_id", "passages"),
)
BATCH_ROWS = 2_000  # rows a transaction; 20,000 rows take 0.4 s
ADD_EMBEDDING = sql.SQL(
    "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS embedding {vector}.vector(1536)"
)
DROP_EMBEDDING = sql.SQL("ALTER TABLE {table} DROP COLUMN IF EXISTS embedding")


class LiveOperation(Operation):
    """SQL of our own in its own transactions. Django's model state does not change."""

    reversible = True
    atomic = False
    description: str  # for ``migrate --plan``

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """What ``migrate`` does: nothing, unless a subclass overrides it."""

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """What the way back does: nothing, unless a subclass overrides it."""

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        pass

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self.forwards(schema_editor.connection)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        self.backwards(schema_editor.connection)

    def describe(self) -> str:
        return self.description


class EnableVector(LiveOperation):
    """Create the extension where it is missing. Lock: none on any table.

    Back: it stays, since DROP EXTENSION would drop what others have built on it.
    """

    description = "Create the extension vector where it is missing"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        extension.enable(connection)


class LiveModelOperation(Operation):
    """Django's change of a model's state, with SQL of our own on the model's table."""

    model_name: str

    def forwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        raise NotImplementedError

    def backwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        raise NotImplementedError

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        table = to_state.apps.get_model(app_label, self.model_name)._meta.db_table
        self.forwards(schema_editor.connection, table)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        table = from_state.apps.get_model(app_label, self.model_name)._meta.db_table
        self.backwards(schema_editor.connection, table)


class AddEmbedding(LiveModelOperation, AddField):
    """The column ``embedding``, nullable: no row is rewritten. Back: drops it.

    Lock, both ways: ACCESS EXCLUSIVE on the table for under a millisecond.
    """

    def forwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        vector = extension.schema(connection)
        add = ADD_EMBEDDING.format(table=sql.Identifier(table), vector=vector)
        locks.run_with_short_lock(connection, table, add)

    def backwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        drop = DROP_EMBEDDING.format(table=sql.Identifier(table))
        locks.run_with_short_lock(connection, table, drop)


class AddVectorIndex(LiveModelOperation, AddIndex):
    """Build the index CONCURRENTLY, replace one that a kill left INVALID. Back: drops it."""

    index: indexes.VectorIndex

    def forwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        indexes.build(connection, table, self.index)

    def backwards(self, connection: BaseDatabaseWrapper, table: str) -> None:
        indexes.drop(connection, self.index.name)


class RunSqlFiles(LiveOperation):
    """Run files of SQL in one transaction that locks ``table`` briefly.

    ``files``: each with the message table that it is composed for; ``backward`` likewise.
    """

    def __init__(
        self,
        description: str,
        table: str,
        files: Sequence[tuple[Path, MessageTable | None]],
        *,
        backward: Sequence[tuple[Path, MessageTable | None]] = (),
    ) -> None:
        self.description, self.table, self.files = description, table, files
        self.backward = backward

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        self._run(connection, self.files)

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        if self.backward:
            self._run(connection, self.backward)

    def _run(
        self, connection: BaseDatabaseWrapper, files: Sequence[tuple[Path, MessageTable | None]]
    ) -> None:
        statements = [line for file, table in files for line in compose(connection, file, table)]
        locks.run_with_short_lock(connection, self.table, ";\n".join(statements))


class BuildIndexes(LiveOperation):
    """Build the indexes of a file CONCURRENTLY. Back: nothing, they go with their table."""

    def __init__(self, description: str, file: Path, names: Sequence[str]) -> None:
        self.description, self.file, self.names = description, file, names

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        for name, create in zip(self.names, compose(connection, self.file), strict=True):
            indexes.ensure(connection, name, create)


class CreateIndex(LiveOperation):
    """Build the index of a file CONCURRENTLY. Back: drops it. Lock: as ``indexes.ensure``."""

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file = name, file
        self.description = f"Build the index {name}"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        (create,) = compose(connection, self.file)
        indexes.ensure(connection, self.name, create)

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        indexes.drop(connection, self.name)


class DropIndex(LiveOperation):
    """Drop an index CONCURRENTLY. Back: builds it as the file says. Lock: as ``CreateIndex``."""

    def __init__(self, name: str, file: Path) -> None:
        self.create = CreateIndex(name, file)
        self.description = f"Drop the index {name}"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        self.create.backwards(connection)

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        self.create.forwards(connection)


class RecordStaleAnswers(LiveOperation):
    """Record answers that were given a message which is missing or was edited later.

    Only what memory already holds; backfill_embeddings records the rest. No lock on message tables:
    their rows are read, BATCH_ROWS a transaction. Run again after a kill, it records nothing twice.
    """

    def __init__(self, file: Path, table: MessageTable) -> None:
        self.file, self.table = file, table
        self.description = f"Note answers in {table.table} that a forgotten message has tainted"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        (statement,) = compose(connection, self.file, self.table)
        after: int | None = 0
        while after is not None:
            after = value(
                statement, {"after": after, "batch_rows": BATCH_ROWS}, connection=connection
            )


class RemoveMemory(LiveOperation):
    """Back: drop memory's triggers, then its tables and functions, whatever made them.

    Lock: ACCESS EXCLUSIVE on one message table after the other, then on memory's own tables, for
    milliseconds. Forwards: nothing.
    """

    description = "Remove memory's triggers, tables and functions on the way back"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        for table in MESSAGE_TABLES:
            triggers = compose(connection, self.folder / "0005_backward_triggers.sql", table)
            locks.run_with_short_lock(connection, table.table, ";\n".join(triggers))
        rest = compose(connection, self.folder / "0005_backward.sql")
        locks.run_with_short_lock(connection, "message_memories", ";\n".join(rest))
