"""The extension ``vector``: is it there, in which schema, and what to do where it is not."""

from typing import Any

from django.db import IntegrityError, ProgrammingError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import InternalError, NotSupportedError, OperationalError

from retrieval.db_errors import sqlstate

OLDEST = (0, 7)  # halfvec, bit vectors and binary_quantize came with it
STATE = """
    SELECT current_setting('server_encoding'), current_user, split_part(current_setting('server_version'), '.', 1),
        (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'),
        (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector'),
        (SELECT name FROM pg_catalog.pg_settings WHERE name IN ('rds.extensions', 'cloudsql.iam_authentication',
            'azure.extensions') ORDER BY name LIMIT 1)
"""
MISSING = 'the extension "vector" is missing: run manage.py enable_vector'
NOT_INSTALLED = (
    'extension "vector" is not available: pgvector is not installed on the database server. Install it there: '
    "{package}; no restart is needed, then run enable_vector again"
)
NOT_PERMITTED = (
    'permission denied to create extension "vector" as {user}. Let {who} run this in the database {name}: '
    "CREATE EXTENSION vector; then run enable_vector again"
)
TOO_OLD = (
    "pgvector {version} is too old: 0.7 or later is needed. Run: ALTER EXTENSION vector UPDATE"
)


class VectorUnavailable(Exception):
    """The extension is not there and cannot be made; the message says what to run, and as whom."""


def version(connection: BaseDatabaseWrapper) -> str | None:
    """The version of the extension in this database; None where it is missing. One query."""
    found: str | None = _state(connection)["version"]
    return found


def schema(connection: BaseDatabaseWrapper) -> str:
    """The schema that holds the extension, quoted for SQL. One query. VectorUnavailable: it is missing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e "
            "JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        )
        row = cursor.fetchone()
    if row is None:
        raise VectorUnavailable(MISSING)
    return str(row[0])


def check(connection: BaseDatabaseWrapper) -> str:
    """The version of the extension; changes nothing. VectorUnavailable: missing, too old, or no UTF8 database."""
    state = _state(connection)
    if state["encoding"] != "UTF8":
        raise VectorUnavailable(f"the database's encoding is {state['encoding']}: Verse needs UTF8")
    if state["version"] is None:
        raise VectorUnavailable(
            'the extension "vector" is missing: run manage.py enable_vector'
            if state["available"]
            else _not_installed(state)
        )
    if tuple(int(part) for part in state["version"].split(".")[:2]) < OLDEST:
        raise VectorUnavailable(TOO_OLD.format(version=state["version"]))
    return str(state["version"])


def enable(connection: BaseDatabaseWrapper) -> str:
    """Make the extension where it is missing; its version. Lock: none on any table. VectorUnavailable: not possible.

    Two at once may both find it missing; the second finds it made.
    """
    state = _state(connection)
    if state["version"] is None:
        if not state["available"]:
            raise VectorUnavailable(_not_installed(state))
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except IntegrityError:  # another has made it in the same instant
            pass
        except (ProgrammingError, InternalError, NotSupportedError, OperationalError) as error:
            raise VectorUnavailable(_refused(connection, state, error)) from error
    return check(connection)


def _state(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        row = cursor.fetchone()
    return dict(
        zip(("encoding", "user", "server", "version", "available", "provider"), row, strict=True)
    )


def _not_installed(state: dict[str, Any]) -> str:
    packages = {
        "rds.extensions": "on Amazon RDS choose an engine version that has it",
        "azure.extensions": "on Azure add VECTOR to the server parameter azure.extensions",
        "cloudsql.iam_authentication": "on Cloud SQL choose a maintenance version that has it",
    }
    usual = f"the package postgresql-{state['server']}-pgvector on Debian and Ubuntu"
    return NOT_INSTALLED.format(package=packages.get(state["provider"] or "", usual))


def _refused(connection: BaseDatabaseWrapper, state: dict[str, Any], error: Exception) -> str:
    if sqlstate(error) != "42501":
        return f'the extension "vector" could not be made: {error}'.strip()
    people = {
        "rds.extensions": "a member of rds_superuser",
        "azure.extensions": "a member of azure_pg_admin, with VECTOR in azure.extensions,",
        "cloudsql.iam_authentication": "a member of cloudsqlsuperuser",
    }
    who = people.get(state["provider"] or "", "a superuser")
    return NOT_PERMITTED.format(user=state["user"], who=who, name=connection.settings_dict["NAME"])
