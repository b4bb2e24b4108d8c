"""Embed the messages that have no embedding yet. Contract section 5."""

import logging
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from retrieval import current_model, storage
from retrieval.backfill import OFF, UNREAD, Backfill, Limits, Stopped, pending
from retrieval.backfill.progress import Told
from retrieval.embeddings import cost, embedding_service
from retrieval.management.operator_command import OperatorCommand, add_table, discard_output, number
from retrieval.models import message_tables
from retrieval.recall import min_similarity
from retrieval.schema import locks

HELP = """\
Embed pending messages, oldest first, and make all of them known to recall by words. Safe under traffic; every
finished batch is kept, so it may be stopped at any time and run again. What it would cost: rag_cost_estimate.

  manage.py backfill_embeddings --dry-run                  what there is to do
  manage.py backfill_embeddings --limit 100 --sleep 0      a first try
  manage.py backfill_embeddings --batch-size 50 --max-cost 5
  manage.py backfill_embeddings --retry-failed             take up again what the service refused

Locks: some of a table's messages at a time, 0.1 s; an edit of one of them waits for that.
With EMBEDDINGS=none words are filled, nothing is embedded, and that is said.
Exit code: 0 done, or stopped by --limit or --max-cost; 1 failed, or messages set aside; 130, 143 interrupted."""
NOTHING = f"{OFF}: recall goes by words, nothing is embedded. To embed: EMBEDDINGS=local, or openai and OPENAI_API_KEY"
GO_ON = "run backfill_embeddings again to go on"
STOPS: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}  # contract section 5


@contextmanager
def stopping(limits: Limits) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM stop the run after its batch; which of them came."""
    caught: list[int] = []

    def stop(signum: int, _frame: FrameType | None) -> None:
        caught.append(signum)
        limits.stop = True

    before = {one: signal.signal(one, stop) for one in STOPS}
    try:
        yield caught
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def said_once() -> Iterator[None]:
    """The service's failures are told by the command itself, not by log lines as well, one for each try."""
    logger = logging.getLogger("retrieval")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class Command(OperatorCommand):
    """Parse, run, say."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How much, how fast, how dear."""
        whole = number(1, int, "a whole number, 1 or more")
        dollars = number(0, float, "an amount in US dollars, 0 or more")
        parser.add_argument(
            "--batch-size", type=whole, default=100, help="messages a batch, one call (default 100)"
        )
        parser.add_argument(
            "--sleep",
            type=number(0, float, "seconds, 0 or more"),
            default=1.0,
            help="seconds between batches (1.0)",
        )
        add_table(parser)
        parser.add_argument(
            "--limit", type=whole, help="at most so many messages, over both tables"
        )
        parser.add_argument("--max-cost", type=dollars, help="US dollars that are never exceeded")
        parser.add_argument("--workers", type=whole, default=1, help="calls at once (default 1)")
        parser.add_argument(
            "--retry-failed", action="store_true", help="also those set aside earlier"
        )
        parser.add_argument(
            "--vacuum", action="store_true", help="VACUUM (ANALYZE) the tables at the end"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what there is to do, and do nothing"
        )

    def run(self, **options: Any) -> None:
        """Fill, embed, sum up."""
        limits = Limits(options["limit"], cost.Spending(options["max_cost"]))
        work = Backfill(
            tables=[one for one in message_tables() if options["table"] in (None, one.table)],
            batch_size=options["batch_size"],
            sleep_s=options["sleep"],
            workers=options["workers"],
            limits=limits,
        )
        if options["dry_run"]:
            current_model.refuse_other(embedding_service.configured_name())
            self._say_plan(work, as_json=options["json"])
            return
        with (
            locks.try_advisory_lock(connection, locks.BACKFILL_LOCK) as alone,
            stopping(limits) as caught,
        ):
            if not alone:
                raise CommandError(
                    "another backfill_embeddings is running: let it finish, or stop it first"
                )
            self._work(work, options)
            self._sum_up(work, caught, options)

    def _work(self, work: Backfill, options: dict[str, Any]) -> None:
        if options["retry_failed"]:
            for source in work.tables:
                pending.take_up_again(source)
        with (
            suppress(Stopped),
            said_once(),
            self._told(work.limits, as_json=options["json"]) as told,
        ):
            work.tell = told.say
            for source, filled in work.fill_words():
                told.filled(source.table, filled)
            for report in work.embed():
                told.batch(report, work.limits.spending.usd)
        if work.embedded:
            min_similarity.measure()
        if options["vacuum"] and not work.limits.stop:
            storage.vacuum(work.tables)

    def _told(self, limits: Limits, *, as_json: bool) -> Told:
        """Progress, on standard error where standard output is for one object only.

        Where nobody reads it the run ends as by a signal: what is under way is paid for, and kept.
        """
        out, stream = (self.stderr, sys.stderr) if as_json else (self.stdout, sys.stdout)

        def say(line: str) -> None:
            try:
                out.write(line)
            except BrokenPipeError:
                discard_output(stream)
                limits.stop, limits.reached = True, UNREAD

        return Told(say, stream if out.isatty() else None)

    def _say_plan(self, work: Backfill, *, as_json: bool) -> None:
        """What a run would find; nothing is changed, and messages that recall does not know yet count too."""
        counts = [
            pending.count(one, model=embedding_service.configured_name()) for one in work.tables
        ]
        tokens = sum(one.pending for one in counts) * cost.TOKENS_PER_MESSAGE
        plan: dict[str, Any] = {
            "pending": {
                one.table: count.pending for one, count in zip(work.tables, counts, strict=True)
            },
            "failed": sum(one.failed for one in counts),
            "estimated_cost_usd": round(cost.cost_usd(tokens), 6),
        }
        if as_json:
            self.write_json(plan)
            return
        for table, count in plan["pending"].items():
            self.stdout.write(f"{table}: {count:,} pending")
        about = f"about ${cost.cost_usd(tokens):,.2f}; counted exactly by rag_cost_estimate --exact"
        self.stdout.write(NOTHING if settings.EMBEDDINGS == "none" else about)

    def _sum_up(self, work: Backfill, caught: list[int], options: dict[str, Any]) -> None:
        left = {
            one.table: pending.count(one, model=embedding_service.configured_name())
            for one in work.tables
        }
        waiting = sum(one.pending for one in left.values())
        failed = sum(one.failed for one in left.values())
        stopped_by = stop_of(work.limits, caught, waiting)
        if options["json"]:
            self.write_json(
                {
                    "embedded": work.embedded,
                    "failed": failed,
                    "pending": waiting,
                    "tokens": work.limits.spending.tokens,
                    "cost_usd": round(work.limits.spending.usd, 6),
                    "stopped_by": stopped_by,
                }
            )
        elif stopped_by == OFF:
            self.stdout.write(NOTHING)
        else:
            spent = f"{work.limits.spending.tokens:,} tokens, ${work.limits.spending.usd:,.4f}"
            self.stdout.write(
                f"{work.embedded:,} embedded ({spent}), {waiting:,} pending, {failed:,} set aside"
            )
            self._say_next(work, waiting, stopped_by, options)
        if caught:
            raise CommandError(f"interrupted; {GO_ON}", returncode=STOPS[caught[0]])
        if stopped_by == UNREAD:
            raise CommandError(f"stopped, since nobody reads its output; {GO_ON}")
        if failed and not stopped_by:
            raise CommandError(
                f"{failed:,} messages were refused by the service; --retry-failed tries them again"
            )

    def _say_next(
        self, work: Backfill, waiting: int, stopped_by: str | None, options: dict[str, Any]
    ) -> None:
        if stopped_by in ("limit", "max-cost"):
            self.stdout.write(
                f"Stopped by --{stopped_by}; run it again to go on with the {waiting:,} pending"
            )
        elif work.embedded and not waiting and not options["vacuum"]:
            tables = ", ".join([*(one.table for one in work.tables), "message_memories"])
            self.stdout.write(f"Next: VACUUM (ANALYZE) {tables}; or --vacuum. Then rag_doctor")


def stop_of(limits: Limits, caught: list[int], waiting: int) -> str | None:
    """What ended the run before its work was done; None where it was."""
    if caught:
        return "signal"
    return limits.reached if waiting or limits.reached == OFF else None
