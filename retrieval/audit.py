"""The audit log: one line for each act on the data of a user, or of all.

A trigger refuses to change or delete a line. Names are copied, so lines outlive users. Contents are
never in it. On a schema from before chat 0011_audit_log nothing is written.
"""

import getpass
import os

from django.contrib.auth.models import AbstractBaseUser
from django.db import ProgrammingError, connection, transaction
from psycopg import errors

from retrieval.models import AuditLine

# Locks: SHARE ROW EXCLUSIVE on audit_log alone until the transaction ends; acts that write a line
# wait. Only the owner of the table may do this.
ALLOW = "ALTER TABLE audit_log DISABLE TRIGGER audit_log_is_kept"
REFUSE = "ALTER TABLE audit_log ENABLE TRIGGER audit_log_is_kept"
DELETE_OLD = "DELETE FROM audit_log WHERE at < now() - make_interval(days => %s)"


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
    """Delete the lines older than ``days``; how many. Raises ProgrammingError: not the owner."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '3s'")
        cursor.execute(ALLOW)
        cursor.execute(DELETE_OLD, [days])
        deleted = cursor.rowcount
        cursor.execute(REFUSE)
    return int(deleted)
