"""Generates answers on the process's event loop, independent of client connections.

One answer, step by step:

1. ``start_answer`` hands a LiveAnswer to the loop and returns at once. The request waits for the
   answer or streams it; a client that disconnects changes nothing.
2. The question is embedded and earlier messages recalled: chat/answers/prepare.py.
3. The model is asked, and each piece of its answer is added to the LiveAnswer.
4. A step saves the answer in the database, and only then lets the listeners go.
5. The answer is embedded.

Steps on the database run in threads (retrieval/steps.py); each returns its connection to the pool.
"""

import asyncio
import logging
from functools import cache

from django.db import Error

from chat.answers import turns
from chat.answers.errors import CompletionError, LLMNotConfigured
from chat.answers.heartbeat import Heartbeat
from chat.answers.live_answer import LiveAnswer
from chat.answers.llm import llm_address
from chat.answers.periodic import run_periodic_tasks
from chat.answers.prepare import Preparation
from chat.answers.shorten import complete_shortened
from chat.answers.turns import Ending
from chat.errors import DatabaseUnavailable
from chat.memory import embed
from chat.memory.embed import PendingEmbedding
from chat.models import Message, Status
from retrieval import connection_share, event_loop
from retrieval.db_errors import error_name
from retrieval.root_cause import root_cause_name

logger = logging.getLogger(__name__)
SAVE_RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # while the database is away
DRAIN_POLL_S = 0.05
SHUTDOWN = Ending(
    Status.INTERRUPTED, turns.INTERRUPTED, "The server stopped before the answer was complete."
)


class Runner:
    """The answers that this process generates, and its periodic work, on its event loop."""

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}  # running_answers.id → answer
        self._background_tasks = (
            event_loop.start(Heartbeat(self.answers).run()),
            event_loop.start(run_periodic_tasks()),
        )

    def start_answer(self, live: LiveAnswer, preparation: Preparation) -> None:
        """Start to generate the answer. From any thread; returns at once."""
        self.answers[live.running_id] = live
        event_loop.start(self._run(live, preparation))

    async def drain(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` seconds for the answers to end, then save them as interrupted."""
        await self._wait(grace_s)
        for live in list(self.answers.values()):
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
            if not self.answers:
                return
            await asyncio.sleep(DRAIN_POLL_S)

    async def _run(self, live: LiveAnswer, preparation: Preparation) -> None:
        """Generate, save, publish, embed. Runs to the end even if the client disconnects."""
        live.task = asyncio.current_task()
        live.ending = await self._generate(live, preparation)
        if not live.may_stream.done():
            live.may_stream.set_result(True)
        with embed.running_job():
            pending = await self._save(live, live.ending)
            if pending:
                await embed.store_when_ready(pending)

    async def _generate(self, live: LiveAnswer, preparation: Preparation) -> Ending:
        """Ask the model and collect its answer; every failure becomes an Ending."""
        try:
            prepared = await preparation.prompt()
            prompt = prepared.result
            live.truncated = prompt.truncated
            live.memories = prompt.memories
            live.may_stream.set_result(True)
            finish_reason = await complete_shortened(
                live, prompt, before_text=prepared.wait_until_stored
            )
        except CompletionError as error:
            return _failed(live, error)
        except asyncio.CancelledError:
            return live.ending or Ending(Status.INTERRUPTED, turns.INTERRUPTED)
        except Exception:
            logger.exception("An answer failed")
            return Ending(Status.FAILED, "llm_error", "The answer could not be generated.")
        return Ending(Status.COMPLETE, finish_reason=finish_reason)

    async def _save(self, live: LiveAnswer, ending: Ending) -> PendingEmbedding | None:
        """Save and publish the answer, with retries; returns what is needed to embed it.

        If all fail, listeners get DatabaseUnavailable, and a process's heartbeat ends the answer
        later as abandoned.
        """
        user_id = live.turn.conversation.user_id
        for pause_s in (*SAVE_RETRY_PAUSES_S, None):
            try:
                return await connection_share.run(user_id, self._save_once, live, ending)
            except Error as error:
                logger.error("An answer could not be saved: %s", error_name(error))
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        self._publish(live, DatabaseUnavailable())
        return None

    def _save_once(self, live: LiveAnswer, ending: Ending) -> PendingEmbedding | None:
        """A step: save, publish, and look up what is needed to embed the answer."""
        if ending.finish_reason:
            turns.save_finish_reason(live.turn.answer, ending.finish_reason)
        saved = turns.finish(
            live.turn.answer,
            live.text,
            ending,
            running_id=live.running_id,
            truncated=live.truncated,
        )
        if saved:
            saved.memories = live.memories
        self._publish(live, saved)
        return embed.look_up(saved) if saved else None

    def _publish(self, live: LiveAnswer, saved: Message | DatabaseUnavailable | None) -> None:
        self.answers.pop(live.running_id, None)
        live.publish_end(saved)


def _failed(live: LiveAnswer, error: CompletionError) -> Ending:
    """Interrupted if the model said a word, else failed. One line in the log."""
    if not isinstance(error, LLMNotConfigured):
        cause = f" ({root_cause_name(error.__cause__)})" if error.__cause__ else ""
        logger.warning("No answer from %s: %s%s", llm_address(), error, cause)
    if not live.may_stream.done():
        live.may_stream.set_result(False)
    status = Status.INTERRUPTED if live.text.strip() else Status.FAILED
    return Ending(status, error.code, str(error))


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
