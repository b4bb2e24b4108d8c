"""The audit log: one line for each act on the data of a user, or of all.

A trigger refuses to change or delete a line. Names are copied, so lines outlive users. Contents are
never in it. On a schema from before chat 0011_audit_log nothing is written.
"""

import getpass
import os

from django.contrib.auth.models import AbstractBaseUser
from django.db import ProgrammingError, connection, transaction
from psycopg import errors

from retrieval import queries
from retrieval.models import AuditLine
from retrieval.schema import locks

MAX_BATCH = 5_000  # lines a transaction, so that acts wait for a moment only
# By the primary key, since ``at`` has no index. Locks: none.
FIND_OLD = """
    SELECT id FROM audit_log WHERE id > %(after)s AND at < now() - make_interval(days => %(days)s)
    ORDER BY id LIMIT %(limit)s
"""
# Locks: SHARE ROW EXCLUSIVE on audit_log alone until the transaction ends; acts that write a line
# wait. Only the owner of the table may do this.
DELETE = """
    ALTER TABLE audit_log DISABLE TRIGGER audit_log_is_kept;
    DELETE FROM audit_log WHERE id = ANY (%(ids)s::bigint[]);
    ALTER TABLE audit_log ENABLE TRIGGER audit_log_is_kept
"""


def record(who: AbstractBaseUser | str, what: str, *, whose: AbstractBaseUser | str = "") -> None:
    """Write a line, in the caller's transaction. Raises Error: then the act must not happen."""
    try:
        with transaction.atomic():
            AuditLine.objects.create(who=_name(who), what=what, whose=_name(whose))
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.UndefinedTable):
            raise


def _name(user: AbstractBaseUser | str) -> str:
    return user if isinstance(user, str) else user.get_username()


def record_command(what: str, *, whose: AbstractBaseUser | str = "") -> None:
    """A line of the operator who runs a command, by the name of their account on this machine."""
    record(f"command:{account_name()}", what, whose=whose)


def account_name() -> str:
    """Of this process's account; its number if it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        return str(os.getuid())


def lines() -> list[AuditLine]:
    """All lines, oldest first. One statement."""
    return list(AuditLine.objects.order_by("id"))


def purge(*, days: int) -> int:
    """Delete the lines older than ``days``; how many. Two statements for each MAX_BATCH lines.

    Raises ProgrammingError: not the owner; OperationalError as ``run_with_short_lock``.
    """
    deleted = after = 0
    while ids := _find_old(after, days=days):
        locks.run_with_short_lock(connection, "audit_log", DELETE, {"ids": ids})
        deleted, after = deleted + len(ids), ids[-1]
    return deleted


def _find_old(after: int, *, days: int) -> list[int]:
    params = {"after": after, "days": days, "limit": MAX_BATCH}
    return [pk for (pk,) in queries.rows(FIND_OLD, params)]
