"""The commands and SQL statements that findings print as fixes."""

from django.db import connection
from psycopg import sql

from retrieval.doctor.expected_schema import SchemaObject
from retrieval.queries import row
from retrieval.schema import indexes

MIGRATE = "python manage.py migrate"
BACKFILL = "python manage.py backfill_embeddings"
ENABLE_VECTOR = "python manage.py enable_vector"
DOCTOR = "python manage.py rag_doctor"
GRANT_ROLES = "see docs/roles.md: run grant_roles again"
STATUS = "python manage.py rag_status"
COST = "python manage.py rag_cost_estimate --exact"
SET_KEY = "OPENAI_API_KEY=your key"
LOG = "look for ERROR in the servers' logs: docs/logs.md says what each line means"
# If this is exceeded, run the lines again: retrieval/schema/locks.py.
NO_WAIT = "SET lock_timeout = '300ms';"
# After it: a build of an index in the same session waits for locks as long as it must.
WAIT_AGAIN = "RESET lock_timeout;"
SETTING = """
    SELECT source, current_user, pg_catalog.current_database() FROM pg_catalog.pg_settings
    WHERE name = %s
"""


def statement(composed: sql.Composable) -> str:
    """The statement on one line, ended by a semicolon."""
    return f"{' '.join(composed.as_string(connection.connection).split())};"


def create(schema_object: SchemaObject) -> str:
    """The statement that creates what the database lacks, ended by a semicolon."""
    return schema_object.statement.rstrip(";") + ";"


def drop_index(name: str) -> str:
    return statement(indexes.DROP.format(name=sql.Identifier(name)))


def rebuild_index(name: str) -> str:
    return statement(indexes.REINDEX.format(name=sql.Identifier(name)))


def reset_setting(name: str) -> str:
    """SQL that resets a setting at the level that set it: role, database or server."""
    source, role, database = row(SETTING, [name])
    levels = {
        "user": sql.SQL("ROLE {role}"),
        "database": sql.SQL("DATABASE {database}"),
        "database user": sql.SQL("ROLE {role} IN DATABASE {database}"),
    }
    level = levels.get(source, sql.SQL("SYSTEM")).format(
        role=sql.Identifier(role), database=sql.Identifier(database)
    )
    reset = sql.SQL("ALTER {level} RESET {name}").format(level=level, name=sql.Identifier(name))
    reload = [] if source in levels else ["SELECT pg_reload_conf();"]
    return "\n".join([statement(reset), *reload])
