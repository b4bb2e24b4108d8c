"""The work of ``embed_worker``: embeds what jobs name, many messages a call, and sweeps.

One thread runs the engine's jobs, which only ring the bell. The main thread gathers what they name
for 2 s, then embeds all answers that wait, those of other workers' jobs too: so the number of calls
does not depend on that of workers. Every 20 s it looks for messages without a job. Meanwhile one of
the workers looks for messages that memory does not know.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from django.conf import settings
from django.db import Error, connection

from retrieval import current_model
from retrieval.backfill import pending
from retrieval.backfill.claims import Claims
from retrieval.backfill.embed_table import TableBackfill
from retrieval.backfill.embedding_calls import RetryingService
from retrieval.backfill.limits import Cancelled, Limits
from retrieval.backfill.missing_rows import FILL_STEPS, MissingRows
from retrieval.backfill.pending import Counts
from retrieval.backfill.progress_line import Report
from retrieval.backfill.sweep import sweep, unclaimed_answers
from retrieval.db import NoMemory
from retrieval.db_errors import error_name
from retrieval.embed_queue import jobs
from retrieval.embed_queue.bell import Bell, install
from retrieval.embed_queue.outage import Outage
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingError, EmbeddingsNotConfigured
from retrieval.message_tables import unpack_ref
from retrieval.models import message_tables
from retrieval.root_cause import root_cause_name

logger = logging.getLogger(__name__)
BATCH_ROWS = 100  # of one call, as backfill_embeddings
IDLE_S = 0.1
GATHER_S = 2.0  # an answer is embedded within 5 s: docs/promises.md
SWEEP_S = 20.0  # with CLAIM_S, a dead worker's messages are embedded within 60 s
# A turn embeds its own question: it takes EMBEDDING_TIMEOUT at most, 10 s by default.
MIN_AGE_S = 30.0
NEAR_REFS = 2_000  # answers of now this far from the newest that was named are embedded with it
FIRST_PAUSE_S, MAX_PAUSE_S = 2.0, 60.0  # while the service fails: doubled each time
ENGINE_PAUSE_S = DATABASE_PAUSE_S = 2.0
STOP_S = 5.0  # how long the engine may take to end
MAX_FAILURES = 5  # that lengthen the pause
ENGINE_AWAY = "The queue %s is away (%s): messages are embedded by sweeps"
NOTHING_COUNTED = Counts(0, 0, 0, 0, 0, server_embeds=False)


@dataclass
class EmbedWorker:
    """Embeds until ``limits`` are cancelled."""

    limits: Limits = field(default_factory=Limits)
    bell: Bell = field(default_factory=Bell)
    claims: Claims = field(default_factory=Claims)
    batch_rows: int = BATCH_ROWS
    _swept_at: float = field(default=-SWEEP_S, init=False)
    _failures: int = field(default=0, init=False)
    _table_runs: list[TableBackfill] = field(default_factory=list, init=False)
    _sweeping: Iterator[Report] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._missing = MissingRows(message_tables(), self.claims)
        self._engine_outage = Outage(logger)
        self._database_outage = Outage(logger)
        self._service_outage = Outage(logger, level=logging.ERROR)

    def run(self) -> None:
        """Run the engine and embed, until cancelled. Only for the main thread."""
        install(self.bell)
        thread = threading.Thread(target=self._serve_jobs, name="jobs", daemon=True)
        thread.start()
        with self.claims:
            while not self.limits.cancelled:
                self._work()
        jobs.engine().stop()
        thread.join(STOP_S)

    def _work(self) -> None:
        """Embed what is due, or pause. Failures are logged once, and tried again for ever."""
        try:
            self._embed_due()
            self._database_outage.end("The database is back")
        except Cancelled:
            pass
        except NoMemory:
            self._database_outage.begin("The database has no memory: run manage.py migrate")
            self._missing.begin_again()
            self.limits.pause(SWEEP_S)
        except EmbeddingError as error:
            self._service_outage.begin("Error generating embeddings: %s", error)
            self._pause_after_failure()
        except Error as error:
            connection.close()
            self._database_outage.begin("The database failed: %s", error_name(error))
            self.limits.pause(DATABASE_PAUSE_S)
            self._swept_at = time.monotonic() - SWEEP_S

    def _embed_due(self) -> None:
        if refs := self.bell.take(age_s=GATHER_S):
            for run in self._runs(of_turns=True):
                self._embed_named(run, refs)
        elif time.monotonic() - self._swept_at >= SWEEP_S:
            self._sweep()
        elif not self._missing.fill_next():
            self.limits.pause(IDLE_S)

    def _embed_named(self, run: TableBackfill, refs: Sequence[int]) -> None:
        """Embed those of these messages that still wait, and answers near them that wait too."""
        named = [pk for kind_bit, pk in map(unpack_ref, refs) if kind_bit == run.table.kind_bit]
        for first in range(0, len(named), self.batch_rows):
            self._embed_waiting(run, named[first : first + self.batch_rows])

    def _embed_waiting(self, run: TableBackfill, named: list[int]) -> None:
        """Until none waits, or a call has left as many: the sweep tries these again."""
        before = len(named) + 1
        while (rows := pending.pending_among(run.table, named)) and len(rows) < before:
            before = len(rows)
            self.limits.wait(0)
            waiting = [run.table.pack_ref(row.pk) for row in rows]
            newest = waiting[-1]
            others = unclaimed_answers(
                run.table,
                after=newest - NEAR_REFS,
                last=newest + NEAR_REFS,
                limit=self.batch_rows,
            )
            batch = list(dict.fromkeys(waiting + others))[: self.batch_rows]
            if not self._succeeded(run.embed_refs(batch)):
                return

    def _sweep(self) -> None:
        """Embed the next call's messages that no job has named. Without any: done for SWEEP_S."""
        if self._failures:  # words need no vectors, which may take days, or fail for as long
            self._missing.fill_some(FILL_STEPS, self.limits)
        current_model.refuse_other(embedding_service.model_name())
        runs = self._runs()
        sweeping = self._sweeping or sweep(runs, min_age_s=MIN_AGE_S)
        self._sweeping = None  # and so it stays if this one raises or ends
        report = next(sweeping, None)
        if self._succeeded(report):
            self._sweeping = sweeping
            self._missing.fill_next()
        else:
            self._swept_at = time.monotonic()

    def _succeeded(self, report: Report | None) -> bool:
        """Whether there was something to embed; then the service works."""
        if report and report.embedded:
            self._failures = 0
            self._service_outage.end("Embeddings are generated again")
        return report is not None

    def _runs(self, *, of_turns: bool = False) -> list[TableBackfill]:
        """One for each table, the same again while the model is the same. Raises EmbeddingError."""
        model = embedding_service.model_name()
        if model is None:
            raise EmbeddingsNotConfigured("no embedding model is configured")
        if not self._table_runs or self._table_runs[0].model != model:
            self._table_runs, self._sweeping = self._runs_by(model), None
        for run in self._table_runs:
            run.of_turns = of_turns
        return self._table_runs

    def _runs_by(self, model: str) -> list[TableBackfill]:
        service = RetryingService(self.limits, lambda _line: None)
        return [
            TableBackfill(
                table, NOTHING_COUNTED, model, service, self.limits, self.claims, self.batch_rows
            )
            for table in message_tables()
        ]

    def _pause_after_failure(self) -> None:
        """Longer each time. Then a sweep finds what was named meanwhile."""
        self.limits.pause(min(FIRST_PAUSE_S * 2**self._failures, MAX_PAUSE_S))
        self._failures = min(self._failures + 1, MAX_FAILURES)
        self._swept_at = time.monotonic() - SWEEP_S

    def _serve_jobs(self) -> None:
        """Run the engine's jobs; begin again when it fails. In a thread of its own."""
        name = settings.EMBED_QUEUE
        while not self.limits.cancelled:
            try:
                jobs.engine().serve(lambda: self._engine_outage.end("The queue %s is back", name))
            except Exception as error:  # noqa: BLE001 - each broker's driver has errors of its own
                self._engine_outage.begin(ENGINE_AWAY, name, root_cause_name(error))
            self.limits.pause(ENGINE_PAUSE_S)
