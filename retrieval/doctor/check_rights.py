"""Rights of the servers' database role."""

from collections.abc import Iterator

from django.conf import settings
from psycopg import sql

from retrieval.doctor.database import memory_exists, vector_schema
from retrieval.doctor.fixes import MIGRATE, statement
from retrieval.doctor.report import Check, Finding, failed, passed, skipped
from retrieval.queries import rows, value
from retrieval.rights import MEMORY_FUNCTIONS, Privilege, grant, server_rights

# Those of the tables and of the extension on which the role has no rights.
CLOSED_SCHEMAS = """
    SELECT n.nspname FROM pg_catalog.pg_namespace n
    WHERE n.oid IN (
        SELECT relnamespace FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass('message_memories')
        UNION SELECT extnamespace FROM pg_catalog.pg_extension WHERE extname = 'vector'
    ) AND NOT pg_catalog.has_schema_privilege(%s, n.oid, 'USAGE')
"""
ON_TABLE = "SELECT pg_catalog.has_table_privilege(%s, %s, %s)"
ON_COLUMN = "SELECT pg_catalog.has_column_privilege(%s, %s, %s, %s)"
# NULL if there is no such function, which checklist.5 reports.
ON_FUNCTION = """
    SELECT pg_catalog.has_function_privilege(%s, pg_catalog.to_regproc(%s)::oid, 'EXECUTE')
"""
GRANT_SCHEMA = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}")
GRANT_FUNCTION = sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}")


def role_has_rights() -> Finding:
    """The rights of DATABASE_URL's role on memory's schemas, tables, columns and functions."""
    role = settings.SERVER_DATABASE.get("USER") or value("SELECT current_user")
    if not memory_exists():
        return skipped("the database has no memory yet", MIGRATE)
    if not rows("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", [role]):
        return skipped(
            f"this server knows no role {role}: a pooler may use another name",
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name ~ '^verse';",
        )
    vector_schema()  # raises VectorUnavailable
    fixes = [statement(missing) for missing in _missing_grants(role)]
    if fixes:
        return failed(f"the role {role} lacks rights that memory needs", *fixes)
    return passed(f"the role {role} has every right that memory needs")


def _missing_grants(role: str) -> Iterator[sql.Composed]:
    for (schema,) in rows(CLOSED_SCHEMAS, [role]):
        yield GRANT_SCHEMA.format(sql.Identifier(schema), sql.Identifier(role))
    for table, privileges in server_rights().items():
        missing = [privilege for privilege in privileges if not _has(role, table, privilege)]
        if missing:
            yield grant(missing, sql.Identifier(table), role)
    for function in MEMORY_FUNCTIONS:
        if value(ON_FUNCTION, [role, function]) is False:
            yield GRANT_FUNCTION.format(sql.SQL(function), sql.Identifier(role))


def _has(role: str, table: str, privilege: Privilege) -> bool:
    if not privilege.columns:
        return bool(value(ON_TABLE, [role, table, privilege.action]))
    return all(
        value(ON_COLUMN, [role, table, column, privilege.action]) for column in privilege.columns
    )


def checks() -> list[Check]:
    return [Check("database.rights", role_has_rights)]
