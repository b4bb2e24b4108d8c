"""One table's part of a run: batches begun, waited for, kept. No transaction is open while the service works."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace

from retrieval import current_model, storage
from retrieval.backfill import pending
from retrieval.backfill.embedding_calls import Answer, Refusal, Service, begin
from retrieval.backfill.limits import Limits, Stopped
from retrieval.backfill.pending import Row, Text
from retrieval.embeddings import usage
from retrieval.embeddings.batching import MAX_CALL_TEXTS, MAX_CALL_TOKENS, fit
from retrieval.embeddings.embedding_service import EmbeddingError, Vector
from retrieval.message_tables import MessageTable

REASON_CHARS = 200


@dataclass(frozen=True)
class Report:
    """Where the run stands in a table after a batch: the numbers of a progress line."""

    table: str
    total: int
    batch: int = 0
    embedded: int = 0
    failed: int = 0
    done: int = 0

    def after(self, rows: int, *, embedded: int, failed: int) -> "Report":
        """The next one: a batch of so many rows is done."""
        done = self.done + rows
        total = max(self.total, done)  # messages have come meanwhile
        return replace(
            self, total=total, batch=self.batch + 1, embedded=embedded, failed=failed, done=done
        )


@dataclass
class Batch:
    """Pending rows; the answers for their texts, as far as known; the texts that are being bought, in one call."""

    rows: list[Row]
    answers: dict[Text, Answer]
    bought: list[Text] = field(default_factory=list)
    tokens: int = 0
    call: Future[list[Vector]] | None = None

    @property
    def contents(self) -> list[str]:
        """What the call asks for."""
        return [content for _, content in self.bought]


class Table:
    """The pending rows of a table, embedded by ``model`` a batch at a time."""

    def __init__(
        self, source: MessageTable, model: str, service: Service, limits: Limits, batch_size: int
    ) -> None:
        self._source = source
        self._model = model
        self._service = service
        self._limits = limits
        self._batch_size = min(batch_size, MAX_CALL_TEXTS)
        self._under_way: deque[Batch] = deque()
        self._report = Report(source.table, pending.count_pending(source, model=model))

    def embed(self, *, workers: int, sleep_s: float) -> Iterator[Report]:
        """Up to ``workers`` calls at once; one report a batch, oldest first. Raises as Backfill.embed."""
        try:
            for batch in self._batches():
                self._under_way.append(batch)
                if len(self._under_way) == workers:
                    yield self._finish()
                    self._limits.rest(sleep_s)
            while self._under_way:
                yield self._finish()
        except (EmbeddingError, Stopped):
            self._keep_what_is_under_way()
            raise

    def _batches(self) -> Iterator[Batch]:
        """Begun one by one, as they are asked for."""
        for before in pending.models_before():
            after = 0
            while room := self._limits.room(self._batch_size):
                rows = pending.next_rows(self._source, model=before, after=after, limit=room)
                batch = self._begin(rows)
                if not batch.rows:
                    break
                after = batch.rows[-1].pk
                yield batch

    def _begin(self, rows: list[Row]) -> Batch:
        """As many of the rows as one call and the budget allow; none where not even the first does."""
        batch = Batch([], {**storage.known_of([row.text for row in rows], model=self._model)})
        coming = {text for other in self._under_way for text in other.bought}
        for row in rows:
            if row.text not in batch.answers and row.text not in coming:
                if not self._buy(row.text, batch):
                    break
                coming.add(row.text)
            batch.rows.append(row)
        self._limits.take(len(batch.rows))
        batch.call = begin(batch.contents)
        return batch

    def _buy(self, text: Text, batch: Batch) -> bool:
        """Whether the call and the budget have room for the text; if so, it is in both."""
        tokens = fit(text[1])[1]
        if batch.tokens + tokens > MAX_CALL_TOKENS or not self._limits.buy(tokens):
            return False
        batch.tokens += tokens
        batch.bought.append(text)
        return True

    def _finish(self) -> Report:
        """Wait for the oldest batch, and keep it."""
        batch = self._under_way.popleft()
        try:
            self._wait_for(batch)
        finally:  # a part of it may be there
            embedded, failed = self._keep(batch)
        self._report = self._report.after(len(batch.rows), embedded=embedded, failed=failed)
        return self._report

    def _wait_for(self, batch: Batch) -> None:
        for text, answer in zip(
            batch.bought, self._service.answers(batch.contents, batch.call), strict=True
        ):
            for one in (
                batch,
                *self._under_way,
            ):  # those may have an equal text, which they have not bought again
                one.answers[text] = answer

    def _keep(self, batch: Batch) -> tuple[int, int]:
        """Commit what there is an answer for: how many rows were embedded, and how many set aside."""
        usage.flush()
        # rag_model may have switched: then this is not stored, and nothing more is to be paid for.
        current_model.check_model(self._model, again=True)
        vectors: list[tuple[int, str, Vector]] = []
        failed = 0
        for row in batch.rows:
            answer = batch.answers.get(row.text)
            if isinstance(answer, Refusal):
                failed += pending.set_aside(self._source, row, str(answer)[:REASON_CHARS])
            elif answer is not None:
                vectors.append((row.pk, row.content, answer))
        return storage.store_all(self._source, vectors, model=self._model), failed

    def _keep_what_is_under_way(self) -> None:
        """The run ends, but these calls were made."""
        for batch in self._under_way:
            with suppress(EmbeddingError):
                batch.answers |= zip(
                    batch.bought, batch.call.result() if batch.call else (), strict=False
                )
                self._keep(batch)
