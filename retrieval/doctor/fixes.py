"""The commands and SQL statements that findings print as fixes."""

from django.db import connection
from psycopg import sql

from retrieval.doctor.expected import Thing
from retrieval.doctor.queries import row

MIGRATE = "python manage.py migrate"
BACKFILL = "python manage.py backfill_embeddings"
ENABLE_VECTOR = "python manage.py enable_vector"
DOCTOR = "python manage.py rag_doctor"
# If this is exceeded, run the lines again: retrieval/schema/locks.py.
NO_WAIT = "SET lock_timeout = '300ms';"


def statement(composed: sql.Composable) -> str:
    """The statement on one line, ended by a semicolon."""
    return f"{' '.join(composed.as_string(connection.connection).split())};"


def reset_setting(name: str) -> str:
    """SQL that resets a setting at the level that set it: role, database or server."""
    source, role, database = row(
        "SELECT source, current_user, pg_catalog.current_database() FROM pg_catalog.pg_settings "
        "WHERE name = %s",
        [name],
    )
    levels = {
        "user": sql.SQL("ALTER ROLE {role} RESET {name}"),
        "database": sql.SQL("ALTER DATABASE {database} RESET {name}"),
        "database user": sql.SQL("ALTER ROLE {role} IN DATABASE {database} RESET {name}"),
    }
    names = {"role": role, "database": database, "name": name}
    identifiers = {key: sql.Identifier(text) for key, text in names.items()}
    if source in levels:
        return statement(levels[source].format(**identifiers))
    reset = sql.SQL("ALTER SYSTEM RESET {name}").format(**identifiers)
    return f"{statement(reset)}\nSELECT pg_reload_conf();"


def create(thing: Thing) -> str:
    """The statement that creates what the database lacks, ended by a semicolon."""
    return thing.statement.rstrip(";") + ";"


def drop_index(name: str) -> str:
    """Locks: SHARE UPDATE EXCLUSIVE on the table, so reads and writes go on."""
    return statement(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(name)))


def rebuild_index(name: str) -> str:
    """Locks: SHARE UPDATE EXCLUSIVE on the table, so reads and writes go on."""
    return statement(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(name)))
