"""One run of a backfill over the message tables."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from django.conf import settings

from retrieval import current_model
from retrieval.backfill import fill_words, pending, token_bucket
from retrieval.backfill.claims import Claims
from retrieval.backfill.embed_table import TableBackfill
from retrieval.backfill.embedding_calls import PROBE_TOKENS, RetryingService, check_key
from retrieval.backfill.hnsw_advice import advice, pauses
from retrieval.backfill.limits import EMBEDDINGS_OFF, Limits
from retrieval.backfill.progress_line import Report
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingsNotConfigured
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables

SERVER_CALL_S = 5.0  # after so long a server's call is over, almost always
SERVER_POLL_S = 0.25


@dataclass
class Backfill:
    """One run: ``batch_size`` rows a batch, ``workers`` calls at once, a pause after each batch.

    ``notify`` is given a line whenever the run waits for the service, and before it starts if
    without HNSW indexes it would be faster. ``embedded`` counts rows.
    """

    tables: Sequence[MessageTable] = field(default_factory=message_tables)
    batch_size: int = 100
    sleep_s: float = 0.0
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    claims: Claims = field(default_factory=Claims)
    notify: Callable[[str], object] = lambda _line: None
    embedded: int = 0

    def check_key(self) -> None:
        """Call the service before words are filled, which may take many minutes: one token.

        No call if no words are missing (then the first batch tells), if it would exceed the budget,
        or if ``embed`` will make none. Raises EmbeddingError.
        """
        model = embedding_service.model_name()
        if (
            settings.EMBEDDINGS == "openai"
            and model
            and not current_model.other_than(model)
            and self.limits.spending.allows(PROBE_TOKENS)
            and any(map(fill_words.is_needed, self.tables))
        ):
            check_key()
            self.limits.spending.tokens += PROBE_TOKENS

    def fill_words(self) -> Iterator[tuple[MessageTable, int]]:
        """Give each message that exists now its row in message_memories; how many, by steps."""
        for table in self.tables:
            for rows in fill_words.Fill(table):
                yield table, rows
                if self.limits.cancelled:
                    return

    def embed(self) -> Iterator[Report]:
        """Embed what is pending now; one report for each committed batch.

        Messages that are added later are left to the next run. Nothing with EMBEDDINGS=none.
        Raises EmbeddingsNotConfigured and ModelMismatch before any call, NoMemory, EmbeddingError,
        Cancelled. Vectors that were paid for before an error are stored.
        """
        if settings.EMBEDDINGS == "none":
            self.limits.stopped_by = EMBEDDINGS_OFF
        if self.limits.cancelled or self.limits.stopped_by:
            return
        model = self.model_to_embed()
        until_s = time.monotonic() + SERVER_CALL_S
        counts = [pending.count(table, model=model) for table in self.tables]
        self._notify_slowness(counts)
        with self.claims:
            runs = self.table_runs(counts, model)
            if any(at_start.server_embeds for at_start in counts):
                yield from self._embed_tables(runs, young_too=False)
                self._let_server_finish(runs, until_s)
            yield from self._embed_tables(runs, young_too=True)

    def model_to_embed(self) -> str:
        """The configured model. Raises EmbeddingsNotConfigured, ModelMismatch, NoMemory."""
        model = embedding_service.model_name()
        if model is None:
            raise EmbeddingsNotConfigured(
                "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"
            )
        current_model.check_model(model, again=True)
        return model

    def table_runs(self, counts: Sequence[pending.Counts], model: str) -> list[TableBackfill]:
        """One for each table, which share the service and the limits."""
        service = RetryingService(self.limits, self.notify)
        return [
            TableBackfill(
                table, at_start, model, service, self.limits, self.claims, self.batch_size
            )
            for table, at_start in zip(self.tables, counts, strict=True)
        ]

    def _notify_slowness(self, counts: Sequence[pending.Counts]) -> None:
        rows = [min(each.pending, self.limits.rows or each.pending) for each in counts]
        lines = [advice(table, number) for table, number in zip(self.tables, rows, strict=True)]
        total = min(sum(rows), self.limits.rows or sum(rows))
        batches = math.ceil(total / self.batch_size)
        for line in filter(None, [*lines, pauses(batches, self.sleep_s)]):
            self.notify(line)

    def _embed_tables(self, runs: list[TableBackfill], *, young_too: bool) -> Iterator[Report]:
        # While a call waits for the rate, no other's vectors may wait to be stored.
        workers = 1 if token_bucket.is_limited() else self.workers
        for run in runs:
            for report in run.embed(workers=workers, sleep_s=self.sleep_s, young_too=young_too):
                self.embedded += report.embedded
                yield report

    def _let_server_finish(self, runs: list[TableBackfill], until_s: float) -> None:
        """Wait until a server has embedded what was written just before the start.

        The server does not wait for a backfill: both would buy the same texts.
        """
        while not (self.limits.stopped_by or all(run.is_finished() for run in runs)):
            if self.limits.cancelled or time.monotonic() > until_s:
                return
            self.limits.pause(SERVER_POLL_S)


def backfill(*, batch_size: int) -> int:
    """Embed all that is pending; how many rows were embedded. Raises as ``Backfill.embed``."""
    run = Backfill(batch_size=batch_size)
    for _ in run.fill_words():
        pass
    for _ in run.embed():
        pass
    return run.embedded
