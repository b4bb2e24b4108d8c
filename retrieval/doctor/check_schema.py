"""Columns, functions, triggers, rights: what migrations have made, as it is now."""

from collections.abc import Iterable

from django.conf import settings
from django.db import connection

from retrieval.doctor.examine import MIGRATE
from retrieval.doctor.expected import Thing, of_tables, shared
from retrieval.doctor.queries import reset_of, rows, setting, value
from retrieval.doctor.report import Check, Finding, failed, passed, skipped
from retrieval.models import message_tables
from retrieval.schema import extension
from retrieval.vectors import DIMENSIONS

# trap.13: information_schema says USER-DEFINED.
COLUMN = """
    SELECT pg_catalog.format_type(atttypid, atttypmod), attnotnull FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = 'embedding' AND NOT attisdropped
"""
BEFORE = """
    SELECT count(*) FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(%s) AND attname ~ '^embedding_before' AND NOT attisdropped
"""
FUNCTIONS = """
    SELECT proname, prosrc FROM pg_catalog.pg_proc
    WHERE proname = ANY (%s) AND pronamespace = pg_catalog.current_schema()::pg_catalog.regnamespace
"""
TRIGGERS = """
    SELECT tgname, tgenabled::text FROM pg_catalog.pg_trigger
    WHERE tgrelid = pg_catalog.to_regclass(%s) AND NOT tgisinternal
"""
ENABLED = ("O", "A")  # "R", ENABLE REPLICA, does not fire for an application's writes
NO_WAIT = "SET lock_timeout = '300ms';"  # then again, by hand: docs of locks.LOCK_TIMEOUT_MS
# What the server's statements do to each table; recall's own is written by triggers, with their owner's rights.
USES = {
    "message_memories": ("SELECT",),
    "forgotten_messages": ("SELECT", "INSERT", "DELETE"),
    "embedding_models": ("SELECT", "INSERT"),
    "embedding_usage": ("SELECT", "INSERT", "UPDATE"),
}
USES_OF_MESSAGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def has_columns() -> Finding:
    """checklist.3, trap.13."""
    if value("SELECT pg_catalog.to_regclass('message_memories') IS NULL"):
        return failed("memory has not been added to this database", MIGRATE)
    vector = extension.schema(connection)
    states = {one.table: _state_of(one.table) for one in message_tables()}
    fixes = [fix for table, state in states.items() for fix in _mend_column(table, state, vector)]
    said = ", ".join(
        f"{table}: {kind}" + (" NOT NULL" if not_null else "")
        for table, (kind, not_null) in states.items()
    )
    return failed(f"the column embedding; {said}", "\n".join(fixes)) if fixes else passed(said)


def _state_of(table: str) -> tuple[str, bool]:
    """The column's type without the extension's schema, and whether it refuses NULL."""
    found = rows(COLUMN, [table])
    return (str(found[0][0]).rpartition(".")[2], bool(found[0][1])) if found else ("missing", False)


def _mend_column(table: str, state: tuple[str, bool], vector: str) -> list[str]:
    """Nothing is rewritten: a column of another type is put aside, with what it holds. Index and trigger follow."""
    kind, not_null = state
    add = f"ALTER TABLE {table} ADD COLUMN embedding {vector}.vector({DIMENSIONS});"
    if kind == "missing":
        return [NO_WAIT, add]
    if kind != f"vector({DIMENSIONS})":
        before = value(BEFORE, [table])
        aside = f"ALTER TABLE {table} RENAME embedding TO embedding_before_{before + 1};"
        followed = [
            _ended(one)
            for one in of_tables("TRIGGER")
            if one.table == table and "embedding" in one.statement
        ]
        return [NO_WAIT, "BEGIN;", aside, add, *followed, "COMMIT;"]
    return [NO_WAIT, f"ALTER TABLE {table} ALTER embedding DROP NOT NULL;"] if not_null else []


def has_tables_and_functions() -> Finding:
    """checklist.5, the indexes apart: indexes.py. A function that is not this version's is as bad as none."""
    if value("SELECT pg_catalog.to_regclass('message_memories') IS NULL"):
        return failed("recall's table message_memories is missing", MIGRATE)
    tables, functions = shared("TABLE"), shared("FUNCTION") + of_tables("FUNCTION")
    lost = [one for one in tables if value("SELECT pg_catalog.to_regclass(%s) IS NULL", [one.name])]
    there = dict(rows(FUNCTIONS, [[one.name for one in functions]]))
    lost += [one for one in functions if one.name not in there]
    changed = [one for one in functions if one.name in there and there[one.name] != one.body]
    if lost or changed:
        said = [f"missing: {_names(lost)}"] if lost else []
        said += [f"not as this version has them: {_names(changed)}"] if changed else []
        revoked = [
            one for one in of_tables("REVOKE") if one.table in {function.table for function in lost}
        ]
        return failed("; ".join(said), "\n".join(_ended(one) for one in lost + changed + revoked))
    return passed(f"{len(tables)} tables, {len(functions)} functions")


def has_triggers() -> Finding:
    """checklist.6. Without one, recall knows messages that are gone, or does not know those that are there."""
    if setting("session_replication_role") == "replica":
        return failed(
            "session_replication_role is replica: no trigger fires",
            reset_of("session_replication_role"),
        )
    lost, off = [], []
    triggers = of_tables("TRIGGER")
    for one in triggers:
        state = dict(rows(TRIGGERS, [one.table])).get(one.name)
        if state is None:
            lost.append(one)
        elif state not in ENABLED:
            off.append(one)
    if not lost and not off:
        return passed(f"{len(triggers)} triggers, all enabled")
    said = [f"missing: {_names(lost)}"] if lost else []
    said += [f"disabled: {_names(off)}"] if off else []
    fixes = [NO_WAIT, *(_ended(one) for one in lost)]
    fixes += [f"ALTER TABLE {one.table} ENABLE TRIGGER {one.name};" for one in off]
    return failed("; ".join(said), "\n".join([*fixes, "python manage.py backfill_embeddings"]))


def may_be_used() -> Finding:
    """checklist.12, for the role of DATABASE_URL, which may be another than this command's."""
    role = settings.SERVER_DATABASE.get("USER") or value("SELECT current_user")
    if value("SELECT pg_catalog.to_regclass('message_memories') IS NULL"):
        return skipped("the database has no memory yet", MIGRATE)
    if not rows("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", [role]):
        return skipped(f"this server knows no role {role}: a pooler may name it otherwise")
    quoted = value("SELECT pg_catalog.quote_ident(%s)", [role])
    vector = extension.schema(connection)
    fixes = list(_grants(role, quoted))
    if not value(
        "SELECT pg_catalog.has_schema_privilege(%s, %s, 'USAGE')", [role, vector.strip('"')]
    ):
        fixes.append(f"GRANT USAGE ON SCHEMA {vector} TO {quoted};")
    if fixes:
        return failed(f"the role {role} may not use all that memory needs", "\n".join(fixes))
    return passed(f"the role {role} may")


def _grants(role: str, quoted: str) -> Iterable[str]:
    for table, uses in (
        USES | dict.fromkeys((one.table for one in message_tables()), USES_OF_MESSAGES)
    ).items():
        lacking = [
            use
            for use in uses
            if not value("SELECT pg_catalog.has_table_privilege(%s, %s, %s)", [role, table, use])
        ]
        if lacking:
            yield f"GRANT {', '.join(lacking)} ON {table} TO {quoted};"


def _names(things: list[Thing]) -> str:
    return ", ".join(
        f"{one.name} on {one.table}" if one.kind == "TRIGGER" else one.name for one in things
    )


def _ended(thing: Thing) -> str:
    return thing.statement.rstrip(";") + ";"


CHECKS = [
    Check("checklist.3", has_columns),
    Check("checklist.5", has_tables_and_functions),
    Check("checklist.6", has_triggers),
    Check("checklist.12", may_be_used),
    Check("trap.13", has_columns),
]
