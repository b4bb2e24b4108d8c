"""Run checks one after the other; whatever happens to one of them, the others are run."""

from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module

from django.apps import apps
from django.db import Error, connection
from django.utils.module_loading import module_has_submodule
from psycopg import errors

from retrieval.db import MISSING, NoMemory
from retrieval.doctor.queries import LOCK_TIMEOUT, STATEMENT_TIMEOUT, limits
from retrieval.doctor.report import Check, Finding, failed, skipped, warning
from retrieval.schema.extension import VectorUnavailable

MIGRATE = "python manage.py migrate"
WHO_HOLDS = (
    "SELECT pid, mode, granted FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
    "WHERE mode = 'AccessExclusiveLock' AND relname !~ '^pg_';"
)


def checks() -> list[Check]:
    """Ours, and those of each installed app's module ``doctor_checks``, in the report's order."""
    listed: list[Check] = import_module("retrieval.doctor").checks()
    for app in apps.get_app_configs():
        if app.module and module_has_submodule(app.module, "doctor_checks"):
            listed = listed + import_module(f"{app.name}.doctor_checks").checks()
    return sorted(listed, key=_place)


def examine_all(options: set[str]) -> Iterator[tuple[Check, Finding]]:
    """Each check with what it finds; ``options`` are those of the command that are on. Reads, locks nothing.

    Raises Error where the database cannot be reached.
    """
    connection.ensure_connection()
    for check in checks():
        yield check, examine(check, options)


def examine(check: Check, options: set[str]) -> Finding:
    """What the check finds, in a reading transaction with time limits. Raises Error: the database is gone."""
    if check.option and check.option not in options:
        return skipped(
            f"only with --{check.option}, which does more than read",
            f"python manage.py rag_doctor --{check.option}",
        )
    try:
        with nullcontext() if check.alone else limits():
            return check.run()
    except NoMemory:
        return _without_memory()
    except VectorUnavailable as error:
        return failed(str(error), "python manage.py enable_vector")
    except Error as error:
        if connection.connection is None or connection.connection.closed:
            raise
        return _in_the_way(error)


def _without_memory() -> Finding:
    return skipped("the database has no memory, or an older form of it", MIGRATE)


def _in_the_way(error: Error) -> Finding:
    """A check that the database ended."""
    cause = error.__cause__
    if isinstance(cause, errors.QueryCanceled):
        return warning(
            f"took longer than {STATEMENT_TIMEOUT}: not known", "python manage.py rag_doctor"
        )
    if isinstance(cause, errors.LockNotAvailable):
        return warning(
            f"somebody held a table for longer than {LOCK_TIMEOUT}: not known", WHO_HOLDS
        )
    if isinstance(cause, MISSING):
        return _without_memory()
    if isinstance(cause, errors.InsufficientPrivilege):
        return skipped("this role may not read what it takes: run rag_doctor as the tables' owner")
    raise error


def _place(check: Check) -> tuple[int, str, int]:
    """Criteria, checklist, traps by their numbers, then the others by name."""
    group, _, number = check.name.partition(".")
    order = ("criterion", "checklist", "trap")
    return (
        (order.index(group), group, int(number)) if group in order else (len(order), check.name, 0)
    )
