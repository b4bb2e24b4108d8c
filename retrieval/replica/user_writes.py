"""The latest write of each user, whichever process made it: the table user_writes.

A replica that has replayed that transaction may be read for the user. Nothing is recorded, and no
statement is sent, without DATABASE_REPLICA_URL; it must be set for commands and workers, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import ProgrammingError, transaction
from django.db.models import Exists, OuterRef
from psycopg import errors

from retrieval.later_table import LaterTable
from retrieval.queries import execute, rows
from retrieval.replica.user_write_model import UserWrite

_table = LaterTable("user_writes")
# The last commit wins, even with a lower xid. The savepoint: migrate may remove the table at any
# time. Locks: the users' rows, by id, until the commit.
RECORD = """
    SAVEPOINT user_write;
    INSERT INTO user_writes (user_id, xid)
    SELECT id, pg_catalog.pg_current_xact_id() FROM unnest(%(users)s::bigint[]) id ORDER BY id
    ON CONFLICT (user_id) DO UPDATE SET xid = excluded.xid;
    RELEASE SAVEPOINT user_write
"""
# Ignores an xid that this server has not reached yet: it came with a dump of another server. Locks:
# nothing.
LATEST = """
    SELECT xid::text FROM user_writes WHERE user_id = %(user)s
        AND xid < pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
"""


class UnknownWriteError(Exception):
    """Nothing is known of the user's writes: the table is missing."""


@contextmanager
def recorded(*user_ids: int) -> Iterator[set[int]]:
    """Around what a transaction writes for these users, to its end; the block may add users.

    One statement with a replica, else none. At the end: transactions that wait for each other's
    row of user_writes then need nothing else of each other.
    """
    users = set(user_ids)
    if settings.REPLICA_DATABASE is None:
        yield users
        return
    with transaction.atomic(savepoint=False):
        yield users
        if users and _table.may_write():
            _record(users)


def _record(users: set[int]) -> None:
    try:
        execute(RECORD, {"users": list(users)})
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.UndefinedTable):
            raise
        execute("ROLLBACK TO SAVEPOINT user_write")


def purge_deleted_users() -> None:
    """Delete what is recorded of users that no longer exist. One statement."""
    if _table.may_write():
        owner = get_user_model()._default_manager.filter(pk=OuterRef("user_id"))
        UserWrite.objects.filter(~Exists(owner)).delete()


def latest_write(user_id: int) -> str | None:
    """The xid of the user's latest write, None without one. One statement.

    Raises UnknownWriteError.
    """
    if not _table.may_write():
        raise UnknownWriteError
    try:
        results = rows(LATEST, {"user": user_id})
    except ProgrammingError as error:
        raise UnknownWriteError from error
    return str(results[0][0]) if results else None
