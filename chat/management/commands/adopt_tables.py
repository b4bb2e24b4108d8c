"""Take over tables of an earlier program: make them those of migration chat 0001_initial.

For a database that has chat_messages, standalone_chat_messages, passages or standalone_chats
already. It adds what is missing, a table, column, default, key, check or index, and then records
the migration as applied, so that migrate goes on from there. It never changes or deletes a row. If
something needs your decision, such as rows that break a key or a column of another type, it says
what, and changes nothing.

  manage.py adopt_tables --check       what does not match? Changes nothing
  manage.py adopt_tables

Run it as the role that owns the tables. Safe under traffic, and to run again after a kill.
Locks: for under a millisecond each, asked for 300 ms at a time; indexes are built CONCURRENTLY, and
wait for the transactions that are open. It says for whom it waits. Timeouts of the role do not
apply. --check: none that others wait for.
Exit code: 0 the tables match, and without --check the migration is recorded; 1 something does not
match, or only you can correct it.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from chat.adoption.adopt import Adoption, Comparison, NotAdoptable
from chat.adoption.initial_tables import APP, NAME, NotReady
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import OperatorCommand
from retrieval.schema.locks import notify_operator, wait_for_advisory_lock
from retrieval.schema.timeouts import without_timeouts
from retrieval.schema.waits import report_waits

INTERRUPTED = "interrupted; run it again, it goes on from here"
MIGRATION = f"{APP} {NAME}"


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit code 1 if something differs"
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: the tables do not match, or cannot."""
        try:
            with (
                cancel_on_signal(raise_keyboard_interrupt, message=INTERRUPTED),
                without_timeouts(connection),
            ):
                if options["check"]:
                    self._check(options)
                else:
                    self._adopt(options)
        except (NotReady, NotAdoptable) as error:
            raise CommandError(str(error)) from error

    def _check(self, options: dict[str, Any]) -> None:
        comparison = Adoption(connection).check()
        self.report(options, as_json(comparison), *in_words(comparison))
        if comparison.differences:
            raise CommandError(next_step(comparison))

    def _adopt(self, options: dict[str, Any]) -> None:
        with wait_for_advisory_lock(connection), report_waits(connection, notify_operator):
            adoption = Adoption(connection)
            before = adoption.check()
            if before.operators:
                self.report(options, as_json(before), *in_words(before))
                raise CommandError(f"nothing was changed. {next_step(before)}")
            self._correct(adoption, options)
            adoption.record()
        done = as_json(before) | {"matches": True, "recorded": True}
        done["corrected"] = done.pop("differences")
        self.report(
            options, done, f"{MIGRATION} is recorded as applied: go on with manage.py migrate"
        )

    def _correct(self, adoption: Adoption, options: dict[str, Any]) -> None:
        """Print each difference before it is corrected: one may have to wait."""
        stream = self.stderr if options["json"] else self.stdout
        for number, difference in enumerate(adoption.correct()):
            if number == 0:
                stream.write("correcting these differences:", str)
            stream.write(f"  {difference.table}: {difference.problem}", str)


def in_words(comparison: Comparison) -> list[str]:
    """A line for each difference, with its fix below it, and one for each note."""
    lines = []
    for difference in comparison.differences:
        lines.append(f"{difference.table}: {difference.problem}")
        if difference.fix:
            lines.append(f"    {difference.fix}")
    lines += [f"note: {note}" for note in comparison.notes]
    if not comparison.differences:
        state = "is recorded as applied" if comparison.is_recorded else "is not recorded yet"
        lines.append(f"all tables match, and {MIGRATION} {state}")
    return lines


def next_step(comparison: Comparison) -> str:
    """How many differences there are, and what to do."""
    total, operators = len(comparison.differences), len(comparison.operators)
    differ = f"{total} {'difference' if total == 1 else 'differences'}"
    if operators:
        return f"{differ}, {operators} of them for you to correct first, see the indented lines"
    return f"{differ}: manage.py adopt_tables corrects {'it' if total == 1 else 'all of them'}"


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "migration": f"{APP}.{NAME}",
        "matches": not comparison.differences,
        "recorded": comparison.is_recorded,
        "differences": [
            {
                "table": difference.table,
                "problem": difference.problem,
                "fixable": difference.is_fixable,
                "statements": [step.statement.as_string() for step in difference.steps],
                "fix": difference.fix,
            }
            for difference in comparison.differences
        ],
        "notes": comparison.notes,
    }
