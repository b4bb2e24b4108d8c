"""Look at all that memory needs, and say how to mend what is wrong. Contract section 5."""

import sys
from argparse import ArgumentParser
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from retrieval.doctor.examine import examine_all
from retrieval.doctor.report import Check, Finding, Status
from retrieval.management.operator_command import OperatorCommand

HELP = """\
Look at every success criterion, every item of the checklist and every trap of the deployment guide, at the settings
and at the server; recall is measured against an exact search. Each is PASS, WARN, FAIL or SKIP, with what mends it.

  manage.py rag_doctor                  reads only; some seconds
  manage.py rag_doctor --online         also one call to the embedding service
  manage.py rag_doctor --isolation      also two users whose messages must not meet, rolled back at the end
  manage.py rag_doctor --json           {"checks": [{"name", "status", "detail", "fix"}]}

Locks: none that anybody waits for. A check has 30 s, then it is a WARN. Exit code: 1 where something is FAIL."""
OPTIONS = {
    "online": "also make one embedding call",
    "isolation": "also try to recall one user's messages for another",
}
HEADINGS = {"criterion": "Success criteria", "checklist": "Checklist", "trap": "Traps"}
STYLES = {
    Status.PASS: "SUCCESS",
    Status.WARN: "WARNING",
    Status.FAIL: "ERROR",
    Status.SKIP: "NOTICE",
}
NAME_WIDTH = 24


class Command(OperatorCommand):
    """Parse, examine, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--online, --isolation."""
        for name, words in OPTIONS.items():
            parser.add_argument(f"--{name}", action="store_true", help=words)

    def run(self, **options: Any) -> None:
        """A line a check, as it is made; CommandError where something is FAIL."""
        found: list[tuple[Check, Finding]] = []
        heading = ""
        for check, finding in examine_all({name for name in OPTIONS if options[name]}):
            found.append((check, finding))
            if not options["json"]:
                heading = self._say_heading(check, heading)
                self._say(check, finding)
        if options["json"]:
            self.write_json(
                {"checks": [{"name": check.name, **asdict(finding)} for check, finding in found]}
            )
        self._sum_up(Counter(finding.status for _, finding in found), quiet=options["json"])

    def _say_heading(self, check: Check, before: str) -> str:
        heading = HEADINGS.get(check.name.partition(".")[0], "Beside")
        if heading != before:
            self.stdout.write(f"{heading}:")
        return heading

    def _say(self, check: Check, finding: Finding) -> None:
        status = str(finding.status)
        if sys.stdout.isatty():
            status = getattr(self.style, STYLES[finding.status])(status)
        self.stdout.write(f"  {status}  {check.name:<{NAME_WIDTH}}{finding.detail}")
        for line in finding.fix.splitlines():
            self.stdout.write(f"  {'':<{NAME_WIDTH + 4}}  {line}")

    def _sum_up(self, counts: Counter[Status], *, quiet: bool) -> None:
        said = ", ".join(f"{counts[status]} {status}" for status in Status)
        if not quiet:
            self.stdout.write(said)
        if counts[Status.FAIL]:
            raise CommandError(
                f"{counts[Status.FAIL]} of {counts.total()} checks failed: do what is printed beneath them"
            )
