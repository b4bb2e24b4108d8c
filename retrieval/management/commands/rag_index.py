"""Build the HNSW indexes anew, drop them, make them again. Contract section 5."""

import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from retrieval.management.operator_command import OperatorCommand, add_table, number
from retrieval.reindex import build_progress, rebuild
from retrieval.reindex.build_progress import Told
from retrieval.reindex.rebuild import LEAST_EF, LEAST_M, MOST_EF, MOST_M, Shape, Target
from retrieval.schema import locks

HELP = """\
Build the HNSW indexes anew, or do without them during a bulk fill. Safe under traffic.

  manage.py rag_index rebuild                              anew under the same names; mends an INVALID one
  manage.py rag_index rebuild --m 24 --ef-construction 128 --table chat_messages
  manage.py rag_index drop hnsw                            before a large backfill, which is then faster;
  manage.py rag_index create hnsw                          and after it

Locks: SHARE UPDATE EXCLUSIVE on one table of messages after the other; reads and writes go on. A build waits for
transactions that are open. Where m or ef_construction change, ACCESS EXCLUSIVE on the index for a moment, asked for
300 ms at a time. Killed at any moment, it is run again and removes what was left.
Disk: rebuild needs room for a second index until it is done; it says how much. migrate does not build again what was
dropped. Processor: max_parallel_maintenance_workers processes beside the first, 2 unless set otherwise; PGOPTIONS="-c
max_parallel_maintenance_workers=0" spares them. With room for the graph in memory a build is much faster:

  PGOPTIONS="-c maintenance_work_mem=2GB" manage.py rag_index rebuild"""
STOPS: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
PATIENCE_S = 3.0  # a build whose client was killed ends within indexes.CLIENT_CHECK
BUSY = "another rag_index or migrate is running: let it finish, or stop it first"
WORK: dict[str, Callable[[Target, Shape], None]] = {
    "rebuild": rebuild.rebuild,
    "create": rebuild.create,
    "drop": lambda target, _shape: rebuild.drop(target),
}


class Command(OperatorCommand):
    """Parse, build, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What to do, and how the indexes are to be."""
        m = number(LEAST_M, int, f"a whole number from {LEAST_M} to {MOST_M}", most=MOST_M)
        ef = number(LEAST_EF, int, f"a whole number from {LEAST_EF} to {MOST_EF}", most=MOST_EF)
        parser.add_argument("action", choices=WORK, help="what to do")
        parser.add_argument(
            "what", nargs="?", choices=["hnsw"], help="with drop and create: the HNSW indexes"
        )
        parser.add_argument(
            "--m", type=m, default=16, help="links of a row in the graph, 2 to 100 (16)"
        )
        parser.add_argument(
            "--ef-construction",
            type=ef,
            default=64,
            help="candidates for them, 4 to 1000, at least twice m (64)",
        )
        add_table(parser)

    def run(self, **options: Any) -> None:
        """One index after the other."""
        action, shape = options["action"], Shape(options["m"], options["ef_construction"])
        if problem := _problem(options, shape):
            raise CommandError(f"{problem}; see rag_index --help", returncode=2)
        told = Told(self._say_to(options), as_bar=sys.stdout.isatty() and not options["json"])
        with (
            locks.try_advisory_lock(connection, locks.MIGRATE_LOCK, patience_s=PATIENCE_S) as alone,
            _stopping(action),
        ):
            if not alone:
                raise CommandError(BUSY)
            done = [
                self._work(target, action, shape, told)
                for target in rebuild.targets(options["table"])
            ]
        if options["json"]:
            self.write_json({"indexes": done})

    def _say_to(self, options: dict[str, Any]) -> Callable[[str], None]:
        """Lines that are seen at once through a pipe as well."""
        out = self.stderr if options["json"] else self.stdout

        def say(line: str) -> None:
            out.write(line)
            out.flush()

        return say

    def _work(self, target: Target, action: str, shape: Shape, told: Told) -> dict[str, Any]:
        if build_progress.look(target.table):
            raise CommandError(
                f"an index of {target.table} is being built: let it finish, or stop it first"
            )
        began = time.monotonic()
        if action == "create" and target.valid:
            told.say(f"{target.name} is there and valid; rag_index rebuild builds it anew")
        elif action == "drop":
            WORK[action](target, shape)
            told.say(
                f"{target.name} is dropped"
                if target.valid is not None
                else f"{target.name} was not there"
            )
        else:
            announce(target, shape, told.say)
            with told.building(target.name, target.table, target.rows):
                WORK[action](target, shape)
            seconds, after = time.monotonic() - began, rebuild.look(target.source, target.name)
            size = f"{after.size_bytes / 1e6:,.1f} MB"
            told.say(
                f"{target.name}: built in {seconds:,.1f} s, {size}, {', '.join(after.options)}"
            )
        return self._report(target, time.monotonic() - began)

    def _report(self, before: Target, seconds: float) -> dict[str, Any]:
        after = rebuild.look(before.source, before.name)
        return {
            "name": after.name,
            "table": after.table,
            "rows": after.rows,
            "size_bytes": after.size_bytes,
            "valid": bool(after.valid),
            "seconds": round(seconds, 2),
        }


def announce(target: Target, shape: Shape, say: Callable[[str], Any]) -> None:
    """What the build needs, before it begins."""
    present = (
        f"beside the present {target.size_bytes / 1e6:,.0f} MB until it is done, "
        if target.size_bytes
        else ""
    )
    say(
        f"{target.name}: {target.rows:,} rows; about {target.needed_bytes / 1e6:,.0f} MB of disk, {present}"
        "and as much of WAL. What is free cannot be seen from here: look on the server"
    )
    needed, memory = target.graph_bytes(shape), rebuild.maintenance_work_mem()
    if needed > memory:
        say(
            f"{target.name}: the graph takes about {needed / 1e6:,.0f} MB, maintenance_work_mem is "
            f"{memory / 1e6:,.0f} MB; faster, where the server has it: "
            f'PGOPTIONS="-c maintenance_work_mem={needed // 2**20 + 1}MB"'
        )


def _problem(options: dict[str, Any], shape: Shape) -> str | None:
    if (options["action"] == "rebuild") == (options["what"] is not None):
        return "say rebuild, drop hnsw, or create hnsw"
    return shape.problem


@contextmanager
def _stopping(action: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM cancel the statement that runs, and say so in one line."""
    caught: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        caught.append(signum)
        raise KeyboardInterrupt  # psycopg cancels what the server is doing

    before = {one: signal.signal(one, stop) for one in STOPS}
    try:
        yield
    except KeyboardInterrupt:
        words = (
            f"interrupted; run rag_index {action} again, it removes what may be left of an index"
        )
        raise CommandError(words, returncode=STOPS[caught[-1]]) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
