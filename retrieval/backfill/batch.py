"""The rows that one call embeds."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from retrieval.backfill.embedding_calls import Answer
from retrieval.backfill.pending import Row, Text
from retrieval.vectors import Vector


@dataclass
class Batch:
    """Pending rows, and one call for those texts that are bought; ``answers`` come with it."""

    rows: list[Row]
    answers: dict[Text, Answer]
    bought: list[Text] = field(default_factory=list)
    tokens: int = 0
    call: Future[list[Vector]] | None = None
