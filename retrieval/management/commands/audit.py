"""Print the audit log, oldest line first: who saw or changed what that is another's, and when.

  manage.py audit
  manage.py audit --json | jq '.[] | select(.whose == "alice")'
  manage.py audit --purge      delete lines older than AUDIT_DAYS (365); the table's owner only

A command's "who" is command:<account on the machine>. Contents are never in it.
Locks: none; --purge: SHARE ROW EXCLUSIVE on audit_log alone for 5,000 lines at a time. It waits for
that 300 ms at a time, and tries again for ten minutes. Run it again after a kill.
"""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from retrieval import audit
from retrieval.management.operator_command import OperatorCommand
from retrieval.models import AuditLine


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        help_text = f"delete lines older than {settings.AUDIT_DAYS} days (AUDIT_DAYS)"
        parser.add_argument("--purge", action="store_true", help=help_text)

    def run(self, **options: Any) -> None:
        if options["purge"]:
            deleted = audit.purge(days=settings.AUDIT_DAYS)
            self.report(options, {"deleted": deleted}, f"{deleted:,} lines deleted")
            return
        lines = audit.lines()
        as_json = [
            {"when": line.at.isoformat(), "who": line.who, "what": line.what, "whose": line.whose}
            for line in lines
        ]
        self.report(options, as_json, *map(_as_text, lines))


def _as_text(line: AuditLine) -> str:
    return f"{line.at:%Y-%m-%d %H:%M:%S}  {line.who}  {line.what}  {line.whose}".rstrip()
