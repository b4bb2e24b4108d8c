"""The rights of the database roles: the owner migrates, the servers chat, the backfill embeds.

docs/roles.md
"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.apps import apps
from django.db import connection
from psycopg import sql

from retrieval.models import message_tables
from retrieval.queries import rows, value
from retrieval.rights import (
    DELETE,
    INSERT,
    MEMORY_FUNCTIONS,
    MEMORY_RIGHTS,
    READ,
    SELECT,
    UPDATE,
    WRITE,
    Privilege,
    grant,
)

# Tables on which the servers' role needs less than WRITE.
WEB = {
    "django_migrations": READ,
    "django_content_type": READ,
    "auth_permission": READ,
    "django_admin_log": (SELECT, INSERT, DELETE),
    "recall_measurements": (SELECT, INSERT),
} | MEMORY_RIGHTS
# The backfill's role, besides the message tables. It reads of chats and users only the columns
# that say whether a message may be embedded.
BACKFILL = {
    "message_memories": (SELECT, INSERT, UPDATE),
    "forgotten_messages": (SELECT, INSERT),
    "embedding_models": (SELECT, INSERT, UPDATE),
    "embedding_usage": (SELECT, INSERT, UPDATE),
    "user_embedding_usage": (SELECT, INSERT, UPDATE),
    "embedding_claims": WRITE,
    "token_usage": (SELECT, INSERT, UPDATE),
    "user_token_usage": (SELECT, INSERT, UPDATE),
    "embedding_rate": (SELECT, INSERT, UPDATE),
    # Procrastinate's own, which are there with EMBED_QUEUE=procrastinate.
    "procrastinate_jobs": WRITE,
    "procrastinate_events": WRITE,
    "procrastinate_workers": WRITE,
    "procrastinate_periodic_defers": WRITE,
    "log_counts": READ,
    "rag_rollout": READ,
    "recall_times": READ,
    "audit_log": (SELECT, INSERT),
    "search_configs": READ,
    "recall_measurements": READ,
    "standalone_chats": (Privilege("SELECT", ("id", "memory")),),
    "passages": (Privilege("SELECT", ("id", "memory")),),
    "memory_switches": (Privilege("SELECT", ("user_id", "enabled")),),
}
FIND_SCHEMA = """
    SELECT n.nspname, pg_catalog.pg_get_userbyid(c.relowner), current_user,
        pg_catalog.pg_has_role(c.relowner, 'USAGE'),
        EXISTS (
            SELECT FROM pg_catalog.aclexplode(n.nspacl) a
            WHERE a.grantee = 0 AND a.privilege_type = 'CREATE'),
        pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_has_role(n.nspowner, 'USAGE'),
        (SELECT v.nspname FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_namespace v ON v.oid = e.extnamespace WHERE e.extname = 'vector')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass('django_migrations')
"""
ROLE = """
    SELECT r.rolsuper, pg_catalog.pg_has_role(r.oid, owner.oid, 'MEMBER')
    FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_roles owner ON owner.rolname = %s
    WHERE r.rolname = %s
"""
# Sequences of columns made before Django 4.1; those of identity columns need no grant.
SEQUENCES = """
    SELECT n.nspname, s.relname FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_class s ON s.oid = d.objid
    JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
    WHERE d.deptype = 'a' AND s.relkind = 'S' AND d.refobjid = pg_catalog.to_regclass(%s)
"""
ID_SEQUENCE = """
    SELECT n.nspname, s.relname FROM pg_catalog.pg_class s
    JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
    WHERE s.oid = pg_catalog.pg_get_serial_sequence(%s, 'id')::pg_catalog.regclass
"""
HAS_EMBEDDING = """
    SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s)
        AND attname = 'embedding' AND NOT attisdropped
"""
EXISTING_ROLES = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (%s)"
CREATE_ROLE = sql.SQL("CREATE ROLE {} LOGIN PASSWORD '...';")
CLOSE_SCHEMA = sql.SQL(
    "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC; GRANT CREATE ON SCHEMA {schema} TO {owner};"
)
USE_SCHEMA = sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {both}")
REVOKE_ALL = sql.SQL("REVOKE ALL ON {} FROM {}, {}")
READ_SEQUENCE = sql.SQL("GRANT SELECT ON SEQUENCE {} TO {}")
USE_SEQUENCE = sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}")
EXECUTE = sql.SQL("GRANT EXECUTE ON FUNCTION {schema}.{function} TO {both}")
DEFAULT_PRIVILEGES = sql.SQL(
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {web}"
)


class RolesError(Exception):
    """The rights cannot be granted; the message says what to do."""


@dataclass(frozen=True)
class Schema:
    """The schema of the tables, and what its owner and the current role may change."""

    name: str
    owner: str  # of the tables
    current_role: str
    may_grant: bool
    public_may_create: bool
    schema_owner: str
    may_revoke: bool
    vector_schema: str | None


def find_schema() -> Schema:
    """One query.

    Raises RolesError if there are no tables, if the current role does not own them, or if every
    role may create tables in the schema and the current one cannot end that.
    """
    for row in rows(FIND_SCHEMA):
        schema = Schema(*row)
        if not schema.may_grant:
            raise RolesError(
                f"{schema.owner} owns the tables: run this as {schema.owner}, "
                f"not as {schema.current_role}"
            )
        if schema.public_may_create and not schema.may_revoke:
            names = {"schema": sql.Identifier(schema.name), "owner": sql.Identifier(schema.owner)}
            raise RolesError(
                f"every role may create tables in the schema {schema.name}: let "
                f"{schema.schema_owner} run {CLOSE_SCHEMA.format(**names).as_string()} "
                "Then run this again"
            )
        return schema
    raise RolesError(
        "the database has no tables yet: run manage.py migrate, as the role that shall own them"
    )


def create_missing(roles: list[str]) -> list[sql.Composed]:
    """The statements, for an administrator, that create the roles that do not exist. One query."""
    existing = {name for (name,) in rows(EXISTING_ROLES, [roles])}
    return [CREATE_ROLE.format(sql.Identifier(role)) for role in roles if role not in existing]


def refuse_powerful(owner: str, roles: list[str]) -> None:
    """Raise RolesError if a role may do everything without any grant. One query per role."""
    for role in roles:
        for is_superuser, is_owner in rows(ROLE, [owner, role]):
            if is_superuser:
                raise RolesError(
                    f"{role} is a superuser, who may do everything: choose another role"
                )
            if is_owner:
                raise RolesError(
                    f"{role} is {owner}, who owns the tables, or a member of it: "
                    "choose another role"
                )


def grant_statements(schema: Schema, *, web: str, backfill: str) -> Iterator[sql.Composed]:
    """The statements, in order, for one transaction. Idempotent.

    Tables and functions that do not exist (yet) are left out. Locks nothing that reading or
    writing waits for.
    """
    names = {
        "schema": sql.Identifier(schema.name),
        "owner": sql.Identifier(schema.owner),
        "web": sql.Identifier(web),
        "both": sql.SQL(", ").join(map(sql.Identifier, (web, backfill))),
    }
    yield USE_SCHEMA.format(**names)
    if schema.vector_schema not in (None, schema.name):
        yield USE_SCHEMA.format(**names | {"schema": sql.Identifier(str(schema.vector_schema))})
    if schema.public_may_create:  # the default before PostgreSQL 15
        yield sql.SQL("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC").format(**names)
    for table in sorted(_tables() & set(connection.introspection.table_names())):
        yield from _on_table(sql.Identifier(schema.name, table), table, web, backfill)
    for function in MEMORY_FUNCTIONS:
        if value("SELECT pg_catalog.to_regproc(%s) IS NOT NULL", [function]):
            yield EXECUTE.format(function=sql.SQL(function), **names)
    # A table of a later migration is the servers' at once; the next run takes back what they do
    # not need.
    yield DEFAULT_PRIVILEGES.format(**names)


def _on_table(
    identifier: sql.Identifier, table: str, web: str, backfill: str
) -> Iterator[sql.Composed]:
    yield REVOKE_ALL.format(identifier, sql.Identifier(web), sql.Identifier(backfill))
    yield grant(WEB.get(table, WRITE), identifier, web)
    for names in rows(SEQUENCES, [table]):
        for role in (web, backfill) if table in BACKFILL else (web,):
            yield USE_SEQUENCE.format(sql.Identifier(*names), sql.Identifier(role))
    if table in BACKFILL:
        yield grant(BACKFILL[table], identifier, backfill)
    if table in {message_table.table for message_table in message_tables()}:
        for names in rows(ID_SEQUENCE, [table]):  # rag_doctor compares it with the ids
            yield READ_SEQUENCE.format(sql.Identifier(*names), sql.Identifier(web))
        yield grant(READ, identifier, backfill)
        if rows(HAS_EMBEDDING, [table]):
            yield grant((Privilege("UPDATE", ("embedding",)),), identifier, backfill)


def _tables() -> set[str]:
    """Every table of the chat, of memory and of Django's own apps."""
    models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return models | set(WEB) | set(BACKFILL)
