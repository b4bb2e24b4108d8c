"""Generates answers on one background event loop per process, independent of client connections.

One answer, step by step:

1. ``start_answer`` hands a LiveAnswer to the loop and returns at once. The view waits for the
   answer or streams it; a client that disconnects changes nothing.
2. A thread builds the prompt (chat/answers/prepare.py).
3. The loop asks the model and adds each piece of its answer to the LiveAnswer.
4. The loop saves the answer in the database, and only then lets the listeners go.
5. A background thread embeds the saved answer.

Database steps run in threads; each returns its connection to the pool before any wait.
"""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, ParamSpec, TypeVar

import uvloop
from django.db import Error

from chat.answers import llm, turns
from chat.answers.heartbeat import TICK_S, Heartbeat
from chat.answers.live_answer import LiveAnswer
from chat.answers.llm import CompletionError, complete, llm_address
from chat.answers.periodic import run_periodic_tasks
from chat.answers.prepare import Recall, prepare_prompt
from chat.answers.prompt import Prompt
from chat.answers.turns import Ending
from chat.db import with_connection
from chat.errors import DatabaseUnavailable
from chat.memory import embed
from chat.models import Message, Status
from retrieval.db_errors import error_name

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)
SAVE_RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # while the database is away
DATABASE_THREADS = 4
PROMPT_THREADS = 32  # they mostly wait for the embedding service, without a connection
SHUTDOWN = Ending(
    Status.INTERRUPTED, turns.INTERRUPTED, "The server stopped before the answer was complete."
)


class AnswerLoop:
    """The process's event loop for answers, in a daemon thread, and its two thread pools."""

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}  # running_answers.id → answer
        self.loop = uvloop.new_event_loop()
        self._database = ThreadPoolExecutor(DATABASE_THREADS, "answers-database")
        self._prompts = ThreadPoolExecutor(PROMPT_THREADS, "answers-prompt")
        self._thread = threading.Thread(target=self.loop.run_forever, name="answers", daemon=True)
        self._thread.start()
        self._endless = (
            self._schedule(Heartbeat(self.answers, self._in_db).run()),
            self._schedule(run_periodic_tasks(self._in_db)),
        )

    def start_answer(self, live: LiveAnswer, *, recall: Recall) -> None:
        """Start to generate the answer. Returns at once."""
        self.answers[live.running_id] = live
        preparing = self._prompts.submit(with_connection, prepare_prompt, live.turn, recall=recall)
        self._schedule(self._run(live, preparing))

    def drain(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` seconds for the answers to end, then save them as interrupted."""
        self._wait(grace_s)
        self.loop.call_soon_threadsafe(self._cancel_all)
        self._wait(sum(SAVE_RETRY_PAUSES_S))  # time for the retries of _save

    def close(self) -> None:
        """Stop the loop and its threads. No answer may be running."""
        for endless in self._endless:
            endless.cancel()
        self._schedule(llm.close()).result()
        # One tick later, so that these have ended.
        self.loop.call_soon_threadsafe(self.loop.call_later, TICK_S, self.loop.stop)
        self._thread.join()
        self._database.shutdown()
        self._prompts.shutdown()
        embed.finish_embedding_jobs()
        self.loop.close()

    def _schedule(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        # In an empty context: the caller's would bind the task to the caller's request.
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.answers and time.monotonic() < deadline:
            time.sleep(0.05)

    def _cancel_all(self) -> None:
        for live in list(self.answers.values()):
            live.cancel(SHUTDOWN)

    async def _run(self, live: LiveAnswer, preparing: Future[Prompt]) -> None:
        """Generate, save, publish, embed. Runs to the end even if the client disconnects."""
        live.task = asyncio.current_task()
        live.ending = await self._generate(live, preparing)
        if not live.prepared.done():
            live.prepared.set_result(True)
        saved = await self._save(live, live.ending)
        if isinstance(saved, Message):
            saved.memories = live.memories
        self.answers.pop(live.running_id, None)
        live.finish(saved)
        if isinstance(saved, Message):
            embed.embed_in_background(saved)

    async def _generate(self, live: LiveAnswer, preparing: Future[Prompt]) -> Ending:
        """Ask the model and collect its answer; every failure becomes an Ending."""
        try:
            prompt = await asyncio.wrap_future(preparing)
            live.truncated = prompt.truncated
            live.memories = prompt.memories
            live.prepared.set_result(True)
            await complete(prompt.parts, live.add)
        except CompletionError as error:
            return _failed(live, error)
        except asyncio.CancelledError:
            return live.ending or Ending(Status.INTERRUPTED, turns.INTERRUPTED)
        except Exception:
            logger.exception("An answer failed")
            return Ending(Status.FAILED, "llm_error", "The answer could not be generated.")
        return Ending(Status.COMPLETE)

    async def _save(self, live: LiveAnswer, ending: Ending) -> Message | DatabaseUnavailable | None:
        """Save the answer, with retries. If all fail, another process ends the answer later."""
        for pause_s in (*SAVE_RETRY_PAUSES_S, None):
            try:
                return await self._in_db(
                    turns.finish,
                    live.turn.answer,
                    live.text,
                    ending,
                    running_id=live.running_id,
                    truncated=live.truncated,
                )
            except Error as error:
                logger.error("An answer could not be saved: %s", error_name(error))
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        return DatabaseUnavailable()

    async def _in_db(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.loop.run_in_executor(
            self._database, lambda: with_connection(function, *args, **kwargs)
        )


def _failed(live: LiveAnswer, error: CompletionError) -> Ending:
    """Interrupted if the model said anything, else failed."""
    if error.__cause__ is not None:
        logger.warning("No answer from %s: %s", llm_address(), type(error.__cause__).__name__)
    if not live.prepared.done():
        live.prepared.set_result(False)
    status = Status.INTERRUPTED if live.text else Status.FAILED
    return Ending(status, error.code, str(error))


@cache
def answer_loop() -> AnswerLoop:
    """The process's loop, started by the first call."""
    return AnswerLoop()


def find_live_answer(answer: Message) -> LiveAnswer | None:
    """The answer if this process generates it, else None."""
    running = list(answer_loop().answers.values())
    return next((live for live in running if live.turn.answer == answer), None)


def drain(grace_s: float) -> None:
    """Shutdown: give running answers ``grace_s`` seconds, then save them as interrupted."""
    answer_loop().drain(grace_s)
