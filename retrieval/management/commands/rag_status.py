"""Show which messages have a vector, by table, and the indexes and the model. Changes nothing.

  manage.py rag_status
  manage.py rag_status --watch                             again every 5 s, until Ctrl-C
  manage.py rag_status --watch 60 --json >> status.jsonl   one object a line

Messages that are switched off are not counted; a table without messages is at 100%. "Times used: 0"
is not a fault: for a search among one user's messages the planner often rightly takes another index
than HNSW.
Locks: none; each time it reads both message tables, a second for 1,000,000 messages.
"""

import sys
import time
from argparse import ArgumentParser
from typing import Any

from retrieval import status
from retrieval.management.arguments import number
from retrieval.management.operator_command import OperatorCommand, discard_output

DEFAULT_INTERVAL_S = 5.0
CLEAR_SCREEN = "\033[2J\033[H"  # erase the display, cursor home; ECMA-48


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--watch",
            nargs="?",
            type=number(float, "seconds, 0.1 or more", minimum=0.1),
            const=DEFAULT_INTERVAL_S,
            metavar="SECONDS",
            help="again every so many seconds (5)",
        )

    def run(self, **options: Any) -> None:
        """Once, or until Ctrl-C or until the reader of the output ends: neither is a failure."""
        interval_s = options["watch"]
        if interval_s is None:
            self._show(options)
            return
        try:
            while True:
                self._show(options)
                time.sleep(interval_s)
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            discard_output(sys.stdout)

    def _show(self, options: dict[str, Any]) -> None:
        report = status.collect()
        lines = status.lines(report)
        if options["watch"]:
            clear = CLEAR_SCREEN if sys.stdout.isatty() else ""
            lines = [clear + time.strftime("%H:%M:%S"), *lines, ""]
        self.report(options, report, *lines)
