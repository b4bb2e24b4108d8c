"""Memory's schema, compared with the statements that create it."""

from psycopg import sql

from retrieval.doctor.check_columns import columns_are_right
from retrieval.doctor.check_indexes import vector_indexes_are_valid
from retrieval.doctor.check_migrations import migrations_are_applied
from retrieval.doctor.database import memory_exists, setting
from retrieval.doctor.expected_schema import SchemaObject, of_tables, shared
from retrieval.doctor.fixes import (
    BACKFILL,
    MIGRATE,
    NO_WAIT,
    WAIT_AGAIN,
    create,
    reset_setting,
    statement,
)
from retrieval.doctor.report import Check, Finding, all_of, failed, passed
from retrieval.queries import rows, value

FUNCTION_BODIES = """
    SELECT proname, prosrc FROM pg_catalog.pg_proc WHERE proname = ANY (%s)
        AND pronamespace = pg_catalog.current_schema()::pg_catalog.regnamespace
"""
TRIGGERS = """
    SELECT tgname, tgenabled::text FROM pg_catalog.pg_trigger
    WHERE tgrelid = pg_catalog.to_regclass(%s) AND NOT tgisinternal
"""
ENABLED = ("O", "A")  # "R", ENABLE REPLICA, does not fire for an application's writes


def schema_is_right() -> Finding:
    """Migrations, columns, tables, functions, triggers and HNSW indexes of memory."""
    if not memory_exists():
        return failed("memory has not been added to this database", MIGRATE)
    return all_of(
        columns_are_right(),
        tables_and_functions_exist(),
        triggers_are_enabled(),
        vector_indexes_are_valid(),
        migrations_are_applied(),
    )


def tables_and_functions_exist() -> Finding:
    """Memory's tables, and the text of its functions."""
    if not memory_exists():
        return failed("the table message_memories is missing", MIGRATE)
    tables, functions = shared("TABLE"), shared("FUNCTION") + of_tables("FUNCTION")
    bodies = dict(rows(FUNCTION_BODIES, [[function.name for function in functions]]))
    missing = [table for table in tables if not _exists(table)]
    missing += [function for function in functions if function.name not in bodies]
    changed = [
        function
        for function in functions
        if function.name in bodies and bodies[function.name] != function.body
    ]
    if not missing and not changed:
        return passed(f"{len(tables)} tables, {len(functions)} functions")
    # A function that is created again can be called by every role until that is revoked.
    created_for = {schema_object.table for schema_object in missing}
    revokes = [revoke for revoke in of_tables("REVOKE") if revoke.table in created_for]
    return failed(
        _problems({"missing": missing, "not as in this version": changed}),
        "\n".join(create(schema_object) for schema_object in missing + changed + revokes),
    )


def _exists(table: SchemaObject) -> bool:
    return bool(value("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [table.name]))


def triggers_are_enabled() -> Finding:
    """The triggers on both message tables. Without them recall misses changes and deletions."""
    if setting("session_replication_role") == "replica":
        return failed(
            "session_replication_role is replica: no trigger fires",
            reset_setting("session_replication_role"),
        )
    triggers = of_tables("TRIGGER")
    states = {trigger: _state(trigger) for trigger in triggers}
    missing = [trigger for trigger, state in states.items() if state is None]
    disabled = [trigger for trigger, state in states.items() if state and state not in ENABLED]
    if not missing and not disabled:
        return passed(f"{len(triggers)} triggers, all enabled")
    fixes = [NO_WAIT, *map(create, missing), *map(_enable, disabled), WAIT_AGAIN, BACKFILL]
    return failed(_problems({"missing": missing, "disabled": disabled}), *fixes)


def _state(trigger: SchemaObject) -> str | None:
    return dict(rows(TRIGGERS, [trigger.table])).get(trigger.name)


def _enable(trigger: SchemaObject) -> str:
    """Locks: SHARE ROW EXCLUSIVE, which writes wait for."""
    names = map(sql.Identifier, (trigger.table, trigger.name))
    return statement(sql.SQL("ALTER TABLE {} ENABLE TRIGGER {}").format(*names))


def _problems(things: dict[str, list[SchemaObject]]) -> str:
    return "; ".join(
        f"{problem}: {', '.join(map(_label, listed))}"
        for problem, listed in things.items()
        if listed
    )


def _label(schema_object: SchemaObject) -> str:
    return (
        f"{schema_object.name} on {schema_object.table}"
        if schema_object.kind == "TRIGGER"
        else schema_object.name
    )


def checks() -> list[Check]:
    return [Check("checklist.5", schema_is_right)]
