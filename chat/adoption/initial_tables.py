"""What migration ``chat 0001_initial`` creates, as the catalogs would show it."""

from django.conf import settings
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from psycopg import sql

from chat.adoption.catalog import Table, read_tables
from retrieval.queries import execute

APP, NAME = MIGRATION = ("chat", "0001_initial")
# The migration's foreign keys need a table of users that is temporary too. Lock: ACCESS SHARE.
COPY_USERS = sql.SQL("CREATE TEMPORARY TABLE {users} (LIKE {users} INCLUDING INDEXES)")
ONLY_TEMPORARY = "SET LOCAL search_path TO pg_temp"


class NotReady(Exception):
    """The database lacks what the migration depends on; the message says what to run."""


def read_wanted(connection: BaseDatabaseWrapper) -> dict[str, Table]:
    """The migration's tables, by name, in the order in which it creates them.

    Runs the migration on temporary tables, in a transaction that is rolled back: no other session
    sees or waits for anything. Raises NotReady.
    """
    loader = MigrationLoader(connection)
    _require_dependencies(loader)
    state = loader.project_state(MIGRATION, at_end=False)
    with transaction.atomic(using=connection.alias):
        users = state.apps.get_model(settings.AUTH_USER_MODEL)._meta.db_table
        execute(COPY_USERS.format(users=sql.Identifier(users)), connection=connection)
        execute(ONLY_TEMPORARY, connection=connection)
        with connection.schema_editor(atomic=False) as editor:
            after = loader.get_migration(*MIGRATION).apply(state, editor)
        models = [after.apps.get_model(*key) for key in after.models if key[0] == APP]
        names = [model._meta.db_table for model in models]
        tables = read_tables(connection, names)
        transaction.set_rollback(True, using=connection.alias)
    return {name: tables[name] for name in names}


def is_recorded(connection: BaseDatabaseWrapper) -> bool:
    """Whether the migration is recorded as applied. At most two queries."""
    return MIGRATION in MigrationRecorder(connection).applied_migrations()


def record(connection: BaseDatabaseWrapper) -> None:
    """Record the migration as applied, as ``migrate --fake`` does."""
    MigrationRecorder(connection).record_applied(*MIGRATION)


def _require_dependencies(loader: MigrationLoader) -> None:
    parents = loader.graph.node_map[MIGRATION].parents
    missing = sorted(node.key for node in parents if node.key not in loader.applied_migrations)
    if missing:
        app, name = missing[0]
        raise NotReady(f"{app} {name} is not applied: run manage.py migrate {app}, then this again")
