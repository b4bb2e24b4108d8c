"""The rights of the database roles: the owner migrates, the servers chat, the backfill embeds.

docs/roles.md
"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval import rights
from retrieval.models import message_tables
from retrieval.rights import DELETE, INSERT, READ, SELECT, UPDATE, WRITE, Privilege, grant

# Tables on which the servers' role needs less than WRITE.
WEB = {
    "django_migrations": READ,
    "django_content_type": READ,
    "auth_permission": READ,
    "django_admin_log": (SELECT, INSERT, DELETE),
    "recall_measurements": READ,
} | rights.MEMORY_RIGHTS
# The backfill's role, besides the message tables. It reads of chats and users only the columns
# that say whether a message may be embedded.
BACKFILL = {
    "message_memories": (SELECT, INSERT, UPDATE),
    "forgotten_messages": (INSERT,),
    "embedding_models": (SELECT, INSERT, UPDATE),
    "embedding_usage": (SELECT, INSERT, UPDATE),
    "search_configs": READ,
    "recall_measurements": (SELECT, INSERT),
    "standalone_chats": (Privilege("SELECT", ("id", "memory")),),
    "passages": (Privilege("SELECT", ("id", "memory")),),
    "memory_switches": (Privilege("SELECT", ("user_id", "enabled")),),
}
UPDATE_EMBEDDING = Privilege("UPDATE", ("embedding",))
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


def find_schema(connection: BaseDatabaseWrapper) -> Schema:
    """One query.

    Raises RolesError if there are no tables, if the current role does not own them, or if every
    role may create tables in the schema and the current one cannot end that.
    """
    with connection.cursor() as cursor:
        cursor.execute(FIND_SCHEMA)
        row = cursor.fetchone()
    if row is None:
        raise RolesError(
            "the database has no tables yet: run manage.py migrate, as the role that shall own them"
        )
    schema = Schema(*row)
    if not schema.may_grant:
        raise RolesError(
            f"{schema.owner} owns the tables: run this as {schema.owner}, "
            f"not as {schema.current_role}"
        )
    if schema.public_may_create and not schema.may_revoke:
        revoke = sql.SQL(
            "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC; GRANT CREATE ON SCHEMA {schema} TO {owner};"
        ).format(schema=sql.Identifier(schema.name), owner=sql.Identifier(schema.owner))
        raise RolesError(
            f"every role may create tables in the schema {schema.name}: "
            f"let {schema.schema_owner} run {revoke.as_string()} Then run this again"
        )
    return schema


def create_missing_roles(connection: BaseDatabaseWrapper, roles: list[str]) -> list[sql.Composed]:
    """The statements, for an administrator, that create the roles that do not exist. One query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (%s)", [roles])
        existing = {name for (name,) in cursor.fetchall()}
    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD '...';")
    return [create.format(sql.Identifier(role)) for role in roles if role not in existing]


def refuse_powerful(connection: BaseDatabaseWrapper, owner: str, roles: list[str]) -> None:
    """Raise RolesError if a role may do everything without any grant. One query per role."""
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


def grants(
    connection: BaseDatabaseWrapper, schema: Schema, *, web: str, backfill: str
) -> Iterator[sql.Composed]:
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
    yield sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {both}").format(**names)
    if schema.vector_schema and schema.vector_schema != schema.name:
        vector = sql.Identifier(schema.vector_schema)
        yield sql.SQL("GRANT USAGE ON SCHEMA {vector} TO {both}").format(vector=vector, **names)
    if schema.public_may_create:  # the default before PostgreSQL 15
        yield sql.SQL("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC").format(**names)
    yield from _on_tables(connection, schema, web, backfill)
    for function in rights.FUNCTIONS:
        if _exists(connection, function):
            yield sql.SQL("GRANT EXECUTE ON FUNCTION {schema}.{function} TO {both}").format(
                function=sql.SQL(function), **names
            )
    # A table of a later migration is the servers' at once; the next run takes back what they do
    # not need.
    yield sql.SQL(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {web}"
    ).format(**names)


def _on_tables(
    connection: BaseDatabaseWrapper, schema: Schema, web: str, backfill: str
) -> Iterator[sql.Composed]:
    revoke = sql.SQL("REVOKE ALL ON {table} FROM {web}, {backfill}")
    roles = {"web": sql.Identifier(web), "backfill": sql.Identifier(backfill)}
    with connection.cursor() as cursor:
        existing = set(connection.introspection.table_names(cursor))
    for name in sorted(_tables() & existing):
        table = sql.Identifier(schema.name, name)
        yield revoke.format(table=table, **roles)
        yield grant(WEB.get(name, WRITE), table, web)
        for sequence in _sequences(connection, name):
            yield sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(sequence, roles["web"])
        for privileges in _of_backfill(connection, name):
            yield grant(privileges, table, backfill)


def _tables() -> set[str]:
    """Every table of the chat, of memory and of Django's own apps."""
    models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    return models | set(WEB) | set(BACKFILL)


def _of_backfill(connection: BaseDatabaseWrapper, table: str) -> Iterator[tuple[Privilege, ...]]:
    if table in BACKFILL:
        yield BACKFILL[table]
    if table in {message_table.table for message_table in message_tables()}:
        yield READ
        with connection.cursor() as cursor:
            columns = connection.introspection.get_table_description(cursor, table)
        if "embedding" in {column.name for column in columns}:
            yield (UPDATE_EMBEDDING,)


def _sequences(connection: BaseDatabaseWrapper, table: str) -> list[sql.Identifier]:
    with connection.cursor() as cursor:
        cursor.execute(SEQUENCES, [table])
        return [sql.Identifier(*names) for names in cursor.fetchall()]


def _exists(connection: BaseDatabaseWrapper, function: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.to_regprocedure(%s) IS NOT NULL", [function])
        return bool((cursor.fetchone() or (False,))[0])
