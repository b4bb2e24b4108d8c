"""Check everything that memory needs, and print what fixes it.

Every success criterion, every item of the checklist and every trap of the deployment guide, the
settings and the server; recall is measured against an exact search. Each check is PASS, WARN, FAIL
or SKIP.

  manage.py rag_doctor                  reads only; some seconds
  manage.py rag_doctor --online         also makes one call to the embedding service
  manage.py rag_doctor --isolation      also creates two users whose messages must stay apart, and
                                        rolls them back
  manage.py rag_doctor --json           {"checks": [{"name", "status", "detail", "fix"}]}
  manage.py rag_doctor --report         a Markdown page: what runs, the results, places to fill in
  manage.py rag_doctor --list           what each check looks at; runs none of them

Locks: none that others wait for. A check that takes longer than 30 s becomes a WARN.
Exit code: 1 if a check is FAIL.
"""

import sys
from argparse import ArgumentParser
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from retrieval.doctor.examine import examine_all
from retrieval.doctor.production_page import markdown
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Check, Finding, Status
from retrieval.management.operator_command import OperatorCommand

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
    def add_arguments(self, parser: ArgumentParser) -> None:
        for name, text in OPTIONS.items():
            parser.add_argument(f"--{name}", action="store_true", help=text)
        parser.add_argument(
            "--report", action="store_true", help="print a Markdown page of production details"
        )
        parser.add_argument(
            "--list", action="store_true", help="print what each check looks at, and run none"
        )

    def run(self, **options: Any) -> None:
        """Print each check as it ends. CommandError if one is FAIL."""
        if options["list"]:
            self._list(as_json=options["json"])
            return
        prints_lines = not (options["json"] or options["report"])
        results: list[tuple[Check, Finding]] = []
        heading = ""
        for check, finding in examine_all({name for name in OPTIONS if options[name]}):
            results.append((check, finding))
            if prints_lines:
                heading = self._print_heading(check, heading)
                self._print(check, finding)
        if options["json"]:
            checks = [{"name": check.name, **asdict(finding)} for check, finding in results]
            self.write_json({"checks": checks})
        elif options["report"]:
            self.stdout.write("\n".join(markdown(results)))
        counts = Counter(finding.status for _, finding in results)
        if prints_lines:
            self.stdout.write(", ".join(f"{counts[status]} {status}" for status in Status))
        if counts[Status.FAIL]:
            raise CommandError(
                f"{counts[Status.FAIL]} of {counts.total()} checks failed: "
                "run the fixes that are printed below them"
            )

    def _list(self, *, as_json: bool) -> None:
        checks = [{"name": check.name, "looks_at": check.looks_at} for check in all_checks()]
        if as_json:
            self.write_json({"checks": checks})
            return
        for check in checks:
            self.stdout.write(f"{check['name']:<{NAME_WIDTH}}{check['looks_at']}")

    def _print_heading(self, check: Check, previous: str) -> str:
        heading = HEADINGS.get(check.name.partition(".")[0], "Other checks")
        if heading != previous:
            self.stdout.write(f"{heading}:")
        return heading

    def _print(self, check: Check, finding: Finding) -> None:
        status = str(finding.status)
        if sys.stdout.isatty():
            status = getattr(self.style, STYLES[finding.status])(status)
        self.stdout.write(f"  {status}  {check.name:<{NAME_WIDTH}}{finding.detail}")
        for line in finding.fix.splitlines():
            self.stdout.write(f"  {'':<{NAME_WIDTH + 4}}  {line}")
