"""Makes existing tables those of migration ``chat 0001_initial``, and records it as applied."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

from chat.adoption import initial_tables
from chat.adoption.catalog import Table, read_tables
from chat.adoption.compare_tables import compare, restrictions
from chat.adoption.differences import Difference, Stage, with_broken_rows

NOTHING = "none of the tables that chat 0001_initial creates exists here: run manage.py migrate"


class NotAdoptable(Exception):
    """The tables cannot be adopted as they are; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """What differs, what Verse does not know, and whether the migration is recorded."""

    differences: list[Difference]
    notes: list[str]
    is_recorded: bool

    @property
    def operators(self) -> list[Difference]:
        """The differences that only the operator can correct."""
        return [difference for difference in self.differences if not difference.is_fixable]


class Adoption:
    """The tables that the migration creates, compared with those of the database.

    Raises initial_tables.NotReady, and NotAdoptable if none of the tables exists.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.wanted = initial_tables.read_wanted(connection)
        if not self._read():
            raise NotAdoptable(NOTHING)

    def check(self) -> Comparison:
        """Compare all. Changes nothing; reads each table once for each constraint it lacks."""
        existing = self._read()
        differences = [
            with_broken_rows(self.connection, difference)
            for difference in compare(self.connection, self.wanted, existing)
        ]
        notes = list(restrictions(self.wanted, existing))
        return Comparison(differences, notes, initial_tables.is_recorded(self.connection))

    def correct(self) -> Iterator[Difference]:
        """Yield each difference before it is corrected, in an order that works.

        Can be stopped, even killed, and run again. Raises NotAdoptable: a difference has appeared
        since ``check`` that only the operator can correct.
        """
        for stage in Stage:
            for difference in compare(self.connection, self.wanted, self._read()):
                if difference.stage is not stage:
                    continue
                if not difference.is_fixable:
                    raise NotAdoptable(f"{difference.table}: {difference.problem}")
                yield difference
                for step in difference.steps:
                    step.run(self.connection)

    def record(self) -> None:
        """Record the migration as applied, unless it is. Raises NotAdoptable: something differs.

        Sequences do not count: a program that assigns ids itself is soon ahead of them again.
        """
        for difference in compare(self.connection, self.wanted, self._read()):
            if difference.stage is not Stage.SEQUENCE:
                raise NotAdoptable(f"{difference.table}: {difference.problem}")
        if not initial_tables.is_recorded(self.connection):
            initial_tables.record(self.connection)

    def _read(self) -> dict[str, Table]:
        return read_tables(self.connection, self.wanted)
