"""Generates answers on the process's event loop, independent of client connections.

One answer, step by step:

1. ``start_answer`` hands a LiveAnswer to the loop and returns at once. The request waits for the
   answer or streams it; a client that disconnects changes nothing.
2. The question is embedded and earlier messages recalled: chat/answers/prepare.py.
3. The model is asked, and each piece of its answer is added to the LiveAnswer.
4. A step saves the answer in the database, and only then lets the listeners go.
5. The answer is embedded here, or by a worker: EMBED_QUEUE.

Steps on the database run in threads (retrieval/steps.py); each returns its connection to the pool.
"""

import asyncio
import contextvars
import logging
from concurrent.futures import Future
from functools import cache, partial
from typing import Any

from django.db import Error
from rest_framework.exceptions import APIException

from chat.answers import endings, long_messages, save_answer
from chat.answers.answer_tokens import answer_tokens, record_unstored
from chat.answers.errors import CompletionError
from chat.answers.heartbeat import Heartbeat
from chat.answers.live_answer import LiveAnswer
from chat.answers.periodic import run_periodic_tasks
from chat.answers.prepare import Preparation
from chat.answers.save_answer import Ending
from chat.answers.shorten import complete_shortened
from chat.errors import DatabaseUnavailable, is_database_away
from chat.memory import embed
from chat.memory.answer_recall import Prepared
from chat.memory.embed import PendingEmbedding
from chat.models import Message, Status
from retrieval import connection_share, event_loop
from retrieval.db_errors import error_name
from retrieval.telemetry import metrics, spans
from retrieval.telemetry.log_context import turn_id

logger = logging.getLogger(__name__)
SAVE_RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # while the database is away
DRAIN_POLL_S = 0.05
SHUTDOWN = Ending(
    Status.INTERRUPTED,
    save_answer.INTERRUPTED,
    "The server stopped before the answer was complete.",
)


class Runner:
    """The answers that this process generates, and its periodic work, on its event loop."""

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}  # running_answers.id → answer
        self.unstored: set[LiveAnswer] = set()  # whose turn has no row: never, or not yet
        # In a context of their own: they must not carry the ids of the request that happened to
        # start the runner.
        self._background_tasks = contextvars.Context().run(self._start_background_tasks)

    def _start_background_tasks(self) -> list[Future[None]]:
        tasks = (Heartbeat(self.answers, self.unstored).run(), run_periodic_tasks())
        return [event_loop.start(task) for task in tasks]

    def start_answer(self, live: LiveAnswer, preparation: Preparation) -> None:
        """Start to generate the answer. From any thread; returns at once."""
        if live.running_id is None:
            self.unstored.add(live)
        else:
            self.answers[live.running_id] = live
        metrics.answer_started()
        event_loop.start(self._run(live, preparation))

    def unstored_of(self, user_id: int) -> int:
        """How many answers of turns that are not stored this process generates for the user."""
        return sum(live.turn.conversation.user_id == user_id for live in list(self.unstored))

    async def drain(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` seconds for the answers to end, then save them as interrupted."""
        await self._wait(grace_s)
        for live in [*self.answers.values(), *self.unstored]:
            live.cancel(SHUTDOWN)
        await self._wait(sum(SAVE_RETRY_PAUSES_S))  # time for the retries of _save

    def close(self) -> None:
        """Stop the periodic work. No answer may be running. Not on the event loop."""
        for task in self._background_tasks:
            task.cancel()
        embed.finish_embedding_jobs()

    async def _wait(self, seconds: float) -> None:
        """Wait until no answer runs, new ones included, or ``seconds`` are over."""
        for _ in range(int(seconds / DRAIN_POLL_S) + 1):
            if not self.answers and not self.unstored:
                return
            await asyncio.sleep(DRAIN_POLL_S)

    async def _run(self, live: LiveAnswer, preparation: Preparation) -> None:
        """Generate, save, publish, embed. Runs to the end even if the client disconnects."""
        live.task = asyncio.current_task()
        turn_id.set(live.log_id)
        with spans.step("turn"):
            live.ending = await self._generate(live, preparation)
            if not live.may_stream.done():
                live.may_stream.set_result(True)
            with embed.running_job():
                with spans.step("turn.save"):
                    pending = await self._save(live, live.ending)
                if pending:
                    with spans.step("turn.answer_embedding"):
                        await embed.store_when_ready(pending)

    async def _generate(self, live: LiveAnswer, preparation: Preparation) -> Ending:
        """Ask the model and collect its answer; every failure becomes an Ending."""
        try:
            async with long_messages.prepared_alone(live.turn.question):
                prepared = await preparation.prompt()
            prompt = prepared.result
            if live.running_id is None:
                live.question_tokens = prepared.bought_tokens
            live.truncated = prompt.truncated
            live.memories = prompt.memories
            if live.store is None:
                live.may_stream.set_result(True)
            with spans.step("turn.model"):
                finish_reason = await complete_shortened(
                    live,
                    prompt,
                    preparation.parameters,
                    before_text=prepared.wait_until_stored,
                    after_word=partial(self._store, live, prepared) if live.store else None,
                )
        except CompletionError as error:
            return endings.failed(live, error)
        except APIException as refusal:
            live.refusal = refusal
            if not live.may_stream.done():
                live.may_stream.set_result(False)  # so that the client gets a plain status
            return Ending(Status.FAILED, str(refusal.get_codes()), str(refusal.detail))
        except asyncio.CancelledError:
            return live.ending or Ending(Status.INTERRUPTED, save_answer.INTERRUPTED)
        except Exception as error:
            if is_database_away(error):
                return endings.failed_without_database(live, error)
            logger.exception("An answer failed")
            return Ending(Status.FAILED, "llm_error", "The answer could not be generated.")
        return Ending(Status.COMPLETE, finish_reason=finish_reason)

    async def _store(self, live: LiveAnswer, prepared: Prepared[Any], context: list[Any]) -> None:
        """Store a turn that waited for the first word of its answer. Raises APIException."""
        user_id = live.turn.conversation.user_id
        try:
            await connection_share.run(user_id, self._store_step, live, prepared, context)
        except Error as error:
            logger.error("A turn could not be stored: %s", error_name(error))
            raise DatabaseUnavailable from error
        turn_id.set(live.log_id)
        if not live.may_stream.done():
            live.may_stream.set_result(True)

    def _store_step(self, live: LiveAnswer, prepared: Prepared[Any], context: list[Any]) -> None:
        """A step: store the turn, the ids that its prompt held, and its question's vector."""
        if live.store is None:
            return
        question = live.turn.question
        live.turn = live.store()
        live.running_id, live.store = live.turn.running_id, None
        question.pk = live.turn.question.pk  # the pending embedding holds this object
        live.question_tokens = 0
        save_answer.save_context(live.turn.answer, context)
        self.unstored.discard(live)
        if live.running_id is not None:
            self.answers[live.running_id] = live
        prepared.store_vectors()

    async def _save(self, live: LiveAnswer, ending: Ending) -> PendingEmbedding | None:
        """Save and publish the answer, with retries; returns what is needed to embed it.

        If all fail, listeners get DatabaseUnavailable, and the heartbeat of any process ends the
        answer later as abandoned. The answer of a turn that is not stored is only published.
        """
        user_id = live.turn.conversation.user_id
        if live.running_id is None:
            await connection_share.run(user_id, record_unstored, live)
            self._publish(live, _unsaved(live, ending))
            return None
        for pause_s in (*SAVE_RETRY_PAUSES_S, None):
            try:
                return await connection_share.run(user_id, self._save_step, live, ending)
            except Error as error:
                logger.error("An answer could not be saved: %s", error_name(error))
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        self._publish(live, DatabaseUnavailable())
        return None

    def _save_step(self, live: LiveAnswer, ending: Ending) -> PendingEmbedding | None:
        """A step: save, publish, and look up what is needed to embed the answer here."""
        saved = save_answer.finish(
            live.turn.answer,
            live.text,
            ending,
            running_id=live.running_id,
            truncated=live.truncated,
            tokens=answer_tokens(live),
        )
        if saved:
            saved.memories = live.memories
        self._publish(live, saved)
        return embed.look_up_or_queue(saved, of_turn=True) if saved else None

    def _publish(self, live: LiveAnswer, saved: Message | DatabaseUnavailable | None) -> None:
        self.unstored.discard(live)
        if live.running_id is not None:
            self.answers.pop(live.running_id, None)
        live.publish_end(saved)


def _unsaved(live: LiveAnswer, ending: Ending) -> Message:
    """The answer of a turn that is not stored, filled in memory only."""
    answer = live.turn.answer
    answer.content, answer.status, answer.error = live.text, ending.status, ending.error
    answer.memories = live.memories
    return answer


@cache
def runner() -> Runner:
    """The process's runner, started by the first call."""
    return Runner()


def find_live_answer(answer: Message) -> LiveAnswer | None:
    """The answer if this process generates it, else None."""
    running = list(runner().answers.values())
    return next((live for live in running if live.turn.answer == answer), None)


async def drain(grace_s: float) -> None:
    """Shutdown: give running answers ``grace_s`` seconds, then save them as interrupted."""
    await runner().drain(grace_s)
