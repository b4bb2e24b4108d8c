"""The run of a backfill: batches begun, waited for, kept. No transaction is open while the service works."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from retrieval import current_model, embeddings, storage, usage
from retrieval.backfill import pending, words
from retrieval.backfill.pending import Row
from retrieval.backfill.service import Answer, Service
from retrieval.cost import Spending
from retrieval.embeddings import InputRefused, NotConfigured, Vector
from retrieval.models import sources
from retrieval.packing import MAX_CALL_TEXTS, MAX_CALL_TOKENS, fit
from retrieval.sources import Source

Text = tuple[int, str]  # (user, content): equal texts of one user are bought once, of two users twice
REASON_CHARS = 200


class Stopped(Exception):
    """The run was asked to stop while it waited."""


@dataclass
class Batch:
    """Some pending rows and the one call under way for those of their texts that nobody has embedded yet."""

    rows: list[Row]
    known: dict[Text, Vector]
    bought: list[Text]
    call: Future[list[Vector]] | None


@dataclass
class Report:
    """Where the run stands in a table after a batch: the numbers of a progress line."""

    table: str
    batch: int
    embedded: int
    failed: int
    done: int
    total: int


@dataclass
class Backfill:
    """One run over the tables. ``stop`` may be set at any time: the batches under way are finished, none is begun.

    ``limit`` counts rows over all tables, ``most_usd`` dollars. Afterwards ``stopped_by`` tells why rows are left:
    ``limit``, ``max-cost``, ``signal``, or None.
    """

    tables: Sequence[Source] = field(default_factory=sources)
    batch_size: int = 100
    sleep_s: float = 0.0
    limit: int | None = None
    workers: int = 1
    spending: Spending = field(default_factory=Spending)
    stop: threading.Event = field(default_factory=threading.Event)
    embedded: int = 0
    failed: int = 0
    stopped_by: str | None = None

    def fill_words(self) -> Iterator[tuple[Source, int]]:
        """Give every message its row in recall's table: the table and how many it was in each step. Needs no key."""
        for source in self.tables:
            for filled in words.fill(source):
                yield source, filled
                if self.stop.is_set():
                    return

    def embed(self) -> Iterator[Report]:
        """Embed what is pending; one report a batch, which is committed by then.

        Raises EmbeddingError, with the batches before it kept; NotConfigured and ModelMismatch before any call;
        sql.NoMemory.
        """
        model = embeddings.model_name()
        if model is None:
            raise NotConfigured("no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local")
        current_model.check_model(model)
        service = Service(self._wait)
        for source in self.tables:
            yield from self._embed_table(source, model, service)

    def _embed_table(self, source: Source, model: str, service: Service) -> Iterator[Report]:
        report = Report(source.table, 0, 0, 0, 0, pending.count_pending(source, model=model))
        under_way: deque[Batch] = deque()
        for batch in self._begin_all(source, model, service):
            under_way.append(batch)
            if len(under_way) >= self.workers:
                yield self._finish(source, under_way.popleft(), model, service, report)
                self._rest()
        while under_way:
            yield self._finish(source, under_way.popleft(), model, service, report)

    def _begin_all(self, source: Source, model: str, service: Service) -> Iterator[Batch]:
        for before in pending.models_before():
            after = 0
            while not self.stop.is_set() and (limit := self._room()):
                rows = pending.next_rows(source, model=before, after=after, limit=limit)
                batch = self._begin(rows, model, service) if rows else None
                if batch is None:
                    break
                after = batch.rows[-1].pk
                yield batch

    def _room(self) -> int:
        """How many rows the next batch may have; 0 where the run is over."""
        if self.stopped_by:
            return 0
        room = self.batch_size if self.limit is None else min(self.batch_size, self.limit)
        if room == 0:
            self.stopped_by = "limit"
        return room

    def _begin(self, rows: list[Row], model: str, service: Service) -> Batch | None:
        """As many of the rows as fit one call and the budget; None where the first does not fit the budget."""
        known = storage.known_of(texts_of(rows), model=model)
        taken, bought = self._fit(rows, known)
        if self.limit is not None:
            self.limit -= len(taken)
        texts = [content for _, content in bought]
        return Batch(taken, known, bought, service.begin(texts) if texts else None) if taken else None

    def _fit(self, rows: list[Row], known: dict[Text, Vector]) -> tuple[list[Row], list[Text]]:
        bought: dict[Text, int] = {}
        for place, row in enumerate(rows):
            text = (row.user_id, row.content)
            if text not in known and text not in bought:
                tokens = fit(row.content)[1]
                if bought and (len(bought) == MAX_CALL_TEXTS or sum(bought.values()) + tokens > MAX_CALL_TOKENS):
                    return rows[:place], list(bought)
                if not self.spending.allows(tokens):
                    self.stopped_by = "max-cost"
                    return rows[:place], list(bought)
                bought[text] = tokens
                self.spending.tokens += tokens
        return rows, list(bought)

    def _finish(self, source: Source, batch: Batch, model: str, service: Service, report: Report) -> Report:
        answers: dict[Text, Answer] = dict(batch.known)
        if batch.bought:
            texts = [content for _, content in batch.bought]
            answers |= zip(batch.bought, service.finish(texts, batch.call), strict=True)
        usage.flush()
        current_model.check_model(model, again=True)  # before it is paid for once more: rag_model may have switched
        report.embedded, report.failed = self._keep(source, batch.rows, answers, model)
        report.batch += 1
        report.done += len(batch.rows)
        report.total = max(report.total, report.done)
        self.embedded += report.embedded
        self.failed += report.failed
        return report

    def _keep(self, source: Source, rows: list[Row], answers: dict[Text, Answer], model: str) -> tuple[int, int]:
        good: list[tuple[Row, Vector]] = []
        failed = 0
        for row in rows:
            answer = answers[row.user_id, row.content]
            if isinstance(answer, InputRefused):
                failed += pending.set_aside(source, row, str(answer)[:REASON_CHARS])
            else:
                good.append((row, answer))
        return storage.store_all(source, [(row.pk, row.content, vector) for row, vector in good], model=model), failed

    def _rest(self) -> None:
        if self.sleep_s:
            self.stop.wait(self.sleep_s)

    def _wait(self, seconds: float) -> None:
        """Until the service may be asked again. Raises Stopped: what waits would have to wait on."""
        if self.stop.wait(seconds):
            raise Stopped


def texts_of(rows: Sequence[Row]) -> list[Text]:
    """What the rows would ask for."""
    return [(row.user_id, row.content) for row in rows]


def backfill(*, batch_size: int) -> int:
    """Fill and embed all that is pending, to the end; how many rows got an embedding. Raises as Backfill.embed."""
    run = Backfill(batch_size=batch_size)
    for _ in run.fill_words():
        pass
    for _ in run.embed():
        pass
    return run.embedded
