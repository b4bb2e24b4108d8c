"""The run of a backfill over the tables."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from django.conf import settings

from retrieval import current_model
from retrieval.backfill import fill_words
from retrieval.backfill.embed_table import Report, Table
from retrieval.backfill.embedding_calls import Service
from retrieval.backfill.limits import OFF, Limits
from retrieval.embeddings import embedding_service
from retrieval.embeddings.embedding_service import NotConfigured
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables


@dataclass
class Backfill:
    """One run: ``batch_size`` rows a batch, ``workers`` calls at once, ``sleep_s`` seconds after each batch.

    ``tell`` is given a line where the run has to wait for the service. ``embedded`` counts rows.
    """

    tables: Sequence[MessageTable] = field(default_factory=message_tables)
    batch_size: int = 100
    sleep_s: float = 0.0
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    tell: Callable[[str], object] = lambda _line: None
    embedded: int = 0

    def fill_words(self) -> Iterator[tuple[MessageTable, int]]:
        """Give every message its row in recall's table: the table and how many it was in each step. Needs no key."""
        for source in self.tables:
            for filled in fill_words.fill(source):
                yield source, filled
                if self.limits.stop:
                    return

    def embed(self) -> Iterator[Report]:
        """Embed what is pending; one report a batch, which is committed by then. Nothing with EMBEDDINGS=none.

        Raises EmbeddingError and Stopped, with what was paid for kept; NotConfigured and ModelMismatch before any
        call; sql.NoMemory.
        """
        if settings.EMBEDDINGS == "none":
            self.limits.reached = OFF
        if self.limits.stop or self.limits.reached:
            return
        model = embedding_service.model_name()
        if model is None:
            raise NotConfigured(
                "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"
            )
        current_model.check_model(model, again=True)
        service = Service(self.limits.wait, self.tell)
        for source in self.tables:
            table = Table(source, model, service, self.limits, self.batch_size)
            for report in table.embed(workers=self.workers, sleep_s=self.sleep_s):
                self.embedded += report.embedded
                yield report


def backfill(*, batch_size: int) -> int:
    """Fill and embed all that is pending, to the end; how many rows got an embedding. Raises as Backfill.embed."""
    run = Backfill(batch_size=batch_size)
    for _ in run.fill_words():
        pass
    for _ in run.embed():
        pass
    return run.embedded
