"""Migration operations that add memory to live tables, and take it away: each may be killed and run again."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from retrieval.forgetting import has_stale_source
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.schema import extension, indexes, locks, structures
from retrieval.vectors import DIMENSIONS

NOTE_ROWS = 2_000  # a transaction


class OnLiveTables(Operation):
    """Statements of our own, both ways, in transactions of their own; Django's models know nothing of it."""

    reversible = True
    atomic = False
    said: str  # for ``migrate --plan``

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """What migrate does."""
        raise NotImplementedError

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """What the way back does: nothing, unless a subclass says otherwise."""

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing of Django's."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Django's name for it."""
        self.forwards(schema_editor.connection)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Django's name for it."""
        self.backwards(schema_editor.connection)

    def describe(self) -> str:
        """For ``migrate --plan``."""
        return self.said


class EnableVector(OnLiveTables):
    """The extension, made where it is missing; with the help of ``enable_vector`` where it cannot.

    Lock: none on any table. Back: it stays, since DROP EXTENSION would take along what others made with it.
    """

    said = "Make the extension vector where it is missing"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Make it."""
        extension.enable(connection)


class AddEmbedding(AddField):
    """The column ``embedding``, nullable: no row is rewritten.

    Lock: ACCESS EXCLUSIVE on the table, for under a millisecond, asked for as ``locks.change`` does. Back: drops the
    column, with the same lock.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Add it, unless it is there."""
        connection = schema_editor.connection
        table = to_state.apps.get_model(app_label, self.model_name)._meta.db_table
        vector = f"{extension.schema(connection)}.vector({DIMENSIONS})"
        locks.run_with_short_lock(
            connection, table, f'ALTER TABLE "{table}" ADD COLUMN IF NOT EXISTS embedding {vector}'
        )

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Drop it."""
        table = from_state.apps.get_model(app_label, self.model_name)._meta.db_table
        locks.run_with_short_lock(
            schema_editor.connection,
            table,
            f'ALTER TABLE "{table}" DROP COLUMN IF EXISTS embedding',
        )


class AddRecall(OnLiveTables):
    """Recall's own tables and functions. No live table is touched.

    Back: drops them; a recall that reads them is waited for, briefly and again.
    """

    said = "Make the tables and functions of recall"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Make them."""
        with connection.cursor() as cursor:
            cursor.execute(structures.tables(schema_of_messages(connection)))

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """Drop them."""
        dropped = structures.DROP_TABLES.format(schema=schema_of_messages(connection))
        locks.run_with_short_lock(connection, "message_memories", dropped)


class AddRecallAnew(OnLiveTables):
    """Recall's tables and functions as they are today, where an earlier version made them.

    Lock: ACCESS EXCLUSIVE on message_memories for under a millisecond, asked for as ``locks.change`` does. Back:
    nothing to do, the earlier migration takes all of it away.
    """

    said = "Bring the tables and functions of recall up to date"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Add what is missing, replace the functions."""
        schema = schema_of_messages(connection)
        changed = structures.CATCH_UP.format(schema=schema)
        locks.run_with_short_lock(
            connection, "message_memories", changed + structures.tables(schema)
        )


class FollowTable(OnLiveTables):
    """Triggers by which recall's table follows a table of messages, whoever writes there.

    Lock: SHARE ROW EXCLUSIVE on the table (writes wait), for some milliseconds, asked for as ``locks.change`` does.
    A trigger never fails a write: what it cannot do is a warning, and the row waits for ``backfill_embeddings``.
    Back: drops them, with ACCESS EXCLUSIVE, as short.
    """

    def __init__(self, number: int, table: str, conversation: str) -> None:
        self.source = MessageTable(number, table, conversation)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """As it stands in a migration file."""
        return (
            type(self).__name__,
            [self.source.kind_bit, self.source.table, self.source.conversation],
            {},
        )

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Make the functions, then the triggers."""
        schema, vector = schema_of_messages(connection), extension.schema(connection)
        made = structures.for_source(structures.FOLLOW, self.source, schema=schema, vector=vector)
        locks.run_with_short_lock(connection, self.source.table, made)

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """Drop the triggers, then their functions."""
        schema = schema_of_messages(connection)
        dropped = structures.for_source(structures.UNFOLLOW, self.source, schema=schema)
        locks.run_with_short_lock(connection, self.source.table, dropped)

    def describe(self) -> str:
        """For ``migrate --plan``."""
        return f"Let recall follow {self.source.table}"


class FollowTableAnew(FollowTable):
    """The triggers of a table as they are now, where an earlier migration made them otherwise. Lock: as FollowTable.

    Back: they stay, since they do for earlier code what the earlier ones did.
    """

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """They stay."""

    def describe(self) -> str:
        """For ``migrate --plan``."""
        return f"Make the triggers on {self.source.table} anew"


class NoteLost(OnLiveTables):
    """Note the messages that may repeat what went while the triggers noted nothing, for their users' next recall.

    Those that recall knows; the others are noted by the backfill that takes them up. No lock on the table: its rows
    are read, NOTE_ROWS a transaction. Back: nothing to do.
    """

    def __init__(self, number: int, table: str) -> None:
        self.number, self.table = number, table

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """As it stands in a migration file."""
        return (type(self).__name__, [self.number, self.table], {})

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Go through recall's rows, from their beginning; run again after a kill, it notes nothing twice."""
        source = next(one for one in message_tables() if one.table == self.table)
        statement = structures.NOTE_LOST.replace(
            "{lost}", has_stale_source(source).as_string()
        ).replace("{table}", source.table)
        statement = statement.replace("{number}", str(self.number))
        after: int | None = 0
        while after is not None:
            with connection.cursor() as cursor:
                cursor.execute(statement, {"after": after, "rows": NOTE_ROWS})
                (after,) = cursor.fetchone() or (None,)

    def describe(self) -> str:
        """For ``migrate --plan``."""
        return f"Note what in {self.table} may repeat a message that is gone"


class AddBackfill(OnLiveTables):
    """What a backfill needs: the reason of rows set aside, an index on pending rows, a table of what calls cost.

    Lock: ACCESS EXCLUSIVE on message_memories for under a millisecond, asked for as ``locks.change`` does; the
    indexes are built CONCURRENTLY. Back: drops them, as gently.
    """

    said = "Make ready for backfill_embeddings"

    def forwards(self, connection: BaseDatabaseWrapper) -> None:
        """Make them; run again after a kill, it goes on."""
        schema = schema_of_messages(connection)
        locks.run_with_short_lock(
            connection, "message_memories", structures.BACKFILL.format(schema=schema)
        )
        for name, what in structures.BACKFILL_INDEXES.items():
            indexes.ensure(connection, name, f"{schema}.{what}")

    def backwards(self, connection: BaseDatabaseWrapper) -> None:
        """Drop them."""
        for name in structures.BACKFILL_INDEXES:
            indexes.drop(connection, name)
        dropped = structures.DROP_BACKFILL.format(schema=schema_of_messages(connection))
        locks.run_with_short_lock(connection, "message_memories", dropped)


def schema_of_messages(connection: BaseDatabaseWrapper) -> str:
    """The schema that the tables are in, quoted: where the session makes new ones. One query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.quote_ident(current_schema())")
        row = cursor.fetchone()
    return str(row[0]) if row else "public"
