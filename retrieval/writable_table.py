"""A table of a later migration that a running server uses as soon as it may."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from django.db import ProgrammingError, connection, transaction
from psycopg import errors

from retrieval.runtime import Expiring

CHECK_AGAIN_S = 60.0  # a running server notices within this time that migrate has made the table
# A role that was granted nothing on the table yet is treated as if the table were missing.
MAY_WRITE = """
    SELECT coalesce(bool_and(has_table_privilege(to_regclass(%s), privilege)), false)
    FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) privilege
"""


class MissingTableError(Exception):
    """The table does not exist, or this role may not write it."""


class WritableTable:
    """Whether the table exists and this role may write it.

    A statement on a missing table would turn memory off, so callers ask before.
    """

    def __init__(self, name: str, *, check_again_s: float = CHECK_AGAIN_S) -> None:
        self.name = name
        self._check_again_s = check_again_s
        self._known: Expiring[bool] = Expiring()

    def exists(self) -> bool:
        """False until grant_roles has run again, too. At most one query in ``check_again_s``."""
        known = self._known.get()
        if known is None:
            with connection.cursor() as cursor:
                cursor.execute(MAY_WRITE, [self.name])
                known = self._known.set(bool(cursor.fetchone()[0]), seconds=self._check_again_s)
        return known

    @contextmanager
    def required(self) -> Iterator[None]:
        """Around statements on the table: MissingTableError without it, and if it was just removed.

        Inside a transaction a savepoint keeps the failure from the statements around it.
        """
        if not self.exists():
            raise MissingTableError
        savepoint = transaction.atomic() if connection.in_atomic_block else nullcontext()
        try:
            with savepoint:
                yield
        except ProgrammingError as error:
            if not isinstance(error.__cause__, errors.UndefinedTable):
                raise
            self.forget()
            raise MissingTableError from error

    def forget(self) -> None:
        """A statement has failed for want of the table: look again."""
        self._known.forget()
