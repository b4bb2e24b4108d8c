"""What each role of the database may do: the owner migrates, the web serves, the backfill embeds. docs/roles.md"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval.models import message_tables

READ = "SELECT"
WRITE = "SELECT, INSERT, UPDATE, DELETE"
# Of the web, where it needs less than WRITE. Triggers write message_memories for it, as their owner.
WEB_LESS = {
    "django_migrations": READ,
    "django_content_type": READ,
    "auth_permission": READ,
    "django_admin_log": "SELECT, INSERT, DELETE",
    "message_memories": READ,
    "forgotten_messages": "SELECT, INSERT, DELETE",
    "embedding_models": "SELECT, INSERT, UPDATE (min_similarity, measured_at)",
    "embedding_usage": "SELECT, INSERT, UPDATE",
    "search_configs": READ,
    "recall_measurements": READ,
}
# Of the backfill beside the tables of messages; columns where it needs no more: whether a message may be embedded.
BACKFILL = {
    "message_memories": "SELECT, INSERT, UPDATE",
    "forgotten_messages": "INSERT",
    "embedding_models": "SELECT, INSERT, UPDATE",
    "embedding_usage": "SELECT, INSERT, UPDATE",
    "search_configs": READ,
    "recall_measurements": "SELECT, INSERT",
    "standalone_chats": "SELECT (id, memory)",
    "passages": "SELECT (id, memory)",
    "memory_switches": "SELECT (user_id, enabled)",
}
BACKFILL_OF_MESSAGES = "SELECT", "UPDATE (embedding)"
FUNCTIONS = (
    "message_terms(bigint, text, timestamptz)",
    "content_term(bigint, text)",
)
SCHEMA = """
    SELECT n.nspname, pg_catalog.pg_get_userbyid(c.relowner), current_user,
        pg_catalog.pg_has_role(c.relowner, 'USAGE'),
        EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'),
        pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_has_role(n.nspowner, 'USAGE'),
        (SELECT v.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace v ON v.oid = e.extnamespace
            WHERE e.extname = 'vector')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass('django_migrations')
"""
ROLE = """
    SELECT r.rolsuper, pg_catalog.pg_has_role(r.oid, owner.oid, 'MEMBER') FROM pg_catalog.pg_roles r
    JOIN pg_catalog.pg_roles owner ON owner.rolname = %s WHERE r.rolname = %s
"""
# Sequences of columns made before Django 4.1; those of identity columns need no grant.
SEQUENCES = """
    SELECT d.objid::regclass::text FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid
    WHERE d.deptype = 'a' AND s.relkind = 'S' AND d.refobjid = pg_catalog.to_regclass(%s)
"""


class RolesError(Exception):
    """The grants cannot be made; the message says what to do."""


@dataclass(frozen=True)
class Place:
    """The schema of the tables, who owns what and may change it, who asks, and where the extension is."""

    schema: str
    owner: str
    user: str
    may_grant: bool
    all_may_create: bool
    schema_owner: str
    may_revoke: bool
    vector: str | None


def place(connection: BaseDatabaseWrapper) -> Place:
    """Of this database. One query.

    RolesError: not migrated yet, asked by somebody else than the owner, or a schema that everybody may write to.
    """
    with connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        row = cursor.fetchone()
    if row is None:
        raise RolesError(
            "the database has no tables yet: run manage.py migrate, as the role that shall own them"
        )
    found = Place(*row)
    if not found.may_grant:
        raise RolesError(
            f"{found.owner} owns the tables: run this as {found.owner}, not as {found.user}"
        )
    if found.all_may_create and not found.may_revoke:
        schema, owner = _name(found.schema), _name(found.owner)
        raise RolesError(
            f"anybody may make tables in the schema {found.schema}: let {found.schema_owner} run "
            f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC; GRANT CREATE ON SCHEMA {schema} TO {owner}; "
            "Then run this again"
        )
    return found


def missing(connection: BaseDatabaseWrapper, roles: list[str]) -> list[str]:
    """The statements, for an administrator, that make the roles which are not there. A query a role."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (%s)", [roles])
        there = {name for (name,) in cursor.fetchall()}
    return [f"CREATE ROLE {_name(one)} LOGIN PASSWORD '...';" for one in roles if one not in there]


def refuse_powerful(connection: BaseDatabaseWrapper, owner: str, roles: list[str]) -> None:
    """RolesError where a role may do everything anyway, so that the grants would say little. A query a role."""
    for role in roles:
        with connection.cursor() as cursor:
            cursor.execute(ROLE, [owner, role])
            is_superuser, is_owner = cursor.fetchone() or (False, False)
        if is_superuser:
            raise RolesError(f"{role} is a superuser, who may do everything: choose another role")
        if is_owner:
            raise RolesError(
                f"{role} is {owner}, who owns the tables, or a member of it: choose another role"
            )


def statements(connection: BaseDatabaseWrapper, where: Place, web: str, backfill: str) -> list[str]:
    """The grants, in order, to be run in one transaction; what is not there (yet) is left out. Idempotent."""
    both, schema = f"{_name(web)}, {_name(backfill)}", _name(where.schema)
    made = [f"GRANT USAGE ON SCHEMA {schema} TO {both}"]
    if where.vector not in (None, where.schema):
        made.append(f"GRANT USAGE ON SCHEMA {_name(str(where.vector))} TO {both}")
    if where.all_may_create:  # so it is in databases that were made before PostgreSQL 15
        made.append(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC")
    made += _on_tables(connection, where, web, backfill)
    made += [
        f"GRANT EXECUTE ON FUNCTION {schema}.{one} TO {both}"
        for one in FUNCTIONS
        if _has(connection, one)
    ]
    # What a later migrate makes serves the web at once; this command, run again, takes back what is not needed.
    later = f"ALTER DEFAULT PRIVILEGES FOR ROLE {_name(where.owner)} IN SCHEMA {schema}"
    return [*made, f"{later} GRANT {WRITE} ON TABLES TO {_name(web)}"]


def _on_tables(
    connection: BaseDatabaseWrapper, where: Place, web: str, backfill: str
) -> Iterator[str]:
    with connection.cursor() as cursor:
        there = set(connection.introspection.table_names(cursor))
    for table in sorted(tables() & there):
        name = f"{_name(where.schema)}.{_name(table)}"
        yield f"REVOKE ALL ON {name} FROM {_name(web)}, {_name(backfill)}"
        yield f"GRANT {WEB_LESS.get(table, WRITE)} ON {name} TO {_name(web)}"
        for sequence in _sequences(connection, table):
            yield f"GRANT USAGE ON SEQUENCE {sequence} TO {_name(web)}"
        for privileges in _of_backfill(connection, table):
            yield f"GRANT {privileges} ON {name} TO {_name(backfill)}"


def tables() -> set[str]:
    """Every table that the chat, memory and Django's own apps have."""
    models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return models | set(WEB_LESS) | set(BACKFILL)


def _of_backfill(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    if table not in {one.table for one in message_tables()}:
        return [BACKFILL[table]] if table in BACKFILL else []
    with connection.cursor() as cursor:
        columns = {
            one.name for one in connection.introspection.get_table_description(cursor, table)
        }
    return [one for one in BACKFILL_OF_MESSAGES if "embedding" in columns or "embedding" not in one]


def _sequences(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(SEQUENCES, [table])
        return [name for (name,) in cursor.fetchall()]


def _has(connection: BaseDatabaseWrapper, function: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.to_regprocedure(%s) IS NOT NULL", [function])
        return bool((cursor.fetchone() or (False,))[0])


def _name(name: str) -> str:
    return sql.Identifier(name).as_string()
