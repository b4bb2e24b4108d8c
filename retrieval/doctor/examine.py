"""Runs checks one after the other. A check that the database refuses does not stop the others."""

from collections.abc import Iterator
from contextlib import nullcontext

from django.db import Error, connection
from psycopg import errors

from retrieval.db import UNDEFINED_ERRORS, NoMemory
from retrieval.doctor.check_server import encoding_is_utf8
from retrieval.doctor.database import LOCK_TIMEOUT, STATEMENT_TIMEOUT, limited_transaction
from retrieval.doctor.fixes import DOCTOR, ENABLE_VECTOR, MIGRATE
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Check, Finding, failed, skipped, warning
from retrieval.schema import extension

SHOW_BLOCKERS = (
    "SELECT pid, mode, granted FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
    "WHERE mode = 'AccessExclusiveLock' AND relname !~ '^pg_';"
)


def examine_all(options: set[str]) -> Iterator[tuple[Check, Finding]]:
    """Run every check; ``options`` are the command's options that are on.

    Raises Error if the database cannot be reached.
    """
    connection.ensure_connection()
    for check in all_checks():
        yield check, examine(check, options)


def examine(check: Check, options: set[str]) -> Finding:
    """Run one check. Raises Error if the connection to the database is lost."""
    if check.option and check.option not in options:
        return skipped(
            f"only with --{check.option}, which does more than read", f"{DOCTOR} --{check.option}"
        )
    try:
        with limited_transaction() if check.in_transaction else nullcontext():
            return check.run()
    except NoMemory:
        return _without_memory()
    except extension.VectorTooOld as error:
        return failed(str(error), f"{extension.UPDATE};")
    except extension.VectorNotUsable as error:
        return failed(str(error), f"{error.statement};")
    except extension.WrongEncoding:
        return encoding_is_utf8()
    except extension.VectorUnavailable as error:
        return failed(str(error), ENABLE_VECTOR)
    except Error as error:
        if connection.connection is None or connection.connection.closed:
            raise
        return _refused(error)


def _without_memory() -> Finding:
    return skipped("the database has no memory, or an older form of it", MIGRATE)


def _refused(error: Error) -> Finding:
    cause = error.__cause__
    if isinstance(cause, errors.QueryCanceled):
        return warning(f"took longer than {STATEMENT_TIMEOUT}: no result", DOCTOR)
    if isinstance(cause, errors.LockNotAvailable):
        return warning(f"a table was locked for longer than {LOCK_TIMEOUT}", SHOW_BLOCKERS)
    if isinstance(cause, UNDEFINED_ERRORS):
        return _without_memory()
    if isinstance(cause, errors.InsufficientPrivilege):
        return skipped(
            "this role may not read what the check needs: run rag_doctor as the tables' owner",
            "DATABASE_DIRECT_URL=the address with the tables' owner",
        )
    raise error
