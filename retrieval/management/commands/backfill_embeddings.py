"""Embed pending messages, oldest first, and index all messages for recall by words.

Safe under traffic. Every finished batch is committed: stop the command at any time and run it
again. A run embeds what was pending at its start; at its end it says how many messages were
written or edited meanwhile, which the next run embeds. What it would cost: rag_cost_estimate.

  manage.py backfill_embeddings --dry-run                  what is pending
  manage.py backfill_embeddings --limit 100 --sleep 0      a first try
  manage.py backfill_embeddings --batch-size 50 --max-cost 5
  manage.py backfill_embeddings --retry-failed             try again what the service refused
  manage.py backfill_embeddings --follow                   look again every 10 s, until stopped

--follow embeds messages that are a minute old. Workers and another backfill may run at the same
time. A service that is away does not end it, a refused key does.
With EMBEDDINGS=none it indexes for recall by words and embeds nothing.
Locks: some rows of a message table at a time, for 0.1 s; an edit of one of them waits for that.
Exit code: 0 done, or stopped by --limit or --max-cost; 1 failed, or messages were set aside;
130, 143 interrupted.
"""

import sys
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import Error, connection

from retrieval import audit, current_model, storage
from retrieval.backfill import Backfill, pending
from retrieval.backfill.claims import BACKFILL_HOLDER, Claims
from retrieval.backfill.follow import follow
from retrieval.backfill.limits import EMBEDDINGS_OFF, OUTPUT_CLOSED, Cancelled, Limits
from retrieval.backfill.pending import Counts
from retrieval.embeddings import cost, embedding_service
from retrieval.management.arguments import add_table_argument, seconds, us_dollars, whole_number
from retrieval.management.backfill_progress import embed, fill_words, silence_logs
from retrieval.management.cancellation import cancel_on_signal
from retrieval.management.operator_command import OperatorCommand, discard_output
from retrieval.management.progress import Progress
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.recall import min_similarity
from retrieval.schema import locks
from retrieval.schema.timeouts import without_timeouts

EMBEDS_NOTHING = (
    f"{EMBEDDINGS_OFF}: recall goes by words, nothing is embedded."
    " To embed: EMBEDDINGS=local, or openai and OPENAI_API_KEY"
)
ENDLESS = "--follow goes on for ever: without --limit, --max-cost and --dry-run"
RUN_AGAIN = "run backfill_embeddings again to go on"
NEW_MESSAGES = (
    "{waiting:,} pending were written or edited during the run: run backfill_embeddings again,"
    " once processes that do not embed have stopped"
)


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        add = parser.add_argument
        add("--batch-size", type=whole_number, default=100, help="messages a call (default 100)")
        add("--sleep", type=seconds, default=1.0, help="seconds between batches (default 1.0)")
        add_table_argument(parser)
        add("--limit", type=whole_number, help="at most so many messages, over both tables")
        add("--max-cost", type=us_dollars, help="US dollars that are never exceeded")
        add("--workers", type=whole_number, default=1, help="calls at once (default 1)")
        add("--retry-failed", action="store_true", help="also messages that were set aside")
        add("--vacuum", action="store_true", help="VACUUM (ANALYZE) the tables at the end")
        add("--dry-run", action="store_true", help="show what is pending; change nothing")
        add("--follow", action="store_true", help="go on for ever: embed what becomes pending")

    def run(self, **options: Any) -> None:
        run = Backfill(
            tables=[table for table in message_tables() if options["table"] in (None, table.table)],
            batch_size=options["batch_size"],
            sleep_s=options["sleep"],
            workers=options["workers"],
            limits=Limits(options["limit"], cost.Spending(options["max_cost"])),
            claims=Claims(None if options["follow"] else BACKFILL_HOLDER),
        )
        if options["follow"]:
            self._follow(run, options)
            return
        if options["dry_run"]:
            current_model.refuse_other(embedding_service.configured_name())
            self._report_pending(run, options)
            return
        with (
            locks.try_advisory_lock(connection, locks.BACKFILL_LOCK) as acquired,
            cancel_on_signal(run.limits.cancel, message=f"interrupted; {RUN_AGAIN}") as signals,
        ):
            if not acquired:
                raise CommandError(
                    "another backfill_embeddings is running: let it finish, or stop it first"
                )
            audit.record_command("backfill_embeddings")
            self._work(run, options)
            self._finish(run, options, signals)

    def _follow(self, run: Backfill, options: dict[str, Any]) -> None:
        """Until a signal, which ``cancel_on_signal`` reports."""
        if options["limit"] or options["max_cost"] is not None or options["dry_run"]:
            raise CommandError(ENDLESS, returncode=2)
        stopped = f"stopped; {RUN_AGAIN}"
        with cancel_on_signal(run.limits.cancel, message=stopped) as signals:
            audit.record_command("backfill_embeddings")
            self._work(run, options)
            self._finish(run, options, signals)

    def _work(self, run: Backfill, options: dict[str, Any]) -> None:
        if options["retry_failed"]:
            for table in run.tables:
                pending.retry_failed(table)
        progress = self._progress(run.limits, as_json=options["json"])
        with suppress(Cancelled), silence_logs(), progress:
            run.notify = progress.write
            run.check_key()
            fill_words(run, progress)
            embed(follow(run) if options["follow"] else run.embed(), run, progress)

    def _finish(self, run: Backfill, options: dict[str, Any], signals: list[int]) -> None:
        """Measure, vacuum and report. After a signal the database may be away: no report then."""
        try:
            if run.embedded:
                min_similarity.measure()
            if options["vacuum"] and not run.limits.cancelled:
                with without_timeouts(connection):
                    storage.vacuum(run.tables)
            self._report(run, "signal" if signals else run.limits.stopped_by, options)
        except Error:
            if not signals:
                raise

    def _progress(self, limits: Limits, *, as_json: bool) -> Progress:
        """A closed output cancels the run as a signal does: calls that run are still stored."""
        out, stream = (self.stderr, sys.stderr) if as_json else (self.stdout, sys.stdout)

        def write(line: str) -> None:
            try:
                out.write(line, str)
            except BrokenPipeError:
                discard_output(stream)
                limits.stopped_by = OUTPUT_CLOSED
                limits.cancel()

        return self.progress(on_stderr=as_json, write=write)

    def _report_pending(self, run: Backfill, options: dict[str, Any]) -> None:
        """What a run would embed; messages that have no row in message_memories yet count too."""
        counts = count_all(run)
        messages = sum(count.pending for count in counts.values())
        cost_usd = cost.cost_usd(messages * cost.TOKENS_PER_MESSAGE)
        as_json = {
            "pending": {table.table: count.pending for table, count in counts.items()},
            "failed": sum(count.failed for count in counts.values()),
            "estimated_cost_usd": round(cost_usd, 6),
        }
        lines = [f"{table.table}: {count.pending:,} pending" for table, count in counts.items()]
        estimate = f"about ${cost_usd:,.2f}; counted exactly by rag_cost_estimate --exact"
        lines.append(EMBEDS_NOTHING if settings.EMBEDDINGS == "none" else estimate)
        self.report(options, as_json, *lines)

    def _report(self, run: Backfill, stopped_by: str | None, options: dict[str, Any]) -> None:
        """Raises CommandError if the run failed; after a signal cancel_on_signal does."""
        counts = count_all(run).values()
        waiting, failed = sum(each.pending for each in counts), sum(each.failed for each in counts)
        if not waiting and stopped_by not in ("signal", EMBEDDINGS_OFF):
            stopped_by = None  # the last batch was the last of the work
        spending = run.limits.spending
        as_json = {
            "embedded": run.embedded,
            "failed": failed,
            "pending": waiting,
            "tokens": spending.tokens,
            "cost_usd": round(spending.usd, 6),
            "stopped_by": stopped_by,
        }
        spent = f"{spending.tokens:,} tokens, ${spending.usd:,.4f}"
        lines = [f"{run.embedded:,} embedded ({spent}), {waiting:,} pending, {failed:,} set aside"]
        if stopped_by == EMBEDDINGS_OFF:
            lines = [EMBEDS_NOTHING]
        elif stopped_by in ("limit", "max-cost"):
            lines.append(
                f"Stopped by --{stopped_by}; run it again to go on with the {waiting:,} pending"
            )
        elif not stopped_by:
            lines += next_steps(run, waiting, vacuum=not options["vacuum"])
        self.report(options, as_json, *lines)
        if stopped_by == OUTPUT_CLOSED:
            raise CommandError(f"stopped: the reader of the output has ended; {RUN_AGAIN}")
        if failed and not stopped_by:
            raise CommandError(
                f"{failed:,} messages were refused by the service; --retry-failed tries them again"
            )


def next_steps(run: Backfill, waiting: int, *, vacuum: bool) -> list[str]:
    """What to do after a run that went through all that was pending at its start."""
    lines = [NEW_MESSAGES.format(waiting=waiting)] if waiting else []
    if run.embedded and vacuum:
        tables = ", ".join([*(table.table for table in run.tables), "message_memories"])
        lines.append(
            f"Next: vacuum and analyze {tables}, by SQL or by --vacuum; then run rag_doctor"
        )
    return lines


def count_all(run: Backfill) -> dict[MessageTable, Counts]:
    """One statement a table, which reads it."""
    model = embedding_service.configured_name()
    return {table: pending.count(table, model=model) for table in run.tables}
