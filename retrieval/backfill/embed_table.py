"""Embed the pending rows of one table: start batches, wait for their calls, store the vectors.

No transaction waits for the service. While it works on a batch, the batch before is stored.
"""

from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from django.db import Error

from retrieval import current_model, storage
from retrieval.backfill import pending, token_bucket
from retrieval.backfill.batch import Batch
from retrieval.backfill.claims import Claims
from retrieval.backfill.count_turns import count_answers
from retrieval.backfill.embedding_calls import Answer, Refusal, RetryingService
from retrieval.backfill.limits import Cancelled, Limits
from retrieval.backfill.pending import Counts, Row, Text
from retrieval.backfill.progress_line import Report
from retrieval.backfill.row_claims import RowClaims
from retrieval.db import NoMemory
from retrieval.embeddings import usage
from retrieval.embeddings.batching import MAX_CALL_TEXTS, truncate
from retrieval.embeddings.errors import EmbeddingError, InputRefused
from retrieval.message_tables import MessageTable
from retrieval.vectors import Vector

MAX_REASON_CHARS = 200
LARGER_THAN_RATE = (
    "its {tokens:,} tokens are more than EMBEDDING_RATE_TOKENS_PER_MIN, {limit:,}: raise that,"
    " then run backfill_embeddings --retry-failed"
)


@dataclass
class TableBackfill:
    """Embeds the rows that were pending ``at_start`` by ``model``, a batch at a time.

    Rows with higher ids are left to the next run: else a run would not end while others write.
    Rows that another process embeds are left to it.
    """

    table: MessageTable
    at_start: Counts
    model: str
    service: RetryingService
    limits: Limits
    claims: Claims
    batch_size: int
    of_turns: bool = False  # whether answers count towards the daily limits of their users
    _running: deque[Batch] = field(default_factory=deque, init=False)
    _answered: Batch | None = field(default=None, init=False)  # not stored yet
    _unstored: Batch | None = field(default=None, init=False)  # of embed_refs
    _report: Report = field(init=False)
    _rows: RowClaims = field(init=False)

    def __post_init__(self) -> None:
        self._rows = RowClaims(self.table, self.claims)
        self._report = Report(self.table.table, self.at_start.pending)

    def embed(self, *, workers: int, sleep_s: float, young_too: bool) -> Iterator[Report]:
        """Up to ``workers`` calls at once; a report for each batch, oldest first.

        A batch is stored when the next call has been started; before a pause, a batch is stored
        first, because a kill during the pause would lose its vectors. ``young_too``: also messages
        of the last minute. Raises as ``Backfill.embed``.
        """
        try:
            for batch in self._batches(young_too=young_too):
                self._running.append(batch)
                yield from self._store_answered()
                if len(self._running) == workers:
                    self._wait_for_oldest()
                    if sleep_s or token_bucket.is_limited():
                        yield from self._store_answered()
                        self.limits.pause(sleep_s)
            yield from self._store_answered()
            while self._running:
                self._wait_for_oldest()
                yield from self._store_answered()
        except (EmbeddingError, Cancelled, Error):
            self._store_rest()
            raise

    def embed_refs(self, refs: Collection[int]) -> Report | None:
        """Embed those of these messages that are pending and that no other process embeds.

        Of many only as many as one call allows. None if there was nothing to do. Raises as
        ``Backfill.embed``; vectors that the database did not take are kept: ``store_unstored``.
        """
        self.store_unstored()
        rows = self._rows.claim(refs)
        try:
            batch = self._start(rows)
            self._unstored = batch if batch.rows else None
            self._wait_for(batch)
        except (EmbeddingError, Cancelled, Error):
            with suppress(EmbeddingError, Error):
                if self._unstored:  # answers that came before the failure
                    self._store(self._unstored)
            self._unstored = None
            with suppress(Error, NoMemory):
                self._rows.release(rows)
            raise
        return self._store_bought(batch) if batch.rows else None

    def store_unstored(self) -> Report | None:
        """Store what was paid for when the database failed; it is claimed still. None if nothing.

        Raises as ``embed_refs``.
        """
        return self._store_bought(self._unstored) if self._unstored else None

    def _store_bought(self, batch: Batch) -> Report:
        try:
            report = self._store_and_report(batch)
        except EmbeddingError:  # another model is the current one by now
            self._unstored = None
            with suppress(Error, NoMemory):
                self._rows.release(batch.rows)
            raise
        self._unstored = None
        return report

    def is_finished(self) -> bool:
        """Whether nothing without a vector is left of what was pending at the start."""
        last = self.at_start.last_pending
        return not pending.next_rows(self.table, model=None, after=0, last=last, limit=1)

    def _batches(self, *, young_too: bool) -> Iterator[Batch]:
        """Each batch is started when the caller asks for it."""
        batch_size = min(self.batch_size, MAX_CALL_TEXTS)
        for old_model in pending.models_of_pending():
            after, last = 0, self.at_start.last_pending
            while limit := self.limits.rows_for_batch(batch_size):
                rows = pending.next_rows(
                    self.table, model=old_model, after=after, last=last, limit=limit
                )
                if not rows:
                    break
                chosen = self._rows.claim(
                    self.table.pack_ref(row.pk) for row in rows if young_too or not row.young
                )
                batch = self._start(chosen)
                if batch.rows:
                    yield batch
                if len(batch.rows) == len(chosen):
                    after = rows[-1].pk
                elif batch.rows:
                    after = batch.rows[-1].pk
                else:
                    break

    def _start(self, rows: list[Row]) -> Batch:
        """A batch of as many rows as one call and the budget allow; empty if none fits."""
        # rag_model may have switched: then no more calls are made.
        current_model.check_model(self.model, again=True)
        batch = Batch([], self._known_answers([row.text for row in rows]))
        in_calls = {text for other in self._running for text in other.bought}
        for row in rows:
            if row.text not in batch.answers and row.text not in in_calls:
                if not self._buy(row.text, batch):
                    break
                in_calls.add(row.text)
            batch.rows.append(row)
        self._rows.release(rows, but=batch.rows)
        self.limits.count_rows(len(batch.rows))
        batch.call = self.service.start_call(batch.bought)
        return batch

    def _known_answers(self, texts: list[Text]) -> dict[Text, Answer]:
        """The vectors of these texts that the table, or the batch not stored yet, has already."""
        known: dict[Text, Answer] = {**storage.known_of(texts, model=self.model)}
        if self._answered:
            answers = self._answered.answers
            known |= {text: answers[text] for text in texts if text in answers}
        return known

    def _buy(self, text: Text, batch: Batch) -> bool:
        """Add the text to the batch's call; False if the call or the budget has no room for it."""
        tokens, limit = truncate(text[1]).tokens, token_bucket.max_call_tokens()
        if tokens > limit:
            batch.answers[text] = InputRefused(LARGER_THAN_RATE.format(tokens=tokens, limit=limit))
            return True
        if batch.tokens + tokens > limit or not self.limits.spend(tokens):
            return False
        batch.tokens += tokens
        batch.bought.append(text)
        return True

    def _wait_for_oldest(self) -> None:
        """Wait for the answers to the oldest batch; some may come before an error is raised."""
        self._answered = self._running.popleft()
        self._wait_for(self._answered)

    def _store_answered(self) -> Iterator[Report]:
        """Store the answered batch, if there is one, and report it."""
        batch, self._answered = self._answered, None
        if batch:
            yield self._store_and_report(batch)

    def _store_and_report(self, batch: Batch) -> Report:
        embedded, failed = self._store(batch)
        answered = sum(row.text in batch.answers for row in batch.rows)
        self._report = self._report.next(answered, embedded=embedded, failed=failed)
        return self._report

    def _wait_for(self, batch: Batch) -> None:
        for text, answer in self.service.answers(batch.bought, batch.call):
            # Later batches may have an equal text, which they have not bought again.
            for waiting in (batch, *self._running):
                waiting.answers[text] = answer

    def _store(self, batch: Batch) -> tuple[int, int]:
        """Commit the answers that came: how many rows were embedded, and how many set aside."""
        usage.flush()
        current_model.check_model(self.model, again=True)
        vectors: list[tuple[int, str, Vector]] = []
        failed = 0
        for row in batch.rows:
            answer = batch.answers.get(row.text)
            if isinstance(answer, Refusal):
                failed += pending.set_aside(self.table, row, str(answer)[:MAX_REASON_CHARS])
            elif answer is not None:
                vectors.append((row.pk, row.content, answer))
        embedded = storage.store_all(self.table, vectors, model=self.model)
        self._rows.release(batch.rows)
        if self.of_turns:
            count_answers(batch.rows, batch.bought)
        return embedded, failed

    def _store_rest(self) -> None:
        """The run ends with an error, but calls are paid for: store their vectors, if possible."""
        for batch in self._running:
            with suppress(EmbeddingError):
                vectors = batch.call.result() if batch.call else ()
                batch.answers |= zip(batch.bought, vectors, strict=False)
        batches = list(filter(None, (self._answered, *self._running)))
        self._answered = None
        self._running.clear()
        for batch in batches:
            with suppress(EmbeddingError, Error):
                self._store(batch)
