"""A table of a later migration that a running server uses as soon as it may."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from django.db import ProgrammingError, connection, transaction
from psycopg import errors

from retrieval.runtime import Expiring

CHECK_AGAIN_S = 60.0  # a running server notices within this time that migrate has made the table
# Whether this role may read the table, and whether it may write it. Both false if it is missing.
MAY_USE = """
    SELECT coalesce(bool_and(has_table_privilege(to_regclass(%(table)s), privilege))
            FILTER (WHERE privilege = 'SELECT'), false),
        coalesce(bool_and(has_table_privilege(to_regclass(%(table)s), privilege)), false)
    FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) privilege
"""


class MissingTableError(Exception):
    """The table does not exist, or this role was granted too little on it."""


class LaterTable:
    """Whether the table exists and this role may use it: false until grant_roles has run, too.

    A statement on a missing table would turn memory off, so callers ask before.
    """

    def __init__(self, name: str, *, check_again_s: float = CHECK_AGAIN_S) -> None:
        self.name = name
        self._check_again_s = check_again_s
        self._known: Expiring[tuple[bool, bool]] = Expiring()

    def may_read(self) -> bool:
        """At most one query in ``check_again_s``, with ``may_write``."""
        return self._may_use()[0]

    def may_write(self) -> bool:
        """Whether this role may read, insert and update."""
        return self._may_use()[1]

    def _may_use(self) -> tuple[bool, bool]:
        known = self._known.get()
        if known is None:
            with connection.cursor() as cursor:
                cursor.execute(MAY_USE, {"table": self.name})
                known = self._known.set(cursor.fetchone(), seconds=self._check_again_s)
        return known

    @contextmanager
    def required(self, *, to_write: bool = True) -> Iterator[None]:
        """Around statements on the table: MissingTableError without it, and if it was just removed.

        Inside a transaction a savepoint keeps the failure from the statements around it.
        """
        if not (self.may_write() if to_write else self.may_read()):
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
