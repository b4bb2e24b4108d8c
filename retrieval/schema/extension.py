"""The extension ``vector``: whether it is there, in which schema, and how to create it."""

from dataclasses import dataclass

from django.db import IntegrityError, ProgrammingError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import InternalError, NotSupportedError, OperationalError

from retrieval.db_errors import sqlstate

OLDEST = (0, 7)  # the first with halfvec, bit vectors and binary_quantize
INSUFFICIENT_PRIVILEGE = "42501"
STATE = """
    SELECT current_setting('server_encoding'), current_user,
        split_part(current_setting('server_version'), '.', 1),
        (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'),
        (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector'),
        (SELECT name FROM pg_catalog.pg_settings WHERE name IN ('rds.extensions',
            'cloudsql.iam_authentication', 'azure.extensions') ORDER BY name LIMIT 1)
"""
SCHEMA = """
    SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
"""
MISSING = 'the extension "vector" is missing: run manage.py enable_vector'
NOT_INSTALLED = (
    'extension "vector" is not available: pgvector is not installed on the database server. '
    "Install it there: {package}; no restart is needed, then run enable_vector again"
)
NOT_PERMITTED = (
    'permission denied to create extension "vector" as {user}. Let {who} run this in the database '
    "{name}: CREATE EXTENSION vector; then run enable_vector again"
)
UPDATE = "ALTER EXTENSION vector UPDATE"
TOO_OLD = "pgvector {version} is too old: 0.7 or later is needed. {first}Run: {update}"
UPDATE_SERVER = "The server has only {available}: install a later one there, {package}. "
# By the setting that tells a managed service: how to get the package, and who may create it.
PROVIDERS = {
    "rds.extensions": (
        "on Amazon RDS choose an engine version that has it",
        "a member of rds_superuser",
    ),
    "azure.extensions": (
        "on Azure add VECTOR to the server parameter azure.extensions",
        "a member of azure_pg_admin, with VECTOR in azure.extensions,",
    ),
    "cloudsql.iam_authentication": (
        "on Cloud SQL choose a maintenance version that has it",
        "a member of cloudsqlsuperuser",
    ),
}
PACKAGE = "the package postgresql-{server}-pgvector on Debian and Ubuntu"


class VectorUnavailable(Exception):
    """The extension is missing and cannot be created; the message says what to run, and as whom."""


class VectorTooOld(VectorUnavailable):
    """The extension is there and has to be updated; the message says how."""


class WrongEncoding(VectorUnavailable):
    """The database's encoding is not UTF8, which only a copy of the database can change."""


@dataclass(frozen=True)
class _State:
    encoding: str
    user: str
    server: str  # its major version
    version: str | None  # of the extension; None: it is missing
    available: str | None  # the version on the server; None: it is not installed
    provider: str | None  # a key of PROVIDERS


def version(connection: BaseDatabaseWrapper) -> str | None:
    """The extension's version in this database; None if it is missing. One query."""
    return _state(connection).version


def schema(connection: BaseDatabaseWrapper) -> str:
    """The extension's schema, quoted for SQL. One query. VectorUnavailable: it is missing."""
    with connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        row = cursor.fetchone()
    if row is None:
        raise VectorUnavailable(MISSING)
    return str(row[0])


def check(connection: BaseDatabaseWrapper) -> str:
    """The extension's version. Changes nothing, one query.

    VectorUnavailable: it is missing or too old, or the database's encoding is not UTF8.
    """
    state = _state(connection)
    if state.encoding != "UTF8":
        raise WrongEncoding(f"the database's encoding is {state.encoding}: Verse needs UTF8")
    if state.version is None:
        raise VectorUnavailable(MISSING if state.available else _not_installed(state))
    if _is_too_old(state.version):
        raise VectorTooOld(_too_old(state))
    return state.version


def enable(connection: BaseDatabaseWrapper) -> str:
    """Create the extension if it is missing; its version. Lock: none on any table.

    VectorUnavailable: it cannot be created.
    """
    state = _state(connection)
    if state.version is None:
        if not state.available:
            raise VectorUnavailable(_not_installed(state))
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except IntegrityError:  # another session has created it at the same moment
            pass
        except (ProgrammingError, InternalError, NotSupportedError, OperationalError) as error:
            raise VectorUnavailable(_not_created(connection, state, error)) from error
    return check(connection)


def _state(connection: BaseDatabaseWrapper) -> _State:
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        return _State(*cursor.fetchone())


def _is_too_old(version: str) -> bool:
    return tuple(int(part) for part in version.split(".")[:2]) < OLDEST


def _too_old(state: _State) -> str:
    first = ""
    if state.available is None or _is_too_old(state.available):
        available = state.available or "none"
        first = UPDATE_SERVER.format(available=available, package=_package(state))
    return TOO_OLD.format(version=state.version, first=first, update=UPDATE)


def _not_installed(state: _State) -> str:
    return NOT_INSTALLED.format(package=_package(state))


def _package(state: _State) -> str:
    return PROVIDERS.get(state.provider or "", (PACKAGE.format(server=state.server), ""))[0]


def _not_created(connection: BaseDatabaseWrapper, state: _State, error: Exception) -> str:
    if sqlstate(error) != INSUFFICIENT_PRIVILEGE:
        return f'the extension "vector" could not be created: {error}'.strip()
    _, who = PROVIDERS.get(state.provider or "", ("", "a superuser"))
    name = connection.settings_dict["NAME"]
    return NOT_PERMITTED.format(user=state.user, who=who, name=name)
