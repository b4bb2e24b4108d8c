"""Locks on memory's tables that block other sessions at this moment.

They are recognised by their modes: this role may not be allowed to read another one's statements.
"""

from decimal import Decimal
from functools import partial

from psycopg import sql

from retrieval.doctor.fixes import statement
from retrieval.doctor.report import Check, Finding, passed, warning
from retrieval.models import recalled_tables
from retrieval.queries import rows

# Sessions that hold, or wait for, a lock of this mode on one of the tables or on their indexes. The
# age is NULL where this role may not read it: of a lock that another role's session holds.
LOCKS = """
    SELECT DISTINCT l.pid, l.granted, round(
        extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.xact_start))::numeric, 1)
    FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_stat_activity a USING (pid)
    JOIN pg_catalog.pg_class c ON c.oid = l.relation
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE l.mode = %s AND c.relkind = %s AND l.pid <> pg_catalog.pg_backend_pid()
        AND l.database = (
            SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND coalesce(i.indrelid, c.oid) = ANY (
            SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(%s::text[]) name)
    ORDER BY 3 DESC
"""
TABLE, INDEX = "r", "i"  # pg_class.relkind
# A change with a short lock_timeout (retrieval/schema/locks.py) gives up after 0.3 s.
MIN_LOCK_AGE_S = 0.5
TERMINATE = sql.SQL("SELECT pg_terminate_backend({})")


def _locks(mode: str, relkind: str, problem: str) -> Finding:
    locks = [
        lock
        for lock in rows(LOCKS, [mode, relkind, recalled_tables()])
        if lock[2] is None or lock[2] >= MIN_LOCK_AGE_S
    ]
    if not locks:
        return passed("no session does so now")
    sessions = ", ".join(
        f"process {pid} {'holds' if granted else 'waits for'} the lock, {_age(age_s)}"
        for pid, granted, age_s in locks
    )
    pids = dict.fromkeys(pid for pid, _, _ in locks)
    return warning(f"{problem}: {sessions}", *map(_terminate, pids))


def _age(age_s: Decimal | None) -> str:
    return "age unknown: it is of another role" if age_s is None else f"{age_s} s"


def _terminate(pid: int) -> str:
    return statement(TERMINATE.format(sql.Literal(pid)))


def checks() -> list[Check]:
    share, exclusive = "ShareLock", "AccessExclusiveLock"  # Verse itself never asks for SHARE
    create = partial(_locks, share, TABLE, "a CREATE INDEX without CONCURRENTLY blocks writes")
    alter = partial(_locks, exclusive, TABLE, "a change of a table blocks all other queries")
    drop = partial(_locks, exclusive, INDEX, "a DROP INDEX without CONCURRENTLY locks its table")
    return [
        Check("trap.8", create, subject="SHARE locks on the tables now."),
        Check("trap.11", alter, subject="ACCESS EXCLUSIVE locks on the tables now."),
        Check("trap.18", drop, subject="ACCESS EXCLUSIVE locks on the tables' indexes now."),
    ]
