"""Embed the messages that have no embedding yet. docs/promises.md, Commands"""

import sys
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from retrieval import current_model, storage
from retrieval.backfill import EMBEDDINGS_OFF, OUTPUT_CLOSED, Backfill, Cancelled, Limits, pending
from retrieval.backfill.pending import Counts
from retrieval.embeddings import cost, embedding_service
from retrieval.management.arguments import add_table_argument, seconds, us_dollars, whole_number
from retrieval.management.backfill_progress import embed, fill_words, silence_logs
from retrieval.management.cancellation import Cancellation, cancel_on_signal
from retrieval.management.operator_command import OperatorCommand, discard_output
from retrieval.management.progress import Progress
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.recall import min_similarity
from retrieval.schema import locks

HELP = """\
Embed pending messages, oldest first, and index all messages for recall by words. Safe under
traffic. Every finished batch is committed: stop the command at any time and run it again. What it
would cost: rag_cost_estimate.

  manage.py backfill_embeddings --dry-run                  what is pending
  manage.py backfill_embeddings --limit 100 --sleep 0      a first try
  manage.py backfill_embeddings --batch-size 50 --max-cost 5
  manage.py backfill_embeddings --retry-failed             try again what the service refused

With EMBEDDINGS=none it indexes for recall by words and embeds nothing.
Locks: some rows of a message table at a time, for 0.1 s; an edit of one of them waits for that.
Exit code: 0 done, or stopped by --limit or --max-cost; 1 failed, or messages were set aside;
130, 143 interrupted."""
EMBEDS_NOTHING = (
    f"{EMBEDDINGS_OFF}: recall goes by words, nothing is embedded."
    " To embed: EMBEDDINGS=local, or openai and OPENAI_API_KEY"
)
RUN_AGAIN = "run backfill_embeddings again to go on"


class Command(OperatorCommand):
    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--batch-size",
            type=whole_number,
            default=100,
            help="messages a batch, which is one call (default 100)",
        )
        parser.add_argument(
            "--sleep", type=seconds, default=1.0, help="seconds between batches (default 1.0)"
        )
        add_table_argument(parser)
        parser.add_argument(
            "--limit", type=whole_number, help="embed at most so many messages, over both tables"
        )
        parser.add_argument(
            "--max-cost", type=us_dollars, help="US dollars that are never exceeded"
        )
        parser.add_argument(
            "--workers", type=whole_number, default=1, help="calls at once (default 1)"
        )
        parser.add_argument(
            "--retry-failed", action="store_true", help="also messages that were set aside"
        )
        parser.add_argument(
            "--vacuum", action="store_true", help="VACUUM (ANALYZE) the tables at the end"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="show what is pending; change nothing"
        )

    def run(self, **options: Any) -> None:
        work = Backfill(
            tables=[
                source for source in message_tables() if options["table"] in (None, source.table)
            ],
            batch_size=options["batch_size"],
            sleep_s=options["sleep"],
            workers=options["workers"],
            limits=Limits(options["limit"], cost.Spending(options["max_cost"])),
        )
        if options["dry_run"]:
            current_model.refuse_other(embedding_service.configured_name())
            self._report_pending(work, as_json=options["json"])
            return

        def cancel() -> None:
            work.limits.cancelled = True

        with (
            locks.try_advisory_lock(connection, locks.BACKFILL_LOCK) as acquired,
            cancel_on_signal(cancel, message=f"interrupted; {RUN_AGAIN}") as cancellation,
        ):
            if not acquired:
                raise CommandError(
                    "another backfill_embeddings is running: let it finish, or stop it first"
                )
            self._work(work, options)
            self._report(work, cancellation, options)

    def _work(self, work: Backfill, options: dict[str, Any]) -> None:
        if options["retry_failed"]:
            for source in work.tables:
                pending.retry_failed(source)
        with (
            suppress(Cancelled),
            silence_logs(),
            self._progress(work.limits, as_json=options["json"]) as progress,
        ):
            work.notify = progress.write
            fill_words(work, progress)
            embed(work, progress)
        if work.embedded:
            min_similarity.measure()
        if options["vacuum"] and not work.limits.cancelled:
            storage.vacuum(work.tables)

    def _progress(self, limits: Limits, *, as_json: bool) -> Progress:
        """A closed output cancels the run as a signal does: calls that run are still stored."""
        out, stream = (self.stderr, sys.stderr) if as_json else (self.stdout, sys.stdout)

        def write(line: str) -> None:
            try:
                out.write(line, str)
            except BrokenPipeError:
                discard_output(stream)
                limits.cancelled, limits.stopped_by = True, OUTPUT_CLOSED

        return self.progress(on_stderr=as_json, write=write)

    def _report_pending(self, work: Backfill, *, as_json: bool) -> None:
        """What a run would embed; messages that have no row in message_memories yet count too."""
        counts = count_all(work)
        cost_usd = cost.cost_usd(
            sum(count.pending for count in counts.values()) * cost.TOKENS_PER_MESSAGE
        )
        if as_json:
            self.write_json(
                {
                    "pending": {source.table: count.pending for source, count in counts.items()},
                    "failed": sum(count.failed for count in counts.values()),
                    "estimated_cost_usd": round(cost_usd, 6),
                }
            )
            return
        for source, count in counts.items():
            self.stdout.write(f"{source.table}: {count.pending:,} pending")
        estimate = f"about ${cost_usd:,.2f}; counted exactly by rag_cost_estimate --exact"
        self.stdout.write(EMBEDS_NOTHING if settings.EMBEDDINGS == "none" else estimate)

    def _report(self, work: Backfill, cancellation: Cancellation, options: dict[str, Any]) -> None:
        """Raises CommandError if the run failed; after a signal cancel_on_signal does."""
        counts = count_all(work).values()
        waiting, failed = sum(each.pending for each in counts), sum(each.failed for each in counts)
        spending = work.limits.spending
        stopped_by = stop_reason(work.limits, cancellation, waiting)
        if options["json"]:
            self.write_json(
                {
                    "embedded": work.embedded,
                    "failed": failed,
                    "pending": waiting,
                    "tokens": spending.tokens,
                    "cost_usd": round(spending.usd, 6),
                    "stopped_by": stopped_by,
                }
            )
        elif stopped_by == EMBEDDINGS_OFF:
            self.stdout.write(EMBEDS_NOTHING)
        else:
            self.stdout.write(
                f"{work.embedded:,} embedded ({spending.tokens:,} tokens, ${spending.usd:,.4f}),"
                f" {waiting:,} pending, {failed:,} set aside"
            )
            self._say_next(work, waiting, stopped_by, options)
        if stopped_by == OUTPUT_CLOSED:
            raise CommandError(f"stopped: the reader of the output has ended; {RUN_AGAIN}")
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
            tables = ", ".join([*(source.table for source in work.tables), "message_memories"])
            self.stdout.write(
                f"Next: vacuum and analyze {tables}, by SQL or by --vacuum; then run rag_doctor"
            )


def count_all(work: Backfill) -> dict[MessageTable, Counts]:
    """One statement a table, which reads it."""
    model = embedding_service.configured_name()
    return {source: pending.count(source, model=model) for source in work.tables}


def stop_reason(limits: Limits, cancellation: Cancellation, waiting: int) -> str | None:
    """What ended the run before its work was done; None if the work is done."""
    if cancellation:
        return "signal"
    return limits.stopped_by if waiting or limits.stopped_by == EMBEDDINGS_OFF else None
