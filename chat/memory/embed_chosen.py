"""Embeds messages that an operator has chosen, in the background, a batch of one call at a time.

Nothing is kept of the choice but this task: what it has not embedded is pending, as before, and
backfill_embeddings takes it up. So a process that ends loses no message, and pays at most for the
call that runs then. A failing service ends the task. A refused text is set aside.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from django.db import Error

from chat.memory.embed import remember_job
from retrieval import current_model, event_loop, steps, storage
from retrieval.backfill import pending
from retrieval.backfill.pending import Row, Text
from retrieval.db import NoMemory
from retrieval.db_errors import error_name
from retrieval.embed_queue import jobs
from retrieval.embeddings import embedding_service
from retrieval.embeddings.embedding_service import Call
from retrieval.embeddings.errors import EmbeddingError, InputRefused
from retrieval.message_tables import MessageTable
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)
BATCH_ROWS = 100  # of one call, as backfill_embeddings
MAX_REASON_CHARS = 200  # of what is stored of a refusal, as backfill_embeddings


@dataclass
class Batch:
    """Pending messages, and the calls for those of their texts that are not known yet."""

    model: str
    rows: list[Row] = field(default_factory=list)
    answers: dict[Text, Vector | InputRefused] = field(default_factory=dict)
    call: Call | None = None


class _Process:
    """The task that was started last: the next one waits for it, so nothing is bought twice."""

    last: Future[None] | None = None


def start(table: MessageTable, ids: Sequence[int], *, retry: bool) -> Future[None]:
    """Embed the pending ones of these messages; ``retry``: those that were set aside, too.

    Here, or by workers if there are any. Returns at once. The future completes at the end,
    whatever the outcome.
    """
    if jobs.has_workers():
        return remember_job(steps.submit(_queue, table, list(ids), retry=retry))
    job = event_loop.start(_embed_all(_Process.last, table, list(ids), retry=retry))
    _Process.last = job
    return remember_job(job)


def _queue(table: MessageTable, ids: list[int], *, retry: bool) -> None:
    if retry:
        pending.retry(table, ids)
    jobs.publish([table.pack_ref(pk) for pk in ids])


async def _embed_all(
    earlier: Future[None] | None, table: MessageTable, ids: list[int], *, retry: bool
) -> None:
    if earlier:
        await asyncio.wait([asyncio.wrap_future(earlier)])
    try:
        for first in range(0, len(ids), BATCH_ROWS):
            await _embed_batch(table, ids[first : first + BATCH_ROWS], retry=retry)
    except (EmbeddingError, NoMemory):
        pass  # logged where it was raised; what is left stays pending
    except Error as error:
        logger.error("Error generating embeddings: %s", error_name(error))


async def _embed_batch(table: MessageTable, ids: list[int], *, retry: bool) -> None:
    """Two steps on the database, and between them one call, or several if it is refused."""
    batch = await steps.run(_prepare, table, ids, retry=retry)
    if batch.call:
        texts = [row.text for row in batch.rows if row.text not in batch.answers]
        answers = await _answers(list(dict.fromkeys(texts)), batch.call)
        refusals = [answer for answer in answers.values() if isinstance(answer, InputRefused)]
        if len(refusals) == len(answers) > 1:
            raise refusals[0]  # not one of the texts is the reason, but a setting
        batch.answers |= answers
    await steps.run(_store, table, batch)


def _prepare(table: MessageTable, ids: list[int], *, retry: bool) -> Batch:
    """Raises EmbeddingError if the settings name no model, or not the current one."""
    model = check_model()
    if retry:
        pending.retry(table, ids)
    rows = pending.pending_among(table, ids)
    answers = storage.known_of([row.text for row in rows], model=model) if rows else {}
    missing = list(dict.fromkeys(row.text for row in rows if row.text not in answers))
    call = _call(missing, model) if missing else None
    return Batch(model, rows, dict(answers), call)


def check_model() -> str:
    """The model that embeds. Raises EmbeddingError if there is none, or not the current one."""
    model = embedding_service.model_name()
    if model is None:
        raise EmbeddingError("no embedding model is configured")
    current_model.check_model(model, again=True)
    return model


def _call(texts: Sequence[Text], model: str) -> Call:
    users, contents = zip(*texts, strict=True)
    return embedding_service.prepare(contents, users=users, model=model)


async def _answers(texts: list[Text], call: Call) -> dict[Text, Vector | InputRefused]:
    """Bad texts are found by halving: 2 log2(n) calls for one of n texts."""
    try:
        bought = await embedding_service.embed(call)
        return dict(zip(texts, bought.vectors, strict=True))
    except InputRefused as refusal:
        if len(texts) == 1:
            return {texts[0]: refusal}
    answers: dict[Text, Vector | InputRefused] = {}
    half = len(texts) // 2
    for part in (texts[:half], texts[half:]):
        answers |= await _answers(part, await steps.run(_call, part, call.model))
    return answers


def _store(table: MessageTable, batch: Batch) -> None:
    vectors = []
    for row in batch.rows:
        answer = batch.answers[row.text]
        if isinstance(answer, InputRefused):
            pending.set_aside(table, row, str(answer)[:MAX_REASON_CHARS])
        else:
            vectors.append((row.pk, row.content, answer))
    storage.store_all(table, vectors, model=batch.model)
