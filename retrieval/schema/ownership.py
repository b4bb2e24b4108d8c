"""Why the database refuses this role a migration, and what to do about it."""

from functools import partial

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval import queries

# The tables of other roles whose rights this role has not. Locks: none.
OTHER_OWNERS = """
    SELECT DISTINCT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c
    WHERE c.oid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(%s::text[]) name)
        AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""
# The schema where tables are created, and who may grant rights on it.
CLOSED_SCHEMA = """
    SELECT n.nspname, pg_catalog.pg_get_userbyid(
        CASE n.nspowner::regrole::text WHEN 'pg_database_owner' THEN d.datdba ELSE n.nspowner END)
    FROM pg_catalog.pg_database d
    JOIN pg_catalog.pg_namespace n
        ON n.nspname = coalesce(pg_catalog.current_schema(), 'public')
    WHERE d.datname = pg_catalog.current_database()
        AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')
            AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'))
"""
WRONG_ROLE = (
    "{role} does not own the tables: {owners} does. Run migrate as {owners}: its address in "
    "DATABASE_DIRECT_URL, or in DATABASE_URL for this command"
)
MAY_NOT_CREATE = (
    "{role} may not create tables in the schema {schema}. Let {owner} or a superuser run this in "
    "the database {database}: {grant}; then run migrate again"
)
GRANT = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}")


def explain_refusal(connection: BaseDatabaseWrapper) -> str | None:
    """Which right this role lacks to migrate, and who grants it; None if it lacks none.

    Three queries.
    """
    tables = ["django_migrations", *(model._meta.db_table for model in apps.get_models())]
    rows = partial(queries.rows, connection=connection)
    ((role, database),) = rows("SELECT current_user, pg_catalog.current_database()")
    if owners := " and ".join(owner for (owner,) in rows(OTHER_OWNERS, [tables])):
        return WRONG_ROLE.format(role=role, owners=owners)
    for schema, owner in rows(CLOSED_SCHEMA):
        grant = GRANT.format(schema=sql.Identifier(schema), role=sql.Identifier(role)).as_string()
        return MAY_NOT_CREATE.format(
            role=role, schema=schema, owner=owner, database=database, grant=grant
        )
    return None
