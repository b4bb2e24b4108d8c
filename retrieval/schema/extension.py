"""The extension ``vector``: whether it is there, in which schema, and how to create it."""

from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, ProgrammingError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import InternalError, NotSupportedError, OperationalError
from psycopg import sql

from retrieval import queries
from retrieval.db_errors import sqlstate
from retrieval.schema.providers import Provider, provider_of

OLDEST = (0, 7)  # the first with halfvec, bit vectors and binary_quantize
INSUFFICIENT_PRIVILEGE = "42501"
# Heroku's and Supabase's settings are no part of pg_settings for every role. Who may create an
# extension that is not trusted: a superuser, a member of a provider's role, and every role where
# one of these two settings names it.
STATE = """
    SELECT current_setting('server_encoding'), current_user,
        pg_catalog.current_database(), split_part(current_setting('server_version'), '.', 1),
        coalesce(pg_catalog.quote_ident(pg_catalog.current_schema()), 'public'),
        (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'),
        (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector'),
        CASE WHEN current_setting('extwlist.extensions', true) <> '' THEN 'extwlist.extensions'
        WHEN current_setting('supautils.privileged_extensions', true) <> ''
            THEN 'supautils.privileged_extensions'
        ELSE (SELECT name FROM pg_catalog.pg_settings WHERE name IN ('rds.extensions',
            'cloudsql.iam_authentication', 'azure.extensions') ORDER BY name LIMIT 1) END,
        EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = current_user AND r.rolsuper
            OR r.rolname IN ('rds_superuser', 'azure_pg_admin', 'cloudsqlsuperuser')
                AND pg_catalog.pg_has_role(r.oid, 'MEMBER'))
        OR EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions
            WHERE name = 'vector' AND trusted
                AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))
        OR 'vector' = ANY (pg_catalog.regexp_split_to_array(
            concat_ws(',', current_setting('extwlist.extensions', true),
                current_setting('supautils.privileged_extensions', true)), '[ ,]+')),
        (SELECT pg_catalog.row_to_json(u) FROM (
            SELECT pg_catalog.quote_ident(n.nspname) AS schema,
                pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
                pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
            FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
            WHERE e.extname = 'vector') u)
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
    'permission denied to create extension "vector" as {user}. Let {creator} run this in the '
    "database {database}: {create}; then run enable_vector again"
)
MAY_NOT_CREATE = (
    'the extension "vector" is missing, and {user} may not create it. Let {creator} run this in '
    "the database {database}: {create}; then run enable_vector again"
)
MAY_CREATE = MISSING + " as {user}; it runs {create} in the database {database}"
# Names the schema: the search_path of the role that runs it may lead elsewhere, or nowhere.
CREATE = sql.SQL("CREATE EXTENSION IF NOT EXISTS vector SCHEMA {schema}")
NOT_USABLE = (
    "the extension is in the schema {schema}, which {user} may not use. Let {owner} or a superuser "
    "run this in the database {database}: {grant}; then run enable_vector again"
)
GRANT_USAGE = sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {user}")
UPDATE = "ALTER EXTENSION vector UPDATE"
TOO_OLD = "pgvector {version} is too old: 0.7 or later is needed. {first}Run: {update}"
UPDATE_SERVER = "The server has only {available}: install a later one there, {package}. "


class VectorUnavailable(Exception):
    """The extension cannot be used; the message says what to run, and as whom.

    ``statement``: the SQL to run; ``run_as``: by whom. None if that is not the way.
    """

    def __init__(
        self, message: str, *, run_as: str | None = None, statement: str | None = None
    ) -> None:
        super().__init__(message)
        self.run_as, self.statement = run_as, statement


class VectorTooOld(VectorUnavailable):
    """The extension is there and has to be updated; the message says how."""


class VectorNotUsable(VectorUnavailable):
    """This role may not use the extension's schema; ``statement`` grants that."""


class WrongEncoding(VectorUnavailable):
    """The database's encoding is not UTF8, which only a copy of the database can change."""


@dataclass(frozen=True)
class _State:
    encoding: str
    user: str
    database: str
    server: str  # its major version
    new_schema: str  # quoted: where the extension is created
    version: str | None  # of the extension; None: it is missing
    available: str | None  # the version on the server; None: it is not installed
    setting: str | None  # of PROVIDERS
    may_create: bool  # as far as can be seen without trying
    place: dict[str, Any] | None  # schema (quoted), its owner, whether it is usable

    @property
    def provider(self) -> Provider:
        return provider_of(self.setting, server=self.server)

    @property
    def create(self) -> str:
        return CREATE.format(schema=sql.SQL(self.new_schema)).as_string()


def schema(connection: BaseDatabaseWrapper) -> sql.SQL:
    """The extension's schema, quoted. One query. Raises VectorUnavailable if it is missing."""
    for (quoted,) in queries.rows(SCHEMA, connection=connection):
        return sql.SQL(quoted)
    raise VectorUnavailable(MISSING)


def check(connection: BaseDatabaseWrapper) -> str:
    """The extension's version. Changes nothing, one query.

    Raises VectorUnavailable if it is missing or too old, if this role may not use its schema, or if
    the encoding is not UTF8.
    """
    state = _state(connection)
    if state.encoding != "UTF8":
        raise WrongEncoding(f"the database's encoding is {state.encoding}: Verse needs UTF8")
    if state.version is None:
        raise _missing(state)
    if _is_too_old(state.version):
        raise VectorTooOld(_too_old(state))
    if state.place and not state.place["usable"]:
        raise _not_usable(state, state.place)
    return state.version


def enable(connection: BaseDatabaseWrapper) -> str:
    """Create the extension if it is missing; its version. Lock: none on any table.

    Raises VectorUnavailable if it cannot be created.
    """
    state = _state(connection)
    if state.version is None:
        if not state.available:
            raise _missing(state)
        try:
            with transaction.atomic(using=connection.alias):
                queries.execute(state.create, connection=connection)
        except IntegrityError:  # another session has created it at the same moment
            pass
        except (ProgrammingError, InternalError, NotSupportedError, OperationalError) as error:
            raise _not_created(state, error) from error
    return check(connection)


def _state(connection: BaseDatabaseWrapper) -> _State:
    return _State(*queries.row(STATE, connection=connection))


def _is_too_old(version: str) -> bool:
    return tuple(int(part) for part in version.split(".")[:2]) < OLDEST


def _too_old(state: _State) -> str:
    first = ""
    if state.available is None or _is_too_old(state.available):
        available = state.available or "none"
        first = UPDATE_SERVER.format(available=available, package=state.provider.package)
    return TOO_OLD.format(version=state.version, first=first, update=UPDATE)


def _missing(state: _State) -> VectorUnavailable:
    if not state.available:
        return VectorUnavailable(NOT_INSTALLED.format(package=state.provider.package))
    return _by_hand(state, MAY_CREATE if state.may_create else MAY_NOT_CREATE)


def _not_created(state: _State, error: Exception) -> VectorUnavailable:
    if sqlstate(error) == INSUFFICIENT_PRIVILEGE:
        return _by_hand(state, NOT_PERMITTED)
    return VectorUnavailable(f'the extension "vector" could not be created: {error}'.strip())


def _by_hand(state: _State, message: str) -> VectorUnavailable:
    creator = state.provider.creator
    text = message.format(
        user=state.user, creator=creator, database=state.database, create=state.create
    )
    run_as = state.user if message == MAY_CREATE else creator
    return VectorUnavailable(text, run_as=run_as, statement=state.create)


def _not_usable(state: _State, place: dict[str, Any]) -> VectorNotUsable:
    schema, owner = place["schema"], place["owner"]
    composed = GRANT_USAGE.format(schema=sql.SQL(schema), user=sql.Identifier(state.user))
    grant = composed.as_string()
    text = NOT_USABLE.format(
        user=state.user, owner=owner, database=state.database, schema=schema, grant=grant
    )
    return VectorNotUsable(text, run_as=owner, statement=grant)
