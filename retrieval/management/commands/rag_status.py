"""How far memory is. Contract section 5."""

import sys
import time
from argparse import ArgumentParser
from typing import Any

from retrieval import status
from retrieval.management.operator_command import OperatorCommand, discard_output, number

HELP = """\
How far memory is: messages with a vector, without, and set aside, by table; indexes; the model. Changes nothing.

  manage.py rag_status
  manage.py rag_status --watch                             again every 5 s, until Ctrl-C or nobody reads
  manage.py rag_status --watch 60 --json >> status.jsonl   one object a line

Messages that are switched off count nowhere; a table without messages is at 100%. "Times used: 0" is not a fault: a
recall among one user's messages often does better without the HNSW index. Locks: none; each look reads both tables
of messages, some seconds for 1,000,000 of them."""
EVERY_S = 5.0
CLEAR = "\033[2J\033[H"  # the screen, and home; ECMA-48


class Command(OperatorCommand):
    """Parse, look, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--watch."""
        seconds = number(0.1, float, "seconds, 0.1 or more")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=seconds,
            const=EVERY_S,
            metavar="SECONDS",
            help="again every so often (5)",
        )

    def run(self, **options: Any) -> None:
        """Once, or until Ctrl-C or nobody reads any more: neither is a failure."""
        every_s = options["watch"]
        if every_s is None:
            self._say(options)
            return
        try:
            while True:
                self._say(options)
                time.sleep(every_s)
        except KeyboardInterrupt:
            return
        except BrokenPipeError:
            discard_output(sys.stdout)

    def _say(self, options: dict[str, Any]) -> None:
        found = status.collect()
        if options["json"]:
            self.write_json(found)
        else:
            watched_at = f"{time.strftime('%H:%M:%S')}\n" if options["watch"] else ""
            clear = CLEAR if watched_at and sys.stdout.isatty() else ""
            self.stdout.write(
                clear + watched_at + "\n".join(status.lines(found)) + "\n" * bool(watched_at)
            )
